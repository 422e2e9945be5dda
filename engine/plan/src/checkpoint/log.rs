//! The outcome log: frames of kind, length and contents.
//!
//! ```text
//! 0  u8   kind
//! 1  u32  length of the contents
//! 5  …    1 batch:    u64 number, u32 bytes written, u64 CRC-64/NVME of them before sealing, hashes
//!         2 left out: u32 file of the drive's tree, reason as UTF-8
//!         3 property: u32 file of the drive's tree, 16 bytes MD5
//!         4 parts:    u64 number of the batch before it, u64 CRC-64/NVME of each part of a file in it, where they are listed
//!         5 chain:    u64 number of the batch before it, u64 length and state of MD5 of the hash block that continues after
//!                     it, state of the file's where it is hashed as a whole
//! ```
//!
//! Batches come in the order of the plan without gaps; the others when they happen. Of two about one file the later counts.

use super::CheckpointFault;
use super::code::{Decoder, Encoder};

/// Bytes of a frame before its contents.
pub const HEAD_LEN: usize = 5;

/// Longest frame: hashes of a batch of 4 MiB in which every other page of 512 bytes is a run of its own.
pub const FRAME_LEN_MAX: usize = 1 << 20;

const BATCH: u8 = 1;
const LEFT_OUT: u8 = 2;
const PROPERTY: u8 = 3;
const PARTS: u8 = 4;
const CHAIN: u8 = 5;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A batch was filled and hashed.
    Batch {
        /// Its number in the plan.
        number: u64,
        /// Bytes of it that were written.
        len: u32,
        /// Their checksum before sealing.
        crc: u64,
        /// Its hashes, encoded by the pipeline.
        hashes: &'a [u8],
    },
    /// A file is not on the volume.
    LeftOut {
        /// Number of the file in the drive's tree.
        file: u32,
        /// The reason, as the report prints it.
        why: &'a str,
    },
    /// A metadata or properties file was read.
    Property {
        /// Number of the file in the drive's tree.
        file: u32,
        /// MD5 of its contents.
        md5: [u8; 16],
    },
    /// The parts of files in the batch before it.
    Parts {
        /// Number of the batch in the plan.
        number: u64,
        /// Checksum of each.
        sums: Vec<u64>,
    },
    /// A hash block continues after the batch before it.
    Chain {
        /// Number of the batch in the plan.
        number: u64,
        /// State of MD5 within the block, encoded by the pipeline.
        block: &'a [u8],
        /// The same within the file; empty where it is not hashed as a whole.
        whole: &'a [u8],
    },
}

impl Frame<'_> {
    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut to = Encoder::new(out);
        to.u8(match self {
            Self::Batch { .. } => BATCH,
            Self::LeftOut { .. } => LEFT_OUT,
            Self::Property { .. } => PROPERTY,
            Self::Parts { .. } => PARTS,
            Self::Chain { .. } => CHAIN,
        });
        to.u32(0);
        match self {
            Self::Batch { number, len, crc, hashes } => {
                to.u64(*number);
                to.u32(*len);
                to.u64(*crc);
                to.bytes(hashes);
            }
            Self::LeftOut { file, why } => {
                to.u32(*file);
                to.bytes(why.as_bytes());
            }
            Self::Property { file, md5 } => {
                to.u32(*file);
                to.bytes(md5);
            }
            Self::Parts { number, sums } => {
                to.u64(*number);
                sums.iter().for_each(|sum| to.u64(*sum));
            }
            Self::Chain { number, block, whole } => {
                to.u64(*number);
                to.list(block);
                to.bytes(whole);
            }
        }
        let len = out.len() - start - HEAD_LEN;
        debug_assert!(len <= FRAME_LEN_MAX);
        out[start + 1..start + HEAD_LEN].copy_from_slice(&(len as u32).to_le_bytes());
    }
}

/// Length of a frame's contents, from its head.
///
/// # Errors
/// The length exceeds [`FRAME_LEN_MAX`].
pub fn body_len(head: &[u8; HEAD_LEN]) -> Result<usize, CheckpointFault> {
    let [_, len @ ..] = *head;
    let len = u32::from_le_bytes(len) as usize;
    if len > FRAME_LEN_MAX { Err(CheckpointFault("holds a record that is too long")) } else { Ok(len) }
}

/// Whether a frame is that of a batch.
pub const fn is_batch(head: &[u8; HEAD_LEN]) -> bool {
    head[0] == BATCH
}

/// The frame with this head and these contents.
///
/// # Errors
/// The reason why it is invalid.
pub fn decode<'a>(head: &[u8; HEAD_LEN], body: &'a [u8]) -> Result<Frame<'a>, CheckpointFault> {
    let mut from = Decoder::new(body);
    match head[0] {
        BATCH => {
            let (number, len, crc) = (from.u64()?, from.u32()?, from.u64()?);
            Ok(Frame::Batch { number, len, crc, hashes: from.rest() })
        }
        LEFT_OUT => {
            let file = from.u32()?;
            let why =
                std::str::from_utf8(from.rest()).map_err(|_| CheckpointFault("holds a reason that is not UTF-8"))?;
            Ok(Frame::LeftOut { file, why })
        }
        PROPERTY => Ok(Frame::Property { file: from.u32()?, md5: from.bytes()? }),
        PARTS => {
            let number = from.u64()?;
            let mut sums = Vec::with_capacity(from.rest().len() / 8);
            while !from.rest().is_empty() {
                sums.push(from.u64()?);
            }
            Ok(Frame::Parts { number, sums })
        }
        CHAIN => Ok(Frame::Chain { number: from.u64()?, block: from.list()?, whole: from.rest() }),
        _ => Err(CheckpointFault("holds a record of unknown kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_of_every_kind() {
        let frames = [
            Frame::Batch { number: 1 << 40, len: 4 << 20, crc: 5, hashes: &[7; 48] },
            Frame::Batch { number: 0, len: 0, crc: 0, hashes: &[] },
            Frame::LeftOut { file: 9, why: "größer" },
            Frame::Property { file: 3, md5: [1; 16] },
            Frame::Parts { number: 7, sums: vec![1, u64::MAX] },
            Frame::Chain { number: 7, block: &[3; 25], whole: &[4; 24] },
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let mut rest = &bytes[..];
        for frame in frames {
            let (head, after) = rest.split_first_chunk::<HEAD_LEN>().expect("a head");
            let (body, after) = after.split_at(body_len(head).expect("a length"));
            assert_eq!(is_batch(head), matches!(frame, Frame::Batch { .. }));
            assert_eq!(decode(head, body), Ok(frame));
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn hostile_frames_never_panic() {
        use dray_base::entropy::{Entropy, Seeded};
        let mut random = Seeded::new(4);
        for _ in 0..10_000 {
            let mut head: [u8; HEAD_LEN] = random.array();
            head[0] %= 6;
            let mut body = [0; 40];
            random.fill(&mut body);
            let _ = body_len(&head);
            let _ = decode(&head, &body[..(random.next_u64() % 41) as usize]);
        }
    }
}
