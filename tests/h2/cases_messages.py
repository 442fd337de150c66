"""Requests and their fields (RFC 9113, sections 6.10 and 8) and how fields are coded (RFC 7541)."""
from cases import *  # noqa: F403
from wire import *  # noqa: F403


def blocks(parts, *flags_of_parts):
    """A request whose block of fields comes in so many frames."""
    def run(c, server):
        block = fields(server.request())
        c.handshake()
        step = -(-len(block) // parts)
        for at in range(parts):
            part = block[at * step:(at + 1) * step]
            end = END_HEADERS if at == parts - 1 else 0
            kind, flags = (CONTINUATION, end) if at else (HEADERS, END_STREAM | end)
            c.frame(kind, flags, 1, part)
        return answered(c)
    return run


case("9113 6.10", "one CONTINUATION is taken")(blocks(2))
case("9113 6.10", "several CONTINUATION are taken")(blocks(5))


@case("9113 6.10", "CONTINUATION after the end of a block is PROTOCOL_ERROR")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(CONTINUATION, END_HEADERS, 1, literal("x-late", "1"))
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 6.10", "CONTINUATION after a CONTINUATION that ended the block is PROTOCOL_ERROR")
def _(c, server):
    block = fields(server.request("POST"))
    c.handshake().headers(1, block[:9], 0)
    c.frame(CONTINUATION, END_HEADERS, 1, block[9:])
    c.frame(CONTINUATION, END_HEADERS, 1, literal("x-late", "1"))
    return connection_error(c, PROTOCOL_ERROR)


@case("9113 6.10", "CONTINUATION after DATA is PROTOCOL_ERROR")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, 0, 1, b"x")
    c.frame(CONTINUATION, END_HEADERS, 1, literal("x-late", "1"))
    return connection_error(c, PROTOCOL_ERROR)


for method in ("GET", "HEAD"):
    @case("9113 8.1", f"{method} is answered")
    def _(c, server, method=method):
        c.handshake().headers(1, fields(server.request(method)))
        return answered(c)


@case("9113 8.1", "HEAD is answered without a body")
def _(c, server):
    c.handshake().headers(1, fields(server.request("HEAD")))
    return wanted(c, "an end without DATA", lambda e: e.stream == 1 and e.flags & END_STREAM and not e.data,
                  lambda e: e.kind == "DATA" and e.data)


@case("9113 8.1", "POST with trailers is answered")
def _(c, server):
    open_post(c.handshake(), server, more=[("trailer", "x-check")])
    c.frame(DATA, 0, 1, b"body")
    c.headers(1, literal("x-check", "1"))
    return answered(c)


@case("9113 8.1", "a second HEADERS that does not end the stream is malformed")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, 0, 1, b"body")
    c.headers(1, literal("x-more", "1"), END_HEADERS)
    return malformed(c)


@case("9113 8.1", "a pseudo-header in the trailers is malformed")
def _(c, server):
    open_post(c.handshake(), server)
    c.frame(DATA, 0, 1, b"body")
    c.headers(1, literal(":method", "POST"))
    return malformed(c)


@case("9113 8.1.1", "two requests at once are both answered")
def _(c, server):
    get(c.handshake(), server, 1)
    get(c, server, 3)
    left = {1, 3}
    return wanted(c, "two answers", lambda e: left.discard(e.stream if e.kind == "HEADERS" else 0) or not left,
                  lambda e: e.kind == "GOAWAY")


for name, length, parts in [("below", 1, [b"test"]), ("above", 9, [b"test"]),
                            ("above several DATA frames of", 9, [b"te", b"st"])]:
    @case("9113 8.1.1", f"a content-length {name} what is sent is malformed")
    def _(c, server, length=length, parts=parts):
        open_post(c.handshake(), server, more=[("content-length", str(length))])
        for at, part in enumerate(parts):
            c.frame(DATA, END_STREAM if at == len(parts) - 1 else 0, 1, part)
        return malformed(c)


@case("9113 8.1.1", "a content-length of a request that ends with its head is malformed")
def _(c, server):
    c.handshake().headers(1, fields(server.request("POST", [("content-length", "4")])))
    return malformed(c)


@case("9113 8.1.1", "two content-lengths that differ are malformed")
def _(c, server):
    open_post(c.handshake(), server, more=[("content-length", "4"), ("content-length", "5")])
    c.frame(DATA, END_STREAM, 1, b"test")
    return malformed(c)


def changed(change, method="GET"):
    """A request with its fields changed."""
    def run(c, server):
        pairs = server.request(method)
        c.handshake().headers(1, fields(change(pairs)))
        return malformed(c)
    return run


def without(name):
    return lambda pairs: [pair for pair in pairs if pair[0] != name]


def twice(name):
    return lambda pairs: [p for pair in pairs for p in [pair] * (2 if pair[0] == name else 1)]


def also(*more):
    return lambda pairs: pairs + list(more)


def instead(name, value):
    return lambda pairs: [(name, value) if pair[0] == name else pair for pair in pairs]


for section, name, change in [
        ("8.2.1", "an upper case name of a field", also(("X-TEST", "1"))),
        ("8.2.1", "a name with a blank", also(("x test", "1"))),
        ("8.2.1", "a name with a colon", also(("x:test", "1"))),
        ("8.2.1", "an empty name", also(("", "1"))),
        ("8.2.1", "a value with a line feed", also(("x-test", "1\nx-other: 2"))),
        ("8.2.1", "a value with a carriage return", also(("x-test", "1\rx"))),
        ("8.2.1", "a value with a zero byte", also(("x-test", "1\0x"))),
        ("8.2.2", "connection", also(("connection", "keep-alive"))),
        ("8.2.2", "transfer-encoding", also(("transfer-encoding", "chunked"))),
        ("8.2.2", "keep-alive", also(("keep-alive", "timeout=5"))),
        ("8.2.2", "proxy-connection", also(("proxy-connection", "keep-alive"))),
        ("8.2.2", "upgrade", also(("upgrade", "h2c"))),
        ("8.2.2", "TE with more than trailers", also(("te", "trailers, deflate"))),
        ("8.3", "an unknown pseudo-header", lambda pairs: [(":test", "1"), *pairs]),
        ("8.3", "the pseudo-header of answers", lambda pairs: [(":status", "200"), *pairs]),
        ("8.3", "a pseudo-header after a field", lambda pairs: [("x-test", "1"), *pairs]),
        ("8.3.1", "an empty :path", instead(":path", "")),
        ("8.3.1", "no :method", without(":method")),
        ("8.3.1", "no :scheme", without(":scheme")),
        ("8.3.1", "no :path", without(":path")),
        ("8.3.1", ":method twice", twice(":method")),
        ("8.3.1", ":scheme twice", twice(":scheme")),
        ("8.3.1", ":path twice", twice(":path")),
        ("8.3.1", ":authority twice", twice(":authority")),
        ("8.3.1", "a :path that does not begin with a slash", instead(":path", "nowhere")),
        ("8.3.1", "a :path with a blank", instead(":path", "/a b")),
        ("8.3.1", "a :method that is no token", instead(":method", "GE T"))]:
    case(f"9113 {section}", f"{name} is malformed")(changed(change))


@case("9113 8.3.1", "host that differs from :authority is malformed")
def _(c, server):
    # The RFC says SHOULD. A gate that chose by the one and told its upstream the other would be a hole.
    c.handshake().headers(1, fields(server.request(more=[("host", "elsewhere.test")])))
    return malformed(c)


@case("9113 8.2.3", "a cookie in several fields is taken")
def _(c, server):
    c.handshake().headers(1, fields(server.request(more=[("cookie", "a=1"), ("cookie", "b=2")])))
    return answered(c)


@case("9113 8.5", "CONNECT is not taken for a request with a path")
def _(c, server):
    c.handshake().headers(1, fields([(":method", "CONNECT"), (":authority", "elsewhere.test:443")]), END_HEADERS)
    return wanted(c, "an error, or an answer that is none of success",
                  lambda e: e.kind in ("CLOSED", "GOAWAY", "RST_STREAM") or e.kind == "HEADERS" and e.status() >= 400,
                  lambda e: e.kind == "HEADERS")


# RFC 7541. What is legal first.
def coded(*fields_of):
    """A request in which a field is coded in a way that is legal."""
    def run(c, server):
        c.handshake().headers(1, fields(server.request()) + b"".join(fields_of))
        broken = answered(c)
        # A field that the table keeps shows when it is used again.
        get(c, server, 3)
        return broken or answered(c, 3)
    return run


for form, first, bits in [("incremental indexing", 0x40, 6), ("no indexing", 0x00, 4), ("never indexed", 0x10, 4)]:
    for huffman in (False, True):
        how = " (Huffman)" if huffman else ""
        # Index 58 of the static table is user-agent.
        case("7541 6.2", f"{form}, indexed name{how}")(
            coded(integer(58, bits, first) + text("conformance", huffman)))
        case("7541 6.2", f"{form}, new name{how}")(coded(literal("x-test", "conformance", first, huffman)))


@case("7541 6.1", "indexed fields of the static and the dynamic table")
def _(c, server):
    request = [pair for pair in server.request() if pair[0] not in (":method", ":scheme")]
    c.handshake()
    c.headers(1, b"\x82\x87" + fields(request) + literal("x-kept", "1", 0x40))
    broken = answered(c)
    c.headers(3, b"\x82\x87" + fields(request) + integer(62, 7, 0x80))
    return broken or answered(c, 3)


@case("7541 6.3", "a new size of the table, and two of them, at the start of a block")
def _(c, server):
    block = fields(server.request())
    c.handshake().headers(1, integer(128, 5, 0x20) + block)
    broken = answered(c)
    c.headers(3, integer(0, 5, 0x20) + integer(4096, 5, 0x20) + block)
    return broken or answered(c, 3)


def undecodable(block):
    def run(c, server):
        c.handshake().headers(1, fields(server.request()) + block)
        return connection_error(c, COMPRESSION_ERROR)
    return run


for section, name, block in [
        ("2.3.3", "an index that no table has", integer(70, 7, 0x80)),
        ("2.3.3", "a name at an index that no table has", integer(70, 6, 0x40) + text("x")),
        ("4.2", "a new size of the table at the end of a block", integer(1, 5, 0x20)),
        ("5.1", "an integer without an end", b"\xff" + b"\xff" * 12),
        ("5.2", "a string that is longer than its block", b"\x00\x05ab"),
        ("5.2", "Huffman padding of more than 7 bits", b"\x00" + text("x-test") + b"\x82\x1f\xff"),
        ("5.2", "Huffman padding of zeros", b"\x00" + text("x-test") + b"\x81\x18"),
        ("5.2", "the EOS symbol in a Huffman string", b"\x00" + text("x-test") + b"\x84\xff\xff\xff\xff"),
        ("6.1", "index 0", b"\x80")]:
    case(f"7541 {section}", f"{name} is COMPRESSION_ERROR")(undecodable(block))


@case("7541 6.3", "a table above SETTINGS_HEADER_TABLE_SIZE is COMPRESSION_ERROR")
def _(c, server):
    most = c.handshake().server_settings.get(TABLE_SIZE, 4096)
    c.headers(1, integer(most + 1, 5, 0x20) + fields(server.request()))
    return connection_error(c, COMPRESSION_ERROR)
