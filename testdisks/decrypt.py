#!/usr/bin/env python3
"""The decrypted volume of a drive as a plain image, by readers that are not ours.

decrypt.py IMAGE OUT (--record DRIVEID.xml | --recovery KEY | --password P | --bek FILE | --clear) [--with libbde|dissect]
OUT `-` prints the SHA-256 of the decrypted view instead of writing it.
"""

import argparse
import hashlib
import os
import sys

import volume

CHUNK = 4 << 20
# pybde does not keep its file alive.
OPEN = []


def open_libbde(image, offset, length, keys):
    import pybde

    part = volume.Part(image, offset, length)
    fve = pybde.volume()
    if "recovery" in keys:
        fve.set_recovery_password(keys["recovery"])
    if "password" in keys:
        fve.set_password(keys["password"])
    if "bek" in keys:
        fve.read_startup_key(keys["bek"])
    fve.open_file_object(part)
    if fve.is_locked():
        fve.unlock()
    if fve.is_locked():
        raise ValueError("libbde: the key does not open the volume")
    OPEN.append(part)
    return fve


def open_dissect(image, offset, length, keys):
    from dissect.fve import bde

    fve = bde.BDE(volume.Part(image, offset, length))
    if "recovery" in keys:
        fve.unlock_with_recovery_password(keys["recovery"])
    elif "password" in keys:
        fve.unlock_with_passphrase(keys["password"])
    elif "bek" in keys:
        fve.unlock_with_bek(open(keys["bek"], "rb"))
    else:
        fve.unlock_with_clear_key()
    if not fve.unlocked:
        raise ValueError("dissect.fve: the key does not open the volume")
    return fve.open()


READERS = {"libbde": open_libbde, "dissect": open_dissect}


def reader(which, image, keys):
    """A seekable file of the decrypted view, and its length."""
    offset, length, _ = volume.find(image)
    return READERS[which](image, offset, length, keys), length


def copy(image, fve, length, out):
    """Writes the view of `image` to `out`, zeros and what was never written as holes."""
    with open(out, "wb") as f:
        f.truncate(length)
        for at, end in volume.written(image, volume.find(image)[0], length):
            while at < end:
                fve.seek(at, os.SEEK_SET)
                data = fve.read(min(CHUNK, end - at))
                if not data:
                    raise ValueError(f"the view ends at {at} of {length}")
                if data.count(0) != len(data):
                    f.seek(at)
                    f.write(data)
                at += len(data)


def digest(fve, length):
    sha, at = hashlib.sha256(), 0
    while at < length:
        fve.seek(at, os.SEEK_SET)
        data = fve.read(min(CHUNK, length - at))
        if not data:
            raise ValueError(f"the view ends at {at} of {length}")
        sha.update(data)
        at += len(data)
    return sha.hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("image")
    parser.add_argument("out")
    parser.add_argument("--record")
    parser.add_argument("--recovery")
    parser.add_argument("--password")
    parser.add_argument("--bek")
    parser.add_argument("--clear", action="store_true")
    parser.add_argument("--with", dest="which", choices=READERS, default="libbde")
    args = parser.parse_args()
    keys = {k: getattr(args, k) for k in ("recovery", "password", "bek") if getattr(args, k)}
    if args.record:
        keys["recovery"] = volume.record(args.record)["BitLockerKey"]
    try:
        fve, length = reader(args.which, args.image, keys)
        if args.out == "-":
            print(digest(fve, length))
        else:
            copy(args.image, fve, length, args.out)
    except (OSError, ValueError) as e:
        sys.exit(f"decrypt: {e}")


if __name__ == "__main__":
    main()
