//! Reading events back.
//!
//! Owns the SQL that reads them.

use crate::ledger::error::ReadError;
use crate::ledger::fixed::Debit;
use crate::ledger::read::Reader;
use crate::ledger::rows::{signed, unsigned, word};
use crate::model::{AccountId, EventType, Utc};
use rusqlite::{Row, params};
use std::collections::HashMap;

/// What was told of the standing of an account (R17).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The newest event of the two says that it is in arrears.
    pub in_arrears: bool,
    /// The number of events of going into arrears and out of them.
    pub turns: u64,
    /// The number of events of a balance that is low.
    pub lows: u64,
    /// The instant of the newest of these.
    pub low_at: Option<Utc>,
}

/// The state of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventState {
    /// It was not sent, and did not fail either.
    Unsent,
    /// It was tried, and not taken yet.
    Failing,
    /// It failed for too long, and is not tried any more.
    Passed,
    /// It was taken.
    Sent,
}

impl EventState {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Unsent, Self::Failing, Self::Passed, Self::Sent];

    /// The one spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsent => "unsent",
            Self::Failing => "failing",
            Self::Passed => "passed",
            Self::Sent => "sent",
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Unsent => "sent_at IS NULL AND passed_at IS NULL AND failing_since IS NULL",
            Self::Failing => "sent_at IS NULL AND passed_at IS NULL AND failing_since IS NOT NULL",
            Self::Passed => "sent_at IS NULL AND passed_at IS NOT NULL",
            Self::Sent => "sent_at IS NOT NULL",
        }
    }
}

/// An event as it was raised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredEvent {
    /// 1, 2, 3 and so on, in the order in which events were raised.
    pub place: u64,
    /// The id of the event.
    pub id: String,
    /// The account that it is about.
    pub account: AccountId,
    /// What happened, as in `pack.low`.
    pub r#type: String,
    /// The instant at which it was found.
    pub raised_at: Utc,
    /// The body that is delivered, in JSON.
    pub body: String,
    /// The instant of its first failed attempt. `None` before one.
    pub failing_since: Option<Utc>,
    /// The instant of the delivery. `None` until then.
    pub sent_at: Option<Utc>,
    /// The instant at which it was given up. `None` until then.
    pub passed_at: Option<Utc>,
}

impl StoredEvent {
    /// What became of it by now.
    pub fn state(&self) -> EventState {
        match (self.sent_at, self.passed_at, self.failing_since) {
            (Some(_), ..) => EventState::Sent,
            (_, Some(_), _) => EventState::Passed,
            (.., Some(_)) => EventState::Failing,
            _ => EventState::Unsent,
        }
    }
}

const EVENTS: &str = "SELECT id, account, type, raised_at, body, failing_since, sent_at, passed_at, place FROM events";

fn event(row: &Row<'_>) -> Result<StoredEvent, ReadError> {
    let at = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Utc));
    Ok(StoredEvent {
        id: row.get(0)?,
        account: word(row, 1, AccountId::new)?,
        r#type: row.get(2)?,
        raised_at: Utc(row.get(3)?),
        body: row.get(4)?,
        failing_since: at(5)?,
        sent_at: at(6)?,
        passed_at: at(7)?,
        place: unsigned(row, 8)?,
    })
}

impl Reader {
    /// Whether that event was raised, delivered or not.
    pub fn event_known(&self, id: &str) -> Result<bool, ReadError> {
        let sql = "SELECT 1 FROM events WHERE id = ?1";
        Ok(self.one(sql, params![id], |_| Ok(()))?.is_some())
    }

    /// At most `limit` events that were neither delivered nor passed over, in the order in which
    /// they were raised.
    pub fn unsent_events(&self, limit: usize) -> Result<Vec<StoredEvent>, ReadError> {
        let sql =
            format!("{EVENTS} WHERE sent_at IS NULL AND passed_at IS NULL ORDER BY place LIMIT ?1");
        self.list(&sql, params![signed(limit as u64)], event)
    }

    /// At most `limit` events after a place, in the order in which they were raised; of one account
    /// and in one state, where these are given.
    pub fn events(
        &self,
        account: Option<&AccountId>,
        state: Option<EventState>,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, ReadError> {
        let condition = state.map_or("TRUE", EventState::condition);
        let sql = format!(
            "{EVENTS} WHERE place > ?1 AND (?2 IS NULL OR account = ?2) AND {condition} ORDER BY place LIMIT ?3"
        );
        let account = account.map(AccountId::as_str);
        let limit = signed(limit as u64);
        self.list(&sql, params![signed(after), account, limit], event)
    }

    /// What was told of the standing of each account of which anything was.
    pub fn told(&self) -> Result<HashMap<AccountId, Told>, ReadError> {
        let sql = "SELECT account, type, raised_at FROM events
                   WHERE type IN (?1, ?2, ?3) ORDER BY place";
        let [arrears, resumed, low] = [
            EventType::AccountInArrears,
            EventType::AccountResumed,
            EventType::BalanceLow,
        ]
        .map(EventType::as_str);
        let rows = self.list(sql, params![arrears, resumed, low], |row| {
            let account = word(row, 0, AccountId::new)?;
            Ok((account, row.get::<_, String>(1)?, Utc(row.get(2)?)))
        })?;
        let mut all: HashMap<AccountId, Told> = HashMap::new();
        for (account, r#type, at) in rows {
            let told = all.entry(account).or_default();
            if r#type == low {
                (told.lows, told.low_at) = (told.lows + 1, Some(at));
            } else {
                (told.turns, told.in_arrears) = (told.turns + 1, r#type == arrears);
            }
        }
        Ok(all)
    }

    /// At most `limit` of the bills of a fixed month after an account, in the order of accounts.
    pub fn dues(
        &self,
        month: &str,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<Debit>, ReadError> {
        let sql = "SELECT account, month, due FROM statements
                   WHERE month = ?1 AND account > ?2 ORDER BY account LIMIT ?3";
        let after = after.map_or("", AccountId::as_str);
        let limit = signed(limit as u64);
        self.list(sql, params![month, after, limit], |row| {
            Ok(Debit {
                account: word(row, 0, AccountId::new)?,
                month: row.get(1)?,
                due: row.get(2)?,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Entry, EventEntry, Ledger, LedgerOptions};
    use crate::model::{Clock, Durability};
    use std::time::Duration;

    fn raised(n: i64, account: &str, r#type: EventType) -> Entry {
        Entry::Event(EventEntry::Raised {
            id: format!("evt_{n}"),
            account: AccountId::new(account).unwrap(),
            r#type: r#type.as_str().to_owned(),
            raised_at: Utc(n),
            body: "{}".to_owned(),
        })
    }

    fn ledger(entries: Vec<Entry>) -> (tempfile::TempDir, Ledger, Reader) {
        let dir = tempfile::tempdir().unwrap();
        let options = LedgerOptions {
            path: dir.path().join("ledger.db"),
            durability: Durability::Relaxed,
            replica: String::new(),
            create: true,
            pending_limit: 100,
            stall_after: Duration::from_secs(1 << 40),
        };
        let ledger = Ledger::open(options, Clock::default(), |_| ()).unwrap();
        ledger.keep(entries).unwrap();
        let reader = ledger.reader().unwrap();
        (dir, ledger, reader)
    }

    #[test]
    fn an_event_is_in_one_state_and_is_listed_by_it_page_by_page() {
        use EventType::{AccountInArrears, PackLow};
        let id = |n: i64| format!("evt_{n}");
        let at = Utc(9);
        let (_dir, _ledger, reader) = ledger(vec![
            raised(1, "a", PackLow),
            raised(2, "b", PackLow),
            raised(3, "a", AccountInArrears),
            raised(4, "a", PackLow),
            raised(5, "b", PackLow),
            Entry::Event(EventEntry::Failed { id: id(2), at }),
            Entry::Event(EventEntry::Failed { id: id(3), at }),
            Entry::Event(EventEntry::Passed { id: id(3), at }),
            Entry::Event(EventEntry::Failed { id: id(4), at }),
            Entry::Event(EventEntry::Sent { id: id(4), at }),
        ]);
        let all = reader.events(None, None, 0, 100).unwrap();
        let states: Vec<_> = all.iter().map(StoredEvent::state).collect();
        use EventState::{Failing, Passed, Sent, Unsent};
        assert_eq!(states, [Unsent, Failing, Passed, Sent, Unsent]);
        for state in EventState::ALL {
            let listed = reader.events(None, Some(state), 0, 100).unwrap();
            let of_state = all.iter().filter(|event| event.state() == state);
            assert_eq!(listed, of_state.cloned().collect::<Vec<_>>(), "{state:?}");
        }
        let b = AccountId::new("b").unwrap();
        let listed = reader.events(Some(&b), None, 0, 1).unwrap();
        assert_eq!(listed, [all[1].clone()]);
        let listed = reader.events(Some(&b), None, listed[0].place, 1).unwrap();
        assert_eq!(listed, [all[4].clone()]);
    }

    #[test]
    fn what_was_told_of_the_standing_of_an_account_is_read_back() {
        use EventType::{AccountInArrears, AccountResumed, BalanceLow, PackLow};
        let (_dir, _ledger, reader) = ledger(vec![
            raised(1, "a", BalanceLow),
            raised(2, "a", AccountInArrears),
            raised(3, "b", PackLow),
            raised(4, "a", AccountResumed),
            raised(5, "c", AccountInArrears),
            raised(6, "a", BalanceLow),
        ]);
        let told = reader.told().unwrap();
        assert_eq!(told.len(), 2);
        let of = |account| told[&AccountId::new(account).unwrap()];
        let a = Told {
            in_arrears: false,
            turns: 2,
            lows: 2,
            low_at: Some(Utc(6)),
        };
        assert_eq!(of("a"), a);
        let c = Told {
            in_arrears: true,
            turns: 1,
            ..Told::default()
        };
        assert_eq!(of("c"), c);
    }
}
