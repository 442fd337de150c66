//! Why a question got no answer, as the error of the store says it.
//!
//! Owns the reading of the store's errors. Must never take an error that it does not know for a
//! harmless one.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a question got no answer. In each case nothing is granted to the one that asks, though the
/// store may have granted it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum Unanswered {
    /// It was not sent: there is no connection, or the last questions were not answered.
    #[error("the store is down")]
    Down,
    /// No answer within the budget.
    #[error("the store did not answer within the budget")]
    Late,
    /// The connection ended.
    #[error("the connection to the store was lost")]
    Lost,
    /// The store does not have the function: it is loaded now.
    #[error("the store lost the function library")]
    NotLoaded,
    /// The node is a standby: the primary is sought.
    #[error("the node is not the primary")]
    NotPrimary,
    /// The node of a Cluster does not own the keys: the one that does is sought.
    #[error("the node does not own the keys")]
    Moved,
    /// The primary has too few standbys that follow it.
    #[error("the primary has no standby that follows it")]
    NoStandby,
    /// The node loads its data, waits for its primary, or is busy.
    #[error("the store is not ready")]
    NotReady,
    /// The store does not want to: a right that is missing, no memory left. The status of the node
    /// has its words.
    #[error("the store refused the question")]
    Refused,
    /// The answer is none of the function's.
    #[error("the store's answer cannot be read")]
    Unreadable,
}

impl Unanswered {
    /// All of them, in the order of [`Unanswered::index`].
    pub const ALL: [Self; 10] = [
        Self::Down,
        Self::Late,
        Self::Lost,
        Self::NotLoaded,
        Self::NotPrimary,
        Self::Moved,
        Self::NoStandby,
        Self::NotReady,
        Self::Refused,
        Self::Unreadable,
    ];

    /// The value of a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Late => "late",
            Self::Lost => "lost",
            Self::NotLoaded => "not_loaded",
            Self::NotPrimary => "not_primary",
            Self::Moved => "moved",
            Self::NoStandby => "no_standby",
            Self::NotReady => "not_ready",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }

    /// Its place in [`Unanswered::ALL`].
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl From<&RedisError> for Unanswered {
    fn from(error: &RedisError) -> Self {
        if error.is_unrecoverable_error() {
            return Self::Lost;
        }
        let detail = error.detail().unwrap_or_default();
        match error.kind() {
            ErrorKind::Server(kind) => match kind {
                ServerErrorKind::ResponseError if detail.starts_with("Function not found") => {
                    Self::NotLoaded
                }
                ServerErrorKind::ReadOnly => Self::NotPrimary,
                ServerErrorKind::Moved | ServerErrorKind::Ask => Self::Moved,
                ServerErrorKind::BusyLoading
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown => Self::NotReady,
                _ => Self::Refused,
            },
            ErrorKind::Extension if error.code() == Some("NOREPLICAS") => Self::NoStandby,
            ErrorKind::Extension if error.code() == Some("BUSY") => Self::NotReady,
            ErrorKind::Extension => Self::Refused,
            _ => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_index() {
        for (at, reason) in Unanswered::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }

    #[test]
    fn an_error_of_the_store_is_known_by_its_code() {
        for (line, expected) in [
            ("ERR Function not found", Unanswered::NotLoaded),
            ("ERR something else", Unanswered::Refused),
            ("READONLY You can't write", Unanswered::NotPrimary),
            ("MOVED 3999 127.0.0.1:6381", Unanswered::Moved),
            ("ASK 3999 127.0.0.1:6381", Unanswered::Moved),
            ("NOREPLICAS Not enough good replicas", Unanswered::NoStandby),
            ("LOADING Redis is loading", Unanswered::NotReady),
            ("CLUSTERDOWN The cluster is down", Unanswered::NotReady),
            ("MASTERDOWN Link with MASTER is down", Unanswered::NotReady),
            ("TRYAGAIN Multiple keys", Unanswered::NotReady),
            ("BUSY Redis is busy running a script", Unanswered::NotReady),
            ("NOPERM this user has no permissions", Unanswered::Refused),
            ("NOAUTH Authentication required.", Unanswered::Refused),
            ("OOM command not allowed", Unanswered::Refused),
            ("MISCONF Redis is configured", Unanswered::Refused),
        ] {
            let reply = format!("-{line}\r\n");
            let value = redis::parse_redis_value(reply.as_bytes()).unwrap();
            let error = value.extract_error().unwrap_err();
            assert_eq!(Unanswered::from(&error), expected, "{line}");
        }
    }
}
