//! Obstacles of kernel, limits and permissions, each with a one-line remedy.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::program;
use crate::device::{self, Roots};
use crate::io::{Options, Requests, Target, uring};
use crate::pool::Pool;
use crate::report::counted;
use crate::units::ByteLen;

/// Result of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckState {
    /// As expected.
    Good,
    /// Works, but worse than it could.
    Worse,
    /// Prevents the work.
    Bad,
}

/// One check of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineCheck {
    /// Subject of the check, such as `io_uring`.
    pub what: &'static str,
    /// Its result.
    pub state: CheckState,
    /// The value or condition found.
    pub found: String,
    /// One line that helps; `None` when nothing needs to be done.
    pub remedy: Option<String>,
}

impl MachineCheck {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, state: CheckState::Good, found: found.into(), remedy: None }
    }

    fn not(what: &'static str, state: CheckState, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what, state, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Memory of one drive's slots, which the ring registers.
const SLOTS_LEN: u64 = 112 << 20;

/// Runs all checks.
pub fn examine(roots: &Roots) -> Vec<MachineCheck> {
    vec![
        kernel(roots),
        ring(roots),
        locked_memory(roots),
        huge_pages(roots),
        memory(roots),
        processor(roots),
        permissions(roots),
        smartctl(),
    ]
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn kernel(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "kernel";
    let Some(release) = text(&roots.proc.join("sys/kernel/osrelease")) else {
        return MachineCheck::not(WHAT, CheckState::Worse, "reports no release", "mount -t proc proc /proc");
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    match version {
        (major, _) if major >= 6 => MachineCheck::good(WHAT, release),
        version if version >= (5, 10) => MachineCheck::good(WHAT, format!("{release}; 6.1 and later are faster")),
        _ => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("{release} has no io_uring that dray can use"),
            "boot a kernel of 5.10 or later; until then dray works with plain system calls, slower",
        ),
    }
}

fn ring(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "io_uring";
    let state = text(&roots.proc.join("sys/kernel/io_uring_disabled"));
    let tried = File::open("/proc/self/exe").map_err(|error| error.to_string()).and_then(|file| {
        let pool = Pool::new(2, 4096).map_err(|error| error.to_string())?;
        let target = Target { file: Arc::new(file), align: 1, requests: Requests::default() };
        uring::Uring::new(target, &pool, Options::default())
            .map(|ring| ring.notice().map(str::to_owned))
            .map_err(|error| error.to_string())
    });
    match (tried, state.as_deref()) {
        (Ok(None), _) => MachineCheck::good(WHAT, "allowed"),
        (Ok(Some(notice)), _) => {
            MachineCheck::not(WHAT, CheckState::Worse, notice, "ulimit -l unlimited, or run as root")
        }
        (Err(error), Some("2")) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("refused by the kernel's setting kernel.io_uring_disabled=2: {error}"),
            "sysctl kernel.io_uring_disabled=0",
        ),
        (Err(error), Some("1")) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("refused to all but root by kernel.io_uring_disabled=1: {error}"),
            "run as root, or sysctl kernel.io_uring_disabled=0",
        ),
        (Err(error), _) if is_filtered(roots) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("refused by a seccomp filter (a container): {error}"),
            "docker run --security-opt seccomp=unconfined, or a profile that allows io_uring_setup, _enter, _register",
        ),
        (Err(error), _) => {
            MachineCheck::not(WHAT, CheckState::Worse, error, "boot a kernel of 5.10 or later with CONFIG_IO_URING=y")
        }
    }
}

/// Whether system calls of this process are filtered.
fn is_filtered(roots: &Roots) -> bool {
    let status = text(&roots.proc.join("self/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

fn locked_memory(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "locked memory";
    let limits = text(&roots.proc.join("self/limits")).unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")?.split_whitespace().next());
    match soft.map(|soft| (soft, soft.parse::<u64>())) {
        Some((_, Ok(bytes))) if bytes < SLOTS_LEN && !is_root(roots) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("{} may be locked, one drive wants {}", ByteLen(bytes), ByteLen(SLOTS_LEN)),
            "ulimit -l unlimited (or `* - memlock unlimited` in /etc/security/limits.conf)",
        ),
        Some((_, Ok(bytes))) => MachineCheck::good(WHAT, ByteLen(bytes).to_string()),
        Some((soft, Err(_))) => MachineCheck::good(WHAT, soft),
        None => MachineCheck::good(WHAT, "not reported"),
    }
}

fn huge_pages(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "huge pages";
    let file = roots.sys.join("kernel/mm/transparent_hugepage/enabled");
    let line = text(&file).unwrap_or_default();
    let chosen = line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    match chosen {
        Some(word @ ("always" | "madvise")) => MachineCheck::good(WHAT, word),
        Some(word) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("{word}: large writes cost more memory accesses"),
            format!("echo madvise >{}", file.display()),
        ),
        None => MachineCheck::good(WHAT, "the kernel has none; large writes cost a little more"),
    }
}

fn memory(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "memory";
    let info = text(&roots.proc.join("meminfo")).unwrap_or_default();
    let free = info.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    match free {
        Some(bytes) if bytes < 2 * SLOTS_LEN => MachineCheck::not(
            WHAT,
            CheckState::Bad,
            format!("{} available; a drive needs {} beyond the catalog", ByteLen(bytes), ByteLen(SLOTS_LEN)),
            "end other programs, or prepare the drives one after another",
        ),
        Some(bytes) => {
            let drives = bytes / (2 * SLOTS_LEN);
            MachineCheck::good(
                WHAT,
                format!("{} available, enough for {} at once", ByteLen(bytes), counted(drives.min(25), "drive")),
            )
        }
        None => MachineCheck::good(WHAT, "not reported"),
    }
}

fn processor(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "processor";
    let info = text(&roots.proc.join("cpuinfo")).unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = counted(cores as u64, "core");
    if has("aes") {
        let vectors = if has("avx512f") {
            "AVX-512"
        } else if has("avx2") {
            "AVX2"
        } else {
            "no AVX2"
        };
        MachineCheck::good(WHAT, format!("{cores} with AES instructions, {vectors}"))
    } else {
        MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("{cores} without AES instructions: the cipher is many times slower"),
            "in a virtual machine pass the host's processor on (-cpu host); else use another machine",
        )
    }
}

fn is_root(roots: &Roots) -> bool {
    let status = text(&roots.proc.join("self/status")).unwrap_or_default();
    // Real, effective, saved, file system.
    status.lines().any(|line| line.strip_prefix("Uid:").and_then(|ids| ids.split_whitespace().nth(1)) == Some("0"))
}

fn permissions(roots: &Roots) -> MachineCheck {
    const WHAT: &str = "permissions";
    let is_real = |disk: &device::Disk| {
        disk.identity.transport.is_hardware() || disk.identity.transport == device::Transport::Virtio
    };
    let disks: Vec<_> = device::list(roots).into_iter().filter(is_real).collect();
    let may = |path: &Path| match File::options().read(true).write(false).open(path) {
        Err(error) => error.kind() != std::io::ErrorKind::PermissionDenied,
        Ok(_) => true,
    };
    // A disk that must not be taken anyway need not be opened.
    let (mut denied, mut others) = (Vec::new(), Vec::new());
    for disk in disks.iter().filter(|disk| !may(&disk.path)) {
        let path = disk.path.display();
        match device::guard::check_closed(disk, roots).first() {
            Some(problem) => others.push(format!("{path} ({})", problem.what)),
            None => denied.push(path.to_string()),
        }
    }
    if !denied.is_empty() {
        let remedy = if is_root(roots) {
            "give the container the devices, or run outside of it: even root may not open them"
        } else {
            "run as root (sudo), or join the group that owns the nodes, usually disk"
        };
        denied.append(&mut others);
        return MachineCheck::not(WHAT, CheckState::Bad, format!("may not open {}", denied.join(", ")), remedy);
    }
    if !others.is_empty() {
        let who = if is_root(roots) { "root; " } else { "" };
        return MachineCheck::good(WHAT, format!("{who}may not open {}, which must not be taken", others.join(", ")));
    }
    match (is_root(roots), disks.len()) {
        (true, _) => MachineCheck::good(WHAT, "root"),
        (false, 0) => MachineCheck::not(
            WHAT,
            CheckState::Worse,
            "not root, and no disk here to try it on",
            "run as root (sudo); image files need no privilege",
        ),
        (false, _) => MachineCheck::good(WHAT, "every disk may be opened"),
    }
}

fn smartctl() -> MachineCheck {
    const WHAT: &str = "smartctl";
    let Some(path) = program("smartctl") else {
        return MachineCheck::not(
            WHAT,
            CheckState::Worse,
            "not here: the health of drives is not known",
            "apt install smartmontools (dnf install smartmontools)",
        );
    };
    let said = Command::new(&path).arg("--version").output().map(|out| out.stdout).unwrap_or_default();
    let version = String::from_utf8_lossy(&said).split_whitespace().nth(1).unwrap_or_default().to_owned();
    // `--json` came with 7.0.
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major >= 7 {
        MachineCheck::good(WHAT, version)
    } else {
        MachineCheck::not(
            WHAT,
            CheckState::Worse,
            format!("{version} has no --json"),
            "install smartmontools 7.0 or later",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `look` on a simulated machine that has these files.
    fn on_machine(name: &str, files: &[(&str, &str)], look: impl FnOnce(&Roots)) {
        let dir = std::env::temp_dir().join(format!("dray-machine-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = dir.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        look(&Roots { sys: dir.join("sys"), proc: dir.join("proc"), dev: dir.join("dev") });
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_poor_machine_is_told_what_helps() {
        on_machine(
            "poor",
            &[
                ("proc/sys/kernel/osrelease", "4.19.0-27-amd64\n"),
                ("proc/self/limits", "Max locked memory         65536                65536                bytes\n"),
                ("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nSeccomp:\t2\n"),
                ("proc/meminfo", "MemTotal: 1 kB\nMemAvailable:      50000 kB\n"),
                ("proc/cpuinfo", "flags\t\t: fpu sse2\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n"),
            ],
            |roots| {
                for check in [kernel(roots), locked_memory(roots), huge_pages(roots), memory(roots), processor(roots)] {
                    assert_ne!(check.state, CheckState::Good, "{check:?}");
                    assert!(check.remedy.as_deref().is_some_and(|line| !line.contains('\n')), "{check:?}");
                }
                assert!(is_filtered(roots) && !is_root(roots));
            },
        );
    }

    #[test]
    fn a_good_machine_needs_nothing() {
        on_machine(
            "good",
            &[
                ("proc/sys/kernel/osrelease", "6.12.1\n"),
                ("proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n"),
                ("proc/self/status", "Uid:\t0\t0\t0\t0\nSeccomp:\t0\n"),
                ("proc/meminfo", "MemAvailable:   16000000 kB\n"),
                ("proc/cpuinfo", "flags\t\t: fpu aes avx2\n"),
                ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
            ],
            |roots| {
                for check in [
                    kernel(roots),
                    locked_memory(roots),
                    huge_pages(roots),
                    memory(roots),
                    processor(roots),
                    permissions(roots),
                ] {
                    assert_eq!((check.state, &check.remedy), (CheckState::Good, &None), "{check:?}");
                }
            },
        );
    }

    #[test]
    fn this_machine_is_examined_without_a_panic() {
        assert_eq!(examine(&Roots::default()).len(), 8);
    }
}
