//! Files of an app, by tools.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Ground, cost};

pub(super) async fn bucket(ground: &Ground) {
    let input = json!({ "name": "notes", "access": "private", "max_size": 200_000 });
    let set = ground.call("storage_bucket", input).await.unwrap();
    assert_eq!(
        (&set["release"], &set["access"], &set["max_size"]),
        (&json!(1), &json!("private"), &json!(200_000))
    );
}

#[tokio::test]
async fn a_file_is_put_listed_read_and_signed() {
    let ground = Ground::new().await;
    bucket(&ground).await;
    let put = |path: &str, text: &str| {
        let input = json!({ "bucket": "notes", "path": path, "text": text });
        let ground = &ground;
        async move { ground.call("storage_put", input).await }
    };
    let made = put("a/hello.md", "# Hello").await.unwrap();
    assert_eq!(
        (&made["created"], &made["size"], &made["content_type"]),
        (&json!(true), &json!(7), &json!("text/markdown; charset=utf-8"))
    );
    assert_eq!(put("a/hello.md", "# Hello again").await.unwrap()["created"], false);
    let read = ground.call("storage_get", json!({ "bucket": "notes", "path": "a/hello.md" })).await.unwrap();
    assert_eq!((&read["text"], read.get("cursor"), read.get("owner")), (&json!("# Hello again"), None, None));
    let bytes = json!({ "bucket": "notes", "path": "raw", "base64": STANDARD.encode([0, 255, 1]) });
    ground.call("storage_put", bytes).await.unwrap();
    let raw = ground.call("storage_get", json!({ "bucket": "notes", "path": "raw" })).await.unwrap();
    assert_eq!((raw.get("text"), &raw["size"]), (None, &json!(3)));
    let listed = ground.call("storage_list", json!({ "bucket": "notes", "prefix": "a/" })).await.unwrap();
    assert_eq!(listed["files"].as_array().unwrap().len(), 1);
    let sign = json!({ "bucket": "notes", "path": "a/hello.md", "method": "get", "expires_in": 60 });
    let signed = ground.call("storage_sign", sign).await.unwrap();
    let url = signed["url"].as_str().unwrap();
    assert!(url.starts_with("http://default.localhost:8787/_/files/notes/a/hello.md?token="), "{url}");
    for (tool, wrong) in [
        ("storage_put", json!({ "bucket": "notes", "path": "a", "text": "a", "base64": "YQ==" })),
        ("storage_put", json!({ "bucket": "notes", "path": "a" })),
        ("storage_put", json!({ "bucket": "notes", "path": "a", "base64": "not base64" })),
        ("storage_put", json!({ "bucket": "notes", "path": "../a", "text": "a" })),
        ("storage_put", json!({ "bucket": "nowhere", "path": "a", "text": "a" })),
        ("storage_get", json!({ "bucket": "notes", "path": "raw", "cursor": "99" })),
        ("storage_sign", json!({ "bucket": "notes", "path": "raw", "method": "delete" })),
        ("storage_bucket", json!({ "name": "Notes" })),
        ("storage_bucket", json!({ "name": "notes", "access": { "get": "row.nothing" } })),
    ] {
        assert!(ground.call(tool, wrong.clone()).await.is_err(), "{tool} {wrong}");
    }
}

#[tokio::test]
async fn a_long_text_and_a_long_list_come_in_pages_without_gap() {
    let ground = Ground::new().await;
    bucket(&ground).await;
    let text: String = (0..4_000).map(|n| format!("line {n} is ünique\n")).collect();
    let input = json!({ "bucket": "notes", "path": "long.txt", "text": text });
    ground.call("storage_put", input).await.unwrap();
    let (mut read, mut cursor) = (String::new(), Value::Null);
    loop {
        let mut input = json!({ "bucket": "notes", "path": "long.txt" });
        if cursor.is_string() {
            input["cursor"] = cursor.clone();
        }
        let page = ground.call("storage_get", input).await.unwrap();
        assert!(cost(&page) <= 4_000, "{}", cost(&page));
        read.push_str(page["text"].as_str().unwrap());
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert!(read == text);
    let paths: Vec<String> = (0..120).map(|n| format!("{n:03}/{}", "name".repeat(60))).collect();
    for path in &paths {
        let input = json!({ "bucket": "notes", "path": path, "text": "" });
        ground.call("storage_put", input).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut input = json!({ "bucket": "notes", "prefix": "" });
        if cursor.is_string() {
            input["cursor"] = cursor.clone();
        }
        let page = ground.call("storage_list", input).await.unwrap();
        assert!(cost(&page) <= 4_000, "{}", cost(&page));
        let files = page["files"].as_array().unwrap();
        seen.extend(files.iter().map(|file| file["path"].as_str().unwrap().to_owned()));
        cursor = page["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen[..120], paths);
    assert_eq!(seen[120..], ["long.txt"]);
}

#[tokio::test]
async fn a_bucket_is_deleted_only_with_the_token_of_its_dry_run() {
    let ground = Ground::new().await;
    bucket(&ground).await;
    ground.call("storage_put", json!({ "bucket": "notes", "path": "a", "text": "abc" })).await.unwrap();
    let described = ground.call("app_describe", json!({})).await.unwrap();
    assert_eq!(
        described["buckets"],
        json!({ "notes": { "access": "private", "files": 1, "bytes": 3, "max_size": 200_000 } })
    );
    let delete = |more: Value| {
        let mut input = json!({ "kind": "bucket", "name": "notes" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let ground = &ground;
        async move { ground.call("resource_delete", input).await }
    };
    let refused = delete(json!({})).await.unwrap_err();
    assert!(refused.message().contains("1 files of 3 bytes are deleted with the bucket"), "{refused}");
    let dry = delete(json!({ "dry_run": true })).await.unwrap();
    let gone = delete(json!({ "confirm": dry["confirm"] })).await.unwrap();
    assert_eq!(gone["deleted"], true);
    assert!(ground.call("storage_get", json!({ "bucket": "notes", "path": "a" })).await.is_err());
}

#[tokio::test]
async fn advice_on_buckets_keeps_their_names_and_rules() {
    let ground = Ground::new().await;
    let access =
        json!({ "list": "true", "get": "true", "update": "row.owner != null", "delete": "auth.uid != null" });
    let buckets = json!({ "brown-photos": { "access": access } });
    ground.call("app_apply", json!({ "manifest": { "storage": { "buckets": buckets } } })).await.unwrap();
    let seen = ground.call("app_describe", json!({})).await.unwrap();
    let advice = seen["advice"].to_string();
    let update =
        "everybody, signed in or not, may update files of files/brown-photos where row.owner != null";
    let delete = "every signed-in user may delete every file of files/brown-photos, also those of others";
    assert!(advice.contains(update) && advice.contains(delete), "{advice}");
}

#[tokio::test]
async fn what_is_not_found_says_how_to_find_it() {
    let ground = Ground::new().await;
    bucket(&ground).await;
    let hint = async |tool, input| {
        let refused = ground.call(tool, input).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::NotFound, "{tool}: {refused}");
        let problem = refused.problem("req");
        problem["hint"].as_str().unwrap_or_default().to_owned()
    };
    let bucket = hint("storage_get", json!({ "bucket": "nowhere", "path": "a.txt" })).await;
    assert_eq!(bucket, "app_describe shows the buckets, and storage_bucket makes one");
    let file = hint("storage_get", json!({ "bucket": "notes", "path": "a.txt" })).await;
    assert_eq!(file, "list the bucket: it shows the paths of all that may be seen");
    for user in [kernel::UserId::new().to_string(), "+4915112345678".to_owned()] {
        let user = hint("auth_user_set", json!({ "user": user, "disabled": true })).await;
        assert_eq!(user, "auth_users lists users, with `query` those whose address has it in it");
    }
}
