"""One machine: its disks, its start, and what is done for it until it ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from guest import BUSES, PROJECT, run

# Seconds until the command should have begun; a busy host takes 60.
BOOT_MAX = 180


def disk_args(number, text):
    """QEMU's arguments for one disk, and its bus."""
    bus, _, rest = text.partition(":")
    path, *pairs = rest.split(",")
    if bus not in BUSES:
        raise SystemExit(f"vm: no such bus: {bus}")
    options = dict(pair.split("=", 1) for pair in pairs)
    name = f"d{number}"
    throttle = f",throttling.bps-total={options['bps']}" if "bps" in options else ""
    more = ",readonly=on" if options.get("readonly") == "on" else ",discard=unmap"
    more += throttle
    layer = "file"
    chain = [("driver", "file"), ("filename", path), ("locking", "off")]
    if "log" in options:
        Path(options["log"]).write_bytes(b"")
        chain = [("driver", "blklogwrites"), ("log-sector-size", "512"), *((f"file.{k}", v) for k, v in chain),
                 ("log.driver", "file"), ("log.filename", options["log"])]
    for kind, what in (("bad", "write"), ("badread", "read"), ("badflush", "flush")):
        if kind in options:
            sector = "" if kind == "badflush" else f'sector = "{options[kind]}"\n'
            config = Path(options["_dir"]) / f"{name}-{kind}.cfg"
            config.write_text(
                f'[inject-error]\nevent = "none"\niotype = "{what}"\n{sector}errno = "5"\nonce = "off"\n'
            )
            chain = [("driver", "blkdebug"), ("config", str(config)), *((f"image.{k}", v) for k, v in chain)]
    backend = ",".join(f"{layer}.{key}={value}" for key, value in chain)
    cache = options.get("cache", "writeback")
    args = ["-drive", f"if=none,id=drv-{name},driver=raw,{backend},cache={cache}{more}"]
    errors = ",werror=report,rerror=report"
    sectors = "".join(
        f",{key}_block_size={options[key]}" for key in ("logical", "physical") if key in options
    )
    serial = f",serial={options['serial']}" if "serial" in options else ""
    model = f",model={options['model']}" if "model" in options and bus == "ahci" else ""
    product = f",product={options['model']}" if "model" in options and bus in ("scsi", "uas") else ""
    wwn = f",wwn={options['wwn']}" if "wwn" in options else ""
    rotation = f",rotation_rate={options['rotation']}" if "rotation" in options else ""
    removable = f",removable={options['removable']}" if "removable" in options else ""
    # One port a controller, or nothing can be unplugged.
    port = ["-device", f"pcie-root-port,id=rp{number},bus=pcie.0,chassis={number + 1},slot={number + 1}"]
    tail = f",id={name},drive=drv-{name}{serial}"
    match bus:
        case "ahci":
            device = [*port, "-device", f"ahci,id=ctl{number},bus=rp{number}", "-device",
                      f"ide-hd,bus=ctl{number}.0{tail}{model}{wwn}{rotation}{sectors}{errors}"]
        case "scsi":
            device = [*port, "-device", f"virtio-scsi-pci,id=ctl{number},bus=rp{number}", "-device",
                      f"scsi-hd,bus=ctl{number}.0{tail}{product}{wwn}{rotation}{sectors}{errors}"]
        case "nvme":
            device = [*port, "-device", f"nvme,bus=rp{number}{tail}{sectors}"]
        case "virtio":
            device = [*port, "-device", f"virtio-blk-pci,bus=rp{number}{tail}{sectors}{errors}"]
        case "usb":
            device = [*port, "-device", f"qemu-xhci,id=ctl{number},bus=rp{number}", "-device",
                      f"usb-storage,bus=ctl{number}.0{tail}{removable}{sectors}{errors}"]
        case _:
            device = [*port, "-device", f"qemu-xhci,id=ctl{number},bus=rp{number}", "-device",
                      f"usb-uas,id=uas{number},bus=ctl{number}.0", "-device",
                      f"scsi-hd,bus=uas{number}.0{tail}{product}{sectors}{errors}"]
    return bus, args + device


def put_dray(lab):
    """The program and what it is linked with."""
    dray = Path(os.environ.get("DRAY", PROJECT / "target/debug/dray"))
    place = lab / "dray"
    place.mkdir()
    if not dray.exists():
        return
    # The rest of a debug build is for debuggers.
    if not shutil.which("strip") or subprocess.run(["strip", "--strip-debug", "-o", place / "dray", dray]).returncode:
        shutil.copy(dray, place / "dray")
    for line in run(["ldd", dray]).splitlines():
        found = re.search(r"(/\S+)", line.split("=>")[-1])
        if found:
            path = Path(found.group(1))
            shutil.copy(path, place / ("ld.so" if path.name.startswith("ld-") else path.name))


def boot(args, ready, work):
    lab = work / "lab"
    lab.mkdir()
    put_dray(lab)
    # From the share the program would be read and translated anew each time that it starts.
    local = "cp -r /lab/dray /run/ && mount --bind /run/dray /lab/dray"
    (lab / "command").write_text(f"exec 3>&-\n>/lab/started\n{local}\n{args.command}\n")
    buses, devices = [], []
    for number, text in enumerate(args.disk):
        bus, more = disk_args(number, f"{text},_dir={work}")
        buses.append(bus)
        devices += more
    modules = list(dict.fromkeys(name for bus in buses for name in BUSES[bus]))
    shares = dict(share.split("=", 1) for share in args.share)
    append = (
        "console=ttyS0 loglevel=4 panic=-1 cryptomgr.notests initcall_blacklist=crypto_kdf108_init,init_encrypted "
        "mitigations=off no_timer_check tsc=reliable audit=0 ipv6.disable=1 random.trust_cpu=1 "
        f"modules={','.join(modules)} shares={','.join(shares)} disks={len(buses)} {args.append}"
    )
    argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", args.cpu, "-M", "q35"]
    argv += ["-smp", str(args.cpus), "-m", str(args.memory), "-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-no-reboot", "-kernel", str(ready / "vmlinux"), "-initrd", str(ready / "initrd"), "-append", append]
    argv += ["-serial", f"file:{work}/console", "-device", "virtio-serial-pci"]
    for name in ("out", "err"):
        argv += ["-chardev", f"file,id={name},path={work}/{name}", "-device", f"virtserialport,chardev={name},name={name}"]
    argv += ["-chardev", f"socket,id=ask,path={work}/ask,server=on,wait=off"]
    argv += ["-device", "virtserialport,chardev=ask,name=ask"]
    argv += ["-chardev", f"socket,id=hmp,path={work}/hmp,server=on,wait=off", "-mon", "chardev=hmp,mode=readline"]
    for name, path in {"lab": lab, **shares}.items():
        argv += ["-virtfs", f"local,path={path},mount_tag={name},security_model=none,multidevs=remap"]
    machine = subprocess.Popen(
        argv + devices, stdin=subprocess.DEVNULL, stdout=open(work / "qemu", "w"), stderr=subprocess.STDOUT
    )
    try:
        return follow(machine, args, work, lab)
    finally:
        if machine.poll() is None:
            machine.kill()
        machine.wait()


def connect(path, machine):
    while machine.poll() is None:
        wire = socket.socket(socket.AF_UNIX)
        try:
            wire.connect(str(path))
            wire.setblocking(False)
            return wire
        except OSError:
            wire.close()
            time.sleep(0.02)
    return None


def follow(machine, args, work, lab):
    """Until the machine ends: does what the guest asks for, hands on what it says."""
    began = time.monotonic()
    until = began + args.limit
    ask, hmp = connect(work / "ask", machine), connect(work / "hmp", machine)
    told = {"out": 0, "err": 0}
    pending = b""

    def hand_on():
        for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
            try:
                with open(work / name, "rb") as file:
                    file.seek(told[name])
                    piece = file.read()
            except FileNotFoundError:
                continue
            told[name] += len(piece)
            stream.buffer.write(piece)
            stream.buffer.flush()

    while machine.poll() is None:
        if time.monotonic() > until:
            machine.kill()
            machine.wait()
            hand_on()
            print(f"vm: time limit of {args.limit} s; the console's end:\n{console(work)}", file=sys.stderr)
            return 124
        if time.monotonic() > began + BOOT_MAX and not (lab / "started").exists():
            machine.kill()
            machine.wait()
            print(f"vm: did not start within {BOOT_MAX} s; the console's end:\n{console(work)}", file=sys.stderr)
            return 126
        try:
            pending += ask.recv(4096)
        except (BlockingIOError, ConnectionError):
            pass
        *lines, pending = pending.split(b"\n")
        for line in lines:
            words = line.decode(errors="replace").split()
            if words[:1] == ["kill"]:
                machine.send_signal(signal.SIGKILL)
                machine.wait()
                hand_on()
                return 137
            if words[:1] == ["hmp"]:
                hmp.sendall(" ".join(words[1:]).encode() + b"\n")
        hand_on()
        time.sleep(0.02)
    hand_on()
    status = lab / "status"
    if not status.exists():
        print(f"vm: the machine died; QEMU: {(work / 'qemu').read_text()}\n{console(work)}", file=sys.stderr)
        return 126
    return int(status.read_text())


def console(work):
    try:
        return "\n".join((work / "console").read_text(errors="replace").splitlines()[-25:])
    except FileNotFoundError:
        return "(no console)"
