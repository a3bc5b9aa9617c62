//! Attacks by what lists take: filters, orders, selections and limits.

use anyhow::{Context, ensure};
use conformance_tests::{Attack, MARK, Person, Reply, Scene};
use serde_json::json;

use crate::app_todo::LIST;

/// A list asked for in both ways.
fn both(person: &Person, name: &str, value: &str) -> anyhow::Result<[Reply; 2]> {
    let body = match name {
        "limit" => json!({ name: value.parse::<i64>().ok() }),
        _ => json!({ name: value }),
    };
    Ok([person.list("todos", &[(name, value)])?, person.send("POST", "/_/db/todos/query", &body)?])
}

/// Holds that a filter shows nothing but what rules let through anyway.
fn narrows(scene: &Scene, filter: &str, own: bool) -> anyhow::Result<()> {
    let own = if own { vec![scene.own_id()] } else { Vec::new() };
    for reply in both(&scene.mallory, "where", filter)? {
        scene.tells_nothing(&reply)?;
        reply.lists(&own).with_context(|| filter.to_owned())?;
    }
    for reply in both(&scene.app.visitor(), "where", filter)? {
        scene.tells_nothing(&reply)?;
        reply.lists(&[]).with_context(|| filter.to_owned())?;
    }
    Ok(())
}

/// Holds that both ways refuse a parameter, and say so without its parser's or engine's own words.
fn malformed(scene: &Scene, name: &str, value: &str) -> anyhow::Result<()> {
    for reply in both(&scene.mallory, name, value)? {
        let shown: String = value.chars().take(100).collect();
        scene.refused(&reply, 400, "invalid_input").with_context(|| format!("{name}={shown}"))?;
        let told = reply.body.to_string().to_lowercase();
        ensure!(!told.contains("sqlite") || shown.contains("sqlite"), "{name}={shown}: {reply:?}");
        ensure!(!told.contains("syntax error"), "{name}={shown}: {reply:?}");
    }
    Ok(())
}

const FILTERS: &[Attack] = &[
    Attack {
        name: "filters that are always true",
        attempt: |scene| {
            for filter in [
                "true",
                "!false",
                "1 == 1",
                "true || done",
                "(true)",
                "\"a\" == \"a\"",
                "1 in [1]",
                "owner != null",
                "id != null",
                "id > \"\"",
                "size(id) > 0",
                "startsWith(id, \"\")",
                "created_at <= now()",
                "title != \"\" || title == \"\"",
            ] {
                // One that the language does not have is refused, and shows nothing either.
                let [reply, _] = both(&scene.mallory, "where", filter)?;
                if reply.status == 400 {
                    malformed(scene, "where", filter)?;
                } else {
                    narrows(scene, filter, true)?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "filters that name the victim",
        attempt: |scene| {
            let (alice, mallory) = (scene.alice.id(), scene.mallory.id());
            let id = scene.target();
            narrows(scene, &format!("owner == \"{alice}\""), false)?;
            narrows(scene, &format!("owner in [\"{alice}\"]"), false)?;
            narrows(scene, &format!("owner in [\"{alice}\", \"{mallory}\"]"), true)?;
            narrows(scene, &format!("owner != \"{mallory}\""), false)?;
            narrows(scene, "owner != auth.uid", false)?;
            narrows(scene, "!(owner == auth.uid)", false)?;
            narrows(scene, "owner == null", false)?;
            narrows(scene, "owner == auth.uid || owner != auth.uid", true)?;
            narrows(scene, &format!("id == \"{id}\""), false)?;
            narrows(scene, &format!("id == \"{id}\" || true"), true)?;
            narrows(scene, &format!("startsWith(title, \"{MARK}\")"), false)?;
            narrows(scene, &format!("title.startsWith(\"{MARK}\") || done == true"), false)?;
            narrows(scene, "size(title) > 12", false)
        },
    },
    Attack {
        name: "text that ends a literal",
        attempt: |scene| {
            for text in [
                r#"title == "' OR 1=1 --""#,
                r#"title == "\" || true || \"""#,
                r#"title == '" || true || "'"#,
                r#"title == "x') OR ('1'='1""#,
                r#"title == "?1""#,
                r#"title == ":owner""#,
                r#"title == "%""#,
                r#"startsWith(title, "%")"#,
                r#"startsWith(title, "_")"#,
                r#"title == "\u0000""#,
                r#"title == "’ OR ʼ1ʼ=ʼ1""#,
            ] {
                let [reply, _] = both(&scene.mallory, "where", text)?;
                if reply.status == 400 {
                    malformed(scene, "where", text)?;
                } else {
                    narrows(scene, text, false)?;
                }
            }
            Ok(())
        },
    },
    Attack {
        name: "SQL in a filter",
        attempt: |scene| {
            for filter in [
                "1=1",
                "title = \"x\"",
                "' OR ''='",
                "true) OR (1 == 1",
                "true; DROP TABLE todos",
                "true -- ",
                "true /* */",
                "true OR true",
                "true AND true",
                "NOT false",
                "title LIKE '%'",
                "title IS NULL",
                "(SELECT title FROM todos)",
                "id in (SELECT id FROM todos)",
                "exists(todos, true)",
                "EXISTS (SELECT 1)",
                "sqlite_version() == \"3\"",
                "load_extension(\"x\")",
                "hex(title) == \"\"",
                "title || \"\" == \"\"",
                "rowid > 0",
                "_rowid_ > 0",
                "todos.title == \"x\"",
                "row.title == \"x\"",
                "new.title == \"x\"",
                "_steading_user.id == \"x\"",
                "\"title\" == title == true",
                "[title] == \"x\"",
                "`title` == \"x\"",
                "$1 == 1",
                "?1 == 1",
                "auth.password == \"x\"",
                "auth == null",
                "CASE WHEN true THEN true END",
                "title COLLATE NOCASE == \"x\"",
                "title == \"x",
                "title == 'x\"",
                "title == \"\\\"",
                "",
                " ",
                "title",
                "n",
                "null",
                "1",
                "\"x\"",
                "done == \"true\"",
                "n == \"1\"",
                "title == 1",
                "title > null",
                "true true",
                "true &&",
                "&& true",
                "true & true",
                "true | true",
                "!",
                "()",
                "now",
                "n in []",
                "n in [1, \"a\"]",
                "n in 1",
                "n == 99999999999999999999999",
                "n == 1e999",
                "n == 0x10",
                "n == NaN",
                "n == -",
                "n < 1 < 2",
            ] {
                malformed(scene, "where", filter)?;
            }
            Ok(())
        },
    },
    Attack {
        name: "look-alikes of names and signs",
        attempt: |scene| {
            for filter in [
                "\u{43e}wner == auth.uid",
                "owner\u{200b} == auth.uid",
                "owner \u{ff1d}\u{ff1d} auth.uid",
                "title == \u{ff02}x\u{ff02}",
                "title == \u{201c}x\u{201d}",
                "\u{202e}true",
                "true\u{a0}|| true\u{7f}",
                "true \u{0}|| true",
                "true\n--\ntrue",
                "ｔrue",
                "tıtle == \"x\"",
            ] {
                malformed(scene, "where", filter)?;
            }
            Ok(())
        },
    },
    Attack {
        name: "filters that are too deep, too long or too many",
        attempt: |scene| {
            let listed = |count: usize| vec!["\"x\""; count].join(", ");
            for filter in [
                "(".repeat(1_000),
                format!("{}true{}", "(".repeat(1_000), ")".repeat(1_000)),
                format!("{}true", "!".repeat(2_000)),
                vec!["true"; 600].join(" && "),
                vec!["done == true"; 300].join(" || "),
                format!("title in [{}]", listed(600)),
                format!("title == \"{}\"", "x".repeat(6_000)),
                format!("{}title{} > 1", "size(".repeat(300), ")".repeat(300)),
                "[".repeat(2_000),
            ] {
                malformed(scene, "where", &filter)?;
            }
            // What does not fit into an address at all.
            for filter in [
                format!("{}true{}", "(".repeat(100_000), ")".repeat(100_000)),
                format!("title in [{}]", listed(50_000)),
                "!".repeat(500_000),
            ] {
                let reply = scene.mallory.send("POST", "/_/db/todos/query", &json!({ "where": filter }))?;
                scene.refused(&reply, 400, "invalid_input")?;
            }
            Ok(())
        },
    },
    Attack {
        name: "filters on what is not there, or is not a text",
        attempt: |scene| {
            for filter in [
                json!(true),
                json!(1),
                json!(["true"]),
                json!({ "owner": { "$ne": null } }),
                json!({ "or": [{}] }),
            ] {
                let body = json!({ "where": filter });
                let reply = scene.mallory.send("POST", "/_/db/todos/query", &body)?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| body.to_string())?;
            }
            for filter in ["nope == 1", "password_hash == \"x\"", "todos_owner_created_at_idx == 1"] {
                malformed(scene, "where", filter)?;
            }
            Ok(())
        },
    },
];

const SHAPES: &[Attack] = &[
    Attack {
        name: "orders that are more than columns",
        attempt: |scene| {
            for order in [
                "nope",
                "-",
                "--title",
                "+title",
                "title desc",
                "title;DROP TABLE todos",
                "(SELECT title FROM todos)",
                "title COLLATE NOCASE",
                "1",
                "random()",
                "rowid",
                "title,,done",
                "case when 1 then 1 end",
                "todos.title",
                "\"title\"",
            ] {
                malformed(scene, "order", order)?;
            }
            Ok(())
        },
    },
    Attack {
        name: "selections that are more than columns",
        attempt: |scene| {
            for select in
                ["*", "nope", "title AS id", "(SELECT 1)", "count(*)", "rowid", "todos.title", "\"title\""]
            {
                malformed(scene, "select", select)?;
            }
            let own = scene.mallory.list("todos", &[("select", "title")])?;
            ensure!(own.body["rows"] == json!([{ "title": "of mallory" }]), "not one column: {own:?}");
            Ok(())
        },
    },
    Attack {
        name: "limits that are none",
        attempt: |scene| {
            for limit in [
                "0",
                "-1",
                "201",
                "1000000000",
                "9223372036854775808",
                "abc",
                "1.5",
                "",
                "1 OFFSET 1",
                "0x10",
            ] {
                let reply = scene.mallory.list("todos", &[("limit", limit)])?;
                scene.refused(&reply, 400, "invalid_input").with_context(|| limit.to_owned())?;
            }
            Ok(())
        },
    },
    Attack {
        name: "parameters that are not offered, or twice",
        attempt: |scene| {
            for query in [
                "where=false&where=true",
                "limit=1&limit=2",
                "filter=true",
                "as=alice",
                "owner=x",
                "WHERE=true",
                "where[]=true",
                "offset=1",
                "expand=owner",
                "include=owner",
                "access_token=x",
            ] {
                for attacker in scene.attackers() {
                    let reply = attacker.ask("GET", &format!("/_/db/todos?{query}"))?;
                    scene.refused(&reply, 400, "invalid_input").with_context(|| query.to_owned())?;
                }
            }
            // Text that is no UTF-8.
            let reply = scene.mallory.ask("GET", "/_/db/todos?where=%ff%fe")?;
            scene.refused(&reply, 400, "invalid_input")
        },
    },
];

#[test]
fn filters_only_narrow_what_rules_show() {
    LIST.withstands(FILTERS).unwrap();
}

#[test]
fn orders_selections_and_limits_are_no_way_around_rules() {
    LIST.withstands(SHAPES).unwrap();
}
