"""fio and dray by turns on a disk of the virtual machine (scripts/vm), behind a driver of a real bus; prints ratios.

scripts/bench-sata [--bus ahci] [--rate 16M] [--size 512M] [--sector 512] [--rounds 2]
Wants fio and what scripts/vm wants. The machine is emulated and its processor slow: `rate` holds the disk to what it can
follow. Two ratios a row: of the whole process, and of the time in which data flows, as the program's log and report tell it.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime

from common import PROJECT, size

GUEST = r"""
set -e
fio() { /bench/ld.so --library-path /bench/lib /bench/fio --name=b --filename=/dev/sda --bs=1M --ioengine=io_uring --direct=1 \
    --iodepth=$DEPTH --size=$SIZE --output-format=terse --terse-version=3 "$@" | awk -F';' -v field=$FIELD '{ print $field / 1000 }'; }
now() { date +%s.%N; }
timed() { from=$(now); "$@" >/tmp/out 2>&1 || { cat /tmp/out >&2; exit 1; }; awk -v a=$from -v b=$(now) 'BEGIN { print b - a }'; }
mkdir /tmp/source
for i in 0 1 2 3 4 5 6 7; do head -c $((SIZE / 8)) /dev/urandom >/tmp/source/$i.bin; done
printf 'BasePath,DstBlobPathOrPrefix,BlobType\n/tmp/source/,bench/,\n' >/tmp/dataset.csv
printf 'DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n/dev/sda,Format,SilentMode,Encrypt,\n' >/tmp/driveset.csv
for round in $(seq $ROUNDS); do
    cd /tmp
    rm -rf job.jrn* *.xml logs
    prep() { dray prep-import --journal job.jrn --id bench --logdir logs --initial-driveset driveset.csv --dataset dataset.csv --not-for-shipping --read-back none "$@"; }
    id=$(prep --dry-run --json 2>/dev/null | sed -n 's/.*"drive_id": *"\([^"]*\)".*/\1/p' | head -n 1)
    for depth in 4 16; do echo "write $(DEPTH=$depth FIELD=50 fio --rw=write --end_fsync=1)"; done
    echo "prepare $(timed prep --silent --yes $id)"
    sed -n 's/^\([^ ]*\) drive.*: \(Wiping\|Data\|Flushing\|Finishing\)$/stage \2 \1/p' logs/*.log
    for depth in 4 16; do echo "read $(DEPTH=$depth FIELD=9 fio --rw=read)"; done
    echo "verify $(timed dray verify /dev/sda --key-file $id.xml)"
    sed -n 's/^ *read .* in \([0-9.]*\) s .*/flow \1/p' /tmp/out
done
"""


def bring_fio(folder):
    """fio with the libraries of this machine: the guest has neither."""
    fio = shutil.which("fio") or sys.exit("bench-sata: fio is not installed (scripts/test --judges installs it)")
    os.mkdir(f"{folder}/lib")
    shutil.copy(fio, f"{folder}/fio")
    listed = subprocess.run(["ldd", fio], stdout=subprocess.PIPE, text=True, check=True).stdout
    for path in re.findall(r"(/\S+) \(0x", listed):
        shutil.copy(path, f"{folder}/ld.so" if "/ld-linux" in path else f"{folder}/lib/")


def numbers(lines, word):
    return [float(line.split()[1]) for line in lines if line.startswith(word + " ")]


def flows(lines):
    """Seconds from the first stage to the beginning of the last flush."""
    out, begun, last = [], None, None
    for line in lines:
        if line.startswith("stage "):
            _, stage, when = line.split()
            when = datetime.fromisoformat(when.replace("Z", "+00:00"))
            begun, last = (begun or when), when
        elif begun:
            out.append((last - begun).total_seconds())
            begun = None
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bus", default="ahci", choices=("ahci", "scsi", "usb", "uas"))
    parser.add_argument("--rate", type=size, default=size("16M"), help="bytes a second that the disk takes and gives")
    parser.add_argument("--size", type=size, default=size("512M"), help="bytes of the files")
    parser.add_argument("--sector", type=int, default=512, choices=(512, 4096))
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "dray"], cwd=PROJECT, check=True)
    with tempfile.TemporaryDirectory(prefix="dray-bench-sata-") as folder:
        bring_fio(folder)
        with open(f"{folder}/guest", "w") as f:
            f.write(GUEST)
        with open(f"{folder}/disk.img", "wb") as f:
            f.truncate(args.size * 3 // 2 + (128 << 20))
        disk = f"{args.bus}:{folder}/disk.img,serial=BENCH,logical={args.sector},physical=4096,bps={args.rate}"
        seconds = 240 + args.rounds * 8 * args.size // args.rate
        memory = 1024 + 2 * (args.size >> 20)
        command = [f"{PROJECT}/scripts/vm", "--disk", disk, "--share", f"bench={folder}", "--memory", str(memory), "--cpus", "2", "--limit", str(seconds)]  # fmt: skip
        guest = ["env", f"SIZE={args.size}", f"ROUNDS={args.rounds}", "bash", "/bench/guest"]
        done = subprocess.run([*command, "--", *guest], stdout=subprocess.PIPE, text=True, env={**os.environ, "DRAY": f"{PROJECT}/target/release/dray"})  # fmt: skip
        if done.returncode:
            sys.exit(f"bench-sata: the machine ended with {done.returncode}\n{done.stdout[-2000:]}")
    lines = done.stdout.splitlines()
    print(f"{args.bus}, sectors of {args.sector}, {args.rate} bytes/s, {args.size} bytes in 8 files, {args.rounds} rounds, medians")
    for what, peer, flow in (("prepare", "write", flows(lines)), ("verify", "read", numbers(lines, "flow"))):
        theirs = min(numbers(lines, peer))
        whole, flow = statistics.median(numbers(lines, what)), statistics.median(flow)
        print(f"{what}: {whole:.1f} s, data flow {flow:.1f} s; best fio {theirs:.1f} s: ratios {theirs / whole:.2f}, {theirs / flow:.2f}")


main()
