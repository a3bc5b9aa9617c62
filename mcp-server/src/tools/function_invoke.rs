//! `function_invoke`: asks a function, and shows what it answers and what it logs meanwhile.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use capabilities::functions::FunctionName;
use functions::{Answer, Asking, Called, Kind, Line, Lines, Sent, Tick};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::{BodyExt as _, Full};
use kernel::{Code, Env, Error, Result, Scope, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tool::{Cx, Effect, Spec, Tool, budget};

use super::outcome::shorten;
use crate::platform::Platform;

pub struct FunctionInvoke;

/// The most bytes of a body, either way.
const MOST: usize = 1 << 20;

/// How long an answer is read for that has begun.
const READ: Duration = Duration::from_secs(30);

/// How long it is quiet when what a request logs has come, and how long that is waited for at most.
const QUIET: Duration = Duration::from_millis(30);
const LAST: Duration = Duration::from_millis(300);

/// What of the result may cost how much, in tokens, and the longest line and value, in characters.
const BODY: usize = 2_200;
const LOGS: usize = 1_000;
const HEADERS: usize = 350;
const LINE: usize = 1_000;
const VALUE: usize = 200;

/// What the platform says itself, or what is between two neighbours.
const OURS: [&str; 6] = ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    name: String,
    method: Option<String>,
    /// With the query.
    path: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "headers")]
    headers: BTreeMap<String, String>,
    /// Text, or {"base64"}.
    #[serde(default)]
    #[schemars(schema_with = "text_or_object")]
    body: Option<BodyInput>,
    schedule: Option<String>,
}

fn headers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

fn text_or_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "string" }, { "type": "object" }] })
}

/// A body as it is given.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, or {\"base64\": …}; write JSON as a text")]
pub enum BodyInput {
    Text(String),
    Bytes(Encoded),
}

/// Bytes that are no text.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Encoded {
    base64: String,
}

#[derive(Serialize, JsonSchema)]
pub struct Output {
    status: u16,
    headers: BTreeMap<String, String>,
    /// Text, or {"base64"} where it is none.
    body: BodyOutput,
    /// What it has logged, oldest first.
    logs: Vec<Logged>,
    /// What is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    omitted: Option<String>,
    /// For logs_query.
    request_id: String,
}

/// A body as it is shown.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
pub enum BodyOutput {
    Text(String),
    Bytes(Encoded),
}

/// One line of a log.
#[derive(Serialize, JsonSchema)]
pub struct Logged {
    level: &'static str,
    text: String,
}

impl Tool<Platform> for FunctionInvoke {
    type Proof = Env;
    type Input = Input;
    type Output = Output;

    const SPEC: Spec = Spec {
        title: "Ask a function",
        about: "Asks a function as its owner; shows the answer, what it throws, and its logs.",
        scopes: &[Scope::FunctionInvoke],
        effect: Effect::Write,
        examples: &[],
    };

    const PATIENCE: Duration = Duration::from_secs(960);

    async fn call(cx: &Cx<'_, Platform, Env>, input: Input) -> Result<Output> {
        let (platform, env) = (cx.platform(), cx.env());
        let called = called(platform, env, &input.name).await?;
        let (id, lines) = (cx.id().to_string(), Lines::default());
        let mut asking = match &input.schedule {
            Some(schedule) => scheduled(platform, env, &input, schedule, &id).await?,
            None => request(platform, env, input, &id).await?,
        };
        asking.caller = Some(json!({ "kind": "service" }).to_string());
        asking.lines = Some(Arc::clone(&lines));
        let asked = async {
            let reply = platform.functions.ask(&called, asking).await?;
            let (parts, answer) = reply.response.into_parts();
            let (bytes, cut) = read(answer).await;
            quiet(&lines).await;
            Ok((parts, bytes, cut))
        };
        let (parts, bytes, cut) = tokio::select! {
            asked = asked => asked.map_err(|error: functions::Error| {
                platform.masks.covered(env.id(), error.into()).next("logs_query", json!({ "request_id": id }))
            })?,
            () = cx.cancel().cancelled() => return Err(Error::new(Code::Timeout, "the call was given up")),
        };
        let mut omitted = Vec::from_iter(cut);
        let body = shown(&bytes, &mut omitted);
        let headers = shown_headers(&parts.headers, &mut omitted);
        let cover = |line: &Line| {
            let mut text = platform.masks.cover(env.id(), &line.text).into_owned();
            shorten(&mut text, LINE);
            Logged { level: level(line.level), text }
        };
        let all: Vec<_> = lines.lock().unwrap_or_else(PoisonError::into_inner).iter().map(cover).collect();
        let (logs, left) = budget::fit(all, LOGS);
        if left > 0 {
            omitted.push(format!("{left} more lines of the log: logs_query shows them"));
        }
        let omitted = (!omitted.is_empty()).then(|| omitted.join("; "));
        Ok(Output { status: parts.status.as_u16(), headers, body, logs, omitted, request_id: id })
    }
}

/// What `input` asks for.
async fn request(platform: &Platform, env: &Env, input: Input, id: &str) -> Result<Asking> {
    let base = platform.url(env).await?;
    let path = path(input.path.as_deref())?;
    let (body, is_call) = body(input.body)?;
    // A call with a value is what a function that has `main` expects where nothing else is said.
    let kind =
        if input.method.is_none() && input.path.is_none() && is_call { Kind::Invoke } else { Kind::Http };
    let method = match input.method.as_deref() {
        None if body.is_empty() => Method::GET,
        None => Method::POST,
        Some(text) => Method::from_bytes(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| Error::invalid("/method", "this is no method of HTTP"))?,
    };
    let mut headers = given(&input.headers)?;
    let host = base.split_once("://").map_or(&*base, |(_, host)| host);
    headers.insert(HOST, HeaderValue::try_from(host).map_err(Error::internal)?);
    if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        let kind = if is_call { "application/json" } else { "text/plain;charset=utf-8" };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    let body: Sent = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = path.clone();
    *request.headers_mut() = headers;
    Ok(Asking { url: Some(format!("{base}{path}")), ..Asking::new(request, id, kind) })
}

/// One of a function's schedules, run now.
async fn scheduled(platform: &Platform, env: &Env, input: &Input, name: &str, id: &str) -> Result<Asking> {
    if input.method.is_some() || input.path.is_some() || input.body.is_some() || !input.headers.is_empty() {
        return Err(Error::invalid("/schedule", "a schedule says itself what the function is asked"));
    }
    let all = platform.releases.scheduled(env).await?.all;
    let found = name.parse().ok().and_then(|name| all.get(&name));
    let spec = found.filter(|it| it.function.as_str() == input.name).ok_or_else(|| {
        let shown: String = name.chars().take(64).collect();
        Error::not_found(format!("schedule {shown:?} of this function"))
            .field("/schedule")
            .hint("app_describe lists them")
    })?;
    let tick = Tick { name, cron: &spec.cron, at: Timestamp::now(), attempt: 1, payload: spec.body() };
    Ok(tick.asking(id))
}

async fn called(platform: &Platform, env: &Env, name: &str) -> Result<Called> {
    let nothing = || {
        let shown: String = name.chars().take(64).collect();
        Error::not_found(format!("function {shown:?} in this app"))
            .field("/name")
            .hint("app_describe lists them")
    };
    let name: FunctionName = name.parse().map_err(|_| nothing())?;
    let live = platform.releases.live(env).await?.ok_or_else(nothing)?;
    let function = Arc::clone(live.functions.get(&name).ok_or_else(nothing)?);
    Ok(Called { env: env.clone(), name, function, variables: Arc::clone(&live.variables) })
}

fn path(text: Option<&str>) -> Result<Uri> {
    let text = text.unwrap_or("/");
    let whole = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    whole.parse::<Uri>().ok().filter(|uri| uri.authority().is_none()).ok_or_else(|| {
        Error::invalid("/path", "this is no path").hint("write it like /items?limit=2, percent-encoded")
    })
}

/// The bytes of a body, and whether they are a value in JSON, or nothing.
fn body(given: Option<BodyInput>) -> Result<(Bytes, bool)> {
    let bytes = match given {
        None => return Ok((Bytes::new(), true)),
        Some(BodyInput::Text(text)) => Bytes::from(text),
        Some(BodyInput::Bytes(Encoded { base64 })) => {
            let bytes = STANDARD.decode(base64);
            bytes.map_err(|_| Error::invalid("/body/base64", "this is not base64"))?.into()
        }
    };
    if bytes.len() > MOST {
        let message = format!("the body has {} bytes; {MOST} are taken here", bytes.len());
        return Err(Error::new(Code::TooLarge, message)
            .field("/body")
            .hint("send it to the function's address"));
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
    Ok((bytes, is_json))
}

fn given(headers: &BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut given = HeaderMap::new();
    for (name, value) in headers {
        let at = || format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
        let header: HeaderName =
            name.parse().map_err(|_| Error::invalid(at(), "this is not the name of a header"))?;
        if OURS.contains(&header.as_str()) || header.as_str().starts_with("steading-") {
            return Err(Error::invalid(at(), format!("the platform says {header} itself")));
        }
        let value =
            HeaderValue::try_from(value).map_err(|_| Error::invalid(at(), "no header has such a value"))?;
        given.append(header, value);
    }
    Ok(given)
}

/// What comes of an answer, and what is left out where that is not all.
async fn read(mut answer: Answer) -> (Bytes, Option<String>) {
    let (mut all, until) = (BytesMut::new(), Instant::now() + READ);
    loop {
        match timeout_at(until, answer.frame()).await {
            Ok(Some(Ok(frame))) => all.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new())),
            Ok(None) => return (all.freeze(), None),
            Ok(Some(Err(_))) => return (all.freeze(), Some("the answer broke off".to_owned())),
            Err(_) => {
                let said = format!("what comes after {} s of an answer without end", READ.as_secs());
                return (all.freeze(), Some(said));
            }
        }
        if all.len() > MOST {
            all.truncate(MOST);
            return (all.freeze(), Some(format!("what comes after {MOST} bytes of the body")));
        }
    }
}

/// Waits until nothing more is logged.
async fn quiet(lines: &Lines) {
    let count = || lines.lock().unwrap_or_else(PoisonError::into_inner).len();
    let (begun, mut there) = (Instant::now(), count());
    loop {
        sleep(QUIET).await;
        let now = count();
        if now == there || begun.elapsed() >= LAST {
            return;
        }
        there = now;
    }
}

/// A body that a model can pay.
fn shown(bytes: &Bytes, omitted: &mut Vec<String>) -> BodyOutput {
    let cost = |text: &str| budget::estimate(&Value::from(text).to_string());
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let (whole, is_text) = match text {
        Some(text) => (text.to_owned(), true),
        None => (STANDARD.encode(bytes), false),
    };
    let mut end = whole.len();
    while cost(&whole[..end]) > BODY {
        end = whole.floor_char_boundary(end * 3 / 4);
    }
    if end < whole.len() {
        let all = bytes.len();
        omitted.push(format!("part of the body, which has {all} bytes: ask the function at its address"));
    }
    match is_text {
        true => BodyOutput::Text(whole[..end].to_owned()),
        // Four characters are three bytes: what is cut stays readable.
        false => BodyOutput::Bytes(Encoded { base64: whole[..end / 4 * 4].to_owned() }),
    }
}

fn shown_headers(headers: &HeaderMap, omitted: &mut Vec<String>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let known = all.entry(name.to_string()).or_default();
        if !known.is_empty() {
            known.push_str(", ");
        }
        known.push_str(&value);
    }
    all.values_mut().for_each(|value| shorten(value, VALUE));
    let (kept, left) = budget::fit(all.into_iter().collect(), HEADERS);
    if left > 0 {
        omitted.push(format!("{left} headers"));
    }
    kept.into_iter().collect()
}

const fn level(level: functions::Level) -> &'static str {
    match level {
        functions::Level::Debug => "debug",
        functions::Level::Info => "info",
        functions::Level::Warn => "warn",
        functions::Level::Error => "error",
    }
}
