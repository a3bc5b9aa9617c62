//! How a command fails: a problem object and an exit code.

use std::process::ExitCode;

use kernel::{Code, Error};
use serde_json::{Value, json};

use super::args::BAD_CONFIGURATION;
use crate::config;

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    exit: u8,
    problem: Value,
}

impl Failure {
    /// A failure whose result says everything already.
    pub fn said(code: Code) -> Self {
        Self { exit: code.exit_code(), problem: Value::Null }
    }

    /// What the platform answered with `status`; where that is no problem object, what it means.
    pub fn answered(status: http::StatusCode, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Value>(body).ok().filter(|body| body["code"].is_string());
        let Some(problem) = problem else {
            let code = if status.is_server_error() { Code::Unavailable } else { Code::Internal };
            return Error::new(code, format!("the platform answered {status} without saying why"))
                .hint("check that the address is that of a steading platform")
                .into();
        };
        let code = problem["code"].as_str().and_then(Code::from_name);
        Self { exit: code.map_or(1, Code::exit_code), problem }
    }

    /// How the process ends.
    pub fn exit(&self) -> ExitCode {
        self.exit.into()
    }

    /// The problem object (RFC 9457).
    pub fn problem(&self) -> &Value {
        &self.problem
    }

    /// The code, where it is one of the closed list.
    pub fn code(&self) -> Option<Code> {
        self.problem["code"].as_str().and_then(Code::from_name)
    }

    /// Whether the platform asks for an environment to be named.
    pub fn wants_env(&self) -> bool {
        let says = |name: &str| self.problem[name].as_str().is_some_and(|text| text.contains("Steading-Env"));
        self.code() == Some(Code::InvalidInput) && (says("message") || says("hint"))
    }

    /// The problem in words, for people.
    pub fn words(&self) -> String {
        let text = |name: &str| self.problem[name].as_str();
        let mut words = text("message").unwrap_or("something failed").to_owned();
        if let Some(field) = text("field").filter(|field| !field.is_empty()) {
            words.push_str(&format!("\n  at: {field}"));
        }
        if let Some(hint) = text("hint") {
            words.push_str(&format!("\n  hint: {hint}"));
        }
        if let Some(tool) = self.problem["next"]["tool"].as_str() {
            words.push_str(&format!("\n  next: steading call {tool} '{}'", self.problem["next"]["input"]));
        }
        if let Some(id) = text("request_id").filter(|_| self.code() == Some(Code::Internal)) {
            words.push_str(&format!("\n  request: {id}"));
        }
        words
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut problem = error.problem("");
        if let Some(problem) = problem.as_object_mut() {
            // There was no request.
            problem.remove("request_id");
        }
        if error.code() == Code::Internal {
            // The one who runs the command is the one who reads the log.
            problem["message"] = error.chain().into();
        }
        Self { exit: error.code().exit_code(), problem }
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        let mut problem = json!({
            "type": "urn:steading:error:invalid_input",
            "title": "The configuration is not valid",
            "status": 400,
            "code": "invalid_input",
            "message": error.to_string(),
        });
        if let Some(hint) = error.hint() {
            problem["hint"] = hint.into();
        }
        Self { exit: BAD_CONFIGURATION, problem }
    }
}

impl From<crate::serve::Error> for Failure {
    fn from(error: crate::serve::Error) -> Self {
        let failure = Self::from(Error::from(error));
        // Whoever starts the platform gives it nothing but its configuration.
        let exit = if failure.code() == Some(Code::InvalidInput) { BAD_CONFIGURATION } else { failure.exit };
        Self { exit, ..failure }
    }
}

impl From<crate::lockfile::Error> for Failure {
    fn from(error: crate::lockfile::Error) -> Self {
        Error::from(error).into()
    }
}
