//! The files, read from the disk, into one [`Config`].
//!
//! Owns which files are read and how large they may be. Must never say what a value means.

use crate::config::reader::{Item, SeenFile, Source};
use crate::config::sources::{self, Listing};
use crate::config::yaml::{Node, Place, Places};
use crate::config::{
    Account, AdminSettings, Catalog, Mistake, Mistakes, Settings, Sources, Written, accounts,
    catalog, settings,
};
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes of `tollgate.yaml` and of `catalog.yaml`.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// The most bytes of `accounts.yaml`.
const MAX_ACCOUNTS_BYTES: u64 = 64 << 20;
/// The bytes of [`Written::sold_digest`].
const SOLD_DIGEST_BYTES: usize = 8;
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
pub(crate) fn load_watched(path: &Path) -> (Result<Config, Mistakes>, Sources) {
    match load_once(path, Places::Skipped) {
        // The settings are always read with places.
        (Ok(config), sources) if config.warnings.iter().all(|w| w.file == path) => {
            (Ok(config), sources)
        }
        _ => load_once(path, Places::Wanted),
    }
}

/// Where the operators' listener is, by `tollgate.yaml` at `path` alone: mistakes elsewhere, and the
/// other files, are not looked at.
///
/// # Errors
/// Every mistake of the section.
pub(crate) fn load_admin(path: &Path) -> Result<AdminSettings, Mistakes> {
    let source = Source::new(path.to_path_buf());
    let root = Files::default().read_settings(path, &source);
    let admin = root.and_then(|root| settings::read_admin(source.root(&root)));
    admin.ok_or_else(|| Mistakes(source.findings().0))
}

/// `accounts_places`: whether places are wanted in the accounts, which may be many.
fn load_once(path: &Path, accounts_places: Places) -> (Result<Config, Mistakes>, Sources) {
    let mut files = Files::default();
    let mut found = Found::default();

    let source = Source::new(path.to_path_buf());
    let root = files.read_settings(path, &source);
    let (settings, paths) = root
        .as_ref()
        .map_or((None, settings::Paths::default()), |root| {
            settings::read(source.root(root))
        });
    let keys_of = |root| source.root(root).keys();
    let places = root.as_ref().map_or(Vec::new(), keys_of);
    let catalog_file = paths
        .catalog
        .and_then(|named| files.open(named, MAX_FILE_BYTES));
    let accounts_files = paths.accounts.and_then(|named| files.open_accounts(named));
    // Of what was opened: a path that is none is told once.
    let named = |is_open: bool, item: Option<_>| item.filter(|_| is_open).and_then(path_of);
    let catalog_path = named(catalog_file.is_some(), paths.catalog);
    let accounts_path = named(accounts_files.is_some(), paths.accounts);
    let unused = paths.upstreams.map_or(Vec::new(), unused_upstreams);
    found.keep(source, &mut files, Says::HowItRuns);

    let mut catalog = catalog::Reading::default();
    if let Some((source, bytes)) = catalog_file {
        let names = settings.as_ref().map(Settings::upstream_names);
        if let Some(root) = source.parse(&bytes, Places::Wanted) {
            catalog = catalog::read(source.root(&root), settings.as_ref(), names.as_deref());
        }
        found.keep(source, &mut files, Says::WhatIsSold);
    }
    let accounts = accounts_files.and_then(|opened| {
        let mut all = Some(Vec::new());
        let mut taken = accounts::Taken::default();
        for (source, bytes) in opened {
            let read = accounts::read(&source, &bytes, accounts_places, &catalog, &mut taken);
            all = all.zip(read).map(joined);
            found.keep(source, &mut files, Says::WhatIsSold);
        }
        all
    });

    let catalog = catalog.complete();
    found.keep_unused(unused, catalog.as_ref());
    let result = match (settings, catalog, accounts) {
        (Some(settings), Some(catalog), Some(accounts)) if found.mistakes.is_empty() => {
            Ok(Config {
                written: Written {
                    digest: files.digest.clone().finalize().into(),
                    sold_digest: files.sold_digest(),
                    sources: files.sources.clone(),
                    settings: settings.clone(),
                    places,
                    path: path.to_owned(),
                    catalog: catalog_path.unwrap_or_default(),
                    accounts: accounts_path.unwrap_or_default(),
                },
                settings,
                catalog,
                accounts,
                warnings: found.warnings,
            })
        }
        _ => Err(Mistakes(found.mistakes)),
    };
    (result, files.sources)
}

fn joined((mut all, more): (Vec<Account>, Vec<Account>)) -> Vec<Account> {
    all.extend(more);
    all
}

/// The path that a line names, beside its file.
fn path_of(named: Item<'_>) -> Option<PathBuf> {
    Some(named.source.beside(named.text()?))
}

/// Each named upstream, with the warning that is due when nothing of the catalogue names it.
fn unused_upstreams(item: Item<'_>) -> Vec<(String, Mistake)> {
    let warning = |(name, at): (String, Place)| {
        let message = format!(
            "upstreams: no group and no action of the catalogue names {name}, so no call goes there"
        );
        let warning = item.source.mistake(at, message);
        (name, warning)
    };
    item.keys().into_iter().map(warning).collect()
}

/// What was found in the files that are read to their end, in their order.
#[derive(Default)]
struct Found {
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Found {
    /// The warnings of upstreams that nothing of the catalogue names; none while it is not sound.
    fn keep_unused(&mut self, unused: Vec<(String, Mistake)>, catalog: Option<&Catalog>) {
        let Some(catalog) = catalog else { return };
        let unused = unused.into_iter().filter(|(name, _)| !catalog.names(name));
        self.warnings.extend(unused.map(|(_, warning)| warning));
    }

    fn keep(&mut self, source: Source, files: &mut Files, says: Says) {
        source
            .take_read()
            .into_iter()
            .for_each(|file| files.saw(file, says));
        let (wrong, odd) = source.findings();
        self.mistakes.extend(wrong);
        self.warnings.extend(odd);
    }
}

/// What a file says, with the secret files that it names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// `tollgate.yaml`: one replica may have another listener than the next.
    HowItRuns,
    /// Catalogue and accounts.
    WhatIsSold,
}

/// What a load has read so far.
#[derive(Default)]
struct Files {
    digest: Sha256,
    /// Of the contents of the files that say what is sold.
    sold: Sha256,
    sources: Sources,
}

impl Files {
    /// The tree of `tollgate.yaml`, whose source this is.
    fn read_settings(&mut self, path: &Path, source: &Source) -> Option<Node> {
        self.read(path, MAX_FILE_BYTES, Says::HowItRuns)
            .map_err(|e| source.refuse(Place::START, format!("cannot be read: {e}")))
            .ok()
            .and_then(|bytes| source.parse(&bytes, Places::Wanted))
    }

    /// The file's bytes, without the byte-order mark that some editors and exports put first: to
    /// the parser it would be a character, and the first line indented by it.
    fn read(&mut self, path: &Path, limit: u64, says: Says) -> Result<Vec<u8>, String> {
        let stamp = sources::stamp(path);
        let bytes = read(path, limit);
        let read = bytes.as_ref().map_or(&[][..], Vec::as_slice);
        self.saw(SeenFile::new(path.to_owned(), stamp, read), says);
        bytes.map(|mut bytes| {
            if bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            bytes
        })
    }

    /// The catalogue or accounts that a line names. A file that cannot be read is a mistake of that line.
    fn open(&mut self, named: Item<'_>, limit: u64) -> Option<(Source, Vec<u8>)> {
        self.open_at(named.source.beside(named.text()?), named, limit)
    }

    fn open_at(&mut self, path: PathBuf, named: Item<'_>, limit: u64) -> Option<(Source, Vec<u8>)> {
        match self.read(&path, limit, Says::WhatIsSold) {
            Ok(bytes) => Some((Source::new(path), bytes)),
            Err(e) => named.refuse(format!("{} cannot be read: {e}", path.display())),
        }
    }

    /// As [`Self::open`], of one file or of all in a directory.
    fn open_accounts(&mut self, named: Item<'_>) -> Option<Vec<(Source, Vec<u8>)>> {
        let path = named.source.beside(named.text()?);
        let paths = if path.is_dir() {
            self.list(&path, named)?
        } else {
            vec![path]
        };
        // The first one that cannot be read is the only one that is told.
        paths
            .into_iter()
            .map(|path| self.open_at(path, named, MAX_ACCOUNTS_BYTES))
            .collect()
    }

    fn list(&mut self, directory: &Path, named: Item<'_>) -> Option<Vec<PathBuf>> {
        let shown = directory.display();
        let Listing { files, passed_over } = match self.sources.add_directory(directory) {
            Ok(listing) => listing,
            Err(e) => {
                return named.refuse(format!("{shown} cannot be read: {}", unreadable(&e)));
            }
        };
        if files.is_empty() {
            return named.refuse(match passed_over.first() {
                None => format!("{shown} holds no *.yaml file: put one there"),
                Some(odd) => format!("{shown} holds no *.yaml file; {odd}"),
            });
        }
        passed_over.iter().for_each(|odd| named.warn(odd));
        Some(files)
    }

    fn sold_digest(&self) -> String {
        let whole = self.sold.clone().finalize();
        hex::encode(whole.get(..SOLD_DIGEST_BYTES).unwrap_or_default())
    }

    fn saw(&mut self, file: SeenFile, says: Says) {
        if says == Says::WhatIsSold {
            // Each has the same length, so no two lists of files run into one another.
            self.sold.update(file.sha256);
        }
        self.digest.update(file.path.as_os_str().as_encoded_bytes());
        self.digest.update([0]);
        self.digest.update(file.sha256);
        self.sources.add_file(file.path, file.stamp);
    }
}

/// Why a file cannot be read. Where a permission is missing, whose: a service often runs as a user
/// that whoever wrote the file does not know.
pub(in crate::config) fn unreadable(error: &io::Error) -> String {
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
