//! The same operations on every engine, against a plain file and against a twin in memory.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A directory that is deleted with the test.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dray-io-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// xorshift64*: repeatable, and sufficient for choosing operations.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn target(path: &Path, direct: bool) -> Target {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).unwrap();
    Target { file: Arc::new(file), align: if direct { 4096 } else { 1 }, requests: Requests::default() }
}

/// All engines that use the kernel: the ring with this kernel's features, the ring with those of 5.10, plain system
/// calls.
fn engines(target: &Target, pool: &Pool, options: Options) -> Vec<Box<dyn Engine>> {
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(sync::Sync::new(target.clone(), options))];
    for kernel in [uring::Kernel::Oldest, uring::Kernel::Newest] {
        match uring::Uring::with(target.clone(), pool, options, kernel) {
            Ok(ring) => engines.push(Box::new(ring)),
            Err(error) => eprintln!("SKIPPED engine io_uring: {error}"),
        }
    }
    engines
}

fn read_one(engine: &mut dyn Engine, pool: &Pool, parts: Vec<Part>) -> (Slot, Vec<PartResult>) {
    engine.fill(Fill { tag: 7, slot: pool.take().unwrap(), parts });
    match engine.wait(None) {
        Completion::Filled { tag: 7, slot, results } => (slot, results),
        other => panic!("{other:?}"),
    }
}

fn facts(path: &Path) -> FileFacts {
    FileFacts::from_metadata(&fs::symlink_metadata(path).unwrap())
}

fn path_part(path: &Path, into: Range<usize>, facts: FileFacts) -> Part {
    Part { into, from: From::Path { path: Arc::new(SourcePath::new(path).unwrap()), facts } }
}

const SLOT: usize = 64 << 10;

/// Sources with known bytes: small ones by path, one large one kept open.
struct Sources {
    small: Vec<(Arc<SourcePath>, FileFacts, Vec<u8>)>,
    large: Arc<SourceFile>,
    large_bytes: Vec<u8>,
}

impl Sources {
    fn new(scratch: &Scratch, rng: &mut Rng, direct: bool) -> Self {
        let small = [0, 1, 700, 4095, 4096, 4097, 9000]
            .into_iter()
            .enumerate()
            .map(|(n, len)| {
                let bytes = rng.bytes(len);
                let path = scratch.file(&format!("small{n}"), &bytes);
                (Arc::new(SourcePath::new(&path).unwrap()), facts(&path), bytes)
            })
            .collect();
        let large_bytes = rng.bytes(3 * SLOT + 1234);
        let path = scratch.file("large", &large_bytes);
        let large = Arc::new(SourceFile::open(&path, direct).unwrap());
        Self { small, large, large_bytes }
    }
}

/// Random operations; checks every completion, and returns the contents that the target must have at the end.
pub(super) fn random_operations(
    engine: &mut dyn Engine,
    pool: &Pool,
    len: usize,
    align: usize,
    seed: u64,
    steps: usize,
) -> Vec<u8> {
    let scratch = Scratch::new();
    let mut rng = Rng(seed);
    let sources = Sources::new(&scratch, &mut rng, seed.is_multiple_of(2));
    let mut twin = vec![0; len];
    let (mut fills, mut writes) = (HashMap::new(), HashMap::<u64, Range<usize>>::new());
    let mut reads = HashMap::<u64, Vec<Range<usize>>>::new();
    let mut flushes = HashMap::<u64, Vec<u64>>::new();
    let mut tag = 0;
    for step in 0.. {
        let finishing = step >= steps;
        if finishing && engine.in_flight() == 0 {
            break;
        }
        let choice = if finishing { 9 } else { rng.below(10) };
        let slot = if choice < 7 { pool.take() } else { None };
        tag += 1;
        match (choice, slot) {
            (0..4, Some(mut slot)) => {
                let units = 1 + rng.below(SLOT / align);
                let at = rng.below(len / align - units + 1) * align;
                let range = at..at + units * align;
                let meets = |other: &Range<usize>| other.start < range.end && range.start < other.end;
                // Overlapping operations have no order, and so no expected contents.
                if writes.values().any(meets) || reads.values().flatten().any(meets) {
                    continue;
                }
                let bytes = rng.bytes(range.len());
                slot[..bytes.len()].copy_from_slice(&bytes);
                twin[range.clone()].copy_from_slice(&bytes);
                writes.insert(tag, range.clone());
                engine.write(tag, slot, bytes.len(), DeviceOffset(at as u64));
            }
            (4..7, Some(mut slot)) => {
                slot.fill(0xEE);
                let mut expected = vec![0xEE; slot.len()];
                let (mut parts, mut at, mut ranges) = (Vec::new(), 0, Vec::new());
                while at < slot.len() {
                    let rest = slot.len() - at;
                    let (bytes, from) = match rng.below(3) {
                        0 => {
                            let (path, facts, bytes) = &sources.small[rng.below(sources.small.len())];
                            (bytes.clone(), From::Path { path: Arc::clone(path), facts: *facts })
                        }
                        1 => {
                            let n = rng.below(rest.min(sources.large_bytes.len()) + 1);
                            let mut offset = rng.below(sources.large_bytes.len() - n + 1);
                            if rng.below(2) == 0 {
                                offset -= offset % 4096;
                            }
                            let bytes = sources.large_bytes[offset..offset + n].to_vec();
                            (bytes, From::Open { file: Arc::clone(&sources.large), offset: offset as u64 })
                        }
                        _ => {
                            let n = (rest / 4).max(align) / align * align;
                            let offset = rng.below((len - n) / align + 1) * align;
                            let range = offset..offset + n;
                            if n > rest
                                || writes.values().any(|other| other.start < range.end && range.start < other.end)
                            {
                                break;
                            }
                            ranges.push(range.clone());
                            (twin[range].to_vec(), From::Target { at: DeviceOffset(offset as u64) })
                        }
                    };
                    if bytes.len() > rest {
                        break;
                    }
                    expected[at..at + bytes.len()].copy_from_slice(&bytes);
                    parts.push(Part { into: at..at + bytes.len(), from });
                    at = (at + bytes.len()).next_multiple_of(align.max(1 + rng.below(4096)));
                    if align > 1 {
                        at = at.next_multiple_of(align);
                    }
                }
                fills.insert(tag, expected);
                reads.insert(tag, ranges);
                engine.fill(Fill { tag, slot, parts });
            }
            (7, _) => {
                flushes.insert(tag, writes.keys().copied().collect());
                engine.flush(tag);
            }
            _ => match engine.wait(Some(Duration::from_secs(if choice == 9 { 20 } else { 0 }))) {
                Completion::Filled { tag, slot, results } => {
                    assert!(results.iter().all(PartResult::is_done), "seed {seed}: {results:?}");
                    assert!(*slot == fills.remove(&tag).unwrap()[..], "seed {seed}: fill {tag} differs");
                    reads.remove(&tag);
                }
                Completion::Written { tag, result, .. } => {
                    result.unwrap();
                    writes.remove(&tag).unwrap();
                }
                Completion::Flushed { tag, result } => {
                    result.unwrap();
                    for write in flushes.remove(&tag).unwrap() {
                        assert!(!writes.contains_key(&write), "seed {seed}: flush {tag} passed write {write}");
                    }
                }
                Completion::TimedOut => assert!(choice != 9 || engine.in_flight() == 0, "seed {seed}: stuck"),
                other => panic!("seed {seed}: {other:?}"),
            },
        }
        // Waiting with nothing under way would last the whole time-out.
        if engine.in_flight() == 0 && finishing {
            break;
        }
    }
    assert!(fills.is_empty() && writes.is_empty() && flushes.is_empty());
    twin
}

#[test]
fn random_operations_leave_the_bytes_of_the_twin_on_every_engine() {
    let len = 1 << 20;
    for seed in 1..=2 {
        for direct in [false, true] {
            let scratch = Scratch::new();
            let path = scratch.file("target", &vec![0; len]);
            let mut target = target(&path, direct);
            // The shortest request that is made, so that most transfers are cut.
            target.requests = Requests { len_max: (seed == 2).then_some(1), ..Requests::default() };
            let pool = Pool::new(12, SLOT).unwrap();
            // Few places, so that operations have to queue.
            let options = Options { reads: 5, writes: 3, threads: 3 };
            let align = target.align as usize;
            let mut images = Vec::new();
            for mut engine in engines(&target, &pool, options) {
                target.file.set_len(0).unwrap();
                target.file.set_len(len as u64).unwrap();
                let twin = random_operations(&mut *engine, &pool, len, align, seed, 150);
                drop(engine);
                assert_eq!(pool.available(), pool.slots());
                let image = fs::read(&path).unwrap();
                assert!(image == twin, "seed {seed}, direct {direct}: the target differs from its twin");
                images.push(image);
            }
        }
    }
}

#[test]
fn a_thousand_small_files_fill_one_slot() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[0; 4096]);
    let target = target(&path, false);
    let pool = Pool::new(1, 1 << 20).unwrap();
    let mut expected = Vec::new();
    let mut parts = Vec::new();
    for n in 0..1000_usize {
        let bytes = vec![n as u8; n];
        let path = scratch.file(&format!("f{n}"), &bytes);
        parts.push(path_part(&path, expected.len()..expected.len() + n, facts(&path)));
        expected.extend(bytes);
    }
    for mut engine in engines(&target, &pool, Options::default()) {
        let (slot, results) = read_one(&mut *engine, &pool, parts.clone());
        assert_eq!(results.len(), 1000);
        assert!(results.iter().all(PartResult::is_done));
        assert!(slot[..expected.len()] == expected[..]);
    }
}

#[test]
fn a_file_that_is_not_what_the_catalog_saw_is_told_and_spoils_no_neighbour() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[0; 4096]);
    let target = target(&path, false);
    let pool = Pool::new(1, SLOT).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        let good = scratch.file("good", b"good");
        let (longer, shorter) = (scratch.file("longer", &[1; 100]), scratch.file("shorter", &[2; 100]));
        let (same_len, other) = (scratch.file("same", &[3; 100]), scratch.file("other", &[4; 100]));
        let (gone, link, pipe) =
            (scratch.file("gone", &[5; 100]), scratch.file("link", &[6; 100]), scratch.file("pipe", &[7; 100]));
        let known = |path: &PathBuf| facts(path);
        let before: Vec<_> = [&longer, &shorter, &same_len, &other, &gone, &link, &pipe].map(known).to_vec();
        fs::write(&longer, [1; 101]).unwrap();
        fs::write(&shorter, [2; 99]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&same_len, [9; 100]).unwrap();
        fs::rename(scratch.file("new", &[4; 100]), &other).unwrap();
        fs::remove_file(&gone).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&good, &link).unwrap();
        fs::remove_file(&pipe).unwrap();
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

        let changed = [&longer, &shorter, &same_len, &other, &gone, &link, &pipe];
        let mut parts: Vec<_> = changed
            .iter()
            .zip(&before)
            .enumerate()
            .map(|(n, (path, facts))| path_part(path, n * 100..n * 100 + 100, *facts))
            .collect();
        parts.push(path_part(&good, 1000..1004, facts(&good)));
        let (slot, results) = read_one(&mut *engine, &pool, parts);
        let reported = |n: usize, word: &str| match &results[n] {
            PartResult::Changed(what) => assert!(what.contains(word), "{n}: {what}"),
            other => panic!("{n}: {other:?}"),
        };
        reported(0, "longer: from 100 to 101");
        reported(1, "shorter: from 100 to 99");
        reported(2, "modified");
        reported(3, "another file");
        assert!(matches!(&results[4], PartResult::Failed(error) if error.kind() == io::ErrorKind::NotFound));
        assert!(matches!(&results[5], PartResult::Failed(error) if error.raw_os_error() == Some(libc::ELOOP)));
        reported(6, "no ordinary file");
        assert!(results[7].is_done());
        assert_eq!(&slot[1000..1004], b"good");
        fs::remove_file(&link).unwrap();
        fs::remove_file(&pipe).unwrap();
    }
}

#[test]
fn an_open_file_that_shrinks_under_the_reader_is_told() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[0; 4096]);
    let target = target(&path, false);
    let pool = Pool::new(1, SLOT).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        for direct in [false, true] {
            let source = scratch.file("source", &[1; 20_000]);
            let file = Arc::new(SourceFile::open(&source, direct).unwrap());
            assert!(file.facts_now().unwrap().change_since(file.facts()).is_none());
            OpenOptions::new().write(true).open(&source).unwrap().set_len(12_345).unwrap();
            let parts = vec![Part { into: 0..20_000, from: From::Open { file: Arc::clone(&file), offset: 0 } }];
            let (_, results) = read_one(&mut *engine, &pool, parts);
            assert!(matches!(&results[0], PartResult::Changed(what) if what.contains("12345")), "{results:?}");
            assert!(file.facts_now().unwrap().change_since(file.facts()).unwrap().contains("shorter"));
        }
    }
}

#[test]
fn a_full_device_is_an_error_at_its_byte() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let target = Target { file: Arc::new(full), align: 1, requests: Requests::default() };
    let pool = Pool::new(1, 4096).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        engine.write(1, pool.take().unwrap(), 4096, DeviceOffset(8192));
        let Completion::Written { tag: 1, result: Err(error), .. } = engine.wait(None) else { panic!() };
        assert_eq!((error.at, error.done), (DeviceOffset(8192), ByteLen(0)));
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull);
    }
}

/// A file system of 64 KiB accepts the first part of a write and reports a short count; the rest fails.
#[test]
fn a_short_write_is_continued_and_its_end_told() {
    let scratch = Scratch::new();
    let mount = scratch.0.join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&mount).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED judge: mounting a tmpfs is not allowed here");
        return;
    }
    struct Unmount(PathBuf);
    impl Drop for Unmount {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        }
    }
    let _unmount = Unmount(mount.clone());
    let path = mount.join("target");
    for kind in 0..3 {
        fs::write(&path, b"").unwrap();
        let target = target(&path, false);
        let pool = Pool::new(1, 128 << 10).unwrap();
        let engine = engines(&target, &pool, Options::default()).into_iter().nth(kind);
        let Some(mut engine) = engine else { continue };
        engine.write(1, pool.take().unwrap(), 128 << 10, DeviceOffset(0));
        let Completion::Written { result: Err(error), .. } = engine.wait(None) else { panic!() };
        assert_eq!(error.source.kind(), io::ErrorKind::StorageFull, "{}", engine.name());
        assert_eq!(error.done, ByteLen(64 << 10), "{}", engine.name());
        assert_eq!(error.at, DeviceOffset(64 << 10));
    }
}

#[test]
fn reading_past_the_end_of_the_target_fails() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[1; 6000]);
    let target = target(&path, false);
    let pool = Pool::new(1, 8192).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        let (slot, results) =
            read_one(&mut *engine, &pool, vec![Part { into: 0..8192, from: From::Target { at: DeviceOffset(0) } }]);
        assert!(matches!(&results[0], PartResult::Failed(error) if error.kind() == io::ErrorKind::UnexpectedEof));
        assert!(slot[..6000].iter().all(|byte| *byte == 1));
    }
}

#[test]
fn a_waker_ends_a_wait_and_a_time_out_too() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[0; 4096]);
    let target = target(&path, false);
    let pool = Pool::new(1, 4096).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        for _ in 0..3 {
            assert!(matches!(engine.wait(Some(Duration::from_millis(5))), Completion::TimedOut));
            assert!(matches!(engine.wait(Some(Duration::ZERO)), Completion::TimedOut));
            let waker = engine.waker();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                waker.wake();
            });
            assert!(matches!(engine.wait(None), Completion::Woken));
            thread.join().unwrap();
        }
        // A wake before the wait is not lost, and operations continue alongside it.
        engine.waker().wake();
        engine.write(1, pool.take().unwrap(), 4096, DeviceOffset(0));
        let (first, second) = (engine.wait(None), engine.wait(None));
        assert!(matches!(first, Completion::Woken) || matches!(second, Completion::Woken));
        assert!(matches!(first, Completion::Written { .. }) || matches!(second, Completion::Written { .. }));
        assert_eq!(engine.in_flight(), 0);
    }
}

#[test]
fn dropping_an_engine_brings_its_slots_back() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &vec![0; 8 << 20]);
    let target = target(&path, true);
    let pool = Pool::new(8, 1 << 20).unwrap();
    for mut engine in engines(&target, &pool, Options { reads: 2, writes: 2, threads: 2 }) {
        for n in 0..4 {
            engine.write(n, pool.take().unwrap(), 1 << 20, DeviceOffset(n << 20));
            let parts = vec![Part { into: 0..1 << 20, from: From::Target { at: DeviceOffset((4 + n) << 20) } }];
            engine.fill(Fill { tag: n, slot: pool.take().unwrap(), parts });
        }
        engine.flush(9);
        engine.submit();
        assert_eq!(engine.in_flight(), 9);
        drop(engine);
        assert_eq!(pool.available(), 8);
    }
}

#[test]
fn a_direct_source_reads_what_a_buffered_one_reads() {
    let scratch = Scratch::new();
    let bytes = Rng(99).bytes(50_001);
    let path = scratch.file("source", &bytes);
    let file = Arc::new(SourceFile::open(&path, true).unwrap());
    if !file.is_direct() {
        eprintln!("SKIPPED: no O_DIRECT on {}", path.display());
    }
    let target = target(&path, false);
    let pool = Pool::new(1, SLOT).unwrap();
    for mut engine in engines(&target, &pool, Options::default()) {
        for (start, offset, len) in
            [(0, 0, 50_001), (0, 4096, 8192), (4096, 49_152, 849), (100, 0, 50_001), (8192, 5, 20_000)]
        {
            let parts = vec![Part { into: start..start + len, from: From::Open { file: Arc::clone(&file), offset } }];
            let (slot, results) = read_one(&mut *engine, &pool, parts);
            assert!(results[0].is_done(), "{results:?}");
            assert!(slot[start..start + len] == bytes[offset as usize..offset as usize + len]);
        }
    }
}

#[test]
fn the_best_engine_is_found_and_works() {
    let scratch = Scratch::new();
    let path = scratch.file("target", &[0; 4096]);
    let pool = Pool::new(1, 4096).unwrap();
    let (mut engine, notice) = open(target(&path, false), &pool, Options::default());
    eprintln!("{}: {notice:?}", engine.name());
    let mut slot = pool.take().unwrap();
    slot.fill(0x5A);
    // Opened here, used there: the ring binds to the thread that waits.
    std::thread::spawn(move || {
        engine.write(3, slot, 4096, DeviceOffset(0));
        assert!(matches!(engine.wait(None), Completion::Written { tag: 3, result: Ok(()), .. }));
    })
    .join()
    .unwrap();
    let mut back = [0; 4096];
    OpenOptions::new().read(true).open(&path).unwrap().read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, [0x5A; 4096]);
}

#[test]
fn transfers_are_cut_into_equal_requests_that_the_device_takes() {
    let target = |len_max, segments_max, optimal| Target {
        file: Arc::new(File::open("/dev/null").unwrap()),
        align: 512,
        requests: Requests { len_max, segments_max, optimal },
    };
    let lens = |target: &Target, huge: bool, len: usize| -> Vec<usize> {
        let requests: Vec<Range<usize>> = target.cut(huge).requests(len).collect();
        assert_eq!(requests.first().map(|r| r.start), Some(0));
        assert_eq!(requests.last().map(|r| r.end), Some(len));
        assert!(requests.windows(2).all(|pair| pair[0].end == pair[1].start));
        requests.iter().map(Range::len).collect()
    };
    let (kib, mib) = (1 << 10, 1 << 20);
    assert_eq!(lens(&target(None, None, None), false, 4 * mib), [4 * mib]);
    // 1280 KiB would leave a rest of 256.
    let disk = target(Some(1280 << 10), Some(128), None);
    assert_eq!(lens(&disk, true, 4 * mib), [mib; 4]);
    assert_eq!(lens(&disk, false, 4 * mib), [512 * kib; 8]);
    assert_eq!(lens(&disk, true, mib + 512), [mib + 512]);
    assert_eq!(lens(&disk, true, 0), [0]);
    let usb = lens(&target(Some(120 << 10), None, None), true, 4 * mib);
    assert_eq!((usb.len(), usb[0], usb[34]), (35, 120 * kib, 16 * kib));
    let array = lens(&target(Some(2 << 20), None, Some(768 << 10)), true, 4 * mib);
    assert_eq!(array, [1536 * kib, 1536 * kib, mib]);
    // Values that no device means seriously.
    assert_eq!(lens(&target(Some(1), Some(1), Some(33_553_920)), false, mib), [16 * kib; 64]);
}
