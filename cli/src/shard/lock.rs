//! The lock of a shard: a file made exclusively, on a file system that several hosts share. `flock` does not reach other
//! hosts everywhere, so the file names its holder, and a holder of this host is looked for.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dray_engine::api;
use dray_engine::report::{Kind, Problem};
use serde_json::{Value, json};

/// Name of this host, as the kernel has it.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// Start time of a process in clock ticks since boot (field 22 of `/proc/PID/stat`, proc_pid_stat(5)); `None` when no
/// such process exists.
fn start_time(process: u64) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in parentheses and may hold any character.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The process that holds a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its host.
    pub host: String,
    /// Boot of that host.
    pub boot_id: String,
    /// Process id.
    pub process: u64,
    /// Start of the process, in clock ticks since boot: process ids come again.
    pub started: u64,
    /// Time at which it took the lock (UTC).
    pub since: String,
}

impl Holder {
    fn this() -> Self {
        let process = u64::from(std::process::id());
        Self {
            host: host_name(),
            boot_id: boot_id(),
            process,
            started: start_time(process).unwrap_or(0),
            since: format!("{:.0}", api::host::timestamp()),
        }
    }

    /// The holder that a lock file names; `None` without a lock. A file that cannot be understood is held by an unknown
    /// host: nothing proves that its process is gone.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            other => other.unwrap_or_default(),
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let text = |key: &str| value[key].as_str().unwrap_or("?").to_owned();
        let number = |key: &str| value[key].as_u64().unwrap_or(0);
        Some(Self {
            host: text("host"),
            boot_id: text("boot_id"),
            process: number("process"),
            started: number("started"),
            since: text("since"),
        })
    }

    /// Whether it is known that the process has ended: it ran on this host, before the last boot or under a process id
    /// that is free or used anew. Of processes on other hosts nothing is known.
    pub fn is_gone(&self) -> bool {
        self.host == host_name() && (self.boot_id != boot_id() || start_time(self.process) != Some(self.started))
    }

    fn json(&self) -> Value {
        json!({
            "host": self.host, "boot_id": self.boot_id, "process": self.process, "started": self.started,
            "since": self.since,
        })
    }
}

/// A shard held by this process; released when dropped.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    own: Holder,
}

impl Lock {
    /// Takes the lock. One whose process is known to have ended is replaced; with `take_over` any other too.
    ///
    /// # Errors
    /// Another process holds it, or the file cannot be written.
    pub fn take(path: &Path, take_over: bool) -> Result<Self, Problem> {
        let own = Holder::this();
        let create = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(format!("{}\n", own.json()).as_bytes())?;
            file.sync_all()
        };
        let failed = |error: std::io::Error| {
            Problem::new(Kind::Environment, format!("the lock of the shard cannot be written: {error}")).path(path)
        };
        match create() {
            Ok(()) => return Ok(Self { path: path.to_path_buf(), own }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let held = |holder: &Holder| {
            let value = format!("process {} on {}, since {}", holder.process, holder.host, holder.since);
            Problem::new(Kind::Refused, "another process works on this shard").path(path).value(value).advice(
                "wait for it; if that host is gone for good, and the drive is on this one, insist with --take-over",
            )
        };
        // Two processes of this host may both find that the holder is gone: one at a time replaces it, and the other
        // then finds the new holder.
        let turn_path = path.with_extension("turn");
        let turn = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&turn_path);
        let turn = turn.map_err(failed)?;
        turn.lock().map_err(failed)?;
        if let Some(holder) = Holder::read(path) {
            if !holder.is_gone() && (!take_over || holder == own) {
                return Err(held(&holder));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        create().map_err(failed)?;
        let _ = fs::remove_file(turn_path);
        Ok(Self { path: path.to_path_buf(), own })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Another process may have taken it over meanwhile.
        if Holder::read(&self.path).as_ref() == Some(&self.own) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_file(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dray-lock-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a directory");
        dir.join("0000.lock")
    }

    fn write(path: &Path, holder: &Holder) {
        fs::write(path, holder.json().to_string()).expect("a lock");
    }

    #[test]
    fn a_shard_has_one_holder() {
        let path = lock_file("one");
        let lock = Lock::take(&path, false).expect("free");
        let refused = Lock::take(&path, false).expect_err("held");
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        // Not by itself either: that would be two threads of one process on a drive.
        assert!(Lock::take(&path, true).is_err());
        drop(lock);
        assert!(!path.exists());
        drop(Lock::take(&path, false).expect("free again"));
    }

    #[test]
    fn only_a_process_that_is_known_to_be_gone_is_replaced() {
        let path = lock_file("gone");
        let this = Holder::this();
        let gone = [
            Holder { boot_id: "another boot".into(), ..this.clone() },
            Holder { process: u64::from(u32::MAX), ..this.clone() },
            Holder { started: this.started + 1, ..this.clone() },
        ];
        for holder in gone {
            write(&path, &holder);
            assert!(holder.is_gone());
            drop(Lock::take(&path, false).expect("taken over"));
        }
        let elsewhere = Holder { host: "another-host".into(), ..this };
        write(&path, &elsewhere);
        let refused = Lock::take(&path, false).expect_err("held");
        assert!(refused.to_string().contains("another-host"), "{refused}");
        let taken = Lock::take(&path, true).expect("insisted");
        // The other process ends after all: the lock is not its own any more.
        write(&path, &elsewhere);
        drop(taken);
        assert_eq!(Holder::read(&path), Some(elsewhere));
        fs::write(&path, "{").expect("a damaged lock");
        assert!(Lock::take(&path, false).is_err(), "of a lock that cannot be read nothing is known");
    }
}
