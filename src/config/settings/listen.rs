//! Where the gate listens for calls: `listen`, one address or several, and what depends on it.
//!
//! Owns which addresses go together. Must never bind one.

use crate::config::reader::{Item, all, quoted};
use crate::config::settings::section::Section;
use crate::config::settings::{AdminSettings, ListenAddress, Listens};
use crate::config::yaml::Value;
use crate::model::Endpoint;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The most addresses.
const ADDRESSES: usize = 16;
/// The most bytes of the path of a socket that the system takes.
const PATH_BYTES: usize = 107;

/// The addresses of `listen`. `is_covered`: nobody between a client and this gate reads what is said.
pub(in crate::config) fn listen(
    top: &mut Section<'_>,
    is_covered: Option<bool>,
) -> Option<Listens> {
    top.value("listen", |item| {
        let items = match &item.node.value {
            Value::List(_) => item.list()?,
            _ => vec![item],
        };
        match items.len() {
            0 => return item.refuse("is empty: name an address, such as 127.0.0.1:8080"),
            1..=ADDRESSES => {}
            many => return item.refuse(format!("{many} addresses: name at most {ADDRESSES}")),
        }
        let addresses = all(items.iter().map(|item| address(*item)))?;
        for (nth, (item, address)) in items.iter().zip(&addresses).enumerate() {
            is_apart(*item, address, nth, &addresses);
            if let (Some(address), Some(false)) = (address.tcp(), is_covered)
                && !address.ip().is_loopback()
            {
                item.refuse::<()>(format!(
                    "{address} takes keys in clear text from other machines: listen on 127.0.0.1, write `tls: {{certificates: [..]}}`, or `behind_tls: true` when TLS ends in front of this gate"
                ));
            }
        }
        Listens::of(addresses)
    })
}

/// No other address is this one, or takes its connections.
fn is_apart(item: Item<'_>, address: &ListenAddress, nth: usize, all: &[ListenAddress]) {
    let is_any = address.tcp().is_some_and(|address| address.port() == 0);
    if !is_any && all[..nth].contains(address) {
        item.refuse::<()>(format!("{address} stands here twice: leave one out"));
    } else if let Some(other) = all.iter().find(|other| other.covers(address)) {
        item.refuse::<()>(format!(
            "{other} takes the connections of {address} too: leave one out"
        ));
    }
}

fn address(item: Item<'_>) -> Option<ListenAddress> {
    let text = item.text()?;
    let Some(path) = text.strip_prefix("unix:") else {
        let what = "IP:PORT, such as 127.0.0.1:8080, or unix:/PATH";
        let address = item.parsed(what, |text| text.parse::<SocketAddr>().ok())?;
        return Some(ListenAddress::Tcp(canonical(address)));
    };
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return item.refuse(format!(
            "expected unix: and the whole path of the socket, such as unix:/run/tollgate/calls.sock, found {}",
            quoted(text)
        ));
    }
    match path.len() {
        ..=PATH_BYTES => Some(ListenAddress::Unix(PathBuf::from(path))),
        bytes => item.refuse(format!(
            "the path has {bytes} bytes, and the path of a socket may have {PATH_BYTES}: choose a shorter one"
        )),
    }
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The listener of the operators has a port of its own.
pub(in crate::config) fn apart(
    top: &mut Section<'_>,
    listens: Option<&Listens>,
    admin: Option<&AdminSettings>,
) {
    let at = top.written("admin").or(top.written("listen"));
    if let (Some(listens), Some(admin)) = (listens, admin)
        && listens.tcp().any(|listen| listen == admin.listen)
        && admin.listen.port() != 0
    {
        at.unwrap_or(top.of).refuse::<()>(format!(
            "the public listener has {} too: give the admin listener a port of its own",
            admin.listen
        ));
    }
}

/// Whether the proxies in front say by the PROXY protocol whose connection it is.
pub(in crate::config) fn proxy_protocol(
    top: &mut Section<'_>,
    trusted_proxies: Option<&[IpNet]>,
) -> Option<bool> {
    top.value("proxy_protocol", |item| match item.flag()? {
        true if trusted_proxies.is_some_and(<[IpNet]>::is_empty) => item.refuse(
            "is only read from `trusted_proxies`, and there are none: name the networks of the load balancers there",
        ),
        flag => Some(flag),
    })
}

/// The path at which load balancers ask whether calls are accepted.
pub(in crate::config) fn health_path(item: Item<'_>) -> Option<String> {
    let path = item.parsed("a path, such as /healthz", |text| {
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
        (is_plain && text.starts_with('/')).then_some(text)
    })?;
    if path == "/" {
        return item.refuse("`/` belongs to calls that name their action in X-TC-Action: give a longer path, such as /healthz");
    }
    if Endpoint::of_path(path).is_some() {
        return item.refuse(format!(
            "{path} is the gate's own, where customers ask about their account: give another path"
        ));
    }
    Some(path.to_owned())
}
