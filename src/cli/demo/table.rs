//! A table that is drawn again and again.
//!
//! Owns how it is drawn on a terminal, and elsewhere. Must never know what stands in it.

use std::io::{self, Write};

/// Without a terminal the table is not drawn over itself, so it is drawn less often.
const SECONDS_BETWEEN_TABLES: u64 = 5;

/// Where the table is drawn.
pub(super) struct Table {
    terminal: bool,
    /// The lines of the last table, over which the next one is drawn.
    drawn_lines: usize,
}

impl Table {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            drawn_lines: 0,
        }
    }

    /// Whether the table of this second is drawn.
    pub(super) fn is_due(&self, second: u64) -> bool {
        self.terminal || second.is_multiple_of(SECONDS_BETWEEN_TABLES)
    }

    /// Draws the lines over those of the last time.
    pub(super) fn draw(&mut self, out: &mut impl Write, lines: &str) -> io::Result<()> {
        if self.terminal {
            // A line that is too long for the terminal is cut, not wrapped: the next table would be
            // drawn in the wrong place.
            if self.drawn_lines > 0 {
                write!(out, "\r\x1b[{}A\x1b[J", self.drawn_lines)?;
            }
            write!(out, "\x1b[?7l{lines}\x1b[?7h")?;
        } else {
            writeln!(out, "{lines}")?;
        }
        self.drawn_lines = lines.lines().count();
        out.flush()
    }

    /// Leaves the table where it is: the next line stands below it.
    pub(super) fn leave(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.terminal && self.drawn_lines > 0 {
            writeln!(out)?;
        }
        self.drawn_lines = 0;
        Ok(())
    }
}
