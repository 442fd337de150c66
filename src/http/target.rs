//! The target of a request, read (RFC 9112 §3.2). Pure.
//!
//! The query is kept as it came: it may hold characters that a URI may not, which other servers let
//! pass.

use bytes::Bytes;
use http::Uri;

/// The target of a request: path and query, and host if it names one.
#[derive(Debug)]
pub struct Target {
    base: Base,
    /// UTF-8.
    query: Option<Bytes>,
}

/// A target without its query.
#[derive(Debug)]
enum Base {
    /// A path of [`PLAIN`] bytes, as nearly every target has it.
    Path(Box<str>),
    Uri(Uri),
}

/// The bytes that the path of a URI has unescaped (RFC 3986 §3.3). A path of these alone needs no
/// check.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte] = matches!(
            byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b'%' | b':' | b'@'
        );
        byte += 1;
    }
    plain
};

impl Target {
    /// Reads a target in any of its forms. `None` when it is none. A fragment is left out.
    pub fn read(text: &Bytes) -> Option<Self> {
        let is_odd = |byte: &u8| !PLAIN[usize::from(*byte)];
        let plain = text.iter().position(is_odd).unwrap_or(text.len());
        let ends = |byte: &u8| matches!(byte, b'?' | b'#');
        let end = text[plain..].iter().position(ends);
        let end = end.map_or(text.len(), |end| plain + end);
        let base = match text.first() {
            Some(b'/') if end == plain => {
                Base::Path(std::str::from_utf8(&text[..end]).ok()?.into())
            }
            _ => Base::Uri(Uri::from_maybe_shared(text.slice(..end)).ok()?),
        };
        let query = match text[end..].first() {
            Some(b'?') => {
                let rest = text.slice(end + 1..);
                let fragment = rest.iter().position(|byte| *byte == b'#');
                let query = rest.slice(..fragment.unwrap_or(rest.len()));
                let is_visible = |byte: &u8| *byte > b' ' && *byte != 0x7f;
                if !query.iter().all(is_visible) || std::str::from_utf8(&query).is_err() {
                    return None;
                }
                Some(query)
            }
            _ => None,
        };
        Some(Self { base, query })
    }

    /// The path; `/` when the target names a host alone, and empty for `CONNECT`.
    pub fn path(&self) -> &str {
        match &self.base {
            Base::Path(path) => path,
            Base::Uri(uri) => uri.path(),
        }
    }

    /// The bytes after the `?`, as they came.
    pub fn query(&self) -> Option<&str> {
        let query = self.query.as_deref()?;
        std::str::from_utf8(query).ok()
    }

    /// The host that it names, and perhaps the port.
    pub fn authority(&self) -> Option<&str> {
        match &self.base {
            Base::Path(_) => None,
            Base::Uri(uri) => Some(uri.authority()?.as_str()),
        }
    }

    /// The scheme that it names.
    pub fn scheme(&self) -> Option<&str> {
        match &self.base {
            Base::Path(_) => None,
            Base::Uri(uri) => uri.scheme_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> Option<Target> {
        Target::read(&Bytes::from_static(text))
    }

    #[test]
    fn a_query_holds_what_other_servers_let_pass_and_is_kept_as_it_came() {
        for (text, path, query) in [
            (
                &b"/a?q=\"<b>\"[]{}|\\^`'"[..],
                "/a",
                Some("q=\"<b>\"[]{}|\\^`'"),
            ),
            (b"/a?", "/a", Some("")),
            (b"/a??b?c", "/a", Some("?b?c")),
            (b"/a?b#c?d", "/a", Some("b")),
            (b"/a#b?c", "/a", None),
            (b"/a?%zz", "/a", Some("%zz")),
            (b"/a?\xe4\xba\xba", "/a", Some("人")),
            (b"http://h?a=1", "/", Some("a=1")),
            (b"*", "*", None),
        ] {
            let target = read(text).unwrap();
            assert_eq!((target.path(), target.query()), (path, query));
        }
        for text in [
            &b"/a?b c"[..],
            b"/a?\x7f",
            b"/a?\0",
            b"/a?\xff",
            b"/<a>?b",
            b"",
            b"?a",
        ] {
            assert!(read(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_taken_when_and_as_a_uri_takes_it() {
        for byte in 0..=u8::MAX {
            for text in [
                vec![b'/', byte],
                vec![b'/', b'a', byte, b'b'],
                vec![byte, b'/'],
            ] {
                let text = Bytes::from(text);
                if matches!(byte, b'?' | b'#') {
                    continue;
                }
                let uri = Uri::from_maybe_shared(text.clone()).ok();
                let (target, uri) = (Target::read(&text), uri.as_ref());
                assert_eq!(
                    target.as_ref().map(Target::path),
                    uri.map(Uri::path),
                    "{text:?}"
                );
            }
        }
    }
}
