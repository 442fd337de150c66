//! Notices to the webhook (R14): at least once each, and for each account in the order they were
//! raised.
//!
//! Owns the client of the webhook and the rule by which a notice is tried again. Must never give a
//! notice up, never mark one that was not taken, and never show the webhook's path or token.
//!
//! # Decided
//! - **A notice that fails holds its own account and no other**: within an account the order
//!   matters, and one text that a receiver cannot read must not silence the rest. The status
//!   decides: one that may have been taken is sent again with the same id.

use crate::config::{NoticeSettings, WebhookUrl};
use crate::http::lookup::Host;
use crate::metrics::Metrics;
use crate::model::{AccountId, Clock, Mono, Threshold};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// From the first attempt to connect to the end of the answer (ours).
const TIMEOUT: Duration = Duration::from_secs(10);
/// At most so much is read of an answer's head, and of its body (ours), in bytes.
const ANSWER_BYTES: usize = 64 << 10;
/// A list that takes longer than this to go through is read again, because a new notice may have
/// joined it.
const LIST_AGE: Duration = Duration::from_secs(1);

/// A notice that was raised and is not marked as sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Unsent {
    /// Stable: by it the receiver knows a notice that comes again. Visible ASCII.
    pub id: String,
    /// Whose pack it is about.
    pub account: AccountId,
    /// The threshold that the pack has come to.
    pub threshold: Threshold,
    /// The JSON text to post; holds the id too.
    pub body: String,
}

/// Why a notice was not taken. It is tried again.
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
    /// It wants the notice to go elsewhere.
    #[error("{0}: redirects are not followed; name the address that takes notices")]
    Redirected(StatusCode),
    /// It did not take the notice.
    #[error("{0}: only a 2xx says that the notice was taken")]
    Refused(StatusCode),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The id cannot stand in a header.
    #[error("it cannot be written as an HTTP request: {0}")]
    Unwritable(#[from] http::Error),
}

/// The receiver of notices. A connection for each: there are few, and none has to be kept.
pub(crate) struct Webhook {
    url: WebhookUrl,
    host: Host,
    token: Option<SecretString>,
    tls: Option<TlsConnector>,
    timeout: Duration,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Webhook {
    /// Reads the machine's trusted certificates when the address is https; that there are none is a
    /// warning in the log. Blocks for a moment.
    pub(crate) fn new(settings: &NoticeSettings) -> Self {
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

    fn trusting(settings: &NoticeSettings, roots: RootCertStore) -> Self {
        let tls = settings.webhook.tls.then(|| {
            let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .expect("the provider has what its own versions need")
                .with_root_certificates(roots)
                .with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        });
        Self {
            url: settings.webhook.clone(),
            host: Host::new(settings.webhook.host.clone(), settings.webhook.port),
            token: settings.token.clone(),
            tls,
            timeout: TIMEOUT,
        }
    }

    /// Posts one notice. A 2xx says that it was taken, whatever becomes of the rest of the answer.
    ///
    /// # Errors
    /// It is not known to be taken; it may have been all the same.
    pub(crate) async fn send(&self, body: &str, id: &str) -> Result<(), NotDelivered> {
        let request = self.request(body, id)?;
        let deadline = Instant::now() + self.timeout;
        // Ends with this call, however that ends.
        let mut connection = JoinSet::new();
        let answer = timeout_at(deadline, self.exchange(request, &mut connection)).await;
        let answer = answer.map_err(|_| NotDelivered::Late(self.timeout))??;
        let status = answer.status();
        if status.is_redirection() {
            return Err(NotDelivered::Redirected(status));
        }
        if !status.is_success() {
            return Err(NotDelivered::Refused(status));
        }
        // So that the receiver is not cut off while it is still writing.
        let _ = timeout_at(deadline, read_out(answer)).await;
        Ok(())
    }

    fn request(&self, body: &str, id: &str) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::post(self.url.path.as_str())
            .header(HOST, self.url.authority())
            .header(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .header("x-tollgate-notice-id", id);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.expose_secret()));
        }
        request.body(Full::from(body.to_owned()))
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        connection: &mut JoinSet<()>,
    ) -> Result<Response<Incoming>, NotDelivered> {
        let stream = TokioIo::new(self.connect().await?);
        let (mut sender, driven) = http1::Builder::new()
            .max_buf_size(ANSWER_BYTES)
            .handshake(stream)
            .await?;
        // Its failure reaches the sender or the answer's body too.
        connection.spawn(async { drop(driven.await) });
        Ok(sender.send_request(request).await?)
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
fn distrust(trusted: usize, errors: &[impl Display]) -> Option<String> {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let errors = errors.join("; ");
    match (trusted, errors.as_str()) {
        (0, _) => Some(format!(
            "this machine has no trusted certificates, so no notice can be delivered over https: install \
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

async fn read_out(answer: Response<Incoming>) {
    let mut body = answer.into_body();
    let mut room = ANSWER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => return,
        }
    }
}

/// When to come back.
#[derive(Clone, Copy)]
struct RetryPace {
    /// After the first failure, doubled by each further one.
    first: Duration,
    /// At most.
    most: Duration,
    /// To look for notices that nobody spoke of.
    look: Duration,
}

const PACE: RetryPace = RetryPace {
    first: Duration::from_secs(1),
    most: Duration::from_secs(300),
    look: Duration::from_secs(60),
};

impl RetryPace {
    /// How long to wait after so many failures in a row: 1 s, 2 s, 4 s and so on to 5 minutes.
    /// `jitter` (of 2^32) takes up to a half off, so that those who failed together do not come
    /// back together.
    fn wait(self, failed: u32, jitter: u32) -> Duration {
        let doublings = failed.saturating_sub(1);
        let whole = self
            .first
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.most);
        let half = whole / 2;
        let less = (half.as_nanos() * u128::from(jitter)) >> 32;
        whole - Duration::from_nanos(u64::try_from(less).unwrap_or(0))
    }
}

/// How the attempts at one notice went.
struct Attempts {
    /// Which.
    id: String,
    /// How often in a row.
    failed: u32,
    /// It is not tried before.
    not_before: Mono,
    /// The webhook took it and this could not be stored: only the mark is tried again.
    taken: bool,
}

/// The accounts whose oldest notice failed. One that cannot be delivered holds the later ones of
/// its own account, whose order would be lost, and nobody else's.
#[derive(Default)]
struct Failing(HashMap<AccountId, Attempts>);

impl Failing {
    fn not_before(&self, account: &AccountId) -> Mono {
        self.0.get(account).map_or(Mono(0), |a| a.not_before)
    }

    fn is_due(&self, notice: &Unsent, now: Mono) -> bool {
        self.not_before(&notice.account) <= now
    }

    /// The notices that may be tried. First come those that have not failed, so that a webhook that
    /// hangs on some accounts does not hold the rest; then what has waited longest. The order
    /// within an account stays.
    fn due<'a>(&self, unsent: &'a [Unsent], now: Mono) -> Vec<&'a Unsent> {
        let mut due: Vec<_> = unsent.iter().filter(|n| self.is_due(n, now)).collect();
        due.sort_by_key(|notice| self.not_before(&notice.account));
        due
    }

    /// How long until something is due.
    fn pause(&self, unsent: &[Unsent], now: Mono) -> Option<Duration> {
        let times = unsent.iter().map(|n| self.not_before(&n.account));
        times.min().map(|first| first.since(now))
    }

    fn was_taken(&self, notice: &Unsent) -> bool {
        let attempts = self.0.get(&notice.account);
        attempts.is_some_and(|a| a.id == notice.id && a.taken)
    }

    /// How often it failed in a row by now.
    fn failed(
        &mut self,
        notice: &Unsent,
        taken: bool,
        wait: impl FnOnce(u32) -> Duration,
        now: Mono,
    ) -> u32 {
        let before = self.0.get(&notice.account).filter(|a| a.id == notice.id);
        let failed = before.map_or(0, |a| a.failed).saturating_add(1);
        let attempts = Attempts {
            id: notice.id.clone(),
            failed,
            not_before: now.plus(wait(failed)),
            taken,
        };
        self.0.insert(notice.account.clone(), attempts);
        failed
    }

    /// Forgets what was delivered since.
    fn keep(&mut self, unsent: &[Unsent]) {
        let ids: HashSet<_> = unsent.iter().map(|n| &n.id).collect();
        self.0.retain(|_, attempts| ids.contains(&attempts.id));
    }
}

/// Delivers notices, one after the other, for as long as it is polled; dropping it is safe at any
/// time.
///
/// `unsent` gives the notices that are not marked as sent, in the order they were raised; of a long
/// list the first few thousand will do. `sent` marks one, and must have stored it when it returns.
/// Both may block. `raised` says that there is a new notice; without it one is found within a
/// minute.
///
/// A notice is sent until the webhook takes it, and again when the process ends before it is
/// marked: at least once. The later notices of an account wait for the earlier ones.
pub(crate) async fn deliver<E: Display + Send + 'static>(
    webhook: Webhook,
    metrics: Arc<Metrics>,
    clock: Clock,
    raised: Arc<Notify>,
    unsent: impl Fn() -> Result<Vec<Unsent>, E> + Send + Sync + 'static,
    sent: impl Fn(&str) -> Result<(), E> + Send + Sync + 'static,
) {
    let post = Post {
        webhook,
        metrics,
        clock,
        pace: PACE,
    };
    post.run(raised, Arc::new(unsent), Arc::new(sent)).await;
}

struct Post {
    webhook: Webhook,
    metrics: Arc<Metrics>,
    clock: Clock,
    pace: RetryPace,
}

impl Post {
    async fn run<U, S, E>(&self, raised: Arc<Notify>, unsent: Arc<U>, sent: Arc<S>)
    where
        U: Fn() -> Result<Vec<Unsent>, E> + Send + Sync + 'static,
        S: Fn(&str) -> Result<(), E> + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let mut failing = Failing::default();
        loop {
            let read = unsent.clone();
            let read = blocking(move || read()).await;
            let unsent = match read {
                Ok(unsent) => unsent,
                Err(error) => {
                    tracing::warn!(%error, "the notices to be sent cannot be read; tried again");
                    self.rest(self.pace.look, &raised).await;
                    continue;
                }
            };
            self.metrics
                .notices_pending
                .set(i64::try_from(unsent.len()).unwrap_or(i64::MAX));
            failing.keep(&unsent);
            let now = self.clock.mono();
            let due = failing.due(&unsent, now);
            if due.is_empty() {
                let pause = failing.pause(&unsent, now).unwrap_or(self.pace.look);
                self.rest(pause.min(self.pace.look), &raised).await;
            }
            for notice in due {
                // An earlier one of its account may have failed just now.
                if failing.is_due(notice, now) {
                    self.attempt(notice, &mut failing, &sent).await;
                }
                if self.clock.mono().since(now) > LIST_AGE {
                    break;
                }
            }
        }
    }

    async fn rest(&self, pause: Duration, raised: &Notify) {
        tokio::select! {
            () = self.clock.sleep(pause) => {}
            () = raised.notified() => {}
        }
    }

    async fn attempt<S, E>(&self, notice: &Unsent, failing: &mut Failing, sent: &Arc<S>)
    where
        S: Fn(&str) -> Result<(), E> + Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let mut taken = failing.was_taken(notice);
        let mut error = String::new();
        if !taken {
            let answer = self.webhook.send(&notice.body, &notice.id).await;
            taken = answer.is_ok();
            self.metrics.notice(notice.threshold, taken);
            error = answer.map_or_else(|failure| failure.to_string(), |()| error);
        }
        if taken {
            let (mark, id) = (sent.clone(), notice.id.clone());
            match blocking(move || mark(&id)).await {
                Ok(()) => return,
                Err(cause) => error = format!("it was taken, but this cannot be stored: {cause}"),
            }
        }
        let jitter = getrandom::u32().unwrap_or_default();
        let wait = |failed| self.pace.wait(failed, jitter);
        let failed = failing.failed(notice, taken, wait, self.clock.mono());
        let (webhook, id) = (&self.webhook.url, notice.id.as_str());
        if failed == 1 {
            tracing::warn!(%webhook, id, error, "a notice is not delivered; tried again until it is");
        } else {
            tracing::debug!(%webhook, id, error, failed, "a notice is not delivered");
        }
    }
}

/// Runs what may block where it holds nobody up.
async fn blocking<T, E>(f: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: Display + Send + 'static,
{
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

#[cfg(test)]
mod tests;
