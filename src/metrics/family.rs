//! What the table says of one family.

/// The kind of a family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It only rises while the process lives.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It counts values by buckets.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One row of the table. Name and labels are stable: dashboards depend on them.
pub struct Family {
    /// Its subject, as a heading.
    pub section: &'static str,
    /// With the prefix.
    pub name: &'static str,
    /// The thing that it measures.
    pub kind: Kind,
    /// One or two sentences for the operator; no line break, no `|`.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The upper bounds of a histogram's buckets.
    pub buckets: &'static [f64],
}
