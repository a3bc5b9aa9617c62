//! What cannot be a function, and what cannot be built.

use super::functions::{files, hello, named, told};
use super::*;
use crate::functions::{Artifact, Builder, FunctionChange, FunctionName, Sources};

#[tokio::test]
async fn what_cannot_be_a_function_is_refused_at_its_place() {
    let yard = Yard::new().await;
    let large = "x".repeat(33 << 10);
    let (third, most) = ("x".repeat(22 << 10), "x".repeat(32 << 10));
    let thirds = json!({ "A": third, "B": third, "C": third });
    for (manifest, expected) in [
        (
            hello(json!({ "memory_mb": 1025 })),
            "InvalidInput /functions/hello/memory_mb: memory_mb is 64 to 1024",
        ),
        (hello(json!({ "timeout_s": 0 })), "InvalidInput /functions/hello/timeout_s: timeout_s is 1 to 900"),
        (
            hello(json!({ "concurrency": 201 })),
            "InvalidInput /functions/hello/concurrency: concurrency is 1 to 200",
        ),
        (
            hello(json!({ "max_instances": 9 })),
            "InvalidInput /functions/hello/max_instances: max_instances is 1 to 8",
        ),
        (
            hello(json!({ "dir": "hello" })),
            "InvalidInput /functions/hello/dir: a directory cannot be read from here",
        ),
        (hello(json!({ "files": {} })), "InvalidInput /functions/hello/files: a function needs its files"),
        (hello(json!({ "entry": "x.ts" })), "InvalidInput /functions/hello/entry: there is no file \"x.ts\""),
        (
            hello(json!({ "files": { "../a": "" } })),
            "InvalidInput /functions/hello/files/..~1a: the path \"../a\" is not allowed: it has a `.` or `..` segment",
        ),
        (
            hello(json!({ "files": { "a.ts": { "base64": "?" } } })),
            "InvalidInput /functions/hello/files/a.ts/base64: \"a.ts\" is not valid base64",
        ),
        (
            hello(json!({ "files": { "index.ts": "!!" } })),
            "InvalidInput /functions/hello/files/index.ts: index.ts:1:1: this is no code",
        ),
        (
            hello(json!({ "secrets": ["key"] })),
            "InvalidInput /functions/hello/secrets/0: this is not the name of a secret",
        ),
        (
            hello(json!({ "secrets": ["NODE_OPTIONS"] })),
            "InvalidInput /functions/hello/secrets/0: NODE_OPTIONS is kept for what runs the function: store it under another name",
        ),
        (
            hello(json!({ "secrets": ["B", "A", "B"] })),
            "InvalidInput /functions/hello/secrets/2: the secret B is named twice",
        ),
        (
            hello(json!({ "secrets": ["B", "A"], "variables": { "A": "" } })),
            "InvalidInput /functions/hello/secrets/1: A is one of its variables too: call one of the two otherwise",
        ),
        (
            hello(json!({ "secrets": ["KEY"] })),
            "InvalidInput /functions/hello/secrets/0: the secret KEY is not set",
        ),
        (
            hello(json!({ "variables": { "a b": "" } })),
            "InvalidInput /functions/hello/variables/a b: \"a b\" cannot be the name of a variable",
        ),
        (
            hello(json!({ "variables": { "LD_PRELOAD": "x" } })),
            "InvalidInput /functions/hello/variables/LD_PRELOAD: LD_PRELOAD is kept for what runs the functions",
        ),
        (
            hello(json!({ "variables": { "A": large } })),
            "TooLarge /functions/hello/variables/A: A has 33792 bytes; the limit is 32768 for each variable",
        ),
        (
            hello(json!({ "variables": thirds })),
            "TooLarge /functions/hello/variables: the variables have 67587 bytes; the limit is 65536 with those of the app",
        ),
        (
            json!({ "variables": { "STEADING_X": "" } }),
            "InvalidInput /variables/STEADING_X: STEADING_X is kept for what runs the functions",
        ),
        (
            json!({
                "variables": { "A": third },
                "functions": { "hello": { "files": { "a.ts": "" }, "variables": { "B": third, "C": third } } },
            }),
            "TooLarge /functions/hello/variables: the variables have 67587 bytes; the limit is 65536 with those of the app",
        ),
    ] {
        assert_eq!(told(&yard.plan(manifest).await.unwrap_err()), expected);
    }
    // What one of its own stands over counts once.
    let over = json!({
        "variables": { "A": most },
        "functions": { "hello": { "files": { "a.ts": "" }, "variables": { "A": most, "B": third } } },
    });
    yard.apply(over).await.unwrap();
    let more = yard.apply(json!({ "variables": { "C": most } })).await.unwrap_err();
    assert_eq!(more.pointer(), Some("/functions/hello/variables"));
    let many: serde_json::Map<String, Value> =
        (0..=100).map(|n| (format!("f{n}"), json!({ "files": { "a": "" } }))).collect();
    let many = yard.plan(json!({ "functions": many })).await.unwrap_err();
    assert_eq!(told(&many), "InvalidInput /functions: an app has at most 100 functions and services");
    let many: serde_json::Map<String, Value> = (0..=2_000).map(|n| (n.to_string(), json!(""))).collect();
    let many = yard.plan(hello(json!({ "files": many }))).await.unwrap_err();
    assert_eq!(
        told(&many),
        "TooLarge /functions/hello/files: the function has 2001 files; the limit is 2000"
    );
    let wide: serde_json::Map<String, Value> = (0..1_700).map(|n| (n.to_string(), json!(""))).collect();
    let wide = json!({ "files": wide });
    let all: serde_json::Map<String, Value> = (0..6).map(|n| (format!("f{n}"), wide.clone())).collect();
    let all = yard.plan(json!({ "functions": all })).await.unwrap_err();
    assert_eq!(
        told(&all),
        "TooLarge /functions: the functions have 10200 files; the limit is 10000 for all together"
    );
    let much = "x".repeat(13 << 20);
    let much = yard.plan(hello(json!({ "files": { "a": much, "b": much } }))).await.unwrap_err();
    assert_eq!(
        told(&much),
        "TooLarge /functions/hello/files: the function has more than 26214400 bytes in all"
    );
    assert_eq!(yard.builder.built(), ["hello", "hello"], "only what could be built was");
    for wrong in [
        json!({ "functions": { "Hello": {} } }),
        json!({ "functions": { "hello": { "memory": 1 } } }),
        json!({ "functions": { "hello": { "memory_mb": -1 } } }),
        json!({ "functions": { "hello": { "runtime": "deno" } } }),
    ] {
        assert!(serde_json::from_value::<Manifest>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn without_what_builds_them_functions_stay_and_none_is_made() {
    let yard = Yard::new().await;
    yard.apply(hello(json!({}))).await.unwrap();
    yard.databases.close().await;
    let blobs = Blobs::new(yard.dir.path()).unwrap();
    let check = Arc::clone(&yard.witness) as Arc<dyn LiveCheck>;
    let releases = Releases::new(Arc::clone(&yard.databases), blobs, Logs::new(yard.dir.path()), check);
    let yard = Yard { releases, ..yard };
    assert!(yard.apply(hello(json!({ "memory_mb": 64 }))).await.unwrap().changed);
    let mut other = hello(json!({}));
    other["functions"]["hello"]["files"]["index.ts"] = json!("1");
    let refused = yard.apply(other).await.unwrap_err();
    assert_eq!(told(&refused), "Unavailable /functions/hello: this machine runs no functions");
}

#[tokio::test]
async fn a_build_ends_with_the_call_that_waits_for_it() {
    struct Never;
    impl Builder for Never {
        fn build<'a>(
            &'a self,
            _: &'a Env,
            _: &'a FunctionName,
            _: &'a Sources,
            note: &'a (dyn Fn(&str) + Send + Sync),
        ) -> BoxFuture<'a, Result<Artifact>> {
            note("building");
            Box::pin(std::future::pending())
        }

        fn start<'a>(
            &'a self,
            _: &'a Env,
            _: &'a FunctionName,
            _: &'a crate::functions::Function,
            _: &'a BTreeMap<String, String>,
        ) -> BoxFuture<'a, Result<crate::functions::Handlers>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn switched(
            &self,
            _: &Env,
            _: &BTreeMap<FunctionName, Arc<crate::functions::Function>>,
            _: &Arc<BTreeMap<String, String>>,
        ) {
        }

        fn builder(&self, _: &Sources) -> String {
            "never".to_owned()
        }
    }
    let yard = Yard::new().await;
    let yard = Yard { releases: yard.releases.with_functions(Arc::new(Never)), ..yard };
    let cancel = CancellationToken::new();
    let change = FunctionChange { files: files(&[("a.ts", "")]), ..FunctionChange::default() };
    let note = |_: &str| cancel.cancel();
    let work = yard.releases.deploy_code(
        &yard.env,
        named("hello"),
        CodeChange::Function(change),
        &[],
        &note,
        &cancel,
    );
    let refused = work.await.unwrap_err();
    assert_eq!(told(&refused), "Timeout : the call was cancelled; nothing has changed");
}
