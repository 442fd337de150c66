//! Whether a server may be given calls, from how its calls, its connections and its checks end. Pure.
//!
//! # Decided
//! - **A connection that is refused takes a server out at once**, for nothing was sent and another
//!   one takes the call. When no other is left it takes three in a row.
//! - **Cut connections, late heads and 502, 503 or 504 take a server out after three in a row**, and
//!   never more than half of an upstream's: they may come from the calls or from a load that the
//!   others would have to bear. A 500 speaks of a call and counts for nothing.
//! - **The only server of an upstream is never taken out by its calls.** A try is better than a sure
//!   502. Only its checks can.

use crate::model::Mono;
use std::time::Duration;

/// So many failures in a row take a server out.
const FAILURES: u32 = 3;
/// How long a server is out: at first, and at most. It doubles with each time.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);
/// A server that was back for so long begins anew with the first.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// While none of an upstream's servers can be used, each is tried so often.
const WHEN_NONE: Duration = Duration::from_secs(1);
/// The part of its calls, of [`WHOLE`], with which a server comes back.
const LEAST_CHANCE: u32 = WHOLE / 10;
/// The chance of a server that is fully back.
pub(super) const WHOLE: u32 = 1024;

/// How a call did not go well at a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// No connection. Nothing was sent.
    Unreachable,
    /// The connection broke, the head came late or made no sense, or was 502, 503 or 504.
    Failed,
}

/// The other servers of an upstream.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Others {
    pub all: usize,
    pub usable: usize,
}

/// How many checks in a row change what is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct CheckRule {
    pub healthy_after: u32,
    pub unhealthy_after: u32,
}

/// What a server is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// Its share.
    Usable,
    /// A share that grows since then.
    BackSince(Mono),
    /// Nothing: its calls failed.
    Ejected,
    /// Nothing: its checks failed.
    Unhealthy,
}

/// What is known of a server.
#[derive(Default, Debug)]
pub(super) struct Health {
    failures: u32,
    ejection: Option<Ejection>,
    /// Ejections one soon after the other.
    ejections: u32,
    back_at: Option<Mono>,
    is_unhealthy: bool,
    /// Checks in a row that ended otherwise than what is believed.
    contrary: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    lasts: Duration,
    until: Mono,
    tried_at: Mono,
}

impl Health {
    pub(super) fn standing(&self) -> Standing {
        match (self.is_unhealthy, self.ejection, self.back_at) {
            (true, ..) => Standing::Unhealthy,
            (_, Some(_), _) => Standing::Ejected,
            (_, None, Some(at)) => Standing::BackSince(at),
            (_, None, None) => Standing::Usable,
        }
    }

    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// A call was answered.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A call failed. For how long the server is out, if that took it out.
    pub(super) fn failed(
        &mut self,
        failure: Failure,
        others: Others,
        now: Mono,
    ) -> Option<Duration> {
        if self.is_unhealthy || self.ejection.is_some() {
            // A call that began before that.
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let in_a_row = self.failures >= FAILURES;
        let out_with_it = others.all - others.usable + 1;
        let is_ejected = match failure {
            Failure::Unreachable => others.all > 0 && (others.usable > 0 || in_a_row),
            Failure::Failed => in_a_row && 2 * out_with_it <= others.all + 1,
        };
        if !is_ejected {
            return None;
        }
        let is_soon = |at: Mono| now.since(at) < FORGIVEN_AFTER;
        self.ejections = match self.back_at.is_some_and(is_soon) {
            true => self.ejections.saturating_add(1),
            false => 1,
        };
        let doublings = (self.ejections - 1).min(5);
        let lasts = (FIRST_EJECTION * (1 << doublings)).min(LONGEST_EJECTION);
        self.ejection = Some(Ejection {
            lasts,
            until: now.plus(lasts),
            tried_at: now,
        });
        Some(lasts)
    }

    /// When a server that is out is to be tried; `None` when it is not out by its calls.
    pub(super) fn try_at(&self, is_one_usable: bool) -> Option<Mono> {
        let ejection = self.ejection?;
        Some(match is_one_usable {
            true => ejection.until,
            false => ejection.until.min(ejection.tried_at.plus(WHEN_NONE)),
        })
    }

    /// A server that was out was tried. Whether it is back.
    pub(super) fn tried(&mut self, worked: bool, now: Mono) -> bool {
        let Some(ejection) = &mut self.ejection else {
            return false;
        };
        if worked {
            self.come_back(now);
            return true;
        }
        let lasts = (2 * ejection.lasts).min(LONGEST_EJECTION);
        *ejection = Ejection {
            lasts,
            until: now.plus(lasts),
            tried_at: now,
        };
        false
    }

    /// A check has ended. Whether that changed the server's standing.
    pub(super) fn checked(&mut self, worked: bool, rule: CheckRule, now: Mono) -> bool {
        let before = self.standing();
        let is_contrary = worked == self.is_unhealthy;
        self.contrary = match is_contrary {
            true => self.contrary.saturating_add(1),
            false => 0,
        };
        let enough = match worked {
            true => rule.healthy_after,
            false => rule.unhealthy_after,
        };
        if self.contrary >= enough {
            self.contrary = 0;
            self.is_unhealthy = !worked;
            if worked {
                self.come_back(now);
            }
        } else if worked && self.ejection.is_some_and(|out| out.until <= now) {
            self.come_back(now);
        }
        self.standing() != before
    }

    /// It is checked no more, so no check can keep it out.
    pub(super) fn forget_checks(&mut self) {
        self.is_unhealthy = false;
        self.contrary = 0;
    }

    fn come_back(&mut self, now: Mono) {
        self.ejection = None;
        self.failures = 0;
        self.back_at = Some(now);
    }
}

/// The chance, of [`WHOLE`], with which a server that is back since then takes a call that is meant
/// for it.
pub(super) fn chance(back_since: Mono, slow_start: Duration, now: Mono) -> u32 {
    let (since, whole) = (
        now.since(back_since).as_millis(),
        slow_start.as_millis().max(1),
    );
    let grown = u128::from(WHOLE) * since / whole;
    u32::try_from(grown)
        .unwrap_or(WHOLE)
        .clamp(LEAST_CHANCE, WHOLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Mono {
        Mono(0).plus(SECOND * u32::try_from(seconds).unwrap())
    }

    fn others(all: usize, usable: usize) -> Others {
        Others { all, usable }
    }

    #[test]
    fn a_refused_connection_takes_a_server_out_at_once_while_another_can_be_used() {
        let mut health = Health::default();
        let out = health.failed(Failure::Unreachable, others(1, 1), at(10));
        assert_eq!(out, Some(SECOND));
        assert_eq!(health.standing(), Standing::Ejected);
        assert_eq!(health.try_at(true), Some(at(11)));

        let mut last = Health::default();
        let mut fail = || last.failed(Failure::Unreachable, others(1, 0), at(10));
        assert_eq!([fail(), fail(), fail()], [None, None, Some(SECOND)]);
        let mut only = Health::default();
        for _ in 0..100 {
            assert_eq!(only.failed(Failure::Unreachable, others(0, 0), at(1)), None);
        }
    }

    #[test]
    fn calls_that_fail_take_a_server_out_after_three_in_a_row_and_never_more_than_half() {
        for (all, usable, is_ejected) in [
            (0, 0, false),
            (1, 1, true),
            (1, 0, false),
            (2, 2, true),
            (2, 1, false),
            (3, 3, true),
            (3, 2, true),
            (3, 1, false),
        ] {
            let mut health = Health::default();
            let fail = |health: &mut Health| {
                let out = health.failed(Failure::Failed, others(all, usable), at(10));
                out.is_some()
            };
            assert_eq!([fail(&mut health), fail(&mut health)], [false, false]);
            health.succeeded();
            assert_eq!([fail(&mut health), fail(&mut health)], [false, false]);
            assert_eq!(fail(&mut health), is_ejected, "{usable} of {all} others");
        }
    }

    #[test]
    fn the_time_that_a_server_is_out_doubles_up_to_half_a_minute_and_is_forgiven() {
        let mut health = Health::default();
        let mut now = at(100);
        let mut times = Vec::new();
        for _ in 0..7 {
            let out = health.failed(Failure::Unreachable, others(1, 1), now);
            times.push(out.unwrap().as_secs());
            now = now.plus(out.unwrap());
            assert!(health.tried(true, now));
        }
        assert_eq!(times, [1, 2, 4, 8, 16, 30, 30]);
        now = now.plus(FORGIVEN_AFTER);
        let out = health.failed(Failure::Unreachable, others(1, 1), now);
        assert_eq!(out, Some(SECOND));
        // A try that fails doubles it too.
        assert!(!health.tried(false, now.plus(SECOND)));
        assert_eq!(health.try_at(true), Some(now.plus(3 * SECOND)));
        // Nobody waits for that while no server can be used.
        assert_eq!(health.try_at(false), Some(now.plus(2 * SECOND)));
    }

    #[test]
    fn checks_change_the_standing_after_so_many_in_a_row() {
        let rule = CheckRule {
            healthy_after: 2,
            unhealthy_after: 3,
        };
        let mut health = Health::default();
        let mut check = |worked| {
            health.checked(worked, rule, at(50));
            health.standing()
        };
        let answers = [
            false, false, true, false, false, false, true, false, true, true,
        ];
        let usable = answers.map(&mut check).map(|standing| match standing {
            Standing::Usable => 'u',
            Standing::BackSince(_) => 'b',
            Standing::Ejected => 'e',
            Standing::Unhealthy => '-',
        });
        assert_eq!(String::from_iter(usable), "uuuuu----b");
    }

    #[test]
    fn a_server_that_is_back_gets_a_tenth_and_then_more_up_to_all() {
        let of = |since, slow_start| chance(at(100), Duration::from_secs(slow_start), at(since));
        assert_eq!(of(100, 10), WHOLE / 10);
        assert_eq!(of(105, 10), WHOLE / 2);
        assert_eq!(of(110, 10), WHOLE);
        assert_eq!(of(99, 10), WHOLE / 10, "of a clock that is behind");
        assert_eq!(of(101, 0), WHOLE);
    }

    /// What may happen to one of several servers.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Succeeded,
        Failed,
        Unreachable,
        Tried(bool),
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = (usize, Event)> {
        let event = prop_oneof![
            3 => Just(Event::Failed),
            1 => Just(Event::Unreachable),
            1 => Just(Event::Succeeded),
            1 => any::<bool>().prop_map(Event::Tried),
            1 => (0..40_u64).prop_map(Event::Pass),
        ];
        (0..5_usize, event)
    }

    proptest! {
        /// Against the plain words: which of five servers are out after each event.
        #[test]
        fn the_servers_that_are_out_are_those_that_the_words_name(
            events in proptest::collection::vec(event(), 1..80)
        ) {
            let mut servers: [Health; 5] = Default::default();
            let (mut now, mut in_a_row, mut out) = (at(1_000), [0; 5], [false; 5]);
            for (which, event) in events {
                let usable = (0..5).filter(|one| *one != which && !out[*one]).count();
                let health = &mut servers[which];
                match event {
                    Event::Pass(seconds) => now = now.plus(SECOND * seconds as u32),
                    Event::Succeeded => {
                        health.succeeded();
                        in_a_row[which] = 0;
                    }
                    Event::Tried(worked) => {
                        health.tried(worked, now);
                        if worked && out[which] {
                            (out[which], in_a_row[which]) = (false, 0);
                        }
                    }
                    Event::Failed | Event::Unreachable if out[which] => {
                        let failure = Failure::Failed;
                        prop_assert_eq!(health.failed(failure, others(4, usable), now), None);
                    }
                    Event::Failed => {
                        health.failed(Failure::Failed, others(4, usable), now);
                        in_a_row[which] += 1;
                        // One more is out then: at most two of five.
                        out[which] = in_a_row[which] >= 3 && 4 - usable < 2;
                    }
                    Event::Unreachable => {
                        health.failed(Failure::Unreachable, others(4, usable), now);
                        in_a_row[which] += 1;
                        out[which] = usable > 0 || in_a_row[which] >= 3;
                    }
                }
                for (health, out) in servers.iter().zip(out) {
                    prop_assert_eq!(health.standing() == Standing::Ejected, out);
                }
            }
        }
    }
}
