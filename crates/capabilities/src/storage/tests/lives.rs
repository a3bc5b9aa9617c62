//! What becomes of files: made, read, replaced, moved, copied, listed, removed.

use std::time::Duration;

use super::*;
use crate::rows::IfMatch;

suite! {
    a_file_is_what_was_stored_until_it_is_replaced_or_removed,
    an_empty_file_and_one_of_many_parts_come_back_whole,
    conditions_hold_or_nothing_is_changed,
    a_list_goes_by_path_prefix_and_page,
    a_file_moves_and_is_copied_where_nothing_is,
    what_is_noted_stays_until_something_else_is,
}

async fn a_file_is_what_was_stored_until_it_is_replaced_or_removed(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let made = ground.put(&ada, "own", "notes/a.txt", b"first").await.unwrap();
    assert_eq!(
        (made.path.as_str(), made.size, made.content_type.as_str(), made.owner.clone()),
        ("notes/a.txt", 5, "text/plain; charset=utf-8", ada.subject().uid())
    );
    assert_eq!(ground.storage.get(&ada, "own", "notes/a.txt").await.unwrap(), made);
    assert_eq!(ground.read(&ada, "own", "notes/a.txt").await.unwrap(), b"first");
    let again = ground.put(&ada, "own", "notes/a.txt", b"second").await.unwrap();
    assert_eq!((again.created_at == made.created_at, again.etag == made.etag), (true, false));
    assert!(again.updated_at > made.updated_at);
    assert_eq!(ground.read(&ada, "own", "notes/a.txt").await.unwrap(), b"second");
    assert_eq!(ground.contents(), 1, "the first content is gone");
    ground.storage.delete(&ada, "own", "notes/a.txt", Condition::Any).await.unwrap();
    assert_eq!(told(ground.read(&ada, "own", "notes/a.txt").await), "404 not_found: there is no such file");
    assert_eq!(ground.contents(), 0);
}

async fn an_empty_file_and_one_of_many_parts_come_back_whole(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    ground.put(&ada, "own", "empty", b"").await.unwrap();
    assert_eq!(ground.read(&ada, "own", "empty").await.unwrap(), b"");
    let large: &'static [u8] = (0..1_500_000_u32).map(|i| (i / 7) as u8).collect::<Vec<_>>().leak();
    let stored = ground.put(&ada, "own", "large", large).await.unwrap();
    assert_eq!(stored.etag, format!("\"{}\"", kernel::BlobHash::of(large)));
    assert!(ground.read(&ada, "own", "large").await.unwrap() == large);
    let part = ground.storage.read(&ada, &stored, 700_000..700_010).await.unwrap();
    assert_eq!(part.try_collect::<Vec<_>>().await.unwrap().concat(), large[700_000..700_010]);
}

async fn conditions_hold_or_nothing_is_changed(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    let absent = || Put { condition: Condition::Absent, ..place("own", "a") };
    let first = ground.store(&ada, absent(), b"one").await.unwrap();
    let refused = told(ground.store(&ada, absent(), b"two").await);
    assert_eq!(refused, "412 conflict /if_none_match: there is a file at this path already");
    let tagged = |etag: &str| Put { condition: Condition::Match(IfMatch::parse(etag)), ..place("own", "a") };
    let second = ground.store(&ada, tagged(&first.etag), b"two").await.unwrap();
    let changed = "412 conflict /if_match: the file has changed since it was read";
    assert_eq!(told(ground.store(&ada, tagged(&first.etag), b"three").await), changed);
    let missing = Put { condition: Condition::Match(IfMatch::Any), ..place("own", "b") };
    assert_eq!(told(ground.store(&ada, missing, b"x").await), changed);
    let stale = Condition::Match(IfMatch::parse(&first.etag));
    assert_eq!(told(ground.storage.delete(&ada, "own", "a", stale).await), changed);
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"two");
    let fresh = Condition::Match(IfMatch::parse(&second.etag));
    ground.storage.delete(&ada, "own", "a", fresh).await.unwrap();
    assert_eq!(ground.contents(), 0);
}

async fn a_list_goes_by_path_prefix_and_page(engine: Engine) {
    let ground = engine.ground().await;
    let ada = ground.user();
    for path in ["a/1", "a/2", "a/3", "a0", "b/1", "a!"] {
        ground.put(&ada, "own", path, b"x").await.unwrap();
    }
    assert_eq!(ground.paths(&ada, "own").await, ["a!", "a/1", "a/2", "a/3", "a0", "b/1"]);
    let page = |prefix: &str, cursor: Option<String>| {
        let query = ListFiles { prefix: Some(prefix.to_owned()), limit: Some(2), cursor };
        let (storage, ada) = (ground.storage.clone(), ada.clone());
        async move { storage.list(&ada, "own", &query).await }
    };
    let paths = |listed: &super::super::Listed| -> Vec<String> {
        listed.files.iter().map(|file| file.path.clone()).collect()
    };
    let first = page("a/", None).await.unwrap();
    assert_eq!(paths(&first), ["a/1", "a/2"]);
    let second = page("a/", first.cursor.clone()).await.unwrap();
    assert_eq!((paths(&second), second.cursor), (vec!["a/3".to_owned()], None));
    assert_eq!(
        told(page("b/", first.cursor).await),
        "400 invalid_input /cursor: the cursor does not belong to this list"
    );
    let none = ListFiles { limit: Some(0), ..ListFiles::default() };
    assert_eq!(
        told(ground.storage.list(&ada, "own", &none).await),
        "400 invalid_input /limit: the limit is 1 to 200"
    );
}

async fn a_file_moves_and_is_copied_where_nothing_is(engine: Engine) {
    let ground = engine.ground().await;
    let (ada, bob) = (ground.user(), ground.user());
    let made = ground.put(&ada, "open", "a.txt", b"text").await.unwrap();
    ground.put(&bob, "open", "bobs.txt", b"bob").await.unwrap();
    let moved = ground.storage.rename(&ada, "open", "a.txt", "b/c.txt").await.unwrap();
    assert_eq!((moved.path.as_str(), &moved.etag, &moved.owner), ("b/c.txt", &made.etag, &made.owner));
    assert_eq!(told(ground.read(&ada, "open", "a.txt").await), "404 not_found: there is no such file");
    assert_eq!(ground.read(&ada, "open", "b/c.txt").await.unwrap(), b"text");
    let copy = ground.storage.copy(&bob, "open", "b/c.txt", "copy.txt").await.unwrap();
    assert_eq!((copy.owner, copy.etag), (bob.subject().uid(), made.etag));
    ground.storage.delete(&ada, "open", "b/c.txt", Condition::Any).await.unwrap();
    assert_eq!(ground.read(&ada, "open", "copy.txt").await.unwrap(), b"text");
    let taken = "409 conflict /to: this path is taken";
    assert_eq!(told(ground.storage.rename(&bob, "open", "copy.txt", "bobs.txt").await), taken);
    assert_eq!(told(ground.storage.copy(&bob, "open", "copy.txt", "bobs.txt").await), taken);
    assert_eq!(
        told(ground.storage.rename(&ada, "open", "copy.txt", "mine.txt").await),
        "403 forbidden: the rules of open do not allow this update"
    );
    assert_eq!(ground.paths(&bob, "open").await, ["bobs.txt", "copy.txt"]);
    assert_eq!(ground.contents(), 2);
}

async fn what_is_noted_stays_until_something_else_is(engine: Engine) {
    let ground = engine.ground().await;
    ground.buckets(json!({ "own": { "access": {
        "list": "row.metadata.public == true || row.owner == auth.uid", "get": "true",
        "create": "auth.uid != null", "update": "row.owner == auth.uid",
    } } }));
    let (ada, bob) = (ground.user(), ground.user());
    let noted = json!({ "public": true, "title": "é" }).as_object().unwrap().clone();
    let put = Put { metadata: Some(noted.clone()), ..place("own", "a") };
    assert_eq!(ground.store(&ada, put, b"1").await.unwrap().metadata, Value::Object(noted.clone()));
    assert_eq!(ground.put(&ada, "own", "a", b"2").await.unwrap().metadata, Value::Object(noted));
    ground.put(&ada, "own", "b", b"2").await.unwrap();
    assert_eq!(ground.paths(&bob, "own").await, ["a"]);
    let long = json!({ "a": "a".repeat(5_000) }).as_object().unwrap().clone();
    let put = Put { metadata: Some(long), ..place("own", "c") };
    assert_eq!(
        told(ground.store(&ada, put, b"1").await),
        "400 invalid_input /metadata: the metadata is longer than 4096 bytes"
    );
}

#[tokio::test]
async fn contents_that_no_row_names_are_collected_when_they_are_old() {
    let ground = Ground::new().await;
    let ada = ground.user();
    ground.put(&ada, "own", "a", b"kept").await.unwrap();
    let files = ground.dir.path().join(ground.env.id().to_string()).join("files");
    let orphan = uuid::Uuid::now_v7().simple().to_string();
    for name in [orphan.as_str(), "0190163d8694739b9ddcf5dc3aa3a9c0#1"] {
        std::fs::write(files.join(name), b"left by a crash").unwrap();
    }
    assert_eq!(ground.storage.tidy(&ground.env).await.unwrap(), 0, "they may be under way");
    assert_eq!(ground.storage.tidy_older(&ground.env, Duration::ZERO).await.unwrap(), 2);
    assert_eq!(ground.read(&ada, "own", "a").await.unwrap(), b"kept");
    assert_eq!(ground.contents(), 1);
}
