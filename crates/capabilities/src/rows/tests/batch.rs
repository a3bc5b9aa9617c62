//! Several operations as one.

use expect_test::expect;
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_batch_is_made_whole_and_in_order() {
    let field = Field::todos().await;
    let user = field.user();
    let todo = field.rows.create(&user, "todos", map(json!({ "title": "a" }))).await.unwrap();
    let results = field
        .batch(
            &user,
            json!([
                { "do": "create", "on": "lists", "new": { "name": "l" } },
                { "do": "update", "on": "todos", "id": todo.id, "new": { "done": true }, "if_match": todo.etag },
                { "do": "get", "on": "todos", "id": todo.id },
                { "do": "delete", "on": "todos", "id": todo.id, "if_match": "*" },
            ]),
        )
        .await
        .unwrap();
    let results = results["results"].as_array().unwrap();
    let status: Vec<_> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(status, [201, 200, 200, 204]);
    assert_eq!((&results[0]["row"]["name"], &results[0]["row"]["owner"]), (&json!("l"), &uid(&user)));
    assert_eq!(results[1]["row"]["done"], json!(true));
    assert_eq!((&results[2]["row"], &results[2]["etag"]), (&results[1]["row"], &results[1]["etag"]));
    assert_eq!(results[3], json!({ "status": 204 }));
    let list = field.rows.get(&user, "lists", results[0]["row"]["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(results[0]["etag"], json!(list.etag));
    assert_eq!(
        field.sql("SELECT (SELECT count(*) FROM todos), (SELECT count(*) FROM lists)").await,
        json!([[0, 1]])
    );
    assert_eq!(field.batch(&user, json!([])).await.unwrap(), json!({ "results": [] }));
}

#[tokio::test]
async fn one_operation_that_fails_undoes_all_and_is_named() {
    let field = Field::todos().await;
    let (user, other) = (field.user(), field.user());
    let list = id(&field.create(&other, "lists", json!({ "name": "taken" })).await.unwrap());
    let hidden = id(&field.create(&other, "todos", json!({ "title": "hidden" })).await.unwrap());
    let before = field.sql("SELECT * FROM todos UNION ALL SELECT id, owner, name, '', '', '', created_at, updated_at FROM lists").await;
    let mut answers = String::new();
    for failing in [
        json!({ "do": "create", "on": "none", "new": {} }),
        json!({ "do": "create", "on": "todos", "new": { "title": 1 } }),
        json!({ "do": "create", "on": "todos", "new": { "title": "a", "owner": uid(&other) } }),
        json!({ "do": "create", "on": "todos", "new": { "title": "a", "list": "none" } }),
        json!({ "do": "create", "on": "lists", "new": { "name": "taken" } }),
        json!({ "do": "create", "on": "news", "new": { "title": "a" } }),
        json!({ "do": "create", "on": "todos", "id": "mine", "new": { "title": "a" } }),
        json!({ "do": "create", "on": "todos" }),
        json!({ "do": "create", "on": "todos", "new": { "title": "a" }, "if_match": "*" }),
        json!({ "do": "list", "on": "todos" }),
        json!({ "do": "get", "on": "todos", "id": hidden }),
        json!({ "do": "get", "on": "todos", "id": hidden, "new": {} }),
        json!({ "do": "update", "on": "todos", "id": hidden, "new": { "title": "b" } }),
        json!({ "do": "update", "on": "lists", "id": list, "new": { "name": "b" } }),
        json!({ "do": "update", "on": "todos", "new": { "name": "b" } }),
        json!({ "do": "delete", "on": "todos", "id": hidden }),
        json!({ "do": "delete", "on": "lists", "id": list }),
        json!({ "do": "delete", "on": "lists", "id": list, "if_match": "\"x\"" }),
    ] {
        let answer = told(
            field
                .batch(
                    &user,
                    json!([
                        { "do": "create", "on": "todos", "new": { "title": "first" } },
                        failing,
                        { "do": "create", "on": "todos", "new": { "title": "last" } },
                    ]),
                )
                .await,
        );
        answers.push_str(&format!(
            "{} {}\n  {answer}\n",
            failing["do"].as_str().unwrap(),
            failing["on"].as_str().unwrap()
        ));
        let after = field.sql("SELECT * FROM todos UNION ALL SELECT id, owner, name, '', '', '', created_at, updated_at FROM lists").await;
        assert_eq!(after, before, "{failing}");
    }
    expect![[r#"
        create none
          404 not_found /operations/1/on: there is no such table
        create todos
          400 invalid_input /operations/1/new/title: title must be a text
        create todos
          403 forbidden /operations/1/new/owner: the owner of a row is who makes it
        create todos
          409 conflict /operations/1/new/list: list refers to a row of lists that is not there
        create lists
          409 conflict /operations/1/new/name: a row with the same name is already there
        create news
          403 forbidden /operations/1: the rules of news do not allow this create
        create todos
          400 invalid_input /operations/1/id: id is not for create
        create todos
          400 invalid_input /operations/1/new: new is needed for create
        create todos
          400 invalid_input /operations/1/if_match: if_match is not for create
        list todos
          400 invalid_input /operations/1/do: a batch does not list
        get todos
          404 not_found /operations/1: there is no such row in todos
        get todos
          400 invalid_input /operations/1/new: new is not for get
        update todos
          404 not_found /operations/1: there is no such row in todos
        update lists
          403 forbidden /operations/1: the rules of lists do not allow this update
        update todos
          400 invalid_input /operations/1/id: id is needed for update
        delete todos
          404 not_found /operations/1: there is no such row in todos
        delete lists
          403 forbidden /operations/1: the rules of lists do not allow this delete
        delete lists
          403 forbidden /operations/1: the rules of lists do not allow this delete
    "#]]
    .assert_eq(&answers);
    let stale = json!([{ "do": "update", "on": "todos", "id": hidden, "new": { "title": "b" }, "if_match": "\"x\"" }]);
    assert_eq!(
        told(field.batch(&other, stale).await),
        "412 conflict /operations/0/if_match: the row has changed since it was read"
    );
}

#[tokio::test]
async fn a_batch_is_bounded() {
    let field = Field::todos().await;
    let user = field.user();
    let create = json!({ "do": "create", "on": "todos", "new": { "title": "a" } });
    assert_eq!(told(field.batch(&user, json!(vec![create.clone(); 50])).await), "ok");
    assert_eq!(
        told(field.batch(&user, json!(vec![create; 51])).await),
        "400 invalid_input /operations: at most 50 operations at once"
    );
    let wide = id(&field.create(&user, "todos", json!({ "title": "x".repeat(900_000) })).await.unwrap());
    let get = json!({ "do": "get", "on": "todos", "id": wide });
    assert_eq!(
        told(field.batch(&user, json!(vec![get; 6])).await),
        "413 too_large /operations/4: the rows of the batch are more than 4194304 bytes"
    );
}

#[tokio::test]
async fn what_one_operation_makes_the_next_may_refer_to_by_what_is_there() {
    let field = Field::todos().await;
    let user = field.user();
    let list = id(&field.create(&user, "lists", json!({ "name": "l" })).await.unwrap());
    let results = field
        .batch(
            &user,
            json!([
                { "do": "create", "on": "todos", "new": { "title": "a", "list": list } },
                { "do": "update", "on": "lists", "id": list, "new": { "name": "m" } },
            ]),
        )
        .await
        .unwrap();
    assert_eq!(results["results"][1]["row"]["name"], json!("m"));
    let broken = json!([{ "do": "delete", "on": "lists", "id": list }]);
    assert_eq!(
        told(field.batch(&user, broken).await),
        "409 conflict /operations/0: other rows refer to this row"
    );
}

#[tokio::test]
async fn what_a_batch_has_read_is_judged_again_where_it_is_asked_for_again() {
    let field = Field::todos().await;
    let (ada, bob) = (field.user(), field.user());
    let shared = id(&field.create(&ada, "todos", json!({ "title": "for ada" })).await.unwrap());
    let list = id(&field.create(&ada, "lists", json!({ "name": "for all" })).await.unwrap());
    let batch = || {
        let operations = json!({ "operations": [
            { "do": "create", "on": "todos", "new": { "title": "made once" } },
            { "do": "get", "on": "todos", "id": shared },
            { "do": "get", "on": "lists", "id": list },
        ] });
        Write::Batch(serde_json::from_value(operations).unwrap())
    };
    let key = Key::parse("k").unwrap();
    let first = field.rows.write(&ada, batch(), Some(&key)).await.unwrap();
    assert_eq!(field.rows.write(&ada, batch(), Some(&key)).await.unwrap(), first, "nothing has changed");
    for sql in [
        format!("UPDATE todos SET owner = {}, title = 'for bob' WHERE id = '{shared}'", uid(&bob))
            .replace('"', "'"),
        "UPDATE lists SET name = 'as it is'".to_owned(),
    ] {
        let cancel = CancellationToken::new();
        field.databases.execute(&field.env, &sql, &[], &cancel).await.unwrap();
    }
    let again = field.rows.write(&ada, batch(), Some(&key)).await.unwrap();
    let read = |reply: &Reply| serde_json::from_slice::<Value>(&reply.json).unwrap()["results"].clone();
    let (first, again) = (read(&first), read(&again));
    assert_eq!((again[0].clone(), again[1].clone()), (first[0].clone(), json!({ "status": 404 })));
    assert_eq!((&again[2]["status"], &again[2]["row"]["name"]), (&json!(200), &json!("as it is")));
    assert_eq!(field.sql("SELECT count(*) FROM todos WHERE title = 'made once'").await, json!([[1]]));
}
