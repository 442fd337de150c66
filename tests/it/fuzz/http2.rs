//! Frames that are nearly HTTP/2. A real client writes them, and some are changed on their way: what
//! the gate takes for a call is counted, recorded and forwarded as one, and nothing else is.

use super::{Lane, Tally, mutate, run_on};
use crate::harness::{BOUND, RETAIL_KEY, STUDIO_KEY};
use bytes::Bytes;
use fastrand::Rng;
use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tollgate::testing::ledger::StoredRecord;
use tollgate::testing::model::Outcome;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;
/// Requests of a connection.
const MOST_REQUESTS: usize = 5;
const PART: &[u8] = b"{\"Image\":\"iVBORw0KGgo=\"}";
/// What comes after a changed frame may wait for ever: so long it is waited for.
const PATIENCE: Duration = Duration::from_millis(150);

#[tokio::test(flavor = "multi_thread")]
async fn whatever_frames_come_the_upstream_sees_what_is_counted_and_recorded() {
    let count = super::number("FUZZ_HTTP2").unwrap_or(400);
    let case = async |lane: &mut Lane, random: &mut Rng, tally: &mut Tally| {
        lane.warm().await?;
        lane.http2(random, tally).await
    };
    run_on("FUZZ_HTTP2", count, |_| true, case).await;
}

/// Changes frames on their way to the gate.
struct Changing<S> {
    inner: S,
    random: Rng,
    /// One frame in so many is changed; 0: none.
    one_in: u32,
    /// What the client wrote of a frame that is not whole yet.
    written: Vec<u8>,
    /// What is still to be sent.
    waiting: Vec<u8>,
    has_preface: bool,
    has_changed: Arc<AtomicBool>,
}

impl<S> Changing<S> {
    /// Takes whole frames out of what was written.
    fn take_frames(&mut self) {
        if !self.has_preface {
            if self.written.len() < PREFACE_BYTES {
                return;
            }
            self.waiting.extend(self.written.drain(..PREFACE_BYTES));
            self.has_preface = true;
        }
        while let Some(length) = frame_length(&self.written) {
            let frame: Vec<u8> = self.written.drain(..length).collect();
            let is_changed = self.one_in > 0 && self.random.u32(..self.one_in) == 0;
            match is_changed {
                false => self.waiting.extend_from_slice(&frame),
                true => {
                    self.has_changed.store(true, Relaxed);
                    change(&mut self.random, frame, &mut self.waiting);
                }
            }
        }
    }
}

/// The bytes of the first frame, when it is whole.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..HEAD_BYTES)?;
    let length = HEAD_BYTES + usize::from_be_bytes([0, 0, 0, 0, 0, head[0], head[1], head[2]]);
    (bytes.len() >= length).then_some(length)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One whole frame into what is sent in its place.
fn change(random: &mut Rng, mut frame_bytes: Vec<u8>, out: &mut Vec<u8>) {
    match random.u32(0..14) {
        // It is lost, comes twice, or breaks off.
        0 => {}
        1 => out.extend(frame_bytes.repeat(2)),
        2 => out.extend_from_slice(&frame_bytes[..random.usize(..frame_bytes.len())]),
        // Another kind, other flags, another stream, another length.
        3 => {
            frame_bytes[3] = random.u8(0..12);
            out.extend(frame_bytes);
        }
        4 | 5 => {
            frame_bytes[4] ^= 1 << random.u32(0..8);
            out.extend(frame_bytes);
        }
        6 => {
            frame_bytes[8] = random.u8(0..12);
            out.extend(frame_bytes);
        }
        7 => {
            frame_bytes[2] = frame_bytes[2].wrapping_add(random.u8(0..4)).wrapping_sub(2);
            out.extend(frame_bytes);
        }
        // Bytes of it.
        8 | 9 => {
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..frame_bytes.len());
                frame_bytes[at] = random.u8(..);
            }
            out.extend(frame_bytes);
        }
        // Another frame before or after it.
        10 => {
            out.extend(other(random));
            out.extend(frame_bytes);
        }
        11 => {
            out.extend(frame_bytes);
            out.extend(other(random));
        }
        // A request whose fields no client library would send.
        12 => {
            out.extend(odd_request(random));
            out.extend(frame_bytes);
        }
        _ => {
            out.extend(frame_bytes);
            out.extend(odd_request(random));
        }
    }
}

/// A frame that may or may not be sound where it comes.
fn other(random: &mut Rng) -> Vec<u8> {
    let stream = random.u32(0..12);
    let (kind, payload): (u8, Vec<u8>) = match random.u32(0..9) {
        0 => (3, 8u32.to_be_bytes().to_vec()),
        1 => (8, random.u32(0..3).to_be_bytes().to_vec()),
        2 => (8, 0x7fff_ffff_u32.to_be_bytes().to_vec()),
        3 => (6, b"12345678".to_vec()),
        4 => (
            4,
            [&[0, 4][..], &random.u32(0..70_000).to_be_bytes()].concat(),
        ),
        5 => (2, vec![0, 0, 0, 1, 16]),
        6 => (0, b"{\"Image\":\"more\"}".to_vec()),
        7 => (9, b"\x00\x01x\x01y".to_vec()),
        _ => (7, vec![0; 8]),
    };
    frame(kind, random.u8(0..6), stream, &payload)
}

/// HEADERS whose fields are written as they are, without a table.
fn odd_request(random: &mut Rng) -> Vec<u8> {
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/v1/portrait/segment"),
        (":authority", "gate.test"),
        ("x-api-key", RETAIL_KEY),
    ];
    let odd = [
        ("content-length", "5"),
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("host", "elsewhere.test"),
        (":path", "/nowhere"),
        (":method", "GET\r\nX: 1"),
        ("x-odd", "1\r\nContent-Length: 5"),
        ("x odd", "1"),
        ("X-Odd", "1"),
        ("", "1"),
        ("x-api-key", STUDIO_KEY),
        ("x-tollgate-account", "1250000001"),
        ("expect", "100-continue"),
        ("te", "trailers"),
    ];
    for _ in 0..random.usize(0..3) {
        let at = random.usize(..=fields.len());
        fields.insert(at, odd[random.usize(..odd.len())]);
    }
    if random.u32(0..4) == 0 {
        fields.remove(random.usize(..fields.len()));
    }
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend_from_slice(text.as_bytes());
        }
    }
    // Beyond the numbers of the client's own.
    let stream = 2 * random.u32(10..60) + 1;
    let mut bytes = frame(1, [4, 5][random.usize(0..2)], stream, &block);
    if random.bool() {
        bytes.extend(frame(0, random.u8(0..2), stream, b"hello"));
    }
    bytes
}

impl<S: AsyncRead + Unpin> AsyncRead for Changing<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Changing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(bytes);
        self.take_frames();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.waiting.is_empty() {
            let sent = ready!(Pin::new(&mut this.inner).poll_write(cx, &this.waiting))?;
            this.waiting.drain(..sent);
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What a client got for one request.
struct Answered {
    status: u16,
    id: Option<String>,
    body: Vec<u8>,
}

async fn answered(answer: h2::client::ResponseFuture) -> Option<Answered> {
    let (head, mut body) = answer.await.ok()?.into_parts();
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        let _ = body.flow_control().release_capacity(data.len());
        read.extend_from_slice(&data);
    }
    let id = head.headers.get("x-request-id");
    Some(Answered {
        status: head.status.as_u16(),
        id: id.map(|id| id.to_str().unwrap().to_owned()),
        body: read,
    })
}

impl Lane {
    /// Makes some requests on one connection, of which frames are changed, and compares what became of
    /// them.
    async fn http2(&mut self, random: &mut Rng, tally: &mut Tally) -> Result<(), String> {
        let peer = self.next_peer();
        let stream = self.door.connect_http2(peer).await;
        let has_changed = Arc::new(AtomicBool::new(false));
        let changing = Changing {
            inner: stream.map_err(|error| error.to_string())?,
            random: random.fork(),
            one_in: mutate::pick(random, &[0, 2, 4, 8, 16]),
            written: Vec::new(),
            waiting: Vec::new(),
            has_preface: false,
            has_changed: has_changed.clone(),
        };
        let (answers, mut sent) = requests(changing, random).await;
        let is_sound = !has_changed.load(Relaxed);

        // What the upstream has is still counted when its client has gone.
        let samples = self.gate.at_rest().await;
        samples.assert_conserved();
        self.received = samples.sum("tollgate_requests_received_total", &[]);
        let records: HashMap<String, StoredRecord> = self
            .new_records()?
            .into_iter()
            .map(|record| (record.id.to_string(), record))
            .collect();
        let seen = self.note_seen()?;
        for (id, request) in &seen {
            let Some(record) = records.get(id) else {
                return Err(format!("forwarded and not recorded: {request:?}"));
            };
            let account = super::values(&request.fields, "x-tollgate-account");
            if account != [record.account.as_str().as_bytes()] {
                return Err(format!("{request:?} is recorded as {record:?}"));
            }
        }
        for (id, record) in &records {
            let is_served = matches!(record.outcome, Outcome::Answered | Outcome::ClientClosed);
            if is_served != record.billable || is_served && !seen.contains_key(id) {
                return Err(format!("billed, and not forwarded or served: {record:?}"));
            }
        }
        for answer in answers.iter().flatten() {
            let record = answer.id.as_ref().and_then(|id| records.get(id));
            match (answer.status, record) {
                (200, Some(record)) => {
                    let id = record.id.to_string();
                    if record.outcome != Outcome::Answered || !super::contains(&answer.body, &id) {
                        return Err(format!("{record:?} is answered as another call"));
                    }
                    tally.note("answered");
                }
                (200, None) => return Err("an answered call is not recorded".to_owned()),
                (_, Some(record)) if record.billable => {
                    return Err(format!("{record:?} is answered with {}", answer.status));
                }
                _ => tally.note("refused"),
            }
        }
        let mut bodies: Vec<Vec<u8>> = seen.into_values().map(|request| request.body).collect();
        bodies.sort();
        sent.sort();
        if is_sound && (answers.iter().any(Option::is_none) || bodies != sent) {
            let told = |bodies: &[Vec<u8>]| {
                let told = bodies.iter().map(|body| body.escape_ascii().to_string());
                told.collect::<Vec<_>>().join(", ")
            };
            return Err(format!(
                "sound requests with [{}] are seen with [{}]",
                told(&sent),
                told(&bodies)
            ));
        }
        tally.note(if is_sound { "sound" } else { "changed" });
        Ok(())
    }
}

/// Makes requests side by side, over frames that are changed on their way. Gives the answer to each,
/// `None` when it got none, and the bodies.
async fn requests<S>(
    changing: Changing<S>,
    random: &mut Rng,
) -> (Vec<Option<Answered>>, Vec<Vec<u8>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let count = random.usize(1..=MOST_REQUESTS);
    let has_changed = changing.has_changed.clone();
    let Ok((mut sender, connection)) = h2::client::handshake(changing).await else {
        return (Vec::new(), Vec::new());
    };
    let driver = tokio::spawn(connection);
    let (mut waiting, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let Ok(Ok(ready)) = tokio::time::timeout(PATIENCE, sender.clone().ready()).await else {
            break;
        };
        sender = ready;
        let request = http::Request::post("https://gate.test/v1/portrait/segment")
            .header("x-api-key", RETAIL_KEY)
            .body(())
            .unwrap();
        let parts = random.usize(0..4);
        let Ok((answer, mut stream)) = sender.send_request(request, parts == 0) else {
            break;
        };
        for part in 1..=parts {
            let _ = stream.send_data(Bytes::from_static(PART), part == parts);
        }
        sent.push(PART.repeat(parts));
        waiting.push(tokio::spawn(answered(answer)));
    }
    let mut answers = Vec::new();
    for task in waiting {
        // A sound request is waited for as long as a loaded machine takes.
        let patience = match has_changed.load(Relaxed) {
            true => PATIENCE,
            false => BOUND,
        };
        let answer = tokio::time::timeout(patience, task).await;
        answers.push(answer.ok().and_then(Result::ok).flatten());
    }
    drop(sender);
    driver.abort();
    (answers, sent)
}
