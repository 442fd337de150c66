#!/usr/bin/env python3
"""Recounts a bill from what its customer can fetch alone, with its own key.

    KEY=... python3 customer.py http://127.0.0.1:8080 --month 2026-11

It fetches the list of statements, the statement of the month, the month's records and its usage, and where the
statement has late calls also the statement before and the records of earlier months. It compares the
statement with the digest in the list and the usage with the records; the rest is recount.py's. Exit code 1: with
the first difference. 2: it could not be recounted. Standard library only.
"""

import argparse
import hashlib
import http.client
import json
import os
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import recount


class Gate:
    """The customer's own endpoints."""

    def __init__(self, base, key):
        self.base, self.key = base.rstrip("/"), key

    def open(self, path):
        request = urllib.request.Request(self.base + path, headers={"X-Api-Key": self.key})
        # No proxy of the environment: the key is for the gate alone.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                return opener.open(request, timeout=60)
            except urllib.error.HTTPError as error:
                told = error.read().decode("utf-8", "replace")
                if error.code not in (429, 503):
                    raise recount.Unfit(f"{path}: {error.code}: {told}") from error
                time.sleep(int(error.headers.get("Retry-After", "1")))

    def get(self, path):
        with self.open(path) as answer:
            return answer.read()

    def records(self, month, file):
        """All records of a month, a line each. An export that breaks off goes on behind its last whole line."""
        after, count = "", 0
        while True:
            answer = self.open(f"/v1/records?month={month}&format=jsonl{after}")
            try:
                with answer:
                    for line in answer:
                        if not line.endswith(b"\n"):
                            raise http.client.IncompleteRead(line)
                        file.write(line)
                        count += 1
                        after = "&after=" + json.loads(line)["cursor"]
                return count
            except (http.client.IncompleteRead, ConnectionError):
                continue


def fetched(gate, month, directory):
    """The arguments of recount.py: files with what was fetched."""
    listed = {each["month"]: each for each in json.loads(gate.get("/v1/statements"))["statements"]}
    text = gate.get(f"/v1/statements/{month}")
    if month in listed:
        recount.agree("digest of the statement", listed[month]["sha256"], hashlib.sha256(text).hexdigest())
    statement = json.loads(text)
    path = directory / "statement.json"
    path.write_bytes(text)
    arguments = [str(path), str(directory / "records.jsonl")]
    with open(arguments[1], "wb") as file:
        count = gate.records(month, file)
    usage = json.loads(gate.get(f"/v1/usage?month={month}&by=day"))
    if not usage["provisional"]:
        recount.agree("calls of the month, as counted", usage["admitted"], count)
    if any(group["late"] for group in statement["groups"]):
        earlier = sorted(each for each in listed if each < month)
        if not earlier:
            raise recount.Unfit("late calls, and no statement before")
        before = directory / "before.json"
        before.write_bytes(gate.get(f"/v1/statements/{earlier[-1]}"))
        arguments += ["--before", str(before)]
        for each in earlier:
            records = directory / f"{each}.jsonl"
            with open(records, "wb") as file:
                gate.records(each, file)
            arguments += ["--earlier", str(records)]
    return arguments


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("gate", help="the address of the gate, such as http://127.0.0.1:8080")
    parser.add_argument("--month", required=True, help="as in 2026-11")
    asked = parser.parse_args()
    key = os.environ.get("KEY")
    if not key:
        print("cannot recount: put the API key into the variable KEY", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as directory:
        try:
            arguments = fetched(Gate(asked.gate, key), asked.month, Path(directory))
        except recount.Differs as difference:
            print(f"DIFFERS  {difference}")
            return 1
        except (recount.Unfit, OSError, KeyError, TypeError, ValueError) as trouble:
            print(f"cannot recount: {trouble!r}", file=sys.stderr)
            return 2
        return recount.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
