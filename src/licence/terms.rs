//! Whether an app is licensed at an instant, and until when (R19). Pure.
//!
//! A year and a trial end at the same local clock time in the provider's zone, to the second, the
//! end excluded; from 29 February a year ends on 28 February.

use crate::config::{Account, LicenceOrder};
use crate::model::{LicenceKind, Package, Stop, Utc};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// The clocks of two gates may be so far apart: what one of them has just issued holds at the other.
const CLOCKS_APART_US: i64 = 300_000_000;

/// What is known of an app of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LicenceFacts<'f> {
    /// The account, with its orders.
    pub account: &'f Account,
    /// The account is in arrears, by its balance.
    pub in_arrears: bool,
    /// When the app's trial was issued.
    pub trial: Option<Utc>,
    /// Whether the account applied for the trial of any app.
    pub has_trials: bool,
    /// Licences of the app that began before this are revoked.
    pub revoked: Option<Utc>,
    /// The days of a trial.
    pub trial_days: u32,
    /// The provider's zone.
    pub zone: &'f TimeZone,
}

/// A licence that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Licence {
    /// How the app came by it.
    pub kind: LicenceKind,
    /// Its first instant.
    pub from: Utc,
    /// The instant at which it ends.
    pub until: Utc,
}

/// Why an app is not licensed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unlicensed {
    /// The account is stopped.
    Stopped(Stop),
    /// The provider revoked the licences of the app.
    Revoked,
    /// The app had one, which has ended.
    Expired,
    /// The app has one, which begins later.
    NotBegun,
    /// The account has licences, and none for this app.
    OtherPackage,
    /// The account has none.
    None,
}

/// The licence of the app at `now`: a formal one before a trial.
pub(crate) fn licensed(
    of: &LicenceFacts<'_>,
    package: &Package,
    now: Utc,
) -> Result<Licence, Unlicensed> {
    if let Some(stop) = stop(of) {
        return Err(Unlicensed::Stopped(stop));
    }
    let holds = |begins: Utc| !of.is_revoked(begins);
    let own = |order: &&LicenceOrder| order.package == *package;
    let orders = || of.account.licences.iter().filter(own);
    if let Some(formal) = in_force(orders().filter(|order| holds(order.from)), now) {
        return Ok(formal);
    }
    let trial = of.trial.map(|issued| of.trial_of(issued));
    let in_force = |trial: &Licence| holds(trial.from) && trial.has_begun(now) && now < trial.until;
    if let Some(trial) = trial.filter(in_force) {
        return Ok(trial);
    }
    let begun = |order: &LicenceOrder| order.from <= now;
    let is_revoked = |begins: Utc, until: Utc| !holds(begins) && now < until;
    let revoked = orders().any(|order| begun(order) && is_revoked(order.from, order.until))
        || trial.is_some_and(|trial| is_revoked(trial.from, trial.until));
    Err(if revoked {
        Unlicensed::Revoked
    } else if trial.is_some_and(|trial| trial.until <= now) || orders().any(begun) {
        Unlicensed::Expired
    } else if trial.is_some() || orders().next().is_some() {
        Unlicensed::NotBegun
    } else if of.has_trials || of.account.licences.iter().any(begun) {
        Unlicensed::OtherPackage
    } else {
        Unlicensed::None
    })
}

impl LicenceFacts<'_> {
    fn is_revoked(&self, begins: Utc) -> bool {
        self.revoked.is_some_and(|revoked| begins <= revoked)
    }

    /// The trial that was issued then.
    pub(crate) fn trial_of(&self, issued: Utc) -> Licence {
        Licence {
            kind: LicenceKind::Trial,
            from: issued,
            until: trial_end(issued, self.trial_days, self.zone),
        }
    }

    /// Whether this trial or order of the app is in force by itself, whatever others it has.
    pub(crate) fn state(&self, of: &Licence, now: Utc) -> Result<(), Unlicensed> {
        if of.until <= now {
            Err(Unlicensed::Expired)
        } else if self.is_revoked(of.from) {
            Err(Unlicensed::Revoked)
        } else if !of.has_begun(now) {
            Err(Unlicensed::NotBegun)
        } else {
            stop(self).map_or(Ok(()), |stop| Err(Unlicensed::Stopped(stop)))
        }
    }
}

impl Licence {
    /// A trial was issued by another gate perhaps, whose clock is not this one.
    pub(crate) fn has_begun(&self, now: Utc) -> bool {
        let apart = match self.kind {
            LicenceKind::Trial => CLOCKS_APART_US,
            LicenceKind::Formal => 0,
        };
        self.from.0.saturating_sub(apart) <= now.0
    }
}

/// Why the account gets no grant at all: a violation before arrears.
fn stop(of: &LicenceFacts<'_>) -> Option<Stop> {
    let stops = || {
        of.account
            .services
            .iter()
            .filter_map(|service| service.stopped)
    };
    if stops().any(|stop| stop == Stop::Violation) {
        return Some(Stop::Violation);
    }
    let in_arrears = of.in_arrears || stops().any(|stop| stop == Stop::Arrears);
    in_arrears.then_some(Stop::Arrears)
}

/// The orders around `now` that leave no gap, as one licence.
fn in_force<'o>(orders: impl Iterator<Item = &'o LicenceOrder>, now: Utc) -> Option<Licence> {
    let mut spans: Vec<(Utc, Utc)> = orders.map(|order| (order.from, order.until)).collect();
    spans.sort_unstable();
    let mut joined: Option<(Utc, Utc)> = None;
    for (from, until) in spans {
        joined = match joined {
            Some((first, last)) if from <= last => Some((first, last.max(until))),
            Some((first, last)) if first <= now && now < last => Some((first, last)),
            _ => Some((from, until)),
        };
    }
    let (from, until) = joined.filter(|(from, until)| *from <= now && now < *until)?;
    let kind = LicenceKind::Formal;
    Some(Licence { kind, from, until })
}

/// The end of a trial that was issued at `issued`; excluded.
fn trial_end(issued: Utc, days: u32, zone: &TimeZone) -> Utc {
    let end = Timestamp::from_microsecond(issued.0)
        .and_then(|at| {
            at.to_zoned_datetime(zone.clone())
                .checked_add(Span::new().days(days))
        })
        .map(|end| Utc(end.timestamp().as_microsecond()));
    // Past the end of the calendar: it has ended.
    end.unwrap_or(issued)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use std::path::Path;

    const SECOND: i64 = 1_000_000;

    fn at(text: &str) -> Utc {
        Utc(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn zone() -> TimeZone {
        TimeZone::get("Asia/Shanghai").unwrap()
    }

    fn package(name: &str) -> Package {
        Package::new(name).unwrap()
    }

    /// An account of the shipped files with these licences, as `accounts.yaml` has them.
    fn account(licences: &str) -> Account {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let files = tempfile::tempdir().unwrap();
        for name in ["tollgate.yaml", "catalog.yaml", "accounts.yaml"] {
            let mut text = std::fs::read_to_string(shipped.join(name)).unwrap();
            let name_line = "    name: Example Studio\n";
            text = text.replace(
                name_line,
                &format!("{name_line}    licences: [{licences}]\n"),
            );
            std::fs::write(files.path().join(name), text).unwrap();
        }
        let config = config::load(&files.path().join("tollgate.yaml")).unwrap();
        let mut accounts = config.accounts.into_iter();
        accounts.find(|of| of.id.as_str() == "1250000001").unwrap()
    }

    fn facts<'f>(account: &'f Account, zone: &'f TimeZone) -> LicenceFacts<'f> {
        LicenceFacts {
            account,
            in_arrears: false,
            trial: None,
            has_trials: false,
            revoked: None,
            trial_days: 60,
            zone,
        }
    }

    const ORDER: &str = "{order: L-1, package: com.example.a, from: 2027-02-28T08:00:00+08:00, paid: {cash: \"10000\"}}";

    #[test]
    fn a_formal_licence_holds_for_one_year_to_the_second_and_for_no_other_package() {
        let (account, zone) = (account(ORDER), zone());
        let of = facts(&account, &zone);
        let (a, b) = (package("com.example.a"), package("com.example.b"));
        let (from, until) = (
            at("2027-02-28T08:00:00+08:00"),
            at("2028-02-28T08:00:00+08:00"),
        );
        let kind = LicenceKind::Formal;
        let licence = Licence { kind, from, until };
        assert_eq!(
            licensed(&of, &a, Utc(from.0 - SECOND)),
            Err(Unlicensed::NotBegun)
        );
        assert_eq!(licensed(&of, &a, from), Ok(licence));
        assert_eq!(licensed(&of, &a, Utc(until.0 - SECOND)), Ok(licence));
        assert_eq!(licensed(&of, &a, until), Err(Unlicensed::Expired));
        assert_eq!(licensed(&of, &b, from), Err(Unlicensed::OtherPackage));
    }

    #[test]
    fn orders_that_leave_no_gap_are_one_licence_and_those_with_a_gap_are_two() {
        let order = |id, from: &str| {
            format!(
                "{{order: L-{id}, package: com.example.a, from: {from}, paid: {{cash: \"10000\"}}}}"
            )
        };
        let joined = [
            order(2, "2028-11-01T00:00:00+08:00"),
            order(1, "2027-11-01T00:00:00+08:00"),
            order(3, "2030-01-01T00:00:00+08:00"),
        ];
        let (account, zone) = (account(&joined.join(", ")), zone());
        let of = facts(&account, &zone);
        let licence = |now: &str| licensed(&of, &package("com.example.a"), at(now));
        let first = licence("2028-10-31T00:00:00+08:00").unwrap();
        assert_eq!(first.until, at("2029-11-01T00:00:00+08:00"));
        assert_eq!(
            licence("2029-12-01T00:00:00+08:00"),
            Err(Unlicensed::Expired)
        );
        let last = licence("2030-02-01T00:00:00+08:00").unwrap();
        assert_eq!(last.from, at("2030-01-01T00:00:00+08:00"));
    }

    #[test]
    fn a_trial_holds_for_sixty_days_from_its_issue_and_is_refused_on_day_61() {
        let (account, zone) = (account(""), zone());
        let issued = at("2026-11-24T10:20:30.5+08:00");
        let of = LicenceFacts {
            trial: Some(issued),
            has_trials: true,
            ..facts(&account, &zone)
        };
        let app = package("com.example.a");
        let until = at("2027-01-23T10:20:30.5+08:00");
        let last = licensed(&of, &app, Utc(until.0 - 1)).unwrap();
        assert_eq!((last.kind, last.until), (LicenceKind::Trial, until));
        assert_eq!(licensed(&of, &app, until), Err(Unlicensed::Expired));
        let other = LicenceFacts { trial: None, ..of };
        assert_eq!(
            licensed(&other, &package("com.example.b"), issued),
            Err(Unlicensed::OtherPackage)
        );
    }

    #[test]
    fn a_trial_of_a_clock_that_was_ahead_does_not_hold_before_it_was_issued() {
        let (account, zone) = (account(""), zone());
        let issued = at("2027-11-24T10:20:30+08:00");
        let of = LicenceFacts {
            trial: Some(issued),
            has_trials: true,
            ..facts(&account, &zone)
        };
        let app = package("com.example.a");
        let at_clock = |behind_us: i64| licensed(&of, &app, Utc(issued.0 - behind_us));
        assert_eq!(
            at_clock(CLOCKS_APART_US + SECOND),
            Err(Unlicensed::NotBegun)
        );
        assert_eq!(at_clock(365 * 86_400 * SECOND), Err(Unlicensed::NotBegun));
        // Of another gate, whose clock differs as clocks do.
        assert_eq!(at_clock(SECOND), Ok(of.trial_of(issued)));
    }

    #[test]
    fn each_line_has_a_state_of_its_own() {
        let (account, zone) = (account(ORDER), zone());
        let issued = at("2026-11-24T00:00:00+08:00");
        let of = LicenceFacts {
            trial: Some(issued),
            revoked: Some(Utc(issued.0 + SECOND)),
            ..facts(&account, &zone)
        };
        let order = &account.licences[0];
        let formal = Licence {
            kind: LicenceKind::Formal,
            from: order.from,
            until: order.until,
        };
        let states = |now: &str| {
            let state = |line: &Licence| of.state(line, at(now));
            (state(&of.trial_of(issued)), state(&formal))
        };
        let (revoked, not_begun) = (Err(Unlicensed::Revoked), Err(Unlicensed::NotBegun));
        assert_eq!(states("2027-01-01T00:00:00Z"), (revoked, not_begun));
        let expired = Err(Unlicensed::Expired);
        assert_eq!(states("2027-02-01T00:00:00Z"), (expired, not_begun));
        assert_eq!(states("2027-03-01T00:00:00Z"), (expired, Ok(())));
    }

    #[test]
    fn who_is_stopped_or_revoked_gets_no_grant_and_a_licence_that_begins_later_is_not_revoked() {
        let (mut sold, zone) = (account(ORDER), zone());
        let (app, now) = (package("com.example.a"), at("2027-03-01T00:00:00Z"));
        let of = facts(&sold, &zone);
        let arrears = LicenceFacts {
            in_arrears: true,
            ..of
        };
        let stopped = Err(Unlicensed::Stopped(Stop::Arrears));
        assert_eq!(licensed(&arrears, &app, now), stopped);
        let revoked = |at| LicenceFacts {
            revoked: Some(at),
            ..of
        };
        assert_eq!(licensed(&revoked(now), &app, now), Err(Unlicensed::Revoked));
        let before = at("2027-02-01T00:00:00Z");
        assert!(licensed(&revoked(before), &app, now).is_ok());
        sold.services[0].stopped = Some(Stop::Violation);
        let of = facts(&sold, &zone);
        let stopped = Err(Unlicensed::Stopped(Stop::Violation));
        assert_eq!(licensed(&of, &app, now), stopped);
    }
}
