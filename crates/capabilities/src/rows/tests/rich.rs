//! What comes along with rows, numbers over them, rows that are put, found by words, changed once, and told as CSV.

use super::*;
use crate::access::Expr;

/// Lists that everybody reads; todos of their owners; notes on both.
async fn field() -> Field {
    Field::new(json!({
        "lists": { "columns": { "name": { "type": "text", "required": true, "unique": true }, "parent": "ref:lists" }, "access": "public_read" },
        "todos": {
            "columns": { "title": "text!", "rank": "int", "price": "real", "done": "bool = false", "list": "ref:lists",
                         "code": { "type": "text", "hidden": true } },
            "access": "private", "search": ["title"],
        },
        "docs": { "kind": "documents", "access": "private", "indexes": ["data.address.city", "data.age"] },
        "tags": { "columns": { "todo": "ref:todos!", "name": "text!" }, "unique": [["todo", "name"]], "access": "public_read" },
    }))
    .await
}

async fn rows(field: &Field, guest: &Guest, table: &str, query: Value) -> Value {
    field.list(guest, table, query).await.unwrap()["rows"].clone()
}

#[tokio::test]
async fn each_row_that_comes_along_is_judged_by_its_own_table() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    let home = field.create(&ada, "lists", json!({ "name": "home" })).await.unwrap();
    let shed = field.create(&ada, "lists", json!({ "name": "shed", "parent": id(&home) })).await.unwrap();
    for (who, title) in [(&ada, "a"), (&bob, "b")] {
        let todo = field.create(who, "todos", json!({ "title": title, "list": id(&shed) })).await.unwrap();
        field.create(&ada, "tags", json!({ "todo": id(&todo), "name": title })).await.unwrap();
    }
    let all = rows(
        &field,
        &bob,
        "lists",
        json!({ "expand": "todos_via_list,parent.todos_via_list", "order": "name", "select": "name" }),
    )
    .await;
    assert_eq!(
        all[0],
        json!({ "name": "home", "expand": { "todos_via_list": { "rows": [] }, "parent": null } })
    );
    assert_eq!(all[1]["expand"]["todos_via_list"]["rows"].as_array().unwrap().len(), 1);
    let seen = &all[1]["expand"]["todos_via_list"]["rows"][0];
    assert_eq!((&seen["title"], seen.get("code")), (&json!("b"), None));
    assert_eq!(all[1]["expand"]["parent"]["expand"], json!({ "todos_via_list": { "rows": [] } }));
    // A tag that everybody sees refers to a todo that is another's.
    let tags = rows(&field, &bob, "tags", json!({ "expand": "todo.list", "order": "name" })).await;
    assert_eq!(tags[0]["expand"], json!({ "todo": null }));
    assert_eq!(tags[1]["expand"]["todo"]["expand"]["list"]["name"], json!("shed"));
    let visitor = rows(&field, &field.visitor(), "tags", json!({ "expand": "todo" })).await;
    assert_eq!(visitor[0]["expand"], json!({ "todo": null }));
    assert_eq!(visitor[1]["expand"], json!({ "todo": null }));
    let one =
        field.rows.get_expanded(&bob, "tags", tags[1]["id"].as_str().unwrap(), Some("todo")).await.unwrap();
    assert_eq!(read(&one)["expand"]["todo"]["title"], json!("b"));
    for (expand, words) in [
        ("name", "lists refers to nothing by \"name\""),
        ("tags_via_todo", "lists refers to nothing by \"tags_via_todo\""),
        ("users_via_x", "lists refers to nothing by \"users_via_x\""),
        ("parent.parent.parent", "rows come along at most 2 steps away"),
        ("parent,parent,parent,parent,parent,parent,parent,parent,parent", "at most 8 can be named"),
        ("", "lists refers to nothing by \"\""),
    ] {
        let refused = field.list(&ada, "lists", json!({ "expand": expand })).await;
        assert_eq!(told(refused), format!("400 invalid_input /expand: {words}"));
    }
}

#[tokio::test]
async fn many_that_refer_end_with_the_cursor_of_their_list() {
    let field = field().await;
    let ada = field.user();
    let list = field.create(&ada, "lists", json!({ "name": "long" })).await.unwrap();
    for rank in 0..53 {
        field.create(&ada, "todos", json!({ "title": "t", "rank": rank, "list": id(&list) })).await.unwrap();
    }
    let all = rows(&field, &ada, "lists", json!({ "expand": "todos_via_list" })).await;
    let along = &all[0]["expand"]["todos_via_list"];
    assert_eq!(along["rows"].as_array().unwrap().len(), 50);
    let filter = format!("list == {}", list["id"]);
    let rest =
        field.column(&ada, "todos", "rank", json!({ "where": filter, "cursor": along["cursor"] })).await;
    assert_eq!(rest, json!([50, 51, 52]));
}

#[tokio::test]
async fn numbers_are_over_visible_rows_alone() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    for (who, title, rank, price, done) in [
        (&ada, "a", json!(1), json!(0.5), true),
        (&ada, "b", json!(3), json!(1.5), false),
        (&ada, "b", json!(null), json!(null), false),
        (&bob, "z", json!(100), json!(100), true),
    ] {
        let row = json!({ "title": title, "rank": rank, "price": price, "done": done });
        field.create(who, "todos", row).await.unwrap();
    }
    let groups = async |guest: &Guest, query: Value| {
        field.list(guest, "todos", query).await.unwrap()["groups"].clone()
    };
    let all = json!({ "n": "count()", "ranked": "count(rank)", "sum": "sum(rank)", "avg": "avg(price)", "least": "min(title)", "last": "max(rank)" });
    assert_eq!(
        groups(&ada, json!({ "aggregate": all })).await,
        json!([{ "n": 3, "ranked": 2, "sum": 4, "avg": 1.0, "least": "a", "last": 3 }])
    );
    assert_eq!(
        groups(&field.visitor(), json!({ "aggregate": all })).await,
        json!([{ "n": 0, "ranked": 0, "sum": null, "avg": null, "least": null, "last": null }])
    );
    assert_eq!(
        groups(&ada, json!({ "aggregate": { "n": "count()" }, "group": ["done"], "where": "title != 'a'" }))
            .await,
        json!([{ "done": false, "n": 2 }])
    );
    assert_eq!(
        groups(&ada, json!({ "aggregate": { "n": "count()" }, "group": ["title"], "order": "-n" })).await,
        json!([{ "title": "b", "n": 2 }, { "title": "a", "n": 1 }])
    );
    let cut = field
        .list(&ada, "todos", json!({ "aggregate": { "n": "count()" }, "group": ["title"], "limit": 1 }))
        .await;
    assert_eq!(cut.unwrap(), json!({ "groups": [{ "title": "a", "n": 1 }], "more": true }));
    let big = json!({ "title": "c", "rank": i64::MAX });
    field.create(&ada, "todos", big).await.unwrap();
    for (query, words) in [
        (json!({ "aggregate": { "n": "sum(rank)" } }), "/aggregate: a sum is beyond 64 bits"),
        (json!({ "aggregate": {} }), "/aggregate: ask for 1 to 10 numbers"),
        (json!({ "group": ["done"] }), "/aggregate: ask for 1 to 10 numbers"),
        (json!({ "aggregate": { "n": "count(code)" } }), "/aggregate/n: todos has no column \"code\""),
        (
            json!({ "aggregate": { "n": "count()" }, "group": ["code"] }),
            "/group/0: todos has no column \"code\"",
        ),
        (
            json!({ "aggregate": { "n": "sum(title)" } }),
            "/aggregate/n: \"sum(title)\" does not fit: title is a text",
        ),
        (
            json!({ "aggregate": { "n": "count(*) FROM lists --" } }),
            "/aggregate/n: \"count(*) FROM lists --\" is no number over rows",
        ),
        (
            json!({ "aggregate": { "n\" FROM lists --": "count()" } }),
            "/aggregate/n\" FROM lists --: a name is a letter, then letters, digits and _, at most 63",
        ),
        (
            json!({ "aggregate": { "n": "count()" }, "group": ["done"], "order": "rank" }),
            "/order: there is no \"rank\" here",
        ),
        (json!({ "aggregate": { "n": "count()" }, "cursor": "x" }), "/cursor: aggregate takes no cursor"),
    ] {
        assert_eq!(told(field.list(&ada, "todos", query).await), format!("400 invalid_input {words}"));
    }
}

#[tokio::test]
async fn a_row_is_put_under_the_rules_of_making_and_of_changing() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    let by_id = |id: &str| Target::Id(id.to_owned());
    let put = async |who: &Guest, target: &Target, row: Value| {
        field.rows.put(who, "todos", target, map(row), None).await.map(|(row, created)| (read(&row), created))
    };
    let (row, created) = put(&ada, &by_id("mine"), json!({ "title": "a", "rank": 1 })).await.unwrap();
    assert_eq!((&row["id"], &row["owner"], created), (&json!("mine"), &uid(&ada), true));
    let (row, created) = put(&ada, &by_id("mine"), json!({ "title": "b" })).await.unwrap();
    assert_eq!((&row["title"], &row["rank"], created), (&json!("b"), &json!(1), false));
    // What changes needs no value that only a new row needs.
    assert!(!put(&ada, &by_id("mine"), json!({ "rank": 2 })).await.unwrap().1);
    assert_eq!(
        told(put(&ada, &by_id("other"), json!({ "rank": 2 })).await),
        "400 invalid_input /title: title is required"
    );
    // Who may make rows learns that an id is taken, as with any other way to make one.
    let hidden = told(put(&bob, &by_id("mine"), json!({ "title": "stolen" })).await);
    assert_eq!(hidden, "409 conflict /id: a row with the same id is already there");
    assert_eq!(
        told(put(&field.visitor(), &by_id("new"), json!({ "title": "x" })).await),
        "403 forbidden: the rules of todos do not allow this create"
    );
    for id in ["a b", "a/b", "é", "", &"a".repeat(65)] {
        assert!(
            told(put(&ada, &by_id(id), json!({ "title": "a" })).await).starts_with("400 invalid_input /id: ")
        );
    }
    let lists = Target::By(vec!["name".to_owned()]);
    let put = async |who: &Guest, row: Value| field.rows.put(who, "lists", &lists, map(row), None).await;
    let (first, created) = put(&ada, json!({ "name": "home" })).await.unwrap();
    let (again, changed) = put(&ada, json!({ "name": "home", "parent": first.id })).await.unwrap();
    assert_eq!((created, changed, &first.id), (true, false, &again.id));
    assert_ne!(first.etag, again.etag);
    // It is seen, and it is another's.
    assert_eq!(
        told(put(&bob, json!({ "name": "home" })).await),
        "403 forbidden: the rules of lists do not allow this update"
    );
    assert_eq!(
        told(put(&bob, json!({ "parent": null })).await),
        "400 invalid_input /name: name says which row it is, and has no value"
    );
    let stale = Some(IfMatch::parse(&first.etag));
    let refused = field.rows.put(&ada, "lists", &lists, map(json!({ "name": "home" })), stale.clone()).await;
    assert!(told(refused).starts_with("412 "));
    let refused = field.rows.put(&ada, "lists", &lists, map(json!({ "name": "none" })), stale).await;
    assert!(told(refused).starts_with("412 "));
    let by = |names: &[&str]| Target::By(names.iter().map(|name| (*name).to_owned()).collect());
    for (names, words) in [
        (&["parent"][..], "/by: the values of parent need not differ in lists"),
        (&["name", "name"], "/by: the values of name,name need not differ in lists"),
        (&["nome"], "/by: lists has no column \"nome\""),
    ] {
        let row = map(json!({ "name": "x", "parent": first.id }));
        assert_eq!(
            told(field.rows.put(&ada, "lists", &by(names), row, None).await),
            format!("400 invalid_input {words}")
        );
    }
    let row = map(json!({ "todo": "mine", "name": "x" }));
    assert!(field.rows.put(&ada, "tags", &by(&["name", "todo"]), row, None).await.unwrap().1);
}

#[tokio::test]
async fn a_change_under_a_key_is_made_once() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    let key = |text: &str| Key::parse(text).unwrap();
    let create =
        |title: &str| Write::Create { table: "todos".to_owned(), row: map(json!({ "title": title })) };
    let first = field.rows.write(&ada, create("a"), Some(&key("k"))).await.unwrap();
    let again = field.rows.write(&ada, create("a"), Some(&key("k"))).await.unwrap();
    assert_eq!((first.status, &first), (201, &again));
    assert_eq!(field.sql("SELECT count(*) FROM todos").await, json!([[1]]));
    let other = field.rows.write(&ada, create("b"), Some(&key("k"))).await;
    assert_eq!(told(other), "422 conflict: this Idempotency-Key has been used for another change");
    // Another's key is another key, and a visitor has none.
    let theirs = field.rows.write(&bob, create("a"), Some(&key("k"))).await.unwrap();
    assert_ne!(theirs.id, first.id);
    assert!(told(field.rows.write(&field.visitor(), create("a"), Some(&key("k"))).await).starts_with("400 "));
    // A refusal is not kept.
    let late = |title: &str| Write::Update {
        table: "todos".to_owned(),
        id: theirs.id.clone().unwrap(),
        row: map(json!({ "title": title })),
        if_match: None,
    };
    assert!(told(field.rows.write(&ada, late("x"), Some(&key("u"))).await).starts_with("404 "));
    assert_eq!(field.rows.write(&bob, late("x"), Some(&key("u"))).await.unwrap().status, 200);
    let id = first.id.clone().unwrap();
    let delete = || Write::Delete { table: "todos".to_owned(), id: id.clone(), if_match: None };
    for _ in 0..2 {
        assert_eq!(field.rows.write(&ada, delete(), Some(&key("d"))).await.unwrap().status, 204);
    }
    let batch = || {
        let operations = json!({ "operations": [{ "do": "create", "on": "todos", "new": { "title": "c", "price": 5, "code": null } }] });
        let operations = operations.to_string().replace(",\"code\":null", "");
        Write::Batch(serde_json::from_str(&operations).unwrap())
    };
    let first = field.rows.write(&ada, batch(), Some(&key("b"))).await.unwrap();
    assert_eq!(field.rows.write(&ada, batch(), Some(&key("b"))).await.unwrap(), first);
    let row: Value = serde_json::from_slice(&first.json).unwrap();
    assert_eq!(row["results"][0]["row"]["price"], json!(5.0));
    assert_eq!(field.sql("SELECT count(*) FROM todos WHERE title = 'c'").await, json!([[1]]));
    // As much as is kept of one user.
    for n in 0..101 {
        let put = Write::Put {
            table: "todos".to_owned(),
            target: Target::Id("p".to_owned()),
            row: map(json!({ "title": "p" })),
            if_match: None,
        };
        field.rows.write(&ada, put, Some(&key(&format!("p{n}")))).await.unwrap();
    }
    assert_eq!(field.rows.write(&ada, create("b"), Some(&key("k"))).await.unwrap().status, 201);
    assert!(told(Key::parse("").map(drop)).starts_with("400 "));
    assert!(told(Key::parse(&"a".repeat(256)).map(drop)).starts_with("400 "));
}

#[tokio::test]
async fn words_find_the_rows_that_the_rules_give() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    for (who, title) in
        [(&ada, "Buy Milk and bread"), (&ada, "Crème brûlée"), (&ada, "milky way"), (&bob, "milk of another")]
    {
        field.create(who, "todos", json!({ "title": title })).await.unwrap();
    }
    let found = async |who: &Guest, search: &str| {
        field.column(who, "todos", "title", json!({ "search": search, "order": "title" })).await
    };
    assert_eq!(found(&ada, "milk").await, json!(["Buy Milk and bread", "milky way"]));
    assert_eq!(found(&ada, "milk ").await, json!(["Buy Milk and bread"]));
    assert_eq!(found(&ada, "bread MILK").await, json!(["Buy Milk and bread"]));
    assert_eq!(found(&ada, "creme").await, json!(["Crème brûlée"]));
    assert_eq!(found(&bob, "milk").await, json!(["milk of another"]));
    assert_eq!(found(&field.visitor(), "milk").await, json!([]));
    // Nothing that is typed is a question of another kind.
    for hostile in [
        "milk OR another",
        "NEAR(milk)",
        "title : milk",
        "-milk",
        "\"milk",
        "mi*lk",
        "milk\0",
        "' OR 1=1 --",
        "todos.search MATCH 'x'",
    ] {
        let listed = field.list(&bob, "todos", json!({ "search": hostile, "select": "title" })).await;
        let rows = listed.unwrap()["rows"].to_string();
        assert!(rows == "[]" || rows == r#"[{"title":"milk of another"}]"#, "{hostile}: {rows}");
    }
    for hostile in ["", "  ", "\"", "*", "()", "a b c d e f g h i j k", &"a".repeat(201)] {
        assert!(
            told(field.list(&bob, "todos", json!({ "search": hostile })).await)
                .starts_with("400 invalid_input /search: "),
            "{hostile}"
        );
    }
    let refused = field.list(&ada, "lists", json!({ "search": "a" })).await;
    assert_eq!(told(refused), "400 invalid_input /search: lists has no full-text index");
    // The index follows every change, and says so to who counts.
    let milk = rows(&field, &ada, "todos", json!({ "search": "milk " })).await[0].clone();
    field.update(&ada, "todos", &id(&milk), json!({ "title": "Buy water" })).await.unwrap();
    assert_eq!(found(&ada, "bread").await, json!([]));
    assert_eq!(found(&ada, "water").await, json!(["Buy water"]));
    field.delete(&ada, "todos", &id(&milk)).await.unwrap();
    assert_eq!(found(&ada, "water").await, json!([]));
    let counted = field
        .list(&ada, "todos", json!({ "search": "milk", "aggregate": { "n": "count()" } }))
        .await
        .unwrap();
    assert_eq!(counted, json!({ "groups": [{ "n": 1 }] }));
    let refused = field
        .databases
        .execute(
            &field.env,
            "INSERT INTO \"todos.search\" (rowid, title) VALUES (9, 'x')",
            &[],
            &CancellationToken::new(),
        )
        .await;
    assert_eq!(refused.unwrap_err().to_string(), "todos.search belongs to the platform");
    assert!(
        field
            .databases
            .execute(&field.env, "DELETE FROM \"todos.search_data\"", &[], &CancellationToken::new())
            .await
            .is_err()
    );
    assert!(
        field
            .databases
            .execute(&field.env, "CREATE TABLE \"x.search\" (a)", &[], &CancellationToken::new())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn parts_of_documents_are_found_by_their_index() {
    let field = field().await;
    let ada = field.user();
    for (city, age) in [
        (json!("Bern"), json!(30)),
        (json!("Genf"), json!(41.5)),
        (json!(5), json!("old")),
        (Value::Null, Value::Null),
    ] {
        field
            .create(&ada, "docs", json!({ "data": { "address": { "city": city }, "age": age } }))
            .await
            .unwrap();
    }
    let count = async |filter: &str| {
        rows(&field, &ada, "docs", json!({ "where": filter })).await.as_array().unwrap().len()
    };
    for (filter, n) in [
        ("data.address.city == 'Bern'", 1),
        ("data.address.city != 'Bern'", 1),
        ("!(data.address.city == 'Bern')", 1),
        ("data.address.city == 5", 1),
        ("data.address.city == '5'", 0),
        ("data.age > 30 || data.address.city == 'Bern'", 2),
        ("data.age >= 30 && data.age < 41.6", 2),
        ("data.address.city == null", 1),
        ("data.age == 'old'", 1),
    ] {
        assert_eq!(count(filter).await, n, "{filter}");
    }
    let app = field.rows.app(&field.env).await.unwrap();
    let table = app.table("docs").unwrap();
    for (filter, index) in [
        ("data.address.city == 'Bern'", "docs.data.address.city.path"),
        ("data.age > 30", "docs.data.age.path"),
    ] {
        let view = crate::access::View { table, subject: ada.subject(), new: crate::access::New::None };
        let mut sql = crate::access::Sql {
            text: "EXPLAIN QUERY PLAN SELECT id FROM docs WHERE ".to_owned(),
            params: vec![],
        };
        crate::access::compile(&Expr::parse_where(filter, table).unwrap(), &view, &mut sql);
        let plan = field.databases.platform_query(&field.env, &sql.text, &sql.params).await.unwrap();
        assert!(plan[0][3].to_string().contains(index), "{plan:?}");
    }
}

#[tokio::test]
async fn rows_are_told_as_csv_in_which_nothing_is_a_formula() {
    let field = field().await;
    let (ada, bob) = (field.user(), field.user());
    for (title, rank) in [
        ("=1+1", json!(-5)),
        ("a \"b\",\nc", Value::Null),
        (" -2", json!(1)),
        ("＝x", json!(2)),
        ("plain", json!(3)),
    ] {
        field.create(&ada, "todos", json!({ "title": title, "rank": rank, "price": 1.5 })).await.unwrap();
    }
    field.create(&bob, "todos", json!({ "title": "another's" })).await.unwrap();
    let query = |query: Value| serde_json::from_value::<ListQuery>(query).unwrap();
    let csv =
        field.rows.csv(&ada, "Todos", &query(json!({ "select": "title,rank,done,price" }))).await.unwrap();
    assert_eq!(csv.name, "todos");
    assert_eq!(
        String::from_utf8(csv.csv.to_vec()).unwrap(),
        "title,rank,done,price\r\n\"'=1+1\",-5,false,1.5\r\n\"a \"\"b\"\",\nc\",,false,1.5\r\n\"' -2\",1,false,1.5\r\n\
         \"'＝x\",2,false,1.5\r\n\"plain\",3,false,1.5\r\n"
    );
    let first = field.rows.csv(&ada, "todos", &query(json!({ "select": "rank", "limit": 4 }))).await.unwrap();
    let rest = json!({ "select": "rank", "limit": 4, "cursor": first.cursor.unwrap() });
    assert_eq!(&field.rows.csv(&ada, "todos", &query(rest)).await.unwrap().csv[..], b"rank\r\n3\r\n");
    let header = field.rows.csv(&ada, "todos", &query(json!({ "limit": 1 }))).await.unwrap();
    assert!(!String::from_utf8(header.csv.to_vec()).unwrap().contains("code"));
    assert!(
        told(field.rows.csv(&ada, "todos", &query(json!({ "limit": 10_001 }))).await).starts_with("400 ")
    );
    assert!(
        told(field.rows.csv(&ada, "todos", &query(json!({ "expand": "list" }))).await).starts_with("400 ")
    );
    assert_eq!(
        told(field.rows.csv(&ada, "todos", &query(json!({ "select": "code" }))).await),
        "400 invalid_input /select: todos has no column \"code\""
    );
}

#[test]
fn a_step_that_is_a_list_is_no_step() {
    let told = |batch: Value| serde_json::from_value::<Batch>(batch).map(drop).unwrap_err().to_string();
    let step = json!(["create", "todos", null, { "title": "a" }, null]);
    assert_eq!(told(json!({ "operations": [step] })), "invalid type: sequence, expected an object");
    assert!(
        told(json!({ "operations": [{ "do": "get", "on": "todos", "more": 1 }] }))
            .starts_with("unknown field")
    );
}
