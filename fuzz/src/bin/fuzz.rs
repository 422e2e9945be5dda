//! One parser under libFuzzer: the environment names it (`DRAY_FUZZ=manifest`). `scripts/fuzz` runs all of them.

#![no_main]

use std::sync::LazyLock;

use dray_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("DRAY_FUZZ").expect("DRAY_FUZZ names a parser");
    TARGETS.iter().find(|target| target.name == name).expect("DRAY_FUZZ names a parser that there is")
});

fuzz_target!(|input: &[u8]| (TARGET.feed)(input));
