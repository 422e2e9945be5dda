//! Slots: the aligned buffers of the data path, in one mapping.
//!
//! One anonymous mapping holds all slots, so that it can be registered with a ring once, is backed by huge pages where
//! the kernel grants them (8 MiB direct writes ran 2 to 3 times faster from them), and stays out of core dumps, since
//! file contents pass through it. A [`Slot`] is owned by one stage at a time and moves from stage to stage; the mapping
//! is freed with its last slot.
//!
//! The first slots are populated at once; a thread populates the others in the background. Where a hypervisor has to
//! find each page of its guest first, the 112 MiB of a drive take 0.2 s (13 ms where the pages exist), which a drive
//! need not wait for.

#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};
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

/// A fixed number of slots of equal length.
///
/// Clones name the same pool.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Arena>);

/// One buffer of the pool, exclusively owned. Dropping it returns it to the pool.
pub struct Slot {
    arena: Arc<Arena>,
    index: usize,
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
    /// Indexes of populated slots without an owner, used as a stack: the slot returned last is taken first, since its
    /// pages are warm.
    free: Mutex<Vec<usize>>,
}

// SAFETY: the raw pointers name a mapping that belongs to this value alone and is unmapped only by its `Drop`. Bytes are
// reached through `Slot` only, and each index is either in `free` or in exactly one `Slot`.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives access to no byte of the mapping, and `free` is behind a mutex.
unsafe impl Sync for Arena {}

impl Pool {
    /// Maps `slots` buffers of `slot_len` bytes each, zeroed. At least one is available at once; the last follow a
    /// little later.
    ///
    /// # Errors
    /// `InvalidInput` unless there is at least one slot and `slot_len` is a positive multiple of [`SLOT_ALIGN`];
    /// otherwise the error of `mmap`.
    pub fn new(slots: usize, slot_len: usize) -> io::Result<Self> {
        let there = AT_ONCE.checked_div(slot_len).unwrap_or(0).clamp(1, slots.max(1));
        let pool = Self::map(slots, slot_len, there)?;
        if there < slots {
            let arena = Arc::downgrade(&pool.0);
            let bring = move || Arena::bring_rest(&arena, there);
            // Without a thread for it they come when they are touched.
            if thread::Builder::new().name("slots".into()).spawn(bring).is_err() {
                pool.0.lock().splice(0..0, (there..slots).rev());
            }
        }
        Ok(pool)
    }

    /// As [`Self::new`], with all slots populated: for measurements, or for callers that need each of them from the
    /// start.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn whole(slots: usize, slot_len: usize) -> io::Result<Self> {
        Self::map(slots, slot_len, slots)
    }

    fn map(slots: usize, slot_len: usize, there: usize) -> io::Result<Self> {
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
        let free = Mutex::new((0..there).rev().collect());
        let mut arena = Arena { map, map_len, base, slots, slot_len, huge: false, free };
        arena.huge = arena.bring(0..there);
        Ok(Self(Arc::new(arena)))
    }

    /// An unowned slot; `None` when all populated ones are in use. Its earlier contents are still in it.
    pub fn take(&self) -> Option<Slot> {
        let index = self.0.lock().pop()?;
        Some(Slot { arena: Arc::clone(&self.0), index })
    }

    /// Returns a slot; the same as dropping it.
    pub fn put(&self, slot: Slot) {
        debug_assert!(self.owns(&slot), "a slot of another pool");
        drop(slot);
    }

    /// Number of slots, populated or not.
    pub fn slots(&self) -> usize {
        self.0.slots
    }

    /// Bytes in a slot.
    pub fn slot_len(&self) -> usize {
        self.0.slot_len
    }

    /// Whether the first slots are in huge pages; the others are too, as long as the kernel has some.
    pub fn is_huge(&self) -> bool {
        self.0.huge
    }

    /// Populated slots without an owner at this moment.
    pub fn available(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether the slot is one of this pool.
    pub fn owns(&self, slot: &Slot) -> bool {
        Arc::ptr_eq(&self.0, &slot.arena)
    }

    /// Start of slot `index`, for registering the mapping with the kernel. The bytes are not the caller's.
    pub(crate) fn address_of(&self, index: usize) -> *mut u8 {
        self.0.address_of(index).as_ptr()
    }
}

impl Arena {
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

    /// Populates the slots from `first` on, one by one, as long as the pool exists.
    fn bring_rest(this: &Weak<Self>, first: usize) {
        let mut index = first;
        while let Some(arena) = this.upgrade() {
            if index == arena.slots {
                return;
            }
            arena.bring(index..index + 1);
            arena.lock().insert(0, index);
            index += 1;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        // A panic cannot leave the list half changed: it is only pushed to and popped from.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address_of(&self, index: usize) -> NonNull<u8> {
        assert!(index < self.slots);
        // SAFETY: `index < slots`, and `new` made the mapping hold `slots * slot_len` bytes from `base` on.
        unsafe { self.base.add(index * self.slot_len) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: every slot holds an `Arc` of this arena, so none is left, and engines keep the slots of operations in
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
        self.arena.address_of(self.index).as_ptr()
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are mapped and initialised (anonymous pages are zero), they belong to this slot alone, and
        // `&self` keeps them from being changed. While the kernel fills them the engine owns the slot and does not
        // look.
        unsafe { std::slice::from_raw_parts(self.address(), self.arena.slot_len) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.arena.slot_len) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.arena.lock().push(self.index);
    }
}

/// The bytes are file contents: only number and length are shown.
impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("index", &self.index).field("len", &self.arena.slot_len).finish()
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
