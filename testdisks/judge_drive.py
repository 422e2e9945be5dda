#!/usr/bin/env python3
"""All judges on one finished drive.

judge_drive.py IMAGE RECORD [--dataset CSV] [--partial] [--plain FILE] [--without JUDGE]…
RECORD is the drive record <DriveId>.xml. With the dataset CSV every file is compared with its source; `--partial` when
the dataset was spread over several drives. `--plain` keeps the decrypted volume there, `--without` leaves a slow judge out. Exit code 0: no judge said no.
"""

import argparse
import contextlib
import csv
import os
import sys
import tempfile
import time

import check_manifest
import decrypt
import judges
import volume


def sources(dataset):
    """Blob path → source path, as the documents say rows map; regular files only."""
    found = {}
    with open(dataset, encoding="utf-8-sig", newline="") as f:
        lines = [line.rstrip().removesuffix("|").rstrip() for line in f if line.strip()]
    rows = csv.reader(lines, skipinitialspace=True)
    header = [name.strip().lower() for name in next(rows)]
    for row in rows:
        fields = dict(zip(header, (cell.strip() for cell in row)))
        base = fields["basepath"]
        prefix = fields.get("dstblobpathorprefix") or fields["dstitempathorprefix"]
        if not base.endswith(("/", "\\")):
            found[prefix] = base
            continue
        base = base.rstrip("/\\") + "/"
        for folder, dirs, files in os.walk(base):
            if prefix == "$root/":
                dirs.clear()
            for name in files:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    found[prefix + os.path.relpath(path, base)] = path
    return found


def files_on_volume(plain, record, dataset, partial, without):
    """Manifest, contents and listings, in one mount."""
    want = sources(dataset) if dataset else None
    fields = volume.record(record)
    manifest_path = fields.get("ManifestFile", "\\DriveManifest.xml")
    check = None
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(judges.mounted(plain))
        except (judges.Skip, judges.Fail) as e:
            yield "ntfs-3g mount", ("SKIP" if isinstance(e, judges.Skip) else "FAIL", str(e))
            return
        yield "ntfs-3g mount", ("PASS", "clean, read-only")

        def manifest():
            nonlocal check
            check = check_manifest.Check(root)
            check.manifest(manifest_path, fields.get("ManifestHash", ""), fields["DriveId"])
            if not fields.get("ManifestHash"):
                check.complain("record", "no ManifestHash")
            if want is not None and not partial:
                check.expect(want)
            if check.bad:
                raise judges.Fail(f"{len(check.bad)} complaints: " + "; ".join(check.bad[:5]))
            return f"{len(check.blobs)} blobs, every block hashed again"

        yield "manifest", judges.ask(manifest)

        def contents():
            if want is None:
                raise judges.Skip("no dataset given")
            strangers = [blob for blob in check.blobs if blob not in want]
            if strangers:
                raise judges.Fail(f"{len(strangers)} blobs have no source: {strangers[:3]}")
            pairs = [(path or "", want[blob]) for blob, path in check.blobs.items()]
            return judges.compare_tree(root, pairs, True, check.extras)

        yield "files against sources", judges.ask(contents)

    def listing():
        paths, deleted = judges.fls_paths(plain)
        if deleted:
            raise judges.Fail(f"{len(deleted)} deleted or orphaned entries, the first {deleted[0]!r}")
        mine = {path[1:].replace("\\", "/") for path in check.blobs.values() if path}
        missing = sorted(mine - paths)
        allowed = {extra[1:].replace("\\", "/") for extra in [*check.extras, manifest_path.upper()]}
        strange = sorted(p for p in paths - mine if p.upper() not in allowed and not p.startswith("System Volume Information/"))
        if missing or strange:
            raise judges.Fail(f"{len(missing)} missing {missing[:3]}, {len(strange)} strange {strange[:3]}")
        return f"{len(paths)} files, the manifest's and no others"

    if "fls" not in without:
        yield "fls", judges.ask(listing)


def all_judges(args, key, plain):
    ask = judges.ask
    yield "sgdisk -v", ask(judges.sgdisk, args.image)
    yield "sfdisk --verify", ask(judges.sfdisk, args.image)
    yield "cryptsetup", ask(judges.cryptsetup, args.image, key)
    yield "cryptsetup, strict", ask(judges.cryptsetup, args.image, key, "newer")
    yield "bdeinfo", ask(judges.bdeinfo, args.image, key)
    yield "libbde", ask(judges.libbde, args.image, key)

    def decrypted(which):
        try:
            decrypt.copy(args.image, *decrypt.reader(which, args.image, {"recovery": key}), plain)
        except ImportError:
            raise judges.Skip(f"{which} is not installed") from None
        return f"{os.stat(plain).st_blocks * 512} bytes that are not zero"

    verdict = ask(decrypted, "libbde")
    if verdict[0] == "SKIP":
        verdict = ask(decrypted, "dissect")
    yield "decrypted", verdict
    if verdict[0] != "PASS":
        yield "everything inside", (verdict[0], "no decrypted volume")
        return
    yield "dissect.fve", ask(judges.dissect, args.image, key, plain)
    yield "ntfsfix -n", ask(judges.ntfsfix, plain)
    yield "ntfsinfo", ask(judges.ntfsinfo, plain)
    if "checkdisk" not in args.without:
        yield "checkdisk", ask(judges.checkdisk, plain)
    yield "PhantomTrace", ask(judges.phantom_trace, plain)
    yield "fsstat", ask(judges.fsstat, plain)
    yield from files_on_volume(plain, args.record, args.dataset, args.partial, args.without)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image")
    parser.add_argument("record")
    parser.add_argument("--dataset")
    parser.add_argument("--partial", action="store_true")
    parser.add_argument("--plain")
    parser.add_argument("--without", action="append", default=[])
    args = parser.parse_args()
    try:
        key = volume.record(args.record)["BitLockerKey"]
    except (OSError, ValueError) as e:
        sys.exit(f"FAIL   drive record: {e}")
    failed = skipped = passed = 0
    with tempfile.TemporaryDirectory(prefix="judge-drive-") as scratch:
        began = time.monotonic()
        for name, (verdict, why) in all_judges(args, key, args.plain or os.path.join(scratch, "plain.img")):
            print(f"{verdict}  {name:22} {time.monotonic() - began:7.1f} s  {why}", flush=True)
            if verdict == "SKIP":
                print(f"SKIPPED judge: {name}: {why}", file=sys.stderr)
            began = time.monotonic()
            failed, skipped, passed = failed + (verdict == "FAIL"), skipped + (verdict == "SKIP"), passed + (verdict == "PASS")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
