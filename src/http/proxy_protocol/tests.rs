//! Headers as proxies write them, and what is none.

use super::*;
use proptest::prelude::*;

fn binary_header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = (block.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn extension(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
}

const PAIR: [u8; 12] = [203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x67, 0, 80];

fn whole(input: &[u8]) -> ProxyHeader {
    proxy_header(input).unwrap().unwrap()
}

#[test]
fn the_client_is_the_source_of_a_header_of_either_version() {
    let mut v6 = [0; 36];
    v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
    let mut mapped = [0; 36];
    mapped[..16].copy_from_slice(&"::ffff:203.0.113.7".parse::<Ipv6Addr>().unwrap().octets());
    let client = Some("203.0.113.7");
    for (header, expected) in [
        (
            b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n".to_vec(),
            client,
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 0 65535\r\n".to_vec(),
            Some("2001:db8::7"),
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 80\r\n".to_vec(),
            client,
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN \xff anything 1\r\n".to_vec(), None),
        (binary_header(0x21, 0x11, &PAIR), client),
        (binary_header(0x21, 0x12, &PAIR), client),
        (binary_header(0x21, 0x21, &v6), Some("2001:db8::7")),
        (binary_header(0x21, 0x21, &mapped), client),
        (binary_header(0x21, 0x31, &[0; 216]), None),
        (binary_header(0x21, 0x00, b"any"), None),
        (binary_header(0x20, 0x11, &PAIR), None),
        // Of a connection of the proxy's own nothing else counts.
        (binary_header(0x20, 0xff, b"any"), None),
    ] {
        let expected: Option<IpAddr> = expected.map(|client| client.parse().unwrap());
        let read = whole(&[&*header, b"GET / HTTP/1.1"].concat());
        assert_eq!(
            (read.bytes, read.client),
            (header.len(), expected),
            "{header:?}"
        );
    }
}

#[test]
fn what_is_no_header_to_the_letter_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(TEXT_BYTES));
    let short = &PAIR[..11];
    for input in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"proxy TCP4 203.0.113.7 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80 1\r\n",
        b"PROXY TCP4 203.0.113.7  127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 +4711 80\r\n",
        b"PROXY TCP4 203.0.113.7 127.0.0.1 04711 80\r\n",
        b"PROXY TCP4 203.0.113.007 127.0.0.1 4711 80\r\n",
        b"PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
        b"PROXY TCP6 203.0.113.7 127.0.0.1 4711 80\r\n",
        b"PROXY UDP4 203.0.113.7 127.0.0.1 4711 80\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY \r\n",
        long.as_bytes(),
        // An old version, an unknown command, family and transport.
        &binary_header(0x11, 0x11, &PAIR),
        &binary_header(0x22, 0x11, &PAIR),
        &binary_header(0x21, 0x41, &PAIR),
        &binary_header(0x21, 0x13, &PAIR),
        &binary_header(0x21, 0x11, short),
        &binary_header(0x21, 0x21, &PAIR),
        &binary_header(0x21, 0x31, &PAIR),
        // Extensions that end beyond the header.
        &binary_header(0x21, 0x11, &[&PAIR[..], &[4, 0, 9, 1]].concat()),
        &binary_header(0x21, 0x11, &[&PAIR[..], &[4, 0]].concat()),
        &binary_header(0x20, 0, &vec![0; BINARY_BYTES - FIXED_BYTES + 1]),
    ] {
        let text = String::from_utf8_lossy(input);
        assert_eq!(proxy_header(input), Err(NotAHeader), "{text:?}");
    }
    let largest = binary_header(0x20, 0, &vec![0; BINARY_BYTES - FIXED_BYTES]);
    assert_eq!(whole(&largest).bytes, BINARY_BYTES);
}

#[test]
fn a_checksum_is_checked_wherever_it_stands_and_other_extensions_are_passed_over() {
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    let (alpn, zeros) = (extension(1, b"h2"), extension(CRC32C, &[0; 4]));
    for extensions in [[&*zeros, &alpn], [&alpn, &zeros]] {
        let block = [&PAIR[..], &extensions.concat()].concat();
        let mut header = binary_header(0x21, 0x11, &block);
        let sum = crc32c(header.iter().copied()).to_be_bytes();
        let at = header.windows(7).position(|seen| seen == &*zeros).unwrap() + 3;
        header[at..at + 4].copy_from_slice(&sum);
        assert_eq!(whole(&header).client, Some([203, 0, 113, 7].into()));
        header[FIXED_BYTES] ^= 1;
        assert_eq!(proxy_header(&header), Err(NotAHeader), "another address");
    }
    let odd = [&PAIR[..], &extension(CRC32C, &[0; 3])].concat();
    let odd = binary_header(0x21, 0x11, &odd);
    assert_eq!(proxy_header(&odd), Err(NotAHeader));
}

/// A header as a writer makes it that knows nothing of the parser, and its client.
fn written() -> impl Strategy<Value = (Vec<u8>, Option<IpAddr>)> {
    let address = prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from)
    ];
    let extensions = prop::collection::vec((4..u8::MAX, "[a-z]{0,40}"), 0..4);
    (address, any::<(u16, u16)>(), 0..4_u8, extensions).prop_map(
        |(client, (from, to), kind, extensions)| {
            let (word, family) = match client {
                IpAddr::V4(_) => ("TCP4", 0x11),
                IpAddr::V6(_) => ("TCP6", 0x21),
            };
            let octets = match client {
                IpAddr::V4(client) => client.octets().to_vec(),
                IpAddr::V6(client) => client.octets().to_vec(),
            };
            let mut block = [&*octets, &octets].concat();
            block.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
            for (kind, value) in extensions {
                block.extend(extension(kind, value.as_bytes()));
            }
            let named = Some(client.to_canonical());
            match kind {
                0 => {
                    let line = format!("PROXY {word} {client} {client} {from} {to}\r\n");
                    (line.into_bytes(), named)
                }
                1 => (b"PROXY UNKNOWN\r\n".to_vec(), None),
                2 => (binary_header(0x20, family, &block), None),
                _ => (binary_header(0x21, family, &block), named),
            }
        },
    )
}

proptest! {
    #[test]
    fn what_a_writer_makes_is_read_whole_and_no_prefix_of_it_is(
        (header, client) in written(),
        after in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let read = proxy_header(&[&*header, &after].concat());
        let bytes = header.len();
        prop_assert_eq!(read, Ok(Some(ProxyHeader { bytes, client })));
        for cut in 0..bytes {
            prop_assert_eq!(proxy_header(&header[..cut]), Ok(None), "the first {} bytes", cut);
        }
    }

    #[test]
    fn no_bytes_are_read_beyond_their_end(
        (header, _) in written(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        changed in any::<u8>(),
    ) {
        let mut damaged = header;
        let place = at.index(damaged.len());
        damaged[place] = changed;
        damaged.extend_from_slice(&bytes);
        for input in [&*damaged, &bytes] {
            if let Ok(Some(header)) = proxy_header(input) {
                prop_assert!(header.bytes <= input.len());
            }
        }
    }
}

/// Both kinds of sockets, each with its peer.
async fn pairs() -> (
    (tokio::net::TcpStream, tokio::net::TcpStream),
    (tokio::net::UnixStream, tokio::net::UnixStream),
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connected = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
    let (connected, accepted) = tokio::join!(connected, listener.accept());
    let tcp = (connected.unwrap(), accepted.unwrap().0);
    (tcp, tokio::net::UnixStream::pair().unwrap())
}

async fn what_follows_is_left(
    mut proxy: impl tokio::io::AsyncWrite + Unpin,
    header: &[u8],
    socket: SocketRef<'_>,
) {
    use tokio::io::AsyncWriteExt;
    let after = b"what follows";
    let sent = [header, after].concat();
    let sending = async {
        for byte in &sent {
            proxy.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (client, ()) = tokio::join!(read_proxy_header(socket), sending);
    assert_eq!(client.unwrap(), Some([203, 0, 113, 7].into()));
    let mut rest = Vec::new();
    while rest.len() < after.len() {
        let mut more = [0; 64];
        match rustix::net::recv(socket, &mut more[..], rustix::net::RecvFlags::empty()) {
            Ok((read, _)) => rest.extend_from_slice(&more[..read]),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(1)).await,
        }
    }
    assert_eq!(rest, after);
}

#[tokio::test]
async fn a_header_that_comes_byte_by_byte_is_taken_and_what_follows_it_is_left() {
    let text = b"PROXY TCP4 203.0.113.7 127.0.0.1 4711 80\r\n";
    for header in [&text[..], &binary_header(0x21, 0x11, &PAIR)] {
        let ((proxy, tcp), (other, unix)) = pairs().await;
        what_follows_is_left(proxy, header, SocketRef::Tcp(&tcp)).await;
        what_follows_is_left(other, header, SocketRef::Unix(&unix)).await;
    }
}

#[tokio::test]
async fn a_proxy_that_only_looks_whether_somebody_listens_sends_nothing_and_a_part_is_no_header() {
    use tokio::io::AsyncWriteExt;
    let ((proxy, tcp), (mut other, unix)) = pairs().await;
    drop(proxy);
    let gone = read_proxy_header(SocketRef::Tcp(&tcp)).await;
    assert!(matches!(gone, Err(NoHeader::Gone)), "{gone:?}");
    other.write_all(b"PROXY TCP4 203").await.unwrap();
    drop(other);
    let part = read_proxy_header(SocketRef::Unix(&unix)).await;
    assert!(matches!(part, Err(NoHeader::Other)), "{part:?}");
}
