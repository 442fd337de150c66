//! The client of the webhook: connections, TLS, one attempt at an event.
//!
//! Must never show the webhook's path, and never take another answer than a 2xx for a yes.
//!
//! # Decided
//! - **Connections are kept while there is something to send**, because a settled month has an
//!   event for each account. One that the receiver closed meanwhile says nothing of the event,
//!   which is sent again at once on a new one.

use crate::config::{EventSettings, WebhookUrl};
use crate::control::delivery::outbox::Unsent;
use crate::control::delivery::signature::Signer;
use crate::model::{Host, Utc, tls_connector};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt::Display;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::ServerName;

/// From the first attempt to connect to the end of the answer (ours).
const TIMEOUT: Duration = Duration::from_secs(10);
/// At most so much is read of an answer's head, and of its body (ours), in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// Why an event was not taken. It is tried again.
#[derive(thiserror::Error, Debug)]
pub(crate) enum NotDelivered {
    /// No connection.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// The receiver did not prove who it is, or has no TLS in common with us.
    #[error("no TLS: {0}")]
    Tls(io::Error),
    /// The connection ended before the head of an answer, or what came is not HTTP.
    #[error("no answer: {0}")]
    Unanswered(#[from] hyper::Error),
    /// It wants the event to go elsewhere.
    #[error("{0}: redirects are not followed; name the address that takes events")]
    Redirected(StatusCode),
    /// It did not take the event.
    #[error("{0}: only a 2xx says that the event was taken")]
    Refused(StatusCode),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The id cannot stand in a header.
    #[error("it cannot be written as an HTTP request: {0}")]
    Unwritable(#[from] http::Error),
}

/// The receiver of events.
pub(crate) struct Webhook {
    url: WebhookUrl,
    host: Host,
    signer: Signer,
    tls: Option<TlsConnector>,
    pub(super) timeout: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// A connection. It ends when this is dropped.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Webhook {
    /// Reads the machine's trusted certificates when the address is https; that there are none is a
    /// warning in the log. Blocks for a moment.
    pub(crate) fn new(settings: &EventSettings) -> Self {
        let mut roots = RootCertStore::empty();
        if settings.webhook.tls {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if let Some(trouble) = distrust(roots.len(), &found.errors) {
                tracing::warn!(webhook = %settings.webhook, "{trouble}");
            }
        }
        Self::trusting(settings, roots)
    }

    pub(super) fn trusting(settings: &EventSettings, roots: RootCertStore) -> Self {
        let tls = settings.webhook.tls.then(|| tls_connector(roots));
        Self {
            url: settings.webhook.clone(),
            host: Host::new(settings.webhook.host.clone(), settings.webhook.port),
            signer: Signer::new(settings.secrets.clone()),
            tls,
            timeout: TIMEOUT,
            idle: Mutex::default(),
        }
    }

    /// The address, as far as it may be seen.
    pub(crate) fn address(&self) -> &WebhookUrl {
        &self.url
    }

    /// Closes the connections that are not in use.
    pub(crate) fn rest(&self) {
        self.idle.lock().clear();
    }

    /// Posts one event, signed for this attempt. A 2xx says that it was taken, whatever becomes of
    /// the rest of the answer.
    ///
    /// # Errors
    /// It is not known to be taken; it may have been all the same.
    pub(crate) async fn send(&self, event: &Unsent, now: Utc) -> Result<(), NotDelivered> {
        let request = self.request(event, now)?;
        let deadline = Instant::now() + self.timeout;
        let answer = timeout_at(deadline, self.exchange(request)).await;
        let (connection, answer) = answer.map_err(|_| NotDelivered::Late(self.timeout))??;
        let status = answer.status();
        if status.is_redirection() {
            return Err(NotDelivered::Redirected(status));
        }
        if !status.is_success() {
            return Err(NotDelivered::Refused(status));
        }
        // Also so that the receiver is not cut off while it is still writing.
        if let Ok(true) = timeout_at(deadline, read_out(answer)).await {
            self.idle.lock().push(connection);
        }
        Ok(())
    }

    fn request(&self, event: &Unsent, now: Utc) -> Result<Request<Full<Bytes>>, http::Error> {
        let (id, body, seconds) = (event.id.as_str(), &event.body, now.seconds());
        Request::post(self.url.path.as_str())
            .header(HOST, self.url.authority())
            .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", self.signer.sign(id, seconds, body))
            .body(Full::from(body.clone()))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Connection, Response<Incoming>), NotDelivered> {
        if let Some(mut kept) = self.kept()
            && kept.sender.ready().await.is_ok()
            && let Ok(answer) = kept.sender.send_request(request.clone()).await
        {
            return Ok((kept, answer));
        }
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, driven) = http1::Builder::new()
            .max_buf_size(ANSWER_BYTES)
            .handshake(stream)
            .await?;
        let mut driver = JoinSet::new();
        // Its failure reaches the sender or the answer's body too.
        driver.spawn(async { drop(driven.await) });
        let answer = sender.send_request(request).await?;
        let connection = Connection {
            sender,
            _driver: driver,
        };
        Ok((connection, answer))
    }

    /// A connection that the receiver has not closed, as far as it is known.
    fn kept(&self) -> Option<Connection> {
        let mut idle = self.idle.lock();
        idle.retain(|connection| !connection.sender.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, NotDelivered> {
        let addresses = self.host.addresses().await;
        let addresses = addresses.map_err(NotDelivered::Unreachable)?;
        let stream = TcpStream::connect(&*addresses)
            .await
            .map_err(NotDelivered::Unreachable)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.url.host.clone())
            .map_err(|cause| NotDelivered::Tls(io::Error::other(cause)))?;
        let stream = tls.connect(name, stream).await.map_err(NotDelivered::Tls)?;
        Ok(Box::new(stream))
    }
}

/// The remedy when the machine's trusted certificates do not suffice.
pub(super) fn distrust(trusted: usize, errors: &[impl Display]) -> Option<String> {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let errors = errors.join("; ");
    match (trusted, errors.as_str()) {
        (0, _) => Some(format!(
            "this machine has no trusted certificates, so no event can be delivered over https: install \
             ca-certificates or name a file in SSL_CERT_FILE, and start again ({})",
            if errors.is_empty() {
                "none was found"
            } else {
                &errors
            }
        )),
        (_, "") => None,
        _ => Some(format!(
            "some trusted certificates cannot be read: {errors}"
        )),
    }
}

/// Whether the answer ended where it should, so that another request may follow.
async fn read_out(answer: Response<Incoming>) -> bool {
    let mut body = answer.into_body();
    let mut room = ANSWER_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => return false,
        }
    }
    true
}
