#!/usr/bin/env python3
"""Makes what is shipped of a built tollgate: a tarball, a Debian package, the list of the crates in it (CycloneDX) and
the sums of all. `make dist` runs it. The same binary and the same SOURCE_DATE_EPOCH (the time of the commit, when it is not
set) give the same bytes.

    deploy/dist.py --binary target/release/tollgate --out target/dist
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = "x86_64-unknown-linux-gnu"
# ELF, 64 bit, for x86-64: the bytes 18 and 19 are the machine.
AMD64 = (b"\x7fELF\x02", b"\x3e\x00")
CONTROL = """Package: tollgate
Version: {version}
Architecture: amd64
Maintainer: {maintainer}
Installed-Size: {kib}
Depends: libc6 (>= {glibc}), libgcc-s1, systemd
Recommends: ca-certificates
Section: net
Priority: optional
Description: gate in front of an API that is sold by the call or by the QPS
 It knows each customer by a verified credential, admits what the customer
 has bought, refuses the rest at once, and counts every admitted call exactly
 once in a durable ledger, from which the month's statement is computed.
"""
MAINTAINER = "the maintainers of tollgate <tollgate@localhost>"
# The service is not started by the installation: it has nobody to serve before the files are written.
POSTINST = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers tollgate.conf
    # Once, and never again: an upgrade that brought other prices would put them in force.
    for file in catalog.yaml accounts.yaml; do
        [ -e "/etc/tollgate/$file" ] || cp "/usr/share/tollgate/first/$file" /etc/tollgate/
    done
    systemd-tmpfiles --create tollgate.conf
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
"""
PRERM = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop tollgate.socket tollgate.service || true
fi
"""
POSTRM = """#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
"""
# Who may read what: the service has a user of its own, and the group.
KEPT = """z /etc/tollgate/accounts.yaml 0640 root tollgate-keys -
d /etc/tollgate/secrets 2750 root tollgate-keys -
"""
NO_ACCOUNTS = """# Who bought what. The package has no account: /usr/share/doc/tollgate/examples/accounts.yaml shows what one is, and
# `tollgate key new` makes credentials. What is written here takes effect by itself.
# yaml-language-server: $schema=/usr/share/tollgate/schema/accounts.json
accounts: {}
"""


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def fail(why):
    sys.exit(f"dist: {why}")


def cargo(*arguments):
    return run(os.environ.get("CARGO", "cargo"), *arguments)


def instant():
    """SOURCE_DATE_EPOCH, or the time of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if not given:
        try:
            given = run("git", "log", "-1", "--format=%ct")
        except (OSError, subprocess.CalledProcessError):
            fail("no repository says when this was written: set SOURCE_DATE_EPOCH")
    return int(given)


def crates():
    """The crates that are linked into the binary, by (name, version), with what cargo knows of them."""
    tree = cargo("tree", "--locked", "--edges=normal", f"--target={TARGET}", "--prefix=none", "--format={p}")
    linked = {(line.split()[0], line.split()[1][1:]) for line in tree.splitlines() if line}
    known = json.loads(cargo("metadata", "--locked", f"--filter-platform={TARGET}", "--format-version=1"))
    packages = {(it["name"], it["version"]): it for it in known["packages"]}
    resolved = {it["id"]: it for it in known["resolve"]["nodes"]}
    return sorted(linked), packages, resolved


def sbom(version, at):
    linked, packages, resolved = crates()
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    sums = {(it["name"], it["version"]): it.get("checksum") for it in lock["package"]}
    # A proc macro runs in the compiler, and what it needs does too.
    is_macro = lambda it: any("proc-macro" in target["kind"] for target in it["targets"])
    purl = lambda name, of: f"pkg:cargo/{name}@{of}"
    by_id = {packages[key]["id"]: key for key in linked}
    components, graph = [], []
    for name, of in linked:
        package = packages[name, of]
        needs = [by_id[it["pkg"]] for it in resolved[package["id"]]["deps"]
                 if it["pkg"] in by_id and any(kind["kind"] is None for kind in it["dep_kinds"])]
        graph.append({"ref": purl(name, of), "dependsOn": sorted(purl(*key) for key in needs)})
        if name == "tollgate":
            continue
        component = {"type": "library", "bom-ref": purl(name, of), "name": name, "version": of, "purl": purl(name, of)}
        if package["license"]:
            component["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
        if sums[name, of]:
            component["hashes"] = [{"alg": "SHA-256", "content": sums[name, of]}]
        component["scope"] = "excluded" if is_macro(package) else "required"
        components.append(component)
    own = {"type": "application", "bom-ref": purl("tollgate", version), "name": "tollgate", "version": version,
           "purl": purl("tollgate", version), "licenses": [{"expression": packages["tollgate", version]["license"]}]}
    listed = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
              "metadata": {"timestamp": datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"), "component": own},
              "components": components, "dependencies": graph}
    # From what it says, so that two makings have the same.
    listed["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(listed, sort_keys=True)).urn
    return json.dumps(listed, indent=1, sort_keys=True) + "\n"


def glibc(binary):
    """The newest version of the C library that the binary asks for."""
    named = re.findall(rb"GLIBC_2\.(\d+)", binary)
    return f"2.{max(int(minor) for minor in named)}"


class Tree:
    """A directory in which every file has the mode and the time that it is to have."""

    def __init__(self, path, at):
        self.path, self.at = path, at

    def put(self, name, content, mode=0o644):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)

    def copy(self, name, source, mode=0o644):
        self.put(name, (ROOT / source).read_bytes(), mode)

    def settle(self):
        for path in sorted(self.path.rglob("*"), reverse=True):
            if path.is_dir():
                path.chmod(0o755)
            os.utime(path, (self.at, self.at))
        self.path.chmod(0o755)
        os.utime(self.path, (self.at, self.at))


def packed(content):
    return gzip.compress(content.encode() if isinstance(content, str) else content, mtime=0)


def written_by(binary):
    """What the program writes of itself: man pages by name, and the completions of each shell."""
    with tempfile.TemporaryDirectory() as pages:
        run(binary, "man", pages)
        man = {path.name: path.read_bytes() for path in sorted(Path(pages).iterdir())}
    return man, {shell: run(binary, "completions", shell) for shell in ("bash", "zsh", "fish")}


def kept(*folders):
    """The files of these folders that the repository has: nothing else is shipped, and no link is followed."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", *folders], capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    if listed.returncode or not names:
        fail("what is shipped is what the repository has: run this in a clone, where git can list it")
    paths = [ROOT / name for name in sorted(names)]
    for path in paths:
        if path.is_symlink():
            fail(f"{path} is a link, and what it points to is not shipped: put the file in its place")
    return [path for path in paths if "secrets" not in path.parts]


def tarball(out, name, parts, level):
    version, at, binary, listed, man, completions = parts
    with tempfile.TemporaryDirectory() as scratch:
        tree = Tree(Path(scratch) / name, at)
        tree.put("tollgate", binary, 0o755)
        for page in ("LICENSE", "CHANGELOG.md", "README.md", "README.zh-CN.md"):
            tree.copy(page, page)
        for path in kept("config", "deploy"):
            tree.copy(path.relative_to(ROOT), path, 0o755 if os.access(path, os.X_OK) else 0o644)
        tree.put("sbom.cdx.json", listed)
        for page, text in man.items():
            tree.put(f"man/{page}", text)
        for shell, text in completions.items():
            tree.put(f"completions/tollgate.{shell}", text)
        tree.settle()
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for path in [tree.path, *sorted(tree.path.rglob("*"))]:
                entry = archive.gettarinfo(path, path.relative_to(scratch).as_posix())
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                with path.open("rb") if entry.isreg() else io.BytesIO() as content:
                    archive.addfile(entry, content if entry.isreg() else None)
        (out / f"{name}.tar.gz").write_bytes(gzip.compress(plain.getvalue(), level, mtime=0))


def debian(out, parts, level):
    version, at, binary, listed, man, completions = parts
    with tempfile.TemporaryDirectory() as scratch:
        tree = Tree(Path(scratch) / "tollgate", at)
        tree.put("usr/bin/tollgate", binary, 0o755)
        for unit in ("tollgate.service", "tollgate.socket"):
            text = (ROOT / "deploy" / unit).read_text(encoding="utf-8")
            tree.put(f"usr/lib/systemd/system/{unit}", text.replace("/usr/local/bin/tollgate", "/usr/bin/tollgate"))
        tree.put("usr/lib/sysusers.d/tollgate.conf", "# Who may read key files.\ng tollgate-keys -\n")
        tree.put("usr/lib/tmpfiles.d/tollgate.conf", KEPT)
        here = lambda text: text.replace("$schema=schema/", "$schema=/usr/share/tollgate/schema/")
        settings = here((ROOT / "config/tollgate.yaml").read_text(encoding="utf-8"))
        tree.put("etc/tollgate/tollgate.yaml", settings.replace("path: ../var/ledger.db", "path: /var/lib/tollgate/ledger.db"))
        tree.put("usr/share/tollgate/first/catalog.yaml", here((ROOT / "config/catalog.yaml").read_text(encoding="utf-8")))
        tree.put("usr/share/tollgate/first/accounts.yaml", NO_ACCOUNTS)
        for path in sorted((ROOT / "config/schema").iterdir()):
            tree.copy(f"usr/share/tollgate/schema/{path.name}", path)
        doc = "usr/share/doc/tollgate"
        tree.copy(f"{doc}/examples/accounts.yaml", "config/accounts.yaml")
        for page in sorted((ROOT / "deploy").glob("*.md")):
            tree.copy(f"{doc}/{page.name}", page)
        for rules in ("tollgate.rules.yml", "prometheus.yml", "alertmanager.yml"):
            tree.copy(f"{doc}/examples/{rules}", f"deploy/{rules}")
        tree.put(f"{doc}/copyright", "License: Apache-2.0\n On Debian systems: /usr/share/common-licenses/Apache-2.0.\n")
        tree.put(f"{doc}/changelog.gz", packed((ROOT / "CHANGELOG.md").read_bytes()))
        tree.put(f"{doc}/sbom.cdx.json.gz", packed(listed))
        for page, text in man.items():
            tree.put(f"usr/share/man/man1/{page}.gz", packed(text))
        for shell, place in (("bash", "bash-completion/completions/tollgate"), ("zsh", "zsh/vendor-completions/_tollgate"),
                             ("fish", "fish/vendor_completions.d/tollgate.fish")):
            tree.put(f"usr/share/{place}", completions[shell])
        files = sorted(path for path in tree.path.rglob("*") if path.is_file())
        name = lambda path: path.relative_to(tree.path).as_posix()
        sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {name(path)}\n" for path in files)
        kib = sum(path.stat().st_size for path in files) // 1024 + 1
        control = CONTROL.format(version=version, maintainer=MAINTAINER, kib=kib, glibc=glibc(binary))
        tree.put("DEBIAN/control", control)
        tree.put("DEBIAN/md5sums", sums)
        tree.put("DEBIAN/conffiles", "".join(f"/{name(path)}\n" for path in files if name(path).startswith("etc/")))
        for script, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
            tree.put(f"DEBIAN/{script}", text, 0o755)
        tree.settle()
        environment = {**os.environ, "SOURCE_DATE_EPOCH": str(at)}
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", f"-z{level}", "--build", tree.path,
                        out / f"tollgate_{version}_amd64.deb"], check=True, env=environment, stdout=subprocess.DEVNULL)


def main():
    flags = argparse.ArgumentParser(description="makes what is shipped of a built tollgate")
    flags.add_argument("--binary", type=Path, required=True)
    flags.add_argument("--out", type=Path, required=True)
    flags.add_argument("--level", type=int, default=9, help="of compression, 1 to 9")
    given = flags.parse_args()
    source, out = given.binary.resolve(), given.out.resolve()
    head = source.read_bytes()[:20]
    if not head.startswith(AMD64[0]) or head[18:20] != AMD64[1]:
        fail(f"{source} is no program for amd64")
    os.umask(0o022)
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    said = run(source, "--version")
    if not said.startswith(f"tollgate {version} "):
        fail(f"{source} says {said.strip()}, and Cargo.toml has {version}: build it again")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    at = instant()
    with tempfile.TemporaryDirectory() as scratch:
        # Symbols of functions stay, so that a panic names them.
        stripped = Path(scratch) / "tollgate"
        subprocess.run(["strip", "--strip-debug", "-o", stripped, source], check=True)
        binary = stripped.read_bytes()
    listed = sbom(version, at)
    parts = (version, at, binary, listed, *written_by(source))
    tarball(out, f"tollgate-{version}-linux-amd64", parts, given.level)
    debian(out, parts, given.level)
    (out / f"tollgate-{version}.cdx.json").write_text(listed, encoding="utf-8")
    made = sorted(out.iterdir())
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    (out / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(sums, end="")


if __name__ == "__main__":
    main()
