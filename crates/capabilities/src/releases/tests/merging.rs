//! Two apps that were one, as one again.

use super::*;
use crate::releases::merge::Sides;

#[tokio::test]
async fn a_merge_takes_away_what_the_other_side_has_taken_away() {
    let yard = Yard::new().await;
    let table = json!({ "todos": { "columns": { "title": "text!" }, "access": "private" } });
    let first = json!({ "name": "app", "database": { "tables": table } });
    yard.apply(first.clone()).await.unwrap();
    let kept = json!(yard.current().await);
    let mut second = first;
    for (key, part) in [
        ("auth", json!({ "methods": ["anonymous"] })),
        ("storage", json!({ "buckets": { "docs": { "access": "private" } } })),
        ("routes", json!({ "/todos/*": { "to": { "table": "todos" } } })),
        ("realtime", json!({ "channels": { "room:*": { "join": "true" } } })),
        ("backups", json!({ "every": "1d" })),
        ("lifecycle", json!({ "releases": { "keep": 5 } })),
        ("tests", json!([{ "as": "other", "do": "get", "on": "todos", "expect": "deny" }])),
        ("site", json!({ "files": { "index.html": "home" } })),
    ] {
        second[key] = part;
    }
    yard.apply(second).await.unwrap();
    let base = json!(yard.current().await);
    let site = json!(yard.releases.live(&yard.env).await.unwrap().unwrap().site);
    // There, they have gone back to the first release; here, a table has come since.
    let mut here = base.clone();
    here["database"]["tables"]["more"] = json!({ "columns": { "n": "int" } });
    yard.apply(here).await.unwrap();
    let sides = Sides {
        base: [base, site, json!({})],
        theirs: [kept.clone(), Value::Null, Value::Null],
        migrations: Vec::new(),
    };
    let merged = yard.releases.merge(&yard.env, sides, &[]).await.unwrap();
    assert_eq!(merged.conflicts, [""; 0]);
    let again = yard.releases.plan_merged(&yard.env, merged).await.unwrap();
    let targets: Vec<&str> = again.changes.iter().map(|change| change.target.as_str()).collect();
    for target in
        ["auth", "bucket docs", "route /todos/*", "realtime", "backups", "lifecycle", "tests", "site"]
    {
        assert!(targets.contains(&target), "{target}: {targets:?}");
    }
    yard.apply_plan(again.id, again.confirm.as_deref()).await.unwrap();
    let mut expected = kept;
    expected["database"]["tables"]["more"] = json!({ "columns": { "n": "int" } });
    assert_eq!(json!(yard.current().await), expected);
    assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().site, Site::default());
}

impl Yard {
    /// The manifest of the release that is current.
    pub(super) async fn current(&self) -> Manifest {
        let rows = self.databases.platform_query(&self.env, Release::CURRENT, &[]).await.unwrap();
        Release::read(rows.into_iter().next().unwrap()).unwrap().manifest
    }
}
