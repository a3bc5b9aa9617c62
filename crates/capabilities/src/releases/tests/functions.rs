//! Functions of an app: deployed, changed, planned, refused, taken away.

use std::collections::BTreeMap;

use super::*;
use crate::functions::{Access, Function, FunctionChange, FunctionName, Runs, Runtime};
use crate::hosting::FileSpec;

const HELLO: &str = "export default { fetch: () => new Response('hello') }";

pub(super) fn hello(more: Value) -> Value {
    let mut function = json!({ "files": { "index.ts": HELLO } });
    function.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "functions": { "hello": function } })
}

pub(super) fn files(files: &[(&str, &str)]) -> Option<BTreeMap<String, FileSpec>> {
    let file = |(path, text): &(&str, &str)| ((*path).to_owned(), FileSpec::Text((*text).to_owned()));
    Some(files.iter().map(file).collect())
}

pub(super) fn named(name: &str) -> FunctionName {
    name.parse().unwrap()
}

pub(super) fn told(refused: &Error) -> String {
    format!("{:?} {}: {}", refused.code(), refused.pointer().unwrap_or_default(), refused.message())
}

impl Yard {
    pub(super) async fn functions(&self) -> crate::functions::Functions {
        let served = self.releases.live(&self.env).await.unwrap().unwrap();
        served.functions.iter().map(|(name, it)| (name.clone(), (**it).clone())).collect()
    }

    async fn hello(&self) -> Function {
        self.functions().await[&named("hello")].clone()
    }

    async fn deploy(&self, name: &str, change: FunctionChange, secrets: &[&str]) -> Result<Applied> {
        let secrets: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        let cancel = CancellationToken::new();
        let done = self.releases.deploy_code(
            &self.env,
            named(name),
            CodeChange::Function(change),
            &secrets,
            &|_| {},
            &cancel,
        );
        Ok(done.await?.0)
    }

    async fn apply_with(&self, manifest: Value, secrets: &[&str]) -> Result<Applied> {
        let secrets: Vec<String> = secrets.iter().map(ToString::to_string).collect();
        let wanted = Wanted::Manifest(Box::new(parse(manifest)));
        self.releases.apply(&self.env, wanted, &secrets, &CancellationToken::new()).await
    }
}

#[tokio::test]
async fn a_function_is_built_once_and_again_when_its_code_or_its_builder_is_another() {
    let yard = Yard::new().await;
    let first = yard.apply(hello(json!({}))).await.unwrap();
    assert_eq!(changes(&first.changes), ["create function hello: bun, signed_in, 1 files, 53 bytes"]);
    assert_eq!(
        effects(&first.effects),
        ["Privilege function hello: who is signed in may ask it at /_/fn/hello"]
    );
    assert_eq!(yard.builder.built(), ["hello"]);
    let version = yard.hello().await.version();
    assert_eq!(version.len(), 12);

    let again = yard.apply(hello(json!({ "memory_mb": 128, "runtime": "bun" }))).await.unwrap();
    assert_eq!((again.release, again.changed), (1, false));
    // Settings alone make no other version, and build nothing.
    let wide = yard.apply(hello(json!({ "memory_mb": 256, "access": "public" }))).await.unwrap();
    assert_eq!(
        changes(&wide.changes),
        ["alter function hello: access signed_in → public, memory_mb 128 → 256"]
    );
    assert_eq!(
        effects(&wide.effects),
        ["Privilege function hello: who is signed in → everybody may ask it at /_/fn/hello"]
    );
    assert_eq!((yard.builder.built(), yard.hello().await.version()), (Vec::new(), version.clone()));

    let mut other = hello(json!({ "memory_mb": 256, "access": "public", "runtime": "node" }));
    other["functions"]["hello"]["files"] = json!({ "main.ts": "export default 1", "lib/a.ts": "" });
    other["functions"]["hello"]["entry"] = json!("main.ts");
    let other = yard.apply(other).await.unwrap();
    assert_eq!(
        changes(&other.changes),
        [
            "alter function hello: code (added lib/a.ts, main.ts; removed index.ts), entry as usual → main.ts, \
          runtime bun → node, built by bun 1 → node 1"
        ]
    );
    assert_eq!(yard.builder.built(), ["hello"]);
    assert_ne!(yard.hello().await.version(), version);

    // What is left out stays; and a later program builds it again where it is deployed again.
    yard.builder.grow();
    assert_eq!(yard.hello().await.artifact.built_by, "node 1");
    let grown = yard.deploy("hello", FunctionChange::default(), &[]).await.unwrap();
    assert_eq!(changes(&grown.changes), ["alter function hello: built by node 1 → node 2"]);

    let back = yard.rollback(1).await.unwrap();
    assert_eq!(back.release, 1);
    assert_eq!(yard.hello().await.version(), version);
    assert_eq!(yard.builder.built(), ["hello"]);
}

#[tokio::test]
async fn functions_that_a_manifest_does_not_name_go_and_a_section_left_out_stays() {
    let yard = Yard::new().await;
    let mut both = hello(json!({ "variables": { "A": "1", "B": "2" } }));
    both["functions"]["other"] = json!({ "files": { "index.js": "1" }, "access": "service", "timeout_s": 5 });
    both["variables"] = json!({ "REGION": "eu", "MODE": "test" });
    let made = yard.apply(both.clone()).await.unwrap();
    assert_eq!(
        changes(&made.changes),
        [
            "alter variables: added MODE, REGION",
            "create function hello: bun, signed_in, 1 files, 53 bytes, variables (added A, B)",
            "create function other: bun, service, 1 files, 1 bytes, timeout_s 5",
        ]
    );
    yard.apply(json!({ "name": "x" })).await.unwrap();
    assert_eq!(yard.functions().await.len(), 2);
    let served = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(json!(*served.variables), both["variables"]);
    let own = hello(json!({ "variables": { "A": "1", "MODE": "own" } }));
    let plan = yard.plan(own.clone()).await.unwrap();
    assert_eq!(
        changes(&plan.changes),
        ["alter function hello: variables (added MODE; removed B)", "drop function other"]
    );
    assert_eq!(effects(&plan.effects), ["Privilege function other: nothing answers at /_/fn/other any more"]);
    yard.apply_plan(plan.id, None).await.unwrap();
    let served = yard.releases.live(&yard.env).await.unwrap().unwrap();
    assert_eq!(
        json!(served.functions[&named("hello")].settings.variables_over(&served.variables)),
        json!({ "A": "1", "MODE": "own", "REGION": "eu" })
    );
    let changed = yard.apply(json!({ "variables": { "MODE": "live" } })).await.unwrap();
    assert_eq!(changes(&changed.changes), ["alter variables: changed MODE; removed REGION"]);
    let emptied = yard.apply(json!({ "functions": {}, "variables": {} })).await.unwrap();
    assert_eq!(changes(&emptied.changes), ["alter variables: removed MODE", "drop function hello"]);
    assert!(yard.functions().await.is_empty());
    let back = yard.rollback(1).await.unwrap();
    assert_eq!(changes(&back.changes)[0], "alter variables: added MODE, REGION");
    assert_eq!(json!(*yard.releases.live(&yard.env).await.unwrap().unwrap().variables), both["variables"]);
    assert_eq!(yard.functions().await.len(), 2);
}

#[tokio::test]
async fn one_function_is_deployed_beside_the_others_and_keeps_what_is_not_said() {
    let yard = Yard::new().await;
    let change = FunctionChange { files: files(&[("a.ts", "a"), ("index.ts", "i")]), ..Default::default() };
    let secret = |name: &str| Some(vec![name.to_owned()]);
    let first = FunctionChange {
        entry: Some("a.ts".to_owned()),
        runtime: Some(Runtime::Node),
        access: Some(Access::Public),
        variables: BTreeMap::from([("A".to_owned(), Some("1".to_owned())), ("B".to_owned(), None)]),
        secrets: secret("KEY"),
        concurrency: Some(7),
        ..change.clone()
    };
    let made = yard.deploy("hello", first, &["KEY"]).await.unwrap();
    assert_eq!(
        changes(&made.changes),
        [
            "create function hello: node, public, 2 files, 2 bytes, concurrency 7, variables (added A), secrets (KEY)"
        ]
    );
    assert_eq!(
        effects(&made.effects),
        [
            "Privilege function hello: everybody may ask it at /_/fn/hello",
            "Privilege secret KEY: it is given to the function hello",
        ]
    );
    yard.deploy("other", change.clone(), &[]).await.unwrap();
    let before = yard.hello().await;
    assert_eq!(yard.deploy("hello", change, &["KEY"]).await.unwrap().release, 2);
    assert_eq!(yard.hello().await, before);
    let limits = FunctionChange {
        variables: BTreeMap::from([("A".to_owned(), None), ("C".to_owned(), Some("3".to_owned()))]),
        secrets: Some(Vec::new()),
        timeout_s: Some(900),
        ..FunctionChange::default()
    };
    let changed = yard.deploy("hello", limits, &[]).await.unwrap();
    assert_eq!(
        changes(&changed.changes),
        ["alter function hello: timeout_s 30 → 900, variables (added C; removed A), secrets (removed KEY)"]
    );
    // The entry goes with its file.
    let files = files(&[("index.ts", "i")]);
    yard.deploy("hello", FunctionChange { files, ..Default::default() }, &[]).await.unwrap();
    let hello = yard.hello().await;
    assert_eq!(hello.limits().concurrency, 7);
    assert_eq!(hello.sources.runs, Runs::Function { runtime: Runtime::Node, entry: None });
    assert_eq!(yard.functions().await.len(), 2);

    for (change, expected) in [
        (
            FunctionChange { memory_mb: Some(63), ..Default::default() },
            "InvalidInput /memory_mb: memory_mb is 64 to 1024",
        ),
        (
            FunctionChange { secrets: secret("NONE"), ..Default::default() },
            "InvalidInput /secrets/0: the secret NONE is not set",
        ),
        (
            FunctionChange { files: super::functions::files(&[("a.ts", "!!")]), ..Default::default() },
            "InvalidInput /files/a.ts: a.ts:1:1: this is no code",
        ),
        (
            FunctionChange { entry: Some("b.ts".to_owned()), ..Default::default() },
            "InvalidInput /entry: there is no file \"b.ts\"",
        ),
    ] {
        assert_eq!(told(&yard.deploy("hello", change, &[]).await.unwrap_err()), expected);
    }
    let new = yard.deploy("new", FunctionChange::default(), &[]).await.unwrap_err();
    assert_eq!(told(&new), "InvalidInput /files: there is no such function yet: give it its files");
}

#[tokio::test]
async fn a_function_is_removed_after_its_dry_run_and_not_while_a_route_leads_to_it() {
    let yard = Yard::new().await;
    let mut routed = hello(json!({}));
    routed["routes"] = json!({ "/api/*": { "to": { "function": "hello" } } });
    let made = yard.apply(routed).await.unwrap();
    assert!(
        effects(&made.effects)
            .contains(&"Privilege route /api/*: everybody asks the function hello there".to_owned())
    );
    let missing = yard.apply(json!({ "functions": {} })).await.unwrap_err();
    assert_eq!(told(&missing), "InvalidInput /routes/~1api~1*/to: there is no function hello to lead to");
    let removal = |name: &str| Removal::Function(name.to_owned());
    let refused = yard.releases.plan_removal(&yard.env, removal("hello")).await.unwrap_err();
    assert_eq!(told(&refused), "Conflict /name: the route /api/* leads to the function hello");
    for gone in ["none", "No Name"] {
        let refused = yard.releases.plan_removal(&yard.env, removal(gone)).await.unwrap_err();
        assert_eq!(told(&refused), format!("NotFound /name: there is no function {gone}"));
    }
    yard.apply(json!({ "routes": {} })).await.unwrap();
    let plan = yard.releases.plan_removal(&yard.env, removal("hello")).await.unwrap();
    let cancel = CancellationToken::new();
    yard.releases.remove(&yard.env, &removal("hello"), "a guess", &cancel).await.unwrap_err();
    let gone =
        yard.releases.remove(&yard.env, &removal("hello"), &plan.confirmation(), &cancel).await.unwrap();
    assert_eq!(changes(&gone.changes), ["drop function hello"]);
    assert!(yard.functions().await.is_empty());
}

#[tokio::test]
async fn secrets_of_functions_are_told_of_and_given_only_by_who_may() {
    let yard = Yard::new().await;
    yard.apply_with(hello(json!({})), &[]).await.unwrap();
    let given = yard.apply_with(hello(json!({ "secrets": ["B", "A"] })), &["A", "B"]).await.unwrap();
    assert_eq!(changes(&given.changes), ["alter function hello: secrets (added A, B)"]);
    assert_eq!(
        effects(&given.effects),
        [
            "Privilege secret A: it is given to the function hello",
            "Privilege secret B: it is given to the function hello",
        ]
    );
    let named = yard.releases.use_of_secret(&yard.env, "B").await.unwrap();
    assert_eq!(named.as_deref(), Some("/functions/hello/secrets"));
    yard.rollback(1).await.unwrap();
    assert_eq!(yard.releases.use_of_secret(&yard.env, "B").await.unwrap(), None);
    let cancel = CancellationToken::new();
    let back = yard.releases.plan_rollback(&yard.env, 2, &["A".to_owned()], &cancel).await.unwrap();
    assert_eq!(
        effects(&back.effects)[2],
        "Privilege secret B: /functions/hello/secrets of the manifest names it, and the app has none: set it \
         with secret_set first, without hosts"
    );
}

#[tokio::test]
async fn functions_are_described_without_what_is_usual_and_without_values() {
    let yard = Yard::new().await;
    let mut both = hello(json!({}));
    both["functions"]["rich"] = json!({
        "files": { "a.ts": "", "lib/b.ts": "" },
        "entry": "a.ts",
        "runtime": "node",
        "access": "public",
        "variables": { "A": "hidden" },
        "secrets": ["KEY"],
        "memory_mb": 64,
        "concurrency": 50,
    });
    both["variables"] = json!({ "REGION": "hidden" });
    yard.apply_with(both, &["KEY"]).await.unwrap();
    let described = yard.releases.describe(&yard.env).await.unwrap();
    let functions = yard.functions().await;
    assert_eq!(
        json!(described.functions),
        json!({
            "hello": {
                "version": functions[&named("hello")].version(),
                "runtime": "bun",
                "access": "signed_in",
                "path": "/_/fn/hello",
                "files": ["index.ts"],
            },
            "rich": {
                "version": functions[&named("rich")].version(),
                "runtime": "node",
                "access": "public",
                "path": "/_/fn/rich",
                "entry": "a.ts",
                "files": ["a.ts", "lib/b.ts"],
                "variables": ["A"],
                "secrets": ["KEY"],
                "memory_mb": 64,
            },
        })
    );
    assert_eq!(described.variables, ["REGION"]);
    assert!(!json!(described).to_string().contains("hidden"));
    let lonely = "the function hello is for who is signed in, and nobody can sign in: auth_configure ";
    let advised = |advice: &[String]| advice.iter().any(|it| it.starts_with(lonely));
    assert!(advised(&described.advice));
    yard.apply(json!({ "routes": { "/api": { "to": { "function": "hello" } } } })).await.unwrap();
    assert!(!advised(&yard.releases.describe(&yard.env).await.unwrap().advice));
}

#[tokio::test]
async fn what_functions_need_is_not_collected() {
    let yard = Yard::new().await;
    yard.apply(hello(json!({}))).await.unwrap();
    let mut planned = hello(json!({}));
    planned["functions"]["hello"]["files"]["index.ts"] = json!("planned");
    yard.plan(planned).await.unwrap();
    let mut gone = hello(json!({}));
    gone["functions"]["hello"]["files"] = json!({ "index.ts": "gone", "a.ts": "!!" });
    yard.plan(gone).await.unwrap_err();
    yard.releases.collect_older(&yard.env, std::time::Duration::ZERO).await.unwrap();
    let blobs = std::fs::read_dir(yard.dir.path().join(yard.env.id().to_string()).join("blobs")).unwrap();
    // Sources and what was built, of the live one and of the plan's.
    assert_eq!(blobs.count(), 4);
    let hello = yard.hello().await;
    for (hash, _) in hello.sizes() {
        yard.releases.blobs.read(&yard.env, hash).await.unwrap();
    }
    // Where what was built is lost, it is built again.
    let bundle = hello.artifact.files.values().next().unwrap().sha256;
    let blobs = yard.dir.path().join(yard.env.id().to_string()).join("blobs");
    std::fs::remove_file(blobs.join(bundle.to_string())).unwrap();
    yard.builder.built();
    assert!(!yard.apply(self::hello(json!({}))).await.unwrap().changed);
    assert_eq!(yard.builder.built(), ["hello"]);
    yard.releases.blobs.read(&yard.env, bundle).await.unwrap();
}

#[tokio::test]
async fn who_runs_functions_is_told_which_are_live() {
    let yard = Yard::new().await;
    let live = || yard.builder.live.lock().unwrap().clone();
    let first = yard.apply(hello(json!({}))).await.unwrap();
    assert_eq!(live(), ["hello"]);
    yard.apply(json!({ "functions": {} })).await.unwrap();
    assert_eq!(live(), Vec::<String>::new());
    let cancel = CancellationToken::new();
    yard.releases.rollback(&yard.env, first.release, &[], &cancel).await.unwrap();
    assert_eq!(live(), ["hello"]);
}
