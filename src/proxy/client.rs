//! The client of one connection, from its first call to its last; with HTTP/2, of one stream of it.
//!
//! Owns what its calls share. Must never outlive its connection, whose place it holds.

use crate::model::{AccountId, Timer};
use crate::proxy::places::{CallShare, Place};
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The client of one connection. Its calls come one after another and share this.
pub struct Client {
    pub(super) address: IpAddr,
    /// The address as text, for `X-Forwarded-For` and the log.
    pub(super) text: Arc<str>,
    /// It is a trusted proxy: what it says of the hops before it is believed.
    pub(super) is_trusted: bool,
    /// Ends the wait for the upstream's answer. Its calls use it one after another.
    pub(super) timer: Mutex<Timer>,
    /// The call that runs has a connection to the upstream.
    pub(super) is_forwarded: AtomicBool,
    pub(super) has_gone: AtomicBool,
    pub(super) place: Arc<Place>,
    /// It is a stream beside others of its connection.
    pub(super) is_stream: bool,
    /// The share of its call in the part of an account.
    share: Mutex<Option<CallShare>>,
}

impl Client {
    /// The client of a connection from `address`, which has this place.
    pub fn new(address: IpAddr, is_trusted: bool, place: Arc<Place>) -> Self {
        Self {
            address,
            text: address.to_string().into(),
            is_trusted,
            timer: Mutex::default(),
            is_forwarded: AtomicBool::new(false),
            has_gone: AtomicBool::new(false),
            place,
            is_stream: false,
            share: Mutex::default(),
        }
    }

    /// The same client on a stream of its connection. It may take one call back and wait for
    /// another.
    pub(super) fn on_stream(&self) -> Self {
        Self {
            address: self.address,
            text: self.text.clone(),
            is_trusted: self.is_trusted,
            timer: Mutex::default(),
            is_forwarded: AtomicBool::new(false),
            has_gone: AtomicBool::new(false),
            place: self.place.clone(),
            is_stream: true,
            share: Mutex::default(),
        }
    }

    /// Its address: the connection's, or the one that a header of the PROXY protocol names.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its connection's place.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its call has proven this account. False when the account holds its part of the places, or
    /// the connection has just given way.
    pub(super) fn prove(&self, account: &AccountId) -> bool {
        if !self.is_stream {
            return self.place.prove(account);
        }
        let share = self.place.share(account);
        let has_share = share.is_some();
        *self.share.lock() = share;
        has_share
    }

    /// Notes that another request of the client has come. The upstream was not asked for this one.
    pub(super) fn has_request(&self) {
        self.is_forwarded.store(false, Ordering::Relaxed);
    }

    /// Notes that the client has hung up after its whole request had come. Returns whether the call
    /// goes on: it does once the upstream has been asked, for its answer tells whether the work was
    /// done (R8).
    pub fn hung_up(&self) -> bool {
        self.has_gone.store(true, Ordering::Relaxed);
        self.is_forwarded.load(Ordering::Relaxed)
    }
}
