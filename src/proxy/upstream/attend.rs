//! What goes on beside the calls of an upstream: look-ups of names, checks, and tries of servers that
//! are out.
//!
//! Must never run on a worker.

use crate::http::Target;
use crate::http::h1::ForwardHead;
use crate::model::Mono;
use crate::proxy::upstream::exchange::exchange;
use crate::proxy::upstream::named::Upstream;
use crate::proxy::upstream::resolved::ResolvedEndpoint;
use crate::proxy::upstream::server::Server;
use crate::proxy::upstream::{UpstreamFailure, UpstreamRequest};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Method;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How often a name is looked up, and how often while no server can be used.
const LOOK_UP_EVERY: Duration = Duration::from_secs(10);
const LOOK_UP_AGAIN: Duration = Duration::from_secs(1);
/// How often at least it is asked what is due.
const IDLE: Duration = Duration::from_secs(60);

impl Upstream {
    /// Checks its servers, and tries those that are out by their calls. Runs until it is dropped.
    pub(crate) async fn attend(self: Arc<Self>) {
        let mut running = FuturesUnordered::new();
        let mut looked_at: Vec<Arc<Server>> = Vec::new();
        loop {
            let now = self.clock.mono();
            let is_one_usable = self.is_one_usable();
            let mut next = now.plus(IDLE);
            for server in self.each_server(<[_]>::to_vec) {
                let is_looked_at = looked_at.iter().any(|one| Arc::ptr_eq(one, &server));
                match self.due(&server, is_one_usable) {
                    Some(at) if at <= now && !is_looked_at => {
                        looked_at.push(server.clone());
                        running.push(self.look_at(server));
                    }
                    Some(at) if !is_looked_at => next = next.min(at),
                    _ => {}
                }
            }
            tokio::select! {
                Some(done) = running.next() => looked_at.retain(|one| !Arc::ptr_eq(one, &done)),
                () = self.clock.sleep_until(next) => {}
                () = self.lasting.news.notified() => {}
            }
        }
    }

    /// When a server is to be checked or tried.
    fn due(&self, server: &Server, is_one_usable: bool) -> Option<Mono> {
        match &self.settings.health {
            Some(health) => Some(match server.checked_at() {
                Mono(0) => Mono(0),
                at => at.plus(health.interval),
            }),
            None => server.try_at(is_one_usable),
        }
    }

    async fn look_at(&self, server: Arc<Server>) -> Arc<Server> {
        let _place = self.total.check().await;
        let has_changed = match (&self.settings.health, self.check_rule()) {
            (Some(health), Some(rule)) => {
                let asked = timeout(health.timeout, self.ask(&server, &health.path)).await;
                server.checked(asked.is_ok_and(|said| said), rule)
            }
            _ => {
                let dialled = server.dial(self.settings.connect_timeout, None).await;
                server.tried(dialled.is_ok())
            }
        };
        if has_changed {
            let (upstream, standing) = (&self.name, server.standing());
            tracing::warn!(%upstream, endpoint = %server.endpoint, address = %server.address, ?standing, "looked at");
        }
        server
    }

    /// Whether it answers a check with 2xx or 3xx.
    async fn ask(&self, server: &Server, path: &str) -> bool {
        let asked = async {
            let link = server
                .dial(self.settings.connect_timeout, None)
                .await
                .ok()?;
            let target = Target::read(&Bytes::copy_from_slice(path.as_bytes()))?;
            let mut head = ForwardHead::new(Method::GET, &target);
            head.text("host", server.endpoint.to_string());
            head.text("user-agent", "tollgate-health");
            head.text("connection", "close");
            let answer = exchange(link, UpstreamRequest::new(head, Bytes::new()));
            Some(answer.await.ok()?.status)
        };
        let status = asked.await;
        status.is_some_and(|status| status.is_success() || status.is_redirection())
    }

    /// Looks up the names of its endpoints, now and again. Runs until it is dropped.
    pub(crate) async fn look_up_names(self: Arc<Self>) {
        let names = self.endpoints.iter().filter(|of| !of.is_address());
        let each: FuturesUnordered<_> = names.map(|of| self.look_up_name(of)).collect();
        each.collect::<()>().await;
    }

    async fn look_up_name(&self, of: &ResolvedEndpoint) {
        let mut is_told = false;
        loop {
            match of.look_up().await {
                Ok(()) => {
                    self.refresh();
                    is_told = false;
                }
                Err(error) if !is_told => {
                    tracing::warn!(upstream = %self.name, endpoint = %of.endpoint, "its name cannot be looked up: {error}");
                    is_told = true;
                }
                Err(_) => {}
            }
            let again = match self.is_one_usable() {
                true => LOOK_UP_EVERY,
                false => LOOK_UP_AGAIN,
            };
            self.clock.sleep(again).await;
        }
    }

    /// Looks up all names at once, until one is found.
    pub(super) async fn look_up_first(&self) -> io::Result<()> {
        let names = self.endpoints.iter().filter(|of| !of.is_address());
        let mut each: FuturesUnordered<_> = names.map(|of| of.look_up()).collect();
        let mut failed = io::Error::other("it has no endpoint");
        while let Some(found) = each.next().await {
            match found {
                Ok(()) => {
                    self.refresh();
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Connects to each server to which no connection worked yet, and which nothing else looks at; the
    /// first failure.
    ///
    /// # Errors
    /// None of them could be reached.
    pub(crate) async fn reach(&self) -> Result<(), UpstreamFailure> {
        if self.each_server(|servers| servers.is_empty()) {
            let limit = self.settings.connect_timeout;
            let found = timeout(limit, self.look_up_first()).await;
            let late = |_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("its name was not looked up within {limit:?}"),
                ))
            };
            found
                .unwrap_or_else(late)
                .map_err(|cause| UpstreamFailure::Unreachable {
                    endpoint: self.host.clone(),
                    cause,
                })?;
        }
        let mut failed = Ok(());
        for server in self.each_server(<[_]>::to_vec) {
            if !server.is_reached() && server.try_at(true).is_none() {
                let _place = self.total.check().await;
                failed = server
                    .dial(self.settings.connect_timeout, None)
                    .await
                    .map(drop);
            }
        }
        match (self.is_up(), failed) {
            (false, Err(failure)) => Err(failure),
            (false, Ok(())) => Err(UpstreamFailure::AllOut(self.name.clone())),
            (true, _) => Ok(()),
        }
    }
}
