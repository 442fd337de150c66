//! Seals: a copy of one tells later whether anything that it stands for was changed.
//!
//! Owns the texts that the seals of days, months and restores are made of, and their order. They
//! never change: who kept a seal must find it again in any later version. Must never seal what can
//! still grow. The texts are told in SCHEMA. `hours` may be many rows, so they are read beside the
//! commits, between two chores of the writer.
//!
//! # Decided
//! - **A day is sealed in two steps**: the writer freezes the rows of the roll-up, the settler
//!   reads them beside the calls and hashes them, the writer notes the seal. A busy day has
//!   millions of rows, and no call may wait for them. A frozen row never grows, so that the seal
//!   can be made again when the records are gone.

use crate::ledger::chain::Link;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Rows of `hours` that are read in one transaction.
const PAGE: i64 = 10_000;

/// The part that every seal has besides its own: the id of the ledger, and the seal before.
pub(super) struct Before {
    ledger_id: String,
    head: Link,
}

impl Before {
    /// What the next seal follows.
    pub(super) fn newest(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let newest: Option<Link> = connection
            .query_row(
                "SELECT head FROM seals ORDER BY place DESC LIMIT 1",
                [],
                |row| row.get(0),
            )
            .optional()?;
        Self::first(connection).map(|before| Self {
            head: newest.unwrap_or(before.head),
            ..before
        })
    }

    /// What the first seal follows: 32 zero bytes.
    pub(super) fn first(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let ledger_id =
            connection.query_row("SELECT ledger_id FROM identity", [], |row| row.get(0))?;
        Ok(Self {
            ledger_id,
            head: Link::default(),
        })
    }

    /// After this seal.
    pub(super) fn then(self, head: Link) -> Self {
        Self { head, ..self }
    }

    /// A title, what every seal has, and lines of its own: names and values.
    fn seal(&self, title: &str, lines: &[(&str, String)]) -> Link {
        let mut text = format!(
            "tollgate {title}\nledger {}\nbefore {}\n",
            self.ledger_id,
            hex::encode(self.head)
        );
        for (name, value) in lines {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} {value}");
        }
        Sha256::digest(text).into()
    }
}

/// The name of a day's seal in `seals`.
pub(super) fn of_day(day: &str) -> String {
    format!("day {day}")
}

/// The name of a month's seal.
pub(super) fn of_month(month: &str) -> String {
    format!("month {month}")
}

/// The name of a restore's seal.
pub(super) fn of_restore(count: i64) -> String {
    format!("restore {count}")
}

/// Writes a seal down behind the newest.
pub(super) fn add(connection: &Connection, what: &str, head: &Link) -> Result<(), rusqlite::Error> {
    connection
        .prepare_cached("INSERT INTO seals (what, head) VALUES (?1, ?2)")?
        .execute(params![what, head])?;
    Ok(())
}

/// A row of `days` as it is sealed.
pub(super) struct Day {
    pub(super) day: String,
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    /// The link after `last_seq`.
    pub(super) link: Link,
    /// The digest of its rows of `hours`.
    pub(super) hours: Link,
    /// `bounds.first_kept` when it was sealed.
    pub(super) first_kept: i64,
    /// `bounds.floor`.
    pub(super) floor: i64,
    /// The debits that were made since the day sealed before, as in `2026-10 1793635200000000`;
    /// several with a comma between. `None` of a day without one.
    pub(super) debits: Option<String>,
}

impl Day {
    pub(super) fn seal(&self, before: &Before) -> Link {
        let mut lines = vec![
            ("records", format!("{} {}", self.first_seq, self.last_seq)),
            ("link", hex::encode(self.link)),
            ("hours", hex::encode(self.hours)),
            ("bounds", format!("{} {}", self.first_kept, self.floor)),
        ];
        lines.extend(self.debits.clone().map(|debits| ("debits", debits)));
        before.seal(&of_day(&self.day), &lines)
    }
}

/// A row of `settlements` as it is sealed.
pub(super) struct SealedMonth {
    pub(super) month: String,
    pub(super) through_seq: i64,
    pub(super) head: Link,
    pub(super) fixed_at: i64,
    pub(super) settled_at: i64,
    /// Over its statements.
    pub(super) digest: Link,
    /// Late calls of how many months are on them; `None`: of any age.
    pub(super) late_months: Option<i64>,
}

impl SealedMonth {
    /// `None` when there is no such month, or it is not settled.
    pub(super) fn read(
        connection: &Connection,
        month: &str,
    ) -> Result<Option<Self>, rusqlite::Error> {
        connection
            .prepare_cached(
                "SELECT through_seq, head, fixed_at, settled_at, digest, late_months FROM settlements
                 WHERE month = ?1 AND settled_at IS NOT NULL AND digest IS NOT NULL",
            )?
            .query_row([month], |row| {
                Ok(Self {
                    month: month.to_owned(),
                    through_seq: row.get(0)?,
                    head: row.get(1)?,
                    fixed_at: row.get(2)?,
                    settled_at: row.get(3)?,
                    digest: row.get(4)?,
                    late_months: row.get(5)?,
                })
            })
            .optional()
    }

    pub(super) fn seal(&self, before: &Before) -> Link {
        before.seal(
            &of_month(&self.month),
            &[
                ("through", self.through_seq.to_string()),
                ("head", hex::encode(self.head)),
                ("fixed", self.fixed_at.to_string()),
                ("settled", self.settled_at.to_string()),
                ("digest", hex::encode(self.digest)),
                (
                    "late",
                    self.late_months
                        .map_or("any".to_owned(), |months| months.to_string()),
                ),
            ],
        )
    }
}

/// A row of `restores`.
pub(super) struct Restore {
    pub(super) count: i64,
    pub(super) last_seq: i64,
    pub(super) next_seq: i64,
    pub(super) restored_at: i64,
}

impl Restore {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            count: row.get(0)?,
            last_seq: row.get(1)?,
            next_seq: row.get(2)?,
            restored_at: row.get(3)?,
        })
    }

    pub(super) fn seal(&self, before: &Before) -> Link {
        before.seal(
            &of_restore(self.count),
            &[
                ("records", format!("{} {}", self.last_seq, self.next_seq)),
                ("restored", self.restored_at.to_string()),
            ],
        )
    }
}

/// The columns of [`Restore`].
pub(super) const RESTORES: &str =
    "SELECT restore_count, last_seq, next_seq, restored_at FROM restores";

/// The digest of the rows of `hours` whose first record comes after `after` and not after `last`:
/// those that a day seals. They must not grow any more. Memory does not grow with them.
pub(super) fn hours(
    connection: &Connection,
    after: i64,
    last: i64,
) -> Result<Link, rusqlite::Error> {
    let mut hash = Sha256::new();
    let mut line = String::new();
    // Records that were changed by hand may give two rows the same first seq.
    let (mut at, mut hour, mut series) = (after, i64::MAX, i64::MAX);
    loop {
        let page = connection.unchecked_transaction()?;
        let mut select = page.prepare_cached(
            r#"SELECT first_seq, hour, series, calls, last_seq, account, "group", action, mode, outcome, billable, reason,
                 nullif(key, '')
               FROM hours LEFT JOIN series ON series.id = hours.series
               WHERE first_seq >= ?1 AND first_seq <= ?2 AND (first_seq, hour, series) > (?1, ?3, ?4)
               ORDER BY first_seq, hour, series LIMIT ?5"#,
        )?;
        let mut rows = select.query(params![at, last, hour, series, PAGE])?;
        let mut seen = 0;
        while let Some(row) = rows.next()? {
            seen += 1;
            (at, hour, series) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (calls, last_seq): (i64, i64) = (row.get(3)?, row.get(4)?);
            line.clear();
            let _ = write!(line, "{hour}\t{calls}\t{at}\t{last_seq}");
            // Rows from before keys had ids are sealed as they were then: without a key.
            let columns = match row.get_ref(12)? {
                rusqlite::types::ValueRef::Null => 5..12,
                _ => 5..13,
            };
            for column in columns {
                // A series that is not there gives no word, which is no word of any series.
                let word = match row.get_ref(column)? {
                    rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text),
                    rusqlite::types::ValueRef::Integer(number) => number.to_string().into(),
                    _ => "?".into(),
                };
                // No word of ours has one of these; one that was changed by hand must not pass for
                // two.
                let _ = write!(line, "\t{}", word.replace(['\t', '\n'], "?"));
            }
            line.push('\n');
            hash.update(&line);
        }
        if seen < PAGE {
            return Ok(hash.finalize().into());
        }
    }
}
