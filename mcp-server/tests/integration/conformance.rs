//! The official conformance suite against the product's doors.

use std::time::Duration;

use mcp_server::mcp::{McpOptions, Sessions};

use testkit::{NodeTool, require};

use crate::fixture::Fixture;
use crate::world::World;

/// How long the suite may take.
const LIMIT: Duration = Duration::from_secs(180);

/// What the suite found of the scenarios that a revision requires.
struct Findings {
    required: usize,
    failed: Vec<String>,
    said: String,
}

/// Runs what `revision` requires against the product's doors, with the suite's fixtures beside the tools.
async fn required(revision: &str, sessions: Sessions) -> Findings {
    let world = World::beside(McpOptions { sessions, ..McpOptions::default() }, Fixture::new()).await;
    let home = testkit::temporary().unwrap();
    let mut suite = require(NodeTool::install()).command("conformance", home.path()).unwrap();
    suite.args(["server", "--requirements", revision, "--url", &world.url("/mcp")]);
    let finished = tokio::task::spawn_blocking(|| testkit::finish(suite, LIMIT)).await.unwrap().unwrap();
    let said = finished.stdout + &finished.stderr;
    let (_, summary) = said.split_once("=== SUMMARY ===").unwrap_or_else(|| panic!("no summary: {said}"));
    let (scored, unscored) = summary.split_once("Not scored").unwrap_or((summary, ""));
    let named = |line: &str| line.split([' ', ':']).next().map(str::to_owned);
    let unscored: Vec<String> =
        unscored.lines().filter_map(|line| named(line.trim().strip_prefix(['✓', '✗'])?.trim())).collect();
    let found = |mark: char| -> Vec<String> {
        let marked = scored.lines().filter_map(|line| named(line.strip_prefix(mark)?.trim()));
        marked.filter(|name| !unscored.contains(name)).collect()
    };
    let failed = found('✗');
    Findings { required: found('✓').len() + failed.len(), failed, said }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_required_scenario_of_2026_07_28_passes() {
    let findings = required("2026-07-28", Sessions::None).await;
    assert_eq!((findings.required, findings.failed), (37, vec![]), "{}", findings.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_required_scenario_of_2026_07_28_passes_beside_sessions_for_older_clients() {
    let findings = required("2026-07-28", Sessions::Legacy).await;
    assert_eq!((findings.required, findings.failed), (37, vec![]), "{}", findings.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_required_scenario_of_2025_11_25_passes_with_sessions() {
    let findings = required("2025-11-25", Sessions::Legacy).await;
    assert_eq!((findings.required, findings.failed), (30, vec![]), "{}", findings.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sessions_older_clients_cannot_be_asked_and_nothing_else_is_missing() {
    let findings = required("2025-11-25", Sessions::None).await;
    let exceptions = [
        "tools-call-sampling",
        "tools-call-elicitation",
        "elicitation-sep1034-defaults",
        "elicitation-sep1330-enums",
    ];
    assert_eq!(findings.required, 30, "{}", findings.said);
    assert_eq!(findings.failed, exceptions, "{}", findings.said);
}
