#!/usr/bin/env python3
"""Proves what a subscriber received: every message against its JSON Schema, every station's results gap-free.

mosquitto_sub -h BROKER -q 1 -t '#' -v | scripts/check-messages.py [--from 1] reads lines `topic payload`; --from says which number the
results must begin with. Topics outside `.../ssds/...` and empty (clearing) payloads are passed over. Needs the Python package jsonschema
(Debian: python3-jsonschema), 4.0 or newer. Exit: 0 all good, 1 not, 64 usage, 69 jsonschema is missing.
"""

import argparse
import collections
import datetime
import json
import pathlib
import re
import sys

try:
    from jsonschema import Draft202012Validator, FormatChecker
except ImportError:
    print("check-messages: the Python package jsonschema, 4.0 or newer, is missing (Debian: python3-jsonschema)", file=sys.stderr)
    sys.exit(69)

SCHEMAS = pathlib.Path(__file__).resolve().parent.parent / "config" / "schema"
# Kind of message by the first level of its topic below `{prefix}/ssds/` (config/mqtt.md).
KINDS = {
    "result": "inspection",
    "status": "status",
    "state": "state",
    "alarm": "alarm",
    "stats": "stats",
    "cmd": "command",
    "rsp": "response",
}
RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def is_time(text):
    """RFC 3339, with any number of digits after the second."""
    if not isinstance(text, str):
        return True
    found = RFC3339.fullmatch(text)
    if not found:
        return False
    datetime.datetime.strptime(f"{found[1]} {found[2]}", "%Y-%m-%d %H:%M:%S")
    return True


def validators():
    """A validator for each kind."""
    formats = FormatChecker(formats=["regex"])
    formats.checks("date-time", raises=ValueError)(is_time)
    out = {}
    for kind in KINDS.values():
        schema = json.loads((SCHEMAS / f"{kind}.v1.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator.check_schema(schema)
        out[kind] = Draft202012Validator(schema, format_checker=formats)
    return out


class Station:
    """One station's results."""

    def __init__(self):
        self.ids, self.repeats = {}, 0
        self.verdicts, self.boots = collections.Counter(), collections.Counter()

    def add(self, message):
        """Takes one result in; the fault in it, or None."""
        seq, event = message["seq"], message["event_id"]
        if seq in self.ids:
            self.repeats += 1
            return None if self.ids[seq] == event else f"seq {seq} came with two event ids"
        self.ids[seq] = event
        self.verdicts[message["verdict"]] += 1
        self.boots[message["boot_id"]] += 1
        return None


def main():
    parser = argparse.ArgumentParser(prog="check-messages", description=__doc__.splitlines()[0])
    parser.add_argument("--from", dest="first", type=int, metavar="NUMBER", help="number that the results must begin with")
    wanted = parser.parse_args().first
    checks, kinds, stations, faults = validators(), collections.Counter(), collections.defaultdict(Station), []
    for line in sys.stdin:
        topic, _, payload = line.rstrip("\n").partition(" ")
        _, ours, suffix = topic.partition("ssds/")
        # mosquitto_sub -v writes an empty payload as "(null)".
        if not ours or payload in ("", "(null)"):
            continue
        kind = KINDS.get(suffix.split("/")[0])
        if kind is None:
            faults.append(f"{topic}: no such topic in the contract")
            continue
        kinds[kind] += 1
        try:
            message = json.loads(payload)
        except ValueError as e:
            faults.append(f"{topic}: not JSON: {e}")
            continue
        errors = [f"{topic}: {e.message} at {e.json_path}" for e in checks[kind].iter_errors(message)]
        faults += errors
        if kind == "inspection" and not errors:
            fault = stations[message["station"]].add(message)
            if fault:
                faults.append(f"{topic}: {fault}")
    for name, station in sorted(stations.items()):
        first, last = min(station.ids), max(station.ids)
        begin = first if wanted is None else wanted
        missing = sum(n not in station.ids for n in range(begin, last + 1))
        if missing or first < begin:
            faults.append(f"{name}: {missing} results missing from {begin} to {last}, the first is {first}")
        verdicts = ", ".join(f"{word} {n}" for word, n in sorted(station.verdicts.items()))
        print(f"{name}: {len(station.ids)} results, {first} to {last}, {missing} missing, {station.repeats} repeats, {verdicts}, over {len(station.boots)} boots")
    print("messages valid against their schemas: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))
    if not stations:
        faults.append("no result came")
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
