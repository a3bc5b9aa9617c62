//! Functions that do what they should not: what they try to see and to reach, and what they take beside a neighbour. Each time
//! the next request is answered, by them and by others.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use conformance_tests::{App, Place};
use serde_json::{Value, json};
use testkit::eventually;

use crate::functions::Ground;

/// What a function does that it should not, and how whoever asks it is answered.
const HOGS: [(&str, &str, &[u16]); 8] = [
    ("a loop without an end", "while (true);", &[504]),
    // The kernel ends it, or the runtime gives up before.
    ("a memory hog", "for (;;) all.push(new Uint8Array(1 << 20).fill(1));", &[500, 502, 504]),
    (
        "a fork bomb",
        "for (;;) { try { spawn(process.execPath, ['-e', 'while (true);']).on('error', () => {}); } catch {} \
         await new Promise((done) => setTimeout(done, 1)); }",
        &[502, 504],
    ),
    (
        "a leak of open files",
        "for (;;) { try { openSync('/tmp', 'r'); } catch {} await later(); }",
        &[502, 504],
    ),
    (
        "a storm of rejections",
        "for (;;) { for (let i = 0; i < 10_000; i++) Promise.reject(new Error('no')); await later(); }",
        &[502, 504],
    ),
    (
        "a storm of lines",
        "for (;;) { console.log('x'.repeat(1000)); if (Math.random() < 0.001) await later(); }",
        &[502, 504],
    ),
    ("one that ends itself", "process.kill(process.pid, 'SIGKILL'); await new Promise(() => {});", &[502]),
    (
        "one that fills /tmp",
        "for (let i = 0; ; i++) writeFileSync('/tmp/' + i, new Uint8Array(1 << 20));",
        &[500, 502],
    ),
];

/// A function that does that at `/hog`, and else what it should.
fn hog(what: &str) -> String {
    format!(
        "import {{ spawn }} from 'node:child_process';\n\
         import {{ openSync, writeFileSync }} from 'node:fs';\n\
         const all = [];\n\
         const later = () => new Promise((done) => setTimeout(done, 0));\n\
         const hog = async () => {{ {what} }};\n\
         export default {{ async fetch(request) {{\n\
           if (new URL(request.url).pathname === '/hog') await hog();\n\
           return new Response('well');\n\
         }} }};\n"
    )
}

#[test]
fn who_takes_too_much_is_ended_and_everybody_is_answered_after_it() {
    let ground = Ground::new("fn-hogs");
    ground.deploy("good", "export default () => new Response('well');", &json!({ "access": "public" }));
    for (name, what, statuses) in HOGS {
        for runtime in ["bun", "node"] {
            let name = format!("{name} on {runtime}");
            let more = json!({ "access": "public", "runtime": runtime, "timeout_s": 2 });
            ground.deploy("hog", &hog(what), &more);
            let is_over = AtomicBool::new(false);
            scope(|scope| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) {
                        assert_eq!(ground.get("/_/fn/good").status, 200, "beside {name}");
                    }
                });
                let hogged = ground.get("/_/fn/hog/hog");
                is_over.store(true, Ordering::SeqCst);
                assert!(statuses.contains(&hogged.status), "{name}: {hogged:?}");
            });
            let next =
                eventually(Duration::from_secs(30), || (ground.get("/_/fn/hog").status == 200).then_some(()));
            assert!(next.is_some(), "{name}: {:?}", ground.get("/_/fn/hog"));
        }
    }
}

#[test]
fn an_answer_of_a_gigabyte_passes_and_is_kept_by_nobody() {
    let ground = Ground::of(Place::alone("fn-gigabyte").unwrap());
    let code = "const part = new Uint8Array(1 << 20);\n\
                export default () => { let left = 1024; return new Response(new ReadableStream({\n\
                  pull: (to) => left-- > 0 ? to.enqueue(part) : to.close() })); };";
    ground.deploy("large", code, &json!({ "access": "public" }));
    ground.deploy("good", "export default () => new Response('well');", &json!({ "access": "public" }));
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", ground.place.steading.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let before = resident();
    let (_, mut whole) = crate::functions_long::begun(&ground.app, "/_/fn/large", "");
    let (_, _unread) = crate::functions_long::begun(&ground.app, "/_/fn/large", "");
    let (mut size, mut buffer) = (0_u64, vec![0; 1 << 16]);
    while size < 1 << 30 {
        let read = whole.read(&mut buffer).unwrap();
        assert!(read > 0, "it ends after {size} bytes");
        size += read as u64;
    }
    assert_eq!(ground.get("/_/fn/good").status, 200);
    let after = resident();
    assert!(after < before + 64, "{before} MiB before, {after} after");
}

/// What a function finds around it.
const PRY: &str = r#"
import { readdirSync, readFileSync, existsSync } from "node:fs";
import { connect } from "node:net";
const dial = (host, port) => new Promise((done) => {
  const socket = connect({ host, port, timeout: 2000 }, () => { socket.destroy(); done("connected"); });
  socket.on("error", (error) => done(error.code ?? "error"));
  socket.on("timeout", () => { socket.destroy(); done("timeout"); });
});
const through = (url) => fetch(url).then(async (answer) => `${answer.status} ${(await answer.text()).slice(0, 100)}`, (error) => error.code ?? error.name);
export default {
  async fetch(request, env) {
    const { ports, urls, files } = await request.json();
    const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
    const read = (path) => { try { return readFileSync(path, "latin1"); } catch (error) { return error.code; } };
    return Response.json({
      processes: pids.map((pid) => read(`/proc/${pid}/cmdline`).replaceAll("\0", " ")),
      surroundings: pids.map((pid) => read(`/proc/${pid}/environ`)),
      dialled: await Promise.all(ports.map(([host, port]) => dial(host, port))),
      fetched: await Promise.all(urls.map(through)),
      files: files.map((path) => (existsSync(path) ? read(path) : "none")),
      root: readdirSync("/"), own: readdirSync("/workspace"), run: readdirSync("/run/steading"),
      env: { ...env }, process: process.env, uid: process.getuid(),
    });
  },
};
"#;

#[test]
fn whoever_pries_finds_nothing_of_others() {
    let ground = Ground::new("fn-pry");
    ground
        .place
        .output("secret_set", &json!({ "name": "NOT_GIVEN", "value": "a-secret-of-another" }))
        .unwrap();
    ground.deploy(
        "other",
        "export default () => new Response(process.env.MARK);",
        &json!({
            "access": "public", "variables": { "MARK": "a-mark-of-another" },
        }),
    );
    assert_eq!(ground.get("/_/fn/other").status, 200, "it runs beside");
    let tenant = Place::new("fn-pry-other").unwrap();
    let told = App::new(&tenant.url);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = ground.place.steading.authority().to_owned();
    let own: u16 = authority.rsplit(':').next().unwrap().parse().unwrap();
    let data = ground.place.steading.ready().data_dir.clone();
    let key = ground.place.steading.ready().key.clone();
    let asked = json!({
        "ports": [["127.0.0.1", own], ["127.0.0.1", listener.local_addr().unwrap().port()], ["169.254.169.254", 80],
            ["10.0.0.1", 80], ["192.168.0.1", 443], ["::1", own], ["0.0.0.0", own]],
        "urls": [format!("http://{authority}/healthz"), format!("http://127.0.0.1:{own}/v1/tools"), told.url(),
            "http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/", "http://[fd00:ec2::254]/",
            "http://platform.internal/"],
        "files": [data.join("operator.key"), data.join("control.db"), "/etc/shadow", "/proc/1/environ",
            "/var/run/docker.sock"],
    });
    for runtime in ["bun", "node"] {
        ground.deploy("pry", PRY, &json!({ "access": "public", "runtime": runtime }));
        let found = ground.app.visitor().send("POST", "/_/fn/pry/x", &asked).unwrap();
        assert_eq!(found.status, 200, "{found:?}");
        let found = found.body;
        let of = |name: &str| -> Vec<String> { serde_json::from_value(found[name].clone()).unwrap() };
        assert!(of("dialled").iter().all(|it| it != "connected"), "{found:#}");
        assert!(of("fetched").iter().all(|it| !it.starts_with("200")), "{found:#}");
        assert!(of("files").iter().all(|it| it == "none" || it.starts_with('E')), "{found:#}");
        // Those of the jail, and the runtime.
        let (jail, own): (Vec<_>, Vec<_>) =
            of("processes").into_iter().partition(|it| it.starts_with("hand pid1 "));
        assert!(jail.len() <= 2 && own.len() == 1 && own[0].contains(runtime), "{found:#}");
        assert_ne!(found["uid"], 0);
        let all = found.to_string();
        for mark in
            ["a-mark-of-another", "a-secret-of-another", "NOT_GIVEN", key.as_str(), "stead_", "STEADING_"]
        {
            assert!(!all.contains(mark), "{mark}: {found:#}");
        }
        assert!(!all.contains(data.to_str().unwrap()), "{found:#}");
    }
}

#[test]
fn one_that_does_not_end_in_time_is_ended_then() {
    let ground = Ground::new("fn-deadline");
    ground.deploy("hog", &hog("while (true);"), &json!({ "access": "public", "timeout_s": 1 }));
    assert_eq!(ground.get("/_/fn/hog").status, 200);
    let begun = Instant::now();
    assert_eq!(ground.get("/_/fn/hog/hog").status, 504);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let said: Value =
        ground.place.output("logs_query", &json!({ "text": "event loop", "limit": 5 })).unwrap();
    assert!(said.to_string().contains("has not come round"), "its owner is told: {said}");
    assert_eq!(ground.get("/_/fn/hog").status, 200, "the next one is answered");
}
