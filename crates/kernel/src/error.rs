//! The one error that crosses a border: a code from a closed list, words for the caller, a source for the log.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{LimitInfo, Scopes};

/// What went wrong, as a closed list. HTTP status, CLI exit code and retry advice follow from it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The input is wrong; `field` says where.
    InvalidInput,
    /// No credential, or one that is not valid (any more).
    Unauthenticated,
    /// A valid credential without the scope.
    Forbidden,
    /// There is no such thing, or none the caller may know of.
    NotFound,
    /// The thing is in another state than the call needs.
    Conflict,
    /// The body or a value is over its limit.
    TooLarge,
    /// Too many calls; `retry_after` says when the next one passes.
    RateLimited,
    /// A quota is used up.
    QuotaExceeded,
    /// A budget is used up.
    BudgetExceeded,
    /// A part that is needed cannot be reached now.
    Unavailable,
    /// It took longer than it may.
    Timeout,
    /// Our fault; the caller learns the request id, the log the rest.
    Internal,
}

impl Code {
    /// Every code, in the order of the contract.
    pub const ALL: [Code; 12] = [
        Code::InvalidInput,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::NotFound,
        Code::Conflict,
        Code::TooLarge,
        Code::RateLimited,
        Code::QuotaExceeded,
        Code::BudgetExceeded,
        Code::Unavailable,
        Code::Timeout,
        Code::Internal,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status (RFC 9110 §15).
    #[must_use]
    pub const fn status(self) -> u16 {
        self.row().1
    }

    /// The exit code of the command line.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        self.row().2
    }

    /// A short title, the same for every error of the code (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().3
    }

    /// The code with that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Code> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    const fn row(self) -> (&'static str, u16, u8, &'static str) {
        match self {
            Code::InvalidInput => ("invalid_input", 400, 2, "The input is not valid"),
            Code::Unauthenticated => ("unauthenticated", 401, 3, "A valid credential is needed"),
            Code::Forbidden => ("forbidden", 403, 3, "The credential does not allow this"),
            Code::NotFound => ("not_found", 404, 4, "There is no such thing"),
            Code::Conflict => ("conflict", 409, 5, "The state has moved"),
            Code::TooLarge => ("too_large", 413, 2, "Too large"),
            Code::RateLimited => ("rate_limited", 429, 6, "Too many calls"),
            Code::QuotaExceeded => ("quota_exceeded", 429, 6, "The quota is used up"),
            Code::BudgetExceeded => ("budget_exceeded", 402, 6, "The budget is used up"),
            Code::Unavailable => ("unavailable", 503, 7, "Not available now"),
            Code::Timeout => ("timeout", 504, 7, "It took too long"),
            Code::Internal => ("internal", 500, 1, "Internal error"),
        }
    }
}

/// The call that would mend things, ready to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// The tool to call.
    pub tool: &'static str,
    /// Its input.
    pub input: Value,
}

/// An error on its way to a caller. `message` and `hint` are for the caller and hold nothing of other tenants,
/// no path and no secret; the source is for the log alone.
pub struct Error(Box<Parts>);

struct Parts {
    code: Code,
    message: String,
    hint: Option<String>,
    field: Option<String>,
    retry_after: Option<Duration>,
    next: Option<Next>,
    limit: Option<LimitInfo>,
    /// Scopes that the caller can ask its user for.
    lacks: Option<Scopes>,
    /// Finer than the code's own.
    status: Option<u16>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What most fallible functions of Steading return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message: lower case, no full stop, says what and which.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            message: message.into(),
            hint: None,
            field: None,
            retry_after: None,
            next: None,
            limit: None,
            lacks: None,
            status: None,
            source: None,
        }))
    }

    /// Invalid input at `field`, a JSON pointer (RFC 6901) into the input.
    #[must_use]
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, message).field(field)
    }

    /// There is no such `what`; the same words whether it is missing or another's.
    #[must_use]
    pub fn not_found(what: impl fmt::Display) -> Self {
        Self::new(Code::NotFound, format!("there is no {what}"))
    }

    /// Our own failure. The caller sees the request id only.
    #[must_use]
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "internal error").source(source)
    }

    /// An idempotency key used for another request: `conflict` with status 422.
    #[must_use]
    pub fn idempotency_misuse(message: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Conflict, message);
        error.0.status = Some(422);
        error
    }

    /// A condition that the caller set does not hold (RFC 9110 §13.1): `conflict` with status 412.
    #[must_use]
    pub fn precondition(message: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Conflict, message);
        error.0.status = Some(412);
        error
    }

    /// What was asked in the caller's place has not answered as it should: `unavailable` with status 502.
    #[must_use]
    pub fn broken_upstream(message: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Unavailable, message);
        error.0.status = Some(502);
        error
    }

    /// What the caller sends does not come in time: `timeout` with status 408.
    #[must_use]
    pub fn slow_sender(message: impl Into<String>) -> Self {
        let mut error = Self::new(Code::Timeout, message);
        error.0.status = Some(408);
        error
    }

    /// Adds the next action.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds where in the input, as a JSON pointer (RFC 6901).
    #[must_use]
    pub fn field(mut self, pointer: impl Into<String>) -> Self {
        self.0.field = Some(pointer.into());
        self
    }

    /// The same in other words, wherever it says something: also to the log, and in the call that would mend it.
    #[must_use]
    pub fn reworded(mut self, worded: impl Fn(&str) -> String) -> Self {
        let parts = &mut *self.0;
        parts.message = worded(&parts.message);
        for text in [&mut parts.hint, &mut parts.field].into_iter().flatten() {
            *text = worded(text);
        }
        if let Some(next) = &mut parts.next {
            let said = next.input.to_string();
            let reworded = worded(&said);
            if reworded != said {
                next.input = serde_json::from_str(&reworded).unwrap_or_default();
            }
        }
        let mut causes = Vec::new();
        let mut cause = parts.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        let said = causes.join(": ");
        let reworded = worded(&said);
        if reworded != said {
            parts.source = Some(reworded.into());
        }
        self
    }

    /// Puts `prefix` before the pointer, for an error found in a part of the input.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        let below = self.0.field.take().unwrap_or_default();
        self.0.field = Some(format!("{prefix}{below}"));
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.0.retry_after = Some(after);
        self
    }

    /// Adds the call that would mend it.
    #[must_use]
    pub fn next(mut self, tool: &'static str, input: Value) -> Self {
        self.0.next = Some(Next { tool, input });
        self
    }

    /// Adds the limit the call ran into.
    #[must_use]
    pub fn limit(mut self, limit: LimitInfo) -> Self {
        self.0.limit = Some(limit);
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The message for the caller.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The JSON pointer to what is wrong, where there is one.
    #[must_use]
    pub fn pointer(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The next action, where there is one.
    #[must_use]
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Seconds to wait before the next try, rounded up, as `Retry-After` wants them (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after_secs(&self) -> Option<u64> {
        self.0.retry_after.map(|after| after.as_millis().div_ceil(1000) as u64)
    }

    /// The limit the call ran into, where it ran into one.
    #[must_use]
    pub fn limit_info(&self) -> Option<&LimitInfo> {
        self.0.limit.as_ref()
    }

    /// The same, for want of scopes that the caller can ask its user for.
    #[must_use]
    pub fn lacking(mut self, scopes: Scopes) -> Self {
        self.0.lacks = Some(scopes);
        self
    }

    /// The scopes that the caller can ask its user for, where it was refused for want of them.
    #[must_use]
    pub fn lacks(&self) -> Option<Scopes> {
        self.0.lacks
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status.unwrap_or_else(|| self.0.code.status())
    }

    /// The problem object (RFC 9457) that HTTP bodies, MCP failures and the command line carry.
    #[must_use]
    pub fn problem(&self, request_id: &str) -> Value {
        let code = self.0.code;
        let mut problem = json!({
            "type": format!("urn:steading:error:{}", code.as_str()),
            "title": code.title(),
            "status": self.status(),
            "code": code.as_str(),
            "message": self.0.message,
            "request_id": request_id,
        });
        let optional = [
            ("hint", self.0.hint.clone().map(Value::from)),
            ("field", self.0.field.clone().map(Value::from)),
            ("retry_after", self.retry_after_secs().map(Value::from)),
            ("limit", self.0.limit.as_ref().map(LimitInfo::to_json)),
            ("next", self.0.next.as_ref().map(|n| json!({ "tool": n.tool, "input": n.input }))),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                problem[name] = value;
            }
        }
        problem
    }

    /// The message and every cause behind it, for the log.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = StdError::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.0.code.as_str())?;
        if let Some(field) = &self.0.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LimitScope;

    #[test]
    fn the_table_of_codes_is_the_contract() {
        let table: String =
            Code::ALL.iter().map(|c| format!("{} {} {}\n", c.as_str(), c.status(), c.exit_code())).collect();
        expect_test::expect![[r#"
            invalid_input 400 2
            unauthenticated 401 3
            forbidden 403 3
            not_found 404 4
            conflict 409 5
            too_large 413 2
            rate_limited 429 6
            quota_exceeded 429 6
            budget_exceeded 402 6
            unavailable 503 7
            timeout 504 7
            internal 500 1
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn a_problem_carries_what_the_caller_may_know_and_no_source() {
        let error = Error::invalid("/sql", "only one statement is allowed")
            .hint("send the statements one by one")
            .source(std::io::Error::other("at /var/lib/secret"));
        let problem = error.problem("req_1");
        assert_eq!(
            problem,
            json!({
                "type": "urn:steading:error:invalid_input",
                "title": "The input is not valid",
                "status": 400,
                "code": "invalid_input",
                "message": "only one statement is allowed",
                "request_id": "req_1",
                "hint": "send the statements one by one",
                "field": "/sql",
            })
        );
        assert_eq!(error.chain(), "only one statement is allowed: at /var/lib/secret");
    }

    #[test]
    fn a_problem_says_which_limit_it_is_about_and_how_it_is_raised() {
        let limit = LimitInfo::new("calls", LimitScope::Tenant, 10, "calls").window(2).reset(1);
        let problem = Error::new(Code::RateLimited, "x").limit(limit).problem("req_1");
        assert_eq!(
            problem["limit"],
            json!({
                "name": "calls", "scope": "tenant", "value": 10, "unit": "calls", "window_s": 2, "left": 0,
                "reset_s": 1, "raise": "ask who runs the platform",
            })
        );
        let lasting = LimitInfo::new("database", LimitScope::Environment, 5, "bytes").left(1).raised("ask");
        let problem = Error::new(Code::QuotaExceeded, "x").limit(lasting).problem("req_1");
        assert_eq!(
            problem["limit"],
            json!({ "name": "database", "scope": "environment", "value": 5, "unit": "bytes", "left": 1, "raise": "ask" })
        );
    }

    #[test]
    fn waiting_times_are_rounded_up() {
        let error = Error::new(Code::RateLimited, "x").retry_after(Duration::from_millis(1));
        assert_eq!(error.retry_after_secs(), Some(1));
    }

    #[test]
    fn another_body_under_the_same_idempotency_key_is_422() {
        let error = Error::idempotency_misuse("x");
        assert_eq!((error.code(), error.status()), (Code::Conflict, 422));
    }
}
