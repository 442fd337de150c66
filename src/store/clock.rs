//! What a replica believes of the clock and the epoch of one bucket of the store. Pure.
//!
//! Owns the anchors, the deadline of a question, and the decision whether an answer may start
//! calls. Must never start a call on an answer that came too late, on one of another epoch, or
//! while the clock of the store is not known well enough.
//!
//! # Decided
//! - **The bound of the store's clock is the lowest of the last one to two seconds**: each answer
//!   in time says (the store's instant, our instant of sending), and the clock of the store cannot
//!   be further than that plus what has passed since. The lowest one is the one with the shortest
//!   way. It is at least a second old, so a clock that gains half a percent on ours is noticed like
//!   one that jumps.
//! - **A jump is treated as an unknown store**: everything is forgotten and nothing starts for
//!   [`StoreClock::silence`] after the next answer.
//! - **A new epoch is held by the replica too**, for the time that the store is told to hold. A
//!   store's clock that jumps during its hold would end it, while a primary of before, cut off with
//!   a replica, still grants. The price is the time until a replica hears of the epoch.
//! - **An answer that came too late changes nothing**, save that it may prove a jump: its anchor
//!   would be loose, and a jump as long as it took would stay unseen.

use crate::model::{Mono, StoreStart, Utc};
use crate::store::options::{LONGEST_HOLD, SECOND, UNKNOWN_PAST};
use crate::store::{QuestionTerms, Said};
use std::time::Duration;

/// The clock and the epoch of one bucket, as one replica knows them.
#[derive(Debug)]
pub(crate) struct StoreClock {
    budget: Duration,
    max_delay: Duration,
    /// How long nothing starts after a jump: whatever was granted before has then left a second ago
    /// (1.215 s), whatever the settings of the gate are that it was granted to.
    pub(crate) silence: Duration,
    /// How long nothing starts after an epoch was heard of.
    hold: Duration,
    known: Option<Known>,
    /// Nothing starts before.
    silent: Silent,
}

/// An epoch and the anchors in it.
#[derive(Debug)]
struct Known {
    epoch: i64,
    /// Questions sent before this instant may be answered with an epoch that has ended.
    since: Mono,
    /// The lowest anchor since `turned`, and the lowest one of the second before.
    current: Anchor,
    previous: Anchor,
    turned: Mono,
    /// By how much the store's clock is ahead of that of its machine, and the question that said it.
    ahead: (Mono, Duration),
    /// The latest instant that an answer has told.
    reached: Utc,
}

/// What is known of the store at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StoreNow {
    /// The instant on the clock of its machine, by which quotas are in force.
    pub utc: Utc,
    /// The epoch.
    pub epoch: i64,
}

/// The store's clock was not yet at `at` when the question was sent.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    at: Utc,
    sent: Mono,
}

/// Nothing starts at this replica for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Silent {
    /// Until this instant at least.
    pub until: Mono,
    /// The reason.
    pub why: Silence,
}

/// Why nothing starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// The store has not answered in time yet.
    Unknown,
    /// An epoch was heard of for the first time.
    NewEpoch,
    /// The store's clock gained on ours.
    Jumped,
    /// The store holds, since its windows may be empty for having been lost.
    Held,
    /// A newer version keeps the store.
    Newer,
}

impl Silence {
    /// Every reason.
    pub(crate) const ALL: [Self; 5] = [
        Self::Unknown,
        Self::NewEpoch,
        Self::Jumped,
        Self::Held,
        Self::Newer,
    ];

    /// The value of a label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NewEpoch => "new_epoch",
            Self::Jumped => "clock_jumped",
            Self::Held => "held",
            Self::Newer => "newer_version",
        }
    }
}

/// Why an answer started nothing, and its calls may ask again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoAnswer {
    /// The store did not answer, or with an error.
    Unanswered,
    /// The answer came after the budget. Starts that it granted stay spent.
    LateAnswer,
    /// The question came after its deadline.
    LateQuestion,
    /// The answer is of another epoch than the one that is known now.
    OtherEpoch,
}

/// A start that was granted in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    /// The start on the store's clock, which the record carries.
    pub start: StoreStart,
    /// The same instant on the clock of the store's machine, which may have been set back since the
    /// epoch began: the day and the month of the call are those of this.
    pub admitted_at: Utc,
    /// The instant at which the call may leave: not before the start, and at most the budget after.
    pub release: Mono,
}

/// What an answer means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Heard {
    /// It was decided.
    Grants {
        /// The starts, from the earliest on; fewer than were asked for when the next is too far.
        grants: Vec<Grant>,
        /// How long a call that was refused should wait; `None` when none was refused.
        retry_after: Option<Duration>,
        /// Calls before this instant need not ask: their start would be too far as well.
        not_before: Option<Mono>,
        /// How many further starts would fit beside the last one.
        left: u32,
    },
    /// Nothing was decided; ask again.
    AskAgain(NoAnswer),
    /// Nothing may start.
    Silent(Silent),
}

impl StoreClock {
    /// A bucket that nothing is known of. An answer must come within `budget`; a start may be
    /// `max_delay` away; `hold` is what the store is told to hold for.
    pub(crate) fn new(budget: Duration, max_delay: Duration, hold: Duration) -> Self {
        Self {
            budget,
            max_delay,
            silence: UNKNOWN_PAST,
            hold,
            known: None,
            silent: Silent {
                until: Mono(0),
                why: Silence::Unknown,
            },
        }
    }

    /// The terms of a question that is sent right after `now` for calls that wait. Read `now` after
    /// everything else was done: a question that is kept back may come after its deadline.
    pub(crate) fn ask(&self, now: Mono) -> Result<QuestionTerms, Silent> {
        match self.known {
            Some(_) if now >= self.silent.until => Ok(self.touch(now)),
            Some(_) => Err(self.silent),
            None => Err(Silent {
                until: self.silent.until.max(now.plus(self.silence)),
                why: Silence::Unknown,
            }),
        }
    }

    /// The terms of a question with n = 0, which may be sent at any time: on connecting, and every
    /// 100 ms, during a silence too. It brings the anchors.
    pub(crate) fn touch(&self, now: Mono) -> QuestionTerms {
        match &self.known {
            // No epoch is 0: the store tells its own.
            None => QuestionTerms {
                epoch: 0,
                deadline: Utc(0),
            },
            Some(known) => QuestionTerms {
                epoch: known.epoch,
                deadline: known.bound(now).plus(self.budget),
            },
        }
    }

    /// The instant of the store's machine at `now`, as far as it is known: quotas in force are those
    /// of it. Up to a round trip ahead.
    pub(crate) fn now_utc(&self, now: Mono) -> Option<StoreNow> {
        let known = self.known.as_ref()?;
        let (_, ahead) = known.ahead;
        Some(StoreNow {
            utc: known.bound(now).before(ahead),
            epoch: known.epoch,
        })
    }

    /// An instant that the clock of the store's machine has reached, in the epoch that is known:
    /// calls that are asked for from now on are dated after it, unless that clock is set back.
    pub(crate) fn reached(&self) -> Option<Utc> {
        let known = self.known.as_ref()?;
        let (_, ahead) = known.ahead;
        Some(known.reached.before(ahead))
    }

    /// Takes an answer to a question that was sent at `sent`, read immediately before, and received
    /// at `received`, read immediately after. Any order of answers is safe.
    pub(crate) fn heard(&mut self, sent: Mono, received: Mono, said: &Said) -> Heard {
        let (epoch, at, ahead) = match said {
            Said::Newer => return self.fall_silent(received, SECOND, Silence::Newer),
            Said::Granted {
                epoch, now, ahead, ..
            }
            | Said::Hold {
                epoch, now, ahead, ..
            }
            | Said::Epoch { epoch, now, ahead }
            | Said::Late { epoch, now, ahead } => (*epoch, *now, *ahead),
        };
        let anchor = Anchor { at, sent };
        let in_time = received.since(sent) <= self.budget;
        let opens_in = match said {
            Said::Hold { opens_in, .. } => *opens_in,
            _ => Duration::ZERO,
        };
        match &mut self.known {
            Some(known) if known.epoch == epoch => {
                let reachable = known.bound(sent).plus(self.budget);
                if at > reachable.max(known.bound(received)) {
                    self.known = None;
                    let heard = self.fall_silent(received, self.silence, Silence::Jumped);
                    if !in_time {
                        return heard;
                    }
                    self.adopt(epoch, anchor, ahead, received);
                    return self.fall_silent(received, self.silence.max(opens_in), Silence::Jumped);
                }
                known.reached = known.reached.max(at);
                if !in_time {
                    return Heard::AskAgain(NoAnswer::LateAnswer);
                }
                known.tighten(anchor);
                if sent >= known.ahead.0 {
                    known.ahead = (sent, ahead);
                }
                self.decided(sent, received, said)
            }
            _ if !in_time => Heard::AskAgain(NoAnswer::LateAnswer),
            Some(known) if sent < known.since => Heard::AskAgain(NoAnswer::OtherEpoch),
            _ => {
                self.adopt(epoch, anchor, ahead, received);
                let silence = self.silence.max(self.hold).max(opens_in);
                self.fall_silent(received, silence, Silence::NewEpoch)
            }
        }
    }

    /// An answer in time, of the epoch that is known.
    fn decided(&mut self, sent: Mono, received: Mono, said: &Said) -> Heard {
        match said {
            Said::Hold { opens_in, .. } => self.fall_silent(received, *opens_in, Silence::Held),
            // Another question has found out meanwhile what this one could not know.
            Said::Granted { .. } if sent < self.silent.until => Heard::Silent(self.silent),
            Said::Granted {
                epoch,
                now,
                ahead,
                offsets,
                refused_for,
                left,
            } => {
                let grant = |offset: &Duration| Grant {
                    admitted_at: now.plus(*offset).before(*ahead),
                    start: StoreStart {
                        epoch: *epoch,
                        at: now.plus(*offset),
                    },
                    release: received.plus(*offset),
                };
                // Counted from the sending: from the receiving it would refuse a call falsely that
                // comes within the round trip.
                let opens = |wait: Duration| sent.plus(wait.saturating_sub(self.max_delay));
                Heard::Grants {
                    grants: offsets.iter().map(grant).collect(),
                    retry_after: *refused_for,
                    not_before: refused_for.map(opens),
                    left: *left,
                }
            }
            Said::Late { .. } => Heard::AskAgain(NoAnswer::LateQuestion),
            Said::Epoch { .. } | Said::Newer => Heard::AskAgain(NoAnswer::OtherEpoch),
        }
    }

    /// Begins to believe in an epoch, from its first answer in time.
    fn adopt(&mut self, epoch: i64, anchor: Anchor, ahead: Duration, received: Mono) {
        self.known = Some(Known {
            epoch,
            since: received,
            current: anchor,
            previous: anchor,
            turned: anchor.sent,
            ahead: (anchor.sent, ahead),
            reached: anchor.at,
        });
    }

    /// Never shortens a silence, and none is longer than the longest hold.
    fn fall_silent(&mut self, from: Mono, lasts: Duration, why: Silence) -> Heard {
        let until = from.plus(lasts.min(LONGEST_HOLD));
        if until > self.silent.until {
            self.silent = Silent { until, why };
        }
        Heard::Silent(self.silent)
    }
}

impl Known {
    /// The store's clock is not further than this at `now`.
    fn bound(&self, now: Mono) -> Utc {
        self.current.bound(now).min(self.previous.bound(now))
    }

    fn tighten(&mut self, anchor: Anchor) {
        if anchor.sent >= self.turned.plus(SECOND) {
            self.previous = self.current;
            self.current = anchor;
            self.turned = anchor.sent;
        } else if anchor.bound(anchor.sent) < self.current.bound(anchor.sent) {
            self.current = anchor;
        }
    }
}

impl Anchor {
    /// Exact for instants before the anchor too: an answer may come out of order.
    fn bound(&self, now: Mono) -> Utc {
        let ahead = i128::from(now.0) - i128::from(self.sent.0);
        let micros = i64::try_from(ahead.div_euclid(1_000)).unwrap_or(i64::MAX);
        Utc(self.at.0.saturating_add(micros))
    }
}
