#!/usr/bin/env python3
"""Whether the crates of Cargo.lock keep the rules of deny.toml: licences, bans, sources, advisories.

    tests/deny.py [--advisories FOLDER]

Reads what cargo knows without a network. Advisories are those of a clone of https://github.com/rustsec/advisory-db;
without one they are skipped, and the last line says so. `cargo deny check` reads the same rules.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Crates:
    """What is built for the target of deny.toml, tests and build scripts included."""

    def __init__(self, root, target):
        def cargo(*words):
            return subprocess.run(
                [os.environ.get("CARGO", "cargo"), *words, "--locked", "--offline", f"--manifest-path={root}/Cargo.toml"],
                check=True, stdout=subprocess.PIPE, text=True).stdout

        # Metadata has also what no feature asks for: the tree says what is built.
        tree = cargo("tree", "--edges=normal,build,dev", f"--target={target}", "--prefix=none", "--format={p}")
        built = {(line.split()[0], line.split()[1][1:]) for line in tree.splitlines() if line}
        known = json.loads(cargo("metadata", "--format-version=1", f"--filter-platform={target}"))
        self.all = [it for it in known["packages"] if (it["name"], it["version"]) in built]
        members = set(known["workspace_members"])
        self.own = [it for it in self.all if it["id"] in members]
        self.foreign = [it for it in self.all if it["id"] not in members]
        self.chosen = {need["name"] for it in self.own for need in it["dependencies"]}


def is_allowed(expression, allowed):
    """Whether the choice that an SPDX expression gives has one that is allowed."""
    words = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def one():
        word = words.pop(0)
        if word == "(":
            inner = either()
            words.pop(0)
            return inner
        if words[:1] == ["WITH"]:
            word = f"{word} WITH {words[1]}"
            del words[:2]
        return word in allowed

    def both():
        value = one()
        while words[:1] == ["AND"]:
            words.pop(0)
            value &= one()
        return value

    def either():
        value = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            value |= both()
        return value

    return either()


def licences(crates, rules):
    for it in crates.all:
        if not it["license"]:
            yield f"licence: {it['name']} {it['version']} names none"
        elif not is_allowed(it["license"], rules["licenses"]["allow"]):
            yield f"licence: {it['name']} {it['version']} is {it['license']}, of which deny.toml allows too little"
    told = {word for it in crates.all for word in re.findall(r"[^\s()/]+", it["license"] or "")}
    for unused in sorted(set(rules["licenses"]["allow"]) - told):
        yield f"licence: deny.toml allows {unused}, which no crate has"


def bans(crates, rules):
    banned = {row["crate"]: row["reason"] for row in rules["bans"]["deny"]}
    for it in crates.all:
        if it["name"] in banned:
            yield f"ban: {it['name']} {it['version']}: {banned[it['name']]}"
    for it in crates.own:
        for need in it["dependencies"]:
            if need["req"] == "*":
                yield f"ban: {need['name']} is asked for in any version"


def sources(crates, rules):
    allowed = [f"registry+{url}" for url in rules["sources"]["allow-registry"]]
    for it in crates.foreign:
        if it["source"] not in allowed:
            yield f"source: {it['name']} {it['version']} comes from {it['source'] or it['manifest_path']}"


def sums(root):
    """Each crate of a registry has a checksum, by which cargo knows that it is the same as ever."""
    for it in tomllib.loads((root / "Cargo.lock").read_text())["package"]:
        if it.get("source") and not it.get("checksum"):
            yield f"source: {it['name']} {it['version']} has no checksum in Cargo.lock"


def twice(crates):
    versions = defaultdict(set)
    for it in crates.all:
        versions[it["name"]].add(it["version"])
    return [f"{name} ({', '.join(sorted(of))})" for name, of in sorted(versions.items()) if len(of) > 1]


def version(text):
    """A version by which others can be compared: one before the release comes first."""
    numbers, _, before = text.split("+")[0].partition("-")
    numbers = [int(part) for part in numbers.split(".")]
    return tuple(numbers + [0] * (3 - len(numbers))), not before, before


def matches(text, requirement):
    """Whether a version is within a requirement of an advisory, such as `^0.3.24` or `>= 0.4.2, < 0.5`."""
    for part in requirement.split(","):
        sign, wanted = re.fullmatch(r"\s*(\^|~|[<>]=?|=)?\s*(\S+)\s*", part).groups()
        if wanted == "*":
            continue
        at, bound = version(text), version(wanted)
        if sign in (None, "^", "~"):
            given = len(wanted.split("-")[0].split("."))
            fixed = 2 if sign == "~" else next((i + 1 for i, n in enumerate(bound[0]) if n), 3)
            fixed = min(fixed, given)
            if at < bound or at[0][:fixed] != bound[0][:fixed]:
                return False
        elif not {"<": at < bound, "<=": at <= bound, ">": at > bound, ">=": at >= bound, "=": at == bound}[sign]:
            return False
    return True


def advisories(crates, rules, folder):
    """Each advisory about a version that is built, save those that deny.toml ignores."""
    ignored = {it["id"] if isinstance(it, dict) else it for it in rules["advisories"]["ignore"]}
    unused = set(ignored)
    for it in crates.foreign:
        for page in sorted((folder / "crates" / it["name"]).glob("RUSTSEC-*.md")):
            said = tomllib.loads(re.match(r"```toml\n(.*?)```", page.read_text(), re.S).group(1))
            head, of = said["advisory"], said.get("versions", {})
            unaffected = of.get("patched", []) + of.get("unaffected", [])
            if head.get("withdrawn") or any(matches(it["version"], fit) for fit in unaffected):
                continue
            if head.get("informational") in ("unmaintained", "notice") and it["name"] not in crates.chosen:
                continue
            if head["id"] in ignored:
                unused.discard(head["id"])
                continue
            yield f"advisory: {it['name']} {it['version']}: {head['id']}, https://rustsec.org/advisories/{head['id']}"
    for left in sorted(unused):
        yield f"advisory: deny.toml ignores {left}, which concerns nothing"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--rules", type=Path, help="in place of the root's deny.toml")
    parser.add_argument("--advisories", type=Path, default=ROOT / "target/advisory-db")
    options = parser.parse_args()
    rules = tomllib.loads((options.rules or options.root / "deny.toml").read_text())
    crates = Crates(options.root, rules["graph"]["targets"][0])
    broken = [*licences(crates, rules), *bans(crates, rules), *sources(crates, rules), *sums(options.root)]
    has_advisories = (options.advisories / "crates").is_dir()
    if has_advisories:
        broken += advisories(crates, rules, options.advisories)
    for line in broken:
        print(line)
    if several := twice(crates):
        print(f"warning: {len(several)} crates in two versions: {', '.join(several)}")
    checked = f"{len(crates.all)} crates: licences, bans, sources" + (", advisories" if has_advisories else "")
    print(f"{checked}: {f'{len(broken)} broken' if broken else 'as deny.toml has them'}")
    if not has_advisories:
        print(f"skipped: advisories: {options.advisories} is no clone of https://github.com/rustsec/advisory-db")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
