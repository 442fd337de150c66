//! A question that failed: why, in which words, and whose fault that is.
//!
//! Owns the reading of errors for it. Must never show more of a node's words than a line.

use crate::store::dial::said;
use crate::store::question::BadReply;
use crate::store::unanswered::Unanswered;
use redis::RedisError;

/// Why a question failed, and the words for it.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) reason: Unanswered,
    pub(crate) words: String,
    pub(crate) fault: Fault,
}

/// Whose fault a failure may be at least.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The window's that was asked for.
    Window,
    /// The node's, or the network's.
    Node,
    /// The connection's, which ends.
    Connection,
}

impl From<Unanswered> for Failure {
    fn from(reason: Unanswered) -> Self {
        Self {
            reason,
            words: reason.to_string(),
            fault: Fault::Node,
        }
    }
}

impl From<BadReply> for Failure {
    fn from(bad: BadReply) -> Self {
        Self {
            reason: Unanswered::Unreadable,
            words: bad.to_string(),
            fault: match bad {
                BadReply::Window(_) => Fault::Window,
                BadReply::Nonsense(_) => Fault::Node,
                BadReply::OtherQuestion => Fault::Connection,
            },
        }
    }
}

impl From<&RedisError> for Failure {
    fn from(error: &RedisError) -> Self {
        let words = said(error);
        // Of `{b}:e` too, but a heartbeat meets that.
        let is_windows = words.starts_with("WRONGTYPE");
        Self {
            reason: Unanswered::from(error),
            fault: match is_windows {
                true => Fault::Window,
                false => Fault::Node,
            },
            words,
        }
    }
}
