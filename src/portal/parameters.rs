//! The parameters of a question: from the query, or from the JSON body of an action.
//!
//! Owns which there are. Must never let one pass that is not known: a slip of the pen would be
//! answered with something else than was asked.

use crate::model::{Endpoint, Month, Utc};
use crate::proxy::{Asked, BadQuestion};
use jiff::tz::TimeZone;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;

/// The parameters of one question, by their names in lowercase.
#[derive(Default, Debug)]
pub(super) struct Parameters(Vec<(&'static str, String)>);

/// The parameters of an endpoint, by path and by action, and both as a sentence has them.
struct Known {
    by_path: &'static [&'static str],
    of_path: &'static str,
    by_action: &'static [&'static str],
    of_action: &'static str,
}

fn known(endpoint: Endpoint) -> Known {
    let (by_path, of_path, by_action, of_action): (&[_], _, &[_], _) = match endpoint {
        Endpoint::Quota | Endpoint::Statements | Endpoint::Licences | Endpoint::Keys => {
            (&[], "none", &[], "none")
        }
        Endpoint::Authorize => (
            &["package", "device", "sdk", "apply"],
            "package, device, sdk and apply",
            &["package", "device", "sdk", "apply"],
            "Package, Device, Sdk and Apply",
        ),
        Endpoint::Usage => (
            &["month", "by"],
            "month and by",
            &["month", "by"],
            "Month and By",
        ),
        Endpoint::Statement => (&["format"], "format", &["month"], "Month"),
        Endpoint::Records => (
            &["month", "after", "format"],
            "month, after and format",
            &["month", "after"],
            "Month and After",
        ),
        Endpoint::Decision => (&[], "none", &["requestid"], "RequestId"),
    };
    Known {
        by_path,
        of_path,
        by_action,
        of_action,
    }
}

impl Parameters {
    /// Reads the query and, of an action, the body.
    ///
    /// # Errors
    /// What is wrong with them, in words of our own.
    pub(super) fn read(
        asked: &Asked,
        query: Option<&str>,
        body: &[u8],
    ) -> Result<Self, BadQuestion> {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            parameters.put(asked, &name, value.into_owned())?;
        }
        let reads_body = asked.is_action || asked.endpoint == Endpoint::Authorize;
        if reads_body && !body.trim_ascii().is_empty() {
            let Texts(body) = serde_json::from_slice(body).map_err(|_| BadQuestion::Unreadable)?;
            for (name, value) in body {
                parameters.put(asked, &name, value)?;
            }
        }
        Ok(parameters)
    }

    fn put(&mut self, asked: &Asked, name: &str, value: String) -> Result<(), BadQuestion> {
        let known = known(asked.endpoint);
        let (names, all) = match asked.is_action {
            true => (known.by_action, known.of_action),
            false => (known.by_path, known.of_path),
        };
        let is_spelled = |known: &&&str| match asked.is_action {
            // The vendor's names begin with a capital.
            true => {
                name.starts_with(|c: char| c.is_ascii_uppercase())
                    && name.eq_ignore_ascii_case(known)
            }
            false => name == **known,
        };
        let name = *names
            .iter()
            .find(is_spelled)
            .ok_or(BadQuestion::Unknown(all))?;
        if self.get(name).is_some() {
            return Err(BadQuestion::Twice(name));
        }
        self.0.push((name, value));
        Ok(())
    }

    /// The value of a parameter, if it is given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The month that is asked for; the running one when none is named.
    pub(super) fn month(
        &self,
        asked: &Asked,
        now: Utc,
        zone: &TimeZone,
    ) -> Result<Month, BadQuestion> {
        match asked.part.as_deref().or_else(|| self.get("month")) {
            Some(text) => Month::parse(text).map_err(|_| BadQuestion::Month),
            None => Ok(Month::of(now, zone)),
        }
    }
}

/// A JSON object of texts, each as often as it is there: a map would keep the last of two.
struct Texts(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = map.next_entry()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        endpoint: Endpoint,
        is_action: bool,
        query: &str,
        body: &str,
    ) -> Result<Vec<(&'static str, String)>, BadQuestion> {
        let asked = Asked {
            endpoint,
            part: None,
            is_action,
        };
        Parameters::read(&asked, Some(query), body.as_bytes()).map(|read| read.0)
    }

    #[test]
    fn parameters_are_read_from_the_query_or_the_body_and_no_other_is_let_pass() {
        let month = |value: &str| Ok(vec![("month", value.to_owned())]);
        assert_eq!(
            read(Endpoint::Usage, false, "month=2026-11", ""),
            month("2026-11")
        );
        assert_eq!(
            read(Endpoint::Usage, false, "month=2026%2D11", ""),
            month("2026-11")
        );
        assert_eq!(
            read(Endpoint::Usage, true, "Month=2026-11", ""),
            month("2026-11")
        );
        let body = r#"{"Month": "2026-11"}"#;
        assert_eq!(read(Endpoint::Usage, true, "", body), month("2026-11"));
        // Of a path the body is not looked at.
        assert_eq!(read(Endpoint::Usage, false, "", body), Ok(vec![]));
        assert_eq!(
            read(Endpoint::Usage, false, "month=a&month=b", ""),
            Err(BadQuestion::Twice("month"))
        );
        assert_eq!(
            read(Endpoint::Usage, true, "Month=a", body),
            Err(BadQuestion::Twice("month"))
        );
        for twice in [
            r#"{"Month":"a","Month":"b"}"#,
            r#"{"Month":"a","MONTH":"a"}"#,
        ] {
            assert_eq!(
                read(Endpoint::Usage, true, "", twice),
                Err(BadQuestion::Twice("month"))
            );
        }
        for endpoint in [Endpoint::Quota, Endpoint::Statements] {
            let unknown = Err(BadQuestion::Unknown("none"));
            assert_eq!(read(endpoint, false, "x=1", ""), unknown);
            assert_eq!(read(endpoint, true, "", r#"{"X": "1"}"#), unknown);
            assert_eq!(read(endpoint, true, "", "{}"), Ok(vec![]));
        }
        for (is_action, query, body) in [
            (false, "Month=2026-11", ""),
            (false, "account=1250000002", ""),
            (true, "month=2026-11", ""),
            (true, "", r#"{"Account": "1250000002"}"#),
        ] {
            let read = read(Endpoint::Usage, is_action, query, body);
            assert!(
                matches!(read, Err(BadQuestion::Unknown(_))),
                "{query}{body}"
            );
        }
        for body in ["[]", "x", r#"{"Month": 7}"#, "\u{0}"] {
            assert_eq!(
                read(Endpoint::Usage, true, "", body),
                Err(BadQuestion::Unreadable)
            );
        }
    }
}
