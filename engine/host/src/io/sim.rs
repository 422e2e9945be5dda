//! The simulated disk: sparse, seeded, and as unreliable as a real one.
//!
//! Writes are acknowledged into a cache that a power cut empties: any subset of the unflushed ones may have reached the
//! medium, each possibly only in some of its sectors. Operations finish in a seeded order. On demand the disk loses
//! writes, flips bits, misdirects reads, fails at chosen places, hangs, or fails completely after a chosen number of
//! operations. The same seed gives the same run.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Completion, Engine, Fill, From, Part, PartResult, Waker, WriteError, check_fill, sync};
use crate::pool::Slot;
use crate::units::{ByteLen, DeviceOffset, DeviceRange, SectorSize};

const PAGE: u64 = 4096;
type Page = [u8; PAGE as usize];

/// Bytes of a disk; pages of zeros take no memory.
#[derive(Clone, Debug, Default)]
struct Sparse(BTreeMap<u64, Arc<Page>>);

impl Sparse {
    /// Calls `visit` with page number, range in the page, and range in the bytes.
    fn pieces(at: u64, len: usize, mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>)) {
        let mut done = 0;
        while done < len {
            let position = at + done as u64;
            let skip = (position % PAGE) as usize;
            let n = (PAGE as usize - skip).min(len - done);
            visit(position / PAGE, skip..skip + n, done..done + n);
            done += n;
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        Self::pieces(at, bytes.len(), |page, there, here| {
            let new = &bytes[here];
            let zeros = new.iter().all(|byte| *byte == 0);
            if zeros && (there.len() == PAGE as usize || !self.0.contains_key(&page)) {
                self.0.remove(&page);
                return;
            }
            let page = self.0.entry(page).or_insert_with(|| Arc::new([0; PAGE as usize]));
            Arc::make_mut(page)[there].copy_from_slice(new);
        });
    }

    fn page(&self, page: u64) -> &Page {
        const ZEROS: &Page = &[0; PAGE as usize];
        self.0.get(&page).map_or(ZEROS, |page| page)
    }

    fn read(&self, at: u64, into: &mut [u8]) {
        Self::pieces(at, into.len(), |page, there, here| into[here].copy_from_slice(&self.page(page)[there]));
    }
}

/// Faults to inject. The default is a working disk that finishes operations in any order.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Number of writes and flushes after which the power is cut; the last of them is not acknowledged.
    pub cut_after: Option<u64>,
    /// Writing to any byte of these ranges fails; the part before it in the same write may have landed.
    pub write_errors: Vec<DeviceRange>,
    /// Reading any byte of these ranges fails.
    pub read_errors: Vec<DeviceRange>,
    /// One write in so many fails without a byte; 0 for none.
    pub write_error_one_in: u32,
    /// One read of the disk in so many fails; 0 for none.
    pub read_error_one_in: u32,
    /// An operation takes a seeded time up to this.
    pub latency_max: Duration,
    /// Every flush fails.
    pub flush_errors: bool,
    /// One write in so many is acknowledged and lost; 0 for none.
    pub lost_one_in: u32,
    /// One read of the disk in so many has a flipped bit; 0 for none.
    pub flip_one_in: u32,
    /// One read of the disk in so many comes from another place; 0 for none.
    pub misdirect_one_in: u32,
    /// Bytes that always read with these bits flipped.
    pub flips: Vec<(DeviceOffset, u8)>,
    /// The write or flush of this number (from 1) is never finished.
    pub hang_at: Option<u64>,
    /// Reading any byte of these ranges is never finished.
    pub read_hangs: Vec<DeviceRange>,
}

impl Faults {
    fn hangs(&self, part: &Part) -> bool {
        let From::Target { at } = part.from else { return false };
        let range = DeviceRange::new(at.0, part.into.len() as u64);
        self.read_hangs.iter().any(|hang| hang.overlaps(range))
    }
}

/// Selection of unflushed writes that have landed at a power cut.
#[derive(Clone, Copy, Debug)]
pub enum Landed {
    /// Bit `n` for the `n`-th of them, whole, in the order they were done.
    Bits(u64),
    /// A seeded choice, in a seeded order, each possibly only in some of its sectors.
    Seeded(u64),
}

/// An operation that the disk performed, for the record of their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A write, acknowledged or not.
    Write(DeviceRange),
    /// A flush that succeeded.
    Flush,
}

struct Unflushed {
    /// Place in the order in which operations were given.
    number: u64,
    at: u64,
    bytes: Vec<u8>,
}

struct DiskState {
    size: u64,
    sector: u64,
    seed: u64,
    random: u64,
    faults: Faults,
    /// Contents that survive a power cut for certain.
    durable: Sparse,
    /// Contents as a read returns them.
    current: Sparse,
    unflushed: Vec<Unflushed>,
    deeds: Vec<Deed>,
    begun: u64,
    lies: Vec<DeviceRange>,
    dead: bool,
}

impl DiskState {
    /// xorshift64*
    fn random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.random().is_multiple_of(u64::from(n))
    }

    fn write(&mut self, number: u64, at: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let error = |source| WriteError { at: DeviceOffset(at), done: ByteLen(0), source };
        if self.dead {
            return Err(error(gone()));
        }
        let end = at.checked_add(bytes.len() as u64);
        if !at.is_multiple_of(self.sector) || !(bytes.len() as u64).is_multiple_of(self.sector) {
            return Err(error(io::ErrorKind::InvalidInput.into()));
        }
        let Some(end) = end.filter(|end| *end <= self.size) else {
            return Err(error(io::Error::from_raw_os_error(libc::ENOSPC)));
        };
        let range = DeviceRange::new(at, end - at);
        self.deeds.push(Deed::Write(range));
        let bad =
            self.faults.write_errors.iter().filter(|bad| bad.overlaps(range)).map(|bad| bad.start.0.max(at)).min();
        if let Some(bad) = bad {
            let good = ((bad - at) / self.sector * self.sector) as usize;
            self.cache(number, at, &bytes[..good]);
            return Err(error(io::Error::from_raw_os_error(libc::EIO)));
        }
        let failing = self.faults.write_error_one_in;
        if self.one_in(failing) {
            return Err(error(io::Error::from_raw_os_error(libc::EIO)));
        }
        let lost = self.faults.lost_one_in;
        if !self.one_in(lost) {
            self.cache(number, at, bytes);
        }
        Ok(())
    }

    fn cache(&mut self, number: u64, at: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.current.write(at, bytes);
            self.unflushed.push(Unflushed { number, at, bytes: bytes.to_vec() });
        }
    }

    /// Makes the writes given before operation `number` durable, and no others.
    fn flush(&mut self, number: u64) -> io::Result<()> {
        if self.dead {
            return Err(gone());
        }
        if self.faults.flush_errors {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.deeds.push(Deed::Flush);
        let (before, after) = std::mem::take(&mut self.unflushed).into_iter().partition(|write| write.number < number);
        self.unflushed = after;
        let before: Vec<Unflushed> = before;
        for write in before {
            self.durable.write(write.at, &write.bytes);
        }
        Ok(())
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> PartResult {
        if self.dead {
            return PartResult::Failed(gone());
        }
        let range = DeviceRange::new(at, into.len() as u64);
        if at.checked_add(into.len() as u64).is_none_or(|end| end > self.size) {
            return PartResult::Failed(io::ErrorKind::UnexpectedEof.into());
        }
        if self.faults.read_errors.iter().any(|bad| bad.overlaps(range)) {
            return PartResult::Failed(io::Error::from_raw_os_error(libc::EIO));
        }
        let failing = self.faults.read_error_one_in;
        if self.one_in(failing) {
            return PartResult::Failed(io::Error::from_raw_os_error(libc::EIO));
        }
        let (misdirect, flip) = (self.faults.misdirect_one_in, self.faults.flip_one_in);
        let mut from = at;
        if self.one_in(misdirect) {
            let sectors = (self.size - into.len() as u64) / self.sector + 1;
            from = self.random() % sectors * self.sector;
        }
        self.current.read(from, into);
        for (place, mask) in &self.faults.flips {
            if let Some(byte) = place.0.checked_sub(at).and_then(|n| into.get_mut(usize::try_from(n).ok()?)) {
                *byte ^= mask;
            }
        }
        if !into.is_empty() && self.one_in(flip) {
            let bit = self.random() as usize % (into.len() * 8);
            into[bit / 8] ^= 1 << (bit % 8);
        }
        if misdirect > 0 || flip > 0 {
            let mut truth = vec![0; into.len()];
            self.current.read(at, &mut truth);
            if truth != into {
                self.lies.push(range);
            }
        }
        PartResult::Done
    }
}

/// Error of a drive without power.
fn gone() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

/// A disk in memory. Clones name the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<DiskState>>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.lock();
        f.debug_struct("SimDisk").field("size", &state.size).field("seed", &state.seed).finish_non_exhaustive()
    }
}

impl SimDisk {
    /// A disk full of zeros. `size` is cut to whole sectors.
    pub fn new(size: ByteLen, sector: SectorSize, seed: u64) -> Self {
        let sector = sector.bytes();
        Self::from_parts(size.0 - size.0 % sector, sector, seed, Sparse::default())
    }

    fn from_parts(size: u64, sector: u64, seed: u64, bytes: Sparse) -> Self {
        Self(Arc::new(Mutex::new(DiskState {
            size,
            sector,
            seed,
            // xorshift stays at zero for ever.
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            faults: Faults::default(),
            durable: bytes.clone(),
            current: bytes,
            unflushed: Vec::new(),
            deeds: Vec::new(),
            begun: 0,
            lies: Vec::new(),
            dead: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the faults from now on; operations are counted from this call.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.lock();
        state.faults = faults;
        state.begun = 0;
    }

    /// Size in bytes.
    pub fn size(&self) -> ByteLen {
        ByteLen(self.lock().size)
    }

    /// Logical sector in bytes.
    pub fn sector(&self) -> u64 {
        self.lock().sector
    }

    /// Contents of a range without faults, with power or without.
    ///
    /// # Panics
    /// The range exceeds the disk.
    pub fn read_at(&self, at: DeviceOffset, into: &mut [u8]) {
        let state = self.lock();
        assert!(at.0 + into.len() as u64 <= state.size);
        state.current.read(at.0, into);
    }

    /// Reads as an engine would, with all faults.
    ///
    /// # Errors
    /// Errors of the injected faults; past the end `UnexpectedEof`.
    pub fn try_read_at(&self, at: DeviceOffset, into: &mut [u8]) -> io::Result<()> {
        match self.lock().read(at.0, into) {
            PartResult::Failed(error) => Err(error),
            PartResult::Done | PartResult::Changed(_) => Ok(()),
        }
    }

    /// Puts bytes on the disk, durable and without faults: to prepare a test.
    ///
    /// # Panics
    /// The range exceeds the disk.
    pub fn plant(&self, at: DeviceOffset, bytes: &[u8]) {
        let mut state = self.lock();
        assert!(at.0 + bytes.len() as u64 <= state.size);
        state.current.write(at.0, bytes);
        state.durable.write(at.0, bytes);
    }

    /// Cuts the power. Operations that engines hold but have not begun may land as well.
    pub fn cut(&self) {
        self.lock().dead = true;
    }

    /// Whether the power is off.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Number of writes that a power cut may lose; after a cut, with those that were under way.
    pub fn unflushed(&self) -> usize {
        self.lock().unflushed.len()
    }

    /// Writes and flushes begun since the faults were set: the possible positions of a cut.
    pub fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// Ranges of reads that returned wrong contents, by `flip_one_in` or `misdirect_one_in`.
    pub fn lies(&self) -> Vec<DeviceRange> {
        self.lock().lies.clone()
    }

    /// Operations of the disk, in the order performed.
    pub fn deeds(&self) -> Vec<Deed> {
        self.lock().deeds.clone()
    }

    /// Bytes of memory that the contents take.
    pub fn memory(&self) -> u64 {
        let state = self.lock();
        let cached: usize = state.unflushed.iter().map(|write| write.bytes.len()).sum();
        (state.current.0.len() + state.durable.0.len()) as u64 * PAGE + cached as u64
    }

    /// A new, working disk with the contents that a power cut now would leave.
    pub fn image_after_cut(&self, landed: Landed) -> Self {
        let state = self.lock();
        let mut bytes = state.durable.clone();
        match landed {
            Landed::Bits(bits) => {
                for (n, write) in state.unflushed.iter().enumerate() {
                    if n < 64 && bits >> n & 1 == 1 {
                        bytes.write(write.at, &write.bytes);
                    }
                }
            }
            Landed::Seeded(seed) => {
                let chance = Self::from_parts(0, state.sector, seed, Sparse::default());
                let mut chance = chance.lock();
                let mut order: Vec<_> = state.unflushed.iter().collect();
                for n in (1..order.len()).rev() {
                    let other = chance.random() as usize % (n + 1);
                    order.swap(n, other);
                }
                for write in order {
                    let whole = match chance.random() % 4 {
                        0 => continue,
                        1 => false,
                        _ => true,
                    };
                    for (n, sector) in write.bytes.chunks(state.sector as usize).enumerate() {
                        if whole || chance.random().is_multiple_of(2) {
                            bytes.write(write.at + n as u64 * state.sector, sector);
                        }
                    }
                }
            }
        }
        Self::from_parts(state.size, state.sector, state.seed, bytes)
    }

    /// First byte at which the readable contents of two disks differ; `None` when they are equal.
    pub fn difference(&self, other: &Self) -> Option<DeviceOffset> {
        if Arc::ptr_eq(&self.0, &other.0) {
            return None;
        }
        // Copied, so that the two locks are never held at once.
        let (mine, theirs) = (self.lock().current.clone(), other.lock().current.clone());
        let mut pages = mine.0.keys().chain(theirs.0.keys()).collect::<std::collections::BTreeSet<_>>().into_iter();
        pages.find_map(|&page| {
            let (a, b) = (mine.page(page), theirs.page(page));
            // Most pages are shared, and most others the same: byte by byte is slow in a debug build.
            if std::ptr::eq(a, b) || a == b {
                return None;
            }
            let n = a.iter().zip(b).position(|(a, b)| a != b)?;
            Some(DeviceOffset(page * PAGE + n as u64))
        })
    }

    /// An engine that works on this disk; several may.
    pub fn engine(&self) -> Sim {
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let waker = {
            let bell = Arc::clone(&bell);
            Waker::new(move || {
                *bell.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
                bell.1.notify_all();
            })
        };
        Sim { disk: self.clone(), queue: VecDeque::new(), hung: Vec::new(), next: 0, bell, waker }
    }
}

enum QueuedWork {
    Fill(Fill),
    Write { tag: u64, slot: Slot, len: usize, at: DeviceOffset },
    Flush { tag: u64 },
}

struct Queued {
    number: u64,
    since: Instant,
    work: QueuedWork,
}

/// The engine of a [`SimDisk`]. Sources are read with plain system calls.
pub struct Sim {
    disk: SimDisk,
    queue: VecDeque<Queued>,
    hung: Vec<Queued>,
    next: u64,
    bell: Arc<(Mutex<bool>, Condvar)>,
    waker: Waker,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl Sim {
    fn give(&mut self, work: QueuedWork) {
        self.next += 1;
        self.queue.push_back(Queued { number: self.next, since: Instant::now(), work });
    }

    /// Takes the operation that the disk finishes next: any, but no flush before the writes given before it.
    fn choose(&mut self) -> Option<Queued> {
        let first_write =
            self.queue.iter().find(|job| matches!(job.work, QueuedWork::Write { .. })).map(|job| job.number);
        let hung_write =
            self.hung.iter().filter(|job| matches!(job.work, QueuedWork::Write { .. })).map(|job| job.number).min();
        let may = |job: &Queued| {
            !matches!(job.work, QueuedWork::Flush { .. })
                || [first_write, hung_write].into_iter().flatten().all(|write| write > job.number)
        };
        let ready: Vec<_> = (0..self.queue.len()).filter(|n| may(&self.queue[*n])).collect();
        if ready.is_empty() {
            return None;
        }
        let chosen = ready[(self.disk.lock().random() % ready.len() as u64) as usize];
        self.queue.remove(chosen)
    }

    /// Does one operation; `None` when it hangs.
    fn run(&mut self, job: Queued) -> Option<Completion> {
        let mut state = self.disk.lock();
        let latency = state.faults.latency_max;
        if !latency.is_zero() {
            let nanos = latency.as_nanos() as u64;
            let pause = Duration::from_nanos(state.random() % nanos);
            drop(state);
            std::thread::sleep(pause);
            state = self.disk.lock();
        }
        if let QueuedWork::Fill(fill) = &job.work
            && fill.parts.iter().any(|part| state.faults.hangs(part))
        {
            drop(state);
            self.hung.push(job);
            return None;
        }
        if !matches!(job.work, QueuedWork::Fill(_)) && !state.dead {
            state.begun += 1;
            if state.faults.hang_at == Some(state.begun) {
                drop(state);
                self.hung.push(job);
                return None;
            }
            if state.faults.cut_after.is_some_and(|last| state.begun >= last) {
                // Operations under way may have landed in part, acknowledged or not.
                for job in std::iter::once(&job).chain(&self.queue).chain(&self.hung) {
                    if let QueuedWork::Write { slot, len, at, .. } = &job.work {
                        state.cache(job.number, at.0, &slot[..*len]);
                    }
                }
                state.dead = true;
            }
        }
        Some(match job.work {
            QueuedWork::Fill(Fill { tag, mut slot, parts }) => {
                drop(state);
                let read = |at: DeviceOffset, into: &mut [u8]| self.disk.lock().read(at.0, into);
                let results = parts.iter().map(|part| sync::fill_part(&read, &mut slot, part)).collect();
                Completion::Filled { tag, slot, results }
            }
            QueuedWork::Write { tag, slot, len, at } => {
                let result = state.write(job.number, at.0, &slot[..len]);
                Completion::Written { tag, slot, result }
            }
            QueuedWork::Flush { tag } => Completion::Flushed { tag, result: state.flush(job.number) },
        })
    }

    /// Takes a pending wake, waiting for one until `deadline` if asked to.
    fn woken(&self, wait: bool, deadline: Option<Instant>) -> bool {
        let (rung, bell) = &*self.bell;
        let mut rung = rung.lock().unwrap_or_else(PoisonError::into_inner);
        while wait && !*rung {
            let Some(deadline) = deadline else {
                rung = bell.wait(rung).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            rung = bell.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        std::mem::take(&mut *rung)
    }
}

impl Engine for Sim {
    fn fill(&mut self, fill: Fill) {
        check_fill(&fill);
        self.give(QueuedWork::Fill(fill));
    }

    fn write(&mut self, tag: u64, slot: Slot, len: usize, at: DeviceOffset) {
        assert!(len <= slot.len(), "a write longer than its slot");
        self.give(QueuedWork::Write { tag, slot, len, at });
    }

    fn flush(&mut self, tag: u64) {
        self.give(QueuedWork::Flush { tag });
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Completion {
        if self.woken(false, None) {
            return Completion::Woken;
        }
        while let Some(job) = self.choose() {
            if let Some(completion) = self.run(job) {
                return completion;
            }
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if self.woken(true, deadline) { Completion::Woken } else { Completion::TimedOut }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.hung.len()
    }

    fn oldest(&self) -> Option<Duration> {
        self.queue.iter().chain(&self.hung).map(|job| job.since.elapsed()).max()
    }

    fn name(&self) -> &'static str {
        "simulated"
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::random_operations;
    use super::*;
    use crate::io::{From, Part};
    use crate::pool::Pool;

    fn write(engine: &mut Sim, pool: &Pool, tag: u64, at: u64, byte: u8, len: usize) {
        let mut slot = pool.take().unwrap();
        slot.fill(byte);
        engine.write(tag, slot, len, DeviceOffset(at));
    }

    fn byte(disk: &SimDisk, at: u64) -> u8 {
        let mut byte = [0];
        disk.read_at(DeviceOffset(at), &mut byte);
        byte[0]
    }

    fn read(engine: &mut Sim, pool: &Pool, at: u64, len: usize) -> (Vec<u8>, PartResult) {
        let parts = vec![Part { into: 0..len, from: From::Target { at: DeviceOffset(at) } }];
        engine.fill(Fill { tag: 0, slot: pool.take().unwrap(), parts });
        match engine.wait(None) {
            Completion::Filled { slot, mut results, .. } => (slot[..len].to_vec(), results.remove(0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn random_operations_leave_the_bytes_of_the_twin() {
        for (seed, sector) in [(1, SectorSize::S512), (2, SectorSize::S4096), (3, SectorSize::S512)] {
            let disk = SimDisk::new(ByteLen(1 << 20), sector, seed);
            let pool = Pool::new(12, 64 << 10).unwrap();
            let align = sector.bytes() as usize;
            let twin = random_operations(&mut disk.engine(), &pool, 1 << 20, align, seed, 400);
            let mut image = vec![0; 1 << 20];
            disk.read_at(DeviceOffset(0), &mut image);
            assert!(image == twin, "seed {seed}");
        }
    }

    #[test]
    fn a_cut_keeps_what_was_flushed_and_any_subset_of_the_rest() {
        let disk = SimDisk::new(ByteLen(24 << 40), SectorSize::S512, 1);
        let pool = Pool::new(8, 4096).unwrap();
        let mut engine = disk.engine();
        write(&mut engine, &pool, 1, 0, 1, 4096);
        engine.flush(2);
        write(&mut engine, &pool, 3, 4096, 3, 4096);
        write(&mut engine, &pool, 4, (24 << 40) - 4096, 4, 4096);
        while engine.in_flight() > 0 {
            assert!(!matches!(engine.wait(None), Completion::TimedOut));
        }
        assert_eq!(disk.unflushed(), 2);
        let order: Vec<_> = disk.deeds().into_iter().filter(|deed| *deed != Deed::Flush).collect();
        let unflushed: Vec<_> = order.iter().filter(|deed| **deed != Deed::Write(DeviceRange::new(0, 4096))).collect();
        for bits in 0..4 {
            let after = disk.image_after_cut(Landed::Bits(bits));
            assert_eq!(byte(&after, 0), 1, "flushed");
            for (n, deed) in unflushed.iter().enumerate() {
                let Deed::Write(range) = deed else { unreachable!() };
                assert_eq!(byte(&after, range.start.0) != 0, bits >> n & 1 == 1);
            }
        }
        assert!(disk.memory() < 1 << 20);
    }

    #[test]
    fn a_flush_covers_no_write_given_after_it_and_every_one_before() {
        for seed in 1..50 {
            let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, seed);
            let pool = Pool::new(8, 4096).unwrap();
            let mut engine = disk.engine();
            for n in 0..4 {
                write(&mut engine, &pool, n, n * 4096, 1, 4096);
            }
            engine.flush(9);
            for n in 4..8 {
                write(&mut engine, &pool, n, n * 4096, 1, 4096);
            }
            while engine.in_flight() > 0 {
                engine.wait(None);
            }
            let after = disk.image_after_cut(Landed::Bits(0));
            assert!((0..4).all(|n| byte(&after, n * 4096) == 1), "seed {seed}");
            assert!((4..8).all(|n| byte(&after, n * 4096) == 0), "seed {seed}");
        }
    }

    #[test]
    fn tearing_happens_at_sectors_and_nowhere_else() {
        let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, 5);
        let pool = Pool::new(1, 64 << 10).unwrap();
        let mut engine = disk.engine();
        write(&mut engine, &pool, 1, 0, 7, 64 << 10);
        engine.wait(None);
        let mut torn = 0;
        for seed in 0..200 {
            let after = disk.image_after_cut(Landed::Seeded(seed));
            let mut bytes = vec![0; 64 << 10];
            after.read_at(DeviceOffset(0), &mut bytes);
            let sectors: Vec<_> = bytes.chunks(512).map(|sector| sector[0]).collect();
            assert!(bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
            torn += usize::from(sectors.contains(&0) && sectors.contains(&7));
            assert_eq!(after.difference(&disk.image_after_cut(Landed::Seeded(seed))), None, "seed {seed} repeats");
        }
        assert!((20..150).contains(&torn), "{torn} of 200 torn");
    }

    #[test]
    fn after_the_cut_nothing_works_and_nothing_was_acknowledged_for_it() {
        for seed in 1..20 {
            let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, seed);
            disk.set_faults(Faults { cut_after: Some(3), ..Faults::default() });
            let pool = Pool::new(8, 4096).unwrap();
            let mut engine = disk.engine();
            for n in 0..6 {
                write(&mut engine, &pool, n, n * 4096, 1, 4096);
            }
            let mut good = 0;
            while engine.in_flight() > 0 {
                match engine.wait(None) {
                    Completion::Written { result, .. } => good += usize::from(result.is_ok()),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(good, 2);
            assert!(disk.is_dead());
            assert_eq!(disk.unflushed(), 6, "what was under way may land");
            engine.flush(9);
            assert!(matches!(engine.wait(None), Completion::Flushed { result: Err(_), .. }));
            assert!(!read(&mut engine, &pool, 0, 512).1.is_done());
            assert_eq!(pool.available(), 8);
        }
    }

    #[test]
    fn chosen_places_fail_and_reads_lie_when_told_to() {
        let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, 3);
        let pool = Pool::new(4, 4096).unwrap();
        let mut engine = disk.engine();
        disk.plant(DeviceOffset(8192), &[0x11; 4096]);
        disk.set_faults(Faults {
            write_errors: vec![DeviceRange::new(1024, 1)],
            read_errors: vec![DeviceRange::new(20_000, 1)],
            flips: vec![(DeviceOffset(8200), 0x80)],
            ..Faults::default()
        });
        write(&mut engine, &pool, 1, 0, 9, 4096);
        let Completion::Written { result: Err(error), .. } = engine.wait(None) else { panic!() };
        assert_eq!(error.source.raw_os_error(), Some(libc::EIO));
        assert_eq!((byte(&disk, 1023), byte(&disk, 1024)), (9, 0));
        assert!(!read(&mut engine, &pool, 19_968, 512).1.is_done());
        let (bytes, result) = read(&mut engine, &pool, 8192, 512);
        assert!(result.is_done());
        assert_eq!((bytes[7], bytes[8], bytes[9]), (0x11, 0x91, 0x11));

        disk.set_faults(Faults { lost_one_in: 1, ..Faults::default() });
        write(&mut engine, &pool, 2, 8192, 0xFF, 4096);
        assert!(matches!(engine.wait(None), Completion::Written { result: Ok(()), .. }));
        assert_eq!(byte(&disk, 8192), 0x11, "acknowledged and lost");

        disk.set_faults(Faults { flip_one_in: 1, ..Faults::default() });
        let (bytes, _) = read(&mut engine, &pool, 8192, 512);
        let flipped: u32 = bytes.iter().map(|byte| (byte ^ 0x11).count_ones()).sum();
        assert_eq!(flipped, 1);
    }

    #[test]
    fn a_hung_write_holds_its_flush_and_shows_its_age() {
        let disk = SimDisk::new(ByteLen(1 << 20), SectorSize::S512, 3);
        disk.set_faults(Faults { hang_at: Some(1), ..Faults::default() });
        let pool = Pool::new(4, 4096).unwrap();
        let mut engine = disk.engine();
        write(&mut engine, &pool, 1, 0, 9, 4096);
        engine.flush(2);
        assert!(matches!(engine.wait(Some(Duration::from_millis(5))), Completion::TimedOut));
        assert_eq!(engine.in_flight(), 2);
        assert!(engine.oldest().unwrap() >= Duration::from_millis(5));
        engine.waker().wake();
        assert!(matches!(engine.wait(None), Completion::Woken));
    }
}
