//! Buckets of files, as a part of releases.

use super::*;
use crate::access::{Operation, Persona, Question, Who};
use crate::database::{Durability, Role};

impl Yard {
    async fn set_bucket(&self, change: BucketChange) -> Result<Applied> {
        Ok(self.releases.set_bucket(&self.env, change, &CancellationToken::new()).await?.0)
    }

    /// A file's row; what it names does not matter here.
    async fn file(&self, bucket: &str, path: &str, size: u64) {
        let mut db = self.databases.writer(&self.env).await.unwrap();
        db.begin(Durability::Normal).await.unwrap();
        let sql = "INSERT INTO _steading_object (id, bucket, path, size, content_type, etag, content) \
                   VALUES (?1, ?2, ?1, ?3, 'text/plain', '', '')";
        db.run(Role::Platform, sql, &[json!(path), json!(bucket), json!(size)]).await.unwrap();
        db.commit().await.unwrap();
    }

    async fn buckets(&self) -> Value {
        json!(self.releases.describe(&self.env).await.unwrap().buckets)
    }

    async fn served(&self) -> Vec<String> {
        let live = self.releases.live(&self.env).await.unwrap();
        live.map(|served| served.app.buckets.keys().cloned().collect()).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_bucket_is_planned_made_and_described() {
    let yard = Yard::new().await;
    let manifest = json!({ "storage": { "buckets": {
        "photos": { "access": "public_read", "max_size": 1000, "types": ["image/*"] },
        "drafts": {},
    } } });
    let plan = yard.plan(manifest.clone()).await.unwrap();
    assert_eq!(
        changes(&plan.changes),
        [
            "create bucket drafts: access nobody, files of at most 104857600 bytes",
            "create bucket photos: access public_read, files of at most 1000 bytes, of type image/*",
        ]
    );
    assert_eq!(effects(&plan.effects), ["Privilege bucket photos: everybody may read it (public_read)"]);
    assert_eq!(yard.served().await, [""; 0]);
    assert_eq!(yard.apply(manifest.clone()).await.unwrap().release, 1);
    assert!(!yard.apply(manifest).await.unwrap().changed);
    assert_eq!(yard.served().await, ["drafts", "photos"]);
    yard.file("photos", "a.png", 12).await;
    assert_eq!(
        yard.buckets().await,
        json!({
            "drafts": { "files": 0, "bytes": 0, "max_size": 104_857_600 },
            "photos": {
                "access": "public_read", "files": 1, "bytes": 12, "max_size": 1000, "types": ["image/*"],
            },
        })
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_bucket_is_said_where() {
    let yard = Yard::new().await;
    for (bucket, at, message) in [
        (json!({ "access": { "get": "row.bucket == 'a'" } }), "/access/get", None),
        (json!({ "access": { "get": "row.content == 'a'" } }), "/access/get", None),
        (json!({ "max_size": 0 }), "/max_size", Some("the largest file has at least 1 byte")),
        (json!({ "types": ["image/png", "pictures"] }), "/types/1", Some("\"pictures\" is no content type")),
    ] {
        let manifest = json!({ "storage": { "buckets": { "a": bucket } } });
        let refused = yard.apply(manifest).await.unwrap_err();
        assert_eq!(refused.pointer(), Some(format!("/storage/buckets/a{at}").as_str()), "{refused}");
        if let Some(message) = message {
            assert_eq!(refused.message(), message);
        }
    }
    for wrong in [
        json!({ "storage": { "bucket": {} } }),
        json!({ "storage": { "buckets": { "Photos": {} } } }),
        json!({ "storage": { "buckets": { "a": { "acces": "private" } } } }),
        json!({ "storage": { "buckets": { "a": { "access": "everybody" } } } }),
        json!({ "storage": { "buckets": { "a": { "max_size": "1MB" } } } }),
    ] {
        assert!(serde_json::from_value::<Manifest>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_bucket_with_files_goes_only_when_that_is_confirmed() {
    let yard = Yard::new().await;
    let both = json!({ "storage": { "buckets": { "a": {}, "b": {} } } });
    let one = json!({ "storage": { "buckets": { "b": {} } } });
    yard.apply(both).await.unwrap();
    yard.file("a", "x", 5).await;
    yard.file("a", "y", 6).await;
    let refused = yard.apply(one.clone()).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "this would lose data: bucket a: 2 files of 11 bytes are deleted with the bucket"
    );
    let plan = yard.plan(one.clone()).await.unwrap();
    yard.apply_plan(plan.id, plan.confirm.as_deref()).await.unwrap();
    assert_eq!((yard.served().await, yard.buckets().await.get("a")), (vec!["b".to_owned()], None));
    // One that is empty just goes.
    assert!(yard.apply(json!({ "storage": {} })).await.unwrap().changed);
    assert_eq!(yard.served().await, [""; 0]);
}

#[tokio::test]
async fn rules_of_buckets_are_tested_and_explained_like_those_of_tables() {
    let yard = Yard::new().await;
    let app = |tests: Value| {
        json!({
            "database": { "tables": { "members": { "columns": { "user": "text!" } } } },
            "storage": { "buckets": { "photos": { "access": {
                "list": "row.owner == auth.uid",
                "get": "true",
                "create": "startsWith(new.path, auth.uid) && new.size < 100",
                "update": "exists(members, user == auth.uid)",
                "delete": "row.owner == auth.uid && row.metadata.locked == null",
            } } } },
            "tests": tests,
        })
    };
    let test = |who: &str, what: &str, expect: &str, more: Value| {
        let mut test = json!({ "as": who, "do": what, "on": "files/photos", "expect": expect });
        test.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        test
    };
    let tests = json!([
        test("anonymous", "get", "allow", json!({})),
        test("anonymous", "list", "deny", json!({})),
        test("user", "list", "allow", json!({})),
        test("user", "create", "deny", json!({ "new": { "path": "elsewhere/a.png" } })),
        test("user", "delete", "allow", json!({})),
        test("user", "delete", "deny", json!({ "row": { "metadata": { "locked": true } } })),
        test("other", "delete", "deny", json!({})),
        test("other", "update", "deny", json!({ "new": { "size": 5 } })),
        test(
            "other",
            "update",
            "allow",
            json!({
                "new": { "size": 5 }, "given": [{ "on": "members", "row": { "user": "@other" } }],
            })
        ),
    ]);
    yard.apply(app(tests)).await.unwrap();
    let wrong = yard.apply(app(json!([test("other", "get", "deny", json!({}))]))).await.unwrap_err();
    assert_eq!(
        (wrong.pointer(), wrong.message()),
        (
            Some("/tests/0"),
            "the access test fails that other may not get files/photos: other may, by get: true"
        )
    );
    let missing = json!([{ "as": "user", "do": "get", "on": "files/nowhere", "expect": "deny" }]);
    assert_eq!(yard.apply(app(missing)).await.unwrap_err().pointer(), Some("/tests/0/on"));
    yard.file("photos", "a.png", 5).await;
    yard.file("other", "b.png", 5).await;
    let explain = |operation, id: &str| {
        let question = Question {
            on: "files/photos".to_owned(),
            operation,
            who: Who::Persona(Persona::Other),
            id: Some(id.to_owned()),
            row: serde_json::Map::new(),
            new: serde_json::Map::new(),
        };
        let yard = &yard;
        async move { yard.releases.explain(&yard.env, question, &CancellationToken::new()).await }
    };
    let deleted = explain(Operation::Delete, "a.png").await.unwrap();
    assert_eq!((deleted.allowed, deleted.failing.as_deref()), (false, Some("row.owner == auth.uid")));
    let listed = explain(Operation::List, "a.png").await.unwrap();
    assert_eq!((listed.allowed, listed.visible), (false, Some(0)));
    assert_eq!(explain(Operation::Get, "b.png").await.unwrap_err().pointer(), Some("/id"));
}

#[tokio::test]
async fn a_rollback_keeps_the_files_of_later_buckets() {
    let yard = Yard::new().await;
    yard.apply(json!({ "name": "first" })).await.unwrap();
    yard.apply(json!({ "storage": { "buckets": { "a": { "access": "public_read" } } } })).await.unwrap();
    yard.file("a", "x", 5).await;
    let back = yard.rollback(1).await.unwrap();
    assert!(
        changes(&back.changes)
            .contains(&"keep bucket a: it has 1 files that the release does not know".to_owned())
    );
    assert_eq!(yard.served().await, [""; 0], "nobody reaches them");
    assert_eq!(yard.buckets().await["a"]["unmanaged"], json!(true));
    assert_eq!(
        yard.releases.describe(&yard.env).await.unwrap().advice.last().unwrap(),
        "the files of a are of an earlier release, this brings them back: storage_bucket \
         {\"name\":\"a\",\"access\":\"private\"}"
    );
    yard.rollback(2).await.unwrap();
    assert_eq!(
        yard.buckets().await["a"],
        json!({ "access": "public_read", "files": 1, "bytes": 5, "max_size": 104_857_600 })
    );
    // What no release has any more is removed by its name, after its dry run.
    yard.rollback(1).await.unwrap();
    let removal = |name: &str| crate::releases::Removal::Bucket(name.to_owned());
    let plan = yard.releases.plan_removal(&yard.env, removal("a")).await.unwrap();
    assert_eq!(effects(&plan.effects), ["DataLoss bucket a: 1 files of 5 bytes are deleted with the bucket"]);
    let cancel = CancellationToken::new();
    yard.releases.remove(&yard.env, &removal("a"), "a guess", &cancel).await.unwrap_err();
    yard.releases.remove(&yard.env, &removal("a"), &plan.confirmation(), &cancel).await.unwrap();
    assert_eq!(yard.buckets().await.get("a"), None);
    for gone in ["a", "never"] {
        let refused = yard.releases.plan_removal(&yard.env, removal(gone)).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::NotFound, Some("/name")));
    }
}

#[tokio::test]
async fn one_bucket_is_set_by_itself_and_removed_with_its_dry_run() {
    let yard = Yard::new().await;
    let photos = || BucketChange { name: "photos".to_owned(), ..BucketChange::default() };
    let access = serde_json::from_value(json!("private")).unwrap();
    let made =
        yard.set_bucket(BucketChange { access: Some(access), max_size: Some(9), ..photos() }).await.unwrap();
    assert_eq!((made.release, made.changed), (1, true));
    assert!(!yard.set_bucket(photos()).await.unwrap().changed);
    let typed =
        yard.set_bucket(BucketChange { types: Some(vec!["image/*".to_owned()]), ..photos() }).await.unwrap();
    assert_eq!(
        changes(&typed.changes),
        ["alter bucket photos: access private, files of at most 9 bytes → \
          access private, files of at most 9 bytes, of type image/*"]
    );
    let open = serde_json::from_value(json!({ "list": "true", "get": "true" })).unwrap();
    let opened = yard.set_bucket(BucketChange { access: Some(open), ..photos() }).await.unwrap();
    assert_eq!(effects(&opened.effects), ["Privilege bucket photos: everybody may read it (expressions)"]);
    let wrong =
        yard.set_bucket(BucketChange { types: Some(vec!["x".to_owned()]), ..photos() }).await.unwrap_err();
    assert_eq!(wrong.pointer(), Some("/types/0"));
    let wrong = yard.set_bucket(BucketChange { name: "../x".to_owned(), ..photos() }).await.unwrap_err();
    assert_eq!(wrong.pointer(), Some("/name"));
    yard.file("photos", "a", 5).await;
    let cancel = CancellationToken::new();
    let removal = Removal::Bucket("photos".to_owned());
    let plan = yard.releases.plan_removal(&yard.env, removal.clone()).await.unwrap();
    assert_eq!(
        effects(&plan.effects),
        ["DataLoss bucket photos: 1 files of 5 bytes are deleted with the bucket"]
    );
    let gone = yard.releases.remove(&yard.env, &removal, &plan.confirmation(), &cancel).await.unwrap();
    assert!(gone.changed);
    assert_eq!(yard.buckets().await, json!({}));
    let missing = yard.releases.plan_removal(&yard.env, removal).await.unwrap_err();
    assert_eq!((missing.code(), missing.pointer()), (Code::NotFound, Some("/name")));
}

#[tokio::test]
async fn the_contents_of_a_bucket_go_when_it_has_gone_and_not_before() {
    let yard = Yard::new().await;
    let contents = crate::storage::Contents::local(yard.dir.path()).unwrap();
    let yard = Yard { releases: yard.releases.with_contents(contents), ..yard };
    let buckets = |buckets: Value| json!({ "storage": { "buckets": buckets } });
    yard.apply(buckets(json!({ "docs": {}, "kept": {} }))).await.unwrap();
    let files = yard.dir.path().join(yard.env.id().to_string()).join("files");
    std::fs::create_dir_all(&files).unwrap();
    for (bucket, key) in [("docs", "one"), ("docs", "two"), ("kept", "three")] {
        std::fs::write(files.join(key), key).unwrap();
        yard.file(bucket, key, 5).await;
    }
    let mut db = yard.databases.writer(&yard.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    db.run(Role::Platform, "UPDATE _steading_object SET content = path", &[]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    let there = || {
        let names =
            std::fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<String>>()
    };
    let plan = yard.plan(buckets(json!({ "kept": {} }))).await.unwrap();
    assert_eq!(there().len(), 3, "a plan removes nothing");
    yard.apply_plan(plan.id, plan.confirm.as_deref()).await.unwrap();
    let gone = async {
        while there().len() > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(there().into_iter().collect::<Vec<_>>(), ["three"]);
}
