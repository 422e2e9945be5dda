//! Progress of a drive: its first checkpoint, and what is reliable of a later one.

use std::collections::VecDeque;
use std::io;

use crate::bitlocker::build::VolumeSecrets;
use crate::checkpoint::{Checkpoint, FormatState, Prefix, WorkState};
use crate::crypt::SectorCipher;
use crate::hash::{self, Sha256};
use crate::plan::batches::{Batch, Content};
use crate::plan::drive::DriveLayout;
use crate::pool::SLOT_LEN;
use crate::report::{Advice, Kind, Problem, Setting};
use crate::request::PrepRequest;
use crate::units::{BatchNo, DeviceOffset, FileTime};
use crate::work::outcome::Sum;
use crate::work::planner::FormatDrive;
use crate::work::target::TargetDrive;
use crate::work::way_back::WayBack;

/// Batches that are read back before a drive continues, counted back from the place of resumption.
pub const READ_BACK: u64 = 16;

/// Digest of a drive's identity, for a checkpoint.
pub fn identity_digest(target: &TargetDrive) -> [u8; 32] {
    let mut hash = Sha256::default();
    let mut text = |value: Option<&str>| {
        hash.update(&(value.map_or(u64::MAX, |value| value.len() as u64)).to_le_bytes());
        hash.update(value.unwrap_or_default().as_bytes());
    };
    let identity = target.identity.as_ref();
    text(identity.and_then(|identity| identity.serial.as_deref()));
    text(identity.and_then(|identity| identity.wwn.as_deref()));
    text(identity.and_then(|identity| identity.model.as_deref()));
    text(Some(&format!("{} {}", target.facts.size.0, target.sector.bytes())));
    hash.value()
}

/// Reads bytes from a device.
pub type ReadAt<'a> = &'a dyn Fn(&mut [u8], DeviceOffset) -> io::Result<()>;

/// Reads the last durable batches back and compares them with their checksums. Returns the number of batches, counted
/// from the first, that are reliable: fewer than `sums` has when a device lost data that it had reported as durable.
///
/// # Errors
/// The device cannot be read, or holds none of the written data.
pub fn read_back(
    layout: &DriveLayout,
    cipher: Option<&SectorCipher>,
    plain: &dyn Fn(&Content) -> bool,
    sums: &[Option<Sum>],
    read: ReadAt<'_>,
) -> Result<u64, Problem> {
    let mut end = sums.len() as u64;
    loop {
        let mut last: VecDeque<(u64, Batch)> = VecDeque::new();
        let mut first = None;
        for (number, batch) in (0..end).zip(layout.batches(SLOT_LEN)) {
            if sums[number as usize].is_none() {
                continue;
            }
            if first.is_none() {
                first = Some((number, batch));
                continue;
            }
            last.push_back((number, batch));
            if last.len() as u64 > READ_BACK {
                last.pop_front();
            }
        }
        let mut bad = None;
        let first_number = first.as_ref().map(|(number, _)| *number);
        let mut slot = vec![0; SLOT_LEN];
        for (number, batch) in first.into_iter().chain(last) {
            let Some(sum) = sums[number as usize] else { continue };
            for piece in &batch.pieces {
                let range = piece.range.start..piece.range.end.min(sum.len);
                if range.start >= range.end {
                    continue;
                }
                let into = &mut slot[range.clone()];
                read(into, piece.at).map_err(|error| {
                    Problem::new(Kind::Drive, format!("what is durable cannot be read back: {error}")).at(piece.at)
                })?;
                if let Some(cipher) = cipher.filter(|_| !plain(&batch.content)) {
                    cipher.open(piece.at.in_volume(layout.volume_start()), into);
                }
            }
            if hash::crc64(&slot[..sum.len]) != sum.crc {
                bad = Some(number);
                break;
            }
        }
        let Some(bad) = bad else { break };
        if Some(bad) == first_number {
            return Err(Problem::new(Kind::Refused, "does not hold what this session wrote on it").advice(
                Advice::from("nothing was written; attach the right drive, or roll the session back with ")
                    + Setting::Abort
                    + " and start over",
            ));
        }
        end = bad;
    }
    Ok(end)
}

/// The first checkpoint of a drive.
pub fn first_checkpoint(
    request: &PrepRequest,
    drive: &FormatDrive,
    secrets: Option<&VolumeSecrets>,
    formatted: FileTime,
    snapshot: Prefix,
) -> Checkpoint {
    Checkpoint {
        session: request.session.clone(),
        drive_id: drive.rules.drive_id.clone(),
        identity: identity_digest(&drive.target),
        plan: drive.layout.digest(SLOT_LEN),
        time: formatted.0,
        slot_len: SLOT_LEN as u64,
        snapshot,
        drive: WayBack::of(&drive.target, Some(&drive.layout)).encode(),
        state: WorkState::Format(FormatState {
            seed: drive.seed,
            is_wiped: false,
            next: BatchNo(0),
            end: DeviceOffset(0),
            outcome: Prefix::of_nothing(),
            secrets: secrets.map(VolumeSecrets::keep).unwrap_or_default(),
        }),
    }
}
