//! The page of a statement, for people's eyes and for paper.
//!
//! Shows what a [`Statement`] says. Must never compute an amount, nor leave out a part that this
//! file does not know: such a part is shown as it stands.

use crate::billing::{GroupStatement, PaidLine, PerCallUse, Statement, money};
use crate::model::Mode;
use crate::portal::html::{Column, Html, number, text};
use crate::portal::words::{Language, Words};
use serde_json::Value;

/// The parts of a statement, and of a group, that have a place of their own below.
const PARTS: [&str; 16] = [
    "licences",
    "balance",
    "account",
    "name",
    "month",
    "time_zone",
    "currency",
    "from",
    "until",
    "counted_until",
    "groups",
    "due",
    "paid_when_ordered",
    "on_no_statement",
    "fixed",
    "provisional",
];
const GROUP_PARTS: [&str; 13] = [
    "adjustments",
    "group",
    "title",
    "title_en",
    "keys",
    "calls",
    "not_billable",
    "late",
    "per_call",
    "qps_calls",
    "lines",
    "paid",
    "computed",
];

/// The page. `json` is the whole statement as it was stored.
pub(super) fn statement_page(statement: &Statement, json: &str, language: Language) -> String {
    let words = language.words();
    let whole: Value = serde_json::from_str(json).unwrap_or_default();
    let name = match statement.name.is_empty() {
        true => statement.account.to_string(),
        false => format!("{} ({})", statement.name, statement.account),
    };
    let title = format!("{} {} · {name}", words.statement, statement.month);
    let mut page = Html::new(words.tag, &title);
    page.title(&format!("{} {}", words.statement, statement.month));
    page.state(match statement.fixed {
        Some(_) => words.fixed,
        None => words.provisional,
    });
    facts(&mut page, statement, &name, words);
    let groups = whole["groups"].as_array();
    for (place, group) in statement.groups.iter().enumerate() {
        page.section(&format!("{} · {}", title_of(group, language), group.group));
        group_tables(&mut page, group, words);
        if is_quiet(group) {
            page.line(words.nothing);
        }
        if let Some(whole) = groups.and_then(|groups| groups.get(place)) {
            unknown(&mut page, whole, &GROUP_PARTS, words);
        }
    }
    if !statement.licences.is_empty() {
        page.section(words.licences);
        paid_table(&mut page, &statement.licences, words);
    }
    if statement.groups.is_empty() && statement.licences.is_empty() {
        page.line(words.nothing);
    }
    unknown(&mut page, &whole, &PARTS, words);
    page.end()
}

/// The group's title in the language of the page, where it has one.
fn title_of(group: &GroupStatement, language: Language) -> &str {
    match language {
        Language::English if !group.title_en.is_empty() => &group.title_en,
        _ => &group.title,
    }
}

/// Whether nothing was called or bought in the group.
fn is_quiet(group: &GroupStatement) -> bool {
    group.calls.is_empty()
        && group.not_billable.is_empty()
        && group.per_call.is_none()
        && group.paid.is_empty()
}

fn facts(page: &mut Html, statement: &Statement, name: &str, words: &Words) {
    let in_currency = |amount| format!("{} {}", money(amount), statement.currency);
    let mut facts = vec![
        (words.account, name.to_owned()),
        (words.month, statement.month.clone()),
        (
            words.period,
            format!(
                "{} – {} ({})",
                statement.from, statement.until, statement.time_zone
            ),
        ),
    ];
    match &statement.fixed {
        Some(fixed) => facts.extend([
            (words.fixed_at, fixed.at.to_string()),
            (words.records_up_to, fixed.through_seq.to_string()),
        ]),
        None => facts.push((words.counted_until, statement.counted_until.to_string())),
    }
    if statement.on_no_statement > 0 {
        facts.push((words.on_no_statement, statement.on_no_statement.to_string()));
    }
    facts.extend([
        (words.due, in_currency(statement.due)),
        (
            words.paid_when_ordered,
            in_currency(statement.paid_when_ordered),
        ),
    ]);
    page.facts(words.summary, &facts);
    if let Some(balance) = &statement.balance {
        let paid = balance.payments.iter().map(|line| line.amount).sum();
        let adjusted = balance.adjustments.iter().map(|line| line.amount).sum();
        let columns = [
            number(words.balance_before),
            number(words.payments),
            number(words.manual_adjustments),
            number(words.debit),
            number(words.balance_after),
        ];
        let amounts = [balance.before, paid, adjusted, balance.debit, balance.after];
        let row = amounts.map(|amount| money(amount).to_string()).to_vec();
        page.table(words.balance, &columns, &[row]);
    }
}

fn group_tables(page: &mut Html, group: &GroupStatement, words: &Words) {
    let mut calls: Vec<Vec<String>> = Vec::new();
    for of in &group.calls {
        let billable = match of.mode {
            Mode::Free => words.free,
            Mode::PerCall | Mode::Qps => words.yes,
        };
        calls.push(vec![
            of.action.to_string(),
            words.of_mode(of.mode).to_owned(),
            billable.to_owned(),
            of.calls.to_string(),
        ]);
    }
    for of in &group.not_billable {
        calls.push(vec![
            of.action.to_string(),
            words.of_mode(of.mode).to_owned(),
            of.reason.to_string(),
            of.calls.to_string(),
        ]);
    }
    let columns = [
        text(words.action),
        text(words.mode),
        text(words.billable),
        number(words.calls),
    ];
    page.table(words.calls, &columns, &calls);
    // Of one key alone the calls stand above.
    if group.keys.len() > 1 {
        let rows = group.keys.iter().map(|of| {
            let counts = [of.calls, of.billable].map(|calls| calls.to_string());
            [vec![of.key.to_string()], counts.to_vec()].concat()
        });
        let columns = [text(words.key), number(words.calls), number(words.billable)];
        page.table(words.by_key, &columns, &rows.collect::<Vec<_>>());
    }
    if group.late > 0 {
        page.line(&format!("{}: {}", words.late, group.late));
    }
    if let Some(per_call) = &group.per_call {
        covered(page, per_call, words);
    }
    amounts(page, group, words);
    if !group.computed.is_empty() {
        page.line(words.computed);
        page.english(&group.computed);
    }
}

/// The free pack, the orders of packs and the post-paid calls, in the order in which they cover
/// calls (R12).
fn covered(page: &mut Html, per_call: &PerCallUse, words: &Words) {
    let row = |cells: [String; 6]| cells.to_vec();
    let free = &per_call.free;
    let mut rows = vec![row([
        words.free_pack.to_owned(),
        free.granted.to_string(),
        String::new(),
        free.used.to_string(),
        free.left.to_string(),
        String::new(),
    ])];
    rows.extend(per_call.packs.iter().map(|pack| {
        row([
            pack.order.clone(),
            format!("{} × {}", pack.count, pack.calls),
            pack.used_before.to_string(),
            pack.used.to_string(),
            pack.left.to_string(),
            pack.expires.to_string(),
        ])
    }));
    rows.push(row([
        words.postpaid.to_owned(),
        String::new(),
        String::new(),
        per_call.postpaid.calls.to_string(),
        String::new(),
        String::new(),
    ]));
    let columns = [
        text(words.covered_by),
        number(words.size),
        number(words.used_before),
        number(words.used),
        number(words.left),
        text(words.expires),
    ];
    page.table(words.covered, &columns, &rows);
}

fn amounts(page: &mut Html, group: &GroupStatement, words: &Words) {
    let lines = group.lines.iter().map(|line| {
        vec![
            line.what.clone(),
            line.calls.to_string(),
            line.unit_price.to_string(),
            money(line.amount).to_string(),
        ]
    });
    let columns = [
        text(words.what),
        number(words.calls),
        number(words.unit_price),
        number(words.amount),
    ];
    page.table(words.lines, &columns, &lines.collect::<Vec<_>>());
    let adjusted = group.adjustments.iter().filter(|of| !of.amount.is_zero());
    let adjusted = adjusted.map(|of| {
        let amounts = [of.recomputed, of.fixed, of.adjusted_before, of.amount];
        let amounts = amounts.map(|amount| money(amount).to_string());
        [vec![of.month.clone()], amounts.to_vec()].concat()
    });
    let columns = [
        text(words.month),
        number(words.recomputed),
        number(words.fixed_before),
        number(words.adjusted_before),
        number(words.amount),
    ];
    page.table(words.adjustments, &columns, &adjusted.collect::<Vec<_>>());
    paid_table(page, &group.paid, words);
}

/// What was paid when ordered, of a group or of licences.
fn paid_table(page: &mut Html, lines: &[PaidLine], words: &Words) {
    let paid = lines.iter().map(|line| {
        vec![
            line.order.clone(),
            line.what.clone(),
            line.at.to_string(),
            money(line.amount).to_string(),
        ]
    });
    let columns = [
        text(words.order),
        text(words.what),
        text(words.at),
        number(words.amount),
    ];
    page.table(words.paid_when_ordered, &columns, &paid.collect::<Vec<_>>());
}

/// The parts of `whole` that are not in `known`, as they stand: a later version has more than this
/// file shows in its own way.
fn unknown(page: &mut Html, whole: &Value, known: &[&str], words: &Words) {
    let Some(parts) = whole.as_object() else {
        return;
    };
    let parts = parts
        .iter()
        .filter(|(name, value)| !known.contains(&name.as_str()) && !is_empty(value));
    let mut facts: Vec<(&str, String)> = Vec::new();
    for (name, value) in parts {
        match value {
            Value::Array(items) if items.iter().all(Value::is_object) => {
                rows(page, name, items);
            }
            Value::Object(of) => {
                let of = of.iter().map(|(name, value)| (name.as_str(), plain(value)));
                page.facts(name, &of.collect::<Vec<_>>());
            }
            value => facts.push((name, plain(value))),
        }
    }
    if !facts.is_empty() {
        page.facts(words.more, &facts);
    }
}

/// A list of objects as a table: a column for each name that one of them has.
fn rows(page: &mut Html, name: &str, items: &[Value]) {
    let mut heads: Vec<&str> = Vec::new();
    for key in items
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|of| of.keys())
    {
        if !heads.contains(&key.as_str()) {
            heads.push(key);
        }
    }
    let row = |item: &Value| heads.iter().map(|head| plain(&item[*head])).collect();
    let columns: Vec<Column<'_>> = heads.iter().map(|head| text(head)).collect();
    page.table(name, &columns, &items.iter().map(row).collect::<Vec<_>>());
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(parts) => parts.is_empty(),
        _ => false,
    }
}

/// A value as text.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample(more: Value) -> (Statement, String) {
        let mut whole = json!({
            "account": "1", "name": "<b>Evil & Co</b>", "month": "2026-11", "time_zone": "Asia/Shanghai",
            "currency": "CNY", "from": "2026-11-01T00:00:00+08:00", "until": "2026-12-01T00:00:00+08:00",
            "counted_until": "2026-11-24T12:00:00+08:00", "groups": [], "due": "36.000",
            "paid_when_ordered": "88", "fixed": null,
        });
        let more = more.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(more);
        let text = whole.to_string();
        (serde_json::from_str(&text).unwrap(), text)
    }

    #[test]
    fn a_page_says_in_its_language_what_it_is_and_shows_names_as_text() {
        let (statement, text) = sample(json!({}));
        let english = statement_page(&statement, &text, Language::English);
        let chinese = statement_page(&statement, &text, Language::Chinese);
        for (page, expected) in [
            (
                &english,
                [
                    "<html lang=\"en\">",
                    "Provisional",
                    "36.00 CNY",
                    "88.00 CNY",
                ],
            ),
            (
                &chinese,
                ["<html lang=\"zh-CN\">", "暂估", "36.00 CNY", "88.00 CNY"],
            ),
        ] {
            for expected in expected {
                assert!(page.contains(expected), "{expected}: {page}");
            }
            assert!(page.contains("&lt;b&gt;Evil &amp; Co&lt;/b&gt;"));
            assert!(!page.contains("<b>") && !page.contains("<script"));
        }
    }

    #[test]
    fn parts_that_are_not_known_here_are_shown_as_they_stand() {
        let (statement, text) = sample(json!({
            "surcharges": [{"month": "2026-10", "amount": "-1.50"}, {"amount": "2", "why": "<late>"}],
            "deposit": {"before": "10", "after": "8.50"},
            "note": "seven",
            "nothing": [],
        }));
        let page = statement_page(&statement, &text, Language::English);
        for expected in [
            "<caption>surcharges</caption>",
            "-1.50",
            "&lt;late&gt;",
            "<caption>deposit</caption>",
            "8.50",
            "seven",
        ] {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(!page.contains("nothing"), "{page}");
    }
}
