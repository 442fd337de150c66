//! The bounds of the records: which are kept and which are rolled up.
//!
//! Owns what may be missing when records were deleted in good order.

use crate::ledger::verify::finding::{Mismatch, misfit};
use rusqlite::Connection;

/// The first seq that is kept and the last that is rolled up.
pub(super) fn bounds(page: &Connection) -> Result<(i64, i64), rusqlite::Error> {
    page.prepare_cached("SELECT first_kept, rolled_up FROM bounds")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// The bounds must be such as the writer makes them: records are deleted only when they are on a
/// settled month's statements or collected in another ledger, and what is sealed is frozen.
pub(super) fn only_settled_records_are_gone(page: &Connection) -> Result<(), Mismatch> {
    let (first_kept, floor, settled, frozen, sealed, rolled_up): (i64, i64, i64, i64, i64, i64) = page
        .query_row(
            "SELECT first_kept, floor,
                    max((SELECT coalesce(max(through_seq), 0) FROM settlements WHERE settled_at IS NOT NULL),
                        coalesce((SELECT most_seq FROM outbox), 0)), frozen,
                    (SELECT coalesce(max(last_seq), 0) FROM days WHERE hours IS NOT NULL), rolled_up FROM bounds",
            [],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                    row.get(5)?,
                ))
            },
        )?;
    if first_kept - 1 > settled.max(floor - 1) {
        let why = format!(
            "records up to {} are gone, and only those up to {settled} are on a settled month's statements or collected elsewhere",
            first_kept - 1
        );
        return misfit("bounds", "first_kept", why);
    }
    if frozen < sealed || frozen > rolled_up {
        let why = format!(
            "it is {frozen}; records up to {sealed} are sealed, and up to {rolled_up} rolled up"
        );
        return misfit("bounds", "frozen", why);
    }
    Ok(())
}
