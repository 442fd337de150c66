//! The section `upstream`, and those of `upstreams`: where admitted calls go.
//!
//! Owns which of its keys go together. Must never connect to anything.
//!
//! # Decided
//! - **A named upstream inherits nothing from `upstream`.** A key that is absent has its default, in
//!   either section. What holds for an upstream then stands at one place.

use crate::config::reader::{Item, all, quoted};
use crate::config::settings::addresses::endpoint;
use crate::config::settings::section::Section;
use crate::config::settings::store::certificates;
use crate::config::settings::{DEFAULT_UPSTREAM, Endpoint, HealthSettings, UpstreamSettings};
use crate::model::{BadClientTls, ClientTls, certificate_name};
use secrecy::ExposeSecret;
use std::time::Duration;

/// The most endpoints of an upstream, and the most named upstreams.
const ENDPOINTS: usize = 64;
const UPSTREAMS: usize = 64;

/// The section `upstream`, or one of `upstreams`.
pub(in crate::config) fn upstream(
    item: Item<'_>,
    request_timeout: Option<Duration>,
) -> Option<UpstreamSettings> {
    let item = Item {
        name: "upstream",
        ..item
    };
    let mut fields = Section::open(item)?;
    let endpoints_at = fields.written("endpoints").unwrap_or(item);
    let endpoints = fields.value("endpoints", endpoints);
    let connect_timeout = fields.time("connect_timeout");
    let response_at = fields.written("response_timeout");
    let response_timeout = fields.time("response_timeout");
    let idle_timeout = fields.time("idle_timeout");
    let max_age = fields.time_or_none("max_age");
    let max_in_flight = fields.count_or_none("max_in_flight");
    let slow_start = fields.time("slow_start");
    let health = fields.optional_section("health", health);
    let tls_at = fields.written("tls").unwrap_or(item);
    let tls = fields.optional_section("tls", tls);
    fields.close();
    let (speaks_tls, endpoints) = scheme(endpoints_at, endpoints?)?;
    let tls = match (speaks_tls, tls?) {
        (true, Some(tls)) => Some(tls),
        (true, None) => match ClientTls::new(None, None, None) {
            Ok(tls) => Some(tls),
            Err(bad) => return endpoints_at.refuse(bad),
        },
        (false, None) => None,
        (false, Some(_)) => {
            return tls_at
                .refuse("is used only with https:// endpoints: write these, or take `tls` out");
        }
    };
    if let (Some(response), Some(request)) = (response_timeout, request_timeout)
        && response >= request
    {
        return response_at.unwrap_or(item).refuse(format!(
            "response_timeout ({response:?}) must be shorter than limits.request_timeout ({request:?}), so that a slow upstream is answered for: shorten it"
        ));
    }
    Some(UpstreamSettings {
        endpoints,
        connect_timeout: connect_timeout?,
        response_timeout: response_timeout?,
        idle_timeout: idle_timeout?,
        max_age: max_age?,
        max_in_flight: max_in_flight?,
        slow_start: slow_start?,
        health: health?,
        tls,
    })
}

/// The map `upstreams`.
pub(in crate::config) fn upstreams(
    item: Item<'_>,
    request_timeout: Option<Duration>,
) -> Option<Vec<(String, UpstreamSettings)>> {
    let entries = item.entries()?;
    if entries.len() > UPSTREAMS {
        return item.refuse(format!("names more than {UPSTREAMS} upstreams"));
    }
    all(entries.into_iter().map(|entry| {
        let name = entry.key;
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=64).contains(&name.len()) && name.bytes().all(is_plain);
        if !fits || name == DEFAULT_UPSTREAM {
            let why = match fits {
                true => "is the name of the section `upstream`: give another",
                false => "is no name of an upstream: use 1 to 64 of a-z, 0-9 and -",
            };
            let message = format!("{} {why}", quoted(name));
            entry.value.source.refuse(entry.at, message);
        }
        Some((name.to_owned(), upstream(entry.value, request_timeout)?))
    }))
}

/// Whether all of them speak TLS; none may while another does not.
fn scheme(item: Item<'_>, endpoints: Vec<(bool, Endpoint)>) -> Option<(bool, Vec<Endpoint>)> {
    let speak_tls = endpoints.iter().filter(|(tls, _)| *tls).count();
    if speak_tls > 0 && speak_tls < endpoints.len() {
        return item.refuse(
            "names http:// and https:// beside each other: an upstream speaks one of them",
        );
    }
    let endpoints = endpoints.into_iter().map(|(_, endpoint)| endpoint);
    Some((speak_tls > 0, endpoints.collect()))
}

/// Whom to trust, and who this gate is.
fn tls(item: Item<'_>) -> Option<ClientTls> {
    let mut fields = Section::open(Item {
        name: "upstream.tls",
        ..item
    })?;
    let ca_at = fields.written("ca").unwrap_or(item);
    let ca = fields.optional("ca", certificates);
    let server_name = fields.optional("server_name", |item| {
        item.parsed("a host name such as api.example", certificate_name)
    });
    let certificate_at = fields.written("certificate").unwrap_or(item);
    let certificate = fields.optional("certificate", certificates);
    let key_at = fields.written("key").unwrap_or(item);
    let key = fields.optional("key", Item::private_key);
    fields.close();
    let (ca, certificate, key) = (ca?, certificate?, key?);
    let own = match (&certificate, &key) {
        (None, None) => None,
        (Some(chain), Some(key)) => Some((&**chain, key.expose_secret().as_bytes())),
        (Some(_), None) => {
            return certificate_at
                .refuse("needs its `key`, such as `key: {file: tls/upstream.key}`");
        }
        (None, Some(_)) => {
            return key_at.refuse("is the key of no `certificate`: write that beside it");
        }
    };
    match ClientTls::new(ca.as_deref(), own, server_name?) {
        Ok(tls) => Some(tls),
        Err(bad @ (BadClientTls::NoTrusted | BadClientTls::NoneOfTheMachine)) => ca_at.refuse(bad),
        Err(bad @ BadClientTls::Certificate(_)) => certificate_at.refuse(bad),
        Err(bad @ BadClientTls::Key(_)) => key_at.refuse(bad),
    }
}

fn endpoints(item: Item<'_>) -> Option<Vec<(bool, Endpoint)>> {
    let list = item.list()?;
    if list.is_empty() {
        return item.refuse("is empty: name one, such as http://127.0.0.1:8000");
    }
    if list.len() > ENDPOINTS {
        return item.refuse(format!("has more than {ENDPOINTS} endpoints"));
    }
    let mut seen: Vec<(bool, Endpoint)> = Vec::new();
    all(list.into_iter().map(|item| {
        let endpoint = endpoint(item)?;
        if seen.contains(&endpoint) {
            let (_, endpoint) = endpoint;
            return item.refuse(format!("{endpoint} stands here twice: take one out"));
        }
        seen.push(endpoint.clone());
        Some(endpoint)
    }))
}

fn health(item: Item<'_>) -> Option<HealthSettings> {
    let mut fields = Section::open(Item {
        name: "upstream.health",
        ..item
    })?;
    let path = fields.value("path", |item| {
        item.parsed("a path such as /healthz", |text| {
            let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            (text.starts_with('/') && is_plain).then(|| text.to_owned())
        })
    });
    let interval = fields.time("interval");
    let timeout = fields.time("timeout");
    let healthy_after = fields.count("healthy_after");
    let unhealthy_after = fields.count("unhealthy_after");
    fields.close();
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Some(HealthSettings {
        path: path?,
        interval: interval?,
        timeout: timeout?,
        healthy_after: count(healthy_after?),
        unhealthy_after: count(unhealthy_after?),
    })
}
