//! A disk that is full: what needs room is refused by that name, the rest goes on, and with room again all is there.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::Request;
use testkit::{Client, Steading, finish, require, temporary};

use crate::assault_tenants::sha256;

/// More than the small disk has, and than a limited file may have.
const LARGE: usize = 3 << 20;

/// What keeps the server from writing more.
enum Limit {
    /// A file system of its own, and the file that fills it.
    Disk(PathBuf),
    /// Where no file system can be mounted: a largest size of any file, in force until the server is started anew.
    Files,
}

/// A data directory with little room.
struct Small {
    steading: Option<Steading>,
    limit: Limit,
    // The last to go: everything lies in it.
    directory: TempDir,
}

impl Small {
    fn start() -> Self {
        let directory = temporary().unwrap();
        let disk = directory.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "steading-test"])
            .arg(&disk)
            .stderr(Stdio::null())
            .status();
        let limit = match mounted {
            Ok(status) if status.success() => Limit::Disk(disk.join("filler")),
            _ => Limit::Files,
        };
        let mut small = Self { steading: None, limit, directory };
        small.launch();
        small
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("disk/data")
    }

    fn launch(&mut self) {
        self.steading = None;
        self.steading = Some(require(Steading::launch().data_dir(self.data()).start()));
    }

    fn steading(&self) -> &Steading {
        self.steading.as_ref().unwrap()
    }

    /// No room for anything more.
    fn fill(&mut self) {
        match &self.limit {
            Limit::Disk(filler) => {
                let mut file = File::create(filler).unwrap();
                while file.write_all(&[0; 4_096]).is_ok() {}
            }
            Limit::Files => {
                let real = self.steading().command(&[]).get_program().to_owned();
                let script = self.directory.path().join("limited");
                // In blocks of 512 bytes; the signal that usually comes with the limit would end the server.
                let text = format!(
                    "#!/bin/sh\ntrap '' XFSZ\nulimit -f 4096\nexec '{}' \"$@\"\n",
                    Path::new(&real).display()
                );
                fs::write(&script, text).unwrap();
                fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
                self.steading = None;
                let limited = Steading::launch().binary(script).data_dir(self.data()).start();
                self.steading = Some(require(limited));
            }
        }
    }

    fn make_room(&mut self) {
        match &self.limit {
            Limit::Disk(filler) => fs::remove_file(filler).unwrap(),
            Limit::Files => self.launch(),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.steading = None;
        if let Limit::Disk(filler) = &self.limit {
            let _ = Command::new("umount").arg("-l").arg(filler.parent().unwrap()).status();
        }
    }
}

fn put(client: &Client, content: &str) -> testkit::http::Response {
    let path = format!("/v1/blobs/{}", sha256(content));
    client.request("PUT", &path).body(content).send().unwrap()
}

fn state(steading: &Steading) -> Value {
    let client = steading.client();
    let port = steading.authority().rsplit(':').next().unwrap();
    let site = Request::get(&format!("http://default.localhost:{port}/")).send().unwrap();
    let mut app = client.output("app_describe", &json!({})).unwrap();
    app.as_object_mut().unwrap().remove("url");
    json!({
        "app": app,
        "rows": client.output("db_query", &json!({ "sql": "SELECT title FROM notes WHERE length(title) < 10" })).unwrap(),
        "site": [site.status, site.text().unwrap()],
    })
}

/// Whether it is ready, and what is not.
fn readiness(steading: &Steading) -> (u16, Value) {
    let answer = Request::get(&format!("{}/readyz", steading.ready().url)).send().unwrap();
    (answer.status, answer.json().unwrap()["not_ready"].clone())
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let mut small = Small::start();
    let manifest = json!({
        "database": { "tables": { "notes": { "columns": { "title": "text!" } } } },
        "site": { "files": { "index.html": "kept" } },
    });
    let client = small.steading().client();
    client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    client.output("db_execute", &json!({ "sql": "INSERT INTO notes (title) VALUES ('kept')" })).unwrap();
    let before = state(small.steading());
    assert_eq!(readiness(small.steading()), (200, Value::Null));
    small.fill();
    let client = small.steading().client();
    assert_eq!(state(small.steading()), before);
    if let Limit::Disk(_) = small.limit {
        let (status, lacking) = readiness(small.steading());
        assert_eq!(
            (status, &lacking[0]["part"], lacking.as_array().map(Vec::len)),
            (503, &json!("disk"), Some(1))
        );
    }

    let large = "x".repeat(LARGE);
    let next = json!({
        "database": { "tables": { "notes": { "columns": { "title": "text!", "more": "int" } } } },
        "site": { "files": { "index.html": large } },
    });
    let rows = format!("title\n{}", "a row of a file that is too large\n".repeat(LARGE / 34));
    let many = format!(
        "INSERT INTO notes (title) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         SELECT hex(zeroblob(500)) FROM n",
        LARGE / 1_000
    );
    let mut calls = vec![
        ("app_apply", json!({ "manifest": next })),
        ("site_deploy", json!({ "files": { "index.html": large } })),
        ("db_load", json!({ "table": "notes", "format": "csv", "text": rows })),
        ("db_execute", json!({ "sql": many })),
    ];
    if let Limit::Disk(_) = small.limit {
        calls.extend([
            ("app_apply", json!({ "manifest": { "site": { "files": { "index.html": "small" } } } })),
            ("db_execute", json!({ "sql": "INSERT INTO notes (title) VALUES ('small')" })),
            ("secret_set", json!({ "name": "TOKEN", "value": "small" })),
            ("env_create", json!({ "slug": "small" })),
        ]);
    }
    for (tool, input) in &calls {
        let answer = client.call(tool, input).unwrap();
        assert!(answer.status >= 500, "{tool}: {:#}", answer.body);
        // A file that may not grow is no full disk, and has no words of its own.
        if let Limit::Disk(_) = small.limit {
            assert_eq!(answer.code(), "unavailable", "{tool}: {:#}", answer.body);
            let said = format!("{} {}", answer.body["message"], answer.body["hint"]);
            assert!(said.contains("disk"), "{tool}: {said}");
        }
        assert_eq!(state(small.steading()), before, "{tool}");
    }
    let answer = put(&client, &large);
    assert!(answer.status >= 500, "{:?}", answer.text());

    if let Limit::Disk(filler) = &small.limit {
        // A start on the full disk says so, or goes well; either way it loses nothing.
        let filler = filler.clone();
        let any = require(Steading::start());
        small.steading.as_mut().unwrap().kill();
        let mut serve = any.command(&["serve", "--json", "--listen", "127.0.0.1:0", "--data-dir"]);
        serve.arg(small.data());
        let finished = finish(serve, Duration::from_secs(3)).unwrap();
        let said = format!("{}{}", finished.stdout, finished.stderr);
        if let Some(status) = finished.status {
            assert_eq!(status.code(), Some(7), "{said}");
            assert!(said.contains("make room") || said.contains("space"), "{said}");
        }
        fs::remove_file(&filler).unwrap();
        small.launch();
        assert_eq!(state(small.steading()), before);
        small.fill();
        small.steading().client().call("db_execute", &calls[3].1).unwrap();
    }
    small.make_room();
    let client = small.steading().client();
    assert_eq!(state(small.steading()), before);
    assert_eq!(readiness(small.steading()), (200, Value::Null));
    if let Limit::Disk(_) = small.limit {
        // More often than there are connections, so that each has its turn.
        for n in 0..20 {
            client.output("secret_set", &json!({ "name": format!("AGAIN_{n}"), "value": "x" })).unwrap();
        }
    }
    for (tool, input) in &calls {
        let answer = client.call(tool, input).unwrap();
        assert_eq!(answer.status, 200, "{tool}: {:#}", answer.body);
    }
    let content = "y".repeat(LARGE / 4);
    assert_eq!(put(&client, &content).status, 201);
}
