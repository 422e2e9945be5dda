//! The ranges of a page blob listed in the manifest: the runs that are not all zero.

use crate::units::StreamRange;

/// Zeros are detected in pieces of 4 KiB, the unit of sparse files. The documented unit is 512 bytes.
pub const RUN_GRANULE: usize = 4096;

/// Most runs that a chunk of 4 MiB can fall into.
pub const RUNS_MAX: usize = runs_max(4 << 20) as usize;

/// Most runs that a chunk of `len` bytes can fall into: every other piece is zero.
pub const fn runs_max(len: u64) -> u64 {
    len.div_ceil(RUN_GRANULE as u64).div_ceil(2)
}

/// Appends the runs of `chunk` that are not all zero, as offsets in the chunk, in ascending order. All but a last one at
/// the end of the chunk start and end on [`RUN_GRANULE`]; a chunk of whole 512-byte pages gives runs of whole pages.
pub fn nonzero_runs(chunk: &[u8], out: &mut Vec<StreamRange>) {
    let mut open: Option<u64> = None;
    let mut at = 0;
    for piece in chunk.chunks(RUN_GRANULE) {
        match (is_zero(piece), open) {
            (true, Some(start)) => {
                out.push(StreamRange::new(start, at - start));
                open = None;
            }
            (false, None) => open = Some(at),
            _ => {}
        }
        at += piece.len() as u64;
    }
    if let Some(start) = open {
        out.push(StreamRange::new(start, at - start));
    }
}

/// Whole words at a time, without a branch for each: the compiler makes vectors of it.
fn is_zero(piece: &[u8]) -> bool {
    piece.chunks(256).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}
