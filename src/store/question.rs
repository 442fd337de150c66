//! What is asked of the store, and what it said.
//!
//! Owns the shape of a question and the reading of an answer. Must never panic on an answer, nor
//! believe one that no sound store gives: a store may say anything.

use crate::model::{LONGEST_DELAY, Utc};
use crate::store::options::{LONGEST_HOLD, SECOND};
use std::time::Duration;

/// The most starts that one question is granted. `tollgate.lua` keeps the same bound, so that one
/// question cannot hold up the store.
pub(crate) const MOST_STARTS: u16 = 256;

/// The last instant that a number of Lua holds to the microsecond, in the year 2255.
const LAST_INSTANT: i64 = 1 << 53;

/// A question for starts of one limiter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// The limiter, as a part of the name of its key in the store.
    pub limiter: Box<str>,
    /// The quota in force, in calls per second. Of a quota of 0 no start ever comes.
    pub quota: u32,
    /// The number of calls that wait for a start. 0 is a heartbeat: it asks for the store's clock
    /// and epoch alone, and changes no window.
    pub n: u16,
    /// A start that is further away than this is refused.
    pub max_delay: Duration,
}

/// What the asking replica believes of the store; the store refuses a question that believes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QuestionTerms {
    /// The epoch in which a start is asked for; 0 when none is known yet.
    pub epoch: i64,
    /// The store's instant after which the question is to change nothing.
    pub deadline: Utc,
}

/// What the store said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// The question was decided: as many starts as there are offsets, all of them spent now.
    Granted {
        /// The epoch that the starts belong to.
        epoch: i64,
        /// The instant of the decision.
        now: Utc,
        /// See [`Said::Hold`].
        ahead: Duration,
        /// How long after `now` each start is, from the earliest on.
        offsets: Vec<Duration>,
        /// How long after `now` the next start would have been, when that was too far away.
        /// `Duration::MAX` when it never comes, since the quota is 0.
        refused_for: Option<Duration>,
        /// How many further starts would fit beside the last one.
        left: u32,
    },
    /// Nobody may start anything yet.
    Hold {
        /// The epoch that begins.
        epoch: i64,
        /// The store's instant, of a clock that never runs back.
        now: Utc,
        /// By how much that is ahead of the clock of its machine, which was set back.
        ahead: Duration,
        /// The rest of the hold.
        opens_in: Duration,
    },
    /// The question named another epoch. Nothing changed.
    Epoch {
        /// The epoch of the store.
        epoch: i64,
        /// The store's instant.
        now: Utc,
        /// See [`Said::Hold`].
        ahead: Duration,
    },
    /// The question came after its deadline. Nothing changed.
    Late {
        /// The epoch of the store.
        epoch: i64,
        /// The store's instant.
        now: Utc,
        /// See [`Said::Hold`].
        ahead: Duration,
    },
    /// A newer version of tollgate keeps this store. Nothing changed.
    Newer,
}

/// A value of an answer. No type of the client library passes this door.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SaidValue {
    /// An integer.
    Int(i64),
    /// A text, whatever its bytes.
    Text(Vec<u8>),
}

/// An answer that is none of ours.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadReply {
    /// It is none of the function's, or no sound store gives it.
    #[error("the store gave an answer that none of tollgate's functions gives: {0}")]
    Nonsense(&'static str),
    /// The same of what one window decides: it may be the fault of its key alone.
    #[error("the store gave an answer that no sound window gives: {0}")]
    Window(&'static str),
    /// Answers do not belong to their questions any more, and each grants to a wrong one.
    #[error("the store gave the answer to another question")]
    OtherQuestion,
}

impl Said {
    /// Reads the answer of `tollgate_admit_1` to the question of this number.
    pub(crate) fn read(
        values: &[SaidValue],
        asked: &Question,
        number: i64,
    ) -> Result<Self, BadReply> {
        let [
            SaidValue::Text(word),
            epoch,
            now,
            ahead,
            of_question,
            wait,
            left,
            offsets @ ..,
        ] = values
        else {
            return Err(BadReply::Nonsense(
                "too short, or it does not begin with a word",
            ));
        };
        if an_int(of_question)? != number {
            return Err(BadReply::OtherQuestion);
        }
        if word == b"NEWER" {
            return Ok(Self::Newer);
        }
        let epoch = an_epoch(epoch)?;
        let (now, ahead) = (an_instant(now)?, a_duration(ahead)?);
        match word.as_slice() {
            b"OK" => {
                let offsets = the_offsets(offsets, asked)?;
                Ok(Self::Granted {
                    epoch,
                    now,
                    ahead,
                    refused_for: a_refusal(wait, asked, offsets.len())?,
                    left: a_count(left, asked)?,
                    offsets,
                })
            }
            b"HOLD" => Ok(Self::Hold {
                epoch,
                now,
                ahead,
                opens_in: a_hold(wait)?,
            }),
            b"EPOCH" => Ok(Self::Epoch { epoch, now, ahead }),
            b"LATE" => Ok(Self::Late { epoch, now, ahead }),
            _ => Err(BadReply::Nonsense("an unknown word")),
        }
    }
}

impl Said {
    /// The instant on the clock of the store's machine.
    pub(crate) fn on_machine(&self) -> Option<Utc> {
        let (Self::Granted { now, ahead, .. }
        | Self::Hold { now, ahead, .. }
        | Self::Epoch { now, ahead, .. }
        | Self::Late { now, ahead, .. }) = self
        else {
            return None;
        };
        Some(now.before(*ahead))
    }

    /// The epoch of the store.
    pub(crate) fn epoch(&self) -> Option<i64> {
        match self {
            Self::Granted { epoch, .. }
            | Self::Hold { epoch, .. }
            | Self::Epoch { epoch, .. }
            | Self::Late { epoch, .. } => Some(*epoch),
            Self::Newer => None,
        }
    }
}

/// It comes as text: a script gives back a number as an integer, and a key's name has it as text.
fn an_epoch(value: &SaidValue) -> Result<i64, BadReply> {
    let epoch = match value {
        SaidValue::Text(text) => str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        SaidValue::Int(_) => None,
    };
    epoch
        .filter(|epoch| (1..=LAST_INSTANT).contains(epoch))
        .ok_or(BadReply::Nonsense("an epoch that is no instant"))
}

fn an_int(value: &SaidValue) -> Result<i64, BadReply> {
    match value {
        SaidValue::Int(int) => Ok(*int),
        SaidValue::Text(_) => Err(BadReply::Nonsense("a text in the place of a number")),
    }
}

fn an_instant(value: &SaidValue) -> Result<Utc, BadReply> {
    match an_int(value)? {
        at if (1..=LAST_INSTANT).contains(&at) => Ok(Utc(at)),
        _ => Err(BadReply::Nonsense("an instant before 1970 or after 2255")),
    }
}

fn a_duration(value: &SaidValue) -> Result<Duration, BadReply> {
    match an_int(value)? {
        micros @ 0..=LAST_INSTANT => Ok(Duration::from_micros(micros.unsigned_abs())),
        _ => Err(BadReply::Nonsense("a time that is negative or too long")),
    }
}

fn a_hold(value: &SaidValue) -> Result<Duration, BadReply> {
    match a_duration(value)? {
        hold if hold <= LONGEST_HOLD => Ok(hold),
        _ => Err(BadReply::Nonsense("a hold that is longer than any")),
    }
}

fn a_count(value: &SaidValue, asked: &Question) -> Result<u32, BadReply> {
    let count = u32::try_from(an_int(value)?).ok();
    count
        .filter(|count| *count <= asked.quota)
        .ok_or(BadReply::Window("more starts are left than the quota"))
}

/// How far away the next start was. A start is at most the longest delay of any gate away, and the
/// next one a second after it.
fn a_refusal(
    value: &SaidValue,
    asked: &Question,
    granted: usize,
) -> Result<Option<Duration>, BadReply> {
    let is_refused = granted < usize::from(asked.n.min(MOST_STARTS));
    let refusal = match an_int(value)? {
        0 => None,
        -1 if asked.quota == 0 => Some(Duration::MAX),
        _ => Some(a_duration(value)?),
    };
    let is_sound = match refusal {
        Some(wait) if asked.quota > 0 => (asked.max_delay..=SECOND + LONGEST_DELAY).contains(&wait),
        _ => true,
    };
    match is_sound && refusal.is_some() == is_refused {
        true => Ok(refusal),
        false => Err(BadReply::Window("a next start where there is none")),
    }
}

fn the_offsets(values: &[SaidValue], asked: &Question) -> Result<Vec<Duration>, BadReply> {
    if values.len() > usize::from(asked.n.min(MOST_STARTS)) {
        return Err(BadReply::Nonsense("more starts than were asked for"));
    }
    let offsets: Vec<Duration> = values.iter().map(a_duration).collect::<Result<_, _>>()?;
    match offsets.is_sorted() && offsets.last().is_none_or(|last| *last <= asked.max_delay) {
        true => Ok(offsets),
        false => Err(BadReply::Window("a start that is too far away")),
    }
}
