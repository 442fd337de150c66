//! A connection to one node: TCP, TLS, the password, the database.
//!
//! Owns how a node is reached. Must never wait without a bound, nor send a password to somebody
//! whose certificate was not verified when TLS was asked for.

use crate::model::{Host, tls_connector};
use crate::store::options::{NodeAddress, StoreOptions, Topology};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value, cmd};
use secrecy::{ExposeSecret, SecretString};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

/// The longest that a look-up and the opening of a connection take. Shorter than the second after
/// which the kernel repeats a lost packet: a new attempt is sooner than that.
const OPENING: Duration = Duration::from_millis(250);
/// The longest that a node takes for TLS, and for each command before the first question.
pub(crate) const GREETING: Duration = Duration::from_secs(1);
/// How many questions wait for room in the connection. The crate has 50.
const WAITING: usize = 1_024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NoConnection {
    /// The name has no address.
    #[error("the name cannot be looked up: {0}")]
    NoName(io::Error),
    /// Nobody listens, or the network does not reach it.
    #[error("no connection: {0}")]
    Closed(io::Error),
    /// Nobody answered in time.
    #[error("it does not answer")]
    Silent,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// It answers in plain text, or not at all, to the beginning of TLS.
    #[error("it does not speak TLS on this port")]
    PlainText,
    /// It hung up at the first command.
    #[error("it hung up at the first command: it may speak TLS on this port")]
    HungUp,
    /// The user or the password is wrong.
    #[error("the user or the password is wrong: {0}")]
    WrongPassword(String),
    /// The store wants a password and none is configured.
    #[error("it wants a password")]
    PasswordWanted,
    /// A password is configured and the store has none.
    #[error("it has no password, and one is configured")]
    NoPassword,
    /// The database cannot be selected.
    #[error("database {0} cannot be selected: {1}")]
    NoDatabase(i64, String),
    /// It answered with another error.
    #[error("{0}")]
    Refused(String),
}

/// The configured certificates are none.
#[derive(Debug, thiserror::Error)]
#[error("the certificates to trust cannot be read: {0}")]
pub struct BadCertificates(String);

/// Who we are to a node, or to a sentinel.
pub(crate) struct Login {
    username: Option<String>,
    password: Option<SecretString>,
    database: i64,
    name: String,
}

impl Login {
    pub(crate) fn to_nodes(options: &StoreOptions) -> Self {
        Self {
            username: options.username.clone(),
            password: options.password.clone(),
            database: options.database,
            name: name_of(&options.replica),
        }
    }

    /// Without Sentinel it is nobody's.
    pub(crate) fn to_sentinels(options: &StoreOptions) -> Self {
        let (username, password) = match &options.topology {
            Topology::Sentinel {
                username, password, ..
            } => (username.clone(), password.clone()),
            Topology::Single | Topology::Cluster => (None, None),
        };
        Self {
            username,
            password,
            database: 0,
            name: name_of(&options.replica),
        }
    }
}

/// The name of the connection. Redis takes none with a blank.
fn name_of(replica: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    format!("tollgate-{}", replica.replace(|c| c != plain(c), "_"))
}

/// Opens connections. Shared by all runtimes.
pub(crate) struct Dialer {
    tls: Option<TlsConnector>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection, which ends when this is dropped. Belongs to the runtime that opened it.
pub(crate) struct Wire {
    commands: MultiplexedConnection,
    driver: JoinSet<()>,
}

impl Dialer {
    /// Reads the certificates, those of the machine when none are given. Blocks for a moment.
    ///
    /// # Errors
    /// There is none among them.
    pub(crate) fn new(options: &StoreOptions) -> Result<Self, BadCertificates> {
        let Some(tls) = &options.tls else {
            return Ok(Self { tls: None });
        };
        let mut roots = RootCertStore::empty();
        match &tls.ca {
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|e| BadCertificates(e.to_string()))?;
                    let added = roots.add(certificate);
                    added.map_err(|e| BadCertificates(e.to_string()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() {
            return Err(BadCertificates("there is none".to_owned()));
        }
        Ok(Self {
            tls: Some(tls_connector(roots)),
        })
    }

    /// Opens a connection, proves who we are, and gives it our name.
    ///
    /// # Errors
    /// Where it ended.
    pub(crate) async fn dial(
        &self,
        node: &NodeAddress,
        host: &Host,
        login: &Login,
    ) -> Result<Wire, NoConnection> {
        let opened = timeout(OPENING, open(host)).await;
        let stream = opened.map_err(|_| NoConnection::Silent)??;
        let stream = match &self.tls {
            None => Box::new(stream) as Box<dyn Stream>,
            Some(tls) => Box::new(handshake(tls, node, stream).await?),
        };
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(WAITING);
        let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (commands, driven) = made.map_err(|e| NoConnection::Refused(said(&e)))?;
        let mut driver = JoinSet::new();
        driver.spawn(driven);
        let wire = Wire { commands, driver };
        wire.log_in(login).await?;
        Ok(wire)
    }
}

async fn open(host: &Host) -> Result<TcpStream, NoConnection> {
    let addresses = host.addresses().await.map_err(NoConnection::NoName)?;
    let stream = TcpStream::connect(addresses.as_slice()).await;
    let stream = stream.map_err(NoConnection::Closed)?;
    stream.set_nodelay(true).map_err(NoConnection::Closed)?;
    Ok(stream)
}

async fn handshake(
    tls: &TlsConnector,
    node: &NodeAddress,
    stream: TcpStream,
) -> Result<impl Stream + 'static, NoConnection> {
    let name = ServerName::try_from(node.host.clone());
    let name = name.map_err(|e| NoConnection::Tls(io::Error::other(e)))?;
    match timeout(GREETING, tls.connect(name, stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        // Redis reads the beginning of TLS as a line that has no end yet, or as one that it refuses.
        Err(_) => Err(NoConnection::PlainText),
        Ok(Err(e)) if e.to_string().contains("InvalidContentType") => Err(NoConnection::PlainText),
        Ok(Err(e)) => Err(NoConnection::Tls(e)),
    }
}

impl Wire {
    /// Sends a command and waits for its answer, without a bound. Nobody is asked again.
    ///
    /// # Errors
    /// The node's, or the connection's.
    pub(crate) async fn call(&self, command: &Cmd) -> Result<Value, RedisError> {
        command.query_async(&mut self.commands.clone()).await
    }

    /// The same within [`GREETING`].
    pub(crate) async fn call_soon(&self, command: &Cmd) -> Result<Value, NoConnection> {
        match timeout(GREETING, self.call(command)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(e)) if e.is_unrecoverable_error() => Err(NoConnection::HungUp),
            Ok(Err(e)) => Err(NoConnection::Refused(said(&e))),
            Err(_) => Err(NoConnection::Silent),
        }
    }

    /// What commands are sent by, without what keeps the connection open.
    pub(crate) fn commands(&self) -> MultiplexedConnection {
        self.commands.clone()
    }

    /// Waits until the connection has ended.
    pub(crate) async fn ended(&mut self) {
        self.driver.join_next().await;
    }

    async fn log_in(&self, login: &Login) -> Result<(), NoConnection> {
        if let Some(password) = &login.password {
            let mut auth = cmd("AUTH");
            if let Some(username) = &login.username {
                auth.arg(username);
            }
            auth.arg(password.expose_secret());
            self.call_soon(&auth).await.map_err(|e| match e {
                NoConnection::Refused(why) if why.contains("without any password") => {
                    NoConnection::NoPassword
                }
                NoConnection::Refused(why) => NoConnection::WrongPassword(why),
                other => other,
            })?;
        }
        // Nobody needs the name, but the first answer shows whether we are heard at all.
        let named = self
            .call_soon(cmd("CLIENT").arg("SETNAME").arg(&login.name))
            .await;
        match named {
            Err(NoConnection::Refused(why)) if why.starts_with("NOAUTH") => {
                return Err(NoConnection::PasswordWanted);
            }
            Ok(_) | Err(NoConnection::Refused(_)) => {}
            Err(other) => return Err(other),
        }
        if login.database != 0 {
            let selected = self.call_soon(cmd("SELECT").arg(login.database)).await;
            selected.map_err(|e| NoConnection::NoDatabase(login.database, e.to_string()))?;
        }
        Ok(())
    }
}

/// An error as the node wrote it: its code, then its words.
pub(crate) fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => shown(code) + " " + &shown(detail),
        (Some(code), None) => shown(code),
        (None, _) => shown(&error.to_string()),
    }
}

/// A text of a node as logs and `/status` show it: nobody bounds what a node writes.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut shown: String = text.chars().take(LONGEST).map(plain).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push_str("..");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_node_is_cut_and_has_no_control_characters() {
        let reply = format!("-ERR \u{1b}[31m{}\r\n", "\u{e9}".repeat(2_000_000));
        let error = redis::parse_redis_value(reply.as_bytes())
            .unwrap()
            .extract_error()
            .unwrap_err();
        let said = said(&error);
        assert!(said.starts_with("ERR ?[31m\u{e9}"), "{said}");
        assert!(said.chars().count() < 220, "{}", said.len());
        assert_eq!(shown("as it is"), "as it is");
    }
}
