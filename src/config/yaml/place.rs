//! Where something stands in a text.

/// Line and column in a file, both from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::config) struct Place {
    pub line: u32,
    pub column: u32,
}

impl Place {
    pub(in crate::config) const START: Self = Self { line: 1, column: 1 };

    pub(in crate::config) fn of_offset(text: &[u8], offset: usize) -> Self {
        let before = String::from_utf8_lossy(text.get(..offset).unwrap_or(text));
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::of(line, column)
    }

    pub(in crate::config) fn of(line: usize, column: usize) -> Self {
        let count = |n| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: count(line),
            column: count(column),
        }
    }
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
    pub(in crate::config) fn from(&mut self, place: Place) -> &'t str {
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
