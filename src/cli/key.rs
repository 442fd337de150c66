//! `tollgate key new` and `tollgate key rotate`: a fresh credential, its YAML ready to paste.
//!
//! Owns the making of secrets. Must never store one, nor log one: it is shown once. Must never show
//! one that is in the files.

use crate::cli::flags_key::{KeyCommand, KeyKind, RotateFlags};
use crate::cli::key_licence::new_licence_key;
use crate::cli::key_tls::new_tls_key;
use crate::cli::output::{load, print};
use crate::config::{Account, Credential, Key};
use crate::model::{Clock, KeyId, Local, Utc};
use anyhow::Context;
use ipnet::IpNet;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use std::fmt;

/// Letters and digits: safe in YAML, headers, shells and in a mouse's double click.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 238 bits: 40 letters of 62.
const SECRET_LETTERS: usize = 40;
const ID_LETTERS: usize = 32;

/// Prints a fresh credential, or the lines with which one takes the place of another.
///
/// # Errors
/// When the system has no random source, or standard output cannot be written. When there is no
/// such key to rotate.
pub fn key(command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::New {
            licence: Some(path),
            ..
        } => new_licence_key(&path),
        KeyCommand::New {
            tls: Some(directory),
            host,
            ..
        } => new_tls_key(&directory, &host),
        KeyCommand::New { kind, name, .. } => {
            let made = NewKey::of(kind).context("the system's random source")?;
            print(|out| write!(out, "{}", fresh(&made, name)))
        }
        KeyCommand::Rotate(flags) => rotate(&flags),
    }
}

/// The text of a fresh key: YAML for an account's `keys`, with what to do as comments.
fn fresh(made: &NewKey, name: Option<KeyId>) -> String {
    let line = Line {
        name,
        ..Line::of(made.credential())
    };
    let where_to = match made {
        NewKey::Tc3 { .. } => {
            "# Put the line under the account's `keys`; in production keep the secret in a file\n\
             # of its own and write `secret_key: {file: secrets/NAME.key}` instead."
        }
        NewKey::ApiKey { .. } => {
            "# Put the line under the account's `keys`; it holds the key's hash only."
        }
        NewKey::App { .. } => {
            "# Put the line under the account's `licence_keys`, with `packages: [..]` to bind it to apps."
        }
    };
    format!("{}{where_to}\n{line}", made.for_the_customer())
}

fn rotate(flags: &RotateFlags) -> anyhow::Result<()> {
    let config = load(&flags.config.config)?;
    let (id, name) = (&flags.account, &flags.key);
    let mut accounts = config.accounts.iter();
    let account = accounts.find(|account| account.id == *id);
    let account = account.with_context(|| format!("there is no account {id} in the files"))?;
    let old = key_to_rotate(account, name)?;
    let made = NewKey::of(match old.credential {
        Credential::Tc3 { .. } => KeyKind::Tc3,
        Credential::ApiKey { .. } => KeyKind::ApiKey,
    });
    let made = made.context("the system's random source")?;
    let now = Clock::default().utc();
    print(|out| {
        let zone = &config.catalog.time_zone;
        write!(
            out,
            "{}",
            rotated(old, &made, now.plus(flags.overlap), zone)
        )
    })
}

fn key_to_rotate<'a>(account: &'a Account, name: &KeyId) -> anyhow::Result<&'a Key> {
    let named: Vec<&Key> = account.keys.iter().filter(|key| key.id == *name).collect();
    let id = &account.id;
    match named[..] {
        [key] => Ok(key),
        [] => {
            let known: Vec<&str> = account.keys.iter().map(|key| key.id.as_str()).collect();
            let known = known.join(", ");
            anyhow::bail!("account {id} has no key {name}; its keys are: {known}")
        }
        _ => anyhow::bail!(
            "account {id} has two keys {name}: take out the line of the one that was rotated out first"
        ),
    }
}

/// The two lines of an overlap. The old secret is not shown: whoever rotates it need not see it.
fn rotated(old: &Key, made: &NewKey, until: Utc, zone: &TimeZone) -> String {
    // To the whole second. An end that the key has already is not put off.
    let until = Utc((until.seconds() + 1) * 1_000_000);
    let until = old.expires.map_or(until, |expires| expires.min(until));
    let ends = Local::new(until, zone);
    let (credential, keep) = match &old.credential {
        // A secret with blanks is refused, so the line cannot take effect as it is printed.
        Credential::Tc3 { secret_id, .. } => (
            format!("secret_id: \"{secret_id}\", secret_key: WHAT STANDS THERE NOW"),
            "# In the first one write the `secret_key` that stands in it now.\n",
        ),
        Credential::ApiKey { sha256 } => (format!("api_key_sha256: {}", hex::encode(sha256)), ""),
    };
    let line = |credential| Line {
        name: Some(old.id.clone()),
        allowed: &old.allowed_addresses,
        ..Line::of(credential)
    };
    let before = Line {
        expires: Some(ends.clone()),
        ..line(credential)
    };
    let after = line(made.credential());
    format!(
        "{}# Put both lines in the place of the key's line; `tollgate check` reads them.\n{keep}\
         # The old secret is refused from {ends} on; take its line out then.\n{before}{after}",
        made.for_the_customer()
    )
}

/// A line of an account's `keys`.
struct Line<'a> {
    name: Option<KeyId>,
    credential: String,
    expires: Option<Local>,
    allowed: &'a [IpNet],
}

impl Line<'_> {
    fn of(credential: String) -> Self {
        Self {
            name: None,
            credential,
            expires: None,
            allowed: &[],
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("- {")?;
        if let Some(name) = &self.name {
            // In quotes: a name may look like a number.
            write!(f, "name: \"{name}\", ")?;
        }
        f.write_str(&self.credential)?;
        if let Some(expires) = &self.expires {
            write!(f, ", expires: {expires}")?;
        }
        if !self.allowed.is_empty() {
            let networks: Vec<String> = self.allowed.iter().map(|n| format!("\"{n}\"")).collect();
            write!(f, ", allowed_addresses: [{}]", networks.join(", "))?;
        }
        f.write_str("}\n")
    }
}

/// A credential that nobody has had before.
enum NewKey {
    /// For TC3 signatures, as the vendor's SDKs make them.
    Tc3 {
        /// Names the pair in a request; no secret.
        secret_id: String,
        /// The provider keeps it too: a signature is verified with it.
        secret_key: String,
    },
    /// A licence key, which stands in an app (R19).
    App {
        /// `tl_` and letters.
        key: String,
    },
    /// For `Authorization: Bearer` or `X-Api-Key`. The provider keeps the hash only.
    ApiKey {
        /// The secret that the customer sends: `tg_` and letters.
        key: String,
    },
}

impl NewKey {
    fn of(kind: KeyKind) -> Result<Self, getrandom::Error> {
        match kind {
            KeyKind::Tc3 => Self::tc3(),
            KeyKind::ApiKey => Self::api_key(),
            KeyKind::App => Self::app(),
        }
    }

    /// As its line in the file has it.
    fn credential(&self) -> String {
        match self {
            Self::Tc3 {
                secret_id,
                secret_key,
            } => format!("secret_id: {secret_id}, secret_key: {secret_key}"),
            Self::ApiKey { key } => {
                format!("api_key_sha256: {}", hex::encode(Sha256::digest(key)))
            }
            Self::App { key } => format!("sha256: {}", hex::encode(Sha256::digest(key))),
        }
    }

    /// What the customer gets of it, as comments.
    fn for_the_customer(&self) -> String {
        match self {
            Self::Tc3 { .. } => {
                "# Give the customer the new id and secret. This is the only time that they are shown.\n"
                    .to_owned()
            }
            Self::App { key } => format!(
                "# Put this key into the app. Whoever has the app has it: it obtains grants and nothing else.\n\
                 #   {key}\n"
            ),
            Self::ApiKey { key } => format!(
                "# Give the customer this key. It is shown this once and cannot be found out again:\n\
                 #   {key}\n"
            ),
        }
    }

    fn app() -> Result<Self, getrandom::Error> {
        Ok(Self::App {
            key: format!("tl_{}", letters(SECRET_LETTERS)?),
        })
    }

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
        let text = fresh(&made, None);
        let line = text.lines().last().unwrap();
        assert!(line.contains(&hex::encode(Sha256::digest(key))) && !line.contains(key.as_str()));
    }

    fn old(credential: Credential) -> Key {
        Key {
            allowed_addresses: Box::new(["10.0.0.0/8".parse().unwrap()]),
            ..credential.into()
        }
    }

    #[test]
    fn a_rotation_shows_no_old_secret_and_its_lines_have_one_name_and_the_old_networks() {
        let key = old(Credential::Tc3 {
            secret_id: "AKIDOLD0123".into(),
            secret_key: "old-secret".into(),
        });
        let made = NewKey::tc3().unwrap();
        let text = rotated(&key, &made, Utc(1_500_000), &TimeZone::UTC);
        assert!(!text.contains("old-secret"));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let new = made.credential();
        assert_eq!(
            lines,
            [
                "- {name: \"AKIDOLD0\", secret_id: \"AKIDOLD0123\", secret_key: WHAT STANDS THERE NOW, \
                 expires: 1970-01-01T00:00:02+00:00, allowed_addresses: [\"10.0.0.0/8\"]}"
                    .to_owned(),
                format!("- {{name: \"AKIDOLD0\", {new}, allowed_addresses: [\"10.0.0.0/8\"]}}"),
            ]
        );
    }

    #[test]
    fn a_rotation_puts_off_no_end_that_the_key_has() {
        let mut key = old(Credential::ApiKey { sha256: [7; 32] });
        key.expires = Some(Utc(1_000_000));
        let made = NewKey::api_key().unwrap();
        let text = rotated(&key, &made, Utc(9_000_000), &TimeZone::UTC);
        assert!(
            text.contains("expires: 1970-01-01T00:00:01+00:00"),
            "{text}"
        );
        let NewKey::ApiKey { key } = &made else {
            panic!("the kind stays")
        };
        let in_file = text.lines().filter(|line| !line.starts_with('#'));
        assert!(in_file.clone().count() == 2 && in_file.clone().all(|line| !line.contains(&**key)));
    }
}
