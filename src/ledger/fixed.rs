//! Reading sealed days, settlements and statements back from the ledger.
//!
//! Owns the SQL that reads them. Must never give a statement other than as it was fixed.

use crate::ledger::bills::{SEALS, last_seal, seal_of_row};
use crate::ledger::chain::Link;
use crate::ledger::error::ReadError;
use crate::ledger::read::Reader;
use crate::ledger::rows::{unsigned, word};
use crate::ledger::watch::ClockWatch;
use crate::ledger::{Seal, seal};
use crate::model::{AccountId, Mono, Utc};
use rusqlite::OptionalExtension;
use rusqlite::{Connection, Row, params};
use sha2::Digest;
use sha2::Sha256;
use std::time::Duration;

/// A month whose statements are fixed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settlement {
    /// `2026-11`.
    pub month: String,
    /// The seq of the newest record that its statements count.
    pub through_seq: u64,
    /// The seal of the day that ends with that record. A month that schema 3 fixed has the link
    /// after it.
    pub head: [u8; 32],
    /// The instant at which the month was fixed.
    pub fixed_at: Utc,
    /// The instant at which the last statement was stored. `None` until then.
    pub settled_at: Option<Utc>,
    /// The instant at which its statements were debited (R16). `None` until then.
    pub debited_at: Option<Utc>,
    /// The number of months that the late calls of its statements go back. `None`: of any age. Only
    /// months that were fixed before schema 4 have a limit.
    pub late_months: Option<u32>,
    /// The SHA-256 over its statements. `None` until they are all stored.
    pub digest: Option<[u8; 32]>,
}

/// A statement as it was fixed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredStatement {
    /// `2026-11`.
    pub month: String,
    /// The account of the statement.
    pub account: AccountId,
    /// The sum to debit, a decimal number.
    pub due: String,
    /// The inputs of the computation, in JSON.
    pub inputs: String,
    /// The statement, in JSON.
    pub statement: String,
}

/// The amount that a statement charges to an account: its debit (R16).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Debit {
    /// The account that was debited.
    pub account: AccountId,
    /// The month that was settled, as in `2026-11`.
    pub month: String,
    /// The amount in the currency of the catalogue, a decimal number.
    pub due: String,
}

/// A statement in the list of an account's months.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountMonth {
    /// `2026-11`.
    pub month: String,
    /// The total, a decimal number.
    pub due: String,
    /// The instant at which the month was fixed.
    pub fixed_at: Utc,
    /// The instant at which it was debited (R16). `None` until then.
    pub debited_at: Option<Utc>,
    /// The SHA-256 of the statement's text.
    pub digest: [u8; 32],
}

const SETTLEMENTS: &str = "SELECT month, through_seq, head, fixed_at, settled_at, late_months, digest, debited_at FROM settlements";

fn settlement(row: &Row<'_>) -> Result<Settlement, ReadError> {
    Ok(Settlement {
        month: row.get(0)?,
        through_seq: unsigned(row, 1)?,
        head: row.get(2)?,
        fixed_at: Utc(row.get(3)?),
        settled_at: row.get::<_, Option<i64>>(4)?.map(Utc),
        late_months: row.get(5)?,
        digest: row.get(6)?,
        debited_at: row.get::<_, Option<i64>>(7)?.map(Utc),
    })
}

/// The SHA-256 over the statements of a month, in the order of their accounts. Each statement gives
/// its account, its sum, its inputs and its text as they are stored, with a zero byte after each.
#[derive(Default)]
pub(crate) struct StatementsDigest(Sha256);

impl StatementsDigest {
    /// Takes in the next statement.
    pub(crate) fn add(&mut self, stored: &StoredStatement) {
        for text in [
            stored.account.as_str(),
            &stored.due,
            &stored.inputs,
            &stored.statement,
        ] {
            self.0.update(text);
            self.0.update([0]);
        }
    }

    /// Gives the digest of all statements that were added.
    pub(crate) fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// See [`Reader::statements_digest`].
pub(super) fn statements_digest(connection: &Connection, month: &str) -> Result<Link, ReadError> {
    let mut digest = StatementsDigest::default();
    let mut account = String::new();
    // One statement a query: all of a month at once could be more than the memory has.
    let mut select = connection.prepare_cached(&format!(
        "{STATEMENTS} WHERE month = ?1 AND account > ?2 ORDER BY account LIMIT 1"
    ))?;
    loop {
        let mut rows = select.query(params![month, account])?;
        let Some(row) = rows.next()? else {
            return Ok(digest.end());
        };
        let stored = statement(row)?;
        digest.add(&stored);
        account = stored.account.to_string();
    }
}

const STATEMENTS: &str = "SELECT month, account, due, inputs, statement FROM statements";

fn statement(row: &Row<'_>) -> Result<StoredStatement, ReadError> {
    Ok(StoredStatement {
        month: row.get(0)?,
        account: word(row, 1, AccountId::new)?,
        due: row.get(2)?,
        inputs: row.get(3)?,
        statement: row.get(4)?,
    })
}

fn debit(row: &Row<'_>) -> Result<Debit, ReadError> {
    Ok(Debit {
        account: word(row, 0, AccountId::new)?,
        month: row.get(1)?,
        due: row.get(2)?,
    })
}

impl Reader {
    /// Every sealed day, in order.
    pub fn days(&self) -> Result<Vec<Seal>, ReadError> {
        self.list(&format!("{SEALS} ORDER BY day"), &[], |row| {
            Ok(seal_of_row(row)?)
        })
    }

    /// The newest day that is sealed.
    pub fn last_day(&self) -> Result<Option<Seal>, ReadError> {
        Ok(last_seal(&self.connection)?)
    }

    /// The sealed days from `day` on, in order.
    pub fn days_from(&self, day: &str) -> Result<Vec<Seal>, ReadError> {
        self.list(
            &format!("{SEALS} WHERE day >= ?1 ORDER BY day"),
            params![day],
            |row| Ok(seal_of_row(row)?),
        )
    }

    /// The settlement of the month. `None` until the month is fixed.
    pub fn settlement(&self, month: &str) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} WHERE month = ?1");
        self.one(&sql, params![month], settlement)
    }

    /// Every month that is fixed, in order.
    pub fn settlements(&self) -> Result<Vec<Settlement>, ReadError> {
        self.list(&format!("{SETTLEMENTS} ORDER BY month"), &[], settlement)
    }

    /// The seal of the month, published when it was settled; `None` until then.
    pub fn month_seal(&self, month: &str) -> Result<Option<[u8; 32]>, ReadError> {
        let what = seal::of_month(month);
        let sql = "SELECT head FROM seals WHERE what = ?1";
        self.one(sql, params![what], |row| Ok(row.get(0)?))
    }

    /// The SHA-256 over the month's fixed statements and their inputs: what the log and `verify`
    /// say.
    pub fn statements_digest(&self, month: &str) -> Result<[u8; 32], ReadError> {
        statements_digest(&self.connection, month)
    }

    /// The newest month that is fixed.
    pub fn last_settlement(&self) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} ORDER BY month DESC LIMIT 1");
        self.one(&sql, &[], settlement)
    }

    /// The oldest month that is fixed.
    pub fn first_settlement(&self) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} ORDER BY month LIMIT 1");
        self.one(&sql, &[], settlement)
    }

    /// The newest month before `month` that is fixed.
    pub fn settlement_before(&self, month: &str) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} WHERE month < ?1 ORDER BY month DESC LIMIT 1");
        self.one(&sql, params![month], settlement)
    }

    /// The months whose statements have no late calls beyond an age, in order.
    pub fn limited_settlements(&self) -> Result<Vec<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} WHERE late_months IS NOT NULL ORDER BY month");
        self.list(&sql, &[], settlement)
    }

    /// The newest month of which every statement is stored.
    pub fn last_settled(&self) -> Result<Option<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} WHERE settled_at IS NOT NULL ORDER BY month DESC LIMIT 1");
        self.one(&sql, &[], settlement)
    }

    /// The months that are fixed and not debited yet, settled or not, in order.
    pub fn not_debited(&self) -> Result<Vec<Settlement>, ReadError> {
        let sql = format!("{SETTLEMENTS} WHERE debited_at IS NULL ORDER BY month");
        self.list(&sql, &[], settlement)
    }

    /// The account's fixed statement of the month.
    pub fn stored_statement(
        &self,
        month: &str,
        account: &AccountId,
    ) -> Result<Option<StoredStatement>, ReadError> {
        self.one(
            &format!("{STATEMENTS} WHERE month = ?1 AND account = ?2"),
            params![month, account.as_str()],
            statement,
        )
    }

    /// The account's newest fixed statement of a month before `month`.
    pub fn last_statement(
        &self,
        account: &AccountId,
        month: &str,
    ) -> Result<Option<StoredStatement>, ReadError> {
        self.one(
            &format!("{STATEMENTS} WHERE account = ?1 AND month < ?2 ORDER BY month DESC LIMIT 1"),
            params![account.as_str(), month],
            statement,
        )
    }

    /// The month and the inputs of the account's first fixed statement of a month after `month`. An
    /// empty text comes before all.
    pub fn next_inputs(
        &self,
        account: &AccountId,
        month: &str,
    ) -> Result<Option<(String, String)>, ReadError> {
        self.one(
            "SELECT month, inputs FROM statements WHERE account = ?1 AND month > ?2 ORDER BY month LIMIT 1",
            params![account.as_str(), month],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    /// The account's fixed statements, in order of month.
    pub fn account_months(&self, account: &AccountId) -> Result<Vec<AccountMonth>, ReadError> {
        self.list(
            "SELECT month, due, fixed_at, debited_at, statement FROM statements JOIN settlements USING (month)
             WHERE account = ?1 ORDER BY month",
            params![account.as_str()],
            |row| {
                Ok(AccountMonth {
                    month: row.get(0)?,
                    due: row.get(1)?,
                    fixed_at: Utc(row.get(2)?),
                    debited_at: row.get::<_, Option<i64>>(3)?.map(Utc),
                    digest: Sha256::digest(row.get::<_, String>(4)?).into(),
                })
            },
        )
    }

    /// A statement of the newest month that has statements.
    pub fn newest_statement(&self) -> Result<Option<StoredStatement>, ReadError> {
        self.one(
            &format!("{STATEMENTS} ORDER BY month DESC LIMIT 1"),
            &[],
            statement,
        )
    }

    /// The fixed statements one by one, in order of month and account: the first after that of
    /// `account` for `month`. Empty texts come before all.
    pub fn next_statement(
        &self,
        month: &str,
        account: &str,
    ) -> Result<Option<StoredStatement>, ReadError> {
        self.one(
            &format!(
                "{STATEMENTS} WHERE (month, account) > (?1, ?2) ORDER BY month, account LIMIT 1"
            ),
            params![month, account],
            statement,
        )
    }

    /// The debits of the settlements, of one account or of all. Each statement of a month that was
    /// debited is one (R16).
    pub fn debits(&self, account: Option<&AccountId>) -> Result<Vec<Debit>, ReadError> {
        let sql = "SELECT account, month, due FROM statements JOIN settlements USING (month)
                   WHERE debited_at IS NOT NULL";
        match account {
            Some(account) => self.list(
                &format!("{sql} AND account = ?1 ORDER BY month"),
                params![account.as_str()],
                debit,
            ),
            None => self.list(&format!("{sql} ORDER BY account, month"), &[], debit),
        }
    }

    /// What each fixed statement of the account charges, debited or not, in order.
    pub fn charges(&self, account: &AccountId) -> Result<Vec<Debit>, ReadError> {
        let sql = "SELECT account, month, due FROM statements WHERE account = ?1 ORDER BY month";
        self.list(sql, params![account.as_str()], debit)
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
        read: impl Fn(&Row<'_>) -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query(values)?;
        rows.next()?.map(read).transpose()
    }

    pub(super) fn list<T>(
        &self,
        sql: &str,
        values: &[&dyn rusqlite::ToSql],
        read: impl Fn(&Row<'_>) -> Result<T, ReadError>,
    ) -> Result<Vec<T>, ReadError> {
        let mut select = self.connection.prepare_cached(sql)?;
        let mut rows = select.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

impl Reader {
    /// The watch over the clocks as it was last kept; `None` before the first.
    pub fn clock_watch(&self) -> Result<Option<ClockWatch>, ReadError> {
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let us = |value| Duration::from_micros(number(value));
        let watch = self.connection.query_row(
            "SELECT boot, mono_ns, utc_us, in_step_us, trusted_us, known_us, fixed_unseen_us FROM clock",
            [],
            |row| {
                Ok(ClockWatch {
                    boot: row.get(0)?,
                    mono: Mono(number(row.get(1)?)),
                    utc: Utc(row.get(2)?),
                    in_step: us(row.get(3)?),
                    trusted: us(row.get(4)?),
                    known: Utc(row.get(5)?),
                    fixed_unseen: row.get::<_, Option<i64>>(6)?.map(us),
                })
            },
        );
        Ok(watch.optional()?)
    }
}
