//! Only the drive that was consented to is written: while a question is open, names may come to lead elsewhere.

use std::os::unix::fs::symlink;

use super::*;
use crate::session::prepared::Prepared;

impl Lab {
    /// A plan for one target of the driveset.
    fn prepared_for(&self, target: &str) -> Prepared {
        let driveset = self.dir.join("driveset.csv");
        let head = "DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey";
        fs::write(&driveset, format!("{head}\n{target},Format,PromptOnFormat,Encrypt,\n")).expect("a driveset");
        let mut request = PrepRequest::new(self.dir.join("j.jrn"), "session#1");
        request.initial_driveset = Some(driveset);
        request.dataset = Some(self.dir.join("dataset.csv"));
        request.engine = EngineChoice::Sync;
        prepare_with(request, Surroundings::real(), &Roots::default(), &mut |_| {}).expect("a plan")
    }

    /// An image with contents: all of its bytes are `byte`.
    fn precious(&self, name: &str, byte: u8) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, vec![byte; 100 << 20]).expect("an image");
        path
    }
}

fn holds(path: &Path, byte: u8) -> bool {
    fs::read(path).expect("an image").iter().all(|it| *it == byte)
}

/// The session is refused as a whole, before it is recorded in the journal.
fn refused(lab: &Lab, prepared: Prepared, word: &str) {
    let problems = prepared.run(&[0], &|_| {}, &Stop::new()).expect_err("refused");
    assert!(problems.0.iter().all(|problem| matches!(problem.kind, Kind::Refused | Kind::Usage)), "{problems}");
    assert!(problems.to_string().contains(word), "{problems}");
    assert!(!lab.dir.join("j.jrn").exists(), "a session that was refused is in the journal");
}

#[test]
fn an_image_that_was_swapped_while_somebody_was_asked_is_refused() {
    let lab = Lab::small("swapped");
    let (asked, other) = (lab.precious("x.img", 1), lab.precious("other.img", 2));
    // A link, a hard link, and another file in its place, all of the same size.
    for how in 0..3 {
        let prepared = lab.prepared_for(&asked.display().to_string());
        assert_eq!(prepared.drives_needing_consent(), [0]);
        let mine = lab.dir.join("x.mine");
        fs::rename(&asked, &mine).expect("renamed");
        match how {
            0 => symlink(&other, &asked),
            1 => fs::hard_link(&other, &asked),
            _ => fs::rename(&other, &asked),
        }
        .expect("in its place");
        refused(&lab, prepared, "leads to inode");
        if how == 2 {
            fs::rename(&asked, &other).expect("renamed");
        }
        assert!(holds(&mine, 1) && holds(&other, 2), "{how}");
        let _ = fs::remove_file(&asked);
        fs::rename(&mine, &asked).expect("renamed");
    }
    // Missing altogether; and in use since.
    let prepared = lab.prepared_for(&asked.display().to_string());
    let writer = fs::OpenOptions::new().write(true).open(&asked).expect("open");
    // On a file system without leases only a lock is seen.
    writer.lock().expect("locked");
    refused(&lab, prepared, "is in use");
    drop(writer);
    let prepared = lab.prepared_for(&asked.display().to_string());
    fs::remove_file(&asked).expect("removed");
    refused(&lab, prepared, "does not exist");
    fs::remove_dir_all(&lab.dir).expect("cleaned");
}

#[test]
fn what_came_into_the_place_of_a_new_image_stays() {
    let lab = Lab::small("taken-place");
    let (new, empty) = (lab.dir.join("new.img"), lab.dir.join("empty.img"));
    let prepared = lab.prepared_for(&format!("{}:100MB", new.display()));
    lab.precious("new.img", 3);
    let report = prepared.run(&[], &|_| {}, &Stop::new()).expect("a report");
    let why = report.drives[0].failure.as_ref().expect("refused");
    assert!(why.kind == Kind::Refused && holds(&new, 3), "{why}");

    fs::remove_file(lab.dir.join("j.jrn")).expect("removed");
    fs::write(&empty, "").expect("an empty file");
    let prepared = lab.prepared_for(&format!("{}:100MB", empty.display()));
    fs::remove_file(&empty).expect("removed");
    fs::write(&empty, "").expect("another empty file");
    refused(&lab, prepared, "leads to inode");
    assert_eq!(fs::metadata(&empty).expect("it is there").len(), 0);
    fs::remove_dir_all(&lab.dir).expect("cleaned");
}

/// A session interrupted before its first batch is durable, whose image is replaced afterwards.
#[test]
fn a_file_that_came_into_the_place_of_an_unfinished_drive_is_neither_filled_nor_erased() {
    let lab = Lab::small("swapped-later");
    let (image, other) = (lab.precious("x.img", 1), lab.precious("other.img", 2));
    for with_plan_of_new in [false, true] {
        if with_plan_of_new {
            fs::remove_file(&image).expect("removed");
        }
        let target = image.display().to_string();
        let target = if with_plan_of_new { format!("{target}:100MB") } else { target };
        let prepared = lab.prepared_for(&target);
        let needing = prepared.drives_needing_consent();
        let stop = Stop::new();
        stop.request();
        let report = prepared.run(&needing, &|_| {}, &stop).expect("a report");
        assert!(report.interrupted, "{report:?}");
        fs::rename(&image, lab.dir.join("x.mine")).expect("renamed");
        fs::rename(&other, &image).expect("in its place");
        let mut request = PrepRequest::new(lab.dir.join("j.jrn"), "session#1");
        request.action = crate::request::Action::Resume;
        // Resuming needs consent again, whatever the signatures.
        match prepare_with(request.clone(), Surroundings::real(), &Roots::default(), &mut |_| {}) {
            Ok(again) => {
                assert_eq!(again.drives_needing_consent(), [0], "{with_plan_of_new}");
                let refused = again.run(&[], &|_| {}, &Stop::new()).expect_err("nobody agreed");
                assert_eq!(refused.0[0].kind, Kind::Refused);
            }
            Err(problems) => assert!(problems.0.iter().all(|problem| problem.kind == Kind::Refused), "{problems}"),
        }
        request.action = crate::request::Action::Abort;
        let back = abort::prepare(request).expect("a rollback").run(&[], &|_| {}).expect("rolled back");
        assert!(back.drives.iter().all(|drive| drive.failure.is_none()), "{back:?}");
        assert!(holds(&image, 2), "{with_plan_of_new}: a file that was never named was written to");
        fs::rename(&image, &other).expect("renamed");
        fs::rename(lab.dir.join("x.mine"), &image).expect("renamed");
        let _ = fs::remove_file(lab.dir.join("j.jrn"));
    }
    fs::remove_dir_all(&lab.dir).expect("cleaned");
}
