//! Drives with a changed partition table: the disk has another size, a copy is missing, the volume is elsewhere.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Session, said};

const MIB: u64 = 1 << 20;

fn run(session: &Session, args: &[&str], image: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.args(args).arg(image).args(more).arg("--key-file").arg(session.path("drive.xml"));
    command.stdin(Stdio::null()).output().expect("the binary runs")
}

/// A copy of the image with these bytes written, and with this length.
fn changed(session: &Session, name: &str, len: u64, writes: &[(u64, &[u8])]) -> std::path::PathBuf {
    let image = session.path(name);
    fs::copy(session.path("drive.img"), &image).expect("a copy");
    let file = OpenOptions::new().write(true).open(&image).expect("the copy");
    for (at, bytes) in writes {
        file.write_all_at(bytes, *at).expect("bytes");
    }
    file.set_len(len).expect("a length");
    image
}

#[test]
fn a_volume_is_found_wherever_a_table_that_can_be_used_says() {
    let session = Session::new("tables");
    fs::create_dir_all(session.path("source")).expect("a source");
    for name in 0..4_u8 {
        let contents: Vec<u8> = (0..8 * MIB as u32).map(|at| (at / 7) as u8 ^ name).collect();
        fs::write(session.path("source").join(format!("f{name}")), contents).expect("a file");
    }
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,,", session.path("source").display())]);
    session.driveset(&[format!("{}:100MiB", session.path("drive.img").display())]);
    session.prepare(&[]);
    let (size, start) = (100 * MIB, 17 * MIB);
    let whole = fs::read(session.path("drive.img")).expect("the image");

    let larger = changed(&session, "larger.img", size + 50 * MIB, &[]);
    let no_first = changed(&session, "first.img", size + 50 * MIB, &[(512, &[0; 512])]);
    let longer = changed(&session, "longer.img", size + 8 * 512, &[]);
    let shorter = changed(&session, "shorter.img", size - 195 * 512, &[]);
    let alone = session.path("alone.img");
    fs::write(&alone, &whole[start as usize..(size - MIB) as usize]).expect("the partition");
    // A missing copy is a fault of the preparation; the blobs are read all the same.
    for (image, code, says) in [
        (&larger, 0, "the second copy of the partition table lies at byte"),
        (&longer, 0, "the second copy of the partition table lies at byte"),
        (&shorter, 5, "the second copy of the partition table is missing"),
        (&no_first, 5, "the first copy of the partition table is missing"),
        (&alone, 0, ""),
    ] {
        let out = run(&session, &["verify"], image, &[]);
        let text = said(&out);
        assert_eq!(out.status.code(), Some(code), "{}: {text}", image.display());
        assert_eq!(text.contains("Equal: All 4 blobs"), code == 0, "{}: {text}", image.display());
        assert!(text.contains(says), "{text}");
        let out = run(&session, &["ls", "--recursive"], image, &[]);
        assert!(out.status.success() && said(&out).contains("/f3"), "{}", said(&out));
        let out = run(&session, &["inspect"], image, &[]);
        assert!(out.status.success() && said(&out).contains(says), "{}", said(&out));
        let _ = fs::remove_file(image);
    }

    // The service's first volume is that of the second partition, if the first one holds none.
    let second = session.path("second.img");
    let file = OpenOptions::new().write(true).create_new(true).open(&second).expect("an image");
    file.set_len(180 * MIB).expect("a length");
    file.write_all_at(&whole[start as usize..(size - MIB) as usize], 40 * MIB).expect("a volume");
    let len = (size - MIB - start) / 512;
    let mut mbr = [0; 512];
    for (place, kind, from, sectors) in [(446, 7_u8, 2048_u64, 2048_u64), (462, 7, 40 * MIB / 512, len)] {
        mbr[place + 4] = kind;
        mbr[place + 8..place + 12].copy_from_slice(&(from as u32).to_le_bytes());
        mbr[place + 12..place + 16].copy_from_slice(&(sectors as u32).to_le_bytes());
    }
    mbr[510..].copy_from_slice(&[0x55, 0xAA]);
    file.write_all_at(&mbr, 0).expect("a table");
    let out = run(&session, &["verify"], &second, &[]);
    assert!(out.status.success() && said(&out).contains("Equal: All 4 blobs"), "{}", said(&out));
    // With another file system before it, the service would read that one.
    file.write_all_at(&[0x55, 0xAA], MIB + 510).expect("a boot signature");
    let out = run(&session, &["verify"], &second, &[]);
    assert_eq!(out.status.code(), Some(5), "{}", said(&out));
    assert!(said(&out).contains("another volume comes first"), "{}", said(&out));
    let _ = fs::remove_file(&second);

    // Of a volume longer than its disk that is read which is there.
    let cut = changed(&session, "cut.img", size - 30 * MIB, &[]);
    let out = run(&session, &["verify"], &cut, &[]);
    let text = said(&out);
    assert_eq!(out.status.code(), Some(5), "{text}");
    assert!(text.contains("partition 2 is longer than the drive"), "{text}");
    let out = run(&session, &["ls", "--recursive"], &cut, &[]);
    assert!(out.status.success() && said(&out).contains("/f3"), "{}", said(&out));
}
