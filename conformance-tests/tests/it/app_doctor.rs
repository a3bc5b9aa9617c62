//! What `doctor` finds of sandboxes, and what it mends. Root only: without it there is nothing to mend.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use conformance_tests::Neighbour;
use serde_json::{Value, json};
use testkit::{Steading, built_binary, finish, require, temporary};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `doctor` on a data directory, and gives its report with the exit code.
pub fn doctor(data: &Path, arguments: &[&str]) -> (Value, i32) {
    let binary = require(built_binary().ok_or(testkit::Unavailable::NotBuilt));
    let mut doctor = Command::new(binary);
    doctor.args(["doctor", "--json", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(arguments);
    doctor.current_dir("/").env_remove("STEADING_URL");
    let finished = finish(doctor, LIMIT).unwrap();
    let report = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"));
    (report, finished.status.and_then(|status| status.code()).unwrap_or(-1))
}

/// The checks of that name: verdict, finding, hint.
fn checks(report: &Value, name: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == name);
    checks.map(|check| (text(&check["verdict"]), text(&check["finding"]), text(&check["hint"]))).collect()
}

/// What is mounted there, which goes before its directory does.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn it_makes_a_sandbox_and_says_how_it_is_kept_apart_and_bounded() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let (report, code) = doctor(&data, &[]);
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    let found = checks(&report, "sandboxes");
    let verdicts: Vec<&str> = found.iter().map(|(verdict, ..)| verdict.as_str()).collect();
    assert_eq!(verdicts, ["ok"; 6], "{found:?}");
    assert_eq!(found[0].1, "one was made and ended; isolation: namespaces");
    for (check, about) in
        found[1..].iter().zip(["limits", "pausing", "users", "Landlock", "isolation: gvisor"])
    {
        assert!(check.1.contains(about), "{check:?}");
    }
    assert!(!data.exists(), "nothing is left");
    // Beside a platform that runs, too.
    let steading = require(Steading::launch().data_dir(&data).start());
    steading.client().output("shell_run", &json!({ "command": "true" })).unwrap();
    let (report, _) = doctor(&data, &[]);
    let found = checks(&report, "sandboxes");
    assert!(found.len() == 6 && found.iter().all(|(verdict, ..)| verdict == "ok"), "{found:?}");
    let (report, code) = doctor(&data, &["--fix"]);
    let found = checks(&report, "workspaces");
    assert_eq!((code, found[0].0.as_str()), (7, "failed"), "{report}");
    assert!(found[0].2.contains("stop it"), "{found:?}");
}

#[test]
fn where_namespaces_are_blocked_it_names_the_switch() {
    let binary = require(built_binary().ok_or(testkit::Unavailable::NotBuilt));
    let directory = temporary().unwrap();
    // Root of a container without privileges, in which no further namespaces are allowed.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let mut doctor = Command::new("unshare");
    doctor.args(["--user", "--map-root-user", "/bin/sh", "-c", script, "sh"]).arg(binary);
    doctor.args(["doctor", "--json", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
    let finished = finish(doctor, LIMIT).unwrap();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let found = checks(&report, "sandboxes");
    assert_eq!(found[0].0, "failed", "{report}");
    assert_eq!(found[0].2, "`sysctl -w user.max_user_namespaces=65536`");
    assert!(
        found[1..].iter().any(|(verdict, finding, _)| verdict == "warning" && finding.contains("degraded"))
    );
}

#[test]
fn it_makes_a_pool_once_in_which_workspaces_are_held_to_their_size() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let (report, _) = doctor(&data, &[]);
    let before = checks(&report, "workspaces");
    let btrfs = before[0].1.contains("btrfs");
    assert!(btrfs || before[0].0 == "warning" && before[0].2.contains("doctor --fix"), "{before:?}");
    let _mounted = Mounted(data.join("sandboxes/workspaces/pool"));
    let (report, code) = doctor(&data, &["--fix"]);
    assert_eq!(code, 0, "{report}");
    let made = checks(&report, "workspaces");
    assert!(btrfs || made[0].0 == "ok" && made[0].1.starts_with("made a pool of btrfs"), "{made:?}");
    let (again, code) = doctor(&data, &["--fix"]);
    let found = checks(&again, "workspaces");
    assert!(code == 0 && found[0].0 == "ok" && found[0].1.contains("btrfs"), "{found:?}");
    assert!(!found[0].1.contains("made"), "{found:?}");
    let small = Steading::launch().env("STEADING_SANDBOX_WORKSPACE_BYTES", "536870912");
    let mut steading = require(small.data_dir(&data).start());
    let fill = json!({ "command": "head -c 900M /dev/urandom > big; stat -c %s big" });
    let ran = steading.client().output("shell_run", &fill).unwrap();
    assert!(ran["stderr"].as_str().unwrap().contains("Disk quota exceeded"), "{ran}");
    let size: u64 = ran["stdout"].as_str().unwrap().trim().parse().unwrap();
    assert!(size <= 512 << 20, "{ran}");
    let emptied =
        steading.client().output("shell_run", &json!({ "command": "rm big && echo again" })).unwrap();
    assert_eq!(emptied["stdout"], "again\n");
    assert!(steading.stop().is_some_and(|status| status.success()));
}

#[test]
fn a_tenant_who_demands_more_than_there_is_gets_no_sandbox_and_the_others_do() {
    let directory = temporary().unwrap();
    let data = directory.path().join("data");
    let mut steading = require(Steading::launch().data_dir(&data).start());
    let strict = Neighbour::new(&steading, "locked").unwrap();
    assert!(steading.stop().is_some_and(|status| status.success()));
    let demanded = format!("{}=microvm", strict.tenant);
    let steading =
        require(Steading::launch().data_dir(&data).env("STEADING_SANDBOX_ISOLATION", &demanded).start());
    let client = steading.client();
    let input = json!({ "command": "true" });
    let run = strict.request(&client, "POST", "/v1/tools/shell_run");
    let refused = run.json(&input).send().unwrap();
    let problem = refused.json().unwrap();
    assert_eq!((refused.status, problem["code"].as_str()), (503, Some("unavailable")), "{problem}");
    assert!(problem["message"].as_str().unwrap().contains("microvm"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("sandbox.isolation"), "{problem}");
    let sandboxes = |method| strict.request(&client, method, "/v1/sandboxes");
    assert_eq!(sandboxes("POST").json(&json!({ "name": "none" })).send().unwrap().status, 503);
    assert_eq!(sandboxes("GET").send().unwrap().json().unwrap()["sandboxes"], json!([]));
    client.output("shell_run", &input).unwrap();
    let binary = require(built_binary().ok_or(testkit::Unavailable::NotBuilt));
    let mut doctor = Command::new(binary);
    doctor.args(["doctor", "--json", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
    let finished = finish(
        {
            doctor.env("STEADING_SANDBOX_ISOLATION", &demanded);
            doctor
        },
        LIMIT,
    )
    .unwrap();
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let last = checks(&report, "sandboxes").pop().unwrap();
    assert!(last.0 == "failed" && last.1.contains(&strict.tenant), "{last:?}");
}
