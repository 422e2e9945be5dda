#!/usr/bin/env python3
"""check_events.py SCHEMA: reads the lines of `dray --json` on stdin and holds each against the schema.

Stricter than the schema: a field that the schema does not describe is a fault too, so that what is documented stays
complete. Prints how often each type came. Exit 0 good, 1 faults, 3 no judge here.
"""
import collections
import json
import sys

try:
    import jsonschema
except ImportError:
    print("no Python package jsonschema")
    sys.exit(3)


def close(node):
    """No object with described fields may have others."""
    if isinstance(node, dict):
        if "properties" in node:
            node["additionalProperties"] = False
        for value in node.values():
            close(value)
    elif isinstance(node, list):
        for value in node:
            close(value)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    close(schema)
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
        if f"of_{kind}" not in schema["$defs"]:
            print(f"line {number}: unknown type {kind!r}")
            faults += 1
            continue
        counts[kind] += 1
        one = {"$ref": f"#/$defs/of_{kind}", "$defs": schema["$defs"]}
        for error in jsonschema.Draft202012Validator(one).iter_errors(value):
            print(f"line {number} ({kind}): {'/'.join(map(str, error.absolute_path))}: {error.message[:300]}")
            faults += 1
    print(" ".join(f"{kind}={count}" for kind, count in sorted(counts.items())))
    sys.exit(1 if faults or not counts else 0)


main()
