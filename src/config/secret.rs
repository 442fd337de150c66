//! A secret that a file holds or names -> the secret, or why it is not likely the one that was
//! meant.
//!
//! Owns the sources of secrets and what is odd about one. Must never put a secret into a message.

use crate::config::punctuation::cannot_be_seen;
use crate::config::reader::{Item, SeenFile, quoted};
use crate::config::sources::stamp;
use crate::config::yaml::Value;
use secrecy::SecretString;
use std::fmt::Display;
use std::io::Read;

/// The most bytes of a file that holds a secret: far more than any key, far less than a wrong file.
const MAX_SECRET_BYTES: u64 = 4096;

/// Takes the text of a secret, or refuses it with a sentence that begins as it is told.
type ReadSecret = fn(Item<'_>, &dyn Display, &str) -> Option<SecretString>;

impl Item<'_> {
    /// A literal, `{env: NAME}`, or `{file: PATH}` (relative to this file). One newline at the end
    /// is not part of it, whichever it is; one that [`oddity`] finds odd is refused. No message
    /// repeats it.
    pub(in crate::config) fn secret(self) -> Option<SecretString> {
        let Value::Map(map) = &self.node.value else {
            return self.one_line(&"the text", self.text()?);
        };
        // Not through `fields`: its messages repeat keys, and `{hunter2}` is a map to YAML.
        if let [(key, node)] = map.as_slice()
            && let Value::Text(key) = &key.value
        {
            let item = Item { node, ..self };
            match key.as_str() {
                "file" => {
                    return item.secret_file(|item, whence, text| item.one_line(whence, text));
                }
                "env" => return item.secret_env(|item, whence, text| item.one_line(whence, text)),
                _ => {}
            }
        }
        self.refuse("give the text itself, {file: PATH} or {env: NAME}")
    }

    /// A text of many lines: `{file: PATH}` or `{env: NAME}`. No message repeats it.
    pub(in crate::config) fn secret_lines(self) -> Option<SecretString> {
        if let Value::Map(map) = &self.node.value
            && let [(key, node)] = map.as_slice()
            && let Value::Text(key) = &key.value
        {
            let item = Item { node, ..self };
            match key.as_str() {
                "file" => return item.secret_file(|item, whence, text| item.lines(whence, text)),
                "env" => return item.secret_env(|item, whence, text| item.lines(whence, text)),
                _ => {}
            }
        }
        self.refuse("give {file: PATH} or {env: NAME}")
    }

    /// A private key, of many lines: `{file: PATH}` or `{env: NAME}`. A file that every user of the
    /// machine may read is refused.
    pub(in crate::config) fn private_key(self) -> Option<SecretString> {
        if let Value::Map(map) = &self.node.value
            && let [(key, node)] = map.as_slice()
            && let Value::Text(key) = &key.value
            && key == "file"
        {
            let item = Item { node, ..self };
            let (text, open) =
                item.read_secret_file(|item, whence, text| item.lines(whence, text))?;
            return match open {
                Some(open) => item.refuse(open),
                None => Some(text),
            };
        }
        self.secret_lines()
    }

    fn lines(self, whence: &dyn Display, text: &str) -> Option<SecretString> {
        match text.trim().is_empty() {
            true => self.refuse(format!("{whence} is empty")),
            false => Some(SecretString::from(text)),
        }
    }

    /// `whence` begins the sentence that says what is wrong.
    fn one_line(self, whence: &dyn Display, text: &str) -> Option<SecretString> {
        let secret = text.strip_suffix('\n').unwrap_or(text);
        let secret = secret.strip_suffix('\r').unwrap_or(secret);
        if secret.is_empty() {
            return self.refuse(format!("{whence} is empty"));
        }
        match oddity(secret) {
            Some(odd) => self.refuse(format!("{whence} {odd}")),
            None => Some(SecretString::from(secret)),
        }
    }

    fn secret_env(self, read: ReadSecret) -> Option<SecretString> {
        let name = self.text()?;
        let whence = format!("the environment variable {}", quoted(name));
        match std::env::var(name) {
            Ok(value) => read(self, &whence, &value),
            Err(_) => self.refuse(format!("{whence} is not set, or not text")),
        }
    }

    fn secret_file(self, read_text: ReadSecret) -> Option<SecretString> {
        let (secret, open) = self.read_secret_file(read_text)?;
        if let Some(open) = open {
            self.warn(open);
        }
        Some(secret)
    }

    /// The secret, and the sentence that says that others can read it.
    fn read_secret_file(self, read_text: ReadSecret) -> Option<(SecretString, Option<String>)> {
        let path = self.source.beside(self.text()?);
        let shown = path.display();
        let seen = stamp(&path);
        let read = std::fs::metadata(&path).and_then(|metadata| {
            let mut bytes = Vec::new();
            // Not opened unless it is a file: opening a pipe would wait for a writer.
            if metadata.is_file() {
                std::fs::File::open(&path)?
                    .take(MAX_SECRET_BYTES + 1)
                    .read_to_end(&mut bytes)?;
            }
            Ok((metadata, bytes))
        });
        let bytes = read.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let seen = SeenFile::new(path.clone(), seen, bytes);
        self.source.read.borrow_mut().push(seen);
        let (metadata, bytes) = match read {
            Ok((metadata, _)) if !metadata.is_file() => {
                return self.refuse(format!("{shown} is not a file"));
            }
            Ok((_, bytes)) if bytes.len() as u64 > MAX_SECRET_BYTES => {
                return self.refuse(format!(
                    "{shown} is larger than {MAX_SECRET_BYTES} bytes: it cannot be a key"
                ));
            }
            Ok(read) => read,
            Err(e) => {
                let why = crate::config::load::unreadable(&e);
                return self.refuse(format!("{shown} cannot be read: {why}"));
            }
        };
        let Ok(text) = String::from_utf8(bytes) else {
            return self.refuse(format!("{shown} is not UTF-8 text"));
        };
        let secret = read_text(self, &shown, &text)?;
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        let open = (mode & 0o007 != 0).then(|| {
            format!(
                "{shown} is open to every user of this machine (mode {mode:03o}): chmod o= {shown}"
            )
        });
        Some((secret, open))
    }
}

/// What makes a secret likely not the one that was meant: a key that is one character longer than
/// its owner's never verifies, and nobody can see why. Names places and characters that cannot be
/// seen, nothing else of it.
fn oddity(secret: &str) -> Option<String> {
    const BYTE_ORDER_MARK: char = '\u{feff}';
    if secret.starts_with(BYTE_ORDER_MARK) {
        return Some("begins with a byte-order mark: save it as UTF-8 without one".to_owned());
    }
    if secret.contains(['\n', '\r']) {
        return Some("has more than one line or newline: leave one line".to_owned());
    }
    for (n, c) in (1..).zip(secret.chars()) {
        if c.is_whitespace() {
            return Some(format!("has a blank as character {n}: take it out"));
        }
        if c.is_control() || cannot_be_seen(c) {
            return Some(format!(
                "has a character that cannot be seen, U+{:04X} as character {n}: take it out",
                u32::from(c)
            ));
        }
    }
    const QUOTES: &[char] = &['"', '\'', '`', '“', '”', '‘', '’'];
    if secret.starts_with(QUOTES) || secret.ends_with(QUOTES) {
        return Some("begins or ends with a quotation mark: take the marks off".to_owned());
    }
    None
}
