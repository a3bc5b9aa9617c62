//! The browser's way to a provider and back, and what a page takes up when it is back.

use axum::body::Body;
use axum::response::Response;
use capabilities::auth::{Arrival, Cookie, Departure, Handover, Landing, Taken, Wish};
use http::header::{COOKIE, LOCATION, REFERER, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderValue, Method, StatusCode};
use kernel::{Error, Result, Secret};
use serde_json::json;

use super::forms::TakingUp;
use super::{Request, good, signed_in};
use crate::data::rows::pairs;
use crate::data::{Ask, unknown};

/// Answers for `/_/auth/oauth/…`.
pub(super) async fn answer(request: &Request<'_>, route: &[&str], body: Body) -> Result<Response> {
    match route {
        ["callback", provider] => callback(request, provider, body).await,
        [provider, "start"] => start(request, provider).await,
        ["token"] => token(request, body).await,
        _ => Err(unknown()),
    }
}

async fn start(request: &Request<'_>, provider: &str) -> Result<Response> {
    let (mut redirect, mut challenge) = (None, None);
    for (name, value) in pairs(request.ask.parts.uri.query())? {
        match name.as_str() {
            "redirect" if redirect.is_none() => redirect = Some(value),
            "challenge" if challenge.is_none() => challenge = Some(value),
            _ => {
                return Err(Error::invalid("", "the query takes redirect and challenge, once each")
                    .hint("use signInWith of /_/sdk.js"));
            }
        }
    }
    let from = request.ask.parts.headers.get(REFERER).and_then(|from| from.to_str().ok());
    let from = from.map(str::to_owned);
    let wish = Wish { redirect, challenge: challenge.unwrap_or_default(), from };
    let Departure { location, cookie } = request.data.auth.depart(&request.asking, provider, &wish).await?;
    leads(&location, &cookie.into_iter().collect::<Vec<_>>())
}

/// A provider answers in the address, or posts it as a form; only one of the two counts.
async fn callback(request: &Request<'_>, provider: &str, body: Body) -> Result<Response> {
    let ask = request.ask;
    let answer = if ask.parts.method == Method::POST {
        let bytes = ask.bytes(body).await?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid("", "the form is not UTF-8"))?;
        pairs(Some(text))?
    } else {
        pairs(ask.parts.uri.query())?
    };
    let provider = provider.to_owned();
    let mut arrival = Arrival { provider, cookies: cookies(ask), ..Arrival::default() };
    let mut state = None;
    for (name, value) in answer {
        let twice = match name.as_str() {
            "state" => state.replace(value).is_some(),
            "code" => arrival.code.replace(Secret::new(value)).is_some(),
            "error" => arrival.error.replace(value).is_some(),
            "iss" => arrival.iss.replace(value).is_some(),
            _ => false,
        };
        if twice {
            return Err(Error::invalid("", format!("{name} comes twice")).hint("begin again"));
        }
    }
    arrival.state = state.unwrap_or_default();
    let Landing { location, cookies } = request.data.auth.arrive(&request.asking, &arrival).await?;
    leads(&location, &cookies)
}

async fn token(request: &Request<'_>, body: Body) -> Result<Response> {
    let TakingUp { code, verifier, link } = request.ask.json(body).await?;
    let shown = Handover { code, verifier, link, cookies: cookies(request.ask) };
    match request.data.auth.take_up(&request.asking, request.token.as_ref(), &shown).await? {
        Taken::SignedIn(opened) => signed_in(StatusCode::OK, opened, None),
        Taken::Linked(profile) => good(StatusCode::OK, &json!({ "user": profile })),
    }
}

fn cookies(ask: &Ask<'_>) -> Vec<(String, Secret)> {
    let lines = ask.parts.headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), Secret::new(value))).collect()
}

/// A cookie as it is set, or taken back where its life is 0 (RFC 6265 §4.1).
fn set(cookie: &Cookie) -> String {
    let Cookie { name, value, secure, posted, life } = cookie;
    let mut line = format!("{name}={}; Path=/; Max-Age={life}; HttpOnly", value.expose());
    if *secure {
        line.push_str("; Secure");
    }
    // Browsers send nothing along with what another site posts, but what says so and is secure.
    line.push_str(if *secure && *posted { "; SameSite=None" } else { "; SameSite=Lax" });
    line
}

/// To another address, by GET whatever this was (RFC 9110 §15.4.4).
fn leads(location: &str, cookies: &[Cookie]) -> Result<Response> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).map_err(Error::internal)?);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in cookies {
        headers.append(SET_COOKIE, HeaderValue::try_from(set(cookie)).map_err(Error::internal)?);
    }
    Ok(response)
}
