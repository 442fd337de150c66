//! The gate as its users meet it: on real sockets, with real processes and real clients.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(
    clippy::print_stderr,
    reason = "the harness shows it of a test that fails"
)]

mod access_log;
mod admin;
mod alerts;
mod answers;
mod bad_input;
mod billers;
mod bills;
mod browser;
mod build;
mod cap;
mod collect;
mod connections;
mod crash;
mod debits;
mod decisions;
mod demo;
mod deny;
mod deploy;
mod deploy_balancer;
mod deploy_kubernetes;
mod deploy_many;
mod dist;
mod endurance;
mod events;
mod exports;
mod failing_disk;
mod files;
mod finance;
mod forwarded;
mod framing;
mod fuzz;
mod hang_up;
mod harness;
mod help;
mod hung_files;
mod identity;
mod image;
mod keys;
mod ledger_trouble;
mod licences;
mod listeners;
mod logs;
mod metrics;
mod names;
mod nats;
mod nats_access;
mod outbox;
mod pages;
mod portal;
mod probe;
mod process;
mod quota;
mod reference;
mod refused_heads;
mod reload;
mod replica;
mod replicas;
mod schemas;
mod sdk;
mod secrets;
mod status_page;
mod store;
mod streaming;
mod systemd;
mod timeouts;
mod tls;
mod trust;
mod upstream_up;
mod way;
mod wrong_ledger;
