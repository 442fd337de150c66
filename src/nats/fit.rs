//! What the stream of records and the buckets must be.
//!
//! Owns the comparison with what is there. Must never find fit what may lose a message.

use crate::nats::options::{SUBJECTS, StreamOptions};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use std::fmt;
use std::time::Duration;

/// One thing in which a stream is not what it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// As `nats stream info` or the settings call it.
    pub what: &'static str,
    /// What it is.
    pub is: String,
    /// What it must be.
    pub must_be: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, is, must_be } = self;
        write!(f, "{what} is {is} and must be {must_be}")
    }
}

/// The stream of records. It refuses what it has no room for: an outbox waits then, and a message
/// that makes room for another would be lost.
pub(in crate::nats) fn records(options: &StreamOptions) -> Config {
    Config {
        name: options.stream.clone(),
        subjects: vec![format!("{SUBJECTS}.*")],
        max_bytes: options.max_bytes,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        num_replicas: options.replicas,
        allow_direct: true,
        ..common()
    }
}

/// The stream behind a bucket. It has the last value of each key.
pub(in crate::nats) fn bucket(name: &str, replicas: usize) -> Config {
    Config {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: 1,
        max_consumers: -1,
        max_message_size: -1,
        num_replicas: replicas,
        allow_direct: true,
        allow_rollup: true,
        deny_delete: true,
        ..common()
    }
}

fn common() -> Config {
    Config {
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        ..Config::default()
    }
}

/// What is there and what must be, in the order of weight. What loses or changes no message is not
/// compared.
pub(in crate::nats) fn differences(is: &Config, must_be: &Config) -> Vec<Difference> {
    let pairs = told(is).into_iter().zip(told(must_be));
    let differ = pairs.filter(|((_, is), (_, must_be))| is != must_be);
    differ
        .map(|((what, is), (_, must_be))| Difference { what, is, must_be })
        .collect()
}

/// What of a stream is compared, as it is told.
fn told(of: &Config) -> [(&'static str, String); 16] {
    let flag = |flag: bool| if flag { "on" } else { "off" }.to_owned();
    let others = of.mirror.is_some() || of.sources.as_ref().is_some_and(|from| !from.is_empty());
    [
        ("subjects", of.subjects.join(" ")),
        ("storage", storage(of.storage).to_owned()),
        ("retention", retention(of.retention).to_owned()),
        ("discard", discard(of.discard).to_owned()),
        ("max_bytes", limit(of.max_bytes)),
        ("max_msgs", limit(of.max_messages)),
        ("max_msgs_per_subject", limit(of.max_messages_per_subject)),
        ("max_msg_size", limit(of.max_message_size.into())),
        ("max_age", age(of.max_age)),
        ("replicas", of.num_replicas.to_string()),
        ("allow_direct", flag(of.allow_direct)),
        ("no_ack", flag(of.no_ack)),
        ("sealed", flag(of.sealed)),
        ("deny_purge", flag(of.deny_purge)),
        ("a mirror or a copy of another stream", flag(others)),
        ("subject_transform", flag(of.subject_transform.is_some())),
    ]
}

const NO_LIMIT: &str = "without a limit";

fn limit(most: i64) -> String {
    match most {
        ..=0 => NO_LIMIT.to_owned(),
        most => most.to_string(),
    }
}

fn age(most: Duration) -> String {
    match most.is_zero() {
        true => NO_LIMIT.to_owned(),
        false => format!("{most:?}"),
    }
}

const fn storage(storage: StorageType) -> &'static str {
    match storage {
        StorageType::File => "file",
        StorageType::Memory => "memory",
    }
}

const fn retention(retention: RetentionPolicy) -> &'static str {
    match retention {
        RetentionPolicy::Limits => "limits",
        RetentionPolicy::Interest => "interest",
        RetentionPolicy::WorkQueue => "workqueue",
    }
}

const fn discard(discard: DiscardPolicy) -> &'static str {
    match discard {
        DiscardPolicy::New => "new",
        DiscardPolicy::Old => "old",
    }
}
