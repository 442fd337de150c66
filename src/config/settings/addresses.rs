//! Text -> addresses: listeners, the upstream, the webhook, networks.
//!
//! Owns what such a text must be, and the question whether an address leads back to this gate. Must
//! never look up a name.

use crate::config::reader::{Item, quoted};
use crate::config::settings::{Endpoint, WebhookUrl};
use ipnet::{IpNet, Ipv4Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

pub(in crate::config) fn address(item: Item<'_>) -> Option<SocketAddr> {
    item.parsed("IP:PORT, such as 127.0.0.1:8080", |text| text.parse().ok())
}

/// Whether TLS is spoken there, and where it is.
pub(in crate::config) fn endpoint(item: Item<'_>) -> Option<(bool, Endpoint)> {
    const WHAT: &str = "http://HOST:PORT or https://HOST:PORT, such as http://127.0.0.1:8000";
    let text = item.text()?;
    let uri = item.parsed(WHAT, |text| text.parse::<http::Uri>().ok())?;
    let speaks_tls = uri.scheme_str() == Some("https");
    let is_http = (speaks_tls || uri.scheme_str() == Some("http"))
        && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
    if !is_http {
        return item.parsed(WHAT, |_| None);
    }
    if !matches!(
        uri.path_and_query().map(|p| p.as_str()),
        None | Some("" | "/")
    ) || text.contains('#')
    {
        return item.refuse(format!(
            "{}: a call keeps its own path; leave out what follows HOST:PORT",
            quoted(text)
        ));
    }
    let port = if speaks_tls { 443 } else { 80 };
    let endpoint = item.parsed(WHAT, |_| host_and_port(&uri, port));
    endpoint.map(|(host, port)| (speaks_tls, Endpoint { host, port }))
}

/// Whether whoever connects to the endpoint reaches this listener. A name other than `localhost` is
/// not looked up: a name server that is slow must not hold up who reads a file.
pub(in crate::config) fn leads_to(endpoint: &Endpoint, listener: SocketAddr) -> bool {
    const LOOPBACK: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let name = endpoint.host.trim_end_matches('.');
    let short = || Some(IpAddr::V4(short_address(name)?));
    let address = name.parse().ok().or_else(short);
    let addresses = match address.map(|address: IpAddr| address.to_canonical()) {
        // The system takes a connection to the unspecified address for one to itself.
        Some(IpAddr::V4(address)) if address.is_unspecified() => vec![LOOPBACK[0]],
        Some(address) if address.is_unspecified() => LOOPBACK.to_vec(),
        Some(address) => vec![address],
        None if name.eq_ignore_ascii_case("localhost") => LOOPBACK.to_vec(),
        None => Vec::new(),
    };
    let own = listener.ip().to_canonical();
    let is_reached = |address: &IpAddr| match own.is_unspecified() {
        true => (own.is_ipv6() || address.is_ipv4()) && is_of_this_machine(*address),
        false => *address == own,
    };
    endpoint.port == listener.port() && addresses.iter().any(is_reached)
}

/// An address of IPv4 as the system's resolver reads it (`inet_aton`): one to four numbers,
/// decimal, octal or hexadecimal, of which the last fills all bytes that are left.
fn short_address(name: &str) -> Option<Ipv4Addr> {
    let number = |text: &str| {
        let (digits, radix) = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None if text.starts_with('0') => (text, 8),
            None => (text, 10),
        };
        let is_unsigned = !digits.starts_with('+');
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| is_unsigned)
    };
    let mut bytes = name.split('.').map(number).collect::<Option<Vec<u32>>>()?;
    let last = bytes.pop()?;
    let left = 32_u32.checked_sub(8 * u32::try_from(bytes.len()).ok()?)?;
    if left == 0 || bytes.iter().any(|byte| *byte > 255) || u64::from(last) >> left > 0 {
        return None;
    }
    let first = bytes.iter().fold(0, |sum, byte| sum << 8 | byte);
    let address = first.checked_shl(left).unwrap_or(0) | last;
    Some(Ipv4Addr::from_bits(address))
}

/// Whether an address is this machine's own: then a socket that connects to it has it, too. Nothing
/// is sent.
fn is_of_this_machine(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    address.is_loopback() || connected.is_ok_and(|own| own.ip() == address)
}

/// Not `uri.port_u16()`: it is as silent about port 99999 as about none.
fn host_and_port(uri: &http::Uri, default: u16) -> Option<(String, u16)> {
    let host = uri.host()?;
    let port = match uri.authority()?.as_str().strip_prefix(host)? {
        "" => default,
        colon_port => colon_port.strip_prefix(':')?.parse().ok()?,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (port != 0 && !host.is_empty()).then(|| (host.to_owned(), port))
}

/// No message repeats the text: such a URL often holds a secret of the receiver's.
pub(in crate::config) fn webhook(item: Item<'_>) -> Option<WebhookUrl> {
    const WHAT: &str = "is not an address to post to: write https://HOST:PORT/PATH";
    let text = item.text()?;
    let Ok(uri) = text.parse::<http::Uri>() else {
        return item.refuse(WHAT);
    };
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return item.refuse(WHAT),
    };
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return item.refuse("holds a name or a password: leave out what stands before @, and let the receiver check the signature instead (deploy/EVENTS.md)");
    }
    if text.contains('#') {
        return item.refuse("holds a fragment, which is never sent: leave out # and what follows");
    }
    let Some((host, port)) = host_and_port(&uri, if tls { 443 } else { 80 }) else {
        return item.refuse(WHAT);
    };
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    // `http://host?query` has a query without a path.
    let slash = if path.starts_with('/') { "" } else { "/" };
    Some(WebhookUrl {
        tls,
        host,
        port,
        path: format!("{slash}{path}"),
    })
}

pub(in crate::config) fn network(item: Item<'_>) -> Option<IpNet> {
    let text = item.text()?;
    if let Ok(ip) = text.parse::<IpAddr>() {
        return item.refuse(format!(
            "{text} has no prefix length: write {}",
            IpNet::from(ip)
        ));
    }
    let Ok(IpNet::V6(mapped)) = text.parse() else {
        return item.parsed("a network such as 10.0.0.0/8", |text| text.parse().ok());
    };
    let Some(address) = mapped.addr().to_ipv4_mapped() else {
        return Some(mapped.into());
    };
    // Addresses are compared as IPv4 ones, whichever way they came.
    match mapped.prefix_len().checked_sub(MAPPED_BITS) {
        Some(length) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        None => item.refuse(format!(
            "{text} is no network of IPv4 addresses: write {address}/{}",
            mapped.prefix_len().min(32)
        )),
    }
}

/// The first bits of an IPv6 address that holds an IPv4 one.
const MAPPED_BITS: u8 = 96;
