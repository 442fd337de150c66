#!/usr/bin/env python3
"""Rounds on a real file system whose disk fails: ext4 on a loop device whose backing store runs full.

usage: real_eio.py TOLLGATE [ROUNDS]        as root, on a machine with loop devices

A round: calls; the backing store is full at some moment, so that what the kernel writes back fails with EIO; it has room
again or not; kill -9, unmount, mount. Every answered call must be in the ledger, `integrity_check` must say ok and
`tollgate verify` nothing. Exits 1 when not.
"""
import http.client, os, pathlib, random, shutil, signal, socket, sqlite3, subprocess, sys, tempfile, threading, time

HERE = pathlib.Path(__file__).resolve().parents[2]
KEY = "demo-retail-key"


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def serve_upstream(listener):
    def connection(peer):
        try:
            rest = b""
            while True:
                while b"\r\n\r\n" not in rest:
                    more = peer.recv(65536)
                    if not more:
                        return
                    rest += more
                head, rest = rest.split(b"\r\n\r\n", 1)
                length = next((int(l.split(b":")[1]) for l in head.lower().split(b"\r\n") if l.startswith(b"content-length")), 0)
                while len(rest) < length:
                    rest += peer.recv(65536)
                rest = rest[length:]
                peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        except OSError:
            pass

    while True:
        peer, _ = listener.accept()
        threading.Thread(target=connection, args=(peer,), daemon=True).start()


def call_until(stop, port, answered, lock):
    connection = None
    while not stop.is_set():
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("POST", "/v1/portrait/segment", b"{}", {"X-Api-Key": KEY})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                with lock:
                    answered.append(answer.getheader("x-request-id"))
        except (OSError, http.client.HTTPException):
            connection = None
        time.sleep(0.02)


def one_round(tollgate, home, dice, upstream):
    store, mount, config = home / "store", home / "mount", home / "config"
    for directory in (store, mount):
        directory.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", store)
    image = store / "image"
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", image)
    run("mount", "-o", "loop", image, mount)
    try:
        public, admin = free_port(), free_port()
        shutil.copytree(HERE / "config", config)
        text = (config / "tollgate.yaml").read_text()
        for old, new in (
            ("127.0.0.1:8080", f"127.0.0.1:{public}"),
            ("127.0.0.1:9090", f"127.0.0.1:{admin}"),
            ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
            ("../var/ledger.db", str(mount / "ledger.db")),
        ):
            assert old in text, old
            text = text.replace(old, new)
        (config / "tollgate.yaml").write_text(text)
        log = open(home / "log", "w")
        gate = subprocess.Popen([tollgate, "serve", "--config", config / "tollgate.yaml"], stderr=log)
        answered, lock, stop = [], threading.Lock(), threading.Event()
        callers = [threading.Thread(target=call_until, args=(stop, public, answered, lock)) for _ in range(2)]
        for caller in callers:
            caller.start()
        time.sleep(2 + dice.random())
        filler = store / "filler"
        try:
            with open(filler, "wb", buffering=0) as f:
                while True:
                    f.write(bytes(1 << 16))
        except OSError:
            pass
        before = len(answered)
        time.sleep(dice.uniform(0.5, 4))
        filler.unlink(missing_ok=True)
        time.sleep(dice.choice((0, 0.3, 2.5)))
        gate.kill()
        gate.wait()
        stop.set()
        for caller in callers:
            caller.join()
        run("umount", mount)
        run("mount", "-o", "loop", image, mount)
        # A start repairs what was left.
        gate = subprocess.Popen([tollgate, "serve", "--config", config / "tollgate.yaml"], stderr=log)
        for _ in range(200):
            try:
                http.client.HTTPConnection("127.0.0.1", public, timeout=5).connect()
                break
            except OSError:
                time.sleep(0.05)
        gate.send_signal(signal.SIGTERM)
        ended = gate.wait(30)
        verified = subprocess.run([tollgate, "verify", "--config", config / "tollgate.yaml"], capture_output=True, text=True)
        ledger = sqlite3.connect(f"file:{mount}/ledger.db?mode=ro", uri=True)
        ids = {row[0] for row in ledger.execute("SELECT id FROM records")}
        sound = ledger.execute("PRAGMA integrity_check").fetchone()[0]
        ledger.close()
        missing = [call for call in answered if call not in ids]
        failed = "I/O error" in (home / "log").read_text() or "os error 5" in (home / "log").read_text()
        good = not missing and sound == "ok" and verified.returncode == 0 and ended == 0
        print(
            f"answered {len(answered)} ({before} before the disk was full), missing {len(missing)}, integrity {sound}, "
            f"verify {verified.returncode}, start and end {ended}, I/O errors {'seen' if failed else 'none'}",
            flush=True,
        )
        if not good:
            print(verified.stdout, verified.stderr, (home / "log").read_text(), sep="\n")
        return good, failed
    finally:
        subprocess.run(["umount", mount], stderr=subprocess.DEVNULL)
        run("umount", "-l", store)


def main():
    tollgate, rounds = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=serve_upstream, args=(listener,), daemon=True).start()
    with_errors = 0
    for seed in range(1, rounds + 1):
        home = pathlib.Path(tempfile.mkdtemp(prefix="real-eio-"))
        good, failed = one_round(os.path.abspath(tollgate), home, random.Random(seed), listener.getsockname()[1])
        shutil.rmtree(home, ignore_errors=True)
        with_errors += failed
        if not good:
            sys.exit(f"round {seed} failed")
    print(f"{rounds} rounds, {with_errors} of them with I/O errors: every answered call is there")


main()
