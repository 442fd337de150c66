//! `tollgate explain`: why a call was not let through, as the gate that refused it tells.
//!
//! Owns how it is printed. Must never guess what the gate does not tell.

use crate::cli::flags_explain::ExplainFlags;
use crate::cli::operators::{ask_operators, reachable};
use crate::cli::output::{AnswerFormat, load, print};
use crate::cli::serve::control_thread;
use crate::config::AdminSettings;
use anyhow::{Context, bail};
use http::{Method, StatusCode};
use serde_json::Value;
use std::io::{self, Write};

/// Prints what the gate of this configuration tells of a call.
///
/// # Errors
/// When the gate cannot be asked, or does not know the call.
pub fn explain(flags: &ExplainFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    control_thread(async {
        let text = ask(&config.settings.admin, &flags.id.to_string()).await?;
        match flags.format {
            AnswerFormat::Json => print(|out| writeln!(out, "{}", text.trim_end())),
            AnswerFormat::Table => {
                let decision = serde_json::from_str(&text).context("the gate's answer")?;
                print(|out| table(out, &decision))
            }
        }
    })
}

async fn ask(admin: &AdminSettings, id: &str) -> anyhow::Result<String> {
    let path = format!("/v1/decisions/{id}");
    let answer = ask_operators(admin, &Method::GET, &path).await;
    let (status, body) = answer.with_context(|| {
        format!(
            "the gate's admin listener (`admin.listen`, {}) cannot be asked: does the gate run?",
            reachable(admin.listen)
        )
    })?;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK {
        return Ok(text);
    }
    let told: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    bail!("{}", told["detail"].as_str().unwrap_or(&text))
}

/// The lines of the table: what each is called, and where it stands.
const LINES: [(&str, &str); 17] = [
    ("call", "request_id"),
    ("at", "at"),
    ("decision", "decision"),
    ("reason", "reason"),
    ("told", "title"),
    ("status", "status"),
    ("code", "code"),
    ("account", "account"),
    ("key", "key"),
    ("action", "action"),
    ("mode", "mode"),
    ("calls per second", "quota_qps"),
    ("start that counts", "nth_newest_start"),
    ("next start", "next_start"),
    ("generation", "generation"),
    ("peer", "peer"),
    ("traceparent", "traceparent"),
];

fn table(out: &mut dyn Write, decision: &Value) -> io::Result<()> {
    let mut line = |name: &str, value: &Value| match value {
        Value::Null => Ok(()),
        Value::String(text) => writeln!(out, "{name:18}  {text}"),
        other => writeln!(out, "{name:18}  {other}"),
    };
    for (name, key) in LINES {
        line(name, &decision[key])?;
    }
    if let Some(group) = decision["limiter"]["group"].as_str() {
        let action = decision["limiter"]["action"].as_str();
        let limiter = action.map_or(group.to_owned(), |action| {
            format!("{group}, {action} alone")
        });
        line("limiter", &limiter.into())?;
    }
    for reason in decision["because"].as_array().into_iter().flatten() {
        let said = match (&reason["rule"], &reason["order"]) {
            (Value::String(rule), _) => rule.clone(),
            (_, order) => format!(
                "{} calls per second by order {}, from {} until {}",
                reason["qps"],
                order.as_str().unwrap_or_default(),
                reason["from"].as_str().unwrap_or_default(),
                reason["until"].as_str().unwrap_or_default()
            ),
        };
        line("because", &said.into())?;
    }
    if decision["files_changed"] == true {
        let (then, now) = (&decision["generation"], &decision["generation_now"]);
        let said =
            format!("the files say otherwise since: generation {then} decided, {now} is in force");
        line("because", &said.into())?;
    }
    Ok(())
}
