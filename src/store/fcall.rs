//! A question as a command, and the answer read.
//!
//! Owns the wire of the function `tollgate_admit_1` and the loading of its library. Must never
//! replace a library: that resets what it remembers, which is a hold for everybody.

use crate::store::bucket::Bucket;
use crate::store::question::{BadReply, Question, QuestionTerms, Said, SaidValue};
use redis::{Cmd, Value, cmd};
use std::time::Duration;

/// The library of functions, which the store runs.
const LIBRARY: &str = include_str!("tollgate.lua");
const LIBRARY_NAME: &str = "tollgate_1";
const FUNCTION: &str = "tollgate_admit_1";

/// The commands that the function runs for a start and not for a heartbeat, in an order in which
/// nothing stays of them.
pub(crate) const COMMANDS_OF_A_START: [(&str, &[&str]); 7] = [
    ("RPUSH", &["0"]),
    ("LLEN", &[]),
    ("LINDEX", &["0"]),
    ("LRANGE", &["0", "0"]),
    ("PEXPIRE", &["5000"]),
    ("PTTL", &[]),
    ("LTRIM", &["1", "0"]),
];

/// A question of nobody: its answer says the epoch and the time, and starts nothing.
pub(crate) fn heartbeat() -> Question {
    Question {
        limiter: "".into(),
        quota: 0,
        n: 0,
        max_delay: Duration::ZERO,
    }
}

/// The command of a question. `nonce` becomes a part of the name of a store's process that has none
/// yet; the answer names `number`.
pub(crate) fn command(
    bucket: Bucket,
    question: &Question,
    terms: QuestionTerms,
    nonce: &str,
    hold: Duration,
    number: i64,
) -> Cmd {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut command = cmd("FCALL");
    command
        .arg(FUNCTION)
        .arg(2)
        .arg(bucket.epoch_key())
        .arg(bucket.window_key(&question.limiter, terms.epoch))
        .arg(terms.epoch)
        .arg(terms.deadline.0)
        .arg(question.quota)
        .arg(question.n)
        .arg(micros(question.max_delay))
        .arg(nonce)
        .arg(micros(hold))
        .arg(number);
    command
}

/// Loads the library unless it is there.
pub(crate) fn load() -> Cmd {
    let mut command = cmd("FUNCTION");
    command.arg("LOAD").arg(LIBRARY);
    command
}

/// Whether the answer to [`load`] says that the library is there already.
pub(crate) fn is_loaded_already(why: &str) -> bool {
    why.contains("already exists")
}

/// Asks for the text of the library.
pub(crate) fn list() -> Cmd {
    let mut command = cmd("FUNCTION");
    command.arg("LIST").arg("LIBRARYNAME").arg(LIBRARY_NAME);
    command.arg("WITHCODE");
    command
}

/// Whether the answer to [`list`] has another text than ours, which other rules may stand in.
pub(crate) fn is_other_library(listed: &Value) -> bool {
    let Value::Array(libraries) = listed else {
        return true;
    };
    let text = |library: &Value| {
        let Value::Array(fields) = library else {
            return None;
        };
        let mut pairs = fields.chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [Value::BulkString(name), Value::BulkString(text)] if name == b"library_code" => {
                Some(text.clone())
            }
            _ => None,
        })
    };
    let is_ours = |library| text(library).is_some_and(|text| text == LIBRARY.as_bytes());
    !libraries.iter().all(is_ours)
}

/// What the function said to the question of this number.
///
/// # Errors
/// It is none of its answers to it.
pub(crate) fn read(value: Value, asked: &Question, number: i64) -> Result<Said, BadReply> {
    let nonsense = || BadReply::Nonsense("no list of texts and numbers");
    let Value::Array(values) = value else {
        return Err(nonsense());
    };
    let plain = |value| match value {
        Value::Int(number) => Ok(SaidValue::Int(number)),
        Value::BulkString(text) => Ok(SaidValue::Text(text)),
        Value::SimpleString(text) => Ok(SaidValue::Text(text.into_bytes())),
        _ => Err(nonsense()),
    };
    let values: Vec<SaidValue> = values.into_iter().map(plain).collect::<Result<_, _>>()?;
    Said::read(&values, asked, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_the_function_is_known() {
        let of_a_heartbeat = ["TIME", "HMGET", "HSET"];
        let of_a_start = COMMANDS_OF_A_START.map(|(name, _)| name);
        let mut calls = LIBRARY.split("redis.call('").skip(1).peekable();
        assert!(calls.peek().is_some());
        for call in calls {
            let name = call.split('\'').next().unwrap();
            assert!(
                of_a_heartbeat.contains(&name) || of_a_start.contains(&name),
                "{name}"
            );
        }
    }

    #[test]
    fn an_answer_of_another_shape_is_unreadable() {
        for value in [
            Value::Nil,
            Value::Int(1),
            Value::Array(vec![]),
            Value::Array(vec![Value::Nil]),
            Value::Array(vec![Value::BulkString(b"OK".to_vec())]),
        ] {
            let said = read(value, &heartbeat(), 1);
            assert!(matches!(said, Err(BadReply::Nonsense(_))), "{said:?}");
        }
    }
}
