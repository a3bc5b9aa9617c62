//! The way back: rollbacks, removals, and the blobs of what was.

use super::*;

#[tokio::test]
async fn a_rollback_returns_the_release_and_keeps_every_row() {
    let yard = Yard::new().await;
    let mut one = todos(json!({ "title": "text" }));
    one["site"] = json!({ "files": { "index.html": "one" } });
    yard.apply(one).await.unwrap();
    yard.apply(json!({
        "database": { "tables": {
            "todos": { "columns": { "title": "text", "due": { "type": "timestamp", "required": true, "default": "now()" } } },
            "notes": { "columns": { "text": "text" } },
            "empty": { "columns": { "text": "text" } },
        } },
        "site": { "files": { "index.html": "two" } },
    }))
    .await
    .unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('a')").await;
    yard.execute("INSERT INTO notes (text) VALUES ('written since')").await;

    let back = yard.rollback(1).await.unwrap();
    assert_eq!((back.release, back.changed), (1, true));
    let said = changes(&back.changes);
    assert!(
        said.contains(&"keep table notes: it has 1 rows that the release does not know".to_owned()),
        "{said:?}"
    );
    assert!(said.contains(&"drop table empty".to_owned()), "{said:?}");
    assert!(said.iter().any(|c| c.starts_with("keep column todos.due")), "{said:?}");
    assert_eq!(yard.rows("SELECT text FROM notes").await, json!([["written since"]]));
    assert_eq!(yard.rows("SELECT due IS NOT NULL FROM todos").await, json!([[1]]));
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.release, 1);
    yard.execute("INSERT INTO todos (title) VALUES ('like release 1 does')").await;
    assert!(!yard.rollback(1).await.unwrap().changed);

    let forward = yard.apply(json!({ "site": { "files": { "index.html": "three" } } })).await.unwrap();
    assert_eq!(forward.release, 3);
    assert_eq!(yard.rollback(9).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_rollback_that_would_lose_values_is_refused() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "count": "int" }))).await.unwrap();
    yard.apply(todos(json!({ "count": "text" }))).await.unwrap();
    yard.execute("INSERT INTO todos (count) VALUES ('many')").await;
    let before = yard.schema().await;
    let refused = yard.rollback(1).await.unwrap_err();
    assert_eq!(refused.message(), "column todos.count: 1 of 1 values cannot become int and are lost");
    assert_eq!(refused.code(), Code::Conflict);
    assert_eq!(yard.schema().await, before);
}

#[tokio::test]
async fn a_removal_needs_its_own_dry_run() {
    let yard = Yard::new().await;
    let mut app = todos(json!({ "title": "text" }));
    app["site"] = json!({ "files": { "index.html": "one" } });
    yard.apply(app).await.unwrap();
    yard.execute("CREATE TABLE loose (a TEXT) STRICT").await;
    yard.execute("INSERT INTO loose VALUES ('x')").await;
    let cancel = CancellationToken::new();
    let loose = Removal::Table("loose".into());
    let plan = yard.releases.plan_removal(&yard.env, loose.clone()).await.unwrap();
    assert_eq!(effects(&plan.effects), ["DataLoss table loose: 1 rows are deleted with the table"]);
    let table = Removal::Table("todos".into());
    let wrong = yard.releases.remove(&yard.env, &table, &plan.confirmation(), &cancel).await.unwrap_err();
    assert_eq!(wrong.message(), "this confirmation is for something else");
    yard.releases.remove(&yard.env, &loose, &plan.confirmation(), &cancel).await.unwrap();
    for removal in [table, Removal::Site] {
        let plan = yard.releases.plan_removal(&yard.env, removal.clone()).await.unwrap();
        assert!(
            yard.releases.remove(&yard.env, &removal, &plan.confirmation(), &cancel).await.unwrap().changed
        );
    }
    let app = yard.releases.describe(&yard.env).await.unwrap();
    assert_eq!((app.tables.len(), app.site), (0, None));
    for name in ["todos", "_steading_release", "sqlite_schema"] {
        let gone = yard.releases.plan_removal(&yard.env, Removal::Table(name.into())).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn blobs_of_kept_releases_are_never_collected() {
    let yard = Yard::new().await;
    yard.apply(json!({ "site": { "files": { "index.html": "one" } } })).await.unwrap();
    yard.apply(json!({ "site": { "files": { "index.html": "two" } } })).await.unwrap();
    assert_eq!(yard.releases.collect(&yard.env).await.unwrap(), 0);
    let blobs =
        std::fs::read_dir(yard.dir.path().join(yard.env.id().to_string()).join("blobs")).unwrap().count();
    assert_eq!(blobs, 2);
    let first = yard.releases.numbered(&yard.env, 1).await.unwrap().unwrap();
    assert_eq!(first.release, 1);
    assert!(yard.releases.numbered(&yard.env, 3).await.unwrap().is_none());
}

#[tokio::test]
async fn blobs_of_a_plan_are_kept_as_long_as_it_can_be_applied() {
    let yard = Yard::new().await;
    let plan =
        yard.plan(json!({ "site": { "files": { "index.html": "one", "app.js": "two" } } })).await.unwrap();
    let blobs = yard.dir.path().join(yard.env.id().to_string()).join("blobs");
    let old = std::time::SystemTime::now() - 2 * crate::hosting::DEFAULT_GRACE;
    for blob in std::fs::read_dir(&blobs).unwrap() {
        let file = std::fs::File::options().write(true).open(blob.unwrap().path()).unwrap();
        file.set_modified(old).unwrap();
    }
    assert_eq!(yard.releases.collect(&yard.env).await.unwrap(), 0);
    yard.apply_plan(plan.id, None).await.unwrap();
}

#[tokio::test]
async fn a_table_that_others_refer_to_is_not_removed() {
    let yard = Yard::new().await;
    yard.apply(json!({ "database": { "tables": {
        "lists": { "columns": {} }, "todos": { "columns": { "list": "ref:lists" } },
    } } }))
    .await
    .unwrap();
    yard.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)").await;
    yard.execute("CREATE TABLE child (parent INTEGER REFERENCES parent (id))").await;
    for name in ["lists", "parent"] {
        let refused = yard.releases.plan_removal(&yard.env, Removal::Table(name.into())).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::Conflict, Some("/name")), "{refused:?}");
    }
}

#[tokio::test]
async fn removing_a_site_that_is_not_there_says_so() {
    let yard = Yard::new().await;
    let refused = yard.releases.plan_removal(&yard.env, Removal::Site).await.map(|p| p.changes).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn a_deploy_leaves_the_tables_as_they_are() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "count": "int", "old": "text" }))).await.unwrap();
    let sql = "ALTER TABLE todos DROP COLUMN count; ALTER TABLE todos ADD COLUMN count TEXT; \
               ALTER TABLE todos DROP COLUMN old; INSERT INTO todos (count) VALUES ('many')";
    let migrate =
        Migrate { name: "1".into(), sql: sql.into(), mode: Mode::Apply, release: None, accepted: None };
    let cancel = CancellationToken::new();
    yard.databases.migrate(&yard.env, &migrate, &cancel).await.unwrap();
    let before = yard.schema().await;
    let files = BTreeMap::from([("index.html".to_owned(), FileSpec::Text("hi".into()))]);
    yard.releases.deploy(&yard.env, files, None, &cancel).await.unwrap();
    let name = yard.apply(json!({ "name": "Todos" })).await.unwrap();
    assert_eq!(changes(&name.changes), ["alter name: Todos"]);
    assert_eq!(yard.schema().await, before);
    assert_eq!(yard.rows("SELECT count FROM todos").await, json!([["many"]]));
}

#[tokio::test]
async fn a_rollback_after_a_hundred_rows_does_to_each_what_was_said() {
    let yard = Yard::new().await;
    let tests = json!([{ "as": "other", "do": "get", "on": "todos", "expect": "deny" }]);
    yard.apply(json!({
        "database": { "tables": {
            "todos": { "columns": { "title": "text!", "done": "bool = false" }, "access": "private" },
        } },
        "auth": { "methods": ["anonymous"] },
        "site": { "files": { "index.html": "one" } },
        "tests": tests,
    }))
    .await
    .unwrap();
    yard.execute("INSERT INTO todos (id, owner, title) VALUES ('before', 'ann', 'written under 1')").await;
    yard.apply(json!({
        "database": { "tables": {
            "todos": { "columns": { "title": "text!", "done": "bool = false", "rank": "int", "note": "text" },
                       "access": { "list": "true", "get": "true", "create": "auth.uid != null", "update": "row.rank == 1" } },
            "tags": { "columns": { "todo": "ref:todos!", "name": "text!" }, "access": "admin_only" },
            "empty": { "columns": {} },
        } },
        "auth": { "methods": ["password"], "origins": ["https://example.org"] },
        "site": { "files": { "index.html": "two" } },
        "tests": [{ "as": "other", "do": "get", "on": "todos", "expect": "allow" }],
    }))
    .await
    .unwrap();
    let hundred = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) ";
    let todos =
        "INSERT INTO todos (id, title, done, rank) SELECT 'row ' || i, 'title ' || i, i % 2, i FROM n";
    yard.execute(&format!("{hundred}{todos}")).await;
    yard.execute(&format!("{hundred}INSERT INTO tags (todo, name) SELECT 'row ' || i, 'tag ' || i FROM n"))
        .await;
    let rows = "SELECT t.id, t.owner, t.title, t.done, t.rank, t.created_at, t.updated_at, g.* FROM todos t LEFT JOIN tags g ON g.todo = t.id ORDER BY t.id";
    let all = async || yard.databases.platform_query(&yard.env, rows, &[]).await.unwrap();
    let before = all().await;
    assert_eq!(before.len(), 101);

    let cancel = CancellationToken::new();
    let plan = yard.releases.plan_rollback(&yard.env, 1, &[], &cancel).await.unwrap();
    assert_eq!((plan.release, plan.changed, all().await == before), (2, false, true));
    let back = yard.rollback(1).await.unwrap();
    assert_eq!((&plan.changes, &plan.effects), (&back.changes, &back.effects));
    assert_eq!(
        changes(&back.changes),
        [
            "drop table empty",
            "keep table tags: it has 100 rows that the release does not know",
            "keep column todos.rank: it has 100 values that the release does not know",
            "drop column todos.note",
            "alter table todos: access expressions → private",
            "alter auth: sign-in by password, also from https://example.org → sign-in by anonymous",
            "alter tests: 1 tests of access",
            "alter site: changed index.html",
        ]
    );
    assert_eq!(
        effects(&back.effects),
        [
            "Privilege table todos: 100 rows have no owner: no rule that asks for one gives them to anybody",
            "Cost table todos: the table is rewritten: 101 rows",
            "Privilege table todos: access expressions → private",
            "Privilege auth: sign-in by password, also from https://example.org → sign-in by anonymous",
        ]
    );
    assert_eq!(all().await, before);
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.release, 1);
    let table = live.app.table("todos").unwrap();
    assert_eq!(table.access, crate::access::Preset::Private.rules());
    assert_eq!(
        table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        ["id", "owner", "title", "done", "created_at", "updated_at"]
    );
    assert!(live.app.table("tags").is_none());
    assert_eq!(live.app.auth.methods.iter().map(|m| m.as_str()).collect::<Vec<_>>(), ["anonymous"]);
    assert!(live.app.auth.origins.is_empty());

    // The way forward again finds every value where it was left.
    yard.rollback(2).await.unwrap();
    assert_eq!(all().await, before);
    assert_eq!(yard.rows("SELECT count(*), sum(rank) FROM todos").await, json!([[101, 5050]]));
    let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(live.app.table("tags").unwrap().access, crate::access::Preset::AdminOnly.rules());
}

/// Who tells functions of events drops those that the release does not listen to: one that is undone has no say in it.
#[tokio::test]
async fn what_is_committed_is_known_beside_what_is_on_trial_and_as_soon_as_it_is() {
    let yard = Yard::new().await;
    yard.apply(json!({ "name": "one" })).await.unwrap();
    let (env, releases) = (&yard.env, &yard.releases);
    let number = |served: Option<Arc<Served>>| served.map(|served| served.release);
    let one = releases.live(env).await.unwrap().unwrap();
    let trial =
        Live::try_out(&releases.live, env.id(), &Arc::new(Served { release: 9, ..Served::clone(&one) }));
    assert_eq!(number(releases.live(env).await.unwrap()), Some(9));
    assert_eq!(number(releases.committed(env).await.unwrap()), Some(1));
    drop(trial);
    // The moment between a commit and its publication.
    yard.apply(json!({ "name": "two" })).await.unwrap();
    releases.live.publish(env.id(), Some(one));
    assert_eq!(number(releases.live(env).await.unwrap()), Some(1));
    assert_eq!(number(releases.committed(env).await.unwrap()), Some(2));
}
