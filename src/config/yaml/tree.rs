//! YAML text -> a tree in which every node knows its place, through the parser.
//!
//! The parser has no spans, but it attaches the mark of a scalar to every error that a visitor
//! returns for it. So the visitor keeps the scalar, refuses it, and reads its place off the error;
//! the scalar's event has been consumed by then, so the parser goes on behind it.
//!
//! Must never put a value into a message: it may be a secret.

use crate::config::yaml::spelling::{as_written, hides_its_spelling, is_left_out};
use crate::config::yaml::{Node, Place, Value, Walk};
use crate::config::{Mistake, punctuation};
use serde::de::{
    self, DeserializeSeed, EnumAccess, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::Path;

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
