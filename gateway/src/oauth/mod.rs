//! The authorization server's routes: metadata, the pages on which users consent, and what clients ask for.

mod authorize;
mod clients;
mod device;
mod dialled;
mod directory;
mod exchange;
mod metadata;
mod once;
mod pace;
mod pages;
mod people;
mod session;
mod token;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use capabilities::auth::{Passwords, TrustedIssuer};
use capabilities::outbound::Outbound;
use control::Control;
use control::oauth::{OAuth, Refused};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use kernel::{Code, EnvId, Error, Result};
use mcp_server::auth::Dialled;
use serde_json::{Value, json};
use web::problem::{Problem, unknown_method};

use crate::api::Api;
use crate::config::Config;
use clients::Documents;
use directory::Entrance;
use pace::Pace;

pub use dialled::{Bearer, challenged, dialled};
pub use people::Typed;
pub use session::{cookie, takes_keys};

/// The largest form.
const FORM: usize = 64 << 10;
const MINUTE: Duration = Duration::from_secs(60);

/// What the routes share.
pub struct Door {
    api: Api,
    control: Arc<Control>,
    documents: Option<Documents>,
    registers: bool,
    /// What lets people in for whom a directory vouches.
    directory: Option<Entrance>,
    /// Whose signed tokens are exchanged.
    exchange: Option<TrustedIssuer>,
    wrong_keys: Pace,
    /// Of each tenant and address.
    guesses: Pace<(String, String)>,
    passwords: Passwords,
    /// Where all members stand in line who type a password.
    lane: EnvId,
    fetches: Pace,
    devices: Pace,
}

impl Door {
    /// The platform's routes beside it.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// Who knows the keys.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The door for these settings.
    ///
    /// # Errors
    /// Where what calls out cannot be made.
    pub fn new(api: Api, control: Arc<Control>, config: &Config, outbound: Outbound) -> Result<Self> {
        let settings = &config.oauth;
        Ok(Self {
            api,
            control,
            documents: settings.documents.then(|| Documents::new(outbound)),
            registers: settings.registration,
            directory: Entrance::new(&config.directory)?,
            exchange: exchange::trusted(&config.exchange)?,
            wrong_keys: Pace::new(10, MINUTE),
            guesses: Pace::new(20, MINUTE * 15),
            passwords: Passwords::new(1, Duration::from_secs(10)),
            lane: EnvId::new(),
            fetches: Pace::new(20, MINUTE),
            devices: Pace::new(30, MINUTE * 10),
        })
    }

    /// The authorization server behind it.
    pub fn oauth(&self) -> OAuth<'_> {
        self.control.oauth()
    }
}

/// The routes.
pub fn router(door: Arc<Door>) -> Router {
    Router::new()
        .route("/.well-known/oauth-protected-resource", get(metadata::resource))
        .route("/.well-known/oauth-protected-resource/mcp", get(metadata::resource))
        .route("/.well-known/oauth-protected-resource/mcp/{env}", get(metadata::resource))
        .route("/.well-known/oauth-authorization-server", get(metadata::server))
        .route("/oauth/authorize", get(authorize::show).post(authorize::answer))
        .route("/oauth/sign-in", post(session::sign_in))
        .route("/oauth/directory", get(directory::depart))
        .route("/oauth/directory/callback", get(directory::arrive))
        .route("/oauth/device", get(device::show).post(device::begin))
        .route("/oauth/device/answer", post(device::answer))
        .route("/oauth/token", post(token::token))
        .route("/oauth/register", post(token::register))
        .route("/oauth/revoke", post(token::revoke))
        .method_not_allowed_fallback(unknown_method)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&door), guard))
        .with_state(door)
}

/// Lets in what was sent to this platform, and by no page from elsewhere.
pub async fn guard(State(door): State<Arc<Door>>, request: Request, next: Next) -> Response {
    match door.api.guard().check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::from(error).into_response(),
    }
}

/// The longest name of an environment, be it a slug or an id.
const MAX_NAME: usize = 64;
/// The most fields of a form: a page has one for each scope.
const MAX_FIELDS: usize = 64;

/// The address that was dialled.
pub fn base(parts: &Parts) -> Result<Arc<str>> {
    let dialled = parts.extensions.get::<Dialled>();
    dialled
        .map(|dialled| Arc::clone(&dialled.0))
        .ok_or_else(|| Error::internal("nobody says what was dialled"))
}

/// What a resource is, where it is one at `base`; and the environment that it names.
fn resource_of(base: &str, asked: &str) -> Result<(String, Option<String>), Refused> {
    let shown: String = asked.chars().take(128).collect();
    let wrong = || Refused::Target(format!("{shown:?} is not served here: {base}/mcp is"));
    let rest = asked.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').strip_prefix(base);
    match rest.ok_or_else(wrong)? {
        "" => Ok((base.to_owned(), None)),
        "/mcp" => Ok((format!("{base}/mcp"), None)),
        path => {
            let env = path.strip_prefix("/mcp/").ok_or_else(wrong)?;
            let is_name =
                env.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
            if !(1..=MAX_NAME).contains(&env.len()) || !is_name {
                return Err(wrong());
            }
            Ok((format!("{base}/mcp/{env}"), Some(env.to_owned())))
        }
    }
}

/// Fields of a query or a form, of which each but those of `many` may be there once (RFC 6749 §3.1).
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(text: &[u8], many: &[&str]) -> Result<Self, Refused> {
        let fields: Vec<(String, String)> =
            url::form_urlencoded::parse(text).into_owned().take(MAX_FIELDS + 1).collect();
        if fields.len() > MAX_FIELDS {
            return Err(Refused::Request("it has too many fields".into()));
        }
        for (n, (name, _)) in fields.iter().enumerate() {
            if !many.contains(&name.as_str()) && fields[..n].iter().any(|(before, _)| before == name) {
                let name: String = name.chars().take(64).collect();
                return Err(if name == "resource" {
                    Refused::Target("ask for one resource: a token is good at one".into())
                } else {
                    Refused::Request(format!("{name:?} is given twice"))
                });
            }
        }
        Ok(Self(fields))
    }

    /// A form of a request.
    async fn of(parts: &Parts, body: Body, many: &[&str]) -> Result<Self, Refused> {
        let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        {
            return Err(Refused::Request("the body must be application/x-www-form-urlencoded".into()));
        }
        let body = web::body::read(&parts.headers, body, FORM).await?;
        Self::read(&body, many)
    }

    /// A field; one without a value is left out (RFC 6749 §3.1).
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(other, value)| other == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(other, value)| other == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    fn need(&self, name: &str) -> Result<&str, Refused> {
        self.get(name).ok_or_else(|| Refused::Request(format!("{name} is missing")))
    }
}

/// A refusal as clients read it (RFC 6749 §5.2).
fn refused(refusal: &Refused) -> Response {
    let (status, description) = match refusal {
        Refused::Platform(error) => {
            web::problem::log_internal(error, kernel::CallId::new());
            let status = match error.code() {
                Code::InvalidInput | Code::TooLarge => StatusCode::BAD_REQUEST,
                _ => StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            };
            (status, error.message().to_owned())
        }
        Refused::Client(_) => (StatusCode::UNAUTHORIZED, refusal.to_string()),
        other => (StatusCode::BAD_REQUEST, other.to_string()),
    };
    let name = match refusal {
        Refused::Platform(error) if matches!(error.code(), Code::InvalidInput | Code::TooLarge) => {
            "invalid_request"
        }
        other => other.name(),
    };
    // What the standard allows in a description (RFC 6749 §5.2).
    let description: String =
        description.replace('"', "'").chars().filter(|c| (' '..='~').contains(c) && *c != '\\').collect();
    json_answer(status, &json!({ "error": name, "error_description": description }))
}

fn json_answer(status: StatusCode, body: &Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body.to_string())
        .into_response()
}

fn too_often() -> Error {
    Error::new(Code::RateLimited, "too many of these came from this address")
        .retry_after(MINUTE)
        .hint("wait a minute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_one_of_this_address() {
        let base = "http://localhost:8787";
        let of = |asked: &str| resource_of(base, asked).ok();
        let is = |resource: &str, env: Option<&str>| Some((resource.to_owned(), env.map(str::to_owned)));
        assert_eq!(of("http://localhost:8787/"), is(base, None));
        assert_eq!(of("http://localhost:8787/mcp"), is("http://localhost:8787/mcp", None));
        assert_eq!(of("http://localhost:8787/mcp/?tools=safe"), is("http://localhost:8787/mcp", None));
        assert_eq!(of("http://localhost:8787/mcp/shop"), is("http://localhost:8787/mcp/shop", Some("shop")));
        for bad in [
            "http://localhost:87870/mcp",
            "http://localhost:8787.evil.example/mcp",
            "https://localhost:8787/mcp",
            "http://127.0.0.1:8787/mcp",
            "http://localhost:8787/v1",
            "http://localhost:8787/mcp/a/b",
            "http://localhost:8787/mcp/..",
            "http://localhost:8787/mcp/%61",
            &format!("http://localhost:8787/mcp/{}", "a".repeat(65)),
            "",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_field_is_given_once() {
        assert!(matches!(Fields::read(b"a=1&a=2", &[]), Err(Refused::Request(_))));
        assert!(matches!(Fields::read(b"resource=1&resource=2", &[]), Err(Refused::Target(_))));
        let many = |count: usize| (0..count).map(|n| format!("f{n}=1&")).collect::<String>();
        assert!(Fields::read(many(64).as_bytes(), &[]).is_ok());
        assert!(matches!(Fields::read(many(20_000).as_bytes(), &[]), Err(Refused::Request(_))));
        let fields = Fields::read(b"a=1&a=2&b=", &["a"]).ok();
        let fields = fields.as_ref();
        assert_eq!(fields.map(|fields| fields.all("a").count()), Some(2));
        assert_eq!(fields.and_then(|fields| fields.get("b")), None);
    }
}
