//! Whether the wall clock is to be believed (R10, R13, R16).
//!
//! Owns the rule: the wall clock is trusted once it has kept step with the monotonic clock for an
//! hour. What is settled or deleted by a wrong clock cannot be taken back, and a clock that is
//! wrong at the start is mostly set right within minutes. Pure: it takes both clocks. Must never
//! decide what an untrusted clock forbids but the fixing of months.

use crate::ledger::ClockWatch;
use crate::model::{Mono, Utc};
use std::time::Duration;

/// So long the clocks keep step before the wall clock is trusted.
const HOUR: Duration = Duration::from_secs(3_600);
/// So long it is trusted before anything is deleted, and before another month is fixed for which
/// nothing but the clock speaks.
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The clocks keep step while they are not further apart than this after an hour.
const STEP: Duration = Duration::from_secs(60);

/// The watch over the wall clock.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    watch: ClockWatch,
    /// The reading that later ones are held to. A new one is taken each hour: what drifts by
    /// seconds in a month keeps step.
    anchor: (Mono, Utc),
    /// The latest instant that the ledger knew of by a clock that was trusted for a day: what is
    /// known once the clock steps.
    newest: Utc,
}

impl Trust {
    /// Goes on with the watch that an earlier process kept, when the machine was not booted since;
    /// else begins anew. Whether the wall clock was moved meanwhile is found by the first look.
    /// `boot`: names the machine's boot; `None` when it cannot be told. `newest`: the latest
    /// instant that the ledger knows. Of a watched ledger that counts as far as a trusted clock
    /// dated it, however often the machine was booted since. A ledger that was never watched is
    /// taken at its word.
    pub(super) fn start(
        kept: Option<ClockWatch>,
        boot: Option<String>,
        (mono, utc): (Mono, Utc),
        newest: Utc,
    ) -> Self {
        let boot = boot.unwrap_or_default();
        let same_boot = kept
            .as_ref()
            .is_some_and(|kept| !boot.is_empty() && kept.boot == boot && kept.mono <= mono);
        let (trusted, fixed_unseen) = kept.as_ref().map_or((Duration::ZERO, None), |kept| {
            (kept.trusted, kept.fixed_unseen)
        });
        let newest = match &kept {
            None => newest.min(utc),
            Some(kept) if is_rested(kept) => kept.known.max(newest.min(kept.utc)),
            Some(kept) => kept.known,
        };
        let begun = ClockWatch {
            boot,
            mono,
            utc,
            in_step: Duration::ZERO,
            trusted,
            known: newest,
            fixed_unseen,
        };
        let watch = kept.filter(|_| same_boot).unwrap_or(begun);
        Self {
            anchor: (watch.mono, watch.utc),
            watch,
            newest,
        }
    }

    /// Takes in what the clocks show. Gives by how many seconds the wall clock went ahead of the
    /// monotonic one, when that is more than a minute either way: then the hour begins anew.
    pub(super) fn look(&mut self, (mono, utc): (Mono, Utc)) -> Option<i64> {
        let passed = i64::try_from(mono.since(self.anchor.0).as_micros()).unwrap_or(i64::MAX);
        let shown = utc.0.saturating_sub(self.anchor.1.0);
        let ahead_us = shown.saturating_sub(passed);
        let stepped = u128::from(ahead_us.unsigned_abs()) > STEP.as_micros();
        if stepped {
            self.watch.in_step = Duration::ZERO;
            // Records since may be of the wrong clock.
            self.watch.known = self.newest;
        } else {
            let before = self.watch.in_step;
            self.watch.in_step = before.saturating_add(mono.since(self.watch.mono));
            let trusted = self
                .trusted_for()
                .saturating_sub(before.saturating_sub(HOUR));
            self.watch.trusted = self.watch.trusted.saturating_add(trusted);
        }
        (self.watch.mono, self.watch.utc) = (mono.max(self.watch.mono), utc);
        if stepped || mono.since(self.anchor.0) >= HOUR {
            self.anchor = (mono, utc);
        }
        stepped.then_some(ahead_us / 1_000_000)
    }

    /// Whether days may be sealed and months fixed.
    pub(super) fn is_trusted(&self) -> bool {
        self.watch.in_step >= HOUR
    }

    /// The instant by which something is noted that is to be told from its age later: never one
    /// before what the ledger knew.
    pub(super) fn now(&self) -> Utc {
        self.watch.utc.max(self.watch.known)
    }

    /// So much time has passed since then at least, whatever the wall clock was moved to. It is
    /// what the ledger knew of when this watch began, and what was watched.
    pub(super) fn proven_since(&self, since: Utc) -> Duration {
        let between = |from: Utc, to: Utc| {
            let us = to.0.saturating_sub(from.0);
            Duration::from_micros(u64::try_from(us).unwrap_or(0))
        };
        let watched = self.watch.in_step;
        match self.is_known(since) {
            true => between(since, self.watch.known).saturating_add(watched),
            false => between(since, self.watch.utc).min(watched),
        }
    }

    /// Whether records may be deleted: not in the first 24 hours of trust.
    pub(super) fn may_delete(&self) -> bool {
        is_rested(&self.watch)
    }

    /// Whether a month that ended then may be fixed. When the ledger knew a later instant before
    /// this watch began, the month is over whatever the clock shows now. Else the clock alone says
    /// so, and that is believed for one month in 24 hours of trust. What was recorded since the
    /// watch began was dated by this same clock and proves nothing.
    pub(super) fn may_fix(&self, end: Utc) -> bool {
        let rested = |at: Duration| self.watch.trusted.saturating_sub(at) >= DAY;
        self.is_trusted() && (self.is_known(end) || self.watch.fixed_unseen.is_none_or(rested))
    }

    /// The watch as it is to be kept with the settlement of a month that ended then.
    pub(super) fn fixing(&self, end: Utc) -> ClockWatch {
        let mut watch = self.watch.clone();
        if !self.is_known(end) {
            watch.fixed_unseen = Some(watch.trusted);
        }
        watch
    }

    /// The month is fixed, with what [`Trust::fixing`] gave. Not before: a month that could not be
    /// fixed must not make the next try wait for a day.
    pub(super) fn fixed(&mut self, kept: &ClockWatch) {
        self.watch.fixed_unseen = kept.fixed_unseen;
    }

    /// The watch as it is to be kept. `newest`: the latest instant that the ledger knows.
    pub(super) fn keep(&mut self, newest: Utc) -> ClockWatch {
        if is_rested(&self.watch) {
            self.newest = self.newest.max(newest.min(self.watch.utc));
        }
        self.watch.clone()
    }

    fn is_known(&self, end: Utc) -> bool {
        self.watch.known >= end
    }

    fn trusted_for(&self) -> Duration {
        self.watch.in_step.saturating_sub(HOUR)
    }
}

/// The latest instant that this watch vouches for: what the wall clock showed, when it was trusted.
pub(super) fn vouched(watch: &ClockWatch) -> Utc {
    match watch.in_step >= HOUR {
        true => watch.utc.max(watch.known),
        false => watch.known,
    }
}

/// Whether the clock was trusted for a day without a break. What an hour of trust has recorded
/// speaks for nobody: else two boots with the same wrong clock would be enough to fix all months at
/// once.
fn is_rested(watch: &ClockWatch) -> bool {
    watch.in_step >= HOUR + DAY
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    /// The wall clock of the first start.
    const NOON: Utc = Utc(1_795_000_000_000_000);

    /// Two clocks, and the process that looks at them every minute.
    struct Machine {
        boot: &'static str,
        mono: Mono,
        utc: Utc,
        newest: Utc,
        trust: Trust,
    }

    impl Machine {
        fn start(kept: Option<ClockWatch>, boot: &'static str, mono: Mono, utc: Utc) -> Self {
            Self::knowing(Utc(NOON.0 - 1), kept, boot, mono, utc)
        }

        fn knowing(
            newest: Utc,
            kept: Option<ClockWatch>,
            boot: &'static str,
            mono: Mono,
            utc: Utc,
        ) -> Self {
            let mut trust = Trust::start(kept, Some(boot.to_owned()), (mono, utc), newest);
            trust.look((mono, utc));
            Self {
                boot,
                mono,
                utc,
                newest,
                trust,
            }
        }

        fn first() -> Self {
            Self::start(None, "boot-1", Mono(5_000_000_000), NOON)
        }

        fn run(&mut self, time: Duration) {
            let mut left = time;
            while !left.is_zero() {
                let step = left.min(MINUTE);
                left -= step;
                (self.mono, self.utc) = (self.mono.plus(step), self.utc.plus(step));
                assert_eq!(self.trust.look((self.mono, self.utc)), None);
            }
        }

        fn kept(&mut self) -> ClockWatch {
            self.trust.keep(self.newest)
        }

        fn fix(&mut self, end: Utc) {
            let watch = self.trust.fixing(end);
            self.trust.fixed(&watch);
        }

        /// Another process on the same machine, so much later.
        fn restart_after(&mut self, down: Duration, moved_us: i64) -> Self {
            let utc = Utc(self.utc.plus(down).0 + moved_us);
            Self::start(Some(self.kept()), self.boot, self.mono.plus(down), utc)
        }
    }

    #[test]
    fn a_wall_clock_is_trusted_after_an_hour_in_step_and_not_before() {
        let mut machine = Machine::first();
        assert!(!machine.trust.is_trusted());
        machine.run(HOUR - Duration::from_nanos(1));
        assert!(!machine.trust.is_trusted());
        machine.run(Duration::from_nanos(1));
        assert!(machine.trust.is_trusted());
    }

    #[test]
    fn a_step_of_more_than_a_minute_either_way_begins_the_hour_anew() {
        for sign in [1, -1] {
            let mut machine = Machine::first();
            machine.run(2 * HOUR);
            machine.utc.0 += sign * 60_000_000;
            machine.run(MINUTE);
            assert!(machine.trust.is_trusted(), "a minute is no step");
            machine.run(2 * HOUR);
            machine.utc.0 += sign * 60_000_001;
            let stepped = machine.trust.look((machine.mono, machine.utc));
            assert_eq!(stepped, Some(sign * 60));
            assert!(!machine.trust.is_trusted());
            machine.run(HOUR - MINUTE);
            assert!(!machine.trust.is_trusted());
            machine.run(MINUTE);
            assert!(machine.trust.is_trusted());
        }
    }

    #[test]
    fn a_clock_that_runs_off_in_small_steps_is_not_trusted() {
        let mut machine = Machine::first();
        let mut stepped = 0;
        for _ in 0..300 {
            machine.mono = machine.mono.plus(MINUTE);
            machine.utc = machine.utc.plus(MINUTE + Duration::from_secs(50));
            stepped += usize::from(machine.trust.look((machine.mono, machine.utc)).is_some());
            assert!(!machine.trust.is_trusted());
        }
        assert!(stepped > 100);
        // What a slow clock loses in an hour is no step, however often.
        machine.run(2 * HOUR);
        for _ in 0..100 {
            machine.utc.0 += 1_000_000;
            machine.run(HOUR);
        }
        assert!(machine.trust.is_trusted());
    }

    #[test]
    fn a_restart_on_the_same_boot_goes_on_with_the_same_trust_or_doubt() {
        let mut machine = Machine::first();
        machine.run(40 * MINUTE);
        let mut doubtful = machine.restart_after(10 * MINUTE, 0);
        assert!(!doubtful.trust.is_trusted());
        doubtful.run(10 * MINUTE);
        assert!(
            doubtful.trust.is_trusted(),
            "the time between is watched, too"
        );
        let trusted = doubtful.restart_after(30 * 24 * HOUR, -59_000_000);
        assert!(trusted.trust.is_trusted());
        let moved = doubtful.restart_after(MINUTE, 61_000_000);
        assert!(
            !moved.trust.is_trusted(),
            "it was moved while nobody looked"
        );
    }

    #[test]
    fn another_boot_another_machine_and_one_that_cannot_be_told_begin_the_hour_anew() {
        let mut machine = Machine::first();
        machine.run(50 * HOUR);
        let (kept, mono, utc) = (
            machine.kept(),
            machine.mono.plus(HOUR),
            machine.utc.plus(HOUR),
        );
        let at = |boot: Option<&str>, mono| {
            let boot = boot.map(str::to_owned);
            let mut trust = Trust::start(Some(kept.clone()), boot, (mono, utc), NOON);
            trust.look((mono, utc));
            trust
        };
        assert!(at(Some("boot-1"), mono).is_trusted());
        assert!(!at(Some("boot-2"), mono).is_trusted());
        assert!(!at(None, mono).is_trusted());
        assert!(!at(Some("boot-1"), Mono(1)).is_trusted(), "it went back");
    }

    #[test]
    fn nothing_is_deleted_in_the_first_24_trusted_hours() {
        let mut machine = Machine::first();
        machine.run(HOUR + DAY - MINUTE);
        assert!(!machine.trust.may_delete());
        machine.run(MINUTE);
        assert!(machine.trust.may_delete());
        machine.utc = machine.utc.plus(HOUR);
        machine.trust.look((machine.mono, machine.utc));
        assert!(!machine.trust.may_delete());
        machine.run(HOUR + DAY - MINUTE);
        assert!(!machine.trust.may_delete());
    }

    #[test]
    fn a_month_that_ended_before_what_the_ledger_knew_is_fixed_at_once_and_others_one_a_day() {
        let mut machine = Machine::start(None, "boot-1", Mono(5_000_000_000), NOON.plus(YEAR));
        let known = Utc(NOON.0 - 1);
        let ends = [1, 2, 3].map(|months: u32| NOON.plus(months * 30 * DAY));
        assert!(!machine.trust.may_fix(known), "not trusted yet");
        machine.run(HOUR);
        // Dated by the same clock, so it proves nothing.
        machine.newest = machine.utc;
        machine.kept();
        assert!(machine.trust.may_fix(known));
        machine.fix(known);
        assert!(machine.trust.may_fix(ends[0]));
        machine.fix(ends[0]);
        assert!(machine.trust.may_fix(known) && !machine.trust.may_fix(ends[1]));
        machine.run(DAY - MINUTE);
        assert!(!machine.trust.may_fix(ends[1]));
        // Neither a restart nor a boot begins the 24 hours anew, and doubt is not counted.
        let mut booted = machine.restart_after(MINUTE, 0);
        assert!(booted.trust.may_fix(ends[1]));
        let kept = machine.kept();
        booted = Machine::start(Some(kept), "boot-2", Mono(1), machine.utc);
        booted.run(HOUR);
        assert!(!booted.trust.may_fix(ends[1]));
        booted.run(MINUTE);
        assert!(booted.trust.may_fix(ends[1]));
        booted.fix(ends[1]);
        assert!(!booted.trust.may_fix(ends[2]));
    }

    #[test]
    fn what_is_recorded_by_a_clock_that_was_moved_does_not_speak_for_it() {
        let mut machine = Machine::first();
        machine.run(30 * HOUR);
        machine.newest = machine.utc;
        let before = machine.kept().utc;
        machine.utc = machine.utc.plus(YEAR);
        assert!(machine.trust.look((machine.mono, machine.utc)).is_some());
        machine.newest = machine.utc;
        machine.kept();
        machine.run(HOUR);
        assert!(machine.trust.is_known(before));
        assert!(!machine.trust.is_known(before.plus(MINUTE)));
        // Nor when it is set right and moved again.
        for step in [-(YEAR.as_micros() as i64), YEAR.as_micros() as i64] {
            machine.utc.0 += step;
            assert!(machine.trust.look((machine.mono, machine.utc)).is_some());
            machine.run(HOUR);
            machine.kept();
        }
        assert!(machine.trust.is_known(before));
        assert!(!machine.trust.is_known(before.plus(MINUTE)));
    }

    #[test]
    fn what_is_recorded_by_a_clock_that_is_wrong_at_several_boots_does_not_speak_for_it() {
        let mut machine = Machine::first();
        machine.run(30 * HOUR);
        machine.newest = machine.utc;
        let before = machine.kept().utc;
        let wrong = before.plus(YEAR);
        for (boot, run) in [("boot-2", MINUTE), ("boot-3", 10 * HOUR), ("boot-4", HOUR)] {
            // The ledger has calls that the boot before dated, and more come.
            let newest = machine.newest;
            machine = Machine::knowing(newest, Some(machine.kept()), boot, Mono(1), wrong);
            machine.newest = wrong.plus(MINUTE);
            machine.run(run);
            assert!(machine.trust.is_known(before), "{boot}");
            assert!(!machine.trust.is_known(before.plus(MINUTE)), "{boot}");
        }
        // One month that only the clock speaks for, and no second one.
        let ends = [1, 2].map(|months: u32| before.plus(months * 30 * DAY));
        assert!(machine.trust.may_fix(ends[0]));
        machine.fix(ends[0]);
        assert!(!machine.trust.may_fix(ends[1]));
    }

    #[test]
    fn after_a_day_of_trust_another_boot_knows_what_was_recorded_until_then_and_nothing_later() {
        for (run, knows) in [(DAY + HOUR, true), (DAY + HOUR - MINUTE, false)] {
            let mut machine = Machine::first();
            machine.run(run);
            let (kept, called) = (machine.kept(), machine.utc);
            let newest = called.plus(MINUTE);
            let booted = Machine::knowing(newest, Some(kept), "boot-2", Mono(1), called.plus(YEAR));
            assert_eq!(booted.trust.is_known(called), knows, "{run:?}");
            assert!(!booted.trust.is_known(newest));
        }
    }

    #[test]
    fn time_is_proven_to_have_passed_by_what_was_watched_and_by_what_the_ledger_knew() {
        let days = |days: u32| days * DAY;
        let mut machine = Machine::first();
        machine.run(days(3));
        let since = machine.utc;
        assert_eq!(machine.trust.proven_since(since), Duration::ZERO);
        machine.run(days(2));
        assert_eq!(machine.trust.proven_since(since), days(2));
        // A clock that jumps a year proves nothing, however long it is trusted then.
        machine.newest = machine.utc;
        machine.kept();
        machine.utc = machine.utc.plus(YEAR);
        machine.trust.look((machine.mono, machine.utc));
        assert_eq!(machine.trust.proven_since(since), days(2));
        machine.run(days(2));
        assert_eq!(machine.trust.proven_since(since), days(4));
        // What was noted since the jump is not older than it.
        let later = machine.trust.now();
        machine.run(days(1));
        assert_eq!(machine.trust.proven_since(later), days(1));
        assert_eq!(machine.trust.proven_since(since), days(5));
    }

    #[test]
    fn a_boot_takes_nothing_from_the_time_that_a_rested_clock_has_proven() {
        let mut machine = Machine::first();
        machine.run(3 * DAY);
        let since = machine.utc;
        machine.run(3 * DAY);
        machine.newest = machine.utc;
        let kept = machine.kept();
        let known = machine.utc;
        let mut booted = Machine::knowing(known, Some(kept), "boot-2", Mono(1), machine.utc);
        assert_eq!(booted.trust.proven_since(since), 3 * DAY);
        booted.run(4 * DAY);
        assert_eq!(booted.trust.proven_since(since), 7 * DAY);
        // An instant that a clock noted which was ahead is not reached yet.
        let ahead = booted.utc.plus(YEAR);
        assert_eq!(booted.trust.proven_since(ahead), Duration::ZERO);
    }
}
