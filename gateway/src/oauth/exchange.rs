//! Signed tokens of a trusted issuer, exchanged for short tokens of the platform (RFC 8693): for who runs agents for people
//! that sign in elsewhere. There is no refresh token; whoever has the next signed token exchanges that.

use std::net::IpAddr;
use std::time::Duration;

use capabilities::auth::{Entry, TrustedIssuer};
use control::oauth::{Refused, Words};
use control::{Arrival, NewToken, Vouched};
use http::request::Parts;
use kernel::{Code, Error, Held, Result, Role, Scopes, Surface};
use serde_json::{Value, json};
use tool::Effect;

use super::directory::tenant_named;
use super::{Door, Fields, base, resource_of, takes_keys, too_often};
use crate::config;

/// The grant.
pub const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What is exchanged, and for what.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How long what is given lives at most.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// Whose tokens are exchanged; nobody's where the settings name nobody.
///
/// # Errors
/// `internal` where TLS cannot be set up.
pub fn trusted(settings: &config::Exchange) -> Result<Option<TrustedIssuer>> {
    let (issuer, keys) = (settings.issuer.0.clone(), settings.jwks_url.0.clone());
    let pair = issuer.zip(keys);
    pair.map(|(issuer, keys)| TrustedIssuer::new(issuer, keys, settings.private.clone())).transpose()
}

/// Exchanges what is shown; the answer of RFC 8693 §2.2.
pub async fn exchange(
    door: &Door,
    parts: &Parts,
    fields: &Fields,
    source: Option<IpAddr>,
) -> Result<Value, Refused> {
    let none = || Refused::GrantType("no tokens of others are exchanged here".into());
    let trusted = door.exchange.as_ref().ok_or_else(none)?;
    let base = base(parts)?;
    takes_keys(&base)?;
    if door.wrong_keys.is_over(source) {
        return Err(Refused::Platform(too_often()));
    }
    asked_rightly(&base, fields)?;
    let token = fields.need("subject_token")?;
    let exchanged = async {
        let entry = trusted.word(token, &base).await.map_err(|error| match error.code() {
            Code::Unauthenticated => Refused::Grant(error.message().to_owned()),
            _ => Refused::Platform(error),
        })?;
        given(door, &entry, fields.get("scope"), source).await
    };
    exchanged.await.inspect_err(|refusal| {
        if matches!(refusal, Refused::Grant(_)) {
            tracing::warn!(from = ?source, why = %refusal, "a signed token is not exchanged");
            door.wrong_keys.count(source);
        }
    })
}

/// That nothing else is asked for than what there is.
fn asked_rightly(base: &str, fields: &Fields) -> Result<(), Refused> {
    let refuse = |message: String| Err(Refused::Request(message));
    if fields.need("subject_token_type")? != JWT {
        return refuse(format!("the subject_token_type must be {JWT}"));
    }
    if fields.get("requested_token_type").is_some_and(|kind| kind != ACCESS_TOKEN) {
        return refuse(format!("the requested_token_type must be {ACCESS_TOKEN}"));
    }
    if fields.get("actor_token").is_some() || fields.get("actor_token_type").is_some() {
        return refuse("there is nobody who acts for somebody else here: leave the actor_token out".into());
    }
    // What is given is good at every address of the platform.
    if let Some(resource) = fields.get("resource")
        && resource_of(base, resource)?.0 != base
    {
        return Err(Refused::Target(format!("the token is for {base} as a whole")));
    }
    match fields.get("audience") {
        Some(audience) if audience != base => {
            Err(Refused::Target(format!("the token is for {base} as a whole")))
        }
        _ => Ok(()),
    }
}

/// The token for somebody of whom this is said.
async fn given(
    door: &Door,
    entry: &Entry,
    scope: Option<&str>,
    source: Option<IpAddr>,
) -> Result<Value, Refused> {
    let wrong = |what: &str| Refused::Grant(format!("the subject_token's {what}"));
    let said = |claim: &str| entry.claims.get(claim).and_then(Value::as_str).filter(|it| !it.is_empty());
    let role: Option<Role> = said("role").and_then(|role| role.parse().ok());
    let role = role.ok_or_else(|| wrong("role is not owner, developer or viewer"))?;
    let mut scopes = role.scopes().intersection(Scopes::of_environment());
    // One that is there and says nothing is not one that allows everything.
    let claimed = match entry.claims.get("scope") {
        None => None,
        Some(Value::String(scope)) if !scope.trim().is_empty() => {
            Some(Words::read(scope).map_err(|e| wrong(&format!("scope: {e}")))?)
        }
        Some(_) => return Err(wrong("scope is not a text with scopes in it")),
    };
    for words in [claimed, scope.map(Words::read).transpose()?].into_iter().flatten() {
        scopes = scopes.intersection(words.scopes());
    }
    if scopes == Scopes::NONE {
        return Err(Refused::Scope("the role has nothing of what is asked for".into()));
    }
    let tenant = match said("tenant") {
        Some(named) => tenant_named(door, named).await?,
        None => None,
    };
    let tenant = tenant.ok_or_else(|| wrong("tenant is none of this platform"))?;
    let env = said("env").ok_or_else(|| wrong("env is missing"))?;
    let place = door.control.place_of(&tenant, env).await?;
    let place = place.ok_or_else(|| wrong("env is none of the tenant's"))?;
    let arrival = Arrival {
        by: Vouched { issuer: entry.issuer.clone(), subject: entry.subject.clone() },
        name: said("name").map(str::to_owned),
        email: entry.email.clone(),
        role,
    };
    let user = door.arrived(&tenant, &arrival, source).await.map_err(not_now)?;
    let user = user.ok_or_else(|| wrong("subject may not come from this network"))?;
    let caller = user.caller.in_env(Some(place.env)).by(Surface::Http, source);
    let new = NewToken {
        env: place.env,
        scopes,
        held: Held::default(),
        source: None,
        expires_in: LIFETIME,
        run: None,
    };
    let mint = door.control.tokens().mint(&caller, new);
    let minted = door.api.act(&caller, "oauth.exchange", Effect::Write, mint).await.map_err(not_now)?;
    let scopes: Vec<&str> = minted.row.scopes.iter().map(kernel::Scope::as_str).collect();
    Ok(json!({
        "access_token": minted.token.expose(),
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": LIFETIME.as_secs(),
        "scope": scopes.join(" "),
    }))
}

/// What cannot be as things are is the token's fault; what may be in a moment is not.
fn not_now(error: Error) -> Refused {
    match error.code() {
        Code::Forbidden | Code::NotFound | Code::Conflict | Code::InvalidInput => {
            Refused::Grant(error.message().to_owned())
        }
        _ => Refused::Platform(error),
    }
}
