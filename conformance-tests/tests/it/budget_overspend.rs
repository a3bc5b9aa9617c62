//! Budgets for models seen from outside: with two gateways, a greedy provider and a killed process nothing is overspent, and the
//! statement is what the provider counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use conformance_tests::{App, Place, Reply, home_beside};
use serde_json::{Value, json};
use testkit::{Client, Fsync, Launch, Postgres, Provider, Steading, Turn, eventually, require};

/// Longer than a call counts as under way whose process is gone.
const PATIENCE: Duration = Duration::from_secs(90);

/// Streams what it is told to ask, so many times at once, each to its end.
const STREAMS: &str = r#"
const one = async (env, body) => {
  try {
    let last = "";
    for await (const part of await env.ai.chat({ ...body, stream: true })) last = part.choices[0]?.finish_reason ?? last;
    return { made: last };
  } catch (error) { return { status: error.status, code: error.code, hint: error.hint, limit: error.limit }; }
};
export default {
  async fetch(request, env) {
    const { body, times } = await request.json();
    return Response.json(await Promise.all(Array.from({ length: times }, () => one(env, body))));
  },
};
"#;

/// What a provider has used in all, by its own count.
#[derive(Clone, Default)]
struct Count {
    calls: Arc<AtomicU64>,
    tokens: Arc<AtomicU64>,
}

impl Count {
    fn read(&self) -> (u64, u64) {
        (self.calls.load(Ordering::SeqCst), self.tokens.load(Ordering::SeqCst))
    }
}

/// A provider that uses more than it was asked to, of what is sent and of what comes back; and where the request says so, never
/// comes to an end.
fn provider(count: &Count) -> Provider {
    let count = count.clone();
    let started = Provider::start(move |_, asked| {
        let chunk = |choices: Value, usage: Value| {
            format!("data: {}\n\n", json!({ "choices": choices, "usage": usage }))
        };
        let begin =
            chunk(json!([{ "index": 0, "delta": { "content": "a" }, "finish_reason": null }]), Value::Null);
        if asked.body["user"] == "hangs" {
            return Turn::Pauses(begin);
        }
        let most = asked.body["max_tokens"].as_u64().unwrap();
        let greed = if asked.body["user"] == "greedy" { 7 } else { 1 };
        let (prompt, completion) = (greed * 100, greed * most);
        count.calls.fetch_add(1, Ordering::SeqCst);
        count.tokens.fetch_add(prompt + completion, Ordering::SeqCst);
        let end = chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null);
        let usage = chunk(json!([]), json!({ "prompt_tokens": prompt, "completion_tokens": completion }));
        Turn::Events(format!("{begin}{end}{usage}data: [DONE]\n\n"), 60, Duration::from_millis(5))
    });
    started.unwrap()
}

fn launch(provider: &Provider) -> Launch {
    Steading::launch()
        .env("STEADING_MODEL_BASE_URL", &provider.base_url)
        .env("STEADING_MODEL", "small")
        .env("STEADING_MODEL_API_KEY", "sk-0123456789")
}

fn body(user: &str, max_tokens: u64) -> Value {
    json!({ "messages": [{ "role": "user", "content": "hi" }], "user": user, "max_tokens": max_tokens })
}

/// What the function at `url` tells of so many calls at once.
fn ask(url: &str, body: &Value, times: u64) -> Vec<Value> {
    let request =
        App::new(url).request("POST", "/_/fn/streams/").json(&json!({ "body": body, "times": times }));
    let answer = Reply::of(request).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.as_array().unwrap().clone()
}

fn deploy(place: &Place) {
    let input = json!({ "name": "streams", "files": { "index.ts": STREAMS }, "access": "public" });
    place.output("function_deploy", &input).unwrap();
}

/// A request of the operator for the whole tenant.
fn call(client: &Client, method: &str, path: &str, body: &Value) -> Value {
    let answer = client.clone().without_env().request(method, path).json(body).send().unwrap();
    let told = answer.json().unwrap();
    assert_eq!(answer.status, 200, "{method} {path}: {told:#}");
    told
}

fn set(client: &Client, budget: &Value) -> String {
    call(client, "PUT", "/v1/budgets", budget)["id"].as_str().unwrap().to_owned()
}

fn budget(client: &Client, id: &str) -> Value {
    let answer = client.clone().without_env().request("GET", &format!("/v1/budgets/{id}")).send().unwrap();
    assert_eq!(answer.status, 200);
    answer.json().unwrap()
}

fn numbers(row: &str) -> Vec<u64> {
    row.split('|').map(|it| it.parse().unwrap()).collect()
}

/// Nothing is under way any more.
fn at_rest(client: &Client, id: &str) -> Value {
    let settled = || Some(budget(client, id)).filter(|it| it["reserved"] == 0);
    eventually(PATIENCE, settled).unwrap_or_else(|| panic!("{}", budget(client, id)))
}

#[test]
fn two_gateways_a_greedy_provider_and_a_killed_process_overspend_nothing() {
    let postgres = require(Postgres::start(Fsync::Off));
    let count = Count::default();
    let provider = provider(&count);
    let launch = || launch(&provider).env("STEADING_DATABASE_URL", postgres.url("postgres"));
    let one = Arc::new(require(launch().start()));
    let place = Place::on(Arc::clone(&one), "spends").unwrap();
    deploy(&place);
    let other = home_beside(&one).unwrap();
    let mut two = require(launch().data_dir(other.path()).start());
    let port = two.authority().rsplit(':').next().unwrap().to_owned();
    let (here, there) = (place.url.clone(), format!("http://{}.localhost:{port}", place.slug));

    let price = json!({ "model": "small", "input": 2_000_000, "output": 10_000_000 });
    call(&place.client, "PUT", "/v1/prices", &price);
    let (tokens, micro) = (4_000, 30_000);
    let of_env = json!({ "env": place.slug, "unit": "tokens", "period": "day", "most": tokens });
    let of_env = set(&place.client, &of_env);
    let of_tenant = set(&place.client, &json!({ "unit": "micro", "period": "month", "most": micro }));

    // Some is spent already, and both have started the function.
    for url in [&here, &there] {
        assert_eq!(ask(url, &body("modest", 400), 1)[0]["made"], "stop");
    }
    assert_eq!(budget(&place.client, &of_env)["spent"], 1_000);

    // 32 callers on each, of a provider that uses seven times as much as it may.
    let told = std::thread::scope(|scope| {
        let callers = [&here, &there].map(|url| scope.spawn(|| ask(url, &body("greedy", 50), 32)));
        callers.into_iter().flat_map(|it| it.join().unwrap()).collect::<Vec<_>>()
    });
    let (made, refused): (Vec<_>, Vec<_>) = told.iter().partition(|it| it["made"] == "stop");
    assert!(made.len() >= 3 && !refused.is_empty(), "{told:?}");
    for refused in refused {
        assert_eq!(
            (&refused["status"], &refused["code"]),
            (&json!(402), &json!("budget_exceeded")),
            "{refused}"
        );
        assert!(refused["hint"].as_str().unwrap().contains("/v1/budgets/bud_"), "{refused}");
    }
    let (spent, paid) = (at_rest(&place.client, &of_env), at_rest(&place.client, &of_tenant));
    assert!(spent["spent"].as_u64().unwrap() <= tokens && paid["spent"].as_u64().unwrap() <= micro);
    let statement = |what: &str| {
        let columns = "COUNT(*), COALESCE(SUM(prompt + completion), 0), COALESCE(SUM(tokens + unattributed_tokens), 0), \
                       COALESCE(SUM(tokens), 0), COALESCE(SUM(micro), 0)";
        numbers(&postgres.execute(&format!("SELECT {columns} FROM model_calls WHERE {what}")).unwrap())
    };
    let (calls, used) = count.read();
    assert_eq!(calls, 2 + made.len() as u64);
    let all = statement("estimated = 0");
    assert_eq!(all[..3], [calls, used, used], "the provider's own count");
    assert_eq!((&json!(all[3]), &json!(all[4])), (&spent["spent"], &paid["spent"]), "what is charged");

    // A process that is killed in the middle of streams: they are found by the other one, and charged as far as they were set
    // aside.
    call(&place.client, "PUT", &format!("/v1/budgets/{of_env}"), &json!({ "most": 2 * tokens }));
    call(&place.client, "PUT", &format!("/v1/budgets/{of_tenant}"), &json!({ "most": 2 * micro }));
    let hangs = std::thread::spawn(move || {
        let asked = json!({ "body": body("hangs", 100), "times": 3 });
        drop(Reply::of(App::new(&there).request("POST", "/_/fn/streams/").json(&asked)));
    });
    let under_way = || postgres.execute("SELECT COUNT(*) FROM reservations").ok().filter(|it| it == "3");
    assert!(eventually(PATIENCE, under_way).is_some());
    let aside = budget(&place.client, &of_env)["reserved"].as_u64().unwrap();
    two.kill();
    hangs.join().unwrap();
    let before = spent["spent"].as_u64().unwrap();
    let spent = at_rest(&place.client, &of_env);
    assert_eq!(spent["spent"], before + aside);
    assert_eq!(statement("estimated = 1")[..3], [3, aside, aside]);
    assert_eq!(postgres.execute("SELECT COUNT(*) FROM reservations").unwrap(), "0");
    // Whoever asks on has the rest and no more.
    let told = ask(&here, &body("greedy", 50), 40);
    assert!(
        told.iter().any(|it| it["made"] == "stop") && told.iter().any(|it| it["status"] == 402),
        "{told:?}"
    );
    let (spent, paid) = (at_rest(&place.client, &of_env), at_rest(&place.client, &of_tenant));
    assert!(spent["spent"].as_u64().unwrap() <= 2 * tokens && paid["spent"].as_u64().unwrap() <= 2 * micro);
    let (calls, used) = count.read();
    assert_eq!(statement("estimated = 0")[..3], [calls, used, used]);
    assert_eq!(json!(statement("1 = 1")[3..]), json!([spent["spent"], paid["spent"]]));

    // What was used outlives the environment, and the tenant's budget still counts it.
    let client = place.client.clone().without_env();
    let dry = client.output("env_delete", &json!({ "env": place.slug, "dry_run": true })).unwrap();
    client.output("env_delete", &json!({ "env": place.slug, "confirm": dry["confirm"] })).unwrap();
    assert_eq!(statement("estimated = 0")[..3], [calls, used, used]);
    assert_eq!(budget(&place.client, &of_tenant)["spent"], paid["spent"]);
    let gone = client.request("GET", &format!("/v1/budgets/{of_env}")).send().unwrap();
    assert_eq!(gone.status, 404);
}

#[test]
fn a_process_that_was_killed_in_the_middle_of_a_stream_charges_it_when_it_is_back() {
    let count = Count::default();
    let provider = provider(&count);
    let mut server = require(launch(&provider).env("STEADING_SHUTDOWN_GRACE_S", "1").start());
    let client = server.client().in_env("default");
    let input = json!({ "name": "streams", "files": { "index.ts": STREAMS }, "access": "public" });
    let deployed = client.output("function_deploy", &input).unwrap();
    let url = deployed["url"].as_str().unwrap().split("/_/").next().unwrap().to_owned();
    let host = url.rsplit_once(':').unwrap().0.to_owned();
    let budget_of_env = json!({ "env": "default", "unit": "tokens", "period": "day", "most": 100_000 });
    let id = set(&client, &budget_of_env);
    let hangs = std::thread::spawn(move || {
        let asked = json!({ "body": body("hangs", 100), "times": 2 });
        drop(Reply::of(App::new(&url).request("POST", "/_/fn/streams/").json(&asked)));
    });
    let begun = || (provider.questions().len() == 2).then(|| budget(&client, &id));
    let aside = eventually(PATIENCE, begun).unwrap()["reserved"].as_u64().unwrap();
    assert!(aside > 200);
    server.kill();
    hangs.join().unwrap();
    let mut server = server.restart().unwrap();
    let client = server.client().in_env("default");
    assert_eq!(at_rest(&client, &id)["spent"], aside);

    // One that is stopped leaves nothing to be found.
    let port = server.authority().rsplit(':').next().unwrap();
    let url = format!("{host}:{port}");
    let hangs = std::thread::spawn(move || {
        let asked = json!({ "body": body("hangs", 100), "times": 2 });
        drop(Reply::of(App::new(&url).request("POST", "/_/fn/streams/").json(&asked)));
    });
    let begun = || (provider.questions().len() == 4).then_some(());
    eventually(PATIENCE, begun).unwrap();
    assert!(server.stop().unwrap().success());
    hangs.join().unwrap();
    let server = server.restart().unwrap();
    let told = budget(&server.client().in_env("default"), &id);
    assert_eq!((&told["reserved"], &told["spent"]), (&json!(0), &json!(2 * aside)));
}

#[test]
fn what_cannot_be_noted_at_once_is_noted_later_and_nothing_is_made_up() {
    let postgres = require(Postgres::start(Fsync::Off));
    let count = Count::default();
    let provider = provider(&count);
    let server =
        Arc::new(require(launch(&provider).env("STEADING_DATABASE_URL", postgres.url("postgres")).start()));
    let place = Place::on(Arc::clone(&server), "later").unwrap();
    deploy(&place);
    let of_env = json!({ "env": place.slug, "unit": "tokens", "period": "day", "most": 100_000 });
    let id = set(&place.client, &of_env);
    assert_eq!(ask(&place.url, &body("modest", 100), 1)[0]["made"], "stop");
    // From here on nothing can be written of calls that are over.
    postgres.execute("ALTER TABLE model_calls RENAME TO away").unwrap();
    let asked = std::thread::spawn({
        let url = place.url.clone();
        move || ask(&url, &body("modest", 50), 4)
    });
    eventually(PATIENCE, || (count.read().0 == 5).then_some(())).unwrap();
    let tried = || server.log().contains("could not be noted yet").then_some(());
    eventually(PATIENCE, tried).unwrap();
    assert!(budget(&place.client, &id)["reserved"].as_u64().unwrap() > 0);
    postgres.execute("ALTER TABLE away RENAME TO model_calls").unwrap();
    assert!(asked.join().unwrap().iter().all(|it| it["made"] == "stop"));
    let (calls, used) = count.read();
    assert_eq!(at_rest(&place.client, &id)["spent"], used);
    let row = postgres.execute("SELECT COUNT(*), SUM(tokens), SUM(estimated) FROM model_calls").unwrap();
    assert_eq!(numbers(&row), [calls, used, 0]);
}

#[test]
fn budgets_and_prices_are_set_by_command_and_what_is_left_is_told() {
    let count = Count::default();
    let provider = provider(&count);
    let server = Arc::new(require(launch(&provider).start()));
    let place = Place::on(Arc::clone(&server), "told").unwrap();
    deploy(&place);
    let said = |arguments: &[&str]| {
        let output = server.command(arguments).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), serde_json::from_str::<Value>(&text).unwrap_or_else(|_| panic!("{text}")))
    };
    // Money without a price is refused with how to mend it.
    let (code, money) = said(&["budget", "set", "50000", "--unit", "micro", "--period", "month"]);
    assert_eq!((code, &money["left"], &money["set_by"]), (Some(0), &json!(50_000), &json!("operator")));
    let told = ask(&place.url, &body("modest", 100), 1);
    assert_eq!((&told[0]["status"], &told[0]["code"]), (&json!(402), &json!("budget_exceeded")), "{told:?}");
    assert!(told[0]["hint"].as_str().unwrap().contains("steading price set small"), "{told:?}");
    assert_eq!(count.read().0, 0);
    let (code, set) = said(&["price", "set", "small", "--input", "1000000", "--output", "2000000"]);
    assert_eq!((code, &set["cached_input"]), (Some(0), &json!(1_000_000)));
    assert_eq!(said(&["price", "list"]).1["prices"], json!([set]));

    let (_, tokens) = said(&["budget", "set", "2600", "--bound", "--env", &place.slug]);
    assert_eq!(
        (&tokens["unit"], &tokens["period"], &tokens["most"]),
        (&json!("tokens"), &json!("day"), &json!(2_600))
    );
    for _ in 0..2 {
        assert_eq!(ask(&place.url, &body("modest", 1_000), 1)[0]["made"], "stop");
    }
    // Twice 1100 are more than four fifths of 2600, which the log says once; 4200 micro are not of 50000.
    let warned =
        || place.output("logs_query", &json!({ "text": "for models is spent", "level": "warn" })).unwrap();
    let entries = |page: &Value| page["entries"].as_array().map_or(0, Vec::len);
    let warned = eventually(PATIENCE, || Some(warned()).filter(|it| entries(it) > 0)).unwrap();
    assert_eq!(entries(&warned), 1, "{warned}");
    let shown = place.output("app_describe", &json!({})).unwrap()["model"].clone();
    assert_eq!(
        shown,
        json!({ "name": "small", "calls": 2, "tokens": 2_200, "most": 2_600, "budgets": [
            { "of": "tenant", "unit": "micro", "period": "month", "most": 50_000, "left": 50_000 - 2 * (100 + 2 * 1_000) },
            { "of": "environment", "unit": "tokens", "period": "day", "most": 2_600, "left": 400 },
        ] })
    );
    let (_, listed) = said(&["budget", "list", "--bound", "--env", &place.slug]);
    assert_eq!(listed["budgets"].as_array().unwrap().len(), 2, "{listed}");

    // A tenant's key bounds its environments further, and not beyond the tenant's own.
    let key =
        place.client.clone().without_env().request("POST", "/v1/keys").json(&json!({ "name": "k" })).send();
    let key = key.unwrap().json().unwrap()["key"].as_str().unwrap().to_owned();
    let tenant = place.client.clone().with_key(&key).without_env();
    let put = |path: &str, body: &Value| {
        let answer = tenant.request("PUT", path).json(body).send().unwrap();
        let told = answer.json().unwrap();
        (answer.status, told["code"].as_str().or(told["set_by"].as_str()).unwrap_or_default().to_owned())
    };
    let of_env = |most: u64| json!({ "env": place.slug, "unit": "micro", "period": "day", "most": most });
    assert_eq!(put("/v1/budgets", &of_env(50_001)), (400, "invalid_input".to_owned()));
    assert_eq!(put("/v1/budgets", &of_env(40_000)), (200, "tenant".to_owned()));
    assert_eq!(put("/v1/budgets", &json!({ "unit": "micro", "period": "day", "most": 1 })).0, 403);
    let operators = format!("/v1/budgets/{}", tokens["id"].as_str().unwrap());
    assert_eq!(put(&operators, &json!({ "most": 1_000_000 })).0, 403);
    assert_eq!(put("/v1/prices", &json!({ "model": "small", "input": 0, "output": 0 })).0, 403);
    assert_eq!(tenant.request("DELETE", &operators).send().unwrap().status, 403);

    assert_eq!(
        said(&["budget", "delete", tokens["id"].as_str().unwrap()]),
        (Some(0), json!({ "removed": true }))
    );
    assert_eq!(said(&["budget", "delete", tokens["id"].as_str().unwrap()]).0, Some(4));
    // Without it there is what every environment has.
    assert_eq!(ask(&place.url, &body("modest", 1_000), 1)[0]["made"], "stop");
}
