//! The section `access_log`: where the lines of calls go, of which calls, and of how many.
//!
//! Owns what a value of it may be.

use crate::config::reader::Item;
use crate::config::settings::section::Section;
use crate::config::settings::{AccessLogSettings, AccessLogTo, LoggedCalls};
use crate::config::yaml::Value;

const CALLS: [(&str, LoggedCalls); 3] = [
    ("admitted", LoggedCalls::Admitted),
    ("refused", LoggedCalls::Refused),
    ("both", LoggedCalls::Both),
];

pub(super) fn access_log(item: Item<'_>) -> Option<AccessLogSettings> {
    let mut fields = Section::open(item)?;
    let to = fields.value("to", to);
    let of = fields.value("of", |item| item.choice(&CALLS));
    let sample = fields.value("sample", sample);
    fields.close();
    Some(AccessLogSettings {
        to: to?,
        of: of?,
        sample: sample?,
    })
}

fn to(item: Item<'_>) -> Option<AccessLogTo> {
    let text = item.text()?;
    if text == "stdout" {
        return Some(AccessLogTo::Stdout);
    }
    let path = item.source.beside(text);
    match path.is_dir() {
        true => item.refuse("is a directory: name the file, which `serve` makes in it"),
        false => Some(AccessLogTo::File(path)),
    }
}

fn sample(item: Item<'_>) -> Option<f64> {
    let part = match &item.node.value {
        Value::Number(number) => number.parse::<f64>().ok(),
        _ => None,
    };
    let part = part.filter(|part| (0.0..=1.0).contains(part));
    part.or_else(|| item.expected("a number from 0 to 1, such as 0.01 for one call of a hundred"))
}
