//! What hostile guests try, with the database looked at after each.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[tokio::test]
async fn names_and_ids_are_never_sql() {
    let field = Field::todos().await;
    let (user, other) = (field.user(), field.user());
    field.create(&other, "todos", json!({ "title": "hidden" })).await.unwrap();
    let before = field.sql("SELECT * FROM todos").await;
    for text in [
        "' OR 1=1 --",
        "\" OR 1=1 --",
        "1) OR (1=1",
        "todos\" --",
        "*",
        "",
        "\0",
        "_steading_state",
        "sqlite_schema",
    ] {
        assert_eq!(
            told(field.get(&user, "todos", text).await),
            "404 not_found: there is no such row in todos"
        );
        assert_eq!(
            told(field.delete(&user, "todos", text).await),
            "404 not_found: there is no such row in todos"
        );
        assert_eq!(told(field.get(&user, text, "a").await), "404 not_found: there is no such table");
        assert_eq!(told(field.create(&user, text, json!({})).await), "404 not_found: there is no such table");
        assert!(
            told(field.create(&user, "todos", json!({ "title": "x", text: 1 })).await).starts_with("400")
        );
        assert!(
            told(field.list(&user, "todos", json!({ "select": text })).await).starts_with("400"),
            "{text}"
        );
    }
    assert_eq!(field.sql("SELECT * FROM todos").await, before);
}

#[tokio::test]
async fn a_trigger_that_reaches_for_the_platforms_tables_fails_and_undoes_the_row() {
    let field = Field::todos().await;
    let user = field.user();
    field.migrate("CREATE TRIGGER spy AFTER INSERT ON todos BEGIN DELETE FROM _steading_state; END").await;
    let answer = told(field.create(&user, "todos", json!({ "title": "a" })).await);
    assert_eq!(answer, "503 unavailable: the table todos is not as the release has it");
    assert_eq!(field.sql("SELECT count(*) FROM todos").await, json!([[0]]));
    field.migrate("DROP TRIGGER spy; CREATE TRIGGER no AFTER INSERT ON todos BEGIN SELECT RAISE(ABORT, 'not today'); END").await;
    assert_eq!(
        told(field.create(&user, "todos", json!({ "title": "a" })).await),
        "400 invalid_input: not today"
    );
}

#[tokio::test]
async fn a_request_that_is_given_up_leaves_nothing_half_done() {
    let field = Field::todos().await;
    let user = field.user();
    for _ in 0..20 {
        let operations: Vec<_> =
            (0..50).map(|_| json!({ "do": "create", "on": "todos", "new": { "title": "a" } })).collect();
        let batch = field.batch(&user, json!(operations));
        tokio::pin!(batch);
        // Polled a few times, then dropped in the middle.
        for _ in 0..5 {
            tokio::select! {
                biased;
                _ = &mut batch => break,
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let count = field.sql("SELECT count(*) FROM todos").await[0][0].as_u64().unwrap();
    assert_eq!(count % 50, 0, "{count}");
    assert_eq!(told(field.create(&user, "todos", json!({ "title": "after" })).await), "ok");
}

#[derive(Debug, Clone)]
enum Attempt {
    Get(usize),
    Update(usize, Value),
    Delete(usize, Option<&'static str>),
    Create(Value),
    List(Option<&'static str>, Option<&'static str>),
    Batch(usize, usize),
}

fn attempts() -> impl Strategy<Value = Attempt> {
    let filters = prop::option::of(prop::sample::select(vec![
        "true",
        "owner != null",
        "title == 'hidden' || true",
        "owner == null || owner != auth.uid",
        "!(owner == auth.uid)",
        "startsWith(title, 'h')",
        "size(title) > 0",
        "created_at < now()",
        "rank in [1, 2, 3]",
    ]));
    let orders = prop::option::of(prop::sample::select(vec!["owner", "-title", "rank,-owner", "created_at"]));
    let values = prop::sample::select(vec![
        json!({ "title": "spoilt" }),
        json!({ "title": "spoilt", "rank": null }),
        json!({ "title": "spoilt", "owner": null }),
        json!({ "title": "spoilt", "owner": "usr_00000000000000000000000000000000" }),
        json!({}),
    ]);
    let tags = prop::option::of(prop::sample::select(vec!["*", "\"a\"", ""]));
    prop_oneof![
        (0..6_usize).prop_map(Attempt::Get),
        (0..6_usize, values.clone()).prop_map(|(row, new)| Attempt::Update(row, new)),
        (0..6_usize, tags).prop_map(|(row, tag)| Attempt::Delete(row, tag)),
        values.prop_map(Attempt::Create),
        (filters, orders).prop_map(|(filter, order)| Attempt::List(filter, order)),
        (0..6_usize, 0..6_usize).prop_map(|(first, second)| Attempt::Batch(first, second)),
    ]
}

#[test]
fn random_attempts_of_others_change_nothing_and_see_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let field = runtime.block_on(Field::todos());
    let (owner, thief, visitor) = (field.user(), field.user(), field.visitor());
    let ids: Vec<String> = runtime.block_on(async {
        let mut ids = Vec::new();
        for rank in 0..5 {
            let row =
                field.create(&owner, "todos", json!({ "title": "hidden", "rank": rank })).await.unwrap();
            ids.push(id(&row));
        }
        // One that nobody owns.
        field.migrate("INSERT INTO todos (id, title) VALUES ('ownerless', 'hidden')").await;
        ids.push("ownerless".to_owned());
        ids
    });
    let mine = format!("SELECT * FROM todos WHERE owner IS NOT '{}'", uid(&thief).as_str().unwrap());
    let before = runtime.block_on(field.sql(&mine));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(attempts(), any::<bool>()), |(attempt, signed_in)| {
            let guest = if signed_in { &thief } else { &visitor };
            let rows = &field.rows;
            let seen = runtime.block_on(async {
                match &attempt {
                    Attempt::Get(row) => rows.get(guest, "todos", &ids[*row]).await.map(|row| row.json),
                    Attempt::Update(row, new) => {
                        rows.update(guest, "todos", &ids[*row], map(new.clone()), None).await.map(|row| row.json)
                    }
                    Attempt::Delete(row, tag) => {
                        let tag = tag.map(IfMatch::parse);
                        rows.delete(guest, "todos", &ids[*row], tag).await.map(|()| "hidden".into())
                    }
                    Attempt::Create(new) => {
                        rows.create(guest, "todos", map(new.clone())).await.map(|row| row.json)
                    }
                    Attempt::List(filter, order) => {
                        let query = ListQuery {
                            filter: filter.map(str::to_owned),
                            order: order.map(str::to_owned),
                            ..ListQuery::default()
                        };
                        rows.list(guest, "todos", &query).await
                    }
                    Attempt::Batch(first, second) => {
                        let batch = json!({ "operations": [
                            { "do": "create", "on": "todos", "new": { "title": "mine" } },
                            { "do": "update", "on": "todos", "id": ids[*first], "new": { "title": "spoilt" } },
                            { "do": "delete", "on": "todos", "id": ids[*second] },
                        ] });
                        rows.batch(guest, serde_json::from_value(batch).unwrap()).await
                    }
                }
            });
            if let Ok(json) = seen {
                let text = String::from_utf8(json.to_vec()).unwrap();
                prop_assert!(!text.contains("hidden"), "{:?}: {}", attempt, text);
            }
            prop_assert_eq!(&runtime.block_on(field.sql(&mine)), &before, "{:?}", attempt);
            Ok(())
        })
        .unwrap();
}
