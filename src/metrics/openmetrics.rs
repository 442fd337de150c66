//! The exposition as OpenMetrics 1.0 has it, which has room for exemplars.
//!
//! Pure. Must never name a series otherwise than the older form does: a scraper that changes from
//! one to the other goes on with the series that it has.

use crate::metrics::exemplars::Timed;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};
use std::fmt::{self, Write};

/// The families as text. `timed` is the histogram behind a metric, where it has exemplars.
pub(super) fn write<'t>(
    families: &[MetricFamily],
    timed: impl Fn(&str, &Metric) -> Option<&'t Timed>,
) -> Result<String, fmt::Error> {
    let mut out = String::new();
    for family in families {
        let name = family.name();
        let (kind, base) = match family.get_field_type() {
            MetricType::COUNTER => ("counter", name.strip_suffix("_total").unwrap_or(name)),
            MetricType::HISTOGRAM => ("histogram", name),
            _ => ("gauge", name),
        };
        writeln!(out, "# HELP {base} {}", escaped(family.help()))?;
        writeln!(out, "# TYPE {base} {kind}")?;
        for metric in family.get_metric() {
            match family.get_field_type() {
                MetricType::COUNTER => {
                    let value = metric.get_counter().get_value();
                    sample(&mut out, name, metric.get_label(), value)?;
                }
                MetricType::HISTOGRAM => histogram(&mut out, name, metric, timed(name, metric))?,
                _ => sample(
                    &mut out,
                    name,
                    metric.get_label(),
                    metric.get_gauge().get_value(),
                )?,
            }
        }
    }
    out.push_str("# EOF\n");
    Ok(out)
}

fn sample(out: &mut String, name: &str, labels: &[LabelPair], value: f64) -> fmt::Result {
    out.push_str(name);
    write_labels(out, labels, None)?;
    writeln!(out, " {value}")
}

fn histogram(out: &mut String, name: &str, metric: &Metric, timed: Option<&Timed>) -> fmt::Result {
    let (of, labels) = (metric.get_histogram(), metric.get_label());
    let bounds = of.get_bucket().iter();
    let buckets = bounds.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let all = (f64::INFINITY, of.get_sample_count());
    let finite = buckets.filter(|(bound, _)| bound.is_finite());
    for (nth, (bound, count)) in finite.chain([all]).enumerate() {
        write!(out, "{name}_bucket")?;
        let bound = match bound.is_finite() {
            true => bound.to_string(),
            false => "+Inf".to_owned(),
        };
        write_labels(out, labels, Some(&bound))?;
        write!(out, " {count}")?;
        if let Some(of) = timed.and_then(|timed| timed.exemplar(nth)) {
            let (seconds, millis) = (of.at_ms / 1_000, of.at_ms % 1_000);
            let (id, value) = (of.id, of.value);
            write!(
                out,
                " # {{request_id=\"{id}\"}} {value} {seconds}.{millis:03}"
            )?;
        }
        out.push('\n');
    }
    // With negative values a sum is no counter: the format has neither then.
    let has_negative = of
        .get_bucket()
        .first()
        .is_some_and(|first| first.upper_bound() < 0.0);
    if has_negative {
        return Ok(());
    }
    sample(out, &format!("{name}_sum"), labels, of.get_sample_sum())?;
    out.push_str(name);
    out.push_str("_count");
    write_labels(out, labels, None)?;
    writeln!(out, " {}", of.get_sample_count())
}

fn write_labels(out: &mut String, labels: &[LabelPair], le: Option<&str>) -> fmt::Result {
    let labels = labels.iter().map(|label| (label.name(), label.value()));
    let mut before = '{';
    for (name, value) in labels.chain(le.map(|le| ("le", le))) {
        write!(out, "{before}{name}=\"{}\"", escaped(value))?;
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    Ok(())
}

/// As texts and the values of labels are written.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
