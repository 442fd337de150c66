//! The paths of the operators' listener, and how many of them are answered at once.

use crate::control::admin::guard;

use crate::config::{Listens, Settings};
use crate::control::admin::accounts::{account, accounts, statement};
use crate::control::admin::app::{Admin, AdminState, problem};
use crate::control::admin::calls::{records, usage};
use crate::control::admin::decisions::decision;
use crate::control::admin::licences::{apply_licence, licences, revoke_licence};
use crate::control::admin::metrics::metrics;
use crate::control::admin::page::{self, Page};
use crate::control::admin::probes::{live, ready};
use crate::control::admin::process::{reload, status};
use crate::control::admin::sources::{retire, sources};
use crate::control::collector::Progress;
use crate::control::outbox::GateOutbox;
use crate::control::reload::Reloader;
use crate::control::replica::replica_name;
use crate::portal::Portal;
use crate::proxy::front::Front;
use axum::Router;
use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use std::sync::Arc;
use tokio::sync::watch;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;

/// Queries of the ledger at once; more are refused with 503, so that a biller that retries cannot
/// pile them up.
const QUERIES: usize = 8;
/// Reloads that are asked for here at once: one runs and one waits, for they run one after the
/// other.
const RELOADS: usize = 2;
/// Questions of status pages at once, apart from the others: pages ask again by themselves, and must
/// not take a biller's place.
const PAGES: usize = 4;

/// Every admin path. `public`: the addresses of the public listener, for `/status`.
pub(in crate::control) fn router(
    portal: Arc<Portal>,
    reloader: Arc<Reloader>,
    settings: &Settings,
    public: &Listens,
    state: watch::Receiver<AdminState>,
    collector: Option<Arc<Progress>>,
    outbox: Option<Arc<GateOutbox>>,
) -> Router {
    let guard = guard::Rights::of(&settings.admin);
    let proxy = portal.proxy().clone();
    let admin = Arc::new(Admin {
        desk: portal.desk().clone(),
        listens: public.addresses().iter().map(ToString::to_string).collect(),
        replica: replica_name(settings),
        started_at: proxy.shared().clock.utc(),
        state,
        collector,
        outbox,
        shared: proxy.shared().clone(),
        proxy,
        reloader,
        page: Page::default(),
    });
    tokio::spawn(page::sample_for_ever(Arc::downgrade(&admin)));
    let reloads = Router::new().route("/v1/reload", post(reload));
    let paths = Router::new()
        .route("/", get(index))
        .route("/v1/status/live", get(page::live))
        .merge(of_pages())
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .merge(queries())
        .merge(at_most(
            RELOADS,
            "a reload runs and another one waits; try again",
            reloads,
        ))
        .route_layer(middleware::from_fn_with_state(
            guard.clone(),
            guard::authorize,
        ))
        // No data is in them, and a browser that opens the page cannot send a token.
        .route("/page/{file}", get(page::file))
        // Probes carry no token and learn nothing.
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .fallback(async || problem(StatusCode::NOT_FOUND, "no such path; GET / lists them"))
        .with_state(admin);
    // Which methods a path takes is known outside of its routes only.
    Router::new()
        .fallback_service(paths)
        .layer(middleware::map_response(wrong_method))
        .layer(middleware::from_fn(page::home_for_browsers))
        .layer(middleware::from_fn_with_state(
            guard,
            guard::close_to_strangers,
        ))
}

/// Questions that read the ledger, and what follows from one.
fn queries() -> Router<Arc<Admin>> {
    let paths = Router::new()
        .route("/v1/usage", get(usage))
        .route("/v1/records", get(records))
        .route("/v1/decisions/{id}", get(decision))
        .route("/v1/statements/{id}", get(statement))
        .route("/v1/accounts", get(accounts))
        .route("/v1/accounts/{id}", get(account))
        .route("/v1/licences", get(licences))
        .route("/v1/licences/apply", post(apply_licence))
        .route("/v1/licences/revoke", post(revoke_licence))
        .route("/v1/sources", get(sources))
        .route("/v1/sources/{id}/retire", post(retire));
    at_most(QUERIES, "too many queries at once; try again", paths)
}

/// What status pages ask for. Each answer closes its connection: a page asks now and then, and ten of
/// them would keep all connections that there are.
fn of_pages() -> Router<Arc<Admin>> {
    let paths = Router::new()
        .route("/v1/status/now", get(page::now))
        .route("/v1/status/history", get(page::history))
        .route("/v1/status/accounts", get(page::list))
        .route("/v1/status/accounts/{id}", get(page::account_hour))
        .route("/v1/status/books", get(page::books))
        .route("/v1/status/news", get(page::news));
    let why = "too many status pages ask at once; try again";
    let paths = at_most(PAGES, why, paths);
    paths.layer(middleware::map_response(async |mut response: Response| {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    }))
}

/// Lets in so many requests of all `paths` together; further ones are told why not, and to try
/// again.
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

/// A query that has begun reads on after its client has hung up, so it keeps its place until then.
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

async fn index() -> &'static str {
    "tollgate admin\n\n\
     GET /livez                            the process runs\n\
     GET /readyz                           calls are accepted\n\
     GET /metrics                          for Prometheus\n\
     GET /status                           what this process is doing\n\
     GET /                                 in a browser: the status page\n\
     GET /v1/status/live                   the figures of the status page, each second, as server-sent events\n\
     GET /v1/status/now                    the same once\n\
     GET /v1/status/history                the last hour, in steps of 5 s\n\
     GET /v1/status/accounts?search=&only=&sort=&descending=&offset=&rows=   a page of the accounts\n\
     GET /v1/status/accounts/ID            the last hour of an account, its orders, its newest refusals\n\
     GET /v1/status/books?ids=A,B          the month's calls and what is left and owed, of at most 100 accounts\n\
     GET /v1/status/news                   the last reloads, events that were not delivered, the newest refusals\n\
     POST /v1/reload?force=&dry_run=       read the files again; dry_run says what would change\n\
     GET /v1/accounts                      every account\n\
     GET /v1/accounts/ID                   one account: modes, quotas in force, live use, what is left and owed\n\
     GET /v1/statements/ID?month=2026-11   a month's statement, as it was fixed or as it stands\n\
     GET /v1/usage?month=2026-11&account=  a month's counts\n\
     GET /v1/licences?account=ID           licences for apps: orders, trials, what is revoked\n\
     POST /v1/licences/apply?account=&package=         apply for the trial of an app\n\
     POST /v1/licences/revoke?account=&package=&why=   give out no more grants by the licences that an app has\n\
     GET /v1/sources                       of a collector: the ledgers that it collects\n\
     POST /v1/sources/ID/retire?why=       of a collector: give up a ledger; days and months do not wait for it any more\n\
     GET /v1/decisions/ID                  why the call of this request id was not let through\n\
     GET /v1/records?after=CURSOR&limit=N  records after a cursor, as JSON lines; the next one is in Next-Cursor\n"
}
