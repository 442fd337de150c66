//! The one clock. Everything that decides takes `now`; only the edges ask here, and wait here.
//!
//! Owns the two sources of time and the sleep until one of them has come so far. Must never be read
//! inside a rule.
//!
//! A test drives time: it makes a clock with a [`Mover`], and whatever waits on the clock wakes
//! when the mover passes its time. The deadlines of a connection are tokio's own: their tests run
//! in one runtime, whose time can be paused.
//!
//! # Decided
//! - **The monotonic clock is the machine's** (`CLOCK_MONOTONIC`), not the runtime's: starts of two
//!   processes can be compared, which is how a restart is shown to keep the cap.

use crate::model::{Mono, Utc};
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::time::{ClockId, clock_gettime};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// Two clock reads that belong together are not further apart than this.
const TOGETHER: Duration = Duration::from_millis(1);
/// How often two clock reads that belong together are tried.
const TRIES: usize = 100;
/// How often a thread that waits on a clock with a mover looks whether it was moved.
const LOOK: Duration = Duration::from_millis(1);

/// Reads a wall clock and a monotonic one, and waits for the latter. The default one reads the
/// machine's.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Moved>>);

/// Moves a [`Clock`], which is how tests replay another day, a clock that is wrong, or an hour in a
/// moment.
#[derive(Clone, Debug)]
pub struct Mover(Arc<Moved>);

#[derive(Debug)]
struct Moved {
    /// Whether time passes by itself.
    runs: bool,
    ahead: Mutex<Ahead>,
    moved: Notify,
}

/// What is added to the machine's clocks, or to zero when time does not pass by itself.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    mono: Duration,
    utc_us: i64,
}

fn machine_mono() -> Mono {
    let t = clock_gettime(ClockId::Monotonic);
    Mono(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}

fn machine_utc() -> Utc {
    utc_of(ClockId::Realtime)
}

fn utc_of(clock: ClockId) -> Utc {
    let t = clock_gettime(clock);
    Utc(t.tv_sec * 1_000_000 + t.tv_nsec / 1_000)
}

impl Clock {
    /// A clock that runs as the machine's does and can be moved.
    pub fn movable() -> (Self, Mover) {
        Self::moved(Moved {
            runs: true,
            ahead: Mutex::new(Ahead {
                mono: Duration::ZERO,
                utc_us: 0,
            }),
            moved: Notify::new(),
        })
    }

    /// A clock that stands still until it is moved.
    pub fn stopped() -> (Self, Mover) {
        Self::moved(Moved {
            runs: false,
            ahead: Mutex::new(Ahead {
                mono: Duration::from_nanos(machine_mono().0),
                utc_us: machine_utc().0,
            }),
            moved: Notify::new(),
        })
    }

    fn moved(moved: Moved) -> (Self, Mover) {
        let moved = Arc::new(moved);
        (Self(Some(moved.clone())), Mover(moved))
    }

    /// The time that the process has had a processor.
    pub(crate) fn cpu() -> Duration {
        let t = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
    }

    /// The monotonic clock, for caps and durations.
    pub fn mono(&self) -> Mono {
        match &self.0 {
            None => machine_mono(),
            Some(moved) => moved.read().0,
        }
    }

    /// The wall clock, for purchases, signatures and records.
    pub fn utc(&self) -> Utc {
        match &self.0 {
            None => machine_utc(),
            Some(moved) => moved.read().1,
        }
    }

    /// The wall clock as of the system's last tick, some milliseconds ago at most: for what is told
    /// in seconds.
    pub(crate) fn utc_at_tick(&self) -> Utc {
        match &self.0 {
            None => utc_of(ClockId::RealtimeCoarse),
            Some(moved) => moved.read().1,
        }
    }

    /// Both clocks at one instant, a millisecond apart at most: the thread may have been put to
    /// sleep between two reads.
    pub fn both(&self) -> (Mono, Utc) {
        if let Some(moved) = &self.0 {
            return moved.read();
        }
        let mut before = machine_mono();
        let mut utc = machine_utc();
        for _ in 0..TRIES {
            let after = machine_mono();
            if after.since(before) <= TOGETHER {
                break;
            }
            (before, utc) = (after, machine_utc());
        }
        (before, utc)
    }

    /// Sleeps so long on the monotonic clock, or a little longer.
    pub async fn sleep(&self, duration: Duration) {
        match &self.0 {
            None => tokio::time::sleep(duration).await,
            Some(_) => self.sleep_until(self.mono().plus(duration)).await,
        }
    }

    /// Sleeps until `at` has come on the monotonic clock; never returns before it.
    pub async fn sleep_until(&self, at: Mono) {
        loop {
            // Before the clock is read, so that no move is missed.
            let moved = self
                .0
                .as_deref()
                .map(|moved| (moved.moved.notified(), moved.runs));
            let left = at.since(self.mono());
            if left == Duration::ZERO {
                return;
            }
            // On the heap: it is rarely needed, and would make every call's future larger.
            match moved {
                None => Box::pin(tokio::time::sleep(left)).await,
                Some((moved, false)) => Box::pin(moved).await,
                Some((moved, true)) => {
                    let _ = Box::pin(tokio::time::timeout(left, moved)).await;
                }
            }
        }
    }

    /// Makes a thread wait until it is woken, or until `at` has come on the monotonic clock. May
    /// return earlier, as the wait of a [`Condvar`] may.
    pub fn wait<T>(&self, wake: &Condvar, guard: &mut MutexGuard<'_, T>, at: Option<Mono>) {
        let left = at.map(|at| at.since(self.mono()));
        match (&self.0, left) {
            (_, Some(Duration::ZERO)) => {}
            (None, None) => wake.wait(guard),
            (None, Some(left)) => drop(wake.wait_for(guard, left)),
            (Some(_), left) => drop(wake.wait_for(guard, left.map_or(LOOK, |left| left.min(LOOK)))),
        }
    }
}

impl Moved {
    fn read(&self) -> (Mono, Utc) {
        let ahead = *self.ahead.lock();
        let (mono, utc) = match self.runs {
            true => (machine_mono(), machine_utc()),
            false => (Mono::default(), Utc::default()),
        };
        (
            mono.plus(ahead.mono),
            Utc(utc.0.saturating_add(ahead.utc_us)),
        )
    }
}

impl Mover {
    /// Makes the wall clock show `at` now and run on from there. The monotonic clock stays.
    pub fn set_utc(&self, at: Utc) {
        let shown = self.0.read().1;
        self.step_utc(at.0.saturating_sub(shown.0));
    }

    /// Moves the wall clock alone by so many microseconds, either way.
    pub fn step_utc(&self, by_us: i64) {
        let mut ahead = self.0.ahead.lock();
        ahead.utc_us = ahead.utc_us.saturating_add(by_us);
        drop(ahead);
        self.0.moved.notify_waiters();
    }

    /// Lets so much time pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let by_us = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let mut ahead = self.0.ahead.lock();
        ahead.mono = ahead.mono.saturating_add(by);
        ahead.utc_us = ahead.utc_us.saturating_add(by_us);
        drop(ahead);
        self.0.moved.notify_waiters();
    }
}

/// A timer for one wait after another. Nearly every call waits for one that never fires: so it is
/// set again only when it has fired too early, and not for each wait.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Waits so long, or a little longer.
    pub(crate) async fn sleep(&mut self, wait: Duration) {
        let at = Instant::now() + wait;
        let new = || Box::pin(tokio::time::sleep_until(at));
        let sleep = self.0.get_or_insert_with(new);
        loop {
            let set = sleep.deadline();
            if set > at || sleep.is_elapsed() {
                sleep.as_mut().reset(at);
            }
            sleep.as_mut().await;
            if Instant::now() >= at {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn the_wall_clock_can_be_moved_without_the_other_and_both_together() {
        let (clock, mover) = Clock::stopped();
        let (mono, utc) = clock.both();
        assert_eq!(clock.both(), (mono, utc));
        mover.step_utc(-5);
        assert_eq!(clock.both(), (mono, Utc(utc.0 - 5)));
        mover.set_utc(Utc(1_000));
        assert_eq!(clock.both(), (mono, Utc(1_000)));
        mover.advance(HOUR);
        assert_eq!(clock.both(), (mono.plus(HOUR), Utc(1_000).plus(HOUR)));
    }

    #[test]
    fn a_clock_that_can_be_moved_runs_on_by_itself() {
        let (clock, mover) = Clock::movable();
        mover.advance(HOUR);
        let machine = Clock::default();
        let before = machine.mono().plus(HOUR);
        let shown = clock.mono();
        assert!(before <= shown && shown <= machine.mono().plus(HOUR));
    }

    #[tokio::test]
    async fn whoever_sleeps_wakes_when_the_clock_was_moved_past_its_time_and_not_before() {
        for (clock, mover) in [Clock::stopped(), Clock::movable()] {
            let begun = clock.mono();
            let sleeper = tokio::spawn({
                let clock = clock.clone();
                async move {
                    clock.sleep(HOUR).await;
                    clock.mono()
                }
            });
            // It must be asleep by then; that it is not is found by the time it wakes at.
            tokio::task::yield_now().await;
            mover.advance(HOUR / 2);
            tokio::task::yield_now().await;
            mover.step_utc(i64::MAX / 2);
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(!sleeper.is_finished(), "the wall clock wakes nobody");
            mover.advance(HOUR / 2);
            let woke = sleeper.await.unwrap();
            assert!(woke.since(begun) >= HOUR);
        }
    }

    #[test]
    fn a_thread_that_waits_wakes_when_the_clock_was_moved() {
        let (clock, mover) = Clock::stopped();
        let until = clock.mono().plus(HOUR);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (lock, wake) = (Mutex::new(()), Condvar::new());
                while clock.mono() < until {
                    clock.wait(&wake, &mut lock.lock(), Some(until));
                }
            });
            mover.advance(HOUR);
        });
    }
}
