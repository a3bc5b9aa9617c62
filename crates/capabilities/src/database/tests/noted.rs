//! What events have of rows: every value as it is, and of no row so much that its change would fail.

use std::sync::Arc;

use serde_json::{Value, json};

use super::events::{lane, listen, listening, on_rows, told};
use super::fixture::Fixture;
use crate::events::{BEFORE, Events, LANE, MOST, STANDING, TRIM};

async fn wide(columns: usize) -> Fixture {
    let names: Vec<_> = (0..columns).map(|n| format!("c{n}")).collect();
    let fixture =
        listening(&[&format!("CREATE TABLE wide (id INTEGER PRIMARY KEY, {})", names.join(", "))]).await;
    listen(&fixture, &on_rows("wide")).await.unwrap();
    fixture
}

#[tokio::test]
async fn no_row_is_too_heavy_to_be_changed() {
    // Plain, escaped sixfold, escaped twice, not UTF-8, and bytes.
    let fillers = [
        "replace(printf('%.*c', @, 'x'), 'x', 'y')",
        "replace(printf('%.*c', @, 'x'), 'x', char(1))",
        "replace(printf('%.*c', @, 'x'), 'x', '\"')",
        "CAST(randomblob(@) AS TEXT)",
        "randomblob(@)",
    ];
    for (columns, each) in [(1, 1_999_000), (30, 65_000), (199, 9_900)] {
        let fixture = wide(columns).await;
        let all = |value: &str| {
            let set: Vec<_> = (0..columns).map(|n| format!("c{n} = {value}")).collect();
            format!("UPDATE wide SET {}", set.join(", "))
        };
        fixture.execute("INSERT INTO wide (c0) VALUES ('first')", &[]).await.unwrap();
        for filler in if columns == 1 { &fillers[..] } else { &fillers[1..3] } {
            let heavy = all(&filler.replace('@', &each.to_string()));
            let changed = fixture.execute(&heavy, &[]).await.map(|it| it.changed);
            assert_eq!(changed.unwrap(), 1, "{columns} of {each}: {filler}");
        }
        for sql in ["INSERT INTO wide SELECT 2, * FROM (SELECT * FROM wide)", "DELETE FROM wide"] {
            let names: Vec<_> = (0..columns).map(|n| format!("c{n}")).collect();
            let sql = sql.replace("2, *", &format!("2, {}", names.join(", ")));
            fixture.execute(&sql, &[]).await.unwrap();
        }
        let most = "SELECT count(*), max(octet_length(concat(new, old))) <= 262144 FROM _steading_event";
        let count = if columns == 1 { 9 } else { 6 };
        assert_eq!(fixture.platform(most).await, [[json!(count), json!(1)]], "{columns} of {each}");
        let told = told(&fixture, &lane("rows", "wide")).await;
        assert_eq!(told.len(), count);
        for event in told {
            assert!(event.to_string().len() <= 270 << 10, "{}", event.to_string().len());
            let row = event["row"].as_object().or(event["old"].as_object()).unwrap();
            assert_eq!((row.len(), &row["id"]), (columns + 1, &row["id"]));
        }
    }
}

#[tokio::test]
async fn long_names_of_columns_keep_no_row_from_being_changed() {
    let names: Vec<_> = (0..199).map(|n| format!("\"{n} {}\"", "\u{1}".repeat(2_000))).collect();
    let create = format!("CREATE TABLE wide (id INTEGER PRIMARY KEY, {})", names.join(", "));
    let fixture = listening(&[&create]).await;
    listen(&fixture, &on_rows("wide")).await.unwrap();
    fixture.execute("INSERT INTO wide (id) VALUES (1)", &[]).await.unwrap();
    let heavy = format!("UPDATE wide SET {} = randomblob(1900000)", names[0]);
    fixture.execute(&heavy, &[]).await.unwrap();
    let told = told(&fixture, &lane("rows", "wide")).await;
    assert_eq!((told.len(), &told[0]["row"]["id"], &told[1]["old"]["id"]), (2, &json!(1), &json!(1)));
}

#[tokio::test]
async fn values_are_what_the_row_has() {
    let fixture = listening(&[
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v ANY) STRICT",
        "CREATE TABLE w (k TEXT PRIMARY KEY, n INTEGER, twice INTEGER AS (n * 2), more TEXT AS (k || '!') STORED) \
         WITHOUT ROWID",
    ])
    .await;
    listen(&fixture, &json!([{ "on": "rows", "table": "t" }, { "on": "rows", "table": "w" }])).await.unwrap();
    for sql in [
        "json_object('a', 1)",
        "json('[1]')",
        "json_quote('x')",
        "jsonb('{}')",
        "'a' || char(0) || 'b'",
        "-0.0",
        "0.1 + 0.2",
        "1e308",
        "5e-324",
        "9007199254740993",
        "1e23",
    ] {
        fixture.execute(&format!("INSERT INTO t (v) VALUES ({sql})"), &[]).await.unwrap();
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut reals = Vec::new();
    while reals.len() < 300 {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let real = f64::from_bits(seed ^ (seed >> 29));
        reals.extend(real.is_finite().then_some(real));
    }
    reals.extend((1..100).map(|n| f64::from(n) / 7.0));
    for real in &reals {
        fixture.execute("INSERT INTO t (v) VALUES (?1)", &[json!(real)]).await.unwrap();
    }
    let told_of_t = told(&fixture, &lane("rows", "t")).await;
    let came: Vec<_> = told_of_t.iter().map(|it| it["row"]["v"].clone()).collect();
    let first = [
        json!("{\"a\":1}"),
        json!("[1]"),
        json!("\"x\""),
        json!({ "base64": "DA==" }),
        json!("a\0b"),
        json!(-0.0),
        json!(0.1 + 0.2),
        json!(1e308),
        json!(5e-324),
        json!(9_007_199_254_740_993_i64),
        json!(1e23),
    ];
    assert_eq!(came[..first.len()], first);
    for (real, said) in reals.iter().zip(&came[first.len()..]) {
        assert_eq!(said.to_string().parse::<f64>().unwrap().to_bits(), real.to_bits(), "{real:e} is {said}");
    }
    assert_eq!(told_of_t.iter().filter(|it| !it["omitted"].is_null()).count(), 0);
    fixture.execute("INSERT INTO w (k, n) VALUES ('a', 4)", &[]).await.unwrap();
    fixture.execute("UPDATE w SET k = 'b', n = 5", &[]).await.unwrap();
    let row = |k: &str, n: u8| json!({ "k": k, "n": n, "twice": n * 2, "more": format!("{k}!") });
    assert_eq!(
        told(&fixture, &lane("rows", "w")).await,
        [
            json!({ "do": "create", "row": row("a", 4), "old": null }),
            json!({ "do": "update", "row": row("b", 5), "old": row("a", 4) })
        ]
    );
}

#[tokio::test]
async fn what_a_column_takes_for_equal_is_a_change_all_the_same() {
    let fixture = listening(&[
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT COLLATE NOCASE, b TEXT COLLATE RTRIM)",
        "CREATE TABLE one (a TEXT PRIMARY KEY COLLATE NOCASE) WITHOUT ROWID",
    ])
    .await;
    listen(&fixture, &json!([{ "on": "rows", "table": "t" }, { "on": "rows", "table": "one" }]))
        .await
        .unwrap();
    fixture.execute("INSERT INTO t VALUES (1, 'a', 'b')", &[]).await.unwrap();
    for sql in ["UPDATE t SET a = 'A'", "UPDATE t SET b = 'b '", "UPDATE t SET a = 'A', b = 'b '"] {
        fixture.execute(sql, &[]).await.unwrap();
    }
    let told_of_t = told(&fixture, &lane("rows", "t")).await;
    let rows: Vec<Value> = told_of_t.into_iter().map(|it| it["row"].clone()).collect();
    let row = |a: &str, b: &str| json!({ "id": 1, "a": a, "b": b });
    assert_eq!(rows, [row("a", "b"), row("A", "b"), row("A", "b ")]);
    fixture.execute("INSERT INTO one VALUES ('a')", &[]).await.unwrap();
    fixture.execute("UPDATE one SET a = 'A'", &[]).await.unwrap();
    assert_eq!(told(&fixture, &lane("rows", "one")).await.len(), 2);
}

#[tokio::test]
async fn a_flood_of_one_table_takes_neither_the_room_of_the_app_nor_events_of_others() {
    let fixture = listening(&[
        "CREATE TABLE many (id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE TABLE few (id INTEGER PRIMARY KEY, v TEXT)",
        "CREATE TABLE heavy (v BLOB)",
    ])
    .await;
    listen(&fixture, &json!([{ "on": "rows", "table": "many" }, { "on": "rows", "table": "few" }]))
        .await
        .unwrap();
    let (many, few) = (lane("rows", "many"), lane("rows", "few"));
    let events = Events::new(Arc::new(fixture.databases.clone()));
    for _ in 0..40 {
        fixture.execute("INSERT INTO heavy VALUES (zeroblob(1900000))", &[]).await.unwrap();
    }
    for v in ["first", "next"] {
        fixture.execute("INSERT INTO few (v) VALUES (?1)", &[json!(v)]).await.unwrap();
        fixture.execute("INSERT INTO many (v) VALUES (?1)", &[json!(v)]).await.unwrap();
    }
    let weights = "SELECT about, max(upto) = sum(weight), \
                   sum(weight = 512 + octet_length(new)) FROM _steading_event GROUP BY about ORDER BY about";
    let right = |about: &str| vec![json!(about), json!(1), json!(2)];
    assert_eq!(fixture.platform(weights).await, [right("few"), right("many")]);
    assert_eq!(events.trim(&fixture.env).await.unwrap(), []);
    // As if so many rows of 60 KB had come.
    let each = 60_000;
    let heavy: Vec<_> = (1..=MOST / each)
        .map(|n| format!("('f', 'rows', 'many', 'create', 0, {each}, 2000 + {}, '{{}}')", n * each))
        .collect();
    let into = "INSERT INTO _steading_event (function, source, about, did, depth, weight, upto, new) VALUES ";
    fixture.ours(&[&format!("{into}{}", heavy.join(", "))]).await.unwrap();
    let count =
        async || fixture.platform("SELECT count(*) FROM _steading_event").await[0][0].as_i64().unwrap();
    let before = count().await;
    let flood = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) \
                 INSERT INTO many (v) SELECT printf('%.60000c', 'x') FROM n";
    assert_eq!(fixture.execute(flood, &[]).await.unwrap().changed, 5);
    let noted = count().await - before;
    assert!((1..=2).contains(&noted), "{noted} of 5, until there was no room");
    fixture.execute("INSERT INTO few (v) VALUES ('last')", &[]).await.unwrap();
    assert_eq!(count().await, before + noted + 1);
    // The oldest of the many make room, of the few none.
    let before = count().await;
    let gone = events.trim(&fixture.env).await.unwrap();
    assert_eq!(gone.iter().map(|(lane, _)| lane).collect::<Vec<_>>(), [&many]);
    assert_eq!(i64::try_from(gone[0].1).unwrap(), before - count().await);
    let kept =
        fixture.platform("SELECT sum(weight), min(upto) FROM _steading_event WHERE about = 'many'").await;
    let of_eight = MOST / 8 * 7;
    assert!((of_eight - each..=of_eight + each).contains(&kept[0][0].as_i64().unwrap()), "{kept:?}");
    assert!(kept[0][1].as_i64().unwrap() > MOST / 8 - each, "{kept:?}");
    assert_eq!(events.trim(&fixture.env).await.unwrap(), []);
    assert_eq!(events.lanes(&fixture.env).await.unwrap(), [few.clone(), many.clone()]);
    let told_of_few = told(&fixture, &few).await;
    let said: Vec<_> = told_of_few.iter().map(|it| it["row"]["v"].as_str().unwrap()).collect();
    assert_eq!(said, ["first", "next", "last"]);
    assert!(i64::try_from(told(&fixture, &many).await.len()).unwrap() >= of_eight / each - 1);
    assert_eq!(events.lanes(&fixture.env).await.unwrap(), []);
}

#[tokio::test]
async fn no_look_at_what_waits_is_the_longer_the_more_waits() {
    let fixture = wide(1).await;
    let of_lane = "SELECT upto FROM _steading_event WHERE function = 'f' AND source = 'rows' AND about = 'wide' \
                   AND attempt >= 0 ORDER BY seq DESC LIMIT 1";
    for sql in [LANE, BEFORE, TRIM, of_lane, STANDING] {
        let sql = (1..=4).fold(sql.to_owned(), |sql, n| sql.replace(&format!("?{n}"), "'a'"));
        for step in fixture.platform(&format!("EXPLAIN QUERY PLAN {sql}")).await {
            let step = step[3].as_str().unwrap();
            let seeks =
                step.contains("_steading_event_by_lane (") || step.contains("_steading_event_given_up (");
            let looks = step.contains("_steading_event") && !seeks;
            // Whether there is any needs no place to begin at.
            let is_any = sql == STANDING && step.contains("USING INDEX _steading_event_by_lane");
            assert!((!looks || is_any) && !step.contains("TEMP"), "{step}: {sql}");
        }
    }
}
