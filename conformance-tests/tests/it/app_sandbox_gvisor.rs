//! Sandboxes that gVisor keeps from the machine, for tenants who demand it: they do what any does, what is not denied in
//! one ends in its own kernel, and where gVisor is not there are none.

use std::collections::BTreeSet;
use std::fs;

use conformance_tests::{Neighbour, Preview};
use serde_json::{Value, json};
use testkit::{Client, Steading, eventually, require, temporary};

use super::app_sandbox_abuse::{SECRET, attempts, run, says, shows_nothing, tried};
use super::sandbox_routes::PATIENCE;

/// A server whose sandboxes are all of gVisor.
fn server() -> Steading {
    require(Steading::launch().env("STEADING_SANDBOX_ISOLATION", "gvisor").start())
}

fn shown(client: &Client) -> Value {
    client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap()
}

#[test]
fn a_sandbox_of_gvisor_does_what_any_does() {
    let steading = server();
    let client = steading.client();
    let tool = |tool: &str, input: Value| client.output(tool, &input).unwrap();
    assert!(says(&client, "dmesg").contains("gVisor"), "its kernel is its own");
    assert_eq!(shown(&client)["isolation"], "gvisor");
    tool("file_write", json!({ "path": "src/sum.py", "text": "print(sum([1, 2, 3]))\n" }));
    assert_eq!(says(&client, "python3 src/sum.py; stat -c '%U %a' src/sum.py; ls"), "6\nagent 644\nsrc\n");
    assert_eq!(
        tool("file_search", json!({ "line": "sum" }))["found"],
        json!(["src/sum.py:1: print(sum([1, 2, 3]))"])
    );
    // Larger than what a pipe holds, and moved to where something is.
    let put = |path: &str, body: &[u8]| {
        let request = client.request("PUT", &format!("/v1/sandboxes/default/files?path={path}"));
        request.body(body).send().unwrap().status
    };
    assert_eq!([put("big", &[7; 3_000_000]), put("other", b"x")], [200; 2]);
    assert_eq!(says(&client, "stat -c %s big"), "3000000\n");
    let moved = |from: &str, to: &str| {
        let input = json!({ "from": from, "to": to, "existing": "refuse" });
        client.request("POST", "/v1/sandboxes/default/files/move").json(&input).send().unwrap().status
    };
    assert_eq!([moved("big", "other"), moved("src", "other"), moved("big", "new")], [409, 409, 204]);
    assert_eq!(says(&client, "rm new other; ls"), "src\n");
    let on_disk =
        says(&client, "id -u; for f in /etc/x /usr/x /x; do touch $f 2>/dev/null && echo $f; done; true");
    assert_eq!(on_disk, "1000\n");

    // What has hidden from its command ends with its time; what was told to stay stays.
    let hidden = "setsid nohup sleep 4242 >/dev/null 2>&1 & (sleep 4242 &) ; sleep 4242";
    let ran = tool("shell_run", json!({ "command": hidden, "timeout_s": 1 }));
    assert_eq!(ran["exit_code"], 124);
    assert_eq!(says(&client, "pgrep -f 'sleep 4242' -x || echo none"), "none\n");
    says(&client, "(sleep 4243 &)");
    assert_eq!(says(&client, "pgrep -fxc 'sleep 4243'"), "1\n");
    let usage = shown(&client)["usage"].clone();
    assert!((2..10).contains(&usage["pids"].as_u64().unwrap()), "its own processes are counted: {usage}");

    // The way out, the bridge and the ports.
    let told = says(&client, "curl -s -m 5 http://example.com/ || true");
    assert!(told.contains("example.com") && told.contains("sandbox.allow"), "{told}");
    let around = "curl -sS -m 5 --noproxy '*' http://169.254.169.254/ 2>&1; echo $?";
    assert!(says(&client, around).ends_with("7\n"), "there is no route");
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } },
    });
    let mcp = format!("echo '{initialize}' | timeout 20 /run/steading/hand mcp");
    assert!(says(&client, &mcp).contains("serverInfo"));
    says(&client, "(python3 -m http.server 8123 > /dev/null 2>&1 &)");
    let ports = || {
        let answer = client.request("GET", "/v1/sandboxes/default/ports").send().unwrap().json().unwrap();
        (answer["ports"][0]["port"] == 8123).then_some(())
    };
    assert!(eventually(PATIENCE, ports).is_some());
    let preview = Preview::of(&tool("preview_open", json!({ "port": 8123 })), &steading).unwrap();
    let page = preview.ask("GET", "/src/sum.py").send().unwrap();
    assert!(page.status == 200 && page.text().unwrap().contains("sum([1, 2, 3])"), "{page:?}");
    assert_eq!(preview.ask_as_stranger("GET", "/").send().unwrap().status, 401);

    // Its files, while it runs, is stopped, and goes back.
    tool("workspace_snapshot", json!({ "name": "good" }));
    says(&client, "rm -r src && echo more > other");
    let action =
        |name: &str| client.request("POST", &format!("/v1/sandboxes/default/{name}")).send().unwrap();
    assert!(action("pause").status < 300);
    assert_eq!(shown(&client)["state"], "paused");
    assert_eq!(says(&client, "cat other; pgrep -fxc 'sleep 4243'"), "more\n1\n");
    let dry = tool("workspace_restore", json!({ "snapshot": "good", "dry_run": true }));
    tool("workspace_restore", json!({ "snapshot": "good", "confirm": dry["confirm"] }));
    assert_eq!(says(&client, "ls; pgrep sleep || echo nothing sleeps"), "src\nnothing sleeps\n");
    assert_eq!(shown(&client)["isolation"], "gvisor");
}

/// What gVisor's kernel lets its users do or see, which the filter of the other jails does not. It is all in that kernel:
/// namespaces of its own, nodes of devices that it does not have, its own log, and what its first process was started with.
const ITS_OWN: [&str; 14] = [
    "unshare 131072",
    "unshare 1073741824",
    "unshare 268435456",
    "clone 131072",
    "clone 268435456",
    "syslog",
    "mknod block",
    "mknod character",
    "nice",
    "io_uring",
    "core",
    "open /proc/1/maps",
    "open /proc/1/environ",
    "list /proc/1/fd",
];

/// What it says of what it does not have: there is no such file, device, file system, family or request.
const NOT_THERE: [&str; 7] =
    ["errno 2", "errno 19", "errno 22", "errno 25", "errno 93", "errno 95", "errno 97"];

#[test]
fn every_attempt_of_the_table_is_denied_or_ends_in_its_own_kernel() {
    let steading = server();
    let client = steading.client();
    let host = || {
        let told = ["sys/kernel/hostname", "sys/kernel/core_pattern", "sys/net/ipv4/ip_forward"];
        told.map(|name| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default())
    };
    let before = host();
    let through: BTreeSet<String> = tried(&steading)
        .into_iter()
        .filter(|(name, result)| {
            let not_there = NOT_THERE.contains(&result.as_str());
            !attempts::denied(result) && !not_there && !ITS_OWN.contains(&name.as_str())
        })
        .map(|(name, result)| format!("{name}: {result}"))
        .collect();
    assert_eq!(through, BTreeSet::new());
    assert_eq!(host(), before);
    // Whoever is root of a namespace of users there mounts nothing, and does not leave the group that its command ends by.
    let root = "unshare -Urm --propagation unchanged sh -c 'id -u; mount -t tmpfs x /tmp || echo no; \
                echo 0 > /dev/groups/job/cgroup.procs || echo no; kill -9 1 || echo no; touch /usr/x || echo no' 2>/dev/null";
    assert_eq!(says(&client, root), "0\nno\nno\nno\nno\n");
    // Of what its first process has open, nothing is to be had that is not everybody's.
    let held = "for f in /proc/1/fd/*; do for way in '<' '>'; do eval \"exec 9$way$f\" 2>/dev/null && readlink $f; done; done; true";
    let opened = says(&client, held);
    let harmless = |path: &str| {
        path == "/dev/null"
            || path == "/run/steading/hand"
            || path.starts_with("/dev/groups/")
            || path.starts_with("host:")
    };
    assert!(opened.lines().all(harmless), "{opened}");
    assert_eq!(
        says(&client, "head -c 1 /proc/1/fd/1 | wc -c; echo x > /proc/1/fd/1; echo alive"),
        "0\nalive\n"
    );
    SECRET.into_iter().chain(["modules"]).for_each(|name| shows_nothing(&client, name));
    let told = fs::read_to_string("/proc/cmdline").unwrap();
    assert!(!says(&client, "cat /proc/cmdline").contains(told.trim()), "the host's is not shown");
    let devices = "ls /dev/kvm /dev/vda /dev/sda /dev/loop-control /dev/loop0 /dev/vsock /dev/mem /dev/kmsg 2>/dev/null; true";
    assert_eq!(says(&client, devices), "");
}

#[test]
fn one_who_takes_all_there_is_takes_it_from_nobody_else() {
    let steading = server();
    let client = steading.client();
    for slug in ["greedy", "quiet"] {
        client.output("env_create", &json!({ "slug": slug })).unwrap();
    }
    let (greedy, quiet) = (client.clone().in_env("greedy"), client.in_env("quiet"));
    says(&quiet, "echo kept > file");
    says(&greedy, "echo kept > file");
    for attack in [
        "bomb() { bomb | bomb & }; bomb 2>/dev/null >/dev/null; sleep 2",
        "python3 -c 'x = bytearray(4 << 30)'; sleep 2",
        "(while :; do head -c 1G /dev/zero > /tmp/x; rm /tmp/x; done) >/dev/null 2>&1 & sleep 2",
    ] {
        // It may be that the whole of it ends; then it is made again by the next call, with its files.
        let _ = greedy.call("shell_run", &json!({ "command": attack, "timeout_s": 10 })).unwrap();
        assert_eq!(says(&quiet, "cat file; echo more | cat"), "kept\nmore\n", "{attack}");
        let healed = eventually(PATIENCE, || {
            let heal = json!({ "command": "kill -9 -1; rm -f /tmp/x; cat file", "timeout_s": 10 });
            let ran = greedy.call("shell_run", &heal).unwrap();
            (ran.body["stdout"] == "kept\n").then_some(())
        });
        assert!(healed.is_some(), "{attack}");
    }
    assert_eq!(says(&quiet, "cat file"), "kept\n");
}

/// Runs a command in a sandbox of that name, and gives its output.
fn inside(client: &Client, name: &str, command: &str) -> String {
    let request =
        client.request("POST", &format!("/v1/sandboxes/{name}/exec")).json(&json!({ "command": command }));
    let answer = request.send().unwrap();
    let lines = answer.text().unwrap().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| line["type"] == "stdout")
        .map(|line| line["text"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_sandbox_that_is_to_have_gvisor_has_it_for_its_life_and_is_not_made_without() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let launch = || Steading::launch().data_dir(&data);
    let make = |client: &Client, path: &str, body: Value| {
        let made = client.request("POST", path).json(&body).send().unwrap();
        (made.status, made.json().unwrap())
    };
    let get = |client: &Client, name: &str| {
        let shown = client.request("GET", &format!("/v1/sandboxes/{name}")).send().unwrap().json().unwrap();
        ["least_isolation", "isolation"].map(|field| shown[field].as_str().unwrap_or("none").to_owned())
    };
    let kernel = "dmesg 2>/dev/null | grep -q gVisor && echo own || echo shared";
    let mut steading = require(launch().start());
    let client = steading.client();
    let strict = json!({ "name": "strict", "isolation": "gvisor" });
    let (status, made) = make(&client, "/v1/sandboxes", strict.clone());
    assert_eq!((status, &made["least_isolation"]), (201, &json!("gvisor")), "{made}");
    assert_eq!(inside(&client, "strict", &format!("echo mine > file; {kernel}")), "own\n");
    assert_eq!(get(&client, "strict"), ["gvisor"; 2]);
    assert_eq!(make(&client, "/v1/sandboxes/strict/snapshots", json!({ "name": "good" })).0, 201);
    assert_eq!(make(&client, "/v1/sandboxes/strict/restore", json!({ "snapshot": "good" })).0, 200);
    assert_eq!(make(&client, "/v1/sandboxes/strict/fork", json!({ "name": "forked" })).0, 201);
    assert_eq!(get(&client, "forked"), ["gvisor", "none"]);
    assert_eq!(inside(&client, "forked", &format!("cat file; {kernel}")), "mine\nown\n");
    // It is nobody else's.
    assert_eq!(run(&client, kernel)["stdout"], "shared\n");
    assert_eq!(get(&client, "default"), ["none", "namespaces"]);
    let there = || client.request("GET", "/v1/sandboxes").send().unwrap().json().unwrap();
    let before = there()["sandboxes"].as_array().unwrap().len();
    for (isolation, status, code) in [("microvm", 503, "unavailable"), ("strong", 400, "invalid_input")] {
        let refused = make(&client, "/v1/sandboxes", json!({ "name": "more", "isolation": isolation }));
        let told = (refused.0, refused.1["code"].as_str(), refused.1["field"].as_str());
        assert_eq!(told, (status, Some(code), Some("/isolation")), "{}", refused.1);
    }
    assert_eq!(there()["sandboxes"].as_array().unwrap().len(), before);
    assert!(steading.stop().is_some_and(|status| status.success()));

    // It is kept with the workspace, and holds where there is nothing to keep it.
    let mut steading = require(launch().env("STEADING_SANDBOX_RUNSC", "/nowhere/runsc").start());
    let client = steading.client();
    assert_eq!(get(&client, "strict"), ["gvisor", "none"]);
    assert_eq!(inside(&client, "strict", kernel), "");
    let (status, refused) = make(&client, "/v1/sandboxes", json!({ "name": "more", "isolation": "gvisor" }));
    let told = (status, refused["code"].as_str(), refused["field"].as_str());
    assert_eq!(told, (503, Some("unavailable"), Some("/isolation")), "{refused}");
    let missing = client.request("GET", "/v1/sandboxes/more").send().unwrap();
    assert_eq!(missing.status, 404, "nothing is made");
    assert_eq!(make(&client, "/v1/sandboxes", json!({ "name": "more", "isolation": "namespaces" })).0, 201);
    assert!(steading.stop().is_some_and(|status| status.success()));

    // Who demands less than the operator has what the operator demands.
    let steading = require(launch().env("STEADING_SANDBOX_ISOLATION", "gvisor").start());
    assert_eq!(inside(&steading.client(), "more", kernel), "own\n");
    assert_eq!(inside(&steading.client(), "strict", &format!("cat file; {kernel}")), "mine\nown\n");
}

#[test]
fn who_demands_gvisor_has_it_or_nothing_and_the_others_are_as_before() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let mut steading = require(Steading::launch().data_dir(&data).start());
    let strict = Neighbour::new(&steading, "strict").unwrap();
    assert!(steading.stop().is_some_and(|status| status.success()));

    let demanded = format!("{}=gvisor", strict.tenant);
    let launch = || Steading::launch().data_dir(&data).env("STEADING_SANDBOX_ISOLATION", &demanded);
    let look = json!({ "command": "dmesg 2>/dev/null | grep -c gVisor; true" });
    let mut steading = require(launch().start());
    let client = steading.client();
    let ran =
        strict.request(&client, "POST", "/v1/tools/shell_run").json(&look).send().unwrap().json().unwrap();
    assert_ne!(ran["stdout"], "0\n", "{ran}");
    assert_eq!(run(&client, look["command"].as_str().unwrap())["stdout"], "0\n");
    assert_eq!(shown(&client)["isolation"], "namespaces");
    assert!(steading.stop().is_some_and(|status| status.success()));

    let steading = require(launch().env("STEADING_SANDBOX_RUNSC", "/nowhere/runsc").start());
    let client = steading.client();
    let refused = strict.request(&client, "POST", "/v1/tools/shell_run").json(&look).send().unwrap();
    let problem = refused.json().unwrap();
    assert_eq!((refused.status, problem["code"].as_str()), (503, Some("unavailable")), "{problem}");
    assert!(problem["message"].as_str().unwrap().contains("gVisor is not installed"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("`apt install runsc`"), "{problem}");
    assert_eq!(run(&client, look["command"].as_str().unwrap())["stdout"], "0\n");
}

#[test]
fn an_environment_that_demands_gvisor_has_it_in_all_its_sandboxes_or_has_none() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let launch = || Steading::launch().data_dir(&data);
    let demand = |client: &Client, isolation: Value| {
        let put = client.clone().without_env().request("PUT", "/v1/envs/default/sandboxes");
        let put = put.json(&json!({ "isolation": isolation })).send().unwrap();
        (put.status, put.json().unwrap())
    };
    let demanded = |client: &Client| {
        let got = client.clone().without_env().request("GET", "/v1/envs/default/sandboxes").send().unwrap();
        got.json().unwrap()["isolation"].clone()
    };
    let kernel = "dmesg 2>/dev/null | grep -q gVisor && echo own || echo shared";
    let mut steading = require(launch().start());
    let client = steading.client().in_env("default");
    assert_eq!(demanded(&client), json!(null));
    assert_eq!(run(&client, &format!("echo mine > file; {kernel}"))["stdout"], "shared\n");
    // What runs and is kept apart by less ends there and then, and keeps its files.
    assert_eq!(demand(&client, json!("gvisor")), (200, json!({ "isolation": "gvisor" })));
    let there = shown(&client);
    assert_eq!((&there["state"], &there["least_isolation"]), (&json!("parked"), &json!("gvisor")));
    assert_eq!(run(&client, &format!("cat file; {kernel}"))["stdout"], "mine\nown\n");
    assert_eq!(shown(&client)["isolation"], "gvisor");
    // What is left out takes nothing back.
    for (place, field) in [("sandboxes", "/isolation"), ("egress", "/allow")] {
        let put = client.clone().without_env().request("PUT", &format!("/v1/envs/default/{place}"));
        let refused = put.json(&json!({})).send().unwrap();
        assert_eq!((refused.status, &refused.json().unwrap()["field"]), (400, &json!(field)));
    }
    assert_eq!(demanded(&client), "gvisor");
    // Nobody gets less by demanding less, and other environments are as they were.
    let weak =
        client.request("POST", "/v1/sandboxes").json(&json!({ "name": "weak", "isolation": "namespaces" }));
    assert_eq!(weak.send().unwrap().json().unwrap()["least_isolation"], "gvisor");
    assert_eq!(inside(&client, "weak", kernel), "own\n");
    client.clone().without_env().output("env_create", &json!({ "slug": "lax" })).unwrap();
    assert_eq!(run(&client.clone().in_env("lax"), kernel)["stdout"], "shared\n");
    // What cannot be is not demanded, nor by whoever only uses it.
    for (isolation, status, code) in [("microvm", 503, "unavailable"), ("strong", 400, "invalid_input")] {
        let (was, refused) = demand(&client, json!(isolation));
        let told = (was, refused["code"].as_str(), refused["field"].as_str());
        assert_eq!(told, (status, Some(code), Some("/isolation")), "{refused}");
    }
    let wanted = json!({ "name": "user", "env": "default", "scopes": ["sandbox:use"] });
    let made = client.clone().without_env().request("POST", "/v1/keys").json(&wanted).send().unwrap();
    let user = Client::new(&steading.ready().url).with_key(made.json().unwrap()["key"].as_str().unwrap());
    assert_eq!(demand(&user, json!(null)).0, 403);
    assert_eq!(demanded(&client), json!("gvisor"));
    assert!(steading.stop().is_some_and(|status| status.success()));

    // It holds where there is nothing to keep it, until it is taken back.
    let steading = require(launch().env("STEADING_SANDBOX_RUNSC", "/nowhere/runsc").start());
    let client = steading.client().in_env("default");
    let refused =
        client.request("POST", "/v1/tools/shell_run").json(&json!({ "command": "true" })).send().unwrap();
    assert_eq!(refused.status, 503, "{:?}", refused.text());
    assert_eq!(run(&client.clone().in_env("lax"), kernel)["stdout"], "shared\n");
    assert_eq!(demand(&client, json!(null)).0, 200);
    assert_eq!(run(&client, &format!("cat file; {kernel}"))["stdout"], "mine\nshared\n");
}
