//! What the metrics of a gate say.

use super::*;

/// The samples of a text exposition by name and labels as written.
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// The sum of a family's samples whose labels hold every one of `labels` (`key="value"`).
    pub fn sum(&self, family: &str, labels: &[&str]) -> u64 {
        let of_family = |name: &str| {
            name.strip_prefix(family)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
        };
        let fits = |name: &str| of_family(name) && labels.iter().all(|label| name.contains(label));
        self.0
            .iter()
            .filter(|(name, _)| fits(name))
            .map(|(_, value)| *value as u64)
            .sum()
    }

    pub fn decided(&self, decision: &str) -> u64 {
        self.sum(
            "tollgate_requests_total",
            &[&format!("decision=\"{decision}\"")],
        )
    }

    /// P4, from these samples alone. Call it at rest.
    pub fn assert_conserved(&self) {
        let received = self.sum("tollgate_requests_received_total", &[]);
        let [admitted, throttled, refused] =
            ["admitted", "throttled", "refused"].map(|d| self.decided(d));
        assert_eq!(self.sum("tollgate_pending", &[]), 0);
        assert_eq!(self.sum("tollgate_in_flight", &[]), 0);
        assert_eq!(
            received,
            admitted + throttled + refused,
            "received = admitted + throttled + refused"
        );
        assert_eq!(
            admitted,
            self.sum("tollgate_records_total", &[]),
            "admitted = recorded"
        );
        let by_account = self.sum(
            "tollgate_account_requests_total",
            &["decision=\"admitted\""],
        );
        assert_eq!(by_account, admitted, "the accounts' counts add up to all");
        let by_key = self.sum("tollgate_key_calls_total", &[]);
        assert_eq!(by_key, admitted, "the keys' counts add up to all");
    }
}

pub async fn scrape(admin: SocketAddr) -> Samples {
    let (status, _, text) = get(admin, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let text = String::from_utf8(text.to_vec()).unwrap();
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    Samples(
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(sample)
            .collect(),
    )
}

pub async fn at_rest(admin: SocketAddr) -> Samples {
    for _ in 0..400 {
        let samples = scrape(admin).await;
        if samples.sum("tollgate_pending", &[]) == 0 && samples.sum("tollgate_in_flight", &[]) == 0
        {
            return samples;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the gate does not come to rest");
}
