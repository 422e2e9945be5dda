//! Effects of signals on a session that is writing.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use crate::common::{Session, said, unbroken};
use dray_testdisks::dataset::Dataset;
use dray_testdisks::judge;

/// A session with slowly read sources, while its data stream; its output so far is in `said`.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    said: String,
}

impl Running {
    fn start(session: &Session) -> Self {
        Self::of(session.command(&["--source-rate", "4M", "--yes", "drive"]))
    }

    fn of(command: Command) -> Self {
        Self::until_it_says(command, ": data, ")
    }

    fn until_it_says(mut command: Command, words: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("stderr"));
        let mut running = Self { child, lines, said: String::new() };
        running.until(words);
        running
    }

    fn until(&mut self, words: &str) {
        let begin = self.said.len();
        while !self.said[begin..].contains(words) {
            let read = self.lines.read_line(&mut self.said).expect("stderr");
            assert!(read > 0, "ended without {words:?}: {}", self.said);
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().expect("kill");
        assert!(sent.success(), "{name}");
    }

    /// The exit code, and all output.
    fn end(mut self) -> (Option<i32>, String) {
        self.lines.read_to_string(&mut self.said).expect("stderr");
        self.child.stdout.take().expect("stdout").read_to_string(&mut self.said).expect("stdout");
        let status = self.child.wait().expect("it ends");
        (status.code(), unbroken(&self.said))
    }
}

fn session(name: &str) -> Session {
    let session = Session::new(name);
    let source = session.path("source");
    let mut data = Dataset::new(&source, 3).expect("a dataset");
    data.large(40 << 20, 3 << 20).expect("files");
    data.finish().expect("a dataset");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    session.driveset(&[format!("{}:200MB", session.path("drive.img").display())]);
    session
}

fn resume(session: &Session) {
    let output = Command::new(env!("CARGO_BIN_EXE_dray"))
        .args(["prep-import", "--id", "session#1", "--silent", "--resume", "--journal"])
        .arg(session.path("journal.jrn"))
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (image, record) = (session.path("drive.img"), session.path("drive.xml"));
    judge::drive(&image, &record, Some(&session.path("dataset.csv")), false).expect_pass("scripts/judge-drive");
}

#[test]
fn judge_the_first_signal_ends_at_a_checkpoint_and_tells_how_to_go_on() {
    let session = session("signal-once");
    for name in ["INT", "TERM", "HUP"] {
        let _ = std::fs::remove_file(session.path("journal.jrn"));
        let mut running = Running::start(&session);
        running.signal("USR1");
        running.until("total");
        running.signal(name);
        if name == "HUP" {
            // As when the shell sends it too.
            running.until("stopping at the next safe place");
            running.signal(name);
        }
        let (code, said) = running.end();
        assert_eq!(code, Some(130), "{name}: {said}");
        for words in ["stopping at the next safe place", "Session session#1 was interrupted", "--resume"] {
            assert!(said.contains(words), "{name}: {words}: {said}");
        }
        assert!(!said.contains("is done"), "{name}: {said}");
    }
    resume(&session);
}

#[test]
fn judge_the_second_signal_ends_at_once_and_the_session_goes_on() {
    let session = session("signal-twice");
    let running = Running::start(&session);
    // Stopped, it gets both at once.
    running.signal("STOP");
    running.signal("TERM");
    running.signal("INT");
    running.signal("CONT");
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted at once") && !said.contains("Session session#1"), "{said}");
    resume(&session);
}

#[test]
fn under_nohup_a_lost_terminal_is_no_reason_to_stop() {
    let session = session("signal-nohup");
    let wanted = session.command(&["--source-rate", "16M", "--yes", "drive"]);
    let mut command = Command::new("nohup");
    command.arg(wanted.get_program()).args(wanted.get_args()).stdin(Stdio::null());
    let running = Running::of(command);
    running.signal("HUP");
    let (code, said) = running.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is done after") && !said.contains("stopping"), "{said}");
}

/// A drive that was read in part is neither good nor bad, and not broken.
#[test]
fn a_verification_that_is_stopped_says_what_was_read_and_calls_no_drive_failed() {
    let session = Session::new("signal-verify");
    let source = session.path("source");
    std::fs::create_dir_all(&source).expect("a source");
    // Holes cost nothing here, and are read and compared like anything else.
    std::fs::File::create(source.join("long")).and_then(|file| file.set_len(600 << 20)).expect("a file");
    session.dataset(&[&format!("\"{}/\",data/,BlockBlob,rename,None,None", source.display())]);
    session.driveset(&[format!("{}:800MB", session.path("drive.img").display())]);
    session.prepare(&["--read-back", "none"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_dray"));
    command.current_dir(&session.dir).args(["verify", "drive.img", "--key-file", "drive.xml", "--report", "page.html"]);
    command.args(["--on-finish", "cat > told.json"]);
    let running = Running::until_it_says(command, ": listing");
    running.signal("STOP");
    running.signal("TERM");
    running.signal("CONT");
    let (code, said) = running.end();
    assert_eq!(code, Some(130), "{said}");
    for words in ["drive: stopped", "Stopped: ", "MB on drive.img were read, too little for a verdict on its blobs"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    for words in ["failed", "FAILED", "could not be verified", "Equal"] {
        assert!(!said.contains(words), "{words}: {said}");
    }
    let page = std::fs::read_to_string(session.path("page.html")).expect("a page");
    assert!(page.contains("Stopped") && !page.contains("Not verified to the end"), "{page}");
    let told = std::fs::read(session.path("told.json")).expect("told");
    let told: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!((&told["exit_code"], &told["problems"][0]["kind"]), (&130.into(), &"interrupted".into()), "{told}");
    assert_eq!(told["result"]["verdict"]["reasons"][0]["reason"], "stopped", "{told}");
    std::fs::remove_file(session.path("drive.img")).expect("the image");
}
