//! An image that is packed by gzip or Zstandard: read from its beginning to its end, never elsewhere. It is read twice: once
//! for its length and both its ends, where tables lie, and once for the drives.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::units::{ByteLen, DeviceOffset};

/// Bytes that are kept of each end: partition tables, and the front that is written last.
const END: usize = 1 << 20;

/// Bytes of one read of the packed file, and of what comes out of it.
const READ_LEN: usize = 1 << 20;

/// Ways of packing that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Gzip,
    Zstandard,
}

/// A packed image: its length and its ends.
pub(super) struct Packed {
    path: PathBuf,
    form: Form,
    len: u64,
    head: Vec<u8>,
    /// The last bytes.
    tail: Vec<u8>,
}

impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed").field("path", &self.path).field("form", &self.form).field("len", &self.len).finish()
    }
}

impl Packed {
    /// Reads the file to its end; `None` if it is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn look(path: &Path) -> io::Result<Option<Self>> {
        let Some(form) = form(path)? else { return Ok(None) };
        let mut this = Self { path: path.to_owned(), form, len: 0, head: Vec::new(), tail: Vec::new() };
        let mut input = this.reader()?;
        let mut buffer = vec![0; READ_LEN];
        loop {
            let got = input.read(&mut buffer)?;
            if got == 0 {
                break;
            }
            this.len += got as u64;
            let missing = (END - this.head.len()).min(got);
            this.head.extend_from_slice(&buffer[..missing]);
            this.tail.extend_from_slice(&buffer[..got]);
            if this.tail.len() > 4 * END {
                this.tail.drain(..this.tail.len() - END);
            }
        }
        Ok(Some(this))
    }

    /// The image, from its first byte on.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reader(&self) -> io::Result<Box<dyn Read + Send>> {
        let input = BufReader::with_capacity(READ_LEN, File::open(&self.path)?);
        Ok(match self.form {
            Form::Gzip => Box::new(MultiGzDecoder::new(input)),
            Form::Zstandard => Box::new(Frames { decoder: None, rest: Some(input) }),
        })
    }

    /// Length of the image.
    pub fn len(&self) -> ByteLen {
        ByteLen(self.len)
    }

    /// Fills `into` from byte `at` of the image, at one of its ends.
    ///
    /// # Errors
    /// These bytes are in the middle.
    pub fn read_exact_at(&self, into: &mut [u8], at: DeviceOffset) -> io::Result<()> {
        let tail_at = self.len - self.tail.len() as u64;
        let part = |bytes: &[u8], from: u64| {
            let start = usize::try_from(at.0.checked_sub(from)?).ok()?;
            bytes.get(start..start.checked_add(into.len())?).map(<[u8]>::to_vec)
        };
        let bytes = part(&self.head, 0).or_else(|| part(&self.tail, tail_at));
        let bytes = bytes.ok_or_else(|| io::Error::other("lies in the middle of a packed image: unpack it first"))?;
        into.copy_from_slice(&bytes);
        Ok(())
    }
}

fn form(path: &Path) -> io::Result<Option<Form>> {
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let mut mark = [0; 4];
    let mut file = File::open(path)?;
    let got = file.read(&mut mark)?;
    Ok(match &mark[..got] {
        [0x1F, 0x8B, 8, _] => Some(Form::Gzip),
        [0x28, 0xB5, 0x2F, 0xFD] => Some(Form::Zstandard),
        _ => None,
    })
}

/// The frames of a Zstandard file, one behind the other (RFC 8878, section 3.1).
struct Frames<R: BufRead> {
    decoder: Option<StreamingDecoder<R, FrameDecoder>>,
    /// Between two frames.
    rest: Option<R>,
}

/// Skippable frames have this number, but for its last four bits.
const SKIPPABLE: u32 = 0x184D_2A50;

impl<R: BufRead> Frames<R> {
    /// Passes frames that hold no data; whether another frame follows.
    fn skip(rest: &mut R) -> io::Result<bool> {
        loop {
            let ahead = rest.fill_buf()?;
            let Some(mark) = ahead.first_chunk::<4>() else { return Ok(!ahead.is_empty()) };
            if u32::from_le_bytes(*mark) & !0xF != SKIPPABLE {
                return Ok(true);
            }
            let mut head = [0; 8];
            rest.read_exact(&mut head)?;
            let len = u64::from(u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
            if io::copy(&mut rest.by_ref().take(len), &mut io::sink())? != len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.decoder {
                let got = decoder.read(out)?;
                if got > 0 || out.is_empty() {
                    return Ok(got);
                }
            }
            if let Some(decoder) = self.decoder.take() {
                let (rest, frame) = decoder.into_parts();
                let said = frame.get_checksum_from_data();
                if said.is_some() && said != frame.get_calculated_checksum() {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the checksum of a frame differs"));
                }
                self.rest = Some(rest);
            }
            let Some(mut rest) = self.rest.take() else { return Ok(0) };
            if !Self::skip(&mut rest)? {
                self.rest = Some(rest);
                return Ok(0);
            }
            self.decoder = Some(StreamingDecoder::new(rest).map_err(io::Error::other)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 7) ^ (i >> 9)) as u8).collect()
    }

    /// Packs a file by a program; `None`, loudly, without it.
    fn packed(name: &str, line: &str, content: &[u8]) -> Option<PathBuf> {
        let dir = std::env::temp_dir().join(format!("dray-packed-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::write(dir.join("raw"), content).expect("a file");
        let ran = Command::new("sh").args(["-c", line]).current_dir(&dir).status().expect("sh");
        if !ran.success() {
            eprintln!("SKIPPED judge: {line}");
            return None;
        }
        Some(dir.join("packed"))
    }

    #[test]
    fn judge_what_programs_packed_is_read_back_and_damage_is_found() {
        let content = bytes(9 << 20);
        let skippable = "printf '\\120\\052\\115\\030\\003\\000\\000\\000abc'";
        for (name, line) in [
            ("gzip", "gzip -c raw > packed".to_owned()),
            ("members", "head -c 5000000 raw | gzip > packed; tail -c +5000001 raw | gzip >> packed".to_owned()),
            ("zstd", "zstd -q -c raw > packed".to_owned()),
            (
                "frames",
                format!(
                    "head -c 5000000 raw | zstd -q > packed; {skippable} >> packed; tail -c +5000001 raw | zstd -q >> packed"
                ),
            ),
        ] {
            let Some(path) = packed(name, &line, &content) else { continue };
            let image = Packed::look(&path).expect("readable").expect("packed");
            assert_eq!(image.len(), ByteLen(content.len() as u64), "{name}");
            let mut whole = Vec::new();
            image.reader().and_then(|mut reader| reader.read_to_end(&mut whole)).expect("readable");
            assert!(whole == content, "{name}");
            for at in [0, 4096, content.len() - 4096] {
                let mut part = vec![0; 4096];
                image.read_exact_at(&mut part, DeviceOffset(at as u64)).expect("an end");
                assert_eq!(part, content[at..at + 4096], "{name} at {at}");
            }
            assert!(image.read_exact_at(&mut [0; 512], DeviceOffset(2 << 20)).is_err());
            // A byte of its end, or the end itself, is missing or another.
            let mut damaged = std::fs::read(&path).expect("packed");
            let last = damaged.len() - 6;
            damaged[last] ^= 1;
            std::fs::write(&path, &damaged).expect("written");
            assert!(Packed::look(&path).is_err(), "{name}: a changed byte");
            std::fs::write(&path, &damaged[..last - 100]).expect("written");
            assert!(Packed::look(&path).is_err(), "{name}: cut off");
            let _ = std::fs::remove_dir_all(path.parent().expect("a directory"));
        }
    }
}
