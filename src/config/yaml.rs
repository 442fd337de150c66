//! YAML text -> a tree in which every node knows its place.
//!
//! Owns the only use of `serde_yaml`. Must never judge what a value means, and never put a value
//! into a message: it may be a secret.
//!
//! The parser has no spans, but it attaches the mark of a scalar to every error that a visitor
//! returns for it. So the visitor keeps the scalar, refuses it, and reads its place off the error;
//! the scalar's event has been consumed by then, so the parser goes on behind it.
//!
//! An error costs several times what a scalar does, and the parser holds every event of a document at
//! once, which takes twenty times the text. So a large file is read without places and in pieces first,
//! and once more as a whole and with places when there is something to say about it.

use crate::config::{Mistake, punctuation};
use serde::de::{
    self, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::Path;

/// Line and column in a file, both from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::config) struct Place {
    pub line: u32,
    pub column: u32,
}

impl Place {
    pub(in crate::config) const START: Self = Self { line: 1, column: 1 };

    fn of_offset(text: &[u8], offset: usize) -> Self {
        let before = String::from_utf8_lossy(text.get(..offset).unwrap_or(text));
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::of(line, column)
    }

    fn of(line: usize, column: usize) -> Self {
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: count(line),
            column: count(column),
        }
    }
}

/// A value and where it stands. A list or map that is a value stands at its key, one that is an
/// element stands at its first scalar.
///
/// No `Debug`: it may hold a secret.
pub(in crate::config) struct Node {
    pub place: Place,
    pub value: Value,
}

/// What YAML makes of a value.
pub(in crate::config) enum Value {
    Null,
    Bool(bool),
    /// What some version of YAML takes for a number, as it is written: also `0x1F`, `+5`, and `007`, which one
    /// version reads as 7, another as octal and a third as text.
    Number(String),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file, repeated keys included.
    Map(Vec<(Node, Node)>),
    /// `!tag` and whatever follows it; of `!!map` and `!!seq` what follows it.
    Tagged,
}

/// Whether the nodes' places are wanted; without them every node stands at the file's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Places {
    Wanted,
    Skipped,
}

/// The tree of a file that holds one document; else the one mistake that hides the others.
pub(in crate::config) fn parse(file: &Path, bytes: &[u8], places: Places) -> Result<Node, Mistake> {
    let mistake = |place: Place, message: String| Mistake {
        file: file.to_path_buf(),
        line: place.line,
        column: place.column,
        message,
    };
    let text = std::str::from_utf8(bytes).map_err(|e| {
        mistake(
            Place::of_offset(bytes, e.valid_up_to()),
            "not UTF-8 text: save the file as UTF-8".to_owned(),
        )
    })?;
    if let Some((place, why)) = punctuation::too_deep(text) {
        return Err(mistake(place, why));
    }
    let progress = Progress {
        // An alias is known by its place only, and begins with an asterisk.
        placed: places == Places::Wanted || bytes.contains(&b'*') || hides_its_spelling(bytes),
        last: Cell::new(None),
        alias: Cell::new(None),
        walk: RefCell::new(Walk::new(text)),
    };
    let seed = Seed {
        progress: &progress,
        at: None,
        parent: Place::START,
    };
    let node = seed
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|e| {
            let (place, message) = syntax(text, &e);
            mistake(place, message)
        })?;
    if let Some(before) = progress.alias.get() {
        return Err(mistake(
            before,
            "an alias (`*name`) follows here: aliases are not supported, write the value out"
                .to_owned(),
        ));
    }
    Ok(node)
}

/// Cuts the text of a file that holds nothing but a map of maps under `key`, the usual way of writing one,
/// into texts of at least `least` bytes, save the last, that each hold some entries of the inner map; `None` when it is written in another way.
///
/// It cuts only before a line that is indented as the first entry is. What stands before such a line and
/// is whole YAML in itself (nothing open, a map) is the same in the file: no scalar and no block goes on
/// there. So the pieces are the file's if each of them is a map, and the caller refuses any other.
pub(in crate::config) fn pieces<'t>(
    text: &'t str,
    key: &str,
    least: usize,
) -> Option<Vec<&'t str>> {
    let mut indent = None;
    let mut pieces = Vec::new();
    let mut begin = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let from = at;
        at += line.len();
        let content = line.trim_start_matches(' ');
        if content.trim().is_empty() || content.starts_with('#') {
            continue;
        }
        let indented = line.len() - content.len();
        let Some(start) = begin else {
            let rest = line.strip_prefix(key)?.strip_prefix(':')?;
            if !(rest.trim().is_empty() || rest.starts_with(" #")) {
                return None;
            }
            begin = Some(at);
            continue;
        };
        // What stands before the first entry goes with it.
        let Some(entries) = indent else {
            if indented == 0 {
                return None;
            }
            indent = Some(indented);
            continue;
        };
        if indented < entries {
            return None;
        }
        if indented == entries && from - start >= least {
            pieces.push(&text[start..from]);
            begin = Some(from);
        }
    }
    pieces.push(&text[begin?..]);
    Some(pieces)
}

/// Place and message of an error that the parser itself raised.
fn syntax(text: &str, error: &serde_yaml::Error) -> (Place, String) {
    let said = error.to_string();
    let mut place = error
        .location()
        .map_or(Place::START, |at| Place::of(at.line(), at.column()));
    // A character that YAML forbids is reported by its byte offset alone.
    let forbidden = said
        .rsplit_once(" at position ")
        .and_then(|(_, offset)| offset.parse().ok());
    if let Some(offset) = forbidden {
        place = Place::of_offset(text.as_bytes(), offset);
    }
    if said.contains("invalid value: string") {
        // The parser quotes the value, which may be a secret.
        return (
            place,
            "this value does not fit its tag: remove the tag".to_owned(),
        );
    }
    if said.contains("more than one document") {
        return (
            place,
            "more than one YAML document: keep one, without `---` after it".to_owned(),
        );
    }
    if forbidden.is_none()
        && let Some((place, cause)) = punctuation::likely_cause(text, place)
    {
        return (place, format!("not valid YAML: {cause}"));
    }
    let own = format!(" at line {} column {}", place.line, place.column);
    let said = said.replacen(&own, "", 1);
    (
        place,
        format!("not valid YAML: {said}; check indentation, brackets and quotes here"),
    )
}

/// Scalars come in the order of the text, save those behind an alias: they stand at its anchor.
struct Progress<'t> {
    placed: bool,
    /// And whether it took any room: a value that is left out stands where the next scalar does.
    last: Cell<Option<(Place, bool)>>,
    alias: Cell<Option<Place>>,
    /// Up to the last scalar.
    walk: RefCell<Walk<'t>>,
}

/// Goes through a text and counts places as the parser does, to which more than `\n` ends a line.
pub(in crate::config) struct Walk<'t> {
    rest: &'t str,
    at: Place,
}

impl<'t> Walk<'t> {
    pub(in crate::config) fn new(text: &'t str) -> Self {
        Self {
            rest: text,
            at: Place::START,
        }
    }

    /// The text from a place on, which is not before the last one.
    fn from(&mut self, place: Place) -> &'t str {
        while self.at < place && self.next().is_some() {}
        self.rest
    }
}

impl Iterator for Walk<'_> {
    type Item = (Place, char);

    fn next(&mut self) -> Option<(Place, char)> {
        let mut chars = self.rest.chars();
        let c = chars.next()?;
        self.rest = chars.as_str();
        let place = self.at;
        if is_break(c) && !(c == '\r' && self.rest.starts_with('\n')) {
            self.at.line = place.line.saturating_add(1);
            self.at.column = 1;
        } else {
            self.at.column = place.column.saturating_add(1);
        }
        Some((place, c))
    }
}

/// Whether it ends a line, to the parser.
pub(in crate::config) fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Whether the text may hold a number or a tag that the parser gives without its spelling. Sees more of them
/// than there are: also inside of text.
fn hides_its_spelling(text: &[u8]) -> bool {
    // The two bytes before: a scalar begins behind a blank, behind a bracket, or behind the colon of a
    // quoted key, and never behind the colon of a time of day.
    let mut before = [b' '; 2];
    for (at, byte) in text.iter().enumerate() {
        let begins = match before[1] {
            b':' => !before[0].is_ascii_alphanumeric(),
            byte => byte.is_ascii_whitespace() || b"[{,?".contains(&byte) || !byte.is_ascii(),
        };
        if begins && matches!(byte, b'0' | b'+' | b'-' | b'!') && is_spelled_oddly(&text[at..]) {
            return true;
        }
        before = [before[1], *byte];
    }
    false
}

/// Whether a scalar that begins here has a tag, or is a whole number with a plus, leading zeros or a base.
fn is_spelled_oddly(text: &[u8]) -> bool {
    let (sign, digits) = match text {
        [b'!', ..] => return true,
        [sign @ (b'+' | b'-'), digits @ ..] => (Some(sign), digits),
        _ => (None, text),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let digits = &digits[..end.unwrap_or(digits.len())];
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    match digits {
        [b'0', b'x' | b'o' | b'b', rest @ ..] => rest.iter().all(u8::is_ascii_hexdigit),
        [b'0'] => sign.is_some(),
        [b'0', _, ..] => is_decimal,
        _ => is_decimal && sign == Some(&b'+'),
    }
}

/// The value as it is written, which the parser does not tell. `written` begins where the scalar stands.
fn as_written(value: Value, written: &str) -> Value {
    let mut written = written;
    // An anchor that no alias follows.
    while let Some(anchor) = written.strip_prefix('&') {
        let behind = anchor.trim_start_matches(|c: char| !c.is_whitespace());
        written = behind.trim_start();
    }
    let is_plain = !written.starts_with(['"', '\'', '|', '>']);
    match value {
        _ if written.starts_with('!') => Value::Tagged,
        Value::Number(_) => {
            let ends = |c: char| c.is_whitespace() || ",[]{}:".contains(c);
            let end = written.find(ends).unwrap_or(written.len());
            Value::Number(written[..end].to_owned())
        }
        Value::Text(text) if is_plain && has_leading_zeros(&text) => Value::Number(text),
        value => value,
    }
}

/// Whether a null that stands here is not written at all.
fn is_left_out(written: &str) -> bool {
    let word = written.split(|c: char| !c.is_ascii_alphabetic()).next();
    let is_null = ["null", "Null", "NULL"].contains(&word.unwrap_or_default());
    !is_null && !written.starts_with(['~', '&', '!'])
}

fn has_leading_zeros(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

#[derive(Clone, Copy)]
struct Seed<'p> {
    progress: &'p Progress<'p>,
    /// The place of a list or map, when it is known beforehand: its key.
    at: Option<Place>,
    /// The place of what encloses it, for a list or map that holds nothing.
    parent: Place,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Node;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let mut scalar = None;
        let visitor = NodeVisitor {
            seed: self,
            scalar: &mut scalar,
        };
        match (deserializer.deserialize_any(visitor), scalar) {
            (Err(error), Some(value)) => {
                let place = place_of(&error.to_string());
                let written = self.progress.walk.borrow_mut().from(place);
                let takes_room = !(matches!(value, Value::Null) && is_left_out(written));
                match self.progress.last.get() {
                    Some((last, took_room)) if place < last || (place == last && took_room) => {
                        self.progress.alias.set(Some(last));
                    }
                    _ => self.progress.last.set(Some((place, takes_room))),
                }
                let value = as_written(value, written);
                Ok(Node { place, value })
            }
            (outcome, _) => outcome,
        }
    }
}

/// Reads `... at line 3 column 5`, which the parser appends; it appends nothing at the very start.
fn place_of(error: &str) -> Place {
    let marked = error.rsplit_once(" at line ").and_then(|(_, at)| {
        let (line, column) = at.split_once(" column ")?;
        Some(Place {
            line: line.parse().ok()?,
            column: column.parse().ok()?,
        })
    });
    marked.unwrap_or(Place::START)
}

struct NodeVisitor<'p, 's> {
    seed: Seed<'p>,
    scalar: &'s mut Option<Value>,
}

impl<'p> NodeVisitor<'p, '_> {
    /// Keeps the value and refuses it: see the head of this module.
    fn keep<E: de::Error>(self, value: Value) -> Result<Node, E> {
        if !self.seed.progress.placed {
            return Ok(Node {
                place: Place::START,
                value,
            });
        }
        *self.scalar = Some(value);
        Err(E::custom("kept"))
    }

    fn inner(&self) -> Seed<'p> {
        Seed {
            progress: self.seed.progress,
            at: None,
            parent: self.seed.at.unwrap_or(self.seed.parent),
        }
    }
}

impl<'de> Visitor<'de> for NodeVisitor<'_, '_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        self.keep(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, v: bool) -> Result<Node, E> {
        self.keep(Value::Bool(v))
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Node, E> {
        self.keep(Value::Number(v.to_string()))
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Node, E> {
        self.keep(Value::Number(v.to_string()))
    }

    fn visit_i128<E: de::Error>(self, v: i128) -> Result<Node, E> {
        self.keep(Value::Number(v.to_string()))
    }

    fn visit_u128<E: de::Error>(self, v: u128) -> Result<Node, E> {
        self.keep(Value::Number(v.to_string()))
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Node, E> {
        self.keep(Value::Number(format!("{v:?}")))
    }

    fn visit_str<E: de::Error>(self, v: &str) -> Result<Node, E> {
        self.keep(Value::Text(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Node, A::Error> {
        let inner = self.inner();
        let mut list = Vec::new();
        while let Some(element) = elements.next_element_seed(inner)? {
            list.push(element);
        }
        let first = list.first().map(|element| element.place);
        Ok(Node {
            place: self.seed.at.or(first).unwrap_or(self.seed.parent),
            value: Value::List(list),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let inner = self.inner();
        let mut map: Vec<(Node, Node)> = Vec::new();
        while let Some(key) = entries.next_key_seed(inner)? {
            let at = Some(key.place);
            let value = entries.next_value_seed(Seed { at, ..inner })?;
            map.push((key, value));
        }
        let first = map.first().map(|(key, _)| key.place);
        Ok(Node {
            place: self.seed.at.or(first).unwrap_or(self.seed.parent),
            value: Value::Map(map),
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        let (IgnoredAny, content) = tagged.variant()?;
        let node = content.newtype_variant_seed(self.seed)?;
        Ok(Node {
            place: node.place,
            value: Value::Tagged,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line per node: place, kind, text.
    fn outline(text: &str) -> Vec<String> {
        fn walk(node: &Node, out: &mut Vec<String>) {
            let what = match &node.value {
                Value::Null => "null".to_owned(),
                Value::Bool(b) => b.to_string(),
                Value::Number(n) => format!("number {n}"),
                Value::Text(t) => format!("{t:?}"),
                Value::List(_) => "list".to_owned(),
                Value::Map(_) => "map".to_owned(),
                Value::Tagged => "tagged".to_owned(),
            };
            out.push(format!("{}:{} {what}", node.place.line, node.place.column));
            match &node.value {
                Value::List(list) => list.iter().for_each(|n| walk(n, out)),
                Value::Map(map) => map.iter().for_each(|(k, v)| {
                    walk(k, out);
                    walk(v, out);
                }),
                _ => {}
            }
        }
        let mut out = Vec::new();
        match parse(Path::new("f"), text.as_bytes(), Places::Wanted) {
            Ok(node) => walk(&node, &mut out),
            Err(mistake) => out.push(mistake.to_string()),
        }
        out
    }

    #[test]
    fn every_scalar_knows_its_place_and_a_container_stands_at_its_key_or_first_scalar() {
        assert_eq!(
            outline("a: 1\n人: [x, {k: \"q\"}, []]\nb:\n  c: ~\n  d: 1.0\ne: true\n"),
            [
                "1:1 map",
                "1:1 \"a\"",
                "1:4 number 1",
                "2:1 \"人\"",
                "2:1 list",
                "2:5 \"x\"",
                "2:9 map",
                "2:9 \"k\"",
                "2:12 \"q\"",
                "2:1 list",
                "3:1 \"b\"",
                "3:1 map",
                "4:3 \"c\"",
                "4:6 null",
                "5:3 \"d\"",
                "5:6 number 1.0",
                "6:1 \"e\"",
                "6:4 true",
            ]
        );
    }

    #[test]
    fn repeated_keys_are_kept() {
        assert_eq!(
            outline("a: 7\na: 8\n"),
            [
                "1:1 map",
                "1:1 \"a\"",
                "1:4 number 7",
                "2:1 \"a\"",
                "2:4 number 8"
            ]
        );
    }

    #[test]
    fn a_number_keeps_its_spelling_and_a_scalar_with_a_tag_is_no_value() {
        for (written, read) in [
            ("0x3E8", "number 0x3E8"),
            ("0b11", "number 0b11"),
            ("0o12", "number 0o12"),
            ("+5", "number +5"),
            ("007", "number 007"),
            ("-007", "number -007"),
            ("+007", "number +007"),
            ("1e3", "number 1e3"),
            (".inf", "number .inf"),
            ("&x 0x1F", "number 0x1F"),
            ("0", "number 0"),
            ("0.5", "number 0.5"),
            ("-5", "number -5"),
            ("\"007\"", "\"007\""),
            ("'0x1F'", "\"0x1F\""),
            ("|-\n  007", "\"007\""),
            ("00a", "\"00a\""),
            ("1_000", "\"1_000\""),
            ("!!binary aGVsbG8=", "tagged"),
            ("!!str 7", "tagged"),
            ("!!str \"7\"", "tagged"),
            ("&x !!str 7", "tagged"),
            ("!<tag:yaml.org,2002:binary> aGVsbG8=", "tagged"),
        ] {
            // In a block, in a flow, after other lines, and where only the tree is wanted.
            for text in [
                format!("人: {written}\n"),
                format!("- [x, {{人: {written}}}]\n"),
                format!("- 'a\n\n  b' # c\r\n- {{\"人\":{written} }}\n"),
            ] {
                if text.contains("{") && written.contains('\n') {
                    continue;
                }
                let outline = outline(&text);
                let found = outline.last().map(|line| line.split_once(' ').unwrap().1);
                assert_eq!(found, Some(read), "{text}");
                let plain = parse(Path::new("f"), text.as_bytes(), Places::Skipped);
                let placed = parse(Path::new("f"), text.as_bytes(), Places::Wanted);
                let (Ok(plain), Ok(placed)) = (plain, placed) else {
                    panic!("{text}");
                };
                let is_float = [".inf", "1e3"].contains(&written);
                assert!(is_float || same(&plain, &placed), "{text}");
            }
        }
    }

    #[test]
    fn a_tag_is_seen_and_what_follows_it_is_read_on() {
        assert_eq!(
            outline("a: !x {b: 1}\nc: !y 2\nd: 3\n"),
            [
                "1:1 map",
                "1:1 \"a\"",
                "1:1 tagged",
                "2:1 \"c\"",
                "2:4 tagged",
                "3:1 \"d\"",
                "3:4 number 3",
            ]
        );
    }

    #[test]
    fn an_empty_file_is_null() {
        assert_eq!(outline(""), ["1:1 null"]);
        assert_eq!(outline("# nothing\n"), ["2:1 null"]);
    }

    #[test]
    fn an_alias_is_refused_wherever_its_anchor_stands() {
        let refused =
            "an alias (`*name`) follows here: aliases are not supported, write the value out";
        assert_eq!(outline("a: &x 1\nb: *x\n"), [format!("f:2:1: {refused}")]);
        assert_eq!(outline("- &x 1\n- *x\n"), [format!("f:1:3: {refused}")]);
        assert_eq!(
            outline("a: &x [1]\n? *x\n: 2\n"),
            [format!("f:1:8: {refused}")]
        );
    }

    #[test]
    fn a_value_that_is_left_out_is_no_alias() {
        assert_eq!(
            outline("? a\nb: 1\n"),
            [
                "1:3 map",
                "1:3 \"a\"",
                "2:1 null",
                "2:1 \"b\"",
                "2:4 number 1"
            ]
        );
        let refused =
            "an alias (`*name`) follows here: aliases are not supported, write the value out";
        for null in ["~", "null", ""] {
            assert_eq!(
                outline(&format!("- &x {null}\n- *x\n")),
                [format!("f:1:3: {refused}")]
            );
        }
    }

    #[test]
    fn what_is_not_yaml_is_one_mistake_with_its_place() {
        assert_eq!(
            outline("a: [1\nb: 2\n"),
            [
                "f:2:2: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 4; check indentation, brackets and quotes here"
            ]
        );
        assert_eq!(
            outline("a: \u{1}\n"),
            [
                "f:1:4: not valid YAML: control characters are not allowed at position 3; check indentation, brackets and quotes here"
            ]
        );
        assert_eq!(
            outline("a: 1\n---\nb: 2\n"),
            ["f:1:1: more than one YAML document: keep one, without `---` after it"]
        );
        assert_eq!(
            parse(Path::new("f"), b"a: 1\nb: \xff", Places::Wanted)
                .err()
                .map(|m| m.to_string()),
            Some("f:2:4: not UTF-8 text: save the file as UTF-8".to_owned())
        );
    }

    /// The parser's time grows with the square of the depth: 20,000 of them took it 4 to 19 s.
    #[test]
    fn brackets_that_nest_too_deep_are_refused_in_a_time_that_grows_with_the_text_alone() {
        let refused = "more than 100 `[` and `{` are open here: close them";
        for opens in [
            "[", "{a: ", "{\"a\":", "{'a' :", "{[a]:", "[{", "!t [", "&a [", "? [", "[x, ", "\n [",
        ] {
            let outline = outline(&format!("k: {}", opens.repeat(100_000)));
            let [told] = &outline[..] else {
                panic!("{opens}: {outline:?}");
            };
            assert!(told.ends_with(refused), "{opens}: {told}");
        }
        let whole = format!("k: {}", "[".repeat(101));
        assert_eq!(outline(&whole), [format!("f:1:104: {refused}")]);
        // What is closed again, quoted, in a comment or a text of more lines does not count.
        let (open, close) = ("[".repeat(100), "]".repeat(100));
        for text in [
            format!("k: {open}{close}\nl: {open}{close}\n"),
            format!("k: '{open}[' # {open}[\nl: |\n  {open}[\nm: a {open}[\n"),
        ] {
            let outline = outline(&text);
            assert!(outline.len() > 3, "{outline:?}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_its_tag_is_not_repeated() {
        assert_eq!(
            outline("a: !!int hush\n"),
            ["f:1:4: this value does not fit its tag: remove the tag"]
        );
    }

    fn same(a: &Node, b: &Node) -> bool {
        match (&a.value, &b.value) {
            (Value::Null, Value::Null) | (Value::Tagged, Value::Tagged) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) | (Value::Text(a), Value::Text(b)) => a == b,
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
            }
            (Value::Map(a), Value::Map(b)) => {
                let pair =
                    |((k, v), (l, w)): (&(Node, Node), &(Node, Node))| same(k, l) && same(v, w);
                a.len() == b.len() && a.iter().zip(b).all(pair)
            }
            _ => false,
        }
    }

    #[test]
    fn the_tree_is_the_same_with_and_without_places() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let mut texts = vec![
            "a: 1\n? [k, 2]\n: {x: ~, y: !t z, w: [-3, 1.5, true, \"7\", '8', |-\n]}\n".to_owned(),
        ];
        for file in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
            let text = std::fs::read_to_string(shipped.join(file)).unwrap();
            let is_placed = text.contains('*') || hides_its_spelling(text.as_bytes());
            assert!(!is_placed, "{file} is read without places");
            texts.push(text);
        }
        for text in texts {
            let parsed = |places| parse(Path::new("f"), text.as_bytes(), places);
            match (parsed(Places::Wanted), parsed(Places::Skipped)) {
                (Ok(a), Ok(b)) => assert!(same(&a, &b), "{text}"),
                (Err(a), Err(b)) => assert_eq!(a, b),
                _ => panic!("only one of the two fails: {text}"),
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]
        /// Whatever is written: the tree does not depend on whether places are wanted.
        #[test]
        fn no_spelling_is_lost_without_places(parts in proptest::collection::vec(0..PARTS.len(), 1..8)) {
            let text: String = parts.into_iter().map(|part| PARTS[part]).collect();
            let parsed = |places| parse(Path::new("f"), text.as_bytes(), places);
            if let (Ok(plain), Ok(placed)) = (parsed(Places::Skipped), parsed(Places::Wanted)) {
                assert!(same(&plain, &placed), "{text:?}");
            }
        }
    }

    /// What a number may begin behind, and numbers.
    const PARTS: &[&str] = &[
        "007", "0x1F", "+5", "-0", "0", "-", "+", "!!str ", "!t ", "&a ", "a", " ", "  ", "\n",
        "\r", "\t", "\u{85}", "\u{2028}", "\u{a0}", "[", "]", "{", "}", ",", ":", ": ", "?", "? ",
        "- ", "\"", "'", "\"a\"", "'b'", "#", " #", "人", "|\n ", "---\n", "%", "@",
    ];

    fn map(parsed: Result<Node, Mistake>) -> Option<Vec<(Node, Node)>> {
        match parsed.ok()?.value {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What the pieces hold together; `None` when it must be read as a whole.
    fn in_pieces(text: &str) -> Option<Vec<(Node, Node)>> {
        let read = |piece: &str| map(parse(Path::new("f"), piece.as_bytes(), Places::Skipped));
        let maps = pieces(text, "top", 1)?.into_iter().map(read);
        Some(
            maps.collect::<Option<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect(),
        )
    }

    #[test]
    fn a_usual_file_is_cut_before_each_entry_once_a_piece_is_long_enough() {
        let text =
            "# head\ntop: # of it\n\n  a: {x: 1}\n  # b's\n  b:\n    c: |\n      d: 1\n  e: 2\n";
        let cut = [
            "\n  a: {x: 1}\n  # b's\n",
            "  b:\n    c: |\n      d: 1\n",
            "  e: 2\n",
        ];
        assert_eq!(pieces(text, "top", 1).unwrap(), cut);
        assert_eq!(pieces(text, "top", 1_000).unwrap(), [cut.concat()]);
        for whole in [
            "",
            "top: {}\n",
            "top:\na: 1\n",
            "top:\n  a: 1\nb: 2\n",
            "b: 1\ntop:\n  a: 1\n",
            "top:\n  a: 1\n b: 2\n",
        ] {
            assert_eq!(pieces(whole, "top", 1), None, "{whole}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 4_000, failure_persistence: None, ..Default::default() })]
        /// Whatever is written: pieces that are maps, all of them, hold what the file holds.
        #[test]
        fn what_is_read_in_pieces_is_what_is_read_as_a_whole(lines in proptest::collection::vec(0..LINES.len(), 1..8)) {
            let lines: Vec<&str> = lines.into_iter().map(|line| LINES[line]).collect();
            let text = format!("top:\n  first: 1\n{}\n", lines.join("\n"));
            if let Some(entries) = in_pieces(&text) {
                let whole = map(parse(Path::new("f"), text.as_bytes(), Places::Skipped));
                let [(key, value)] = &whole.expect(&text)[..] else {
                    panic!("{text}");
                };
                let read = Node { place: Place::START, value: Value::Map(entries) };
                assert!(matches!(&key.value, Value::Text(key) if key == "top") && same(value, &read), "{text}");
            }
        }
    }

    /// Lines that open, close or go on with something.
    const LINES: &[&str] = &[
        "  a: 1",
        "  a: {x: 1",
        "  a: [x,",
        "  a: \"x",
        "  a: 'x",
        "  a: |",
        "  a: >-",
        "  a: |2",
        "  a:",
        "  a: x",
        "  a: &x y",
        "  b: *x",
        "  b: !t",
        "  b: &x",
        "  ? b",
        "  : b",
        "  - b",
        "  -",
        "    c: 1",
        "    c",
        "    - c",
        "  }",
        "  ]",
        "  \"",
        "  '",
        "  d\"",
        "    d'",
        "  c",
        " c: 1",
        "   c: 1",
        "c: 1",
        "",
        "  # c",
        "# \"",
        "\t",
        "  \tc: 1",
        "---",
        "...",
        "%YAML 1.2",
        "  <<: {}",
        "  a: x # \"",
        "  a: \"x\\",
        "  a: x\u{85}b: 1",
        "  a: x\rb: 1",
        "  {c: 1}: 2",
        "  a: [x]",
        "  a: \"x\" ",
        "    ",
    ];
}
