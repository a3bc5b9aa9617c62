//! An app seen from outside: its host, the people who use it, and what it answers them.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::http::{Request, Response};

/// An app at its own address.
#[derive(Debug, Clone)]
pub struct App {
    url: String,
}

/// Somebody who uses an app: a visitor, or somebody with a session.
#[derive(Debug, Clone)]
pub struct Person {
    /// The app that is used.
    pub app: App,
    /// The session; none for a visitor.
    pub session: Option<Session>,
}

/// What signing in gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The user's id.
    pub user: String,
    /// What requests carry.
    pub access: String,
    /// What a new session is got for.
    pub refresh: String,
}

/// A whole answer of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The headers in the order of arrival, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body: its JSON, its text where it is none, null where there is no body.
    pub body: Value,
}

impl App {
    /// The app at `url`.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned() }
    }

    /// Its address, without a slash at its end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request without a session; the path goes out as it is written.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("{}{path}", self.url))
    }

    /// Somebody without a session.
    #[must_use]
    pub fn visitor(&self) -> Person {
        Person { app: self.clone(), session: None }
    }

    /// Posts to one of the routes of sign-in.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn auth(&self, route: &str, body: &Value) -> anyhow::Result<Reply> {
        Reply::of(self.request("POST", &format!("/_/auth/{route}")).json(body))
    }

    /// Somebody new, without an address.
    ///
    /// # Errors
    /// Where the app refuses.
    pub fn stranger(&self) -> anyhow::Result<Person> {
        self.signed_in(&self.auth("anonymous", &json!({}))?, 201)
    }

    /// Somebody new, with an address and a password.
    ///
    /// # Errors
    /// Where the app refuses.
    pub fn sign_up(&self, email: &str, password: &str) -> anyhow::Result<Person> {
        self.signed_in(&self.auth("signup", &json!({ "email": email, "password": password }))?, 201)
    }

    /// Somebody known.
    ///
    /// # Errors
    /// Where the app refuses.
    pub fn login(&self, email: &str, password: &str) -> anyhow::Result<Person> {
        self.signed_in(&self.auth("login", &json!({ "email": email, "password": password }))?, 200)
    }

    fn signed_in(&self, reply: &Reply, status: u16) -> anyhow::Result<Person> {
        ensure!(reply.status == status, "no session: {reply:?}");
        Ok(Person { app: self.clone(), session: Some(Session::of(&reply.body)?) })
    }
}

impl Session {
    /// Reads what the app says a session is.
    ///
    /// # Errors
    /// Where something of it is not there.
    pub fn of(body: &Value) -> anyhow::Result<Self> {
        let text = |at: &str| {
            let found = body.pointer(at).and_then(Value::as_str).map(str::to_owned);
            found.with_context(|| format!("no {at} in {body}"))
        };
        Ok(Self { user: text("/user/id")?, access: text("/access_token")?, refresh: text("/refresh_token")? })
    }
}

impl Person {
    /// The same person with another access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        let mut session = self.session.clone().unwrap_or(Session {
            user: String::new(),
            access: String::new(),
            refresh: String::new(),
        });
        token.clone_into(&mut session.access);
        Self { app: self.app.clone(), session: Some(session) }
    }

    /// The user's id; empty for a visitor.
    #[must_use]
    pub fn id(&self) -> &str {
        self.session.as_ref().map_or("", |session| &session.user)
    }

    /// The access token; empty for a visitor.
    #[must_use]
    pub fn token(&self) -> &str {
        self.session.as_ref().map_or("", |session| &session.access)
    }

    /// A request with this person's session.
    pub fn request(&self, method: &str, path: &str) -> Request {
        let request = self.app.request(method, path);
        match &self.session {
            Some(session) => request.bearer(&session.access),
            None => request,
        }
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn ask(&self, method: &str, path: &str) -> anyhow::Result<Reply> {
        Reply::of(self.request(method, path))
    }

    /// Sends a request with a JSON body.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn send(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Reply> {
        Reply::of(self.request(method, path).json(body))
    }

    /// Lists rows with these parameters of the query, which are encoded here.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn list(&self, table: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Reply> {
        let query: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.ask("GET", &format!("/_/db/{table}?{}", query.join("&")))
    }

    /// Makes a row that must be made, and gives it as the app does.
    ///
    /// # Errors
    /// Where the app refuses.
    pub fn create(&self, table: &str, row: &Value) -> anyhow::Result<Value> {
        let reply = self.send("POST", &format!("/_/db/{table}"), row)?;
        ensure!(reply.status == 201, "no row: {reply:?}");
        Ok(reply.body)
    }
}

impl Reply {
    /// Sends a request and reads what comes.
    ///
    /// # Errors
    /// Where nothing answers.
    pub fn of(request: Request) -> anyhow::Result<Self> {
        Ok(request.send()?.into())
    }

    /// The first header of this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// The problem's code; empty where there is none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// Holds that this is a refusal with this status, told as a problem object with this code.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn refuses(&self, status: u16, code: &str) -> anyhow::Result<()> {
        let told = self.header("content-type") == Some("application/problem+json");
        let id = self.body["request_id"].is_string();
        ensure!(
            (self.status, self.code()) == (status, code) && told && id,
            "not refused with {status} {code}: {self:?}"
        );
        Ok(())
    }

    /// Holds that this is a list of exactly the rows with these ids, in whatever order.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn lists(&self, ids: &[&str]) -> anyhow::Result<()> {
        ensure!(self.status == 200, "no list: {self:?}");
        let rows = self.body["rows"].as_array().with_context(|| format!("no rows: {self:?}"))?;
        let mut found: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        let mut wanted = ids.to_vec();
        found.sort_unstable();
        wanted.sort_unstable();
        ensure!(found == wanted && rows.len() == ids.len(), "not exactly {ids:?}: {self:?}");
        Ok(())
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        let text = String::from_utf8_lossy(&response.body);
        let body = match serde_json::from_str(&text) {
            Ok(body) => body,
            Err(_) if text.is_empty() => Value::Null,
            Err(_) => Value::String(text.into_owned()),
        };
        Self { status: response.status, headers: response.headers, body }
    }
}

/// A text as a part of a path or a query (RFC 3986 §2.1).
#[must_use]
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
