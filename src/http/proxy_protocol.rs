//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before the client's own
//! bytes.
//!
//! Owns where such a header ends. Must never take a byte that follows it.
//!
//! # Decided
//! - **A parser of our own.** `ppp` checks no checksum, `proxy-header` has one small release; both
//!   have more types than this file has lines.

use crate::http::SocketRef;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::Interest;

/// The most bytes of a header of version 1, with its line end.
const TEXT_BYTES: usize = 107;
/// The most bytes of a header of version 2. The addresses take at most 232 of them; the rest is
/// for extensions such as the names of a certificate.
const BINARY_BYTES: usize = 4 * 1024;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The bytes before the addresses of version 2.
const FIXED_BYTES: usize = 16;
/// The extension that holds a checksum.
const CRC32C: u8 = 0x03;

/// A whole header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ProxyHeader {
    /// Its length.
    pub(crate) bytes: usize,
    /// The address of the client; `None` when the connection is the proxy's own, or when it does
    /// not say.
    pub(crate) client: Option<IpAddr>,
}

/// The bytes begin no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotAHeader;

/// Why there is no header.
#[derive(Debug)]
pub(crate) enum NoHeader {
    /// The peer closed the connection, or it broke, before a byte had come.
    Gone,
    /// Something else came, or only a part of one.
    Other,
}

/// The header at the front of `input`; `None` while it is not whole.
pub(crate) fn proxy_header(input: &[u8]) -> Result<Option<ProxyHeader>, NotAHeader> {
    if begins_as(input, b"PROXY ") {
        text(input)
    } else if begins_as(input, SIGNATURE) {
        binary(input)
    } else {
        Err(NotAHeader)
    }
}

/// Whether `input`, as far as it has come, begins with `whole`.
fn begins_as(input: &[u8], whole: &[u8]) -> bool {
    input.iter().zip(whole).all(|(one, other)| one == other)
}

fn text(input: &[u8]) -> Result<Option<ProxyHeader>, NotAHeader> {
    let within = &input[..input.len().min(TEXT_BYTES)];
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        return match input.len() < TEXT_BYTES {
            true => Ok(None),
            false => Err(NotAHeader),
        };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(NotAHeader)?;
    let mut words = line.split(|byte| *byte == b' ').skip(1);
    let client = match words.next() {
        // Whatever stands behind it says nothing.
        Some(b"UNKNOWN") => None,
        Some(b"TCP4") => Some(IpAddr::V4(source(words)?)),
        Some(b"TCP6") => Some(IpAddr::V6(source(words)?)),
        _ => return Err(NotAHeader),
    };
    Ok(Some(header(end + 1, client)))
}

/// The first of two addresses with their ports.
fn source<'a, A: std::str::FromStr>(
    mut words: impl Iterator<Item = &'a [u8]>,
) -> Result<A, NotAHeader> {
    let mut word = || std::str::from_utf8(words.next()?).ok();
    let mut address = || word()?.parse::<A>().ok();
    let (source, _destination) = address().zip(address()).ok_or(NotAHeader)?;
    let mut port = || {
        let digits = word()?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        digits.parse::<u16>().ok().filter(|_| is_plain)
    };
    port().zip(port()).ok_or(NotAHeader)?;
    match words.next() {
        None => Ok(source),
        Some(_) => Err(NotAHeader),
    }
}

fn binary(input: &[u8]) -> Result<Option<ProxyHeader>, NotAHeader> {
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let whole = FIXED_BYTES + length;
    if whole > BINARY_BYTES || !matches!(command, 0x20 | 0x21) {
        return Err(NotAHeader);
    }
    let Some(block) = rest.get(..length) else {
        return Ok(None);
    };
    // A connection of the proxy's own, such as a health check: the rest says nothing.
    if command == 0x20 {
        return Ok(Some(header(whole, None)));
    }
    if family & 0x0f > 2 {
        return Err(NotAHeader);
    }
    let (client, extensions) = match family >> 4 {
        0 => return Ok(Some(header(whole, None))),
        1 => {
            let (pair, rest) = block.split_first_chunk::<12>().ok_or(NotAHeader)?;
            let [a, b, c, d, ..] = *pair;
            (Some(Ipv4Addr::new(a, b, c, d).into()), rest)
        }
        2 => {
            let (pair, rest) = block.split_first_chunk::<36>().ok_or(NotAHeader)?;
            let (source, _) = pair.split_first_chunk::<16>().ok_or(NotAHeader)?;
            (Some(Ipv6Addr::from(*source).into()), rest)
        }
        // Two paths of Unix sockets.
        3 => (None, block.get(216..).ok_or(NotAHeader)?),
        _ => return Err(NotAHeader),
    };
    check(&input[..whole], extensions)?;
    Ok(Some(header(whole, client)))
}

fn header(bytes: usize, client: Option<IpAddr>) -> ProxyHeader {
    let client = client.map(|client| client.to_canonical());
    ProxyHeader { bytes, client }
}

/// Checks the frame of the extensions, which end the header, and its checksum if there is one. What
/// else they say is passed over.
fn check(header: &[u8], mut extensions: &[u8]) -> Result<(), NotAHeader> {
    while let Some((first, rest)) = extensions.split_first_chunk::<3>() {
        let [kind, high, low] = *first;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(NotAHeader)?;
        if kind == CRC32C {
            let at = header.len() - rest.len() - length;
            let sum: [u8; 4] = value.try_into().map_err(|_| NotAHeader)?;
            // It was made with zeros in its own place.
            let zeros = at..at + length;
            let summed = header.iter().enumerate().map(|(place, byte)| {
                let is_own = zeros.contains(&place);
                if is_own { 0 } else { *byte }
            });
            if crc32c(summed) != u32::from_be_bytes(sum) {
                return Err(NotAHeader);
            }
        }
        extensions = rest;
    }
    match extensions {
        [] => Ok(()),
        _ => Err(NotAHeader),
    }
}

/// The checksum of RFC 3720, appendix B.4.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let shifted = |sum: u32, _| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    !bytes.fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(byte), shifted))
}

/// Reads the header with which a connection begins, and not a byte more: who the client is. Waits
/// as long as it takes.
pub(crate) async fn read_proxy_header(socket: SocketRef<'_>) -> Result<Option<IpAddr>, NoHeader> {
    let mut come = Vec::new();
    let lost = |come: &Vec<u8>| match come.is_empty() {
        true => NoHeader::Gone,
        false => NoHeader::Other,
    };
    loop {
        socket
            .ready(Interest::READABLE)
            .await
            .map_err(|_| lost(&come))?;
        match socket.try_io(Interest::READABLE, || take(socket, &mut come)) {
            Ok(Taken::Part) => {}
            Ok(Taken::Whole(header)) => return Ok(header.client),
            Ok(Taken::End) => return Err(lost(&come)),
            Ok(Taken::Other) => return Err(NoHeader::Other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(lost(&come)),
        }
    }
}

enum Taken {
    Part,
    Whole(ProxyHeader),
    /// No more comes.
    End,
    Other,
}

/// Looks at what has come, and takes as much of it as is of the header.
fn take(socket: SocketRef<'_>, come: &mut Vec<u8>) -> io::Result<Taken> {
    use rustix::net::{RecvFlags, recv};
    let before = come.len();
    come.resize(BINARY_BYTES, 0);
    let seen = recv(socket, &mut come[before..], RecvFlags::PEEK);
    come.truncate(before + seen.map_or(0, |(seen, _)| seen));
    let (seen, _) = seen?;
    if seen == 0 {
        return Ok(Taken::End);
    }
    let Ok(header) = proxy_header(come) else {
        return Ok(Taken::Other);
    };
    let of_header = header.map_or(seen, |header| header.bytes - before);
    let (taken, _) = recv(
        socket,
        &mut come[before..before + of_header],
        RecvFlags::empty(),
    )?;
    if taken != of_header {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(header.map_or(Taken::Part, Taken::Whole))
}

#[cfg(test)]
mod tests;
