//! What one environment takes has an end, and what must not go on does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use capabilities::functions::{Runtime, Settings};
use functions::{Error, FunctionsLimits};

use super::world::World;

/// Says who it is; at `/hold` after a while.
const SAYS: &str = "export default { async fetch(request) {\n\
      if (new URL(request.url).pathname === '/hold') await new Promise((done) => setTimeout(done, 3_000));\n\
      return new Response(String(process.pid) + process.hrtime.bigint());\n\
    } };\nconst began = Date.now();\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_has_so_many_processes_and_those_that_wait_make_way() {
    let limits = FunctionsLimits { processes_of_env: 2, ..FunctionsLimits::default() };
    let world = World::with(limits).await;
    let mut all = Vec::new();
    for text in ["one", "two", "three"] {
        all.push(world.function(Runtime::Bun, &format!("{SAYS}// {text}"), Settings::default()).await);
    }
    for called in &all {
        assert_eq!(world.asked(called, "/").await.0, 200, "one that waits has made way");
        assert!(world.functions.processes() <= 2);
    }
    // Where none waits, the next has to.
    let held = |at: usize| world.asked(&all[at], "/hold");
    let (first, second, third) = tokio::join!(held(1), held(2), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.ask(&all[0], "/").await
    });
    assert_eq!((first.0, second.0), (200, 200));
    assert!(matches!(third, Err(Error::FullEnv { processes: 2, .. })), "there is no place");
    assert_eq!(world.asked(&all[0], "/").await.0, 200, "and then there is");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_slow_to_go_holds_nobody_up() {
    let limits = FunctionsLimits { processes_of_env: 2, ..FunctionsLimits::default() };
    let world = World::with(limits).await;
    let slow = "export default { fetch(request, env, ctx) {\n\
          ctx.waitUntil(new Promise((done) => setTimeout(done, 60_000)));\n\
          return new Response('later');\n\
        } };";
    let mut all = Vec::new();
    for text in [slow, SAYS, "export default () => new Response('third');"] {
        all.push(world.function(Runtime::Bun, text, Settings::default()).await);
    }
    assert_eq!(world.asked(&all[0], "/").await.1, "later");
    assert_eq!(world.asked(&all[1], "/").await.0, 200);
    let begun = Instant::now();
    assert_eq!(world.asked(&all[2], "/").await.1, "third");
    let drain = Duration::from_secs(10);
    assert!(begun.elapsed() < drain, "the first one has as long as that to end: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_not_wanted_any_more_comes_to_nothing() {
    let world = Arc::new(World::new().await);
    let called = world.function(Runtime::Node, SAYS, Settings::default()).await;
    for for_good in [false, true] {
        let (asking, of) = (Arc::clone(&world), called.clone());
        let asked = tokio::spawn(async move { asking.ask(&of, "/").await.map(drop) });
        while world.functions.processes() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if for_good {
            world.functions.forget(world.env.id()).await.unwrap();
            assert!(asked.await.unwrap().is_err());
        } else {
            world.platform.is_strict.store(true, Ordering::SeqCst);
            world.functions.end(world.env.id()).await.unwrap();
            assert!(asked.await.unwrap().is_err());
            world.platform.is_strict.store(false, Ordering::SeqCst);
        }
        world.has(0).await;
    }
    assert!(!world.artifacts().exists(), "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_reaches_processes_that_run() {
    let world = World::new().await;
    let called = world.function(Runtime::Bun, SAYS, Settings::default()).await;
    let text = "export default () => new Response(String(globalThis.began ??= Math.random()));";
    let other = world.function(Runtime::Bun, text, Settings::default()).await;
    let before = world.asked(&other, "/").await;
    assert_eq!(world.asked(&other, "/").await, before, "it is the same process");
    assert_eq!(world.asked(&called, "/").await.0, 200);
    // One that is no function of the release any more ends, and the others go on.
    let live = std::collections::BTreeMap::from([(other.name.clone(), Arc::clone(&other.function))]);
    world.functions.settle(&world.env, &live, &other.variables);
    world.has(1).await;
    assert_eq!(world.asked(&other, "/").await, before);
    // Who works goes on until that is done.
    let (held, ()) = tokio::join!(world.asked(&called, "/hold"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.functions.changed(world.env.id());
    });
    assert_eq!(held.0, 200);
    assert_ne!(world.asked(&other, "/").await, before, "it is another process");
    world.has(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_counted() {
    let world = Arc::new(World::new().await);
    let settings = Settings { concurrency: Some(1), max_instances: Some(1), ..Settings::default() };
    let called = world.function(Runtime::Bun, SAYS, settings).await;
    let all = (0..150).map(|_| {
        let (world, called) = (Arc::clone(&world), called.clone());
        tokio::spawn(async move { world.ask(&called, "/hold").await.map(drop) })
    });
    let all: Vec<_> = all.collect();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (refused, waiting): (Vec<_>, Vec<_>) =
        all.into_iter().partition(tokio::task::JoinHandle::is_finished);
    assert!((48..=50).contains(&refused.len()), "{}", refused.len());
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    for it in refused {
        assert!(matches!(it.await.unwrap(), Err(Error::Busy(1))));
    }
    // Who has given up waits no more.
    assert_eq!(world.asked(&called, "/").await.0, 200);
}
