//! Progress of a drive: dray's own files next to the journal, from which a session continues where its data was
//! durable.
//!
//! Three files belong to a session, and only the first is ever replaced:
//!
//! * The **checkpoint** of a drive ([`Checkpoint`]): constant in size, replaced atomically after each flush of the drive.
//!   It identifies the drive and its plan, and records the durable position and the valid lengths of the two others.
//!   It holds no secret in clear: the volume's keys are sealed under its password (of a volume that is encrypted in place,
//!   by BitLocker's own metadata region), which stands in the drive record alone.
//! * The **outcome log** of a drive ([`log`]): appended to. Results of reading the sources: block hashes and checksums
//!   of the batches, files that were left out.
//! * The **plan** of the session: appended to. The catalog from the walk, options, drives and the files of each.
//!   Its contents are defined by the planning; [`code`] has the encoding.
//!
//! A checkpoint names the other two by length and digest of their beginnings ([`Prefix`]), so data appended after it
//! was taken does not matter. The journal names the plan likewise. Missing or changed data within that length is
//! damage, and is refused with the file's name: it can be restored. To roll a session back the checkpoints are
//! sufficient: each holds its drive's identity, and the facts of its volume ([`Checkpoint::drive`]).
//!
//! # Another kind of work on a drive
//!
//! Filling an erased drive is one kind of work; adding to an existing volume, indexing it, and encrypting it in place
//! are others (`azure::journal::Work`). Each goes through a session in the same way:
//!
//! 1. `azure::ledger::Ledger::next_action` decides whether the journal allows it; `Ledger::finished_drives` and
//!    `Ledger::drive` list the drives, with the drive records that open them.
//! 2. `prep::files::JournalFile` (one process at a time) takes `ActivityRecord::Session { Started }`, then, when a drive's
//!    first checkpoint is durable and before its first write, `ActivityRecord::Drive { Started, work }`.
//! 3. `prep::files::sidecar` names the files: `Sidecar::Checkpoint`, `Sidecar::Outcome`, and `Sidecar::Other(drive, word)`
//!    for whatever else the work needs (undo and redo images). `prep::files::replace_private` replaces a checkpoint.
//! 4. [`Checkpoint::work`] names the work, [`Checkpoint::step`] is its own count of steps, [`Checkpoint::body`] holds up to
//!    [`BODY_LEN`] bytes of its own; a file of its own can stand in [`Checkpoint::outcome`] or in the body as a [`Prefix`].
//! 5. `--resume` takes the drives of the last session that are not `Completed`, by their `work`; `--abort` first appends
//!    `Session { Aborting }` (from then on it can only be aborted), rolls every drive of the session back, and ends with
//!    `Session { Aborted }`. Rolling back must be possible twice, since it may be interrupted too.
#![forbid(unsafe_code)]

pub mod code;
pub mod log;

use std::fmt;

use crate::hash::{Crc64, Sha256};
use code::{Decoder, Encoder};

/// Bytes that belong to the work alone: a volume that is encrypted in place keeps its FVE region and front.
pub const BODY_LEN: usize = 65_536 + 8192;

/// Bytes of [`Checkpoint::drive`] at most: two paths, and some thousand places.
pub const DRIVE_LEN_MAX: usize = 60 << 10;

/// Bytes before the body.
const HEAD_LEN: usize = 64 << 10;

/// Bytes of a checkpoint: constant.
pub const LEN: usize = HEAD_LEN + BODY_LEN;

const MAGIC: [u8; 8] = *b"DRAYCKPT";
const VERSION: u32 = 3;

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
}

/// Progress of one drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Id of the session.
    pub session: String,
    /// Drive id, as in the drive record.
    pub drive_id: String,
    /// The kind of work, as the journal spells it.
    pub work: String,
    /// SHA-256 of the drive's identity: serial, world wide name, model, size, sectors.
    pub identity: [u8; 32],
    /// SHA-256 of the drive's plan.
    pub plan: [u8; 32],
    /// Time of formatting (FILETIME).
    pub time: u64,
    /// Seed of the public randomness.
    pub seed: u64,
    /// Bytes of a batch.
    pub slot_len: u64,
    /// Step counter of the work. A new volume: 0 before, 1 after old marks were wiped.
    pub step: u32,
    /// Number of durable batches of the plan.
    pub batches: u64,
    /// Device offset behind the last of them.
    pub offset: u64,
    /// Valid part of the session's plan.
    pub snapshot: Prefix,
    /// Valid part of the outcome log.
    pub outcome: Prefix,
    /// Identity and path of the drive, and the facts needed to roll back without the session's plan. Empty where that
    /// exceeds [`DRIVE_LEN_MAX`].
    pub drive: Vec<u8>,
    /// Data of the work; at most [`BODY_LEN`] bytes, padded with zeros when read back.
    pub body: Vec<u8>,
}

/// Reason why bytes are no valid checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

impl Checkpoint {
    /// The file's bytes: [`LEN`] of them.
    ///
    /// # Panics
    /// Names or body are longer than those of any session and drive.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        let mut to = Encoder::new(&mut out);
        to.bytes(&MAGIC);
        to.u32(VERSION);
        to.text(&self.session);
        to.text(&self.drive_id);
        to.text(&self.work);
        to.bytes(&self.identity);
        to.bytes(&self.plan);
        to.u64(self.time);
        to.u64(self.seed);
        to.u64(self.slot_len);
        to.u32(self.step);
        to.u64(self.batches);
        to.u64(self.offset);
        for prefix in [&self.snapshot, &self.outcome] {
            to.u64(prefix.len);
            to.bytes(&prefix.digest);
        }
        to.list(&self.drive);
        assert!(out.len() <= HEAD_LEN - 8 && self.body.len() <= BODY_LEN, "a checkpoint has one size");
        out.resize(HEAD_LEN - 8, 0);
        out.extend_from_slice(&self.body);
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
    pub fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.len() != LEN {
            return Err(Fault("has not the length of a checkpoint"));
        }
        let (inner, crc) = bytes.split_at(LEN - 8);
        let mut ours = Crc64::new();
        ours.update(inner);
        if ours.value().to_le_bytes() != crc {
            return Err(Fault("has another checksum than its contents"));
        }
        let mut from = Decoder::new(inner);
        if from.bytes::<8>()? != MAGIC {
            return Err(Fault("is no checkpoint"));
        }
        if from.u32()? != VERSION {
            return Err(Fault("was written by another version"));
        }
        let mut this = Self {
            session: from.text()?,
            drive_id: from.text()?,
            work: from.text()?,
            identity: from.bytes()?,
            plan: from.bytes()?,
            time: from.u64()?,
            seed: from.u64()?,
            slot_len: from.u64()?,
            step: from.u32()?,
            batches: from.u64()?,
            offset: from.u64()?,
            snapshot: Prefix { len: from.u64()?, digest: from.bytes()? },
            outcome: Prefix { len: from.u64()?, digest: from.bytes()? },
            drive: from.list()?.to_vec(),
            body: Vec::new(),
        };
        this.body = inner[HEAD_LEN - 8..].to_vec();
        Ok(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            session: "session#1".into(),
            drive_id: "9WM35C2V".into(),
            work: "Format".into(),
            identity: [1; 32],
            plan: [2; 32],
            time: 3,
            seed: 4,
            slot_len: 4 << 20,
            step: 1,
            batches: 77,
            offset: 77 << 22,
            snapshot: Prefix { len: 5, digest: [6; 32] },
            outcome: Prefix { len: 7, digest: [8; 32] },
            drive: vec![10; 300],
            body: vec![9; BODY_LEN],
        }
    }

    #[test]
    fn round_trip_of_constant_size() {
        let bytes = checkpoint().encode();
        assert_eq!(bytes.len(), LEN);
        assert_eq!(Checkpoint::decode(&bytes), Ok(checkpoint()));
        let short = Checkpoint { body: vec![1, 2], session: "abc".into(), ..checkpoint() };
        let bytes = short.encode();
        assert_eq!(bytes.len(), LEN);
        let back = Checkpoint::decode(&bytes).expect("a checkpoint");
        assert_eq!((&back.body[..2], back.body.len(), &*back.session), (&[1, 2][..], BODY_LEN, "abc"));
        // The longest names that a session and a drive can have.
        let (session, drive_id) = ("x".repeat(30), "é".repeat(256));
        let long = Checkpoint { session, drive_id, drive: vec![1; DRIVE_LEN_MAX], ..checkpoint() };
        assert_eq!(Checkpoint::decode(&long.encode()), Ok(long));
    }

    #[test]
    fn hostile_checkpoints_are_refused() {
        let bytes = checkpoint().encode();
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
