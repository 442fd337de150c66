//! The binary that is measured: shared by the benchmarks.

use std::path::PathBuf;
use std::process::Command;

/// That of `BENCH_BINARY`, else this crate's own.
pub(crate) fn path() -> PathBuf {
    let given = std::env::var_os("BENCH_BINARY").filter(|path| !path.is_empty());
    given.map_or(env!("CARGO_BIN_EXE_tollgate").into(), PathBuf::from)
}

/// What it says of its version.
pub(crate) fn version() -> String {
    let said = Command::new(path()).arg("--version").output();
    let said = said.expect("the binary that is measured").stdout;
    String::from_utf8_lossy(&said).trim().to_owned()
}
