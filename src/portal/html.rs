//! HTML as it is written: text escaped, tables that can be read aloud.
//!
//! Owns the escaping. Must never write a text that is not escaped, nor a script.

use std::fmt::Display;

/// A page that is being written.
pub(super) struct Html(String);

/// A column of a table.
pub(super) struct Column<'c> {
    pub(super) head: &'c str,
    /// A column of numbers, which stand at the right.
    pub(super) is_number: bool,
}

/// Lines up with [`Column`]: a column of text.
pub(super) const fn text(head: &str) -> Column<'_> {
    Column {
        head,
        is_number: false,
    }
}

/// A column of numbers.
pub(super) const fn number(head: &str) -> Column<'_> {
    Column {
        head,
        is_number: true,
    }
}

/// Black on white in one size, on A4 with margins; a table's row is not cut in two.
const STYLE: &str = "@page{size:A4;margin:12mm}\
*{box-sizing:border-box}\
body{font:9.5pt/1.35 system-ui,\"Noto Sans CJK SC\",\"PingFang SC\",\"Microsoft YaHei\",sans-serif;color:#111;background:#fff;max-width:190mm;margin:0 auto;padding:4mm}\
h1{font-size:15pt;margin:0 0 2mm}h2{font-size:11.5pt;margin:4mm 0 1mm}\
table{border-collapse:collapse;width:100%;margin:0 0 2mm}\
caption{text-align:left;font-weight:600;padding:1mm 0}\
th,td{border-bottom:1px solid #767676;padding:.7mm 1.5mm;text-align:left;vertical-align:top;font-weight:400;overflow-wrap:anywhere}\
thead th{font-weight:600;border-bottom:2px solid #333}\
.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}\
.state{border:2px solid #333;padding:1.5mm 2mm;margin:0 0 2mm;font-weight:600}\
ul{margin:0;padding-left:5mm;font-size:8.5pt}\
tr,.state{break-inside:avoid}";

impl Html {
    /// The head of a page.
    pub(super) fn new(language: &str, title: &str) -> Self {
        let mut page = Self(String::with_capacity(16 * 1024));
        page.raw("<!DOCTYPE html>\n<html lang=\"");
        page.text(language);
        page.raw("\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
        page.text(title);
        page.raw("</title>\n<style>");
        page.raw(STYLE);
        page.raw("</style></head>\n<body><main>\n");
        page
    }

    /// Markup of our own.
    fn raw(&mut self, markup: &'static str) {
        self.0.push_str(markup);
    }

    /// Text of anybody.
    fn text(&mut self, text: impl Display) {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // A control character has no place in a page.
                c if c.is_control() => self.0.push(' '),
                c => self.0.push(c),
            }
        }
    }

    /// The heading of the page.
    pub(super) fn title(&mut self, text: &str) {
        self.raw("<h1>");
        self.text(text);
        self.raw("</h1>\n");
    }

    /// The heading of a section.
    pub(super) fn section(&mut self, text: &str) {
        self.raw("<h2>");
        self.text(text);
        self.raw("</h2>\n");
    }

    /// What the whole page is, in a frame.
    pub(super) fn state(&mut self, text: &str) {
        self.raw("<p class=\"state\">");
        self.text(text);
        self.raw("</p>\n");
    }

    /// A line of text.
    pub(super) fn line(&mut self, text: &str) {
        self.raw("<p>");
        self.text(text);
        self.raw("</p>\n");
    }

    /// Sentences in English, whatever the page's language is.
    pub(super) fn english(&mut self, sentences: &[String]) {
        self.raw("<ul lang=\"en\">\n");
        for sentence in sentences {
            self.raw("<li>");
            self.text(sentence);
            self.raw("</li>\n");
        }
        self.raw("</ul>\n");
    }

    /// A table whose rows have their head in the first column. Nothing when there is no row.
    pub(super) fn table(&mut self, caption: &str, columns: &[Column<'_>], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        self.raw("<table><caption>");
        self.text(caption);
        self.raw("</caption>\n<thead><tr>");
        for column in columns {
            self.raw(match column.is_number {
                true => "<th scope=\"col\" class=\"n\">",
                false => "<th scope=\"col\">",
            });
            self.text(column.head);
            self.raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n");
        for row in rows {
            self.raw("<tr>");
            for (place, (cell, column)) in row.iter().zip(columns).enumerate() {
                let (begin, end) = match (place, column.is_number) {
                    (0, _) => ("<th scope=\"row\">", "</th>"),
                    (_, true) => ("<td class=\"n\">", "</td>"),
                    (_, false) => ("<td>", "</td>"),
                };
                self.raw(begin);
                self.text(cell);
                self.raw(end);
            }
            self.raw("</tr>\n");
        }
        self.raw("</tbody></table>\n");
    }

    /// A table of names and values. `figures` are marked for programs: `data-figure` names them.
    pub(super) fn facts(&mut self, caption: &str, facts: &[(&str, String)]) {
        self.raw("<table><caption>");
        self.text(caption);
        self.raw("</caption>\n<tbody>\n");
        for (name, value) in facts {
            self.raw("<tr><th scope=\"row\">");
            self.text(name);
            self.raw("</th><td>");
            self.text(value);
            self.raw("</td></tr>\n");
        }
        self.raw("</tbody></table>\n");
    }

    /// The whole page.
    pub(super) fn end(mut self) -> String {
        self.raw("</main></body></html>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_escaped_wherever_it_stands() {
        let evil = "<script>alert('1')</script>&\"\n\u{0}";
        let mut page = Html::new("en", evil);
        page.title(evil);
        page.section(evil);
        page.state(evil);
        page.line(evil);
        page.english(&[evil.to_owned()]);
        page.table(
            evil,
            &[text(evil), number(evil)],
            &[vec![evil.to_owned(), evil.to_owned()]],
        );
        page.facts(evil, &[(evil, evil.to_owned())]);
        let page = page.end();
        assert!(!page.contains("<script"), "{page}");
        let escaped = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;  ";
        assert_eq!(page.matches(escaped).count(), 14);
        assert!(!page.contains('\u{0}'));
    }
}
