//! Lists: filters, orders, pages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use expect_test::expect;
use proptest::prelude::*;
use serde_json::json;

use super::*;

async fn seven() -> (Field, Guest) {
    let field = Field::todos().await;
    let user = field.user();
    for (title, rank) in [
        ("a", json!(3)),
        ("b", json!(null)),
        ("c", json!(1)),
        ("d", json!(3)),
        ("e", json!(null)),
        ("f", json!(-5)),
        ("g", json!(1)),
    ] {
        field.create(&user, "todos", json!({ "title": title, "rank": rank })).await.unwrap();
    }
    (field, user)
}

/// The titles of all pages of `limit` rows each.
async fn pages(field: &Field, guest: &Guest, mut query: Value, limit: u32) -> Vec<String> {
    query["limit"] = limit.into();
    let mut pages = Vec::new();
    loop {
        let page = field.list(guest, "todos", query.clone()).await.unwrap();
        let rows = page["rows"].as_array().unwrap();
        pages.push(rows.iter().map(|row| row["title"].as_str().unwrap()).collect());
        assert!(pages.len() < 20, "{pages:?}");
        match page.get("cursor") {
            Some(cursor) => query["cursor"] = cursor.clone(),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition_in_every_order() {
    let (field, user) = seven().await;
    let orders = [
        ("", "abcdefg"),
        ("-id", "gfedcba"),
        ("rank", "befcgad"),
        ("-rank", "adcgfbe"),
        ("-rank,-title", "dagcfeb"),
        ("rank,-id", "ebfgcda"),
        ("done,title", "abcdefg"),
        ("-done, -title", "gfedcba"),
        ("-created_at,-id", "gfedcba"),
        ("rank,title,-created_at", "befcgad"),
    ];
    for (order, expected) in orders {
        let query = if order.is_empty() { json!({}) } else { json!({ "order": order }) };
        for limit in 1..=8 {
            let pages = pages(&field, &user, query.clone(), limit).await;
            assert_eq!(pages.concat(), expected, "{order} by {limit}");
            assert_eq!(pages.len(), 7_usize.div_ceil(limit as usize), "{order} by {limit}: {pages:?}");
        }
    }
    let filtered =
        pages(&field, &user, json!({ "where": "rank != null && rank < 3", "order": "-title" }), 2).await;
    assert_eq!(filtered, ["gf", "c"]);
}

#[tokio::test]
async fn reals_of_every_size_have_their_place() {
    let field = Field::new(
        json!({ "todos": { "columns": { "title": "text", "size": "real" }, "access": "admin_only" } }),
    )
    .await;
    let admin = field.admin();
    field
        .migrate("INSERT INTO todos (id, title, size) VALUES ('1', 'a', 9e999), ('2', 'b', 9e999), ('3', 'c', -9e999), ('4', 'd', 0.1), ('5', 'e', 1e300), ('6', 'f', -9e999), ('7', 'g', NULL)")
        .await;
    for limit in 1..=8 {
        assert_eq!(pages(&field, &admin, json!({ "order": "size" }), limit).await.concat(), "gcfdeab");
        assert_eq!(pages(&field, &admin, json!({ "order": "-size" }), limit).await.concat(), "abedcfg");
    }
    assert_eq!(
        field.column(&admin, "todos", "size", json!({ "order": "id", "limit": 1 })).await,
        json!([null])
    );
}

#[tokio::test]
async fn a_query_says_what_is_wrong_with_it() {
    let (field, user) = seven().await;
    let mut answers = String::new();
    for query in [
        json!({ "limit": 0 }),
        json!({ "limit": 201 }),
        json!({ "select": "title,none" }),
        json!({ "select": "title,title" }),
        json!({ "select": "" }),
        json!({ "select": "title, (SELECT 1)" }),
        json!({ "order": "none" }),
        json!({ "order": "rank,-rank" }),
        json!({ "order": "rank," }),
        json!({ "order": "rank desc" }),
        json!({ "order": "--rank" }),
        json!({ "where": "none == 1" }),
        json!({ "where": "title ==" }),
        json!({ "where": "" }),
        json!({ "where": "row.title == 'a'" }),
        json!({ "where": "1=1) OR (1=1" }),
        json!({ "cursor": "?" }),
        json!({ "cursor": "" }),
    ] {
        let answer = told(field.list(&user, "todos", query.clone()).await);
        answers.push_str(&format!("{query}\n  {answer}\n"));
    }
    let many = vec![format!("rank in [{}]", vec!["1"; 100].join(",")); 11].join(" || ");
    answers.push_str(&format!("{}\n", told(field.list(&user, "todos", json!({ "where": many })).await)));
    answers.push_str(&told(field.list(&user, "none", json!({})).await));
    expect![[r#"
        {"limit":0}
          400 invalid_input /limit: the limit is 1 to 200
        {"limit":201}
          400 invalid_input /limit: the limit is 1 to 200
        {"select":"title,none"}
          400 invalid_input /select: todos has no column "none"
        {"select":"title,title"}
          400 invalid_input /select: title is named twice
        {"select":""}
          400 invalid_input /select: todos has no column ""
        {"select":"title, (SELECT 1)"}
          400 invalid_input /select: todos has no column "(SELECT 1)"
        {"order":"none"}
          400 invalid_input /order: todos has no column "none"
        {"order":"rank,-rank"}
          400 invalid_input /order: rank is named twice
        {"order":"rank,"}
          400 invalid_input /order: todos has no column ""
        {"order":"rank desc"}
          400 invalid_input /order: todos has no column "rank desc"
        {"order":"--rank"}
          400 invalid_input /order: todos has no column "-rank"
        {"where":"none == 1"}
          400 invalid_input /where: at byte 0: there is no column "none" in todos
        {"where":"title =="}
          400 invalid_input /where: at byte 8: expected a value, found the end
        {"where":""}
          400 invalid_input /where: at byte 0: expected a value, found the end
        {"where":"row.title == 'a'"}
          400 invalid_input /where: at byte 0: there is no "row" here
        {"where":"1=1) OR (1=1"}
          400 invalid_input /where: at byte 1: '=' has no meaning here
        {"cursor":"?"}
          400 invalid_input /cursor: the cursor does not belong to this list
        {"cursor":""}
          400 invalid_input /cursor: the cursor does not belong to this list
        400 invalid_input /where: the where has too many values: at most 1000 with those of the rules
        404 not_found: there is no such table"#]]
    .assert_eq(&answers);
    assert_eq!(
        field.list(&user, "TODOS", json!({ "select": "rank,title", "limit": 1 })).await.unwrap()["rows"],
        json!([{ "rank": 3, "title": "a" }])
    );
    assert_eq!(field.list(&user, "locked", json!({})).await.unwrap(), json!({ "rows": [] }));
}

#[tokio::test]
async fn a_cursor_serves_its_own_list_only() {
    let (field, user) = seven().await;
    let query = json!({ "where": "rank != null", "order": "rank", "limit": 2 });
    let cursor = field.list(&user, "todos", query.clone()).await.unwrap()["cursor"].clone();
    let wrong = "400 invalid_input /cursor: the cursor does not belong to this list";
    for other in [
        json!({ "order": "rank" }),
        json!({ "where": "rank != null", "order": "-rank" }),
        json!({ "where": "rank != null" }),
        json!({ "where": "rank  != null", "order": "rank" }),
    ] {
        let mut other = other;
        other["cursor"] = cursor.clone();
        assert_eq!(told(field.list(&user, "todos", other.clone()).await), wrong, "{other}");
    }
    let mut elsewhere = query.clone();
    elsewhere["cursor"] = cursor.clone();
    elsewhere["select"] = json!("title");
    elsewhere["limit"] = json!(1);
    assert_eq!(field.list(&user, "todos", elsewhere).await.unwrap()["rows"], json!([{ "title": "g" }]));
    let bytes = URL_SAFE_NO_PAD.decode(cursor.as_str().unwrap()).unwrap();
    let (digest, place): (String, Vec<Value>) = serde_json::from_slice(&bytes).unwrap();
    for place in [
        json!([]),
        json!([1]),
        json!([1, null]),
        json!([1, 2]),
        json!([[1], "a"]),
        json!([{ "a": 1 }, "a"]),
        json!([true, "a"]),
        json!([u64::MAX, "a"]),
        json!([1, "a", "b"]),
    ] {
        let mut forged = query.clone();
        forged["cursor"] = URL_SAFE_NO_PAD.encode(json!([digest, place]).to_string()).into();
        assert_eq!(told(field.list(&user, "todos", forged).await), wrong, "{place}");
    }
    // A forged place only moves the start: the rules and the filter are asked again.
    let other = field.user();
    for forged in [json!([null, ""]), json!([-1_000_000, ""]), json!([[false], ""]), json!(["", ""])] {
        let mut query = query.clone();
        query["cursor"] = URL_SAFE_NO_PAD.encode(json!([digest, forged]).to_string()).into();
        assert_eq!(field.list(&other, "todos", query).await.unwrap(), json!({ "rows": [] }), "{forged}");
    }
    assert_eq!(place.len(), 2);
}

#[tokio::test]
async fn a_list_of_wide_rows_ends_early_and_says_where_it_goes_on() {
    let field = Field::todos().await;
    let user = field.user();
    let wide = "x".repeat(900_000);
    for _ in 0..7 {
        field.create(&user, "todos", json!({ "title": wide })).await.unwrap();
    }
    let first = field.list(&user, "todos", json!({})).await.unwrap();
    assert_eq!(first["rows"].as_array().unwrap().len(), 5);
    let second = field.list(&user, "todos", json!({ "cursor": first["cursor"] })).await.unwrap();
    assert_eq!((second["rows"].as_array().unwrap().len(), second.get("cursor")), (2, None));
    let by_wide = field.list(&user, "todos", json!({ "order": "title", "limit": 2 })).await;
    assert_eq!(
        told(by_wide),
        "400 invalid_input /order: the values of these columns are too long to go on after them"
    );
    // Characters that are six times as long in JSON count as they are answered.
    let other = field.user();
    for _ in 0..3 {
        field.create(&other, "todos", json!({ "title": "\u{1}".repeat(900_000) })).await.unwrap();
    }
    let first = field.list(&other, "todos", json!({})).await.unwrap();
    assert_eq!((first["rows"].as_array().unwrap().len(), first["cursor"].is_string()), (1, true));
}

#[test]
fn any_cursor_and_any_text_is_answered_and_never_shows_what_is_hidden() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (field, _) = runtime.block_on(seven());
    let other = field.user();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let text = || prop::option::of("\\PC{0,40}");
    runner
        .run(&(text(), text(), text(), text()), |(select, filter, order, cursor)| {
            let query = ListQuery { select, filter, order, cursor, ..ListQuery::default() };
            match runtime.block_on(field.rows.list(&other, "todos", &query)) {
                Ok(json) => prop_assert_eq!(&json[..], b"{\"rows\":[]}"),
                Err(error) => prop_assert_eq!(error.status(), 400, "{:?} {:?}", query, error),
            }
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn numbers_are_kept_as_they_are_written_to_the_last_bit() {
    let things = json!({ "columns": { "real": "real", "json": "json" }, "access": "private" });
    let field = Field::new(json!({ "things": things })).await;
    let user = field.user();
    for text in ["0.30000000000000004", "12.490598428394481", "5e-324", "1.7976931348623157e308"] {
        let given = serde_json::from_str(&format!("{{\"real\": {text}, \"json\": [{text}]}}")).unwrap();
        let row = field.create(&user, "things", given).await.unwrap();
        let bits = |value: &Value| value.to_string().parse::<f64>().unwrap().to_bits();
        let expected = text.parse::<f64>().unwrap().to_bits();
        assert_eq!((bits(&row["real"]), bits(&row["json"][0])), (expected, expected), "{text}");
    }
}
