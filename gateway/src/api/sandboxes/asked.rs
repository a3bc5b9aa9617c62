//! A request about one sandbox: who asks about which, and how that is answered.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hands::Hand;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use kernel::{Caller, Result};
use mcp_server::auth::Authenticated;
use mcp_server::extract::Path;
use mcp_server::platform::Platform;
use serde_json::{Value, json};
use store::Workspace;
use tool::Effect;
use web::problem::Problem;

use super::{Action, Api, environment};
use crate::api::{answer, read, read_text};

/// What is answered.
pub type Answer = Result<Response, Problem>;

/// Who asks, and the sandbox that the path names.
pub struct Asked {
    pub api: Api,
    pub caller: Arc<Caller>,
    sandbox: String,
    parts: HashMap<String, String>,
}

impl FromRequestParts<Api> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Authenticated(caller) = Authenticated::from_request_parts(parts, api).await?;
        let Path::<HashMap<_, _>>(mut parts) = Path::from_request_parts(parts, api).await?;
        let sandbox = parts.remove("sandbox").unwrap_or_default();
        Ok(Self { api: api.clone(), caller, sandbox, parts })
    }
}

impl Asked {
    /// What the path says in that place.
    pub fn part(&self, name: &str) -> &str {
        self.parts.get(name).map_or("", String::as_str)
    }

    pub fn platform(&self) -> &Platform {
        self.api.platform()
    }

    /// The headers of its request, and the body as JSON.
    pub async fn input(&mut self, request: Request) -> Result<(HeaderMap, Value)> {
        let (caller, headers, input) = read(&self.api, Arc::clone(&self.caller), request).await?;
        self.caller = caller;
        Ok((headers, input))
    }

    /// The headers of its request, and the body, which says that it is JSON, as text of at most so many bytes.
    pub async fn text(&mut self, request: Request, most: usize) -> Result<(HeaderMap, Bytes)> {
        let (caller, headers, body) = read_text(&self.api, Arc::clone(&self.caller), request, most).await?;
        self.caller = caller;
        web::body::must_be_json(&headers)?;
        Ok((headers, body))
    }

    /// The sandbox's workspace, which is the caller's.
    pub async fn workspace(&self) -> Result<Workspace> {
        let env = environment(&self.api, &self.caller).await?;
        self.platform().sandbox(&env, &self.caller, &self.sandbox).await
    }

    /// The sandbox, awake.
    pub async fn hand(&self) -> Result<Hand> {
        self.platform().hands.wake(&self.workspace().await?).await
    }

    /// Does `work`, on the record.
    pub async fn act<T>(
        &self,
        action: &'static str,
        effect: Effect,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.api.act(&self.caller, Action::on(action, "sandbox", &self.sandbox), effect, work).await
    }

    /// Does `work` and tells what came of it.
    pub async fn told(
        &self,
        action: &'static str,
        effect: Effect,
        work: impl Future<Output = Result<Value>>,
    ) -> Answer {
        Ok(answer(StatusCode::OK, &self.act(action, effect, work).await?))
    }

    /// Does `work`, of which there is nothing to tell.
    pub async fn done(
        &self,
        action: &'static str,
        effect: Effect,
        work: impl Future<Output = Result<()>>,
    ) -> Answer {
        self.act(action, effect, work).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    }

    /// Makes something, once for each idempotency key of this sandbox.
    pub async fn made(
        &self,
        headers: &HeaderMap,
        action: &'static str,
        input: &Value,
        work: impl Future<Output = Result<Value>>,
    ) -> Answer {
        let input = json!({ "sandbox": self.sandbox, "input": input });
        let body = self.api.act_once(&self.caller, headers, action, &input, Value::clone, work).await?;
        Ok(answer(StatusCode::CREATED, &body))
    }
}
