//! A storage account on this machine: Azurite, and in front of it what it does not hold of the service's limits, and
//! faults by a script. Both listen on 127.0.0.1.
//!
//! Azurite takes seconds to start, so the tests of a process share one server. Each gets an account of its own, which
//! keeps containers apart.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::judge;

/// The published key of the emulators' account, and here of every account.
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// The version that is asked for: without it npm takes an older one that ignores wrong hashes of pages.
pub const VERSION: &str = "3.37.0";

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A program of the npm packages that `scripts/test --judges` installs.
fn npm(path: &str) -> Option<PathBuf> {
    let path = project().join("target/judges/node/node_modules").join(path);
    path.exists().then_some(path)
}

/// More than a process has tests that want an account.
const ACCOUNTS: usize = 100;

/// The server, which ends with the value or with this process.
#[derive(Debug)]
struct Server {
    /// A shell: it kills its child, Azurite, when its own stdin ends.
    child: Child,
    port: u16,
}

impl Server {
    /// `None`, loudly, when Azurite is not here.
    fn start() -> Option<Self> {
        let Some(program) = npm(".bin/azurite-blob") else {
            eprintln!("SKIPPED judge: Azurite {VERSION} is not here (npm could not fetch it)");
            return None;
        };
        // Free a moment ago: Azurite does not say which port it took when it is to choose.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let accounts: Vec<String> = (0..ACCOUNTS).map(|index| format!("{}:{KEY}", account(index))).collect();
        let mut child = Command::new("sh")
            .args(["-c", r#""$@" & read -r _; kill -KILL $!; wait"#, "sh"])
            .arg(program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
            .args(["--inMemoryPersistence", "--disableTelemetry", "--silent"])
            .env("AZURITE_ACCOUNTS", accounts.join(";"))
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let (tell, told) = std::sync::mpsc::channel();
        let out = child.stdout.take().expect("piped");
        std::thread::spawn(move || {
            let mut reader = BufReader::new(out);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
                if line.contains("successfully listens") {
                    let _ = tell.send(());
                }
                line.clear();
            }
        });
        let server = Self { child, port };
        assert!(told.recv_timeout(Duration::from_secs(90)).is_ok(), "Azurite says that it listens");
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn account(index: usize) -> String {
    format!("test{index:02}")
}

/// An account.
#[derive(Debug)]
pub struct Azurite {
    /// Its name.
    pub account: String,
    /// Its endpoint, account included.
    pub endpoint: String,
    dir: PathBuf,
    /// Its server, if no other test uses it.
    _own: Option<Server>,
}

impl Azurite {
    /// An empty account of the server that the tests of this process share, with files in `dir`; `None`, loudly, when
    /// there is no Azurite here.
    ///
    /// # Panics
    /// When it is here and does not start.
    pub fn open(dir: &Path) -> Option<Self> {
        static SHARED: OnceLock<Option<Server>> = OnceLock::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let server = SHARED.get_or_init(Server::start).as_ref()?;
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(index < ACCOUNTS, "more accounts are wanted than the server has");
        Some(Self::of(server.port, account(index), dir))
    }

    /// Likewise of a server that ends with the value.
    ///
    /// # Panics
    /// When it is here and does not start.
    pub fn alone(dir: &Path) -> Option<Self> {
        let server = Server::start()?;
        let mut one = Self::of(server.port, account(0), dir);
        one._own = Some(server);
        Some(one)
    }

    fn of(port: u16, account: String, dir: &Path) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        Self { endpoint: format!("http://127.0.0.1:{port}/{account}"), account, dir: dir.to_owned(), _own: None }
    }

    /// A file with the account's key.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn key_file(&self) -> io::Result<PathBuf> {
        let path = self.dir.join("account.key");
        fs::write(&path, format!("{KEY}\n")).map(|()| path)
    }

    /// Runs `testdisks/account_client.py`, Microsoft's own client, with these words: `None`, loudly, when it is not here.
    ///
    /// # Panics
    /// When it fails.
    pub fn client(&self, words: &[&str]) -> Option<String> {
        let words: Vec<&str> = std::iter::once(self.endpoint.as_str()).chain(words.iter().copied()).collect();
        let output = judge::script("account_client.py", &words, b"").expect("Python");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        match output.status.code() {
            Some(0) => Some(said),
            Some(3) => {
                eprintln!("SKIPPED judge: {}", said.trim());
                None
            }
            _ => panic!("the client fails: {said}\n{}", String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// Runs AzCopy with these words; `{SAS}` in one becomes a signature: `None`, loudly, when it is not here.
    ///
    /// # Panics
    /// When it fails.
    pub fn azcopy(&self, sas: &str, words: &[&str]) -> Option<String> {
        let Some(bin) = npm("@azure-tools/azcopy-linux/dist/bin") else {
            eprintln!("SKIPPED judge: AzCopy is not here (npm could not fetch it)");
            return None;
        };
        let found = fs::read_dir(&bin).ok()?.flatten().map(|entry| entry.path());
        let from =
            found.filter(|path| path.is_file()).max_by_key(|path| path.metadata().map_or(0, |meta| meta.len()))?;
        let program = self.dir.join("azcopy");
        if !program.exists() {
            use std::os::unix::fs::PermissionsExt;
            fs::copy(&from, &program).expect("copied");
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        let words: Vec<String> = words.iter().map(|word| word.replace("{SAS}", sas)).collect();
        let output = Command::new(&program)
            .args(&words)
            .args(["--skip-version-check", "--output-type", "text"])
            .env("AZCOPY_LOG_LOCATION", &self.dir)
            .env("AZCOPY_JOB_PLAN_LOCATION", &self.dir)
            .env("HOME", &self.dir)
            .stdin(Stdio::null())
            .output()
            .expect("AzCopy runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        // The loader's own code: a library is missing.
        if output.status.code() == Some(127) {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED judge: AzCopy does not start: {}", why.trim());
            return None;
        }
        assert!(output.status.success(), "AzCopy fails: {said}");
        Some(said)
    }
}

/// `testdisks/account_front.py` in front of an account.
#[derive(Debug)]
pub struct Front {
    child: Child,
    /// Its endpoint, account included.
    pub endpoint: String,
    log: PathBuf,
}

impl Front {
    /// Starts one with the faults of `script`, a JSON list (see `account_front.py`).
    ///
    /// # Panics
    /// When Python does not start it.
    pub fn start(azurite: &Azurite, dir: &Path, script: &str) -> Self {
        Self::start_on(azurite, dir, script, 0)
    }

    /// Likewise, on a port that an earlier one had.
    ///
    /// # Panics
    /// When Python does not start it.
    pub fn start_on(azurite: &Azurite, dir: &Path, script: &str, port: u16) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let (faults, log) = (dir.join("faults.json"), dir.join("front.log"));
        fs::write(&faults, script).expect("a script");
        fs::write(&log, "").expect("a log");
        let mut child = Command::new(judge::python())
            .arg(project().join("testdisks/account_front.py"))
            .arg(azurite.endpoint.trim_end_matches(&azurite.account).trim_end_matches('/'))
            .args([&faults, &log])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("PORT ").expect("a port").to_owned();
        Self { child, endpoint: format!("http://127.0.0.1:{port}/{}", azurite.account), log }
    }

    /// The port it listens on.
    ///
    /// # Panics
    /// Never: its address is its own.
    pub fn port(&self) -> u16 {
        let (_, rest) = self.endpoint.rsplit_once(':').expect("a port");
        rest.split('/').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// One JSON line a request: method, path, and the fault that was played.
    ///
    /// # Panics
    /// When its log is gone.
    pub fn requests(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).and_then(|mut file| file.read_to_string(&mut text)).expect("the log");
        text
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // It ends when its stdin does.
        drop(self.child.stdin.take());
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && self.child.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
