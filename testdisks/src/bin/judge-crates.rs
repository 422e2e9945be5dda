//! `judge-crates IMAGE RECORD [PLAIN]`: judges a finished drive with `bitlocker-core` and `ntfs`. Exit code 0, 1 or,
//! when they cannot read it, 3.

use std::path::Path;
use std::process::ExitCode;

use dray_testdisks::crates::crates;
use dray_testdisks::judge::Verdict;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    let [image, record, plain @ ..] = &args[..] else {
        eprintln!("judge-crates IMAGE RECORD [PLAIN]");
        return ExitCode::from(2);
    };
    match crates(Path::new(image), Path::new(record), plain.first().map(Path::new)) {
        Verdict::Pass(words) => {
            println!("PASS {words}");
            ExitCode::SUCCESS
        }
        Verdict::Fail(words) => {
            println!("FAIL {words}");
            ExitCode::FAILURE
        }
        Verdict::Skipped(words) => {
            println!("SKIP {words}");
            ExitCode::from(3)
        }
    }
}
