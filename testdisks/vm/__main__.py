"""Runs a command in a virtual machine that has disks on real buses, and gives back its output and exit status.

    scripts/vm --setup
    scripts/vm [--disk BUS:IMAGE[,OPTION=VALUE…]]… [--share NAME=DIR]… [options] -- COMMAND…

BUS is ahci, scsi (virtio-scsi), nvme, usb (usb-storage), uas or virtio. Options of a disk: serial=, model=, wwn=,
logical= and physical= (sector sizes), rotation=, bps= (throttle), log=FILE (every write goes into FILE too, in the form
of dm-log-writes), bad=SECTOR (writes of this 512-byte sector fail), badread=SECTOR, badflush=on, removable=on,
readonly=on, cache=.
A share is a directory of the host at /NAME in the guest. The guest has `dray` (DRAY=PATH for another than
target/debug/dray), `ask WORDS…` for requests to the host, and these files:

    /lab/…            the control share: scratch of this run
    ask kill          the machine is killed at once, as by a power cut
    ask hmp WORDS…    a command of QEMU's monitor, such as `device_del d0`

A disk's device is called d0, d1, … in their order, its drive drv-d0, drv-d1, …

Exit status: the command's own; 124 at the time limit, 125 when the machine cannot be had (the reason is on standard
error), 126 when it died, 137 when it was killed on request.

The machine is emulated (a /dev/kvm that is there need not work): kernel and tools are Debian 12's packages, unpacked
into a cache of their own (DRAY_JUDGES, /opt/dray-judges for root), with nothing installed but QEMU itself.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

from guest import Impossible, setup
from machine import boot

BOOTS = 3


def main():
    parser = argparse.ArgumentParser(prog="vm", usage=__doc__)
    parser.add_argument("--setup", action="store_true")
    parser.add_argument("--disk", action="append", default=[])
    parser.add_argument("--share", action="append", default=[])
    parser.add_argument("--limit", type=float, default=120)
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--cpus", type=int, default=2)
    # Long vectors are imitated piece by piece: without them a drive is prepared and read in three quarters of the time.
    parser.add_argument("--cpu", default="max,-la57,-avx,-avx2")
    parser.add_argument("--append", default="")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    args.command = words[0] if len(words) == 1 else shlex.join(words)
    try:
        ready = setup()
    except Impossible as error:
        print(f"vm: {error}", file=sys.stderr)
        return 125
    if args.setup:
        print(f"{ready}: {(ready / 'version').read_text()}")
        return 0
    if not words:
        parser.error("no command")
    # An emulated processor may trip over code that the kernel patches while it starts, or lose its timer: nothing has
    # happened yet then.
    for _ in range(BOOTS):
        with tempfile.TemporaryDirectory(prefix="dray-vm-") as work:
            status = boot(args, ready, Path(work))
            if status != 126 or (Path(work) / "lab/started").exists():
                break
    return status


if __name__ == "__main__":
    sys.exit(main())
