//! The files of the page, which are in the binary and hold no data.
//!
//! Owns what a browser may do with them. Must never let it load or send anything elsewhere, nor run a
//! text that is no file of these.

use crate::control::admin::app::problem;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page itself, and what it loads from `/page/`.
const HOME: &str = include_str!("assets/index.html");
const FILES: [(&str, &str, &str); 12] = [
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("assets/style.css"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("account.js", SCRIPT, include_str!("assets/account.js")),
    ("accounts.js", SCRIPT, include_str!("assets/accounts.js")),
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("ask.js", SCRIPT, include_str!("assets/ask.js")),
    ("decision.js", SCRIPT, include_str!("assets/decision.js")),
    ("elements.js", SCRIPT, include_str!("assets/elements.js")),
    ("overview.js", SCRIPT, include_str!("assets/overview.js")),
    ("plot.js", SCRIPT, include_str!("assets/plot.js")),
    ("words.js", SCRIPT, include_str!("assets/words.js")),
    ("theme.js", SCRIPT, include_str!("assets/theme.js")),
];

/// Scripts, styles and answers come from this listener alone; no text ever becomes markup or script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Answers a browser that opens `/` with the page; whoever asks otherwise gets the list of paths.
pub(in crate::control::admin) async fn home_for_browsers(request: Request, next: Next) -> Response {
    let is_home = request.uri().path() == "/";
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match is_home && reads && wants_html(request.headers()) {
        true => sent(HTML, HOME),
        false => next.run(request).await,
    }
}

fn wants_html(fields: &HeaderMap) -> bool {
    let accepted = fields.get_all(header::ACCEPT).into_iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.to_ascii_lowercase().contains("text/html"))
}

/// A file of the page.
pub(in crate::control::admin) async fn file(name: Result<Path<String>, PathRejection>) -> Response {
    let name = name.ok().map(|Path(name)| name);
    let found = FILES
        .iter()
        .find(|(known, ..)| Some(*known) == name.as_deref());
    match found {
        Some((_, kind, text)) => sent(kind, text),
        None => problem(StatusCode::NOT_FOUND, "the page has no such file"),
    }
}

fn sent(kind: &'static str, text: &'static str) -> Response {
    let fields = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // The next version of the program has other files of these names.
        (header::CACHE_CONTROL, "no-cache"),
        (header::VARY, "accept"),
        // Browsers open several connections at once and keep them: there are few.
        (header::CONNECTION, "close"),
    ];
    (fields, text).into_response()
}
