//! `GET /v1/records`: the records of a month's calls, as an export that can be resumed.
//!
//! Owns the cursor and the pages. Must never hold more than a page of an export in memory, nor a
//! thread while its client reads, nor a place of the other questions.
//!
//! # Decided
//! - **An account's export counts as long as one of its reads runs**, also when its client has hung
//!   up: the guard goes with the read. Else a client that asks and hangs up would fill all places.
//! - **A customer's record keeps the ledger's `seq`.** Which statement a call is on is decided by
//!   its `seq` and the `through_seq` of the statement (R16): without both nobody could recount a
//!   bill. It tells how many calls all accounts make between two of one's own, as CUSTOMERS.md says.
//!   No other answer tells it: a cursor is never taken for more than the account's newest record.

use crate::ledger::{Cursor, RECORD_COLUMNS, Reader, RecordPage, RecordsOf, StoredRecord};
use crate::model::{AccountId, Month, ONE_REPLICAS_PART, Utc, run_when_idle};
use crate::portal::form::{Format, Said, SaidBody};
use crate::portal::front::{Portal, Question, Unread};
use crate::portal::limits::Export;
use crate::proxy::policy::ProvenKey;
use crate::proxy::{BadQuestion, CursorText, Refusal, Shared};
use bytes::Bytes;
use http::Method;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// The most records of a page.
const PAGE: usize = 1_000;
/// The most rows of the ledger that are looked at for a page, whosever they are: 50 ms.
const ROWS: u64 = 50_000;

/// After a page an export rests so many times as long as that took: a sixteenth of a processor is
/// its part, and calls beside it are as quick as without it. But a page that waited for the
/// processor has left it to others already.
const PAUSES: u32 = 15;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// The records that are asked for.
struct Wanted {
    account: AccountId,
    from: Utc,
    until: Utc,
    /// The newest record that there was when the export began; `None` before it began.
    through: Option<u64>,
    format: Format,
}

/// A page of an export.
struct Page {
    text: Vec<u8>,
    /// Behind the last row that was looked at.
    next: Cursor,
    /// Nothing comes after it.
    is_last: bool,
}

/// An export that runs.
struct Exporting {
    wanted: Wanted,
    shared: Arc<Shared>,
    /// The places of pages that are read.
    pages: Arc<Semaphore>,
    key: Arc<ProvenKey>,
    _export: Export,
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
        let exporting = Exporting {
            wanted: Wanted {
                account: account.id.clone(),
                from,
                until,
                through: None,
                format,
            },
            shared: shared.clone(),
            pages: self.pages.clone(),
            key: question.key.clone(),
            _export: export,
        };
        let first = exporting.page(after).await;
        let (page, exporting) = first.map_err(|unread| unread.refusal(&account.id))?;
        let part = self.proxy.is_replica().then_some(ONE_REPLICAS_PART);
        let text = match format {
            Format::Json => in_json(&page.text, &account.id, page.next, page.is_last, part),
            format => [head(format), page.text].concat(),
        };
        let body = match page.is_last || question.asked.is_action {
            true => SaidBody::Whole(text),
            false => {
                let (sender, body) = mpsc::channel(1);
                // To a HEAD nothing follows.
                if question.head.method != Method::HEAD {
                    tokio::spawn(exporting.stream(text, page.next, sender));
                }
                SaidBody::Streamed(body)
            }
        };
        Ok(Said {
            format,
            body,
            file: Some(file(&account.id, month, format)),
        })
    }
}

impl Exporting {
    /// Sends page after page. Each is read when the one before is on its way, on a thread that is
    /// then free again. It ends with the newest record that there was when it began, or when the
    /// client goes.
    async fn stream(
        mut self,
        first: Vec<u8>,
        mut after: Cursor,
        sender: mpsc::Sender<io::Result<Bytes>>,
    ) {
        let (mut text, mut is_last) = (first, false);
        loop {
            // A page may have no record; an empty piece would end the body.
            let goes_on = match text.is_empty() {
                true => !sender.is_closed(),
                false => sender.send(Ok(Bytes::from(text))).await.is_ok(),
            };
            if !goes_on || is_last {
                return;
            }
            let clock = self.shared.clock.clone();
            let began = clock.mono();
            match self.page(after).await {
                Ok((page, exporting)) => {
                    self = exporting;
                    // Two processors of a machine are often one core, so that a thread which yields
                    // its own still slows the other.
                    let pause = clock.mono().since(began) * PAUSES;
                    clock.sleep(pause.min(LONGEST_PAUSE)).await;
                    (text, after, is_last) = (page.text, page.next, page.is_last);
                }
                Err(unread) => {
                    let why = match unread {
                        Unread::Failed(why) => {
                            tracing::error!("an export broke off: cannot read the ledger: {why}");
                            why
                        }
                        Unread::Refused(bad) => bad.to_string(),
                        Unread::Barred => "the key does not hold any more".to_owned(),
                    };
                    // The client sees that it is cut off, and goes on from its last record.
                    let _ = sender.send(Err(io::Error::other(why))).await;
                    return;
                }
            }
        }
    }

    /// Reads a page and gives itself back. Once it has begun to read it goes on when nobody waits
    /// for it any more, and until it ends the account has no other export.
    async fn page(mut self, after: Cursor) -> Result<(Page, Self), Unread> {
        let place = self.pages.clone().acquire_owned().await;
        let place = place.map_err(|error| Unread::Failed(error.to_string()))?;
        let read = tokio::task::spawn_blocking(move || {
            let _place = place;
            // An export is never in a hurry: calls come first.
            let page = run_when_idle(|| self.read(after))?;
            Ok((page, self))
        });
        let read = read.await;
        read.unwrap_or_else(|error| Err(Unread::Failed(error.to_string())))
    }

    fn read(&mut self, after: Cursor) -> Result<Page, Unread> {
        let shared = &self.shared;
        if !self.key.holds(&shared.policy.load(), shared.clock.utc()) {
            return Err(Unread::Barred);
        }
        let reader = Reader::open(shared.ledger.path());
        let reader = reader.map_err(|error| Unread::Failed(error.to_string()))?;
        let wanted = &mut self.wanted;
        let through = match wanted.through {
            Some(through) => through,
            None => *wanted.through.insert(reader.last_seq()?),
        };
        let asked = RecordsOf {
            account: &wanted.account,
            from: wanted.from,
            until: wanted.until,
            through,
            records: PAGE,
            rows: ROWS,
        };
        page(reader.records_of(&asked, after)?, wanted)
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

/// Writes a page out. Each record has its cursor, so that an export that breaks off anywhere can be
/// resumed behind the last whole line.
fn page(read: RecordPage, wanted: &Wanted) -> Result<Page, Unread> {
    let RecordPage {
        records,
        next,
        is_last,
    } = read;
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
        is_last,
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

/// The lines of a page as one value. `part`: what they are a part of.
fn in_json(
    lines: &[u8],
    account: &AccountId,
    next: Cursor,
    is_last: bool,
    part: Option<&str>,
) -> Vec<u8> {
    let mut text = b"{\"records\":[".to_vec();
    let mut lines = lines.split(|byte| *byte == b'\n').filter(|l| !l.is_empty());
    if let Some(first) = lines.next() {
        text.extend_from_slice(first);
    }
    for line in lines {
        text.push(b',');
        text.extend_from_slice(line);
    }
    let mut rest = json!({"complete": is_last, "next_cursor": written(account, next).to_string()});
    if let Some(part) = part {
        rest["part"] = json!(part);
    }
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
            let text = in_json(lines.as_bytes(), &account, Cursor::from(7), true, None);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }
}
