//! Processes come and go as they are asked for, and what one does is nobody else's trouble.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use capabilities::functions::{Runtime, Settings};
use functions::{Error, FunctionsLimits, Outcome};
use http_body_util::BodyExt as _;

use super::world::World;

const RUNTIMES: [Runtime; 2] = [Runtime::Bun, Runtime::Node];

#[tokio::test(flavor = "multi_thread")]
async fn it_is_built_started_by_who_asks_first_and_gone_when_nobody_does() {
    let limits = FunctionsLimits { idle: Duration::from_secs(1), ..FunctionsLimits::default() };
    let world = World::with(limits).await;
    for runtime in RUNTIMES {
        let text = "interface Env { GREETING: string; PASSWORD: string }\n\
            export default { async fetch(request: Request, env: Env): Promise<Response> {\n\
              console.log('asked');\n\
              return new Response(`${env.GREETING} ${env.PASSWORD} ${process.pid > 0}`);\n\
            } };\n";
        let settings = Settings { secrets: vec!["PASSWORD".to_owned()], ..Settings::default() };
        let called = world.function(runtime, text, settings).await;
        world.has(0).await;
        let all = (0..20).map(|_| world.asked(&called, "/"));
        for answer in futures::future::join_all(all).await {
            assert_eq!(answer, (200, "hello hidden true".to_owned()));
        }
        assert_eq!(world.functions.processes(), 1, "one start serves all who wait for it");
        world.has(0).await;
        assert_eq!(world.asked(&called, "/").await.0, 200);
        let log = std::mem::take(&mut *world.platform.log.lock().unwrap());
        assert!(log.contains(&("hello".to_owned(), Some("req_1".to_owned()), "asked".to_owned())), "{log:?}");
        world.has(0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_platforms_own_comes_from_nobody_else() {
    let world = World::new().await;
    let text = "export default { async fetch(request, env, ctx) {\n\
          const own = await env.db('todos').list().catch((error) => String(error));\n\
          return Response.json({ url: request.url, caller: ctx.caller, own,\n\
            headers: [...request.headers.keys()].filter((name) => name.startsWith('steading')) },\n\
            { headers: { 'steading-fn-own': 'x', 'x-own': '1' } });\n\
        } };\n";
    let called = world.function(Runtime::Bun, text, Settings::default()).await;
    let mut request = super::rig::request("GET", "/a?b=c", "");
    for (name, value) in [("steading-fn-caller", "{\"kind\":\"service\"}"), ("steading-fn-kind", "boot")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut asking = functions::Asking::new(request, "req_7", functions::Kind::Http);
    asking.url = Some("https://app.example/_/fn/hello/a?b=c".to_owned());
    let reply = world.functions.ask(&called, asking).await.unwrap();
    assert_eq!(reply.outcome, None);
    assert!(reply.response.headers().keys().all(|name| !name.as_str().starts_with("steading")));
    assert_eq!(reply.response.headers()["x-own"], "1");
    let bytes = reply.response.into_body().collect().await.unwrap().to_bytes();
    let told: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(told["caller"], serde_json::json!({ "kind": "anonymous" }), "{told}");
    assert_eq!(told["headers"], serde_json::json!([]), "{told}");
    assert_eq!(told["url"], "https://app.example/_/fn/hello/a?b=c");
    let asked = std::mem::take(&mut *world.platform.asked.lock().unwrap());
    assert!(asked[0].starts_with("POST /_/db/todos") && asked[0].ends_with("for its own"), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_come_round_is_ended_and_the_next_is_answered() {
    let world = World::new().await;
    for runtime in RUNTIMES {
        let text = "export default { async fetch(request) {\n\
              const path = new URL(request.url).pathname;\n\
              if (path === '/loop') for (;;) {}\n\
              if (path === '/slow') await new Promise((done) => setTimeout(done, 60_000));\n\
              if (path === '/memory') { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }\n\
              if (path === '/exit') process.exit(3);\n\
              return new Response('fine');\n\
            } };\n";
        let settings = Settings { timeout_s: Some(2), ..Settings::default() };
        let called = world.function(runtime, text, settings).await;
        assert_eq!(world.asked(&called, "/").await.1, "fine");
        let begun = Instant::now();
        let ended = world.ask(&called, "/loop").await.err().unwrap();
        assert!(matches!(ended, Error::Blocked(_)), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert_eq!(world.asked(&called, "/").await.1, "fine");
        // One that only waits is not ended.
        assert!(matches!(world.ask(&called, "/slow").await.err().unwrap(), Error::Late(_)));
        assert_eq!(world.asked(&called, "/").await.1, "fine");
        for path in ["/memory", "/exit"] {
            assert!(world.ask(&called, path).await.is_err());
            assert_eq!(world.asked(&called, "/").await.1, "fine", "after {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ends_again_and_again_is_left_alone_for_a_while() {
    let world = World::new().await;
    let text = "setTimeout(() => { throw new Error('no such thing: fnord'); }, 100);\n\
                export default () => new Promise(() => {});\n";
    let called = world.function(Runtime::Bun, text, Settings::default()).await;
    let mut refused = None;
    for _ in 0..20 {
        match world.ask(&called, "/").await.err().unwrap() {
            error @ Error::Crashes { .. } => {
                refused = Some(error);
                break;
            }
            Error::Gone | Error::Broken(_) | Error::Ended(_) => {}
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = kernel::Error::from(refused.expect("it is started for ever"));
    assert_eq!(refused.code(), kernel::Code::Unavailable);
    let log = world.platform.log.lock().unwrap();
    assert!(log.iter().any(|(_, _, text)| text.contains("fnord")), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_processes_as_may_work_and_the_others_wait() {
    let world = World::new().await;
    let text = "export default { async fetch() {\n\
        await new Promise((done) => setTimeout(done, 400)); return new Response(String(process.pid)); } };\n";
    let settings = Settings { concurrency: Some(1), max_instances: Some(2), ..Settings::default() };
    let called = world.function(Runtime::Bun, text, settings).await;
    let all = futures::future::join_all((0..6).map(|_| world.asked(&called, "/"))).await;
    assert!(all.iter().all(|(status, _)| *status == 200), "{all:?}");
    assert_eq!(world.functions.processes(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_versions_take_turns_and_no_request_fails() {
    let world = World::new().await;
    let mut versions = Vec::new();
    for version in 0..10 {
        let text = format!("export default () => new Response('v{version}');");
        versions.push(world.function(Runtime::Bun, &text, Settings::default()).await);
    }
    for turn in 0..100 {
        let called = &versions[turn % versions.len()];
        let all = futures::future::join_all((0..4).map(|_| world.asked(called, "/"))).await;
        let expected = (200, format!("v{}", turn % versions.len()));
        assert!(all.iter().all(|answer| *answer == expected), "{all:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_thrown_is_told_apart_from_what_is_answered() {
    let world = World::new().await;
    for runtime in RUNTIMES {
        let text = "export default { async fetch() { throw new TypeError('fnord'); } };\n";
        let called = world.function(runtime, text, Settings::default()).await;
        let reply = world.ask(&called, "/").await.unwrap();
        assert_eq!((reply.response.status().as_u16(), reply.outcome), (500, Some(Outcome::Threw)));
        let bytes = reply.response.into_body().collect().await.unwrap().to_bytes();
        let thrown: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((&thrown["name"], &thrown["message"]), (&"TypeError".into(), &"fnord".into()));
        assert!(thrown["stack"].as_str().unwrap().contains("index.ts"), "{thrown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_more_is_demanded_than_is_here_nothing_is_built_or_run() {
    let world = World::new().await;
    let called =
        world.function(Runtime::Bun, "export default () => new Response('x');", Settings::default()).await;
    assert_eq!(world.asked(&called, "/").await.0, 200);
    world.platform.is_strict.store(true, Ordering::SeqCst);
    world.functions.end(world.env.id()).await.unwrap();
    let refused = kernel::Error::from(world.ask(&called, "/").await.err().unwrap());
    assert_eq!((refused.code(), refused.message()), (kernel::Code::Unavailable, "more is demanded"));
    let sources = world.sources(Runtime::Bun, &[("index.ts", "export default () => 2;")]).await;
    let refused = world.built("other", sources, Settings::default()).await.unwrap_err();
    assert_eq!(refused.message(), "more is demanded");
    world.has(0).await;
}
