//! The values that `Host` may have (RFC 9112 §3.2, RFC 3986 §3.2.2). Pure.

use std::net::Ipv6Addr;

/// Whether this is a host, with or without a port. It may be empty: that is what a target without
/// an authority has.
///
/// Of the literals in brackets only IPv6 addresses, without an interface: nobody uses the others.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let port = match value.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|byte| *byte == b']') else {
                return false;
            };
            let address = std::str::from_utf8(&rest[..end]);
            if address.is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok()) {
                &rest[end + 1..]
            } else {
                return false;
            }
        }
        None => {
            let end = value.iter().position(|byte| *byte == b':');
            let (name, port) = value.split_at(end.unwrap_or(value.len()));
            if !is_name(name) {
                return false;
            }
            port
        }
    };
    match port {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// The bytes that a registered name may have unescaped: unreserved bytes and delimiters.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'!' | b'$'
                | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        );
        byte += 1;
    }
    plain
};

/// Whether this is a registered name, or the digits of an IPv4 address.
fn is_name(name: &[u8]) -> bool {
    let is_plain = |byte: &u8| PLAIN[usize::from(*byte)];
    // Nearly every name ends here.
    if name.iter().all(is_plain) {
        return true;
    }
    let mut rest = name;
    while let [byte, after @ ..] = rest {
        rest = match (byte, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            (b'%', _) => return false,
            _ if is_plain(byte) => after,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "",
            "gate.test",
            "GATE.test:8080",
            "gate.test.",
            "gate.test:",
            "10.0.0.1",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::1]:80",
            "[::ffff:10.0.0.1]",
            "xn--bcher-kva.test",
            "a_b.test",
            "a%2Db.test",
            "gate,test",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "a b",
            "gate.test, evil.test",
            "gate.test/evil",
            "user@gate.test",
            "gate.test:80:80",
            "gate.test:x",
            "gate.test: 80",
            "gate.test?x",
            "gate.test#x",
            "http://gate.test",
            "[::1",
            "[::1]80",
            "[::1]]",
            "[]",
            "[10.0.0.1]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "::1",
            "人.test",
            "<script>",
            "gate.test\\x",
            "a%2",
            "a%zz.test",
            "\"gate.test\"",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"\xff") && !is_host(b"a\tb") && !is_host(b"a\0b"));
    }
}
