//! Who is at a page: a cookie for a quarter of an hour, which a key that is pasted into a form brings. Forms carry a tag of
//! the cookie, so that no other page can send them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::oauth::User;
use http::header::{COOKIE, LOCATION, SET_COOKIE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use kernel::{Caller, Code, Error, KeyId, Result, Secret, Surface, Timestamp};
use mcp_server::auth;

use super::dialled::is_loopback;
use super::{Door, Fields, Typed, base, pages, too_often};

const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// The most that is read of a cookie.
const LONGEST: usize = 512;
/// Where a page may send its visitor on to after signing in.
const PAGES: [&str; 2] = ["/oauth/authorize?", "/oauth/device"];

/// A visit.
pub struct Session {
    cookie: String,
    /// The key that was shown.
    pub key: Option<KeyId>,
}

/// What the cookie is called, and where it is sent: a secure one to this host alone; a plain one, on this machine, whose
/// ports share their cookies, to these pages alone.
fn named(base: &str) -> (&'static str, &'static str) {
    if base.starts_with("https://") {
        ("__Host-steading-sign-in", "Path=/; Secure; HttpOnly; SameSite=Lax")
    } else {
        ("steading-sign-in", "Path=/oauth; HttpOnly; SameSite=Lax")
    }
}

/// A cookie of a request.
pub fn cookie<'a>(parts: &'a Parts, name: &str) -> Option<&'a str> {
    cookie_of(parts, name, LONGEST)
}

/// A cookie of a request that has at most so many bytes.
pub(super) fn cookie_of<'a>(parts: &'a Parts, name: &str, longest: usize) -> Option<&'a str> {
    let lines = parts.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut cookies = lines.flat_map(|line| line.split(';')).filter_map(|one| one.trim().split_once('='));
    cookies.find(|(other, _)| *other == name).map(|(_, value)| value).filter(|value| value.len() <= longest)
}

/// Whether an address is of a page that a visitor may be sent on to after signing in.
pub(super) fn is_page(next: &str) -> bool {
    PAGES.iter().any(|page| next.starts_with(page))
}

/// Whether keys may be shown to a page at this address: from another machine by HTTPS alone.
///
/// # Errors
/// `forbidden`.
pub fn takes_keys(base: &str) -> Result<()> {
    let url = url::Url::parse(base).ok();
    if url.is_some_and(|url| url.scheme() == "https" || url.host_str().is_some_and(is_loopback)) {
        return Ok(());
    }
    Err(Error::new(Code::Forbidden, "a key is not shown over plain HTTP from another machine")
        .hint("serve HTTPS, or give the program a key"))
}

impl Door {
    /// The visit that a request belongs to.
    pub(super) fn session(&self, parts: &Parts, base: &str) -> Option<Session> {
        let cookie = cookie(parts, named(base).0)?;
        let mut fields = cookie.split('.');
        let (nonce, key, until, tag) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let parts = [base, nonce, key, until].map(str::as_bytes);
        let lives = until.parse::<i64>().is_ok_and(|until| until > Timestamp::now().as_secs());
        if !lives || !self.oauth().has_tag("session", &parts, tag) || fields.next().is_some() {
            return None;
        }
        Some(Session { cookie: cookie.to_owned(), key: key.parse().ok() })
    }

    /// A new one.
    pub(super) fn begin(&self, base: &str, key: Option<KeyId>) -> Result<Session> {
        takes_keys(base)?;
        let nonce = self.oauth().nonce()?;
        let key_name = key.map(|key| key.to_string()).unwrap_or_default();
        let until = Timestamp::now().plus(LIFETIME).as_secs().to_string();
        let tag = self.oauth().tag("session", &[base, &nonce, &key_name, &until].map(str::as_bytes));
        Ok(Session { cookie: format!("{nonce}.{key_name}.{until}.{tag}"), key })
    }

    /// Who shows a key at a page, or what is told them where it opens nothing. Whoever has shown many wrong ones waits.
    ///
    /// # Errors
    /// `rate_limited` after wrong ones, and what is wrong with the platform.
    pub async fn shown(&self, key: &str, source: Option<IpAddr>) -> Result<Result<Arc<Caller>, String>> {
        if self.wrong_keys.is_over(source) {
            return Err(too_often());
        }
        let found = self.control.authenticate(key.trim(), Surface::Http, source).await;
        let why = match found {
            Ok(caller) if caller.principal.is_root() => {
                return Ok(Ok(caller));
            }
            Ok(_) => "This is a short-lived credential. Paste a key.".to_owned(),
            Err(error) if error.code() == Code::Unauthenticated => {
                tracing::warn!(from = ?source, "a key that is not good was shown at the sign-in page");
                format!("This does not open anything: {}.", error.message())
            }
            Err(error) => return Err(error),
        };
        self.wrong_keys.count(source);
        Ok(Err(why))
    }

    /// The page on which somebody signs in, to go on to `next`.
    pub(super) fn sign_in_page(
        &self,
        status: StatusCode,
        next: &str,
        session: &Session,
        why: Option<&str>,
    ) -> Response {
        pages::sign_in(status, next, &self.form_tag(session), (self.directory_name(), why))
    }

    /// What its forms carry.
    pub(super) fn form_tag(&self, session: &Session) -> String {
        self.oauth().tag("form", &[session.cookie.as_bytes()])
    }

    /// Whether a form is one of this visit's.
    pub(super) fn is_its_form(&self, session: &Session, form: &Fields) -> bool {
        let tag = form.get("form").unwrap_or_default();
        self.oauth().has_tag("form", &[session.cookie.as_bytes()], tag)
    }

    /// Who has signed in, as long as the key is good.
    pub(super) async fn visitor(&self, session: &Session, source: Option<IpAddr>) -> Result<Option<User>> {
        match session.key {
            Some(key) => self.oauth().user(key, source).await,
            None => Ok(None),
        }
    }
}

/// An answer that keeps the visit.
pub fn kept(mut response: Response, base: &str, session: &Session) -> Response {
    let (name, rest) = named(base);
    let cookie = format!("{name}={}; Max-Age={}; {rest}", session.cookie, LIFETIME.as_secs());
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// An answer that ends it.
pub fn ended(mut response: Response, base: &str) -> Response {
    let (name, rest) = named(base);
    if let Ok(cookie) = HeaderValue::try_from(format!("{name}=; Max-Age=0; {rest}")) {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Sends the visitor on.
pub fn onward(to: &str) -> Response {
    match HeaderValue::try_from(to) {
        Ok(to) => (StatusCode::SEE_OTHER, [(LOCATION, to)], [(http::header::CACHE_CONTROL, "no-store")])
            .into_response(),
        Err(_) => pages::sorry(StatusCode::BAD_REQUEST, "The way back cannot be read."),
    }
}

/// Takes a key, and sends the visitor back to the page that asked for it.
pub async fn sign_in(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = auth::source(&parts);
    let outcome = async {
        let base = base(&parts)?;
        let form = Fields::of(&parts, body, &[]).await.map_err(|e| Error::invalid("", e.to_string()))?;
        let session = door.session(&parts, &base).filter(|session| door.is_its_form(session, &form));
        let next = form.get("next").filter(|next| is_page(next));
        let (Some(session), Some(next)) = (session, next) else { return Ok(pages::stale()) };
        let shown = match form.get("email") {
            Some(email) => {
                let password = Secret::new(form.get("password").unwrap_or_default());
                let tenant = form.get("tenant").unwrap_or_default();
                door.signed_in(Typed { tenant, email, password }, source).await?
            }
            None => {
                let caller = door.shown(form.get("key").unwrap_or_default(), source).await?;
                caller.map(|caller| caller.credential)
            }
        };
        match shown {
            Ok(key) => {
                let signed_in = door.begin(&base, Some(key))?;
                Ok(kept(onward(next), &base, &signed_in))
            }
            Err(why) => Ok(door.sign_in_page(StatusCode::UNAUTHORIZED, next, &session, Some(&why))),
        }
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}
