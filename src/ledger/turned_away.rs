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
