//! Figures of many rounds to one table.

use crate::servers::Figure;

/// One line of a table: what was measured, round by round.
pub(crate) struct Row {
    pub label: String,
    pub rounds: Vec<Figure>,
}

impl Row {
    /// The median of one quantity over the rounds.
    pub(crate) fn median(&self, of: impl Fn(&Figure) -> f64) -> f64 {
        median(self.rounds.iter().map(of).collect())
    }

    /// The median of one quantity over another row's in the same round.
    pub(crate) fn ratio(&self, to: &Self, of: impl Fn(&Figure) -> f64) -> f64 {
        self.against(to, |own, other| of(own) / of(other))
    }

    /// The median of what becomes of two figures of the same round.
    pub(crate) fn against(&self, other: &Self, of: impl Fn(&Figure, &Figure) -> f64) -> f64 {
        let pairs = self.rounds.iter().zip(&other.rounds);
        median(pairs.map(|(own, other)| of(own, other)).collect())
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

/// The row that begins with `label`; a peer may be missing.
pub(crate) fn find<'a>(rows: &'a [Row], label: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.label.starts_with(label))
}

/// Prints what a call costs, with the ratio to the row that begins with `reference`.
pub(crate) fn print(title: &str, rows: &[Row], reference: &str) {
    println!(
        "\n{title:<44} CPU us/call  x {reference:<9} (worst, best)    calls/s    p50 us    p99 us"
    );
    let reference = find(rows, reference);
    for row in rows {
        let cpu = |figure: &Figure| figure.cpu_us;
        let ratio = reference.map_or(f64::NAN, |reference| row.ratio(reference, cpu));
        let each = || row.rounds.iter().map(cpu);
        println!(
            "{:<44} {:>11.1}  {ratio:>11.2} {:>7.1} {:>7.1} {:>10.0} {:>9.0} {:>9.0}",
            row.label,
            row.median(cpu),
            each().fold(f64::NEG_INFINITY, f64::max),
            each().fold(f64::INFINITY, f64::min),
            row.median(|figure| figure.per_second),
            row.median(|figure| figure.p50_us),
            row.median(|figure| figure.p99_us),
        );
    }
}
