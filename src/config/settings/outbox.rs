//! The section `outbox.nats`: the way of the records to the collector.
//!
//! Owns which of its keys go together. Must never connect to anything.

use crate::config::reader::{Item, quoted};
use crate::config::settings::section::Section;
use crate::config::settings::store::{certificates, host_and_port};
use crate::config::settings::{Endpoint, OutboxCertificate, OutboxLogin, OutboxSettings};
use std::net::IpAddr;

/// The port of a server that is written without one.
const PORT: u16 = 4222;

/// The section `outbox`.
pub(in crate::config) fn outbox(item: Item<'_>) -> Option<OutboxSettings> {
    let mut fields = item.fields()?;
    let nats = fields.required("nats", "{servers: [\"nats://127.0.0.1:4222\"]}", |item| {
        nats(Item {
            name: "outbox.nats",
            ..item
        })
    });
    fields.close();
    nats
}

fn nats(item: Item<'_>) -> Option<OutboxSettings> {
    let mut fields = Section::open(item)?;
    let servers_at = fields.written("servers").unwrap_or(item);
    let servers = fields.value("servers", |item| item.each(server));
    let login = login(&mut fields);
    let tls = fields.value("tls", Item::flag);
    let ca_at = fields.written("ca").unwrap_or(item);
    let ca = fields.optional("ca", certificates);
    let certificate_at = fields.written("certificate").unwrap_or(item);
    let certificate = certificate(&mut fields);
    let stream = fields.value("stream", stream);
    let max_bytes = fields.size("max_bytes");
    let replicas_at = fields.written("replicas").unwrap_or(item);
    let replicas = fields.count("replicas");
    fields.close();
    let settings = OutboxSettings {
        servers: servers?,
        login: login?,
        tls: tls?,
        ca: ca?,
        certificate: certificate?,
        stream: stream?,
        max_bytes: max_bytes?,
        replicas: replicas?,
    };
    if settings.servers.is_empty() {
        return servers_at.refuse("is empty: name one, such as nats://127.0.0.1:4222");
    }
    if settings.ca.is_some() && !settings.tls {
        return ca_at.refuse("is used only with `tls: true`: write it, or take `ca` out");
    }
    if settings.certificate.is_some() && !settings.tls {
        return certificate_at.refuse(
            "is used only with `tls: true`: write it, or take `certificate` and `key` out",
        );
    }
    if settings.replicas.is_multiple_of(2) {
        return replicas_at.refuse(format!(
            "{} servers are no safer than {}: write an odd number",
            settings.replicas,
            settings.replicas - 1
        ));
    }
    let is_near = |server: &Endpoint| {
        server.host == "localhost"
            || server
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    };
    if !settings.tls && !settings.servers.iter().all(is_near) {
        servers_at.warn("records, and a password, go over the network in clear text: write `tls: true`, unless nobody else can listen there");
    }
    Some(settings)
}

/// Both the certificate and its key, or neither.
fn certificate(fields: &mut Section<'_>) -> Option<Option<OutboxCertificate>> {
    let item = fields.of;
    let chain = fields.optional("certificate", certificates);
    let key_at = fields.written("key").unwrap_or(item);
    let key = fields.optional("key", Item::secret_lines);
    match (chain?, key?) {
        (None, None) => Some(None),
        (Some(chain), Some(key)) => Some(Some(OutboxCertificate { chain, key })),
        (Some(_), None) => {
            item.refuse("`certificate` needs its `key`, such as `key: {file: secrets/nats.key}`")
        }
        (None, Some(_)) => key_at.refuse("is the key of no `certificate`: write that beside it"),
    }
}

/// At most one way to say who we are.
fn login(fields: &mut Section<'_>) -> Option<OutboxLogin> {
    let item = fields.of;
    let username_at = fields.written("username").unwrap_or(item);
    let username = fields.optional("username", |item| item.line().map(str::to_owned));
    let password = fields.optional("password", Item::secret);
    let credentials = fields.optional("credentials", Item::secret_lines);
    let nkey_at = fields.written("nkey").unwrap_or(item);
    let nkey = fields.optional("nkey", Item::secret);
    match (username?, password?, credentials?, nkey?) {
        (None, None, None, None) => Some(OutboxLogin::Nobody),
        (Some(username), Some(password), None, None) => {
            Some(OutboxLogin::User { username, password })
        }
        (Some(_), None, None, None) => username_at
            .refuse("a user needs a `password`, such as `password: {file: secrets/nats.password}`"),
        (None, Some(_), None, None) => item.refuse("`password` needs a `username`"),
        (None, None, Some(text), None) => Some(OutboxLogin::Credentials(text)),
        (None, None, None, Some(seed)) => match secrecy::ExposeSecret::expose_secret(&seed) {
            seed if !seed.starts_with("SU") => {
                nkey_at.refuse("is no seed of a user's key: it begins with SU (`nk -gen user`)")
            }
            _ => Some(OutboxLogin::NkeySeed(seed)),
        },
        _ => item.refuse("write one of `username` with `password`, `credentials` and `nkey`"),
    }
}

/// `nats://HOST:PORT`; the port may be left out.
fn server(item: Item<'_>) -> Option<Endpoint> {
    const WHAT: &str = "nats://HOST:PORT, such as nats://127.0.0.1:4222";
    let text = item.line()?;
    if text.contains('@') {
        return item.refuse("holds a name or a password: leave out what stands before @, and write `username` and `password` beside it");
    }
    let rest = match text.split_once("://") {
        None => text,
        Some(("nats", rest)) => rest,
        Some((scheme, _)) => {
            return item.refuse(format!(
                "{}: expected {WHAT}; write `tls: true` beside it for TLS",
                quoted(scheme)
            ));
        }
    };
    item.parsed(WHAT, |_| {
        let is_whole = rest
            .rsplit_once(':')
            .is_some_and(|(_, port)| !port.ends_with(']'));
        match is_whole {
            true => host_and_port(rest),
            false => host_and_port(&format!("{rest}:{PORT}")),
        }
    })
}

/// The name of a stream: what JetStream takes, and what the shell needs no quotes for.
fn stream(item: Item<'_>) -> Option<String> {
    let text = item.line()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if text.len() > 128 || !text.chars().all(is_plain) {
        return item.refuse("is no name of a stream: write up to 128 letters, digits, - and _");
    }
    Some(text.to_owned())
}
