//! What is asked of the store, and what it said.
//!
//! Owns the shape of a question and the reading of an answer. Must never panic on an answer: a
//! store may say anything.

use crate::model::Utc;
use std::time::Duration;

/// The most starts that one question is granted. `tollgate.lua` keeps the same bound, so that one
/// question cannot hold up the store.
pub(crate) const MOST_STARTS: u16 = 256;

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
        /// The store's instant.
        now: Utc,
        /// The rest of the hold.
        opens_in: Duration,
    },
    /// The question named another epoch. Nothing changed.
    Epoch {
        /// The epoch of the store.
        epoch: i64,
        /// The store's instant.
        now: Utc,
    },
    /// The question came after its deadline. Nothing changed.
    Late {
        /// The epoch of the store.
        epoch: i64,
        /// The store's instant.
        now: Utc,
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
#[error("the store gave an answer that is none of tollgate's function: {0}")]
pub(crate) struct BadReply(&'static str);

impl Said {
    /// Reads the answer of `tollgate_admit_1`.
    pub(crate) fn read(values: &[SaidValue]) -> Result<Self, BadReply> {
        let [SaidValue::Text(kind), epoch, now, wait, left, offsets @ ..] = values else {
            return Err(BadReply("too short, or it does not begin with a word"));
        };
        if kind == b"NEWER" {
            return Ok(Self::Newer);
        }
        let (epoch, now) = (an_epoch(epoch)?, an_instant(now)?);
        match kind.as_slice() {
            b"OK" => Ok(Self::Granted {
                epoch,
                now,
                offsets: the_offsets(offsets)?,
                refused_for: a_refusal(wait)?,
                left: a_count(left)?,
            }),
            b"HOLD" => Ok(Self::Hold {
                epoch,
                now,
                opens_in: a_duration(wait)?,
            }),
            b"EPOCH" => Ok(Self::Epoch { epoch, now }),
            b"LATE" => Ok(Self::Late { epoch, now }),
            _ => Err(BadReply("an unknown word")),
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
        .filter(|epoch| *epoch > 0)
        .ok_or(BadReply("an epoch that is no positive number"))
}

fn an_int(value: &SaidValue) -> Result<i64, BadReply> {
    match value {
        SaidValue::Int(int) => Ok(*int),
        SaidValue::Text(_) => Err(BadReply("a text in the place of a number")),
    }
}

fn an_instant(value: &SaidValue) -> Result<Utc, BadReply> {
    match an_int(value)? {
        at if at > 0 => Ok(Utc(at)),
        _ => Err(BadReply("an instant before 1970")),
    }
}

fn a_duration(value: &SaidValue) -> Result<Duration, BadReply> {
    let micros = u64::try_from(an_int(value)?).map_err(|_| BadReply("a negative time"))?;
    Ok(Duration::from_micros(micros))
}

fn a_count(value: &SaidValue) -> Result<u32, BadReply> {
    u32::try_from(an_int(value)?).map_err(|_| BadReply("a count out of bounds"))
}

fn a_refusal(value: &SaidValue) -> Result<Option<Duration>, BadReply> {
    Ok(match an_int(value)? {
        0 => None,
        -1 => Some(Duration::MAX),
        _ => Some(a_duration(value)?),
    })
}

fn the_offsets(values: &[SaidValue]) -> Result<Vec<Duration>, BadReply> {
    if values.len() > usize::from(MOST_STARTS) {
        return Err(BadReply("more starts than can be asked for"));
    }
    values.iter().map(a_duration).collect()
}
