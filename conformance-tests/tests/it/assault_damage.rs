//! Ports and directories that cannot be had, files that are damaged, missing or open to others: each is said with its
//! name and what to do, the rest goes on working, and nothing is lost by it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use testkit::http::Request;
use testkit::{Client, Finished, Steading, finish, require, temporary};

/// As long as a start that fails may take.
const LIMIT: Duration = Duration::from_secs(30);

/// A data directory with two environments, `default` and `other`, at one release each, whose server has ended.
fn left_behind() -> (TempDir, PathBuf) {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let mut steading = require(Steading::launch().data_dir(&data).start());
    let client = steading.client();
    client.output("env_create", &json!({ "slug": "other" })).unwrap();
    for env in ["default", "other"] {
        let manifest = json!({
            "database": { "tables": { "notes": { "columns": { "title": "text!" } } } },
            "site": { "files": { "index.html": format!("site of {env}") } },
        });
        let app = client.clone().in_env(env);
        app.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        let insert = json!({ "sql": "INSERT INTO notes (title) VALUES ('kept')" });
        app.output("db_execute", &insert).unwrap();
    }
    assert!(steading.stop().is_some_and(|status| status.success()));
    (directory, data)
}

fn start(data: &Path) -> Steading {
    require(Steading::launch().data_dir(data).start())
}

/// Runs `serve`, which must end by itself. `any` is a running server, which knows the binary.
fn serve(any: &Steading, data: &Path, listen: &str) -> Finished {
    let mut serve = any.command(&["serve", "--json", "--listen", listen, "--data-dir"]);
    serve.arg(data);
    finish(serve, LIMIT).unwrap()
}

/// That it ended with `exit`, and said in one problem on stderr or stdout what is wrong and what to do.
#[track_caller]
fn assert_refused(finished: &Finished, exit: i32, says: &[&str]) {
    let said = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.status.and_then(|status| status.code()), Some(exit), "{said}");
    for word in says {
        assert!(said.contains(word), "{word:?} is not said in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// Every file below `directory` with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                found.insert(entry.path(), fs::read(entry.path()).unwrap());
            }
        }
    }
    // The lock's note says who looked at it last, and an engine's empty log comes and goes.
    found.retain(|path, bytes| !path.ends_with("lock") && !bytes.is_empty());
    found.retain(|path, _| path.extension().is_none_or(|extension| extension != "db-shm"));
    found
}

fn site(steading: &Steading, env: &str) -> (u16, String) {
    let port = steading.authority().rsplit(':').next().unwrap();
    let response = Request::get(&format!("http://{env}.localhost:{port}/")).send().unwrap();
    (response.status, response.text().unwrap().to_owned())
}

/// That an environment is as [`left_behind`] left it, and takes a new release.
#[track_caller]
fn assert_whole(steading: &Steading, env: &str) {
    let client = steading.client().in_env(env);
    assert_eq!(site(steading, env), (200, format!("site of {env}")));
    let rows = client.output("db_query", &json!({ "sql": "SELECT title FROM notes" })).unwrap();
    assert_eq!(rows["rows"], json!([["kept"]]));
    let files = json!({ "index.html": "next" });
    client.output("site_deploy", &json!({ "files": files })).unwrap();
    client.output("app_rollback", &json!({ "release": 1 })).unwrap();
    assert_eq!(site(steading, env), (200, format!("site of {env}")));
}

/// Where an environment lies.
fn directory_of(data: &Path, client: &Client, env: &str) -> PathBuf {
    let app = client.clone().in_env(env).request("GET", &format!("/v1/envs/{env}")).send().unwrap();
    data.join("envs").join(app.json().unwrap()["env"].as_str().unwrap())
}

#[test]
fn a_port_that_is_taken_is_said_and_the_data_directory_is_not_touched() {
    let running = require(Steading::start());
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let refused = serve(&running, &data, running.authority());
    assert_refused(&refused, 7, &[running.authority(), "taken", "--listen"]);
    assert!(!data.exists());
    running.client().output("app_describe", &json!({})).unwrap();
}

#[test]
fn a_data_directory_in_use_names_who_uses_it() {
    let running = require(Steading::start());
    let data = running.ready().data_dir.clone();
    let refused = serve(&running, &data, "127.0.0.1:0");
    let (pid, url) = (running.id().to_string(), &running.ready().url);
    assert_refused(&refused, 5, &[&data.display().to_string(), &pid, url, "--data-dir"]);
    running.client().output("app_describe", &json!({})).unwrap();
}

#[test]
fn two_starts_at_once_make_one_server() {
    let any = require(Steading::start());
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let first = require(Steading::launch().data_dir(&data).start());
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| serve(&any, &data, "127.0.0.1:0"))).collect();
        for start in starts {
            assert_refused(&start.join().unwrap(), 5, &["in use"]);
        }
    });
    first.client().output("app_describe", &json!({})).unwrap();
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let any = require(Steading::start());
    let directory = temporary().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "kept").unwrap();
    for data in [file.clone(), file.join("below"), PathBuf::from("/proc/steading")] {
        assert_refused(&serve(&any, &data, "127.0.0.1:0"), 7, &[&data.display().to_string(), "--data-dir"]);
    }
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

#[test]
fn a_control_database_that_is_damaged_or_gone_is_not_made_anew() {
    let any = require(Steading::start());
    let (_directory, data) = left_behind();
    let file = data.join("control.db");
    let whole = fs::read(&file).unwrap();
    let mut middle = whole.clone();
    middle[8_192..].fill(0xa5);
    let mut header = whole.clone();
    header[..100].fill(0xa5);
    let damages: [(&str, Option<&[u8]>); 6] = [
        ("its header", Some(&header)),
        ("its middle", Some(&middle)),
        ("its end", Some(&whole[..whole.len() / 2])),
        ("another file", Some(b"this is not a database at all")),
        ("empty", Some(b"")),
        ("gone", None),
    ];
    for (what, bytes) in damages {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let before = contents(&data);
        let refused = serve(&any, &data, "127.0.0.1:0");
        assert_refused(&refused, 7, &["control.db", "backup"]);
        let after = contents(&data);
        let changed = before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes));
        assert_eq!(changed.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{what}");
    }
    fs::write(&file, &whole).unwrap();
    let steading = start(&data);
    assert_whole(&steading, "default");
    assert_whole(&steading, "other");
}

#[test]
fn a_master_key_that_is_gone_or_anothers_is_not_made_anew() {
    let any = require(Steading::start());
    let (_directory, data) = left_behind();
    let file = data.join("keys/master");
    let whole = fs::read(&file).unwrap();
    let others = [0x5a; 32];
    for bytes in [None, Some(&b""[..]), Some(&whole[..16]), Some(&others[..])] {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        assert_refused(&serve(&any, &data, "127.0.0.1:0"), 7, &["keys/master", "restore"]);
        assert_eq!(fs::read(&file).ok().as_deref(), bytes);
    }
    fs::write(&file, &whole).unwrap();
    assert_whole(&start(&data), "default");
}

#[test]
fn keys_that_others_can_read_are_closed_to_them() {
    let (_directory, data) = left_behind();
    let files = ["operator.key", "keys/master", "keys", ""];
    for file in files {
        let open = if file.contains('.') || file.contains('/') { 0o666 } else { 0o777 };
        fs::set_permissions(data.join(file), fs::Permissions::from_mode(open)).unwrap();
    }
    let steading = start(&data);
    for file in files {
        let mode = fs::metadata(data.join(file)).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{file:?}");
    }
    assert_whole(&steading, "default");
}

#[test]
fn an_environment_that_is_damaged_or_gone_says_so_and_the_others_go_on() {
    let (_directory, data) = left_behind();
    let mut steading = start(&data);
    let home = directory_of(&data, &steading.client(), "default");
    steading.stop();
    let file = home.join("main.db");
    let whole = fs::read(&file).unwrap();
    let mut header = whole.clone();
    header[..4_096].fill(0xa5);
    type Damage<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let aside = data.join("aside");
    let damages: [Damage<'_>; 5] = [
        ("its header", Box::new(|| fs::write(&file, &header).unwrap())),
        ("its end", Box::new(|| fs::write(&file, &whole[..5_000]).unwrap())),
        ("empty", Box::new(|| fs::write(&file, b"").unwrap())),
        ("gone", Box::new(|| fs::remove_file(&file).unwrap())),
        ("its directory gone", Box::new(|| fs::rename(&home, &aside).unwrap())),
    ];
    for (what, damage) in damages {
        damage();
        let steading = start(&data);
        let client = steading.client();
        let calls = [
            ("db_query", json!({ "sql": "SELECT title FROM notes" })),
            ("app_describe", json!({})),
            ("db_execute", json!({ "sql": "INSERT INTO notes (title) VALUES ('lost')" })),
            ("app_plan", json!({ "manifest": { "name": "another" } })),
        ];
        for (tool, input) in calls {
            let answer = client.call(tool, &input).unwrap();
            assert!([404, 503].contains(&answer.status), "{what}, {tool}: {:#}", answer.body);
            let said = answer.body["message"].as_str().unwrap();
            assert!(said.contains("environment"), "{what}, {tool}: {said}");
            let hint = answer.body["hint"].as_str().unwrap_or_default();
            assert!(hint.contains("backup"), "{what}, {tool}: {:#}", answer.body);
        }
        assert!([404, 503].contains(&site(&steading, "default").0), "{what}");
        assert_whole(&steading, "other");
        drop(steading);
        if aside.exists() {
            fs::remove_dir_all(&home).ok();
            fs::rename(&aside, &home).unwrap();
        }
        for rest in ["main.db-wal", "main.db-shm"] {
            fs::remove_file(home.join(rest)).ok();
        }
        fs::write(&file, &whole).unwrap();
    }
    assert_whole(&start(&data), "default");
}

#[test]
fn a_blob_that_is_damaged_or_gone_is_not_served_and_a_new_release_mends_it() {
    let (_directory, data) = left_behind();
    let steading = start(&data);
    let blobs = directory_of(&data, &steading.client(), "default").join("blobs");
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let length = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![b'!'; usize::try_from(length).unwrap()]).unwrap();
    }
    let port = steading.authority().rsplit(':').next().unwrap();
    // Bytes under a wrong hash never arrive whole: the connection breaks, or it is an error.
    if let Ok(response) = Request::get(&format!("http://default.localhost:{port}/")).send() {
        assert!(response.status >= 500, "{}: {:?}", response.status, response.text());
    }
    assert_whole(&steading, "other");
    let manifest = json!({ "site": { "files": { "index.html": "site of default" } } });
    let applied = steading.client().call("app_apply", &json!({ "manifest": manifest })).unwrap();
    assert_eq!(applied.status, 200, "{:#}", applied.body);
    assert_eq!(site(&steading, "default"), (200, "site of default".to_owned()));
}
