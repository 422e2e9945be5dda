"""Judges an NTFS volume with dissect.ntfs: every run against $Bitmap, every record against the index of its directory.

usage: judge.py IMAGE [--used] [--all]   (prints one JSON object; exit code 1 when something is wrong)

With --used the volume was written to by a driver: times and sizes in an index entry may then be stale, emptied blocks
may stay in the index's stream, and the log may be anything. With --all every problem is told, for comparison, and
nothing is expected of security ids.
"""
import io
import json
import struct
import sys

from dissect.ntfs import NTFS

ATTRIBUTE_LIST, DATA, INDEX_ROOT, INDEX_ALLOCATION, BITMAP = 0x20, 0x80, 0x90, 0xA0, 0xB0

# Metafiles whose entries in the root Windows gives a name and nothing else.
ONLY_NAMED = {1, 2, 3, 4, 6, 7, 8, 10}


def unprotect(raw, problems, what):
    """Undoes the update sequence; says so when it does not match."""
    raw = bytearray(raw)
    at, count = struct.unpack_from("<HH", raw, 4)
    mark = raw[at:at + 2]
    if count != len(raw) // 512 + 1:
        problems.append(f"{what}: {count} update sequence entries")
    for i in range(1, count):
        if raw[512 * i - 2:512 * i] != mark:
            problems.append(f"{what}: torn stride {i}")
        raw[512 * i - 2:512 * i] = raw[at + 2 * i:at + 2 * i + 2]
    return bytes(raw)


def entries(raw, at, end, problems, what):
    """(reference, key, subnode) of a list of entries; the last has no key."""
    while True:
        ref, length, key_len, flags = struct.unpack_from("<QHHH", raw, at)
        if length < 16 or length % 8 or at + length > end:
            problems.append(f"{what}: entry length {length}")
            return
        sub = struct.unpack_from("<Q", raw, at + length - 8)[0] if flags & 1 else None
        if flags & 2:
            if at + length != end:
                problems.append(f"{what}: bytes behind the end entry")
            yield ref, None, sub
            return
        yield ref, raw[at + 16:at + 16 + key_len], sub
        at += length


def main(path, fresh):
    problems = []
    with open(path, "rb") as fh:
        fs = NTFS(fh)
        cluster = fs.cluster_size
        upcase = struct.unpack("<65536H", fs.mft.get(10).open().read(131072))
        total = struct.unpack_from("<Q", fs.boot_sector.dumps(), 0x28)[0] * fs.sector_size // cluster
        used = bytearray((total + 7) // 8)
        record_size = fs._record_size
        mft = fs.mft.fh
        mft.seek(0, io.SEEK_END)
        records = mft.tell() // record_size

        def own(lcn, count, what):
            if lcn + count > total:
                problems.append(f"{what}: run outside")
                return
            for c in range(lcn, lcn + count):
                if used[c >> 3] >> (c & 7) & 1:
                    problems.append(f"{what}: cluster {c} is another's too")
                    return
                used[c >> 3] |= 1 << (c & 7)

        def read(runs, offset, length):
            out = b""
            for lcn, count in runs:
                if offset < count * cluster and length > 0:
                    part = min(length, count * cluster - offset)
                    fh.seek(lcn * cluster + offset)
                    out += fh.read(part)
                    offset, length = 0, length - part
                else:
                    offset -= min(offset, count * cluster)
            return out

        nodes, indexes, in_use = {}, {}, []
        for number in range(records):
            mft.seek(number * record_size)
            raw = mft.read(record_size)
            if raw[:4] != b"FILE":
                problems.append(f"record {number}: no FILE")
                continue
            raw = unprotect(raw, problems, f"record {number}")
            seq, links, first, flags = struct.unpack_from("<HHHH", raw, 0x10)
            bytes_used, allocated = struct.unpack_from("<II", raw, 0x18)
            next_id, = struct.unpack_from("<H", raw, 0x28)
            if struct.unpack_from("<I", raw, 0x2C)[0] != number or allocated != record_size:
                problems.append(f"record {number}: number or size")
            in_use.append(flags & 1)
            at, last, names, attrs = first, (0, -1), [], {}
            while True:
                kind, length = struct.unpack_from("<II", raw, at)
                if kind == 0xFFFFFFFF:
                    break
                nonres, name_len, name_at, aflags, aid = struct.unpack_from("<BBHHH", raw, at + 8)
                name = raw[at + name_at:at + name_at + 2 * name_len].decode("utf-16le")
                if (kind, name) <= last[:2] and kind != 0x30 and last[0] == kind and name <= last[1] or kind < last[0]:
                    problems.append(f"record {number}: attribute {kind:x} {name} out of order")
                last = (kind, name)
                if aid >= next_id or length % 8:
                    problems.append(f"record {number}: attribute {kind:x} id or length")
                if nonres:
                    low, high, pairs = struct.unpack_from("<QQH", raw, at + 0x10)
                    alloc, data, valid = struct.unpack_from("<QQQ", raw, at + 0x28)
                    p, lcn, runs = at + pairs, 0, []
                    while raw[p]:
                        nl, nd = raw[p] & 15, raw[p] >> 4
                        count = int.from_bytes(raw[p + 1:p + 1 + nl], "little", signed=True)
                        delta = int.from_bytes(raw[p + 1 + nl:p + 1 + nl + nd], "little", signed=True)
                        lcn += delta
                        runs.append((lcn if nd else None, count))
                        p += 1 + nl + nd
                    n = sum(count for _, count in runs)
                    if high != n - 1 or low or alloc != n * cluster or not valid <= data <= alloc or p >= at + length:
                        problems.append(f"record {number}: sizes of {kind:x} {name}")
                    if fresh and alloc - data >= cluster and kind != INDEX_ALLOCATION and name != "$Bad" and number != 0 and kind != BITMAP:
                        problems.append(f"record {number}: {kind:x} {name} has clusters to spare")
                    for start, count in runs:
                        if start is not None and flags & 1:
                            own(start, count, f"record {number}")
                    attrs[kind, name] = ("runs", runs, data)
                else:
                    size, value_at = struct.unpack_from("<IH", raw, at + 0x10)
                    value = raw[at + value_at:at + value_at + size]
                    attrs[kind, name] = ("value", value, size)
                    if kind == 0x30:
                        names.append(value)
                        if raw[at + 0x16] != 1:
                            problems.append(f"record {number}: name not indexed")
                at += length
            if bytes_used != at + 8:
                problems.append(f"record {number}: {bytes_used} bytes used, not {at + 8}")
            if flags & 1:
                if links != len(names):
                    problems.append(f"record {number}: {links} links, {len(names)} names")
                nodes[number] = (seq, names, flags, attrs)
                for (kind, name) in attrs:
                    if kind == INDEX_ROOT:
                        indexes[number, name] = attrs

        _, runs, size = nodes[0][3][BITMAP, ""]
        bits = read(runs, 0, size)
        marks = sum(bit << i for i, bit in enumerate(in_use)) if len(in_use) < 9999 else int(
            "".join(map(str, reversed(in_use))), 2)
        if int.from_bytes(bits, "little") != marks or size % 8:
            problems.append("$MFT's bitmap differs from its records")

        bitmap = fs.mft.get(6).open().read()
        mine = bytearray(used) + bytes(len(bitmap) - len(used))
        for bit in range(total, len(bitmap) * 8):
            mine[bit >> 3] |= 1 << (bit & 7)
        if bytes(mine) != bitmap:
            wrong = next(i for i in range(len(bitmap)) if mine[i] != bitmap[i])
            problems.append(f"$Bitmap differs at byte {wrong}: {bitmap[wrong]:02x}, runs say {mine[wrong]:02x}")

        def fold(key):
            units = struct.unpack_from(f"<{key[64]}H", key, 66)
            return [upcase[u] for u in units], list(units)

        def same(key, child):
            return key if fresh and child not in ONLY_NAMED else (key[:8], key[64:])

        listed = 0
        depth_max = 0
        vcn_unit = cluster if cluster <= 4096 else 512
        for (number, name), attrs in indexes.items():
            value = attrs[INDEX_ROOT, name][1]
            what = f"index {name} of {number}"
            kind, rule, size, cpb = struct.unpack_from("<IIIB", value)
            start, end, allocated, big = struct.unpack_from("<IIIB", value, 16)
            if size != 4096 or cpb != 4096 // vcn_unit or end != allocated or end + 16 != len(value):
                problems.append(f"{what}: root header")
            alloc = attrs.get((INDEX_ALLOCATION, name))
            bits = attrs.get((BITMAP, name))
            seen = set()
            keys = []
            if bool(big) != bool(alloc):
                problems.append(f"{what}: large flag")
                if not alloc:
                    continue

            def walk(raw, at, end, sub_wanted, depth):
                nonlocal depth_max
                depth_max = max(depth_max, depth)
                leaf_depths = set()
                for ref, key, sub in entries(raw, at, end, problems, what):
                    if (sub is not None) != sub_wanted:
                        problems.append(f"{what}: subnode flag")
                    if sub is not None:
                        offset = sub * vcn_unit
                        if offset in seen or offset % 4096 or offset >= alloc[2]:
                            problems.append(f"{what}: subnode {sub}")
                            return 0
                        seen.add(offset)
                        block = read(alloc[1], offset, 4096)
                        if block[:4] != b"INDX" or struct.unpack_from("<Q", block, 16)[0] != sub:
                            problems.append(f"{what}: block {sub}")
                            return 0
                        block = unprotect(block, problems, what)
                        s, e, a, inner = struct.unpack_from("<IIIB", block, 0x18)
                        if a != 0xFE8 or e > a or s != 0x28:
                            problems.append(f"{what}: header of block {sub}")
                        if e - s <= 16 and not inner or e - s <= 24 and inner:
                            problems.append(f"{what}: block {sub} is empty")
                        leaf_depths.add(walk(block, 0x18 + s, 0x18 + e, bool(inner), depth + 1))
                    if key is not None:
                        keys.append((ref, key))
                if len(leaf_depths) > 1:
                    problems.append(f"{what}: leaves at several depths")
                return 1 + (leaf_depths.pop() if leaf_depths else 0)

            walk(value, 16 + start, 16 + end, bool(big), 0)
            if alloc:
                if fresh and len(seen) * 4096 != alloc[2]:
                    problems.append(f"{what}: {len(seen)} of {alloc[2] // 4096} blocks reachable")
                if bits is None:
                    # ntfs-3g keeps it elsewhere when it spreads a record over several; what is fresh never is spread.
                    if fresh or (ATTRIBUTE_LIST, "") not in attrs:
                        problems.append(f"{what}: no bitmap")
                else:
                    raw_bits = bits[1] if bits[0] == "value" else read(bits[1], 0, bits[2])
                    marks = sum(1 << offset // 4096 for offset in seen)
                    if int.from_bytes(raw_bits, "little") != marks or len(raw_bits) % 8:
                        problems.append(f"{what}: bitmap")
            if name == "$I30":
                order = [fold(key) for _, key in keys]
                if any(a >= b for a, b in zip(order, order[1:])):
                    problems.append(f"{what}: not sorted")
                for ref, key in keys:
                    child, seq = ref & (1 << 48) - 1, ref >> 48
                    own_names = nodes[child][1] if child in nodes and nodes[child][0] == seq else []
                    if same(key, child) not in [same(name, child) for name in own_names]:
                        problems.append(f"{what}: entry of {child} and its record disagree")
                        continue
                    if fresh and child in ONLY_NAMED and any(key[8:64]):
                        problems.append(f"{what}: entry of {child} has more than a name, unlike Windows'")
                    parent = struct.unpack_from("<Q", key)[0]
                    if parent != number | nodes[number][0] << 48:
                        problems.append(f"{what}: entry of {child} has another parent")
                    listed += 1
        named = sum(len(names) for _, names, _, _ in nodes.values())
        if named != listed:
            problems.append(f"{named} names in records, {listed} in indexes")
        # The ids that we write; other volumes have others.
        for security_id in [0x100, 0x101, 0x102, 0x103] if "--all" not in sys.argv else []:
            if fs.secure.lookup(security_id).owner is None:
                problems.append(f"security id {security_id:x} has no owner")
        files = [e for e in nodes if e >= 64]
    print(json.dumps({"problems": problems if "--all" in sys.argv else problems[:20], "records": len(files), "listed": listed, "depth": depth_max}))
    return 1 if problems else 0


sys.exit(main(sys.argv[1], "--used" not in sys.argv))
