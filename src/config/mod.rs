//! The three YAML files -> typed values that hold nothing wrong; all mistakes at once.
//!
//! Owns the shape of `tollgate.yaml` ([`Settings`]), `catalog.yaml` ([`Catalog`]) and
//! `accounts.yaml` ([`Account`]), and the only use of `serde_yaml`. Must never decide anything
//! about a call, never keep state between two loads, and never show a secret.
//!
//! A file passes through two steps: text -> tree with places (`yaml`), tree -> types (`reader`
//! and one module per file). A wrong value becomes a mistake and `None`, and reading goes on: a
//! check that needs a missing value is skipped, so that one slip makes one mistake.

mod accounts;
mod catalog;
mod reader;
mod settings;
mod yaml;

#[cfg(test)]
mod tests;

pub use accounts::{Account, Credential, Origin, Pack, Paid, Payment, QpsPurchase, Service};
pub use catalog::{
    ActionSpec, Catalog, Charging, Group, PackPrice, PerCall, QpsPrice, Route, Tier, TierBasis,
};
pub use settings::{AdminSettings, Endpoint, LedgerSettings, Limits, Settings, UpstreamSettings};

use reader::{Item, Source};
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The most bytes of `tollgate.yaml` and of `catalog.yaml`.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most bytes of `accounts.yaml`.
const MAX_ACCOUNTS_BYTES: u64 = 64 << 20;

/// Everything the files say, checked as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// `tollgate.yaml`.
    pub settings: Settings,
    /// `catalog.yaml`: what is sold.
    pub catalog: Catalog,
    /// `accounts.yaml`: who bought what, in the order of the file.
    pub accounts: Vec<Account>,
    /// What is allowed but likely not meant.
    pub warnings: Vec<Mistake>,
}

/// One thing wrong in a file, where it stands, and what to write instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// As given to [`load`], or joined to its directory: relative stays relative.
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
    /// One a line, without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Reads `tollgate.yaml` at `path`, the two files that it names (relative to it), and the secrets
/// that these point to. Reads files and the environment; blocks.
///
/// # Errors
/// Every mistake of all three files at once.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let mut warnings = Vec::new();
    let mut keep = |source: Source| {
        let (wrong, odd) = source.findings();
        mistakes.extend(wrong);
        warnings.extend(odd);
    };

    let source = Source::new(path.to_path_buf());
    let root = read(path, MAX_FILE_BYTES)
        .map_err(|e| source.refuse(yaml::Place::START, format!("cannot be read: {e}")))
        .ok()
        .and_then(|bytes| source.parse(&bytes));
    let (settings, paths) = root
        .as_ref()
        .map_or((None, settings::Paths::default()), |root| {
            settings::read(source.root(root))
        });
    // A file that cannot be read is a mistake of the line that names it.
    let opened = |named: Option<Item<'_>>, limit| {
        let named = named?;
        let path = source.beside(named.text()?);
        match read(&path, limit) {
            Ok(bytes) => Some((Source::new(path), bytes)),
            Err(e) => named.refuse(format!("{} cannot be read: {e}", path.display())),
        }
    };
    let catalog_file = opened(paths.catalog, MAX_FILE_BYTES);
    let accounts_file = opened(paths.accounts, MAX_ACCOUNTS_BYTES);
    keep(source);

    let mut catalog = catalog::Reading::default();
    if let Some((source, bytes)) = catalog_file {
        if let Some(root) = source.parse(&bytes) {
            catalog = catalog::read(source.root(&root));
        }
        keep(source);
    }
    let mut accounts = None;
    if let Some((source, bytes)) = accounts_file {
        if let Some(root) = source.parse(&bytes) {
            accounts = accounts::read(source.root(&root), &catalog);
        }
        keep(source);
    }

    match (settings, catalog.complete(), accounts) {
        (Some(settings), Some(catalog), Some(accounts)) if mistakes.is_empty() => Ok(Config {
            settings,
            catalog,
            accounts,
            warnings,
        }),
        _ => Err(Mistakes(mistakes)),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let taken =
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    match taken {
        Err(e) => Err(e.to_string()),
        Ok(n) if n as u64 > limit => Err(format!("it is larger than {} MiB", limit >> 20)),
        Ok(_) => Ok(bytes),
    }
}
