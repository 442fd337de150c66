//! A value of the tree, and what any value may be: text, a list, a map.
//!
//! Owns the wording of a value of the wrong kind and of repeated keys. Must never know a particular
//! file's keys.

use crate::config::reader::{Source, point, quoted};
use crate::config::yaml::{Node, Place, Value};
use std::collections::HashMap;
use std::fmt::Display;

/// A value and the key it is written under.
#[derive(Clone, Copy)]
pub(in crate::config) struct Item<'a> {
    pub source: &'a Source,
    /// The key; an element of a list has the list's. Empty for the whole file.
    pub name: &'a str,
    pub node: &'a Node,
}

/// A key of the file's own choosing (an account, a group) and its value.
#[derive(Clone, Copy)]
pub(in crate::config) struct Entry<'a> {
    pub key: &'a str,
    pub at: Place,
    pub value: Item<'a>,
}

impl Source {
    /// The whole file, whose tree is `node`.
    pub(in crate::config) fn root<'a>(&'a self, node: &'a Node) -> Item<'a> {
        Item {
            source: self,
            name: "",
            node,
        }
    }
}

impl<'a> Item<'a> {
    pub(in crate::config) fn place(self) -> Place {
        self.node.place
    }

    /// Reports `name: message` here.
    pub(in crate::config) fn refuse<T>(self, message: impl Display) -> Option<T> {
        self.source.refuse(self.place(), self.named(message));
        None
    }

    /// Like [`Self::refuse`], but the value stands.
    pub(in crate::config) fn warn(self, message: impl Display) {
        let mistake = self.source.mistake(self.place(), self.named(message));
        self.source.warnings.borrow_mut().push(mistake);
    }

    pub(in crate::config) fn named(self, message: impl Display) -> String {
        if self.name.is_empty() {
            message.to_string()
        } else {
            format!("{}: {message}", self.name.escape_debug())
        }
    }

    /// Says what should stand here and what does. Not for secrets.
    pub(in crate::config) fn expected<T>(self, what: impl Display) -> Option<T> {
        let found = match &self.node.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.clone(),
            Value::Text(t) => quoted(t),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
            Value::Tagged => "a YAML tag".to_owned(),
        };
        self.refuse(format!("expected {what}, found {found}"))
    }

    /// Text that a terminal or a bill shows as one line: without control characters, and without
    /// those that turn the direction of writing.
    pub(in crate::config) fn line(self) -> Option<&'a str> {
        let text = self.text()?;
        match text.chars().position(breaks_a_line) {
            None => Some(text),
            Some(place) => self.refuse(format!(
                "its character {} is a control character or a line end: take it out",
                place + 1
            )),
        }
    }

    /// Text that is not empty. Safe for secrets: no message repeats the value.
    pub(in crate::config) fn text(self) -> Option<&'a str> {
        match &self.node.value {
            Value::Text(t) if !t.is_empty() => Some(t),
            Value::Text(_) | Value::Null => self.refuse("is empty: give a value or remove the key"),
            Value::Number(_) => self.refuse("YAML reads this as a number: write it in quotes"),
            Value::Bool(_) => self.refuse("YAML reads this as true or false: write it in quotes"),
            Value::List(_) => self.refuse("expected text, found a list"),
            Value::Map(_) => self.refuse("expected text, found a map"),
            Value::Tagged => self.refuse("expected text, found a YAML tag: remove the tag"),
        }
    }

    /// Text that `read` understands; `what` says which texts these are. Not for secrets.
    pub(in crate::config) fn parsed<T>(
        self,
        what: impl Display,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text()?;
        read(text).or_else(|| self.expected(what))
    }

    /// One of a few spellings.
    pub(in crate::config) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, value)| *value).or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.expected(names.join(" or "))
        })
    }

    pub(in crate::config) fn flag(self) -> Option<bool> {
        match self.node.value {
            Value::Bool(b) => Some(b),
            _ => self.expected("true or false"),
        }
    }

    pub(in crate::config) fn is_text(self, text: &str) -> bool {
        matches!(&self.node.value, Value::Text(t) if t == text)
    }

    /// The elements of a list.
    pub(in crate::config) fn list(self) -> Option<Vec<Item<'a>>> {
        match &self.node.value {
            Value::List(list) => Some(list.iter().map(|node| Item { node, ..self }).collect()),
            _ => self.expected("a list in [ ]"),
        }
    }

    /// Every element through `read`; `None` if any is wrong, after all were read.
    pub(in crate::config) fn each<T>(
        self,
        read: impl FnMut(Item<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        all(self.list()?.into_iter().map(read))
    }

    /// The entries of a map, in order. Repeated keys and keys that are not text are reported.
    pub(in crate::config) fn entries(self) -> Option<Vec<Entry<'a>>> {
        let Value::Map(map) = &self.node.value else {
            return match self.name {
                "" => {
                    self.refuse("the file is empty, or not a map of keys: see the shipped example")
                }
                _ => self.expected("a map of keys"),
            };
        };
        // A record has a few keys, compared one by one; a map of many accounts needs the table.
        const FEW: usize = 16;
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(map.len());
        let mut table = HashMap::new();
        for (key, node) in map {
            let at = key.place;
            let text = match &key.value {
                Value::Text(text) => text.as_str(),
                Value::Number(n) => {
                    let message = format!("YAML reads the key {n} as a number: write it in quotes");
                    self.source.refuse(at, message);
                    n
                }
                _ => {
                    self.source.refuse(at, "a key must be text".to_owned());
                    continue;
                }
            };
            let first = match map.len() {
                ..=FEW => entries.iter().find(|e| e.key == text).map(|e| e.at),
                _ => table.get(text).copied(),
            };
            if let Some(first) = first {
                let first = point(self.source.path(), first);
                let message = format!(
                    "duplicate key {}: first given at {first}; keep one",
                    quoted(text)
                );
                self.source.refuse(at, message);
                continue;
            }
            if map.len() > FEW {
                table.insert(text, at);
            }
            let value = Item {
                source: self.source,
                name: text,
                node,
            };
            entries.push(Entry {
                key: text,
                at,
                value,
            });
        }
        Some(entries)
    }

    /// The keys of a map and their places, without a word about what is wrong with them.
    pub(in crate::config) fn keys(self) -> Vec<(String, Place)> {
        let Value::Map(map) = &self.node.value else {
            return Vec::new();
        };
        let named = |key: &Node| match &key.value {
            Value::Text(text) => Some((text.clone(), key.place)),
            _ => None,
        };
        map.iter().filter_map(|(key, _)| named(key)).collect()
    }
}

/// Everything, or `None` after all were read: a plain `collect` would stop at the first `None`.
pub(in crate::config) fn all<T>(items: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let items: Vec<_> = items.collect();
    items.into_iter().collect()
}

/// Whether a character would change how the text around it is shown.
fn breaks_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
