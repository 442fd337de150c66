//! Readers of the process that writes the ledger, while its files are exchanged under it.

use crate::ledger::files::suffixed;
use crate::ledger::handle::tests::{Bench, close, eventually, varied};
use crate::ledger::{LedgerError, Reader, backup};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn moved(from: &Path, to: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = fs::rename(suffixed(from, end), suffixed(to, end));
    }
}

#[test]
fn a_reader_of_the_running_gate_refuses_another_ledger_and_an_older_copy_of_its_own() {
    let (bench, other) = (Bench::new(), Bench::new());
    let ledger = other.open();
    other.commit_all(&ledger, (1..=9).map(varied));
    close(&ledger);
    let ledger = bench.open();
    bench.commit_all(&ledger, (1..=3).map(varied));
    let (older, aside) = (bench.home.path().join("b.db"), bench.home.path().join("a"));
    backup(&bench.path(), &older).unwrap();
    bench.commit_all(&ledger, (4..=5).map(varied));
    let link = other.home.path().join("link.db");
    symlink(bench.path(), &link).unwrap();

    moved(&bench.path(), &aside);
    fs::copy(other.path(), bench.path()).unwrap();
    for name in [&bench.path(), &link] {
        let refused = Reader::open(name).unwrap_err();
        assert!(matches!(refused, LedgerError::Another { .. }), "{refused}");
    }
    // Whoever looks at the file under its own name, and not in the place of this gate's, may read
    // it.
    assert_eq!(other.reader().last_seq().unwrap(), 9);

    fs::copy(&older, bench.path()).unwrap();
    let refused = Reader::open(&bench.path()).unwrap_err();
    let (found, written) = (3, 5);
    assert!(
        matches!(refused, LedgerError::Older { found: f, written: w } if (f, w) == (found, written)),
        "{refused}"
    );
    moved(&aside, &bench.path());
    assert_eq!(bench.reader().last_seq().unwrap(), 5);

    // Its folder became a link to another one.
    let (folder, kept) = (bench.home.path(), other.home.path().join("kept"));
    fs::rename(folder, &kept).unwrap();
    symlink(other.home.path(), folder).unwrap();
    let refused = Reader::open(&bench.path()).unwrap_err();
    assert!(matches!(refused, LedgerError::Another { .. }), "{refused}");
    fs::remove_file(folder).unwrap();
    fs::rename(&kept, folder).unwrap();
    assert_eq!(bench.reader().last_seq().unwrap(), 5);

    // It is nobody's any more.
    close(&ledger);
    fs::copy(other.path(), bench.path()).unwrap();
    assert_eq!(bench.reader().last_seq().unwrap(), 9);
}

#[test]
fn a_gate_to_which_no_call_comes_notices_another_ledger_as_soon_as_it_is_read() {
    let (bench, other) = (Bench::new(), Bench::new());
    close(&other.open());
    let ledger = bench.open();
    let aside = bench.home.path().join("a");
    moved(&bench.path(), &aside);
    fs::copy(other.path(), bench.path()).unwrap();
    let refused = ledger.reader().unwrap_err();
    assert!(matches!(refused, LedgerError::Another { .. }), "{refused}");
    assert!(!ledger.healthy());
    moved(&aside, &bench.path());
    eventually("its own is back", || ledger.healthy());
    assert_eq!(ledger.reader().unwrap().last_seq().unwrap(), 0);
    close(&ledger);
}
