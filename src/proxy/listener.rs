//! Accept: the public listeners, and the places of their connections.
//!
//! Owns how many connections there are. Must never read from one, nor reset one that has connected
//! when the drain begins.

use crate::model::Mono;
use crate::proxy::Place;
use crate::proxy::admission::SECOND;
use crate::proxy::arrival::arrive;
use crate::proxy::connection;
use crate::proxy::front::{Front, Phase, reached};
use crate::proxy::sockets::{ClientStream, Listener};
use crate::proxy::worker::Worker;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Accepts and serves until the phase says otherwise and the last call has ended. The places of
/// connections are shared by all listeners: when they are taken, [`Place`] decides which connection
/// gives way. While none does, the next connections wait, unread.
pub(crate) async fn run(
    listener: Listener,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    mut phase: watch::Receiver<Phase>,
) {
    let proxy = front.proxy();
    let mut open = JoinSet::new();
    let own_phase = phase.clone();
    let serve = |open: &mut JoinSet<()>, stream: ClientStream, peer: IpAddr, place: Place| {
        if let ClientStream::Tcp(stream) = &stream
            && let Err(error) = stream.set_nodelay(true)
        {
            tracing::debug!(%peer, %error, "the connection was gone before it was served");
            return;
        }
        let place = Arc::new(place);
        let (held, front, worker) = (place.clone(), front.clone(), worker.clone());
        let phase = own_phase.clone();
        let task = open.spawn(async move {
            let arrived = arrive(stream.socket(), peer, held, front.proxy(), &phase);
            if let Some(client) = arrived.await {
                connection::serve(stream, client, front, worker, phase).await;
            }
        });
        place.is_served_by(task);
    };
    loop {
        while open.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Drain) => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: the connection stays in the backlog.
                tell_cannot_accept(&error, proxy.shared().clock.mono());
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Accept first, then take a place: an idle worker that held a place would keep it from a
        // busy one.
        let place = tokio::select! {
            place = proxy.place(peer) => place,
            () = reached(&mut phase, Phase::Abandon) => break,
        };
        serve(&mut open, stream, peer, place);
    }
    // Closing a listener resets what its backlog holds: those have connected and are served first.
    while let Some(Ok((stream, peer))) = futures_util::FutureExt::now_or_never(listener.accept()) {
        let Some(place) = proxy.free_place(peer) else {
            break;
        };
        serve(&mut open, stream, peer, place);
    }
    drop(listener);
    let all_ended = async { while open.join_next().await.is_some() {} };
    tokio::select! {
        () = all_ended => return,
        () = reached(&mut phase, Phase::Abandon) => {}
    }
    open.shutdown().await;
}

/// Warns once a second for the process. A cause that keeps one worker from accepting keeps all of
/// them, and each tries twenty times a second.
fn tell_cannot_accept(error: &io::Error, now: Mono) {
    static QUIET_UNTIL: AtomicU64 = AtomicU64::new(0);
    let until = QUIET_UNTIL.load(Relaxed);
    let next = now.plus(SECOND).0;
    if now.0 >= until
        && QUIET_UNTIL
            .compare_exchange(until, next, Relaxed, Relaxed)
            .is_ok()
    {
        tracing::warn!(%error, "cannot accept");
    }
}
