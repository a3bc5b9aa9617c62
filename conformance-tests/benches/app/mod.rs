//! What the benches of functions share: an app of its own, what it deploys, and requests to it.

use std::fs;
use std::time::Instant;

use serde_json::{Value, json};
use testkit::{Client, Launch, Steading, require};

use crate::load::{Connection, milliseconds};

/// A function that costs nothing itself.
pub const HELLO: &str = "export default { fetch: () => new Response('hello') };";

/// A platform that lets everything through, with more settings.
pub fn platform(settings: &[(&str, &str)]) -> Steading {
    let limits = ["KEY", "TOKEN", "TENANT"].map(|it| (it, "100000000"));
    let with = |launch: Launch, name: String, value: &str| launch.env(name, value);
    let launch = limits.iter().fold(Steading::launch(), |launch, (limit, value)| {
        let launch = with(launch, format!("STEADING_LIMITS_{limit}_PER_SECOND"), value);
        with(launch, format!("STEADING_LIMITS_{limit}_BURST"), value)
    });
    require(
        settings.iter().fold(launch, |launch, (name, value)| with(launch, (*name).to_owned(), value)).start(),
    )
}

/// The percentile of times.
pub fn at(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() - 1) * percent / 100]
}

/// Deploys a function for everybody.
pub fn deploy(client: &Client, name: &str, files: &Value, more: &Value) -> Value {
    let mut input = json!({ "name": name, "files": files, "access": "public" });
    input.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    client.output("function_deploy", &input).unwrap()
}

/// An environment of its own, and the host of its app.
pub fn environment(steading: &Steading, slug: &str) -> (Client, String) {
    let operator = steading.client().without_env();
    let made = operator.output("env_create", &json!({ "slug": slug })).unwrap();
    (steading.client().in_env(slug), made["url"].as_str().unwrap().split_once("://").unwrap().1.to_owned())
}

/// A request.
pub fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// The whole answer to one request over a connection of its own, and how long it took.
pub fn asked(authority: &str, request: &str) -> (String, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(authority).await;
        let began = Instant::now();
        let (head, body) = connection.call(request.as_bytes()).await;
        let took = milliseconds(began.elapsed());
        assert!(head.starts_with("HTTP/1.1 200"), "{head} {body}");
        (body.to_owned(), took)
    })
}

/// The processes that run a program of that name below another one.
fn processes(name: &str, below: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let is_below = |mut pid: u32| {
        while let Some(next) = parent(pid).filter(|it| *it > 1) {
            if next == below {
                return true;
            }
            pid = next;
        }
        false
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        program.is_ok_and(|program| program.file_name().is_some_and(|it| it == name)) && is_below(*pid)
    };
    all.filter(runs).collect()
}

/// The processes of functions of a platform that run that program.
pub fn running(steading: &Steading, name: &str) -> Vec<u32> {
    processes(name, steading.id())
}

/// What a process has to itself and its share of what it has with others, in MiB.
pub fn memory(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
