//! Contents that are not local files: blobs of an account, fetched by threads of their own.
//!
//! The engine has no network. Who has one implements [`Contents`]; a slot's parts are then fetched where they would be
//! read from source files, several at once, and the slot continues on the same path: hash, seal, write.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::io::Waker;
use crate::pool::Slot;
use crate::report::Problem;

/// Reason why a part of a file has no bytes.
#[derive(Debug)]
pub enum Unread {
    /// The file alone is concerned, and left out: why, beginning with its status in a copy log.
    LeftOut(String),
    /// The source as a whole: the drive ends, and can be resumed.
    Failed(Box<Problem>),
}

/// A source of contents by index of the catalog's file.
pub trait Contents: Send + Sync {
    /// Fills `into` with the bytes of `file` (index into the catalog) from `offset` on. Called from several threads.
    ///
    /// # Errors
    /// The reason why there are none; the bytes of `into` are undefined then.
    fn read(&self, file: u32, offset: u64, into: &mut [u8]) -> Result<(), Unread>;
}

/// A part of a slot that is fetched: all parts of one file in it, which are contiguous.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Index of the first among the parts of the batch.
    pub part: usize,
    /// File of the catalog.
    pub file: u32,
    /// First byte of the part in the file.
    pub offset: u64,
    /// Bytes of the slot that it fills.
    pub into: Range<usize>,
}

/// A slot whose parts have all been fetched, or have failed.
#[derive(Debug)]
pub struct Fetched {
    /// The caller's name for the slot.
    pub tag: u64,
    /// The slot given.
    pub slot: Slot,
    /// Parts without bytes, by index among the parts of the batch.
    pub unread: Vec<(usize, Unread)>,
}

/// A slot that is being fetched.
struct Fetch {
    tag: u64,
    /// `None` once the last part has come.
    slot: Mutex<Option<Slot>>,
    wanted: Vec<Wanted>,
    left: AtomicUsize,
    unread: Mutex<Vec<(usize, Unread)>>,
    /// Set when nobody waits for it any more.
    is_given_up: Arc<AtomicBool>,
    reply: Sender<Fetched>,
    waker: Waker,
}

/// Threads that fetch for all drives.
#[allow(missing_debug_implementations, reason = "holds a trait object")]
pub struct Fetchers {
    queue: Option<Sender<(Arc<Fetch>, usize)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Fetchers {
    /// Starts `count` threads, each with one request at a time.
    ///
    /// # Errors
    /// The system refuses more threads.
    pub fn start(contents: &Arc<dyn Contents>, count: usize) -> std::io::Result<Self> {
        let (queue, jobs) = unbounded();
        let threads = (0..count.max(1))
            .map(|i| {
                let (contents, jobs) = (Arc::clone(contents), jobs.clone());
                std::thread::Builder::new().name(format!("fetch-{i}")).spawn(move || fetch(&*contents, &jobs))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { queue: Some(queue), threads })
    }

    /// A drive's connection. The number of its pool's slots bounds what it may ask for.
    pub fn line(&self) -> FetchLine {
        let queue = self.queue.clone().expect("present until drop");
        FetchLine { queue, replies: unbounded(), is_given_up: Arc::default() }
    }
}

impl Drop for Fetchers {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            // A panic has been printed; the drives notice by the missing slots.
            let _ = thread.join();
        }
    }
}

/// A drive's connection to the threads that fetch.
#[allow(missing_debug_implementations, reason = "channels of private types")]
pub struct FetchLine {
    queue: Sender<(Arc<Fetch>, usize)>,
    replies: (Sender<Fetched>, Receiver<Fetched>),
    is_given_up: Arc<AtomicBool>,
}

impl FetchLine {
    /// Fetches the parts, of which there is at least one; the slot comes back through [`Self::take`] and wakes the drive.
    pub fn fetch(&self, tag: u64, slot: Slot, wanted: Vec<Wanted>, waker: Waker) {
        let count = wanted.len();
        let fetch = Arc::new(Fetch {
            tag,
            slot: Mutex::new(Some(slot)),
            wanted,
            left: AtomicUsize::new(count),
            unread: Mutex::default(),
            is_given_up: Arc::clone(&self.is_given_up),
            reply: self.replies.0.clone(),
            waker,
        });
        for part in 0..count {
            // The threads outlive every line.
            let _ = self.queue.send((Arc::clone(&fetch), part));
        }
    }

    /// A slot that is ready.
    pub fn take(&self) -> Option<Fetched> {
        self.replies.1.try_recv().ok()
    }
}

impl Drop for FetchLine {
    fn drop(&mut self) {
        self.is_given_up.store(true, Ordering::Relaxed);
    }
}

fn fetch(contents: &dyn Contents, jobs: &Receiver<(Arc<Fetch>, usize)>) {
    let mut buffer = Vec::new();
    while let Ok((fetch, part)) = jobs.recv() {
        if !fetch.is_given_up.load(Ordering::Relaxed) {
            fetch.part(contents, part, &mut buffer);
        }
        if fetch.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            fetch.reply();
        }
    }
}

impl Fetch {
    fn part(&self, contents: &dyn Contents, part: usize, buffer: &mut Vec<u8>) {
        let Some(wanted) = self.wanted.get(part) else { return };
        let read = if self.wanted.len() == 1 {
            // Nobody else wants the slot meanwhile.
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(slot) = slot.as_mut() else { return };
            contents.read(wanted.file, wanted.offset, &mut slot[wanted.into.clone()])
        } else {
            buffer.resize(wanted.into.len(), 0);
            let read = contents.read(wanted.file, wanted.offset, buffer);
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Ok(()), Some(slot)) = (&read, slot.as_mut()) {
                slot[wanted.into.clone()].copy_from_slice(buffer);
            }
            read
        };
        if let Err(why) = read {
            self.unread.lock().unwrap_or_else(PoisonError::into_inner).push((wanted.part, why));
        }
    }

    fn reply(&self) {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let unread = std::mem::take(&mut *self.unread.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(slot) = slot {
            // A drive that has given up does not receive any more; its slot returns to the pool.
            let _ = self.reply.send(Fetched { tag: self.tag, slot, unread });
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use std::time::{Duration, Instant};

    /// Bytes that tell their file and offset; file 9 changes, file 8 is out of reach.
    struct Pattern;

    impl Contents for Pattern {
        fn read(&self, file: u32, offset: u64, into: &mut [u8]) -> Result<(), Unread> {
            match file {
                9 => return Err(Unread::LeftOut("BlobUnexpectedChange: it changed".into())),
                8 => return Err(Unread::Failed(Box::new(Problem::new(crate::report::Kind::Environment, "away")))),
                _ => {}
            }
            for (i, byte) in into.iter_mut().enumerate() {
                *byte = (u64::from(file) * 31 + offset + i as u64) as u8;
            }
            Ok(())
        }
    }

    fn wait(line: &FetchLine) -> Fetched {
        let since = Instant::now();
        loop {
            if let Some(fetched) = line.take() {
                return fetched;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "the slot comes back");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn parts_are_put_where_they_belong_and_failures_are_told_by_part() {
        let contents: Arc<dyn Contents> = Arc::new(Pattern);
        let fetchers = Fetchers::start(&contents, 3).expect("threads");
        let pool = Pool::new(2, 1 << 16).expect("memory");
        let line = fetchers.line();
        let want = |part, file, offset, into| Wanted { part, file, offset, into };
        let slot = pool.take().expect("a slot");
        line.fetch(
            5,
            slot,
            vec![want(0, 1, 0, 0..100), want(2, 9, 0, 4096..5000), want(3, 2, 7, 8192..9000)],
            Waker::none(),
        );
        let fetched = wait(&line);
        assert_eq!(fetched.tag, 5);
        assert!((0..100).all(|i| fetched.slot[i] == (31 + i) as u8));
        assert!((0..808).all(|i| fetched.slot[8192 + i] == (62 + 7 + i) as u8));
        assert!(matches!(&fetched.unread[..], [(2, Unread::LeftOut(why))] if why.starts_with("BlobUnexpectedChange")));
        drop(fetched);
        let slot = pool.take().expect("a slot");
        line.fetch(6, slot, vec![want(4, 8, 0, 0..10)], Waker::none());
        assert!(matches!(&wait(&line).unread[..], [(4, Unread::Failed(_))]));
        // Given up: the slots return to the pool by themselves.
        let slots = [pool.take().expect("a slot"), pool.take().expect("a slot")];
        for slot in slots {
            line.fetch(7, slot, vec![want(0, 1, 0, 0..10)], Waker::none());
        }
        drop(line);
        drop(fetchers);
        assert_eq!(pool.available(), 2);
    }
}
