//! `GET /v1/records`: the records of a month's calls, as an export that can be resumed.
//!
//! Owns the cursor and the pages. Must never hold more than a page of an export in memory, nor a
//! thread while its client reads.

use crate::ledger::{Cursor, RECORD_COLUMNS, Reader, StoredRecord};
use crate::model::{AccountId, Month, Utc, run_when_idle};
use crate::portal::form::{Format, Said, SaidBody};
use crate::portal::front::{Portal, Question, Unread};
use crate::portal::limits::Export;
use crate::proxy::{BadQuestion, CursorText, OwnBody, Refusal};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// Records that are read at once.
const PAGE: usize = 1_000;

/// The records that are asked for.
#[derive(Clone)]
struct Wanted {
    account: AccountId,
    from: Utc,
    until: Utc,
    format: Format,
}

/// A page of an export.
struct Page {
    text: Vec<u8>,
    /// Behind its last record.
    next: Cursor,
    /// Nothing comes after it.
    is_last: bool,
}

impl Portal {
    /// Answers with the records of the month: in a piece when they are few, else page by page. An
    /// action gets one page and the cursor behind it.
    pub(super) async fn records(&self, question: &Question<'_>) -> Result<Said, Refusal> {
        let shared = self.proxy.shared();
        let zone = shared.policy.load().catalog.time_zone.clone();
        let (parameters, account) = (&question.parameters, &question.account);
        let asked = || {
            let month = parameters.month(question.asked, shared.clock.utc(), &zone)?;
            let after = cursor(parameters.get("after"), &account.id)?;
            const FORMATS: [Format; 2] = [Format::JsonLines, Format::Csv];
            let fields = &question.head.fields;
            let named = parameters.get("format");
            let format = match question.asked.is_action {
                true => Format::Json,
                false => Format::wanted(named, fields, &FORMATS, "jsonl, csv")?,
            };
            Ok((month, after, format))
        };
        let (month, after, format) = asked().map_err(Refusal::Question)?;
        let export = self.limits.export(&account.id).ok_or(Refusal::ExportRuns)?;
        let (from, until) = month.bounds(&zone);
        let wanted = Wanted {
            account: account.id.clone(),
            from,
            until,
            format,
        };
        let first = {
            let wanted = wanted.clone();
            self.read(account, move |source| {
                let Page {
                    text,
                    next,
                    is_last,
                } = page(source.books.reader, &wanted, after)?;
                let text = match wanted.format {
                    Format::Json => in_json(&text, &wanted.account, next, is_last),
                    format => [head(format), text].concat(),
                };
                Ok(Page {
                    text,
                    next,
                    is_last,
                })
            })
        };
        let Page {
            text,
            next,
            is_last,
        } = first.await?;
        let is_whole = is_last || question.asked.is_action || question.head.method == Method::HEAD;
        let body = match is_whole {
            true => SaidBody::Whole(text),
            false => {
                let ledger = shared.ledger.path().to_owned();
                let pages = self.pages.clone();
                SaidBody::Streamed(stream(text, next, wanted, ledger, pages, export))
            }
        };
        Ok(Said {
            format,
            body,
            file: Some(file(&account.id, month, format)),
        })
    }
}

fn file(account: &AccountId, month: Month, format: Format) -> String {
    let end = match format {
        Format::Csv => "csv",
        _ => "jsonl",
    };
    format!("records-{account}-{month}.{end}")
}

/// What goes before the first record.
fn head(format: Format) -> Vec<u8> {
    match format {
        Format::Csv => format!("{RECORD_COLUMNS},cursor\n").into_bytes(),
        _ => Vec::new(),
    }
}

/// Sends page after page. Each is read when the one before is on its way, on a thread that is then
/// free again. It ends with the last record that is there, or when the client goes.
fn stream(
    first: Vec<u8>,
    next: Cursor,
    wanted: Wanted,
    ledger: PathBuf,
    pages: Arc<Semaphore>,
    export: Export,
) -> OwnBody {
    let (sender, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let _export = export;
        let (mut text, mut after, mut is_last) = (first, next, false);
        while sender.send(Ok(Bytes::from(text))).await.is_ok() && !is_last {
            let Ok(place) = pages.clone().acquire_owned().await else {
                return;
            };
            let (wanted, ledger) = (wanted.clone(), ledger.clone());
            let read = tokio::task::spawn_blocking(move || {
                let _place = place;
                // An export is never in a hurry: calls come first.
                run_when_idle(|| {
                    let reader = Reader::open(&ledger).map_err(|error| error.to_string())?;
                    page(&reader, &wanted, after).map_err(|unread| match unread {
                        Unread::Failed(why) => why,
                        Unread::Refused(bad) => bad.to_string(),
                    })
                })
            });
            let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
            match read {
                Ok(page) => (text, after, is_last) = (page.text, page.next, page.is_last),
                Err(why) => {
                    tracing::error!("an export broke off: cannot read the ledger: {why}");
                    // The client sees that it is cut off, and goes on from its last record.
                    let _ = sender.send(Err(io::Error::other(why))).await;
                    return;
                }
            }
        }
    });
    body
}

/// Reads a page and writes it out. Each record has its cursor, so that an export that breaks off
/// anywhere can be resumed behind the last whole line.
fn page(reader: &Reader, wanted: &Wanted, after: Cursor) -> Result<Page, Unread> {
    if after.seq > reader.last_seq()? {
        return Err(BadQuestion::CursorForeign.into());
    }
    let (from, until) = (wanted.from, wanted.until);
    let records = reader.records_of(&wanted.account, from, until, after, PAGE)?;
    let next = match records.last() {
        Some(last) => reader.cursor(last.seq)?,
        None => after,
    };
    let mut text = Vec::with_capacity(records.len() * 400);
    for record in &records {
        let cursor = Cursor {
            seq: record.seq,
            ..next
        };
        write(&mut text, record, wanted, cursor)
            .map_err(|error| Unread::Failed(error.to_string()))?;
    }
    Ok(Page {
        text,
        next,
        is_last: records.len() < PAGE,
    })
}

fn write(
    text: &mut Vec<u8>,
    record: &StoredRecord,
    wanted: &Wanted,
    cursor: Cursor,
) -> io::Result<()> {
    let cursor = written(&wanted.account, cursor);
    match wanted.format {
        Format::Csv => {
            record.write_csv(&mut *text)?;
            text.extend_from_slice(format!(",{cursor}\n").as_bytes());
        }
        _ => {
            serde_json::to_writer(&mut *text, record)?;
            // Before the closing brace.
            text.pop();
            text.extend_from_slice(format!(",\"cursor\":\"{cursor}\"}}\n").as_bytes());
        }
    }
    Ok(())
}

/// The lines of a page as one value.
fn in_json(lines: &[u8], account: &AccountId, next: Cursor, is_last: bool) -> Vec<u8> {
    let mut text = b"{\"records\":[".to_vec();
    let mut lines = lines.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
    if let Some(first) = lines.next() {
        text.extend_from_slice(first);
    }
    for line in lines {
        text.push(b',');
        text.extend_from_slice(line);
    }
    let rest = json!({"complete": is_last, "next_cursor": written(account, next).to_string()});
    text.extend_from_slice(b"],");
    // Without its opening brace.
    text.extend_from_slice(rest.to_string().trim_start_matches('{').as_bytes());
    text
}

/// The cursor of an account, as it is given out.
fn written(account: &AccountId, cursor: Cursor) -> CursorText {
    CursorText {
        account: Some(account.clone()),
        restore_count: cursor.restore_count,
        seq: cursor.seq,
    }
}

/// Reads a cursor that the account was given; before all records when there is none.
fn cursor(text: Option<&str>, account: &AccountId) -> Result<Cursor, BadQuestion> {
    let Some(text) = text else {
        return Ok(Cursor::from(0));
    };
    let (of, rest) = text.split_once(':').ok_or(BadQuestion::Cursor)?;
    let is_whole = rest.contains(':');
    let cursor = Cursor::parse(rest).ok().filter(|_| is_whole);
    let (of, cursor) = AccountId::new(of).zip(cursor).ok_or(BadQuestion::Cursor)?;
    match of == *account {
        true => Ok(cursor),
        false => Err(BadQuestion::CursorOfAnother),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_that_of_another_account_is_refused() {
        let account = AccountId::new("1250000001").unwrap();
        let given = Cursor {
            restore_count: 2,
            seq: 77,
        };
        let text = written(&account, given).to_string();
        assert_eq!(text, "1250000001:2:77");
        assert_eq!(cursor(Some(&text), &account), Ok(given));
        assert_eq!(cursor(None, &account), Ok(Cursor::from(0)));
        let other = AccountId::new("1250000002").unwrap();
        assert_eq!(
            cursor(Some(&text), &other),
            Err(BadQuestion::CursorOfAnother)
        );
        for text in [
            "",
            "77",
            "2:77",
            "1250000001:77",
            "1250000001:2:-7",
            "1250000001:2:77:1",
            "a b:0:1",
        ] {
            assert_eq!(
                cursor(Some(text), &account),
                Err(BadQuestion::Cursor),
                "{text}"
            );
        }
    }

    #[test]
    fn a_page_in_json_has_its_records_and_the_cursor_to_go_on_from() {
        let account = AccountId::new("a").unwrap();
        for (lines, expected) in [
            (
                "",
                "{\"records\":[],\"complete\":true,\"next_cursor\":\"a:0:7\"}",
            ),
            (
                "{\"x\":1}\n{\"x\":2}\n",
                "{\"records\":[{\"x\":1},{\"x\":2}],\"complete\":true,\"next_cursor\":\"a:0:7\"}",
            ),
        ] {
            let text = in_json(lines.as_bytes(), &account, Cursor::from(7), true);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
