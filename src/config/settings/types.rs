//! The shape of `tollgate.yaml`.
//!
//! Owns what the gate is told of how it runs. Must never hold anything about what is sold or to
//! whom.

use crate::config::settings::Listens;
use crate::model::{ClientTls, Durability, ServerCertificate};
use ipnet::IpNet;
use rust_decimal::Decimal;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

/// The whole of `tollgate.yaml`, save the names of the other two files.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The public listener. Beyond loopback only with [`Self::tls`] or [`Self::behind_tls`] (P6).
    pub listen: Listens,
    /// Something in front of this gate speaks TLS.
    pub behind_tls: bool,
    /// The certificates of the public listener; `None` is plain HTTP.
    pub(crate) tls: Option<Vec<ServerCertificate>>,
    /// Worker threads; `None` is one a core.
    pub workers: Option<NonZeroUsize>,
    /// The admin listener.
    pub admin: AdminSettings,
    /// Where admitted calls go whose group and action name no upstream.
    pub upstream: UpstreamSettings,
    /// The upstreams that groups and actions name, in the order of the file; none is called
    /// [`DEFAULT_UPSTREAM`].
    pub upstreams: Vec<(String, UpstreamSettings)>,
    /// Where records go.
    pub ledger: LedgerSettings,
    /// The longest a call waits for its start (P2); at most 200 ms.
    pub max_delay: Duration,
    /// Where the windows are kept that many replicas share; `None` is in this process.
    pub store: Option<StoreSettings>,
    /// Where records are sent to be collected; `None` is nowhere.
    pub outbox: Option<OutboxSettings>,
    /// The name of this replica in records; `None` is the machine's.
    pub replica: Option<String>,
    /// Where the lines of calls go; `None` is nowhere.
    pub access_log: Option<AccessLogSettings>,
    /// The number of accounts that have metric series of their own; at least 1.
    pub metric_accounts: usize,
    /// Where events are posted (R14, R16); `None` is nowhere. With
    /// [`Self::outbox`] only the collector posts them.
    pub events: Option<EventSettings>,
    /// What holds everything finite (P7).
    pub limits: Limits,
    /// Peers whose `X-Forwarded-For` names the real peer.
    pub trusted_proxies: Vec<IpNet>,
    /// The connections of [`Self::trusted_proxies`] begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Whoever asks here is told whether calls are accepted.
    pub health_path: Option<String>,
}

impl Settings {
    /// The names that a group or an action of the catalogue may name.
    pub(in crate::config) fn upstream_names(&self) -> Vec<&str> {
        let named = self.upstreams.iter().map(|(name, _)| &**name);
        [DEFAULT_UPSTREAM].into_iter().chain(named).collect()
    }

    /// The bills are made elsewhere: this gate is one of several, or its records are collected.
    pub fn books_are_elsewhere(&self) -> bool {
        self.store.is_some() || self.outbox.is_some()
    }
}

/// The `access_log` section.
#[derive(Clone, Debug)]
pub struct AccessLogSettings {
    /// Where lines go.
    pub to: AccessLogTo,
    /// The calls that have one.
    pub of: LoggedCalls,
    /// The part of them that has one, from 0 to 1.
    pub sample: f64,
}

/// Where the lines of calls go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessLogTo {
    /// Standard output.
    Stdout,
    /// A file, which is added to.
    File(PathBuf),
}

/// The calls that have a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoggedCalls {
    /// Those that were let in.
    Admitted,
    /// Those that were throttled or refused.
    Refused,
    /// All.
    Both,
}

/// The `admin` section.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Beyond loopback only with a token.
    pub listen: SocketAddr,
    /// What clients of the admin listener must present; not empty.
    pub token: Option<SecretString>,
    /// Its certificates; `None` is plain HTTP.
    pub(crate) tls: Option<Vec<ServerCertificate>>,
}

/// The name of the upstream that has no name in the files: the section `upstream`.
pub(crate) const DEFAULT_UPSTREAM: &str = "default";

/// The `upstream` section, or one of `upstreams`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// The servers that do the same; 1 to 64, each once.
    pub endpoints: Vec<Endpoint>,
    /// From dialling to connected; above zero.
    pub connect_timeout: Duration,
    /// From the request's start to the response head; shorter than [`Limits::request_timeout`].
    pub response_timeout: Duration,
    /// How long a connection is kept for the next call; above zero.
    pub idle_timeout: Duration,
    /// How old a connection may become before it is not used again; `None` is any age.
    pub max_age: Option<Duration>,
    /// The most calls at once; `None` is [`Limits::connections`].
    pub max_in_flight: Option<usize>,
    /// How long a server that comes back gets less than its share.
    pub slow_start: Duration,
    /// How its servers are checked; `None`: not.
    pub health: Option<HealthSettings>,
    /// How TLS is spoken with its servers; `None`: plain HTTP.
    pub(crate) tls: Option<ClientTls>,
}

/// The section `upstream.health`.
#[derive(Clone, Debug)]
pub struct HealthSettings {
    /// What is asked for; begins with `/`.
    pub path: String,
    /// How often; above zero.
    pub interval: Duration,
    /// How long an answer may take; above zero.
    pub timeout: Duration,
    /// So many good answers in a row bring a server back; at least 1.
    pub healthy_after: u32,
    /// So many bad ones in a row take it out; at least 1.
    pub unhealthy_after: u32,
}

/// A place that can be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Endpoint {
    /// `host:port`, as a `Host` field spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The `ledger` section.
#[derive(Clone, Debug)]
pub struct LedgerSettings {
    /// Joined to the directory of `tollgate.yaml`.
    pub path: PathBuf,
    /// What an answer waits for.
    pub durability: Durability,
    /// How long raw records are kept; at least a day.
    pub retain_records: Duration,
    /// How long a record may wait for the disk before calls are refused (P7); more than half of
    /// [`Limits::request_timeout`] counts as that half.
    pub stall_after: Duration,
    /// Whether `serve` creates a ledger that is not there.
    pub create: bool,
}

/// The section `admission.store.redis`.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// The server; of a Sentinel set its sentinels, of a Cluster some of its nodes. At least one.
    pub nodes: Vec<Endpoint>,
    /// Who says which node is the primary.
    pub topology: StoreTopology,
    /// Whether nodes and sentinels are spoken to over TLS.
    pub tls: bool,
    /// Certificates (PEM) of which one must have signed theirs; `None` is those that the machine
    /// trusts.
    pub ca: Option<Vec<u8>>,
    /// The user of an ACL; `None` is the default user.
    pub username: Option<String>,
    /// The password of the user.
    pub password: Option<SecretString>,
    /// The number of the database; 0 in a Cluster.
    pub database: i64,
    /// How long an answer may take; at most 10 ms, since the cap at the upstream is looser by it.
    pub budget: Duration,
}

/// Who says which node of a store is the primary.
#[derive(Clone, Debug)]
pub enum StoreTopology {
    /// Nobody: there is one.
    Single,
    /// Sentinels.
    Sentinel {
        /// The name under which they watch the primary.
        primary: String,
        /// Their user, when they have one.
        username: Option<String>,
        /// Their password, when they have one.
        password: Option<SecretString>,
    },
    /// The nodes of a Cluster themselves.
    Cluster,
}

/// The section `outbox.nats`.
#[derive(Clone, Debug)]
pub struct OutboxSettings {
    /// The servers that are tried; at least one.
    pub servers: Vec<Endpoint>,
    /// Who this gate is for them.
    pub login: OutboxLogin,
    /// They are spoken to over TLS.
    pub tls: bool,
    /// Certificates (PEM) of which one must have signed theirs; `None` is those that the machine
    /// trusts.
    pub ca: Option<Vec<u8>>,
    /// What they are shown when they ask who this gate is.
    pub certificate: Option<OutboxCertificate>,
    /// The name of the stream.
    pub stream: String,
    /// The most bytes of the stream.
    pub max_bytes: u64,
    /// The servers that keep each message; odd.
    pub replicas: usize,
}

/// A gate's own certificate for NATS.
#[derive(Clone, Debug)]
pub struct OutboxCertificate {
    /// The certificate (PEM), with those that signed it.
    pub chain: Vec<u8>,
    /// Its key (PEM).
    pub key: SecretString,
}

/// Who a gate is for NATS.
#[derive(Clone, Debug)]
pub enum OutboxLogin {
    /// Nobody in particular.
    Nobody,
    /// A user with a password.
    User {
        /// The name.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// The text of a credentials file.
    Credentials(SecretString),
    /// The seed of a key.
    NkeySeed(SecretString),
}

/// The `events` section.
#[derive(Clone, Debug)]
pub struct EventSettings {
    /// The address that takes them: over https, or on this machine.
    pub webhook: WebhookUrl,
    /// The keys that sign; one, or two during a rotation.
    pub secrets: Vec<SigningKey>,
    /// A balance below it is told once; `None` is never. Above zero.
    pub balance_below: Option<Decimal>,
    /// An order of packs is told so long before it ends; `None` is never.
    pub pack_expiring: Option<Duration>,
    /// A purchase of QPS that nothing follows is told so long before it ends.
    pub quota_ending: Duration,
}

/// A key that signs what goes to the webhook: 24 to 64 bytes.
#[derive(Clone, Debug)]
pub struct SigningKey(SecretSlice<u8>);

impl From<Vec<u8>> for SigningKey {
    fn from(key: Vec<u8>) -> Self {
        Self(key.into())
    }
}

impl ExposeSecret<[u8]> for SigningKey {
    fn expose_secret(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// An address that events are posted to. What follows the host is often a secret of the
/// receiver's, so it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl {
    /// `https`, else `http`.
    pub tls: bool,
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// Not zero.
    pub port: u16,
    /// Path and query; begins with `/`.
    pub path: String,
}

impl fmt::Display for WebhookUrl {
    /// As far as it may be seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl WebhookUrl {
    /// `HOST`, or `HOST:PORT` where the port is not the scheme's own: a `Host` field.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        let host = Endpoint {
            host: host.clone(),
            port: *port,
        }
        .to_string();
        let own = if self.tls { ":443" } else { ":80" };
        host.strip_suffix(own).unwrap_or(&host).to_owned()
    }
}

/// The `limits` section.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections on the public listener; at least 1.
    pub connections: usize,
    /// The file does not write [`Self::connections`]: fewer will do when the system allows fewer
    /// open files.
    pub connections_adapt: bool,
    /// How long a client's connection may stay without a request; above zero.
    pub idle_timeout: Duration,
    /// How long a stopping gate takes new connections while `/readyz` says 503.
    pub drain_notice: Duration,
    /// Bytes of one request head; 8 KiB to 128 KiB.
    pub header_bytes: usize,
    /// Bytes of one request body; at least 1.
    pub body_bytes: u64,
    /// Bytes of all request bodies in memory; at least eight times [`Self::body_bytes`].
    pub body_memory: u64,
    /// From a request's first byte to the end of its answer's head; above zero.
    pub request_timeout: Duration,
    /// How long a stopping gate waits for calls in flight.
    pub drain: Duration,
}
