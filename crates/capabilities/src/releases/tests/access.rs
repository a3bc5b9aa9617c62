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
        ["Privilege table todos: access: list true → row.owner == auth.uid; \
             create auth.uid != null && new.title != \"row.owner\" → nobody"]
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
        told(json!({ "list": "exists(lists, that.id == row.list)" })).await,
        "/database/tables/todos/access/list: at byte 0: exists(…) is not offered: a rule sees its own row only"
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
        told(json!({ "read": "true" })),
        "unknown field `read`, expected one of `list`, `get`, `create`, `update`, `delete`"
    );
    assert_eq!(told(json!({ "list": true })), "invalid type: boolean `true`, expected a string");
}
