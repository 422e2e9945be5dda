//! The Debian package, built and unpacked by dpkg's own tools.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Session, said, scratch};

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
        // How well it is compressed is nothing that this test looks at.
        .envs([("XZ_DEFAULTS", "-1"), ("DPKG_DEB_COMPRESSOR_LEVEL", "1")])
        .output()
        .expect("the script runs");
    assert!(output.status.success(), "{}", said(&output));
    let made = String::from_utf8(output.stdout).expect("UTF-8");
    let made: Vec<&Path> = made.lines().map(Path::new).collect();
    let [package, tarball, sums] = made[..] else { panic!("package, tarball, checksums: {made:?}") };
    assert!(tarball.to_str().is_some_and(|name| name.contains(std::env::consts::ARCH)), "{made:?}");
    let checked = Command::new("sha256sum").args(["--check", "--strict"]).arg(sums).current_dir(&dir).output();
    let checked = said(&checked.expect("sha256sum runs"));
    assert_eq!(checked.matches(": OK").count(), 2, "{checked}");
    let listed = Command::new("tar").arg("-tf").arg(tarball).output().expect("tar runs");
    for part in ["/bin/dray\n", "/share/man/man1/dray.1.gz\n", "/share/doc/dray/copyright\n"] {
        assert!(said(&listed).contains(part), "{part}: {}", said(&listed));
    }
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
    // dpkg itself accepts it, into a root of its own.
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

/// Whether a program of this name can be started.
fn is_here(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Whether an ELF file needs a loader (a program header PT_INTERP).
fn wants_loader(program: &Path) -> bool {
    let bytes = fs::read(program).expect("the program");
    let number =
        |at: usize, len: usize| bytes[at..at + len].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    assert_eq!(&bytes[..5], b"\x7fELF\x02", "64 bits");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|i| number((table + i * size) as usize, 4) == 3)
}

#[test]
#[ignore = "builds everything once more, minutes on two cores; cargo test -p dray --test package -- --ignored"]
fn the_static_program_needs_no_library_and_goes_the_whole_road() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let rustc = Command::new("rustc").args(["--print", "target-libdir", "--target", &target]).output();
    let has_library = rustc.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    });
    if !has_library || !is_here("musl-gcc") {
        eprintln!("SKIPPED judge: no static program: rustup target add {target}; apt-get install musl-tools");
        return;
    }
    // As `scripts/package --static` builds it, but for the optimizer, which would take minutes.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--package", "dray", "--target", &target, "--target-dir"]);
    build.arg(root.join("target/static")).current_dir(&root);
    for setting in ["opt-level=0", "package.\"*\".opt-level=0", "package.sha2.opt-level=3", "debug=false"] {
        build.args(["--config", &format!("profile.dev.{setting}")]);
    }
    let output = build.output().expect("cargo runs");
    assert!(output.status.success(), "{}", said(&output));
    let program = root.join("target/static").join(&target).join("debug/dray");
    assert!(!wants_loader(&program) && wants_loader(Path::new(env!("CARGO_BIN_EXE_dray"))));

    let session = Session::new("static");
    fs::create_dir_all(session.path("data")).expect("a directory");
    fs::write(session.path("data/a"), "hello").expect("a file");
    session.dataset(&[&format!("\"{}/\",con/,BlockBlob", session.path("data").display())]);
    session.driveset(&["drive.img:100MB".to_owned()]);
    let run = |words: &str| {
        let output = Command::new(&program).args(words.split(' ')).current_dir(&session.dir).output().expect("runs");
        assert!(output.status.success(), "{words}: {}", said(&output));
        said(&output)
    };
    assert!(run("--version").contains(&target));
    run("prep-import --journal j.jrn --id s#1 --initial-driveset driveset.csv --dataset dataset.csv --silent \
         --not-for-shipping --drive-id D1");
    assert!(run("verify drive.img --key-file D1.xml").contains("The blob is as the manifest says"));
}
