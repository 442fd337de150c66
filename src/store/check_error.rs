//! What makes a store unfit, in words that say what to do.
//!
//! Owns the texts. Must never show a password.

use crate::store::dial::{BadCertificates, NoConnection};
use crate::store::options::NodeAddress;

/// What makes a store unfit, with its remedy.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// See [`BadCertificates`].
    #[error(
        "{0}: write `ca: PATH`, a PEM file with the certificate of the authority that signed the \
         store's"
    )]
    BadCertificates(#[from] BadCertificates),
    /// There is no node to ask.
    #[error("no node of the store is known: give the address of at least one")]
    NoNode,
    /// A node cannot be reached, or does not let us in.
    #[error("the store at {0}: {1}; {remedy}", remedy = remedy(.1))]
    NoConnection(NodeAddress, NoConnection),
    /// No sentinel can be reached, or lets us in.
    #[error("the sentinel at {0}: {1}; {remedy}", remedy = remedy(.1))]
    NoSentinel(NodeAddress, NoConnection),
    /// The sentinels watch nothing of this name.
    #[error(
        "the sentinels know no master {0:?}: give the name that stands in their \
         `sentinel monitor` line (`redis-cli -p 26379 SENTINEL MASTERS` lists them)"
    )]
    UnknownMaster(String),
    /// The node is none of a Cluster.
    #[error(
        "the store at {0} is no node of a Cluster: take out `cluster: true`, or start the store \
         with `cluster-enabled yes`"
    )]
    NoCluster(NodeAddress),
    /// A Cluster has one database.
    #[error("a Cluster has database 0 alone, and database {0} is configured: take it out")]
    DatabaseOfCluster(i64),
    /// Nobody holds some of the slots.
    #[error(
        "some slots of the Cluster belong to no node: see `redis-cli --cluster check`, and mend it \
         with `redis-cli --cluster fix`"
    )]
    SlotsMissing,
    /// After the loss of one of them the rest would refuse everything.
    #[error(
        "the store has {0} nodes: three are the least, one primary and two standbys, or a primary \
         that is lost leaves one that has no standby and refuses everything"
    )]
    TooFewNodes(usize),
    /// A node that can be reached is unfit.
    #[error("the store at {0} {1}")]
    Unfit(NodeAddress, NodeFault),
}

/// What makes a node unfit, with its remedy. The node is the subject of the sentence.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// It has no functions.
    #[error(
        "has version {0}: take Redis 7.0 or later, or Valkey, since the rule is a function library"
    )]
    TooOld(String),
    /// It answers as no Redis does.
    #[error("answers as neither Redis nor Valkey does: take one of the two")]
    Unknown,
    /// It was reached, and then it was not.
    #[error("was lost during the check: {0}")]
    Broken(NoConnection),
    /// An evicted window is a refilled one.
    #[error(
        "has maxmemory-policy {0}, so that it may forget a window, which refills a quota: set \
         `maxmemory-policy noeviction`, or give the windows a server of their own"
    )]
    Evicts(String),
    /// A primary that is alone would go on granting.
    #[error(
        "has {0} {1:?}, so that a primary that is cut off grants beside the new one: set \
         `min-replicas-to-write 1` and `min-replicas-max-lag 1` on every node"
    )]
    NoFence(&'static str, String),
    /// A setting cannot be read.
    #[error(
        "does not let the user read its settings ({0}): give it the right `+config|get`; a store \
         on which that cannot be had is not supported, since nobody can see whether it evicts"
    )]
    MayNotReadConfig(String),
    /// A right is missing.
    #[error(
        "does not let the user run {0} ({1}): give it the rights `+fcall +function|load \
         +function|list +time +hmget +hset +rpush +llen +lindex +lrange +pexpire +pttl +ltrim` and the keys `~{{tg*`"
    )]
    MayNot(&'static str, String),
    /// It has no functions, or they are disabled.
    #[error("has no functions ({0}): take Redis 7.0 or later, or Valkey, with functions enabled")]
    NoFunctions(String),
    /// A fence works, and shows that no standby follows.
    #[error(
        "has no standby that follows it ({0}): see that two standbys are connected \
         (`INFO replication`)"
    )]
    NoStandby(String),
    /// It is not the primary.
    #[error(
        "is a standby ({0}): write the address of the primary in `nodes`, or the addresses of the \
         sentinels with `sentinel: NAME`"
    )]
    Standby(String),
    /// There is no room for a window.
    #[error(
        "has no memory left ({0}): raise its `maxmemory`, or give the windows a server of their own"
    )]
    NoMemory(String),
    /// A key of ours is none of ours.
    #[error(
        "has a key of another program where a window belongs ({0}): give the windows a server, or \
         another database, of their own"
    )]
    OtherKey(String),
    /// Somebody loaded other code under our name.
    #[error(
        "has a library of the name that is not tollgate's ({0}), whose rule may be another: see \
         whose it is (`FUNCTION LIST LIBRARYNAME tollgate_1 WITHCODE`), and take it away (`FUNCTION \
         DELETE tollgate_1`) when nobody needs it: the gates load theirs, at the cost of one hold"
    )]
    OtherLibrary(String),
    /// It answered with another error.
    #[error(
        "refused {0}: {1}: see what its log says of it, and give the windows a server of their own"
    )]
    Refused(&'static str, String),
    /// A library's variables do not live as long as the process.
    #[error(
        "forgets the variables of a function library between two calls, so that it would hold for \
         ever: take Redis 7.0 or later, or Valkey"
    )]
    Forgets,
    /// Another version of the program keeps it.
    #[error(
        "is kept by a newer version of tollgate: upgrade this one, or give it a store, or another \
         database, of its own"
    )]
    Newer,
}

impl NodeFault {
    /// The fault that an error of the node shows.
    pub(crate) fn refused(what: &'static str, why: String) -> Self {
        let is = |code: &str| why.starts_with(code);
        if is("NOPERM") || why.contains("executing the script can't run") {
            Self::MayNot(what, why)
        } else if is("NOREPLICAS") {
            Self::NoStandby(why)
        } else if is("READONLY") {
            Self::Standby(why)
        } else if is("OOM") {
            Self::NoMemory(why)
        } else if is("WRONGTYPE") || why.contains("WRONGTYPE") {
            Self::OtherKey(why)
        } else if why.contains("Function not found") {
            Self::OtherLibrary(why)
        } else if why.to_lowercase().contains("unknown command") {
            Self::NoFunctions(why)
        } else {
            Self::Refused(what, why)
        }
    }
}

/// What does no harm to the cap, and should be seen to.
#[derive(Debug, thiserror::Error)]
pub enum CheckWarning {
    /// It writes what is worth a second.
    #[error(
        "the store at {0} writes to disk, which slows calls and saves nothing, since a window is \
         worth one second: set `save \"\"` and `appendonly no`"
    )]
    Persistent(NodeAddress),
    /// The next loss is one too many.
    #[error(
        "the standby at {0} is not looked at ({1}): until it is back, do not lose another node"
    )]
    StandbyAway(NodeAddress, String),
    /// A shard that loses its primary is left without a standby.
    #[error(
        "the primary at {0} has fewer than two standbys: when it is lost, the one that follows has \
         none, and its part of the accounts is refused until it has one"
    )]
    FewStandbys(NodeAddress),
}

/// What to do about a connection that is not had.
fn remedy(why: &NoConnection) -> &'static str {
    match why {
        NoConnection::NoName(_) => "see that the name is written right and that DNS knows it",
        NoConnection::Closed(_) | NoConnection::Silent => {
            "see that it runs, that address and port are right, and that no firewall is between"
        }
        NoConnection::Tls(_) => {
            "see that its certificate names this host and is signed by the authority that is \
             configured, and that it wants no certificate of ours (`tls-auth-clients no`)"
        }
        NoConnection::PlainText => "take `tls` out, or give the port on which it speaks TLS",
        NoConnection::HungUp => "configure `tls` when it does, else see its log",
        NoConnection::WrongPassword(_) => {
            "see `ACL LIST` there, and the user and the password that are configured here"
        }
        NoConnection::PasswordWanted => "configure its password",
        NoConnection::NoPassword => {
            "take the password out, or set one there (`requirepass`): without one everybody on \
             the network can empty the windows"
        }
        NoConnection::NoDatabase(..) => "give a number below its setting `databases`",
        NoConnection::Refused(why) if why.starts_with("NOPERM") => {
            "give the user the right that its words name"
        }
        NoConnection::Refused(why) if why.to_lowercase().contains("unknown command") => {
            "see that it is what the settings say: with `sentinel` the nodes are sentinels, which \
             have a port of their own (26379)"
        }
        NoConnection::Refused(_) => "see what its log says of it",
    }
}
