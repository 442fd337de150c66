//! How NATS is reached and what its stream is, as plain values.
//!
//! Must never read a file: `config` reads, and maps to these.

use secrecy::SecretString;
use std::fmt;

/// What the subjects of records begin with; then comes the id of the ledger.
pub const SUBJECTS: &str = "tollgate.records";

/// A server of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NatsAddress {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
}

impl fmt::Display for NatsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Who we are for the server.
#[derive(Clone, Debug)]
pub enum NatsLogin {
    /// Nobody in particular.
    Nobody,
    /// A user.
    User {
        /// The name.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// The text of a credentials file: a JWT and the seed of its key.
    Credentials(SecretString),
    /// The seed of a key.
    NkeySeed(SecretString),
}

/// Who we are for a server that wants to see a certificate.
#[derive(Clone, Debug)]
pub struct NatsCertificate {
    /// The certificate (PEM), and those between it and what the server trusts.
    pub chain: Vec<u8>,
    /// Its key (PEM).
    pub key: SecretString,
}

/// What the stream and the buckets must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamOptions {
    /// The name of the stream.
    pub stream: String,
    /// The most bytes that it holds: then it takes no more until some were collected.
    pub max_bytes: i64,
    /// The servers that keep each message.
    pub replicas: usize,
}

/// How NATS is reached.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// The servers that are tried, at least one. They tell of others.
    pub servers: Vec<NatsAddress>,
    /// Who we are.
    pub login: NatsLogin,
    /// TLS is spoken.
    pub tls: bool,
    /// Certificates (PEM) of which one must have signed the server's; those that the machine trusts
    /// when there are none.
    pub ca: Option<Vec<u8>>,
    /// What is shown to a server that asks who we are; nothing when there is none.
    pub certificate: Option<NatsCertificate>,
    /// The name under which the operator of NATS sees this connection.
    pub name: String,
}
