//! The programs of a platform's builder: the operator puts other versions into all sandboxes, and what runs, rests or
//! sleeps there goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};
use testkit::{Answer, Client, Steading, eventually, require, temporary};

use super::app_sandbox_abuse::{run, says};
use super::sandbox_routes::PATIENCE;

/// What a builder has at home: programs by name, with their texts.
type Set<'a> = &'a [(&'a str, &'a str)];

/// Has the server use these programs, by the command line, and gives how that ended and what it said.
fn used(server: &Steading, programs: Set<'_>) -> (i32, Value) {
    let directory = temporary().unwrap();
    for (name, text) in programs {
        let path = directory.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        // They are programs in a sandbox, whatever they are here.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut command = server.command(&["runner", "use", "--json"]);
    let ran = command.arg(directory.path()).output().unwrap();
    let said = || serde_json::from_slice(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"));
    (ran.status.code().unwrap(), said())
}

fn swapped(server: &Steading, programs: Set<'_>, [swapped, reverted]: [u64; 2]) -> (String, String) {
    let (code, told) = used(server, programs);
    assert_eq!((code, &told["swapped"], &told["reverted"]), (0, &json!(swapped), &json!(reverted)), "{told}");
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    (text("version"), text("before"))
}

fn shown(server: &Steading) -> Value {
    server.client().request("GET", "/v1/runner").send().unwrap().json().unwrap()
}

fn state(client: &Client) -> String {
    let shown = client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    shown["state"].as_str().unwrap().to_owned()
}

fn post(client: &Client, action: &str) -> Value {
    let request = client.request("POST", &format!("/v1/sandboxes/default/{action}")).json(&json!({}));
    request.send().unwrap().json().unwrap()
}

/// What the workspace holds, and how often its files were changed.
const HELD: &str = "find . -mindepth 1 -printf '%p %m %T@ %l\\n' | sort; find . -type f | sort | xargs cat";

#[test]
fn a_version_comes_into_sandboxes_that_run_rest_or_sleep_and_one_that_is_broken_into_none() {
    let server = require(Steading::start());
    let operator = server.client().without_env();
    let clients: BTreeMap<_, _> = ["running", "stopped", "asleep", "frozen"]
        .map(|slug| {
            operator.output("env_create", &json!({ "slug": slug })).unwrap();
            (slug, server.client().in_env(slug))
        })
        .into();
    for client in clients.values() {
        says(client, "echo mine > file");
    }
    let frozen = post(&clients["frozen"], "freeze")["digest"].clone();
    let server = server.restart().unwrap();
    let [running, stopped, asleep, frozen_one] =
        ["running", "stopped", "asleep", "frozen"].map(|slug| server.client().in_env(slug));
    let all = [&running, &stopped, &asleep, &frozen_one];
    let held = all.map(|client| says(client, HELD));
    let empty = shown(&server);
    assert_eq!(empty["programs"], json!([]));

    // All are awake, and have the first version at once.
    let check = "test \"$(\"${0%/*}/agent\")\" != broken && test ! -e /workspace/refused";
    let (one, before) = swapped(&server, &[("agent", "echo one"), ("check", check)], [4, 0]);
    assert_eq!(before, empty["version"]);
    assert_eq!(says(&running, "agent; hand check && echo whole"), "one\nwhole\n");
    let programs: Vec<_> = shown(&server)["programs"].as_array().unwrap().clone();
    assert_eq!(programs.iter().map(|it| &it["name"]).collect::<Vec<_>>(), ["agent", "check"]);

    // One runs, one is stopped, and two are not there after the server's end.
    let server = server.restart().unwrap();
    assert_eq!(shown(&server)["version"], json!(one), "it is kept");
    let [running, stopped, asleep, frozen_one] =
        ["running", "stopped", "asleep", "frozen"].map(|slug| server.client().in_env(slug));
    says(&running, "(sleep 4711 < $(command -v agent) &)");
    says(&stopped, "(sleep 4712 &)");
    assert_eq!(post(&stopped, "pause")["state"], "paused");
    let (two, before) = swapped(&server, &[("agent", "echo two"), ("check", check)], [2, 0]);
    assert_eq!(before, one);
    assert_eq!([state(&running), state(&stopped), state(&asleep)], ["running", "paused", "parked"]);
    let old = "p=$(pgrep -fx 'sleep 4711'); tail -1 /proc/$p/fd/0; readlink /proc/$p/fd/0";
    let old = says(&running, old);
    assert_eq!(old, format!("echo one\n/run/steading/runners/{one}/agent\n"), "what runs goes on");
    assert_eq!(says(&stopped, "pgrep -fxc 'sleep 4712'"), "1\n", "what was stopped goes on");
    let all = [&running, &stopped, &asleep, &frozen_one];
    assert_eq!(all.map(|client| says(client, "agent")), ["two\n"; 4]);
    assert_eq!(all.map(|client| says(client, HELD)), held, "nothing of it lies in the workspace");
    assert_eq!(
        post(&frozen_one, "freeze")["digest"],
        frozen,
        "a frozen workspace begins with the same bytes"
    );

    // One that fails its check is nowhere, and said to be so.
    let (code, refused) = used(&server, &[("agent", "echo broken"), ("check", check)]);
    assert_eq!((code, &refused["code"]), (5, &json!("conflict")), "{refused}");
    assert_eq!(shown(&server)["version"], json!(two));
    assert_eq!(all.map(|client| says(client, "agent")), ["two\n"; 4]);
    // Where it fails in one of them, that one goes on with what it had, and no longer than it lasts.
    says(&running, "touch refused");
    let (three, before) = swapped(&server, &[("agent", "echo three"), ("check", check)], [3, 1]);
    assert_eq!(before, two);
    assert_eq!(all.map(|client| says(client, "agent")), ["two\n", "three\n", "three\n", "three\n"]);
    says(&running, "rm refused; kill -9 -1");
    let server = server.restart().unwrap();
    assert_eq!(shown(&server)["version"], json!(three));
    assert_eq!(says(&server.client().in_env("running"), "agent"), "three\n");
    // Without programs it is as it was.
    let (none, before) = swapped(&server, &[], [1, 0]);
    assert_eq!((&json!(none), before), (&empty["version"], three));
    assert_ne!(run(&server.client().in_env("running"), "agent")["exit_code"], 0);
}

/// What a tar of these files is answered with.
fn put(client: &Client, files: Set<'_>) -> Answer {
    let directory = temporary().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut tar = Command::new("tar");
    let packed = tar.arg("-C").arg(directory.path()).args(["-c", "."]).output().unwrap();
    client.request("PUT", "/v1/runner").body(packed.stdout).send().unwrap().try_into().unwrap()
}

#[test]
fn only_the_operator_puts_programs_into_sandboxes_and_only_so_many() {
    let server = require(Steading::start());
    let operator = server.client().without_env();
    let made = |path: &str, body: Value, tenant: &str| {
        let request = operator.request("POST", path).header("steading-tenant", tenant).json(&body);
        request.send().unwrap().json().unwrap()
    };
    made("/v1/tenants", json!({ "slug": "builder" }), "default");
    let key = |body: Value, tenant: &str| {
        let made = made("/v1/keys", body, tenant);
        Client::new(&server.ready().url).with_key(made["key"].as_str().unwrap_or_else(|| panic!("{made}")))
    };
    let others = [
        key(json!({ "name": "all of a tenant" }), "builder"),
        key(json!({ "name": "all of the operator's tenant" }), "default"),
        key(json!({ "name": "one", "env": "default", "scopes": ["sandbox:use"] }), "default"),
    ];
    for other in &others {
        assert_eq!(put(other, &[("agent", "x")]).status, 403);
        assert_eq!(other.request("GET", "/v1/runner").send().unwrap().status, 403);
    }
    assert_eq!(put(&Client::new(&server.ready().url), &[("agent", "x")]).status, 401);

    let before = shown(&server);
    let many: Vec<_> = (0..17).map(|number| format!("p{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), "x")).collect();
    let refused = [put(&operator, &many), put(&operator, &[("hand", "x")]), put(&operator, &[("a b", "x")])];
    assert_eq!(refused.map(|it| it.body["code"].clone()), ["too_large", "invalid_input", "invalid_input"]);
    let garbage = operator.request("PUT", "/v1/runner").body(b"no archive").send().unwrap();
    assert_eq!(garbage.status, 400);
    let ours = put(&operator, &[("function-bun.mjs", "x")]);
    assert_eq!(ours.body["code"], "invalid_input");
    assert_eq!(shown(&server), before);
    // A program that nobody can run is none of a check's business; the check itself is.
    assert_eq!(put(&operator, &[("check", "\x7fELF")]).status, 409);
    assert_eq!(put(&operator, &[("agent", "\x7fELF")]).status, 200);
    // Whoever starts meanwhile has one or the other.
    let client = server.client();
    let seen = eventually(PATIENCE, || {
        let said = says(&client, "ls /run/steading/runner/current");
        (said == "agent\nfunction-bun.mjs\nfunction-node.mjs\nhand\n").then_some(())
    });
    assert!(seen.is_some());
}

/// What a sandbox that begins with it shows of a workspace.
const BOOTED: &str = "(find . -mindepth 1 -printf '%p %y %m %l\\n' | sort; find . -type f | sort | xargs sha256sum) | sha256sum";

#[test]
fn a_hundred_runs_by_two_versions_of_the_programs_begin_with_the_same_digest() {
    let server = require(Steading::start());
    let ask = |method: &str, path: &str, body: &Value| {
        let request = server.client().in_env("default").request(method, &format!("/v1/sandboxes{path}"));
        let answer = if body.is_null() { request } else { request.json(body) }.send().unwrap();
        assert!(answer.status < 300, "{method} {path}: {:?}", answer.text());
        answer
    };
    let exec = |sandbox: &str, command: &str| {
        let told = ask("POST", &format!("/{sandbox}/exec"), &json!({ "command": command }));
        let lines = told.text().unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.last().unwrap()["code"], 0, "{sandbox}: {command}: {lines:?}");
        lines.iter().filter_map(|line| line["text"].as_str()).collect::<String>()
    };
    ask("POST", "", &json!({ "name": "source" }));
    exec("source", "mkdir -p d/e && seq 1000 > d/f && ln -s d/f l && chmod 700 d/e && ln d/f d/e/g");
    let shown = exec("source", BOOTED);
    let base = ask("POST", "/source/freeze", &json!({ "name": "base" })).json().unwrap();
    let digest = base["digest"].as_str().unwrap();
    // What a run begins with by its digest, what it finds, and who answers; what it leaves is its own.
    let run = |name: &str| {
        ask("POST", "/source/fork", &json!({ "name": name, "snapshot": "base" }));
        let frozen = ask("POST", &format!("/{name}/freeze"), &json!({})).json().unwrap();
        let found = exec(name, &format!("{BOOTED}; agent; echo changed > d/f; rm l; touch since"));
        ask("DELETE", &format!("/{name}"), &Value::Null);
        (frozen["digest"].as_str().unwrap().to_owned(), found)
    };
    let mut runs: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (round, version) in ["one", "two"].iter().cycle().take(10).enumerate() {
        assert_eq!(used(&server, &[("agent", &format!("echo {version}"))]).0, 0);
        let ran = std::thread::scope(|scope| {
            let run = &run;
            let half = |half: usize| {
                scope.spawn(move || {
                    (0..5).map(|n| run(&format!("run-{round}-{half}-{n}"))).collect::<Vec<_>>()
                })
            };
            [half(0), half(1)].map(|half| half.join().unwrap()).concat()
        });
        for it in ran {
            *runs.entry(it).or_default() += 1;
        }
    }
    let expected = ["one", "two"].map(|version| ((digest.to_owned(), format!("{shown}{version}\n")), 50));
    assert_eq!(runs, BTreeMap::from(expected));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where this user's caches are")]
fn nothing_compiled_from_one_version_is_taken_for_another() {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from).unwrap_or_default();
    let launch = Steading::launch().env("STEADING_SANDBOX_TEMPLATE", "node");
    let launch = launch.env("STEADING_SANDBOX_TEMPLATES_DIR", home.join(".cache/steading/templates"));
    let server = require(launch.start());
    let client = server.client();
    // Texts of one length, of which each language keeps what it has compiled in the workspace.
    let set = |word: &str| {
        [
            ("answer.py".to_owned(), format!("print('{word}')")),
            ("main.py".to_owned(), "import answer".to_owned()),
            ("answer.cjs".to_owned(), format!("console.log('{word}')")),
            ("main.cjs".to_owned(), "require('./answer.cjs')".to_owned()),
        ]
    };
    let run = "cd /run/steading/runner/current; export PYTHONPYCACHEPREFIX=/workspace/.py NODE_COMPILE_CACHE=/workspace/.js; \
               python3 main.py; python3 -c 'import answer'; PYTHONPATH=/run/steading/runner/current python3 -c 'import answer'; node main.cjs";
    for word in ["one", "two", "one"] {
        let files = set(word);
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(used(&server, &files).0, 0);
        for _ in 0..2 {
            assert_eq!(says(&client, run), format!("{word}\n").repeat(4), "version {word}");
        }
    }
    let kept = "find .py -name 'answer*.pyc' | grep -q . && find .js -type f | grep -q . && echo kept";
    assert_eq!(says(&client, kept), "kept\n", "there were caches to be misled by");
}
