//! The closing report of a month: what finance closes its books with (R11, R15-R18).
//!
//! Adds up what the statements say. Must never decide a rule itself, nor change anything.

use crate::billing::books::{AccountRef, Books, BooksError};
use crate::billing::entered_late::{EnteredBefore, EnteredLate};
use crate::billing::{PackState, PaidKind, PaidLine, Statement, balances, calls_on_none, unpaid};
use crate::config::Account;
use crate::ledger::{Reader, Settlement, StoredStatement};
use crate::model::{AccountId, Fund, GroupId, Local, Month, Reason, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Dues that are read at a time.
const PAGE: usize = 1_000;

/// A month in figures. Amounts are exact decimals, in JSON as text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Report {
    /// The month, as in `2026-11`.
    pub month: String,
    /// The IANA name of the zone that months are told in.
    pub time_zone: String,
    /// The currency of every amount.
    pub currency: String,
    /// Arrears and payments are told as of this instant.
    pub as_of: Local,
    /// When the month was fixed; `None` while all of it may change.
    pub fixed_at: Option<Local>,
    /// When it was debited; `None` until then.
    pub debited_at: Option<Local>,
    /// The SHA-256 over its statements, in hex; `None` until all are fixed.
    pub digest: Option<String>,
    /// The number of statements.
    pub statements: u64,
    /// The sum of what is due by them.
    pub due: Decimal,
    /// The groups, by their ids.
    pub groups: BTreeMap<GroupId, GroupFigures>,
    /// What was paid when ordered, and paid back, by kind and fund.
    pub paid: BTreeMap<&'static str, BTreeMap<Fund, Decimal>>,
    /// Payments of the month towards post-paid calls.
    pub payments: Sum,
    /// Manual adjustments of the month, in the customers' favour above zero (R16).
    pub adjustments: Sum,
    /// What accounts owe, by the age of the unpaid debits.
    pub arrears: Vec<Arrears>,
    /// The part of valid packs, at the end of the month or now, that no call has used.
    pub unearned: Unearned,
    /// Calls that ended unused in the month.
    pub void: Void,
    /// Payments and manual adjustments that the files have otherwise than the month's fixed
    /// statements, or that one of the two does not have.
    pub entered_late: Vec<EnteredLate>,
    /// Accounts whose first statement is of this month and begins with another balance than the
    /// files give.
    pub entered_before: Vec<EnteredBefore>,
    /// Calls of all months that are on no statement and cost nothing.
    pub on_no_statement: u64,
}

/// A number of things and their sum.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Sum {
    /// The number.
    pub count: u64,
    /// The sum.
    pub amount: Decimal,
}

/// A group's part of a report.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct GroupFigures {
    /// The title of the group, for people.
    pub title: String,
    /// The same in English.
    pub title_en: String,
    /// The billable calls, and those of a free group.
    pub calls: u64,
    /// The admitted calls that are not billable, by reason.
    pub not_billable: BTreeMap<Reason, u64>,
    /// The number of all these that are of earlier months.
    pub late: u64,
    /// What is due, the adjustments of fixed months included (R16).
    pub due: Decimal,
    /// These adjustments alone.
    pub adjusted: Decimal,
}

/// What is owed since so long.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Arrears {
    /// As in `31-60 days`.
    pub age: &'static str,
    /// The number of accounts that owe such a debit.
    pub accounts: u64,
    /// The sum.
    pub amount: Decimal,
}

/// Calls that were paid for and not made yet.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Unearned {
    /// The number of orders.
    pub orders: u64,
    /// The number of calls.
    pub calls: u64,
    /// The same share of what was paid for each order, rounded once an order, half up, to the fen.
    pub amount: Decimal,
}

/// Calls that ended unused.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Void {
    /// Of packs that expired in the month (R11).
    pub pack_calls: u64,
    /// Of the month's free packs (R10); only of accounts with a statement, at its end.
    pub free_calls: u64,
}

impl Books<'_> {
    /// Every statement of the month, in order of account, one in memory at a time. `accounts` are
    /// those of the files, by id.
    pub(crate) fn each_statement<E: From<BooksError>>(
        &self,
        accounts: &BTreeMap<&AccountId, &Account>,
        month: Month,
        mut each: impl FnMut(&Statement, Option<&StoredStatement>) -> Result<(), E>,
    ) -> Result<(), E> {
        let text = month.to_string();
        let settlement = self.reader.settlement(&text).map_err(BooksError::from)?;
        if settlement.is_some_and(|settlement| settlement.settled_at.is_some()) {
            let mut after = String::new();
            while let Some(stored) = self.next(&text, &after)? {
                let statement = crate::billing::history::parse(&stored.account, &stored)?;
                each(&statement, Some(&stored))?;
                after = stored.account.to_string();
            }
            return Ok(());
        }
        for id in self.on_the_books(accounts.values().copied(), month)? {
            let account = accounts.get(&id).copied();
            each(
                &self.statement(AccountRef { id: &id, account }, month)?,
                None,
            )?;
        }
        Ok(())
    }

    fn next(&self, month: &str, after: &str) -> Result<Option<StoredStatement>, BooksError> {
        let next = self.reader.next_statement(month, after)?;
        Ok(next.filter(|stored| stored.month == month))
    }

    /// The closing report of the month. `between` is called after each account.
    pub(crate) fn report(
        &self,
        accounts: &BTreeMap<&AccountId, &Account>,
        month: Month,
        mut between: impl FnMut(),
    ) -> Result<Report, BooksError> {
        let zone = &self.catalog.time_zone;
        let (from, until) = month.bounds(zone);
        let settlement = self.reader.settlement(&month.to_string())?;
        let fixed = settlement.as_ref();
        let local = |at: Utc| Local::new(at, zone);
        let mut report = Report {
            month: month.to_string(),
            time_zone: zone.iana_name().unwrap_or("UTC").to_owned(),
            currency: self.catalog.currency.clone(),
            as_of: local(self.now),
            fixed_at: fixed.map(|fixed| local(fixed.fixed_at)),
            debited_at: fixed.and_then(|fixed| fixed.debited_at).map(local),
            digest: fixed.and_then(|fixed| fixed.digest).map(hex::encode),
            statements: 0,
            due: Decimal::ZERO,
            groups: BTreeMap::new(),
            paid: BTreeMap::new(),
            payments: sum(accounts, (from, until.min(self.now)), |account| {
                let payments = account.payments.iter();
                payments
                    .map(|payment| (payment.at, payment.amount))
                    .collect()
            }),
            adjustments: sum(accounts, (from, until.min(self.now)), |account| {
                let adjustments = account.adjustments.iter();
                adjustments.map(|of| (of.at, of.amount)).collect()
            }),
            arrears: self.arrears(accounts)?,
            unearned: Unearned::default(),
            void: Void::default(),
            entered_late: Vec::new(),
            entered_before: Vec::new(),
            on_no_statement: calls_on_none(self.reader, zone, None)?,
        };
        self.each_statement(accounts, month, |statement, _| {
            report.add(statement);
            between();
            Ok::<(), BooksError>(())
        })?;
        let settled = self.settled_months()?;
        for account in accounts.values() {
            let late = self.entered_late(account, &settled, Some(month))?;
            report.entered_late.extend(late.entries);
            report.entered_before.extend(late.before);
            let mut services = account.services.iter();
            if services.any(|service| !service.packs.is_empty()) {
                let statement = self.statement((*account).into(), month)?;
                report.add_packs(account, &statement, (from, until));
                between();
            }
        }
        Ok(report)
    }

    fn arrears(
        &self,
        accounts: &BTreeMap<&AccountId, &Account>,
    ) -> Result<Vec<Arrears>, BooksError> {
        let settlements = self.reader.settlements()?;
        let debited: HashMap<&str, Utc> = settlements.iter().filter_map(debited_at).collect();
        let mut debits: HashMap<AccountId, Vec<(Utc, Decimal)>> = HashMap::new();
        for debit in self.reader.debits(None)? {
            let due = crate::billing::amount(&debit)?;
            if let Some(at) = debited.get(&*debit.month) {
                debits.entry(debit.account).or_default().push((*at, due));
            }
        }
        let mut arrears = unpaid::AGES.map(|(age, _)| Arrears {
            age,
            accounts: 0,
            amount: Decimal::ZERO,
        });
        for (id, debits) in debits {
            let account = accounts.get(&id).copied();
            let credit = balances::balance(account, Decimal::ZERO, self.now);
            let ages = unpaid::by_age(&debits, credit, self.now);
            for (bucket, amount) in arrears.iter_mut().zip(ages) {
                bucket.accounts += u64::from(amount > Decimal::ZERO);
                bucket.amount += amount;
            }
        }
        Ok(arrears.into())
    }
}

/// The number of fixed statements of a month, and the sum of what is due by them.
pub(crate) fn fixed_sum(reader: &Reader, month: &str) -> Result<Sum, BooksError> {
    let (mut sum, mut after) = (Sum::default(), None);
    loop {
        let page = reader.dues(month, after.as_ref(), PAGE)?;
        for debit in &page {
            sum.count += 1;
            sum.amount += crate::billing::amount(debit)?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.account),
            None => return Ok(sum),
        }
    }
}

fn debited_at(settlement: &Settlement) -> Option<(&str, Utc)> {
    Some((&*settlement.month, settlement.debited_at?))
}

/// The entries of all accounts in `[from, until)`, added up.
fn sum(
    accounts: &BTreeMap<&AccountId, &Account>,
    (from, until): (Utc, Utc),
    of: impl Fn(&Account) -> Vec<(Utc, Decimal)>,
) -> Sum {
    let entries = accounts.values().flat_map(|account| of(account));
    let in_month = entries.filter(|(at, _)| from <= *at && *at < until);
    in_month.fold(Sum::default(), |sum, (_, amount)| Sum {
        count: sum.count + 1,
        amount: sum.amount + amount,
    })
}

impl Report {
    fn add(&mut self, statement: &Statement) {
        self.statements += 1;
        self.due += statement.due;
        for group in &statement.groups {
            let figures = self.groups.entry(group.group.clone()).or_default();
            figures.title.clone_from(&group.title);
            figures.title_en.clone_from(&group.title_en);
            figures.late += group.late;
            figures.calls += group.calls.iter().map(|calls| calls.calls).sum::<u64>();
            let adjusted = group.adjustments.iter().map(|line| line.amount);
            let adjusted: Decimal = adjusted.sum();
            figures.due += group.lines.iter().map(|line| line.amount).sum::<Decimal>() + adjusted;
            figures.adjusted += adjusted;
            for calls in &group.not_billable {
                *figures.not_billable.entry(calls.reason).or_default() += calls.calls;
            }
            self.add_paid(&group.paid);
            self.void.free_calls += group.per_call.as_ref().map_or(0, |of| of.free.left);
        }
        self.add_paid(&statement.licences);
    }

    fn add_paid(&mut self, paid: &[PaidLine]) {
        for line in paid {
            let kind = match line.kind {
                PaidKind::Packs => "packs",
                PaidKind::Qps => "qps",
                PaidKind::PaidBack => "paid_back",
                PaidKind::Licence => "licences",
            };
            let funds = self.paid.entry(kind).or_default();
            for (fund, amount) in &line.funds {
                *funds.entry(*fund).or_default() += amount;
            }
        }
    }

    /// The packs of one account at the end of the month, or now.
    fn add_packs(&mut self, account: &Account, statement: &Statement, (from, until): (Utc, Utc)) {
        let uses = statement
            .groups
            .iter()
            .filter_map(|group| group.per_call.as_ref());
        for use_of in uses.flat_map(|per_call| &per_call.packs) {
            let mut packs = account.services.iter().flat_map(|service| &service.packs);
            let Some(pack) = packs.find(|pack| *pack.order == *use_of.order) else {
                continue;
            };
            let ended_in_month = from <= pack.expires && pack.expires < until;
            match use_of.state {
                PackState::Valid if use_of.left > 0 => {
                    let paid: Decimal = pack.paid.funds().map(|(_, amount)| amount).sum();
                    let size = pack.calls.saturating_mul(u64::from(pack.count));
                    self.unearned.orders += 1;
                    self.unearned.calls += use_of.left;
                    self.unearned.amount += unpaid::share(paid, use_of.left, size);
                }
                PackState::Expired if ended_in_month => self.void.pack_calls += use_of.left,
                _ => {}
            }
        }
    }
}
