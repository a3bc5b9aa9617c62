//! One table's access: changed as a release, tried as everybody, explained.

use expect_test::{Expect, expect};

use super::*;
use crate::access::{AccessSpec, Operation, Question, Who};

impl Yard {
    async fn set(&self, table: &str, access: Value) -> Result<AccessSet> {
        let access: AccessSpec = serde_json::from_value(access).unwrap();
        let cancel = CancellationToken::new();
        let before = self.schema().await;
        let planned = self.releases.plan_access(&self.env, table, access.clone(), &cancel).await;
        assert_eq!(self.schema().await, before);
        let set = self.releases.set_access(&self.env, table, access, &cancel).await;
        match (&planned, &set) {
            (Ok(planned), Ok(set)) => {
                assert_eq!((&planned.matrix, &planned.lint), (&set.matrix, &set.lint));
                assert_eq!(planned.applied.effects, set.applied.effects);
            }
            (planned, set) => {
                assert_eq!(format!("{:?}", planned.as_ref().err()), format!("{:?}", set.as_ref().err()))
            }
        }
        set
    }

    async fn explain(&self, question: Value) -> Result<Value> {
        let who = question["as"].as_str().unwrap();
        let object = |name: &str| question[name].as_object().cloned().unwrap_or_default();
        let question = Question {
            on: question["on"].as_str().unwrap().to_owned(),
            operation: question["do"].as_str().unwrap().parse().unwrap(),
            who: who.parse().map(Who::Persona).unwrap_or_else(|()| Who::User(who.parse().unwrap())),
            id: question["id"].as_str().map(str::to_owned),
            row: object("row"),
            new: object("new"),
        };
        let explained = self.releases.explain(&self.env, question, &CancellationToken::new()).await?;
        Ok(serde_json::to_value(explained).unwrap())
    }
}

fn matrix(set: &AccessSet) -> String {
    let letters = |may: &Vec<Operation>| {
        let letter =
            |operation: Operation| if may.contains(&operation) { &operation.as_str()[..1] } else { "-" };
        Operation::ALL.map(letter).concat()
    };
    let lines: Vec<_> = set.matrix.iter().map(|(who, may)| format!("{who} {}", letters(may))).collect();
    lines.join(", ")
}

#[tokio::test]
async fn access_is_set_as_a_release_of_its_own_and_taken_back_by_a_rollback() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "title": "text!" }));
    app["database"]["tables"]["notes"] = json!({ "columns": { "text": "text" } });
    app["site"] = json!({ "files": { "index.html": "one" } });
    yard.apply(app).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('a'), ('b')").await;
    // What SQL has made of another table is none of this.
    yard.execute("ALTER TABLE notes ADD COLUMN more TEXT").await;
    let notes = yard.rows("SELECT sql FROM sqlite_schema WHERE name = 'notes'").await;

    let set = yard.set("Todos", json!("private")).await.unwrap();
    assert_eq!((set.applied.release, set.applied.changed), (2, true));
    assert_eq!(
        changes(&set.applied.changes),
        ["create index todos.owner.idx", "alter table todos: access nobody → private"]
    );
    assert_eq!(
        effects(&set.applied.effects),
        [
            "Privilege table todos: 2 rows have no owner: no rule that asks for one gives them to anybody",
            "Privilege table todos: access nobody → private"
        ]
    );
    assert_eq!(matrix(&set), "anonymous -----, other --c--, user lgcud, admin --c--");
    assert_eq!(set.lint, Vec::<String>::new());
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.site.files.len(), 1);
    assert!(live.app.table("todos").unwrap().has_owner());
    assert_eq!(
        yard.rows("SELECT title, owner FROM todos ORDER BY title").await,
        json!([["a", null], ["b", null]])
    );
    assert_eq!(yard.rows("SELECT sql FROM sqlite_schema WHERE name = 'notes'").await, notes);
    assert!(!yard.set("todos", json!("private")).await.unwrap().applied.changed);

    let opened = yard.set("todos", json!("public_read")).await.unwrap();
    assert_eq!(
        effects(&opened.applied.effects),
        ["Privilege table todos: everybody may read it (public_read)"]
    );
    let back = yard.rollback(1).await.unwrap();
    assert_eq!(effects(&back.effects), ["Privilege table todos: access public_read → nobody"]);
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.app.table("todos").unwrap().access, Default::default());
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[2]]));
}

#[tokio::test]
async fn access_of_a_table_that_no_manifest_has_is_refused_with_the_way_in() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    yard.execute("CREATE TABLE loose (a TEXT) STRICT").await;
    let told = async |table: &str, access: Value| {
        let error = yard.set(table, access).await.unwrap_err();
        format!(
            "{:?} {} {} ({})",
            error.code(),
            error.pointer().unwrap(),
            error.message(),
            error.advice().unwrap_or_default()
        )
    };
    assert_eq!(
        told("loose", json!("private")).await,
        "Conflict /table no manifest has the table loose (apply a manifest whose database.tables has it with its \
         columns, as app_describe shows them)"
    );
    assert_eq!(told("none", json!("private")).await, "NotFound /table there is no table none ()");
    assert_eq!(
        told("_steading_release", json!("private")).await,
        "NotFound /table there is no table _steading_release ()"
    );
    assert_eq!(
        told("todos", json!({ "get": "row.titel == 'a'" })).await,
        "InvalidInput /access/get at byte 4: there is no column \"titel\" in todos (its columns are id, title, created_at, updated_at)"
    );
}

#[tokio::test]
async fn access_that_breaks_a_test_of_the_manifest_is_refused() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "title": "text" }));
    app["tests"] = json!([{ "as": "anonymous", "do": "get", "on": "todos", "expect": "deny" }]);
    yard.apply(app).await.unwrap();
    let refused = yard.set("todos", json!("public_read")).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (
            Some("/access"),
            "the access test fails that anonymous may not get todos: anonymous may, by get: true"
        )
    );
}

#[tokio::test]
async fn lint_finds_what_is_likely_wrong() {
    let yard = Yard::new().await;
    let columns = json!({ "title": "text!", "email": "text", "team": "text", "public": "bool = false" });
    yard.apply(todos(columns)).await.unwrap();
    let mut found = String::new();
    for access in [
        json!({}),
        json!("public_read"),
        json!("admin_only"),
        json!({ "list": "true", "get": "row.owner == auth.uid", "create": "true", "update": "auth.uid != null", "delete": "row.public" }),
        json!({ "list": "row.team == auth.claims.team || row.public", "get": "row.team in auth.claims.teams",
                "create": "new.owner == auth.uid", "update": "auth.role == 'user' && row.owner == auth.uid" }),
        json!({ "delete": "auth.role == 'user' || auth.role == 'admin'" }),
        json!({ "get": "row.owner == auth.uid || row.email == auth.email" }),
    ] {
        let set = yard.set("todos", access.clone()).await.unwrap();
        found.push_str(&format!("{access}\n  {}\n", matrix(&set)));
        set.lint.iter().for_each(|finding| found.push_str(&format!("  - {finding}\n")));
    }
    expect![[r#"
        {}
          anonymous -----, other -----, user -----, admin -----
          - nobody but the app's makers reaches rows of todos: it has no access
        "public_read"
          anonymous lg---, other lgc--, user lgcud, admin lgc--
          - everybody may list email of todos
        "admin_only"
          anonymous -----, other -----, user -----, admin lgcud
        {"list":"true","get":"row.owner == auth.uid","create":"true","update":"auth.uid != null","delete":"row.public"}
          anonymous l-c--, other l-c--, user lgcu-, admin l-c--
          - everybody, signed in or not, may create any row of todos
          - everybody may list email of todos
          - list shows rows of todos that get does not: lists have every column too
        {"list":"row.team == auth.claims.team || row.public","get":"row.team in auth.claims.teams","create":"new.owner == auth.uid","update":"auth.role == 'user' && row.owner == auth.uid"}
          anonymous -----, other --c--, user --c--, admin --c--
          - list compares todos.team, which has no index: name it in the table's indexes
        {"delete":"auth.role == 'user' || auth.role == 'admin'"}
          anonymous -----, other -----, user -----, admin -----
          - nobody may get rows of todos, and a row that is hidden cannot be deleted
        {"get":"row.owner == auth.uid || row.email == auth.email"}
          anonymous -----, other -----, user -g---, admin -----
    "#]].assert_eq(&found);
}

#[tokio::test]
async fn an_explanation_names_the_rule_and_the_part_that_does_not_hold() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "title": "text!", "locked": "bool = false" }));
    app["database"]["tables"]["todos"]["access"] = json!({
        "list": "row.owner == auth.uid",
        "get": "row.owner == auth.uid || auth.role == 'admin'",
        "create": "new.owner == auth.uid && (size(new.title) > 1 && size(new.title) < 10)",
        "update": "row.owner == auth.uid && row.locked == false",
    });
    yard.apply(app).await.unwrap();
    let ann = kernel::UserId::new();
    let sql = "INSERT INTO todos (id, title, owner) VALUES ('a', 'hers', ?1), ('b', 'ours', 'nobody')";
    yard.databases.execute(&yard.env, sql, &[json!(ann)], &CancellationToken::new()).await.unwrap();
    let told = |explained: Value, expect: Expect| {
        let mut text = serde_json::to_string_pretty(&explained).unwrap().replace(&ann.to_string(), "ANN");
        text.push('\n');
        expect.assert_eq(&text);
    };
    let ask = async |question: Value| {
        let mut answer = yard.explain(question).await.unwrap();
        let map = answer.as_object_mut().unwrap();
        map.remove("sql");
        map.remove("params");
        answer
    };
    told(
        ask(json!({ "on": "todos", "do": "list", "as": "user", "id": "a" })).await,
        expect![[r#"
        {
          "allowed": true,
          "rule": "list: row.owner == auth.uid",
          "visible": 1
        }
    "#]],
    );
    told(
        ask(json!({ "on": "todos", "do": "update", "as": "other", "id": "a", "new": { "title": "x" } }))
            .await,
        expect![[r#"
            {
              "allowed": false,
              "rule": "get: row.owner == auth.uid || auth.role == \"admin\"",
              "failing": "row.owner == auth.uid || auth.role == \"admin\""
            }
        "#]],
    );
    told(ask(json!({ "on": "todos", "do": "update", "as": "user", "row": { "locked": true }, "new": { "locked": false } })).await, expect![[r#"
        {
          "allowed": false,
          "rule": "update: row.owner == auth.uid && row.locked == false",
          "failing": "row.locked == false"
        }
    "#]]);
    told(
        ask(json!({ "on": "todos", "do": "delete", "as": "admin", "id": "a" })).await,
        expect![[r#"
        {
          "allowed": false,
          "rule": "delete: no rule"
        }
    "#]],
    );
    told(
        ask(json!({ "on": "todos", "do": "create", "as": "user", "new": { "title": "a" } })).await,
        expect![[r#"
            {
              "allowed": false,
              "rule": "create: new.owner == auth.uid && size(new.title) > 1 && size(new.title) < 10",
              "failing": "size(new.title) > 1"
            }
        "#]],
    );
    told(
        ask(json!({ "on": "todos", "do": "create", "as": "user", "new": { "owner": "other" } })).await,
        expect![[r#"
            {
              "allowed": false,
              "rule": "create: new.owner == auth.uid && size(new.title) > 1 && size(new.title) < 10",
              "reason": "the owner of a row is who makes it"
            }
        "#]],
    );
    told(
        yard.explain(json!({ "on": "todos", "do": "get", "as": "user", "id": "a" })).await.unwrap(),
        expect![[r#"
            {
              "allowed": true,
              "rule": "get: row.owner == auth.uid || auth.role == \"admin\"",
              "sql": "SELECT \"id\", \"owner\", \"title\", \"locked\", \"created_at\", \"updated_at\" FROM \"todos\" WHERE \"id\" = ? AND (((\"todos\".\"owner\" COLLATE BINARY = ?) OR (? COLLATE BINARY = ?)))",
              "params": [
                "a",
                "ANN",
                "user",
                "admin"
              ]
            }
        "#]],
    );
    assert_eq!(
        yard.rows("SELECT id, title, locked FROM todos").await,
        json!([["a", "hers", 0], ["b", "ours", 0]])
    );
    let sql = "INSERT INTO todos (id, title) VALUES ('c', 'loaded')";
    yard.databases.execute(&yard.env, sql, &[], &CancellationToken::new()).await.unwrap();
    told(
        ask(json!({ "on": "todos", "do": "get", "as": "other", "id": "c" })).await,
        expect![[r#"
            {
              "allowed": false,
              "rule": "get: row.owner == auth.uid || auth.role == \"admin\"",
              "failing": "row.owner == auth.uid || auth.role == \"admin\"",
              "reason": "the row has no owner"
            }
        "#]],
    );
}

#[tokio::test]
async fn a_real_user_is_tried_with_their_own_role_and_claims() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "team": "text!" }));
    app["database"]["tables"]["todos"]["access"] =
        json!({ "list": "row.team in auth.claims.teams && auth.role == 'lead'" });
    yard.apply(app).await.unwrap();
    yard.execute("INSERT INTO todos (team) VALUES ('red'), ('blue'), ('red')").await;
    let ann = kernel::UserId::new();
    let mut db = yard.databases.writer(&yard.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    let sql = "INSERT INTO _steading_user (id, role, claims, disabled, created_at) VALUES (?1, 'lead', '{\"teams\":[\"red\"]}', 0, 0)";
    db.run(crate::database::Role::Platform, sql, &[json!(ann)]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    let answer = yard
        .explain(json!({ "on": "todos", "do": "list", "as": ann, "row": { "team": "red" } }))
        .await
        .unwrap();
    assert_eq!((&answer["allowed"], &answer["visible"]), (&json!(true), &json!(2)));
    let stranger =
        yard.explain(json!({ "on": "todos", "do": "list", "as": kernel::UserId::new() })).await.unwrap_err();
    assert_eq!((stranger.code(), stranger.pointer()), (Code::NotFound, Some("/as")));
    let told = async |question: Value| {
        let error = yard.explain(question).await.unwrap_err();
        format!("{:?} {}", error.code(), error.pointer().unwrap())
    };
    assert_eq!(told(json!({ "on": "none", "do": "list", "as": "user" })).await, "NotFound /on");
    assert_eq!(told(json!({ "on": "todos", "do": "get", "as": "user", "id": "none" })).await, "NotFound /id");
    assert_eq!(
        told(json!({ "on": "todos", "do": "get", "as": "user", "row": { "none": 1 } })).await,
        "InvalidInput /row/none"
    );
    assert_eq!(
        told(json!({ "on": "todos", "do": "update", "as": "user", "new": { "id": "x" } })).await,
        "InvalidInput /new/id"
    );
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[3]]));
}

#[tokio::test]
async fn triggers_that_refuse_what_is_made_up_do_not_keep_access_from_being_set() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text!" }))).await.unwrap();
    let trigger = |what: &str| {
        format!("CREATE TRIGGER strict BEFORE INSERT ON todos BEGIN SELECT RAISE({what}, 'no'); END")
    };
    yard.execute(&trigger("ABORT")).await;
    let set = yard.set("todos", json!("private")).await.unwrap();
    assert_eq!((set.applied.release, matrix(&set)), (2, String::new()));
    assert_eq!(set.lint, ["who may do what was not tried: no row can be made in todos to try rules on: no"]);

    let gone = Migrate {
        name: "gone".into(),
        sql: "DROP TRIGGER strict".into(),
        mode: Mode::Apply,
        release: None,
        accepted: None,
    };
    yard.databases.migrate(&yard.env, &gone, &CancellationToken::new()).await.unwrap();
    yard.execute(&trigger("ROLLBACK")).await;
    let before = yard.schema().await;
    let refused = yard.set("todos", json!("public_read")).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Conflict, "a trigger of todos rolls back all there is, rules cannot be tried on it")
    );
    let mut tested = todos(json!({ "title": "text!", "more": "text" }));
    tested["tests"] = json!([{ "as": "other", "do": "get", "on": "todos", "expect": "deny" }]);
    let refused = yard.apply(tested).await.unwrap_err();
    assert_eq!((refused.code(), refused.pointer()), (Code::Conflict, Some("/tests/0")));
    assert_eq!(yard.schema().await, before);
    assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, 2);
}

#[tokio::test]
async fn what_a_deletion_takes_along_past_the_rules_is_said() {
    let yard = Yard::new().await;
    let list = |on_delete: &str| json!({ "type": "ref:lists", "on_delete": on_delete });
    let table = |list: Value| json!({ "columns": { "list": list }, "access": "private" });
    yard.apply(json!({ "database": { "tables": {
        "lists": { "columns": { "title": "text" } },
        "tasks": table(list("cascade")), "notes": table(list("set_null")), "tags": table(list("restrict")),
    } } }))
    .await
    .unwrap();
    assert_eq!(
        yard.set("lists", json!("private")).await.unwrap().lint,
        [
            "who deletes a row of lists empties list of the rows of notes that have it, also those of others",
            "who deletes a row of lists deletes the rows of tasks whose list it is, also those of others",
        ]
    );
    assert_eq!(yard.set("tasks", json!("private")).await.unwrap().lint, Vec::<String>::new());
    let readers = json!({ "list": "row.owner == auth.uid", "get": "row.owner == auth.uid" });
    assert_eq!(yard.set("lists", readers).await.unwrap().lint, Vec::<String>::new());
}

#[tokio::test]
async fn a_test_does_not_pass_for_want_of_a_row() {
    for trigger in [
        "BEFORE INSERT ON todos BEGIN SELECT RAISE(IGNORE); END",
        "AFTER INSERT ON todos BEGIN DELETE FROM todos WHERE id = NEW.id; END",
        "AFTER INSERT ON todos BEGIN UPDATE todos SET id = 'other' WHERE id = NEW.id; END",
    ] {
        let yard = Yard::new().await;
        let mut app = todos(json!({ "title": "text" }));
        app["tests"] = json!([{ "as": "other", "do": "get", "on": "todos", "expect": "deny" }]);
        yard.apply(app.clone()).await.unwrap();
        yard.execute(&format!("CREATE TRIGGER gone {trigger}")).await;
        app["database"]["tables"]["todos"]["access"] = json!("public_read");
        let refused = yard.apply(app).await.unwrap_err();
        assert_eq!(
            (refused.pointer(), refused.message()),
            (
                Some("/tests/0/row"),
                "no row can be made in todos to try rules on: a trigger leaves it out or takes it away"
            )
        );
        assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, 1);
    }
}
