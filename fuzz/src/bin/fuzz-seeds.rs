//! Writes what fuzzing starts from, `DIR/<parser>/<number>`; prints the parsers' names.

use std::fs;
use std::path::PathBuf;

use dray_fuzz::{TARGETS, seeds};

fn main() {
    let dir = PathBuf::from(std::env::args_os().nth(1).expect("usage: fuzz-seeds DIR"));
    for target in TARGETS {
        let at = dir.join(target.name);
        fs::create_dir_all(&at).expect("a directory");
        for (index, seed) in seeds::of(target.name).iter().enumerate() {
            fs::write(at.join(format!("seed-{index:03}")), seed).expect("a seed");
        }
        println!("{}", target.name);
    }
}
