#!/usr/bin/env python3
"""faulty.py IMAGE DIRECTORY START:LENGTH…: shows IMAGE as DIRECTORY/drive, whose bytes in the ranges cannot be read (EIO).

A file system of one file, straight on /dev/fuse: it needs root, and no library. Prints `ready` when it is mounted, and ends when it
is unmounted. Every read that touches a range fails as a whole, as a drive's does.
"""
import ctypes
import os
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, READ, STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, BATCH, DESTROY = (
    1, 2, 3, 14, 15, 17, 18, 25, 26, 27, 28, 29, 36, 42, 38)
EIO, ENOENT, ENOSYS = 5, 2, 38
ROOT, DRIVE = 1, 2
DIRECT_IO = 1


def attributes(node, size):
    """struct fuse_attr."""
    mode, links = (0o040755, 2) if node == ROOT else (0o100444, 1)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, links, 0, 0, 0, 4096, 0)


def main():
    image, directory = sys.argv[1:3]
    bad = [tuple(map(int, word.split(":"))) for word in sys.argv[3:]]
    backing = os.open(image, os.O_RDONLY)
    size = os.fstat(backing).st_size
    fuse = os.open("/dev/fuse", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read=131072"
    if libc.mount(b"faulty", directory.encode(), b"fuse.faulty", 1 | 2 | 4, options.encode()):
        sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
    print("ready", flush=True)

    def answer(unique, body=b"", error=0):
        try:
            os.write(fuse, struct.pack("<IiQ", 16 + len(body), -error, unique) + body)
        except OSError:
            pass  # It was interrupted, and its caller is gone.

    while True:
        try:
            request = os.read(fuse, 1 << 20)
        except OSError:
            return  # Unmounted.
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        body = request[40:]
        if opcode == INIT:
            major, minor, ahead, flags = struct.unpack_from("<IIII", body)
            answer(unique, struct.pack("<IIIIHHIIHHI28x", 7, min(minor, 31), ahead, flags & 1, 12, 9, 131072, 1, 32, 0, 0))
        elif opcode == LOOKUP and body.rstrip(b"\0") == b"drive":
            answer(unique, struct.pack("<QQQQII", DRIVE, 0, 60, 60, 0, 0) + attributes(DRIVE, size))
        elif opcode == LOOKUP:
            answer(unique, error=ENOENT)
        elif opcode == GETATTR:
            answer(unique, struct.pack("<QII", 60, 0, 0) + attributes(node, size if node == DRIVE else 4096))
        elif opcode in (OPEN, OPENDIR):
            answer(unique, struct.pack("<QII", 0, DIRECT_IO if opcode == OPEN else 0, 0))
        elif opcode == READ:
            _, at, length = struct.unpack_from("<QQI", body)
            if os.environ.get("TRACE"): print("read", at, length, file=sys.stderr)
            if any(at < start + count and start < at + length for start, count in bad):
                answer(unique, error=EIO)
            else:
                answer(unique, os.pread(backing, length, at))
        elif opcode == READDIR:
            answer(unique)
        elif opcode == STATFS:
            answer(unique, struct.pack("<QQQQQIII28x", 0, 0, 0, 0, 0, 4096, 255, 4096))
        elif opcode in (RELEASE, RELEASEDIR, FLUSH):
            answer(unique)
        elif opcode in (FORGET, BATCH, INTERRUPT):
            pass
        elif opcode == DESTROY:
            answer(unique)
            return
        else:
            answer(unique, error=ENOSYS)


main()
