#!/usr/bin/env python3
"""check_events.py: reads the lines of `dray --json` on stdin and holds each against the schema.

Stricter than the schema: a field that the schema does not describe is a fault too, so that what is documented stays
complete. Prints how often each type came. Exit 0 good, 1 faults, 3 no judge here.
"""
import collections
import functools
import json
import sys

try:
    import jsonschema
except ImportError:
    print("no Python package jsonschema")
    sys.exit(3)
from events_schema import SCHEMA


@functools.cache
def judge(kind):
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/of_{kind}", "$defs": SCHEMA["$defs"]})


def main():
    counts = collections.Counter()
    faults = 0
    for number, line in enumerate(sys.stdin, 1):
        try:
            value = json.loads(line)
        except ValueError as error:
            print(f"line {number}: not JSON: {error}")
            faults += 1
            continue
        kind = value.get("type") if isinstance(value, dict) else None
        if f"of_{kind}" not in SCHEMA["$defs"]:
            print(f"line {number}: unknown type {kind!r}")
            faults += 1
            continue
        counts[kind] += 1
        for error in judge(kind).iter_errors(value):
            print(f"line {number} ({kind}): {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}")
            faults += 1
    print(" ".join(f"{kind}={count}" for kind, count in sorted(counts.items())))
    sys.exit(1 if faults or not counts else 0)


main()
