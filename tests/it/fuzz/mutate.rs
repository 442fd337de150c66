//! Messages that are nearly sound: whole ones, changed in their parts and then in their bytes.

use crate::harness::{RETAIL_KEY, STUDIO_KEY, VIDEO_KEY};
use fastrand::Rng;
use tollgate::testing::model::Clock;

/// The account of [`RETAIL_KEY`], by its other credential.
pub const RETAIL_ID: &str = "AKIDEXAMPLERETAIL00000000000000000002";
const RETAIL_SECRET: &str = "trial-secret-of-example-retail";

/// Bytes that mean something to a reader of HTTP.
const ODD_BYTES: &[u8] = b"\r\n\0\t :;,=\"\\\x0b\x0c\x1f\x7f\x80\xff0159aAfFzZxX-+%#_./?";
/// Parts of messages, to be put where they do not belong.
const PARTS: [&str; 24] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    "\r\r\n",
    "0\r\n\r\n",
    "0\r\n",
    "5\r\nhello\r\n",
    "5;x=\"\r\n\"\r\nhello\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Content-Length:\r\n",
    "content-length:\t3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive, transfer-encoding, content-length\r\n",
    "Expect: 100-continue\r\n",
    "X-Tollgate-Account: 1250000001\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
];
const LENGTHS: [&str; 16] = [
    "+5",
    "-1",
    "0x5",
    "5, 5",
    "5,6",
    "",
    " ",
    "5 ",
    "05",
    "5.0",
    "5\x0b",
    "18446744073709551616",
    "18446744073709551615",
    "99999999999999999999999",
    "\u{665}",
    "5;",
];
const CODINGS: [&str; 14] = [
    "Chunked",
    "CHUNKED",
    "chunked, chunked",
    "gzip, chunked",
    "chunked, gzip",
    "chunked;q=1",
    "\"chunked\"",
    "xchunked",
    "chunked\x0b",
    "\tchunked\t",
    "identity",
    "",
    "chunked,",
    ", chunked",
];
const SIZES: [&str; 18] = [
    "zz",
    "-1",
    "+5",
    "0x5",
    "5 x",
    "5;",
    "5;a=b",
    "5;a=\"b c\"",
    "5 ;a",
    "5\t",
    " 5",
    "",
    "00000000000000000000005",
    "fffffffffffffffff",
    "ffffffffffffffff",
    "7fffffffffffffff",
    "5\0",
    "5\x0b",
];
const VERSIONS: [&str; 10] = [
    "HTTP/1.0",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/1.10",
    "http/1.1",
    "HTTP/1,1",
    "HTTP/01.1",
    "HTTP/1.",
    "",
    "HTTP/1.1 x",
];

/// A message in its parts.
#[derive(Clone)]
struct Message {
    first: String,
    /// Without their line ends.
    fields: Vec<Vec<u8>>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Plain(Vec<u8>),
    /// Size lines and data, then the lines of the trailers.
    Chunks(Vec<(String, Vec<u8>)>, Vec<String>),
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}\r\n", self.first).into_bytes();
        for field in &self.fields {
            bytes.extend_from_slice(field);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
        match &self.body {
            Body::Plain(data) => bytes.extend_from_slice(data),
            Body::Chunks(chunks, trailers) => {
                for (size, data) in chunks {
                    bytes.extend_from_slice(size.as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                    bytes.extend_from_slice(data);
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"0\r\n");
                for trailer in trailers {
                    bytes.extend_from_slice(trailer.as_bytes());
                    bytes.extend_from_slice(b"\r\n");
                }
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes
    }

    fn add(&mut self, field: impl Into<Vec<u8>>) {
        self.fields.push(field.into());
    }

    /// Gives it a body and the field that frames it.
    fn frame(&mut self, random: &mut Rng) {
        match random.u32(0..10) {
            0 => self.add("Content-Length: 0"),
            1..5 => {
                let data = data(random);
                self.add(format!("Content-Length: {}", data.len()));
                self.body = Body::Plain(data);
            }
            _ => {
                self.add("Transfer-Encoding: chunked");
                let chunks = (0..random.usize(0..4)).map(|_| {
                    let data = data(random);
                    let extension = pick(random, &["", "", "", "", ";a", ";a=b", " "]);
                    (format!("{:x}{extension}", data.len()), data)
                });
                let chunks = chunks.filter(|(_, data)| !data.is_empty()).collect();
                let trailers = match random.u32(0..8) {
                    0 => vec!["X-Sum: 1".to_owned()],
                    1 => vec!["X-Sum: 1".to_owned(), "Content-Length: 3".to_owned()],
                    _ => Vec::new(),
                };
                self.body = Body::Chunks(chunks, trailers);
            }
        }
    }

    /// Changes one of its parts, mostly one that tells where it ends.
    fn change(&mut self, random: &mut Rng) {
        match random.u32(0..18) {
            0 => self.add(format!("Content-Length: {}", pick(random, &LENGTHS))),
            1 => self.add(format!("Content-Length: {}", random.u32(0..40))),
            2 => self.add(format!("Transfer-Encoding: {}", pick(random, &CODINGS))),
            3 => self.replace(b"content-length", pick(random, &LENGTHS)),
            4 => {
                let off = random.u32(0..60).to_string();
                self.replace(b"content-length", &off);
            }
            5 => self.replace(b"transfer-encoding", pick(random, &CODINGS)),
            6 => {
                // Another spelling of a name.
                if let Some(field) = some(random, &mut self.fields)
                    && let Some(colon) = field.iter().position(|byte| *byte == b':')
                {
                    match random.u32(0..6) {
                        0 => field.insert(colon, b' '),
                        1 => field.insert(colon, b'\t'),
                        2 => field.insert(0, b' '),
                        3 => field.insert(0, b'\t'),
                        4 => field
                            .iter_mut()
                            .filter(|b| **b == b'-')
                            .for_each(|b| *b = b'_'),
                        _ => field.make_ascii_uppercase(),
                    }
                }
            }
            7 if !self.fields.is_empty() => {
                // A field twice, or none.
                let at = random.usize(..self.fields.len());
                match random.bool() {
                    true => self.fields.insert(at, self.fields[at].clone()),
                    false => drop(self.fields.remove(at)),
                }
            }
            8 => {
                let at = random.usize(..=self.fields.len());
                let part = pick(random, &PARTS)
                    .trim_end_matches("\r\n")
                    .as_bytes()
                    .to_vec();
                self.fields.insert(at, part);
            }
            9 => {
                let version = pick(random, &VERSIONS);
                match self.first.starts_with("HTTP/") {
                    true => {
                        let end = self.first.find(' ').unwrap_or(self.first.len());
                        self.first.replace_range(..end, version);
                    }
                    false => {
                        let at = self.first.rfind("HTTP/").unwrap_or_default();
                        self.first.truncate(at);
                        self.first += version;
                    }
                }
            }
            10 => self.add(hidden()),
            _ => self.change_body(random),
        }
    }

    fn change_body(&mut self, random: &mut Rng) {
        match &mut self.body {
            Body::Plain(data) => match random.u32(0..4) {
                0 => data.extend_from_slice(b"more"),
                1 => drop(data.pop()),
                2 => data.extend_from_slice(hidden().as_bytes()),
                _ => data.extend_from_slice(pick(random, &PARTS).as_bytes()),
            },
            Body::Chunks(chunks, trailers) => {
                let at = random.usize(..=chunks.len());
                match random.u32(0..10) {
                    0 | 1 => {
                        chunks.insert(at, (pick(random, &SIZES).to_string(), b"hello".to_vec()))
                    }
                    2 => {
                        // What a lenient reader takes for the data or for the end.
                        let hidden = hidden();
                        let size = format!("{:x} x\r\n0\r\n", hidden.len() + 5);
                        chunks.insert(at, (size, hidden.into_bytes()));
                    }
                    3 => chunks.insert(at, ("0".to_owned(), hidden().into_bytes())),
                    4 => {
                        if let Some((size, _)) = some(random, chunks) {
                            *size = pick(random, &SIZES).to_string();
                        }
                    }
                    5 => {
                        if let Some((_, data)) = some(random, chunks) {
                            match random.bool() {
                                true => data.push(b'!'),
                                false => drop(data.pop()),
                            }
                        }
                    }
                    6 => {
                        if let Some((size, _)) = some(random, chunks) {
                            size.push_str(pick(
                                random,
                                &[
                                    ";", ";a\rb", ";a\nb", ";a=\"x", ";\0", "\r", "\n", "\t;x",
                                    "; ;",
                                ],
                            ));
                        }
                    }
                    7 => trailers.push(pick(random, &PARTS).trim_end_matches("\r\n").to_owned()),
                    8 => trailers.push("GET /x HTTP/1.1".to_owned()),
                    _ => trailers.push(hidden()),
                }
            }
        }
    }

    /// Gives the first field of this name another value.
    fn replace(&mut self, name: &[u8], value: &str) {
        for field in &mut self.fields {
            if field.len() > name.len() && field[..name.len()].eq_ignore_ascii_case(name) {
                field.truncate(name.len());
                field.extend_from_slice(format!(": {value}").as_bytes());
                return;
            }
        }
    }
}

/// A whole call, to be hidden in another message.
fn hidden() -> String {
    format!(
        "POST /v1/portrait/segment-custom HTTP/1.1\r\nHost: a\r\nX-Api-Key: {RETAIL_KEY}\r\nX-Hidden: 1\r\nContent-Length: 0\r\n\r\n"
    )
}

/// What is sent on one connection: calls one after another, sound ones and changed ones.
pub fn requests(random: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    let count = pick(random, &[1, 1, 2, 2, 3]);
    let changed = random.usize(..count);
    for nth in 0..count {
        let mut request = sound_request(random);
        if nth == changed {
            for _ in 0..pick(random, &[0, 1, 1, 1, 2, 3]) {
                request.change(random);
            }
        }
        bytes.extend_from_slice(&request.bytes());
    }
    change_bytes(random, &mut bytes);
    bytes
}

/// What an upstream says in answer to one request, and perhaps something after it.
pub fn answers(random: &mut Rng) -> Vec<u8> {
    let mut answer = sound_answer(random);
    for _ in 0..pick(random, &[0, 1, 1, 1, 2, 3]) {
        answer.change(random);
    }
    let mut bytes = match random.u32(0..12) {
        0 => b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
        1 => b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".to_vec(),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(&answer.bytes());
    if random.u32(0..10) == 0 {
        bytes.extend_from_slice(&sound_answer(random).bytes());
    }
    change_bytes(random, &mut bytes);
    bytes
}

/// A signed call, whose body the gate reads before it forwards anything.
pub fn signed_call(field: &str, body: &str) -> Vec<u8> {
    let mut message = signed(body);
    message.add(field);
    message.add(format!("Content-Length: {}", body.len()));
    message.body = Body::Plain(body.as_bytes().to_vec());
    message.bytes()
}

fn signed(body: &str) -> Message {
    let now = Clock::default().utc().seconds();
    let authorization =
        tollgate::cli::demo::sign(RETAIL_ID, RETAIL_SECRET, now, "bda.gate.test", body);
    let fields = [
        "Host: bda.gate.test".to_owned(),
        "Content-Type: application/json".to_owned(),
        "X-TC-Action: SegmentPortraitPic".to_owned(),
        "X-TC-Version: 2020-03-24".to_owned(),
        "X-TC-Region: ap-guangzhou".to_owned(),
        format!("X-TC-Timestamp: {now}"),
        format!("Authorization: {authorization}"),
    ];
    Message {
        first: "POST / HTTP/1.1".to_owned(),
        fields: fields.into_iter().map(String::into_bytes).collect(),
        body: Body::Plain(Vec::new()),
    }
}

fn sound_request(random: &mut Rng) -> Message {
    if random.u32(0..8) == 0 {
        let text = "{\"Image\":\"iVBORw0KGgo=\"}";
        let mut message = signed(text);
        if random.bool() {
            message.add(format!("Content-Length: {}", text.len()));
            message.body = Body::Plain(text.as_bytes().to_vec());
        } else {
            message.add("Transfer-Encoding: chunked");
            let (one, other) = text.as_bytes().split_at(random.usize(1..text.len()));
            let chunk = |data: &[u8]| (format!("{:x}", data.len()), data.to_vec());
            message.body = Body::Chunks(vec![chunk(one), chunk(other)], Vec::new());
        }
        return message;
    }
    let method = pick(
        random,
        &[
            "POST", "POST", "POST", "POST", "POST", "POST", "GET", "HEAD", "PUT",
        ],
    );
    let method = if random.u32(0..3) == 0 {
        method
    } else {
        "POST"
    };
    let target = match random.u32(0..24) {
        0..16 => "/v1/portrait/segment",
        16..19 => "/v1/portrait/segment-custom",
        19 => "/v1/portrait/segment?a=1&b=%20",
        20 => "http://gate.test/v1/portrait/segment",
        21 => "/v1/quota",
        22 => "/v1/video/tasks",
        _ => "/nowhere",
    };
    let version = if random.u32(0..24) == 0 {
        "HTTP/1.0"
    } else {
        "HTTP/1.1"
    };
    let mut message = Message {
        first: format!("{method} {target} {version}"),
        fields: vec![b"Host: gate.test".to_vec()],
        body: Body::Plain(Vec::new()),
    };
    message.add(match random.u32(0..24) {
        0 => format!("X-Api-Key: {STUDIO_KEY}"),
        1 => format!("X-Api-Key: {VIDEO_KEY}"),
        2 => "X-Api-Key: nobodys-key".to_owned(),
        3 | 4 => format!("Authorization: Bearer {RETAIL_KEY}"),
        _ => format!("X-Api-Key: {RETAIL_KEY}"),
    });
    for field in [
        "Content-Type: application/json",
        "Accept: */*",
        "X-Empty:",
        "X-Text: some, text;  with\tblanks",
        "Connection: keep-alive",
        "Connection: close",
        "Connection: X-Text",
        "TE: trailers",
        "Expect: 100-continue",
        "Content-Type: application/json; charset=utf-8",
    ] {
        if random.u32(0..14) == 0 {
            message.add(field);
        }
    }
    if version == "HTTP/1.0" {
        let data = data(random);
        message.add(format!("Content-Length: {}", data.len()));
        message.body = Body::Plain(data);
    } else {
        message.frame(random);
    }
    message
}

fn sound_answer(random: &mut Rng) -> Message {
    let first = match random.u32(0..20) {
        0 => "HTTP/1.1 201 Created",
        1 => "HTTP/1.1 204 No Content",
        2 => "HTTP/1.1 304 Not Modified",
        3 => "HTTP/1.1 400 Bad Request",
        4 => "HTTP/1.1 404",
        5 => "HTTP/1.1 500 Internal Server Error",
        6 => pick(
            random,
            &[
                "HTTP/1.1 503 Service Unavailable",
                "HTTP/1.1 429 Too Many Requests",
                "HTTP/1.1 408 Request Timeout",
            ],
        ),
        7 => "HTTP/1.0 200 OK",
        _ => "HTTP/1.1 200 OK",
    };
    let mut message = Message {
        first: first.to_owned(),
        fields: vec![b"Content-Type: application/json".to_vec()],
        body: Body::Plain(Vec::new()),
    };
    for field in [
        "Server: mutant",
        "X-Empty:",
        "X-Tollgate-Billable: false",
        "X-Tollgate-Billable: true",
        "X-Tollgate-Billable: true, False",
        "Connection: x-tollgate-billable",
        "Connection: close",
        "Connection: keep-alive",
        "Connection: X-Empty",
        "X-Request-Id: of-the-upstream",
        "Keep-Alive: timeout=5",
    ] {
        if random.u32(0..14) == 0 {
            message.add(field);
        }
    }
    match random.u32(0..10) {
        // To the end of the connection.
        0 => message.body = Body::Plain(data(random)),
        _ => message.frame(random),
    }
    message
}

/// The data of a body or a chunk: mostly little.
fn data(random: &mut Rng) -> Vec<u8> {
    match random.u32(0..40) {
        0 => vec![b'L'; random.usize(30_000..70_000)],
        1..4 => vec![b'M'; random.usize(1_000..9_000)],
        4..8 => hidden().into_bytes(),
        8..12 => pick(random, &PARTS).as_bytes().to_vec(),
        _ => {
            let text = b"{\"Image\":\"iVBORw0KGgo=\"}";
            text[..random.usize(..=text.len())].to_vec()
        }
    }
}

/// None of the bytes in half of the cases, else a few.
fn change_bytes(random: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..pick(random, &[0, 0, 0, 0, 1, 1, 2, 4]) {
        let at = place(random, bytes);
        match random.u32(0..9) {
            0 => bytes.insert(at, pick(random, ODD_BYTES)),
            1 if at < bytes.len() => bytes[at] = pick(random, ODD_BYTES),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u32(0..8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => {
                let part = pick(random, &PARTS).bytes();
                bytes.splice(at..at, part);
            }
            5 => {
                let end = (at + random.usize(0..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            6 => {
                let end = (at + random.usize(0..200)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = place(random, bytes);
                bytes.splice(to..to, copy);
            }
            7 => bytes.truncate(at),
            _ => {
                bytes.splice(at..at, hidden().bytes());
            }
        }
    }
}

/// Somewhere in it; at the ends of lines more often than elsewhere, and seldom in the midst of long
/// data.
fn place(random: &mut Rng, bytes: &[u8]) -> usize {
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let ends: Vec<usize> = ends.map(|(at, _)| at).collect();
    match random.u32(0..4) {
        0 => random.usize(..=bytes.len()),
        _ if ends.is_empty() => random.usize(..=bytes.len()),
        nth => {
            // Before its CR, before its LF, behind it; or some bytes further on.
            let end = ends[random.usize(..ends.len())];
            let from = (end + 1).saturating_sub(random.usize(0..3));
            (from + if nth == 1 { random.usize(0..12) } else { 0 }).min(bytes.len())
        }
    }
}

/// Cuts it in as many writes as a sender may make of it.
pub fn pieces<'b>(random: &mut Rng, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut cuts: Vec<usize> = match random.u32(0..10) {
        0..6 => Vec::new(),
        6..9 => (0..random.usize(1..4))
            .map(|_| place(random, bytes))
            .collect(),
        _ => (0..random.usize(4..12))
            .map(|_| random.usize(..=bytes.len()))
            .collect(),
    };
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts.into_iter().chain([bytes.len()]) {
        if cut > from {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
    }
    pieces
}

pub fn pick<T: Copy>(random: &mut Rng, from: &[T]) -> T {
    from[random.usize(..from.len())]
}

fn some<'a, T>(random: &mut Rng, from: &'a mut [T]) -> Option<&'a mut T> {
    match from.len() {
        0 => None,
        length => from.get_mut(random.usize(..length)),
    }
}
