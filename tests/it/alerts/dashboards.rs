//! The dashboards of Grafana in `deploy/grafana/`: what they ask is there, and Prometheus answers it.

use crate::deploy::deploy;
use crate::harness::Prometheus;
use serde_json::Value;
use std::collections::BTreeSet;
use tollgate::testing::metrics::FAMILIES;

const DASHBOARDS: [&str; 2] = ["grafana/overview.json", "grafana/account.json"];
/// What Grafana puts in the place of its variables, as in the test: everything, and two customers.
const VARIABLES: [(&str, &str); 6] = [
    ("$__rate_interval", "4s"),
    ("$__range", "1m"),
    ("$job", ".*"),
    ("$instance", ".*"),
    ("$account", "125000000[12]"),
    ("$group", ".*"),
];
/// Panels whose queries may have no series, and why.
const EMPTY_WHEN_ALL_IS_WELL: [(&str, &str); 1] = [(
    "Heads that are no requests, and answers that broke off",
    "no head is refused in the test",
)];
/// Series that are not of the gate's table.
const OF_PROMETHEUS: [&str; 2] = ["up", "ALERTS"];

struct Query {
    panel: String,
    expression: String,
    legend: String,
}

fn dashboard(file: &str) -> Value {
    let text = std::fs::read_to_string(deploy(file)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    panels.filter(|panel| panel["type"] != "row")
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            let text = |name: &str| target[name].as_str().unwrap().to_owned();
            queries.push(Query {
                panel: panel["title"].as_str().unwrap().to_owned(),
                expression: text("expr"),
                legend: text("legendFormat"),
            });
        }
    }
    queries
}

/// Puts each query to a Prometheus that has scraped gates in this time: none is an error, each has a
/// series that has the labels of its legend.
pub async fn check_queries(prometheus: &Prometheus, time: (i64, i64)) {
    for file in DASHBOARDS {
        for query in queries(&dashboard(file)) {
            let mut expression = query.expression.clone();
            for (variable, value) in VARIABLES {
                expression = expression.replace(variable, value);
            }
            let series = prometheus.query_range(&expression, time).await;
            let series = series.unwrap_or_else(|error| panic!("{expression}: {error}"));
            let may_be_empty = EMPTY_WHEN_ALL_IS_WELL
                .iter()
                .any(|(panel, _)| *panel == query.panel);
            assert!(!series.is_empty() || may_be_empty, "empty: {expression}");
            let is_number = |point: &Value| point[1] != "NaN";
            let has_numbers = |of: &Value| {
                of["values"]
                    .as_array()
                    .is_some_and(|of| of.iter().any(is_number))
            };
            assert!(
                series.is_empty() || series.iter().any(has_numbers),
                "NaN alone: {expression}"
            );
            for label in labels(&query.legend) {
                let all = series.iter().all(|of| of["metric"].get(label).is_some());
                assert!(all, "no {label} in {expression}");
            }
        }
    }
}

/// The labels that a legend shows.
fn labels(legend: &str) -> Vec<&str> {
    let parts = legend.split("{{").skip(1);
    parts
        .filter_map(|part| Some(part.split_once("}}")?.0))
        .collect()
}

/// The names of metrics in an expression.
fn series_of(expression: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_part(c));
    let named = words.filter(|word| {
        let of_a_gate = ["tollgate_", "process_"];
        of_a_gate.iter().any(|begin| word.starts_with(begin)) || OF_PROMETHEUS.contains(word)
    });
    named.collect()
}

#[test]
fn every_metric_of_the_dashboards_exists() {
    for file in DASHBOARDS {
        let dashboard = dashboard(file);
        let mut expressions: Vec<String> = queries(&dashboard)
            .into_iter()
            .map(|query| query.expression)
            .collect();
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            let query = variable["definition"].as_str();
            expressions.extend(query.map(str::to_owned));
        }
        for expression in expressions {
            let named = series_of(&expression);
            assert!(!named.is_empty(), "{expression}");
            for name in named {
                let family = name.trim_end_matches("_bucket");
                let exists = FAMILIES.iter().any(|of| of.name == family);
                assert!(exists || OF_PROMETHEUS.contains(&name), "{name}");
            }
        }
    }
}

#[test]
fn the_dashboards_take_any_prometheus_and_no_two_panels_lie_upon_each_other() {
    let mut uids = BTreeSet::new();
    for file in DASHBOARDS {
        let dashboard = dashboard(file);
        assert!(uids.insert(dashboard["uid"].to_string()), "{file}");
        // That of Grafana 10.
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 38);
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            assert!(side("x") + side("w") <= 24, "{title}");
            for x in side("x")..side("x") + side("w") {
                for y in side("y")..side("y") + side("h") {
                    assert!(places.insert((x, y)), "{title}");
                }
            }
        }
        for panel in panels(&dashboard) {
            let targets = panel["targets"].as_array().unwrap();
            for source in targets.iter().chain([panel]) {
                assert_eq!(source["datasource"]["uid"], "${datasource}", "{panel}");
            }
        }
    }
    let named = dashboard(DASHBOARDS[0])["templating"]["list"][0].clone();
    assert_eq!(
        (&named["name"], &named["query"]),
        (&"datasource".into(), &"prometheus".into())
    );
}
