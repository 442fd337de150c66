//! The usual causes of YAML that cannot be read. These are a tab, punctuation of another keyboard,
//! a character that cannot be seen, a quotation mark or a bracket that is not closed.
//!
//! Owns the words for them. The parser gives up where it gets lost, which is often a line below the
//! cause.

use crate::config::yaml::{Place, Walk, is_break};

const TAB: &str = "a tab stands here, and YAML indents by spaces alone: put spaces instead";
const UNCLOSED: &str =
    "the quotation mark that opens here is not closed in its line: close it behind the value";
/// So many `[` and `{` may stand open at once.
const DEEPEST: u32 = 100;
/// The parser may notice a cause so many lines below it.
const LINES_BELOW: u32 = 3;

/// The ASCII character that one of another keyboard stands for.
fn ascii_of(c: char) -> Option<char> {
    match c {
        // The full-width forms stand in the order of ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xff01 + 0x21),
        '“' | '”' | '„' => Some('"'),
        '‘' | '’' => Some('\''),
        '、' => Some(','),
        '【' => Some('['),
        '】' => Some(']'),
        '\u{3000}' | '\u{a0}' => Some(' '),
        _ => None,
    }
}

/// Whether it takes no room or shows nothing, and comes along when text is copied from a page or
/// files are joined. Such are zero-width characters, marks of direction, variants and byte order,
/// and fillers; what Unicode lets a font ignore (`Default_Ignorable_Code_Point`); and a blank of
/// Braille.
pub(in crate::config) fn cannot_be_seen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// What to do about the first character of `text` that comes from another keyboard or cannot be
/// seen.
pub(in crate::config) fn hint(text: &str) -> Option<String> {
    text.chars().find_map(instead)
}

/// The same of one character.
fn instead(c: char) -> Option<String> {
    let code = u32::from(c);
    Some(match ascii_of(c) {
        Some(' ') => format!("U+{code:04X} is no space to YAML: type a space"),
        Some(ascii) => format!("{c} (U+{code:04X}) is not the {ascii} of YAML: type {ascii}"),
        None if c == '\u{feff}' => {
            "a byte-order mark, U+FEFF, stands here, as where two files were joined: take it out"
                .to_owned()
        }
        None if cannot_be_seen(c) => format!("U+{code:04X} cannot be seen: take it out"),
        None => return None,
    })
}

/// Where more than [`DEEPEST`] `[` and `{` stand open. The parser compares each word with all that
/// are open: some ten thousand in a file would hold it, and every later reload, for minutes.
pub(in crate::config) fn too_deep(text: &str) -> Option<(Place, String)> {
    // At first those in quotes and comments too: hardly a file comes so far, and one that does is
    // read with care.
    let mut open = 0;
    let may_be = text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = u32::saturating_sub(open, 1),
            _ => {}
        }
        open > DEEPEST
    });
    if !may_be {
        return None;
    }
    let mut scan = Scan::default();
    let (place, _) = Walk::new(text).find(|(place, c)| {
        scan.step(*place, *c);
        scan.depth > DEEPEST
    })?;
    let message = format!("more than {DEEPEST} `[` and `{{` are open here: close them");
    Some((place, message))
}

/// What most likely made the parser give up at `error`, and where that stands.
pub(in crate::config) fn likely_cause(text: &str, error: Place) -> Option<(Place, String)> {
    let near = |place: Place| error.line - place.line <= LINES_BELOW;
    let mut scan = Scan::default();
    let mut walk = Walk::new(text);
    // Quotes are read up to the error only: behind a wrong one they open where they should close.
    for (place, c) in walk.by_ref().take_while(|(place, _)| *place < error) {
        scan.step(place, c);
    }
    let closed = scan.last_of_more_lines.filter(|(_, end)| near(*end));
    let unclosed = scan.quote.map(|(_, begin)| begin);
    if let Some(begin) = unclosed.or(closed.map(|(begin, _)| begin)) {
        return Some((begin, UNCLOSED.to_owned()));
    }
    let at_error = Walk::new(text).find(|(place, _)| *place >= error);
    if let Some((place, '\t')) = at_error {
        return Some((place, TAB.to_owned()));
    }
    // A key is reported where it begins: what is wrong with it stands behind.
    for (place, c) in Walk::new(text).filter(|(place, _)| *place >= error) {
        if place.line > error.line {
            break;
        }
        scan.step(place, c);
    }
    if let Some(tab) = scan.tab.filter(|tab| near(*tab)) {
        return Some((tab, TAB.to_owned()));
    }
    let (place, c) = scan.foreign.filter(|(place, _)| near(*place))?;
    Some((place, instead(c)?))
}

/// A text read as far as it takes to tell what is quoted, a comment, or a text of more lines.
#[derive(Default)]
struct Scan {
    /// How deep in `[` and `{`.
    depth: u32,
    /// The mark that is open, and where it stands.
    quote: Option<(char, Place)>,
    is_escaped: bool,
    /// The single mark before has closed what began here, unless it is one of two that stand for
    /// one.
    just_closed: Option<Place>,
    /// The last quoted text that took more than one line: its begin and end.
    last_of_more_lines: Option<(Place, Place)>,
    line: Line,
    /// A text of more lines (`|`, `>`) is open, below a key with this indentation.
    block: Option<u32>,
    /// The last tab that indents a line.
    tab: Option<Place>,
    /// The first character of another keyboard where YAML expects its own, or one that cannot be
    /// seen where a key or a value begins. Of the last line that has one.
    foreign: Option<(Place, char)>,
}

/// What is known of the line so far.
struct Line {
    /// Only blanks and dashes so far.
    is_indentation: bool,
    indent: u32,
    tab: Option<Place>,
    /// A key or a value may begin here.
    is_start: bool,
    /// No colon has ended the key.
    in_key: bool,
    /// A tag or an anchor, behind which a value may begin.
    in_property: bool,
    /// The rest is a comment, or text.
    is_skipped: bool,
    before: char,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            is_indentation: true,
            indent: 0,
            tab: None,
            is_start: true,
            in_key: true,
            in_property: false,
            is_skipped: false,
            before: '\n',
        }
    }
}

impl Scan {
    fn step(&mut self, place: Place, c: char) {
        if let Some(begin) = self.just_closed.take()
            && c == '\''
        {
            self.quote = Some((c, begin));
            return;
        }
        if let Some((mark, begin)) = self.quote {
            if self.is_escaped {
                self.is_escaped = false;
            } else if c == '\\' && mark == '"' {
                self.is_escaped = true;
            } else if c == mark {
                self.quote = None;
                self.just_closed = (mark == '\'').then_some(begin);
                if place.line > begin.line {
                    self.last_of_more_lines = Some((begin, place));
                }
            }
            self.line.before = c;
            return;
        }
        if is_break(c) {
            self.line = Line::default();
            return;
        }
        if self.line.is_skipped {
            return;
        }
        let before = std::mem::replace(&mut self.line.before, c);
        if self.line.is_indentation {
            match c {
                ' ' | '-' => {
                    self.line.indent += 1;
                    return;
                }
                '\t' => {
                    self.line.tab = Some(place);
                    return;
                }
                _ => self.content_begins(),
            }
        }
        self.line.is_skipped |= c == '#' && before.is_ascii_whitespace();
        if self.line.is_skipped {
            return;
        }
        self.mark(place, c, before);
    }

    /// The line's first character that does not indent it.
    fn content_begins(&mut self) {
        self.line.is_indentation = false;
        self.block = self.block.filter(|parent| self.line.indent > *parent);
        self.line.is_skipped = self.block.is_some();
        if self.depth == 0 && !self.line.is_skipped {
            self.tab = self.line.tab.or(self.tab);
        }
    }

    fn mark(&mut self, place: Place, c: char, before: char) {
        let line = &mut self.line;
        let is_in_flow = self.depth > 0;
        match c {
            ' ' | '\t' => {
                if before == ':' {
                    (line.is_start, line.in_key) = (true, false);
                }
                line.is_start |= line.in_property;
                line.in_property = false;
                return;
            }
            _ if line.in_property => return,
            '!' | '&' if line.is_start => line.in_property = true,
            '?' if line.is_start => return,
            // Behind a quoted key or a list no blank is needed.
            ':' if is_in_flow && "\"']} ".contains(before) => {
                (line.is_start, line.in_key) = (true, false);
                return;
            }
            '"' | '\'' if line.is_start => self.quote = Some((c, place)),
            '[' | '{' if line.is_start => {
                self.depth += 1;
                (line.is_start, line.in_key) = (true, true);
                return;
            }
            ']' | '}' if is_in_flow => self.depth -= 1,
            ',' if is_in_flow => {
                (line.is_start, line.in_key) = (true, true);
                return;
            }
            '|' | '>' if line.is_start && !is_in_flow => self.block = Some(line.indent),
            _ => {}
        }
        let is_expected = match ascii_of(c) {
            Some(':') => line.in_key,
            Some(',' | ']' | '}') => is_in_flow,
            Some('[' | '{' | '"' | '\'' | '-' | ' ') => line.is_start,
            None => cannot_be_seen(c) && (line.is_start || line.in_key),
            Some(_) => false,
        };
        line.is_start = false;
        let is_first = self.foreign.is_none_or(|(at, _)| at.line < place.line);
        if is_expected && is_first {
            self.foreign = Some((place, c));
        }
    }
}
