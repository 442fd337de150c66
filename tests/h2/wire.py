"""HTTP/2 frames as a client that may break any rule sends them, and what a server answers.

Nothing here checks what is sent: that is the point. What comes back is read strictly.
"""
import select
import socket
import ssl
import struct
import time
from collections import namedtuple

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED,
 FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR,
 ENHANCE_YOUR_CALM) = range(12)
CODES = ("NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED "
         "FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR "
         "ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED").split()

TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)


def code_name(code):
    return CODES[code] if code < len(CODES) else f"code {code}"


def settings_payload(pairs):
    return b"".join(struct.pack(">HI", key, value) for key, value in pairs)


def integer(value, bits, first=0):
    """An integer of HPACK with a prefix of `bits` bits below the bits of `first`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out + [value])


def text(value, huffman=False):
    """A string literal of HPACK."""
    value = value.encode() if isinstance(value, str) else value
    if not huffman:
        return integer(len(value), 7) + value
    coder = hpack.huffman.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH)
    coded = coder.encode(value)
    return integer(len(coded), 7, 0x80) + coded


def literal(name, value, kind=0x00, huffman=False):
    """A literal field with a new name. `kind`: 0x40 is kept in the table, 0x10 is never indexed."""
    return bytes([kind]) + text(name, huffman) + text(value, huffman)


def fields(pairs):
    """A block of literal fields that changes no table."""
    return b"".join(literal(name, value) for name, value in pairs)


def frame_bytes(kind, flags, stream, payload=b"", length=None, reserved=0):
    length = len(payload) if length is None else length
    return (struct.pack(">I", length)[1:] + bytes([kind, flags])
            + struct.pack(">I", stream | reserved << 31) + payload)


class Event(namedtuple("Event", "kind stream flags code data fields")):
    """What a server sent, or CLOSED, or TIMEOUT."""

    def status(self):
        return int(dict(self.fields or ()).get(":status", 0))

    def __str__(self):
        more = f" {code_name(self.code)}" if self.code is not None else ""
        more += f" {self.status()}" if self.kind == "HEADERS" and self.status() else ""
        return f"{self.kind}{more}" + (f" on {self.stream}" if self.stream else "")


def event(kind, stream=0, flags=0, code=None, data=b"", of=None):
    return Event(kind, stream, flags, code, data, of)


class Connection:
    """One connection over TLS that agreed on h2."""

    def __init__(self, address, seconds):
        self.seconds = seconds
        self.decoder = hpack.Decoder()
        self.decoder.max_allowed_table_size = 1 << 20
        self.buffer, self.block, self.is_closed = b"", None, False
        self.server_settings, self.sent = {}, 0
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(address, timeout=seconds)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname="localhost")
        if self.socket.selected_alpn_protocol() != "h2":
            raise ConnectionError("the server does not speak h2")

    def write(self, data, seconds=None):
        """Sends as much as the server takes; whether it took all of it."""
        self.socket.settimeout(self.seconds if seconds is None else seconds)
        try:
            self.socket.sendall(data)
            self.sent += len(data)
            return True
        except (OSError, ssl.SSLError):
            return False

    def frame(self, kind, flags, stream, payload=b"", **more):
        return self.write(frame_bytes(kind, flags, stream, payload, **more))

    def handshake(self, settings=()):
        """Both prefaces, and both acknowledgements."""
        self.write(PREFACE + frame_bytes(SETTINGS, 0, 0, settings_payload(settings)))
        has_settings = has_ack = False
        while not (has_settings and has_ack):
            seen = self.next()
            if seen.kind == "SETTINGS":
                has_settings = True
                self.frame(SETTINGS, ACK, 0)
            has_ack |= seen.kind == "SETTINGS ACK"
            if seen.kind in ("CLOSED", "TIMEOUT", "GOAWAY"):
                raise ConnectionError(f"no handshake: {seen}")
        return self

    def headers(self, stream, block, flags=END_HEADERS | END_STREAM):
        return self.frame(HEADERS, flags, stream, block)

    def ping(self, data=b"conforms"):
        return self.frame(PING, 0, 0, data)

    def events(self, seconds=None):
        """Everything the server sends until it closes, or is silent for the time."""
        until = time.monotonic() + (self.seconds if seconds is None else seconds)
        while True:
            seen = self.next(max(0.0, until - time.monotonic()))
            yield seen
            if seen.kind in ("CLOSED", "TIMEOUT"):
                return

    def next(self, seconds=None):
        until = time.monotonic() + (self.seconds if seconds is None else seconds)
        while True:
            frame = self._frame()
            if frame is not None:
                seen = self._read(*frame)
                if seen is not None:
                    return seen
                continue
            if self.is_closed:
                return event("CLOSED")
            left = until - time.monotonic()
            if left <= 0 and not self.socket.pending():
                return event("TIMEOUT")
            self._fill(max(left, 0.001))

    def _fill(self, seconds):
        if not self.socket.pending() and not select.select([self.socket], [], [], seconds)[0]:
            return
        self.socket.settimeout(seconds)
        try:
            more = self.socket.recv(65536)
            self.is_closed = not more
            self.buffer += more
        except TimeoutError:
            pass
        except (OSError, ssl.SSLError):
            self.is_closed = True

    def _frame(self):
        if len(self.buffer) < 9:
            return None
        length = int.from_bytes(self.buffer[:3], "big")
        if len(self.buffer) < 9 + length:
            return None
        kind, flags = self.buffer[3], self.buffer[4]
        stream = int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF
        payload, self.buffer = self.buffer[9:9 + length], self.buffer[9 + length:]
        return kind, flags, stream, payload

    def _read(self, kind, flags, stream, payload):
        """An event; None for a part of a block of fields."""
        if kind in (HEADERS, CONTINUATION):
            if kind == HEADERS:
                payload = payload[1:len(payload) - payload[0]] if flags & PADDED else payload
                payload = payload[5:] if flags & WITH_PRIORITY else payload
                self.block = (payload, flags)
            else:
                self.block = (self.block[0] + payload, self.block[1] | flags)
            if not flags & END_HEADERS:
                return None
            return event("HEADERS", stream, self.block[1], of=self.decoder.decode(self.block[0]))
        if kind == DATA:
            return event("DATA", stream, flags, data=payload)
        if kind == RST_STREAM:
            return event("RST_STREAM", stream, code=int.from_bytes(payload, "big"))
        if kind == SETTINGS and not flags & ACK:
            pairs = struct.iter_unpack(">HI", payload)
            self.server_settings.update(pairs)
            return event("SETTINGS")
        if kind == SETTINGS:
            return event("SETTINGS ACK")
        if kind == PING:
            return event("PING ACK" if flags & ACK else "PING", data=payload)
        if kind == GOAWAY:
            code = int.from_bytes(payload[4:8], "big")
            return event("GOAWAY", code=code, data=payload[8:])
        if kind == WINDOW_UPDATE:
            return event("WINDOW_UPDATE", stream, data=payload)
        return event(f"frame of type {kind}", stream, flags, data=payload)

    def close(self):
        try:
            self.socket.close()
        except OSError:
            pass
