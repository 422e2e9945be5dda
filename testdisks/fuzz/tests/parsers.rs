//! Every parser with its seeds, with mutations of them, and with earlier findings of fuzzing.

use std::fs;
use std::path::Path;

use dray_base::entropy::Seeded;
use dray_fuzz::{TARGETS, Target, seeds};

/// Mutations of the seeds of each parser.
const MUTATIONS: u64 = 600;

#[test]
fn what_was_found_once_is_survived() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("found");
    for target in TARGETS {
        for entry in fs::read_dir(dir.join(target.name)).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            println!("{}", path.display());
            (target.feed)(&fs::read(&path).expect("readable"));
        }
    }
}

#[test]
fn seeds_and_their_mutations_are_survived() {
    std::thread::scope(|scope| {
        for target in TARGETS {
            scope.spawn(|| mutate(target));
        }
    });
}

fn mutate(target: &Target) {
    let seeds = seeds::of(target.name);
    if seeds.is_empty() {
        eprintln!("SKIPPED judge: no seeds for {}", target.name);
        return;
    }
    seeds.iter().for_each(|seed| (target.feed)(seed));
    let mut random = Seeded::new(target.name.len() as u64);
    for _ in 0..MUTATIONS {
        let mut bytes = seeds[random.next_u64() as usize % seeds.len()].clone();
        for _ in 0..1 + random.next_u64() % 6 {
            let at = random.next_u64() as usize % bytes.len();
            match random.next_u64() % 4 {
                0 => bytes[at] = random.next_u64() as u8,
                1 => bytes[at] ^= 1 << (random.next_u64() % 8),
                2 => bytes[at] = [0, 0xFF, 0x7F, 0x80][random.next_u64() as usize % 4],
                _ => {
                    let end = (at + 8).min(bytes.len());
                    let edge = [u64::MAX, i64::MAX as u64, 1 << 32, 0][random.next_u64() as usize % 4];
                    bytes[at..end].copy_from_slice(&edge.to_le_bytes()[..end - at]);
                }
            }
        }
        if random.next_u64().is_multiple_of(16) {
            bytes.truncate(random.next_u64() as usize % bytes.len());
        }
        (target.feed)(&bytes);
    }
}
