//! The way back from a drive that is formatted: what makes it a volume is erased.

use crate::checkpoint::code::{Decoder, Encoder};
use crate::checkpoint::{CheckpointFault, DRIVE_LEN_MAX};
use crate::device::{Device, guard};
use crate::hash;
use crate::plan::drive::DriveLayout;
use crate::pool::{Pool, SLOT_LEN};
use crate::report::{Kind, Problem};
use crate::request::PrepRequest;
use crate::stream::event_loop::BlockIo;
use crate::stream::failures::Failures;
use crate::stream::zeros::{self, OnError};
use crate::units::{DeviceOffset, DeviceRange};
use crate::work::claim::claim;
use crate::work::target::TargetDrive;
use crate::work::{steps, target_code};

/// Number of slots for zeros: the ranges are small.
const SLOTS: usize = 2;

/// Data for rolling one drive back: kept in its checkpoint, since the session's plan may be lost.
#[derive(Debug)]
pub struct WayBack {
    /// The drive.
    pub target: TargetDrive,
    /// Range of the session's volume.
    volume: DeviceRange,
    /// Ranges whose contents make it a volume, in the order of writing; for drives that are formatted.
    places: Vec<DeviceRange>,
    /// Its partition tables and their SHA-256: no other drive has the same identifiers.
    pub tables: Vec<(DeviceRange, [u8; 32])>,
}

impl WayBack {
    /// For a drive that is formatted, or for one whose volume stays.
    pub fn of(target: &TargetDrive, layout: Option<&DriveLayout>) -> Self {
        let mut places: Vec<DeviceRange> = Vec::new();
        for place in layout.map(DriveLayout::last_places).unwrap_or_default() {
            match places.last_mut() {
                Some(last) if last.end() == place.start => last.len.0 += place.len.0,
                _ => places.push(place),
            }
        }
        let volume = layout.map_or(DeviceRange::new(0, 0), DriveLayout::volume);
        let tables = layout.map(|layout| {
            let (primary, backup) = (layout.table().primary(), layout.table().backup());
            std::iter::once((DeviceOffset(0), primary)).chain(backup)
        });
        let tables = tables.into_iter().flatten();
        let tables = tables.map(|(at, bytes)| (DeviceRange::new(at.0, bytes.len() as u64), hash::sha256(&bytes)));
        Self { target: target.clone(), volume, places, tables: tables.collect() }
    }

    /// Encoded for the checkpoint; empty when it is too long for one.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Encoder::new(&mut out);
        target_code::save_target(&mut to, &self.target);
        to.u64(self.places.len() as u64);
        for range in [self.volume].iter().chain(&self.places) {
            to.u64(range.start.0);
            to.u64(range.len.0);
        }
        to.u64(self.tables.len() as u64);
        for (range, digest) in &self.tables {
            to.u64(range.start.0);
            to.u64(range.len.0);
            to.bytes(digest);
        }
        if out.len() > DRIVE_LEN_MAX { Vec::new() } else { out }
    }

    /// Erases what makes the drive a volume.
    ///
    /// # Errors
    /// Something uses the drive, or it cannot be written.
    pub fn erase(&self, target: &TargetDrive, request: &PrepRequest) -> Result<(), Problem> {
        if target.identity.is_none() {
            return Ok(());
        }
        // Sources, journal and logs are irrelevant to a rollback; present users of the drive are not.
        let device: Device = claim(target, &guard::Context::default())?;
        let pool = Pool::new(SLOTS, SLOT_LEN)
            .map_err(|error| Problem::new(Kind::Environment, format!("no memory for slots: {error}")))?;
        let engine = steps::engine(&device, &pool, request, &target.facts.name, &|_| {})?;
        let node = (!target.facts.is_image).then(|| target.facts.path.clone());
        let failures = Failures::of(&target.facts.name, node);
        unmake(BlockIo::new(engine, pool, failures), self)?;
        // The kernel may still show partitions of the erased table.
        let _ = device.reread_partitions();
        Ok(())
    }

    /// Decoded out of a checkpoint.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointFault> {
        let mut from = Decoder::new(bytes);
        let target = target_code::load_target(&mut from)?;
        let count = from.count(16)?;
        let range = |from: &mut Decoder<'_>| Ok(DeviceRange::new(from.u64()?, from.u64()?));
        let volume = range(&mut from)?;
        let places = (0..count).map(|_| range(&mut from)).collect::<Result<_, CheckpointFault>>()?;
        let mut tables = Vec::new();
        for _ in 0..from.count(48)? {
            tables.push((range(&mut from)?, from.bytes()?));
        }
        Ok(Self { target, volume, places, tables })
    }
}

/// Erases the structures that make the drive a volume, in the reverse of the order of writing: first those that make it
/// visible, then the rest.
pub fn unmake(mut io: BlockIo, reversal: &WayBack) -> Result<(), Problem> {
    let WayBack { volume, places, .. } = reversal;
    let places: Vec<DeviceRange> = places.iter().rev().copied().collect();
    let tables = places.iter().take_while(|place| place.end().0 <= volume.start.0 || place.start.0 >= volume.end().0);
    let tables = tables.count();
    let (first, rest) = places.split_at(tables);
    for places in [first, rest] {
        zeros::overwrite(&mut io, places, OnError::Fail, &mut |_| (), &|_| ())?;
    }
    Ok(())
}
