//! The status page: what a person sees who opens the admin listener in a browser.
//!
//! Owns the page's files, which hold no data, and the figures that they draw. Must never give a browser
//! more than it shows, nor take anything from the way of a call but counts.
//!
//! # Decided
//! - **The page is served without the token, its data never.** A browser cannot send a token when it
//!   opens an address, so the page asks for it and sends it itself.
//! - **Where many look, it is counted once.** What is told each second is made once for all pages; what
//!   needs all accounts is counted at most once a second.

mod account;
mod books;
mod files;
mod history;
mod hours;
mod list;
mod live;
mod news;
mod now;
mod rows;
mod sampler;
mod state;
mod tally;

pub(super) use account::account_hour;
pub(super) use books::books;
pub(super) use files::{file, home_for_browsers};
pub(super) use list::list;
pub(super) use live::{history, live, now};
pub(super) use news::news;
pub(super) use sampler::sample_for_ever;
pub(super) use state::Page;
