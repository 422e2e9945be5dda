"""What runs in the machine: kernel, tools and first program, unpacked once into a cache."""

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

FORMAT = "5"  # of the cache: another number makes another
KERNEL = "linux-image-6.12-amd64"  # 6.1 has no ntfs3
TOOLS = """bash coreutils util-linux fdisk mount udev kmod cryptsetup-bin dmsetup smartmontools mdadm lvm2 e2fsprogs sed grep
    gawk findutils procps strace""".split()
# Loaded when a disk of that bus is there.
BUSES = {
    "ahci": ["ahci", "sd_mod", "sg"],
    "scsi": ["virtio_scsi", "sd_mod", "sg"],
    "nvme": ["nvme"],
    "usb": ["xhci_pci", "usb_storage", "sd_mod", "sg"],
    "uas": ["xhci_pci", "uas", "sd_mod", "sg"],
    "virtio": ["virtio_blk"],
}
# There for the commands to load.
MODULES = """9p 9pnet_virtio ntfs3 dm_mod dm_crypt dm_flakey dm_delay dm_log_writes dm_mirror dm_zero scsi_debug loop md_mod
    raid1 ext4 xts""".split()
MODULE_DIRS = ["kernel/crypto", "kernel/arch/x86/crypto"]
MIRROR = os.environ.get("DRAY_DEBIAN_MIRROR", "http://deb.debian.org/debian")
SECURITY = os.environ.get("DRAY_DEBIAN_SECURITY", "http://deb.debian.org/debian-security")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent


class Impossible(Exception):
    """The machine cannot be had here."""


def run(argv, **more):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    if done.returncode != 0:
        raise Impossible(f"{argv[0]} failed: {done.stdout.strip()[-400:]}")
    return done.stdout


def cache_dir():
    given = os.environ.get("DRAY_JUDGES")
    base = Path(given) if given else Path("/opt/dray-judges") if os.geteuid() == 0 else PROJECT / "target/judges"
    return base / "vm"


def setup():
    """Makes kernel and initial file system, once; gives their directory."""
    for program in ["qemu-system-x86_64", "dpkg-deb", "apt-get", "cpio", "zstd"]:
        if not shutil.which(program):
            raise Impossible(f"{program} is not here (Debian: qemu-system-x86 cpio zstd)")
    if not os.access(KEYRING, os.R_OK):
        raise Impossible(f"no {KEYRING} to check the packages with")
    cache = cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = open(cache / "lock", "w")
    except OSError as error:
        raise Impossible(f"cannot write {cache}: {error}") from error
    fcntl.flock(lock, fcntl.LOCK_EX)
    ready = cache / "ready"
    stamp = " ".join([FORMAT, KERNEL, *TOOLS, *MODULES])
    if (ready / "stamp").exists() and (ready / "stamp").read_text() == stamp:
        return ready
    work = cache / "new"
    for old in (work, ready):
        shutil.rmtree(old, ignore_errors=True)
    work.mkdir()
    packages(work)
    version = unpack(work)
    image(work, version)
    (work / "stamp").write_text(stamp)
    (work / "version").write_text(version)
    for name in ("apt", "root", "kernel"):
        shutil.rmtree(work / name, ignore_errors=True)
    work.rename(ready)
    return ready


def packages(work):
    apt = work / "apt"
    for name in ("state/lists/partial", "debs/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/trusted.gpg.d"):
        (apt / name).mkdir(parents=True)
    (apt / "state/status").touch()
    signed = f"deb [signed-by={KEYRING}]"
    (apt / "etc/sources.list").write_text(
        f"{signed} {MIRROR} bookworm main\n{signed} {SECURITY} bookworm-security main\n"
    )
    options = {
        "Dir::Etc": apt / "etc",
        "Dir::Etc::sourcelist": apt / "etc/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "state/status",
        "Dir::Cache": apt,
        "Dir::Cache::archives": apt / "debs",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Acquire::Languages": "none",
        # A mirror may lag behind, and its lists be past their date: the signature counts.
        "Acquire::Check-Valid-Until": "false",
    }
    get = ["apt-get", "-q=2", *(part for key, value in options.items() for part in ("-o", f"{key}={value}"))]
    run([*get, "update"])
    # With an empty status file apt resolves the closed set, libc included.
    run([*get, "install", "-y", "--no-install-recommends", "--download-only", "busybox-static", *TOOLS])
    (work / "kernel").mkdir()
    # The meta package moves with every update: its dependency names the version.
    cache = ["apt-cache", *get[2:]]
    meta = run([*cache, "show", "--no-all-versions", KERNEL])
    found = re.search(r"linux-image-6\.12[^ ,(]*", meta.split("Depends:", 1)[-1])
    if not found:
        raise Impossible(f"{KERNEL} names no kernel")
    run([*get, "download", found.group()], cwd=work / "kernel")


def unpack(work):
    root = work / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted((work / "apt/debs").glob("*.deb")):
        run(["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink', "-", deb, root])
    for kernel in (work / "kernel").glob("*.deb"):
        run(["dpkg-deb", "-x", kernel, work / "kernel"])
    vmlinuz = next((work / "kernel/boot").glob("vmlinuz-*"))
    version = vmlinuz.name.removeprefix("vmlinuz-")
    (work / "vmlinux").write_bytes(elf(vmlinuz.read_bytes()))
    return version


def elf(image):
    """The uncompressed kernel inside a bzImage (x86 boot protocol): decompressing it in the guest costs seconds."""
    start = (image[0x1F1] + 1) * 512 + struct.unpack_from("<I", image, 0x248)[0]
    length = struct.unpack_from("<I", image, 0x24C)[0]
    payload = image[start : start + length]
    if payload[:4] != b"\x28\xb5\x2f\xfd":
        return image
    done = subprocess.run(["zstd", "-dcq"], input=payload[:-4], stdout=subprocess.PIPE, check=False)
    return done.stdout if done.stdout[:4] == b"\x7fELF" else image


def depmod(root, base, version):
    """With the guest's own tool and libraries."""
    libraries = root / "usr/lib/x86_64-linux-gnu"
    loader = [root / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, "--argv0", "depmod"]
    run([*loader, root / "usr/bin/kmod", "-b", base, version])


def image(work, version):
    """The initial file system: tools, the modules that are wanted, the first program."""
    root = work / "root"
    source = next(path for path in (work / "kernel/lib/modules", work / "kernel/usr/lib/modules") if path.exists())
    source /= version
    target = root / "usr/lib/modules" / version
    target.mkdir(parents=True)
    by_name, needs = {}, {}
    depmod(root, source.parents[2], version)
    for line in (source / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        by_name[Path(path).name.split(".")[0].replace("-", "_")] = path
        needs[path] = others.split()
    wanted = set()
    for name in [*MODULES, *(name for names in BUSES.values() for name in names)]:
        if name in by_name:
            wanted |= {by_name[name], *needs[by_name[name]]}
    for path in needs:
        if any(path.startswith(folder) for folder in MODULE_DIRS) and not Path(path).name.startswith(("test", "tcrypt")):
            wanted |= {path, *needs[path]}
    for path in wanted:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / path, target / path)
        if path.endswith(".xz"):
            (target / path).with_suffix("").write_bytes(lzma.decompress((target / path).read_bytes()))
            (target / path).unlink()
    for name in ("modules.builtin", "modules.order", "modules.builtin.modinfo"):
        shutil.copy(source / name, target / name)
    depmod(root, root, version)
    for waste in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/lib/x86_64-linux-gnu/gconv",
                  "usr/share/perl", "usr/share/zoneinfo", "usr/share/i18n", "var", "usr/lib/systemd/system"):
        shutil.rmtree(root / waste, ignore_errors=True)
    for name in ("proc", "sys", "dev", "run", "tmp", "lab", "root", "mnt", "etc", "var/lib", "run/lvm"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\ndisk:x:6:\n")
    links = {"usr/bin/sh": "bash", "usr/bin/awk": "gawk", "etc/mtab": "/proc/mounts"}
    for name, to in links.items():
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(to)
    programs = {
        "init": (HERE / "init.sh").read_text(),
        "usr/bin/ask": (HERE / "ask.sh").read_text(),
        # The program's own libraries: the guest's may be older than the host's.
        "usr/bin/dray": '#!/bin/sh\nexec /lab/dray/ld.so --library-path /lab/dray /lab/dray/dray "$@"\n',
    }
    for name, text in programs.items():
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    run(["sh", "-c", 'cd "$1" && find . | cpio -o -H newc --quiet >"$2"', "-", root, work / "initrd"])
