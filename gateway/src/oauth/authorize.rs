//! The page on which a user lets a client act, and what it sends back (RFC 6749 §4.1, RFC 7636, RFC 8707, RFC 9207).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use control::oauth::{Client, Consented, Refused, User, Words};
use http::StatusCode;
use kernel::{Code, Error, Result, Scopes};
use mcp_server::auth;
use tool::Effect;
use url::Url;

use super::session::{ended, kept, onward};
use super::{Door, Fields, base, pages, resource_of};

/// The longest state that comes back.
const MAX_STATE: usize = 4_096;
/// What a request says that is not to be signed for long.
const MAX_REQUEST: usize = 16 << 10;

/// What a client asks for.
struct Asked {
    client: Client,
    redirect: String,
    state: Option<String>,
    words: Words,
    resource: String,
    env: Option<String>,
    challenge: String,
}

/// Why it does not go on.
enum Stop {
    /// Nobody is sent anywhere.
    Here(String),
    /// The client is told.
    Back { redirect: String, state: Option<String>, why: Refused, is_known: bool },
}

impl Door {
    async fn asked(&self, base: &str, query: &str, source: Option<IpAddr>) -> Result<Asked, Stop> {
        let here = |refusal: Refused| {
            Stop::Here(format!("The program that sent you here has asked wrongly: {refusal}."))
        };
        if query.len() > MAX_REQUEST {
            return Err(here(Refused::Request("it says too much".into())));
        }
        // Of two redirect_uris nobody knows which is meant.
        let fields = Fields::read(query.as_bytes(), &[]).map_err(here)?;
        let id = fields.need("client_id").map_err(here)?;
        let client = self.client(id, source).await.map_err(here)?;
        let redirect = fields.need("redirect_uri").map_err(here)?.to_owned();
        if !client.allows(&redirect) {
            return Err(here(Refused::Redirect("the redirect_uri is not one of this client's".into())));
        }
        let state = fields.get("state").map(str::to_owned);
        match read(base, &fields) {
            Ok((words, resource, env, challenge)) => {
                Ok(Asked { client, redirect, state, words, resource, env, challenge })
            }
            Err(why) => {
                // Anybody can register an address, or have a document name it, and would have every mistake lead there
                // (RFC 9700 §4.11.2).
                let is_known = Client::pinned(id).is_some();
                Err(Stop::Back { redirect, state, why, is_known })
            }
        }
    }
}

fn read(base: &str, fields: &Fields) -> Result<(Words, String, Option<String>, String), Refused> {
    if fields.get("state").is_some_and(|state| state.len() > MAX_STATE) {
        return Err(Refused::Request("the state is too long".into()));
    }
    match fields.need("response_type")? {
        "code" => {}
        _ => return Err(Refused::ResponseType),
    }
    if !matches!(fields.get("response_mode"), None | Some("query")) {
        return Err(Refused::Request("the response_mode must be query".into()));
    }
    let challenge = fields.need("code_challenge")?.to_owned();
    let is_hash = challenge.len() == 43
        && challenge.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fields.get("code_challenge_method") != Some("S256") || !is_hash {
        return Err(Refused::Request("the code_challenge must be one of code_challenge_method S256".into()));
    }
    let words = Words::read(fields.get("scope").unwrap_or_default())?;
    let (resource, env) = match fields.get("resource") {
        Some(resource) => resource_of(base, resource)?,
        None => (format!("{base}/mcp"), None),
    };
    Ok((words, resource, env, challenge))
}

/// Sends the user back with what came of it.
fn back(base: &str, redirect: &str, state: Option<&str>, fields: &[(&str, &str)]) -> Response {
    let Ok(mut url) = Url::parse(redirect) else {
        return pages::sorry(StatusCode::BAD_REQUEST, "The way back cannot be read.");
    };
    url.query_pairs_mut()
        .extend_pairs(fields)
        .extend_pairs(state.map(|state| ("state", state)))
        .append_pair("iss", base);
    onward(url.as_str())
}

fn stopped(base: &str, stop: &Stop, is_signed_in: bool) -> Response {
    match stop {
        Stop::Here(why) => pages::sorry(StatusCode::BAD_REQUEST, why),
        Stop::Back { redirect, state, why, is_known } => {
            // A program on this machine is nobody's trap.
            let is_here = Url::parse(redirect).is_ok_and(|url| url.scheme() == "http");
            if !is_signed_in && !is_known && !is_here {
                let why = format!("The program that sent you here has asked wrongly: {why}.");
                return pages::sorry(StatusCode::BAD_REQUEST, &why);
            }
            let fields = [("error", why.name()), ("error_description", &*why.to_string())];
            back(base, redirect, state.as_deref(), &fields)
        }
    }
}

/// Shows the page: to sign in, or to decide.
pub async fn show(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let source = auth::source(&parts);
    let query = parts.uri.query().unwrap_or_default();
    let outcome = async {
        let base = base(&parts)?;
        let session = door.session(&parts, &base);
        let user = match &session {
            Some(session) => door.visitor(session, source).await?,
            None => None,
        };
        let asked = match door.asked(&base, query, source).await {
            Ok(asked) => asked,
            Err(stop) => return Ok(stopped(&base, &stop, user.is_some())),
        };
        let Some((session, user)) = session.zip(user) else {
            let session = door.begin(&base, None)?;
            let next = format!("/oauth/authorize?{query}");
            let page = door.sign_in_page(StatusCode::OK, &next, &session, None);
            return Ok(kept(page, &base, &session));
        };
        consent(&door, &user, &asked, query, &door.form_tag(&session)).await
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}

/// Whether an address is of a server that has proven who it is.
fn is_web(redirect: &str) -> bool {
    Url::parse(redirect).is_ok_and(|url| url.scheme() == "https")
}

async fn consent(door: &Door, user: &User, asked: &Asked, query: &str, form: &str) -> Result<Response> {
    let envs = door.choices(user, asked.env.as_deref()).await?;
    let whom = match Client::document(&asked.client.id) {
        // Whatever listens at that port has the code.
        Some(url) if !is_web(&asked.redirect) => format!(
            "{} vouches for its name, which any program on your machine can use.",
            url.host_str().unwrap_or_default()
        ),
        Some(url) => format!("{} vouches for it.", url.host_str().unwrap_or_default()),
        None => "It says so itself: nobody vouches for its name.".to_owned(),
    };
    let destination = Url::parse(&asked.redirect).map(|url| url.origin()).map_err(Error::internal)?;
    let destination =
        if destination.is_tuple() { destination.ascii_serialization() } else { asked.redirect.clone() };
    let tenant = door.whose(user, asked.env.as_deref()).await?;
    Ok(pages::question(&pages::Question {
        client: &asked.client.name,
        whom: &whom,
        back: Some(&destination),
        beware: None,
        tenant: &tenant,
        key: &user.key.name,
        envs: &envs,
        resource: &asked.resource,
        words: words_of(user, &asked.words),
        days: door.oauth().consent_days(),
        action: "/oauth/authorize",
        hidden: vec![("form", form), ("request", query), ("redirect", &asked.redirect)],
    }))
}

/// Each word, and whether the user's key has any of it.
pub fn words_of<'a>(user: &User, words: &'a Words) -> Vec<(&'a str, &'a str, pages::Has)> {
    let has = |name: &str| {
        let scopes = Words::read(name).map(|words| words.scopes()).unwrap_or(Scopes::NONE);
        let some = scopes.intersection(user.key.scopes) != Scopes::NONE;
        if some { pages::Has::Some } else { pages::Has::Nothing }
    };
    words.told().map(|(name, about)| (name, about, has(name))).collect()
}

impl Door {
    /// The environments that a user may choose from; the one that is said, where one is.
    pub(super) async fn choices(&self, user: &User, said: Option<&str>) -> Result<Vec<String>> {
        match said {
            Some(env) => Ok(vec![self.oauth().place(user, env).await?.slug.to_string()]),
            None => {
                let envs = self.control.env_slugs(&user.caller).await?;
                if envs.is_empty() {
                    return Err(Error::new(Code::NotFound, "there is no environment yet")
                        .hint("make one with `steading env create`, then try again"));
                }
                Ok(envs)
            }
        }
    }

    /// The name of the tenant whose environments these are.
    pub(super) async fn whose(&self, user: &User, said: Option<&str>) -> Result<String> {
        match said {
            Some(env) => self.oauth().tenant_of(user, env).await,
            None => Ok(user.tenant.name.clone()),
        }
    }

    /// What a user lets in: the words that were ticked, of those that were asked for.
    pub(super) fn ticked(form: &Fields, asked: &Words) -> Result<Option<Words>, Refused> {
        let ticked = form.all("grant").collect::<Vec<_>>().join(" ");
        if ticked.is_empty() { Ok(None) } else { asked.of(&Words::read(&ticked)?).map(Some) }
    }
}

/// Takes the decision, and sends the user back.
pub async fn answer(State(door): State<Arc<Door>>, request: Request) -> Response {
    // It comes to its end, and on record, also when whoever has asked goes away.
    tokio::spawn(answered(door, request))
        .await
        .unwrap_or_else(|error| pages::failed(&Error::internal(format!("a page panicked: {error}"))))
}

async fn answered(door: Arc<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = auth::source(&parts);
    let outcome = async {
        let base = base(&parts)?;
        let form =
            Fields::of(&parts, body, &["grant"]).await.map_err(|e| Error::invalid("", e.to_string()))?;
        let session = door.session(&parts, &base).filter(|session| door.is_its_form(session, &form));
        let user = match &session {
            Some(session) => door.visitor(session, source).await?,
            None => None,
        };
        let Some(user) = user else { return Ok(pages::stale()) };
        let asked = match door.asked(&base, form.get("request").unwrap_or_default(), source).await {
            Ok(asked) => asked,
            Err(stop) => return Ok(stopped(&base, &stop, true)),
        };
        let denied = |why: &Refused| {
            let fields = [("error", why.name()), ("error_description", &*why.to_string())];
            ended(back(&base, &asked.redirect, asked.state.as_deref(), &fields), &base)
        };
        let words = match Door::ticked(&form, &asked.words) {
            Ok(Some(words)) if form.get("answer") == Some("allow") => words,
            Ok(_) => return Ok(denied(&Refused::Denied)),
            Err(why) => return Ok(denied(&why)),
        };
        let env = asked.env.as_deref().or(form.get("env"));
        let env = env.ok_or_else(|| {
            Error::invalid("/env", "no environment was chosen").hint("go back and choose one")
        })?;
        let place = door.oauth().place(&user, env).await?;
        let to =
            Consented { client: &asked.client, words: &words, resource: &asked.resource, env: place.env };
        let caller = user.caller.clone().in_env(Some(place.env)).by(kernel::Surface::Http, source);
        let oauth = door.oauth();
        let work = oauth.consent(&user, to, &asked.redirect, &asked.challenge);
        let code = door.api.act(&caller, "oauth.consent", Effect::Write, work).await?;
        let code = back(&base, &asked.redirect, asked.state.as_deref(), &[("code", code.expose())]);
        Ok(ended(code, &base))
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}
