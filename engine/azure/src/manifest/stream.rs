use std::fmt;
use std::io;

use crate::hash::Md5;
use crate::units::ByteLen;

/// Appends the next piece to an empty buffer; nothing at the end.
type Render<'a> = Box<dyn FnMut(&mut Vec<u8>) -> io::Result<()> + Send + 'a>;

/// A manifest streamed to the drive: rendered a piece at a time on demand, and hashed. It may be gigabytes.
pub struct ManifestStream<'a> {
    render: Render<'a>,
    piece: Vec<u8>,
    taken: usize,
    len: u64,
    md5: Md5,
}

impl<'a> ManifestStream<'a> {
    /// A stream of the pieces that `render` appends to an empty buffer, until it appends nothing.
    pub fn new(render: impl FnMut(&mut Vec<u8>) -> io::Result<()> + Send + 'a) -> Self {
        Self { render: Box::new(render), piece: Vec::new(), taken: 0, len: 0, md5: Md5::new() }
    }

    /// Fills `out` from its start; fewer bytes than it has room for mean the end.
    ///
    /// # Errors
    /// Errors of rendering: the hashes cannot be read.
    pub fn fill(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            if self.taken == self.piece.len() {
                self.piece.clear();
                self.taken = 0;
                (self.render)(&mut self.piece)?;
                if self.piece.is_empty() {
                    break;
                }
            }
            let n = (self.piece.len() - self.taken).min(out.len() - filled);
            out[filled..filled + n].copy_from_slice(&self.piece[self.taken..self.taken + n]);
            self.taken += n;
            filled += n;
        }
        self.md5.update(&out[..filled]);
        self.len += filled as u64;
        Ok(filled)
    }

    /// Length and MD5 of the bytes returned so far.
    pub fn finish(self) -> (ByteLen, [u8; 16]) {
        (ByteLen(self.len), self.md5.finish())
    }
}

impl fmt::Debug for ManifestStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManifestStream").field("len", &self.len).finish_non_exhaustive()
    }
}
