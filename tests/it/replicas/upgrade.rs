//! A rolling upgrade: gates of two versions, of which each has a library of its own in the store.

use super::fleet::{Fleet, RETAIL, Store, beside, sandbox_of, seconds};
use super::oracle::Starts;
use super::spray::Spray;
use crate::cap::most_within;
use crate::figure;
use crate::harness::{RETAIL_KEY, StoreServer, eventually, said};
use http::StatusCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::testing::model::{Clock, Mono};

const MS: Duration = Duration::from_millis(1);
const QUOTA: u32 = 20;

/// The library of the version that comes after this one.
fn newer_library() -> String {
    let mut library = include_str!("../../../src/store/tollgate.lua").to_owned();
    for (own, newer) in [
        ("name=tollgate_1", "name=tollgate_2"),
        ("VERSION = 1", "VERSION = 2"),
        ("'tollgate_admit_1'", "'tollgate_admit_2'"),
    ] {
        assert_eq!(library.matches(own).count(), 1, "{own}");
        library = library.replace(own, newer);
    }
    library
}

/// A gate of the newer version, as the store sees it.
struct Newer {
    store: TcpStream,
    limiter: String,
    /// What it believes in.
    epoch: String,
    /// The starts that it was granted, by the store's clock.
    starts: Vec<i64>,
    /// The epochs that it heard of, each once in a row.
    epochs: Vec<String>,
}

impl Newer {
    async fn new(store: &StoreServer) -> Self {
        // `{tg}:w:<limiter>:<epoch>`
        let keys = store.cli(&["KEYS", "{tg}:w:*"]);
        let key = keys.lines().find(|key| key.contains(RETAIL)).unwrap();
        let limiter = key
            .trim_start_matches("{tg}:w:")
            .rsplit_once(':')
            .unwrap()
            .0;
        let said = store.cli(&["FUNCTION", "LOAD", &newer_library()]);
        assert_eq!(said.trim(), "tollgate_2");
        Self {
            store: TcpStream::connect(("127.0.0.1", store.port)).await.unwrap(),
            limiter: limiter.to_owned(),
            epoch: "0".to_owned(),
            starts: Vec::new(),
            epochs: Vec::new(),
        }
    }

    /// Asks for one call.
    async fn ask(&mut self) {
        let (limiter, epoch) = (&self.limiter, &self.epoch);
        let question = format!(
            "FCALL tollgate_admit_2 2 {{tg}}:e {{tg}}:w:{limiter}:{epoch} {epoch} {} {QUOTA} 1 50000 \
             newer 1215000 7\r\n",
            i64::MAX / 1_024,
        );
        self.store.write_all(question.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let values = loop {
            assert!(self.store.read_buf(&mut said).await.unwrap() > 0);
            let said = String::from_utf8(said.clone()).unwrap();
            if !said.ends_with("\r\n") {
                continue;
            }
            let mut lines = said.split("\r\n");
            let count = lines.next().and_then(|it| it.strip_prefix('*'));
            let count: usize = count.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
            let values = lines.filter(|it| !it.starts_with('$') && !it.is_empty());
            let values = values.map(|it| it.trim_start_matches(':').to_owned());
            let values: Vec<String> = values.collect();
            if values.len() == count {
                break values;
            }
        };
        let number = |nth: usize| values[nth].parse::<i64>().unwrap();
        if self.epochs.last() != Some(&values[1]) {
            self.epochs.push(values[1].clone());
        }
        self.epoch = values[1].clone();
        let offsets = (values[0] == "OK").then_some(7..values.len());
        let starts = offsets
            .into_iter()
            .flatten()
            .map(|nth| number(2) + number(nth));
        self.starts.extend(starts);
    }

    /// Asks 50 times a second.
    async fn ask_for(&mut self, time: Duration) {
        let until = Clock::default().mono().plus(time);
        while Clock::default().mono() < until {
            self.ask().await;
            tokio::time::sleep(20 * MS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_of_an_older_version_refuse_once_a_newer_one_keeps_the_store_and_take_nothing_back() {
    let _turn = beside().await;
    let fleet = Fleet::start(QUOTA).await;
    let mut spray = Spray::default();
    for (at, replica) in fleet.replicas.iter().enumerate() {
        spray.at(at, replica.process.public, RETAIL_KEY, QUOTA);
    }
    tokio::time::sleep(1_200 * MS).await;
    let mut newer = Newer::new(&fleet.store).await;
    // That its library is there changes nothing for the others.
    spray.admitted(&[0, 1, 2]).await;

    newer.ask().await;
    let (taken, taken_utc) = Clock::default().both();
    newer.ask_for(2_300 * MS).await;
    let again = sandbox_of(
        "gate-9",
        QUOTA,
        fleet.upstream.address,
        &fleet.store.settings(),
    );
    let serve = || said(&mut again.command(&["timeout", "20"], &["serve"]));
    let refused = tokio::task::block_in_place(serve);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("newer version"), "{refused:?}");
    // All forget which process they are: whoever comes first could begin an epoch.
    assert_eq!(fleet.store.cli(&["FUNCTION", "FLUSH"]).trim(), "OK");
    // The older ones, here.
    eventually("their library is loaded again", || {
        fleet
            .store
            .cli(&["FUNCTION", "LIST"])
            .contains("tollgate_1")
    })
    .await;
    tokio::time::sleep(200 * MS).await;
    let before = newer.starts.len();
    fleet.store.cli(&["FUNCTION", "LOAD", &newer_library()]);
    newer.ask_for(Duration::from_secs(seconds(2))).await;
    let told = spray.end().await;

    fleet.assert_conserved().await;
    let starts = Starts::judged(&fleet.replicas, RETAIL, QUOTA, &fleet.upstream.seen());
    // What was granted before starts within `max_delay`.
    let late = starts.within(taken_utc.plus(60 * MS).0, i64::MAX, |_| true);
    assert_eq!(late, 0, "starts of the older ones");
    let older = starts.0.iter().map(|it| it.store_us);
    let all = older.chain(newer.starts.iter().copied());
    let most = most_within(all.map(|us| us as u64 * 1_000).collect(), 1_000_000_000);
    assert!(most <= QUOTA as usize, "{most} starts of both versions");
    // It has its epoch, and another one since the flush.
    assert_eq!(newer.epochs.len(), 2, "{:?}", newer.epochs);
    assert!(before > 0 && newer.starts.len() > before, "{before}");
    assert_eq!(fleet.store.cli(&["HGET", "{tg}:e", "version"]).trim(), "2");

    let refused = |from: Mono| told.iter().filter(move |one| one.sent >= from);
    let away = refused(taken.plus(1_100 * MS));
    let other = away
        .clone()
        .find(|one| one.status != StatusCode::SERVICE_UNAVAILABLE);
    assert!(other.is_none(), "{other:?}");
    figure!(
        "newer version: {} calls refused by the older gates, {} starts of the newer one, {most} at \
         most in a second",
        away.count(),
        newer.starts.len()
    );
}
