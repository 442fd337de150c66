//! `tollgate key new --licence FILE`: a key that signs grants (R19).
//!
//! Must never print the private key, nor write over a file.

use crate::cli::output::print;
use crate::licence::fresh_key;
use anyhow::{Context, anyhow};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a fresh key to a file that only its owner can read, and prints its public part.
pub(super) fn new_licence_key(path: &Path) -> anyhow::Result<()> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).context("the system's random source")?;
    let (pem, public, kid) = fresh_key(&seed).map_err(|why| anyhow!(why))?;
    let shown = path.display();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{shown} cannot be made"))?;
    file.write_all(pem.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("{shown} cannot be written"))?;
    print(|out| {
        writeln!(
            out,
            "# {shown} holds the private key. Only its owner can read it; give it to no one but the gates.\n\
             # kid {kid}\n\
             # In the catalogue, under `licences`: the first key signs at once; a later one is published first, and\n\
             # signs when every device has fetched it (deploy/LICENCES.md, \"Rotation\").\n\
             signing_key: {{file: {shown}}}\n\
             public_keys: [{public}]"
        )
    })
}
