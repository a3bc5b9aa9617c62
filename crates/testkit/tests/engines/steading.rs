//! The product's harness, against a stand-in that keeps the same promises.

use serde_json::json;
use testkit::{Steading, Unavailable, eventually, require};

use crate::{LIMIT, alive, example};

fn start(mood: &str) -> Result<Steading, Unavailable> {
    Steading::launch().binary(example("stand_in")).arg(mood).start()
}

#[test]
fn a_started_server_says_where_it_is_and_is_gone_with_its_data_when_dropped() {
    let steading = require(start("well"));
    let (id, ready) = (steading.id(), steading.ready().clone());
    assert_eq!(ready.mcp_url, format!("http://{}/mcp/default", steading.authority()));
    assert!(alive(id) && ready.data_dir.exists());
    assert_eq!(steading.rest_of_stdout(), "");
    assert!(steading.rss().unwrap() > 100_000 && steading.cpu().is_ok());
    drop(steading);
    assert!(!alive(id) && !ready.data_dir.exists());
}

#[test]
fn a_tool_call_carries_the_key_the_environment_and_the_input() {
    let steading = require(start("well"));
    let output = steading.client().output("db_query", &json!({ "sql": "SELECT 1" })).unwrap();
    assert_eq!(output["body"], json!({ "sql": "SELECT 1" }));
    let head: Vec<&str> =
        output["head"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(head[0], "POST /v1/tools/db_query HTTP/1.1");
    assert!(
        head.contains(&"authorization: Bearer sk") && head.contains(&"steading-env: default"),
        "{head:?}"
    );
    let refused = steading.client().call("no_such", &json!({})).unwrap();
    assert_eq!((refused.status, refused.code()), (404, "not_found"));
    assert!(steading.client().output("no_such", &json!({})).is_err());
    let bare = steading.client().without_env().with_key("other").output("db_query", &json!({})).unwrap();
    assert!(bare["head"].as_array().unwrap().contains(&json!("authorization: Bearer other")));
    assert!(!bare["head"].to_string().contains("steading-env"));
}

#[test]
fn a_killed_server_comes_back_on_its_port_with_its_data() {
    let mut steading = require(start("well"));
    let (id, ready) = (steading.id(), steading.ready().clone());
    steading.kill();
    assert!(!alive(id));
    let steading = steading.restart().unwrap();
    assert_eq!(steading.ready(), &ready);
    assert_eq!(steading.client().output("any", &json!({})).unwrap()["starts"], 2);
}

#[test]
fn a_stopped_server_gives_its_status_and_a_data_directory_of_the_callers_stays() {
    use std::os::unix::process::ExitStatusExt;
    let data = tempfile::tempdir().unwrap();
    let launch = Steading::launch().binary(example("stand_in")).data_dir(data.path());
    let mut steading = require(launch.start());
    // The stand-in does not catch the signal, so the signal is its status.
    assert_eq!(steading.stop().unwrap().signal(), Some(15));
    drop(steading);
    assert_eq!(std::fs::read_to_string(data.path().join("starts")).unwrap(), "x");
}

#[test]
fn what_is_printed_after_the_ready_line_is_kept() {
    let steading = require(start("chatty"));
    assert!(eventually(LIMIT, || (steading.rest_of_stdout() == "more\n").then_some(())).is_some());
}

#[test]
fn a_server_that_ends_before_it_is_ready_is_broken_with_its_log() {
    let Err(Unavailable::Broken { source, .. }) = start("broken") else { panic!("it started") };
    let said = format!("{source:#}");
    assert!(said.contains("exit status: 64") && said.contains("the configuration is bad"), "{said}");
}

#[test]
fn a_command_of_the_same_binary_is_pointed_at_the_server() {
    let steading = require(start("well"));
    let command = steading.command(&["tools", "--json"]);
    let variable = |name: &str| {
        let mut variables = command.get_envs();
        variables.find(|(given, _)| *given == name).and_then(|(_, value)| value?.to_str().map(str::to_owned))
    };
    assert_eq!(variable("STEADING_URL"), Some(steading.ready().url.clone()));
    assert_eq!(variable("STEADING_KEY"), Some("sk".to_owned()));
    let words: Vec<_> = command.get_args().filter_map(|word| word.to_str()).collect();
    assert_eq!(words, ["tools", "--json"]);
    assert_eq!(command.get_program(), example("stand_in"));
}
