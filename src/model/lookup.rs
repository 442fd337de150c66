//! Look-ups of names: one at a time for each name, shared by all calls that wait for it.
//!
//! Owns the threads that ask the system's resolver, which a silent name server holds for half a
//! minute. Must never wait for one at the end of the process, nor have more of them because more
//! calls wait (P7).

use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use tokio::sync::watch;

/// The result of a look-up. An [`io::Error`] cannot be cloned, so its kind and its text stand here.
type Resolved = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// A host and a port to connect to.
pub(crate) struct Host {
    name: String,
    port: u16,
    /// The last look-up that was begun; `None` in it while it runs.
    last: Mutex<Option<watch::Receiver<Option<Resolved>>>>,
}

impl Host {
    /// `name` may be an IP address, without brackets.
    pub(crate) fn new(name: String, port: u16) -> Self {
        Self {
            name,
            port,
            last: Mutex::default(),
        }
    }

    /// Its addresses, in the system's order, as a look-up that ends after this was asked has them.
    /// An IP address is not looked up. Waits as long as the system's resolver does: bound it, and
    /// drop it at will.
    ///
    /// # Errors
    /// The resolver's error.
    pub(crate) async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.name.parse() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        let mut found = self.look_up()?;
        match found.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(addresses))) => Ok(addresses.clone()),
            Ok(Some(Err((kind, why)))) => Err(io::Error::new(*kind, why.clone())),
            Ok(None) | Err(_) => Err(io::Error::other("the look-up ended without a result")),
        }
    }

    /// Joins the look-up that runs, or begins one. A thread and not the runtime's pool: that is
    /// waited for when the runtime ends.
    fn look_up(&self) -> io::Result<watch::Receiver<Option<Resolved>>> {
        let mut last = self.last.lock();
        let runs = |found: &&watch::Receiver<Option<Resolved>>| {
            // An error says that its thread is gone.
            found.has_changed().is_ok() && found.borrow().is_none()
        };
        if let Some(found) = last.as_ref().filter(runs) {
            return Ok(found.clone());
        }
        let (tell, found) = watch::channel(None);
        let (name, port) = (self.name.clone(), self.port);
        std::thread::Builder::new()
            .name("look-up".into())
            .spawn(move || {
                let addresses = (name.as_str(), port).to_socket_addrs();
                let found: Resolved = addresses
                    .map(Iterator::collect)
                    .map_err(|error| (error.kind(), error.to_string()));
                tell.send_replace(Some(found));
            })?;
        *last = Some(found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_its_own_and_a_name_is_looked_up_each_time_that_it_is_asked_for() {
        for (literal, address) in [("127.0.0.9", "127.0.0.9:80"), ("::1", "[::1]:80")] {
            let host = Host::new(literal.to_owned(), 80);
            assert_eq!(host.addresses().await.unwrap(), [address.parse().unwrap()]);
            assert!(host.last.lock().is_none(), "nothing was looked up");
        }
        let host = Host::new("localhost".to_owned(), 80);
        for _ in 0..3 {
            let addresses = host.addresses().await.unwrap();
            assert!(
                addresses
                    .iter()
                    .all(|a| a.ip().is_loopback() && a.port() == 80)
            );
            assert!(!addresses.is_empty());
        }
        let nul = Host::new("no\0name".to_owned(), 80);
        for _ in 0..2 {
            assert!(nul.addresses().await.is_err());
        }
    }

    #[tokio::test]
    async fn who_asks_while_a_look_up_runs_shares_it_and_one_that_died_is_begun_again() {
        let host = Host::new("localhost".to_owned(), 80);
        let (tell, running) = watch::channel(None);
        *host.last.lock() = Some(running);
        let shared = async {
            let both = tokio::join!(host.addresses(), host.addresses());
            [both.0.unwrap(), both.1.unwrap()]
        };
        let told = async {
            tokio::task::yield_now().await;
            tell.send_replace(Some(Ok(vec![([192, 0, 2, 1], 80).into()])));
        };
        let (found, ()) = tokio::join!(shared, told);
        let told: SocketAddr = ([192, 0, 2, 1], 80).into();
        assert_eq!(found, [[told], [told]]);
        assert!(host.addresses().await.unwrap()[0].ip().is_loopback());

        let (dies, running) = watch::channel(None);
        *host.last.lock() = Some(running);
        drop(dies);
        assert!(host.addresses().await.unwrap()[0].ip().is_loopback());
    }
}
