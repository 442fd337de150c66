//! `tollgate licence list`, `apply` and `revoke`: licences for apps (R19), asked of the gate that
//! runs.
//!
//! Owns the forms of the answer. Must never write to a ledger, nor count a trial: the gate does.

use crate::cli::flags_licence::{LicenceAppFlags, LicenceCommand, LicenceListFlags};
use crate::cli::operators::{ask_operators, reachable};
use crate::cli::output::{AnswerFormat, load, print};
use crate::cli::serve::control_thread;
use anyhow::{Context, bail};
use http::{Method, StatusCode};
use serde_json::Value;
use std::io::{self, Write};
use std::path::Path;

/// Asks the gate, and prints what it says.
///
/// # Errors
/// When the gate cannot be reached or refuses, or the configuration has mistakes.
pub fn licence(command: &LicenceCommand) -> anyhow::Result<()> {
    match command {
        LicenceCommand::List(flags) => list(flags),
        LicenceCommand::Apply(flags) => {
            let said = change(flags, "apply", &[])?;
            let (kind, until) = (text(&said["kind"]), text(&said["until"]));
            print(|out| {
                let LicenceAppFlags {
                    account, package, ..
                } = flags;
                writeln!(
                    out,
                    "{package} of {account} has a {kind} licence until {until}"
                )
            })
        }
        LicenceCommand::Revoke(flags) => {
            if flags.why.trim().is_empty() {
                bail!("--why is empty: say why the licence is revoked, for whoever asks later");
            }
            let said = change(&flags.app, "revoke", &[("why", flags.why.as_str())])?;
            print(|out| revoked(out, &flags.app, &said))
        }
    }
}

fn revoked(out: &mut dyn Write, of: &LicenceAppFlags, said: &Value) -> io::Result<()> {
    let LicenceAppFlags {
        account, package, ..
    } = of;
    let at = text(&said["at"]);
    writeln!(
        out,
        "the licences of {package} of {account} that began by {at} are revoked; a device works on until its grant ends"
    )?;
    for of in said["licences"].as_array().into_iter().flatten() {
        line(out, of)?;
    }
    if text(&said["heard_by"]) == "this_gate" {
        writeln!(
            out,
            "no other gate hears of it, because they share no outbox: ask each gate, or take the order out of the accounts file of all"
        )?;
    }
    Ok(())
}

/// An order or a trial.
fn line(out: &mut dyn Write, of: &Value) -> io::Result<()> {
    let order = of.get("order").map_or("", |order| text(order));
    writeln!(
        out,
        "  {} {} {order} {} to {} {}",
        text(&of["package"]),
        text(&of["kind"]),
        text(&of["from"]),
        text(&of["until"]),
        text(&of["state"])
    )
}

fn change(flags: &LicenceAppFlags, what: &str, more: &[(&str, &str)]) -> anyhow::Result<Value> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("account", flags.account.as_str());
    query.append_pair("package", flags.package.as_str());
    query.extend_pairs(more);
    let path = format!("/v1/licences/{what}?{}", query.finish());
    ask(&flags.config.config, &Method::POST, &path)
}

fn list(flags: &LicenceListFlags) -> anyhow::Result<()> {
    let path = match &flags.account {
        Some(account) => format!("/v1/licences?account={account}"),
        None => "/v1/licences".to_owned(),
    };
    let said = ask(&flags.config.config, &Method::GET, &path)?;
    print(|out| match flags.format {
        AnswerFormat::Json => writeln!(out, "{said}"),
        AnswerFormat::Table => said
            .as_array()
            .into_iter()
            .flatten()
            .try_for_each(|account| table(out, account)),
    })
}

fn table(out: &mut dyn Write, account: &Value) -> io::Result<()> {
    let trials = &account["trials"];
    writeln!(
        out,
        "{}: {} of {} trials used",
        text(&account["account"]),
        trials["used"],
        trials["apps"]
    )?;
    for of in account["licences"].as_array().into_iter().flatten() {
        line(out, of)?;
    }
    for of in account["revoked"].as_array().into_iter().flatten() {
        let (package, at, why) = (text(&of["package"]), text(&of["at"]), text(&of["why"]));
        writeln!(out, "  {package} revoked at {at}: {why}")?;
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Asks the operators' listener of the gate that has these settings.
fn ask(path: &Path, method: &Method, target: &str) -> anyhow::Result<Value> {
    let admin = load(path)?.settings.admin;
    let mut answer = None;
    control_thread(async {
        let asked = ask_operators(&admin, method, target).await;
        answer = Some(asked.with_context(|| {
            format!(
                "no gate answers at {} (`admin.listen`): it gives out the licences, so start it",
                reachable(admin.listen)
            )
        })?);
        Ok(())
    })?;
    let (status, body) = answer.context("no answer")?;
    let said: Value = serde_json::from_slice(&body).unwrap_or_default();
    match status {
        StatusCode::OK => Ok(said),
        status => bail!("the gate refuses ({status}): {}", text(&said["detail"])),
    }
}
