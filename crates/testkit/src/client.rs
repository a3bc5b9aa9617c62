//! Calls tools by JSON over HTTP, as `curl` would.

use anyhow::bail;
use serde_json::Value;

use crate::http::{Request, Response};

/// A credential and where it is used. Cheap to clone; change one thing with [`Client::with_key`] and the like.
#[derive(Debug, Clone)]
pub struct Client {
    url: String,
    key: Option<String>,
    env: Option<String>,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status: 200, or the error's.
    pub status: u16,
    /// The tool's output, or the problem object.
    pub body: Value,
}

impl Client {
    /// A client of the platform at `url`, without a credential.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), key: None, env: None }
    }

    /// The same with this credential.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// The same in this environment, a slug or an id (header `Steading-Env`).
    #[must_use]
    pub fn in_env(mut self, env: &str) -> Self {
        self.env = Some(env.to_owned());
        self
    }

    /// The same without naming an environment, for a credential that is bound to one.
    #[must_use]
    pub fn without_env(mut self) -> Self {
        self.env = None;
        self
    }

    /// A request to the platform with this client's credential and environment.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let mut request = Request::new(method, &format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer(key);
        }
        if let Some(env) = &self.env {
            request = request.header("steading-env", env);
        }
        request
    }

    /// Calls a tool, whatever comes of it.
    ///
    /// # Errors
    /// Where the platform does not answer, or not in JSON; a refusal is an [`Answer`].
    pub fn call(&self, tool: &str, input: &Value) -> anyhow::Result<Answer> {
        self.request("POST", &format!("/v1/tools/{tool}")).json(input).send()?.try_into()
    }

    /// Calls a tool that must succeed, and gives its output.
    ///
    /// # Errors
    /// As [`Client::call`], and with the problem where the tool refuses.
    pub fn output(&self, tool: &str, input: &Value) -> anyhow::Result<Value> {
        let answer = self.call(tool, input)?;
        if answer.status != 200 {
            bail!("{tool} answers {}: {:#}", answer.status, answer.body);
        }
        Ok(answer.body)
    }
}

impl Answer {
    /// The problem's code, `invalid_input` and so on; empty where the call succeeded.
    #[must_use]
    pub fn code(&self) -> &str {
        if self.status == 200 { "" } else { self.body["code"].as_str().unwrap_or_default() }
    }
}

impl TryFrom<Response> for Answer {
    type Error = anyhow::Error;

    fn try_from(response: Response) -> anyhow::Result<Self> {
        Ok(Self { status: response.status, body: response.json()? })
    }
}
