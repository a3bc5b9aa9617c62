//! What is counted of an environment's use is what there was, and a statement adds it up.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{Client, Steading, eventually, require};

const PATIENCE: Duration = Duration::from_secs(60);

/// Works for so many milliseconds.
const BURNS: &str = "export default (request) => {
    const until = performance.now() + Number(new URL(request.url).searchParams.get('ms'));
    let n = 0;
    while (performance.now() < until) n++;
    return new Response('done');
};";

fn done(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let answer = client.request(method, path).json(body).send().unwrap();
    let told: Value = answer.json().unwrap_or_default();
    assert!([200, 201].contains(&answer.status), "{method} {path}: {told:#}");
    told
}

/// How much a statement says of a meter.
fn amount(client: &Client, meter: &str) -> u64 {
    let statement = done(client, "GET", "/v1/statements?env=shop", &json!({}));
    let lines = statement["lines"].as_array().unwrap();
    let of = lines.iter().filter(|line| line["meter"] == meter);
    of.map(|line| line["amount"].as_u64().unwrap()).sum()
}

fn app(server: &Steading) -> (Client, Client, String) {
    let operator = server.client().without_env();
    let made = done(&operator, "POST", "/v1/provision", &json!({ "env": { "slug": "shop" } }));
    let inside = operator.clone().in_env(made["env"].as_str().unwrap());
    let page = "x".repeat(50_000);
    let manifest = json!({ "site": { "files": { "index.html": page, "small.txt": "0123456789" } } });
    inside.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    (operator, inside, made["url"].as_str().unwrap().to_owned())
}

#[test]
fn visits_and_what_is_read_of_answers_are_counted_to_the_byte() {
    let server = require(Steading::start());
    let (operator, _, url) = app(&server);
    assert_eq!((amount(&operator, "visits"), amount(&operator, "egress")), (0, 0), "nobody has visited");
    let mut read = 0;
    for n in 0..40 {
        let path = ["/", "/small.txt", "/nothing", "/_/db/none"][n % 4];
        read += Request::new("GET", &format!("{url}{path}")).send().unwrap().body.len() as u64;
    }
    let counted = eventually(PATIENCE, || {
        let counted = (amount(&operator, "visits"), amount(&operator, "egress"));
        (counted.1 >= read).then_some(counted)
    });
    assert_eq!(counted, Some((40, read)));
    // What was counted is there after the next start, and nothing twice.
    let again = server.restart().unwrap();
    let operator = again.client().without_env();
    assert_eq!((amount(&operator, "visits"), amount(&operator, "egress")), (40, read));
}

#[test]
fn processor_time_is_counted_of_what_runs_and_nothing_of_what_is_idle() {
    let server = require(Steading::start());
    let (operator, inside, url) = app(&server);
    assert_eq!(
        (amount(&operator, "cpu"), amount(&operator, "memory")),
        (0, 0),
        "an app of files runs nothing"
    );
    let input = json!({ "name": "burns", "files": { "index.ts": BURNS }, "access": "public" });
    inside.output("function_deploy", &input).unwrap();
    let began = Instant::now();
    for _ in 0..4 {
        let burnt = Request::new("GET", &format!("{url}/_/fn/burns?ms=500")).send().unwrap();
        assert_eq!(burnt.status, 200);
    }
    let counted = eventually(PATIENCE, || {
        let cpu = amount(&operator, "cpu");
        (cpu >= 1_200).then_some(cpu)
    });
    let counted = counted.unwrap();
    // A build and a process beside it are work, too; there are not more processors than two for each of the two.
    let most = began.elapsed().as_millis() as u64 * 4;
    assert!(counted <= most, "{counted} of {most}");
    assert!(amount(&operator, "memory") > 0);
    let shell = inside
        .output("shell_run", &json!({ "command": "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done" }));
    shell.unwrap();
    assert!(eventually(PATIENCE, || (amount(&operator, "cpu") > counted + 50).then_some(())).is_some());
}

#[test]
fn a_statement_is_what_was_used_at_its_prices_and_an_estimate_says_so_beforehand() {
    let server = require(Steading::start());
    let (operator, inside, url) = app(&server);
    for (meter, micro) in [("visits", 2_000_000), ("calls", 5_000_000), ("storage", 1_000_000)] {
        done(&operator, "PUT", "/v1/meters", &json!({ "meter": meter, "micro": micro }));
    }
    for _ in 0..7 {
        Request::new("GET", &url).send().unwrap();
    }
    for _ in 0..3 {
        inside.output("app_describe", &json!({})).unwrap();
    }
    let statement = done(&operator, "GET", "/v1/statements?env=shop", &json!({}));
    assert_eq!(statement["final"], false);
    let line = |name: &str| {
        let lines = statement["lines"].as_array().unwrap();
        lines.iter().find(|line| line["meter"] == name).cloned().unwrap()
    };
    assert_eq!((&line("visits")["amount"], &line("visits")["micro"]), (&json!(7), &json!(14)));
    let calls = line("calls")["amount"].as_u64().unwrap();
    assert!(calls >= 4, "{statement}");
    assert_eq!(line("calls")["micro"], calls * 5);
    assert_eq!(line("egress")["micro"], Value::Null, "nothing is asked for it");
    let sum: u64 = statement["lines"].as_array().unwrap().iter().filter_map(|it| it["micro"].as_u64()).sum();
    assert_eq!(statement["total_micro"], sum);
    let csv = operator.request("GET", "/v1/statements?env=shop&format=csv").send().unwrap();
    let text = String::from_utf8(csv.body.clone()).unwrap();
    assert!(
        text.starts_with("env,of,amount,unit,micro\r\n") && text.contains(",visits,7,requests,14\r\n"),
        "{text}"
    );

    // Idle environments cost what they keep, and nothing else.
    let idle = done(&operator, "GET", "/v1/costs/estimate?envs=1000", &json!({}));
    for line in idle["lines"].as_array().unwrap() {
        assert_eq!(line["amount"].as_f64() > Some(0.0), line["meter"] == "storage", "{idle}");
    }
    let empty = idle["empty_environment_bytes"].as_u64().unwrap();
    let gib = 1000.0 * empty as f64 / f64::from(1 << 30);
    let expected = (gib * 1e6).ceil() as u64;
    assert_eq!(idle["total_micro"], expected, "{idle}");
    let busy = done(&operator, "GET", "/v1/costs/estimate?envs=10&visits=1000000", &json!({}));
    assert!(busy["total_micro"].as_u64() >= Some(20_000_000), "{busy}");

    // Who may set nothing sees its own.
    let key = done(&operator, "POST", "/v1/keys", &json!({ "name": "ci" }));
    let theirs = operator.clone().with_key(key["key"].as_str().unwrap());
    assert!(done(&theirs, "GET", "/v1/statements?env=shop", &json!({}))["total_micro"].is_u64());
    let refused = theirs.request("PUT", "/v1/meters").json(&json!({ "meter": "visits", "micro": 0 })).send();
    assert_eq!(refused.unwrap().status, 403);
    // Hours that go on are exported when they are over; asked for in any form.
    for format in ["json", "csv", "cloudevents"] {
        let answer =
            operator.request("GET", &format!("/v1/usage/export?format={format}&since=7d")).send().unwrap();
        assert_eq!(answer.status, 200);
    }
    for wrong in ["/v1/statements?month=2026", "/v1/statements?format=pdf", "/v1/usage/export?cursor=a"] {
        assert_eq!(operator.request("GET", wrong).send().unwrap().status, 400, "{wrong}");
    }
}
