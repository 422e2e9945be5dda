//! One parser under libFuzzer, named by the environment (`DRAY_FUZZ=manifest`). `DRAY_FUZZ_SEEDS=DIR` writes the seeds,
//! `DIR/<parser>/seed-<number>`, and prints the parsers' names instead; with `DRAY_FUZZ_OWN` only seeds that may be
//! published, and their parsers. `scripts/fuzz` runs all of them.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use dray_fuzz::{TARGETS, Target, seeds};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("DRAY_FUZZ").expect("DRAY_FUZZ names a parser");
    TARGETS.iter().find(|target| target.name == name).expect("DRAY_FUZZ names a parser that there is")
});

fn write_seeds(dir: &Path) {
    let is_own = std::env::var_os("DRAY_FUZZ_OWN").is_some();
    for target in TARGETS {
        let seeds = if is_own { seeds::own(target.name) } else { seeds::of(target.name) };
        if is_own && seeds.is_empty() {
            continue;
        }
        let at = dir.join(target.name);
        fs::create_dir_all(&at).expect("a directory");
        for (index, seed) in seeds.iter().enumerate() {
            fs::write(at.join(format!("seed-{index:03}")), seed).expect("a seed");
        }
        println!("{}", target.name);
    }
}

fuzz_target!(
    init: {
        if let Some(dir) = std::env::var_os("DRAY_FUZZ_SEEDS") {
            write_seeds(Path::new(&dir));
            std::process::exit(0);
        }
    },
    |input: &[u8]| (TARGET.feed)(input)
);
