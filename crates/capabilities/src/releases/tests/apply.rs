//! Plans and applies: what they say, what they refuse, and that they are whole.

use super::*;

#[tokio::test]
async fn a_manifest_becomes_tables_and_a_site_and_its_repeat_changes_nothing() {
    let yard = Yard::new().await;
    let manifest = json!({
        "name": "Todos",
        "database": { "tables": { "todos": {
            "columns": { "title": "text!", "done": "bool = false" }, "access": "private", "indexes": ["title"],
        } } },
        "site": { "files": { "index.html": "<h1>Hi</h1>" } },
    });
    let first = yard.apply(manifest.clone()).await.unwrap();
    assert_eq!((first.release, first.changed), (1, true));
    assert_eq!(
        changes(&first.changes),
        [
            "create table todos: title text!, done bool = false",
            "alter name: Todos",
            "create site: 1 files, 11 bytes",
        ]
    );
    assert_eq!(*yard.witness.seen.lock().unwrap(), [1]);
    yard.execute("INSERT INTO todos (title) VALUES ('milk')").await;
    assert_eq!(
        yard.rows("SELECT title, done, owner, length(id), id GLOB '*-7*' FROM todos").await,
        json!([["milk", 0, null, 36, 1]])
    );
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!((live.release, live.site.files.len()), (1, 1));

    let again = yard.apply(manifest).await.unwrap();
    assert_eq!((again.release, again.changed, again.changes.len()), (1, false, 0));
    assert_eq!(*yard.witness.seen.lock().unwrap(), [1]);
}

#[tokio::test]
async fn a_section_left_out_stays_and_an_empty_one_is_emptied() {
    let yard = Yard::new().await;
    yard.apply(json!({ "site": { "files": { "index.html": "a" } } })).await.unwrap();
    let tables = yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    assert_eq!(changes(&tables.changes), ["create table todos: title text"]);
    assert!(yard.releases.describe(&yard.env).await.unwrap().site.is_some());
    let emptied = yard.apply(json!({ "database": { "tables": {} }, "site": { "files": {} } })).await.unwrap();
    assert_eq!(changes(&emptied.changes), ["drop table todos", "drop site"]);
    assert_eq!(emptied.release, 3);
}

#[tokio::test]
async fn a_type_change_that_loses_data_is_refused_until_it_is_confirmed() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "count": "text" }))).await.unwrap();
    yard.execute("INSERT INTO todos (count) VALUES ('1'), ('many'), (NULL)").await;
    let narrower = todos(json!({ "count": "int" }));
    let before = yard.schema().await;

    let refused = yard.apply(narrower.clone()).await.unwrap_err();
    let loss = "this would lose data: column todos.count: 1 of 3 values cannot become int and are lost";
    assert_eq!((refused.code(), refused.message()), (Code::Conflict, loss));
    assert_eq!(yard.schema().await, before);

    let plan = yard.plan(narrower).await.unwrap();
    assert_eq!(changes(&plan.changes), ["alter column todos.count: text → int"]);
    assert_eq!(
        effects(&plan.effects),
        [
            "DataLoss column todos.count: 1 of 3 values cannot become int and are lost",
            "Cost table todos: the table is rewritten: 3 rows",
        ]
    );
    assert_eq!(yard.schema().await, before, "a plan changes nothing");
    for confirm in [None, Some("guessed")] {
        assert_eq!(yard.apply_plan(plan.id, confirm).await.unwrap_err().code(), Code::Conflict);
    }
    assert_eq!(yard.schema().await, before);
    let applied = yard.apply_plan(plan.id, plan.confirm.as_deref()).await.unwrap();
    assert_eq!((applied.release, applied.changed), (2, true));
    assert_eq!(yard.rows("SELECT count FROM todos ORDER BY count").await, json!([[null], [null], [1]]));

    let repeated = yard.apply_plan(plan.id, plan.confirm.as_deref()).await.unwrap();
    assert_eq!(
        (repeated.release, repeated.changed),
        (2, false),
        "a plan that is applied already is a success"
    );
}

#[tokio::test]
async fn a_plan_is_refused_when_the_state_has_moved_and_the_drift_is_named() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    let plan = yard.plan(todos(json!({ "title": "text", "done": "bool" }))).await.unwrap();
    yard.execute("ALTER TABLE todos ADD COLUMN extra TEXT").await;
    yard.execute("CREATE INDEX by_title ON todos (title)").await;
    let refused = yard.apply_plan(plan.id, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::Conflict);
    assert_eq!(
        refused.message(),
        "the environment has moved since the plan was made: index by_title was added; table todos was changed"
    );
    let plan = yard.plan(todos(json!({ "title": "text", "done": "bool" }))).await.unwrap();
    yard.apply(json!({ "site": { "files": { "index.html": "a" } } })).await.unwrap();
    let refused = yard.apply_plan(plan.id, None).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "the environment has moved since the plan was made: release 2 is current, the plan saw 1"
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_place_and_nothing_is_done() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('a'), ('a')").await;
    let before = yard.schema().await;
    let cases = [
        (todos(json!({ "title": "text", "who": "text!" })), "/database/tables/todos/columns/who"),
        (todos(json!({ "title": { "type": "text", "unique": true } })), "/database/tables/todos/unique"),
        (todos(json!({ "title": "string" })), "/database/tables/todos/columns/title"),
        (todos(json!({ "id": "text" })), "/database/tables/todos/columns/id"),
        (todos(json!({ "list": "ref:lists" })), "/database/tables/todos/columns/list"),
        (json!({ "secrets": ["STRIPE_KEY"] }), "/secrets/0"),
        (json!({ "site": { "files": { "../up": "a" } } }), "/site/files/..~1up"),
        (
            json!({ "database": { "tables": { "todos": { "columns": { "title": "text" } } },
                    "migrations": [{ "name": "1", "sql": "INSERT INTO nowhere VALUES (1)" }] } }),
            "/database/migrations/0/sql",
        ),
    ];
    for (manifest, place) in cases {
        let refused = yard.apply(manifest.clone()).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some(place)), "{refused:?}");
        assert_eq!(yard.plan(manifest).await.unwrap_err().pointer(), Some(place));
    }
    assert_eq!(yard.schema().await, before);
    assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, 1);
}

#[tokio::test]
async fn migrations_run_once_and_are_known_by_their_text() {
    let yard = Yard::new().await;
    let with = |migrations: Value| json!({ "database": { "tables": { "todos": { "columns": { "title": "text" } } }, "migrations": migrations } });
    let insert = "INSERT INTO todos (title) VALUES ('seed')";
    yard.apply(with(json!([{ "name": "seed", "sql": insert }]))).await.unwrap();
    let renamed = yard.apply(with(json!([{ "name": "seeds", "sql": insert }]))).await.unwrap();
    assert!(!renamed.changed);
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[1]]));
    let edited = yard.apply(with(json!([{ "name": "seed", "sql": "SELECT 1" }]))).await.unwrap_err();
    assert_eq!((edited.code(), edited.pointer()), (Code::Conflict, Some("/database/migrations/0/sql")));
    let deleting =
        json!([{ "name": "seed", "sql": insert }, { "name": "clear", "sql": "DELETE FROM todos" }]);
    let refused = yard.apply(with(deleting)).await.unwrap_err();
    assert_eq!(refused.message(), "this would lose data: migration clear: 1 rows of table todos are deleted");
    let dropping = json!([{ "name": "seed", "sql": insert }, { "name": "drop", "sql": "ALTER TABLE todos DROP COLUMN title" }]);
    let refused = yard.apply(with(dropping)).await.unwrap_err();
    let loss =
        "this would lose data: migration drop: column todos.title goes, or is renamed, with its 1 values";
    assert_eq!(refused.message(), loss);
    assert_eq!(yard.rows("SELECT count(title) FROM todos").await, json!([[1]]));
}

#[tokio::test]
async fn a_release_that_does_not_answer_undoes_itself() {
    let yard = Yard::new().await;
    yard.apply(json!({ "site": { "files": { "index.html": "one" } } })).await.unwrap();
    let before = yard.schema().await;
    yard.witness.refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut second = todos(json!({ "title": "text" }));
    second["site"] = json!({ "files": { "index.html": "two" } });
    let refused = yard.apply(second.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(yard.schema().await, before);
    assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, 1);
    yard.witness.refuse.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(yard.apply(second).await.unwrap().release, 2);
}

#[tokio::test]
async fn two_applies_at_once_come_one_after_the_other() {
    let yard = Arc::new(Yard::new().await);
    let applies = (0..8).map(|i| {
        let yard = Arc::clone(&yard);
        async move {
            yard.apply(json!({ "site": { "files": { "index.html": format!("{i}") } } }))
                .await
                .unwrap()
                .release
        }
    });
    let mut releases = futures::future::join_all(applies).await;
    releases.sort_unstable();
    assert_eq!(releases, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(yard.releases.live(&yard.env).await.unwrap().unwrap().release, 8);
}

#[tokio::test]
async fn what_no_manifest_may_say_any_more_is_served_where_a_release_has_it() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text = tis", "state": "text = open" }))).await.unwrap();
    // As an earlier program took it.
    let mut db = yard.databases.writer(&yard.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    for (now, then) in [("text = tis", "text = 'tis"), ("text = open", "text = 'open'")] {
        let sql = "UPDATE _steading_release SET manifest = replace(manifest, ?1, ?2)";
        db.run(crate::database::Role::Platform, sql, &[now.into(), then.into()]).await.unwrap();
    }
    db.commit().await.unwrap();
    drop(db);
    yard.releases.forget(yard.env.id());
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.app.tables.len(), 1);
    assert_eq!(yard.apply(json!({ "name": "Todos" })).await.unwrap().release, 2);
    let refused = yard.apply(todos(json!({ "title": "text = 'tis" }))).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (
            Some("/database/tables/todos/columns/title"),
            "the default begins with a quote and does not end with it"
        )
    );
    assert_eq!(yard.rollback(1).await.unwrap().release, 1);
}
