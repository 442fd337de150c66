#!/usr/bin/env python3
"""Whether a server keeps the rules of HTTP/2 (RFC 9113) and HPACK (RFC 7541), over TLS with ALPN h2.

    conformance.py --address HOST:PORT [--get PATH] [--post PATH] [--header NAME:VALUE]... [--only TEXT]

One line for each case: what was sent, the section, what came. Ends with 1 when a rule is broken. An error that was
seen and ended the connection, but with another code than the RFC has, is told and breaks none. GET has to be answered with a body of at least 5 bytes, POST is to read a body of any content.
"""
import argparse
import sys
import traceback

from cases import CASES, OtherCode
from wire import Connection


class Server:
    """Where the server is, and requests that it answers."""

    def __init__(self, options):
        host, port = options.address.rsplit(":", 1)
        self.address, self.seconds = (host, int(port)), options.seconds
        self.get, self.post = options.get, options.post
        self.more = [tuple(line.split(":", 1)) for line in options.header]

    def connect(self):
        return Connection(self.address, self.seconds)

    def request(self, method="GET", more=()):
        """The fields of a request, of which a case changes what it needs."""
        path = self.post if method == "POST" else self.get
        return [(":method", method), (":scheme", "https"), (":path", path),
                (":authority", "localhost"), *self.more, *more]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", required=True)
    parser.add_argument("--get", default="/")
    parser.add_argument("--post", default="/")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long an answer may take")
    parser.add_argument("--only", default="", help="cases with this text in their line")
    return parser.parse_args()


def main():
    options = arguments()
    server, failed, renamed, done = Server(options), 0, 0, 0
    for case in CASES:
        if options.only not in f"{case.section} {case.name}":
            continue
        done += 1
        connection = None
        try:
            connection = server.connect()
            broken = case.run(connection, server)
        except Exception as error:  # A server that cannot be talked to breaks the case, not the run.
            broken = "".join(traceback.format_exception_only(error)).strip()
        finally:
            if connection:
                connection.close()
        is_renamed = isinstance(broken, OtherCode)
        renamed += is_renamed
        failed += bool(broken) and not is_renamed
        verdict = "code" if is_renamed else "FAIL" if broken else "pass"
        print(f"{verdict}  {case.section:<12} {case.name}" + (f"\n      {broken}" if broken else ""), flush=True)
    print(f"{done} cases: {done - failed - renamed} pass, {renamed} end with another code, {failed} fail")
    return 1 if failed or not done else 0


if __name__ == "__main__":
    sys.exit(main())
