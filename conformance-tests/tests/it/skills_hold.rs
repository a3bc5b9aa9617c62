//! That what the skills tell an agent works: their app, their pages, their requests, as they stand there.

use std::process::Command;
use std::time::Duration;

use conformance_tests::{App, Place, browser};
use serde_json::{Value, json};
use testkit::http::Request;
use testkit::{finish, temporary};

/// A file of the skills, as an agent reads it.
fn skill(place: &Place, name: &str) -> String {
    place.output("skill_read", &json!({ "name": name })).unwrap()["text"].as_str().unwrap().to_owned()
}

/// The blocks of code that are marked so.
fn blocks(text: &str, mark: &str) -> Vec<String> {
    let fences = text.split("```").skip(1).step_by(2).filter_map(|fence| fence.split_once('\n'));
    fences.filter(|(info, _)| *info == mark).map(|(_, code)| code.to_owned()).collect()
}

/// A place with the app that `start-here` has whole.
fn place_with_app(name: &str) -> Place {
    let place = Place::new(name).unwrap();
    let [manifest] = blocks(&skill(&place, "start-here"), "json manifest").try_into().unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let applied = place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    assert_eq!((&applied["release"], &applied["changed"]), (&json!(1), &json!(true)));
    let again = place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    assert_eq!((&again["release"], &again["changed"]), (&json!(1), &json!(false)));
    place
}

/// What skills refer to, with whole manifests.
const REFERENCES: [&str; 2] =
    ["data-and-access/references/manifest.md", "auth-and-accounts/references/factors.md"];

#[test]
fn every_manifest_in_a_skill_can_be_applied_and_its_tests_hold() {
    let files = [
        "start-here",
        "start-here/references/more-apps.md",
        "build-a-web-app",
        "data-and-access",
        "auth-and-accounts",
        "auth-and-accounts/references/providers.md",
        "realtime",
        "files-and-images",
        "domains",
    ];
    for file in files.into_iter().chain(REFERENCES) {
        let found = blocks(&skill(&Place::new("skill").unwrap(), file), "json manifest");
        assert!(!found.is_empty(), "{file}");
        for manifest in found {
            let place = Place::new("skill").unwrap();
            let manifest: Value = serde_json::from_str(&manifest).unwrap();
            for provider in
                manifest["auth"]["providers"].as_object().into_iter().flat_map(|named| named.values())
            {
                let secret = json!({ "name": provider["client_secret"], "value": "theirs" });
                place.output("secret_set", &secret).unwrap();
            }
            if let Some(name) = manifest["auth"]["phone"]["secret"].as_str() {
                place.output("secret_set", &json!({ "name": name, "value": "shared" })).unwrap();
            }
            let applied = place.output("app_apply", &json!({ "manifest": manifest }));
            assert!(applied.is_ok(), "{file}: {applied:?}");
        }
    }
}

#[test]
fn the_first_page_keeps_a_todo_list_and_makes_an_account_of_it() {
    let place = place_with_app("page");
    let seen = browser(|browser| {
        browser.goto(&place.url)?;
        browser.evaluate(&until("document.querySelector('#note').textContent === 'Nothing to do yet.'"))?;
        for title in ["Milk", "<b>Tea</b>"] {
            browser.type_into("#title", title)?;
            browser.click("#add button")?;
            let shown = json!(title);
            browser
                .evaluate(&until(&format!("document.querySelector('#list').innerText.includes({shown})")))?;
        }
        // The box is checked by the click itself, and drawn again once the server has it.
        browser.evaluate("window.clicked = document.querySelector('#list li:last-child input')")?;
        browser.click("#list li:last-child input")?;
        browser.evaluate(&until(
            "!clicked.isConnected && document.querySelectorAll('#list input:checked').length === 1",
        ))?;
        browser.click("#list li:first-child button")?;
        browser.evaluate(&until("document.querySelectorAll('#list li').length === 1"))?;
        browser.type_into("#account [name=email]", "ada@example.com")?;
        browser.type_into("#account [name=password]", "correct horse battery")?;
        browser.click("#account [value=signUp]")?;
        browser.evaluate(&until("document.querySelector('#account').hidden"))?;
        browser.goto(&place.url)?;
        browser.evaluate(&until("document.querySelector('#account').hidden"))?;
        Ok((browser.text("#list")?, browser.console()?))
    });
    let (list, console) = seen.unwrap();
    assert!(list.contains("Milk") && !list.contains("Tea"), "{list}");
    assert_eq!(console, Vec::<String>::new());
    let query = json!({ "sql": "SELECT title, done FROM todos" });
    assert_eq!(place.output("db_query", &query).unwrap()["rows"], json!([["Milk", 1]]));
}

/// A script that ends once `condition` holds in the page.
fn until(condition: &str) -> String {
    format!(
        "return new Promise((done, failed) => {{
            const begun = Date.now();
            const look = () => {{
                if ({condition}) done(true);
                else if (Date.now() - begun > 10000) failed(new Error(document.body.innerText));
                else requestAnimationFrame(look);
            }};
            look();
        }})"
    )
}

#[test]
fn the_code_for_the_browser_runs_as_it_stands() {
    let place = place_with_app("sdk");
    let script = |file: &str| {
        let code = blocks(&skill(&place, file), "js").concat();
        let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("import ")).collect();
        let code = code.join("\n").replace("createClient();", "createClient();\nawait app.auth.anonymous();");
        format!(
            "return (async () => {{ const {{ createClient, where }} = await import('/_/sdk.js');\n{code}\n\
             return app.auth.user.anonymous; }})()"
        )
    };
    for file in ["build-a-web-app", "build-a-web-app/references/sdk.md"] {
        let script = script(file);
        let ran = browser(|browser| {
            browser.goto(&place.url)?;
            browser.evaluate(&script)
        });
        assert_eq!(ran.unwrap_or_else(|e| panic!("{e:#}\n{script}")), json!(true));
    }
}

#[test]
fn what_pages_hear_at_once_runs_as_it_stands() {
    let place = place_with_app("live");
    let [realtime] = blocks(&skill(&place, "realtime"), "json manifest").try_into().unwrap();
    let mut manifest: Value = serde_json::from_str(&realtime).unwrap();
    let [app] = blocks(&skill(&place, "start-here"), "json manifest").try_into().unwrap();
    let app: Value = serde_json::from_str(&app).unwrap();
    manifest["database"]["tables"]["todos"] = app["database"]["tables"]["todos"].clone();
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let code = blocks(&skill(&place, "realtime"), "js").concat();
    let code: Vec<&str> = code.lines().filter(|line| !line.starts_with("import ")).collect();
    let script = format!(
        "return (async () => {{ const {{ createClient, where }} = await import('/_/sdk.js');\n{}\n return true; }})()",
        code.join("\n")
    );
    let ran = browser(|browser| {
        browser.goto(&place.url)?;
        browser.evaluate(&script)
    });
    assert_eq!(ran.unwrap_or_else(|e| panic!("{e:#}\n{script}")), json!(true));
}

#[test]
fn the_requests_are_answered_as_they_stand() {
    let place = place_with_app("requests");
    let (mut token, mut refresh, mut id) = (None::<String>, String::new(), String::new());
    let requests = blocks(&skill(&place, "build-a-web-app/references/http.md"), "http");
    assert!(requests.len() >= 8, "{requests:?}");
    for request in requests {
        let (line, body) = request.split_once('\n').unwrap();
        let (method, path) = line.split_once(' ').unwrap();
        let path = path.replace("{id}", &id).replace(' ', "%20");
        let body =
            body.replace("\"0190…\"", &json!(id).to_string()).replace("\"…\"", &json!(refresh).to_string());
        let sent = Request::new(method, &format!("{}{path}", place.url));
        let sent = if body.trim().is_empty() {
            sent
        } else {
            sent.json(&serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")))
        };
        let sent = token.iter().fold(sent, |sent, token| sent.bearer(token));
        let answer = sent.send().unwrap();
        assert!((200..300).contains(&answer.status), "{request}{answer:?}");
        let answer = answer.json().unwrap();
        if let Some(new) = answer["access_token"].as_str() {
            let fields: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, ["access_token", "token_type", "refresh_token", "expires_in", "user"]);
            token = Some(new.to_owned());
            refresh = answer["refresh_token"].as_str().unwrap().to_owned();
        } else if let Some(new) = answer["id"].as_str() {
            id = new.to_owned();
        }
    }
}

#[test]
fn the_functions_run_as_they_stand() {
    let place = Place::new("functions").unwrap();
    let table = |column: &str| json!({ "columns": { column: "text!" }, "access": "private" });
    let text = skill(&place, "write-functions");
    let tables = json!({ "orders": table("title"), "events": table("body"), "reports": table("day"), "mails": table("order") });
    let triggers = skill(&place, "write-functions/references/triggers.md");
    let [orders, webhook] = blocks(&text, "ts").try_into().unwrap();
    let [report, confirm] = blocks(&triggers, "ts").try_into().unwrap();
    let [sum] = blocks(&text, "js").try_into().unwrap();
    let events = json!([{ "on": "rows", "table": "orders", "do": ["create"] }]);
    assert!(
        triggers.contains(r#""events": [{"on": "rows", "table": "orders", "do": ["create"]}]"#),
        "the skill says so too"
    );
    let functions = json!({ "confirm": { "files": { "index.ts": confirm }, "events": events } });
    let manifest = json!({ "auth": { "methods": ["anonymous"] }, "database": { "tables": tables }, "functions": functions });
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    for (name, file, code) in [
        ("orders", "index.ts", orders),
        ("webhook", "index.ts", webhook),
        ("report", "index.ts", report),
        ("sum", "index.js", sum),
    ] {
        let input = json!({ "name": name, "files": { file: code }, "access": "public" });
        place.output("function_deploy", &input).unwrap();
    }
    let person = App::new(&place.url).stranger().unwrap();
    let made = person.send("POST", "/_/fn/orders", &json!({ "title": "Tea" })).unwrap();
    assert_eq!(
        (made.status, &made.body["title"], &made.body["owner"]),
        (201, &json!("Tea"), &json!(person.id()))
    );
    let told = testkit::eventually(Duration::from_secs(60), || {
        let mails = place.output("db_query", &json!({ "sql": "SELECT \"order\" FROM mails" })).unwrap();
        mails["rows"].get(0).map(|row| row[0].clone())
    });
    assert_eq!(told.as_ref(), Some(&made.body["id"]));
    let sum = person.send("POST", "/_/fn/sum", &json!({ "a": 1, "b": 2 })).unwrap();
    assert_eq!((sum.status, &sum.body["sum"]), (200, &json!(3)), "{sum:?}");
    let sent = |signature: &str| {
        let request = Request::post(&format!("{}/_/fn/webhook", place.url)).body("paid");
        request.header("x-signature", signature).send().unwrap().status
    };
    // HMAC-SHA256 of the body under the key that it has where no secret is set.
    let good = "2643c76f13e66586973fbaf102e491f16f0f00aa1906d70ea35a2403110e6bbc";
    assert_eq!((sent("0"), sent(good)), (401, 204));
    let nightly = json!({ "function": "report", "cron": "30 3 * * *", "timezone": "Europe/Berlin" });
    assert!(triggers.contains(&nightly["cron"].to_string()), "the skill says so too");
    place.output("app_apply", &json!({ "manifest": { "schedules": { "nightly": nightly } } })).unwrap();
    let ran = place.output("function_invoke", &json!({ "name": "report", "schedule": "nightly" })).unwrap();
    assert_eq!(ran["status"], 204, "{ran}");
    // And a page asks by the client as it says.
    let asked = browser(|browser| {
        browser.goto(&format!("{}/_/sdk.js", place.url))?;
        browser.evaluate(
            "return (async () => {
                const app = (await import('/_/sdk.js')).createClient();
                await app.auth.anonymous();
                const order = await app.fn('orders').invoke({ title: 'Tea' });
                const answer = await app.fn('orders').fetch('/none', { method: 'PUT', body: 'x' });
                return [order.title, order.owner === app.auth.user.id, answer.status];
            })()",
        )
    });
    assert_eq!(asked.unwrap(), json!(["Tea", true, 404]));
}

#[test]
fn a_credential_is_narrowed_as_it_stands() {
    let place = Place::new("narrow").unwrap();
    let directory = temporary().unwrap();
    let text = skill(&place, "credentials-and-limits").replace("shop", &place.slug);
    let [by_command, by_http] = blocks(&text, "sh").try_into().unwrap();
    let run = |script: &str| {
        let binary = place.binary();
        let mut bash = Command::new("bash");
        bash.arg("-euc").arg(format!("steading() {{ '{}' \"$@\"; }}\n{script}", binary.display()));
        let ready = place.steading.ready();
        bash.current_dir(directory.path()).env("no_proxy", "*");
        bash.env("STEADING_URL", &ready.url).env("STEADING_KEY", &ready.key);
        let finished = finish(bash, Duration::from_secs(60)).unwrap();
        assert!(finished.success(), "{script}: {finished:?}");
        finished.stdout
    };
    assert_eq!((run(&by_command), run(&by_http)), (String::new(), String::new()), "nobody sees it");
    let told = run(&format!("{by_command}\nprintf %s \"$TOKEN\""));
    let made = std::fs::read(directory.path().join("credential.json")).unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    let [command, http] = [told.as_str(), made["token"].as_str().unwrap()]
        .map(|token| place.client.clone().with_key(token).without_env());
    for client in [&command, &http] {
        let asked = |limit: u32| {
            client.call("db_query", &json!({ "sql": "SELECT 1", "limit": limit })).unwrap().status
        };
        assert_eq!((asked(50), asked(51)), (200, 403));
        assert_eq!(client.call("app_describe", &json!({})).unwrap().code(), "forbidden");
    }
    for (bucket, path, field) in [("inbox", "elsewhere/a", "/path"), ("other", "from-ci/a", "/bucket")] {
        let input = json!({ "bucket": bucket, "path": path, "text": "a" });
        let refused = http.call("storage_put", &input).unwrap();
        assert_eq!((refused.status, &refused.body["field"]), (403, &json!(field)));
    }
    let path = format!("/v1/credentials/{}", made["id"].as_str().unwrap());
    assert_eq!(place.client.request("DELETE", &path).send().unwrap().status, 200);
    assert_eq!(http.call("db_query", &json!({ "sql": "SELECT 1", "limit": 1 })).unwrap().status, 401);
}
