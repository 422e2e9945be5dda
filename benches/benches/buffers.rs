//! Ways for a file's bytes to reach a worker's pass: buffers of `aligned-vec` against huge-page slots, `memmap2` against
//! reads through the ring. The file is in the page cache, so that the copy and the pages are what differs; the time is
//! the processor's, of the whole process.
//!
//! `cargo bench -p dray-benches --bench buffers -- --quick`

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use aligned_vec::{AVec, ConstAlign};
use criterion::{Throughput, criterion_group, criterion_main};
use dray_base::entropy::{Entropy, Seeded};
use dray_base::units::SectorSize;
use dray_benches::{CpuTime, SLOT, in_pieces, peers};
use dray_crypt::{Cipher, SectorCipher};
use dray_host::io::{self, Completion, Fill, From, Options, Part, Requests, SourceFile, Target};
use dray_host::pool::{Pool, Slot};

/// Slots that go through the pass together.
const TOGETHER: usize = 8;
/// Such passes over the file.
const PASSES: usize = 4;
const PIECE: usize = 32 << 10;

type Criterion = criterion::Criterion<CpuTime>;

/// Positions of a pass's slots in the file.
fn places(pass: usize) -> impl Iterator<Item = Range<usize>> {
    (pass * TOGETHER..(pass + 1) * TOGETHER).map(|slot| slot * SLOT..(slot + 1) * SLOT)
}

fn ways(c: &mut Criterion) {
    let len = PASSES * TOGETHER * SLOT;
    let path = std::env::temp_dir().join(format!("dray-bench-{}", std::process::id()));
    let mut bytes = vec![0; len];
    Seeded::new(5).fill(&mut bytes);
    File::create(&path).and_then(|mut file| file.write_all(&bytes)).expect("room for 128 MiB");
    drop(bytes);
    let file = File::open(&path).expect("the file");
    let cipher = SectorCipher::new(Cipher::AesCbc256, &[7; 32], SectorSize::S512).expect("a key");
    let pool = Pool::whole(TOGETHER, SLOT).expect("slots");
    let mut slots: Vec<Slot> = std::iter::from_fn(|| pool.take()).collect();
    let mut plain: Vec<AVec<u8, ConstAlign<4096>>> = (0..TOGETHER).map(|_| AVec::from_iter(4096, [0; SLOT])).collect();

    let mut group = c.benchmark_group("a cached file through the pass");
    group.throughput(Throughput::Bytes(len as u64));
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(4));
    group.bench_function("read into aligned-vec", |b| {
        b.iter(|| {
            for pass in 0..PASSES {
                for (buffer, place) in plain.iter_mut().zip(places(pass)) {
                    file.read_exact_at(buffer, place.start as u64).expect("the file");
                }
                in_pieces(&mut plain.iter_mut().map(|buffer| &mut buffer[..]).collect::<Vec<_>>(), PIECE, &cipher);
            }
        });
    });
    group.bench_function("read into slots", |b| {
        b.iter(|| {
            for pass in 0..PASSES {
                for (slot, place) in slots.iter_mut().zip(places(pass)) {
                    file.read_exact_at(slot, place.start as u64).expect("the file");
                }
                in_pieces(&mut slots.iter_mut().map(|slot| &mut slot[..]).collect::<Vec<_>>(), PIECE, &cipher);
            }
        });
    });
    // Sealing is in place, so that a mapped source has to be copied as well.
    group.bench_function("memmap2, copied into slots", |b| {
        b.iter(|| {
            let map = peers::map(&file).expect("a mapping");
            for pass in 0..PASSES {
                for (slot, place) in slots.iter_mut().zip(places(pass)) {
                    slot.copy_from_slice(&map[place]);
                }
                in_pieces(&mut slots.iter_mut().map(|slot| &mut slot[..]).collect::<Vec<_>>(), PIECE, &cipher);
            }
        });
    });
    drop(slots);
    for (name, is_direct) in [("ring into slots", false), ("ring into slots, O_DIRECT", true)] {
        let source = Arc::new(SourceFile::open(&path, is_direct).expect("the file"));
        if is_direct && !source.is_direct() {
            println!("SKIPPED: no O_DIRECT on {}", path.display());
            continue;
        }
        let target = Target { file: Arc::new(File::open(&path).expect("it")), align: 1, requests: Requests::default() };
        let (mut engine, notice) = io::open(target, &pool, Options::default());
        println!("{} {}", engine.name(), notice.unwrap_or_default());
        group.bench_function(name, |b| {
            b.iter(|| {
                for pass in 0..PASSES {
                    for (place, tag) in places(pass).zip(0..) {
                        let from = From::Open { file: Arc::clone(&source), offset: place.start as u64 };
                        let slot = pool.take().expect("a slot");
                        engine.fill(Fill { tag, slot, parts: vec![Part { into: 0..SLOT, from }] });
                    }
                    let mut full: Vec<Slot> = Vec::new();
                    while full.len() < TOGETHER {
                        match engine.wait(None) {
                            Completion::Filled { slot, results, .. } if results.iter().all(|part| part.is_done()) => {
                                full.push(slot);
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    in_pieces(&mut full.iter_mut().map(|slot| &mut slot[..]).collect::<Vec<_>>(), PIECE, &cipher);
                }
            });
        });
    }
    group.finish();
    let _ = std::fs::remove_file(&path);
}

criterion_group! {
    name = buffers;
    config = criterion::Criterion::default().with_measurement(CpuTime::Process);
    targets = ways
}
criterion_main!(buffers);
