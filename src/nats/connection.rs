//! The connection to NATS, which is opened again for ever.
//!
//! Owns what is known of it. Must never end because a server does not answer.

use crate::model::{tls_config, tls_config_of};
use crate::nats::error::{BadNatsOptions, NatsError, with_remedy};
use crate::nats::options::{NatsAddress, NatsLogin, NatsOptions};
use async_nats::client::Request;
use async_nats::connection::State;
use async_nats::jetstream::{Context, ContextBuilder};
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};
use async_nats::{Client, ConnectOptions, Event, HeaderMap, RequestErrorKind, ServerAddr};
use bytes::Bytes;
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

/// How long an answer may take.
pub(in crate::nats) const ANSWER: Duration = Duration::from_secs(5);
/// How long a connection may take to open.
const OPENING: Duration = Duration::from_secs(3);
/// A connection that is silent for two of these has ended.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The first and the longest pause between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Whether NATS is there.
#[derive(Clone, Debug)]
pub struct NatsStatus {
    /// There is a connection.
    pub up: bool,
    /// The server and its version, of the last connection.
    pub server: Option<String>,
    /// What was wrong last; `None` while there is a connection.
    pub trouble: Option<String>,
}

/// A connection to NATS. All clones are the same one.
#[derive(Clone)]
pub struct Nats {
    client: Client,
    pub(in crate::nats) jetstream: Context,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Nats {
    /// Begins to connect, and goes on for ever, on this runtime. It ends when all clones are
    /// dropped.
    ///
    /// # Errors
    /// The options cannot be used.
    pub async fn connect(options: &NatsOptions) -> Result<Self, BadNatsOptions> {
        let trouble = Arc::new(Mutex::new(Some("not connected yet".to_owned())));
        let (told, is_tls) = (trouble.clone(), options.tls);
        let mut connect = ConnectOptions::new()
            .name(&options.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(OPENING)
            .ping_interval(PING_EVERY)
            .request_timeout(Some(ANSWER))
            .reconnect_delay_callback(pause)
            .event_callback(move |event| {
                hear(&told, event, is_tls);
                async {}
            });
        connect = match &options.login {
            NatsLogin::Nobody => connect,
            NatsLogin::User { username, password } => {
                connect.user_and_password(username.clone(), password.expose_secret().to_owned())
            }
            // Not the error's own text: it might repeat the secret.
            NatsLogin::Credentials(text) => connect
                .credentials(text.expose_secret())
                .map_err(|_| BadNatsOptions("`credentials` is no credentials file".to_owned()))?,
            NatsLogin::NkeySeed(seed) => connect.nkey(seed.expose_secret().to_owned()),
        };
        if options.tls {
            connect = connect.require_tls(true).tls_client_config(tls(options)?);
        }
        let servers = options.servers.iter().map(|server| {
            let address: ServerAddr = format!("nats://{server}")
                .parse()
                .map_err(|_| BadNatsOptions(format!("{server} is no address of a server")))?;
            Ok(address)
        });
        let servers: Vec<ServerAddr> = servers.collect::<Result<_, BadNatsOptions>>()?;
        let client = connect
            .connect(servers)
            .await
            .map_err(|error| BadNatsOptions(error.to_string()))?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER)
            .ack_timeout(ANSWER)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            trouble,
        })
    }

    /// Whether there is a connection now.
    pub fn status(&self) -> NatsStatus {
        let up = self.client.connection_state() == State::Connected;
        let server = self.client.try_server_info().map(|info| {
            let node = NatsAddress {
                host: info.host,
                port: info.port,
            };
            format!("{} at {node}, version {}", info.server_name, info.version)
        });
        let trouble = match up {
            true => None,
            false => self.trouble.lock().clone().or(Some(no_connection())),
        };
        NatsStatus {
            up,
            server,
            trouble,
        }
    }

    /// Waits until there is a connection, at most so long. Whether there is one.
    pub async fn connected(&self, patience: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(20);
        let up = async {
            while self.client.connection_state() != State::Connected {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(patience, up).await.is_ok()
    }

    pub(in crate::nats) fn check(&self) -> Result<(), NatsError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            _ => {
                let trouble = self.trouble.lock().clone();
                Err(NatsError::Away(trouble.unwrap_or_else(no_connection)))
            }
        }
    }

    /// Has the server store a message, and gives the sequence under which it did.
    pub(in crate::nats) async fn store(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<u64, NatsError> {
        self.check()?;
        let mut request = Request::new().payload(payload).timeout(Some(ANSWER));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = self.client.send_request(subject.clone(), request).await;
        let answer = answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => NatsError::Gone(format!("a stream of {subject}")),
            RequestErrorKind::TimedOut => NatsError::Away("no answer came in time".to_owned()),
            RequestErrorKind::MaxPayloadExceeded => NatsError::Refused {
                code: 0,
                why: error.to_string(),
            },
            _ => NatsError::Away(error.to_string()),
        })?;
        match serde_json::from_slice(&answer.payload) {
            Ok(StoreAnswer {
                seq: Some(seq),
                error: None,
                ..
            }) => Ok(seq),
            Ok(StoreAnswer {
                error: Some(error), ..
            }) => Err(NatsError::Refused {
                code: error.err_code,
                why: error.description,
            }),
            _ => Err(NatsError::Away(
                "the server answered what is no acknowledgement".to_owned(),
            )),
        }
    }
}

/// What the server says of a message that it was to store.
#[derive(Deserialize)]
struct StoreAnswer {
    seq: Option<u64>,
    error: Option<StoreFault>,
}

#[derive(Deserialize)]
struct StoreFault {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn no_connection() -> String {
    "there is no connection".to_owned()
}

fn hear(trouble: &Mutex<Option<String>>, event: Event, is_tls: bool) {
    let now = match event {
        Event::Connected => None,
        Event::Disconnected => Some("the connection ended".to_owned()),
        Event::Closed => Some("the connection was closed".to_owned()),
        Event::ServerError(error) => Some(with_remedy(error.to_string(), is_tls)),
        Event::ClientError(error) => Some(with_remedy(error.to_string(), is_tls)),
        Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) => return,
    };
    let before = std::mem::replace(&mut *trouble.lock(), now.clone());
    match (before, now) {
        (Some(_), None) => tracing::info!("NATS answers"),
        (None, Some(why)) => tracing::warn!("NATS is away: {why}"),
        (Some(before), Some(why)) if before != why => tracing::debug!("NATS: {why}"),
        _ => {}
    }
}

/// Doubled with each attempt. A half of it is left to chance, so that gates that lost a server
/// together do not come back together.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let factor = 1_u32.checked_shl(doublings.min(16)).unwrap_or(u32::MAX);
    let pause = FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
    // Without random bits the pauses are equal, which is no harm to this one.
    let chance = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + chance / 2.0)
}

fn tls(options: &NatsOptions) -> Result<ClientConfig, BadNatsOptions> {
    let roots = roots(options.ca.as_deref())?;
    let Some(shown) = &options.certificate else {
        return Ok(tls_config(roots));
    };
    let chain = CertificateDer::pem_slice_iter(&shown.chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| BadNatsOptions(format!("`certificate`: {error}")))?;
    // Not the error's own text: it might repeat the key.
    let key = PrivateKeyDer::from_pem_slice(shown.key.expose_secret().as_bytes())
        .map_err(|_| BadNatsOptions("`key` is no key in PEM".to_owned()))?;
    tls_config_of(roots, chain, key)
        .map_err(|error| BadNatsOptions(format!("`certificate` and `key`: {error}")))
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, BadNatsOptions> {
    let bad = |why: String| BadNatsOptions(format!("the certificates: {why}"));
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| bad(error.to_string()))?;
                let added = roots.add(certificate);
                added.map_err(|error| bad(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    match roots.is_empty() {
        true => Err(bad("there is none".to_owned())),
        false => Ok(roots),
    }
}
