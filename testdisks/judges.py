#!/usr/bin/env python3
"""The outside judges, one function each: `judges.py NAME ARGUMENTS…`.

Prints `PASS`, `FAIL` or `SKIP` and why; exits 0, 1 or 3. IMAGE is a drive (or a bare volume), PLAIN a decrypted volume.
"""

import bisect
import contextlib
import hashlib
import importlib.util
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile

import check_manifest
import decrypt
import volume

SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "scripts")


class Skip(Exception):
    pass


class Fail(Exception):
    pass


def tool(name):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not path:
        raise Skip(f"{name} is not installed")
    return path


def run(*args, check=True, stdin=b""):
    done = subprocess.run(args, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "LC_ALL": "C"})
    text = done.stdout.decode(errors="replace")
    if check and done.returncode:
        raise Fail(f"{os.path.basename(args[0])} says {done.returncode}: {tail(text)}")
    return done.returncode, text


def tail(text, lines=6):
    return " / ".join(line.strip() for line in text.strip().splitlines()[-lines:])


@contextlib.contextmanager
def loop(image, offset=0, length=0, sector=512):
    """A read-only loop device: gives files sector sizes and cuts partitions out, for tools that know neither."""
    if os.geteuid():
        raise Skip("needs root for a loop device")
    args = [tool("losetup"), "--show", "-f", "-r", "-b", str(sector), "-o", str(offset)]
    code, text = run(*args, *(["--sizelimit", str(length)] if length else []), image, check=False)
    if code:
        raise Skip(f"no loop device: {tail(text)}")
    device = text.strip().splitlines()[-1]
    try:
        yield device
    finally:
        run("losetup", "-d", device, check=False)


@contextlib.contextmanager
def mounted(plain):
    """`plain` mounted read-only by ntfs-3g, which must find nothing to recover."""
    if not os.path.exists("/dev/fuse"):
        raise Skip("no /dev/fuse")
    where = tempfile.mkdtemp(prefix="judge-")
    try:
        code, text = run(tool("ntfs-3g"), "-o", "ro", plain, where, check=False)
        if code:
            raise Fail(f"ntfs-3g does not mount: {tail(text)}")
        if text.strip():
            raise Fail(f"ntfs-3g warns: {tail(text)}")
        try:
            yield where
        finally:
            run(shutil.which("fusermount3") or tool("fusermount"), "-u", where, check=False)
            run("umount", where, check=False)
    finally:
        os.rmdir(where)


def table(image):
    """The image for a tool that believes in 512-byte sectors, or a loop device with the right ones."""
    sector = volume.find(image)[2] if not image.startswith("/dev/") else 512
    return contextlib.nullcontext(image) if sector == 512 else loop(image, sector=sector)


def sgdisk(image):
    with table(image) as device:
        _, text = run(tool("sgdisk"), "-v", device)
    # A partition that ends between two MiB is worth a caution to sgdisk and nothing to us.
    rest = re.sub(r"Caution: Partition \d+ doesn't end on.*", "", text)
    if "converting MBR to GPT" in text:
        # It judges the table that it would make of this one, which wants room at the disk's end; sfdisk judges an MBR.
        rest, overlaps = re.subn(r"Warning! Secondary partition table overlaps[^!]*!\s*You will need[^.]*\.", "", rest)
        rest = re.sub("Identified 1 problems!", "No problems found", rest) if overlaps else rest
    if not re.search(r"^No problems found", rest, re.M) or re.search(r"^(Problem|Caution|Warning|Main|Backup)", rest, re.M):
        raise Fail(tail(text))
    return tail(text, 1)


def sfdisk(image):
    with table(image) as device:
        _, text = run(tool("sfdisk"), "--verify", device)
    if "No errors detected" not in text or re.search("corrupt|mismatch|rror:|invalid", text):
        raise Fail(tail(text))
    return "No errors detected"


def newer_cryptsetup():
    script = os.path.join(SCRIPTS, "judge-cryptsetup")
    if not os.path.exists(script):
        raise Skip("no scripts/judge-cryptsetup")
    done = subprocess.run([script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise Skip(f"cryptsetup 2.8.4 or later cannot be had: {tail(done.stderr, 1)}")
    return done.stdout.strip()


def cryptsetup(image, key="", program="installed"):
    """bitlkDump, and with a key (`@FILE`: what is in it) whether it opens; `program` is `installed` or `newer`, which checks
    CRC and sealed hash."""
    program = newer_cryptsetup() if program == "newer" else tool("cryptsetup")
    version = run(program, "--version")[1].split()[1]
    offset, length, sector = volume.find(image)
    with loop(image, offset, length, sector) as device:
        _, text = run(program, "bitlkDump", device)
        cipher = re.search(r"Cipher name:\s*(\S+).*?mode:\s*(\S+).*?key:\s*(\S+)", text, re.S)
        if not cipher:
            raise Fail(f"bitlkDump shows no cipher: {tail(text)}")
        if key:
            secret = open(key[1:], "rb").read() if key.startswith("@") else key.encode()
            code, text = run(program, "open", "--type", "bitlk", "--test-passphrase", "--key-file", "-", device, stdin=secret, check=False)
            if code:
                raise Fail(f"{version} does not open it: {tail(text)}")
    return f"{version}: {' '.join(cipher.groups())}" + (", opens" if key else "")


def bdeinfo(image, key):
    """Debian's libbde, which is older than XTS-256."""
    offset, _, _ = volume.find(image)
    code, text = run(tool("bdeinfo"), "-o", str(offset), "-r", key, image, check=False)
    if code and "aes xts-plain64 512" in str(ask(cryptsetup, image)):
        raise Skip("libbde 20190102 opens no XTS-256")
    if code or "is locked" in text or "Unable" in text:
        raise Fail(tail(text))
    return tail("\n".join(re.findall(r"Encryption method.*", text)))


def libbde(image, key):
    """The current libbde opens the volume and reads its ends."""
    try:
        fve, length = decrypt.reader("libbde", image, {"recovery": key})
    except ImportError:
        raise Skip("libbde-python is not installed") from None
    except (OSError, ValueError) as e:
        raise Fail(str(e)) from None
    fve.seek(0)
    boot = fve.read(512)
    # The copy fills the last sector, whatever a sector is here.
    fve.seek(length - int.from_bytes(boot[11:13], "little"))
    last = fve.read(512)
    if boot[3:11] != b"NTFS    " or boot[510:] != b"\x55\xaa":
        raise Fail("no NTFS boot sector inside")
    if last[:90] != boot[:90]:
        raise Fail("the volume's last sector is no copy of the boot sector")
    return "opens; NTFS boot sector and its copy at the end"


def dissect(image, key, plain, samples="200"):
    """dissect.fve against libbde's decryption: both ends and sampled megabytes, since it decrypts a sector at a time."""
    try:
        fve, length = decrypt.reader("dissect", image, {"recovery": key})
    except ImportError:
        raise Skip("dissect.fve is not installed") from None
    except Exception as e:  # noqa: BLE001: its errors are of many kinds
        raise Fail(f"dissect.fve: {e}") from None
    chance = random.Random(length)
    written = list(volume.written(image, volume.find(image)[0], length))
    starts, total = [], 0
    for start, end in written:
        starts.append(total)
        total += end - start
    places = [written[0], (max(written[-1][0], length - 65536), length)]
    for _ in range(int(samples)):
        at = chance.randrange(total // 4096) * 4096
        i = bisect.bisect_right(starts, at) - 1
        places.append((written[i][0] + at - starts[i], written[i][1]))
    with open(plain, "rb") as f:
        for at, end in places:
            fve.seek(at)
            f.seek(at)
            n = min(16384, end - at)
            if fve.read(n) != f.read(n):
                raise Fail(f"dissect.fve and libbde differ within 16 KiB at {at}")
    return f"agrees with libbde in {len(places)} places"


def ntfsfix(plain):
    _, text = run(tool("ntfsfix"), "-n", plain)
    if "was processed successfully" not in text or re.search("FAILED|BAD|[Ee]rror|corrupt|differ|not match|dirty", text):
        raise Fail(tail(text, 12))
    return tail(text, 1)


def ntfsinfo(plain):
    _, text = run(tool("ntfsinfo"), "-m", plain)
    facts = dict(re.findall(r"^\s*([A-Z][\w ]+?)\s*:\s*(.+?)\s*$", text, re.M))
    if re.search(r"ERROR|WARN|[Cc]orrupt|[Ff]ailed", text):
        raise Fail(tail(text))
    if facts.get("Volume Version") != "3.1" or not re.search(r"Volume Flags:\s*0x00[08]0\b", text, re.M):
        raise Fail(f"version or flags are wrong: {facts.get('Volume Version')} {facts.get('Volume Flags')}")
    return f"3.1, clusters of {facts.get('Cluster Size')}, {facts.get('Volume Size in Clusters')} of them"


def cluster_of(plain):
    """Bytes in a cluster, from the boot sector: above 64 KiB the second byte is a negative power of two."""
    with open(plain, "rb") as f:
        boot = f.read(512)
    sectors = boot[13] if boot[13] <= 128 else 1 << (256 - boot[13])
    return int.from_bytes(boot[11:13], "little") * sectors


def module(name, *args):
    """A judge that is a Python program: exit code and what it says."""
    if importlib.util.find_spec(name) is None:
        raise Skip(f"{name} is not installed")
    return run(sys.executable, "-I", "-m", name, *args, check=False)


def checkdisk(plain):
    """A chkdsk in Python; without `--really` it writes nothing, and says so when it would."""
    code, text = module("checkdisk", "/f", plain)
    if code or "DRY RUN" in text or "directories walked" not in text:
        raise Fail(tail("\n".join(line for line in text.splitlines() if not line.startswith("note:"))))
    return tail("\n".join(re.findall(r"^\s*(\d+ (?:records|clusters|descriptors).*)", text, re.M)))


def phantom_trace(plain):
    if cluster_of(plain) > 65536:
        raise Skip("PhantomTrace does not know clusters above 64 KiB")
    code, text = module("phantom_trace", "--no-color", "--quiet", plain)
    if code or not re.search(r"Summary\s+high 0\s+medium 0\s+low 0\b", text):
        raise Fail(tail(text))
    return "records, bitmaps and runs agree"


def fsstat(plain):
    if cluster_of(plain) > 65536:
        raise Skip("Sleuth Kit refuses clusters above 64 KiB")
    _, text = run(tool("fsstat"), "-f", "ntfs", plain)
    if "File System Type: NTFS" not in text or re.search(r"[Ee]rror|[Ii]nvalid", text):
        raise Fail(tail(text))
    return tail("\n".join(re.findall(r"^(?:Volume Name|Version|Cluster Size|First Cluster of MFT).*", text, re.M)))


def fls_paths(plain):
    """Every path Sleuth Kit finds through the indexes, and what it could not read."""
    if cluster_of(plain) > 65536:
        raise Skip("Sleuth Kit refuses clusters above 64 KiB")
    done = subprocess.run([tool("fls"), "-f", "ntfs", "-r", "-p", plain], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = done.stderr.decode(errors="replace")
    if done.returncode or err.strip():
        raise Fail(f"fls says {done.returncode}: {tail(err)}")
    paths, deleted = set(), []
    for line in done.stdout.decode(errors="surrogateescape").split("\n"):
        kind, _, path = line.partition("\t")
        if not line or kind.startswith("V/V") or path.startswith("$") and not path.startswith("$root/"):
            continue
        if " * " in kind:
            deleted.append(path)
        if kind.startswith("r/r") and not re.search(r":[^/]*$", path):
            paths.add(path)
    return paths, deleted


def fls(plain, at_least="0"):
    paths, deleted = fls_paths(plain)
    if deleted:
        raise Fail(f"{len(deleted)} deleted or orphaned entries, the first {deleted[0]!r}")
    if len(paths) < int(at_least):
        raise Fail(f"{len(paths)} files, expected at least {at_least}")
    return f"{len(paths)} files"


def sha256(path):
    sha = hashlib.sha256()
    with open(path, "rb") as f:
        while data := f.read(4 << 20):
            sha.update(data)
    return sha.digest()


def compare(plain, mapping, exact="no"):
    """Every file of `mapping` (lines `FilePath TAB source`) is on the volume, byte for byte, with the source's time.

    With `exact` there is nothing else outside the root's own files and System Volume Information."""
    pairs = [line.split("\t", 1) for line in open(mapping, encoding="utf-8", errors="surrogateescape").read().split("\n") if line]
    with mounted(plain) as root:
        return compare_tree(root, pairs, exact == "exact")


def content(plain, sums):
    """Every file of `sums` (lines `FilePath TAB SHA-256`) is on the volume with that content."""
    bad, lines = [], [line.split("\t", 1) for line in open(sums, encoding="utf-8").read().split("\n") if line]
    with mounted(plain) as root:
        for file_path, want in lines:
            have = sha256(os.path.join(root, *file_path.strip("\\").split("\\"))).hex()
            if have != want:
                bad.append(f"{file_path}: {have}, not {want}")
    if bad or not lines:
        raise Fail(f"{len(bad)} of {len(lines)} files differ: " + "; ".join(bad[:5]))
    return f"{len(lines)} files with the content that was asked for"


def compare_tree(root, pairs, exact, extras=()):
    """`extras` are further files that may be there, drive-relative, in upper case."""
    bad, total, seen = [], 0, set()
    for file_path, source in pairs:
        local = os.path.join(root, *file_path.strip("\\").split("\\"))
        seen.add(local)
        try:
            want, have = os.stat(source), os.stat(local)
            if want.st_size != have.st_size:
                bad.append(f"{file_path}: {have.st_size} bytes, the source has {want.st_size}")
            elif sha256(local) != sha256(source):
                bad.append(f"{file_path}: content differs")
            elif want.st_mtime_ns // 100 != have.st_mtime_ns // 100:
                bad.append(f"{file_path}: time {have.st_mtime_ns}, the source has {want.st_mtime_ns}")
            total += have.st_size
        except OSError as e:
            bad.append(f"{file_path}: {e}")
    if exact:
        for folder, dirs, files in os.walk(root, onerror=lambda e: bad.append(str(e))):
            if folder == root:
                dirs[:] = [d for d in dirs if d not in ("System Volume Information", "$Extend", "$RECYCLE.BIN")]
                continue
            for local in (os.path.join(folder, f) for f in files):
                if local not in seen and local[len(root) :].replace("/", "\\").upper() not in extras:
                    bad.append(f"{local}: on the drive, but nothing asked for it")
    if bad:
        raise Fail(f"{len(bad)} differences: " + "; ".join(bad[:5]))
    return f"{len(pairs)} files, {total} bytes equal"


def manifest(plain, record, expected=""):
    """The manifest by `check_manifest`, hash and drive id against the drive record."""
    fields = volume.record(record)
    with mounted(plain) as root:
        check = check_manifest.Check(root)
        check.manifest(fields.get("ManifestFile", "\\DriveManifest.xml"), fields.get("ManifestHash", ""), fields["DriveId"])
        if not fields.get("ManifestHash"):
            check.complain("record", "no ManifestHash")
        if expected:
            check.expect(open(expected, encoding="utf-8").read().splitlines())
    if check.bad:
        raise Fail(f"{len(check.bad)} complaints: " + "; ".join(check.bad[:5]))
    return f"{len(check.blobs)} blobs"


JUDGES = {f.__name__: f for f in (sgdisk, sfdisk, cryptsetup, bdeinfo, libbde, dissect, ntfsfix, ntfsinfo, checkdisk, phantom_trace, fsstat, fls, compare,
                                  content, manifest)}


def ask(judge, *args):
    """(`PASS`, `FAIL` or `SKIP`, why)."""
    try:
        return "PASS", judge(*args)
    except Skip as e:
        return "SKIP", str(e)
    except Fail as e:
        return "FAIL", str(e)
    except (OSError, ValueError, TypeError) as e:
        return "FAIL", f"{type(e).__name__}: {e}"


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in JUDGES:
        sys.exit(f"judges.py {'|'.join(JUDGES)} ARGUMENTS…")
    verdict, why = ask(JUDGES[sys.argv[1]], *sys.argv[2:])
    print(verdict, why)
    sys.exit({"PASS": 0, "FAIL": 1, "SKIP": 3}[verdict])
