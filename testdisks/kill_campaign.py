#!/usr/bin/env python3
"""Kills the real program at random moments on a loop device, and has it go on until the drive is whole.

kill_campaign.py PROGRAM [--kills N] [--seed S] [--megabytes M]. Needs root for the loop device.

For a first and for a second session: one run is stopped just after its first checkpoint; that state is kept. From it one
run goes on to the end undisturbed: the reference. Then, from the same state, runs are killed at random moments and go on,
and each drive must be the reference to the last byte. Exit code 0: all were.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time


def tree(root, seed, megabytes):
    rng = random.Random(seed)
    sizes = [rng.choice([0, 1, 511, 4096, 5000, 70_000]) for _ in range(200)]
    left = megabytes << 20
    while left > 0:
        sizes.append(min(left, rng.randrange(1 << 20, 12 << 20)))
        left -= sizes[-1]
    for i, size in enumerate(sizes):
        place = os.path.join(root, f"dir {i % 7}", "deep" if i % 3 else "")
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, f"file {i}.bin"), "wb") as f:
            f.write(rng.randbytes(size))


class Lab:
    def __init__(self, program, work, node, log):
        self.program, self.work, self.node, self.log = program, work, node, log

    def start(self, *words):
        # Small steps between checkpoints: a loop device is fast.
        words = [self.program, "prep-import", "--journal", "J.jrn", "--silent", "--yes", "drive", "--drive-id", "drive",
                 "--checkpoint-bytes", str(16 << 20), *words]
        return subprocess.Popen(words, cwd=self.work, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def whole(self, *words):
        code = self.start(*words).wait()
        if code != 0:
            sys.exit(f"FAIL  {' '.join(words)}: exit code {code}; see {self.log.name}")

    def is_completed(self, session):
        """Whether the journal calls the session completed: a kill may come between its last record and the exit."""
        words = [self.program, "prep-import", "--journal", "J.jrn", "--list-copy-sessions", "--json"]
        told = subprocess.run(words, cwd=self.work, capture_output=True, text=True, check=True).stdout
        sessions = [line for line in map(json.loads, told.splitlines()) if line.get("type") == "session"]
        states = {line["session"]: line["state"] for line in sessions}
        if session not in states:
            sys.exit(f"FAIL  {session} is not in the journal: {told!r}")
        return states[session] == "Completed"

    def device(self):
        digest = hashlib.sha256()
        with open(self.node, "rb") as f:
            while piece := f.read(4 << 20):
                digest.update(piece)
        return digest.hexdigest()

    def keep(self, to):
        shutil.rmtree(to, ignore_errors=True)
        os.mkdir(to)
        for name in os.listdir(self.work):
            if os.path.isfile(os.path.join(self.work, name)):
                shutil.copy2(os.path.join(self.work, name), to)
        subprocess.run(["dd", f"if={self.node}", f"of={to}/device", "bs=4M", "iflag=direct", "conv=sparse", "status=none"], check=True)

    def bring_back(self, kept):
        for name in os.listdir(self.work):
            if os.path.isfile(os.path.join(self.work, name)):
                os.remove(os.path.join(self.work, name))
        for name in os.listdir(kept):
            if name != "device":
                shutil.copy2(os.path.join(kept, name), self.work)
        subprocess.run(["dd", f"if={kept}/device", f"of={self.node}", "bs=4M", "oflag=direct", "status=none"], check=True)

    def until_begun(self, session, *words):
        run = self.start("--id", session, *words)
        checkpoint = os.path.join(self.work, f"J.jrn.{session}.drive.checkpoint")
        while run.poll() is None:
            if os.path.exists(checkpoint) and b"DriveState: Started" in open(os.path.join(self.work, "J.jrn"), "rb").read().split(session.encode())[-1]:
                run.kill()
                run.wait()
                return
        sys.exit(f"FAIL  {session}: it ended before it could be stopped, exit code {run.returncode}; see {self.log.name}")


def campaign(lab, session, rng, kills, kept, *words):
    lab.until_begun(session, *words)
    lab.keep(kept)
    go_on = ["--id", session, "--resume"]
    began = time.monotonic()
    lab.whole(*go_on)
    lasts = time.monotonic() - began
    reference = lab.device()
    hit = rounds = 0
    while hit < kills:
        rounds += 1
        lab.bring_back(kept)
        finished = False
        for _ in range(rng.randrange(1, 5)):
            run = lab.start(*go_on, "--engine", rng.choice(["auto", "sync"]))
            try:
                code = run.wait(timeout=rng.random() * lasts)
                finished = code == 0
                if not finished:
                    sys.exit(f"FAIL  {session}, round {rounds}: exit code {code}; see {lab.log.name}")
                break
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
                hit += 1
                if finished := lab.is_completed(session):
                    break
        if not finished:
            lab.whole(*go_on)
        if lab.device() != reference:
            sys.exit(f"FAIL  {session}, round {rounds}: the drive is not the one of the undisturbed run")
    print(f"PASS  {session}: {hit} kills in {rounds} rounds, an undisturbed run lasts {lasts:.1f} s; every drive the same", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--megabytes", type=int, default=150)
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kill-campaign-") as scratch:
        work, backing = os.path.join(scratch, "work"), os.path.join(scratch, "backing")
        os.mkdir(work)
        for name in ("one", "two"):
            tree(os.path.join(scratch, name), f"{args.seed} {name}", args.megabytes)
            with open(os.path.join(work, f"{name}.csv"), "w", encoding="utf-8") as f:
                f.write(f'BasePath,DstItemPathOrPrefix,ItemType\n"{scratch}/{name}/",{name}/,BlockBlob\n')
        with open(backing, "wb") as f:
            f.truncate((3 * args.megabytes + 120) << 20)
        made = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
        if made.returncode != 0:
            sys.exit(f"no loop device: {made.stderr.strip()}")
        node = made.stdout.strip()
        try:
            with open(os.path.join(work, "driveset.csv"), "w", encoding="utf-8") as f:
                f.write(f"DriveLetter,FormatOption,SilentOrPromptOnFormat,Encryption,ExistingBitLockerKey\n{node},Format,SilentMode,Encrypt,\n")
            with tempfile.NamedTemporaryFile("w", prefix="kill-campaign-", suffix=".log", delete=False) as log:
                lab = Lab(os.path.abspath(args.program), work, node, log)
                halves = [(args.kills + 1) // 2, args.kills // 2]
                campaign(lab, "session#1", rng, halves[0], os.path.join(scratch, "kept"), "--initial-driveset", "driveset.csv", "--dataset", "one.csv")
                campaign(lab, "session#2", rng, halves[1], os.path.join(scratch, "kept"), "--dataset", "two.csv")
            os.remove(log.name)
        finally:
            subprocess.run(["losetup", "--detach", node], check=False)


if __name__ == "__main__":
    main()
