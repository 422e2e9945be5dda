//! Progress of a drive: dray's own files next to the journal, from which a session continues where its data was
//! durable.
//!
//! Three files belong to a session, and only the first is ever replaced:
//!
//! * The **checkpoint** of a drive ([`Checkpoint`]): constant in size, replaced atomically after each flush of the drive.
//!   It identifies the drive and its plan, and records the durable position and the valid lengths of the two others.
//!   It holds no secret in clear: the volume's keys are sealed under its password (of a volume that is encrypted in place,
//!   by BitLocker's own metadata region), and only the drive record holds that.
//! * The **outcome log** of a drive ([`log`]): appended to. Results of reading the sources: block hashes and checksums
//!   of the batches, files that were left out.
//! * The **plan** of the session: appended to. The catalog from the walk, options, drives and the files of each.
//!   Its contents are defined by the planning; [`code`] has the encoding.
//!
//! A checkpoint names the other two by length and digest of their beginnings ([`Prefix`]), so data appended after it
//! was taken does not matter. The journal names the plan likewise. Missing or changed data within that length is
//! damage, and is refused with the file's name: it can be restored. A checkpoint's version covers all files that it
//! names (outcome log, images, batch under way); another version is refused ([`CheckpointFault::OTHER_VERSION`]). To roll a
//! session back the checkpoints are sufficient: each holds its drive's identity, and the facts of its volume
//! ([`Checkpoint::drive`]).
//!
//! # Another kind of work on a drive
//!
//! Filling an erased drive is one kind of work; adding to an existing volume, indexing it, and encrypting it in place
//! are others (`azure::journal::Work`). Each goes through a session in the same way:
//!
//! 1. `azure::ledger::Ledger::next_action` decides whether the journal allows it; `Ledger::finished_drives` and
//!    `Ledger::drive` list the drives, with the drive records that open them.
//! 2. `journal::files::JournalFile` (one process at a time) takes `ActivityRecord::Session { Started }`, then, when a drive's
//!    first checkpoint is durable and before its first write, `ActivityRecord::Drive { Started, work }`.
//! 3. `journal::files::sidecar` names the files: `Sidecar::Checkpoint`, `Sidecar::Outcome`, and `Sidecar::Other(drive, word)`
//!    for whatever else the work needs (undo and redo images). `journal::files::replace_private` replaces a checkpoint.
//! 4. A variant of [`WorkState`] records the progress, in up to [`STATE_LEN_MAX`] bytes; a further file is named in
//!    it by a [`Prefix`].
//! 5. `--resume` takes the drives of the last session that are not `Completed`, by their `work`; `--abort` first appends
//!    `Session { Aborting }` (from then on it can only be aborted), rolls every drive of the session back, and ends with
//!    `Session { Aborted }`. Rolling back must be possible twice, since it may be interrupted too.
#![forbid(unsafe_code)]

pub mod code;
pub mod log;
pub mod work;

use std::fmt;

use crate::hash::{Crc64, Sha256, sha256};
use code::{Decoder, Encoder};
pub use work::{FormatState, WorkState};

/// Bytes of a [`WorkState`] at most: a volume that is encrypted in place keeps its FVE region and front.
pub const STATE_LEN_MAX: usize = 65_536 + 8192 + 1024;

/// Bytes of [`Checkpoint::drive`] at most: two paths, and some thousand places.
pub const DRIVE_LEN_MAX: usize = 60 << 10;

/// Length in bytes of the part that all kinds of work share.
const HEAD_LEN: usize = 64 << 10;

/// Bytes of a checkpoint: constant.
pub const LEN: usize = HEAD_LEN + STATE_LEN_MAX;

const MAGIC: [u8; 8] = *b"DRAYCKPT";
const VERSION: u32 = 4;

/// The beginning of a file that is appended to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Length of that beginning in bytes.
    pub len: u64,
    /// SHA-256 of those bytes.
    pub digest: [u8; 32],
}

impl Prefix {
    /// From the bytes that went into `hash`.
    pub fn of(hash: &Sha256, len: u64) -> Self {
        Self { len, digest: hash.value() }
    }

    /// The prefix of an empty file.
    pub fn of_nothing() -> Self {
        Self { len: 0, digest: sha256(&[]) }
    }

    fn write(&self, to: &mut Encoder<'_>) {
        to.u64(self.len);
        to.bytes(&self.digest);
    }

    fn read(from: &mut Decoder<'_>) -> Result<Self, CheckpointFault> {
        Ok(Self { len: from.u64()?, digest: from.bytes()? })
    }
}

/// Progress of one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Id of the session.
    pub session: String,
    /// Drive id, as in the drive record.
    pub drive_id: String,
    /// SHA-256 of the drive's identity: serial, world wide name, model, size, sectors.
    pub identity: [u8; 32],
    /// SHA-256 of the drive's plan.
    pub plan: [u8; 32],
    /// Time of formatting (FILETIME).
    pub time: u64,
    /// Bytes of a batch.
    pub slot_len: u64,
    /// Valid part of the session's plan.
    pub snapshot: Prefix,
    /// Identity and path of the drive, and the facts needed to roll back without the session's plan. Empty where that
    /// exceeds [`DRIVE_LEN_MAX`].
    pub drive: Vec<u8>,
    /// Progress of the work.
    pub state: WorkState,
}

/// Reason why bytes are no valid checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFault(pub &'static str);

impl CheckpointFault {
    /// An undamaged checkpoint of a version that this program does not read.
    pub const OTHER_VERSION: Self = Self("was written by another version of dray");

    /// Advice for the operator; `otherwise` for every fault except [`Self::OTHER_VERSION`].
    pub fn advice(&self, otherwise: &'static str) -> &'static str {
        match *self == Self::OTHER_VERSION {
            true => "nothing was changed; continue the session, or roll it back, with the version that began it",
            false => otherwise,
        }
    }
}

impl fmt::Display for CheckpointFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for CheckpointFault {}

impl Checkpoint {
    /// The file's bytes: [`LEN`] of them.
    ///
    /// # Panics
    /// Names or state are longer than those of any session and drive.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        let mut to = Encoder::new(&mut out);
        to.bytes(&MAGIC);
        to.u32(VERSION);
        to.text(&self.session);
        to.text(&self.drive_id);
        to.bytes(&self.identity);
        to.bytes(&self.plan);
        to.u64(self.time);
        to.u64(self.slot_len);
        self.snapshot.write(&mut to);
        to.list(&self.drive);
        assert!(out.len() <= HEAD_LEN - 8, "a checkpoint has one size");
        out.resize(HEAD_LEN - 8, 0);
        self.state.write(&mut Encoder::new(&mut out));
        assert!(out.len() <= LEN - 8, "a checkpoint has one size");
        out.resize(LEN - 8, 0);
        let mut crc = Crc64::new();
        crc.update(&out);
        out.extend_from_slice(&crc.value().to_le_bytes());
        out
    }

    /// Decodes the file's bytes; never panics, whatever they are.
    ///
    /// # Errors
    /// The reason why they are invalid.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointFault> {
        let mut from = Decoder::new(bytes);
        if from.bytes::<8>()? != MAGIC {
            return Err(CheckpointFault("is no checkpoint"));
        }
        // Another version may have another length.
        if from.u32()? != VERSION {
            return Err(CheckpointFault::OTHER_VERSION);
        }
        if bytes.len() != LEN {
            return Err(CheckpointFault("has not the length of a checkpoint"));
        }
        let (inner, crc) = bytes.split_at(LEN - 8);
        let mut ours = Crc64::new();
        ours.update(inner);
        if ours.value().to_le_bytes() != crc {
            return Err(CheckpointFault("has another checksum than its contents"));
        }
        Ok(Self {
            session: from.text()?,
            drive_id: from.text()?,
            identity: from.bytes()?,
            plan: from.bytes()?,
            time: from.u64()?,
            slot_len: from.u64()?,
            snapshot: Prefix::read(&mut from)?,
            drive: from.list()?.to_vec(),
            state: WorkState::read(&mut Decoder::new(&inner[HEAD_LEN - 8..]))?,
        })
    }

    /// Progress of a drive that gets a new volume; `None` for other work.
    pub const fn format(&self) -> Option<&FormatState> {
        match &self.state {
            WorkState::Format(state) => Some(state),
            WorkState::Append(_) | WorkState::Index(_) | WorkState::Encrypt(..) => None,
        }
    }

    /// Mutable access to the same.
    pub const fn format_mut(&mut self) -> Option<&mut FormatState> {
        match &mut self.state {
            WorkState::Format(state) => Some(state),
            WorkState::Append(_) | WorkState::Index(_) | WorkState::Encrypt(..) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::work::{AppendState, ConvertState, Copied, EncryptStep, RecordBefore};
    use super::*;
    use crate::bitlocker::build::{FRONT_LEN, REGION_LEN};
    use crate::units::{BatchNo, ByteLen, DeviceOffset, DeviceRange, FileNo};

    fn format() -> WorkState {
        WorkState::Format(FormatState {
            seed: 4,
            is_wiped: true,
            next: BatchNo(77),
            end: DeviceOffset(77 << 22),
            outcome: Prefix { len: 7, digest: [8; 32] },
            secrets: vec![9; 8400],
        })
    }

    fn append() -> AppendState {
        AppendState {
            next: BatchNo(5),
            next_file: FileNo(6),
            outcome: Prefix { len: 7, digest: [8; 32] },
            record: Some(RecordBefore { manifest_md5: Some([3; 16]), has_header_hash: true }),
            copied: Some(Copied {
                manifest_md5: [1; 16],
                files: 2,
                data: ByteLen(3),
                written: ByteLen(4),
                images: Prefix { len: 5, digest: [6; 32] },
            }),
        }
    }

    /// A state of the greatest length: the metadata region is full.
    fn convert() -> ConvertState {
        ConvertState {
            step: EncryptStep::Passing,
            border: 77 << 20,
            volume: DeviceRange::new(1 << 20, 1 << 30),
            cluster: 4096,
            places: [1, 2, 3, 4, 5],
            all: true,
            images: Prefix { len: 7, digest: [8; 32] },
            region: vec![0x5A; REGION_LEN],
            front: vec![0xA5; FRONT_LEN],
        }
    }

    fn checkpoint(state: WorkState) -> Checkpoint {
        Checkpoint {
            session: "session#1".into(),
            drive_id: "9WM35C2V".into(),
            identity: [1; 32],
            plan: [2; 32],
            time: 3,
            slot_len: 4 << 20,
            snapshot: Prefix { len: 5, digest: [6; 32] },
            drive: vec![10; 300],
            state,
        }
    }

    #[test]
    fn round_trip_of_constant_size() {
        let short = AppendState::begun(None);
        let states = [
            format(),
            WorkState::Append(append()),
            WorkState::Index(short.clone()),
            WorkState::Encrypt(convert(), append()),
            WorkState::Encrypt(ConvertState { region: vec![0; REGION_LEN], ..convert() }, short),
        ];
        for state in states {
            let bytes = checkpoint(state.clone()).encode();
            assert_eq!(bytes.len(), LEN);
            assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint(state)));
        }
        // The longest names that a session and a drive can have.
        let (session, drive_id) = ("x".repeat(30), "é".repeat(256));
        let long = Checkpoint { session, drive_id, drive: vec![1; DRIVE_LEN_MAX], ..checkpoint(format()) };
        assert_eq!(Checkpoint::decode(&long.encode()), Ok(long));
    }

    #[test]
    fn hostile_checkpoints_are_refused() {
        for state in [format(), WorkState::Encrypt(convert(), append())] {
            let bytes = checkpoint(state).encode();
            for at in (0..800).chain((800..LEN).step_by(97)) {
                let mut changed = bytes.clone();
                changed[at] ^= 0x40;
                assert!(Checkpoint::decode(&changed).is_err(), "byte {at}");
            }
            for len in [0, 1, 8, LEN - 1, LEN + 1] {
                let mut other = bytes.clone();
                other.resize(len, 0);
                assert!(Checkpoint::decode(&other).is_err(), "{len} bytes");
            }
        }
    }

    #[test]
    fn another_version_is_known_as_one_whatever_its_length() {
        let bytes = checkpoint(format()).encode();
        for len in [LEN, LEN - 1024, 20] {
            let mut old = bytes.clone();
            old[8..12].copy_from_slice(&3u32.to_le_bytes());
            old.resize(len, 0);
            let fault = Checkpoint::decode(&old).expect_err("another version");
            assert_eq!(fault, CheckpointFault::OTHER_VERSION);
            assert!(fault.advice("bring it back").contains("the version that began it"));
        }
        assert_eq!(CheckpointFault("is damaged").advice("bring it back"), "bring it back");
    }
}
