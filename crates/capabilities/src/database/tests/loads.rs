//! Loading rows.

use expect_test::expect;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, told};
use crate::database::{Error, Format, Load, OnConflict};

fn load(format: Format, text: &str, on_conflict: OnConflict) -> Load {
    Load { table: "item".to_owned(), format, text: text.to_owned(), on_conflict }
}

async fn with_item() -> Fixture {
    let fixture = Fixture::new().await;
    let sql = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL, sold BOOLEAN, data BLOB, \
               tags TEXT, twice AS (id * 2))";
    fixture.execute(sql, &[]).await.unwrap();
    fixture
}

#[tokio::test]
async fn all_formats_load_the_same_rows() {
    let rows = [
        vec![
            json!(1),
            json!("a, \"b\""),
            json!(1.5),
            json!(1),
            json!({"base64": "AP8="}),
            json!("[1,2]"),
            json!(2),
        ],
        vec![json!(2), json!(""), json!(null), json!(0), json!(null), json!(null), json!(4)],
    ];
    for (format, text) in [
        (
            Format::Csv,
            "\u{feff}id,name,price,sold,data,tags\r\n1,\"a, \"\"b\"\"\",1.5,TRUE,AP8=,\"[1,2]\"\r\n2,,,false,,\r\n",
        ),
        (
            Format::Json,
            r#"[{"id": 1, "name": "a, \"b\"", "price": 1.5, "sold": true, "data": {"base64": "AP8="}, "tags": [1, 2]},
                {"id": "2", "NAME": "", "sold": "false"}]"#,
        ),
        (
            Format::Ndjson,
            "{\"id\": 1, \"name\": \"a, \\\"b\\\"\", \"price\": 1.5, \"sold\": 1, \"data\": {\"base64\": \"AP8=\"}, \"tags\": \"[1,2]\"}\n\n{\"id\": 2.0, \"name\": \"\", \"sold\": false}\n",
        ),
    ] {
        let fixture = with_item().await;
        let loaded = fixture
            .databases
            .load(&fixture.env, &load(format, text, OnConflict::Fail), &CancellationToken::new())
            .await
            .unwrap();
        assert_eq!((loaded.loaded, loaded.skipped), (2, 0), "{format:?}");
        assert_eq!(fixture.rows("SELECT * FROM item ORDER BY id").await, rows, "{format:?}");
    }
}

#[tokio::test]
async fn a_bad_row_is_named_and_nothing_is_loaded() {
    let fixture = with_item().await;
    let mut answers = String::new();
    for (format, text) in [
        (Format::Csv, "id,name\n1,a\nx,b\n"),
        (Format::Csv, "id,name\n1,a\n2\n"),
        (Format::Csv, "id,colour\n1,a\n"),
        (Format::Csv, ""),
        (Format::Csv, "id,name\n1,a\n1,b\n"),
        (Format::Csv, "id,name,sold\n1,a,perhaps\n"),
        (Format::Csv, "id,twice\n1,4\n"),
        (Format::Json, "[{\"id\": 1, \"name\": \"a\"}, {\"id\": 1.5, \"name\": \"a\"}]"),
        (Format::Json, "[{\"id\": 1, \"name\": \"a\"}, 7]"),
        (Format::Json, "{\"id\": 1}"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\"}\n{\"id\": 2, \"name\": null}\n"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\"}\n{\"id\": \n"),
        (Format::Ndjson, "{\"id\": 1, \"name\": \"a\", \"data\": \"plain\"}\n"),
    ] {
        let load = load(format, text, OnConflict::Fail);
        let answer = fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await;
        answers.push_str(&format!("{}\n", told(answer)));
        assert_eq!(fixture.rows("SELECT count(*) FROM item").await, [[json!(0)]]);
    }
    for table in ["nowhere", "_steading_state", "sqlite_schema"] {
        let load = Load { table: table.to_owned(), ..load(Format::Csv, "name\na\n", OnConflict::Fail) };
        let answer = fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await;
        answers.push_str(&format!("{}\n", told(answer)));
    }
    expect![[r#"
        invalid_input /text: line 3, column id: "x" is not a whole number
        invalid_input /text: line 3: 1 fields, and the first line names 2
        invalid_input /text: line 2, column colour: item has no such column
        invalid_input /text: the data is not valid CSV: the first line must name the columns
        invalid_input /text: line 3: a row with the same item.id is already there
        invalid_input /text: line 2, column sold: "perhaps" is not true or false
        invalid_input /text: line 2, column twice: is computed and cannot be given
        invalid_input /text: line 2, column id: 1.5 is not a whole number
        invalid_input /text: line 2: an object is expected
        invalid_input /text: the data is not valid JSON: an array of objects is expected: invalid type: map, expected a sequence at line 1 column 0
        invalid_input /text: line 2: item.name needs a value
        invalid_input /text: line 2: not valid JSON: EOF while parsing a value at line 1 column 7
        invalid_input /text: line 1, column data: "plain" is not base64
        not_found /table: there is no table nowhere
        invalid_input /sql: _steading_state belongs to the platform
        invalid_input /text: line 2: table sqlite_master may not be modified
    "#]].assert_eq(&answers);
}

#[tokio::test]
async fn rows_that_are_there_are_left_or_updated_as_asked() {
    let fixture = with_item().await;
    let run = async |text: &str, on_conflict| {
        let load = load(Format::Csv, text, on_conflict);
        fixture.databases.load(&fixture.env, &load, &CancellationToken::new()).await.unwrap()
    };
    run("id,name,price\n1,a,1\n", OnConflict::Fail).await;
    let skipped = run("id,name\n1,b\n2,c\n", OnConflict::Skip).await;
    assert_eq!((skipped.loaded, skipped.skipped), (1, 1));
    let updated = run("id,name\n2,d\n3,e\n", OnConflict::Update).await;
    assert_eq!((updated.loaded, updated.skipped), (2, 0));
    assert_eq!(
        fixture.rows("SELECT id, name, price FROM item ORDER BY id").await,
        [
            [json!(1), json!("a"), json!(1.0)],
            [json!(2), json!("d"), Value::Null],
            [json!(3), json!("e"), Value::Null]
        ]
    );
}

#[tokio::test]
async fn a_cancelled_load_loads_nothing() {
    let fixture = with_item().await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let answer = fixture
        .databases
        .load(&fixture.env, &load(Format::Csv, "name\na\n", OnConflict::Fail), &cancel)
        .await;
    assert!(matches!(answer, Err(Error::Cancelled)));
    assert_eq!(fixture.rows("SELECT count(*) FROM item").await, [[json!(0)]]);
}

#[tokio::test]
async fn many_rows_load_in_batches_and_a_bad_one_among_them_is_still_named() {
    let fixture = with_item().await;
    let mut text = String::from("id,name\n");
    for id in 0..2_000 {
        text.push_str(&format!("{id},n{id}\n"));
    }
    let cancel = CancellationToken::new();
    let bad = load(Format::Csv, &format!("{text}1234,twice\n5000,after\n"), OnConflict::Fail);
    expect!["invalid_input /text: line 2002: a row with the same item.id is already there"]
        .assert_eq(&told(fixture.databases.load(&fixture.env, &bad, &cancel).await));
    assert_eq!(fixture.rows("SELECT count(*) FROM item").await, [[json!(0)]]);
    let good = load(Format::Csv, &format!("{text}1234,twice\n5000,after\n"), OnConflict::Skip);
    let loaded = fixture.databases.load(&fixture.env, &good, &cancel).await.unwrap();
    assert_eq!((loaded.loaded, loaded.skipped), (2_001, 1));
    assert_eq!(fixture.rows("SELECT count(*), sum(id) FROM item").await, [[json!(2_001), json!(2_004_000)]]);
}
