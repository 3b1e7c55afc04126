"""Checks every line of a file against the OCSF 1.8.0 schema of its class.

Usage: check.py FILE
"""

import json
import pathlib
import sys

import jsonschema

here = pathlib.Path(__file__).parent
names = {3002: "authentication", 4002: "http_activity", 0: "base_event"}
checkers = {
    uid: jsonschema.Draft202012Validator(json.loads((here / f"ocsf-1.8.0-{name}.schema.json").read_text()))
    for uid, name in names.items()
}
wrong = 0
for number, line in enumerate(open(sys.argv[1]), 1):
    event = json.loads(line)
    for error in checkers[event["class_uid"]].iter_errors(event):
        wrong += 1
        print(f"line {number}: {error.json_path}: {error.message[:300]}")
sys.exit(bool(wrong))
