//! How the store is reached and what it is asked under, as plain values.
//!
//! Owns the options of the link. Must never read a file: `config` reads, and maps to these.

use crate::model::{LONGEST_BUDGET, LONGEST_DELAY};
use secrecy::SecretString;
use std::fmt;
use std::time::Duration;

/// What a window is worth (R4, R5).
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// What is added for reading clocks, rounding, and the drift of two clocks over a second.
const MARGIN: Duration = Duration::from_millis(5);
/// From a start that some gate was granted until no such start can count any more. The gates need
/// not have the same settings, so those of the one that asks decide nothing here.
pub(crate) const UNKNOWN_PAST: Duration = SECOND
    .saturating_add(LONGEST_DELAY)
    .saturating_add(LONGEST_BUDGET)
    .saturating_add(MARGIN);
/// How long a primary that was cut off from its standbys may still grant, at most, when
/// `min-replicas-max-lag` is 1: it compares whole seconds and looks once a second.
const FENCE: Duration = Duration::from_millis(3_040);
/// No store is told to hold for longer.
pub(crate) const LONGEST_HOLD: Duration = FENCE.saturating_add(UNKNOWN_PAST);

/// A server of the store, or a sentinel.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who says which node is the primary.
#[derive(Clone, Debug)]
pub enum Topology {
    /// Nobody: there is one node, or an address behind which somebody else sees to it.
    Single,
    /// Sentinels: `nodes` are their addresses.
    Sentinel {
        /// The name under which they watch the primary.
        master: String,
        /// Their user, when they have one.
        username: Option<String>,
        /// Their password, when they have one. It is not the one of the nodes.
        password: Option<SecretString>,
    },
    /// The nodes of a Cluster: `nodes` are those that are asked first.
    Cluster,
}

/// TLS to the nodes, and to the sentinels.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Certificates (PEM) of which one must have signed the store's; those that the machine trusts
    /// when there are none.
    pub ca: Option<Vec<u8>>,
}

/// How the store is reached and what it is asked under.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// At least one: see [`Topology`].
    pub nodes: Vec<NodeAddress>,
    /// Who says which node is the primary.
    pub topology: Topology,
    /// `None` is plain TCP.
    pub tls: Option<TlsOptions>,
    /// The user of an ACL; `None` is the default user.
    pub username: Option<String>,
    /// The password of the user.
    pub password: Option<SecretString>,
    /// The number of the database; 0 in a Cluster.
    pub database: i64,
    /// An answer that takes longer is void.
    pub budget: Duration,
    /// The longest that a call waits for its start.
    pub max_delay: Duration,
    /// The name of this replica. The store's operator sees it beside the connections.
    pub replica: String,
}

impl StoreOptions {
    /// How long a store that does not know its past grants nothing: until no start of that past
    /// counts, neither one of an old primary that has not noticed yet that it is alone.
    pub fn hold(&self) -> Duration {
        match self.topology {
            Topology::Single => UNKNOWN_PAST,
            Topology::Sentinel { .. } | Topology::Cluster => LONGEST_HOLD,
        }
    }

    /// How many parts the limiters are spread over. Each has an epoch of its own.
    pub(crate) fn buckets(&self) -> u16 {
        match self.topology {
            Topology::Single | Topology::Sentinel { .. } => 1,
            Topology::Cluster => 256,
        }
    }
}
