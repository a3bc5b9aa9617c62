//! Access in releases: what a manifest may say, what of it is kept, and what a plan says of its changes.

use super::*;
use crate::access::Operation;

fn guarded(access: Value) -> Value {
    let columns =
        json!({ "title": "text!", "public": "bool = false", "members": "json", "due": "timestamp" });
    json!({ "database": { "tables": { "todos": { "columns": columns, "access": access } } } })
}

#[tokio::test]
async fn expressions_are_kept_as_rules_and_described_as_they_were_written() {
    let yard = Yard::new().await;
    let access = json!({
        "list": "row.public == true || row.owner == auth.uid",
        "get": "auth.uid in row.members",
        "create": "new.owner == auth.uid && size(new.title) <= 80",
    });
    yard.apply(guarded(access.clone())).await.unwrap();
    let app = yard.releases.live(&yard.env).await.unwrap().unwrap().app.clone();
    let table = app.table("TODOS").unwrap();
    let rules = Operation::ALL.map(|operation| table.access.of(operation).map(ToString::to_string));
    assert_eq!(
        rules.map(Option::unwrap_or_default),
        [
            "row.public == true || row.owner == auth.uid",
            "auth.uid in row.members",
            "new.owner == auth.uid && size(new.title) <= 80",
            "",
            ""
        ]
    );
    assert!(table.has_owner());
    assert_eq!(
        yard.rows("SELECT name FROM pragma_table_info('todos') WHERE name = 'owner'").await,
        json!([["owner"]])
    );
    let described = serde_json::to_value(yard.releases.describe(&yard.env).await.unwrap()).unwrap();
    assert_eq!(described["tables"]["todos"]["access"], access);
}

#[tokio::test]
async fn an_owner_is_there_where_a_rule_mentions_one_and_only_there() {
    let yard = Yard::new().await;
    yard.apply(guarded(json!({ "list": "true", "create": "auth.uid != null && new.title != 'row.owner'" })))
        .await
        .unwrap();
    let owner = "SELECT count(*) FROM pragma_table_info('todos') WHERE name = 'owner'";
    assert_eq!(yard.rows(owner).await, json!([[0]]));
    yard.execute("INSERT INTO todos (title) VALUES ('before')").await;
    let plan = yard.plan(guarded(json!({ "list": "row.Owner == auth.uid" }))).await.unwrap();
    assert_eq!(
        effects(&plan.effects),
        [
            "Privilege table todos: 1 rows have no owner: no rule that asks for one gives them to anybody",
            "Privilege table todos: access: list true → row.owner == auth.uid; \
             create auth.uid != null && new.title != \"row.owner\" → nobody"
        ]
    );
    yard.apply_plan(plan.id, None).await.unwrap();
    assert_eq!(yard.rows(owner).await, json!([[1]]));
}

#[tokio::test]
async fn what_opens_a_table_is_said() {
    let yard = Yard::new().await;
    let said = async |access: Value| effects(&yard.plan(guarded(access)).await.unwrap().effects);
    assert_eq!(said(json!("private")).await, Vec::<String>::new());
    assert_eq!(
        said(json!("admin_write")).await,
        ["Privilege table todos: everybody may read it (admin_write)"]
    );
    assert_eq!(
        said(json!({ "list": "true", "get": "row.public", "create": "true", "delete": "false" })).await,
        [
            "Privilege table todos: everybody may list rows",
            "Privilege table todos: everybody may get rows where row.public",
            "Privilege table todos: everybody may create rows",
        ]
    );
    yard.apply(guarded(json!("private"))).await.unwrap();
    assert_eq!(
        said(json!("public_read")).await,
        ["Privilege table todos: everybody may read it (public_read)"]
    );
    assert_eq!(said(Value::Null).await, ["Privilege table todos: access private → nobody"]);
    let same = json!({ "list": "row.owner == auth.uid", "get": "row.owner == auth.uid", "create": "new.owner == auth.uid",
        "update": "row.owner == auth.uid && new.owner == auth.uid", "delete": "row.owner == auth.uid" });
    let plan = yard.plan(guarded(same)).await.unwrap();
    assert_eq!(changes(&plan.changes), ["alter table todos: access private → expressions"]);
    assert_eq!(plan.effects, []);
}

#[tokio::test]
async fn that_everybody_who_is_signed_in_may_change_all_rows_is_said_once() {
    let yard = Yard::new().await;
    let open =
        json!({ "get": "auth.uid != null", "update": "auth.uid != null", "delete": "auth.uid != null" });
    let said = async |access: Value| effects(&yard.plan(guarded(access)).await.unwrap().effects);
    let all = |operation: &str| {
        format!("Privilege table todos: every signed-in user may {operation} all rows, also those of others")
    };
    assert_eq!(said(open.clone()).await, [all("update"), all("delete")]);
    // What is hidden can be neither changed nor deleted.
    let hidden = json!({ "get": "row.owner == auth.uid", "delete": "auth.uid != null" });
    assert_eq!(said(hidden.clone()).await, Vec::<String>::new());
    yard.apply(guarded(hidden)).await.unwrap();
    let widened = json!({ "get": "auth.uid != null", "delete": "auth.uid != null" });
    assert!(said(widened.clone()).await.contains(&all("delete")));
    yard.apply(guarded(widened)).await.unwrap();
    let told = said(open).await;
    assert!(told.contains(&all("update")) && !told.contains(&all("delete")), "{told:?}");
}

#[tokio::test]
async fn a_wrong_expression_is_refused_at_its_place() {
    let yard = Yard::new().await;
    let told = async |access: Value| {
        let error = yard.plan(guarded(access)).await.map(|plan| plan.changes).unwrap_err();
        format!("{}: {}", error.pointer().unwrap_or_default(), error.message())
    };
    assert_eq!(
        told(json!({ "get": "row.titel == 'a'" })).await,
        "/database/tables/todos/access/get: at byte 4: there is no column \"titel\" in todos"
    );
    assert_eq!(
        told(json!({ "create": "row.owner == auth.uid" })).await,
        "/database/tables/todos/access/create: at byte 0: there is no row before it is created"
    );
    assert_eq!(
        told(json!({ "list": "exists(lists, id == row.list)" })).await,
        "/database/tables/todos/access/list: at byte 7: there is no table \"lists\""
    );
}

#[test]
fn access_that_is_neither_is_refused_in_words() {
    let told = |access: Value| serde_json::from_value::<Manifest>(guarded(access)).unwrap_err().to_string();
    let expected = "expected a preset (private, public_read, admin_write, admin_only) or an object with an expression \
                    for each of list, get, create, update, delete";
    assert_eq!(told(json!("public")), format!("invalid value: string \"public\", {expected}"));
    assert_eq!(told(json!(true)), format!("invalid type: boolean `true`, {expected}"));
    assert_eq!(
        told(json!({ "view": "true" })),
        "unknown field `view`, expected one of `list`, `get`, `create`, `update`, `delete`, `read`, `write`"
    );
    assert_eq!(told(json!({ "list": 1 })), "expected an expression as a text");
}

fn tested(access: Value, tests: Value) -> Value {
    let mut app = guarded(access);
    app["tests"] = tests;
    app
}

fn told<T: std::fmt::Debug>(outcome: Result<T>) -> String {
    let error = outcome.unwrap_err();
    format!("{:?} {}: {}", error.code(), error.pointer().unwrap_or_default(), error.message())
}

#[tokio::test]
async fn tests_hold_the_presets_to_what_they_say() {
    let yard = Yard::new().await;
    let mut number = 0;
    for (preset, table) in [
        ("private", "anonymous ----- other --c-- user lgcud admin --c--"),
        ("public_read", "anonymous lg--- other lgc-- user lgcud admin lgc--"),
        ("admin_write", "anonymous lg--- other lg--- user lg--- admin lgcud"),
        ("admin_only", "anonymous ----- other ----- user ----- admin lgcud"),
    ] {
        let words: Vec<_> = table.split(' ').collect();
        let mut tests = Vec::new();
        for pair in words.chunks(2) {
            for (letter, operation) in pair[1].chars().zip(Operation::ALL) {
                let expect = if letter == '-' { "deny" } else { "allow" };
                tests.push(json!({ "as": pair[0], "do": operation, "on": "todos", "expect": expect }));
            }
        }
        yard.apply(tested(json!(preset), json!(tests))).await.unwrap();
        number += 1;
        assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, number);
        for (i, test) in tests.iter().enumerate() {
            let expect = if test["expect"] == "deny" { "allow" } else { "deny" };
            let mut wrong = tests.clone();
            wrong[i]["expect"] = json!(expect);
            let refused = yard.apply(tested(json!(preset), json!(wrong))).await.unwrap_err();
            assert_eq!(refused.pointer(), Some(format!("/tests/{i}").as_str()));
        }
    }
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[0]]));
}

#[tokio::test]
async fn a_release_whose_test_fails_is_refused_and_the_test_named() {
    let yard = Yard::new().await;
    yard.apply(tested(json!("private"), json!([]))).await.unwrap();
    let before = yard.schema().await;
    let seen = yard.witness.seen.lock().unwrap().len();
    let deny = json!({ "as": "other", "do": "list", "on": "todos", "expect": "deny" });
    let update =
        json!({ "as": "user", "do": "update", "on": "todos", "expect": "allow", "new": { "title": "b" } });
    let rules = json!({ "list": "row.owner == auth.uid", "get": "row.owner == auth.uid",
        "update": "row.owner == auth.uid && (row.public == true && new.title != row.title)" });
    let refused = [
        yard.apply(tested(json!("public_read"), json!([deny]))).await,
        yard.apply(tested(rules.clone(), json!([deny, update]))).await,
        yard.apply(tested(json!({}), json!([update]))).await,
    ];
    assert_eq!(
        refused.map(told),
        [
            "InvalidInput /tests/0: the access test fails that other may not list todos: other may, by list: true",
            "InvalidInput /tests/1: the access test fails that user may update todos: user may not, by update: \
             row.owner == auth.uid && row.public == true && new.title != row.title, of which row.public == true does not hold",
            "InvalidInput /tests/0: the access test fails that user may update todos: user may not, by get: no rule",
        ]
    );
    assert_eq!(
        told(yard.plan(tested(json!("public_read"), json!([deny]))).await.map(|plan| plan.id)),
        told(yard.apply(tested(json!("public_read"), json!([deny]))).await)
    );
    assert_eq!(yard.schema().await, before);
    assert_eq!(yard.witness.seen.lock().unwrap().len(), seen);
    let row = json!({ "as": "user", "do": "update", "on": "todos", "expect": "allow", "row": { "public": true, "title": "a" }, "new": { "title": "b" } });
    yard.apply(tested(rules, json!([deny, row]))).await.unwrap();
}

#[tokio::test]
async fn a_test_about_nothing_that_is_there_is_refused_at_its_place() {
    let yard = Yard::new().await;
    let told = async |test: Value| told(yard.apply(tested(json!("private"), json!([test]))).await);
    let test = |on: &str, row: Value, new: Value| json!({ "as": "user", "do": "create", "on": on, "expect": "allow", "row": row, "new": new });
    assert_eq!(
        told(test("notes", json!({}), json!({}))).await,
        "InvalidInput /tests/0/on: there is no table \"notes\""
    );
    assert_eq!(
        told(test("todos", json!({}), json!({ "titel": "a" }))).await,
        "InvalidInput /tests/0/new/titel: todos has no column \"titel\""
    );
    let mut get = test("todos", json!({ "public": "yes" }), json!({}));
    get["do"] = json!("get");
    assert_eq!(told(get).await, "InvalidInput /tests/0/row/public: public must be true or false");
    let mut unknown = test("todos", json!({}), json!({}));
    unknown["as"] = json!("root");
    assert!(serde_json::from_value::<Manifest>(tested(json!("private"), json!([unknown]))).is_err());
}

#[tokio::test]
async fn tests_try_forged_owners_and_rows_of_others() {
    let yard = Yard::new().await;
    let members = json!({ "list": "auth.uid in row.members", "get": "auth.uid in row.members", "create": "new.owner == auth.uid" });
    yard.apply(tested(
        members,
        json!([
            { "as": "user", "do": "create", "on": "todos", "expect": "deny", "new": { "owner": "other" } },
            { "as": "user", "do": "create", "on": "todos", "expect": "allow", "new": { "owner": "user" } },
            { "as": "other", "do": "get", "on": "todos", "expect": "allow",
              "row": { "members": ["usr_00000000000000000000000000000002"] } },
            { "as": "user", "do": "get", "on": "todos", "expect": "deny",
              "row": { "owner": "other", "members": ["usr_00000000000000000000000000000002"] } },
            { "as": "anonymous", "do": "get", "on": "todos", "expect": "deny", "row": { "members": [null] } },
        ]),
    ))
    .await
    .unwrap();
}

#[tokio::test]
async fn tests_run_beside_real_rows_and_leave_no_trace() {
    let yard = Yard::new().await;
    let tests = json!([
        { "as": "user", "do": "delete", "on": "lists", "expect": "allow", "row": { "name": "home" } },
        { "as": "user", "do": "create", "on": "items", "expect": "allow" },
        { "as": "other", "do": "update", "on": "items", "expect": "deny" },
    ]);
    let app = json!({ "database": { "tables": {
        "lists": { "columns": { "name": { "type": "text", "required": true, "unique": true } }, "access": "private" },
        "items": { "columns": { "list": "ref:lists!", "n": { "type": "int", "required": true, "unique": true } }, "access": "private" },
    } }, "tests": tests });
    yard.apply(app.clone()).await.unwrap();
    yard.execute("INSERT INTO lists (id, name) VALUES ('a', 'home'), ('b', 'work')").await;
    yard.execute("INSERT INTO items (list, n) VALUES ('a', 1), ('b', 2)").await;
    let rows = "SELECT l.*, i.* FROM items i JOIN lists l ON l.id = i.list ORDER BY n";
    let before = yard.rows(rows).await;
    let mut next = app;
    next["name"] = json!("Lists");
    assert!(yard.apply(next).await.unwrap().changed);
    assert_eq!(yard.rows(rows).await, before);
}

#[tokio::test]
async fn tests_that_were_kept_run_again_and_a_removed_table_takes_its_own_with_it() {
    let yard = Yard::new().await;
    let deny = json!([{ "as": "anonymous", "do": "list", "on": "todos", "expect": "deny" }]);
    yard.apply(tested(json!("private"), deny.clone())).await.unwrap();
    let opened = yard.apply(guarded(json!("public_read"))).await;
    assert!(told(opened).starts_with("InvalidInput /tests/0: the access test fails"));
    yard.apply(tested(json!("public_read"), json!([]))).await.unwrap();
    assert_eq!(yard.rollback(1).await.unwrap().release, 1);
    let table = Removal::Table("todos".into());
    let plan = yard.releases.plan_removal(&yard.env, table.clone()).await.unwrap();
    yard.releases.remove(&yard.env, &table, &plan.confirmation(), &CancellationToken::new()).await.unwrap();
    let stored = yard.databases.platform_query(&yard.env, Release::CURRENT, &[]).await.unwrap();
    assert_eq!(Release::read(stored[0].clone()).unwrap().manifest.tests, Some(vec![]));
}
