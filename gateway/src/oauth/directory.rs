//! Signing in by a directory: the way there and back, for the pages of the authorization server and those of the console. The
//! browser holds the one secret of the way; what the directory sees is made of it, and it cannot be made of that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capabilities::auth::{Directory, DirectorySettings, Entry, Return};
use control::oauth::{OAuth, User};
use control::{Arrival, Tenant, TenantFilter, Vouched};
use http::header::SET_COOKIE;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use kernel::{BlobHash, Code, Error, KeyId, Result, Surface, Timestamp};
use mcp_server::auth;
use serde_json::Value;
use tool::Effect;

use super::once::Once;
use super::session::{cookie_of, is_page, kept, onward, takes_keys};
use super::{Door, Fields, base, pages, too_often};
use crate::config;

/// How long somebody may be away.
const AWAY: Duration = Duration::from_secs(10 * 60);
/// How long a page of the console has to take somebody up.
const TICKET: Duration = Duration::from_secs(60);
/// The longest address of a page that is come back to.
const MAX_NEXT: usize = 2_500;
/// The most of a cookie, or a ticket, that has one.
const LONGEST: usize = 4_000;
/// The longest code.
const MAX_CODE: usize = 4_096;
/// Where the directory sends people back to.
const CALLBACK: &str = "/oauth/directory/callback";
/// The console's page that takes a ticket.
const ARRIVED: &str = "/console/arrived";

/// What lets people in for whom a directory vouches.
pub struct Entrance {
    directory: Directory,
    /// What people call it.
    pub name: String,
    tenant: Whither,
    settings: config::Directory,
    /// Ways that somebody has come back by, and tickets that were shown.
    used: Once,
}

/// Which tenant people enter.
enum Whither {
    /// The one with this slug.
    Tenant(String),
    /// The one that this claim names.
    Claim(String),
}

impl Entrance {
    /// The entrance for these settings; none where they name no directory.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(settings: &config::Directory) -> Result<Option<Self>> {
        let Some(issuer) = settings.issuer.0.clone() else { return Ok(None) };
        let claims = [&settings.role_claim.0, &settings.tenant_claim.0];
        let directory = Directory::new(DirectorySettings {
            issuer,
            client_id: settings.client_id.0.clone(),
            client_secret: settings.client_secret.0.clone(),
            scopes: settings.scopes.0.clone(),
            claims: claims.into_iter().filter(|claim| !claim.is_empty()).cloned().collect(),
            private: settings.private.clone(),
        })?;
        let tenant = match settings.tenant_claim.0.as_str() {
            "" => Whither::Tenant(settings.tenant.0.clone()),
            claim => Whither::Claim(claim.to_owned()),
        };
        let (name, settings) = (settings.shown(), settings.clone());
        Ok(Some(Self { directory, name, tenant, settings, used: Once::default() }))
    }

    /// The tenant that somebody enters.
    async fn tenant(&self, door: &Door, entry: &Entry) -> Result<Option<Tenant>> {
        let named = match &self.tenant {
            Whither::Tenant(slug) => return Ok(door.control.store().tenants().find(slug).await?),
            Whither::Claim(claim) => entry.texts(claim),
        };
        // Of two nobody knows which is meant.
        let [named] = named[..] else { return Ok(None) };
        tenant_named(door, named).await
    }
}

/// The tenant with this external id, else the one with this slug.
pub(super) async fn tenant_named(door: &Door, named: &str) -> Result<Option<Tenant>> {
    let tenants = door.control.store().tenants();
    let filter = TenantFilter { external_id: Some(named.to_owned()), ..TenantFilter::default() };
    if let Some(found) = tenants.list(&filter, None, 1).await?.pop() {
        return Ok(Some(found));
    }
    Ok(tenants.find(named).await?.filter(|tenant| tenant.slug.as_str() == named))
}

/// Somebody who is away, as the cookie says.
struct Away {
    held: String,
    until: i64,
    next: String,
}

/// What one way shows to the directory, made of what the browser holds.
struct Trip {
    state: String,
    nonce: String,
    verifier: String,
}

impl Trip {
    fn of(oauth: &OAuth<'_>, base: &str, held: &str) -> Self {
        let made = |what: &str| oauth.tag(what, &[base, held].map(str::as_bytes));
        let [state, nonce, verifier] = ["directory state", "directory nonce", "directory verifier"].map(made);
        Self { state, nonce, verifier }
    }
}

/// What a cookie of the way is called, and where it is sent. It comes along where another site sends the browser here.
fn away_named(base: &str) -> (&'static str, &'static str) {
    if base.starts_with("https://") {
        ("__Host-steading-away", "Path=/; Secure; HttpOnly; SameSite=Lax")
    } else {
        ("steading-away", "Path=/oauth; HttpOnly; SameSite=Lax")
    }
}

/// The same of the cookie that goes with a ticket, which pages of this origin alone send.
fn ticket_named(base: &str) -> (&'static str, &'static str) {
    if base.starts_with("https://") {
        ("__Host-steading-ticket", "Path=/; Secure; HttpOnly; SameSite=Strict")
    } else {
        ("steading-ticket", "Path=/console; HttpOnly; SameSite=Strict")
    }
}

fn set(mut response: Response, (name, rest): (&str, &str), value: &str, life: Duration) -> Response {
    let cookie = format!("{name}={value}; Max-Age={}; {rest}", life.as_secs());
    if let Ok(mut cookie) = HeaderValue::try_from(cookie) {
        cookie.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Whether somebody may be sent on to this address: a page of this platform on which people sign in, or the console.
fn leads_on(next: &str) -> bool {
    let is_console = ["/console", "/console/", "/console?"]
        .iter()
        .any(|page| next == *page || page.ends_with(['/', '?']) && next.starts_with(page));
    let is_plain =
        next.len() <= MAX_NEXT && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    is_plain && (is_console || is_page(next))
}

/// Whether a page of the console is meant.
fn is_of_console(next: &str) -> bool {
    next.starts_with("/console")
}

impl Door {
    /// What people call the directory, where there is one.
    pub fn directory_name(&self) -> Option<&str> {
        self.directory.as_ref().map(|entrance| entrance.name.as_str())
    }

    fn away(&self, parts: &Parts, base: &str) -> Option<Away> {
        let cookie = cookie_of(parts, away_named(base).0, LONGEST)?;
        let fields: Vec<&str> = cookie.split('.').collect();
        let [held, until, next, tag] = fields[..] else { return None };
        if !self.oauth().has_tag("directory away", &[base, held, until, next].map(str::as_bytes), tag) {
            return None;
        }
        let until = until.parse().ok().filter(|until| *until > Timestamp::now().as_secs())?;
        let next = String::from_utf8(URL_SAFE_NO_PAD.decode(next).ok()?).ok()?;
        Some(Away { held: held.to_owned(), until, next })
    }

    /// What opens a visit of the console once, to the browser with this cookie alone.
    fn ticket(&self, base: &str, key: KeyId, next: &str) -> Result<(String, String)> {
        let held = self.oauth().nonce()?;
        let until = Timestamp::now().plus(TICKET).as_secs().to_string();
        let (key, next) = (key.to_string(), URL_SAFE_NO_PAD.encode(next));
        let parts = [base, &held, &key, &until, &next].map(str::as_bytes);
        let tag = self.oauth().tag("directory ticket", &parts);
        Ok((held, format!("{key}.{until}.{next}.{tag}")))
    }

    /// Whom a ticket lets in, and to which page. It is good once.
    ///
    /// # Errors
    /// `unauthenticated` where it is not good, or not in this browser; `rate_limited` after such ones.
    pub fn ticketed(&self, parts: &Parts, base: &str, ticket: &str) -> Result<(KeyId, String)> {
        let source = auth::source(parts);
        if self.wrong_keys.is_over(source) {
            return Err(too_often());
        }
        self.opened(parts, base, ticket).ok_or_else(|| {
            self.wrong_keys.count(source);
            Error::new(Code::Unauthenticated, "this sign-in was not begun in this browser, or is over")
                .hint("begin again")
        })
    }

    fn opened(&self, parts: &Parts, base: &str, ticket: &str) -> Option<(KeyId, String)> {
        let held = cookie_of(parts, ticket_named(base).0, LONGEST)?;
        let fields: Vec<&str> = Some(ticket).filter(|ticket| ticket.len() <= LONGEST)?.split('.').collect();
        let [key, until, next, tag] = fields[..] else { return None };
        let oauth = self.oauth();
        if !oauth.has_tag("directory ticket", &[base, held, key, until, next].map(str::as_bytes), tag) {
            return None;
        }
        let (key, until) = (key.parse().ok()?, until.parse().ok()?);
        let next = String::from_utf8(URL_SAFE_NO_PAD.decode(next).ok()?).ok()?;
        let is_good = until > Timestamp::now().as_secs();
        let used = &self.directory.as_ref()?.used;
        (is_good && used.is_first(held, until)).then_some((key, next))
    }

    /// An answer to a ticket, after which its cookie is worth nothing.
    pub fn without_ticket(response: Response, base: &str) -> Response {
        set(response, ticket_named(base), "", Duration::ZERO)
    }

    /// Makes somebody a member for whom the directory vouches, or says why not. What stands for them.
    async fn vouched(&self, entrance: &Entrance, entry: &Entry, source: Option<IpAddr>) -> Result<KeyId> {
        let refused = |why: &'static str, message: String, hint: &str| {
            tracing::warn!(from = ?source, why, "somebody for whom the directory vouches is not let in");
            self.wrong_keys.count(source);
            Error::new(Code::Forbidden, message).hint(hint)
        };
        let name = &entrance.name;
        let Some(role) = entrance.settings.roles.of(entry, &entrance.settings.role_claim.0) else {
            let message = format!("{name} knows you, and says nothing of you that lets you in here");
            return Err(refused("no role matches", message, "ask who runs it for a group that does"));
        };
        let Some(tenant) = entrance.tenant(self, entry).await? else {
            let message = format!("{name} knows you, and names no tenant of this platform for you");
            return Err(refused("no such tenant", message, "ask who runs it, or this platform's operator"));
        };
        let said = |claim: &str| entry.claims.get(claim).and_then(Value::as_str).filter(|it| !it.is_empty());
        let arrival = Arrival {
            by: Vouched { issuer: entry.issuer.clone(), subject: entry.subject.clone() },
            name: said("name").or_else(|| said("preferred_username")).map(str::to_owned),
            email: entry.email.clone(),
            role,
        };
        let user = self.arrived(&tenant, &arrival, source).await?;
        let user = user.ok_or_else(|| {
            let message = "you are a member, and may not come from this network".to_owned();
            refused("another network", message, "ask an owner of the tenant")
        })?;
        Ok(user.key.id)
    }

    /// Makes somebody a member, or what they are since; none where their key is good in other networks alone.
    pub(super) async fn arrived(
        &self,
        tenant: &Tenant,
        arrival: &Arrival,
        source: Option<IpAddr>,
    ) -> Result<Option<User>> {
        let key = self.control.members().arrive(tenant, arrival).await?;
        let Some(user) = self.oauth().user(key, source).await? else { return Ok(None) };
        let caller = user.caller.clone().by(Surface::Http, source);
        self.api.act(&caller, "members.arrive", Effect::Write, async { Ok(()) }).await?;
        Ok(Some(user))
    }
}

fn nowhere() -> Response {
    pages::sorry(StatusCode::NOT_FOUND, "No directory vouches for people here.")
}

/// Sends the browser to the directory.
pub async fn depart(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let outcome = async {
        let base = base(&parts)?;
        let Some(entrance) = &door.directory else { return Ok(nowhere()) };
        takes_keys(&base)?;
        if door.wrong_keys.is_over(auth::source(&parts)) {
            return Err(too_often());
        }
        let fields = Fields::read(parts.uri.query().unwrap_or_default().as_bytes(), &[]);
        let fields = fields.map_err(|e| Error::invalid("", e.to_string()))?;
        let next = fields.get("next").unwrap_or("/console");
        if !leads_on(next) {
            let why =
                "The page to go on to is none of these, or its address is too long. Sign in in another way.";
            return Ok(pages::sorry(StatusCode::BAD_REQUEST, why));
        }
        let oauth = door.oauth();
        let held = format!("{}{}", oauth.nonce()?, oauth.nonce()?);
        let trip = Trip::of(&oauth, &base, &held);
        let challenge = URL_SAFE_NO_PAD.encode(BlobHash::of(trip.verifier.as_bytes()).to_bytes());
        let callback = format!("{base}{CALLBACK}");
        let url = entrance.directory.depart(&callback, &trip.state, &trip.nonce, &challenge).await?;
        let until = Timestamp::now().plus(AWAY).as_secs().to_string();
        let next = URL_SAFE_NO_PAD.encode(next);
        let tag = oauth.tag("directory away", &[&*base, &held, &until, &next].map(str::as_bytes));
        let cookie = format!("{held}.{until}.{next}.{tag}");
        Ok(set(onward(url.as_str()), away_named(&base), &cookie, AWAY))
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}

/// Takes the browser that comes back from the directory.
pub async fn arrive(State(door): State<Arc<Door>>, request: Request) -> Response {
    // It comes to its end, and on record, also when whoever has come goes away.
    tokio::spawn(async move {
        let (parts, _) = request.into_parts();
        let outcome = async {
            let base = base(&parts)?;
            back(&door, &parts, &base).await
        };
        outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
    })
    .await
    .unwrap_or_else(|error| pages::failed(&Error::internal(format!("a page panicked: {error}"))))
}

async fn back(door: &Door, parts: &Parts, base: &str) -> Result<Response> {
    let Some(entrance) = &door.directory else { return Ok(nowhere()) };
    takes_keys(base)?;
    let source = auth::source(parts);
    if door.wrong_keys.is_over(source) {
        return Err(too_often());
    }
    let fields = Fields::read(parts.uri.query().unwrap_or_default().as_bytes(), &[]);
    let fields = fields.map_err(|e| Error::invalid("", e.to_string()))?;
    let (oauth, state) = (door.oauth(), fields.get("state").unwrap_or_default());
    let away = door.away(parts, base).filter(|away| {
        oauth.has_tag("directory state", &[base, &away.held].map(str::as_bytes), state)
            && entrance.used.is_first(&away.held, away.until)
    });
    let Some(away) = away else {
        door.wrong_keys.count(source);
        return Ok(pages::stale());
    };
    let response = match entered(door, entrance, (base, &away), &fields, source).await {
        Ok(key) if is_of_console(&away.next) => {
            let (held, ticket) = door.ticket(base, key, &away.next)?;
            set(onward(&format!("{ARRIVED}#{ticket}")), ticket_named(base), &held, TICKET)
        }
        Ok(key) => kept(onward(&away.next), base, &door.begin(base, Some(key))?),
        Err(error) => pages::failed(&error),
    };
    Ok(set(response, away_named(base), "", Duration::ZERO))
}

/// Who has come back by a way.
async fn entered(
    door: &Door,
    entrance: &Entrance,
    (base, away): (&str, &Away),
    fields: &Fields,
    source: Option<IpAddr>,
) -> Result<KeyId> {
    let refused = |message: String| {
        door.wrong_keys.count(source);
        Error::new(Code::Forbidden, message).hint("go back to where you came from, and begin again")
    };
    if let Some(error) = fields.get("error") {
        let error: String =
            error.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
        tracing::warn!(from = ?source, error, "the directory answers a sign-in with an error");
        return Err(refused(format!("{} has let nobody in", entrance.name)));
    }
    let Some(code) = fields.get("code").filter(|code| code.len() <= MAX_CODE) else {
        return Err(refused(format!("{} answers without a code", entrance.name)));
    };
    let trip = Trip::of(&door.oauth(), base, &away.held);
    let back = Return {
        code,
        iss: fields.get("iss"),
        callback: &format!("{base}{CALLBACK}"),
        verifier: &trip.verifier,
        nonce: &trip.nonce,
    };
    let entry = entrance.directory.word(&back).await.inspect_err(|error| {
        if error.code() == Code::Forbidden {
            door.wrong_keys.count(source);
        }
    })?;
    door.vouched(entrance, &entry, source).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_on_to_elsewhere() {
        for good in [
            "/console",
            "/console/",
            "/console/members?a=b",
            "/console?tenant=a",
            "/oauth/authorize?client_id=a",
            "/oauth/device",
            "/oauth/device?user_code=AB",
        ] {
            assert!(leads_on(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "//evil.example/console",
            "https://evil.example/console",
            "/\\evil.example",
            "/consolex",
            "/console\\evil",
            "/console\r\nlocation: x",
            "/v1/envs",
            "/oauth/token",
            "javascript:alert(1)",
            &format!("/console/{}", "a".repeat(MAX_NEXT)),
        ] {
            assert!(!leads_on(bad), "{bad}");
        }
    }
}
