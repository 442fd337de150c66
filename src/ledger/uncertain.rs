//! A batch whose calls were told an error while its rows may be in the file.
//!
//! Owns the note of it beside the ledger, `<path>-uncertain`. The writer makes such rows
//! `gate_failed` itself. When the process is killed before, the next start does so by the note.
//! Must never change a row that is counted or linked, nor one whose call was answered.
//!
//! The note is not synced: it outlives the process as the rows in the page cache do, which is what
//! it is there for.

use crate::ledger::error::{LedgerError, io_error};
use crate::ledger::files::suffixed;
use crate::ledger::record::Record;
use crate::model::{Outcome, RequestId};
use rusqlite::{Connection, params};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

/// Records that were written in one transaction: the seq and the call of the first, and how many
/// there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Uncertain {
    pub(super) first_seq: i64,
    pub(super) first: RequestId,
    pub(super) records: usize,
}

impl Uncertain {
    /// `None` when there are no records.
    pub(super) fn new(first_seq: i64, records: &[Record]) -> Option<Self> {
        records.first().map(|first| Self {
            first_seq,
            first: first.id,
            records: records.len(),
        })
    }

    /// Writes the note for the ledger at `path`, on a thread of its own: the disk may not answer
    /// that either. The receiver is told when it is written, or was not.
    pub(super) fn note(self, path: &Path) -> Receiver<()> {
        let (done, told) = sync_channel(1);
        let path = note_path(path);
        let write = move || {
            if let Err(error) = fs::write(&path, self.text()) {
                tracing::error!(
                    %error,
                    path = %path.display(),
                    first = %self.first,
                    calls = self.records,
                    "calls were told an error, and this could not be noted: if the process is killed now, they may be billed"
                );
            }
            // Nobody may wait any more.
            let _ = done.send(());
        };
        if let Err(error) = std::thread::Builder::new()
            .name("ledger-note".into())
            .spawn(write)
        {
            tracing::error!(%error, "no thread to note which calls were told an error");
        }
        told
    }

    fn text(self) -> String {
        format!("{} {} {}\n", self.first_seq, self.records, self.first)
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let note = Self {
            first_seq: words.next()?.parse().ok()?,
            records: words.next()?.parse().ok()?,
            first: RequestId(words.next()?.parse().ok()?),
        };
        words.next().is_none().then_some(note)
    }
}

fn note_path(path: &Path) -> PathBuf {
    suffixed(path, "-uncertain")
}

/// A copy of the ledger at `path` would keep what its note is to correct.
pub(super) fn refuse_noted(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    match uncorrected(connection, path)? {
        Some(note) => Err(LedgerError::Uncorrected(note)),
        None => Ok(()),
    }
}

pub(super) fn uncorrected(
    connection: &Connection,
    path: &Path,
) -> Result<Option<PathBuf>, LedgerError> {
    let note = note_path(&path.canonicalize().unwrap_or(path.to_owned()));
    let text = match fs::read_to_string(&note) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error(&note)(error)),
    };
    let Some(batch) = Uncertain::read(&text) else {
        // Nobody can tell which rows it is about.
        return Ok(Some(note));
    };
    let answered: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM raw JOIN series ON series.id = raw.series
                        WHERE seq = ?1 AND raw.id = ?2 AND outcome <> ?3)",
        params![
            batch.first_seq,
            batch.first.0.as_bytes(),
            Outcome::GateFailed.as_str()
        ],
        |row| row.get(0),
    )?;
    Ok(answered.then_some(note))
}

/// Takes the note away: its rows say what their calls were told.
pub(super) fn remove_note(path: &Path) {
    let path = note_path(path);
    match fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Harmless: rows that are `gate_failed`, counted, or of other calls are left as they are.
        Err(error) => tracing::warn!(%error, path = %path.display(), "an old note was not removed"),
    }
}

/// Makes the rows of a batch that an earlier process has noted say what their calls were told. To
/// be called before anything is written or rolled up.
pub(super) fn resolve_noted(
    path: &Path,
    fail: impl FnOnce(&Uncertain) -> Result<usize, LedgerError>,
) -> Result<(), LedgerError> {
    let note = note_path(path);
    let text = match fs::read_to_string(&note) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(&note)(error)),
    };
    match Uncertain::read(&text) {
        Some(uncertain) => {
            // None: the rows did not outlive the machine, or say so already.
            let failed = fail(&uncertain)?;
            if failed > 0 {
                tracing::warn!(
                    first_seq = uncertain.first_seq,
                    calls = failed,
                    "the last process was killed after calls had been told an error: they are recorded as such, and not billed"
                );
            }
        }
        None => {
            tracing::error!(
                path = %note.display(),
                "this note of calls that were told an error cannot be read: the newest records may be of such calls"
            );
        }
    }
    remove_note(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::backup::uncorrected_note;
    use crate::ledger::handle::tests::{Bench, DAY, record};

    #[test]
    fn a_note_is_read_as_it_was_written_and_half_of_one_not_at_all() {
        let note = Uncertain {
            first_seq: 1_000_000_000_017,
            first: RequestId(uuid::Uuid::from_u128(7 << 96)),
            records: 64,
        };
        let text = note.text();
        assert_eq!(Uncertain::read(&text), Some(note));
        for end in 0..text.len() {
            assert_eq!(Uncertain::read(&text[..end]), None, "{:?}", &text[..end]);
        }
        assert_eq!(Uncertain::read(&(text + "1")), None);
    }
    #[test]
    fn a_note_is_told_until_its_rows_say_what_the_calls_were_told() {
        let bench = Bench::new();
        let path = bench.path();
        let mut store = bench.store();
        let run = store.begin_run("gate-1", DAY).unwrap();
        store.commit(run, &[record(1), record(2)]).unwrap();
        assert_eq!(uncorrected_note(&path).unwrap(), None);
        let batch = Uncertain::new(2, &[record(2)]).unwrap();
        batch.note(&path).recv().unwrap();
        let note = note_path(&path.canonicalize().unwrap());
        assert_eq!(uncorrected_note(&path).unwrap(), Some(note.clone()));
        let failed = [record(2).into_gate_failed()];
        store.correct(2, &failed).unwrap();
        assert_eq!(uncorrected_note(&path).unwrap(), None);
        fs::write(&note, "half of a no").unwrap();
        assert_eq!(uncorrected_note(&path).unwrap(), Some(note));
    }
}
