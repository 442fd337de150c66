//! Reading what was sealed, settled and told.
//!
//! Owns the SQL that reads these tables. Must never write to a ledger.

use super::chain::Link;
use super::read::{ReadError, Reader, unsigned, word};
use crate::words::{AccountId, Utc};
use rusqlite::{OptionalExtension, Row, params};
use std::ops::RangeInclusive;

/// A sealed day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    /// `2026-11-30`.
    pub day: String,
    /// Of what the seal before did not cover.
    pub first_seq: u64,
    /// One below `first_seq` when nothing was recorded.
    pub last_seq: u64,
    /// The link of `last_seq`: it stands for all records up to there.
    pub head: Link,
}

impl Seal {
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            day: row.get(0)?,
            first_seq: unsigned(row, 1)?,
            last_seq: unsigned(row, 2)?,
            head: row.get(3)?,
        })
    }
}

/// A month that was fixed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// `2026-11`.
    pub month: String,
    /// The newest record that its statements know.
    pub through_seq: u64,
    /// The link of that record.
    pub head: Link,
    /// When it was fixed.
    pub fixed_at: Utc,
    /// When the last of its statements was stored.
    pub settled_at: Option<Utc>,
}

/// A statement as it was fixed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredStatement {
    /// `2026-11`.
    pub month: String,
    /// Whose.
    pub account: AccountId,
    /// What it debited: a decimal.
    pub due: String,
    /// JSON.
    pub inputs: String,
    /// JSON.
    pub statement: String,
}

/// What a settlement debited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Debit {
    /// `2026-11`.
    pub month: String,
    /// Whom.
    pub account: AccountId,
    /// A decimal.
    pub due: String,
}

/// A notice that was raised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredNotice {
    /// By which it is known to be the same.
    pub id: String,
    /// Whom it is about.
    pub account: AccountId,
    /// JSON: what is delivered.
    pub body: String,
}

const STATEMENT: &str = "SELECT month, account, due, inputs, statement FROM statements";
const SETTLEMENT: &str = "SELECT month, through_seq, head, fixed_at, settled_at FROM settlements";

fn settlement(row: &Row<'_>) -> Result<Settlement, rusqlite::Error> {
    Ok(Settlement {
        month: row.get(0)?,
        through_seq: unsigned(row, 1)?,
        head: row.get(2)?,
        fixed_at: Utc(row.get(3)?),
        settled_at: row.get::<_, Option<i64>>(4)?.map(Utc),
    })
}

fn statement(row: &Row<'_>) -> Result<StoredStatement, ReadError> {
    Ok(StoredStatement {
        month: row.get(0)?,
        account: word(row, 1, AccountId::new)?,
        due: row.get(2)?,
        inputs: row.get(3)?,
        statement: row.get(4)?,
    })
}

impl Reader {
    /// The newest day that was sealed.
    pub fn last_day(&self) -> Result<Option<Seal>, ReadError> {
        let sql = "SELECT day, first_seq, last_seq, head FROM days ORDER BY day DESC LIMIT 1";
        Ok(self.0.query_row(sql, [], Seal::read).optional()?)
    }

    /// The first sealed day that is `day` or later.
    pub fn first_day_from(&self, day: &str) -> Result<Option<Seal>, ReadError> {
        let sql =
            "SELECT day, first_seq, last_seq, head FROM days WHERE day >= ?1 ORDER BY day LIMIT 1";
        Ok(self.0.query_row(sql, [day], Seal::read).optional()?)
    }

    /// Whether the month was fixed.
    pub fn settlement(&self, month: &str) -> Result<Option<Settlement>, ReadError> {
        let mut select = self
            .0
            .prepare_cached(&format!("{SETTLEMENT} WHERE month = ?1"))?;
        Ok(select.query_row([month], settlement).optional()?)
    }

    /// The newest month of which every statement is stored.
    pub fn last_settled(&self) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENT} WHERE settled_at IS NOT NULL ORDER BY month DESC LIMIT 1");
        Ok(self
            .0
            .prepare_cached(&sql)?
            .query_row([], settlement)
            .optional()?)
    }

    /// The account's statement of a month, when it was fixed.
    pub fn stored_statement(
        &self,
        month: &str,
        account: &AccountId,
    ) -> Result<Option<StoredStatement>, ReadError> {
        let sql = format!("{STATEMENT} WHERE month = ?1 AND account = ?2");
        self.one_statement(&sql, params![month, account.as_str()])
    }

    /// The account's newest fixed statement of a month before `month`.
    pub fn last_statement(
        &self,
        account: &AccountId,
        month: &str,
    ) -> Result<Option<StoredStatement>, ReadError> {
        let sql =
            format!("{STATEMENT} WHERE account = ?1 AND month < ?2 ORDER BY month DESC LIMIT 1");
        self.one_statement(&sql, params![account.as_str(), month])
    }

    /// The fixed statement that follows `after` by month and account; the first without it.
    pub fn next_statement(
        &self,
        after: Option<&(String, AccountId)>,
    ) -> Result<Option<StoredStatement>, ReadError> {
        let (month, account) = after.map_or(("", ""), |(month, account)| (month, account.as_str()));
        let sql = format!(
            "{STATEMENT} WHERE (month, account) > (?1, ?2) ORDER BY month, account LIMIT 1"
        );
        self.one_statement(&sql, params![month, account])
    }

    fn one_statement(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Option<StoredStatement>, ReadError> {
        let mut select = self.0.prepare_cached(sql)?;
        let mut rows = select.query(params)?;
        rows.next()?.map(statement).transpose()
    }

    /// What settlements debited from one account, or from everybody.
    pub fn debits(&self, account: Option<&AccountId>) -> Result<Vec<Debit>, ReadError> {
        let of = match account {
            Some(_) => "WHERE account = ?1",
            None => "WHERE ?1 IS NULL",
        };
        let sql =
            format!("SELECT month, account, due FROM statements {of} ORDER BY account, month");
        let mut select = self.0.prepare_cached(&sql)?;
        let mut rows = select.query([account.map(AccountId::as_str)])?;
        let mut debits = Vec::new();
        while let Some(row) = rows.next()? {
            debits.push(Debit {
                month: row.get(0)?,
                account: word(row, 1, AccountId::new)?,
                due: row.get(2)?,
            });
        }
        Ok(debits)
    }

    /// Who may have records that were admitted in `[from, until)`, both on the hour, and have a seq in `seqs`: everybody
    /// who has, and perhaps one who has other records of these hours.
    pub fn called(
        &self,
        from: Utc,
        until: Utc,
        seqs: RangeInclusive<u64>,
    ) -> Result<Vec<AccountId>, ReadError> {
        self.accounts(
            "SELECT DISTINCT account FROM rollup
             WHERE hour >= ?1 AND hour < ?2 AND last_seq >= ?3 AND first_seq <= ?4",
            params![
                from.hour(),
                until.hour(),
                signed(*seqs.start()),
                signed(*seqs.end())
            ],
        )
    }

    /// Whose records have a seq above `after` and up to `until`.
    pub fn accounts_since(&self, after: u64, until: u64) -> Result<Vec<AccountId>, ReadError> {
        self.accounts(
            "SELECT DISTINCT account FROM series WHERE id IN (SELECT series FROM raw WHERE seq > ?1 AND seq <= ?2)",
            params![signed(after), signed(until)],
        )
    }

    fn accounts(
        &self,
        sql: &str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<AccountId>, ReadError> {
        let mut select = self.0.prepare_cached(sql)?;
        let mut rows = select.query(params)?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            accounts.push(word(row, 0, AccountId::new)?);
        }
        Ok(accounts)
    }

    /// The begin of the oldest hour that has calls.
    pub fn first_admitted(&self) -> Result<Option<Utc>, ReadError> {
        let sql = "SELECT min(hour) FROM (SELECT min(hour) AS hour FROM hours UNION ALL SELECT min(hour) FROM tail)";
        let hour: Option<i64> = self.0.query_row(sql, [], |row| row.get(0))?;
        Ok(hour.map(|hour| Utc(hour * 3_600_000_000)))
    }

    /// Whether a notice with this id was raised.
    pub fn notice_known(&self, id: &str) -> Result<bool, ReadError> {
        let mut select = self
            .0
            .prepare_cached("SELECT 1 FROM notices WHERE id = ?1")?;
        Ok(select.exists([id])?)
    }

    /// At most `limit` notices that are not marked as sent, in the order in which they were raised.
    pub fn unsent_notices(&self, limit: usize) -> Result<Vec<StoredNotice>, ReadError> {
        let mut select = self.0.prepare_cached(
            "SELECT id, account, body FROM notices WHERE sent_at IS NULL ORDER BY number LIMIT ?1",
        )?;
        let mut rows = select.query([signed(limit as u64)])?;
        let mut notices = Vec::new();
        while let Some(row) = rows.next()? {
            notices.push(StoredNotice {
                id: row.get(0)?,
                account: word(row, 1, AccountId::new)?,
                body: row.get(2)?,
            });
        }
        Ok(notices)
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
