//! What is old goes, what is live stays, and the disk stays as full as it is.

use std::time::Duration;

use super::*;

fn site(n: u64, lifecycle: Value) -> Value {
    json!({
        "database": { "tables": { "todos": { "columns": { "title": "text", format!("c{}", n % 2): "int" } } } },
        "site": { "files": { "index.html": format!("<p>{n}"), "app.js": "x".repeat(5_000) + &n.to_string() } },
        "lifecycle": lifecycle,
    })
}

impl Yard {
    fn blobs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join(self.env.id().to_string()).join("blobs")).unwrap().count()
    }

    fn database(&self) -> u64 {
        let path = self.dir.path().join(self.env.id().to_string()).join("main.db");
        std::fs::metadata(path).unwrap().len()
    }

    async fn releases(&self) -> Vec<u64> {
        let sql = "SELECT number FROM _steading_release ORDER BY number";
        let rows = self.databases.platform_query(&self.env, sql, &[]).await.unwrap();
        rows.iter().map(|row| row[0].as_u64().unwrap()).collect()
    }
}

#[tokio::test]
async fn a_hundred_deploys_leave_no_more_than_the_lifecycle_keeps() {
    let yard = Yard::new().await;
    let keep = json!({ "releases": { "keep": 5 } });
    let mut sizes = Vec::new();
    for n in 1..=100 {
        yard.apply(site(n, keep.clone())).await.unwrap();
        if n % 10 == 0 {
            yard.releases.collect_older(&yard.env, Duration::ZERO).await.unwrap();
            sizes.push((yard.blobs(), yard.database()));
        }
    }
    assert_eq!(yard.releases().await, [96, 97, 98, 99, 100]);
    assert_eq!(yard.blobs(), 10);
    let (first, last) = (sizes[1].1, sizes[9].1);
    assert!(last <= first + 64 * 1_024, "the database grows: {sizes:?}");

    // What is gone is said to be gone; what never was is not.
    let gone = yard.rollback(50).await.unwrap_err();
    assert_eq!(gone.message(), "release 50 is not kept any more; the oldest that is left is 96");
    let never = yard.rollback(500).await.unwrap_err();
    assert_eq!((never.code(), never.message()), (Code::NotFound, "there is no release 500"));
    // Gone back to the oldest that is left, the next one still leaves the live one.
    yard.rollback(96).await.unwrap();
    yard.apply(site(1_000, keep)).await.unwrap();
    yard.releases.collect_older(&yard.env, Duration::ZERO).await.unwrap();
    assert_eq!(yard.releases().await, [97, 98, 99, 100, 101]);
    assert!(yard.releases.live(&yard.env).await.unwrap().is_some_and(|live| live.release == 101));
}

#[tokio::test]
async fn old_releases_go_and_the_live_one_stays_however_old() {
    let yard = Yard::new().await;
    let lifecycle = json!({ "releases": { "age": "30d" } });
    for n in 1..=4 {
        yard.apply(site(n, lifecycle.clone())).await.unwrap();
    }
    yard.rollback(2).await.unwrap();
    let mut db = yard.databases.writer(&yard.env).await.unwrap();
    db.begin(Durability::Normal).await.unwrap();
    let old = Timestamp::now().minus(Duration::from_secs(31 * 86_400)).as_micros();
    let sql = "UPDATE _steading_release SET created_at = ?1 WHERE number < 4";
    db.run(crate::database::Role::Platform, sql, &[old.into()]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    let (_, lifecycle) = yard.releases.keeping(&yard.env).await.unwrap();
    assert_eq!(yard.releases.expire(&yard.env, &lifecycle).await.unwrap(), 2);
    assert_eq!(yard.releases().await, [2, 4]);
    assert_eq!(yard.releases.expire(&yard.env, &lifecycle).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_kept_is_planned_and_what_cannot_be_is_refused() {
    let yard = Yard::new().await;
    let manifest = json!({
        "backups": { "every": "6h", "keep": 3, "age": "60d" },
        "lifecycle": {
            "releases": { "keep": 10, "age": "90d" },
            "blobs": { "age": "6h" },
            "snapshots": { "keep": 5, "archive": "7d" },
            "logs": { "age": "2d" },
        },
    });
    let plan = yard.plan(manifest.clone()).await.unwrap();
    assert_eq!(
        changes(&plan.changes),
        [
            "alter backups: none → every 6h, 3 kept, none older than 60d",
            "alter lifecycle: as usual → releases: at most 10, none older than 90d; blobs: none older than 6h; \
             snapshots: at most 5, packed away after 7d; logs: none older than 2d",
        ]
    );
    assert_eq!(effects(&plan.effects)[0], "Cost backups: backups take space where they are kept");
    yard.apply(manifest).await.unwrap();
    // A section that is left out stays; an empty one is emptied; the way back brings it back.
    yard.apply(json!({ "name": "x" })).await.unwrap();
    assert!(yard.releases.keeping(&yard.env).await.unwrap().0.every.is_some());
    let off = yard.apply(json!({ "backups": {} })).await.unwrap();
    assert_eq!(changes(&off.changes), ["alter backups: every 6h, 3 kept, none older than 60d → none"]);
    yard.rollback(1).await.unwrap();
    assert_eq!(yard.releases.keeping(&yard.env).await.unwrap().0.kept(), 3);

    for (manifest, at) in [
        (json!({ "backups": { "every": "6h", "keep": 0 } }), "/backups/keep"),
        (json!({ "backups": { "every": "6h", "keep": 101 } }), "/backups/keep"),
        (json!({ "backups": { "keep": 5 } }), "/backups/every"),
        (json!({ "lifecycle": { "releases": { "keep": 0 } } }), "/lifecycle/releases/keep"),
        (json!({ "lifecycle": { "snapshots": { "keep": 1_001 } } }), "/lifecycle/snapshots/keep"),
        (json!({ "lifecycle": { "logs": { "keep": 5 } } }), "/lifecycle/logs/keep"),
        (json!({ "lifecycle": { "blobs": { "keep": 5 } } }), "/lifecycle/blobs/keep"),
        (json!({ "lifecycle": { "releases": { "archive": "5d" } } }), "/lifecycle/releases/archive"),
        (json!({ "backups": { "age": "5d" } }), "/backups/every"),
    ] {
        let refused = yard.plan(manifest.clone()).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (Code::InvalidInput, Some(at)), "{manifest}");
    }
    for wrong in [
        json!({ "backups": { "every": "6 hours" } }),
        json!({ "backups": { "each": "6h" } }),
        json!({ "lifecycle": { "files": {} } }),
        json!({ "lifecycle": { "releases": { "days": 3 } } }),
    ] {
        assert!(serde_json::from_value::<Manifest>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deploy_that_races_the_collection_has_all_of_its_files() {
    let yard = Yard::new().await;
    let keep = json!({ "releases": { "keep": 1 } });
    for round in 0..40 {
        // What the deploy names lies there already, needed by nothing and old enough to go.
        let old = std::time::SystemTime::now() - 2 * crate::hosting::DEFAULT_GRACE;
        let blobs = yard.dir.path().join(yard.env.id().to_string()).join("blobs");
        for blob in std::fs::read_dir(&blobs).into_iter().flatten() {
            std::fs::File::open(blob.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
        let collect = async {
            for _ in 0..4 {
                yard.releases.collect(&yard.env).await.unwrap();
            }
        };
        let (applied, planned, ()) = tokio::join!(
            yard.apply(site(round % 2, keep.clone())),
            yard.plan(site(5, keep.clone())),
            collect
        );
        applied.unwrap();
        // A plan may have been overtaken by the deploy; what it keeps it keeps whole.
        let kept = planned.is_ok();
        yard.releases.collect(&yard.env).await.unwrap();
        for row in
            yard.databases.platform_query(&yard.env, crate::releases::past::RELEASES, &[]).await.unwrap()
        {
            for (hash, _) in crate::releases::past::checked(&row).unwrap() {
                yard.releases
                    .blobs
                    .read(&yard.env, hash)
                    .await
                    .unwrap_or_else(|e| panic!("round {round}: {e}"));
            }
        }
        if kept {
            let planned = kernel::BlobHash::of(b"<p>5");
            yard.releases.blobs.read(&yard.env, planned).await.unwrap();
        }
    }
}

#[tokio::test]
async fn backups_are_asked_for_since_the_live_release_does_also_after_a_way_back() {
    let yard = Yard::new().await;
    let since = async || yard.releases.backed_up_since(&yard.env).await.unwrap();
    assert_eq!(since().await, None);
    yard.apply(json!({ "backups": { "every": "1d" } })).await.unwrap();
    let first = since().await.unwrap();
    yard.apply(json!({ "name": "Later" })).await.unwrap();
    assert_eq!(since().await, Some(first));
    yard.apply(json!({ "backups": {} })).await.unwrap();
    assert_eq!(since().await, None);
    yard.rollback(2).await.unwrap();
    assert_eq!(since().await, Some(first));
}
