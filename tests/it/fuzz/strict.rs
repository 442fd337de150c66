//! A strict reading of HTTP/1.1 (RFC 9112), written for the tests alone: nothing of the gate's
//! reader is in it.
//!
//! What is no message here must not be one to the gate. In three things it is as mild as servers in
//! use are, for none of them moves the end of a message: empty lines before a request, blanks after
//! the size of a chunk, and a status line without its last blank.

use std::fmt;

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bad {
    /// They may be the beginning of one.
    Short,
    /// Whatever follows, they are none.
    Wrong,
}

/// The size of a chunk is told in fewer bytes.
const LINE_BYTES: usize = 4 * 1024 - 2;

type Parsed<'i, T> = Result<(T, &'i [u8]), Bad>;

/// Names in lowercase, values without the blanks around them.
pub type Fields = Vec<(String, Vec<u8>)>;

#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub target: Vec<u8>,
    pub fields: Fields,
    pub body: Vec<u8>,
    /// Nothing that follows it on its connection is a request.
    pub closes: bool,
}

/// What stands behind the last whole request.
#[derive(Debug)]
pub enum Tail {
    /// Nothing.
    End,
    /// What does not count: the request before it closes the connection.
    Ignored,
    /// A head that is malformed or not whole.
    Head,
    /// A whole head whose body is malformed or not whole.
    Body(Request),
}

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub end: End,
    /// Another answer may follow on the connection.
    pub persists: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.escape_ascii();
        let (fields, body) = (shown(&self.fields), cut(&self.body));
        write!(f, "[{} {target}{fields}, body {body}]", self.method)
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fields, body) = (shown(&self.fields), cut(&self.body));
        let after = if self.persists { "stays" } else { "closes" };
        write!(
            f,
            "[{}{fields}, body {:?} {body}, {after}]",
            self.status, self.end
        )
    }
}

fn shown(fields: &Fields) -> String {
    let shown = fields
        .iter()
        .map(|(name, value)| format!(", {name}: {}", cut(value)));
    shown.collect()
}

/// Not all of long data.
fn cut(data: &[u8]) -> String {
    match data.len() {
        0..400 => format!("\"{}\"", data.escape_ascii()),
        length => format!("\"{}\".. of {length} bytes", data[..200].escape_ascii()),
    }
}

/// How the body of an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Where its framing says.
    Whole,
    /// Before that, or it has not ended yet.
    Short,
    /// With a mistake.
    Wrong,
}

pub fn values<'f>(fields: &'f Fields, name: &str) -> Vec<&'f [u8]> {
    let named = fields.iter().filter(|(known, _)| known == name);
    named.map(|(_, value)| &**value).collect()
}

/// Every request of a connection on which just this was sent.
pub fn requests(mut input: &[u8]) -> (Vec<Request>, Tail) {
    let mut whole: Vec<Request> = Vec::new();
    loop {
        if whole.last().is_some_and(|request| request.closes) {
            return (whole, Tail::Ignored);
        }
        while let Some(rest) = input.strip_prefix(b"\r\n") {
            input = rest;
        }
        if input.is_empty() {
            return (whole, Tail::End);
        }
        match request(input) {
            Ok((request, End::Whole, rest)) => {
                whole.push(request);
                input = rest;
            }
            Ok((request, _, _)) => return (whole, Tail::Body(request)),
            Err(_) => return (whole, Tail::Head),
        }
    }
}

/// One request, and how its body ended.
pub fn request(input: &[u8]) -> Result<(Request, End, &[u8]), Bad> {
    let (first, rest) = line(input)?;
    let mut words = first.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad::Wrong);
    };
    let minor = minor_version(version).ok_or(Bad::Wrong)?;
    let is_visible = |byte: &u8| !matches!(byte, 0..=b' ' | 0x7f);
    if !is_token(method) || target.is_empty() || !target.iter().all(is_visible) {
        return Err(Bad::Wrong);
    }
    let (fields, rest) = fields(rest)?;
    let lengths = values(&fields, "content-length");
    let codings = values(&fields, "transfer-encoding");
    let length = match *lengths {
        [] => None,
        [one] => Some(decimal(one).ok_or(Bad::Wrong)?),
        _ => return Err(Bad::Wrong),
    };
    let is_chunked = match *codings {
        [] => false,
        [one] if one.eq_ignore_ascii_case(b"chunked") && minor > 0 => true,
        _ => return Err(Bad::Wrong),
    };
    let says = |word| says(&fields, word);
    let closes =
        says("close") || (minor == 0 && !says("keep-alive")) || (is_chunked && length.is_some());
    let (body, end, rest) = match is_chunked {
        true => chunked(rest),
        false => sized(rest, length.unwrap_or(0)),
    };
    let request = Request {
        method: String::from_utf8_lossy(method).into_owned(),
        target: target.to_vec(),
        fields,
        body,
        closes,
    };
    Ok((request, end, rest))
}

/// The final answer to a request; `over`: no more bytes will come.
pub fn answer<'i>(
    mut input: &'i [u8],
    method: &str,
    over: bool,
) -> Result<(Answer, &'i [u8]), Bad> {
    loop {
        let (first, rest) = line(input)?;
        let minor = first
            .get(..8)
            .and_then(minor_version)
            // Nobody answers in a version above that of the request.
            .filter(|minor| *minor <= 1 && first.get(8) == Some(&b' '))
            .ok_or(Bad::Wrong)?;
        let (digits, reason) = first[9..].split_at_checked(3).ok_or(Bad::Wrong)?;
        let status = decimal(digits).filter(|status| *status >= 100);
        let status = status.ok_or(Bad::Wrong)? as u16;
        if !(reason.is_empty() || reason[0] == b' ' && reason.iter().all(is_text)) {
            return Err(Bad::Wrong);
        }
        let (fields, rest) = fields(rest)?;
        if status == 101 {
            return Err(Bad::Wrong);
        }
        if status < 200 {
            input = rest;
            continue;
        }
        let mut length = None;
        for list in values(&fields, "content-length") {
            for one in list.split(|byte| *byte == b',') {
                let one = decimal(trim(one)).ok_or(Bad::Wrong)?;
                if length.replace(one).is_some_and(|before| before != one) {
                    return Err(Bad::Wrong);
                }
            }
        }
        let codings = values(&fields, "transfer-encoding");
        let (body, end, rest, until_close) = match *codings {
            _ if method == "HEAD" || matches!(status, 204 | 304) => {
                (Vec::new(), End::Whole, rest, false)
            }
            [] => match length {
                Some(length) => {
                    let (body, end, rest) = sized(rest, length);
                    (body, end, rest, false)
                }
                None => {
                    let end = if over { End::Whole } else { End::Short };
                    (rest.to_vec(), end, &rest[rest.len()..], true)
                }
            },
            [one] if one.eq_ignore_ascii_case(b"chunked") && minor > 0 && length.is_none() => {
                let (body, end, rest) = chunked(rest);
                (body, end, rest, false)
            }
            _ => return Err(Bad::Wrong),
        };
        let says = |word| says(&fields, word);
        let persists = !until_close
            && !says("close")
            && (minor > 0 || says("keep-alive"))
            && end == End::Whole;
        let answer = Answer {
            status,
            fields,
            body,
            end,
            persists,
        };
        return Ok((answer, rest));
    }
}

/// A line without its CRLF. A CR or LF alone is in no line.
fn line(input: &[u8]) -> Parsed<'_, &[u8]> {
    let end = input.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let end = end.ok_or(Bad::Short)?;
    match (input[end], input.get(end + 1)) {
        (b'\r', Some(b'\n')) => Ok((&input[..end], &input[end + 2..])),
        (b'\r', None) => Err(Bad::Short),
        _ => Err(Bad::Wrong),
    }
}

/// Field lines up to the empty one, which is taken too.
fn fields(mut input: &[u8]) -> Parsed<'_, Fields> {
    let mut fields = Vec::new();
    loop {
        let (one, rest) = line(input)?;
        input = rest;
        if one.is_empty() {
            return Ok((fields, input));
        }
        let colon = one.iter().position(|byte| *byte == b':');
        let (name, value) = one.split_at(colon.ok_or(Bad::Wrong)?);
        if !is_token(name) || !value[1..].iter().all(is_text) {
            return Err(Bad::Wrong);
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.push((name, trim(&value[1..]).to_vec()));
    }
}

fn sized(input: &[u8], length: u64) -> (Vec<u8>, End, &[u8]) {
    match usize::try_from(length) {
        Ok(length) if length <= input.len() => {
            let (body, rest) = input.split_at(length);
            (body.to_vec(), End::Whole, rest)
        }
        _ => (input.to_vec(), End::Short, &input[input.len()..]),
    }
}

fn chunked(mut input: &[u8]) -> (Vec<u8>, End, &[u8]) {
    let mut body = Vec::new();
    let end = loop {
        match chunk(input, &mut body) {
            Ok((true, rest)) => {
                input = rest;
                break End::Whole;
            }
            Ok((false, rest)) => input = rest,
            Err(Bad::Short) => break End::Short,
            Err(Bad::Wrong) => break End::Wrong,
        }
    };
    (body, end, input)
}

/// A chunk; whether it was the last one, its trailers taken too.
fn chunk<'i>(input: &'i [u8], body: &mut Vec<u8>) -> Parsed<'i, bool> {
    let (size, rest) = match line(input) {
        Err(Bad::Short) if input.len() > LINE_BYTES => return Err(Bad::Wrong),
        line => line?,
    };
    let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (digits, extension) = size.split_at(digits.count());
    let extension = trim(extension);
    if !extension.is_empty() && (extension[0] != b';' || !extension.iter().all(is_text)) {
        return Err(Bad::Wrong);
    }
    let size = digits.iter().try_fold(0_u64, |size, digit| {
        let digit = (*digit as char).to_digit(16)?;
        size.checked_mul(16)?.checked_add(digit.into())
    });
    let size = size.filter(|_| !digits.is_empty()).ok_or(Bad::Wrong)?;
    if size == 0 {
        let (_, rest) = fields(rest)?;
        return Ok((true, rest));
    }
    let (data, end, rest) = sized(rest, size);
    body.extend_from_slice(&data);
    match (end, rest) {
        (End::Whole, [b'\r', b'\n', rest @ ..]) => Ok((false, rest)),
        (End::Whole, [] | [b'\r']) | (End::Short, _) => Err(Bad::Short),
        _ => Err(Bad::Wrong),
    }
}

/// The minor version of HTTP/1.
fn minor_version(version: &[u8]) -> Option<u8> {
    match version {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            minor @ b'0'..=b'9',
        ] => Some(minor - b'0'),
        _ => None,
    }
}

fn says(fields: &Fields, word: &str) -> bool {
    let lines = values(fields, "connection");
    let mut words = lines
        .iter()
        .flat_map(|line| line.split(|byte| *byte == b','));
    words.any(|said| trim(said).eq_ignore_ascii_case(word.as_bytes()))
}

fn is_token(word: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !word.is_empty() && word.iter().all(is_tchar)
}

fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(digit.into())
    });
    number.filter(|_| !digits.is_empty())
}
