"""What the benchmarks of whole runs share: commands that are timed, loop devices, and a rate that they are held to."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}
shown = set()
# The one that every command runs under.
limit = None


class Spent:
    """What the last command took of the processors, and what everything on the machine took meanwhile."""

    user = kernel = busy = 0.0

    def a_gb(self, length):
        """For a row: processor seconds a GB of the command itself, and the share of all processors that was busy."""
        user, kernel = (of * 1e9 / length for of in (self.user, self.kernel))
        return f"processor s/GB {user:.2f} user + {kernel:.2f} kernel, processors {self.busy:.2f} busy"


spent = Spent()


def ticks():
    """(busy, all) clock ticks of all processors; stolen time is neither."""
    user, nice, system, idle, wait, irq, soft, *_ = map(int, open("/proc/stat").readline().split()[1:])
    busy = user + nice + system + irq + soft
    return busy, busy + idle + wait


def size(text):
    digits = text.rstrip("KMGT")
    return int(digits) << UNITS.get(text[len(digits) :], 0)


def show(args):
    """Each command once, so that anybody can repeat it."""
    line = " ".join(args)
    if line not in shown:
        shown.add(line)
        print(f"  $ {line}", flush=True)


def call(*args, quiet=False):
    """Runs a command; (seconds, peak resident bytes, stdout). A failing command ends the benchmark."""
    if not quiet:
        show(args)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began, before = time.monotonic(), ticks()
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=limit and limit.enter)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - began
        busy, total = (now - then for now, then in zip(ticks(), before))
        spent.user, spent.kernel, spent.busy = usage.ru_utime, usage.ru_stime, busy / max(total, 1)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        text = out.read().decode(errors="replace")
        if child.returncode:
            sys.exit(f"bench-device: {' '.join(args)}: exit {child.returncode}\n{text[-2000:]}{err.read().decode(errors='replace')[-2000:]}")
        return seconds, usage.ru_maxrss * 1024, text


def cold():
    """Nothing of an earlier run is waiting to be written or still in memory."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w") as f:
        f.write("3\n")


class Limit:
    """Commands whose access to some devices is held to a rate by the block throttle of their control group."""

    def __init__(self, rate):
        self.rate, self.group = rate, None
        root = "/sys/fs/cgroup"
        v1 = os.path.isdir(f"{root}/blkio")
        self.group = f"{root}/blkio/dray-bench" if v1 else f"{root}/dray-bench"
        if not v1:
            open(f"{root}/cgroup.subtree_control", "w").write("+io")
        os.makedirs(self.group, exist_ok=True)
        self.v1 = v1

    def hold(self, node):
        number = open(f"/sys/block/{os.path.basename(node)}/dev").read().strip()
        if self.v1:
            for way in ("read", "write"):
                open(f"{self.group}/blkio.throttle.{way}_bps_device", "w").write(f"{number} {self.rate}")
        else:
            open(f"{self.group}/io.max", "w").write(f"{number} rbps={self.rate} wbps={self.rate}")

    def enter(self):
        open(f"{self.group}/cgroup.procs", "w").write(str(os.getpid()))

    def close(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.group)



@contextlib.contextmanager
def huge_pages(count):
    """Reserved for fio's `mmaphuge` runs, given back afterwards."""
    knob = "/proc/sys/vm/nr_hugepages"
    before = open(knob).read()
    open(knob, "w").write(str(max(int(before), count)))
    try:
        yield int(open(knob).read()) >= count
    finally:
        open(knob, "w").write(before)


class Loop:
    """A loop device over a file that is written once before anything is measured, so that no run pays for allocation."""

    def __init__(self, folder, name, length, sector):
        self.path = os.path.join(folder, name)
        with open(self.path, "wb") as f:
            block = os.urandom(1 << 20) * 4
            for at in range(0, length, len(block)):
                f.write(block[: min(len(block), length - at)])
            f.flush()
            os.fsync(f.fileno())
        direct = ["--direct-io=on"]
        args = ["losetup", "--show", "-f", "-b", str(sector)]
        done = subprocess.run([*args, *direct, self.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            done = subprocess.run([*args, self.path], stdout=subprocess.PIPE, text=True, check=True)
        self.node, self.length = done.stdout.strip(), length

    def close(self):
        # Once: the number may be another's by then.
        if not self.node:
            return
        subprocess.run(["losetup", "-d", self.node], check=False)
        self.node = None
        with contextlib.suppress(OSError):
            os.unlink(self.path)
