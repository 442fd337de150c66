//! Reading back the calls that were throttled or refused. No bill reads them.

use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::{unsigned, word};
use crate::model::{AccountId, GroupId, Utc};
use rusqlite::params;

/// Calls of one hour that were turned away for one reason.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TurnedAwayLine {
    /// The begin of the hour, in hours since the Unix epoch.
    pub hour: i64,
    /// The group. `None` where none was found.
    pub group: Option<GroupId>,
    /// `throttled`, or the label of the refusal.
    pub reason: String,
    /// The number of calls.
    pub calls: u64,
}

impl Reader {
    /// The account's calls that were turned away in the hours that begin in [`from`, `until`), in
    /// order of hour.
    pub fn turned_away(
        &self,
        account: &AccountId,
        from: Utc,
        until: Utc,
    ) -> Result<Vec<TurnedAwayLine>, ReadError> {
        self.list(
            r#"SELECT hour, "group", reason, calls FROM turned_away
               WHERE account = ?1 AND hour >= ?2 AND hour < ?3 ORDER BY hour, "group", reason"#,
            params![account.as_str(), from.hour(), until.hour()],
            |row| {
                Ok(TurnedAwayLine {
                    hour: row.get(0)?,
                    group: word(row, 1, |text| Some(GroupId::new(text)))?,
                    reason: row.get(2)?,
                    calls: unsigned(row, 3)?,
                })
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::ledger::Entry;
    use crate::ledger::handle::tests::{Bench, DAY, HOUR_US};
    use crate::ledger::turned_away::TurnedAwayLine;
    use crate::model::{AccountId, GroupId, Utc};

    #[test]
    fn what_was_turned_away_adds_up_by_hour_and_is_read_of_one_account_alone() {
        let bench = Bench::new();
        let mut store = bench.store();
        let account = |n: u8| AccountId::new(&format!("a{n}")).unwrap();
        let group = GroupId::new("g");
        let entry =
            |n, hours: i64, group: &Option<GroupId>, reason: &str, calls| Entry::TurnedAway {
                account: account(n),
                hour: DAY.hour() + hours,
                group: group.clone(),
                reason: reason.to_owned(),
                calls,
            };
        let entries = [
            entry(1, 0, &group, "throttled", 5),
            entry(1, 0, &group, "throttled", 2),
            entry(1, 1, &None, "action_unknown", 1),
            entry(2, 0, &group, "throttled", 9),
        ];
        store.keep(&entries).unwrap();
        let reader = bench.reader();
        let line = |hours, group: &Option<GroupId>, reason: &str, calls| TurnedAwayLine {
            hour: DAY.hour() + hours,
            group: group.clone(),
            reason: reason.to_owned(),
            calls,
        };
        let until = |hours: i64| Utc(DAY.0 + hours * HOUR_US);
        let all = reader.turned_away(&account(1), DAY, until(2)).unwrap();
        let expected = [
            line(0, &group, "throttled", 7),
            line(1, &None, "action_unknown", 1),
        ];
        assert_eq!(all, expected);
        let first = reader.turned_away(&account(1), DAY, until(1)).unwrap();
        assert_eq!(first, expected[..1]);
        assert_eq!(reader.turned_away(&account(3), DAY, until(2)).unwrap(), []);
    }
}
