//! A refusal in words: which limiter, which quota and why, and when the next call could start.
//!
//! Owns the one description, for its customer and the operators. Makes it only when it is asked for.
//! Must never say that the files of now were those of then.
//!
//! # Decided
//! - **Why a quota was in force is reckoned anew** from the files of now for the instant of then, and
//!   shown only if they give the quota that was kept. So what is kept of a refusal has a fixed size.

use crate::model::{AccountId, GroupId, Local, Mode, RequestId, Stop, Utc};
use crate::proxy::admission::SECOND;
use crate::proxy::decisions::entry::{Throttle, TurnedAwayCall};
use crate::proxy::policy::{Policy, Why};
use crate::proxy::state::Shared;
use serde_json::{Value, json};

impl Shared {
    /// What there is to say of the refusal of a call of any account; `None` when it is not kept.
    pub(crate) fn explain(&self, id: RequestId) -> Option<Value> {
        let found = self.decisions.find(id, self.clock.utc());
        self.explained(id, found)
    }

    /// The same of a call of this account; `None` also when it is the call of another one.
    pub(crate) fn explain_own(&self, id: RequestId, account: &AccountId) -> Option<Value> {
        let found = self.decisions.find_own(id, account, self.clock.utc());
        self.explained(id, found)
    }

    /// The newest calls that were not let through, newest first and a line each: of all accounts, or
    /// of one.
    pub(crate) fn newest_refusals(&self, account: Option<&AccountId>, most: usize) -> Vec<Value> {
        let zone = &self.policy.load().catalog.time_zone;
        let found = self.decisions.newest(account, self.clock.utc(), most);
        let line = |(id, call): &(RequestId, TurnedAwayCall)| {
            json!({
                "request_id": id.to_string(),
                "at": Local::new(call.at, zone),
                "decision": call.verdict.as_str(),
                "reason": call.row.reason,
                "title": call.row.title,
                "account": call.account.text(),
                "key": call.key.text(),
                "action": call.action.text(),
                "quota_qps": call.throttle.map(|throttle| throttle.quota),
            })
        };
        found.iter().map(line).collect()
    }

    fn explained(&self, id: RequestId, found: Option<TurnedAwayCall>) -> Option<Value> {
        Some(described(&self.policy.load(), id, &found?))
    }
}

fn described(policy: &Policy, id: RequestId, call: &TurnedAwayCall) -> Value {
    let zone = &policy.catalog.time_zone;
    let local = |at: Utc| Local::new(at, zone);
    let why = why(policy, call);
    let mode = call.throttle.map(|throttle| throttle.mode);
    let mode = mode.or(why.as_ref().map(|why| why.mode));
    let is_known = |why: &Why| match call.throttle {
        Some(Throttle { quota, mode, .. }) => why.quota == quota && why.mode == mode,
        None => policy.generation == call.generation,
    };
    let fits = why.as_ref().is_some_and(is_known);
    let limiter = call.group.text().map(|group| {
        let action = call.action.text().filter(|_| mode == Some(Mode::Free));
        json!({"group": group, "action": action})
    });
    let quota = call.throttle.map(|throttle| throttle.quota);
    let quota = quota.or(why.as_ref().filter(|_| fits).map(|why| why.quota));
    let next_start = call.throttle.and_then(|throttle| {
        let after = throttle.retry_after?;
        Some(call.at.plus(after))
    });
    let changes_at = why.as_ref().filter(|_| fits).and_then(|why| why.until);
    json!({
        "request_id": id.to_string(),
        "at": local(call.at),
        "decision": call.verdict.as_str(),
        "reason": call.row.reason,
        "title": call.row.title,
        "status": call.row.status.as_u16(),
        "code": call.row.code,
        "account": call.account.text(),
        "key": call.key.text(),
        "action": call.action.text(),
        "limiter": limiter,
        "mode": mode.map(Mode::as_str),
        "quota_qps": quota,
        "because": why.as_ref().filter(|_| fits).map(|why| &why.because),
        "files_changed": !fits && why.is_some(),
        "nth_newest_start": nth_newest(call, next_start, changes_at).map(local),
        "next_start": next_start.map(local),
        "generation": (call.generation > 0).then_some(call.generation),
        "generation_now": policy.generation,
        "peer": call.peer.to_canonical().to_string(),
        "traceparent": call.trace.map(|trace| trace.to_string()),
    })
}

/// The start that the call would have been the quota's next one after: a second before the next start.
/// When the quota changes before that, the next start is due to the change.
fn nth_newest(call: &TurnedAwayCall, next: Option<Utc>, changes_at: Option<Utc>) -> Option<Utc> {
    let is_at_cap = call.throttle.is_some_and(|throttle| throttle.quota > 0);
    let next = next.filter(|next| is_at_cap && changes_at.is_none_or(|change| *next < change))?;
    let second = i64::try_from(SECOND.as_micros()).unwrap_or(i64::MAX);
    Some(Utc(next.0.saturating_sub(second)))
}

/// The quota at that instant and its reasons, as the files of now have them.
fn why(policy: &Policy, call: &TurnedAwayCall) -> Option<Why> {
    let account = AccountId::new(call.account.text()?)?;
    let group = GroupId::new(call.group.text()?)?;
    let stopped = Stop::parse(call.row.reason);
    policy.why(&account, &group, call.action.text()?, call.at, stopped)
}
