//! The fields of a head: read without copying them, and written so that no value can end a line
//! early.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use std::ops::Range;

/// The fields of a head that was read, in their order. Names are in lowercase, values without the
/// blanks around them.
#[derive(Debug)]
pub struct Fields {
    head: Bytes,
    places: Vec<FieldSpan>,
}

/// The place of a field in its head, in bytes from its beginning.
#[derive(Clone, Debug)]
pub(crate) struct FieldSpan {
    name: Range<u32>,
    value: Range<u32>,
}

/// A field that was read: there is no line end in it.
#[derive(Clone, Copy)]
pub struct Field<'h> {
    name: &'h [u8],
    value: &'h [u8],
}

impl<'h> Field<'h> {
    /// In lowercase.
    pub fn name(self) -> &'h [u8] {
        self.name
    }

    /// Without the blanks around it.
    pub fn value(self) -> &'h [u8] {
        self.value
    }
}

impl<'h> From<(&'h HeaderName, &'h HeaderValue)> for Field<'h> {
    fn from((name, value): (&'h HeaderName, &'h HeaderValue)) -> Self {
        Self {
            name: name.as_str().as_bytes(),
            value: value.as_bytes(),
        }
    }
}

/// A head is shorter than 4 GiB.
fn part(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl FieldSpan {
    /// Of fields that were parsed from the front of `input`.
    pub(crate) fn of(parsed: &[httparse::Header<'_>], input: &[u8]) -> Vec<Self> {
        let at = |part: &[u8]| {
            let begin = (part.as_ptr() as usize - input.as_ptr() as usize) as u32;
            begin..begin + part.len() as u32
        };
        let place = |field: &httparse::Header<'_>| Self {
            name: at(field.name.as_bytes()),
            value: match field.value.is_empty() {
                true => 0..0,
                false => at(field.value),
            },
        };
        parsed.iter().map(place).collect()
    }
}

impl Fields {
    /// Takes a head of `length` bytes off the front of `input`. Each field may stand in it twice.
    pub(crate) fn take(input: &mut BytesMut, length: usize, places: Vec<FieldSpan>) -> Self {
        let mut head = input.split_to(length);
        for place in &places {
            head[part(&place.name)].make_ascii_lowercase();
        }
        Self {
            head: head.freeze(),
            places,
        }
    }

    /// Fields that came as pairs of a name in lowercase and a value, neither with a line end.
    pub(crate) fn of_pairs<'p>(pairs: impl Iterator<Item = (&'p [u8], &'p [u8])>) -> Self {
        let (mut head, mut places) = (BytesMut::with_capacity(1024), Vec::with_capacity(16));
        for (name, value) in pairs {
            let mut add = |part: &[u8], after: &[u8]| {
                let begin = head.len() as u32;
                head.extend_from_slice(part);
                let end = head.len() as u32;
                head.extend_from_slice(after);
                begin..end
            };
            let name = add(name, b": ");
            let value = add(value.trim_ascii(), b"\r\n");
            places.push(FieldSpan { name, value });
        }
        Self {
            head: head.freeze(),
            places,
        }
    }

    /// The number of fields.
    pub fn count(&self) -> usize {
        self.places.len()
    }

    /// The bytes of the head.
    pub(crate) fn head(&self) -> &Bytes {
        &self.head
    }

    fn field(&self, place: &FieldSpan) -> Field<'_> {
        Field {
            name: &self.head[part(&place.name)],
            value: &self.head[part(&place.value)],
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| self.field(place))
    }

    /// The values under a name (lowercase).
    pub fn get_all<'f>(&'f self, name: &str) -> impl DoubleEndedIterator<Item = &'f [u8]> {
        let named = move |place: &&FieldSpan| {
            (place.name.end - place.name.start) as usize == name.len()
                && self.head[part(&place.name)] == *name.as_bytes()
        };
        let values = self.places.iter().filter(named);
        values.map(|place| &self.head[part(&place.value)])
    }

    /// The first value under a name (lowercase).
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Whether there is a field of this name (lowercase).
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether some name stands twice.
    pub fn has_repeated(&self) -> bool {
        // Names of lengths that are all different are different themselves, and so it is with
        // nearly every request.
        let bit = |place: &FieldSpan| 1_u64 << ((place.name.end - place.name.start) & 63);
        let distinct = self.places.iter().try_fold(0, |lengths, place| {
            (lengths & bit(place) == 0).then_some(lengths | bit(place))
        });
        if distinct.is_some() {
            return false;
        }
        let name = |place: &FieldSpan| &self.head[part(&place.name)];
        self.places.iter().enumerate().any(|(nth, place)| {
            let length = place.name.end - place.name.start;
            self.places[..nth].iter().any(|other| {
                other.name.end - other.name.start == length && name(other) == name(place)
            })
        })
    }

    /// Keeps those of which this holds.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let head = &self.head;
        self.places.retain(|place| keep(&head[part(&place.name)]));
    }
}

/// Whether a text is visible ASCII and spaces. Eight bytes are looked at in one go, the last eight
/// perhaps twice.
fn is_plain(text: &[u8]) -> bool {
    let is_odd = |byte: &u8| *byte < b' ' || *byte > b'~';
    let Some(last) = text.last_chunk() else {
        return !text.iter().any(is_odd);
    };
    let (words, _) = text.as_chunks();
    let odd = words
        .iter()
        .fold(odd_bytes(*last), |odd, word| odd | odd_bytes(*word));
    odd == 0
}

/// Zero when each of the bytes is from ` ` to `~`. The highest bit of a byte is set in three cases:
/// it is below ` ` (the subtraction borrows), it is DEL (the addition carries), or it had the bit.
/// A neighbour's borrow or carry comes only from such a byte.
fn odd_bytes(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let word = u64::from_le_bytes(bytes);
    let below = word.wrapping_sub(ONES * 0x20);
    let del = word.wrapping_add(ONES);
    (below | del | word) & (ONES * 0x80)
}

/// The lines of a head that is being written.
#[derive(Debug, Default)]
pub struct HeadWriter(Vec<u8>);

impl HeadWriter {
    /// Appends to this memory.
    pub fn new(memory: Vec<u8>) -> Self {
        Self(memory)
    }

    /// A first line, of parts that hold no line end.
    pub(crate) fn first<const N: usize>(&mut self, parts: [&str; N]) {
        for part in parts {
            self.0.extend_from_slice(part.as_bytes());
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// A field as it came.
    pub fn field(&mut self, field: Field<'_>) {
        self.0.reserve(field.name.len() + field.value.len() + 4);
        for part in [field.name, b": ", field.value, b"\r\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// Fields of our own, whole lines with their ends.
    pub fn fixed(&mut self, lines: &'static str) {
        self.0.extend_from_slice(lines.as_bytes());
    }

    /// Fields of our own, whole lines with their ends, in pieces that are known to hold nothing that
    /// ends a line early: ids and numbers.
    // With few pieces the loop goes, and literal ones are copied without a call.
    #[inline(always)]
    pub(crate) fn own<const N: usize>(&mut self, pieces: [&str; N]) {
        for piece in pieces {
            self.0.extend_from_slice(piece.as_bytes());
        }
    }

    /// A field of our own. Left out when the text is anything but visible ASCII and spaces.
    pub fn text(&mut self, name: &'static str, text: impl AsRef<[u8]>) {
        let begin = self.0.len();
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        self.0.extend_from_slice(text.as_ref());
        // All of the line at once, which is quicker than piece by piece.
        if is_plain(&self.0[begin..]) {
            self.0.extend_from_slice(b"\r\n");
        } else {
            self.0.truncate(begin);
        }
    }

    /// A list: the values that `read` has under this name, as they came, and then our own. Our own
    /// is left out when it is anything but visible ASCII and spaces.
    pub fn list(&mut self, name: &'static str, read: &Fields, last: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b": ");
        for value in read.get_all(name) {
            self.0.extend_from_slice(value);
            self.0.extend_from_slice(b", ");
        }
        if is_plain(last.as_bytes()) {
            self.0.extend_from_slice(last.as_bytes());
        }
        self.0.extend_from_slice(b"\r\n");
    }

    /// A field of our own, a number.
    pub fn number(&mut self, name: &'static str, number: u64) {
        let mut digits = itoa::Buffer::new();
        for part in [name, ": ", digits.format(number), "\r\n"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// Those of another head.
    pub fn append(&mut self, lines: &Self) {
        self.0.extend_from_slice(&lines.0);
    }

    /// The whole head, its empty line included.
    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_byte_anywhere_makes_a_text_that_is_not_plain() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    // Its neighbours are the ones next to what is odd.
                    for other in [b' ', b'~', b'a'] {
                        let mut text = vec![other; length];
                        text[at] = byte;
                        let expected = (b' '..=b'~').contains(&byte);
                        assert_eq!(is_plain(&text), expected, "{text:?}");
                    }
                }
            }
        }
    }
}
