//! Releases on real databases and blobs: plans, applies, rollbacks.

use std::sync::Mutex;

use futures::future::BoxFuture;
use kernel::TenantId;
use serde_json::{Value, json};

use super::*;
use crate::database::{Limits, Migrate, Mode, Query};

/// Notes what was tried out, and refuses when told to.
#[derive(Default)]
struct Witness {
    seen: Mutex<Vec<u64>>,
    refuse: std::sync::atomic::AtomicBool,
}

impl LiveCheck for Witness {
    fn check<'a>(&'a self, _: &'a Env, served: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.seen.lock().unwrap().push(served.release);
            if self.refuse.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::new(Code::Unavailable, "it does not answer"));
            }
            Ok(())
        })
    }
}

struct Yard {
    releases: Releases,
    databases: Arc<Databases>,
    witness: Arc<Witness>,
    env: Env,
    dir: tempfile::TempDir,
}

impl Yard {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        let databases = Arc::new(Databases::new(dir.path().to_owned(), Limits::default()));
        databases.create(env.id()).await.unwrap();
        let blobs = Blobs::new(dir.path()).unwrap();
        let witness = Arc::new(Witness::default());
        let logs = Logs::new(dir.path());
        let check = Arc::clone(&witness) as Arc<dyn LiveCheck>;
        let releases = Releases::new(Arc::clone(&databases), blobs, logs, check);
        Self { releases, databases, witness, env, dir }
    }

    async fn apply(&self, manifest: Value) -> Result<Applied> {
        let wanted = Wanted::Manifest(Box::new(parse(manifest)));
        self.releases.apply(&self.env, wanted, &[], &CancellationToken::new()).await
    }

    async fn plan(&self, manifest: Value) -> Result<Plan> {
        self.releases.plan(&self.env, parse(manifest), &[]).await
    }

    async fn apply_plan(&self, id: PlanId, confirm: Option<&str>) -> Result<Applied> {
        let wanted = Wanted::Plan { id, confirm: confirm.map(str::to_owned) };
        self.releases.apply(&self.env, wanted, &[], &CancellationToken::new()).await
    }

    async fn rollback(&self, release: u64) -> Result<Applied> {
        self.releases.rollback(&self.env, release, &CancellationToken::new()).await
    }

    async fn execute(&self, sql: &str) {
        self.databases.execute(&self.env, sql, &[], &CancellationToken::new()).await.unwrap();
    }

    async fn rows(&self, sql: &str) -> Value {
        let query = Query { sql: sql.to_owned(), ..Query::default() };
        json!(self.databases.query(&self.env, query, &CancellationToken::new()).await.unwrap().rows)
    }

    async fn schema(&self) -> String {
        self.databases.schema(&self.env).await.unwrap().fingerprint
    }
}

fn parse(manifest: Value) -> Manifest {
    serde_json::from_value(manifest).unwrap()
}

fn todos(columns: Value) -> Value {
    json!({ "database": { "tables": { "todos": { "columns": columns } } } })
}

fn changes(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|c| {
            let action = serde_json::to_value(c.action).unwrap();
            let detail = c.detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default();
            format!("{} {}{detail}", action.as_str().unwrap(), c.target)
        })
        .collect()
}

fn effects(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|e| format!("{:?} {}: {}", e.kind, e.target, e.message)).collect()
}

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
async fn updated_at_follows_every_update() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    yard.execute("INSERT INTO todos (title, created_at, updated_at) VALUES ('a', '2020', '2020')").await;
    yard.execute("UPDATE todos SET title = 'b'").await;
    assert_eq!(
        yard.rows("SELECT created_at = '2020', updated_at > '2025' FROM todos").await,
        json!([[1, 1]])
    );
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
async fn what_nobody_declared_survives_a_rebuild() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text", "count": "text" }))).await.unwrap();
    yard.execute("ALTER TABLE todos ADD COLUMN extra TEXT DEFAULT 'x'").await;
    yard.execute("CREATE INDEX by_extra ON todos (extra)").await;
    yard.execute("CREATE VIEW titles AS SELECT title FROM todos").await;
    yard.execute("CREATE TABLE log (at TEXT) STRICT").await;
    yard.execute("CREATE TRIGGER note AFTER INSERT ON todos BEGIN INSERT INTO log VALUES ('now'); END").await;
    yard.execute("INSERT INTO todos (title, count, extra) VALUES ('a', '7', 'kept')").await;
    let ids = yard.rows("SELECT id FROM todos").await;
    yard.apply(todos(json!({ "title": "text", "count": "int" }))).await.unwrap();
    assert_eq!(yard.rows("SELECT title, count, extra FROM todos").await, json!([["a", 7, "kept"]]));
    assert_eq!(yard.rows("SELECT id FROM todos").await, ids);
    yard.execute("INSERT INTO todos (title) VALUES ('b')").await;
    assert_eq!(yard.rows("SELECT count(*) FROM log").await, json!([[2]]));
    assert_eq!(yard.rows("SELECT title FROM titles").await, json!([["a"], ["b"]]));
    let kept = "SELECT name FROM sqlite_schema WHERE name IN ('by_extra', 'note') ORDER BY name";
    assert_eq!(yard.rows(kept).await, json!([["by_extra"], ["note"]]));
}

#[tokio::test]
async fn references_hold_through_the_rebuild_of_either_side() {
    let yard = Yard::new().await;
    let lists = |rank: &str, note: &str| {
        json!({ "database": { "tables": {
            "lists": { "columns": { "rank": rank } },
            "todos": { "columns": { "list": { "type": "ref:lists", "required": true, "on_delete": "cascade" }, "note": note } },
        } } })
    };
    yard.apply(lists("text", "text")).await.unwrap();
    yard.execute("INSERT INTO lists (id, rank) VALUES ('l1', '1')").await;
    yard.execute("INSERT INTO todos (list, note) VALUES ('l1', '2')").await;
    yard.apply(lists("int", "int")).await.unwrap();
    assert_eq!(
        yard.rows("SELECT rank, note FROM todos JOIN lists ON lists.id = todos.list").await,
        json!([[1, 2]])
    );
    yard.execute("DELETE FROM lists").await;
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[0]]));
}

#[tokio::test]
async fn a_table_made_by_sql_is_taken_over_with_its_rows() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (id INTEGER PRIMARY KEY, title TEXT UNIQUE, done BOOLEAN)").await;
    yard.execute("INSERT INTO todos (title, done) VALUES ('a', 1)").await;
    let applied = yard.apply(todos(json!({ "title": "text!", "done": "bool = false" }))).await.unwrap();
    assert!(applied.changed);
    assert_eq!(
        yard.rows("SELECT id, title, done, created_at IS NOT NULL FROM todos").await,
        json!([["1", "a", 1, 1]])
    );
    let cancel = CancellationToken::new();
    let doubled = yard.databases.execute(&yard.env, "INSERT INTO todos (title) VALUES ('a')", &[], &cancel);
    assert_eq!(Error::from(doubled.await.unwrap_err()).code(), Code::Conflict, "it stays unique");
    assert!(!yard.apply(todos(json!({ "title": "text!", "done": "bool = false" }))).await.unwrap().changed);
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
async fn a_table_that_already_is_what_a_manifest_wants_is_taken_over() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (title TEXT) STRICT").await;
    yard.execute("INSERT INTO todos (title) VALUES ('a')").await;
    let applied = yard.apply(todos(json!({ "title": "text" }))).await.unwrap();
    assert_eq!((applied.release, applied.changed), (1, true));
    assert_eq!(yard.rows("SELECT title, id IS NOT NULL FROM todos").await, json!([["a", 1]]));
}

#[tokio::test]
async fn values_that_a_declared_type_does_not_hold_are_not_lost_unsaid() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (count INTEGER, weight REAL, extra TEXT)").await;
    yard.execute("INSERT INTO todos (count, weight) VALUES ('many', 1), (1.5, 'heavy'), (7, 2.5)").await;
    let refused = yard.apply(todos(json!({ "count": "int", "weight": "real" }))).await.unwrap_err();
    let losses = "this would lose data: column todos.count: 2 of 3 values cannot become int and are lost; \
                  column todos.weight: 1 of 3 values cannot become real and are lost";
    assert_eq!(refused.message(), losses);
}

#[tokio::test]
async fn a_number_too_long_for_a_real_is_a_loss() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "count": "int" }))).await.unwrap();
    yard.execute("INSERT INTO todos (count) VALUES (9007199254740993), (2)").await;
    let refused = yard.apply(todos(json!({ "count": "real" }))).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "this would lose data: column todos.count: 1 of 2 values cannot become real and are lost"
    );
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
async fn names_that_join_to_the_same_text_do_not_collide() {
    let yard = Yard::new().await;
    let applied = yard
        .apply(json!({ "database": { "tables": {
        "project": { "columns": { "member_role": "text" }, "indexes": ["member_role"] },
        "project_member": { "columns": { "role": "text" }, "indexes": ["role"] },
    } } }))
        .await
        .unwrap();
    assert!(applied.changed);
}

#[tokio::test]
async fn a_table_is_written_in_another_case() {
    let yard = Yard::new().await;
    let named = |name: &str| json!({ "database": { "tables": { name: { "columns": { "title": "text" }, "indexes": ["title"] } } } });
    yard.apply(named("Todos")).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('a')").await;
    let applied = yard.apply(named("todos")).await.unwrap();
    assert!(applied.changed, "{applied:?}");
    assert_eq!(yard.rows("SELECT title FROM todos").await, json!([["a"]]));
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
async fn defaults_of_foreign_columns_survive_a_rebuild() {
    let yard = Yard::new().await;
    yard.execute("CREATE TABLE todos (title TEXT, a TEXT DEFAULT \"x\", b TEXT DEFAULT y, c INT DEFAULT -1, d NUMERIC DEFAULT 1.5, e TEXT DEFAULT CURRENT_TIMESTAMP, f TEXT DEFAULT ('p' || 'q'), g BOOLEAN DEFAULT true, h TEXT DEFAULT 'it''s', i BLOB DEFAULT x'01')").await;
    yard.execute("INSERT INTO todos (title, d) VALUES ('a', 2.5)").await;
    yard.apply(todos(json!({ "title": "text!" }))).await.unwrap();
    yard.execute("INSERT INTO todos (title) VALUES ('b')").await;
    assert_eq!(
        yard.rows("SELECT a, b, c, 1.5, f, g, h, typeof(i), d FROM todos").await,
        json!([
            ["x", "y", -1, 1.5, "pq", 1, "it's", "blob", 2.5],
            ["x", "y", -1, 1.5, "pq", 1, "it's", "blob", 1.5]
        ])
    );
}

#[tokio::test]
async fn an_index_on_a_column_that_is_not_there_is_refused() {
    let yard = Yard::new().await;
    let wrong = json!({ "database": { "tables": { "todos": { "columns": { "title": "text" }, "indexes": ["owner"] } } } });
    let refused = yard.apply(wrong).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/database/tables/todos/indexes/0"), "{refused:?}");
}

#[tokio::test]
async fn an_engine_error_does_not_point_at_sql_nobody_wrote() {
    let yard = Yard::new().await;
    yard.execute("CREATE VIEW todos AS SELECT 1").await;
    let refused = yard.apply(todos(json!({ "title": "text" }))).await.unwrap_err();
    assert_eq!(refused.pointer(), Some("/database/tables/todos"), "{refused:?}");
}

#[tokio::test]
async fn removing_a_site_that_is_not_there_says_so() {
    let yard = Yard::new().await;
    let refused = yard.releases.plan_removal(&yard.env, Removal::Site).await.map(|p| p.changes).unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn what_changes_beside_the_type_is_said_and_unique_values_need_an_index_only() {
    let yard = Yard::new().await;
    yard.apply(todos(json!({ "title": "text", "parent": "ref:todos" }))).await.unwrap();
    yard.execute("INSERT INTO todos (id, title, parent) VALUES ('1', 'a', NULL), ('2', 'b', '1')").await;
    let unique = json!({ "type": "text", "unique": true });
    let applied = yard.apply(todos(json!({ "title": unique, "parent": "ref:todos" }))).await.unwrap();
    assert_eq!(changes(&applied.changes), ["create index todos.title.key"]);
    assert_eq!(effects(&applied.effects), [""; 0]);
    let cascade = json!({ "type": "ref:todos", "on_delete": "cascade" });
    let applied = yard.apply(todos(json!({ "title": unique, "parent": cascade }))).await.unwrap();
    let said = "alter column todos.parent: ref:todos → ref:todos, on delete cascade";
    assert_eq!(changes(&applied.changes), [said]);
    yard.execute("DELETE FROM todos WHERE id = '1'").await;
    assert_eq!(yard.rows("SELECT count(*) FROM todos").await, json!([[0]]));
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
