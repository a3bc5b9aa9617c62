//! The rows of an app over HTTP, with a real release behind them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod files;
mod ground;

use expect_test::{expect, expect_file};
use serde_json::{Value, json};

use crate::ground::{Ground, Reply};

/// A reply in one line: status, what is wrong where, and the words.
fn told(reply: &Reply) -> String {
    let at = reply.json.get("field").map(|at| format!(" {}", at.as_str().unwrap())).unwrap_or_default();
    let words = reply.json["message"].as_str().unwrap_or("ok");
    format!("{}{at}: {words}", reply.status)
}

#[tokio::test]
async fn a_row_lives_from_post_to_delete() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let made = ground.send("POST", "/_/db/todos", &session, json!({ "title": "milk" })).await;
    let id = made.json["id"].as_str().unwrap().to_owned();
    let path = format!("/_/db/todos/{id}");
    let etag = made.header("etag");
    assert_eq!((made.status, made.header("location")), (201, path.clone()));
    assert_eq!(
        (made.header("content-type"), made.header("cache-control")),
        ("application/json".into(), "no-store".into())
    );
    assert_eq!((&made.json["title"], &made.json["done"]), (&json!("milk"), &json!(false)));

    let got = ground.ask("GET", &path, &session, &[]).await;
    assert_eq!((got.status, &got.json, got.header("etag")), (200, &made.json, etag.clone()));
    let known = ground.ask("GET", &path, &session, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, etag.clone()));
    assert_eq!(known.header("content-type"), "");
    let head = ground.ask("HEAD", &path, &session, &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));

    let change = json!({ "done": true });
    let stale = ground.with("PATCH", &path, &session, &[("if-match", "\"old\"")], &change.to_string()).await;
    assert_eq!(told(&stale), "412 /if_match: the row has changed since it was read");
    let changed = ground
        .with("PATCH", &path, &session, &[("if-match", "\"a\""), ("if-match", &etag)], &change.to_string())
        .await;
    assert_eq!((changed.status, &changed.json["done"]), (200, &json!(true)));
    assert_ne!(changed.header("etag"), etag);
    assert_eq!(
        told(&ground.ask("DELETE", &path, &session, &[("if-match", &etag)]).await),
        "412 /if_match: the row has changed since it was read"
    );
    let deleted = ground.ask("DELETE", &path, &session, &[("if-match", "*")]).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(told(&ground.ask("GET", &path, &session, &[]).await), "404: there is no such row in todos");
}

#[tokio::test]
async fn a_list_is_asked_for_by_query_or_by_body() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    for title in ["a & b", "c+d", "e"] {
        ground.send("POST", "/_/db/todos", &session, json!({ "title": title })).await;
    }
    let titles = |reply: &Reply| {
        reply.json["rows"].as_array().unwrap().iter().map(|row| row["title"].clone()).collect::<Value>()
    };
    let path = "/_/db/todos?select=title&where=title%20!=%20%22e%22+%26%26+!done&order=-title&limit=1";
    let first = ground.ask("GET", path, &session, &[]).await;
    assert_eq!(first.json["rows"], json!([{ "title": "c+d" }]));
    let cursor = first.json["cursor"].as_str().unwrap();
    let second = ground.ask("GET", &format!("{path}&cursor={cursor}"), &session, &[]).await;
    assert_eq!(second.json, json!({ "rows": [{ "title": "a & b" }] }));
    let query = json!({ "where": "title != 'e' && !done", "order": "-title", "select": "title" });
    let asked = ground.send("POST", "/_/db/todos/query", &session, query).await;
    assert_eq!((asked.status, titles(&asked)), (200, json!(["c+d", "a & b"])));
    assert_eq!(
        titles(&ground.ask("GET", "/_/db/todos?where=title==%27c%2Bd%27", &session, &[]).await),
        json!(["c+d"])
    );
    let nobody = ground.ask("GET", "/_/db/todos", "", &[]).await;
    assert_eq!((nobody.status, nobody.json), (200, json!({ "rows": [] })));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_where() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let mut answers = String::new();
    for (method, path, body) in [
        ("GET", "/_/db/none", ""),
        ("GET", "/_/db/todos?limit=0", ""),
        ("GET", "/_/db/todos?limit=+5", ""),
        ("GET", "/_/db/todos?limit=99999999999", ""),
        ("GET", "/_/db/todos?limit=1&limit=2", ""),
        ("GET", "/_/db/todos?offset=1", ""),
        ("GET", "/_/db/todos?where=none%3D%3D1", ""),
        ("GET", "/_/db/todos?where=%ff", ""),
        ("GET", "/_/db/todos?cursor=x", ""),
        ("GET", "/_/db/todos/x?select=title", ""),
        ("GET", "/_/db/todos/%2e%2e", ""),
        ("GET", "/_/db/todos/x/y", ""),
        ("GET", "/_/db/", ""),
        ("GET", "/_/db", ""),
        ("PUT", "/_/db/todos", "{}"),
        ("DELETE", "/_/db/todos", ""),
        ("POST", "/_/db/todos/x", "{}"),
        ("GET", "/_/batch", ""),
        ("POST", "/_/db/todos", ""),
        ("POST", "/_/db/todos", "[]"),
        ("POST", "/_/db/todos", "{"),
        ("POST", "/_/db/todos", "null"),
        ("POST", "/_/db/todos", r#"{"title":1}"#),
        ("POST", "/_/db/todos", r#"{"title":"a","owner":"usr_01890000000070008000000000000000"}"#),
        ("POST", "/_/db/todos/query", r#"{"offset":1}"#),
        ("POST", "/_/db/todos/query", r#"{"limit":"1"}"#),
        ("POST", "/_/batch", "{}"),
        ("POST", "/_/batch", r#"{"operations":[{"do":"drop","on":"todos"}]}"#),
        ("POST", "/_/batch", r#"{"operations":[{"do":"get","on":"todos","id":"x","extra":1}]}"#),
        ("POST", "/_/batch", r#"{"operations":[{"do":"get","on":"todos","id":"x"}]}"#),
        ("PATCH", "/_/db/todos/x", r#"{"id":"y"}"#),
        ("DELETE", "/_/db/todos/x", ""),
    ] {
        let reply = ground.with(method, path, &session, &[], body).await;
        let allow = reply.header("allow");
        answers.push_str(&format!("{method} {path} {body}\n  {} {allow}\n", told(&reply)));
    }
    expect![[r#"
        GET /_/db/none
          404: there is no such table
        GET /_/db/todos?limit=0
          400 /limit: the limit is 1 to 200
        GET /_/db/todos?limit=+5
          400 /limit: the limit is a whole number
        GET /_/db/todos?limit=99999999999
          400 /limit: the limit is a whole number
        GET /_/db/todos?limit=1&limit=2
          400 /limit: limit is given twice
        GET /_/db/todos?offset=1
          400: there is no query parameter "offset" here
        GET /_/db/todos?where=none%3D%3D1
          400 /where: at byte 0: there is no column "none" in todos
        GET /_/db/todos?where=%ff
          400: the query is not UTF-8
        GET /_/db/todos?cursor=x
          400 /cursor: the cursor does not belong to this list
        GET /_/db/todos/x?select=title
          400: there is no query parameter "select" here
        GET /_/db/todos/%2e%2e
          404: there is no such interface of this app
        GET /_/db/todos/x/y
          404: there is no such interface of this app
        GET /_/db/
          404: there is no such interface of this app
        GET /_/db
          404: there is no such interface of this app
        PUT /_/db/todos {}
          400 /by: say by which columns the row is known: ?by=slug
        DELETE /_/db/todos
          405: this path does not take that method GET, HEAD, POST, PUT
        POST /_/db/todos/x {}
          405: this path does not take that method GET, HEAD, PUT, PATCH, DELETE
        GET /_/batch
          405: this path does not take that method POST
        POST /_/db/todos
          400 /title: title is required
        POST /_/db/todos []
          400 : a row is a JSON object of its columns
        POST /_/db/todos {
          400: the body is not JSON that can be read: EOF while parsing an object at line 1 column 1
        POST /_/db/todos null
          400 : a row is a JSON object of its columns
        POST /_/db/todos {"title":1}
          400 /title: title must be a text
        POST /_/db/todos {"title":"a","owner":"usr_01890000000070008000000000000000"}
          403 /owner: the owner of a row is who makes it
        POST /_/db/todos/query {"offset":1}
          400 /offset: unknown field `offset`, expected one of `select`, `where`, `order`, `limit`, `cursor`, `search`, `expand`, `aggregate`, `group`
        POST /_/db/todos/query {"limit":"1"}
          400 /limit: invalid type: string "1", expected u32
        POST /_/batch {}
          400 : missing field `operations`
        POST /_/batch {"operations":[{"do":"drop","on":"todos"}]}
          400 /operations/0/do: unknown variant `drop`, expected one of `list`, `get`, `create`, `update`, `delete`
        POST /_/batch {"operations":[{"do":"get","on":"todos","id":"x","extra":1}]}
          400 /operations/0/extra: unknown field `extra`, expected one of `do`, `on`, `id`, `new`, `if_match`
        POST /_/batch {"operations":[{"do":"get","on":"todos","id":"x"}]}
          404 /operations/0: there is no such row in todos
        PATCH /_/db/todos/x {"id":"y"}
          400 /id: id is set by the platform
        DELETE /_/db/todos/x
          404: there is no such row in todos
    "#]].assert_eq(&answers.replace(" \n", "\n"));
    let deep = format!("{{\"title\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let large = json!({ "title": "x".repeat(1 << 20) }).to_string();
    assert_eq!(ground.with("POST", "/_/db/todos", &session, &[], &deep).await.status, 400);
    assert_eq!(ground.with("POST", "/_/db/todos", &session, &[], &large).await.status, 413);
    let plain = ground.with("POST", "/_/db/todos", &session, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(told(&plain), "400: the body must be JSON");
    assert_eq!(ground.ask("GET", "/_/db/todos", &session, &[]).await.json, json!({ "rows": [] }));
}

#[tokio::test]
async fn a_token_that_does_not_hold_is_refused_on_every_route() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    for (method, path) in [
        ("GET", "/_/db/todos"),
        ("GET", "/_/db/none"),
        ("POST", "/_/db/todos"),
        ("POST", "/_/db/todos/query"),
        ("GET", "/_/db/todos/x"),
        ("PATCH", "/_/db/todos/x"),
        ("DELETE", "/_/db/todos/x"),
        ("POST", "/_/batch"),
    ] {
        for token in ["x", &format!("{session}x"), "null"] {
            let reply = ground.with(method, path, token, &[], "{}").await;
            assert_eq!(reply.status, 401, "{method} {path} {token}");
            assert_eq!(reply.json["code"], json!("unauthenticated"));
        }
    }
}

#[tokio::test]
async fn others_rows_are_out_of_reach_by_id_by_filter_and_in_a_batch() {
    let ground = Ground::new().await;
    let (one, two) = (ground.session().await, ground.session().await);
    let made = ground.send("POST", "/_/db/todos", &one, json!({ "title": "mine" })).await;
    let id = made.json["id"].as_str().unwrap();
    let path = format!("/_/db/todos/{id}");
    for session in [two.as_str(), ""] {
        assert_eq!(ground.ask("GET", &path, session, &[]).await.status, 404);
        assert_eq!(ground.with("PATCH", &path, session, &[], r#"{"title":"theirs"}"#).await.status, 404);
        assert_eq!(
            ground.with("PATCH", &path, session, &[("if-match", "*")], r#"{"title":"theirs"}"#).await.status,
            404
        );
        assert_eq!(ground.ask("DELETE", &path, session, &[]).await.status, 404);
        let filter = format!("/_/db/todos?where=id=='{id}'||true");
        assert_eq!(ground.ask("GET", &filter, session, &[]).await.json, json!({ "rows": [] }));
        let batch = json!({ "operations": [{ "do": "delete", "on": "todos", "id": id }] });
        assert_eq!(
            told(&ground.send("POST", "/_/batch", session, batch).await),
            "404 /operations/0: there is no such row in todos"
        );
    }
    assert_eq!(ground.ask("GET", &path, &one, &[]).await.json, made.json);
}

#[tokio::test]
async fn a_batch_over_http_is_whole() {
    let ground = Ground::new().await;
    let session = ground.session().await;
    let create = |title: &str| json!({ "do": "create", "on": "todos", "new": { "title": title } });
    let good =
        ground.send("POST", "/_/batch", &session, json!({ "operations": [create("a"), create("b")] })).await;
    assert_eq!((good.status, &good.json["results"][1]["status"]), (200, &json!(201)));
    let bad = json!({ "operations": [create("c"), { "do": "create", "on": "todos", "new": {} }] });
    assert_eq!(
        told(&ground.send("POST", "/_/batch", &session, bad).await),
        "400 /operations/1/new/title: title is required"
    );
    let list = ground.ask("GET", "/_/db/todos?select=title", &session, &[]).await;
    assert_eq!(list.json["rows"], json!([{ "title": "a" }, { "title": "b" }]));
}

#[tokio::test]
async fn the_document_lists_what_this_app_has() {
    let ground = Ground::new().await;
    let reply = ground.ask("GET", "/_/openapi.json", "", &[]).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json".into()));
    let document = serde_json::to_string_pretty(&reply.json).unwrap() + "\n";
    expect_file!["golden/openapi.json"].assert_eq(&document);
    assert!(!reply.json.to_string().contains("locked"));
}
