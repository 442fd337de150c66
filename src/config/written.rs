//! What is kept of the files to compare them with later ones.
//!
//! Owns where the settings stand. Must never read a file.

use crate::config::changed_upstreams::upstreams;
use crate::config::settings::restart;
use crate::config::yaml::Place;
use crate::config::{Mistake, Settings, Sources};
use std::path::{Path, PathBuf};

/// What is kept of the files to compare them with later ones, apart from what they sell.
#[derive(Clone, Debug)]
pub struct Written {
    /// The SHA-256 of all that was read: equal configurations of equal files have equal ones.
    pub digest: [u8; 32],
    /// The first 16 hexadecimal digits of the SHA-256 of what is sold: catalogue, accounts and the
    /// secret files that they name, by their bytes and not their paths. Replicas that serve the
    /// same have the same.
    pub sold_digest: String,
    /// The files that were read.
    pub sources: Sources,
    /// [`crate::config::Config::settings`] of the start, before a program changed them (the demo
    /// takes free ports); the upstreams are those in force.
    pub(in crate::config) settings: Settings,
    /// Where each top-level setting stands, for mistakes that are found later.
    pub(in crate::config) places: Vec<(String, Place)>,
    pub(in crate::config) path: PathBuf,
    /// What `catalog` and `accounts` name, beside the working directory.
    pub(in crate::config) catalog: PathBuf,
    pub(in crate::config) accounts: PathBuf,
}

impl Written {
    /// Every setting that the files of `later` write otherwise than those of the start: key,
    /// before, after.
    pub fn changed_settings(&self, later: &Self) -> Vec<(&'static str, String, String)> {
        restart::changed(&self.settings, &later.settings)
    }

    /// Every difference of the upstreams, a sentence each: they take effect at a reload.
    pub fn changed_upstreams(&self, later: &Self) -> Vec<String> {
        upstreams(&self.settings, &later.settings)
    }

    /// Goes on to the files of `later`. Of their settings only the upstreams: the others are read at
    /// a start.
    pub fn follow(&mut self, later: Self) {
        let settings = Settings {
            upstream: later.settings.upstream.clone(),
            upstreams: later.settings.upstreams.clone(),
            ..self.settings.clone()
        };
        *self = Self { settings, ..later };
    }

    /// `tollgate.yaml` as given to [`crate::config::load()`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of what is sold, and the file or directory of who bought it.
    pub fn sold(&self) -> [&Path; 2] {
        [&self.catalog, &self.accounts]
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
