//! Attacks by cursors, and on tables that nobody opened.

use anyhow::{Context, ensure};
use conformance_tests::{Attack, MARK, Person, Scene};
use serde_json::{Value, json};

use crate::app_todo::LIST;

/// The cursor after the first row of a list.
fn cursor(person: &Person, table: &str, parameters: &[(&str, &str)]) -> anyhow::Result<String> {
    let page = person.list(table, &[parameters, &[("limit", "1")]].concat())?;
    Ok(page.body["cursor"].as_str().with_context(|| format!("no cursor: {page:?}"))?.to_owned())
}

/// Holds that a cursor leads at most to the attacker's own rows.
fn leads_nowhere(scene: &Scene, cursor: &str, parameters: &[(&str, &str)]) -> anyhow::Result<()> {
    let with = [parameters, &[("cursor", cursor)]].concat();
    for attacker in scene.attackers() {
        let reply = attacker.list("todos", &with)?;
        scene.tells_nothing(&reply)?;
        match reply.status {
            400 => reply.refuses(400, "invalid_input")?,
            200 => {
                let rows = reply.body["rows"].as_array().context("no rows")?;
                ensure!(rows.iter().all(|row| row["owner"] == attacker.id()), "others' rows: {reply:?}");
            }
            _ => anyhow::bail!("neither rows nor a refusal: {reply:?}"),
        }
    }
    Ok(())
}

const CURSORS: &[Attack] = &[
    Attack {
        name: "cursors of somebody else, another table, another order, another app",
        attempt: |scene| {
            let order = [("order", "-n")];
            leads_nowhere(scene, &cursor(&scene.alice, "todos", &[])?, &[])?;
            leads_nowhere(scene, &cursor(&scene.alice, "todos", &order)?, &order)?;
            leads_nowhere(scene, &cursor(&scene.alice, "todos", &order)?, &[])?;
            leads_nowhere(scene, &cursor(&scene.alice, "todos", &[])?, &order)?;
            let filter = [("where", "done == false")];
            leads_nowhere(scene, &cursor(&scene.alice, "todos", &filter)?, &[("where", "n == null")])?;
            let stranger = scene.elsewhere.stranger()?;
            for n in 0..2 {
                stranger.create("todos", &json!({ "title": "elsewhere", "n": n }))?;
                stranger.create("notices", &json!({ "text": "elsewhere" }))?;
            }
            leads_nowhere(scene, &cursor(&stranger, "todos", &[])?, &[])?;
            leads_nowhere(scene, &cursor(&stranger, "notices", &[])?, &[])
        },
    },
    Attack {
        name: "cursors with something changed in them",
        attempt: |scene| {
            let whole = cursor(&scene.alice, "todos", &[("order", "-n")])?;
            for at in 0..whole.len() {
                let mut bytes = whole.clone().into_bytes();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                leads_nowhere(scene, &String::from_utf8(bytes)?, &[("order", "-n")])?;
            }
            leads_nowhere(scene, &whole[..whole.len() / 2], &[("order", "-n")])?;
            leads_nowhere(scene, &format!("{whole}{whole}"), &[("order", "-n")])
        },
    },
    Attack {
        name: "cursors that were made up",
        attempt: |scene| {
            use base64::Engine as _;
            let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
            let id = scene.target();
            let forged = [
                json!([id]),
                json!([null, id]),
                json!([5, id]),
                json!(["5) OR 1=1 --", id]),
                json!({ "order": ["-n"], "after": [5, id] }),
                json!({ "id": id, "where": "true" }),
                json!(id),
                json!([[id]]),
                Value::Null,
            ];
            for value in &forged {
                leads_nowhere(scene, &engine.encode(value.to_string()), &[])?;
                leads_nowhere(scene, &value.to_string(), &[])?;
            }
            for text in ["x", "0", "-1", "null", "' OR 1=1 --", "\u{0}", &"A".repeat(6_000)] {
                let reply = scene.mallory.list("todos", &[("cursor", text)])?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| text.to_owned())?;
                leads_nowhere(scene, text, &[("order", "-n")])?;
            }
            Ok(())
        },
    },
];

const TABLES: &[Attack] = &[Attack {
    name: "tables that are not the app's",
    attempt: |scene| {
        let sql = json!({ "name": "side", "sql": "CREATE TABLE side (id TEXT PRIMARY KEY, owner TEXT, text TEXT)" });
        scene.place.output("db_migrate", &sql).or_else(|error| {
            // The table stays from an earlier attack of this kind.
            if error.to_string().contains("conflict") { Ok(Value::Null) } else { Err(error) }
        })?;
        let insert = format!("INSERT OR REPLACE INTO side VALUES ('s1', '{}', '{MARK}')", scene.mallory.id());
        scene.place.output("db_execute", &json!({ "sql": insert }))?;
        for table in [
            "side",
            "sqlite_master",
            "sqlite_schema",
            "sqlite_sequence",
            "_steading_user",
            "_steading_session",
            "_steading_release",
            "_STEADING_RELEASE",
            "_steading_migration",
            "main.todos",
            "\"todos\"",
            "todos--",
            "todos; DROP TABLE todos",
            "(SELECT * FROM todos)",
            "todos,notices",
            "pragma_table_info",
            "json_each",
            "nope",
            "..",
        ] {
            let path = format!("/_/db/{}", conformance_tests::encoded(table));
            for attacker in scene.attackers() {
                let replies = [
                    attacker.ask("GET", &path)?,
                    attacker.ask("GET", &format!("{path}/s1"))?,
                    attacker.send("POST", &format!("{path}/query"), &json!({}))?,
                    attacker.send("POST", &path, &json!({ "id": "x", "text": "x" }))?,
                    attacker.send("PATCH", &format!("{path}/s1"), &json!({ "text": "x" }))?,
                    attacker.ask("DELETE", &format!("{path}/s1"))?,
                ];
                for reply in &replies {
                    scene.refused(reply, 404, "not_found").with_context(|| table.to_owned())?;
                }
            }
        }
        // A table of the manifest whose access nobody has set is there, and shut.
        scene.place.output("db_execute", &json!({ "sql": format!("INSERT OR IGNORE INTO drawer (id, text, created_at, updated_at) VALUES ('d1', '{MARK}', '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')") }))?;
        for attacker in scene.attackers() {
            attacker.list("drawer", &[])?.lists(&[])?;
            scene.refused(&attacker.ask("GET", "/_/db/drawer/d1")?, 404, "not_found")?;
            let changed = attacker.send("PATCH", "/_/db/drawer/d1", &json!({ "text": "x" }))?;
            scene.refused(&changed, 404, "not_found")?;
            scene.refused(&attacker.ask("DELETE", "/_/db/drawer/d1")?, 404, "not_found")?;
            let made = attacker.send("POST", "/_/db/drawer", &json!({ "text": "x" }))?;
            scene.refused(&made, 403, "forbidden")?;
        }
        let left =
            scene.place.output("db_query", &json!({ "sql": "SELECT count(*), max(text) FROM drawer" }))?;
        ensure!(left["rows"] == json!([[1, MARK]]), "the drawer was opened: {left}");
        scene.place.output("db_execute", &json!({ "sql": "DELETE FROM drawer" }))?;
        let side = scene.place.output("db_query", &json!({ "sql": "SELECT count(*) FROM side" }))?;
        ensure!(side["rows"] == json!([[1]]), "the side table was written: {side}");
        Ok(())
    },
}];

#[test]
fn cursors_of_others_and_forged_ones_lead_nowhere() {
    LIST.withstands(CURSORS).unwrap();
}

#[test]
fn tables_that_nobody_opened_are_shut() {
    LIST.withstands(TABLES).unwrap();
}
