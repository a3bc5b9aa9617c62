//! What functions ask of the model: OpenAI's interface, as far as the platform has it.

use ::models::{Answer, BODY, Models, Spent, Tokens, Told};
use axum::body::Body;
use axum::response::Response;
use capabilities::logs::{Entry, Level, Logs, Source};
use functions::{Asker, By};
use futures::StreamExt as _;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};
use kernel::{CallId, Error, Result, Timestamp};
use serde_json::{Value, json};
use web::problem::REQUEST_ID;

use crate::data::refused;
use crate::serve::Edge;

/// What the platform has besides apps.
pub(super) const BELOW: &str = "/v1/";

const CHAT: &str = "/v1/chat/completions";
const MODELS: &str = "/v1/models";
const ONE: &str = "/v1/models/";

/// Whoever is refused for no longer than that, in seconds, may ask again by themselves.
const SOON: u64 = 10;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Answers what a function asks of the model. `during` is the request that it works on meanwhile, if it is one.
pub(super) async fn answer(
    edge: &Edge,
    asker: &Asker,
    parts: &Parts,
    body: Body,
    during: Option<String>,
    id: CallId,
) -> Response {
    let answered = match (&edge.functions, &parts.method, parts.uri.path()) {
        (Some(door), &Method::POST, CHAT) => {
            let read = web::body::read(&parts.headers, body, BODY).await;
            match read {
                Ok(body) => chat(&door.models, &body, told(&edge.logs, asker, during, id), asker).await,
                Err(error) => Err(error),
            }
        }
        (Some(door), &Method::GET, path) if path == MODELS || path.starts_with(ONE) => {
            listed(&door.models, path)
        }
        _ => Err(Error::not_found("such interface for functions")
            .hint("models have POST /v1/chat/completions and GET /v1/models")),
    };
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => in_both_shapes(&error, asker, id),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

async fn chat(models: &Models, body: &[u8], told: Told, asker: &Asker) -> Result<Response> {
    Ok(match models.chat(&asker.env, body, told).await? {
        Answer::Whole(body) => of("application/json", Body::from(body)),
        Answer::Events(events) => {
            let events = events.map(Ok::<_, std::convert::Infallible>);
            of("text/event-stream", Body::from_stream(events))
        }
    })
}

/// Notes in the app's log, and in the platform's, what a call has used, and in the app's what is nearly spent by it.
fn told(logs: &Logs, asker: &Asker, during: Option<String>, id: CallId) -> Told {
    let (logs, env, function) = (logs.clone(), asker.env.clone(), asker.name.clone());
    Box::new(move |model, Spent { tokens, said, micro, warnings }| {
        let Tokens { prompt, completion, .. } = tokens;
        let request_id = during.unwrap_or_else(|| id.to_string());
        tracing::info!(request_id, env.id = %env.id(), model, prompt, completion, micro, said, "a function has asked the model");
        let estimated = if said { "" } else { ", as an estimate" };
        let text =
            format!("asked the model {model:?}: {prompt} tokens sent, {completion} received{estimated}");
        let mut entry = Entry::new(Timestamp::now(), Level::Info, Source::Function, text);
        entry.request_id = Some(request_id.clone());
        if let Some(micro) = micro {
            entry.fields.insert("cost_micro".to_owned(), micro.into());
        }
        for (name, value) in [
            ("function", Value::from(function.as_str())),
            ("model", model.into()),
            ("prompt_tokens", prompt.into()),
            ("completion_tokens", completion.into()),
        ] {
            entry.fields.insert(name.to_owned(), value);
        }
        logs.append(&env, entry);
        for warning in warnings {
            let mut entry = Entry::new(Timestamp::now(), Level::Warn, Source::Function, warning);
            entry.request_id = Some(request_id.clone());
            logs.append(&env, entry);
        }
    })
}

/// The models that there are, or the one that is asked for.
fn listed(models: &Models, path: &str) -> Result<Response> {
    let name = models.name()?;
    let model = json!({ "id": name, "object": "model", "created": 0, "owned_by": "platform" });
    let shown = match path.strip_prefix(ONE) {
        None => json!({ "object": "list", "data": [model] }),
        Some(asked) if percent_encoding::percent_decode_str(asked).eq(name.bytes()) => model,
        Some(_) => return Err(Error::not_found("such model").hint(format!("there is {name:?}"))),
    };
    Ok(of("application/json", Body::from(shown.to_string())))
}

fn of(kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A refusal as every other one, and as clients of OpenAI's read it: they look below `error`, and would ask again at once
/// where that is of no use.
fn in_both_shapes(error: &Error, asker: &Asker, id: CallId) -> Response {
    let mut response = refused(error, &asker.env, id);
    let mut problem = error.problem(&id.to_string());
    problem["type"] = "about:blank".into();
    let hint = error.advice().map(|hint| format!(": {hint}")).unwrap_or_default();
    problem["error"] = json!({
        "message": format!("{}{hint}", error.message()),
        "type": error.code().as_str(),
        "code": error.code().as_str(),
        "param": error.pointer().filter(|field| !field.is_empty()),
    });
    *response.body_mut() = Body::from(problem.to_string());
    if error.retry_after_secs().is_none_or(|seconds| seconds > SOON) {
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    response
}

/// The request that a function works on while it asks, as it says itself, where it does work on that.
pub(super) fn during(asker: &Asker, said: Option<&str>) -> Option<String> {
    said.filter(|id| !matches!(asker.by(id), By::Nobody)).map(str::to_owned)
}
