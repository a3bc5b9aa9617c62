//! Columns that are hidden, immutable or checked, and rules in another platform's words.

use super::*;
use crate::access::Operation;

fn notes(columns: Value, access: Value) -> Value {
    json!({ "database": { "tables": { "notes": { "columns": columns, "access": access } } } })
}

#[tokio::test]
async fn a_check_holds_every_row_whoever_writes_it() {
    let yard = Yard::new().await;
    let columns =
        |check: &str| json!({ "title": { "type": "text", "check": check }, "n": "int", "data": "json" });
    yard.apply(notes(columns("size(title) <= 3 && title != 'it''s'"), json!("private"))).await.unwrap_err();
    let check = "size(title) <= 3 && !(title in ['x', \"it's\", 'a\\u0000b']) || data.a.b == true && n > 1.5";
    yard.apply(notes(columns(check), json!("private"))).await.unwrap();
    yard.execute("INSERT INTO notes (title) VALUES ('abc'), (NULL)").await;
    yard.execute("INSERT INTO notes (title, n, data) VALUES ('long', 2, '{\"a\":{\"b\":true}}')").await;
    for refused in ["'long'", "'x'", "'it''s'"] {
        let sql = format!("INSERT INTO notes (title, n) VALUES ({refused}, 1)");
        let execute = yard.databases.execute(&yard.env, &sql, &[], &CancellationToken::new()).await;
        assert_eq!(execute.unwrap_err().to_string(), "the check of title does not hold", "{sql}");
    }
    // Another check is another table; rows that do not meet it are in the way.
    let refused = yard.apply(notes(columns("size(title) <= 3"), json!("private"))).await.unwrap_err();
    assert_eq!(
        (refused.pointer(), refused.message()),
        (
            Some("/database/tables/notes/columns/title/check"),
            "rows that are there do not meet the check of title"
        )
    );
    yard.execute("DELETE FROM notes WHERE title = 'long'").await;
    let plan = yard.plan(notes(columns("size(title) <= 3"), json!("private"))).await.unwrap();
    assert_eq!(
        changes(&plan.changes),
        [format!("alter column notes.title: text, check {check} → text, check size(title) <= 3")]
    );
    yard.apply(notes(columns("size(title) <= 3"), json!("private"))).await.unwrap();
    assert!(!yard.apply(notes(columns("size(title) <= 3"), json!("private"))).await.unwrap().changed);
    yard.execute("INSERT INTO notes (title, n) VALUES ('x', 1)").await;
    let back = yard.rollback(1).await.unwrap_err();
    assert_eq!((back.code(), back.pointer()), (Code::Conflict, Some("/release")));
}

#[tokio::test]
async fn a_check_asks_nothing_but_the_row() {
    let yard = Yard::new().await;
    let told = async |check: &str| {
        let columns = json!({ "title": { "type": "text", "check": check }, "data": "json" });
        let error = yard.plan(notes(columns, json!("private"))).await.map(|plan| plan.changes).unwrap_err();
        format!("{}: {}", error.pointer().unwrap_or_default(), error.message())
    };
    let at = "/database/tables/notes/columns/title/check: at byte";
    for (check, words) in [
        ("auth.uid == title", "4: a check holds whoever writes: it has no auth"),
        ("created_at < now()", "13: a check holds at any time: it has no now()"),
        ("title in data", "6: a check does not look into the lists of columns"),
        ("exists(notes, title == 'a')", "0: exists(…) is for access rules alone"),
        ("row.title == 'a'", "0: there is no \"row\" here"),
        ("titel == 'a'", "0: there is no column \"titel\" in notes"),
        ("title", "0: title is a text, which is neither true nor false"),
    ] {
        assert_eq!(told(check).await, format!("{at} {words}"));
    }
}

#[tokio::test]
async fn what_hides_or_shows_a_column_is_said_and_moves_no_row() {
    let yard = Yard::new().await;
    let hidden = json!({ "title": "text", "score": { "type": "int", "hidden": true, "immutable": true } });
    yard.apply(notes(json!({ "title": "text", "score": "int" }), json!("private"))).await.unwrap();
    let before = yard.schema().await;
    let plan = yard.plan(notes(hidden.clone(), json!("private"))).await.unwrap();
    assert_eq!(changes(&plan.changes), ["alter column notes.score: int → int, hidden, immutable"]);
    assert_eq!(effects(&plan.effects), ["Privilege column notes.score: int → int, hidden, immutable"]);
    yard.apply(notes(hidden.clone(), json!("private"))).await.unwrap();
    assert_eq!(yard.schema().await, before);
    assert!(!yard.apply(notes(hidden, json!("private"))).await.unwrap().changed);
    let required = json!({ "score": { "type": "int", "hidden": true, "required": true } });
    let refused = yard.plan(notes(required, json!("private"))).await.map(|plan| plan.changes).unwrap_err();
    assert_eq!(refused.pointer(), Some("/database/tables/notes/columns/score/hidden"));
}

#[tokio::test]
async fn a_time_as_a_default_is_stored_as_rows_hold_times() {
    let yard = Yard::new().await;
    yard.apply(notes(json!({ "due": "timestamp = 2030-01-31T13:00:00+01:00" }), json!("private")))
        .await
        .unwrap();
    yard.execute("INSERT INTO notes DEFAULT VALUES").await;
    assert_eq!(yard.rows("SELECT due FROM notes").await, json!([["2030-01-31T12:00:00.000Z"]]));
}

#[tokio::test]
async fn rules_of_cloudbase_are_taken_and_said_in_our_words() {
    let yard = Yard::new().await;
    let said = async |access: Value| {
        let plan = yard.plan(notes(json!({ "title": "text" }), access)).await.unwrap();
        plan.changes.into_iter().filter_map(|change| change.detail).next_back().unwrap()
    };
    assert_eq!(
        said(json!("READONLY")).await,
        "public_read (READONLY) means list: true; get: true; create: new.owner == auth.uid; \
         update: row.owner == auth.uid && new.owner == auth.uid; delete: row.owner == auth.uid"
    );
    assert_eq!(
        said(json!({ "read": true, "write": "doc._openid == auth.openid", "delete": false })).await,
        "expressions means list: true; get: true; create: new.owner == auth.uid; \
         update: row.owner == auth.uid; delete: false"
    );
    for (theirs, ours) in [("PRIVATE", "private"), ("ADMINWRITE", "admin_write"), ("ADMINONLY", "admin_only")]
    {
        yard.apply(notes(json!({}), json!(theirs))).await.unwrap();
        let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
        let theirs = live.app.table("notes").unwrap().access.clone();
        yard.apply(notes(json!({}), json!(ours))).await.unwrap();
        let live = yard.releases.live(&yard.env).await.unwrap().unwrap();
        assert_eq!(live.app.table("notes").unwrap().access, theirs);
    }
}

fn team(tests: Value) -> Value {
    json!({
        "database": { "tables": {
            "teams": { "columns": { "name": "text!" }, "access": {
                "get": "exists(members, team == row.id && user == auth.uid)",
                "list": "exists(members, team == row.id && user == auth.uid)",
                "update": "exists(members, team == row.id && user == auth.uid && role == 'lead')",
                "create": "!exists(bans, user == auth.uid)",
            } },
            "members": {
                "columns": { "team": "ref:teams!", "user": "text!", "role": "text = 'member'" },
                "access": "admin_only",
            },
            "bans": { "columns": { "user": "text!" } },
        } },
        "tests": tests,
    })
}

#[tokio::test]
async fn tests_give_the_rows_that_rules_look_for() {
    let yard = Yard::new().await;
    let member =
        |role: &str| json!([{ "on": "members", "row": { "team": "@row", "user": "@other", "role": role } }]);
    yard.apply(team(json!([
        { "as": "other", "do": "get", "on": "teams", "expect": "deny" },
        { "as": "other", "do": "list", "on": "teams", "given": member("member"), "expect": "allow" },
        { "as": "other", "do": "update", "on": "teams", "given": member("member"), "expect": "deny" },
        { "as": "other", "do": "update", "on": "teams", "given": member("lead"), "new": { "name": "b" }, "expect": "allow" },
        { "as": "user", "do": "get", "on": "teams", "given": member("lead"), "expect": "deny" },
        { "as": "user", "do": "create", "on": "teams", "expect": "allow" },
        { "as": "user", "do": "create", "on": "teams", "given": [{ "on": "bans", "row": { "user": "@user" } }], "expect": "deny" },
        // Whoever is nobody is not known not to be banned.
        { "as": "anonymous", "do": "create", "on": "teams", "expect": "deny" },
    ])))
    .await
    .unwrap();
    assert_eq!(
        yard.rows("SELECT (SELECT count(*) FROM teams) + (SELECT count(*) FROM members)").await,
        json!([[0]])
    );
    let wrong = json!([{ "as": "user", "do": "get", "on": "teams", "given": [{ "on": "bans", "row": { "usr": "" } }], "expect": "deny" }]);
    let refused = yard.plan(team(wrong)).await.map(|plan| plan.changes).unwrap_err();
    assert_eq!(refused.pointer(), Some("/tests/0/given/0/row/usr"));
}

#[tokio::test]
async fn lint_finds_owners_that_can_be_changed_and_looks_without_an_index() {
    let yard = Yard::new().await;
    let mut app = team(json!([]));
    app["database"]["tables"]["notes"] = json!({ "columns": { "author": "text!", "text": "text!" }, "access": {
        "get": "row.author == auth.uid || exists(bans, user == row.author)", "create": "auth.uid != null",
        "update": "row.author == auth.uid" } });
    yard.apply(app).await.unwrap();
    let access = json!({ "list": "row.author == auth.uid", "get": "row.author == auth.uid || exists(bans, user == row.author)",
        "create": "auth.uid != null", "update": "row.author == auth.uid" });
    let access: crate::access::AccessSpec = serde_json::from_value(access).unwrap();
    let set = yard.releases.plan_access(&yard.env, "notes", access, &CancellationToken::new()).await.unwrap();
    assert_eq!(
        set.lint,
        [
            "who creates a row of notes may do so in another's name: create does not ask new.author",
            "who updates a row of notes may give it to another: update does not ask new.author, and author is not immutable",
            "list compares notes.author, which has no index: name it in the table's indexes",
            "get of notes looks through all of bans: no column that it compares has an index",
        ]
    );
    let table = yard.releases.live(&yard.env).await.unwrap().unwrap().app.table("notes").unwrap().clone();
    let found = crate::access::lint(&table, &Default::default(), None);
    let calls: Vec<_> =
        found.iter().filter_map(|finding| Some(finding.mend.as_ref()?.call("notes"))).collect();
    assert!(calls[0].contains("\"create\":\"auth.uid != null && new.author == auth.uid\""), "{calls:?}");
    assert!(
        calls[1].contains("\"update\":\"row.author == auth.uid && new.author == row.author\""),
        "{calls:?}"
    );
    assert!(table.allows(Operation::Update) && calls[2].starts_with("db_execute"), "{calls:?}");
}

fn searched(columns: Value, search: Value) -> Value {
    json!({ "database": { "tables": { "notes": { "columns": columns, "access": "private", "search": search } } } })
}

#[tokio::test]
async fn the_words_of_a_table_follow_its_shape() {
    let yard = Yard::new().await;
    let columns = json!({ "title": "text", "body": "text", "n": "text" });
    yard.apply(todos(json!({}))).await.unwrap();
    yard.apply(notes(columns.clone(), json!("private"))).await.unwrap();
    yard.execute("INSERT INTO notes (title, body, n) VALUES ('red fox', 'den', '1'), ('blue', 'fox', '2')")
        .await;
    let found = async |words: &str| {
        let sql = format!(
            "SELECT n FROM notes WHERE _rowid_ IN (SELECT rowid FROM \"notes.search\" WHERE \"notes.search\" MATCH '{words}') ORDER BY n"
        );
        yard.rows(&sql).await
    };
    let plan = yard.plan(searched(columns.clone(), json!(["title"]))).await.unwrap();
    assert_eq!(changes(&plan.changes), ["create search notes: title"]);
    assert_eq!(effects(&plan.effects), Vec::<String>::new());
    yard.apply(searched(columns.clone(), json!(["title"]))).await.unwrap();
    assert!(!yard.apply(searched(columns.clone(), json!(["title"]))).await.unwrap().changed);
    assert_eq!(found("fox").await, json!([["1"]]));
    let altered = yard.apply(searched(columns.clone(), json!(["title", "body"]))).await.unwrap();
    assert_eq!(changes(&altered.changes), ["alter search notes: title, body"]);
    assert_eq!(found("fox").await, json!([["1"], ["2"]]));
    // A table that is made again takes its words along.
    let other = json!({ "title": "text", "body": "text", "n": "int" });
    yard.apply(searched(other.clone(), json!(["title", "body"]))).await.unwrap();
    yard.execute("UPDATE notes SET body = 'lair' WHERE n = 2").await;
    yard.execute("INSERT INTO notes (body, n) VALUES ('a fox', 3)").await;
    assert_eq!(found("fox").await, json!([[1], [3]]));
    yard.execute("DELETE FROM notes WHERE n = 1").await;
    assert_eq!(found("fox").await, json!([[3]]));
    assert_eq!(yard.databases.schema(&yard.env).await.unwrap().tables.len(), 1);
    let described = yard.releases.describe(&yard.env).await.unwrap();
    assert_eq!(described.tables["notes"].search, ["title", "body"]);
    let gone = yard.apply(searched(other, json!([]))).await.unwrap();
    assert_eq!(changes(&gone.changes), ["drop search notes"]);
    let objects = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'notes.search%'";
    assert_eq!(yard.rows(objects).await, json!([[0]]));
    yard.rollback(4).await.unwrap();
    assert_eq!(found("fox").await, json!([["3"]]));
    let drop = yard.plan(todos(json!({}))).await.unwrap();
    assert_eq!(changes(&drop.changes)[0], "drop table notes");
    let losses = effects(&drop.effects);
    yard.apply_plan(drop.id, drop.confirm.as_deref()).await.unwrap();
    assert_eq!(losses, ["DataLoss table notes: 2 rows are deleted with the table"]);
    assert_eq!(yard.rows(objects).await, json!([[0]]));
    for (search, at) in [
        (json!(["n"]), "/search/0"),
        (json!(["title", "title"]), "/search/1"),
        (json!(["none"]), "/search/0"),
    ] {
        let columns = json!({ "title": "text", "n": "int" });
        let refused = yard.plan(searched(columns, search)).await.map(|plan| plan.changes).unwrap_err();
        assert_eq!(refused.pointer(), Some(format!("/database/tables/notes{at}").as_str()));
    }
    let hidden = json!({ "title": { "type": "text", "hidden": true } });
    assert!(yard.plan(searched(hidden, json!(["title"]))).await.is_err());
}
