//! What a profile-guided build is trained by: this suite's calls, on the gate alone, for about a minute.
//!
//! `deploy/release.sh` runs it with a binary that counts which way its code goes. The parts are by what the code
//! has to decide, not by what they are worth: each kind of call has seconds enough to be seen as frequent. It needs one
//! core, no peer, and compares nothing; but a gate that answers something else than a case says ends it.

use crate::cases::{Bench, Contender, PEERS};
use crate::load::{Calls, Pace, SMALL_BODY, Wire};
use crate::servers::{Accounts, Gate, Server};
use std::time::Duration;

/// Whatever cores there are: nothing is measured.
const ANY_CORE: &str = "0-1023";

pub(crate) async fn run(bench: &Bench) {
    for gate in [Gate::STRICT, Gate::RELAXED] {
        for has_tls in [false, true] {
            let gate = Gate {
                has_tls,
                cores: ANY_CORE,
                ..gate
            };
            let accounts = Accounts { large: 100 };
            let gate = Server::gate("tollgate", gate, accounts, &bench.upstream).await;
            match has_tls {
                false => plain(bench, &gate, accounts).await,
                true => over_tls(bench, &gate, accounts).await,
            }
            gate.verify().await;
        }
    }
}

async fn plain(bench: &Bench, gate: &Server, accounts: Accounts) {
    for (body_bytes, connections, seconds) in
        [(SMALL_BODY, 64, 6), (200 << 10, 16, 1), (2 << 20, 4, 1)]
    {
        let calls = Calls::with_keys(0..accounts.large, body_bytes);
        let keyed = Contender::new(gate, &calls);
        let signed = Contender::signed(gate, 16, body_bytes);
        for contender in [keyed, signed] {
            let contender = Contender {
                connections,
                ..contender
            };
            train(bench, contender, seconds).await;
        }
    }
    let calls = Calls::with_keys(0..1, SMALL_BODY);
    let contender = Contender {
        pace: Pace::PerSecond(1_000),
        ..Contender::new(gate, &calls)
    };
    train(bench, contender, 2).await;
    refused(bench, gate, accounts, Wire::Plain).await;
}

async fn over_tls(bench: &Bench, gate: &Server, accounts: Accounts) {
    let calls = Calls::with_keys(0..accounts.large, SMALL_BODY);
    for wire in [Wire::Tls, Wire::H2] {
        let contender = Contender {
            wire,
            ..Contender::new(gate, &calls)
        };
        train(bench, contender, 3).await;
        refused(bench, gate, accounts, wire).await;
    }
}

/// Over the quota of an account, and with a key that nobody has, from as many addresses as it takes for no
/// answer to be held back.
async fn refused(bench: &Bench, gate: &Server, accounts: Accounts, wire: Wire) {
    let small = accounts.throttled();
    let throttled = Calls::with_keys(small..small + 1, SMALL_BODY);
    let unknown = Calls::with_unknown_key(PEERS);
    for (calls, status) in [(throttled, 429), (unknown, 401)] {
        let contender = Contender {
            wire,
            status,
            // A binary that counts is slow, and so may the machine be.
            let_in_percent: 50,
            ..Contender::new(gate, &calls)
        };
        train(bench, contender, 2).await;
    }
}

async fn train(bench: &Bench, contender: Contender<'_>, seconds: u64) {
    let lasting = Duration::from_secs(seconds);
    let figure = contender.measure(bench, lasting).await;
    println!("trained with {:>7} calls", figure.calls);
}
