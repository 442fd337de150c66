//! The known keys of a map.
//!
//! Owns the wording of keys that are missing, unknown or forbidden.

use crate::config::reader::{Entry, Item, nearest, quoted};

/// A map with known keys: ask for each, then [`Fields::close`].
pub(in crate::config) struct Fields<'a> {
    of: Item<'a>,
    entries: Vec<Entry<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Item<'a> {
    /// The map's keys, to be asked for by name.
    pub(in crate::config) fn fields(self) -> Option<Fields<'a>> {
        Some(Fields {
            of: self,
            entries: self.entries()?,
            asked: Vec::new(),
        })
    }
}

impl<'a> Fields<'a> {
    pub(in crate::config) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|e| e.key == key).map(|e| e.value)
    }

    /// `Some(None)` when the key is absent.
    pub(in crate::config) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(key) {
            None => Some(None),
            Some(item) => read(item).map(Some),
        }
    }

    /// `default` when the key is absent.
    pub(in crate::config) fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            None => Some(default),
            Some(item) => read(item),
        }
    }

    /// `example` is what the remedy shows after the key.
    pub(in crate::config) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            None => self.of.refuse(format!(
                "missing key {key:?}: add it, such as `{key}: {example}`"
            )),
            Some(item) => read(item),
        }
    }

    /// Refuses `key`, which someone may well write here, with its own explanation.
    pub(in crate::config) fn forbid(&mut self, key: &'static str, why: &str) {
        if let Some(entry) = self.entries.iter().find(|e| e.key == key) {
            self.of.source.refuse(entry.at, format!("{key}: {why}"));
        }
        self.entries.retain(|e| e.key != key);
    }

    /// Refuses every key that was not asked for.
    pub(in crate::config) fn close(self) {
        for entry in self.entries.iter().filter(|e| !self.asked.contains(&e.key)) {
            let key = quoted(entry.key);
            let message = match nearest(entry.key, self.asked.iter().copied()) {
                _ if entry.key == "<<" => {
                    "merge keys (`<<`) are not supported: write the keys out".to_owned()
                }
                Some(near) => format!("unknown key {key}: did you mean {near:?}?"),
                None => format!(
                    "unknown key {key}: remove it; the keys here are {}",
                    self.asked.join(", ")
                ),
            };
            self.of.source.refuse(entry.at, message);
        }
    }
}
