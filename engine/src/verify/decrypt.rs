//! The unlocked volume as a plain image: what a driver would hand out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use crate::prep::workers::Workers;
use crate::report::{Kind, Problem, Stop};
use crate::units::{ByteLen, ByteOffset, ByteRange};
use crate::verify::find::Opened;
use crate::verify::road::{Load, Road, SLOT_LEN, cut};

/// Zeros of this length, aligned, become holes.
const HOLE: usize = 64 << 10;

/// Where the image goes.
#[derive(Debug)]
pub enum To<'a> {
    /// A new file, empty: zeros become holes.
    File(&'a File),
    /// A pipe: every byte in order.
    Stream(&'a mut dyn StreamOut),
}

/// A pipe that can be told about.
pub trait StreamOut: Write + std::fmt::Debug {}
impl<T: Write + std::fmt::Debug> StreamOut for T {}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decrypted {
    /// Bytes of the image.
    pub len: ByteLen,
    /// What could not be read and is zero in the image: bytes of the volume.
    pub unreadable: Vec<ByteRange>,
}

/// Writes the whole volume. `progress` hears of bytes written.
///
/// # Errors
/// What the image's side says; an interrupted run. Unreadable sectors are no error: see [`Decrypted::unreadable`].
pub fn run(
    opened: &Opened,
    workers: &Workers,
    mut to: To<'_>,
    stop: &Stop,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<Decrypted, Problem> {
    let out_failed = |error: io::Error| {
        Problem::new(Kind::Environment, format!("the image cannot be written: {error}"))
            .advice("the image is incomplete; make room and start again")
    };
    let len = opened.len();
    if let To::File(file) = &to {
        file.set_len(len.0).map_err(out_failed)?;
    }
    let road = Road { medium: opened.medium(), cipher: opened.cipher(), workers, stop, slot_len: SLOT_LEN };
    let loads = cut(len).map(|(at, part)| {
        let mut load = Load::new((at, true));
        load.len = part;
        if !opened.lay(at, part, 0, &mut load) {
            load.what.1 = false;
        }
        load
    });
    let mut unreadable: Vec<ByteRange> = Vec::new();
    // A pipe takes them in order, as many as there are slots early.
    let mut early: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut next, mut done) = (0, 0);
    road.run(loads, |arrived| {
        let (at, is_laid) = arrived.what;
        if !is_laid || arrived.failure.is_some() {
            singly(opened, at, arrived.bytes, &mut unreadable);
        }
        match &mut to {
            To::File(file) => write_sparse(file, at, arrived.bytes).map_err(out_failed)?,
            To::Stream(_) if at.0 != next => {
                early.insert(at.0, arrived.bytes.to_vec());
            }
            To::Stream(out) => {
                out.write_all(arrived.bytes).map_err(out_failed)?;
                next += arrived.bytes.len() as u64;
                while let Some(bytes) = early.remove(&next) {
                    out.write_all(&bytes).map_err(out_failed)?;
                    next += bytes.len() as u64;
                }
            }
        }
        done += arrived.bytes.len() as u64;
        progress(ByteLen(done));
        Ok(())
    })?;
    match to {
        To::File(file) => file.sync_all().map_err(out_failed)?,
        To::Stream(out) => out.flush().map_err(out_failed)?,
    }
    unreadable.sort();
    Ok(Decrypted { len, unreadable })
}

/// Reads again in halves down to a sector, so that a bad sector costs only itself.
fn singly(opened: &Opened, at: ByteOffset, into: &mut [u8], unreadable: &mut Vec<ByteRange>) {
    let Err(_) = opened.read(at, into) else { return };
    let unit = opened.unit() as usize;
    if into.len() <= unit {
        into.fill(0);
        unreadable.push(ByteRange::new(at.0, into.len() as u64));
        return;
    }
    let half = (into.len() / 2).next_multiple_of(unit);
    let (first, second) = into.split_at_mut(half);
    singly(opened, at, first, unreadable);
    singly(opened, ByteOffset(at.0 + half as u64), second, unreadable);
}

/// Writes all but aligned runs of zeros.
fn write_sparse(file: &File, at: ByteOffset, bytes: &[u8]) -> io::Result<()> {
    let is_zero = |chunk: &[u8]| chunk.iter().all(|byte| *byte == 0);
    let mut from = None;
    for start in (0..bytes.len()).step_by(HOLE) {
        let end = (start + HOLE).min(bytes.len());
        match (is_zero(&bytes[start..end]), from) {
            (false, None) => from = Some(start),
            (true, Some(begin)) => {
                file.write_all_at(&bytes[begin..start], at.0 + begin as u64)?;
                from = None;
            }
            _ => {}
        }
    }
    match from {
        Some(begin) => file.write_all_at(&bytes[begin..], at.0 + begin as u64),
        None => Ok(()),
    }
}
