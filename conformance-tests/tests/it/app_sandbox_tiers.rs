//! Workspaces that nobody needs: archived with everything in them, and back with the next call, whatever ends meanwhile.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use conformance_tests::Incoming;
use serde_json::{Value, json};
use testkit::{Client, Fsync, Launch, Postgres, SeaweedFs, Steading, eventually, require};

/// For what takes a second or two on an idle machine.
const LIMIT: Duration = Duration::from_secs(90);

/// Everything that is kept of a tree, and what is in it.
const LISTING: &str = "cd /workspace && find . -not -type d -printf '%p %y %m %n %l %T@\\n' | sort && find . -type d -printf '%p %m\\n' | sort \
                       && find . -type f -print0 | sort -z | xargs -0 sha256sum";

const FILL: &str = "mkdir -p app/src empty && for i in $(seq 1 300); do echo file $i > app/src/$i.txt; done \
                    && printf '#!/bin/sh\\necho it runs\\n' > app/run && chmod 755 app/run && echo mine > secret && chmod 600 secret \
                    && ln app/run app/again && ln -s ../app/run empty/link && head -c 3000000 /dev/urandom > large";

fn quick() -> Launch {
    Steading::launch()
        .env("STEADING_SANDBOX_FREEZE_AFTER_S", "1")
        .env("STEADING_SANDBOX_PARK_AFTER_S", "1")
        .env("STEADING_SANDBOX_ARCHIVE_AFTER_S", "1")
}

fn run(client: &Client, command: &str) -> String {
    let ran = client.output("shell_run", &json!({ "command": command, "timeout_s": 120 })).unwrap();
    assert_eq!(ran["exit_code"], 0, "{command}: {ran}");
    ran["stdout"].as_str().unwrap().to_owned()
}

/// A digest of all that the workspace shows.
fn listed(client: &Client) -> String {
    run(client, &format!("({LISTING}) | sha256sum"))
}

/// The names in a directory; none where it is not there.
fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Workspaces and snapshots that lie in a data directory.
fn lying(data: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for driver in names(&data.join("sandboxes/workspaces")) {
        for kind in ["workspaces", "snapshots"] {
            let directory = data.join("sandboxes/workspaces").join(&driver).join(kind);
            found.extend(names(&directory).iter().map(|name| directory.join(name)));
        }
    }
    found
}

/// Waits until nothing lies in the data directory any more.
pub fn archived(server: &Steading) {
    let data = &server.ready().data_dir;
    let gone = eventually(LIMIT, || lying(data).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}\n{}", lying(data), server.log());
}

/// The objects of one kind in the store of checkpoints that is a directory.
fn objects(data: &Path, kind: &str) -> Vec<String> {
    let root = data.join("checkpoints");
    names(&root).iter().flat_map(|workspace| names(&root.join(workspace).join(kind))).collect()
}

/// Calls a tool that wants a dry run first.
fn confirmed(client: &Client, tool: &str, input: &Value) -> Value {
    let with = |name: &str, value: Value| {
        let mut input = input.clone();
        input[name] = value;
        client.output(tool, &input).unwrap()
    };
    let plan = with("dry_run", json!(true));
    with("confirm", plan["confirm"].clone())
}

#[test]
fn a_workspace_that_nobody_needs_is_archived_and_back_with_the_next_call() {
    let server = require(quick().start());
    server.client().without_env().output("env_create", &json!({ "slug": "away" })).unwrap();
    let client = server.client().in_env("away");
    let data = server.ready().data_dir.clone();
    run(&client, FILL);
    client.output("workspace_snapshot", &json!({ "name": "first" })).unwrap();
    let first = listed(&client);
    run(&client, "rm -r app/src && echo since > since");
    let second = listed(&client);
    archived(&server);
    assert_eq!((objects(&data, "checkpoints").len(), objects(&data, "archives").len()), (2, 2));
    assert_eq!(listed(&client), second);
    assert_eq!(
        run(&client, "app/run; cat empty/link | tail -1; cat secret"),
        "it runs\necho it runs\nmine\n"
    );
    // What is archived again is only what has changed, and what came before it goes.
    run(&client, "echo more > more");
    let third = listed(&client);
    archived(&server);
    let two = eventually(LIMIT, || (objects(&data, "checkpoints").len() == 2).then_some(()));
    assert!(two.is_some(), "{:?}", objects(&data, "checkpoints"));
    assert_eq!(listed(&client), third);
    // A snapshot of what is away is taken of what it was, and one that is away is returned to.
    archived(&server);
    client.output("workspace_snapshot", &json!({ "name": "second" })).unwrap();
    confirmed(&client, "workspace_restore", &json!({ "snapshot": "first" }));
    assert_eq!(listed(&client), first);
    archived(&server);
    confirmed(&client, "workspace_restore", &json!({ "snapshot": "second" }));
    assert_eq!(listed(&client), third);
    archived(&server);
    confirmed(&server.client().without_env(), "env_delete", &json!({ "env": "away" }));
    let left = ["checkpoints", "manifests", "archives"].map(|kind| objects(&data, kind));
    assert_eq!(left, [const { Vec::<String>::new() }; 3], "an archive goes with its workspace");
}

#[test]
fn who_only_looks_keeps_no_workspace_from_being_archived() {
    let server = require(quick().start());
    let client = server.client();
    let shown = || client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    run(&client, &format!("{FILL} && head -c 100000000 /dev/urandom > larger"));
    client.output("workspace_snapshot", &json!({ "name": "first" })).unwrap();
    let away = eventually(LIMIT, || (shown()["state"] == "archived").then_some(()));
    assert!(away.is_some(), "{}\n{}", shown(), server.log());
    // What is brought back for any reason was used then.
    let before = shown();
    let restore = client.request("POST", "/v1/sandboxes/default/restore");
    assert_eq!(restore.json(&json!({ "snapshot": "first" })).send().unwrap().status, 200);
    let [before, after] = [before, shown()].map(|it| it["used_at"].as_str().unwrap().to_owned());
    assert!(before < after, "{before} {after}");
}

#[test]
fn an_end_in_the_middle_of_archiving_or_coming_back_loses_nothing() {
    let mut server = require(quick().start());
    let data = server.ready().data_dir.clone();
    run(&server.client(), FILL);
    let mut expected = listed(&server.client());
    // From the first sign that it is archived on, later and later; some fall between its steps, some within one.
    for (round, wait) in [0, 5, 15, 30, 60, 120, 250].into_iter().enumerate() {
        let checkpoints = objects(&data, "checkpoints").len();
        let archives = objects(&data, "archives").len();
        let begun = eventually(LIMIT, || {
            let begun = objects(&data, "archives").len() != archives
                || objects(&data, "checkpoints").len() != checkpoints;
            (begun || lying(&data).is_empty()).then_some(())
        });
        assert!(begun.is_some(), "round {round}: {}", server.log());
        std::thread::sleep(Duration::from_millis(wait));
        server.kill();
        server = server.restart().unwrap();
        assert_eq!(listed(&server.client()), expected, "round {round}");
        run(&server.client(), &format!("echo {round} > round"));
        expected = listed(&server.client());
    }
    for (round, wait) in [0, 5, 20, 60, 150].into_iter().enumerate() {
        archived(&server);
        let client = server.client();
        let calling = std::thread::spawn(move || client.call("shell_run", &json!({ "command": "true" })));
        let staging = || !lying(&data).is_empty();
        assert!(eventually(LIMIT, || staging().then_some(())).is_some(), "round {round}: {}", server.log());
        std::thread::sleep(Duration::from_millis(wait));
        server.kill();
        // It was answered, or it was not.
        let _ = calling.join().unwrap();
        server = server.restart().unwrap();
        assert_eq!(listed(&server.client()), expected, "coming back, round {round}");
    }
}

#[test]
fn what_is_spoilt_in_the_store_is_never_taken_for_the_workspace() {
    let server = require(quick().start());
    let (client, data) = (server.client(), server.ready().data_dir.clone());
    run(&client, FILL);
    let before = listed(&client);
    archived(&server);
    let workspace = data.join("checkpoints").join(&names(&data.join("checkpoints"))[0]);
    for kind in ["archives", "manifests"] {
        let path = workspace.join(kind).join(&names(&workspace.join(kind))[0]);
        let whole = std::fs::read(&path).unwrap();
        let mut spoilt = whole.clone();
        spoilt[whole.len() / 2] ^= 1;
        std::fs::write(&path, &spoilt).unwrap();
        let answer = client.call("shell_run", &json!({ "command": "ls" })).unwrap();
        assert_eq!((answer.status, answer.code()), (500, "internal"), "{answer:?}");
        std::fs::remove_file(&path).unwrap();
        let answer = client.call("shell_run", &json!({ "command": "ls" })).unwrap();
        assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
        std::fs::write(&path, whole).unwrap();
    }
    assert_eq!(listed(&client), before);
    // Files that were there and are not: nobody gets an empty directory for them.
    drop(client);
    let mut server = server;
    server.stop();
    let root = data.join("sandboxes/workspaces");
    std::fs::rename(&root, root.with_extension("away")).unwrap();
    let server = server.restart().unwrap();
    let answer = server.client().call("shell_run", &json!({ "command": "ls" })).unwrap();
    assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
    let mut server = server;
    server.stop();
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::rename(root.with_extension("away"), &root).unwrap();
    assert_eq!(listed(&server.restart().unwrap().client()), before);
}

/// A way to an object store on which, while `lies` is so, the last byte of each archive that is read comes out wrong.
/// Gives its address.
fn lying_store(to: &str, lies: &Arc<AtomicBool>, lied: &Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (to, lies, lied) = (to.to_owned(), Arc::clone(lies), Arc::clone(lied));
    // It ends with the test.
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let (to, lies, lied) = (to.clone(), Arc::clone(&lies), Arc::clone(&lied));
            std::thread::spawn(move || {
                let mut near = BufReader::new(near);
                if let Ok(Some(asked)) = Incoming::read(&mut near) {
                    let mut far = TcpStream::connect(&to).unwrap();
                    write!(far, "{} {} HTTP/1.1\r\n", asked.method, asked.path).unwrap();
                    for (name, value) in &asked.headers {
                        if !name.eq_ignore_ascii_case("connection") {
                            write!(far, "{name}: {value}\r\n").unwrap();
                        }
                    }
                    far.write_all(b"connection: close\r\n\r\n").unwrap();
                    far.write_all(&asked.body).unwrap();
                    let mut answer = Vec::new();
                    far.read_to_end(&mut answer).unwrap();
                    let archive = asked.method == "GET" && asked.path.contains("/archives/");
                    if archive && lies.load(SeqCst) && answer.starts_with(b"HTTP/1.1 2") {
                        *answer.last_mut().unwrap() ^= 1;
                        lied.fetch_add(1, SeqCst);
                    }
                    // The answer's end is that of its connection.
                    let _ = near.get_mut().write_all(&answer);
                }
            });
        }
    });
    address
}

#[test]
fn an_archive_that_the_store_has_spoilt_is_noticed_before_the_files_go() {
    let seaweed = require(SeaweedFs::start());
    let (lies, lied) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let mut launch = quick();
    for (name, value) in seaweed.settings() {
        let through =
            value.strip_prefix("http://").map(|to| format!("http://{}", lying_store(to, &lies, &lied)));
        launch = launch.env(name, through.unwrap_or_else(|| value.to_owned()));
    }
    let server = require(launch.start());
    let (client, data) = (server.client(), server.ready().data_dir.clone());
    let shown = || client.request("GET", "/v1/sandboxes/default").send().unwrap().json().unwrap();
    run(&client, FILL);
    let before = listed(&client);
    // It is noticed, and the files stay, with nothing that was kept of them.
    let noticed = eventually(LIMIT, || {
        assert!(!lying(&data).is_empty() && shown()["state"] != "archived", "{}", shown());
        server.log().contains("a workspace could not be archived").then_some(())
    });
    assert!(noticed.is_some() && lied.load(SeqCst) > 0, "{}\n{}", shown(), server.log());
    assert!(!lying(&data).is_empty() && shown()["state"] != "archived", "{}", shown());
    assert_eq!((listed(&client), seaweed.names("workspaces").unwrap().len()), (before.clone(), 1));
    // It is not tried again for a while but by a platform that starts.
    lies.store(false, SeqCst);
    let server = server.restart().unwrap();
    archived(&server);
    assert_eq!(listed(&server.client()), before);
}

#[test]
fn what_one_machine_has_archived_runs_on_another_with_the_same_files() {
    let seaweed = require(SeaweedFs::start());
    let postgres = require(Postgres::start(Fsync::Off));
    let database = postgres.fresh_database().unwrap();
    let launch = || {
        let mut launch = quick().env("STEADING_DATABASE_URL", &database);
        for (name, value) in seaweed.settings() {
            launch = launch.env(name, value);
        }
        launch
    };
    let mut one = require(launch().start());
    run(&one.client(), FILL);
    let before = listed(&one.client());
    archived(&one);
    assert!(!seaweed.names("workspaces").unwrap().is_empty());
    one.stop();
    // What the other machine is given: the keys and the environments, and nothing of the sandboxes.
    let other = tempfile::tempdir().unwrap();
    for name in ["keys", "operator.key", "envs"] {
        let copied =
            Command::new("cp").arg("-a").arg(one.ready().data_dir.join(name)).arg(other.path()).status();
        assert!(copied.unwrap().success(), "{name}");
    }
    let mut two = require(launch().data_dir(other.path()).start());
    assert_eq!(listed(&two.client()), before);
    assert_eq!(run(&two.client(), "app/run"), "it runs\n");
    run(&two.client(), "echo two > two");
    let after = listed(&two.client());
    two.kill();
    // Where they are worked on now is where they are; the first machine does not make up others.
    let mut one = one.restart().unwrap();
    let answer = one.client().call("shell_run", &json!({ "command": "ls" })).unwrap();
    assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
    one.stop();
    let two = two.restart().unwrap();
    assert_eq!(listed(&two.client()), after);
    archived(&two);
    drop(two);
    assert_eq!(listed(&one.restart().unwrap().client()), after);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "where this user's caches are")]
fn a_new_workspace_has_below_usr_local_what_its_template_says() {
    // One directory for all tests of this user, as an operator brings one along.
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let templates = home.join(".cache/steading/templates");
    let [node, python] = ["node", "python"].map(|template| {
        let launch = quick().env("STEADING_SANDBOX_TEMPLATE", template);
        require(launch.env("STEADING_SANDBOX_TEMPLATES_DIR", &templates).start())
    });
    assert_eq!(
        run(&node.client(), "command -v node npm npx"),
        "/usr/local/bin/node\n/usr/local/bin/npm\n/usr/local/bin/npx\n"
    );
    assert_eq!(run(&node.client(), "node -e 'console.log(6 * 7)'"), "42\n");
    assert_eq!(
        run(&python.client(), "command -v pip; pip --version | cut -d' ' -f1"),
        "/usr/local/bin/pip\npip\n"
    );
    // Nobody writes there, whoever they are inside.
    let refused =
        "touch /usr/local/bin/x 2>&1; rm -f /usr/local/bin/node 2>&1; echo x > /usr/local/bin/node; true";
    assert!(run(&node.client(), refused).lines().count() >= 2);
    assert_eq!(run(&node.client(), "node -e 'console.log(6 * 7)'"), "42\n");
    // It is the same template after the way through the archive.
    archived(&node);
    assert_eq!(run(&node.client(), "node -e 'console.log(7 * 7)'"), "49\n");
    let wrong = Steading::launch().env("STEADING_SANDBOX_TEMPLATE", "nodejs").start();
    assert!(format!("{wrong:?}").contains("must be one of blank, node, python"), "{wrong:?}");
}
