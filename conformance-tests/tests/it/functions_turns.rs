//! Functions under load while what is below them changes: versions take turns, and processes of the platform are killed.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::{Client, eventually};

use crate::assault_privileges::{Processes, kill};
use crate::functions::Ground;

/// Those that ask at once.
const CLIENTS: usize = 4;

/// Answers which version it is, and at `/slow` only after a while.
fn version(number: usize) -> String {
    format!(
        "export default {{ async fetch(request) {{\n\
           if (new URL(request.url).pathname === '/slow') await new Promise((done) => setTimeout(done, 200));\n\
           return new Response('version {number}');\n\
         }} }};\n"
    )
}

/// Versions that take turns under load: no request fails, and whoever asks after a deploy gets what was deployed.
fn turns(count: usize) -> usize {
    let ground = Ground::new("fn-turns");
    let public = json!({ "access": "public" });
    ground.deploy("it", &version(0), &public);
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|scope| {
        for client in 0..CLIENTS {
            let (ground, is_over, answered) = (&ground, &is_over, &answered);
            let path = if client == 0 { "/_/fn/it/slow" } else { "/_/fn/it" };
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let reply = ground.get(path);
                    assert_eq!(reply.status, 200, "{reply:?}");
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for number in 1..=count {
            ground.deploy("it", &version(number % 7), &public);
            let reply = ground.get("/_/fn/it");
            assert_eq!(reply.body, format!("version {}", number % 7));
        }
        is_over.store(true, Ordering::SeqCst);
    });
    answered.into_inner()
}

#[test]
fn versions_take_turns_and_no_request_fails() {
    assert!(turns(20) > 20);
}

#[test]
#[ignore = "a soak: `cargo xtask soak` runs it"]
#[expect(clippy::print_stdout, reason = "it says what it did")]
fn soak_a_hundred_versions_take_turns_and_no_request_fails() {
    let answered = turns(100);
    println!("{answered} requests were answered while 100 versions took turns");
}

/// Processes that run functions of this platform, known by a variable of theirs.
fn running(mark: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let root = format!("/proc/{pid}/root/workspace/index.js");
        fs::read_to_string(root).is_ok_and(|text| text.contains(mark))
    };
    pids.filter(has).count()
}

/// How long it takes until a function answers, and that it does.
fn answers(client: &Client) -> Duration {
    let begun = Instant::now();
    let asked = || {
        let answer = client.call("function_invoke", &json!({ "name": "it" })).ok()?;
        (answer.status == 200 && answer.body["status"] == 200).then_some(())
    };
    assert!(eventually(Duration::from_secs(60), asked).is_some(), "it does not answer any more");
    begun.elapsed()
}

#[test]
fn who_is_killed_under_load_leaves_nothing_behind_and_all_answer_again() {
    let mark = format!("mark-{}", std::process::id());
    let ground = Ground::of(Place::alone("fn-killed").unwrap());
    let code = format!("{}globalThis.mark = '{mark}';\n", version(0));
    ground.deploy("it", &code, &json!({ "access": "public" }));
    assert_eq!(ground.get("/_/fn/it").status, 200);
    assert!(running(&mark) > 0, "it is not found where it runs");
    // What makes sandboxes.
    let host = Processes::of(&ground.place.steading).host;
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    // While nothing can be started, that is said.
                    let status = ground.get("/_/fn/it").status;
                    assert!([200, 502, 503].contains(&status), "{status}");
                }
            });
        }
        sleep(Duration::from_millis(300));
        kill("-KILL", &[host]);
        answers(&ground.place.client);
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(running(&mark) <= 4, "those of before are gone: {}", running(&mark));
    // All of it.
    let before: Value = ground.place.output("app_describe", &json!({})).unwrap();
    kill("-KILL", &[ground.place.steading.id()]);
    let none = eventually(Duration::from_secs(10), || (running(&mark) == 0).then_some(()));
    assert!(none.is_some(), "{} are left", running(&mark));
    let Place { steading, client, .. } = ground.place;
    let _steading = Arc::into_inner(steading).unwrap().restart().unwrap();
    answers(&client);
    let after: Value = client.output("app_describe", &json!({})).unwrap();
    assert_eq!(before["functions"], after["functions"]);
}
