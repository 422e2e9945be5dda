#!/usr/bin/env python3
"""warm.py: runs Python scripts for tests, each in a process of its own that is forked from this one.

Once a script has ended, this process imports what the script had imported, so that the next run finds it: of a judge's
processor time, imports are most.

Prints the name of an abstract Unix socket in hexadecimal, and ends when its stdin does. A connection asks for one run:
the number of fields, then each field with its length, all in four bytes, little-endian; the fields are standard input,
working directory, script and arguments. The answer is the exit status, then output and errors as fields. No answer: the
process was killed.
"""
import importlib
import os
import runpy
import socket
import selectors
import struct
import sys
import traceback


def take(wire, length):
    taken = b""
    while len(taken) < length:
        piece = wire.recv(length - len(taken))
        if not piece:
            sys.exit("a request that ends early")
        taken += piece
    return taken


def number(wire):
    return struct.unpack("<I", take(wire, 4))[0]


def run(script, args):
    """Runs a script as Python would, and returns its exit status."""
    sys.argv = [script, *args]
    sys.path[0] = os.path.dirname(script)
    try:
        runpy.run_path(script, run_name="__main__")
        return 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    return 1


def answer(wire, news):
    """Serves a connection, and tells what was imported: script first, a line each."""
    stdin, cwd, script, *args = (take(wire, number(wire)) for _ in range(number(wire)))
    files = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]
    with open(files[0], "wb", closefd=False) as file:
        file.write(stdin)
    os.lseek(files[0], 0, os.SEEK_SET)
    for standard, file in enumerate(files):
        os.dup2(file, standard)
    os.chdir(cwd)
    before, script = set(sys.modules), os.fsdecode(script)
    status = run(script, [os.fsdecode(arg) for arg in args])
    sys.stdout.flush()
    sys.stderr.flush()
    said = b""
    for standard in (1, 2):
        length = os.fstat(standard).st_size
        said += struct.pack("<I", length) + os.pread(standard, length, 0)
    wire.sendall(struct.pack("<I", status & 0xFF) + said)
    wire.close()
    news.write("\n".join([script, *(name for name in sys.modules if name not in before)]))


def learn(told):
    """Imports what a run had imported, in its order."""
    script, *names = told.split("\n")
    sys.path[0] = os.path.dirname(script)
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException:
            # What a script made or put there itself is no module to be found.
            pass


def main():
    asked = socket.socket(socket.AF_UNIX)
    asked.bind("")
    asked.listen(64)
    print(asked.getsockname().hex(), flush=True)
    waiting = selectors.DefaultSelector()
    waiting.register(asked, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    told = {}
    while True:
        for key, _ in waiting.select():
            if key.fd == 0:
                return
            if key.fileobj is asked:
                wire, _ = asked.accept()
                news, tell = os.pipe()
                if os.fork() == 0:
                    try:
                        waiting.close()
                        asked.close()
                        with open(tell, "w", encoding="utf-8") as file:
                            answer(wire, file)
                    finally:
                        os._exit(0)
                wire.close()
                os.close(tell)
                told[news] = b""
                waiting.register(news, selectors.EVENT_READ)
            elif piece := os.read(key.fd, 1 << 16):
                told[key.fd] += piece
            else:
                waiting.unregister(key.fd)
                os.close(key.fd)
                os.wait()
                learn(told.pop(key.fd).decode())


main()
