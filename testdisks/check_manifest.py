#!/usr/bin/env python3
"""Checks a drive manifest against the files beside it, without a line of dray.

check_manifest.py ROOT [MANIFEST] [--hash HEX] [--drive-id ID] [--expect FILE]
ROOT is where the decrypted volume is mounted, MANIFEST its path on the drive (default \\DriveManifest.xml),
FILE lists the blob paths that must be in it, one a line. Prints every complaint; exits 1 if there is one.
"""

import argparse
import base64
import hashlib
import os
import re
import sys
from xml.etree import ElementTree

MAX = 4 << 20
# A block of the account's own, on an export: the published grammar is older than blocks of more than 4 MiB.
OWN_BLOCK_MAX = 100 << 20
PAGE = 4096
BLOCKS_MAX = 50_000
ORDER = ["BlobPath", "FilePath", "ClientData", "Snapshot", "Length", "ImportDisposition", "PageRangeList", "BlockList",
         "MetadataPath", "PropertiesPath"]  # fmt: skip


def folded(path):
    """Upper case as NTFS knows it: unit by unit, so nothing outside the BMP and nothing that grows."""
    return "".join(u if len(u := c.upper()) == 1 and ord(c) < 0x10000 and c not in "\u0131\u017f" else c for c in path)


class Check:
    def __init__(self, root):
        self.root = root
        self.bad = []
        self.files = {}
        self.blobs = {}
        self.extras = set()
        self.content_md5s = 0

    def complain(self, where, what):
        self.bad.append(f"{where}: {what}")

    def local(self, where, path):
        if not path or not path.startswith("\\") or "/" in path or {"", ".."} & set(path[1:].split("\\")):
            self.complain(where, f"path is not drive-relative: {path!r}")
            return None
        return os.path.join(self.root, *path[1:].split("\\"))

    def md5(self, where, data, given):
        want = hashlib.md5(data).hexdigest().upper()
        if given is None or not re.fullmatch("[0-9A-F]{32}", given):
            self.complain(where, f"hash is not 32 upper-case digits: {given!r}")
        elif given != want:
            self.complain(where, f"hash is {given}, the file says {want}")

    def ranges(self, where, items, longest=MAX):
        """Offset, length, element; ordered and without overlap."""
        out, end = [], 0
        for item in items:
            try:
                offset, length = int(item.get("Offset")), int(item.get("Length"))
            except (TypeError, ValueError):
                self.complain(where, f"bad numbers in {item.attrib}")
                continue
            if offset < end:
                self.complain(where, f"{item.tag} at {offset} overlaps or goes back")
            if not 0 < length <= longest and not (length == 0 and item.tag == "Block"):
                self.complain(where, f"{item.tag} at {offset} has length {length}")
            end = offset + length
            out.append((offset, length, item))
        return out

    def blob(self, blob):
        path, where = blob.findtext("BlobPath"), blob.findtext("BlobPath") or "a blob without BlobPath"
        children = [child.tag for child in blob]
        if [tag for tag in ORDER if tag in children] != children:
            self.complain(where, f"children out of order or unknown: {children}")
        if (snapshot := blob.findtext("Snapshot")) is not None:
            path = f"{path}?snapshot={snapshot}"
        if path in self.blobs:
            self.complain(where, "listed twice")
        file_path = blob.findtext("FilePath")
        self.blobs[path] = file_path
        other = self.files.setdefault(folded(file_path or ""), path)
        if other != path:
            self.complain(where, f"shares its file with {other}")
        local = self.local(where, file_path)
        try:
            length = int(blob.findtext("Length"))
            size = os.stat(local).st_size
        except (TypeError, ValueError, OSError) as e:
            return self.complain(where, f"no length or no file: {e}")
        if size != length:
            return self.complain(where, f"Length {length}, the file has {size}")
        if blob.findtext("ImportDisposition", "rename") not in ("rename", "no-overwrite", "overwrite"):
            self.complain(where, "unknown ImportDisposition")
        blocks, pages = blob.find("BlockList"), blob.find("PageRangeList")
        if (blocks is None) == (pages is None):
            return self.complain(where, "needs either BlockList or PageRangeList")
        with open(local, "rb") as f:
            if blocks is not None:
                is_export = blob.find("ImportDisposition") is None
                self.block_list(where, f, length, list(blocks), OWN_BLOCK_MAX if is_export else MAX)
            else:
                self.page_ranges(where, f, length, list(pages))
            self.content_md5(where, f, blob.findtext("PropertiesPath"))

    def content_md5(self, where, f, properties):
        """What a properties file of the blob's own says of it as a whole."""
        local = properties and self.local(where, properties)
        if not local or not os.path.exists(local):
            return
        try:
            said = ElementTree.parse(local).getroot().findtext("Content-MD5")
        except ElementTree.ParseError:
            return  # `side_files` tells it.
        if said is not None:
            f.seek(0)
            md5 = base64.b64encode(hashlib.file_digest(f, "md5").digest()).decode()
            self.content_md5s += 1
            if said != md5:
                self.complain(where, f"Content-MD5 is {said}, the file says {md5}")

    def block_list(self, where, f, length, items, longest):
        if len(items) > BLOCKS_MAX:
            self.complain(where, f"{len(items)} blocks")
        if len({item.get("Id") is None for item in items}) > 1 or length > 64 << 20 and any(item.get("Id") is None for item in items):
            self.complain(where, "block ids are missing")
        if len({len(item.get("Id") or "") for item in items}) > 1:
            self.complain(where, "block ids differ in length")
        end = 0
        for offset, size, item in self.ranges(where, items, longest):
            if item.tag != "Block" or offset != end:
                self.complain(where, f"{item.tag} at {offset}, expected a Block at {end}")
            end = offset + size
            f.seek(offset)
            data = f.read(size)
            self.md5(f"{where} block at {offset}", data, item.get("Hash"))
            if (id := item.get("Id")) is not None:
                if id.startswith("MD5/") and id[4:] != base64.b64encode(hashlib.md5(data).digest()).decode():
                    self.complain(where, f"block id {id} is not that of its bytes")
                try:
                    base64.b64decode(id, validate=True)
                except ValueError:
                    self.complain(where, f"block id {id} is no base64")
        if end != length:
            self.complain(where, f"blocks end at {end} of {length}")

    def page_ranges(self, where, f, length, items):
        if length % 512:
            self.complain(where, f"page blob of {length} bytes")
        end = 0
        for offset, size, item in [*self.ranges(where, items), (length, 0, None)]:
            while end < offset:
                f.seek(end)
                gap = f.read(min(MAX, offset - end))
                if not gap or gap.count(0) != len(gap):
                    self.complain(where, f"bytes that are not zero between the page ranges, from {end}")
                    break
                end += len(gap)
            if item is None:
                break
            if item.tag != "PageRange" or offset % 512 or size % 512 or offset + size > length:
                self.complain(where, f"bad {item.tag} {offset}+{size}")
            f.seek(offset)
            data = f.read(size)
            self.md5(f"{where} page range at {offset}", data, item.get("Hash"))
            for at in range(-offset % PAGE, size - PAGE + 1, PAGE):
                if not any(data[at : at + PAGE]):
                    self.complain(where, f"page range {offset}+{size} holds a page of zeros at {offset + at}")
                    break
            end = offset + size

    def side_files(self, element, where):
        for tag, root in (("MetadataPath", "Metadata"), ("PropertiesPath", "Properties")):
            for side in element.findall(tag):
                local = self.local(where, side.text)
                try:
                    data = open(local, "rb").read()
                    self.extras.add(side.text.upper())
                    self.md5(f"{where} {side.text}", data, side.get("Hash"))
                    if ElementTree.fromstring(data).tag != root:
                        self.complain(where, f"{side.text} is no <{root}>")
                except (TypeError, OSError, ElementTree.ParseError) as e:
                    self.complain(where, f"{tag}: {e}")

    def manifest(self, path, hash=None, drive_id=None):
        local = self.local("manifest", path)
        md5 = hashlib.md5()
        try:
            with open(local, "rb") as f:
                while chunk := f.read(MAX):
                    md5.update(chunk)
            if hash and md5.hexdigest().upper() != hash:
                self.complain("manifest", f"its MD5 is {md5.hexdigest().upper()}, the record says {hash}")
            events = ElementTree.iterparse(local, events=("start", "end"))
            stack = []
            for event, element in events:
                if event == "start":
                    stack.append(element)
                    if len(stack) == 1 and (element.tag != "DriveManifest" or not re.fullmatch(r"\d{4}-\d\d-\d\d", element.get("Version", ""))):
                        self.complain("manifest", f"root is {element.tag} {element.attrib}")
                    if element.tag == "BlobList" and (len(stack) != 3 or stack[1].find("DriveId") is None):
                        self.complain("manifest", "BlobList out of place or before DriveId")
                    continue
                stack.pop()
                if element.tag == "DriveId" and drive_id is not None and element.text != drive_id:
                    self.complain("manifest", f"DriveId {element.text}, the record says {drive_id}")
                if element.tag in ("StorageAccountKey", "ContainerSas"):
                    self.complain("manifest", "a storage key lies on the drive")
                if element.tag == "Blob":
                    self.blob(element)
                    self.side_files(element, element.findtext("BlobPath"))
                    stack[-1].remove(element)
                if element.tag == "BlobList":
                    self.side_files(element, f"list {element.get('Id')}")
        except (TypeError, OSError, ElementTree.ParseError) as e:
            self.complain("manifest", str(e))

    def expect(self, blobs):
        for blob in sorted(set(blobs) - self.blobs.keys())[:20]:
            self.complain(blob, "expected, but not in the manifest")
        for blob in sorted(self.blobs.keys() - set(blobs), key=str)[:20]:
            self.complain(blob, "in the manifest, but not expected")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("manifest", nargs="?", default="\\DriveManifest.xml")
    parser.add_argument("--hash")
    parser.add_argument("--drive-id")
    parser.add_argument("--expect")
    args = parser.parse_args()
    check = Check(args.root)
    check.manifest(args.manifest, args.hash, args.drive_id)
    if args.expect:
        check.expect(open(args.expect, encoding="utf-8").read().splitlines())
    print(f"{len(check.blobs)} blobs, {check.content_md5s} with Content-MD5, {len(check.bad)} complaints")
    for line in check.bad[:50]:
        print(f"  {line}")
    sys.exit(1 if check.bad else 0)


if __name__ == "__main__":
    main()
