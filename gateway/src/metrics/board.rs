//! That whoever shows or alerts on metrics names those that there are, with labels that they have.

use std::collections::BTreeSet;

use serde_json::Value;

use super::catalogue::{ALL, Kind, Metric};

/// Labels that Prometheus adds, and the one of buckets.
const ADDED: [&str; 3] = ["instance", "job", "le"];

const DASHBOARD: &str = include_str!("../../../docs/grafana.json");
const OPERATE: &str = include_str!("../../../docs/operate.md");

/// Every query of the dashboard.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for name in ["expr", "definition"] {
                found.extend(fields.get(name).and_then(Value::as_str).map(str::to_owned));
            }
            fields.values().for_each(|field| queries(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

/// The words of a query, and whether each is one that names a metric.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
}

fn is_metric(word: &str) -> bool {
    ["steading_", "process_"].iter().any(|start| word.starts_with(start))
}

/// The family that a name in a query is of.
fn family(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| match metric.kind {
        Kind::Histogram => ["_bucket", "_sum", "_count"]
            .iter()
            .any(|end| name.strip_suffix(end).is_some_and(|name| name == metric.name)),
        Kind::Counter | Kind::Gauge => metric.name == name,
    })
}

/// The labels that a query names: what it groups by, and what it selects by.
fn labels(query: &str) -> Vec<&str> {
    let lists = query.split(" by (").skip(1).filter_map(|rest| rest.split(')').next());
    let grouped = lists.flat_map(|list| list.split(',').map(str::trim));
    let selectors = query.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let selected = selectors.flat_map(|list| list.split(", "));
    grouped.chain(selected.filter_map(|one| one.split(['=', '!']).next())).collect()
}

/// What is wrong with a query.
fn wrong(query: &str) -> Option<String> {
    let metrics: Vec<_> = words(query).filter(|word| is_metric(word)).collect();
    let unknown: Vec<_> = metrics.iter().filter(|name| family(name).is_none()).collect();
    if metrics.is_empty() || !unknown.is_empty() {
        return Some(format!("{query}: there is no such metric: {unknown:?}"));
    }
    let of_all: BTreeSet<_> =
        metrics.iter().filter_map(|name| family(name)).flat_map(Metric::label_names).chain(ADDED).collect();
    let strange: Vec<_> = labels(query).into_iter().filter(|label| !of_all.contains(label)).collect();
    (!strange.is_empty()).then(|| format!("{query}: no such labels: {strange:?}"))
}

#[test]
fn every_query_of_the_dashboard_names_metrics_and_labels_that_there_are() {
    let mut found = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    let wrong: Vec<_> = found.iter().filter_map(|query| wrong(query)).collect();
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_dashboard_shows_every_metric() {
    let shown: BTreeSet<_> = words(DASHBOARD).filter_map(family).map(|metric| metric.name).collect();
    let missing: Vec<_> = ALL.iter().map(|metric| metric.name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn every_alert_of_the_guide_names_metrics_and_labels_that_there_are() {
    let alerts: Vec<_> = OPERATE.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect();
    assert!(alerts.len() > 5, "{alerts:?}");
    let wrong: Vec<_> = alerts.iter().filter_map(|query| wrong(query)).collect();
    assert_eq!(wrong, [""; 0]);
    let unknown: Vec<_> =
        words(OPERATE).filter(|word| word.starts_with("steading_") && family(word).is_none()).collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn a_query_that_is_wrong_is_found() {
    for query in [
        "sum(rate(steading_calls_total[5m]))",
        "steading_tool_call_duration_seconds > 1",
        "sum by (tenant) (steading_tool_calls_total)",
        "steading_ready{door=\"mcp\"} == 0",
        "up == 0",
    ] {
        assert!(wrong(query).is_some(), "{query}");
    }
}
