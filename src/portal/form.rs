//! The form of an answer: which one the client wants, and how it is sent.
//!
//! Owns the headers of the own endpoints. Must never let an answer be kept by a cache, nor a page
//! run anything.

use crate::http::Fields;
use crate::http::h1::{Answer, RequestHead};
use crate::http::names::X_REQUEST_ID;
use crate::model::{Endpoint, RequestIdText};
use crate::portal::words::Language;
use crate::proxy::{Asked, BadQuestion, OwnBody, Relay};
use http::{Method, StatusCode};

/// A form in which something can be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    Json,
    JsonLines,
    Csv,
    Html,
}

impl Format {
    const ALL: [Self; 4] = [Self::Json, Self::JsonLines, Self::Csv, Self::Html];

    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
            Self::Html => "html",
        }
    }

    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Html => "text/html",
        }
    }

    /// The line of the answer's head that says what it is.
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "content-type: application/json\r\n",
            Self::JsonLines => "content-type: application/x-ndjson\r\n",
            Self::Csv => "content-type: text/csv; charset=utf-8\r\n",
            // The page has no script, and nothing of it is loaded from elsewhere.
            Self::Html => {
                "content-type: text/html; charset=utf-8\r\ncontent-security-policy: default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\nreferrer-policy: no-referrer\r\n"
            }
        }
    }

    /// The form that is wanted, of those in `offered`: by the parameter `format`, else by `Accept`,
    /// else the first. `names` are the offered ones, as a sentence has them.
    pub(super) fn wanted(
        parameter: Option<&str>,
        fields: &Fields,
        offered: &[Self],
        names: &'static str,
    ) -> Result<Self, BadQuestion> {
        let first = offered.first().copied().unwrap_or(Self::Json);
        match parameter {
            Some(name) => Self::ALL
                .into_iter()
                .find(|format| format.name() == name && offered.contains(format))
                .ok_or(BadQuestion::Value("format", names)),
            None => Ok(preferred(fields, "accept", |range| {
                let is_any = range == "*/*";
                let by_type = offered.iter().find(|format| format.media_type() == range);
                by_type.copied().or(is_any.then_some(first))
            })
            .unwrap_or(first)),
        }
    }
}

/// The language of a page: by `Accept-Language`, else English.
pub(super) fn language(fields: &Fields) -> Language {
    preferred(fields, "accept-language", |range| {
        match range.split('-').next()? {
            "zh" => Some(Language::Chinese),
            "en" => Some(Language::English),
            _ => None,
        }
    })
    .unwrap_or(Language::English)
}

/// What the client prefers of all that `known` finds in a list with weights (RFC 9110 §12.4.2). Of
/// equals the first.
fn preferred<T>(fields: &Fields, name: &str, known: impl Fn(&str) -> Option<T>) -> Option<T> {
    let mut best: Option<(u32, T)> = None;
    for value in fields.get_all(name) {
        let value = String::from_utf8_lossy(value).to_ascii_lowercase();
        for item in value.split(',') {
            let mut parts = item.split(';').map(str::trim);
            let Some(found) = parts.next().and_then(&known) else {
                continue;
            };
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(1_000, thousandths);
            let is_better = best.as_ref().is_none_or(|(known, _)| weight > *known);
            if weight > 0 && is_better {
                best = Some((weight, found));
            }
        }
    }
    best.map(|(_, found)| found)
}

/// A weight such as `0.8`, in thousandths; 0 when it is none.
fn thousandths(weight: &str) -> u32 {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    match (whole, part.parse::<u32>()) {
        ("1", Ok(_)) => 1_000,
        ("0", Ok(part)) => part,
        _ => 0,
    }
}

/// What is answered.
pub(super) struct Said {
    pub(super) format: Format,
    pub(super) body: SaidBody,
    /// The name under which a client may keep it.
    pub(super) file: Option<String>,
}

/// The body of an answer.
pub(super) enum SaidBody {
    Whole(Vec<u8>),
    Streamed(OwnBody),
}

impl Said {
    /// Something in JSON.
    pub(super) fn json(body: impl Into<Vec<u8>>) -> Self {
        Self {
            format: Format::Json,
            body: SaidBody::Whole(body.into()),
            file: None,
        }
    }

    /// The answer: as it is, or in the vendor's envelope.
    pub(super) fn answer(self, asked: &Asked, id: &RequestIdText) -> Answer<Relay> {
        let mut answer = match self.body {
            SaidBody::Whole(body) => {
                let body = match asked.is_action {
                    true => enveloped(asked.endpoint.answer(), &body, id),
                    false => body,
                };
                Answer::own(StatusCode::OK, body)
            }
            SaidBody::Streamed(body) => Answer::streamed(StatusCode::OK, Relay::Own(body)),
        };
        let lines = answer.lines();
        lines.fixed(self.format.content_type());
        lines.fixed(match asked.endpoint {
            // Devices of all customers ask for them, and a new key signs a day after it is there.
            Endpoint::Keys => "cache-control: public, max-age=300\r\n",
            _ => "cache-control: no-store\r\n",
        });
        lines.fixed("x-content-type-options: nosniff\r\n");
        if !asked.is_action {
            lines.fixed("vary: accept, accept-language\r\n");
            if let Some(file) = self.file {
                let text = ["inline; filename=\"", &file, "\""].concat();
                lines.text("content-disposition", text);
            }
        }
        lines.text(X_REQUEST_ID, id);
        answer
    }
}

/// The vendor's envelope (PROTOCOL §4).
fn enveloped(name: &str, body: &[u8], id: &RequestIdText) -> Vec<u8> {
    let (before, after) = (
        [r#"{"Response":{""#, name, r#"":"#].concat(),
        [r#","RequestId":""#, id.as_str(), r#""}}"#].concat(),
    );
    [before.as_bytes(), body, after.as_bytes()].concat()
}

/// The methods of an endpoint; `Some` when the request has another one.
pub(super) fn other_methods(head: &RequestHead, asked: &Asked) -> Option<Vec<Method>> {
    let methods: &[Method] = match (asked.endpoint, asked.is_action) {
        (Endpoint::Authorize, _) => &[Method::POST],
        (_, true) => &[Method::GET, Method::POST],
        (_, false) => &[Method::GET, Method::HEAD],
    };
    (!methods.contains(&head.method)).then(|| methods.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::request_head;

    fn fields(lines: &str) -> Box<RequestHead> {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        let mut bytes = bytes::BytesMut::from(head.as_str());
        request_head(&mut bytes).unwrap().unwrap()
    }

    #[test]
    fn the_form_is_the_one_of_the_parameter_else_the_most_wanted_of_accept_else_json() {
        let offered = [Format::Json, Format::Csv, Format::Html];
        let wanted = |parameter, accept: &str| {
            let head = fields(accept);
            Format::wanted(parameter, &head.fields, &offered, "json, csv, html")
        };
        for (parameter, accept, expected) in [
            (None, "", Format::Json),
            (None, "accept: */*\r\n", Format::Json),
            (None, "accept: text/csv\r\n", Format::Csv),
            (None, "accept: image/png\r\n", Format::Json),
            (
                None,
                "accept: text/html,application/xml;q=0.9,*/*;q=0.8\r\n",
                Format::Html,
            ),
            (
                None,
                "accept: text/html;q=0.2, text/csv;q=0.25\r\n",
                Format::Csv,
            ),
            (None, "accept: text/html;q=0\r\n", Format::Json),
            (None, "accept: text/csv;q=x\r\n", Format::Json),
            (Some("html"), "accept: text/csv\r\n", Format::Html),
        ] {
            assert_eq!(
                wanted(parameter, accept),
                Ok(expected),
                "{parameter:?} {accept}"
            );
        }
        for name in ["jsonl", "pdf", ""] {
            assert!(wanted(Some(name), "").is_err());
        }
    }

    #[test]
    fn a_page_is_in_the_language_that_the_client_wants_most() {
        for (accept, expected) in [
            ("", Language::English),
            (
                "accept-language: zh-CN,zh;q=0.9,en;q=0.8\r\n",
                Language::Chinese,
            ),
            ("accept-language: en-GB,zh;q=0.9\r\n", Language::English),
            (
                "accept-language: de, zh;q=0.5, en;q=0.4\r\n",
                Language::Chinese,
            ),
            ("accept-language: de\r\n", Language::English),
        ] {
            assert_eq!(language(&fields(accept).fields), expected, "{accept}");
        }
    }
}
