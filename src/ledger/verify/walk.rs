//! The walk over the chain, from the first record that is kept to the newest that is linked.
//!
//! Owns what it has seen so far. Must never hold more than the hours that are open where it stands.

use crate::ledger::chain::{self, Digests, Link, Linked, MARK};
use crate::ledger::rows::FastMap;
use crate::ledger::verify::bounds::{bounds, only_settled_records_are_gone};
use crate::ledger::verify::days::{SealedDay, sealed_days};
use crate::ledger::verify::finding::{Mismatch, Verified, key, misfit, number};
use crate::model::Utc;
use rusqlite::{Connection, OptionalExtension};
use std::collections::VecDeque;

/// A row of `hours` whose last record the walk has not reached.
#[derive(Clone, Copy, Debug)]
struct OpenHour {
    /// The number of its records that were seen.
    seen: i64,
    last_seq: i64,
    /// The least number of its records that the walk has not come past: those that were deleted, or
    /// that it counted before the row grew. `None` when it has seen every one.
    unseen: Option<i64>,
}

/// A row of `links`: one step of the roll-up.
struct Step {
    /// The seq of its last record.
    last: i64,
    /// The link after it.
    link: Vec<u8>,
    /// The first bytes of the link after each of its records.
    marks: Vec<u8>,
    /// How its records are linked.
    version: i64,
}

/// A link that is stated elsewhere.
#[derive(Debug)]
struct Stated {
    seq: i64,
    head: Vec<u8>,
    table: &'static str,
    key: String,
}

pub(super) struct ChainWalk {
    /// The newest record up to which everything fits, and the link after it.
    at: (i64, Link),
    pub(super) first: i64,
    /// The newest record that was rolled up when the walk began.
    began_with: i64,
    records: u64,
    unlinked: u64,
    days: u64,
    digests: Digests,
    open: FastMap<(i64, i64), OpenHour>,
    /// In order of seq, those that are still to come.
    stated: VecDeque<Stated>,
    pub(super) checkpoint: Option<Link>,
    pub(super) checkpoint_seen: bool,
    /// The checkpoint is the seal of this, of which no records are kept.
    pub(super) checkpoint_of_deleted: Option<String>,
}

impl ChainWalk {
    pub(super) fn new(connection: &Connection, checkpoint: Option<Link>) -> Result<Self, Mismatch> {
        let page = connection.unchecked_transaction()?;
        let (first_kept, rolled_up) = bounds(&page)?;
        let mut walk = Self {
            at: (first_kept - 1, boundary(&page, first_kept)?),
            first: first_kept,
            began_with: rolled_up,
            records: 0,
            unlinked: 0,
            days: 0,
            digests: Digests::default(),
            open: FastMap::default(),
            stated: VecDeque::new(),
            checkpoint,
            checkpoint_seen: false,
            checkpoint_of_deleted: None,
        };
        walk.stated = stated(&page, rolled_up)?;
        only_settled_records_are_gone(&page)?;
        walk.compare()?;
        Ok(walk)
    }

    /// Looks at one step of the roll-up. `true` when there is none left, in the state of the ledger
    /// that `page` shows.
    pub(super) fn step(&mut self, page: &Connection) -> Result<bool, Mismatch> {
        let (first_kept, rolled_up) = bounds(page)?;
        if self.at.0 < first_kept - 1 {
            // Deleted while it was looked at: on from there.
            self.at = (first_kept - 1, boundary(page, first_kept)?);
            self.first = first_kept;
            self.open.retain(|_, open| open.last_seq >= first_kept);
            for open in self.open.values_mut() {
                open.unseen.get_or_insert(0);
            }
            self.compare()?;
        }
        let (from, before) = self.at;
        if from == rolled_up {
            self.unlinked = self.nothing_but_records_beyond(page, rolled_up)?;
            return Ok(true);
        }
        let step = page
            .prepare_cached(
                "SELECT last_seq, link, marks, version FROM links WHERE last_seq > ?1 ORDER BY last_seq LIMIT 1",
            )?
            .query_row([from], |row| {
                Ok(Step {
                    last: row.get(0)?,
                    link: row.get(1)?,
                    marks: row.get(2)?,
                    version: row.get(3)?,
                })
            })
            .optional()?;
        let Some(step) = step else {
            let why = format!("there is none, but records up to {rolled_up} are rolled up");
            return misfit("links", format!("after {from}"), why);
        };
        if step.last > rolled_up {
            let why = format!("only records up to {rolled_up} are rolled up");
            return misfit("links", step.last, why);
        }
        let restored: bool = page
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM restores WHERE last_seq = ?1 AND next_seq = ?2 + 1)",
            )?
            .query_row([from, step.last], |row| row.get(0))?;
        if restored && step.marks.is_empty() && step.link == before {
            // No seq in between was ever given.
            self.at = (step.last, before);
            self.compare()?;
            return Ok(false);
        }
        self.link_again(page, &step)?;
        Ok(false)
    }

    /// Links the records of one step again, and compares each with its mark and the last with the
    /// link.
    fn link_again(&mut self, page: &Connection, step: &Step) -> Result<(), Mismatch> {
        let (from, before) = self.at;
        let last = step.last;
        let is_whole = step.marks.len() as i64 == (last - from).saturating_mul(MARK as i64);
        // The first record whose mark is another.
        let mut unlike = None;
        let mut computed = before;
        let mut expected = from + 1;
        let mut select = page.prepare_cached(chain::LINKED)?;
        let mut rows = select.query([from, last])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq != expected {
                break;
            }
            expected += 1;
            let Ok(record) = Linked::read(row) else {
                return misfit("raw", seq, "its values are not those of a record");
            };
            let Some(digests) = self.digests.of(page, &record, step.version)? else {
                let (series, run) = (record.series, record.run);
                let why = format!("there is no series {series} or no run {run}");
                return misfit("raw", seq, why);
            };
            computed = record.link(&computed, &digests, step.version);
            let place = usize::try_from(seq - from - 1).unwrap_or(usize::MAX);
            let mark = step.marks.chunks_exact(MARK).nth(place);
            if is_whole && mark != Some(&computed[..MARK]) {
                unlike.get_or_insert((seq, record.series, record.run));
            }
            // After a mark that differs, nothing more is counted: the error names that record.
            if unlike.is_none() && is_whole {
                self.at = (seq, computed);
                self.records += 1;
                self.compare()?;
                self.count(page, &record)?;
            }
        }
        match unlike {
            None if expected <= last => misfit("raw", expected, "this record is missing"),
            _ if !is_whole => misfit(
                "links",
                last,
                format!("it has not the marks of {} records", last - from),
            ),
            Some(_) if computed[..] == step.link => {
                misfit("links", last, "its marks are not those of its records")
            }
            Some((seq, series, run)) => misfit(
                "raw",
                seq,
                format!(
                    "it is not the record that was linked, or series {series} or run {run} is not"
                ),
            ),
            None if computed[..] != step.link => {
                misfit("links", last, "its link is not that of its last record")
            }
            None => Ok(()),
        }
    }

    /// Compares what is stated of the link at hand elsewhere.
    fn compare(&mut self) -> Result<(), Mismatch> {
        let (seq, link) = self.at;
        // The link before the first record stands for nothing.
        self.checkpoint_seen |= self.checkpoint == Some(link) && link != chain::ORIGIN;
        while let Some(stated) = self.stated.front().filter(|stated| stated.seq <= seq) {
            // Those before it are of records that were deleted.
            if stated.seq == seq {
                if stated.head[..] != link {
                    let why = format!("its head is not the link after record {seq}");
                    return misfit(stated.table, &stated.key, why);
                }
                self.days += u64::from(stated.table == "days");
            }
            self.stated.pop_front();
        }
        Ok(())
    }

    /// Counts the record in its hour.
    fn count(&mut self, page: &Connection, record: &Linked) -> Result<(), Mismatch> {
        let seq = record.seq;
        let at = (Utc(record.admitted_at).hour(), record.series);
        let hour = |page: &Connection| -> Result<Option<(i64, i64, i64)>, rusqlite::Error> {
            // One that is sealed has others after it.
            page.prepare_cached(
                "SELECT calls, first_seq, last_seq FROM hours WHERE hour = ?1 AND series = ?2 AND first_seq <= ?3
                 ORDER BY first_seq DESC LIMIT 1",
            )?
            .query_row([at.0, at.1, seq], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .optional()
        };
        let missing = |at: (i64, i64)| {
            let why = format!("there is no such row, and record {seq} belongs to it");
            misfit("hours", key(at.0, at.1), why)
        };
        let open = match self.open.entry(at) {
            std::collections::hash_map::Entry::Occupied(open) => {
                let open = open.into_mut();
                open.seen += 1;
                open
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let Some((_, first_seq, last_seq)) = hour(page)? else {
                    return missing(at);
                };
                let before = first_seq < self.first || first_seq < seq && seq > self.began_with;
                if !before && first_seq != seq || last_seq < seq {
                    let why = format!(
                        "it is said to have records {first_seq} to {last_seq}, and {seq} belongs to it"
                    );
                    return misfit("hours", key(at.0, at.1), why);
                }
                vacant.insert(OpenHour {
                    seen: 1,
                    last_seq,
                    unseen: before.then_some(1),
                })
            }
        };
        if seq != open.last_seq {
            return Ok(());
        }
        let Some((calls, _, last_seq)) = hour(page)? else {
            return missing(at);
        };
        if last_seq > seq {
            // It has grown since it was looked at first.
            open.last_seq = last_seq;
            return Ok(());
        }
        let seen = open.seen;
        let fits = match open.unseen {
            Some(unseen) => seen + unseen <= calls,
            None => seen == calls,
        };
        if !fits {
            let why = format!("it counts {calls} calls, and has {seen} records");
            return misfit("hours", key(at.0, at.1), why);
        }
        self.open.remove(&at);
        Ok(())
    }

    /// All that is rolled up was looked at: no link may say more, and what follows must be a run of
    /// records to its end. Gives how many follow.
    fn nothing_but_records_beyond(
        &self,
        page: &Connection,
        rolled_up: i64,
    ) -> Result<u64, Mismatch> {
        let (last, _) = chain::head(page)?;
        if last != rolled_up {
            let why = format!("only records up to {rolled_up} are rolled up");
            return misfit("links", last, why);
        }
        let (beyond, missing): (i64, Option<i64>) = page.query_row(
            "SELECT count(*), min(expected) FILTER (WHERE seq <> expected)
             FROM (SELECT seq, ?1 + row_number() OVER (ORDER BY seq) AS expected FROM raw WHERE seq > ?1)",
            [rolled_up],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        match missing {
            Some(missing) => misfit("raw", missing, "this record is missing"),
            None => Ok(number(beyond)),
        }
    }

    pub(super) fn end(self, connection: &Connection) -> Result<Verified, Mismatch> {
        if self.checkpoint.is_some() && !self.checkpoint_seen {
            let restored: bool =
                connection.query_row("SELECT EXISTS (SELECT 1 FROM restores)", [], |row| {
                    row.get(0)
                })?;
            let why = match self.checkpoint_of_deleted {
                Some(what) => format!(
                    "it is the head of {what}, of which no records are kept, so it says nothing of those that are: take a newer one"
                ),
                None if restored => "nothing that is sealed has it: these are not the records that were there when it was \
                     published, or it was published after the backup that was put back"
                    .to_owned(),
                None => {
                    "nothing that is sealed has it: these are not the records that were there when it was published"
                        .to_owned()
                }
            };
            return Err(Mismatch::Checkpoint(why));
        }
        Ok(Verified {
            first_seq: number(self.first),
            last_seq: number(self.at.0),
            records: self.records,
            unlinked: self.unlinked,
            head: self.at.1,
            days: self.days,
        })
    }
}

/// The link before the first record that is kept.
fn boundary(page: &Connection, first_kept: i64) -> Result<Link, Mismatch> {
    let link = page
        .prepare_cached("SELECT link FROM links WHERE last_seq = ?1")?
        .query_row([first_kept - 1], |row| row.get(0))
        .optional()?;
    match link {
        Some(link) => Ok(link),
        None => misfit(
            "links",
            first_kept - 1,
            format!("there is no such row, and record {first_kept} is the first that is kept"),
        ),
    }
}

/// The links that days and settlements have to have, in order of seq. The days must follow each
/// other.
fn stated(page: &Connection, rolled_up: i64) -> Result<VecDeque<Stated>, Mismatch> {
    let mut stated = Vec::new();
    let mut end = 0;
    let days = sealed_days(page)?;
    for day in &days {
        let (first_seq, last_seq) = (day.first_seq, day.last_seq);
        if first_seq != end + 1 || last_seq < end || last_seq > rolled_up {
            let why = format!(
                "it has records {first_seq} to {last_seq}; the day before ends with {end}, the ledger with {rolled_up}"
            );
            return misfit("days", &day.day, why);
        }
        end = last_seq;
        stated.push(Stated {
            seq: last_seq,
            head: day.link.as_ref().unwrap_or(&day.head).clone(),
            table: "days",
            key: day.day.clone(),
        });
    }
    let gone: Option<String> = page
        .query_row(
            "SELECT substr(what, 5) AS day FROM seals WHERE what LIKE 'day %' AND day NOT IN (SELECT day FROM days)
             ORDER BY place LIMIT 1",
            [],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(day) = gone {
        return misfit("days", day, "it was sealed, and it is not there");
    }
    let mut select = page.prepare("SELECT month, through_seq, head FROM settlements")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let settlement = Stated {
            key: row.get(0)?,
            seq: row.get(1)?,
            head: row.get(2)?,
            table: "settlements",
        };
        if settlement.seq > rolled_up {
            let why = format!(
                "it counts records up to {}, and the ledger ends with {rolled_up}",
                settlement.seq
            );
            return misfit("settlements", settlement.key, why);
        }
        // With such a day, its head is compared when the seals are.
        let is_its_day = |day: &SealedDay| day.link.is_some() && day.last_seq == settlement.seq;
        if !days.iter().any(is_its_day) {
            stated.push(settlement);
        }
    }
    stated.sort_by_key(|stated| stated.seq);
    Ok(stated.into())
}
