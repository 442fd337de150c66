//! The chain: what makes a change of an old record show.
//!
//! Owns the bytes that a record is linked by. They never change: who kept a head must find it again
//! in any later version. Documented in the head of [`ledger`](crate::ledger), for people who
//! recompute it with a program of their own.
//!
//! # Decided
//! - **The chain is made behind the commits**, with the roll-up. A link costs a tenth of a
//!   microsecond, and half of one when its row is read from the file; on the way of a commit every
//!   answer would wait for it. A head is published only of what is linked. Eight bytes of each link
//!   are kept, so that a change can be put down to the very record.

use crate::ledger::Record;
use crate::ledger::rows::FastMap;
use crate::ledger::schema::LINK_VERSION;
use rusqlite::{Connection, OptionalExtension, Row, params};
use sha2::{Digest, Sha256};

/// The link of a record: it stands for the record and all before it.
pub(super) type Link = [u8; 32];

/// The first bytes of a link, kept for each record so that a change can be told to the very row.
pub(super) const MARK: usize = 8;

/// The link before the first record.
pub(super) const ORIGIN: Link = [0; 32];

/// Series and runs whose digests are remembered. A bound, not a size.
const DIGESTS_CACHED: usize = 1 << 17;

/// The columns of [`Linked`], of the records after `?1` up to `?2`.
pub(super) const LINKED: &str =
    "SELECT seq, id, series, admitted_at, start_ns, run, status, duration_us, store_epoch, store_start_us FROM raw
    WHERE seq > ?1 AND seq <= ?2 ORDER BY seq";

/// A record as it is linked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linked {
    pub(super) seq: i64,
    pub(super) id: [u8; 16],
    pub(super) series: i64,
    pub(super) admitted_at: i64,
    pub(super) start_ns: i64,
    pub(super) run: i64,
    pub(super) status: Option<i64>,
    pub(super) duration_us: i64,
    pub(super) store: (Option<i64>, Option<i64>),
}

impl Linked {
    /// As the record stands in the file when its run and its series have these numbers.
    pub(super) fn of(seq: i64, run: i64, series: i64, record: &Record) -> Self {
        let store = record.store_start;
        Self {
            seq,
            id: record.id.0.into_bytes(),
            series,
            admitted_at: record.admitted_at.0,
            start_ns: i64::try_from(record.start.0).unwrap_or(i64::MAX),
            run,
            status: record.status.map(i64::from),
            duration_us: i64::try_from(record.duration.as_micros()).unwrap_or(i64::MAX),
            store: (
                store.map(|start| start.epoch),
                store.map(|start| start.at.0),
            ),
        }
    }

    /// Reads a row of [`LINKED`].
    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            seq: row.get(0)?,
            id: row.get(1)?,
            series: row.get(2)?,
            admitted_at: row.get(3)?,
            start_ns: row.get(4)?,
            run: row.get(5)?,
            status: row.get(6)?,
            duration_us: row.get(7)?,
            store: (row.get(8)?, row.get(9)?),
        })
    }

    /// The link after this record, in a step of this version. 113 bytes are hashed, and 16 more
    /// where a shared store decided: with the padding two blocks, and not a third.
    pub(super) fn link(&self, before: &Link, texts: &TextsDigest, version: i64) -> Link {
        // Up to version 1 there was no store, and nothing of it was linked.
        let (epoch, start_us) = match version {
            1 => (None, None),
            _ => self.store,
        };
        let has = |value: Option<i64>, bit: u8| if value.is_some() { bit } else { 0 };
        let flags = has(self.status, 1) | has(epoch, 2) | has(start_us, 4);
        let mut bytes = [0; 113 + 16];
        let mut rest = &mut bytes[..];
        let mut put = |part: &[u8]| {
            let (here, after) = std::mem::take(&mut rest).split_at_mut(part.len());
            here.copy_from_slice(part);
            rest = after;
        };
        put(before);
        put(&self.seq.to_be_bytes());
        put(&self.id);
        put(texts);
        put(&self.admitted_at.to_be_bytes());
        put(&self.start_ns.to_be_bytes());
        put(&self.run.to_be_bytes());
        put(&[flags]);
        put(&self.status.unwrap_or(0).to_be_bytes());
        put(&self.duration_us.to_be_bytes());
        let mut length = 113;
        if epoch.is_some() || start_us.is_some() {
            put(&epoch.unwrap_or(0).to_be_bytes());
            put(&start_us.unwrap_or(0).to_be_bytes());
            length += 16;
        }
        Sha256::digest(&bytes[..length]).into()
    }
}

/// The first half of the SHA-256 over the texts of a record: those of its series, and its run's
/// replica.
pub(super) type TextsDigest = [u8; 16];

/// The digests of the texts of series and runs. Each pair is read and hashed once.
#[derive(Default, Debug)]
pub(super) struct Digests(FastMap<(i64, i64, i64), TextsDigest>);

impl Digests {
    /// `None` when there is no such series or no such run.
    pub(super) fn of(
        &mut self,
        connection: &Connection,
        record: &Linked,
        version: i64,
    ) -> Result<Option<TextsDigest>, rusqlite::Error> {
        let key = (record.series, record.run, version);
        if let Some(texts) = self.0.get(&key) {
            return Ok(Some(*texts));
        }
        let texts = connection
            .prepare_cached(
                r#"SELECT billable, account, "group", action, mode, outcome, reason, replica, key
                   FROM series CROSS JOIN runs WHERE id = ?1 AND run = ?2"#,
            )?
            .query_row(params![record.series, record.run], |row| {
                digest(row, version)
            })
            .optional()?;
        if let Some(texts) = texts {
            if self.0.len() >= DIGESTS_CACHED {
                self.0.clear();
            }
            self.0.insert(key, texts);
        }
        Ok(texts)
    }
}

fn digest(row: &Row<'_>, version: i64) -> Result<TextsDigest, rusqlite::Error> {
    let mut texts = [""; 8];
    for (column, text) in (1..).zip(&mut texts) {
        *text = row.get_ref(column)?.as_str()?;
    }
    Ok(digest_of(&texts, row.get(0)?, version))
}

/// Of `account`, `group`, `action`, `mode`, `outcome`, `reason`, `replica` and `key`. Each text after
/// its length, so that no two lists of texts give the same bytes.
pub(super) fn digest_of(texts: &[&str; 8], billable: i64, version: i64) -> TextsDigest {
    let mut hash = Sha256::new();
    let texts = match version {
        // Without the key.
        1 => &texts[..7],
        _ => &texts[..],
    };
    for text in texts {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        hash.update(length.to_be_bytes());
        hash.update(text);
    }
    hash.update(billable.to_be_bytes());
    let whole: [u8; 32] = hash.finalize().into();
    let mut texts = TextsDigest::default();
    texts.copy_from_slice(&whole[..16]);
    texts
}

/// The newest link and the seq that it stands after.
pub(super) fn head(connection: &Connection) -> Result<(i64, Link), rusqlite::Error> {
    let newest = connection
        .query_row(
            "SELECT last_seq, link FROM links ORDER BY last_seq DESC LIMIT 1",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(newest.unwrap_or((0, ORIGIN)))
}

/// Links the records after `from`, whose link is `link`, up to `until`, and writes it down as one
/// step: the last link, and the marks of all. `known` are all of these records, as they stand in the
/// file, or none: then they are read. `each` sees every record. Gives the last link.
pub(super) fn extend(
    connection: &Connection,
    digests: &mut Digests,
    (from, mut link): (i64, Link),
    until: i64,
    known: &[Linked],
    mut each: impl FnMut(&Linked),
) -> Result<Link, rusqlite::Error> {
    let mut marks = Vec::new();
    let mut add = |record: &Linked| {
        let texts = digests.of(connection, record, LINK_VERSION)?;
        let texts = texts.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        link = record.link(&link, &texts, LINK_VERSION);
        marks.extend_from_slice(&link[..MARK]);
        each(record);
        Ok::<(), rusqlite::Error>(())
    };
    if known.is_empty() {
        let mut select = connection.prepare_cached(LINKED)?;
        let mut rows = select.query([from, until])?;
        while let Some(row) = rows.next()? {
            add(&Linked::read(row)?)?;
        }
    } else {
        known.iter().try_for_each(add)?;
    }
    connection
        .prepare_cached(
            "INSERT INTO links (last_seq, link, marks, version) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![until, link, marks, LINK_VERSION])?;
    Ok(link)
}
