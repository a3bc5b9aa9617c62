//! What `app_describe` says of large apps, within what a model can pay, and that its advice mends what it finds.

use std::collections::BTreeSet;

use conformance_tests::Place;
use serde_json::{Map, Value, json};

/// What an overview may cost, and a page of one section.
const OVERVIEW: usize = 2_500;
const PAGE: usize = 4_000;

fn tokens(value: &Value) -> usize {
    tiktoken_rs::o200k_base_singleton().encode_ordinary(&value.to_string()).len()
}

fn described(place: &Place, input: &Value) -> Value {
    place.output("app_describe", input).unwrap()
}

fn advice(place: &Place) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut input = json!({ "section": "advice" });
        if !cursor.is_null() {
            input["cursor"] = cursor;
        }
        let page = described(place, &input);
        found.extend(page["advice"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()));
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            return found;
        }
    }
}

/// The keys of a section, page by page.
fn keys(place: &Place, section: &str, at: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut input = json!({ "section": section });
        if !cursor.is_null() {
            input["cursor"] = cursor;
        }
        let page = described(place, &input);
        assert!(tokens(&page) <= PAGE, "{section}: {} tokens", tokens(&page));
        assert_eq!(page["section"], section);
        match page.pointer(at).unwrap() {
            Value::Object(items) => found.extend(items.keys().cloned()),
            items => found.extend(items.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned())),
        }
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            return found;
        }
    }
}

fn named<T>(count: usize, name: &str, value: impl Fn(usize) -> T) -> Value
where
    Value: From<T>,
{
    (0..count).map(|n| (format!("{name}{n:02}"), Value::from(value(n)))).collect::<Map<_, _>>().into()
}

/// An app that has much of everything.
fn large() -> Value {
    let columns =
        ["title", "description", "author", "email", "quantity", "unit_price", "published", "category"];
    let columns: Map<String, Value> =
        columns.map(|name| (name.to_owned(), json!("text"))).into_iter().collect();
    let access = json!({
        "list": "row.author == auth.uid || row.published == 'yes'", "get": "true",
        "create": "auth.uid != null", "update": "auth.uid != null", "delete": "auth.role == 'admin'",
    });
    let files: Map<String, Value> =
        (0..200).map(|n| (format!("pages/chapter-{n:03}.html"), json!("x"))).collect();
    json!({
        "name": "Everything",
        "auth": { "methods": ["anonymous", "password", "otp"], "origins": ["https://one.example", "https://two.example"] },
        "database": {
            "tables": named(50, "table_", |_| json!({ "columns": columns, "access": access, "indexes": ["category"] })),
            "migrations": (0..40).map(|n| json!({ "name": format!("fill in what is missing {n}"), "sql": format!("UPDATE table_00 SET title = '{n}'") })).collect::<Vec<_>>(),
        },
        "storage": { "buckets": named(30, "bucket-", |_| json!({ "access": "public_read", "types": ["image/png", "image/jpeg"] })) },
        "realtime": { "channels": named(30, "room:", |_| json!({ "join": "public", "send": "signed_in" })) },
        "routes": (0..60).map(|n| (format!("/api/v1/table-{n:02}/*"), json!({
            "to": { "table": "table_00" }, "auth": "signed_in", "methods": ["GET", "POST"],
            "cors": { "origins": ["https://one.example"] }, "limit": { "requests": 60, "per": "minute" },
        }))).collect::<Map<_, _>>(),
        "domains": (0..10).map(|n| format!("shop-{n}.everything.example")).collect::<Vec<_>>(),
        "site": { "files": files },
    })
}

#[test]
fn a_large_app_is_described_within_the_budget_and_every_part_can_be_had_whole() {
    let place = Place::new("large").unwrap();
    place.output("app_apply", &json!({ "manifest": large() })).unwrap();
    for n in 0..30 {
        let name = format!("PAYMENT_PROVIDER_KEY_{n:02}");
        place.output("secret_set", &json!({ "name": name, "value": "x" })).unwrap();
    }
    let seen = described(&place, &json!({}));
    let cost = tokens(&seen);
    assert!(cost <= OVERVIEW, "{cost} tokens: {seen}");
    // All tables are named, and what is left out is said with the section that shows it.
    assert_eq!(seen["outline"].as_object().unwrap().len(), 50);
    assert_eq!(seen["outline"]["table_07"], "8 columns, 0 rows, rules");
    let said: BTreeSet<&str> = seen["omitted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it.as_str().unwrap().rsplit(' ').next().unwrap())
        .collect();
    assert_eq!(
        said,
        BTreeSet::from([
            "tables",
            "buckets",
            "routes",
            "channels",
            "domains",
            "advice",
            "secrets",
            "migrations",
            "paths"
        ])
    );
    for (section, at, count) in [
        ("tables", "/tables", 50),
        ("buckets", "/buckets", 30),
        ("routes", "/routes", 60),
        ("channels", "/realtime/channels", 30),
        ("secrets", "/secrets", 30),
        ("migrations", "/migrations", 40),
        ("paths", "/site/paths", 200),
    ] {
        let found = keys(&place, section, at);
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!((found.len(), distinct.len()), (count, count), "{section}");
    }
    assert_eq!(described(&place, &json!({ "section": "domains" }))["domains"].as_array().unwrap().len(), 10);
    // One table is shown whole.
    let one = described(&place, &json!({ "table": "TABLE_07" }));
    assert_eq!(one["tables"].as_object().unwrap().len(), 1);
    assert_eq!(one["tables"]["table_07"]["columns"]["email"], "text");
    for (input, field) in [
        (json!({ "table": "nope" }), "/table"),
        (json!({ "table": "table_07", "section": "tables" }), "/table"),
        (json!({ "section": "everything" }), "/section"),
        (json!({ "cursor": "5" }), "/cursor"),
        (json!({ "section": "tables", "cursor": "x" }), "/cursor"),
    ] {
        let refused = place.output("app_describe", &input).unwrap_err().to_string();
        assert!(refused.contains(field), "{input}: {refused}");
    }
    // A small app is shown whole at once.
    let small = Place::new("small").unwrap();
    small.output("app_apply", &json!({ "manifest": { "database": { "tables": { "notes": { "columns": { "text": "text!" } } } } } })).unwrap();
    let seen = described(&small, &json!({}));
    assert_eq!(
        (&seen["tables"]["notes"]["columns"]["text"], seen.get("outline"), seen.get("omitted")),
        (&json!("text!"), None, None)
    );
}

/// What is said, and the call that mends it.
fn call(advice: &str) -> (String, Value) {
    let (tool, input) = advice
        .match_indices(": ")
        .find_map(|(at, _)| {
            let (tool, input) = advice[at + 2..].split_once(' ')?;
            let input = serde_json::from_str::<Value>(input).ok().filter(Value::is_object)?;
            Some((tool.to_owned(), input))
        })
        .unwrap_or_else(|| panic!("no call: {advice}"));
    (tool, input)
}

#[test]
fn every_piece_of_advice_has_the_call_that_mends_it() {
    let place = Place::new("mends").unwrap();
    let nothing = advice(&place);
    assert_eq!(nothing.len(), 1, "{nothing:?}");
    let (tool, input) = call(&nothing[0]);
    place.output(&tool, &input).unwrap();
    assert_eq!(advice(&place), [""; 0]);

    let open = json!({ "list": "true", "get": "true", "create": "true", "update": "auth.uid != null", "delete": "true" });
    let manifest = json!({
        "database": { "tables": {
            "bare": { "columns": { "text": "text" } },
            "open": { "columns": { "text": "text", "email": "text" }, "access": open },
            "mine": { "columns": { "text": "text" }, "access": { "list": "true", "get": "row.owner == auth.uid", "create": "auth.uid != null", "update": "auth.uid != null" } },
            "hidden": { "columns": { "text": "text" }, "access": { "list": "true", "update": "auth.role == 'admin'", "delete": "auth.uid != null" } },
            "signed": { "columns": { "author": "text", "team": "ref:bare" }, "access": {
                "list": "row.author == auth.uid", "get": "row.author == auth.uid",
                "create": "auth.uid != null", "update": "row.author == auth.uid",
            } },
            "papers": { "kind": "documents", "access": {
                "list": "row.data.team == auth.claims.team", "get": "row.data.team == auth.claims.team",
                "create": "auth.uid != null", "update": "row.data.by == auth.uid",
            } },
            "looking": { "columns": { "text": "text" }, "access": { "list": "exists(signed, author == auth.uid)", "get": "exists(signed, author == auth.uid)" } },
        } },
        "storage": { "buckets": { "closed": {}, "wide": { "access": {
            "list": "true", "get": "true", "create": "true", "update": "row.metadata.by == auth.uid", "delete": "auth.uid != null",
        } } } },
        "realtime": { "channels": { "*": { "join": "true", "send": "true" } } },
        "routes": { "/api/*": { "to": { "table": "mine" }, "auth": "signed_in" } },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    place
        .output(
            "db_execute",
            &json!({ "sql": "CREATE TABLE loose (id TEXT PRIMARY KEY, other TEXT REFERENCES bare (id))" }),
        )
        .unwrap();
    // One after the other as they stand: no call undoes what another has mended.
    let first = advice(&place);
    let tools: BTreeSet<String> = first.iter().map(|advice| call(advice).0).collect();
    let expected = ["access_set", "app_apply", "auth_configure", "db_execute", "storage_bucket"];
    assert_eq!(tools, expected.map(str::to_owned).into(), "{first:#?}");
    for found in [
        "who updates a row of papers may give it to another: update does not ask new.data.by",
        "every signed-in user may delete every file of files/wide, also those of others",
        "who updates a file of files/wide may give it to another: update does not ask new.metadata.by",
        "everybody, signed in or not, may create any file of files/wide",
        "everybody, signed in or not, may send to the channel *",
    ] {
        assert!(first.iter().any(|advice| advice.contains(found)), "{found}: {first:#?}");
    }
    for advice in &first {
        let (tool, input) = call(advice);
        place.output(&tool, &input).unwrap_or_else(|error| panic!("{advice}: {error}"));
    }
    let after = advice(&place);
    let still: Vec<_> = first.iter().filter(|advice| after.contains(advice)).collect();
    assert_eq!(still, Vec::<&String>::new());
    // What a mended rule asks for, an index perhaps, is advice again, and is mended in turn.
    for advice in &after {
        let (tool, input) = call(advice);
        place.output(&tool, &input).unwrap_or_else(|error| panic!("{advice}: {error}"));
    }
    assert_eq!(advice(&place), [""; 0]);
}

#[test]
fn what_was_applied_is_described_section_by_section() {
    let place = Place::new("described").unwrap();
    for name in ["SMS_KEY", "SIGN_IN_KEY"] {
        place
            .output(
                "secret_set",
                &json!({ "name": name, "value": "a secret of more than 32 bytes, for tests" }),
            )
            .unwrap();
    }
    let auth = json!({
        "methods": ["phone", "passkey", "custom"],
        "phone": { "webhook": "https://sms.example.com/send", "secret": "SMS_KEY" },
        "custom": { "secret": "SIGN_IN_KEY", "role": true },
        "theme": { "accent": "#14532d" },
    });
    let lifecycle = json!({ "releases": { "keep": 3 } });
    let papers = json!({ "kind": "documents", "access": "private", "indexes": ["data.city"] });
    let manifest = json!({
        "auth": auth, "lifecycle": lifecycle, "backups": { "every": "6h", "keep": 2 },
        "database": { "tables": { "papers": papers } },
    });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let seen = described(&place, &json!({}));
    for key in ["methods", "phone", "custom", "theme"] {
        assert_eq!(seen["auth"][key], auth[key], "{key}");
    }
    assert_eq!(seen["lifecycle"], lifecycle);
    assert_eq!(seen["backups"], json!({ "every": "6h", "keep": 2, "there": 0 }));
    assert!(seen["tables"]["papers"]["indexes"].as_array().unwrap().contains(&json!("data.city")), "{seen}");
    place.output("auth_configure", &json!({ "methods": ["passkey"] })).unwrap();
    let advice = advice(&place);
    assert!(advice.iter().any(|it| it.starts_with("a passkey is added by who has signed in")), "{advice:?}");
}
