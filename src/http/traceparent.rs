//! The trace that a call belongs to, as its client says it (W3C Trace Context, level 1).
//!
//! Pure. Must never take a value that the next reader may understand otherwise.

use crate::http::Fields;
use crate::http::names::TRACEPARENT;
use std::fmt;

/// The bytes of version 00, and the least of a later one.
const LENGTH: usize = 55;

/// What the head of a call says of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Trace {
    /// Nothing.
    Absent,
    /// The call is a part of this one.
    Of(TraceParent),
    /// Something that is none: whoever reads it next must not see it, nor the `tracestate` beside it.
    Malformed,
}

/// The trace of a call, and the span within it that made the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TraceParent {
    version: u8,
    trace_id: [u8; 16],
    parent_id: [u8; 8],
    flags: u8,
}

impl Trace {
    /// What these fields say.
    pub(crate) fn of(fields: &Fields) -> Self {
        let mut values = fields.get_all(TRACEPARENT);
        match (values.next(), values.next()) {
            (None, _) => Self::Absent,
            (Some(value), None) => TraceParent::read(value).map_or(Self::Malformed, Self::Of),
            (Some(_), Some(_)) => Self::Malformed,
        }
    }

    /// The trace, if there is one.
    pub(crate) fn parent(self) -> Option<TraceParent> {
        match self {
            Self::Of(parent) => Some(parent),
            Self::Absent | Self::Malformed => None,
        }
    }
}

impl TraceParent {
    fn read(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let hyphens = [2, 35, 52].map(|at| known.get(at) == Some(&b'-'));
        let mut parent = Self {
            version: byte(known.get(..2)?)?,
            trace_id: [0; 16],
            parent_id: [0; 8],
            flags: byte(known.get(53..)?)?,
        };
        read_hex(known.get(3..35)?, &mut parent.trace_id)?;
        read_hex(known.get(36..52)?, &mut parent.parent_id)?;
        // A later version may have more behind a hyphen.
        let ends = match (parent.version, rest.first()) {
            (_, None) => true,
            (0, Some(_)) => false,
            (_, Some(next)) => *next == b'-',
        };
        let is_one = hyphens == [true; 3]
            && ends
            && parent.version != 0xff
            && parent.trace_id != [0; 16]
            && parent.parent_id != [0; 8];
        is_one.then_some(parent)
    }
}

fn byte(text: &[u8]) -> Option<u8> {
    let mut byte = [0];
    read_hex(text, &mut byte)?;
    Some(byte[0])
}

/// Lowercase alone: another reader takes no other.
fn read_hex(text: &[u8], into: &mut [u8]) -> Option<()> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match text.iter().all(is_digit) {
        true => hex::decode_to_slice(text, into).ok(),
        false => None,
    }
}

impl fmt::Display for TraceParent {
    /// As it came, without what a later version has behind it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace_id, parent_id) = (hex::encode(self.trace_id), hex::encode(self.parent_id));
        let (version, flags) = (self.version, self.flags);
        write!(f, "{version:02x}-{trace_id}-{parent_id}-{flags:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::request_head;

    const SOUND: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Trace {
        let lines = values
            .iter()
            .map(|value| format!("TraceParent: {value}\r\n"));
        let lines: String = lines.collect();
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        let head = request_head(&mut bytes::BytesMut::from(head.as_str()));
        Trace::of(&head.unwrap().unwrap().fields)
    }

    #[test]
    fn a_trace_is_read_and_written_again_as_it_came() {
        assert_eq!(of(&[]), Trace::Absent);
        for value in [
            SOUND,
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
        ] {
            assert_eq!(of(&[value]).parent().unwrap().to_string(), value);
        }
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let more = format!("{later}-what-comes-with-it");
        assert_eq!(of(&[&more]).parent().unwrap().to_string(), later);
    }

    #[test]
    fn whatever_is_no_trace_is_malformed_and_so_are_two() {
        assert_eq!(of(&[SOUND, SOUND]), Trace::Malformed);
        for value in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(&[value]), Trace::Malformed, "{value}");
        }
    }
}
