"""The schema of `dray --json`, as `check_events.py` uses it: checked once by whoever imports it."""

import json
from pathlib import Path

import jsonschema

PLACE = Path(__file__).resolve().parent.parent / "cli/docs/events.schema.json"


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


SCHEMA = json.loads(PLACE.read_text(encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(SCHEMA)
close(SCHEMA)
