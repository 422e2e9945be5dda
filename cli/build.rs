//! Gives the binary the commit it was built from. Without git, or outside a checkout, it records that instead.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DRAY_COMMIT");
    let git = |args: &[&str]| -> Option<String> {
        let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (!text.is_empty()).then_some(text)
    };
    // A package that was unpacked inside another project's checkout does not belong to that commit.
    let ours = git(&["ls-files", "--error-unmatch", "build.rs"]).is_some();
    let commit = std::env::var("DRAY_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| ours.then(|| git(&["log", "-1", "--format=%h, %cs", "--abbrev=10"])).flatten());
    if ours {
        for name in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", name]) {
                println!("cargo::rerun-if-changed={path}");
            }
        }
    }
    println!("cargo::rustc-env=DRAY_BUILT_FROM={}", commit.as_deref().unwrap_or("commit unknown"));
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=DRAY_BUILT_FOR={target}");
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(compiler).arg("--version").output().ok().filter(|output| output.status.success());
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=DRAY_BUILT_BY={}", version.as_deref().unwrap_or("an unknown compiler"));
}
