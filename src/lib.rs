//! tollgate: the gate in front of an API that is sold by the call or by the QPS.
#![doc = ""]
#![doc = include_str!("../ARCHITECTURE.md")]
//!
//! # Decisions
//! 1. **Sliding log, not a bucket.** A bucket of 20 per second lets 39 starts into one trailing second.
//!    The log of starts is exact, O(1) and 8 bytes a start (P1).
//! 2. **Starts are trimmed by the age of the newest start**, never by the caller's `now` and never by the
//!    quota: a thread that read its clock early decides late, and a quota that was cut may be raised again.
//! 3. **The quota and the standing live in the limiter**, under the lock of its window; a reload replaces
//!    them there. So a decision has one quota, and a flood is throttled from one atomic.
//! 4. **The monotonic clock is the machine's** (`CLOCK_MONOTONIC`), not the runtime's: starts of two
//!    processes can be compared, which is how a restart is shown to keep the cap.
//! 5. **One second of hold after the ledger's lock.** What an earlier process admitted is not in our
//!    windows; after a second it no longer matters.
//! 6. **A call that hangs up before it is decided counts as refused** (`client_closed`): every received call
//!    has one decision, and P4 closes.
//! 7. **TC3 bodies are read before the decision, API-key bodies stream after it.** A signature covers the
//!    body; a key does not. `UNSIGNED-PAYLOAD` streams too: nothing in its body is proven anyway.
//! 8. **An action named by `X-TC-Action` must agree with the path**, unless that is `/`: else a free
//!    action's name would open a paid action's path behind the gate.
//! 9. **Secrets stay at the gate.** API keys are not forwarded; a TC3 `Authorization` is, being no secret
//!    and verifiable by the upstream.
//! 10. **Failing credentials are held back, never locked out.** Refusing a peer would refuse its
//!     neighbours behind the same address; a delayed answer makes guessing slow all the same.
//! 11. **No tower layer on the way of a call.** The upstream is one type with one method; a boxed
//!     service in front of it would have no second user. tower sheds load at the admin listener, where
//!     queries of the ledger can pile up.
//! 12. **At `limits.connections` the connection gives way that is waited for longest and never proved a credential**: since it came, or
//!     since its first head; an upload that is ahead of the minimum pace goes last. Bytes of a head count for nothing, for they cost nothing. Only when all are
//!     proven does the next one wait, unread. A wait alone would let one peer without a key hold every place, and a 503 would have
//!     to be given to clients who did nothing wrong, in a dialect that is not known yet.
//! 13. **`SO_REUSEPORT` listeners, after a bind without it**: a second gate on the same port must fail
//!     loudly instead of taking half of the calls.
//! 14. **A vendor call whose upstream answers anything but 200 gets the envelope** `FailedOperation.ServerError`
//!     (of a 429 `ServiceUnavailable`): its SDKs lose code and message of any other status. The record keeps the upstream's status.
//! 15. **A failed commit is not durable, whatever the file shows afterwards**: after a failed sync the page cache marks as clean what
//!     the disk does not have, so a row that is read back proves nothing. After an error of the disk the ledger is written again
//!     as a whole, WAL and database, and compared with what the process knows, before a call is recorded (`ledger::repair`).
//! 16. **The rollup is written behind the commits**, with a mark of how far it came, and readers add the tail of
//!     records beyond it: as exact as one written in the commit, where it cost every answer two pages more and, at
//!     1,000 active accounts, nearly a row of `hours` for each record. A roll-up that fails fails no call, for its records are durable.
//! 17. **YAML is read into a tree with places first**: serde's derives stop at the first mistake, know no
//!     duplicate keys and lose the line.
//! 18. **A commit counts only if the ledger's files are still at their paths** (two stats a commit): SQLite in
//!     WAL mode goes on writing into a file that was deleted, and the records would go with the process.
//! 19. **An account is held once, in the policy**: a reload compares the new files with what is in force, so
//!     no second copy of the old ones is kept for it.
//! 20. **A limiter is made by its first call**, since most of many accounts are idle. It remembers of which
//!     generation its terms are: a call that is late with an older policy cannot put older ones back (P5).
//! 21. **Accounts are read in pieces when the file is written the usual way**: the parser holds every event of
//!     a document at once, twenty times the text. Whatever is found in a piece, the whole is read again to say it.
//! 22. **mimalloc instead of the C library's allocator**: a reload holds two generations for a moment, and
//!     the C library keeps the room of both (2.7 kB an account after two reloads instead of 0.95).
//! 23. **Both sides of HTTP/1.1 are written here, on httparse**: hyper's client made a task, two channels and two header maps
//!     of each call, a third of what an admitted call cost in instructions, and its server a third of a throttled one. What is
//!     ambiguous is nobody's request (400) and nobody's answer (502), and a connection is kept only when request and answer have
//!     ended. hyper has seen more of what callers send than we have: a property test feeds both, and what we take for a
//!     request it must take for the same one. We are stricter in what `README.md` lists. The admin listener is axum's.
//! 24. **Under load a commit waits for 64 records or 2 ms**, and starts at once when fewer than 4,000 come in a second: more than
//!     half of a commit is the sync, whatever is in it, so the calls that share one pay for it (`benches/README.md`).
//! 25. **A bulky body keeps its turn for a while** instead of giving way after each piece: the next piece then passes
//!     through memory that is still in the processor's cache, which saves a fifth of a large upload.
//! 26. **The newest seq at a settlement decides which statement a record is on**, and neither the time at which it was computed nor the record's
//!     age: so every record is on exactly one, and one that comes late is billed in the next month as a call of its first instant. To bill
//!     it by its own month would change what was fixed.
//! 27. **Debits are the stored statements.** There is no balance that is written: payments in the file less the sum of what was fixed is the
//!     balance, so a settlement that ends half-way and goes on cannot debit twice.
//! 28. **Arrears stand in the registry of limiters**, beside the terms and of no policy generation: they come with a settlement or a payment, and
//!     a reload in between must not undo them.
//! 29. **What is left of a pack is computed from the month's counts each time it is asked for**, by the function that makes the statement. A
//!     balance that is kept would be a second truth; an account's month is some thousand look-ups.
//! 30. **The chain is made behind the commits**, with the roll-up: a link costs a tenth of a microsecond and a half with its row, and on the way
//!     of a commit every answer would wait for it. A head is published only of what is linked. Eight bytes of each link are kept, so
//!     that a change can be put down to the very record.
//! 31. **A month is fixed by the seal of its last day**, an hour after its end, so that the head on a statement is one that was published.
//! 32. **What is settled is not undone by anybody's mistake**: a wall clock is not believed before it has kept step with the monotonic one
//!     for an hour (the kernel's NTP flag is not asked: sandboxes block the call, and many machines never set it), a catalogue's `time_zone` cannot change once months were settled by it, and a group with calls to charge but without prices is not fixed.
//! 33. **A notice that fails holds its own account and no other**: within an account the order matters, and one text that a receiver cannot
//!     read must not silence the rest. The status decides: one that may have been taken is sent again with the same id.
//! 34. **Statements have a digest of their own**, logged when a month is settled: the chain proves the calls, and only this proves
//!     what prices and orders the statements were computed with.
//! 35. **A large body passes inside the kernel** (`splice`), both ways, where its length is known and nobody has to look at it: to copy it
//!     in and out was more than half of what 2 MiB cost. Its bytes are counted all the same, so limits, pace and records see no difference;
//!     without a pipe it is copied.
//! 36. **A day is sealed in two steps**: the writer freezes the rows of the roll-up, the settler reads them beside the calls and hashes them, the
//!     writer notes the seal. A busy day has millions of rows, and no call may wait for them. A frozen row never grows, so that the seal
//!     can be made again when the records are gone.
//! 37. **A restored ledger leaves out 10^12 seqs**: what was recorded after the backup has seqs that readers know already, and to give them again would
//!     pass over calls in silence. The count of restores in a cursor says so to who reads on.

pub mod billing;

pub mod cli;
pub mod config;
pub mod control;
pub mod http;
pub mod ledger;
pub mod metrics;
pub mod model;
pub mod portal;
pub mod proxy;
