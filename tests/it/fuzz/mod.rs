//! The running gate against bytes that are nearly HTTP: what the upstream saw is what was counted
//! is what was recorded. Over plain HTTP and over TLS, and by frames of HTTP/2 ([`http2`]).
//!
//! Each case goes through real connections, with 0 to 8 connections kept towards an upstream that
//! reads strictly. Beside it the same bytes are read by [`strict`]; whatever the gate takes for a
//! message must be one there too, and the same. `FUZZ_REQUESTS` and `FUZZ_ANSWERS` say how many
//! cases there are (`make fuzz`), `FUZZ_SEED` which ones. A finding is printed with its bytes,
//! which belong into [`findings`].

mod door;
mod findings;
mod http2;
mod mutate;
mod strict;
mod upstream;

use crate::harness::{BOUND, Gate, RETAIL_KEY, STUDIO_KEY, VIDEO_KEY};
use door::{Door, Stream};
use fastrand::Rng;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use strict::{Answer, Bad, End, Fields, Request, Tail, values};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollgate::testing::ledger::{Reader, StoredRecord};
use tollgate::testing::model::Outcome;
use upstream::{PREPARED, Prepared, Seen, Upstream, WARM};

/// The numbers of connections to the upstream that are kept; a gate for each, and as many lanes as
/// processors are busy with.
const KEPT: [usize; 4] = [0, 1, 2, 8];
const LANES: usize = 2 * KEPT.len();
/// After so many cases the metrics are compared.
const ROUND: usize = 100;
/// So many findings end a run.
const ENOUGH: usize = 10;

/// What a lane's cases came to.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_bytes_come_the_upstream_sees_what_is_counted_and_recorded() {
    let count = number("FUZZ_REQUESTS").unwrap_or(2_000);
    run("FUZZ_REQUESTS", count, async |lane, random, tally| {
        let bytes = mutate::requests(random);
        let pieces = mutate::pieces(random, &bytes);
        let judged = lane.requests(&bytes, &pieces, tally).await;
        judged.map_err(|finding| report(&finding, &pieces))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_upstream_answers_is_passed_on_as_it_is_or_neither_passed_on_nor_billed() {
    let count = number("FUZZ_ANSWERS").unwrap_or(400);
    run("FUZZ_ANSWERS", count, async |lane, random, tally| {
        let bytes = mutate::answers(random);
        let pieces = mutate::pieces(random, &bytes);
        let judged = lane.answer(&bytes, &pieces, tally).await;
        judged.map_err(|finding| report(&finding, &pieces))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_fuzzer_found_once_is_not_found_again() {
    let mut tally = Tally::default();
    for kept in KEPT {
        let mut lane = Lane::start(kept, kept > 1).await;
        for bytes in findings::REQUESTS {
            let judged = lane.requests(bytes, &[bytes], &mut tally).await;
            judged.unwrap_or_else(|finding| panic!("{kept} kept: {}", report(&finding, &[bytes])));
        }
        for bytes in findings::ANSWERS {
            let judged = lane.answer(bytes, &[bytes], &mut tally).await;
            judged.unwrap_or_else(|finding| panic!("{kept} kept: {}", report(&finding, &[bytes])));
        }
        lane.compare_metrics().await.unwrap();
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
    )
}

/// What is wrong, and the bytes of a case as they stand in [`findings`].
fn report(finding: &str, pieces: &[&[u8]]) -> String {
    let pieces = pieces
        .iter()
        .map(|piece| format!("b\"{}\"", piece.escape_ascii()));
    format!(
        "{finding}\n    {}",
        pieces.collect::<Vec<_>>().join("\n    ")
    )
}

/// Runs so many cases, each made of a seed of its own.
async fn run<C>(name: &str, count: u64, case: C)
where
    C: AsyncFn(&mut Lane, &mut Rng, &mut Tally) -> Result<(), String> + Clone + Send + 'static,
{
    let of_tls = |nth| nth as usize >= KEPT.len();
    run_on(name, count, of_tls, case).await;
}

/// The same on lanes that speak TLS or not, as `of_tls` says.
async fn run_on<C>(
    name: &str,
    count: u64,
    of_tls: impl Fn(u64) -> bool + Copy + Send + 'static,
    case: C,
) where
    C: AsyncFn(&mut Lane, &mut Rng, &mut Tally) -> Result<(), String> + Clone + Send + 'static,
{
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..u64::MAX / 2));
    eprintln!("{count} cases from FUZZ_SEED={seed}");
    let lanes = (0..LANES as u64).map(|nth| {
        let seeds: Vec<u64> = (seed..seed + count)
            .filter(|seed| seed % LANES as u64 == nth)
            .collect();
        let case = case.clone();
        let name = name.to_owned();
        // A thread each: a lane waits for one case after another.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (mut tally, mut findings) = (Tally::default(), Vec::new());
                if seeds.is_empty() {
                    return (tally, findings);
                }
                let kept = KEPT[nth as usize % KEPT.len()];
                // Of two lanes that are alike one speaks TLS.
                let mut lane = Lane::start(kept, of_tls(nth)).await;
                for round in seeds.chunks(ROUND) {
                    for seed in round {
                        let mut random = Rng::with_seed(*seed);
                        if let Err(finding) = case(&mut lane, &mut random, &mut tally).await {
                            lane.forget().await;
                            findings
                                .push(format!("{kept} kept, FUZZ_SEED={seed} {name}=1: {finding}"));
                        }
                    }
                    if let Err(finding) = lane.compare_metrics().await {
                        findings.push(format!(
                            "{kept} kept, in {name} from {}: {finding}",
                            round[0]
                        ));
                    }
                    if findings.len() >= ENOUGH {
                        break;
                    }
                }
                (tally, findings)
            })
        })
    });
    let lanes: Vec<_> = lanes.collect();
    let (mut sum, mut findings) = (Tally::default(), Vec::new());
    for lane in lanes {
        let joined = tokio::task::spawn_blocking(move || lane.join())
            .await
            .unwrap();
        let (tally, found) = joined.expect("a lane comes to its end");
        for (what, count) in tally.0 {
            *sum.0.entry(what).or_default() += count;
        }
        findings.extend(found);
    }
    eprintln!("{:?}", sum.0);
    assert!(
        findings.is_empty(),
        "{} findings\n{}",
        findings.len(),
        findings.join("\n")
    );
    let answered = sum.0.get("answered").copied().unwrap_or_default();
    assert!(
        count < 1_000 || answered > count / 4,
        "cases that say something: {:?}",
        sum.0
    );
}

/// A gate, an upstream, and one case after another.
struct Lane {
    gate: Gate,
    door: Door,
    upstream: Upstream,
    kept: usize,
    ledger: Reader,
    last_seq: u64,
    /// Heads that must have been counted.
    received: u64,
    /// So many connections were made: each comes from a peer of its own, or failing keys would be
    /// held down.
    connections: u32,
    /// Calls of which the upstream may have seen a part.
    broken: HashMap<String, Outcome>,
}

impl Lane {
    async fn start(kept: usize, has_tls: bool) -> Self {
        let upstream = Upstream::keeping(kept).await;
        let (gate, door) = door::gate(upstream.address, has_tls).await;
        let ledger = Reader::open(&gate.ledger()).unwrap();
        Self {
            gate,
            door,
            upstream,
            kept,
            ledger,
            last_seq: 0,
            received: 0,
            connections: 0,
            broken: HashMap::new(),
        }
    }

    /// Makes the gate keep its connections again, where some were lost.
    async fn warm(&mut self) -> Result<(), String> {
        while self.upstream.open() < self.kept {
            let mut calls = tokio::task::JoinSet::new();
            for _ in 0..self.kept {
                let (door, peer) = (self.door.clone(), self.next_peer());
                let call = sound_call(WARM, "");
                calls.spawn(
                    async move { exchange(&door, peer, &[&call], &["POST".to_owned()]).await },
                );
            }
            while let Some(told) = calls.join_next().await {
                let answers = told.unwrap()?.answers;
                if answers.len() != 1 || answers[0].status != 200 {
                    return Err(format!("a sound call is answered with {answers:?}"));
                }
                self.received += 1;
            }
            let records = self.new_records()?;
            if records.len() != self.kept {
                return Err(format!(
                    "{} sound calls have {} records",
                    self.kept,
                    records.len()
                ));
            }
            self.note_seen()?;
        }
        Ok(())
    }

    fn next_peer(&mut self) -> [u8; 4] {
        self.connections += 1;
        let [_, b, c, d] = self.connections.to_be_bytes();
        [127, b, c.wrapping_add(1), d | 1]
    }

    fn new_records(&mut self) -> Result<Vec<StoredRecord>, String> {
        let records = self
            .ledger
            .records(self.last_seq, 1_000)
            .map_err(|error| error.to_string())?;
        self.last_seq = records.last().map_or(self.last_seq, |last| last.seq);
        for record in records
            .iter()
            .filter(|record| record.outcome != Outcome::Answered)
        {
            self.broken.insert(record.id.to_string(), record.outcome);
        }
        Ok(records)
    }

    /// The whole requests that the upstream saw, by id. What it saw a part of must belong to a call
    /// that broke off.
    fn note_seen(&mut self) -> Result<HashMap<String, Request>, String> {
        let mut whole = HashMap::new();
        for seen in self.upstream.take_seen() {
            match seen {
                Seen::Wrong(bytes) => {
                    return Err(format!(
                        "the upstream got what is no request: b\"{}\"",
                        bytes.escape_ascii()
                    ));
                }
                Seen::Request(request, end) => {
                    let ids = values(&request.fields, "x-request-id");
                    let [id] = *ids else {
                        return Err(format!("the upstream got {} ids: {request:?}", ids.len()));
                    };
                    let id = String::from_utf8_lossy(id).into_owned();
                    if end == End::Whole {
                        if let Some(first) = whole.insert(id, request) {
                            return Err(format!("the upstream got a call twice: {first:?}"));
                        }
                    } else if !self.broken.contains_key(&id) {
                        return Err(format!(
                            "the upstream got a part of a call that did not break off: {request:?}"
                        ));
                    }
                }
            }
        }
        Ok(whole)
    }

    /// Sends bytes over one connection and compares what became of them.
    async fn requests(
        &mut self,
        bytes: &[u8],
        pieces: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.warm().await?;
        let (whole, tail) = strict::requests(bytes);
        let mut methods: Vec<_> = whole.iter().map(|request| request.method.clone()).collect();
        let wanted = whole.len();
        if let Tail::Body(request) = &tail {
            methods.push(request.method.clone());
        }
        let peer = self.next_peer();
        let told = exchange_of(&self.door, peer, pieces, &methods, wanted).await;
        let records = self.new_records()?;
        let told = told.map_err(|finding| format!("{finding}; recorded: {records:?}"))?;
        let seen = self.note_seen()?;
        let mut case = Case {
            records: records
                .into_iter()
                .map(|record| (record.id.to_string(), record))
                .collect(),
            seen,
            answers: told.answers,
            received: 0,
        };
        let judged = case.judge(&whole, &tail, tally);
        self.received += case.received;
        judged?;
        match told.rest.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "an answer breaks off: b\"{}\"",
                told.rest.escape_ascii()
            )),
        }
    }

    /// Has the upstream answer with these bytes and compares what became of them.
    async fn answer(
        &mut self,
        bytes: &[u8],
        pieces: &[&[u8]],
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.warm().await?;
        let strict = strict::answer(bytes, "POST", true);
        let (closes, has_more) = match &strict {
            Ok((answer, rest)) => (
                !answer.persists && answer.end != End::Wrong,
                !rest.is_empty(),
            ),
            Err(_) => (true, false),
        };
        // What follows an answer comes with it: what comes later is another matter.
        let pieces = match has_more {
            true => vec![bytes.to_vec()],
            false => pieces.iter().map(|piece| piece.to_vec()).collect(),
        };
        // The gate looks through what it reads at once, which is so much.
        let at_once = pieces.len() == 1 && bytes.len() < 8 * 1024;
        self.upstream.prepare(Prepared { pieces, closes });
        let is_vendor = bytes.len().is_multiple_of(3);
        let first = match is_vendor {
            true => mutate::signed_call(PREPARED, "{}"),
            false => sound_call(PREPARED, "{}"),
        };
        let second = sound_call("X-Next: 1", "{}");
        let peer = self.next_peer();
        let told = exchange_in_turn(&self.door, peer, [&first, &second]).await;
        let records = self.new_records()?;
        let told = told.map_err(|finding| format!("{finding}; recorded: {records:?}"))?;
        let seen = self.note_seen()?;
        self.received += records.len() as u64;
        let mut answers = told.answers.into_iter();
        let (Some(record), answer) = (records.first(), answers.next()) else {
            return Err("a sound call has no record".to_owned());
        };
        if let Some(answer) = &answer
            && id_of(answer) != Some(record.id.to_string())
        {
            return Err(format!("an answer without its id: {answer:?} {record:?}"));
        }
        judge_answer(
            strict.map(|(answer, _)| answer),
            answer.as_ref(),
            record,
            (at_once, is_vendor),
            tally,
        )?;
        let follows = answer.is_some_and(|answer| answer.persists);
        if records.len() != 1 + usize::from(follows) || seen.len() != records.len() {
            return Err(format!(
                "{} records of {} calls: {records:?}",
                records.len(),
                seen.len()
            ));
        }
        if let Some(record) = records.get(1) {
            let answer = answers.next().ok_or("the next call is not answered")?;
            let id = record.id.to_string();
            if answer.status != 200 || !record.billable || !contains(&answer.body, &id) {
                return Err(format!("the next call gets {answer:?}, {record:?}"));
            }
        }
        Ok(())
    }

    /// After a finding: what still comes of it is no other one.
    async fn forget(&mut self) {
        let samples = self.gate.at_rest().await;
        self.received = samples.sum("tollgate_requests_received_total", &[]);
        let _ = self.new_records();
        self.upstream.take_seen();
    }

    async fn compare_metrics(&mut self) -> Result<(), String> {
        let samples = self.gate.at_rest().await;
        samples.assert_conserved();
        self.note_seen()?;
        let late = self.new_records()?;
        let received = samples.sum("tollgate_requests_received_total", &[]);
        let records = samples.sum("tollgate_records_total", &[]);
        match received == self.received && records == self.last_seq && late.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{received} requests were counted and {} were sent, {records} records were counted and {} are there, late {late:?}",
                self.received, self.last_seq
            )),
        }
    }
}

/// What became of the bytes of a connection.
struct Case {
    records: HashMap<String, StoredRecord>,
    seen: HashMap<String, Request>,
    answers: Vec<Answer>,
    /// Heads that the gate has counted.
    received: u64,
}

impl Case {
    fn judge(&mut self, whole: &[Request], tail: &Tail, tally: &mut Tally) -> Result<(), String> {
        if let Some(answer) = self.answers.iter().find(|answer| answer.end != End::Whole) {
            return Err(format!("an answer breaks off: {answer:?}"));
        }
        let mut answers = std::mem::take(&mut self.answers).into_iter();
        let mut is_closed = false;
        for request in whole {
            let Some(answer) = answers.next() else {
                return Err(format!("a whole request is not answered: {request:?}"));
            };
            let Some(id) = id_of(&answer) else {
                is_bare(&answer)?;
                tally.note("not read, though whole");

                is_closed = true;
                break;
            };
            self.received += u64::from(!is_quota(request));
            self.one(request, &id, &answer, tally)?;
            is_closed = !answer.persists;
            if request.closes && !is_closed {
                return Err(format!("the connection stays open after {request:?}"));
            }
            if is_closed {
                break;
            }
        }
        match (tail, answers.next()) {
            _ if is_closed => {}
            (Tail::End | Tail::Ignored, None) => {}
            (Tail::Head, None) => tally.note("no head"),
            (Tail::Head, Some(answer)) => {
                is_bare(&answer)?;
                tally.note("bad head");
            }
            (Tail::Body(request), Some(answer)) => match id_of(&answer) {
                None => is_bare(&answer)?,
                Some(id) => {
                    self.received += u64::from(!is_quota(request));
                    tally.note("broken body");
                    // That endpoint has no use for a body, and answers before it comes.
                    let is_told = !answer.persists && is_refusal(&answer);
                    if !is_told && !is_quota(request) {
                        return Err(format!("a broken body is answered with {answer:?}"));
                    }
                    if let Some(record) = self.records.remove(&id)
                        && (record.outcome != Outcome::ClientIncomplete || record.billable)
                    {
                        return Err(format!("a broken body is recorded as {record:?}"));
                    }
                }
            },
            (tail, answer) => return Err(format!("after {tail:?} comes {answer:?}")),
        }
        if let Some(answer) = answers.next() {
            return Err(format!("an answer too many: {answer:?}"));
        }
        if let Some(record) = self.records.values().next() {
            return Err(format!("recorded and not told: {record:?}"));
        }
        if let Some(seen) = self.seen.values().next() {
            return Err(format!("forwarded and not told: {seen:?}"));
        }
        Ok(())
    }

    /// A whole request that was answered.
    fn one(
        &mut self,
        request: &Request,
        id: &str,
        answer: &Answer,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let (record, seen) = (self.records.remove(id), self.seen.remove(id));
        let (record, seen) = match (record, seen) {
            (Some(record), Some(seen)) => (record, seen),
            (None, None) if is_refusal_of(request, answer) || is_quota(request) => {
                tally.note("refused");
                return Ok(());
            }
            (record, seen) => {
                return Err(format!(
                    "{request:?} is answered with {answer:?}, recorded as {record:?}, forwarded as {seen:?}"
                ));
            }
        };
        tally.note("answered");
        if record.outcome != Outcome::Answered || record.status != Some(200) || answer.status != 200
        {
            return Err(format!(
                "a whole request is recorded as {record:?}, answered with {answer:?}"
            ));
        }
        let is_free = record.group.as_str() == "video-segmentation";
        if record.billable == is_free {
            return Err(format!("billed wrongly: {record:?}"));
        }
        if request.method != "HEAD" && !contains(&answer.body, id) {
            return Err(format!(
                "{request:?} gets the answer to another call: {answer:?}"
            ));
        }
        if account_of(&request.fields) != Some(record.account.as_str()) {
            return Err(format!(
                "{request:?} is billed to another account: {record:?}"
            ));
        }
        if seen.method != request.method
            || seen.body != request.body
            || seen.target != origin_form(&request.target)
        {
            return Err(format!("{request:?} is forwarded as {seen:?}"));
        }
        for (name, wanted) in [
            ("x-tollgate-account", record.account.as_str()),
            ("x-tollgate-action", record.action.as_str()),
            ("x-request-id", id),
        ] {
            if values(&seen.fields, name) != [wanted.as_bytes()] {
                return Err(format!("{name} is not {wanted} alone: {seen:?}"));
            }
        }
        let is_ours = |name: &str| {
            name.starts_with("x-tollgate-")
                || [
                    "x-request-id",
                    "x-forwarded-for",
                    "content-length",
                    "transfer-encoding",
                ]
                .contains(&name)
                || (name == "host" && values(&request.fields, "host").is_empty())
        };
        no_field_is_made_up(&seen.fields, &request.fields, is_ours)
    }
}

/// Compares what the client got with what the upstream said. `strict` is that, read strictly.
fn judge_answer(
    strict: Result<Answer, Bad>,
    answer: Option<&Answer>,
    record: &StoredRecord,
    (at_once, is_vendor): (bool, bool),
    tally: &mut Tally,
) -> Result<(), String> {
    let wrong = |what: &str| {
        Err(format!(
            "{what}: the client gets {answer:?}, recorded as {record:?}, read as {strict:?}"
        ))
    };
    // An error in the gate's own words.
    let is_told = answer.is_some_and(|answer| match is_vendor {
        true => answer.status == 200 && contains(&answer.body, "\"Error\""),
        false => answer.status == 502,
    });
    if record.outcome == Outcome::UpstreamFailed {
        if !is_told || record.status.is_some() || record.billable {
            return wrong("a failure of the upstream");
        }
        tally.note(match &strict {
            Err(_) => "no answer",
            Ok(strict) => match strict.end {
                End::Wrong => "malformed",
                End::Short => return wrong("an answer that is sound so far"),
                End::Whole => "not passed on, though whole",
            },
        });
        return Ok(());
    }
    let strict = match &strict {
        Ok(strict) if strict.end != End::Wrong || !at_once => strict,
        _ => return wrong("what is no answer is passed on"),
    };
    if record.outcome != Outcome::Answered || record.status != Some(strict.status) {
        return wrong("recorded otherwise");
    }
    if is_billed(strict) != record.billable {
        return wrong("billed otherwise");
    }
    if is_vendor && strict.status != 200 {
        tally.note("answered");
        return match is_told {
            true => Ok(()),
            false => wrong("a status that the SDKs do not read"),
        };
    }
    let Some(answer) = answer else {
        // The head may not have left when the body broke.
        tally.note("cut");
        return match strict.end {
            End::Whole => wrong("a whole answer does not arrive"),
            _ => Ok(()),
        };
    };
    if answer.status != strict.status {
        return wrong("another status");
    }
    let is_ours = |name: &str| {
        let ours = [
            "x-request-id",
            "date",
            "connection",
            "content-length",
            "transfer-encoding",
        ];
        let of_dialect: &[&str] = match is_vendor {
            true => &["content-type"],
            false => &["ratelimit-policy", "ratelimit"],
        };
        ours.contains(&name) || of_dialect.contains(&name)
    };
    no_field_is_made_up(&answer.fields, &strict.fields, is_ours)?;
    match strict.end {
        End::Whole if answer.end == End::Whole && answer.body == strict.body => {
            tally.note("answered")
        }
        End::Whole => return wrong("a whole answer arrives otherwise"),
        _ if answer.end == End::Whole => return wrong("a broken answer looks whole"),
        _ if strict.body.starts_with(&answer.body) => tally.note("cut"),
        _ => return wrong("a broken answer has another beginning"),
    }
    Ok(())
}

/// Whether an answer is billed (R8).
fn is_billed(answer: &Answer) -> bool {
    let vetoes = values(&answer.fields, "x-tollgate-billable");
    let mut words = vetoes
        .iter()
        .flat_map(|value| value.split(|byte| *byte == b','));
    let is_vetoed = words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"false"));
    answer.status < 500 && !matches!(answer.status, 408 | 421 | 425 | 429) && !is_vetoed
}

/// Every field but ours is one of the other head, in the same order.
fn no_field_is_made_up(
    fields: &Fields,
    of: &Fields,
    is_ours: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let mut left = of.iter();
    for field in fields.iter().filter(|(name, _)| !is_ours(name)) {
        if !left.any(|known| known == field) {
            return Err(format!(
                "{field:?} is made up, or in another order: {fields:?} of {of:?}"
            ));
        }
    }
    Ok(())
}

/// An answer of the gate's own that counts nothing.
fn is_bare(answer: &Answer) -> Result<(), String> {
    match !answer.persists && matches!(answer.status, 400..600) && id_of(answer).is_none() {
        true => Ok(()),
        false => Err(format!("what is no request is answered with {answer:?}")),
    }
}

fn is_refusal(answer: &Answer) -> bool {
    answer.status >= 400 || contains(&answer.body, "\"Error\"")
}

/// The same, also of a HEAD that is signed by the vendor's method: its refusal is 200, and the body that
/// says so is left out.
fn is_refusal_of(request: &Request, answer: &Answer) -> bool {
    is_refusal(answer) || request.method == "HEAD" && answer.status == 200 && answer.body.is_empty()
}

/// The gate's own endpoint: no call, and answered without one.
fn is_quota(request: &Request) -> bool {
    let target = origin_form(&request.target);
    target.split(|byte| *byte == b'?').next() == Some(b"/v1/quota")
}

fn id_of(answer: &Answer) -> Option<String> {
    let ids = values(&answer.fields, "x-request-id");
    ids.first()
        .map(|id| String::from_utf8_lossy(id).into_owned())
}

/// Whose credential stands in a head.
fn account_of(fields: &Fields) -> Option<&'static str> {
    let signer = format!("TC3-HMAC-SHA256 Credential={}/", mutate::RETAIL_ID);
    let authorization = values(fields, "authorization");
    if authorization
        .iter()
        .any(|value| value.starts_with(signer.as_bytes()))
    {
        return Some("1250000002");
    }
    let bearer = |value: &'_ [u8]| {
        let (scheme, key) = value.split_at_checked(7)?;
        let is_bearer = scheme.eq_ignore_ascii_case(b"bearer ");
        is_bearer.then(|| key.trim_ascii().to_vec())
    };
    let named = values(fields, "x-api-key").into_iter().map(<[u8]>::to_vec);
    let key = named
        .chain(authorization.into_iter().filter_map(bearer))
        .next()?;
    let accounts = [
        (STUDIO_KEY, "1250000001"),
        (RETAIL_KEY, "1250000002"),
        (VIDEO_KEY, "1250000004"),
    ];
    let account = accounts.iter().find(|(known, _)| known.as_bytes() == key);
    account.map(|(_, account)| *account)
}

/// A target as it is forwarded: path and query.
fn origin_form(target: &[u8]) -> Vec<u8> {
    let target = target
        .split(|byte| *byte == b'#')
        .next()
        .unwrap_or_default();
    let scheme = target.windows(3).position(|part| part == b"://");
    let Some(scheme) = scheme.filter(|_| target[0] != b'/') else {
        return target.to_vec();
    };
    let authority = &target[scheme + 3..];
    let path = authority
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'));
    match &authority[path.unwrap_or(authority.len())..] {
        [] => b"/".to_vec(),
        query @ [b'?', ..] => [b"/", query].concat(),
        path => path.to_vec(),
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}

fn sound_call(field: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /v1/portrait/segment HTTP/1.1\r\nHost: gate.test\r\nX-Api-Key: {RETAIL_KEY}\r\n{field}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a client got over one connection.
struct ClientLog {
    answers: Vec<Answer>,
    /// What is no whole answer.
    rest: Vec<u8>,
}

/// A connection of a client that reads strictly.
struct Client {
    stream: Box<dyn Stream>,
    got: Vec<u8>,
    answers: Vec<Answer>,
    is_over: bool,
}

impl Client {
    async fn connect(door: &Door, peer: [u8; 4]) -> std::io::Result<Self> {
        Ok(Self {
            stream: door.connect(peer).await?,
            got: Vec::new(),
            answers: Vec::new(),
            is_over: false,
        })
    }

    /// Reads until there are so many answers, or no more can come.
    async fn read_until(&mut self, wanted: usize, methods: &[String]) -> Result<(), String> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let method = methods
                .get(self.answers.len())
                .map_or("POST", String::as_str);
            match strict::answer(&self.got, method, self.is_over) {
                Ok((answer, rest)) if answer.end == End::Whole || self.is_over => {
                    self.got = rest.to_vec();
                    self.answers.push(answer);
                    continue;
                }
                Ok((
                    Answer {
                        end: End::Wrong, ..
                    },
                    _,
                ))
                | Err(Bad::Wrong) => {
                    return Err(format!(
                        "the client gets what is no answer: b\"{}\"",
                        self.got.escape_ascii()
                    ));
                }
                Ok(_) | Err(Bad::Short) => {}
            }
            let says_close = self.answers.last().is_some_and(|answer| !answer.persists);
            if self.is_over || self.answers.len() >= wanted || (says_close && wanted < usize::MAX) {
                return Ok(());
            }
            match tokio::time::timeout(BOUND, self.stream.read(&mut buffer)).await {
                Err(_) => return Err(format!("nothing more comes after {:?}", self.answers)),
                Ok(Ok(0) | Err(_)) => self.is_over = true,
                Ok(Ok(read)) => self.got.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// Sends no more and reads to the end.
    async fn finish(mut self, methods: &[String]) -> Result<ClientLog, String> {
        let _ = self.stream.shutdown().await;
        self.read_until(usize::MAX, methods).await?;
        Ok(ClientLog {
            answers: self.answers,
            rest: self.got,
        })
    }
}

/// Sends pieces, reads so many answers, ends, and reads what still comes.
async fn exchange_of(
    door: &Door,
    peer: [u8; 4],
    pieces: &[&[u8]],
    methods: &[String],
    wanted: usize,
) -> Result<ClientLog, String> {
    let mut client = Client::connect(door, peer)
        .await
        .map_err(|error| error.to_string())?;
    for (nth, piece) in pieces.iter().enumerate() {
        if nth > 0 {
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        // Who has been refused may find that nobody reads any more.
        if client.stream.write_all(piece).await.is_err() || client.stream.flush().await.is_err() {
            break;
        }
    }
    client.read_until(wanted, methods).await?;
    client.finish(methods).await
}

async fn exchange(
    door: &Door,
    peer: [u8; 4],
    pieces: &[&[u8]],
    methods: &[String],
) -> Result<ClientLog, String> {
    exchange_of(door, peer, pieces, methods, methods.len()).await
}

/// Sends two calls, the second when the first was answered and the connection stays.
async fn exchange_in_turn(
    door: &Door,
    peer: [u8; 4],
    calls: [&[u8]; 2],
) -> Result<ClientLog, String> {
    let mut client = Client::connect(door, peer)
        .await
        .map_err(|error| error.to_string())?;
    for (nth, call) in calls.into_iter().enumerate() {
        let _ = client.stream.write_all(call).await;
        let _ = client.stream.flush().await;
        client.read_until(nth + 1, &[]).await?;
        if client.is_over || !client.answers.last().is_some_and(|answer| answer.persists) {
            break;
        }
    }
    client.finish(&[]).await
}
