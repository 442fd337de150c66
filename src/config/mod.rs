//! The three YAML files -> typed values that hold nothing wrong; all mistakes at once.
//!
//! Owns the shape of `tollgate.yaml` ([`Settings`]), `catalog.yaml` ([`Catalog`]) and
//! `accounts.yaml` ([`Account`]), and the only use of `serde_yaml`. Must never decide anything
//! about a call, never keep state between two loads, and never show a secret.
//!
//! A file passes through two steps: text -> tree with places (`yaml`), tree -> types (`reader`, `secret`
//! and one module per file). A wrong value becomes a mistake and `None`, and reading goes on: a
//! check that needs a missing value is skipped, so that one slip makes one mistake.

mod accounts;
mod catalog;
mod changes;
mod punctuation;
mod reader;
mod restart;
mod secret;
mod settings;
mod sources;
mod yaml;

#[cfg(test)]
mod tests;

pub use accounts::{
    Account, Credential, MAX_DAYS, MAX_MONTHS, MAX_PACKS, Pack, Paid, Payment, QpsPurchase, Service,
};
pub use catalog::{
    ActionSpec, Catalog, Charging, Group, MAX_QPS, PackPrice, PerCall, QpsPrice, Route, Tier,
};
pub use changes::changes;
pub use settings::{
    AdminSettings, Endpoint, LedgerSettings, Limits, NoticeSettings, Settings, UpstreamSettings,
    WebhookUrl,
};
pub use sources::Sources;

use reader::{Item, SeenFile, Source};
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};
use sources::Listing;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use yaml::{Place, Places};

/// The most bytes of `tollgate.yaml` and of `catalog.yaml`.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most bytes of `accounts.yaml`.
const MAX_ACCOUNTS_BYTES: u64 = 64 << 20;
/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Everything the files say, checked as a whole.
#[derive(Clone, Debug)]
pub struct Config {
    /// `tollgate.yaml`.
    pub settings: Settings,
    /// `catalog.yaml`: what is sold.
    pub catalog: Catalog,
    /// `accounts.yaml`: who bought what, in the order of the file (of a directory's files by name).
    pub accounts: Vec<Account>,
    /// The files themselves.
    pub written: Written,
    /// What is allowed but likely not meant.
    pub warnings: Vec<Mistake>,
}

/// What is kept of the files to compare them with later ones, apart from what they sell.
#[derive(Clone, Debug)]
pub struct Written {
    /// The SHA-256 of all that was read: equal configurations of equal files have equal ones.
    pub digest: [u8; 32],
    /// The files that were read.
    pub sources: Sources,
    /// [`Config::settings`] of the start, before a program changed them (the demo takes free ports).
    settings: Settings,
    /// Where each top-level setting stands, for mistakes that are found later.
    places: Vec<(String, Place)>,
    path: PathBuf,
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

/// A line for each of the first hundred, and one that counts the rest: a wrong export has a mistake in every
/// account, and who reads the first ones corrects them all.
pub fn told(list: &[Mistake]) -> impl Iterator<Item = String> {
    const TOLD: usize = 100;
    let rest = match list.len().saturating_sub(TOLD) {
        0 => None,
        more => Some(format!("and {more} more like these")),
    };
    list.iter().take(TOLD).map(Mistake::to_string).chain(rest)
}

impl std::error::Error for Mistakes {}

impl Written {
    /// Every setting that the files of `later` write otherwise than those of the start: key, before, after.
    pub fn changed_settings(&self, later: &Self) -> Vec<(&'static str, String, String)> {
        restart::changed(&self.settings, &later.settings)
    }

    /// Goes on to the files of `later`, all but their settings: those are read at a start.
    pub fn follow(&mut self, later: Self) {
        let settings = self.settings.clone();
        *self = Self { settings, ..later };
    }

    /// `tollgate.yaml` as given to [`load`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A mistake at the top-level setting `key` (the first part of a dotted one).
    pub fn mistake_at(&self, key: &str, message: String) -> Mistake {
        let top = key.split('.').next().unwrap_or(key);
        let place = self.places.iter().find(|(known, _)| known == top);
        let Place { line, column } = place.map_or(Place::START, |(_, place)| *place);
        Mistake {
            file: self.path.clone(),
            line,
            column,
            message,
        }
    }
}

/// Reads `tollgate.yaml` at `path`, the files that it names (relative to it), and the secrets
/// that these point to. Reads files and the environment; blocks.
///
/// # Errors
/// Every mistake of all files at once.
pub fn load(path: &Path) -> Result<Config, Mistakes> {
    load_watched(path).0
}

/// As [`load`], and which files were read or looked for: when one of them changes, another load may
/// end otherwise.
pub fn load_watched(path: &Path) -> (Result<Config, Mistakes>, Sources) {
    match load_once(path, Places::Skipped) {
        // The settings are always read with places.
        (Ok(config), sources) if config.warnings.iter().all(|w| w.file == path) => {
            (Ok(config), sources)
        }
        _ => load_once(path, Places::Wanted),
    }
}

/// `accounts_places`: whether places are wanted in the accounts, which may be many.
fn load_once(path: &Path, accounts_places: Places) -> (Result<Config, Mistakes>, Sources) {
    let mut files = Files::default();
    let mut mistakes = Vec::new();
    let mut warnings = Vec::new();
    let mut keep = |source: Source, files: &mut Files| {
        source
            .take_read()
            .into_iter()
            .for_each(|file| files.saw(file));
        let (wrong, odd) = source.findings();
        mistakes.extend(wrong);
        warnings.extend(odd);
    };

    let source = Source::new(path.to_path_buf());
    let root = files
        .read(path, MAX_FILE_BYTES)
        .map_err(|e| source.refuse(Place::START, format!("cannot be read: {e}")))
        .ok()
        .and_then(|bytes| source.parse(&bytes, Places::Wanted));
    let (settings, paths) = root
        .as_ref()
        .map_or((None, settings::Paths::default()), |root| {
            settings::read(source.root(root))
        });
    let places = root
        .as_ref()
        .map_or(Vec::new(), |root| source.root(root).keys());
    // A file that cannot be read is a mistake of the line that names it.
    let mut opened = |named: Option<Item<'_>>, limit, directory_too| {
        let named = named?;
        let path = source.beside(named.text()?);
        let paths = if directory_too && path.is_dir() {
            match files.sources.add_directory(&path) {
                Ok(Listing { files, passed_over }) if files.is_empty() => {
                    let mut message = format!("{} holds no *.yaml file", path.display());
                    match passed_over.first() {
                        None => message.push_str(": put one there"),
                        Some(odd) => message.push_str(&format!("; {odd}")),
                    }
                    return named.refuse(message);
                }
                Ok(Listing { files, passed_over }) => {
                    passed_over.iter().for_each(|odd| named.warn(odd));
                    files
                }
                Err(e) => {
                    let why = unreadable(&e);
                    return named.refuse(format!("{} cannot be read: {why}", path.display()));
                }
            }
        } else {
            vec![path]
        };
        let mut opened = Vec::new();
        for path in paths {
            match files.read(&path, limit) {
                Ok(bytes) => opened.push((Source::new(path), bytes)),
                Err(e) => return named.refuse(format!("{} cannot be read: {e}", path.display())),
            }
        }
        Some(opened)
    };
    let catalog_file = opened(paths.catalog, MAX_FILE_BYTES, false);
    let accounts_files = opened(paths.accounts, MAX_ACCOUNTS_BYTES, true);
    keep(source, &mut files);

    let mut catalog = catalog::Reading::default();
    for (source, bytes) in catalog_file.into_iter().flatten() {
        if let Some(root) = source.parse(&bytes, Places::Wanted) {
            catalog = catalog::read(source.root(&root));
        }
        keep(source, &mut files);
    }
    let mut accounts = accounts_files.as_ref().map(|_| Vec::new());
    let mut taken = accounts::Taken::default();
    for (source, bytes) in accounts_files.into_iter().flatten() {
        let read = accounts::read(&source, &bytes, accounts_places, &catalog, &mut taken);
        accounts = accounts.zip(read).map(|(mut all, more)| {
            all.extend(more);
            all
        });
        keep(source, &mut files);
    }

    let result = match (settings, catalog.complete(), accounts) {
        (Some(settings), Some(catalog), Some(accounts)) if mistakes.is_empty() => Ok(Config {
            written: Written {
                digest: files.digest.clone().finalize().into(),
                sources: files.sources.clone(),
                settings: settings.clone(),
                places,
                path: path.to_owned(),
            },
            settings,
            catalog,
            accounts,
            warnings,
        }),
        _ => Err(Mistakes(mistakes)),
    };
    (result, files.sources)
}

/// What a load has read so far.
#[derive(Default)]
struct Files {
    digest: Sha256,
    sources: Sources,
}

impl Files {
    /// The file's bytes, without the byte-order mark that some editors and exports put first: to the
    /// parser it would be a character, and the first line indented by it.
    fn read(&mut self, path: &Path, limit: u64) -> Result<Vec<u8>, String> {
        let stamp = sources::stamp(path);
        let bytes = read(path, limit);
        let read = bytes.as_ref().map_or(&[][..], Vec::as_slice);
        self.saw(SeenFile::new(path.to_owned(), stamp, read));
        bytes.map(|mut bytes| {
            if bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            bytes
        })
    }

    fn saw(&mut self, file: SeenFile) {
        self.digest.update(file.path.as_os_str().as_encoded_bytes());
        self.digest.update([0]);
        self.digest.update(file.sha256);
        self.sources.add_file(file.path, file.stamp);
    }
}

/// Why a file cannot be read. Where a permission is missing, whose: a service often runs as a user that
/// whoever wrote the file does not know.
fn unreadable(error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error.to_string();
    }
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    format!(
        "{error}: tollgate runs as uid {user}, gid {group}; let it read the file (chgrp and chmod g+r; a folder g+rx) and pass its folders (chmod g+x)"
    )
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let taken = std::fs::metadata(path).and_then(|metadata| {
        // Not opened unless it is a file: opening a pipe would wait for a writer.
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        std::fs::File::open(path)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
    });
    match taken {
        Err(e) => Err(unreadable(&e)),
        Ok(n) if n as u64 > limit => Err(format!("it is larger than {} MiB", limit >> 20)),
        Ok(_) => Ok(bytes),
    }
}
