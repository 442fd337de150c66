//! `GET /v1/statements`: the months that are fixed; `GET /v1/statements/MONTH`: one of them, or the
//! month that runs as it stands.
//!
//! Must never compute an amount, nor give a fixed statement otherwise than as it was stored.

use crate::billing::books::AccountRef;
use crate::billing::{Statement, csv, money};
use crate::ledger::AccountMonth;
use crate::model::{Local, Month};
use crate::portal::form::{Format, Said, SaidBody, language};
use crate::portal::front::{Portal, Question, Source, Unread};
use crate::portal::page::statement_page;
use crate::proxy::{BadQuestion, Refusal};
use serde_json::{Value, json};

/// A statement, and its JSON: of a fixed one the very text that was stored.
struct Shown {
    statement: Statement,
    json: String,
}

impl Portal {
    /// Answers with the list of the fixed months.
    pub(super) async fn statements(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let account = &question.account;
        let body = self.read(account, move |source| {
            let Source { books, account } = source;
            let zone = &books.catalog.time_zone;
            let months = books.reader.account_months(&account.id)?;
            let listed = months.iter().map(|month| {
                json!({
                    "month": month.month,
                    "due": due(month),
                    "state": if month.debited_at.is_some() { "debited" } else { "fixed" },
                    "fixed_at": Local::new(month.fixed_at, zone),
                    "debited_at": month.debited_at.map(|at| Local::new(at, zone)),
                    "sha256": month.digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
                })
            });
            Ok(json!({
                "account": account.id,
                "time_zone": zone.iana_name(),
                "currency": books.catalog.currency,
                "statements": listed.collect::<Vec<Value>>(),
                "running": Month::of(books.now, zone).to_string(),
            }))
        });
        Ok(Said::json(body.await?.to_string()))
    }

    /// Answers with one statement, in the form that the client wants.
    pub(super) async fn statement(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let shared = self.proxy.shared();
        let (zone, now) = (
            shared.policy.load().catalog.time_zone.clone(),
            shared.clock.utc(),
        );
        let fields = &question.head.fields;
        let (asked, parameters) = (question.asked, &question.parameters);
        let wanted = parameters.month(asked, now, &zone).and_then(|month| {
            const FORMATS: [Format; 3] = [Format::Json, Format::Csv, Format::Html];
            let format = match asked.is_action {
                true => Format::Json,
                false => {
                    let named = parameters.get("format");
                    Format::wanted(named, fields, &FORMATS, "json, csv, html")?
                }
            };
            Ok((month, format))
        });
        let (month, format) = wanted.map_err(Refusal::Question)?;
        let language = language(fields);
        let text = self.read(&question.account, move |source| {
            let Shown { statement, json } = shown(source, month)?;
            Ok(match format {
                Format::Csv => {
                    let mut out = Vec::new();
                    let written = csv::csv(&mut out, &statement);
                    written.map_err(|error| Unread::Failed(error.to_string()))?;
                    out
                }
                Format::Html => statement_page(&statement, &json, language).into_bytes(),
                Format::Json | Format::JsonLines => json.into_bytes(),
            })
        });
        let end = match format {
            Format::Csv => "csv",
            Format::Html => "html",
            _ => "json",
        };
        Ok(Said {
            format,
            body: SaidBody::Whole(text.await?),
            file: Some(format!("statement-{}-{month}.{end}", question.account.id)),
        })
    }
}

/// As people read it; as it stands when it is no number.
fn due(month: &AccountMonth) -> String {
    let due = month.due.parse().map(money);
    due.map_or_else(|_| month.due.clone(), |due| due.to_string())
}

/// The account's statement of the month.
fn shown(source: &Source<'_>, month: Month) -> Result<Shown, Unread> {
    let Source { books, account } = source;
    let (name, running) = (
        month.to_string(),
        Month::of(books.now, &books.catalog.time_zone),
    );
    let unreadable = |error: serde_json::Error| Unread::Failed(error.to_string());
    if let Some(stored) = books.reader.stored_statement(&name, &account.id)? {
        return Ok(Shown {
            statement: serde_json::from_str(&stored.statement).map_err(unreadable)?,
            json: stored.statement,
        });
    }
    // A month that was fixed without a statement of this account had nothing of it.
    let is_past = books.reader.last_settlement()?;
    let is_past = is_past.is_some_and(|last| name <= last.month);
    if is_past || month > running {
        return Err(BadQuestion::NoStatement.into());
    }
    let statement = books.statement(AccountRef::from(&***account), month)?;
    // The running month may still get something.
    if month < running && statement.has_nothing() {
        return Err(BadQuestion::NoStatement.into());
    }
    let json = serde_json::to_string(&statement).map_err(unreadable)?;
    // Said first, so that nobody takes it for a bill.
    let json = json.replacen('{', "{\"provisional\":true,", 1);
    Ok(Shown { statement, json })
}
