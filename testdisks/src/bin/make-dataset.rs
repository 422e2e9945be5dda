//! `make-dataset DIR [--seed N] PRESET…`: source trees for tests and benchmarks, the same for the same seed.

use std::path::Path;
use std::process::ExitCode;

use dray_testdisks::dataset::Dataset;

const USAGE: &str = "usage: make-dataset DIR [--seed N] PRESET…
  small[=FILES]        small files, 30 KB on average (30000, 0.9 GB)
  extremes[=SPARSE]    hard names, depths and sizes, and one sparse file (2G)
  flat=FILES           one directory with so many files
  large=SIZE[,EACH]    large files (of 1G each)
sizes take K, M, G (powers of 1024)";

fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn main() -> ExitCode {
    match run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(said) => {
            eprintln!("make-dataset: {said}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut seed = 1;
    if let Some(at) = args.iter().position(|arg| arg == "--seed") {
        let given = args.get(at + 1).and_then(|n| n.parse().ok());
        seed = given.ok_or(USAGE)?;
        args.drain(at..at + 2);
    }
    let (root, presets) = args.split_first().ok_or(USAGE)?;
    if presets.is_empty() {
        return Err(USAGE.to_owned());
    }
    let failed = |e: std::io::Error| format!("{root}: {e}");
    let mut dataset = Dataset::new(Path::new(root), seed).map_err(failed)?;
    for preset in presets {
        let (name, value) = preset.split_once('=').unwrap_or((preset, ""));
        let number = |default: Option<u64>| if value.is_empty() { default } else { size(value) }.ok_or(USAGE);
        match name {
            "small" => dataset.small(number(Some(30_000))?, 100),
            "extremes" => dataset.extremes(number(Some(2 << 30))?),
            "flat" => dataset.flat(number(None)?),
            "large" => {
                let (total, each) = value.split_once(',').unwrap_or((value, "1G"));
                dataset.large(size(total).filter(|n| *n > 0).ok_or(USAGE)?, size(each).ok_or(USAGE)?)
            }
            _ => return Err(USAGE.to_owned()),
        }
        .map_err(failed)?;
    }
    let made = dataset.finish().map_err(failed)?;
    Ok(format!("{} files, {} bytes", made.files, made.bytes))
}
