//! The Debian package, built and unpacked by dpkg's own tools.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{said, scratch};

#[test]
fn the_package_installs_program_pages_and_completions() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("SKIPPED judge: no dpkg-deb here, so the package is not built");
        return;
    }
    let dir = scratch("package");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(root.join("scripts/package"))
        .args(["--binary", env!("CARGO_BIN_EXE_dray"), "--to"])
        .arg(&dir)
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{}", said(&output));
    let package = String::from_utf8(output.stdout).expect("UTF-8");
    let package = Path::new(package.trim());
    let installed = dir.join("root");
    let unpack =
        |args: &[&str]| Command::new("dpkg-deb").args(args).arg(package).arg(&installed).output().expect("runs");
    assert!(unpack(&["-x"]).status.success());
    let said_by = |program: &str, args: &[&str]| {
        let output = Command::new(installed.join(program)).args(args).output().expect("the installed program runs");
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(said_by("usr/bin/dray", &["--version"]).contains(env!("CARGO_PKG_VERSION")));
    for there in [
        "usr/share/man/man1/dray.1.gz",
        "usr/share/man/man1/dray-prep-import.1.gz",
        "usr/share/man/man1/dray-job-create.1.gz",
        "usr/share/bash-completion/completions/dray",
        "usr/share/zsh/vendor-completions/_dray",
        "usr/share/fish/vendor_completions.d/dray.fish",
        "usr/share/doc/dray/copyright",
        "usr/share/doc/dray/events.schema.json",
    ] {
        assert!(fs::metadata(installed.join(there)).is_ok_and(|meta| meta.len() > 0), "{there}");
    }
    // dpkg itself takes it, into a root of its own.
    let admin = dir.join("admin");
    for sub in ["info", "updates", "triggers"] {
        fs::create_dir_all(admin.join(sub)).expect("made");
    }
    for file in ["status", "available"] {
        fs::write(admin.join(file), "").expect("written");
    }
    let target = dir.join("target-root");
    fs::create_dir_all(&target).expect("made");
    let output = Command::new("dpkg")
        .arg(format!("--admindir={}", admin.display()))
        .arg(format!("--instdir={}", target.display()))
        .args(["--force-not-root", "--force-depends", "--force-script-chrootless", "-i"])
        .arg(package)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .output()
        .expect("dpkg runs");
    assert!(output.status.success(), "{}", said(&output));
    assert!(target.join("usr/bin/dray").exists());
}
