//! Accept: the public listener, and the places of its connections.
//!
//! Owns how many connections there are. Must never read from one, nor reset one that has connected
//! when the drain begins.
//!
//! # Decided
//! - **`SO_REUSEPORT` listeners, after a bind without it**: a second gate on the same port must
//!   fail loudly instead of taking half of the calls.

use crate::model::Mono;
use crate::proxy::admission::SECOND;
use crate::proxy::connection;
use crate::proxy::front::{Front, Phase, reached};
use crate::proxy::worker::Worker;
use crate::proxy::{Client, Place};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

const BACKLOG: i32 = 1024;

/// Listeners for `address`, one for each worker, so that the kernel spreads the connections.
///
/// `SO_REUSEPORT` would let a second process share the port in silence. A first bind without it
/// fails then.
pub(crate) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if address.port() != 0 {
        listen(address, false)?;
    }
    let first = listen(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < workers {
        listeners.push(listen(address, true)?);
    }
    Ok(listeners)
}

fn listen(address: SocketAddr, share: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts and serves until the phase says otherwise and the last call has ended. The places of
/// connections are shared by all listeners: when they are taken, [`Place`] decides which connection
/// gives way. While none does, the next connections wait, unread.
pub(crate) async fn run(
    listener: TcpListener,
    front: Arc<dyn Front>,
    worker: Arc<Worker>,
    mut phase: watch::Receiver<Phase>,
) {
    let proxy = front.proxy();
    let mut open = JoinSet::new();
    let own_phase = phase.clone();
    let serve = |open: &mut JoinSet<()>, stream: TcpStream, peer: SocketAddr, place: Place| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection was gone before it was served");
            return;
        }
        let client = Arc::new(Client::new(peer.ip(), place));
        let task = open.spawn(connection::serve(
            stream,
            client.clone(),
            front.clone(),
            worker.clone(),
            own_phase.clone(),
        ));
        client.place().is_served_by(task);
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
            place = proxy.place(peer.ip()) => place,
            () = reached(&mut phase, Phase::Abandon) => break,
        };
        serve(&mut open, stream, peer, place);
    }
    // Closing a listener resets what its backlog holds: those have connected and are served first.
    while let Some(Ok((stream, peer))) = futures_util::FutureExt::now_or_never(listener.accept()) {
        let Some(place) = proxy.free_place(peer.ip()) else {
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
