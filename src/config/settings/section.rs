//! A section of `tollgate.yaml`, read by the table of settings.
//!
//! Must never accept a key that is not in the table.

use crate::config::reader::{Fields, Item};
use crate::config::settings::setting::{Bounds, Setting, Unwritten};
use crate::config::settings::table;
use crate::config::yaml::{Node, Place, Value};
use std::time::Duration;

/// A section that is not written: every key in it has its default.
static NOTHING: Node = Node {
    place: Place::START,
    value: Value::Map(Vec::new()),
};

/// The keys of one section: ask for each, then [`Section::close`].
pub(in crate::config) struct Section<'a> {
    pub of: Item<'a>,
    fields: Fields<'a>,
}

impl<'a> Section<'a> {
    pub(in crate::config) fn open(of: Item<'a>) -> Option<Self> {
        let fields = of.fields()?;
        Some(Self { of, fields })
    }

    /// What stands in the file, to point at.
    pub(in crate::config) fn written(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.fields.get(key)
    }

    fn setting(&self, key: &str) -> Option<&'static Setting> {
        let setting = table::find(self.of.name, key);
        setting.or_else(|| self.of.refuse(format!("{key} is in no table of settings")))
    }

    /// The value of a key, or the table's default of it, through `read`.
    pub(in crate::config) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        let setting = self.setting(key)?;
        match (self.fields.get(key), setting.unwritten) {
            (Some(item), _) => read(item),
            (None, Unwritten::Refused(example)) => self.fields.required(key, example, read),
            (None, _) => match table::default(setting) {
                Some(node) => read(Item {
                    source: self.of.source,
                    name: key,
                    node,
                }),
                None => self
                    .of
                    .refuse(format!("{key} has no default in the table of settings")),
            },
        }
    }

    /// `Some(None)` when the key is absent.
    pub(in crate::config) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.setting(key)?;
        self.fields.optional(key, read)
    }

    pub(in crate::config) fn time(&mut self, key: &'static str) -> Option<Duration> {
        let setting = self.setting(key)?;
        self.value(key, |item| time(item, setting))
    }

    /// `Some(None)` when the key is absent.
    pub(in crate::config) fn time_or_none(
        &mut self,
        key: &'static str,
    ) -> Option<Option<Duration>> {
        let setting = self.setting(key)?;
        self.optional(key, |item| time(item, setting))
    }

    pub(in crate::config) fn size(&mut self, key: &'static str) -> Option<u64> {
        let setting = self.setting(key)?;
        self.value(key, |item| match &setting.bounds {
            Bounds::Size(range) => item.size(range.clone()),
            _ => item.refuse("is no size in the table of settings"),
        })
    }

    pub(in crate::config) fn count(&mut self, key: &'static str) -> Option<usize> {
        let setting = self.setting(key)?;
        self.value(key, |item| count(item, setting))
    }

    /// `Some(None)` when the key is absent.
    pub(in crate::config) fn count_or_none(&mut self, key: &'static str) -> Option<Option<usize>> {
        let setting = self.setting(key)?;
        self.optional(key, |item| count(item, setting))
    }

    /// A number that is a key's value, of a key of the whole file.
    pub(in crate::config) fn within(item: Item<'_>, key: &str) -> Option<usize> {
        match table::find("", key) {
            Some(setting) => count(item, setting),
            None => item.refuse("is in no table of settings"),
        }
    }

    /// A section of this one, which need not be written.
    pub(in crate::config) fn section(&mut self, key: &'static str) -> Item<'a> {
        self.fields.get(key).unwrap_or(Item {
            source: self.of.source,
            name: key,
            node: &NOTHING,
        })
    }

    pub(in crate::config) fn required_section<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<T> {
        self.fields.required(key, example, read)
    }

    pub(in crate::config) fn optional_section<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(Item<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.fields.optional(key, read)
    }

    /// Refuses a key that an older version had, with the remedy.
    pub(in crate::config) fn forbid(&mut self, key: &'static str, why: &str) {
        self.fields.forbid(key, why);
    }

    pub(in crate::config) fn close(self) {
        self.fields.close();
    }
}

fn time(item: Item<'_>, setting: &Setting) -> Option<Duration> {
    match &setting.bounds {
        Bounds::Time(range) => item.duration(range.clone()),
        _ => item.refuse("is no duration in the table of settings"),
    }
}

fn count(item: Item<'_>, setting: &Setting) -> Option<usize> {
    match &setting.bounds {
        Bounds::Count(range) => item
            .whole32(range.clone())
            .and_then(|n| usize::try_from(n).ok()),
        _ => item.refuse("is no number in the table of settings"),
    }
}
