//! `GET /v1/quota`: a customer sees its own quota, live, with its own credential.

use crate::billing::balances::undebited;
use crate::ledger::{KeysUsed, Reader, TurnedAwayLine};
use crate::model::{
    AccountId, BILLS_ELSEWHERE, GroupId, Local, Mode, Month, ONE_REPLICAS_PART, Stop, Utc,
};
use crate::portal::form::Said;
use crate::portal::front::{Portal, Question, Source, Unread};
use crate::proxy::admission::Now;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::{CollectedStanding, Refusal, THROTTLED};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What the books tell of an account, as it is shown.
struct ShownBooks {
    /// By group: the calls of this month, and what is left.
    services: BTreeMap<GroupId, Value>,
    /// The balance and what is owed; of a replica, who knows it.
    standing: Value,
    /// Since when the balance is below zero.
    arrears_since: Option<Utc>,
}

/// What the ledger tells of an account.
struct Told {
    books: ShownBooks,
    /// The calls of this month that were turned away.
    turned_away: Vec<TurnedAwayLine>,
    /// The begin of today.
    today: Utc,
    /// When the account's keys were used last.
    keys_used: KeysUsed,
}

impl Portal {
    /// Answers from the limiters that decide and from the ledger's totals.
    pub(super) async fn quota(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let paid_by = self.proxy.shared().paid_by();
        let account = &question.account;
        let is_replica = self.proxy.is_replica();
        let heard = self.proxy.shared().heard();
        let told = self.read(account, move |source| {
            let books = match is_replica {
                true => counted(source, heard.as_deref(), paid_by)?,
                false => settled(source, paid_by)?,
            };
            told(source, books)
        });
        let described = self.describe(&account.id, &told.await?);
        let body = described.ok_or(Refusal::Credential(CredentialFailure::UnknownKey))?;
        Ok(Said::json(body.to_string()))
    }

    /// `None` when the account is gone: another generation may be in force since it was proven, and
    /// an account finds its limiters only by its own generation's operations.
    fn describe(&self, id: &AccountId, told: &Told) -> Option<Value> {
        let shared = self.proxy.shared();
        let policy = shared.policy.load();
        let account = policy.account(id)?;
        let zone = &policy.catalog.time_zone;
        let now = Now::read(&shared.clock);
        let arrears_since = told.books.arrears_since.map(|at| Local::new(at, zone));
        let quotas = policy.describe(account, &shared.limiters, now);
        let services: serde_json::Map<String, Value> = quotas
            .into_iter()
            .map(|(group, limiters)| {
                let limiters: Vec<Value> = limiters
                    .into_iter()
                    .map(|(_, mut described)| {
                        if described["stopped"] == "arrears" {
                            described["since"] = json!(arrears_since);
                        }
                        described
                    })
                    .collect();
                let mut services = told.books.services.iter();
                let service = services.find(|(id, _)| id.as_str() == group);
                let mut described = service.map_or_else(|| json!({}), |(_, of)| of.clone());
                described["quotas"] = json!(limiters);
                (group.to_owned(), described)
            })
            .collect();
        let mut described = told.books.standing.clone();
        described["account"] = json!(id);
        described["name"] = json!(account.name);
        described["time_zone"] = json!(zone.iana_name());
        described["now"] = json!(Local::new(now.utc, zone));
        described["keys"] = json!(policy.describe_keys(account, &told.keys_used));
        described["services"] = Value::Object(services);
        described["turned_away"] = json!({
            "today": turned_away(&told.turned_away, told.today),
            "month": turned_away(&told.turned_away, Utc(i64::MIN)),
        });
        Some(described)
    }
}

/// What a gate that settles knows of the account's money.
fn settled(source: &Source<'_>, paid_by: Utc) -> Result<ShownBooks, Unread> {
    let Source { books, account } = source;
    let balances = books.balances((&***account).into(), paid_by)?;
    let arrears_since = match balances.balance.is_sign_negative() {
        true => last_debit(books.reader, &account.id)?,
        false => None,
    };
    let month = &balances.month;
    let services = balances.services.iter().map(|(group, of)| {
        let counts = json!({"month": month, "admitted": of.admitted, "billable": of.billable});
        let described = json!({
            "month": counts,
            "free_calls": of.free_calls,
            "packs": of.packs,
            "notices": of.notices,
        });
        (group.clone(), described)
    });
    Ok(ShownBooks {
        services: services.collect(),
        standing: json!({
            "balance": balances.balance,
            "in_arrears": balances.in_arrears,
            "due_so_far": balances.due_so_far,
        }),
        arrears_since,
    })
}

/// What one of several replicas knows: the calls that it admitted, and of money what the collector
/// said last.
fn counted(
    source: &Source<'_>,
    heard: Option<&CollectedStanding>,
    paid_by: Utc,
) -> Result<ShownBooks, Unread> {
    let Source { books, account } = source;
    let zone = &books.catalog.time_zone;
    let month = Month::of(books.now, zone);
    let (from, until) = month.bounds(zone);
    let lines = books
        .reader
        .usage(from, until, Some(&account.id), 0..=u64::MAX)?;
    let opened = account.services.iter().map(|of| (of.group.clone(), [0; 2]));
    let mut counts: BTreeMap<GroupId, [u64; 2]> = opened.collect();
    for line in &lines {
        let [admitted, billable] = counts.entry(line.group.clone()).or_default();
        *admitted += line.calls;
        if line.billable && line.mode != Mode::Free {
            *billable += line.calls;
        }
    }
    let services = counts.into_iter().map(|(group, [admitted, billable])| {
        let counts =
            json!({"month": month.to_string(), "admitted": admitted, "billable": billable});
        let unknown = Value::Null;
        let described =
            json!({"month": counts, "free_calls": unknown, "packs": unknown, "notices": unknown});
        (group, described)
    });
    Ok(ShownBooks {
        services: services.collect(),
        standing: standing(source, heard, paid_by),
        arrears_since: None,
    })
}

/// The balance and whether it stops the account, as the collector said last; nothing of it when it
/// has said nothing.
fn standing(source: &Source<'_>, heard: Option<&CollectedStanding>, paid_by: Utc) -> Value {
    let Source { books, account } = source;
    let mut services = account.services.iter();
    let by_files = services.any(|service| service.stopped == Some(Stop::Arrears));
    let balance = heard.map(|heard| match heard.balances.get(&account.id) {
        Some(balance) => balance.to_string(),
        // It was never debited: what it paid is left.
        None => undebited(account, paid_by).to_string(),
    });
    let zone = &books.catalog.time_zone;
    json!({
        "balance": balance,
        "in_arrears": heard.map(|heard| by_files || heard.stopped.contains(&account.id)),
        "as_of": heard.map(|heard| Local::new(heard.as_of, zone)),
        "due_so_far": null,
        "books": BILLS_ELSEWHERE,
        "part": ONE_REPLICAS_PART,
    })
}

fn told(source: &Source<'_>, of_books: ShownBooks) -> Result<Told, Unread> {
    let Source { books, account } = source;
    let (reader, zone) = (books.reader, &books.catalog.time_zone);
    let (from, _) = Month::of(books.now, zone).bounds(zone);
    let until = Utc(books.now.0.saturating_add(3_600_000_000));
    Ok(Told {
        books: of_books,
        turned_away: reader.turned_away(&account.id, from, until)?,
        today: begin_of_day(books.now, zone),
        keys_used: reader.keys_used(&account.id, books.now)?,
    })
}

/// The instant of the account's last debit: a balance falls by debits alone.
fn last_debit(reader: &Reader, account: &AccountId) -> Result<Option<Utc>, Unread> {
    let months = reader.account_months(account)?;
    Ok(months.into_iter().rev().find_map(|month| month.debited_at))
}

/// The first instant of the day in the provider's zone.
pub(super) fn begin_of_day(at: Utc, zone: &TimeZone) -> Utc {
    let day = Timestamp::from_microsecond(at.0).unwrap_or_default();
    let day = day.to_zoned_datetime(zone.clone()).date();
    let begin = day.to_zoned_datetime(zone.clone());
    begin.map_or(at, |begin| Utc(begin.timestamp().as_microsecond()))
}

/// The calls that were turned away from `since` on: how many were throttled, how many refused, and
/// each kind of them.
fn turned_away(lines: &[TurnedAwayLine], since: Utc) -> Value {
    let mut kinds: Vec<(&TurnedAwayLine, u64)> = Vec::new();
    for line in lines.iter().filter(|line| line.hour >= since.hour()) {
        let is_alike =
            |known: &TurnedAwayLine| (&known.group, &known.reason) == (&line.group, &line.reason);
        match kinds.iter_mut().find(|(known, _)| is_alike(known)) {
            Some((_, calls)) => *calls += line.calls,
            None => kinds.push((line, line.calls)),
        }
    }
    let throttled = |(line, _): &&(&TurnedAwayLine, u64)| line.reason == THROTTLED;
    let all: u64 = kinds.iter().map(|(_, calls)| calls).sum();
    let over_the_cap: u64 = kinds.iter().filter(throttled).map(|(_, calls)| calls).sum();
    let kinds: Vec<Value> = kinds
        .iter()
        .map(|(line, calls)| json!({"group": line.group, "reason": line.reason, "calls": calls}))
        .collect();
    json!({"throttled": over_the_cap, "refused": all - over_the_cap, "kinds": kinds})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_turned_away_is_summed_by_kind_and_today_is_a_part_of_the_month() {
        let line = |hour, group: &str, reason: &str, calls| TurnedAwayLine {
            hour,
            group: GroupId::new(group),
            reason: reason.to_owned(),
            calls,
        };
        let lines = [
            line(10, "a", THROTTLED, 5),
            line(11, "a", THROTTLED, 2),
            line(11, "", "arrears", 3),
        ];
        let today = turned_away(&lines, Utc(11 * 3_600_000_000));
        let month = turned_away(&lines, Utc(i64::MIN));
        assert_eq!(
            (&today["throttled"], &today["refused"]),
            (&json!(2), &json!(3))
        );
        assert_eq!(
            (&month["throttled"], &month["refused"]),
            (&json!(7), &json!(3))
        );
        assert_eq!(
            month["kinds"],
            json!([
                {"group": "a", "reason": "throttled", "calls": 7},
                {"group": null, "reason": "arrears", "calls": 3},
            ])
        );
    }

    #[test]
    fn a_day_begins_at_midnight_of_the_provider() {
        let zone = TimeZone::get("Asia/Shanghai").unwrap();
        let utc = |text: &str| Utc(text.parse::<Timestamp>().unwrap().as_microsecond());
        let begin = utc("2026-11-24T16:00:00Z");
        assert_eq!(begin_of_day(utc("2026-11-25T15:59:59Z"), &zone), begin);
        assert_eq!(begin_of_day(begin, &zone), begin);
    }
}
