//! Slots: the aligned buffers of the data path, in one mapping.
//!
//! One anonymous mapping holds all slots, so that it can be registered with a ring once, is backed by huge pages where
//! the kernel grants them (8 MiB direct writes ran 2 to 3 times faster from them), and stays out of core dumps, since
//! file contents pass through it. A [`Slot`] is owned by one stage at a time and moves from stage to stage; the mapping
//! is freed with its last slot.
//!
//! The drives of a session share one mapping ([`Pool::shares`]): each is sure of some slots, and takes more as long as
//! others leave them. A slot that a drive returned is its own again first, since its ring has it registered.
//!
//! The first slots are populated at once; a thread populates the others in the background. Where a hypervisor has to
//! find each page of its guest first, the 108 MiB of a drive take 0.2 s (13 ms where the pages exist), which a drive
//! need not wait for.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

/// Alignment of slots in address and length: sufficient for O_DIRECT on every supported device.
pub const SLOT_ALIGN: usize = 4096;

/// Bytes of a slot on every data path, and so of most reads and writes: the longest block that most manifests have.
pub const SLOT_LEN: usize = 4 << 20;

/// Slots of one drive that may be filling at once.
pub const FILLS_MAX: usize = 8;

/// Synchronous collapse into huge pages (include/uapi/asm-generic/mman-common.h); some C libraries' headers lack it.
const MADV_COLLAPSE: libc::c_int = 25;

/// The mapping starts at a multiple of this: a huge page of x86-64 and of arm64 with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of slots populated when a pool is made.
const AT_ONCE: usize = 16 << 20;

/// A number of slots of equal length, or a share of them.
///
/// Clones name the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Share>);

/// One buffer of the pool, exclusively owned. Dropping it returns it to the pool.
pub struct Slot {
    share: Arc<Share>,
    index: usize,
}

/// Slots of which one user is sure; the others of its arena are for everybody.
#[derive(Debug)]
struct Share {
    arena: Arc<Arena>,
    /// Slots that it can always have.
    sure: usize,
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    /// Slots without an owner that came back, used as a stack: the slot returned last is taken first, since its pages
    /// are warm.
    free: Vec<usize>,
    /// Slots that are in `free` or with an owner.
    held: usize,
}

/// Slots that no share holds.
#[derive(Debug)]
struct Common {
    /// Populated.
    free: Vec<usize>,
    /// Not populated yet.
    to_come: Range<usize>,
    /// Number of slots that a share may hold in addition to those that it is sure of.
    spare: usize,
}

struct Arena {
    /// Result of `mmap`, for `munmap`.
    map: NonNull<u8>,
    map_len: usize,
    /// First slot: `map` rounded up to a huge page.
    base: NonNull<u8>,
    slots: usize,
    slot_len: usize,
    huge: bool,
    common: Mutex<Common>,
}

// SAFETY: the raw pointers name a mapping that belongs to this value alone and is unmapped only by its `Drop`. Bytes are
// reached through `Slot` only, and each index is either in one list or in exactly one `Slot`.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives access to no byte of the mapping, and `common` is behind a mutex.
unsafe impl Sync for Arena {}

impl Pool {
    /// Maps `slots` buffers of `slot_len` bytes each, zeroed. At least one is available at once; the last follow a
    /// little later.
    ///
    /// # Errors
    /// `InvalidInput` unless there is at least one slot and `slot_len` is a positive multiple of [`SLOT_ALIGN`];
    /// otherwise the error of `mmap`.
    pub fn new(slots: usize, slot_len: usize) -> io::Result<Self> {
        Ok(Self::shares(1, slots, 0, slot_len)?.remove(0))
    }

    /// As [`Self::new`], for `users` that share a mapping: each is sure of `sure` slots, and `spare` more are for those
    /// that come first. What a user is sure of becomes spare when it drops its pool.
    ///
    /// # Errors
    /// As [`Self::new`]; also without users.
    pub fn shares(users: usize, sure: usize, spare: usize, slot_len: usize) -> io::Result<Vec<Self>> {
        let slots = users.saturating_mul(sure).saturating_add(spare);
        let there = AT_ONCE.checked_div(slot_len).unwrap_or(0).max(users).clamp(1, slots.max(1));
        let arena = Arc::new(Arena::map(slots, slot_len, there, spare)?);
        if there < slots {
            let rest = Arc::downgrade(&arena);
            // Without a thread for it they come when they are touched.
            if thread::Builder::new().name("slots".into()).spawn(move || Arena::bring_rest(&rest)).is_err() {
                let mut common = arena.lock();
                let rest = common.to_come.clone();
                common.free.splice(0..0, rest.rev());
                common.to_come = 0..0;
            }
        }
        let share = || Self(Arc::new(Share { arena: Arc::clone(&arena), sure, own: Mutex::default() }));
        Ok((0..users).map(|_| share()).collect())
    }

    /// As [`Self::new`], with all slots populated: for measurements, or for callers that need each of them from the
    /// start.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn whole(slots: usize, slot_len: usize) -> io::Result<Self> {
        let arena = Arc::new(Arena::map(slots, slot_len, slots, 0)?);
        Ok(Self(Arc::new(Share { arena, sure: slots, own: Mutex::default() })))
    }

    /// An unowned slot; `None` when all populated ones are in use. Its earlier contents are still in it.
    pub fn take(&self) -> Option<Slot> {
        let index = self.0.take()?;
        Some(Slot { share: Arc::clone(&self.0), index })
    }

    /// Returns a slot; the same as dropping it.
    pub fn put(&self, slot: Slot) {
        debug_assert!(self.owns(&slot), "a slot of another pool");
        drop(slot);
    }

    /// Number of slots in the mapping, populated or not, of all its users: one more than the highest index.
    pub fn slots(&self) -> usize {
        self.0.arena.slots
    }

    /// Bytes in a slot.
    pub fn slot_len(&self) -> usize {
        self.0.arena.slot_len
    }

    /// Whether the first slots are in huge pages; the others are too, as long as the kernel has some.
    pub fn is_huge(&self) -> bool {
        self.0.arena.huge
    }

    /// Populated slots that [`Self::take`] would give at this moment.
    pub fn available(&self) -> usize {
        let own = self.0.lock();
        let common = self.0.arena.lock();
        let more = self.0.sure.saturating_sub(own.held) + common.spare;
        own.free.len() + common.free.len().min(more)
    }

    /// Whether the slot is one of this pool's mapping.
    pub fn owns(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&self.0.arena, &slot.share.arena)
    }

    /// Start of slot `index`, for registering the mapping with the kernel. The bytes are not the caller's.
    pub(crate) fn address_of(&self, index: usize) -> *mut u8 {
        self.0.arena.address_of(index).as_ptr()
    }
}

impl Share {
    fn take(&self) -> Option<usize> {
        let mut own = self.lock();
        if let Some(index) = own.free.pop() {
            return Some(index);
        }
        let mut common = self.arena.lock();
        let is_sure = own.held < self.sure;
        if !is_sure && common.spare == 0 {
            return None;
        }
        // A user that comes late is not made to wait for the thread that populates.
        let touch = own.held == 0;
        let index = common.free.pop().or_else(|| if touch { common.to_come.next_back() } else { None })?;
        own.held += 1;
        common.spare -= usize::from(!is_sure);
        Some(index)
    }

    fn put(&self, index: usize) {
        let mut own = self.lock();
        if own.held > self.sure {
            own.held -= 1;
            let mut common = self.arena.lock();
            common.free.push(index);
            common.spare += 1;
        } else {
            own.free.push(index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        // A panic cannot leave the list half changed: it is only pushed to and popped from.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    /// Every slot holds its share, so all that it held are free.
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut common = self.arena.lock();
        common.free.append(&mut own.free);
        common.spare += self.sure;
    }
}

impl Arena {
    /// Maps `slots` buffers, the first `there` of them populated.
    fn map(slots: usize, slot_len: usize, there: usize, spare: usize) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        if slots == 0 || slot_len == 0 || !slot_len.is_multiple_of(SLOT_ALIGN) {
            return Err(invalid("a pool needs slots whose length is a multiple of 4096"));
        }
        let map_len = slots
            .checked_mul(slot_len)
            .and_then(|len| len.checked_next_multiple_of(HUGE_PAGE))
            .and_then(|len| len.checked_add(HUGE_PAGE))
            .filter(|len| isize::try_from(*len).is_ok())
            .ok_or_else(|| invalid("a pool of that size has no address"))?;
        // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice aliases nothing.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(|| io::Error::other("mmap gave page zero"))?;
        let skip = map.as_ptr().align_offset(HUGE_PAGE);
        debug_assert!(skip < HUGE_PAGE);
        // SAFETY: `map_len` has a huge page to spare, so `skip` bytes further is still inside the mapping.
        let base = unsafe { map.add(skip) };
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_DONTDUMP, libc::MADV_DONTFORK] {
            // SAFETY: the range is our own mapping. Advice changes how pages are backed, dumped and inherited, not what
            // they hold; a refusal (a kernel without huge pages) costs speed only and is ignored.
            let _ = unsafe { libc::madvise(map.as_ptr().cast(), map_len, advice) };
        }
        let common = Mutex::new(Common { free: (0..there).rev().collect(), to_come: there..slots, spare });
        let mut arena = Self { map, map_len, base, slots, slot_len, huge: false, common };
        arena.huge = arena.bring(0..there);
        Ok(arena)
    }

    /// Populates slots, in huge pages if the kernel grants them; whether it did, as far as it reports that (since 6.1).
    ///
    /// A transfer from huge pages is few stretches of memory, so the device takes more of it at once.
    fn bring(&self, slots: Range<usize>) -> bool {
        let start = self.address_of(slots.start);
        let bytes = slots.start * self.slot_len..slots.end * self.slot_len;
        // SAFETY: `map` mapped whole huge pages from `base` on that hold all slots, and no end is past the last of them.
        // Both change only how the pages are backed: their contents stay.
        let advise =
            |end: usize, advice| unsafe { libc::madvise(start.as_ptr().cast(), end - bytes.start, advice) } == 0;
        let _ = advise(bytes.end, libc::MADV_POPULATE_WRITE);
        bytes.len() >= HUGE_PAGE && advise(bytes.end.next_multiple_of(HUGE_PAGE), MADV_COLLAPSE)
    }

    /// Populates the remaining slots, one by one, as long as the pool exists.
    fn bring_rest(this: &Weak<Self>) {
        while let Some(arena) = this.upgrade() {
            let Some(index) = arena.lock().to_come.next() else { return };
            arena.bring(index..index + 1);
            arena.lock().free.insert(0, index);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Common> {
        // As in `Share::lock`.
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address_of(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.slots);
        // SAFETY: `index < slots`, and `map` made the mapping hold `slots * slot_len` bytes from `base` on.
        unsafe { self.base.add(index * self.slot_len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: every slot holds its share and so this arena: none is left, and engines keep the slots of operations in
        // flight: neither this process nor the kernel uses the mapping any more.
        let gone = unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
        debug_assert_eq!(gone, 0);
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("slots", &self.slots).field("slot_len", &self.slot_len).finish_non_exhaustive()
    }
}

impl Slot {
    /// Index of the slot in its pool.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Start of its bytes, for operations of the kernel that outlive the borrow of a `&mut self`.
    pub(crate) fn address(&self) -> *mut u8 {
        self.share.arena.address_of(self.index).as_ptr()
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped and initialised (anonymous pages are zero), they belong to this slot alone, and
        // `&self` keeps them from being changed. While the kernel fills them the engine owns the slot and does not
        // look.
        unsafe { std::slice::from_raw_parts(self.address(), self.share.arena.slot_len) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.share.arena.slot_len) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.share.put(self.index);
    }
}

/// The bytes are file contents: only number and length are shown.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("index", &self.index).field("len", &self.share.arena.slot_len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_disjoint_and_come_back() {
        let pool = Pool::new(3, 3 * SLOT_ALIGN).unwrap();
        let mut slots: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(slots.len(), 3);
        assert!(pool.take().is_none());
        for (n, slot) in slots.iter_mut().enumerate() {
            assert!(slot.as_ptr().addr().is_multiple_of(SLOT_ALIGN));
            assert_eq!(slot.len(), 3 * SLOT_ALIGN);
            slot.fill(n as u8 + 1);
        }
        for (n, slot) in slots.iter().enumerate() {
            assert!(slot.iter().all(|byte| *byte == n as u8 + 1));
        }
        drop(slots);
        assert_eq!(pool.available(), 3);
        assert!(pool.address_of(0).addr().is_multiple_of(HUGE_PAGE));
    }

    #[test]
    fn slots_that_are_not_there_at_once_come_by_themselves() {
        let (slots, slot_len) = (5, AT_ONCE / 2);
        let pool = Pool::new(slots, slot_len).unwrap();
        let mut all = Vec::new();
        while all.len() < slots {
            match pool.take() {
                Some(slot) => all.push(slot),
                None => {
                    assert!(all.len() >= 2, "the first are there at once");
                    thread::yield_now();
                }
            }
        }
        assert!(pool.take().is_none());
        let mut indexes: Vec<_> = all.iter().map(Slot::index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, [0, 1, 2, 3, 4]);
        assert_eq!(Pool::whole(slots, slot_len).unwrap().available(), slots);
        // The pool is dropped before the remaining slots are populated.
        drop(Pool::new(slots, slot_len).unwrap());
    }

    /// Each user gets what it is sure of whatever the others take, and the spare slots go to and fro.
    #[test]
    fn users_share_what_is_spare() {
        let mut pools = Pool::shares(3, 2, 3, SLOT_ALIGN).unwrap();
        assert_eq!(pools[0].slots(), 9);
        let all = |pool: &Pool| std::iter::from_fn(|| pool.take()).collect::<Vec<_>>();
        let patiently = |pool: &Pool, count: usize| {
            let mut taken = Vec::new();
            while taken.len() < count {
                taken.extend(pool.take());
                thread::yield_now();
            }
            taken
        };
        let mut first = patiently(&pools[0], 5);
        assert!(pools[0].take().is_none() && pools[0].available() == 0);
        let second = patiently(&pools[1], 2);
        assert!(pools[1].take().is_none());
        let third = patiently(&pools[2], 2);
        assert!(pools[2].take().is_none());
        let mut indexes: Vec<_> = first.iter().chain(&second).chain(&third).map(Slot::index).collect();
        indexes.sort_unstable();
        assert_eq!(indexes, (0..9).collect::<Vec<_>>());
        // One that the first gives up is the second's.
        first.truncate(4);
        let more = all(&pools[1]);
        assert_eq!(more.len(), 1);
        assert!(pools[0].take().is_none() && pools[2].take().is_none());
        drop(more);
        // A user that ends leaves what it was sure of to the others.
        drop((pools.pop(), third));
        assert_eq!(all(&pools[0]).len(), 3);
        drop(first);
        assert_eq!((pools[0].available(), pools[1].available()), (7, 5));
        assert_eq!(all(&pools[0]).len(), 7);
    }

    /// A user is never without any slot, whatever is populated and whoever was faster.
    #[test]
    fn the_last_user_does_not_wait_for_pages() {
        let pools = Pool::shares(3, 2, 4, AT_ONCE).unwrap();
        let greedy: Vec<_> = std::iter::from_fn(|| pools[0].take()).collect();
        assert!(!greedy.is_empty());
        assert!(pools[1].take().is_some() && pools[2].take().is_some());
    }

    #[test]
    fn the_mapping_outlives_the_pool_while_a_slot_is_out() {
        let pool = Pool::new(2, SLOT_ALIGN).unwrap();
        let mut slot = pool.take().unwrap();
        drop(pool);
        slot.fill(0xA5);
        let slot = std::thread::spawn(move || slot).join().unwrap();
        assert!(slot.iter().all(|byte| *byte == 0xA5));
    }

    #[test]
    fn odd_sizes_are_refused() {
        for (slots, len) in [(0, 4096), (1, 0), (1, 512), (usize::MAX, 4096), (1 << 40, 1 << 40)] {
            assert!(Pool::new(slots, len).is_err());
        }
    }
}
