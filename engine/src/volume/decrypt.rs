//! The unlocked volume as a plain image, equal to the contents that a driver would show.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::unbounded;

use crate::pool::SLOT_LEN;
use crate::report::{Kind, Problem, Stop};
use crate::stream::block_reader::{Arrived, BlockReader, Held, Load, cut};
use crate::stream::timeouts::Timeouts;
use crate::stream::workers::Workers;
use crate::units::{ByteLen, VolumeOffset, VolumeRange};
use crate::volume::find::Opened;

/// Zeros of this length, aligned, become holes.
const HOLE: usize = 64 << 10;

/// Destination of the unlocked volume.
#[derive(Debug)]
pub enum To<'a> {
    /// A new file, empty: zeros become holes.
    File(&'a File),
    /// A pipe: every byte in order.
    Stream(&'a mut dyn StreamOut),
}

/// A pipe that implements `Debug`.
pub trait StreamOut: Write + std::fmt::Debug {}
impl<T: Write + std::fmt::Debug> StreamOut for T {}

/// Result of decrypting: length of the image, and unreadable ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decrypted {
    /// Bytes of the image.
    pub len: ByteLen,
    /// Ranges of the volume that could not be read, and are zero in the image.
    pub unreadable: Vec<VolumeRange>,
}

/// Writes the whole volume. `progress` receives the bytes written so far.
///
/// # Errors
/// Errors of writing the image; an interrupted run. Unreadable sectors are no error: see [`Decrypted::unreadable`].
pub fn run(
    opened: &Opened,
    workers: &Workers,
    mut to: To<'_>,
    stop: &Stop,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<Decrypted, Problem> {
    let len = opened.len();
    if let To::File(file) = &to {
        file.set_len(len.0).map_err(unwritable)?;
    }
    let timeouts = Timeouts::default();
    let road =
        BlockReader { medium: opened.medium(), cipher: opened.cipher(), workers, stop, slot_len: SLOT_LEN, timeouts };
    let mut plain = Plain { opened, road, unreadable: Vec::new() };
    match &mut to {
        To::File(file) => into_file(&mut plain, file, progress)?,
        To::Stream(out) => into_stream(&mut plain, *out, progress)?,
    }
    progress(len);
    match to {
        To::File(file) => file.sync_all().map_err(unwritable)?,
        To::Stream(out) => out.flush().map_err(unwritable)?,
    }
    let mut unreadable = plain.unreadable;
    unreadable.sort();
    Ok(Decrypted { len, unreadable })
}

fn unwritable(error: io::Error) -> Problem {
    Problem::new(Kind::Environment, format!("the image cannot be written: {error}"))
        .advice("the image is incomplete; make room and start again")
}

/// Reader of the unlocked volume.
struct Plain<'a> {
    opened: &'a Opened,
    road: BlockReader<'a>,
    unreadable: Vec<VolumeRange>,
}

impl Plain<'_> {
    /// Passes the whole volume to `sink`, in the order of arrival.
    fn read(&mut self, mut sink: impl FnMut(VolumeOffset, Held) -> Result<(), Problem>) -> Result<(), Problem> {
        let opened = self.opened;
        let loads = cut(opened.len()).map(|(at, part)| {
            let mut load = Load::new((at, true));
            load.len = part;
            if !opened.map_extents(at, part, 0, &mut load) {
                load.what.1 = false;
            }
            load
        });
        self.road.run(loads, |mut arrived: Arrived<(VolumeOffset, bool)>| {
            let (at, is_laid) = arrived.what;
            if !is_laid || arrived.failure.is_some() {
                singly(opened, at, &mut arrived.bytes, &mut self.unreadable);
            }
            sink(at, arrived.bytes)
        })
    }
}

/// Writes to a file on a thread of its own, in the order of arrival.
fn into_file(plain: &mut Plain<'_>, file: &File, progress: &mut dyn FnMut(ByteLen)) -> Result<(), Problem> {
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // The number of slots bounds the waiting data: a slow image stalls the drive only when all are full.
        let (sender, written) = unbounded::<(VolumeOffset, Held)>();
        let written_len = &done;
        let writer = std::thread::Builder::new().name("image".into()).spawn_scoped(scope, move || {
            written.iter().try_for_each(|(at, bytes)| {
                write_sparse(file, at, &bytes)?;
                written_len.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                Ok(())
            })
        });
        let writer = writer.map_err(unwritable)?;
        let result = plain.read(|at, bytes| {
            progress(ByteLen(done.load(Ordering::Relaxed)));
            // The reason is reported at the end of the thread.
            let ended = || Problem::new(Kind::Environment, "the image cannot be written any more");
            sender.send((at, bytes.away())).map_err(|_| ended())
        });
        drop(sender);
        let bug = |_| Problem::new(Kind::Internal, "the thread that writes the image ended in a bug");
        writer.join().map_err(bug)?.map_err(unwritable).and(result)
    })
}

/// Writes to a pipe in the order of the volume, holding back what comes early: no more than there are slots.
fn into_stream(
    plain: &mut Plain<'_>,
    out: &mut dyn StreamOut,
    progress: &mut dyn FnMut(ByteLen),
) -> Result<(), Problem> {
    let mut early: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut done = 0;
    plain.read(|at, bytes| {
        if at.0 != done {
            early.insert(at.0, bytes.to_vec());
            return Ok(());
        }
        out.write_all(&bytes).map_err(unwritable)?;
        done += bytes.len() as u64;
        while let Some(bytes) = early.remove(&done) {
            out.write_all(&bytes).map_err(unwritable)?;
            done += bytes.len() as u64;
        }
        progress(ByteLen(done));
        Ok(())
    })
}

/// Reads again in halves down to a sector, so that a bad sector costs only itself.
fn singly(opened: &Opened, at: VolumeOffset, into: &mut [u8], unreadable: &mut Vec<VolumeRange>) {
    let Err(_) = opened.read(at, into) else { return };
    let unit = opened.unit() as usize;
    if into.len() <= unit {
        into.fill(0);
        unreadable.push(VolumeRange::new(at.0, into.len() as u64));
        return;
    }
    let half = (into.len() / 2).next_multiple_of(unit);
    let (first, second) = into.split_at_mut(half);
    singly(opened, at, first, unreadable);
    singly(opened, at + ByteLen(half as u64), second, unreadable);
}

/// Writes all but aligned runs of zeros.
fn write_sparse(file: &File, at: VolumeOffset, bytes: &[u8]) -> io::Result<()> {
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
