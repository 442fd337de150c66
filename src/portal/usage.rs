//! `GET /v1/usage`: the counts of a month, from the ledger's roll-up.

use crate::ledger::HourlyLine;
use crate::model::{Local, ONE_REPLICAS_PART, Utc};
use crate::portal::form::Said;
use crate::portal::front::{Portal, Question};
use crate::portal::quota::begin_of_day;
use crate::proxy::{BadQuestion, Refusal};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// By what the counts are split.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Day,
    Hour,
    Action,
    Key,
}

impl By {
    const ALL: [Self; 4] = [Self::Day, Self::Hour, Self::Action, Self::Key];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Hour => "hour",
            Self::Action => "action",
            Self::Key => "key",
        }
    }

    /// By action when nothing is said.
    fn parse(text: Option<&str>) -> Result<Self, BadQuestion> {
        let Some(text) = text else {
            return Ok(Self::Action);
        };
        let found = Self::ALL.into_iter().find(|by| by.as_str() == text);
        found.ok_or(BadQuestion::Value("by", "day, hour, action, key"))
    }

    /// The part of the split that a line belongs to. Parts of time are in order of time.
    fn part(self, of: &HourlyLine, zone: &TimeZone) -> String {
        match self {
            Self::Day => day(begin_of_day(of.hour, zone), zone),
            Self::Hour => Local::new(of.hour, zone).to_string(),
            Self::Action => of.line.action.to_string(),
            Self::Key => of.line.key.to_string(),
        }
    }
}

fn day(at: Utc, zone: &TimeZone) -> String {
    let at = Timestamp::from_microsecond(at.0).unwrap_or_default();
    at.to_zoned_datetime(zone.clone()).date().to_string()
}

impl Portal {
    /// Answers with the sums of the month's calls.
    pub(super) async fn usage(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let shared = self.proxy.shared();
        let zone = shared.policy.load().catalog.time_zone.clone();
        let now = shared.clock.utc();
        let parameters = &question.parameters;
        let asked = parameters
            .month(question.asked, now, &zone)
            .and_then(|month| Ok((month, By::parse(parameters.get("by"))?)));
        let (month, by) = asked.map_err(Refusal::Question)?;
        let (from, until) = month.bounds(&zone);
        let is_replica = self.proxy.is_replica();
        let body = self.read(&question.account, move |source| {
            let id = &source.account.id;
            let reader = source.books.reader;
            let lines = reader.hourly_usage(from, until, id)?;
            let sum = |is_counted: fn(&HourlyLine) -> bool| -> u64 {
                let counted = lines.iter().filter(|line| is_counted(line));
                counted.map(|of| of.line.calls).sum()
            };
            let mut body = json!({
                "account": id,
                "month": month.to_string(),
                "time_zone": zone.iana_name(),
                "from": Local::new(from, &zone),
                "until": Local::new(until, &zone),
                "counted_until": Local::new(now.min(until), &zone),
                "provisional": reader.settlement(&month.to_string())?.is_none(),
                "by": by.as_str(),
                "lines": split(&lines, by, &zone),
                "admitted": sum(|_| true),
                "billable": sum(|of| of.line.billable),
            });
            if is_replica {
                body["part"] = json!(ONE_REPLICAS_PART);
            }
            Ok(body.to_string())
        });
        Ok(Said::json(body.await?))
    }
}

/// The lines summed up by the parts of the split, and within a part by all that a bill asks.
fn split(lines: &[HourlyLine], by: By, zone: &TimeZone) -> Vec<Value> {
    let mut sums: BTreeMap<[String; 5], (bool, u64)> = BTreeMap::new();
    for of in lines {
        let line = &of.line;
        let kind = [
            by.part(of, zone),
            line.group.to_string(),
            line.mode.to_string(),
            line.outcome.to_string(),
            line.reason.to_string(),
        ];
        let (_, calls) = sums.entry(kind).or_insert((line.billable, 0));
        *calls += line.calls;
    }
    let lines = sums.into_iter().map(|(kind, (billable, calls))| {
        let [part, group, mode, outcome, reason] = kind;
        let mut line = json!({
            "group": group,
            "mode": mode,
            "outcome": outcome,
            "billable": billable,
            "reason": reason,
            "calls": calls,
        });
        line[by.as_str()] = json!(part);
        line
    });
    lines.collect()
}
