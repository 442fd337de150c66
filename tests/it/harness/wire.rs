//! A client that writes every byte itself.

use super::*;

/// A connection on which the test writes every byte itself and reads one answer after another.
pub struct Wire {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

/// One answer as it stood on the wire.
#[derive(Debug)]
pub struct Reply {
    pub version: String,
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The body came to the end that its framing announced.
    pub whole: bool,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The vendor's error code; empty when there is none.
    pub fn code(&self) -> String {
        let body = self.json();
        let code = body["Response"]["Error"]["Code"].as_str();
        code.unwrap_or_default().to_owned()
    }

    pub fn says_close(&self) -> bool {
        self.headers
            .get("connection")
            .is_some_and(|value| value == "close")
    }
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_from([127, 0, 0, 1], address).await
    }

    /// From an address of the loopback network: to the gate each is another peer.
    pub async fn connect_from(source: [u8; 4], address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The same, where the gate may have closed.
    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Writes and reads at once: what a client does that can be answered before it is done.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Reply {
        let (mut reading, mut writing) = self.stream.split();
        let unread = &mut self.unread;
        let (_, reply) = tokio::join!(
            writing.write_all(bytes.as_ref()),
            read_reply(&mut reading, unread)
        );
        reply.expect("an answer")
    }

    /// The next answer.
    pub async fn reply(&mut self) -> Reply {
        self.try_reply().await.expect("an answer")
    }

    /// The next answer; `None` when the gate closes before its head is whole.
    pub async fn try_reply(&mut self) -> Option<Reply> {
        read_reply(&mut self.stream, &mut self.unread).await
    }

    /// Waits until the gate closes; false when anything comes before that.
    pub async fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(BOUND, self.stream.read(&mut buffer)).await;
        self.unread.is_empty() && !matches!(read.expect("the gate closes"), Ok(1..))
    }

    /// Whether nothing comes for so long, neither a byte nor the end.
    pub async fn is_silent_for(&mut self, quiet: Duration) -> bool {
        let mut buffer = [0; 1];
        let read = tokio::time::timeout(quiet, self.stream.read(&mut buffer)).await;
        self.unread.is_empty() && read.is_err()
    }
}

async fn read_reply(
    stream: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
) -> Option<Reply> {
    let head = loop {
        if let Some(end) = find(unread, b"\r\n\r\n") {
            break unread.drain(..end + 4).collect::<Vec<u8>>();
        }
        read_more(stream, unread).await.then_some(())?;
    };
    let (first, headers) = parse_head(&head);
    let (version, rest) = first.split_once(' ').unwrap();
    let status = rest[..3].parse().unwrap();
    let bodiless = status < 200 || status == 204 || status == 304;
    let (body, whole) = match bodiless {
        true => (Vec::new(), true),
        false => read_body(stream, unread, &headers, true).await,
    };
    Some(Reply {
        version: version.to_owned(),
        status,
        headers,
        body,
        whole,
    })
}

/// The body after a head, and whether it came whole. `to_close`: without a framing it ends with the
/// connection.
pub(super) async fn read_body(
    stream: &mut (impl AsyncReadExt + Unpin),
    unread: &mut Vec<u8>,
    headers: &HeaderMap,
    to_close: bool,
) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if headers.contains_key("transfer-encoding") {
        loop {
            while find(unread, b"\r\n").is_none() {
                if !read_more(stream, unread).await {
                    return (body, false);
                }
            }
            let end = find(unread, b"\r\n").unwrap();
            let size = String::from_utf8_lossy(&unread[..end]).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap().trim(), 16).unwrap();
            while unread.len() < end + 2 + size + 2 {
                if !read_more(stream, unread).await {
                    body.extend_from_slice(&unread[end + 2..]);
                    return (body, false);
                }
            }
            let chunk: Vec<u8> = unread.drain(..end + 2 + size + 2).collect();
            body.extend_from_slice(&chunk[end + 2..end + 2 + size]);
            if size == 0 {
                return (body, true);
            }
        }
    }
    let length = headers
        .get("content-length")
        .map(|value| value.to_str().unwrap().parse::<usize>().unwrap());
    let wanted = length.unwrap_or(if to_close { usize::MAX } else { 0 });
    while unread.len() < wanted && read_more(stream, unread).await {}
    body.extend(unread.drain(..wanted.min(unread.len())));
    let whole = length.is_none_or(|length| length == body.len());
    (body, whole)
}

async fn read_more(stream: &mut (impl AsyncReadExt + Unpin), unread: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 64 * 1024];
    let read = tokio::time::timeout(BOUND, stream.read(&mut buffer)).await;
    match read.expect("bytes or an end") {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            unread.extend_from_slice(&buffer[..read]);
            true
        }
    }
}

pub(super) fn parse_head(head: &[u8]) -> (String, HeaderMap) {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut lines = text.trim_end().split("\r\n");
    let first = lines.next().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap();
        headers.append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.trim().parse().unwrap(),
        );
    }
    (first, headers)
}

pub(super) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|w| w == wanted)
}
