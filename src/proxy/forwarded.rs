//! The address that sent a request which came through proxies: `X-Forwarded-For`, as far as trusted
//! proxies vouch for it.
//!
//! Pure. Must never believe a word that stands left of an address which no trusted proxy wrote.

use crate::http::Fields;
use crate::http::names::X_FORWARDED_FOR;
use crate::model::is_in;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that sent a request of a trusted proxy: the proxy's own, or the nearest address in
/// `X-Forwarded-For` that is no trusted proxy. The field is read from the right as far as the
/// proxies vouch for it. A part that cannot be read hides only what stands left of it.
pub(super) fn peer(proxy: IpAddr, fields: &Fields, trusted: &[IpNet]) -> IpAddr {
    let mut peer = proxy;
    let lines = fields.get_all(X_FORWARDED_FOR).rev();
    let hops = lines.flat_map(|line| line.rsplit(|byte| *byte == b','));
    // An empty element of a list says nothing (RFC 9110 §5.6.1).
    for hop in hops.map(<[u8]>::trim_ascii).filter(|hop| !hop.is_empty()) {
        let Some(address) = address(hop) else {
            break;
        };
        peer = address.to_canonical();
        if !is_in(trusted, address) {
            break;
        }
    }
    peer
}

/// The address of a hop, in the spellings that proxies use: with or without a port, an IPv6 one in
/// brackets or not, all of it in quotes or not.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let text = quoted.unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            (IpAddr::V6(v6(address)?), port)
        }
        None => match text.split_once(':') {
            Some((address, port)) if address.contains('.') => {
                (IpAddr::V4(address.parse::<Ipv4Addr>().ok()?), Some(port))
            }
            _ => (IpAddr::V6(v6(text)?), None),
        },
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    port.is_none_or(is_port).then_some(address)
}

/// An IPv6 address; the interface by which it is reached is no part of it.
fn v6(text: &str) -> Option<Ipv6Addr> {
    text.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    fn told(lines: &[&[u8]]) -> IpAddr {
        let mut head = BytesMut::from("GET / HTTP/1.1\r\n");
        for line in lines {
            head.extend_from_slice(&[b"X-Forwarded-For: ", *line, b"\r\n"].concat());
        }
        head.extend_from_slice(b"\r\n");
        let head = crate::http::h1::request_head(&mut head).unwrap().unwrap();
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "fd00::/8"]
            .map(|net| net.parse().unwrap())
            .into();
        peer([10, 0, 0, 1].into(), &head.fields, &trusted)
    }

    #[test]
    fn the_nearest_untrusted_address_counts_however_its_proxy_spells_it() {
        for (line, expected) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:4711", "203.0.113.7"),
            ("\"203.0.113.7\"", "203.0.113.7"),
            ("\"203.0.113.7:4711\"", "203.0.113.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("fe80::7%eth0", "fe80::7"),
            ("[fe80::7%25eth0]:4711", "fe80::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("203.0.113.7, ", "203.0.113.7"),
            ("203.0.113.7,, ,10.0.0.2:80", "203.0.113.7"),
            ("203.0.113.7, [fd00::1]:80, ::ffff:10.0.0.3", "203.0.113.7"),
            ("forged, 198.51.100.1, 203.0.113.7", "203.0.113.7"),
            ("unknown", "10.0.0.1"),
            ("203.0.113.7, unknown, 10.0.0.2", "10.0.0.2"),
            ("203.0.113.7:", "10.0.0.1"),
            ("203.0.113.7:80:80", "10.0.0.1"),
            ("203.0.113.7:x", "10.0.0.1"),
            ("[203.0.113.7]", "10.0.0.1"),
            ("[2001:db8::7]80", "10.0.0.1"),
            ("[2001:db8::7", "10.0.0.1"),
            ("\"203.0.113.7", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(told(&[line.as_bytes()]), expected, "{line}");
        }
    }

    #[test]
    fn an_odd_byte_hides_nothing_that_stands_right_of_it() {
        let expected: IpAddr = [203, 0, 113, 7].into();
        assert_eq!(told(&[b"\xe9vil, 203.0.113.7"]), expected);
        assert_eq!(told(&[b"198.51.100.1, \xff", b"203.0.113.7"]), expected);
        assert_eq!(
            told(&[b"198.51.100.1, 203.0.113.7\xa0"]),
            IpAddr::from([10, 0, 0, 1])
        );
    }
}
