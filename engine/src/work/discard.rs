//! Discards a drive's free space while data streams.
//!
//! A device may take its time for that, and delay writes meanwhile: a fresh 4 GiB of a loop device over ext4 take 0.9 s
//! in one piece. So it is discarded in pieces, with a pause at least as long as the piece took.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::device::Device;
use crate::report::Stop;
use crate::units::{DeviceOffset, DeviceRange};

/// Bytes of a piece.
const PIECE: u64 = 128 << 20;

/// Pieces begin and end at multiples of this: whole sectors of any drive.
const ALIGN: u64 = 4096;

/// Free space being discarded. Dropping it leaves the rest as it is, without waiting: a device may hang.
#[derive(Debug)]
pub struct BackgroundDiscard {
    finish_now: Sender<()>,
    thread: JoinHandle<()>,
}

impl BackgroundDiscard {
    /// Starts discarding `ranges` except `kept`; both ascending and disjoint. `None` when no thread can be started.
    pub fn start(device: &Arc<Device>, ranges: &[DeviceRange], kept: &[DeviceRange]) -> Option<Self> {
        let (device, pieces) = (Arc::clone(device), pieces(ranges, kept));
        let (finish_now, word) = bounded(1);
        let give = move || give(&device, &pieces, &word);
        let thread = thread::Builder::new().name("give-back".into()).spawn(give).ok()?;
        Some(Self { finish_now, thread })
    }

    /// Called when nothing is written any more: waits until everything is discarded, or until a stop request. A device
    /// that refuses keeps its old free space, which the summary states in any case.
    pub fn finish(self, stop: &Stop) {
        const GLANCE: Duration = Duration::from_millis(5);
        let _ = self.finish_now.send(());
        while !stop.requested() && !self.thread.is_finished() {
            thread::sleep(GLANCE);
        }
    }
}

fn give(device: &Device, pieces: &[DeviceRange], word: &Receiver<()>) {
    let mut in_hurry = false;
    for piece in pieces {
        let began = Instant::now();
        if !matches!(device.discard(*piece), Ok(true)) {
            return;
        }
        match word.recv_timeout(if in_hurry { Duration::ZERO } else { began.elapsed() }) {
            Ok(()) => in_hurry = true,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// `ranges` without `kept`, cut into pieces.
fn pieces(ranges: &[DeviceRange], kept: &[DeviceRange]) -> Vec<DeviceRange> {
    let mut out = Vec::new();
    let mut add = |from: DeviceOffset, to: DeviceOffset| {
        let (mut at, end) = (from.0.next_multiple_of(ALIGN), to.0 / ALIGN * ALIGN);
        while at < end {
            let len = PIECE.min(end - at);
            out.push(DeviceRange::new(at, len));
            at += len;
        }
    };
    for range in ranges {
        let mut from = range.start;
        for kept in kept.iter().filter(|kept| kept.overlaps(*range)) {
            add(from, kept.start);
            from = from.max(kept.end());
        }
        add(from, range.end());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_sectors_of_what_is_not_kept() {
        let ranges = [DeviceRange::new(512, 3 * 4096), DeviceRange::new(1 << 20, 2 * PIECE + 100)];
        let kept =
            [DeviceRange::new(0, 1024), DeviceRange::new(9000, 10), DeviceRange::new((1 << 20) + PIECE + 4096, 4096)];
        let expected = [
            (4096, 4096),
            // The range from 9010 up to 12800 holds no whole sector.
            (1 << 20, PIECE),
            ((1 << 20) + PIECE, 4096),
            ((1 << 20) + PIECE + 8192, PIECE - 8192),
        ];
        assert_eq!(pieces(&ranges, &kept), expected.map(|(at, len)| DeviceRange::new(at, len)));
        assert_eq!(pieces(&ranges, &[DeviceRange::new(0, 4 * PIECE)]), []);
        assert_eq!(pieces(&[], &kept), []);
    }
}
