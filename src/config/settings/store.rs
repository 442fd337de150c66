//! The section `admission.store.redis`: where the windows are kept that many replicas share.
//!
//! Owns which of its keys go together. Must never connect to anything: `serve` checks the store.

use crate::config::reader::{Item, SeenFile, quoted};
use crate::config::settings::section::Section;
use crate::config::settings::{Endpoint, StoreSettings, StoreTopology};
use crate::config::sources::stamp;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The most bytes of a file of certificates.
const CA_BYTES: u64 = 1 << 20;

/// The section `admission`: the longest wait of a call, and the store.
pub(in crate::config) fn admission(item: Item<'_>) -> Option<(Duration, Option<StoreSettings>)> {
    let mut fields = Section::open(item)?;
    let max_delay = fields.time("max_delay");
    let store = fields.optional_section("store", |item| {
        let mut fields = item.fields()?;
        let redis = fields.required("redis", "{nodes: [\"127.0.0.1:6379\"]}", |item| {
            redis(Item {
                name: "admission.store.redis",
                ..item
            })
        });
        fields.close();
        redis
    });
    fields.close();
    Some((max_delay?, store?))
}

fn redis(item: Item<'_>) -> Option<StoreSettings> {
    let mut fields = Section::open(item)?;
    let nodes_at = fields.written("nodes").unwrap_or(item);
    let nodes = fields.value("nodes", |item| item.each(node));
    let topology = topology(&mut fields, nodes.as_deref());
    let tls = fields.value("tls", Item::flag);
    let ca_at = fields.written("ca").unwrap_or(item);
    let ca = fields.optional("ca", certificates);
    let username_at = fields.written("username").unwrap_or(item);
    let username = fields.optional("username", user);
    let password = fields.optional("password", Item::secret);
    let database_at = fields.written("database").unwrap_or(item);
    let database = fields.count("database");
    let budget = fields.time("budget");
    fields.close();
    let settings = StoreSettings {
        nodes: nodes?,
        topology: topology?,
        tls: tls?,
        ca: ca?,
        username: username?,
        password: password?,
        database: i64::try_from(database?).unwrap_or_default(),
        budget: budget?,
    };
    if matches!(settings.topology, StoreTopology::Cluster) && settings.database != 0 {
        return database_at.refuse("a Cluster has only database 0: take it out");
    }
    if settings.ca.is_some() && !settings.tls {
        return ca_at.refuse("is used only with `tls: true`: write it, or take `ca` out");
    }
    if settings.username.is_some() && settings.password.is_none() {
        return username_at.refuse(
            "a user needs a `password`, such as `password: {file: secrets/store.password}`",
        );
    }
    let is_near = |node: &Endpoint| {
        node.host == "localhost" || node.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    if settings.password.is_some() && !settings.tls && !settings.nodes.iter().all(is_near) {
        nodes_at.warn("the password goes over the network in clear text: write `tls: true`, unless nobody else can listen there");
    }
    Some(settings)
}

/// Who says which of the nodes is the primary.
fn topology(fields: &mut Section<'_>, nodes: Option<&[Endpoint]>) -> Option<StoreTopology> {
    let item = fields.of;
    let nodes_at = fields.written("nodes").unwrap_or(item);
    let primary = fields.optional("sentinel", user);
    let username = fields.optional("sentinel_username", user);
    let password = fields.optional("sentinel_password", Item::secret);
    let cluster_at = fields.written("cluster").unwrap_or(item);
    let cluster = fields.value("cluster", Item::flag);
    let (primary, username, password) = (primary?, username?, password?);
    match (primary, cluster?, nodes?.len()) {
        (_, _, 0) => nodes_at.refuse("is empty: name one, such as 127.0.0.1:6379"),
        (Some(_), true, _) => {
            cluster_at.refuse("a Cluster has no sentinels: take out `sentinel` or `cluster`")
        }
        (Some(_), false, _) if username.is_some() && password.is_none() => {
            let username_at = fields.written("sentinel_username").unwrap_or(item);
            username_at.refuse(
                "a user needs a `sentinel_password`, such as `sentinel_password: {file: secrets/sentinel.password}`",
            )
        }
        (Some(primary), false, _) => Some(StoreTopology::Sentinel {
            primary,
            username,
            password,
        }),
        (None, ..) if username.is_some() || password.is_some() => item.refuse(
            "sentinel_username and sentinel_password need `sentinel: NAME`, the name under which the sentinels watch the primary",
        ),
        (None, true, _) => Some(StoreTopology::Cluster),
        (None, false, 1) => Some(StoreTopology::Single),
        (None, false, count) => nodes_at.refuse(format!(
            "{count} nodes: one server is asked; write `sentinel: NAME` when these are sentinels, or `cluster: true` when they are nodes of a Cluster"
        )),
    }
}

fn user(item: Item<'_>) -> Option<String> {
    item.line().map(str::to_owned)
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn node(item: Item<'_>) -> Option<Endpoint> {
    const WHAT: &str = "HOST:PORT, such as 127.0.0.1:6379";
    let text = item.line()?;
    if let Some((scheme, _)) = text.split_once("://") {
        return item.refuse(format!(
            "{} is written as a URL: expected {WHAT}; write `tls: true`, `username` and `password` beside it for what {}:// says",
            quoted(scheme),
            scheme
        ));
    }
    item.parsed(WHAT, host_and_port)
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(in crate::config) fn host_and_port(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None if host.contains(':') => return None,
        None => host.to_owned(),
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    (!host.is_empty() && host.chars().all(is_name)).then_some(Endpoint { host, port })
}

/// The certificates of a file (PEM), read now: a file that is not there is told with the others'
/// mistakes.
pub(in crate::config) fn certificates(item: Item<'_>) -> Option<Vec<u8>> {
    let text = item.text()?;
    let path: PathBuf = item.source.beside(text);
    let shown = quoted(text);
    let seen = stamp(&path);
    let read = fs::metadata(&path).and_then(|metadata| {
        // Not opened unless it is a file: opening a pipe would wait for a writer.
        let is_read = metadata.is_file() && metadata.len() <= CA_BYTES;
        is_read.then(|| fs::read(&path)).transpose()
    });
    let content = read.as_ref().ok().and_then(Option::as_deref);
    let seen = SeenFile::new(path, seen, content.unwrap_or_default());
    item.source.read.borrow_mut().push(seen);
    let bytes = match read {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return item.refuse(format!("{shown} is not a file of at most 1 MiB")),
        Err(error) => return item.refuse(format!("{shown}: {error}")),
    };
    let begins = b"-----BEGIN CERTIFICATE-----";
    match bytes.windows(begins.len()).any(|part| part == begins) {
        true => Some(bytes),
        false => item.refuse(format!("{shown} holds no certificate in PEM")),
    }
}
