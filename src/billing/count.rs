//! The calls of a statement, counted from the ledger into its groups.
//!
//! Owns where a month is cut. Must never decide what covers a call.

use crate::billing::window::SealedWindow;
use crate::billing::{self, Calls, GroupInputs, Interval, KeyCalls, LateEntries, PackOrder};
use crate::ledger::{ReadError, Reader, UsageLine};
use crate::model::{AccountId, GroupId, Utc};
use std::collections::BTreeMap;

/// Counts the account's calls of the statement into `groups`, whose packs say where the month is
/// cut.
pub(super) fn count(
    reader: &Reader,
    window: &SealedWindow,
    counted_until: Utc,
    id: &AccountId,
    groups: &mut Vec<GroupInputs>,
) -> Result<(), ReadError> {
    let all_packs: Vec<PackOrder> = groups.iter().flat_map(|g| g.packs.clone()).collect();
    // A pack covers calls only while it is valid, so no interval may reach over its begin or its
    // end.
    let mut instants = vec![window.from];
    instants.extend(billing::boundaries(&all_packs, window.from, counted_until));
    instants.push(window.until);
    for pair in instants.windows(2) {
        let [from, until] = [pair[0], pair[1]];
        let lines = window.calls(reader, id, (from, until))?;
        for (group, calls) in by_group(&lines) {
            let interval = Interval { from, until, calls };
            group_of(groups, group).intervals.push(interval);
        }
        add_by_key(groups, &lines);
    }
    let lines = window.late_calls(reader, id)?;
    for (group, calls) in by_group(&lines) {
        group_of(groups, group).late = calls;
    }
    add_by_key(groups, &lines);
    for group in groups {
        // A statement that was fixed before keys had ids is computed again as it was.
        if group.keys.iter().all(|calls| calls.key.is_none()) {
            group.keys.clear();
        }
    }
    Ok(())
}

/// Adds the lines to the calls by key of their groups.
fn add_by_key(groups: &mut Vec<GroupInputs>, lines: &[UsageLine]) {
    for line in lines {
        let keys = &mut group_of(groups, &line.group).keys;
        let at = match keys.binary_search_by(|calls| calls.key.cmp(&line.key)) {
            Ok(at) => at,
            Err(at) => {
                let key = line.key.clone();
                let none = KeyCalls {
                    key,
                    calls: 0,
                    billable: 0,
                };
                keys.insert(at, none);
                at
            }
        };
        keys[at].calls += line.calls;
        if line.billable {
            keys[at].billable += line.calls;
        }
    }
}

/// The account's calls of one group in `[from, until)` of a month.
pub(super) fn calls_between(
    reader: &Reader,
    window: &SealedWindow,
    (from, until): (Utc, Utc),
    id: &AccountId,
    group: &GroupId,
) -> Result<Vec<Calls>, ReadError> {
    let lines = window.calls(reader, id, (from, until))?;
    Ok(by_group(&lines).remove(group).unwrap_or_default())
}

pub(super) fn empty_group(group: &GroupId, title: &str, title_en: &str) -> GroupInputs {
    GroupInputs {
        group: group.clone(),
        title: title.to_owned(),
        title_en: title_en.to_owned(),
        terms: None,
        packs: Vec::new(),
        purchases: Vec::new(),
        intervals: Vec::new(),
        late: Vec::new(),
        late_entries: LateEntries::default(),
        keys: Vec::new(),
    }
}

/// The group's inputs. One that the catalogue does not sell any more is listed without a price.
fn group_of<'g>(groups: &'g mut Vec<GroupInputs>, id: &GroupId) -> &'g mut GroupInputs {
    let index = groups.iter().position(|group| group.group == *id);
    let index = index.unwrap_or_else(|| {
        groups.push(empty_group(id, id.as_str(), ""));
        groups.len() - 1
    });
    &mut groups[index]
}

/// The lines by group, those that differ only in what a bill does not ask added together.
fn by_group(lines: &[UsageLine]) -> BTreeMap<&GroupId, Vec<Calls>> {
    let mut groups: BTreeMap<&GroupId, Vec<Calls>> = BTreeMap::new();
    for line in lines {
        let calls = groups.entry(&line.group).or_default();
        let alike = calls.iter_mut().find(|calls| {
            calls.action == line.action && calls.mode == line.mode && calls.reason == line.reason
        });
        match alike {
            Some(alike) => alike.calls += line.calls,
            None => calls.push(Calls {
                action: line.action.clone(),
                mode: line.mode,
                reason: line.reason,
                calls: line.calls,
            }),
        }
    }
    groups
}
