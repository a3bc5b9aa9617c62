//! Functions that ask a model: by `env.ai` and by OpenAI's own client, of a provider that does what it should and what it should
//! not, with a key that is nowhere to be seen.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use conformance_tests::{App, Place, Reply};
use serde_json::{Value, json};
use testkit::{Provider, Question, Steading, Turn, eventually, require};

const KEY: &str = "sk-planted-bb0123456789";

/// Asks in all the ways that there are.
const ALL_WAYS: &str = r#"
import OpenAI from "openai";
const messages = [{ role: "user", content: "hi" }];
export default {
  async fetch(request, env) {
    const client = new OpenAI({ baseURL: env.ai.baseURL, fetch: env.ai.fetch, apiKey: "none" });
    const said = [];
    said.push((await client.chat.completions.create({ model: "small", messages })).choices[0].message.content);
    let text = "";
    for await (const part of await client.chat.completions.create({ model: "small", messages, stream: true })) text += part.choices[0].delta.content ?? "";
    said.push(text);
    const parts = await client.chat.completions.create({ model: "small", messages, stream: true, stream_options: { include_usage: true } });
    for await (const part of parts) if (part.usage) said.push(part.usage.completion_tokens);
    said.push((await env.ai.chat({ messages })).choices[0].message.content);
    text = "";
    for await (const part of await env.ai.chat({ messages, stream: true })) text += part.choices[0].delta.content ?? "";
    said.push(text);
    for await (const model of await client.models.list()) said.push(model.id);
    said.push((await client.models.retrieve("small")).id);
    return Response.json(said);
  },
};
"#;

/// Asks what it is told to ask, and shows what it gets.
const ONE_WAY: &str = r#"
const shown = async (work) => {
  try { return { it: await work() }; }
  catch (error) { return { status: error.status, code: error.code, message: error.message, hint: error.hint }; }
};
const text = async (parts) => { let text = ""; for await (const part of parts) text += part.choices[0]?.delta.content ?? ""; return text; };
export default {
  async fetch(request, env) {
    const { body, times = 1, leave } = await request.json();
    const one = async () => {
      const answer = await env.ai.chat(body, { signal: leave && !body.stream ? AbortSignal.timeout(300) : undefined });
      if (!body.stream) return answer;
      if (!leave) return text(answer);
      for await (const part of answer) return part.choices[0].delta.content;
    };
    return Response.json(await Promise.all(Array.from({ length: times }, () => shown(one))));
  },
};
"#;

/// Looks for the text, which it is told backwards, in all that it can read.
const SEARCHES: &str = r#"
import { readdirSync, readFileSync, lstatSync } from "node:fs";
export default {
  async fetch(request) {
    const wanted = [...new URL(request.url).searchParams.get("what")].reverse().join("");
    const found = [];
    let read = 0;
    const look = (path, deep) => {
      try {
        const it = lstatSync(path);
        if (it.isDirectory() && deep < 6) for (const name of readdirSync(path)) look(`${path}/${name}`, deep + 1);
        else if (it.isFile() && it.size < 4 << 20) { read++; if (readFileSync(path).includes(wanted)) found.push(path); }
      } catch {}
    };
    for (const place of ["/proc/self", "/proc/1", "/proc/2", "/etc", "/run", "/tmp", "/app", "/function", "/workspace", "/home", "/root", "/var", "/opt"]) look(place, 0);
    if (JSON.stringify(process.env).includes(wanted)) found.push("env");
    return Response.json({ found, read });
  },
};
"#;

fn server(provider: &Provider, tokens: u64) -> Arc<Steading> {
    let launch = Steading::launch()
        .env("STEADING_MODEL_BASE_URL", &provider.base_url)
        .env("STEADING_MODEL", "small")
        .env("STEADING_MODEL_API_KEY", KEY)
        .env("STEADING_MODEL_TOKENS_OF_ENV", tokens.to_string());
    Arc::new(require(launch.start()))
}

fn deploy(place: &Place, name: &str, code: &str, more: &Value) {
    let mut input = json!({ "name": name, "files": { "index.ts": code }, "access": "public" });
    input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    place.output("function_deploy", &input).unwrap();
}

/// What a function answers to `value`, or to a request for `path`.
fn ask(place: &Place, name: &str, path: &str, value: &Value) -> Value {
    let request = App::new(&place.url).request("POST", &format!("/_/fn/{name}{path}")).json(value);
    let answer = Reply::of(request).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

fn body(stream: bool) -> Value {
    json!({ "messages": [{ "role": "user", "content": "hi" }], "stream": stream, "max_tokens": 50 })
}

fn completion(content: &str, tokens: u64) -> Turn {
    let usage = json!({ "prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens });
    let message = json!({ "role": "assistant", "content": content });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
    let whole = json!({ "id": "1", "object": "chat.completion", "choices": [choice], "usage": usage });
    Turn::Says(200, vec![("x-provider", KEY.to_owned())], whole)
}

fn streamed(pieces: &[&str]) -> String {
    let chunk = |choices: Value, usage: Value| {
        let chunk =
            json!({ "id": "1", "object": "chat.completion.chunk", "choices": choices, "usage": usage });
        format!("data: {chunk}\n\n")
    };
    let mut text: String = pieces
        .iter()
        .map(|it| {
            chunk(json!([{ "index": 0, "delta": { "content": it }, "finish_reason": null }]), Value::Null)
        })
        .collect();
    text += &chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "stop" }]), Value::Null);
    text += &chunk(json!([]), json!({ "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12 }));
    text + "data: [DONE]\n\n"
}

fn is_streamed(asked: &Question) -> bool {
    asked.body["stream"] == true
}

#[test]
fn functions_ask_a_model_by_env_ai_and_by_openais_own_client() {
    let provider = Provider::start(|_, asked| match is_streamed(asked) {
        true => Turn::Events(streamed(&["hé", "llo"]), 3, Duration::from_millis(1)),
        false => completion("hello", 5),
    });
    let provider = provider.unwrap();
    let steading = server(&provider, 100_000);
    for runtime in ["bun", "node"] {
        let place = Place::on(Arc::clone(&steading), runtime).unwrap();
        let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("packages/package.json");
        let pinned: Value = serde_json::from_str(&fs::read_to_string(pinned).unwrap()).unwrap();
        let package = json!({ "dependencies": { "openai": pinned["dependencies"]["openai"] } });
        let files = json!({ "index.ts": ALL_WAYS, "package.json": package.to_string() });
        deploy(&place, "all", ALL_WAYS, &json!({ "runtime": runtime, "files": files }));
        let said = ask(&place, "all", "/", &json!({}));
        assert_eq!(said, json!(["hello", "héllo", 5, "hello", "héllo", "small", "small"]), "{runtime}");
        let shown = place.output("app_describe", &json!({})).unwrap();
        assert_eq!(shown["model"], json!({ "name": "small", "calls": 5, "tokens": 60, "most": 100_000 }));
        let noted = place.output("logs_query", &json!({ "text": "asked the model" })).unwrap();
        let entries = noted["entries"].as_array().unwrap_or_else(|| panic!("{noted}"));
        assert_eq!(entries.len(), 5, "{noted}");
        let ids: Vec<_> = entries.iter().map(|it| &it["request_id"]).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && id.is_string()), "{ids:?}");
        assert_eq!(
            entries[0]["fields"],
            json!({ "function": "all", "model": "small", "prompt_tokens": 7, "completion_tokens": 5 })
        );
    }
    let asked = provider.questions();
    assert_eq!(asked.len(), 10);
    let line = format!("authorization: Bearer {KEY}\r\n");
    assert!(asked.iter().all(|it| it.head.contains(&line) && it.body["model"] == "small"));
    // Nothing of what the function's client says of itself goes along.
    assert!(asked.iter().all(|it| !it.head.contains("x-stainless") && !it.head.contains("none")));
}

#[test]
fn a_model_that_does_what_it_should_not_harms_nobody() {
    let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n".to_owned();
    let turns = {
        let (chunk, giant) = (chunk.clone(), format!("data: {}\n\n", "x".repeat(3 << 20)));
        move |number: usize, asked: &Question| {
            let said = json!({ "error": { "message": format!("bad {KEY}") } });
            let refused =
                |status: u16| Turn::Says(status, vec![("retry-after", "0".to_owned())], said.clone());
            match asked.body["user"].as_str().unwrap() {
                "passes" if number == 0 => refused(429),
                "passes" => completion("hello", 5),
                "slow" => Turn::Events(streamed(&["he", "llo"]), 5, Duration::from_millis(20)),
                "failed" => refused(500),
                "wrong" => refused(400),
                "ends" => Turn::Ends,
                "torn" => Turn::Torn(chunk.clone()),
                "giant" => Turn::Events(giant.clone(), 60_000, Duration::ZERO),
                "hangs" => Turn::Hangs,
                "pauses" => Turn::Pauses(chunk.clone()),
                "echoes" if is_streamed(asked) => Turn::Events(streamed(&[KEY, "x"]), 11, Duration::ZERO),
                _ => completion(KEY, 5),
            }
        }
    };
    let provider = Provider::start(turns).unwrap();
    let steading = server(&provider, 100_000);
    let place = Place::on(Arc::clone(&steading), "hostile").unwrap();
    deploy(&place, "one", ONE_WAY, &json!({}));
    let say = |what: &str, stream: bool, more: &Value| {
        let mut asked = json!({ "body": body(stream) });
        asked["body"]["user"] = what.into();
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let said = ask(&place, "one", "/", &asked);
        assert!(!said.to_string().contains(KEY), "{what}: {said}");
        said[0].clone()
    };
    let none = json!({});
    assert_eq!(say("passes", false, &none)["it"]["choices"][0]["message"]["content"], "hello");
    assert_eq!(say("slow", true, &none)["it"], "hello");
    for (what, stream, status, code) in [
        ("failed", false, 502, "unavailable"),
        ("failed", true, 502, "unavailable"),
        ("wrong", true, 400, "invalid_input"),
        ("ends", false, 502, "unavailable"),
        ("torn", true, 502, "unavailable"),
        ("giant", true, 502, "unavailable"),
    ] {
        let said = say(what, stream, &none);
        assert_eq!((&said["status"], &said["code"]), (&json!(status), &json!(code)), "{what}: {said}");
    }
    assert_eq!(say("echoes", false, &none)["it"]["choices"][0]["message"]["content"], "***");
    assert_eq!(say("echoes", true, &none)["it"], "***x");
    // Who goes in the middle ends what the provider does for it, if it does not come to its end by then.
    for (what, stream, it) in [("pauses", true, json!("a")), ("hangs", false, Value::Null)] {
        let before = provider.left();
        assert_eq!(say(what, stream, &json!({ "leave": true }))["it"], it);
        let gone = || (provider.left() > before).then_some(());
        eventually(Duration::from_secs(90), gone).unwrap_or_else(|| panic!("it goes on: {what}"));
    }

    // What is asked wrongly is asked of nobody.
    let asked = provider.questions().len();
    let large = json!({ "messages": [{ "role": "user", "content": "x".repeat((1 << 20) - 500) }], "pad": "y".repeat(1_000) });
    for (wrong, status, field) in [
        (json!({ "messages": [] }), 400, "/messages"),
        (json!({ "messages": [1], "model": "large" }), 400, "/model"),
        (large, 413, ""),
        (json!({ "messages": [1], "max_tokens": 100_000 }), 402, "/max_tokens"),
    ] {
        let said = ask(&place, "one", "/", &json!({ "body": wrong }))[0].clone();
        assert_eq!(said["status"], status, "{field}: {said}");
    }
    assert_eq!(provider.questions().len(), asked);

    // The key is in no file, in no log, and nowhere that a function can look.
    deploy(&place, "searches", SEARCHES, &json!({ "variables": { "PLANTED": "what-is-inside" } }));
    let backwards = |text: &str| text.chars().rev().collect::<String>();
    let look = |text: &str| ask(&place, "searches", &format!("/?what={}", backwards(text)), &json!({}));
    let inside = look("what-is-inside");
    assert!(!inside["found"].as_array().unwrap().is_empty(), "it can look: {inside}");
    assert_eq!(look(KEY)["found"], json!([]));
    let grep =
        std::process::Command::new("grep").args(["-rlaF", KEY]).arg(&steading.ready().data_dir).output();
    assert_eq!(String::from_utf8_lossy(&grep.unwrap().stdout), "");
    assert!(!fs::read_to_string(steading.log_file()).unwrap().contains(KEY));
    let logged = place.output("logs_query", &json!({ "limit": 100 })).unwrap().to_string();
    assert!(!logged.contains(KEY));
}

#[test]
fn an_environment_uses_no_more_tokens_than_it_has() {
    let provider = Provider::start(|_, asked| {
        std::thread::sleep(Duration::from_millis(30));
        completion("x", asked.body["max_tokens"].as_u64().unwrap())
    });
    let provider = provider.unwrap();
    let steading = server(&provider, 1_000);
    let place = Place::on(Arc::clone(&steading), "budget").unwrap();
    deploy(&place, "one", ONE_WAY, &json!({}));
    let said = ask(&place, "one", "/", &json!({ "body": body(false), "times": 64 }));
    let said = said.as_array().unwrap();
    let (made, refused): (Vec<_>, Vec<_>) = said.iter().partition(|it| it["it"].is_object());
    assert!(!made.is_empty() && made.len() == provider.questions().len());
    assert!(
        refused.iter().all(|it| it["status"] == 402
            && it["code"] == "budget_exceeded"
            && it["hint"].as_str().unwrap().contains("model.tokens_of_env")),
        "{refused:?}"
    );
    let used = |place: &Place| place.output("app_describe", &json!({})).unwrap()["model"].clone();
    let shown = used(&place);
    assert_eq!(shown["calls"], made.len());
    assert!(shown["tokens"].as_u64().unwrap() <= 1_000, "{shown}");
    // Another environment has its own.
    let other = Place::on(steading, "other").unwrap();
    deploy(&other, "one", ONE_WAY, &json!({}));
    assert!(ask(&other, "one", "/", &json!({ "body": body(false) }))[0]["it"].is_object());
    assert_eq!(used(&other)["calls"], 1);
}

#[test]
fn without_a_model_a_function_is_told_how_there_would_be_one() {
    let place = Place::new("no-model").unwrap();
    deploy(&place, "one", ONE_WAY, &json!({}));
    let said = ask(&place, "one", "/", &json!({ "body": body(false) }))[0].clone();
    assert_eq!((&said["status"], &said["code"]), (&json!(503), &json!("unavailable")));
    assert!(said["hint"].as_str().unwrap().contains("STEADING_MODEL_BASE_URL"), "{said}");
    assert_eq!(place.output("app_describe", &json!({})).unwrap()["model"], Value::Null);
}
