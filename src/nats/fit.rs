//! What the stream of records and the buckets must be.
//!
//! Owns the comparison with what is there. Must never find fit what may lose a message.

use crate::nats::options::StreamOptions;
use crate::nats::records::SUBJECTS;
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
    let mut found = Vec::new();
    let mut compare = |what: &'static str, is: String, must_be: String| {
        if is != must_be {
            found.push(Difference { what, is, must_be });
        }
    };
    let texts = |subjects: &[String]| subjects.join(" ");
    compare("subjects", texts(&is.subjects), texts(&must_be.subjects));
    let word = |storage| match storage {
        StorageType::File => "file",
        StorageType::Memory => "memory",
    };
    compare(
        "storage",
        word(is.storage).into(),
        word(must_be.storage).into(),
    );
    let word = |retention| match retention {
        RetentionPolicy::Limits => "limits",
        RetentionPolicy::Interest => "interest",
        RetentionPolicy::WorkQueue => "workqueue",
    };
    compare(
        "retention",
        word(is.retention).into(),
        word(must_be.retention).into(),
    );
    let word = |discard| match discard {
        DiscardPolicy::New => "new",
        DiscardPolicy::Old => "old",
    };
    // A bucket with one value a key discards the old one all the same.
    compare(
        "discard",
        word(is.discard).into(),
        word(must_be.discard).into(),
    );
    let bytes = |bytes: i64| match bytes {
        ..=0 => "without a limit".to_owned(),
        bytes => bytes.to_string(),
    };
    compare("max_bytes", bytes(is.max_bytes), bytes(must_be.max_bytes));
    let count = |count: i64| match count {
        ..=0 => "without a limit".to_owned(),
        count => count.to_string(),
    };
    compare(
        "max_msgs",
        count(is.max_messages),
        count(must_be.max_messages),
    );
    compare(
        "max_msgs_per_subject",
        count(is.max_messages_per_subject),
        count(must_be.max_messages_per_subject),
    );
    let size = |size: i32| count(size.into());
    compare(
        "max_msg_size",
        size(is.max_message_size),
        size(must_be.max_message_size),
    );
    let age = |age: Duration| match age.is_zero() {
        true => "without a limit".to_owned(),
        false => format!("{age:?}"),
    };
    compare("max_age", age(is.max_age), age(must_be.max_age));
    compare(
        "replicas",
        is.num_replicas.to_string(),
        must_be.num_replicas.to_string(),
    );
    let flag = |flag: bool| if flag { "on" } else { "off" }.to_owned();
    compare(
        "allow_direct",
        flag(is.allow_direct),
        flag(must_be.allow_direct),
    );
    compare("no_ack", flag(is.no_ack), flag(false));
    compare("sealed", flag(is.sealed), flag(false));
    compare("deny_purge", flag(is.deny_purge), flag(false));
    let others = is.mirror.is_some() || is.sources.as_ref().is_some_and(|from| !from.is_empty());
    compare(
        "a mirror or a copy of another stream",
        flag(others),
        flag(false),
    );
    compare(
        "subject_transform",
        flag(is.subject_transform.is_some()),
        flag(false),
    );
    found
}
