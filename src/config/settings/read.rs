//! `tollgate.yaml` -> [`Settings`].
//!
//! Owns the checks of one setting against another. A key's default and bounds stand in the table
//! ([`crate::config::settings::table`]). Must never have a default of its own.

use crate::config::reader::Item;
use crate::config::settings::access_log::access_log;
use crate::config::settings::addresses::{address, leads_to, network};
use crate::config::settings::events::events;
use crate::config::settings::listen::{apart, health_path, listen, proxy_protocol};
use crate::config::settings::outbox::outbox;
use crate::config::settings::section::Section;
use crate::config::settings::store::admission;
use crate::config::settings::tls::tls;
use crate::config::settings::upstreams::{upstream, upstreams};
use crate::config::settings::{
    AdminSettings, LedgerSettings, Limits, Listens, Settings, UpstreamSettings,
};
use crate::model::{Durability, ServerCertificate};
use std::num::NonZeroUsize;

/// The remedy for the section that `events` has replaced.
const NOTICES: &str = "is replaced by `events`, whose posts are signed: write \
    `events: {webhook: URL, secret: {file: secrets/events.secret}}` and make the secret with \
    `echo \"whsec_$(openssl rand -base64 32)\" > secrets/events.secret`; there is no token any more \
    (deploy/EVENTS.md)";

/// Why a replica has no `events`. A warning would be read by nobody until the first notice (R14) is
/// missed.
const EVENTS_OF_A_REPLICA: &str = "nothing would be posted: `admission.store` makes this gate one of several replicas, and \
    none of them knows all calls, so none raises events; take `events` out, or write `outbox` and let `tollgate collect` post them";

/// Where the other two files are, as far as it is known.
#[derive(Default)]
pub(in crate::config) struct Paths<'a> {
    pub catalog: Option<Item<'a>>,
    pub accounts: Option<Item<'a>>,
    /// The map of named upstreams.
    pub upstreams: Option<Item<'a>>,
}

pub(in crate::config) fn read(root: Item<'_>) -> (Option<Settings>, Paths<'_>) {
    let Some(mut top) = Section::open(root) else {
        return (None, Paths::default());
    };
    let behind_tls = top.value("behind_tls", Item::flag);
    let tls = top.optional_section("tls", tls);
    let listen = listen(&mut top, is_covered(tls.as_ref(), behind_tls));
    let workers = top.value("workers", workers);
    let admin = admin(top.section("admin"));
    apart(&mut top, listen.as_ref(), admin.as_ref());
    let limits = limits(top.section("limits"));
    let request_timeout = limits.as_ref().map(|l| l.request_timeout);
    let example = "{endpoints: [\"http://127.0.0.1:8000\"]}";
    let upstream =
        top.required_section("upstream", example, |item| upstream(item, request_timeout));
    let upstreams = top.value("upstreams", |item| upstreams(item, request_timeout));
    let named = upstreams.iter().flatten().map(|(_, of)| ("upstreams", of));
    let all = upstream.iter().map(|of| ("upstream", of)).chain(named);
    no_circle(&mut top, (listen.as_ref(), admin.as_ref()), all);
    let paths = Paths {
        catalog: top.value("catalog", Some),
        accounts: top.value("accounts", Some),
        upstreams: top.written("upstreams"),
    };
    let ledger = top.required_section("ledger", "{path: ../var/ledger.db}", ledger);
    let admission = admission(top.section("admission"));
    let outbox = top.optional_section("outbox", outbox);
    let replica = top.optional("replica", |item| item.line().map(str::to_owned));
    let access_log = top.optional_section("access_log", access_log);
    let metric_accounts = alone(top.section("metrics"), |fields| fields.count("accounts"));
    top.forbid("notices", NOTICES);
    let events_at = top.written("events");
    let events = top.optional_section("events", events);
    if let (Some(item), Some((_, Some(_))), Some(None)) = (events_at, &admission, &outbox) {
        item.refuse::<()>(EVENTS_OF_A_REPLICA);
    }
    let trusted_proxies = top.value("trusted_proxies", |item| item.each(network));
    let proxy_protocol = proxy_protocol(&mut top, trusted_proxies.as_deref());
    let health_path = top.optional("health_path", health_path);
    top.close();

    let settings = || {
        let (max_delay, store) = admission?;
        Some(Settings {
            listen: listen?,
            behind_tls: behind_tls?,
            tls: tls?,
            workers: workers?,
            admin: admin?,
            upstream: upstream?,
            upstreams: upstreams?,
            ledger: ledger?,
            max_delay,
            store,
            outbox: outbox?,
            replica: replica?,
            access_log: access_log?,
            metric_accounts: metric_accounts?,
            events: events?,
            limits: limits?,
            trusted_proxies: trusted_proxies?,
            proxy_protocol: proxy_protocol?,
            health_path: health_path?,
        })
    };
    (settings(), paths)
}

/// Whether nobody between a client and this gate reads what is said; `None` when that is not known.
fn is_covered(
    tls: Option<&Option<Vec<ServerCertificate>>>,
    behind_tls: Option<bool>,
) -> Option<bool> {
    match (tls?, behind_tls) {
        (Some(_), _) => Some(true),
        (None, behind_tls) => behind_tls,
    }
}

/// The section `admin` alone.
pub(in crate::config) fn read_admin(root: Item<'_>) -> Option<AdminSettings> {
    admin(Section::open(root)?.section("admin"))
}

/// No upstream is one of the gate's own listeners, each with its key.
fn no_circle<'u>(
    top: &mut Section<'_>,
    (listen, admin): (Option<&Listens>, Option<&AdminSettings>),
    upstreams: impl Iterator<Item = (&'static str, &'u UpstreamSettings)>,
) {
    let public = listen.into_iter().flat_map(Listens::addresses);
    let public = public.filter_map(|address| Some(("listen", address.tcp()?)));
    let admins = admin.map(|admin| ("admin.listen", admin.listen));
    let listeners: Vec<_> = public.chain(admins).collect();
    for (section, upstream) in upstreams {
        let at = top.written(section).unwrap_or(top.of);
        for (key, listen) in &listeners {
            for endpoint in &upstream.endpoints {
                if leads_to(endpoint, *listen) {
                    at.refuse::<()>(format!(
                        "{endpoint} is this gate's own `{key}`, {listen}, so that each call would come back to it: name the service behind the gate"
                    ));
                }
            }
        }
    }
}

/// A section of one key.
fn alone<T>(item: Item<'_>, read: impl FnOnce(&mut Section<'_>) -> Option<T>) -> Option<T> {
    let mut fields = Section::open(item)?;
    let value = read(&mut fields);
    fields.close();
    value
}

fn workers(item: Item<'_>) -> Option<Option<NonZeroUsize>> {
    if item.is_text("auto") {
        return Some(None);
    }
    Section::within(item, "workers").map(NonZeroUsize::new)
}

fn admin(item: Item<'_>) -> Option<AdminSettings> {
    let mut fields = Section::open(item)?;
    let listen_at = fields.written("listen");
    let listen = fields.value("listen", address);
    let token = fields.optional("token", Item::secret);
    let tls = fields.optional_section("tls", |item| {
        tls(Item {
            name: "admin.tls",
            ..item
        })
    });
    fields.close();
    let (listen, token, tls) = (listen?, token?, tls?);
    if token.is_none() && !listen.ip().is_loopback() {
        return listen_at
            .unwrap_or(item)
            .refuse(format!("{listen} is open to other machines: listen on 127.0.0.1, or add `token: {{file: PATH}}`"));
    }
    Some(AdminSettings { listen, token, tls })
}

fn ledger(item: Item<'_>) -> Option<LedgerSettings> {
    let mut fields = Section::open(item)?;
    let path = fields.value("path", |item| {
        let text = item.text()?;
        match item.source.beside(text).is_dir() {
            true => item.refuse("is a directory: name the file, which `serve` makes in it"),
            false => Some(text),
        }
    });
    let spellings = Durability::ALL
        .iter()
        .map(|d| (d.as_str(), *d))
        .collect::<Vec<_>>();
    let durability = fields.value("durability", |i| i.choice(&spellings));
    let retain_records = fields.time("retain_records");
    let stall_after = fields.time("stall_after");
    let create = fields.value("when_missing", |i| {
        i.choice(&[("create", true), ("refuse", false)])
    });
    fields.close();
    Some(LedgerSettings {
        path: item.source.beside(path?),
        durability: durability?,
        retain_records: retain_records?,
        stall_after: stall_after?,
        create: create?,
    })
}

fn limits(item: Item<'_>) -> Option<Limits> {
    let mut fields = Section::open(item)?;
    let connections_adapt = fields.written("connections").is_none();
    let connections = fields.count("connections");
    let idle_timeout = fields.time("idle_timeout");
    let drain_notice = fields.time("drain_notice");
    let header_bytes = fields
        .size("header_bytes")
        .and_then(|n| usize::try_from(n).ok());
    let body_bytes = fields.size("body_bytes");
    let body_memory = fields.size("body_memory");
    let request_timeout = fields.time("request_timeout");
    let drain = fields.time("drain");
    let (memory_at, drain_at) = (fields.written("body_memory"), fields.written("drain"));
    fields.close();
    let limits = Limits {
        connections: connections?,
        connections_adapt,
        idle_timeout: idle_timeout?,
        drain_notice: drain_notice?,
        header_bytes: header_bytes?,
        body_bytes: body_bytes?,
        body_memory: body_memory?,
        request_timeout: request_timeout?,
        drain: drain?,
    };
    if limits.body_memory / 8 < limits.body_bytes {
        let least = bytesize::ByteSize(limits.body_bytes.saturating_mul(8));
        return memory_at.unwrap_or(item).refuse(format!(
            "no peer and no credential holds more than 1/8 of body_memory, so the largest body would never fit: write at least {least}, or lower body_bytes"
        ));
    }
    if limits.drain < limits.request_timeout {
        drain_at.unwrap_or(item).warn(format!(
            "drain ({:?}) is shorter than request_timeout ({:?}): a stopping gate may cut calls off",
            limits.drain, limits.request_timeout
        ));
    }
    Some(limits)
}
