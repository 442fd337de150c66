//! Tree -> typed values: one small reader per kind of value, and the keys of a map.
//!
//! Owns the wording of mistakes that any value may have (wrong kind, missing unit, unknown key).
//! Must never know a particular file's keys. Every reader gives `None` after it has reported.

use crate::config::Mistake;
use crate::config::punctuation;
use crate::config::sources::Stamp;
use crate::config::yaml::{self, Node, Place, Places, Value};
use crate::words::Utc;
use bytesize::ByteSize;
use jiff::Timestamp;
use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file that was read or looked for.
pub(in crate::config) struct SeenFile {
    pub path: PathBuf,
    /// How it looked just before.
    pub stamp: Option<Stamp>,
    /// Of its content; of nothing when it could not be read.
    pub sha256: [u8; 32],
}

impl SeenFile {
    pub(in crate::config) fn new(path: PathBuf, stamp: Option<Stamp>, bytes: &[u8]) -> Self {
        let sha256 = Sha256::digest(bytes).into();
        Self {
            path,
            stamp,
            sha256,
        }
    }
}

/// One file and what was found wrong in it so far.
pub(in crate::config) struct Source {
    path: PathBuf,
    /// The secret files that it names.
    pub read: RefCell<Vec<SeenFile>>,
    mistakes: RefCell<Vec<Mistake>>,
    warnings: RefCell<Vec<Mistake>>,
}

impl Source {
    pub(in crate::config) fn new(path: PathBuf) -> Self {
        Self {
            path,
            read: RefCell::default(),
            mistakes: RefCell::default(),
            warnings: RefCell::default(),
        }
    }

    pub(in crate::config) fn parse(&self, bytes: &[u8], places: Places) -> Option<Node> {
        yaml::parse(&self.path, bytes, places)
            .map_err(|mistake| self.mistakes.borrow_mut().push(mistake))
            .ok()
    }

    pub(in crate::config) fn root<'a>(&'a self, node: &'a Node) -> Item<'a> {
        Item {
            source: self,
            name: "",
            node,
        }
    }

    pub(in crate::config) fn refuse(&self, at: Place, message: String) {
        let mistake = self.mistake(at, message);
        self.mistakes.borrow_mut().push(mistake);
    }

    fn mistake(&self, at: Place, message: String) -> Mistake {
        Mistake {
            file: self.path.clone(),
            line: at.line,
            column: at.column,
            message,
        }
    }

    pub(in crate::config) fn path(&self) -> &Path {
        &self.path
    }

    /// A path written in this file, which is relative to the file's directory.
    pub(in crate::config) fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// The secret files that were read or looked for.
    pub(in crate::config) fn take_read(&self) -> Vec<SeenFile> {
        self.read.take()
    }

    /// Mistakes and warnings, in the order of the text.
    pub(in crate::config) fn findings(self) -> (Vec<Mistake>, Vec<Mistake>) {
        let sorted = |list: RefCell<Vec<Mistake>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|m| (m.line, m.column));
            list
        };
        (sorted(self.mistakes), sorted(self.warnings))
    }
}

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
    fn expected<T>(self, what: impl Display) -> Option<T> {
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

    /// A whole number in `range`.
    pub(in crate::config) fn whole(self, range: RangeInclusive<u64>) -> Option<u64> {
        let what = format_args!("a whole number from {} to {}", range.start(), range.end());
        match &self.node.value {
            // YAML's versions do not agree on any other spelling.
            Value::Number(n)
                if n.starts_with('+')
                    || (n.starts_with('0') && n.len() > 1 && !n.contains('.')) =>
            {
                self.refuse(format!(
                    "expected {what}, found {n}: write decimal digits alone"
                ))
            }
            Value::Number(n) => match n.parse() {
                Ok(n) if range.contains(&n) => Some(n),
                _ => self.expected(what),
            },
            Value::Text(t) if t.parse::<u64>().is_ok() => self.refuse(format!(
                "expected {what}: remove the quotes and leading zeros"
            )),
            _ => self.expected(what),
        }
    }

    /// As [`Self::whole`], for ranges that a `u32` holds.
    pub(in crate::config) fn whole32(self, range: RangeInclusive<u32>) -> Option<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        self.whole(wide).and_then(|n| u32::try_from(n).ok())
    }

    /// Digits and a unit: `50ms`, `60s`, `5m`, `2h`, `100d`.
    pub(in crate::config) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        const WHAT: &str = "a duration such as 50ms, 60s, 5m, 2h or 100d";
        let text = match &self.node.value {
            Value::Text(t) if !t.is_empty() => t,
            Value::Number(n) if !n.starts_with('-') => {
                return self.refuse(format!(
                    "{n} has no unit: write {n}ms, {n}s, {n}m, {n}h or {n}d"
                ));
            }
            _ => return self.expected(WHAT),
        };
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return self.expected(WHAT),
        };
        let duration = match count.parse::<u64>() {
            Ok(count) => Duration::from_millis(count.saturating_mul(millis)),
            Err(_) => return self.expected(WHAT),
        };
        if range.contains(&duration) {
            return Some(duration);
        }
        let (from, to) = (spelled(*range.start()), spelled(*range.end()));
        self.expected(format!("a duration from {from} to {to}"))
    }

    /// Digits and a unit: `32KiB`, `10MiB`.
    pub(in crate::config) fn size(self, range: RangeInclusive<u64>) -> Option<u64> {
        const WHAT: &str = "a size such as 32KiB or 10MiB";
        let text = match &self.node.value {
            Value::Text(t) => t,
            Value::Number(n) if !n.starts_with('-') => {
                return self.refuse(format!("{n} has no unit: write {n}B, {n}KiB or {n}MiB"));
            }
            _ => return self.expected(WHAT),
        };
        let has_unit = text.ends_with(|c: char| c.is_ascii_alphabetic());
        let bytes = match text.parse::<ByteSize>() {
            Ok(size) if has_unit && text.starts_with(|c: char| c.is_ascii_digit()) => size.as_u64(),
            _ => return self.expected(WHAT),
        };
        if range.contains(&bytes) {
            return Some(bytes);
        }
        let (from, to) = (ByteSize(*range.start()), ByteSize(*range.end()));
        self.expected(format!("a size from {from} to {to}"))
    }

    /// An amount of money, zero allowed. Quoted text: a YAML number would pass through a float.
    pub(in crate::config) fn amount(self) -> Option<Decimal> {
        if let Value::Number(n) = &self.node.value {
            return self.refuse(format!(
                "an amount is text, so that no digit is lost: write it in quotes, \"{n}\""
            ));
        }
        // Bounded so that calls times price can never leave Decimal's 28 digits.
        let most = Decimal::from(1_000_000_000);
        let what = "an amount such as \"0.01\", at most 1000000000 and 6 decimals";
        self.parsed(what, |text| {
            decimal(text).filter(|d| d.scale() <= 6 && *d <= most)
        })
    }

    /// An amount of money above zero.
    pub(in crate::config) fn price(self) -> Option<Decimal> {
        let price = self.amount()?;
        if price.is_zero() {
            return self.refuse("must be more than zero");
        }
        Some(price)
    }

    /// `15%` -> 0.15; above zero, below one.
    pub(in crate::config) fn percent(self) -> Option<Decimal> {
        if let Value::Number(n) = &self.node.value {
            return self.refuse(match decimal(n) {
                Some(part) if part < Decimal::ONE => {
                    let percent = (part * Decimal::ONE_HUNDRED).normalize();
                    format!("{n} has no percent sign: write {percent}%")
                }
                _ => format!("{n} has no percent sign: write {n}%"),
            });
        }
        self.parsed("a percentage between 0% and 100%, such as 15%", |text| {
            let share = decimal(text.strip_suffix('%')?)?.checked_div(Decimal::ONE_HUNDRED)?;
            (share > Decimal::ZERO && share < Decimal::ONE).then(|| share.normalize())
        })
    }

    /// RFC 3339 with an offset, from 2000 to 2100.
    pub(in crate::config) fn instant(self) -> Option<Utc> {
        const WHAT: &str = "an instant such as 2026-11-01T00:00:00+08:00";
        let text = self.text()?;
        let Ok(instant) = text.parse::<Timestamp>() else {
            if text.parse::<jiff::civil::DateTime>().is_ok() {
                return self.refuse(format!("{} has no offset: write {WHAT}", quoted(text)));
            }
            return self.expected(WHAT);
        };
        // A mistyped year would otherwise be a purchase that never runs.
        const YEAR_2000: i64 = 946_684_800;
        const YEAR_2101: i64 = 4_133_980_800;
        if !(YEAR_2000..YEAR_2101).contains(&instant.as_second()) {
            return self.expected("an instant in the years 2000 to 2100");
        }
        Some(Utc(instant.as_microsecond()))
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
                let first = point(&self.source.path, first);
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

    /// The map's keys, to be asked for by name.
    pub(in crate::config) fn fields(self) -> Option<Fields<'a>> {
        Some(Fields {
            of: self,
            entries: self.entries()?,
            asked: Vec::new(),
        })
    }
}

/// A map with known keys: ask for each, then [`Fields::close`].
pub(in crate::config) struct Fields<'a> {
    of: Item<'a>,
    entries: Vec<Entry<'a>>,
    asked: Vec<&'static str>,
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

/// `file:line:column`, to name a second place in a message.
pub(in crate::config) fn point(file: &Path, at: Place) -> String {
    format!("{}:{}:{}", file.display(), at.line, at.column)
}

/// Everything, or `None` after all were read: a plain `collect` would stop at the first `None`.
pub(in crate::config) fn all<T>(items: impl Iterator<Item = Option<T>>) -> Option<Vec<T>> {
    let items: Vec<_> = items.collect();
    items.into_iter().collect()
}

/// In quotes, control characters escaped, cut to what a line can carry. With what to type when a character of
/// it comes from another keyboard.
pub(in crate::config) fn quoted(text: &str) -> String {
    let quoted = match text.char_indices().nth(60) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    };
    match punctuation::hint(text) {
        None => quoted,
        Some(hint) => format!("{quoted} ({hint})"),
    }
}

/// Digits with at most one point between them: no sign, exponent or grouping.
fn decimal(text: &str) -> Option<Decimal> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if digits(whole) && digits(fraction) {
        Decimal::from_str_exact(text).ok()
    } else {
        None
    }
}

/// The name that `wrong` most likely stands for.
pub(in crate::config) fn nearest<'n>(
    wrong: &str,
    names: impl Iterator<Item = &'n str>,
) -> Option<&'n str> {
    let limit = (wrong.chars().count() / 3).min(2);
    names
        .map(|name| (edits(wrong, name), name))
        .filter(|(n, _)| (1..=limit).contains(n))
        .min_by_key(|(n, _)| *n)
        .map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    // Cut, so that a megabyte of key costs no more than a name.
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().take(70).collect(), b.chars().take(70).collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            d[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replace.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(d[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    d[a.len()][b.len()]
}

/// As the file would spell it.
pub(in crate::config) fn spelled(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    match units
        .iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None => format!("{millis}ms"),
    }
}

/// As the file would spell it.
pub(in crate::config) fn spelled_size(bytes: u64) -> String {
    let units = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];
    match units
        .iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}
