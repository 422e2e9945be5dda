#!/usr/bin/env python3
"""bench-account: the import of a drive into a sink that drops what it gets, compared with `dray verify` and AzCopy.

  scripts/bench-account [--size MIB] [--rounds N] [--dir DIR] [--limit 250M]

Makes a drive image from seeded files, half of them in 4 MiB blocks, half small, imports it into `drop-sink` on this
machine, verifies the same image (the device's own speed), puts as many bytes into the sink as sockets take (the sink's
own), and uploads the same files to the same sink with AzCopy, in turns. Prints medians of processor seconds a GB (user and
system, of the program alone) and of the wall, and the import as a ratio to the slower of device and sink. Everything runs
on one machine: walls include the sink's own work.

--limit makes the image a loop device that the kernel holds to a rate, as a real drive is; needs root.
"""
import argparse
import contextlib
import os
import pathlib
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

import common

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SAS = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&sig=bm9uZQ%3D%3D"


def azcopy():
    found = list((ROOT / "target/judges/node/node_modules/@azure-tools/azcopy-linux/dist/bin").glob("*"))
    files = [path for path in found if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size) if files else None


def run(words, env=None, cwd=None):
    """Processor seconds and wall seconds of a program."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), os.times().elapsed
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, cwd=cwd, check=False, preexec_fn=common.limit and common.limit.enter)
    after, end = resource.getrusage(resource.RUSAGE_CHILDREN), os.times().elapsed
    if done.returncode:
        sys.exit(f"{words[0]} {words[1]} fails: {done.stdout.decode(errors='replace')[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, end - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="data on the drive [1024]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", help="where image and files are made [a temporary directory]")
    parser.add_argument("--limit", type=common.size, help="bytes a second that the device gives, for example 250M")
    parser.add_argument("--profile", default="release", help="of target/ [release]")
    args = parser.parse_args()
    dray, sink = ROOT / f"target/{args.profile}/dray", ROOT / f"target/{args.profile}/drop-sink"
    for program in (dray, sink):
        if not program.exists():
            sys.exit(f"{program} is missing: cargo build --release -p dray -p dray-testdisks")
    top = pathlib.Path(tempfile.mkdtemp(prefix="bench-account-", dir=args.dir))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, top)
        measure(args, dray, sink, top, stack)


def measure(args, dray, sink, top, stack):
    chance, source = random.Random(7), top / "source"
    source.mkdir()
    total = args.size << 20
    large, small = total // 2, total - total // 2
    for number in range(max(1, large // (64 << 20))):
        (source / f"large-{number}").write_bytes(chance.randbytes(min(large, 64 << 20)))
    for number in range(small // (64 << 10)):
        (source / f"small-{number:06}").write_bytes(chance.randbytes(64 << 10))
    gigabytes = sum(path.stat().st_size for path in source.iterdir()) / 1e9
    (top / "dataset.csv").write_text(f'BasePath,DstItemPathOrPrefix,ItemType,Disposition,MetadataFile,PropertiesFile\n"{source}/",box/,BlockBlob,overwrite,None,None\n')
    room = args.size * 5 // 4 + 200
    (top / "driveset.csv").write_text(f'DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n"{top}/drive.img:{room}MiB",Format,SilentMode,Encrypt,\n')
    run([dray, "prep-import", "--journal", "j.jrn", "--id", "bench", "--initial-driveset", "driveset.csv", "--dataset", "dataset.csv",
         "--logdir", "logs", "--silent", "--not-for-shipping", "--read-back", "none"], cwd=top)
    (top / "key").write_text(KEY)
    drive = "drive.img"
    if args.limit:
        attached = subprocess.run(["losetup", "--show", "-f", "--direct-io=on", top / drive], stdout=subprocess.PIPE, text=True, check=True)
        drive = attached.stdout.strip()
        stack.callback(subprocess.run, ["losetup", "-d", drive], check=False)
        common.limit = common.Limit(args.limit)
        stack.callback(common.limit.close)
        common.limit.hold(drive)
    server = subprocess.Popen([sink], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = server.stdout.readline().split()[1]
    endpoint = f"http://127.0.0.1:{port}/devstoreaccount1"
    program, ours = azcopy(), {"verify": [], "sink": [], "ingest": [], "azcopy": []}
    env = dict(os.environ, AZCOPY_LOG_LOCATION=str(top), AZCOPY_JOB_PLAN_LOCATION=str(top), HOME=str(top))
    if program:
        shutil.copy(program, top / "azcopy")
        (top / "azcopy").chmod(0o755)
    else:
        print("SKIPPED judge: AzCopy is not here")
    for _ in range(args.rounds):
        ours["verify"].append(run([dray, "verify", drive, "--key-file", "drive.xml"], cwd=top))
        ours["sink"].append(run([sink, "fill", port, "8", str(large >> 22), str(4 << 20), str(small >> 16), str(64 << 10)]))
        ours["ingest"].append(run([dray, "ingest", drive, "--record", "drive.xml", "--endpoint", endpoint, "--account-key-file", "key", "--anew"], cwd=top))
        if program:
            words = [top / "azcopy", "copy", f"{source}/*", f"{endpoint}/box?{SAS}", "--from-to=LocalBlob", "--overwrite=true", "--check-length=false",
                     "--block-size-mb=4", "--put-md5", "--skip-version-check", "--log-level=NONE"]
            ours["azcopy"].append(run(words, env, top))
    server.stdin.close()
    print(f"{gigabytes:.2f} GB, {args.rounds} rounds; sink: {server.stdout.readline().strip()}")
    walls = {name: statistics.median(wall for _, wall in runs) for name, runs in ours.items() if runs}
    slower = max(walls["verify"], walls["sink"])
    for name, runs in ours.items():
        if runs:
            cpu, wall = statistics.median(cpu for cpu, _ in runs) / gigabytes, walls[name]
            print(f"{name:8} {cpu:6.2f} s of processor a GB   {gigabytes / wall * 1e3:7.0f} MB/s   {slower / wall:5.2f} of the slower of device and sink")
    server.wait()


if __name__ == "__main__":
    main()
