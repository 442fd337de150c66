//! Whether a range of another ledger's records goes on from what is collected of it.
//!
//! Owns the rule of what is taken: each record once, in the order of its own ledger, and only where
//! its chain goes on. Writes nothing.

use crate::ledger::chain::{self, Link, Linked, TextsDigest};
use crate::ledger::range::{Gap, Range};
use crate::ledger::rows::{FastMap, signed};
use crate::ledger::source_chain::SourceLinks;
use crate::ledger::store::sources::SourceState;
use rusqlite::{Connection, OptionalExtension, params};
use std::cmp::Ordering;

/// What is to be done with a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fit {
    /// The records after the first `skipped` are taken.
    Take {
        skipped: usize,
        /// The link before the first that is taken.
        link_before: Link,
        /// The newest record before a restore, where the first that is taken comes after it.
        left_after: Option<i64>,
    },
    /// All of it is collected.
    Repeat,
    /// Records after this seq come before it.
    Gap(u64),
    /// It is not of the ledger that is known.
    Broken(String),
}

impl Fit {
    fn broken(why: impl Into<String>) -> Result<Self, rusqlite::Error> {
        Ok(Self::Broken(why.into()))
    }
}

/// Decides about `range`, of whose ledger `state` is known.
pub(super) fn fit(
    connection: &Connection,
    links: &mut SourceLinks,
    state: Option<&SourceState>,
    range: &Range,
) -> Result<Fit, rusqlite::Error> {
    let Some((state, first_known)) = state.and_then(|state| Some((state, state.first_seq?))) else {
        return Ok(begin(range));
    };
    let (first, last) = (signed(range.first_seq), signed(range.last_seq));
    let count = signed(range.restore_count);
    if last <= state.seq {
        return repeat(connection, state, range);
    }
    if count < state.restore_count {
        return Fit::broken(format!(
            "it was written before restore {} of its ledger, of which records are collected already: an older copy of the ledger \
             is in use",
            state.restore_count
        ));
    }
    if count == state.restore_count {
        if first > state.seq + 1 {
            return Ok(Fit::Gap(range_seq(state.seq)));
        }
        if first < first_known {
            return Fit::broken(before_the_first(first_known));
        }
        return Ok(go_on(state, range));
    }
    let Some(gap) = range.restored else {
        return Ok(Fit::Gap(range_seq(state.seq)));
    };
    step_over(connection, links, state, range, gap)
}

fn range_seq(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}

fn before_the_first(first_known: i64) -> String {
    format!("it begins before record {first_known}, the first that was collected of its ledger")
}

/// The first range of a ledger. It begins behind what was billed in that ledger itself: neither what
/// its gate believes to be collected nor what it has deleted counts, for this may be an older backup of
/// the collected ledger.
fn begin(range: &Range) -> Fit {
    match range.first_seq.cmp(&range.billed_seq.saturating_add(1)) {
        Ordering::Greater => return Fit::Gap(range.billed_seq),
        Ordering::Less => {
            return Fit::Broken(format!(
                "its records up to {} are on the statements of their own ledger",
                range.billed_seq
            ));
        }
        Ordering::Equal => {}
    }
    match relink(range, None) {
        Ok(_) => Fit::Take {
            skipped: 0,
            link_before: range.link_before,
            left_after: None,
        },
        Err(why) => Fit::Broken(why),
    }
}

/// A range whose records were all given to the collected ledger, or to another of the same id.
fn repeat(
    connection: &Connection,
    state: &SourceState,
    range: &Range,
) -> Result<Fit, rusqlite::Error> {
    let (first, last) = (signed(range.first_seq), signed(range.last_seq));
    let (records, link): (i64, Option<Link>) = connection
        .prepare_cached(
            "SELECT coalesce(sum(min(source_last, ?3) - max(source_first, ?2) + 1), 0),
                    max(link) FILTER (WHERE source_last = ?3)
             FROM collected WHERE source = ?1 AND source_first <= ?3 AND source_last >= ?2 AND source_first >=
               coalesce((SELECT max(source_first) FROM collected WHERE source = ?1 AND source_first <= ?2), ?2)",
        )?
        .query_row(params![state.source, first, last], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let pruned: Option<i64> = connection
        .prepare_cached("SELECT min(source_first) FROM collected WHERE source = ?1")?
        .query_row([state.source], |row| row.get(0))
        .optional()?
        .flatten();
    if link.is_some_and(|link| link != range.link_after) {
        return Fit::broken(format!(
            "record {last} of its ledger is collected, and was another: another ledger has its id"
        ));
    }
    // What was deleted here since cannot be compared any more.
    let is_gone = state.first_seq.is_some_and(|known| first >= known)
        && pruned.is_none_or(|kept| first < kept);
    match records == last - first + 1 || is_gone {
        true => Ok(Fit::Repeat),
        false => Fit::broken(format!(
            "its records are not collected, and later ones of its ledger are: those up to {}",
            state.seq
        )),
    }
}

/// A range that goes on where the records of its ledger end here, or begins before.
fn go_on(state: &SourceState, range: &Range) -> Fit {
    let first = signed(range.first_seq);
    let (at, _) = match relink(range, Some(state.seq)) {
        Ok(links) => links,
        Err(why) => return Fit::Broken(why),
    };
    let at = if first == state.seq + 1 {
        Some(range.link_before)
    } else {
        at
    };
    if at != Some(state.link) {
        return Fit::Broken(format!(
            "its link after record {} is not that of the records that were collected: another ledger has its id",
            state.seq
        ));
    }
    Fit::Take {
        skipped: usize::try_from(state.seq + 1 - first).unwrap_or(usize::MAX),
        link_before: state.link,
        left_after: None,
    }
}

/// The first range since a restore. What was collected and is beyond the backup stays.
fn step_over(
    connection: &Connection,
    links: &mut SourceLinks,
    state: &SourceState,
    range: &Range,
    gap: Gap,
) -> Result<Fit, rusqlite::Error> {
    let (first, left) = (signed(range.first_seq), signed(gap.last_seq));
    if state.seq < left {
        return Ok(Fit::Gap(range_seq(state.seq)));
    }
    if first <= state.seq {
        return Fit::broken(format!(
            "its ledger was restored, and gives seqs again that were given before: {first}, and {} is collected",
            state.seq
        ));
    }
    let at = match left == state.seq {
        true => Some(state.link),
        false => links.after(connection, state.source, left)?,
    };
    if at.is_some_and(|at| at != range.link_before) {
        return Fit::broken(format!(
            "its ledger was restored, and its link after record {left} is not that of the records that were collected"
        ));
    }
    Ok(match relink(range, None) {
        Ok(_) => Fit::Take {
            skipped: 0,
            link_before: range.link_before,
            left_after: Some(left),
        },
        Err(why) => Fit::Broken(why),
    })
}

/// Links the records of a range. Gives the link after the record `at`, and the last. An error when
/// that is not the one that the range says.
fn relink(range: &Range, at: Option<i64>) -> Result<(Option<Link>, Link), String> {
    let version = range.link_version.into();
    let mut digests: FastMap<(u32, u32), TextsDigest> = FastMap::default();
    let (mut link, mut found) = (range.link_before, None);
    for (seq, row) in (signed(range.first_seq)..).zip(&range.rows) {
        let place = |index: u32| usize::try_from(index).unwrap_or(usize::MAX);
        let (Some(series), Some(run)) = (
            range.series.get(place(row.series)),
            range.runs.get(place(row.run)),
        ) else {
            return Err(format!("its record {seq} has no series or no run"));
        };
        let texts = *digests.entry((row.series, row.run)).or_insert_with(|| {
            let texts = [
                &*series.account,
                &*series.group,
                &*series.action,
                &*series.mode,
                &*series.outcome,
                &*series.reason,
                &*run.replica,
                &*series.key,
            ];
            chain::digest_of(&texts, series.billable.into(), version)
        });
        let record = Linked {
            seq,
            id: row.id,
            series: 0,
            admitted_at: row.admitted_at,
            start_ns: row.start_ns,
            run: run.run,
            status: row.status.map(i64::from),
            duration_us: row.duration_us,
            store: (row.store_epoch, row.store_start_us),
        };
        link = record.link(&link, &texts, version);
        if at == Some(seq) {
            found = Some(link);
        }
    }
    match link == range.link_after {
        true => Ok((found, link)),
        false => Err("its records do not give its link: it was changed on its way".to_owned()),
    }
}
