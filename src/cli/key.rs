//! `tollgate key new`: a fresh credential, its YAML ready to paste.
//!
//! Owns the making of secrets. Must never store one, nor log one: it is shown once.

use crate::cli::flags::{KeyCommand, KeyKind};
use crate::cli::output::print;
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::fmt;

/// Letters and digits: safe in YAML, headers, shells and in a mouse's double click.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 238 bits: 40 letters of 62.
const SECRET_LETTERS: usize = 40;
const ID_LETTERS: usize = 32;

/// Prints a fresh credential.
///
/// # Errors
/// When the system has no random source, or standard output cannot be written.
pub fn key(command: KeyCommand) -> anyhow::Result<()> {
    let KeyCommand::New { kind } = command;
    let made = match kind {
        KeyKind::Tc3 => NewKey::tc3(),
        KeyKind::ApiKey => NewKey::api_key(),
    };
    let made = made.context("the system's random source")?;
    print(|out| write!(out, "{made}"))
}

/// A credential that nobody has had before. Its `Display` shows the secret.
enum NewKey {
    /// For TC3 signatures, as the vendor's SDKs make them.
    Tc3 {
        /// Names the pair in a request; no secret.
        secret_id: String,
        /// The provider keeps it too: a signature is verified with it.
        secret_key: String,
    },
    /// For `Authorization: Bearer` or `X-Api-Key`. The provider keeps the hash only.
    ApiKey {
        /// The secret that the customer sends: `tg_` and letters.
        key: String,
    },
}

impl NewKey {
    /// From the system's random source; an error when there is none.
    fn tc3() -> Result<Self, getrandom::Error> {
        let secret_id = format!("AKID{}", letters(ID_LETTERS)?);
        Ok(Self::Tc3 {
            secret_id,
            secret_key: letters(SECRET_LETTERS)?,
        })
    }

    /// From the system's random source; an error when there is none.
    fn api_key() -> Result<Self, getrandom::Error> {
        Ok(Self::ApiKey {
            key: format!("tg_{}", letters(SECRET_LETTERS)?),
        })
    }
}

fn letters(count: usize) -> Result<String, getrandom::Error> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        getrandom::fill(&mut bytes)?;
        // Bytes from 248 on would make the first letters likelier.
        let fair = bytes
            .iter()
            .filter(|byte| usize::from(**byte) < 4 * ALPHABET.len());
        let letters = fair.map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        text.extend(letters.take(count - text.len()));
    }
    Ok(text)
}

impl fmt::Display for NewKey {
    /// YAML for an account's `keys`, with what to do as comments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tc3 {
                secret_id,
                secret_key,
            } => {
                writeln!(
                    f,
                    "# Give the customer both. This is the only time that the secret is shown."
                )?;
                writeln!(
                    f,
                    "# Put the line under the account's `keys`; in production keep the secret in a file"
                )?;
                writeln!(
                    f,
                    "# of its own and write `secret_key: {{file: secrets/NAME.key}}` instead."
                )?;
                writeln!(f, "- {{secret_id: {secret_id}, secret_key: {secret_key}}}")
            }
            Self::ApiKey { key } => {
                writeln!(
                    f,
                    "# Give the customer this key. It is shown this once and cannot be found out again:"
                )?;
                writeln!(f, "#   {key}")?;
                writeln!(
                    f,
                    "# Put the line under the account's `keys`; it holds the key's hash only."
                )?;
                writeln!(
                    f,
                    "- {{api_key_sha256: {}}}",
                    hex::encode(Sha256::digest(key))
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_alike_and_each_is_as_long_as_it_should_be() {
        let made: Vec<String> = (0..100).map(|_| letters(SECRET_LETTERS).unwrap()).collect();
        for (index, key) in made.iter().enumerate() {
            assert_eq!(key.len(), SECRET_LETTERS);
            assert!(key.bytes().all(|b| b.is_ascii_alphanumeric()));
            assert!(!made[..index].contains(key));
        }
    }

    #[test]
    fn an_api_keys_line_holds_its_hash_and_not_the_key() {
        let made = NewKey::api_key().unwrap();
        let NewKey::ApiKey { key } = &made else {
            panic!("an API key was asked for")
        };
        let text = made.to_string();
        let line = text.lines().last().unwrap();
        assert!(line.contains(&hex::encode(Sha256::digest(key))) && !line.contains(key.as_str()));
    }
}
