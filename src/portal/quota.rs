//! `GET /v1/quota`: a customer sees its own quota, live, with its own credential.

use crate::billing::balances::Balances;
use crate::ledger::{KeysUsed, Reader, TurnedAwayLine};
use crate::model::{AccountId, Local, Month, Utc};
use crate::portal::form::Said;
use crate::portal::front::{Portal, Question, Source, Unread};
use crate::proxy::admission::Now;
use crate::proxy::identity::CredentialFailure;
use crate::proxy::{Refusal, THROTTLED};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// What the ledger tells of an account.
struct Told {
    balances: Balances,
    /// Since when the balance is below zero.
    arrears_since: Option<Utc>,
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
        let told = self.read(account, move |source| told(source, paid_by));
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
        let (balances, now) = (&told.balances, Now::read(&shared.clock));
        let arrears_since = told.arrears_since.map(|at| Local::new(at, zone));
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
                let mut described = json!({"quotas": limiters});
                let service = balances
                    .services
                    .iter()
                    .find(|(id, _)| id.as_str() == group);
                if let Some((_, service)) = service {
                    described["month"] = json!({
                        "month": balances.month,
                        "admitted": service.admitted,
                        "billable": service.billable,
                    });
                    described["free_calls"] = json!(service.free_calls);
                    described["packs"] = json!(service.packs);
                    described["notices"] = json!(service.notices);
                }
                (group.to_owned(), described)
            })
            .collect();
        Some(json!({
            "account": id,
            "name": account.name,
            "time_zone": zone.iana_name(),
            "now": Local::new(now.utc, zone),
            "balance": balances.balance,
            "in_arrears": balances.in_arrears,
            "due_so_far": balances.due_so_far,
            "keys": policy.describe_keys(account, &told.keys_used),
            "services": services,
            "turned_away": {
                "today": turned_away(&told.turned_away, told.today),
                "month": turned_away(&told.turned_away, Utc(i64::MIN)),
            },
        }))
    }
}

fn told(source: &Source<'_>, paid_by: Utc) -> Result<Told, Unread> {
    let Source { books, account } = source;
    let (reader, zone) = (books.reader, &books.catalog.time_zone);
    let balances = books.balances((&***account).into(), paid_by)?;
    let arrears_since = match balances.balance.is_sign_negative() {
        true => last_debit(reader, &account.id)?,
        false => None,
    };
    let (from, _) = Month::of(books.now, zone).bounds(zone);
    let until = Utc(books.now.0.saturating_add(3_600_000_000));
    Ok(Told {
        balances,
        arrears_since,
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
    use crate::model::GroupId;

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
