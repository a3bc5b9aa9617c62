//! Releases under attack: one whose access test fails changes nothing, and the way back loses no row.

use anyhow::ensure;
use conformance_tests::{Attack, Scene};
use serde_json::{Value, json};

use crate::app_todo::LIST;

/// What an outsider and the operator see of the app.
fn seen(scene: &Scene) -> anyhow::Result<Value> {
    let row = scene.mallory.ask("GET", &format!("/_/db/todos/{}", scene.target()))?;
    let page = scene.app.visitor().ask("GET", "/")?;
    let described = scene.place.output("app_describe", &json!({}))?;
    Ok(json!([row.status, page.status, page.body, page.header("x-release"), described, scene.state()?]))
}

const RELEASES: &[Attack] = &[
    Attack {
        name: "open a table although a test says it is shut",
        attempt: |scene| {
            let before = seen(scene)?;
            for access in [
                json!("public_read"),
                json!({ "list": "true", "get": "true", "update": "row.owner == auth.uid" }),
                json!({ "list": "row.owner == auth.uid", "get": "auth.uid != null", "update": "true" }),
            ] {
                let mut open = (LIST.manifest)();
                open["database"]["tables"]["todos"]["access"] = access.clone();
                open["site"]["files"]["index.html"] = "<title>Open</title>".into();
                for tool in ["app_plan", "app_apply"] {
                    let refused = scene.place.client.call(tool, &json!({ "manifest": open }))?;
                    let told = refused.body.to_string();
                    ensure!((400..500).contains(&refused.status), "{tool} of {access}: {told}");
                    // The test that fails first is the one that another may not get the row.
                    ensure!(told.contains("/manifest/tests/1") && told.contains("todos"), "which? {told}");
                }
                let now = seen(scene)?;
                ensure!(now == before, "{access} has changed something:\n  {before}\n  {now}");
            }
            Ok(())
        },
    },
    Attack {
        name: "go back after a hundred rows",
        attempt: |scene| {
            let first = scene.place.output("app_describe", &json!({}))?["release"].clone();
            let mut second = (LIST.manifest)();
            second["database"]["tables"]["todos"]["access"] = json!("public_read");
            second["tests"] = json!([{ "as": "other", "do": "get", "on": "todos", "expect": "allow" }]);
            scene.place.output("app_apply", &json!({ "manifest": second }))?;
            let stranger = scene.app.stranger()?;
            for n in 0..100 {
                stranger.create("todos", &json!({ "title": format!("row {n}"), "n": n }))?;
            }
            ensure!(scene.mallory.ask("GET", &format!("/_/db/todos/{}", scene.target()))?.status == 200);
            let rows = |scene: &Scene| {
                let mut all = Vec::new();
                for page in 0..6 {
                    let sql = format!("SELECT * FROM todos ORDER BY id LIMIT 20 OFFSET {}", page * 20);
                    all.push(scene.place.output("db_query", &json!({ "sql": sql }))?["rows"].clone());
                }
                anyhow::Ok(all)
            };
            let before = rows(scene)?;
            let plan = json!({ "release": first, "dry_run": true });
            let plan = scene.place.output("app_rollback", &plan)?;
            ensure!(plan["changed"] == false, "a dry run has gone back: {plan}");
            let back = scene.place.output("app_rollback", &json!({ "release": first }))?;
            let same = ["changes", "effects"].iter().all(|part| plan[part] == back[part]);
            ensure!(same, "the plan said something else: {plan} {back}");
            ensure!(back["changed"] == true, "not gone back: {back}");
            ensure!(rows(scene)? == before, "rows have changed on the way back");
            // What was open is shut again, at once, for everybody but the owner.
            let hidden = scene.mallory.ask("GET", &format!("/_/db/todos/{}", scene.target()))?;
            scene.refused(&hidden, 404, "not_found")?;
            scene.mallory.list("todos", &[("limit", "200")])?.lists(&[scene.own_id()])?;
            let own = stranger.list("todos", &[("limit", "200")])?;
            let count = own.body["rows"].as_array().map(Vec::len);
            ensure!(count == Some(100), "{count:?} of 100 rows are left");
            for row in own.body["rows"].as_array().into_iter().flatten() {
                stranger.ask("DELETE", &format!("/_/db/todos/{}", row["id"].as_str().unwrap_or_default()))?;
            }
            Ok(())
        },
    },
];

#[test]
fn no_release_opens_what_its_tests_shut_and_the_way_back_keeps_rows() {
    LIST.withstands(RELEASES).unwrap();
}
