"""Makes loop devices and runs fio, ordinary tools and dray on them by turns; prints ratios, which travel better than figures.

scripts/bench-device [--on disk|memory|DIR] [--source DIR] [--limit 1G] [--size 8G] [--sector 512] [--rounds 3] [--rows large,…]
Needs root, fio, ntfs-3g, and for `back` libbde's bdemount. Rows: large, cold, verify, back, small, cp, two, four, ten, second, in-place, plan,
and of whole drives format, acquire, write, clone. The budget of each row
stands beside it, and what dray took of the processors for a GB; the device's own work (a loop copies, too) is in the busy share.
Sources lie on the other side (in memory when the device is on disk, and the other way round), dropped from the page
cache before each run where that can be done; memory is memory.
--limit holds the device itself, for fio and dray alike, to a rate with the kernel's block throttle: a drive like that is
slower than the processor, as real ones are, and what is lost then is lost by the program. What it lets through
is what fio reaches; kernels charge a request that they split twice, so that may be half of what was asked for.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import common
from common import PROJECT, Limit, Loop, call, cold, huge_pages, show, size, spent


class Bench:
    def __init__(self, args):
        self.args, self.rows, self.loops = args, [], []
        self.stack = contextlib.ExitStack()
        places = {"disk": "/var/tmp", "memory": "/dev/shm"}
        device_home = places.get(args.on, args.on)
        source_home = args.source or places["memory" if args.on == "disk" else "disk"]
        self.device_dir = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="dray-bench-", dir=device_home))
        self.source_dir = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="dray-source-", dir=source_home))
        self.runs = 0

    def loop(self, length):
        loop = Loop(self.device_dir, f"drive{len(self.loops)}.img", length, self.args.sector)
        self.loops.append(loop)
        if common.limit:
            common.limit.hold(loop.node)
        self.stack.callback(loop.close)
        return loop

    def dataset(self, name, *presets):
        where = os.path.join(self.source_dir, name)
        if not os.path.exists(where):
            call(os.path.join(PROJECT, "target/release/make-dataset"), where, *presets)
        return where

    def row(self, what, ours, theirs, budget, unit="GB/s", more=""):
        """`ours` and `theirs` in the unit, better is higher."""
        ratio = ours / theirs if theirs else float("nan")
        self.rows.append((what, ours, theirs, ratio, budget, unit, more))
        print(f"{what}: {ours:.3f} {unit} against {theirs:.3f}: ratio {ratio:.2f} (budget {budget}) {more}", flush=True)

    # fio

    def fio(self, node, rw, length, bs, depth, huge, quiet=False):
        memory = ["--mem=mmaphuge"] if huge else []
        end = ["--end_fsync=1"] if rw == "write" else []
        cold()
        _, _, text = call("fio", "--name=b", f"--filename={node}", f"--rw={rw}", f"--bs={bs}M", f"--iodepth={depth}", f"--size={length}", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1", *memory, *end, "--output-format=json", quiet=quiet)  # fmt: skip
        job = json.loads(text[text.index("{") :])["jobs"][0]
        return job[rw]["io_bytes"] / (job["job_runtime"] / 1000) / 1e9

    def best_of_fio(self, node, rw, length):
        """The best (block size, depth, huge pages) by short runs, every setting once, then the three best again."""
        short = min(length, size(self.args.sweep))
        with huge_pages(160) as have_huge:
            settings = [(bs, depth, huge) for bs in (1, 2, 4, 8) for depth in (4, 16) for huge in ((False, True) if have_huge else (False,))]
            speed = {s: self.fio(node, rw, short, *s, quiet=True) for s in settings}
            for s in sorted(speed, key=speed.get)[-3:]:
                speed[s] = max(speed[s], self.fio(node, rw, short, *s, quiet=True))
        best = max(speed, key=speed.get)
        print(f"  fio {rw} sweep: best {speed[best]:.3f} GB/s at bs={best[0]}M depth={best[1]} huge={best[2]}, worst {min(speed.values()):.3f}; huge pages {'tried' if have_huge else 'not granted'}")
        return best

    # dray

    def prep_args(self, source, loops, *more, kind="Format,SilentMode,Encrypt,", times=1):
        """`kind` is the end of each drive's row in the driveset; the source is taken `times` times."""
        self.runs += 1
        base = os.path.join(self.source_dir, f"run{self.runs}")
        os.makedirs(base)
        with open(f"{base}/dataset.csv", "w") as f:
            f.write("BasePath,DstBlobPathOrPrefix,BlobType,Disposition,MetadataFile,PropertiesFile\n")
            f.writelines(f"{source}/,bench{i or ''}/,BlockBlob,rename,None,None\n" for i in range(times))
        with open(f"{base}/driveset.csv", "w") as f:
            f.write("DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n")
            f.writelines(f"{loop.node},{kind}\n" for loop in loops)
        self.base = base
        return [self.args.dray, "prep-import", "--journal", f"{base}/job.jrn", "--id", f"bench#{self.runs}", "--logdir", f"{base}/logs", "--initial-driveset", f"{base}/driveset.csv", "--dataset", f"{base}/dataset.csv", "--not-for-shipping", *more]  # fmt: skip

    def prep(self, source, loops, *more, **rows):
        """Seconds and peak memory of preparing; consent by the ids that a dry run tells. Read-back is not writing."""
        args = self.prep_args(source, loops, "--read-back", "none", *self.args.prep, *more, **rows)
        _, _, text = call(*args, "--dry-run", "--json", quiet=True)
        ids = sorted(set(re.findall(r'"drive_id":\s*"([^"]+)"', text)))
        cold()
        seconds, peak, _ = call(*args, "--silent", "--yes", ",".join(ids))
        return seconds, peak

    # rows

    def large(self, loop, length):
        source = self.dataset("large", f"large={length},1G")
        best = self.best_of_fio(loop.node, "write", length)
        ours, theirs, peaks = [], [], []
        for _ in range(self.args.rounds):
            with huge_pages(160) if best[2] else contextlib.nullcontext():
                theirs.append(self.fio(loop.node, "write", length, *best))
            seconds, peak = self.prep(source, [loop])
            ours.append(length / seconds / 1e9)
            peaks.append(peak)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(length)}"
        self.row("large files, prep against fio write", statistics.median(ours), statistics.median(theirs), "≥ 0.95", more=more)
        self.row("  peak memory against 128 MiB", max(peaks) / 2**20, 128, "≤ 1", "MiB")

    def prepared(self, loop, length):
        """A drive with large files; its record."""
        self.prep(self.dataset("large", f"large={length},1G"), [loop])
        return next(f for f in (os.path.join(self.base, f) for f in os.listdir(self.base)) if f.endswith(".xml"))

    def fio_files(self, source, bs, depth):
        """What fio reads of the files themselves, one behind the other, cold."""
        files = ":".join(sorted(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names))
        cold()
        _, _, text = call("fio", "--name=b", f"--filename={files}", "--file_service_type=sequential", "--rw=read", f"--bs={bs}M", f"--iodepth={depth}", "--readonly", "--ioengine=io_uring", "--direct=1", "--output-format=json", quiet=True)  # fmt: skip
        job = json.loads(text[text.index("{") :])["jobs"][0]
        return job["read"]["io_bytes"] / (job["job_runtime"] / 1000) / 1e9

    def cold(self, loop, length):
        """Sources that no cache holds. The peer reads them with one fio and writes the device with another, each alone and at
        its best: whoever copies does both, so the slower of the two is more than any copy reaches."""
        source = self.dataset("large", f"large={length},1G")
        write = self.best_of_fio(loop.node, "write", length)
        read = max(((bs, depth) for bs in (1, 4, 8) for depth in (4, 16)), key=lambda s: self.fio_files(source, *s))
        ours, theirs, reads = [], [], []
        for _ in range(self.args.rounds):
            reads.append(self.fio_files(source, *read))
            with huge_pages(160) if write[2] else contextlib.nullcontext():
                theirs.append(min(reads[-1], self.fio(loop.node, "write", length, *write)))
            ours.append(length / self.prep(source, [loop])[0] / 1e9)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; fio reads the files with {fmt(reads)}"
        self.row("large files from a cold source, prep against the slower fio", statistics.median(ours), statistics.median(theirs), "≥ 0.95", more=more)

    def verify(self, loop, length):
        if self.args.fio_only:
            self.best_of_fio(loop.node, "read", length)
            return
        record = self.prepared(loop, length)
        best = self.best_of_fio(loop.node, "read", length)
        ours, theirs, peaks = [], [], []
        for _ in range(self.args.rounds):
            with huge_pages(160) if best[2] else contextlib.nullcontext():
                theirs.append(self.fio(loop.node, "read", length, *best))
            cold()
            seconds, peak, _ = call(self.args.dray, "verify", loop.node, "--key-file", record)
            ours.append(length / seconds / 1e9)
            peaks.append(peak)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(length)}"
        self.row("large files, verify against fio read", statistics.median(ours), statistics.median(theirs), "≥ 0.95", more=more)
        self.row("  peak memory against 128 MiB", max(peaks) / 2**20, 128, "≤ 1", "MiB")

    def ordinary(self, loop, source):
        """mkntfs, ntfs-3g and cp, synced and unmounted: seconds."""
        cold()
        total = call("mkntfs", "-Q", "-q", "-F", loop.node)[0]
        with tempfile.TemporaryDirectory(prefix="dray-bench-mnt-") as mount:
            total += call("ntfs-3g", "-o", "big_writes", loop.node, mount, quiet=True)[0]
            try:
                total += call("cp", "-r", "--preserve=timestamps", source, f"{mount}/session", quiet=True)[0]
            finally:
                began = time.monotonic()
                subprocess.run(["umount", mount], check=True)
        os.sync()
        fd = os.open(loop.node, os.O_RDWR)
        os.fsync(fd)
        os.close(fd)
        return total + time.monotonic() - began

    def against_ordinary(self, loop, what, source, budget):
        """The same files by `ordinary` and by dray, by turns."""
        ours, theirs, peaks = [], [], []
        for _ in range(self.args.rounds):
            theirs.append(self.ordinary(loop, source))
            if not self.args.fio_only:
                seconds, peak = self.prep(source, [loop])
                ours.append(seconds)
                peaks.append(peak)
        print(f"  mkntfs + ntfs-3g + cp, {what}: {fmt(theirs)} s")
        if ours:
            self.row(f"{what} against mkntfs + ntfs-3g + cp", 1 / statistics.median(ours), 1 / statistics.median(theirs), budget, "runs/s", f"seconds {fmt(ours)} / {fmt(theirs)}")
            self.row("  peak memory, catalog and program included", max(peaks) / 2**20, 128, "≤ 1 and the catalog", "MiB")

    def by_mounting(self, loop, record, *command):
        """bdemount, ntfs-3g and a command in the volume's root: seconds of all that, mounting and unmounting included."""
        table = json.loads(subprocess.run(["sfdisk", "--json", loop.node], stdout=subprocess.PIPE, check=True).stdout)["partitiontable"]
        offset = str(table["partitions"][-1]["start"] * table.get("sectorsize", 512))
        key = re.search(r"<BitLockerKey>([^<]+)", open(record).read()).group(1)
        cold()
        with tempfile.TemporaryDirectory(prefix="dray-bench-mnt-") as mounts:
            opened, files = os.path.join(mounts, "opened"), os.path.join(mounts, "files")
            os.mkdir(opened)
            os.mkdir(files)
            show(["bdemount", "-r", "…", "-o", offset, loop.node, opened])
            total = call("bdemount", "-r", key, "-o", offset, loop.node, opened, quiet=True)[0]
            try:
                total += call("ntfs-3g", "-o", "ro", f"{opened}/bde1", files, quiet=True)[0]
                try:
                    show(["sh", "-c", "cd FILES && " + command[0], *command[1:]])
                    total += call("sh", "-c", f"cd {files} && {command[0]}", *command[1:], quiet=True)[0]
                finally:
                    subprocess.run(["umount", files], check=True)
            finally:
                subprocess.run(["umount", opened], check=True)
        return total

    def back(self, loop, length):
        """A drive that came back: every file hashed, and every file taken out (the ordinary way does not compare then)."""
        record, out = self.prepared(loop, length), os.path.join(self.source_dir, "out")
        took = {}

        def took_out(what, way):
            shutil.rmtree(out, ignore_errors=True)
            took.setdefault(what, []).append(way())

        for _ in range(self.args.rounds):
            hashed = "find . -path './System Volume Information' -prune -o -type f -print0 | xargs -0 md5sum"
            took.setdefault("hash, theirs", []).append(self.by_mounting(loop, record, hashed))
            cold()
            took.setdefault("hash, ours", []).append(call(self.args.dray, "verify", loop.node, "--key-file", record)[0])
            took_out("take out, theirs", lambda: self.by_mounting(loop, record, f"mkdir {out} && cp -r bench* {out} && sync -f {out}"))
            cold()
            took_out("take out, ours", lambda: call(self.args.dray, "verify", loop.node, "--key-file", record, "--extract-to", out)[0])
        shutil.rmtree(out, ignore_errors=True)
        for what, against in (("hash", "md5sum"), ("take out", "cp")):
            ours, theirs = took[f"{what}, ours"], took[f"{what}, theirs"]
            rate = [length / statistics.median(seconds) / 1e9 for seconds in (ours, theirs)]
            self.row(f"{what} large files against bdemount + ntfs-3g + {against}", *rate, "none", more=f"seconds {fmt(ours)} / {fmt(theirs)}")

    def small(self, loop):
        source = self.dataset("small", f"small={self.args.files}")
        self.against_ordinary(loop, f"{self.args.files} small files", source, "≥ 6")

    def cp(self, loop, length):
        source = self.dataset("large", f"large={length},1G")
        self.against_ordinary(loop, f"{length >> 20} MiB of large files", source, "none")

    def two(self, loop, length):
        other = self.loop(loop.length)
        source = self.dataset("large", f"large={length},1G")
        one, both = [], []
        for _ in range(self.args.rounds):
            one.append(length / self.prep(source, [loop])[0] / 1e9)
            # Twice the data onto two drives: two prefixes of one source.
            args = self.prep_args(source, [loop, other], "--read-back", "none", *self.args.prep)
            with open(f"{self.base}/dataset.csv", "a") as f:
                f.write(f"{source}/,again/,BlockBlob,rename,None,None\n")
            _, _, text = call(*args, "--dry-run", "--json", quiet=True)
            ids = sorted(set(re.findall(r'"drive_id":\s*"([^"]+)"', text)))
            cold()
            both.append(2 * length / call(*args, "--silent", "--yes", ",".join(ids))[0] / 1e9)
        self.row("two drives at once against one", statistics.median(both), statistics.median(one), "≥ 1.8 until CPU or bus is full", more=f"runs {fmt(both)} / {fmt(one)}")

    def fio_together(self, loops, length):
        """What fio writes to all of them at once."""
        jobs = [word for i, loop in enumerate(loops) for word in (f"--name=drive{i}", f"--filename={loop.node}")]
        cold()
        _, _, text = call("fio", "--rw=write", "--bs=4M", "--iodepth=4", f"--size={length}", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1", "--end_fsync=1", "--output-format=json", *jobs, quiet=True)  # fmt: skip
        jobs = json.loads(text[text.index("{") :])["jobs"]
        return sum(job["write"]["io_bytes"] for job in jobs) / (max(job["job_runtime"] for job in jobs) / 1000) / 1e9

    def many(self, count):
        """As many drives at once, each with a file of its own; against fio on the same drives, its best round, and against what one
        drive takes of the processors."""
        each = size(self.args.each)
        loops = [self.loop(each + each // 8 + size("64M")) for _ in range(count)]
        source = self.dataset("each", f"large={each},{each}")
        one, ours, theirs, peaks, costs = [], [], [], [], []
        for _ in range(self.args.rounds):
            theirs.append(self.fio_together(loops, each))
            self.prep(source, loops[:1])
            one.append((spent.user + spent.kernel) * 1e9 / each)
            seconds, peak = self.prep(source, loops, "--spread", "even", times=count)
            ours.append(count * each / seconds / 1e9)
            costs.append((spent.user + spent.kernel) * 1e9 / each / count)
            peaks.append(peak)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(count * each)}"
        self.row(f"{count} drives at once, prep against the best of fio", statistics.median(ours), max(theirs), "≥ 0.95 where the drives are slower than the processor", more=more)
        self.row("  GB for a processor second, against one drive", 1 / statistics.median(costs), 1 / statistics.median(one), "≈ 1", "GB/s")
        budget = 64 + 64 * count
        self.row(f"  peak memory against {budget} MiB", max(peaks) / 2**20, budget, "≤ 1", "MiB")
        for loop in loops:
            loop.close()

    def key(self):
        record = next(f for f in (os.path.join(self.base, f) for f in os.listdir(self.base)) if f.endswith(".xml"))
        return re.search(r"<BitLockerKey>([^<]+)", open(record).read()).group(1)

    def second(self, loop, length):
        """A session onto the volume of another, each with half of the data."""
        source = self.dataset("half", f"large={length // 2},1G")
        ours, theirs = [], []
        for _ in range(self.args.rounds):
            theirs.append(length // 2 / self.prep(source, [loop])[0] / 1e9)
            kind = f"AlreadyFormatted,SilentMode,AlreadyEncrypted,{self.key()}"
            ours.append(length // 2 / self.prep(source, [loop], kind=kind)[0] / 1e9)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(length // 2)}"
        self.row("second session against the first", statistics.median(ours), statistics.median(theirs), "≥ 0.9", more=more)

    def in_place(self, loop, length):
        """A plain volume that is encrypted in place, against a first session with the same files."""
        source, little = self.dataset("half", f"large={length // 2},1G"), self.dataset("little", "small=1")
        ours, theirs = [], []
        for _ in range(self.args.rounds):
            theirs.append(length // 2 / self.prep(source, [loop])[0] / 1e9)
            plain = [self.args.dray, "format", loop.node, "--from", source, "--no-encryption", "--keys", self.base]
            _, _, text = call(*plain, "--dry-run", "--json", quiet=True)
            call(*plain, "--silent", "--yes", re.search(r'"drive_id":\s*"([^"]+)"', text).group(1))
            ours.append(length // 2 / self.prep(little, [loop], kind="AlreadyFormatted,SilentMode,Encrypt,")[0] / 1e9)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(length // 2)}"
        self.row("encrypting in place against a first session", statistics.median(ours), statistics.median(theirs), "≥ 0.9", more=more)

    # whole drives: what is read back counts for the peer, too, and the slower of what is read and what is written

    def fio_file(self, path, rw, length):
        """What fio does with a file in large requests, past the page cache where the file system can do that."""
        cold()
        for direct in ("1", "0"):
            args = ["fio", "--name=b", f"--filename={path}", f"--rw={rw}", "--bs=4M", "--iodepth=16", f"--size={length}", "--ioengine=io_uring", f"--direct={direct}", *(["--end_fsync=1"] if rw == "write" else ["--readonly"]), "--output-format=json"]  # fmt: skip
            if not subprocess.run(args[:7] + [f"--size={min(length, 4 << 20)}"] + args[8:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
                break
        _, _, text = call(*args, quiet=True)
        job = json.loads(text[text.index("{") :])["jobs"][0]
        return job[rw]["io_bytes"] / (job["job_runtime"] / 1000) / 1e9

    def format(self, loop, length):
        """A drive for Windows with files on it."""
        source = self.dataset("large", f"large={length},1G")
        best = self.best_of_fio(loop.node, "write", length)
        keys = os.path.join(self.source_dir, "keys")
        ours, theirs = [], []
        for turn in range(self.args.rounds):
            with huge_pages(160) if best[2] else contextlib.nullcontext():
                theirs.append(self.fio(loop.node, "write", length, *best))
            os.mkdir(f"{keys}{turn}")
            args = [self.args.dray, "format", loop.node, "--from", source, "--keys", f"{keys}{turn}", "--read-back", "none"]
            _, _, text = call(*args, "--dry-run", "--json", quiet=True)
            cold()
            ours.append(length / call(*args, "--silent", "--yes", re.search(r'"drive_id":\s*"([^"]+)"', text).group(1))[0] / 1e9)
        more = f"runs {fmt(ours)} / {fmt(theirs)}; {spent.a_gb(length)}"
        self.row("large files, format --from against fio write", statistics.median(ours), statistics.median(theirs), "≥ 0.95", more=more)

    def whole(self, wanted, length):
        """Drives of this length as images and back: read and written at once, so the slower of the two counts; `write` and `clone`
        also read back, which fio does behind the writing."""
        loops = [self.loop(length) for _ in range(2 if "clone" in wanted else 1)]
        first, image = loops[0], os.path.join(self.source_dir, "whole.img")
        read = self.best_of_fio(first.node, "read", length)
        write = self.best_of_fio(loops[-1].node, "write", length)
        ours, theirs, costs = {}, {}, {}

        def fio(node, way, best):
            with huge_pages(160) if best[2] else contextlib.nullcontext():
                return self.fio(node, way, length, *best)

        def again(what, *command):
            cold()
            ours.setdefault(what, []).append(length / call(*command)[0] / 1e9)
            costs[what] = spent.a_gb(length)

        def acquire(what, *more):
            for end in ("", ".map", ".hashes"):
                with contextlib.suppress(OSError):
                    os.unlink(image + end)
            again(what, self.args.dray, "acquire", first.node, "--to", image, *more)

        def name(loop):
            return os.path.splitext(os.path.basename(loop.node))[0]

        for _ in range(self.args.rounds):
            file_write = self.fio_file(image, "write", length)
            device_read = fio(first.node, "read", read)
            theirs.setdefault("acquire", []).append(min(file_write, device_read))
            acquire("acquire", "--no-md5")
            if "acquire" in wanted:
                acquire("acquire, MD5 of the whole")
            device_write = fio(loops[-1].node, "write", write)
            if "write" in wanted:
                one = min(self.fio_file(image, "read", length), device_write)
                theirs.setdefault("write", []).append(1 / (1 / one + 1 / device_read))
                again("write", self.args.dray, "write", image, first.node, "--silent", "--yes", name(first))
            if "clone" in wanted:
                one = min(device_read, device_write)
                theirs.setdefault("clone", []).append(1 / (1 / one + 1 / device_read))
                again("clone", self.args.dray, "clone", first.node, loops[1].node, "--silent", "--yes", name(loops[1]))
        for what, peer in (("acquire", "the slower fio"), ("write", "the slower fio, and fio reading back"), ("clone", "the slower fio, and fio reading back")):
            if what in wanted:
                more = f"runs {fmt(ours[what])} / {fmt(theirs[what])}; {costs[what]}"
                self.row(f"{what} against {peer}", statistics.median(ours[what]), statistics.median(theirs[what]), "≥ 0.95", more=more)
        if "acquire" in wanted:
            what = "acquire, MD5 of the whole"
            self.row("  with the MD5 of the whole, one chain", statistics.median(ours[what]), statistics.median(ours["acquire"]), "none", more=f"runs {fmt(ours[what])}")
        for loop in loops:
            loop.close()
        for end in ("", ".map", ".hashes"):
            with contextlib.suppress(OSError):
                os.unlink(image + end)

    def plan(self, loop):
        """Planning alone, on files that are there; its growth is what counts."""
        seconds = []
        for files in (self.args.plan_files // 4, self.args.plan_files):
            source = self.dataset(f"flat{files}", f"flat={files}")
            args = self.prep_args(source, [loop], "--dry-run")
            call(*args, quiet=True)
            took, peak, _ = call(*args)
            seconds.append(took / files * 1e6)
            print(f"  plan of {files} files: {took:.2f} s, {took / files * 1e6:.2f} µs and {peak / files:.0f} bytes of peak memory a file")
        self.row("plan, files a second against a quarter as many files", 1e6 / seconds[1], 1e6 / seconds[0], "≈ 1 (linear)", "files/s")


def fmt(values):
    return " ".join(f"{v:.3g}" for v in values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on", default="disk", help="disk (/var/tmp), memory (/dev/shm), or a directory for the device's file")
    parser.add_argument("--source", help="directory for the source files")
    parser.add_argument("--size", type=size, default=size("4G"), help="bytes of the large files")
    parser.add_argument("--limit", type=size, help="bytes a second that the device takes and gives")
    parser.add_argument("--sector", type=int, default=512, choices=(512, 4096))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=30000)
    parser.add_argument("--plan-files", type=int, default=1_000_000)
    parser.add_argument("--sweep", default="1G", help="bytes of each run of the fio sweep")
    parser.add_argument("--each", default="1G", help="bytes of each drive in the rows four and ten")
    parser.add_argument("--rows", default="large,verify,back,small,two,plan")
    parser.add_argument("--prep", type=str.split, default=[], help="more words for dray prep-import")
    parser.add_argument("--no-build", action="store_true", help="measure the programs that are there")
    parser.add_argument("--dray", default=os.path.join(PROJECT, "target/release/dray"))
    parser.add_argument("--fio-only", action="store_true", help="only what the others can do")
    args = parser.parse_args()
    if os.geteuid():
        sys.exit("bench-device: needs root for loop devices, mounting and dropping caches")
    for tool in ("fio", "mkntfs", "ntfs-3g", "losetup", *(["bdemount"] if "back" in args.rows.split(",") else [])):
        if not shutil.which(tool):
            sys.exit(f"bench-device: {tool} is not installed (scripts/test --judges installs it)")
    args.no_build or subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "dray-testdisks", *([] if args.fio_only else ["-p", "dray"])], cwd=PROJECT, check=True)

    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    flags = set(open("/proc/cpuinfo").read().split()) & {"aes", "avx2", "vaes", "avx512f"}
    if args.limit:
        common.limit = Limit(args.limit)
    bench = Bench(args)
    if common.limit:
        bench.stack.callback(common.limit.close)
    with bench.stack:
        print(f"{cpu.group(1) if cpu else platform.machine()} × {os.cpu_count()} ({' '.join(sorted(flags))}), Linux {platform.release()}, "
              f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') >> 30} GiB, {call('fio', '--version', quiet=True)[2].strip()}")  # fmt: skip
        home = call("findmnt", "-no", "SOURCE,FSTYPE", "-T", bench.device_dir, quiet=True)[2].split()
        source = call("findmnt", "-no", "SOURCE,FSTYPE", "-T", bench.source_dir, quiet=True)[2].split()
        # Room for the small files as well, and for what a file system wants.
        loop = bench.loop(max(args.size + args.size // 8, size("2G")) + size("512M"))
        direct = open(f"/sys/block/{os.path.basename(loop.node)}/loop/dio").read().strip()
        print(f"device: {loop.node}, {loop.length} bytes, sectors of {args.sector}, direct I/O {direct}{f', limited to {args.limit} bytes/s' if common.limit else ''}, its file on {' '.join(home)}; sources on {' '.join(source)}; {args.rounds} rounds, medians")
        rows = args.rows.split(",")
        if "large" in rows:
            bench.best_of_fio(loop.node, "write", args.size) if args.fio_only else bench.large(loop, args.size)
        if "cold" in rows and not args.fio_only:
            bench.cold(loop, args.size)
        if "verify" in rows:
            bench.verify(loop, args.size)
        if "back" in rows and not args.fio_only:
            bench.back(loop, args.size)
        if "small" in rows:
            bench.small(loop)
        if "cp" in rows:
            bench.cp(loop, args.size)
        if "two" in rows and not args.fio_only:
            bench.two(loop, args.size)
        for count, name in ((4, "four"), (10, "ten")):
            if name in rows and not args.fio_only:
                bench.many(count)
        if "second" in rows and not args.fio_only:
            bench.second(loop, args.size)
        if "in-place" in rows and not args.fio_only:
            bench.in_place(loop, args.size)
        if "format" in rows and not args.fio_only:
            bench.format(loop, args.size)
        whole = [row for row in ("acquire", "write", "clone") if row in rows]
        if whole and not args.fio_only:
            bench.whole(whole, args.size)
        if "plan" in rows and not args.fio_only:
            bench.plan(loop)
    print(f"\n{'':58} {'ours':>9} {'theirs':>9} {'ratio':>6}  budget")
    for what, ours, theirs, ratio, budget, unit, _ in bench.rows:
        print(f"{what:58} {ours:9.3f} {theirs:9.3f} {ratio:6.2f}  {budget}  [{unit}]")


if __name__ == "__main__":
    main()
