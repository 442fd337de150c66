//! The right to ask the admin listener: with its token; without one, from this machine,
//! save web pages.
//!
//! Owns how the two are told. Must never let a page that somebody looks at on this machine trigger
//! or read anything.

use crate::config::AdminSettings;
use crate::control::admin::app::problem;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// What is asked for.
pub(super) struct Rights {
    /// The token, when there is one.
    token: Option<SecretString>,
    /// The beginning of the addresses of this listener's own pages.
    scheme: &'static [u8],
}

pub(super) type Guard = Arc<Rights>;

impl Rights {
    /// Of these settings.
    pub(super) fn of(admin: &AdminSettings) -> Guard {
        Arc::new(Self {
            token: admin.token.clone(),
            scheme: match admin.tls {
                Some(_) => b"https://",
                None => b"http://",
            },
        })
    }
}

/// Lets through what may be answered: 401 without the token where there is one, 403 for a web page
/// where there is none.
pub(super) async fn authorize(
    State(rights): State<Guard>,
    request: Request,
    next: Next,
) -> Response {
    let fields = request.headers();
    match &rights.token {
        Some(token) if !has(fields, token) => return unauthorized(),
        Some(_) => {}
        None if may_be_a_web_page(fields, rights.scheme) => {
            return problem(
                StatusCode::FORBIDDEN,
                "without a token this listener refuses what a web page may have sent: \
                 ask it by an IP address or as localhost, or set admin.token",
            );
        }
        None => {}
    }
    next.run(request).await
}

/// Closes the connection after an answer to somebody without the token, of a probe too: nobody
/// without it keeps a place of those that Prometheus and health checks need.
pub(super) async fn close_to_strangers(
    State(rights): State<Guard>,
    request: Request,
    next: Next,
) -> Response {
    let token = rights.token.as_ref();
    let is_stranger = token.is_some_and(|token| !has(request.headers(), token));
    let mut response = next.run(request).await;
    if is_stranger {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

fn has(fields: &HeaderMap, token: &SecretString) -> bool {
    let sent = bearer(fields).unwrap_or_default();
    bool::from(sent.ct_eq(token.expose_secret().as_bytes()))
}

fn unauthorized() -> Response {
    let mut response = problem(
        StatusCode::UNAUTHORIZED,
        "send the admin token as Authorization: Bearer TOKEN",
    );
    let bearer = HeaderValue::from_static("Bearer");
    let fields = response.headers_mut();
    fields.insert(header::WWW_AUTHENTICATE, bearer);
    response
}

/// The token of `Authorization: Bearer TOKEN`. The scheme is of any case, and one or more blanks
/// follow it (RFC 9110 §11.1, §11.4).
fn bearer(fields: &HeaderMap) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let sent = fields.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = sent.split_at_checked(SCHEME.len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(SCHEME) && token.starts_with(b" ");
    is_bearer.then(|| token.trim_ascii_start())
}

/// Whether a browser may have made this request for a page of somebody else. A browser says so
/// itself, in `Sec-Fetch-Site` and `Origin`. A page whose name its owner points at this machine is
/// its own origin to the browser, so only the name in `Host` tells it.
fn may_be_a_web_page(fields: &HeaderMap, scheme: &[u8]) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    let mut origins = fields.get_all(header::ORIGIN).iter();
    let mut sites = fields.get_all("sec-fetch-site").iter();
    let own = fields.get(header::HOST);
    hosts.any(|host| !host.to_str().is_ok_and(is_of_this_machine))
        || origins.any(|origin| !is_same_origin(origin, own, scheme))
        || sites.any(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site"))
}

/// Whether a `Host` is an IP literal or `localhost`, with a port or without.
fn is_of_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bracketed = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    match bracketed {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok(),
    }
}

fn is_same_origin(origin: &HeaderValue, host: Option<&HeaderValue>, scheme: &[u8]) -> bool {
    let authority = origin.as_bytes().strip_prefix(scheme);
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_bytes()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn fields(given: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        given.iter().map(field).collect()
    }

    /// Whether a listener of plain HTTP takes it for another page's.
    fn is_foreign(given: &[(&'static str, &'static str)]) -> bool {
        may_be_a_web_page(&fields(given), b"http://")
    }

    #[test]
    fn a_page_of_a_listener_of_tls_is_its_own_by_https_alone() {
        let of = |origin| fields(&[("host", "localhost:9090"), ("origin", origin)]);
        let is_foreign = |origin| may_be_a_web_page(&of(origin), b"https://");
        assert!(!is_foreign("https://localhost:9090"));
        assert!(is_foreign("http://localhost:9090"));
    }

    #[test]
    fn the_scheme_is_of_any_case_and_the_token_is_exact() {
        for (sent, token) in [
            ("Bearer t", Some("t")),
            ("bearer t", Some("t")),
            ("BEARER   t", Some("t")),
            ("Bearer T", Some("T")),
            ("Bearer ", Some("")),
            ("Bearer", None),
            ("Bearert", None),
            ("Basic t", None),
            ("t", None),
        ] {
            let fields = fields(&[("authorization", sent)]);
            assert_eq!(bearer(&fields), token.map(str::as_bytes), "{sent}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn a_tool_on_this_machine_is_no_web_page() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9090",
            "10.1.2.3:9090",
            "[::1]",
            "[::1]:9090",
            "localhost",
            "LocalHost:9090",
        ] {
            assert!(!is_foreign(&[("host", host)]), "{host}");
        }
        // HTTP/1.0 needs no Host, and no browser speaks it.
        assert!(!is_foreign(&[]));
        // A page that this listener serves itself.
        assert!(!is_foreign(&[
            ("host", "localhost:9090"),
            ("origin", "http://localhost:9090"),
            ("sec-fetch-site", "same-origin"),
        ]));
        // A bookmark, a typed address.
        assert!(!is_foreign(&[
            ("host", "127.0.0.1:9090"),
            ("sec-fetch-site", "none"),
        ]));
    }

    #[test]
    fn a_page_of_somebody_else_is_one_whatever_the_browser_says_of_it() {
        const HOST: (&str, &str) = ("host", "127.0.0.1:9090");
        for given in [
            &[("host", "evil.example:9090")][..],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "localhost.evil.example:9090")],
            &[("host", "")],
            &[HOST, ("host", "evil.example")],
            &[HOST, ("origin", "http://evil.example")],
            &[HOST, ("origin", "null")],
            &[HOST, ("origin", "http://127.0.0.1:3000")],
            &[HOST, ("origin", "https://127.0.0.1:9090")],
            &[("origin", "http://127.0.0.1:9090")],
            &[HOST, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(is_foreign(given), "{given:?}");
        }
    }
}
