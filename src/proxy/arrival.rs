//! Who is at the other end of a connection that has just come: the peer of its socket, or the client
//! that a trusted proxy names by the PROXY protocol before anything else.
//!
//! Must never believe such a header of anybody else, nor take a byte that follows it.

use crate::http::h1::BadHead;
use crate::http::{NoHeader, SocketRef, read_proxy_header};
use crate::proxy::front::{Phase, reached};
use crate::proxy::{Client, Place, Proxy};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The header has to be whole after this time: a proxy sends it as soon as it connects.
const HEADER: Duration = Duration::from_secs(5);
/// It is waited for so long once the drain has begun.
const LAST_HEADER: Duration = Duration::from_secs(1);

/// The client of a connection whose socket has this peer. `None`: the connection is to be closed.
/// The place is the proxy's until the client is known, and the client's from then on.
pub(super) async fn arrive(
    socket: SocketRef<'_>,
    peer: IpAddr,
    place: Arc<Place>,
    proxy: &Proxy,
    phase: &watch::Receiver<Phase>,
) -> Option<Arc<Client>> {
    let is_trusted = proxy.is_trusted(peer);
    if !is_trusted || !proxy.proxy_protocol {
        return Some(Arc::new(Client::new(peer, is_trusted, place)));
    }
    match Box::pin(named(socket, phase.clone())).await {
        Ok(Some(client)) => {
            place.is_from(proxy.counted(client));
            let is_trusted = proxy.is_trusted(client);
            Some(Arc::new(Client::new(client, is_trusted, place)))
        }
        // The proxy's own connection, or of a client that it does not name. What such a client says
        // of the hops before it is its own word.
        Ok(None) => Some(Arc::new(Client::new(peer, false, place))),
        Err(NoHeader::Other) => {
            proxy.head_refused(peer, BadHead::NoProxyHeader);
            None
        }
        Err(NoHeader::Gone) => {
            tracing::debug!(%peer, "the proxy went without a word");
            None
        }
    }
}

/// The client that the header names, in time.
async fn named(
    socket: SocketRef<'_>,
    mut phase: watch::Receiver<Phase>,
) -> Result<Option<IpAddr>, NoHeader> {
    let drained = async {
        reached(&mut phase, Phase::Drain).await;
        tokio::time::sleep(LAST_HEADER).await;
    };
    tokio::select! {
        biased;
        named = read_proxy_header(socket) => named,
        () = tokio::time::sleep(HEADER) => Err(NoHeader::Other),
        () = drained => Err(NoHeader::Gone),
    }
}
