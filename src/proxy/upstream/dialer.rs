//! Connections to the upstream, opened.

use crate::model::Host;
use crate::proxy::upstream::UpstreamFailure;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// The way to the upstream. One for all workers, so that they share its look-ups.
pub struct Dialer {
    host: Host,
    /// `host:port`, for messages.
    endpoint: String,
    connect_timeout: Duration,
    on_dialled: Box<dyn Fn(bool) + Send + Sync>,
}

impl Dialer {
    /// To `host:port`. `on_dialled` is told of each attempt whether it worked.
    pub fn new(
        host: String,
        port: u16,
        connect_timeout: Duration,
        on_dialled: impl Fn(bool) + Send + Sync + 'static,
    ) -> Self {
        Self {
            endpoint: format!("{host}:{port}"),
            host: Host::new(host, port),
            connect_timeout,
            on_dialled: Box::new(on_dialled),
        }
    }

    /// A new connection to the first of its addresses that takes one.
    ///
    /// # Errors
    /// [`UpstreamFailure::Unreachable`], within the time to connect.
    pub async fn dial(&self) -> Result<TcpStream, UpstreamFailure> {
        let connected = self.connect().await;
        (self.on_dialled)(connected.is_ok());
        connected.map_err(|cause| UpstreamFailure::Unreachable {
            endpoint: self.endpoint.clone(),
            cause,
        })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let deadline = Instant::now() + self.connect_timeout;
        let late = |what: &str| {
            let why = format!("{what} within {:?}", self.connect_timeout);
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        let addresses = timeout_at(deadline, self.host.addresses())
            .await
            .map_err(|_| late("its name was not looked up"))??;
        let stream = timeout_at(deadline, TcpStream::connect(&*addresses))
            .await
            .map_err(|_| late("no connection"))??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}
