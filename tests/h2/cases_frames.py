"""Connections, frames, streams and flow control: RFC 9113, sections 3 to 7."""
from cases import *  # noqa: F403
from wire import *  # noqa: F403


@case("9113 3.4", "both prefaces: the server begins with SETTINGS")
def _(c, server):
    c.write(PREFACE + frame_bytes(SETTINGS, 0, 0))
    first = c.next()
    return None if first.kind == "SETTINGS" else f"wanted SETTINGS first; came {first}"


@case("9113 3.4", "an invalid client preface ends the connection")
def _(c, server):
    c.write(b"GET / HTTP/2.0\r\n\r\nXX\r\n\r\n")
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 3.4", "a client preface without SETTINGS is an error")
def _(c, server):
    c.write(PREFACE)
    get(c, server)
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 4.1", "a frame of an unknown type is ignored")
def _(c, server):
    c.handshake().frame(0x16, 0, 0, b"12345678")
    return alive(c)


@case("9113 4.1", "undefined flags are ignored")
def _(c, server):
    c.handshake().frame(PING, 0x16, 0, b"flagged!")
    return wanted(c, "the answer to a PING", lambda e: e.kind == "PING ACK" and e.data == b"flagged!")


@case("9113 4.1", "the reserved bit is ignored")
def _(c, server):
    c.handshake().frame(PING, 0, 0, b"reserved", reserved=1)
    return wanted(c, "the answer to a PING", lambda e: e.kind == "PING ACK" and e.data == b"reserved")


@case("9113 4.2", "DATA of 2^14 bytes is taken")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, END_STREAM, 1, b"x" * 16384)
    return answered(c)


@case("9113 4.2", "DATA above SETTINGS_MAX_FRAME_SIZE is FRAME_SIZE_ERROR")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, END_STREAM, 1, b"x" * (c.server_settings.get(MAX_FRAME, 16384) + 1))
    return stream_error(c, FRAME_SIZE_ERROR)


@case("9113 4.2", "HEADERS above SETTINGS_MAX_FRAME_SIZE is FRAME_SIZE_ERROR")
def _(c, server):
    size = c.handshake().server_settings.get(MAX_FRAME, 16384) + 1
    block = fields(server.request()) + literal("x-long", "x" * size)
    c.headers(1, block)
    return connection_error(c, FRAME_SIZE_ERROR)


@case("9113 4.3", "a block that cannot be decoded is COMPRESSION_ERROR")
def _(c, server):
    c.handshake().headers(1, b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff")
    return connection_error(c, COMPRESSION_ERROR)


def in_the_block(kind, stream, payload):
    """A frame between HEADERS and the CONTINUATION that must follow."""
    def run(c, server):
        block = fields(server.request())
        c.handshake().headers(1, block[:9], END_STREAM)
        c.frame(kind, END_HEADERS if kind == HEADERS else 0, stream, payload or block)
        c.frame(CONTINUATION, END_HEADERS, 1, block[9:])
        return connection_error(c, PROTOCOL_ERROR)
    return run


for section, name, kind, stream, payload in [
        ("9113 4.3", "PRIORITY in a block of fields", PRIORITY, 1, b"\0\0\0\0\x0f"),
        ("9113 4.3", "HEADERS of another stream in a block of fields", HEADERS, 3, b""),
        ("9113 6.2", "DATA in a block of fields", DATA, 1, b"x"),
        ("9113 6.2", "HEADERS of the same stream in a block of fields", HEADERS, 1, b""),
        ("9113 5.5", "a frame of an unknown type in a block of fields", 0x16, 0, b"12345678"),
        ("9113 6.10", "PING in a block of fields", PING, 0, b"12345678"),
        ("9113 6.10", "SETTINGS in a block of fields", SETTINGS, 0, b"\0\x03\0\0\0\x64"),
        ("9113 6.10", "CONTINUATION of another stream in a block of fields", CONTINUATION, 3, b"x")]:
    case(section, f"{name} is PROTOCOL_ERROR")(in_the_block(kind, stream, payload))


def on_idle(kind, flags, payload, *codes):
    def run(c, server):
        c.handshake().frame(kind, flags, 1, payload)
        return connection_error(c, *codes)
    return run


for name, kind, flags, payload in [("DATA", DATA, END_STREAM, b"x"),
                                   ("RST_STREAM", RST_STREAM, 0, b"\0\0\0\x08"),
                                   ("WINDOW_UPDATE", WINDOW_UPDATE, 0, b"\0\0\0\x64"),
                                   ("CONTINUATION", CONTINUATION, END_HEADERS, b"\x82")]:
    # A server may answer DATA with STREAM_CLOSED as well: section 6.1.
    codes = (PROTOCOL_ERROR, STREAM_CLOSED) if kind == DATA else (PROTOCOL_ERROR,)
    case("9113 5.1", f"idle: {name} is PROTOCOL_ERROR")(on_idle(kind, flags, payload, *codes))


def late(kind, prepare, *codes):
    """A frame on a stream that has ended for the client in the way of `prepare`."""
    def run(c, server):
        c.handshake()
        broken = prepare(c, server)
        if broken:
            return broken
        if kind == DATA:
            c.frame(DATA, END_STREAM, 1, b"late")
        elif kind == HEADERS:
            get(c, server)
        else:
            c.frame(CONTINUATION, END_HEADERS, 1, fields(server.request()))
        return stream_error(c, *codes)
    return run


def reset(c, server):
    open_post(c, server)
    c.frame(RST_STREAM, 0, 1, b"\0\0\0\x08")


def whole(c, server):
    get(c, server)
    return ended(c)


for state, prepare in [("half-closed (remote)", get), ("closed by RST_STREAM", reset), ("closed", whole)]:
    for name, kind in [("DATA", DATA), ("HEADERS", HEADERS), ("CONTINUATION", CONTINUATION)]:
        # HEADERS with a number that was used is also what 5.1.1 calls PROTOCOL_ERROR.
        codes = (STREAM_CLOSED,) if kind == DATA else (STREAM_CLOSED, PROTOCOL_ERROR)
        case("9113 5.1", f"{state}: {name} is STREAM_CLOSED")(late(kind, prepare, *codes))


@case("9113 5.1", "half-closed (remote): WINDOW_UPDATE and PRIORITY are taken")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 0)])
    get(c, server)
    c.frame(PRIORITY, 0, 1, b"\0\0\0\0\x0f")
    c.frame(WINDOW_UPDATE, 0, 1, b"\0\0\x7f\xff")
    return wanted(c, "DATA", lambda e: e.kind == "DATA" and e.data, lambda e: e.kind in ("GOAWAY", "RST_STREAM"))


@case("9113 5.1", "half-closed (remote): RST_STREAM is taken")
def _(c, server):
    get(c.handshake(), server)
    c.frame(RST_STREAM, 0, 1, b"\0\0\0\x08")
    return alive(c)


@case("9113 5.1", "closed: PRIORITY, WINDOW_UPDATE and RST_STREAM are ignored")
def _(c, server):
    get(c.handshake(), server)
    broken = ended(c)
    c.frame(PRIORITY, 0, 1, b"\0\0\0\0\x0f")
    c.frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01")
    c.frame(RST_STREAM, 0, 1, b"\0\0\0\x08")
    return broken or alive(c)


@case("9113 5.1.1", "an even number of a stream is PROTOCOL_ERROR")
def _(c, server):
    get(c.handshake(), server, 2)
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 5.1.1", "a number below an earlier one is PROTOCOL_ERROR")
def _(c, server):
    get(c.handshake(), server, 5)
    ended(c, 5)
    get(c, server, 3)
    return connection_error(c, PROTOCOL_ERROR, STREAM_CLOSED)


@case("9113 5.1.1", "numbers may be left out")
def _(c, server):
    get(c.handshake(), server, 77)
    return answered(c, 77)


@case("9113 5.1.2", "streams above SETTINGS_MAX_CONCURRENT_STREAMS are refused")
def _(c, server):
    most = c.handshake().server_settings.get(MAX_STREAMS)
    if most is None:
        return "the server has no limit of streams"
    for number in range(most + 1):
        open_post(c, server, 2 * number + 1)
    return stream_error(c, PROTOCOL_ERROR, REFUSED_STREAM)


@case("9113 5.3.2", "HEADERS with a priority are taken, also one that depends on itself")
def _(c, server):
    c.handshake()
    block = fields(server.request())
    c.headers(1, b"\0\0\0\0\xff" + block, END_HEADERS | END_STREAM | WITH_PRIORITY)
    # RFC 7540 called the second PROTOCOL_ERROR; RFC 9113 has no such rule any more.
    broken = answered(c, 1)
    c.headers(3, b"\0\0\0\x03\xff" + block, END_HEADERS | END_STREAM | WITH_PRIORITY)
    return broken or wanted(
        c, "an answer or PROTOCOL_ERROR", lambda e: e.kind == "CLOSED" or e.stream == 3 and e.kind == "HEADERS"
        or e.kind in ("RST_STREAM", "GOAWAY") and e.code == PROTOCOL_ERROR)


@case("9113 5.3.2", "PRIORITY of an idle stream is taken, also before a lower number")
def _(c, server):
    c.handshake().frame(PRIORITY, 0, 9, b"\0\0\0\0\x0f")
    get(c, server, 7)
    return answered(c, 7)


@case("9113 5.3.2", "an exclusive dependency is taken")
def _(c, server):
    c.handshake().frame(PRIORITY, 0, 3, b"\x80\0\0\0\x01")
    get(c, server)
    return answered(c)


@case("9113 5.4.1", "after a connection error the server closes")
def _(c, server):
    c.handshake().frame(PING, 0, 3, b"12345678")
    return wanted(c, "the end of the connection", lambda e: e.kind == "CLOSED")


@case("9113 5.4.1", "before it closes the server says why with GOAWAY")
def _(c, server):
    c.handshake().frame(PING, 0, 3, b"12345678")
    return wanted(c, "GOAWAY PROTOCOL_ERROR", lambda e: e.kind == "GOAWAY" and e.code == PROTOCOL_ERROR)


@case("9113 6.1", "several DATA frames, padding, and an empty one are taken")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, 0, 1, b"one")
    c.frame(DATA, PADDED, 1, b"\x05two" + b"\0" * 5)
    c.frame(DATA, 0, 1)
    c.frame(DATA, END_STREAM, 1, b"three")
    return answered(c)


@case("9113 6.1", "DATA on stream 0 is PROTOCOL_ERROR")
def _(c, server):
    c.handshake().frame(DATA, END_STREAM, 0, b"x")
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 6.1", "DATA whose padding is longer than itself is PROTOCOL_ERROR")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, END_STREAM | PADDED, 1, b"\x06test!")
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 6.2", "HEADERS with padding, and with padding and priority, are taken")
def _(c, server):
    c.handshake()
    block = fields(server.request())
    c.headers(1, b"\x04" + block + b"\0" * 4, END_HEADERS | END_STREAM | PADDED)
    broken = answered(c)
    c.headers(3, b"\x04\0\0\0\0\x0f" + block + b"\0" * 4, END_HEADERS | END_STREAM | PADDED | WITH_PRIORITY)
    return broken or answered(c, 3)


@case("9113 6.2", "HEADERS on stream 0 is PROTOCOL_ERROR")
def _(c, server):
    get(c.handshake(), server, 0)
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 6.2", "HEADERS whose padding is longer than itself is PROTOCOL_ERROR")
def _(c, server):
    block = fields(server.request())
    c.handshake().headers(1, bytes([min(len(block) + 1, 255)]) + block[:200], END_HEADERS | END_STREAM | PADDED)
    return stream_error(c, PROTOCOL_ERROR)


def broken_frame(kind, flags, stream, payload, *codes):
    """A frame that is an error by itself."""
    def run(c, server):
        c.handshake().frame(kind, flags, stream, payload)
        return stream_error(c, *codes)
    return run


for section, name, kind, flags, stream, payload, codes in [
        ("6.3", "PRIORITY on stream 0 is PROTOCOL_ERROR", PRIORITY, 0, 0, b"\0\0\0\0\x0f", (PROTOCOL_ERROR,)),
        ("6.4", "RST_STREAM on stream 0 is PROTOCOL_ERROR", RST_STREAM, 0, 0, b"\0\0\0\x08", (PROTOCOL_ERROR,)),
        ("6.5", "SETTINGS ACK with a payload is FRAME_SIZE_ERROR", SETTINGS, ACK, 0, b"\0\x03\0\0\0\x64",
         (FRAME_SIZE_ERROR,)),
        ("6.5", "SETTINGS on a stream is PROTOCOL_ERROR", SETTINGS, 0, 1, b"\0\x03\0\0\0\x64", (PROTOCOL_ERROR,)),
        ("6.5", "SETTINGS of 3 bytes is FRAME_SIZE_ERROR", SETTINGS, 0, 0, b"\0\x03\0", (FRAME_SIZE_ERROR,)),
        ("6.5.2", "ENABLE_PUSH 2 is PROTOCOL_ERROR", SETTINGS, 0, 0, settings_payload([(ENABLE_PUSH, 2)]),
         (PROTOCOL_ERROR,)),
        ("6.5.2", "INITIAL_WINDOW_SIZE 2^31 is FLOW_CONTROL_ERROR", SETTINGS, 0, 0,
         settings_payload([(INITIAL_WINDOW, 1 << 31)]), (FLOW_CONTROL_ERROR,)),
        ("6.5.2", "MAX_FRAME_SIZE below 2^14 is PROTOCOL_ERROR", SETTINGS, 0, 0,
         settings_payload([(MAX_FRAME, 16383)]), (PROTOCOL_ERROR,)),
        ("6.5.2", "MAX_FRAME_SIZE above 2^24-1 is PROTOCOL_ERROR", SETTINGS, 0, 0,
         settings_payload([(MAX_FRAME, 1 << 24)]), (PROTOCOL_ERROR,)),
        ("6.7", "PING on a stream is PROTOCOL_ERROR", PING, 0, 1, b"12345678", (PROTOCOL_ERROR,)),
        ("6.7", "PING of 6 bytes is FRAME_SIZE_ERROR", PING, 0, 0, b"123456", (FRAME_SIZE_ERROR,)),
        ("6.8", "GOAWAY on a stream is PROTOCOL_ERROR", GOAWAY, 0, 1, b"\0" * 8, (PROTOCOL_ERROR,)),
        ("6.9", "WINDOW_UPDATE of 0 on the connection is PROTOCOL_ERROR", WINDOW_UPDATE, 0, 0, b"\0" * 4,
         (PROTOCOL_ERROR,)),
        ("6.9", "WINDOW_UPDATE of 3 bytes is FRAME_SIZE_ERROR", WINDOW_UPDATE, 0, 0, b"\0\0\1", (FRAME_SIZE_ERROR,)),
        ("6.10", "CONTINUATION on stream 0 is PROTOCOL_ERROR", CONTINUATION, END_HEADERS, 0, b"\x82",
         (PROTOCOL_ERROR,)),
        ("8.4", "PUSH_PROMISE of a client is PROTOCOL_ERROR", PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\x02\x82",
         (PROTOCOL_ERROR,))]:
    case(f"9113 {section}", name)(broken_frame(kind, flags, stream, payload, *codes))


def on_open(kind, payload, *codes):
    """A frame that is an error on a stream that is open."""
    def run(c, server):
        open_post(c.handshake(), server)
        c.frame(kind, 0, 1, payload)
        return stream_error(c, *codes)
    return run


case("9113 6.3", "PRIORITY of 4 bytes is FRAME_SIZE_ERROR")(on_open(PRIORITY, b"\0\0\0\0", FRAME_SIZE_ERROR))
case("9113 6.4", "RST_STREAM of 3 bytes is FRAME_SIZE_ERROR")(on_open(RST_STREAM, b"\0\0\0", FRAME_SIZE_ERROR))
case("9113 6.9", "WINDOW_UPDATE of 0 on a stream is PROTOCOL_ERROR")(
    on_open(WINDOW_UPDATE, b"\0\0\0\0", PROTOCOL_ERROR))


@case("9113 6.4", "RST_STREAM on an open stream is taken")
def _(c, server):
    reset(c.handshake(), server)
    return alive(c)


@case("9113 6.5.2", "an unknown setting is ignored")
def _(c, server):
    c.handshake([(0xFF, 1), (0x0A0A, 7)])
    return alive(c)


@case("9113 6.5.3", "SETTINGS is acknowledged at once")
def _(c, server):
    c.handshake().frame(SETTINGS, 0, 0, settings_payload([(MAX_STREAMS, 50)]))
    return wanted(c, "SETTINGS ACK", lambda e: e.kind == "SETTINGS ACK")


@case("9113 6.5.3", "the last of two values of a setting holds")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)])
    get(c, server)
    return first_data(c, 1)


@case("9113 6.7", "PING is answered with its own bytes")
def _(c, server):
    return alive(c.handshake(), b"\0\xffabcde\x01")


@case("9113 6.7", "PING ACK is not answered")
def _(c, server):
    c.handshake().frame(PING, ACK, 0, b"unasked!")
    c.ping(b"asked???")
    return wanted(c, "the answer to the PING that asked", lambda e: e.kind == "PING ACK" and e.data == b"asked???",
                  lambda e: e.kind == "PING ACK")


@case("9113 6.8", "GOAWAY is taken")
def _(c, server):
    c.handshake().frame(GOAWAY, 0, 0, b"\0" * 8 + b"bye")
    return alive_or_closed(c)


@case("9113 6.9", "WINDOW_UPDATE of the connection and of an open stream is taken")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")
    c.frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01")
    c.frame(DATA, END_STREAM, 1, b"x")
    return answered(c)


def first_data(c, size):
    """DATA of exactly that many bytes comes first."""
    return wanted(c, f"DATA of {size} bytes", lambda e: e.kind == "DATA" and len(e.data) == size,
                  lambda e: e.kind in ("GOAWAY", "RST_STREAM") or e.kind == "DATA" and e.data)


@case("9113 6.9.1", "no more DATA is sent than the window of a stream has")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 1)])
    get(c, server)
    broken = first_data(c, 1)
    c.ping(b"barrier!")
    return broken or wanted(c, "nothing until the window opens",
                            lambda e: e.kind == "PING ACK", lambda e: e.kind == "DATA" and e.data)


@case("9113 6.9.1", "a window of the connection above 2^31-1 is GOAWAY FLOW_CONTROL_ERROR")
def _(c, server):
    c.handshake()
    for _ in range(2):
        c.frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff")
    return connection_error(c, FLOW_CONTROL_ERROR)


@case("9113 6.9.1", "a window of a stream above 2^31-1 is FLOW_CONTROL_ERROR")
def _(c, server):
    open_post(c.handshake(), server)
    for _ in range(2):
        c.frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff")
    return stream_error(c, FLOW_CONTROL_ERROR)


@case("9113 6.9.2", "a new initial window changes the windows of streams that are open")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 0)])
    get(c, server)
    c.ping(b"barrier!")
    broken = wanted(c, "no DATA", lambda e: e.kind == "PING ACK", lambda e: e.kind == "DATA" and e.data)
    c.frame(SETTINGS, 0, 0, settings_payload([(INITIAL_WINDOW, 1)]))
    return broken or first_data(c, 1)


@case("9113 6.9.2", "a window may become negative, and opens from there")
def _(c, server):
    c.handshake([(INITIAL_WINDOW, 3)])
    get(c, server)
    broken = first_data(c, 3)
    c.frame(SETTINGS, 0, 0, settings_payload([(INITIAL_WINDOW, 2)]))
    # The window is -1 now: 2 more are 1.
    c.frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x02")
    return broken or first_data(c, 1)


@case("9113 7", "unknown codes of errors change nothing")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(RST_STREAM, 0, 1, b"\0\0\0\xff")
    broken = alive(c)
    c.frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\xff")
    return broken or alive_or_closed(c)
