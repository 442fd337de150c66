"""The cases: what a client sends, and which answers the RFCs allow.

A case returns nothing when the server kept the rule, and otherwise what came instead.
"""
from collections import namedtuple

from wire import *  # noqa: F403 the names of the protocol

Case = namedtuple("Case", "section name run")
CASES = []
# What ends a search for an answer.
LAST = ("CLOSED", "TIMEOUT")


def case(section, name):
    def add(run):
        CASES.append(Case(section, name, run))
        return run
    return add


def wanted(connection, what, is_wanted, is_wrong=lambda _: False):
    """Reads until an event is wanted; otherwise what came in its place."""
    seen = []
    for now in connection.events():
        if is_wanted(now):
            return None
        seen.append(str(now))
        if is_wrong(now):
            break
    return f"wanted {what}; came {', '.join(seen[-6:])}"


class OtherCode(str):
    """The error was seen, and called by another code. What a client has to do is the same."""


def connection_error(connection, *codes):
    """GOAWAY with one of the codes, or the end of the connection without a word."""
    return error(connection, ("GOAWAY",), codes)


def stream_error(connection, *codes):
    """RST_STREAM with one of the codes, or a connection error, which a server may make of any."""
    return error(connection, ("GOAWAY", "RST_STREAM"), codes)


def error(connection, kinds, codes):
    other = []

    def is_wanted(now):
        # A server ends the connection after an error of it, whatever it calls the error.
        if now.kind == "GOAWAY" and now.code not in (NO_ERROR, *codes):
            other.append(now)
        return now.kind == "CLOSED" or now.kind in kinds and now.code in codes

    names = " or ".join(code_name(code) for code in codes)
    broken = wanted(connection, names, is_wanted)
    return broken or (OtherCode(f"{other[0]} in place of {names}") if other else None)


def malformed(connection):
    """A stream error, before which a server may answer 4xx (RFC 9113, 8.1.1), but never serve it."""
    return wanted(connection, "PROTOCOL_ERROR or an answer 4xx",
                  lambda e: e.kind == "CLOSED" or e.kind == "HEADERS" and 400 <= e.status() < 500
                  or e.kind in ("GOAWAY", "RST_STREAM") and e.code == PROTOCOL_ERROR,
                  lambda e: e.kind == "HEADERS")


def answered(connection, stream=1):
    """The head of an answer that is none of "bad request"."""
    return wanted(connection, f"an answer on stream {stream}",
                  lambda e: e.kind == "HEADERS" and e.stream == stream and e.status() != 400,
                  lambda e: e.kind in ("GOAWAY", "RST_STREAM") or e.kind == "HEADERS")


def alive(connection, data=b"still on"):
    """The connection answers a PING."""
    connection.ping(data)
    return wanted(connection, "the answer to a PING",
                  lambda e: e.kind == "PING ACK" and e.data == data, lambda e: e.kind == "GOAWAY")


def alive_or_closed(connection):
    connection.ping()
    return wanted(connection, "the answer to a PING, or the end",
                  lambda e: e.kind in ("PING ACK", "CLOSED") or e.kind == "GOAWAY")


def ended(connection, stream=1):
    """Reads until the answer of the stream is whole."""
    return wanted(connection, f"the end of stream {stream}",
                  lambda e: e.stream == stream and (
                      e.kind in ("HEADERS", "DATA") and e.flags & END_STREAM or e.kind == "RST_STREAM"),
                  lambda e: e.kind == "GOAWAY")


def open_post(connection, server, stream=1, more=()):
    """A request whose body is still to come."""
    connection.headers(stream, fields(server.request("POST", more)), END_HEADERS)


def get(connection, server, stream=1, **changed):
    connection.headers(stream, fields(server.request()), **changed)


from cases_frames import *  # noqa: E402,F403 each adds its own
from cases_messages import *  # noqa: E402,F403
