//! The paths of the operators' listener, and what each answers.

use crate::control::admin::guard;
use crate::model::Local;

use crate::billing;
use crate::billing::books::{self, AccountRef, Books, BooksError};
use crate::config::{Settings, told};
use crate::control::admin::query::{Parameters, flag, month, parameters};
use crate::control::reload::{Outcome, ReloadOptions, Reloader};
use crate::ledger::{Cursor, LedgerError, ReadError, Reader};
use crate::metrics::AccountFigures;
use crate::model::{AccountId, COMMIT, Utc};
use crate::proxy::admission::{Limiters, Now};
use crate::proxy::policy::{Described, KnownAccount, Policy};
use crate::proxy::{Proxy, Shared, counts};
use axum::body::Body;
use axum::error_handling::HandleErrorLayer;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State as Extracted};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Queries of the ledger at once; more are refused with 503, so that a biller that retries cannot
/// pile them up.
const QUERIES: usize = 8;
/// Reloads that are asked for here at once: one runs and one waits, for they run one after the other.
const RELOADS: usize = 2;
/// Records in one answer when none is asked for, and the most.
const DEFAULT_RECORDS: usize = 1_000;
const MAX_RECORDS: usize = 10_000;

/// What the process is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminState {
    /// The ledger is open; the second of hold runs.
    Starting,
    /// Calls are accepted.
    Serving,
    /// On its way out.
    Draining,
}

impl AdminState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

struct Admin {
    shared: Arc<Shared>,
    /// For what the calls hold in memory.
    proxy: Arc<Proxy>,
    reloader: Arc<Reloader>,
    public: SocketAddr,
    started_at: Utc,
    state: watch::Receiver<AdminState>,
}

type App = Extracted<Arc<Admin>>;
/// The id in a path; one that cannot be read is nobody's.
type Named = Result<Path<String>, PathRejection>;

fn named(id: Named) -> Option<AccountId> {
    AccountId::new(&id.ok()?)
}

/// Every admin path. `public`: the address of the public listener, for `/status`.
pub fn router(
    proxy: Arc<Proxy>,
    reloader: Arc<Reloader>,
    settings: &Settings,
    public: SocketAddr,
    state: watch::Receiver<AdminState>,
) -> Router {
    let guard: guard::Guard = Arc::new(settings.admin.token.clone());
    let admin = Arc::new(Admin {
        public,
        started_at: proxy.shared().clock.utc(),
        state,
        shared: proxy.shared().clone(),
        proxy,
        reloader,
    });
    let queries = Router::new()
        .route("/v1/usage", get(usage))
        .route("/v1/records", get(records))
        .route("/v1/statements/{id}", get(statement))
        .route("/v1/accounts", get(accounts))
        .route("/v1/accounts/{id}", get(account));
    let reloads = Router::new().route("/v1/reload", post(reload));
    let paths = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .merge(at_most(
            QUERIES,
            "too many queries at once; try again",
            queries,
        ))
        .merge(at_most(
            RELOADS,
            "a reload runs and another one waits; try again",
            reloads,
        ))
        .route_layer(middleware::from_fn_with_state(guard, guard::authorize))
        // Probes carry no token and learn nothing.
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path; GET / lists them"))
        .with_state(admin);
    // Which methods a path takes is known outside of its routes only.
    Router::new()
        .fallback_service(paths)
        .layer(middleware::map_response(wrong_method))
}

/// Lets in so many requests of all `paths` together; further ones are told why not, and to try again.
fn at_most(most: usize, why: &'static str, paths: Router<Arc<Admin>>) -> Router<Arc<Admin>> {
    let refused = move |_| async move {
        let mut refused = problem(StatusCode::SERVICE_UNAVAILABLE, why);
        let soon = HeaderValue::from_static("1");
        refused.headers_mut().insert(header::RETRY_AFTER, soon);
        refused
    };
    paths
        .layer(
            ServiceBuilder::new()
                .layer(HandleErrorLayer::new(refused))
                .load_shed()
                // Unlike `concurrency_limit`, one limit for all paths.
                .layer(GlobalConcurrencyLimitLayer::new(most)),
        )
        .layer(middleware::from_fn(to_its_end))
}

/// What has begun reads on when its client has hung up, so it keeps its place until then.
async fn to_its_end(request: Request, next: Next) -> Response {
    let answered = tokio::spawn(next.run(request)).await;
    answered.unwrap_or_else(|error| {
        tracing::error!(%error, "a request failed in a way it never should");
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request failed; see the log",
        )
    })
}

/// Gives the router's bare 405 a body.
async fn wrong_method(response: Response) -> Response {
    if response.status() != StatusCode::METHOD_NOT_ALLOWED {
        return response;
    }
    let allow = response.headers().get(header::ALLOW);
    let named = allow.and_then(|methods| methods.to_str().ok());
    let detail = format!("this path takes {}", named.unwrap_or("another method"));
    let mut told = problem(StatusCode::METHOD_NOT_ALLOWED, &detail);
    if let Some(allow) = allow {
        told.headers_mut().insert(header::ALLOW, allow.clone());
    }
    told
}

pub(super) fn problem(status: StatusCode, detail: &str) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
    });
    (
        status,
        [(header::CONTENT_TYPE, "application/problem+json")],
        body.to_string(),
    )
        .into_response()
}

async fn index() -> &'static str {
    "tollgate admin\n\n\
     GET /livez                            the process runs\n\
     GET /readyz                           calls are accepted\n\
     GET /metrics                          for Prometheus\n\
     GET /status                           what this process is doing\n\
     POST /v1/reload?force=&dry_run=       read the files again; dry_run says what would change\n\
     GET /v1/accounts                      every account\n\
     GET /v1/accounts/ID                   one account: modes, quotas in force, live use, what is left and owed\n\
     GET /v1/statements/ID?month=2026-11   a month's statement, as it was fixed or as it stands\n\
     GET /v1/usage?month=2026-11&account=  a month's counts\n\
     GET /v1/records?after=CURSOR&limit=N  records after a cursor, as JSON lines; the next one is in Next-Cursor\n"
}

/// 503 asks the supervisor for another process: without the ledger's writer this one is of no use.
async fn live(Extracted(admin): App) -> Response {
    let serving = *admin.state.borrow() == AdminState::Serving;
    if serving && admin.shared.ledger.is_closed() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger's writer has ended\n",
        )
            .into_response();
    }
    "ok\n".into_response()
}

async fn ready(Extracted(admin): App) -> Response {
    let state = *admin.state.borrow();
    if state != AdminState::Serving {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", state.as_str()),
        )
            .into_response();
    }
    if !admin.shared.ledger.healthy() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the ledger cannot be written\n",
        )
            .into_response();
    }
    "ready\n".into_response()
}

async fn metrics(Extracted(admin): App) -> Response {
    let shared = &admin.shared;
    let metrics = &shared.metrics;
    let ledger = shared.ledger.stats();
    let whole = |figure: u64| i64::try_from(figure).unwrap_or(i64::MAX);
    metrics
        .ledger_pending
        .set(i64::try_from(ledger.pending).unwrap_or(i64::MAX));
    metrics.ledger_bytes.set(whole(ledger.bytes));
    metrics.ledger_wal_bytes.set(whole(ledger.wal_bytes));
    metrics.ledger_free_bytes.set(whole(ledger.free_bytes));
    metrics
        .ledger_healthy
        .set(i64::from(shared.ledger.healthy()));
    metrics
        .body_memory_bytes
        .set(whole(admin.proxy.body_memory_held()));
    metrics
        .config_generation
        .set(whole(shared.policy.load().generation));
    let text = metrics.expose(figures(shared));
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
        .into_response()
}

/// The gates' counts by account and group; the actions of a free group are added together.
///
/// One list and no second copy of it: at 100,000 accounts what it takes is most of what a scrape adds to the
/// process's memory, for good.
fn figures(shared: &Shared) -> Vec<AccountFigures> {
    let now = shared.clock.utc();
    let policy = shared.policy.load_full();
    let mut figures = Vec::with_capacity(shared.limiters.len().max(policy.accounts().len()));
    shared.limiters.each(|key, limiter| {
        figures.push(AccountFigures {
            account: key.account.clone(),
            group: key.group.clone(),
            counts: counts(limiter),
            quota: limiter.admits(now),
        });
    });
    figures.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    figures.dedup_by(|next, sum| {
        let same = next.key() == sum.key();
        if same {
            for (sum, count) in sum.counts.iter_mut().zip(next.counts) {
                *sum += count;
            }
        }
        same
    });
    let called = figures.len();
    policy.each_idle(now, &shared.limiters, |account, group, quota| {
        let key = (account, group);
        // A gate may be there that this generation was not asked for yet.
        let has_gate = figures[..called].binary_search_by(|f| f.key().cmp(&key));
        if has_gate.is_err() && figures.last().is_none_or(|f| f.key() != key) {
            figures.push(AccountFigures {
                account: account.clone(),
                group: group.clone(),
                counts: [0; 3],
                quota,
            });
        }
    });
    figures
}

async fn status(Extracted(admin): App) -> Json<Value> {
    let shared = &admin.shared;
    let policy = shared.policy.load();
    let ledger = shared.ledger.stats();
    let told = |at| Local::new(at, &policy.catalog.time_zone);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": COMMIT,
        "state": admin.state.borrow().as_str(),
        "listen": admin.public.to_string(),
        "started_at": told(admin.started_at),
        "policy": {
            "generation": policy.generation,
            "accounts": policy.accounts().count(),
            "gates": shared.limiters.len(),
            "last_reload_success": shared.metrics.config_last_reload_success.get() == 1,
            "restart_pending": shared.metrics.config_restart_pending.get() == 1,
        },
        "calls": {"pending": shared.metrics.pending.get(), "in_flight": shared.metrics.in_flight.get()},
        "connections": shared.metrics.connections.get(),
        "ledger": {
            "path": shared.ledger.path().display().to_string(),
            "healthy": shared.ledger.healthy(),
            "last_seq": ledger.last_seq,
            "last_commit_at": ledger.last_commit_at.map(told),
            "pending": ledger.pending,
            "bytes": ledger.bytes,
            "wal_bytes": ledger.wal_bytes,
            "free_bytes": ledger.free_bytes,
        },
    }))
}

async fn reload(Extracted(admin): App, query: Parameters) -> Response {
    let wish = parameters(query, ["force", "dry_run"]).and_then(|[force, dry_run]| {
        Ok(ReloadOptions {
            force: flag("force", force)?,
            dry_run: flag("dry_run", dry_run)?,
        })
    });
    let wish = match wish {
        Ok(wish) => wish,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    match admin.reloader.clone().reload(wish).await {
        Ok(Outcome::Reloaded {
            generation,
            changes,
            pending,
        }) => Json(json!({
            "outcome": "reloaded",
            "generation": generation,
            "changes": changes,
            "restart_pending": pending,
        }))
        .into_response(),
        Ok(Outcome::Planned { changes, pending }) => {
            Json(json!({"outcome": "planned", "changes": changes, "restart_pending": pending}))
                .into_response()
        }
        Ok(Outcome::Unchanged) => Json(json!({"outcome": "unchanged"})).into_response(),
        Ok(Outcome::Refused(mistakes)) => {
            let listed: Vec<String> = told(&mistakes.0).collect();
            let body = json!({
                "type": "urn:tollgate:problem:reload_refused",
                "title": "Reload refused",
                "status": 422,
                "detail": "Nothing was changed; correct the mistakes and reload again.",
                "mistakes": listed,
            });
            let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                content_type,
                body.to_string(),
            )
                .into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a reload failed in a way it never should; what was in force stays");
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the reload failed; see the log",
            )
        }
    }
}

/// Every account, by id; behind them those that the files do not name any more and that owe something.
async fn accounts(Extracted(admin): App) -> Response {
    let shared = admin.shared.clone();
    let policy = shared.policy.load_full();
    let listed = read(&admin, move |reader| {
        let debits = books::debits(reader)?;
        let now = Now::read(&shared.clock);
        // One after the other into the text: as values they would take several times the room.
        let mut text = b"[".to_vec();
        let mut put = |account: &Value| {
            if text.len() > 1 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, account)
        };
        let list = || {
            for account in policy.accounts() {
                let services = services(&policy, account, &shared.limiters, now);
                put(
                    &json!({"id": account.id, "name": account.name, "removed": false, "services": services}),
                )?;
            }
            for (id, debited) in BTreeMap::from_iter(debits) {
                let balance = books::balance(None, debited, now.utc);
                if policy.account(&id).is_none() && billing::in_arrears(balance) {
                    put(
                        &json!({"id": id, "name": null, "removed": true, "services": {}, "balance": balance}),
                    )?;
                }
            }
            Ok::<_, serde_json::Error>(())
        };
        let listed = list();
        text.push(b']');
        Ok::<_, BooksError>(listed.map(|()| text))
    });
    match listed.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Ok(Err(_)) => problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "an account cannot be written as JSON",
        ),
        Err(response) => response,
    }
}

async fn account(Extracted(admin): App, id: Named) -> Response {
    let Some(id) = named(id) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    let policy = admin.shared.policy.load_full();
    let account = policy.account(&id).cloned();
    let (now, paid_by) = (admin.shared.clock.utc(), admin.shared.paid_by());
    let (catalog, sold, sold_id) = (policy.catalog.clone(), account.clone(), id.clone());
    let asked = read(&admin, move |reader| {
        let catalog = &catalog;
        let sold = AccountRef {
            id: &sold_id,
            account: sold.as_ref().map(|account| &***account),
        };
        Books {
            catalog,
            reader,
            now,
        }
        .balances(sold, paid_by)
    });
    let balances = match asked.await {
        Ok(balances) => balances,
        Err(response) => return response,
    };
    let Some(account) = account else {
        // Whoever the files do not name any more may have called, and may owe.
        if balances.services.is_empty() && !balances.in_arrears {
            return problem(StatusCode::NOT_FOUND, "no such account");
        }
        let described =
            json!({"id": id, "name": null, "removed": true, "services": {}, "balances": balances});
        return Json(described).into_response();
    };
    let now = Now::read(&admin.shared.clock);
    let services = services(&policy, &account, &admin.shared.limiters, now);
    let described = json!({
        "id": id,
        "name": account.name,
        "removed": false,
        "services": services,
        "balances": balances,
    });
    Json(described).into_response()
}

/// By group what an account may do now and why, and what it did since the gate knows it.
fn services<'p>(
    policy: &'p Policy,
    account: &KnownAccount,
    limiters: &Limiters,
    now: Now,
) -> BTreeMap<&'p str, Vec<Value>> {
    let with_counts = |(limiter, mut described): Described| {
        let [admitted, throttled, refused] = limiter.map_or([0; 3], |limiter| counts(&limiter));
        described["admitted"] = json!(admitted);
        described["throttled"] = json!(throttled);
        described["refused"] = json!(refused);
        described
    };
    let described = policy.describe(account, limiters, now).into_iter();
    described
        .map(|(group, limiters)| (group, limiters.into_iter().map(with_counts).collect()))
        .collect()
}

async fn statement(Extracted(admin): App, id: Named, query: Parameters) -> Response {
    let policy = admin.shared.policy.load_full();
    let now = admin.shared.clock.utc();
    let month = parameters(query, ["month"])
        .and_then(|[value]| month(value, now, &policy.catalog.time_zone));
    let month = match month {
        Ok(month) => month,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let Some(id) = named(id) else {
        return problem(StatusCode::NOT_FOUND, "no such account");
    };
    let asked = read(&admin, move |reader| {
        let account = policy.account(&id);
        let catalog = &policy.catalog;
        let sold = AccountRef {
            id: &id,
            account: account.map(|account| &***account),
        };
        let statement = Books {
            catalog,
            reader,
            now,
        }
        .statement(sold, month)?;
        // Whoever the files do not name any more has statements all the same, when it called.
        let is_known = account.is_some() || !statement.groups.is_empty();
        Ok::<_, BooksError>(is_known.then_some(statement))
    });
    match asked.await {
        Ok(Some(statement)) => Json(statement).into_response(),
        Ok(None) => problem(StatusCode::NOT_FOUND, "no such account"),
        Err(response) => response,
    }
}

async fn usage(Extracted(admin): App, query: Parameters) -> Response {
    let zone = admin.shared.policy.load().catalog.time_zone.clone();
    let now = admin.shared.clock.utc();
    let asked = parameters(query, ["month", "account"])
        .and_then(|[value, account]| Ok((month(value, now, &zone)?, account)));
    let (month, account) = match asked {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let account = match account.as_deref().map(AccountId::new) {
        Some(None) => {
            return problem(
                StatusCode::BAD_REQUEST,
                "account: an id is 1 to 32 letters, digits, _ or -",
            );
        }
        Some(account) => account,
        None => None,
    };
    let (from, until) = month.bounds(&zone);
    let read = read(&admin, move |reader| {
        reader.usage(from, until, account.as_ref(), 0..=u64::MAX)
    })
    .await;
    match read {
        Ok(lines) => Json(json!({"month": month.to_string(), "lines": lines})).into_response(),
        Err(response) => response,
    }
}

/// What to ask for next, as `after`.
const NEXT_CURSOR: header::HeaderName = header::HeaderName::from_static("next-cursor");

async fn records(Extracted(admin): App, query: Parameters) -> Response {
    let [after, limit] = match parameters(query, ["after", "limit"]) {
        Ok(asked) => asked,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let limit = match limit.map(|limit| limit.parse()) {
        None => DEFAULT_RECORDS,
        Some(Ok(limit)) if (1..=MAX_RECORDS).contains(&limit) => limit,
        Some(_) => {
            return problem(
                StatusCode::BAD_REQUEST,
                &format!("limit: from 1 to {MAX_RECORDS}"),
            );
        }
    };
    let after = match Cursor::parse(after.as_deref().unwrap_or("0")) {
        Ok(cursor) => cursor,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &format!("after: {why}")),
    };
    let page = read(&admin, move |reader| {
        let records = reader.records(after, limit)?;
        let last = records.last().map_or(after.seq, |record| record.seq);
        Ok::<_, ReadError>((records, reader.cursor(last)?))
    });
    let (lines, next) = match page.await {
        Ok(page) => page,
        Err(response) => return response,
    };
    let mut text = Vec::new();
    for record in lines {
        if serde_json::to_writer(&mut text, &record).is_err() {
            return problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a record cannot be written as JSON",
            );
        }
        text.push(b'\n');
    }
    let fields = [
        (header::CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (NEXT_CURSOR, next.to_string()),
    ];
    (fields, Body::from(text)).into_response()
}

/// Asks the ledger on a blocking thread and says what went wrong.
async fn read<T: Send + 'static, E: Into<BooksError> + Send + 'static>(
    admin: &Admin,
    ask: impl FnOnce(&Reader) -> Result<T, E> + Send + 'static,
) -> Result<T, Response> {
    let shared = admin.shared.clone();
    let failed = |why: String| {
        tracing::error!("cannot read the ledger: {why}");
        problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the ledger cannot be read; see the log",
        )
    };
    let asked = tokio::task::spawn_blocking(move || {
        let reader = shared.ledger.reader()?;
        Ok::<_, LedgerError>(ask(&reader).map_err(Into::into))
    })
    .await
    .map_err(|error| failed(error.to_string()))?;
    // 503: it is not the fault of the query, and the same one is answered when the right ledger is there and sound.
    let asked = asked.map_err(|error| {
        // Of this one the writer has told.
        if !matches!(error, LedgerError::Suspect) {
            tracing::error!("cannot read the ledger: {error}");
        }
        problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
    });
    match asked? {
        Ok(answer) => Ok(answer),
        // 410: the records are gone. 400: they never were; the ledger was replaced or the cursor is another's.
        Err(BooksError::Read(
            error @ (ReadError::CursorTooOld { .. } | ReadError::Pruned { .. }),
        )) => Err(problem(StatusCode::GONE, &error.to_string())),
        Err(BooksError::Read(
            error @ (ReadError::CursorAhead { .. } | ReadError::Foreign { .. }),
        )) => Err(problem(StatusCode::BAD_REQUEST, &error.to_string())),
        // 409: the cursor was good, and the ledger is another since.
        Err(BooksError::Read(error @ ReadError::Restored { .. })) => {
            Err(problem(StatusCode::CONFLICT, &error.to_string()))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}
