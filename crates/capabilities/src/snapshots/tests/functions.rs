//! Functions in snapshots, branches, merges and archives, and what comes from before there were any.

use super::*;
use crate::functions::Functions;
use crate::snapshots::With;

const OLD: [&str; 2] = ["ALTER TABLE _steading_release DROP COLUMN functions", "PRAGMA user_version = 4"];

impl Ground {
    async fn apply(&self, env: &Env, manifest: Value) {
        let wanted = Wanted::Manifest(Box::new(serde_json::from_value(manifest).unwrap()));
        self.snapshots.0.releases.apply(env, wanted, &[], &CancellationToken::new()).await.unwrap();
    }

    async fn deploy(&self, env: &Env, code: &str) {
        self.apply(env, json!({ "functions": { "hello": { "files": { "index.ts": code } } } })).await;
    }

    /// The functions that are live, whose blobs are all there.
    async fn functions(&self, env: &Env) -> Functions {
        let served = self.snapshots.0.releases.live(env).await.unwrap().unwrap();
        let functions: Functions =
            served.functions.iter().map(|(name, it)| (name.clone(), (**it).clone())).collect();
        let blobs = Blobs::new(self.directory.path()).unwrap();
        for (hash, size) in functions.values().flat_map(|function| function.sizes()) {
            assert_eq!(blobs.read(env, hash).await.unwrap().len() as u64, size);
        }
        functions
    }

    /// Removes every blob that nothing needs.
    async fn collect(&self, env: &Env) {
        let home = self.directory.path().join(env.id().to_string()).join("blobs");
        let old = std::time::SystemTime::now() - 2 * crate::hosting::DEFAULT_GRACE;
        for blob in std::fs::read_dir(home).unwrap() {
            std::fs::File::open(blob.unwrap().path()).unwrap().set_modified(old).unwrap();
        }
        self.snapshots.0.releases.collect(env).await.unwrap();
    }
}

fn another() -> Env {
    Env::for_upkeep(TenantId::new(), EnvId::new())
}

#[tokio::test]
async fn functions_go_along_with_what_they_are_built_of() {
    let ground = Ground::new().await;
    let env = ground.env.clone();
    ground.deploy(&env, "one").await;
    let first = ground.functions(&env).await;
    let taken = ground.snapshots.take(&env, NewSnapshot::default()).await.unwrap().snapshot.to_string();
    // Of the release with the first nothing but the snapshot is left.
    ground.apply(&env, json!({ "functions": {}, "lifecycle": { "releases": { "keep": 1 } } })).await;
    ground.collect(&env).await;
    let (data, shape) = (another(), another());
    ground.snapshots.branch(&env, data.id(), Some(&taken), With::Data).await.unwrap();
    ground.snapshots.branch(&env, shape.id(), Some(&taken), With::Shape).await.unwrap();
    ground.snapshots.restore(&env, &taken).await.unwrap();
    let (imported, done) = ground.import(ground.archive(&[]).await).await;
    done.unwrap();
    for env in [&env, &data, &shape, &imported] {
        ground.collect(env).await;
        assert_eq!(ground.functions(env).await, first);
    }
}

#[tokio::test]
async fn a_merge_takes_functions_and_their_blobs_from_the_side_that_has_changed_them() {
    let ground = Ground::new().await;
    let env = ground.env.clone();
    ground.deploy(&env, "one").await;
    let branch = another();
    ground.snapshots.branch(&env, branch.id(), None, With::Data).await.unwrap();
    ground.deploy(&branch, "two").await;
    ground.apply(&branch, json!({ "variables": { "A": "branch", "B": "" } })).await;
    ground.apply(&env, json!({ "variables": { "C": "here" } })).await;
    let merging = ground.snapshots.plan_merge(&env, &branch, &[]).await.unwrap();
    assert_eq!(merging.conflicts, [""; 0]);
    let plan = merging.plan.unwrap();
    let cancel = CancellationToken::new();
    ground.snapshots.merge(&env, &branch, &[], &plan.confirmation(), &cancel).await.unwrap();
    ground.collect(&env).await;
    assert_eq!(ground.functions(&env).await, ground.functions(&branch).await);
    let served = ground.snapshots.0.releases.live(&env).await.unwrap().unwrap();
    assert_eq!(json!(*served.variables), json!({ "A": "branch", "B": "", "C": "here" }));

    ground.deploy(&env, "three").await;
    ground.deploy(&branch, "four").await;
    let merging = ground.snapshots.plan_merge(&env, &branch, &[]).await.unwrap();
    assert_eq!(merging.conflicts, ["/functions/hello: changed here, changed in the branch"]);
    // What is gone there goes here, and a secret that is not set here is said.
    ground.deploy(&env, "two").await;
    let given = json!({ "functions": { "other": { "files": { "a.js": "" }, "secrets": ["KEY"] } } });
    let wanted = Wanted::Manifest(Box::new(serde_json::from_value(given).unwrap()));
    let set = ["KEY".to_owned()];
    ground.snapshots.0.releases.apply(&branch, wanted, &set, &cancel).await.unwrap();
    let merging = ground.snapshots.plan_merge(&env, &branch, &[]).await.unwrap();
    assert_eq!(
        merging.conflicts,
        [
            "/functions/other/secrets/0: the secret KEY is not set: set it with secret_set first, without hosts"
        ]
    );
    let plan = ground.snapshots.plan_merge(&env, &branch, &set).await.unwrap().plan.unwrap();
    let targets: Vec<&str> = plan.changes.iter().map(|change| change.target.as_str()).collect();
    assert_eq!(targets, ["function other", "function hello"]);
}

#[tokio::test]
async fn what_is_from_before_there_were_functions_is_taken_as_it_is() {
    let ground = Ground::new().await;
    let env = ground.env.clone();
    let (imported, done) = ground.import(ground.archive(&OLD).await).await;
    done.unwrap();
    assert_eq!(ground.functions(&imported).await, Functions::new());
    let taken = ground.snapshots.take(&env, NewSnapshot::default()).await.unwrap();
    let home = ground.directory.path().join(env.id().to_string()).join("snapshots");
    alter(&home.join(taken.snapshot.to_string()).join("main.db"), &OLD).await;
    ground.deploy(&env, "one").await;
    let losses = ground.snapshots.losses(&env, &taken, &[]).await.unwrap();
    assert_eq!(losses[0], "release 1 is live again in place of 2");
    let id = taken.snapshot.to_string();
    for with in [With::Shape, With::Data] {
        let branch = another();
        ground.snapshots.branch(&env, branch.id(), Some(&id), with).await.unwrap();
        assert_eq!(ground.functions(&branch).await, Functions::new());
    }
    let undo = ground.snapshots.restore(&env, &id).await.unwrap().undo;
    assert_eq!(ground.functions(&env).await, Functions::new());
    ground.snapshots.restore(&env, &undo.to_string()).await.unwrap();
    assert_eq!(ground.functions(&env).await.len(), 1);
}

#[tokio::test]
async fn a_release_of_an_archive_has_no_functions_that_no_manifest_could_bring() {
    let ground = Ground::new().await;
    ground.deploy(&ground.env, "one").await;
    for (path, value, told) in [
        ("hello.settings.memory_mb", json!(4_096), "/functions/hello/memory_mb: memory_mb is 64 to 1024"),
        ("hello.settings.variables", json!({ "LD_PRELOAD": "x" }), "/functions/hello/variables/LD_PRELOAD: "),
        (
            "hello.settings.secrets",
            json!(["../x"]),
            "/functions/hello/secrets/0: this is not the name of a secret",
        ),
        ("hello.settings.access", json!("root"), "/functions/hello/settings/access: unknown variant `root`"),
        ("hello.sources.entry", json!("other.ts"), "/functions/hello/sources/entry: it is none of the files"),
        ("hello.sources.files", json!({}), "/functions/hello/sources/files: a function has some files"),
        (
            "hello.artifact.entry",
            json!("other.js"),
            "/functions/hello/artifact/entry: it is none of the files",
        ),
        ("hello.artifact.built_by", json!(""), "/functions/hello/artifact/built_by: this names no runtime"),
        ("hello.sources.files", json!({ "../a": {} }), "/functions/hello/sources/files"),
        ("Hello", json!({}), "/functions/Hello: \"Hello\" cannot be the name of a function"),
    ] {
        let tamper = format!(
            "UPDATE _steading_release SET functions = json_set(functions, '$.{path}', json('{value}')) WHERE number = 2"
        );
        let (_, imported) = ground.import(ground.archive(&[&tamper]).await).await;
        let refused = imported.expect_err(path);
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{path}: {refused}");
        let start = "the archive cannot be taken: release 2: ";
        let said = refused.message().strip_prefix(start).unwrap_or_else(|| panic!("{path}: {refused}"));
        assert!(said.starts_with(told), "{path}: {said}");
    }
    let size = "UPDATE _steading_release SET functions = replace(functions, '\"size\":3', '\"size\":4')";
    let (_, imported) = ground.import(ground.archive(&[size]).await).await;
    assert!(imported.unwrap_err().message().contains("of a release is missing, or has another size"));
}
