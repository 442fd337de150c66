//! The public listener's front: a request is for an endpoint of the portal, or it is a call.

use crate::billing::books::{Books, BooksError};
use crate::config::Catalog;
use crate::http::h1::{Answer, RequestBody, RequestHead};
use crate::http::names::X_TC_ACTION;
use crate::ledger::{ReadError, Reader};
use crate::model::{AccountId, Endpoint, Utc};
use crate::portal::form::other_methods;
use crate::portal::licence_desk::LicenceDesk;
use crate::portal::limits::{Limits, PeerLimits, QUESTIONS_A_SECOND};
use crate::portal::parameters::Parameters;
use crate::proxy::admission::SharedWindows;
use crate::proxy::front::{BoxedAnswer, Front};
use crate::proxy::policy::{KeyBar, KnownAccount, ProvenKey};
use crate::proxy::{
    Asked, BadQuestion, Client, CursorText, OwnRequest, Proxy, Refusal, Relay, Shared, Worker,
};
use http::{Method, StatusCode};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most questions at once, exports apart. Others are refused and may come again, so that they
/// cannot crowd out the ledger.
const AT_ONCE: usize = 8;
/// The most pages of exports that are read at once, the first ones too. Others wait for their turn.
/// They take no place of a question: an export may take long, and a question must not wait for it.
const PAGES_AT_ONCE: usize = 2;

/// The line by which a replica says that what it counts is not all.
const PART: &str = "x-tollgate-part: one-replica\r\n";

/// Answers the requests of the public listener: the customer's own endpoints, and calls.
#[derive(Clone)]
pub(crate) struct Portal {
    pub(super) proxy: Arc<Proxy>,
    /// Whether requests that are for no endpoint of its own are calls; else they are refused.
    takes_calls: bool,
    /// One permit for each question that reads the ledger now.
    questions: Arc<Semaphore>,
    /// One permit for each page of an export that is read now.
    pub(super) pages: Arc<Semaphore>,
    pub(super) limits: Arc<Limits>,
    /// Those who ask for grants, by address.
    pub(super) peers: Arc<PeerLimits>,
    pub(super) desk: Arc<LicenceDesk>,
}

/// A question of a proven account.
pub(super) struct Question<'q> {
    pub(super) asked: &'q Asked,
    pub(super) head: &'q RequestHead,
    pub(super) account: Arc<KnownAccount>,
    /// The key that proved it.
    pub(super) key: Arc<ProvenKey>,
    pub(super) parameters: Parameters,
}

/// What a question is answered from.
pub(super) struct Source<'s> {
    pub(super) books: Books<'s>,
    pub(super) account: &'s KnownAccount,
}

/// Why a read did not succeed.
pub(super) enum Unread {
    /// The client is told.
    Refused(BadQuestion),
    /// The operator is told.
    Failed(String),
    /// The key that proved the account does not hold any more.
    Barred,
}

impl From<BadQuestion> for Unread {
    fn from(bad: BadQuestion) -> Self {
        Self::Refused(bad)
    }
}

impl<E: Into<BooksError>> From<E> for Unread {
    fn from(error: E) -> Self {
        match error.into() {
            BooksError::Read(ReadError::Restored { on, .. }) => {
                Self::Refused(BadQuestion::CursorRestored(CursorText {
                    account: None,
                    restore_count: on.restore_count,
                    seq: on.seq,
                }))
            }
            BooksError::Read(ReadError::Foreign { .. } | ReadError::CursorAhead { .. }) => {
                Self::Refused(BadQuestion::CursorForeign)
            }
            BooksError::Read(ReadError::Pruned { .. } | ReadError::CursorTooOld { .. }) => {
                Self::Refused(BadQuestion::RecordsGone)
            }
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Unread {
    /// The refusal for this account.
    pub(super) fn refusal(self, account: &AccountId) -> Refusal {
        match self {
            Self::Refused(BadQuestion::CursorRestored(on)) => {
                Refusal::Question(BadQuestion::CursorRestored(CursorText {
                    account: Some(account.clone()),
                    ..on
                }))
            }
            Self::Refused(bad) => Refusal::Question(bad),
            Self::Failed(why) => {
                tracing::error!("cannot read the ledger: {why}");
                Refusal::CannotAnswer
            }
            Self::Barred => Refusal::Key(KeyBar::Expired),
        }
    }
}

impl Portal {
    /// A portal in front of this proxy.
    pub(crate) fn new(proxy: Arc<Proxy>, desk: Arc<LicenceDesk>) -> Self {
        Self {
            proxy,
            takes_calls: true,
            questions: Arc::new(Semaphore::new(AT_ONCE)),
            pages: Arc::new(Semaphore::new(PAGES_AT_ONCE)),
            limits: Arc::default(),
            peers: Arc::default(),
            desk,
        }
    }

    /// A portal that takes no calls.
    pub(crate) fn without_calls(proxy: Arc<Proxy>, desk: Arc<LicenceDesk>) -> Self {
        Self {
            takes_calls: false,
            ..Self::new(proxy, desk)
        }
    }

    /// What is known of licences.
    pub(crate) fn desk(&self) -> &Arc<LicenceDesk> {
        &self.desk
    }

    /// The state of the process.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        self.proxy.shared()
    }

    /// The windows of the shared store, of which each worker has a connection.
    pub(crate) fn windows(&self) -> Option<Arc<SharedWindows>> {
        self.proxy.shared().windows.clone()
    }

    async fn no_call(
        self,
        (worker, client): (Arc<Worker>, Arc<Client>),
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Answer<Relay> {
        let request = OwnRequest::new(&self.proxy, (&worker, &client), &head, body);
        request.answer(Err(Refusal::NoCallsHere)).await
    }

    async fn own(
        self,
        asked: Asked,
        (worker, client): (Arc<Worker>, Arc<Client>),
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> Answer<Relay> {
        let mut request = OwnRequest::new(&self.proxy, (&worker, &client), &head, body);
        let result = Box::pin(self.answered(&mut request, &head, &asked)).await;
        request.answer(result).await
    }

    /// Identify the account, hold it to its number of questions, answer it.
    async fn answered(
        &self,
        request: &mut OwnRequest<'_>,
        head: &RequestHead,
        asked: &Asked,
    ) -> Result<Answer<Relay>, Refusal> {
        request.check(asked)?;
        if let Some(allowed) = other_methods(head, asked) {
            return Err(Refusal::Method { allowed });
        }
        if !asked.is_action && head.fields.contains(X_TC_ACTION) {
            return Err(Refusal::ActionMismatch);
        }
        match asked.endpoint {
            Endpoint::Keys => return Ok(self.jwks()?.answer(asked, &request.context.id_text())),
            // Gates give out grants.
            Endpoint::Authorize | Endpoint::Licences if !self.takes_calls => {
                return Err(Refusal::NoCallsHere);
            }
            Endpoint::Authorize => return self.authorize(request, head, asked).await,
            _ => {}
        }
        let key = Arc::new(request.prove(asked).await?);
        let account = key.account().clone();
        let left = self.limits.ask(&account.id, &self.proxy.shared().clock);
        let context = &mut request.context;
        context.held_to(QUESTIONS_A_SECOND, left.unwrap_or(0));
        left.ok_or(Refusal::TooManyQuestions)?;
        let body = request.body().await?;
        let parameters = Parameters::read(asked, head.target.query(), &body);
        let question = Question {
            asked,
            head,
            account,
            key,
            parameters: parameters.map_err(Refusal::Question)?,
        };
        let said = match asked.endpoint {
            Endpoint::Quota => self.quota(&question).await,
            Endpoint::Usage => self.usage(&question).await,
            Endpoint::Statements | Endpoint::Statement if self.proxy.is_replica() => {
                Err(Refusal::Question(BadQuestion::BillsElsewhere))
            }
            Endpoint::Statements => self.statements(&question).await,
            Endpoint::Statement => self.statement(&question).await,
            Endpoint::Records => self.records(&question).await,
            Endpoint::Licences | Endpoint::Authorize | Endpoint::Keys => {
                self.licences(&question).await
            }
            Endpoint::Decision => self.decision(&question).await,
        };
        let mut answer = said?.answer(asked, &request.context.id_text());
        if self.proxy.is_replica() {
            answer.lines().fixed(PART);
        }
        Ok(answer)
    }

    /// A place among those who are answered on another thread, if there is one.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = self.questions.clone().try_acquire_owned();
        place.map_err(|_| Refusal::CannotAnswer)
    }

    /// Asks the ledger on another thread, if there is a place.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        account: &Arc<KnownAccount>,
        ask: impl FnOnce(&Source<'_>) -> Result<T, Unread> + Send + 'static,
    ) -> Result<T, Refusal> {
        let place = self.place()?;
        let shared = self.proxy.shared();
        let catalog = shared.policy.load().catalog.clone();
        let (path, now) = (shared.ledger.path().to_owned(), shared.clock.utc());
        let of = account.clone();
        let read = move || {
            let reader = &Reader::open(&path).map_err(|error| Unread::Failed(error.to_string()))?;
            read_with(place, &catalog, reader, now, &of, ask)
        };
        let asked = tokio::task::spawn_blocking(read).await;
        asked
            .unwrap_or_else(|error| Err(Unread::Failed(error.to_string())))
            .map_err(|unread| unread.refusal(&account.id))
    }
}

/// The reader holds its permit itself, since it goes on when the client has hung up.
fn read_with<T>(
    _place: OwnedSemaphorePermit,
    catalog: &Catalog,
    reader: &Reader,
    now: Utc,
    account: &KnownAccount,
    ask: impl FnOnce(&Source<'_>) -> Result<T, Unread>,
) -> Result<T, Unread> {
    let books = Books {
        catalog,
        reader,
        now,
    };
    ask(&Source { books, account })
}

/// What whoever asks at `health_path` is told. It is no call, and nothing is counted.
fn health(method: &Method, accepts_calls: bool) -> Answer<Relay> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut answer = Answer::own(StatusCode::METHOD_NOT_ALLOWED, Vec::new());
        answer.lines().fixed("allow: GET, HEAD\r\n");
        return answer;
    }
    let (status, told) = match accepts_calls {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no calls are accepted\n"),
    };
    let mut answer = Answer::own(status, told.into());
    answer
        .lines()
        .fixed("content-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n");
    answer
}

impl Front for Portal {
    fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    fn answer(
        &self,
        worker: &Arc<Worker>,
        client: &Arc<Client>,
        head: Box<RequestHead>,
        body: RequestBody,
    ) -> BoxedAnswer {
        if self.proxy.is_health_path(head.target.path()) {
            let answer = health(&head.method, self.proxy.accepts_calls());
            return Box::pin(std::future::ready(answer));
        }
        let from = || (worker.clone(), client.clone());
        match Asked::of(&head) {
            Some(asked) => Box::pin(self.clone().own(asked, from(), head, body)),
            None if self.takes_calls => Front::answer(&self.proxy, worker, client, head, body),
            None => Box::pin(self.clone().no_call(from(), head, body)),
        }
    }
}
