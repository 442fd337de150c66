//! What is wrong in a file, where it stands, and what to write instead.
//!
//! Owns how mistakes are told. Must never hold a secret.

use std::fmt;
use std::path::PathBuf;

/// One thing wrong in a file, where it stands, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// As given to [`crate::config::load()`], or joined to its directory: relative stays relative.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong and the remedy. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Mistake {
    /// `file:line:column: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line, column) = (self.file.display(), self.line, self.column);
        write!(f, "{file}:{line}:{column}: {}", self.message)
    }
}

/// Every mistake of all files, by file (settings, catalogue, accounts), line and column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    /// As [`told`], one a line, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, line) in told(&self.0).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
        }
        Ok(())
    }
}

/// A line for each of the first hundred, and one that counts the rest. A wrong export has a mistake
/// in every account, and who reads the first ones corrects them all.
pub(crate) fn told(list: &[Mistake]) -> impl Iterator<Item = String> {
    const TOLD: usize = 100;
    let rest = match list.len().saturating_sub(TOLD) {
        0 => None,
        more => Some(format!("and {more} more like these")),
    };
    list.iter().take(TOLD).map(Mistake::to_string).chain(rest)
}

impl std::error::Error for Mistakes {}
