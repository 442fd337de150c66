//! Clients that call at a steady pace over kept connections, whatever they are told.

use crate::harness::{Client, eventually, segment};
use http::StatusCode;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tollgate::testing::model::{Clock, Mono};

/// What a client was told of a call.
#[derive(Clone, Debug)]
pub struct Told {
    /// The index of the gate.
    pub replica: usize,
    pub key: &'static str,
    pub sent: Mono,
    pub told: Mono,
    pub status: StatusCode,
    /// `Retry-After`; empty when there is none.
    pub retry_after: String,
    /// The type of the problem; empty when there is none.
    pub problem: String,
}

/// The clients, until they are ended.
#[derive(Default)]
pub struct Spray {
    clients: JoinSet<()>,
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Told>>>,
}

impl Spray {
    /// Calls a gate `per_second` times a second over some connections, which take turns.
    pub fn at(&mut self, replica: usize, public: SocketAddr, key: &'static str, per_second: u32) {
        let connections = (per_second / 10).clamp(1, 12);
        let pause = Duration::from_secs(1) * connections / per_second;
        for nth in 0..connections {
            let (stop, told) = (self.stop.clone(), self.told.clone());
            self.clients.spawn(async move {
                let mut tick = interval_at(Instant::now() + pause * nth / connections, pause);
                tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !stop.load(Ordering::SeqCst) {
                    let Ok(mut client) = Client::connect(public).await else {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        continue;
                    };
                    while !stop.load(Ordering::SeqCst) {
                        tick.tick().await;
                        match call(&mut client, replica, key).await {
                            Some(one) => told.lock().push(one),
                            None => break,
                        }
                    }
                }
            });
        }
    }

    /// Waits until each of these gates has admitted a call that was sent after this.
    pub async fn admitted(&self, gates: &[usize]) {
        let now = Clock::default().mono();
        eventually("each gate admits again", || {
            let told = self.told.lock();
            let of = |gate: &usize| {
                let is_one = |one: &Told| one.replica == *gate && one.status == StatusCode::OK;
                told.iter()
                    .rev()
                    .take_while(|one| one.told > now)
                    .any(|one| is_one(one) && one.sent > now)
            };
            gates.iter().all(of)
        })
        .await;
    }

    /// Ends when each client has its last answer. Gives all of them.
    pub async fn end(mut self) -> Vec<Told> {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.told.lock())
    }
}

/// One call; `None` when the gate is gone.
pub async fn call(client: &mut Client, replica: usize, key: &'static str) -> Option<Told> {
    let clock = Clock::default();
    let sent = clock.mono();
    let (status, headers, body) = client.send(segment(key)).await.ok()?;
    let told = clock.mono();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let retry_after = headers.get("retry-after");
    Some(Told {
        replica,
        key,
        sent,
        told,
        status,
        retry_after: retry_after.map_or(String::new(), |it| it.to_str().unwrap().to_owned()),
        problem: body["type"].as_str().unwrap_or_default().to_owned(),
    })
}

/// How many calls had this answer.
pub fn count(told: &[Told], status: StatusCode) -> usize {
    told.iter().filter(|one| one.status == status).count()
}
