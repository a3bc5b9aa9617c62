//! Who asks a function: what the function is told of them, and what it may do in their place.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use axum::extract::ConnectInfo;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capabilities::access::{Guest, Subject};
use capabilities::functions::{Access, FunctionName};
use http::header::AUTHORIZATION;
use http::request::Parts;
use kernel::{Code, EnvId, Error, Result, Scope, Secret};
use sandbox::preview::holds_a_key;
use serde_json::{Value, json};

use crate::data::{Ask, Data};

/// What a platform key must carry.
pub(crate) const SCOPES: &[Scope] = &[Scope::FunctionInvoke];

/// How deep functions may ask each other.
const DEEPEST: u8 = 8;

/// In the extensions of a request that a function makes. Nothing from outside can put it there.
#[derive(Debug, Clone)]
pub(crate) struct Inside {
    /// Which function.
    pub by: FunctionName,
    /// How many functions have asked each other until here.
    pub depth: u8,
    /// The request in whose sender's place it is made; none where it is made with its own rights.
    pub during: Option<During>,
}

impl Inside {
    /// What a request says of itself; none for one from outside.
    pub fn of(parts: &Parts) -> Option<&Self> {
        parts.extensions.get()
    }

    /// Whether a request is made with a function's own rights.
    pub fn is_own(parts: &Parts) -> bool {
        Self::of(parts).is_some_and(|inside| inside.during.is_none())
    }
}

/// Who has made a request of a function: as much as lets the function ask in their place, which is judged anew each time.
pub(super) enum Rights {
    /// A function with its own rights.
    Own,
    /// Somebody from outside: themselves, or a function in their place for as long as their own request is worked on.
    Of(Sender, Option<During>),
}

/// The request that another one is made for. It is over when nobody keeps its rights any more.
#[derive(Debug, Clone)]
pub(crate) struct During(Weak<Rights>);

impl During {
    pub(super) fn new(rights: &Arc<Rights>) -> Self {
        Self(Arc::downgrade(rights))
    }

    /// Whether it is worked on, and so is the one that it is made for itself.
    pub(super) fn lasts(&self) -> bool {
        self.0.upgrade().is_some_and(|rights| rights.last())
    }
}

/// Somebody from outside.
#[derive(Clone)]
pub(super) struct Sender {
    /// The token that they have shown.
    pub token: Option<Secret>,
    /// Where they are.
    pub peer: Option<ConnectInfo<SocketAddr>>,
}

impl Rights {
    /// Whose they are, where they are somebody's from outside.
    pub fn sender(&self) -> Option<&Sender> {
        match self {
            Self::Own => None,
            Self::Of(sender, _) => Some(sender),
        }
    }

    /// Whether no request has ended that this one is made for.
    pub fn last(&self) -> bool {
        match self {
            Self::Own | Self::Of(_, None) => true,
            Self::Of(_, Some(during)) => during.lasts(),
        }
    }
}

/// Who asks.
pub(super) struct Caller {
    /// As the function is told, in ASCII; none for somebody unknown.
    pub told: Option<String>,
    /// What it may do in their place.
    pub rights: Arc<Rights>,
    /// How many functions have asked each other until here.
    pub depth: u8,
    /// Whether the request's `Authorization` is for the function.
    pub shows_authorization: bool,
}

impl Caller {
    /// Who makes a request, where `access` lets them.
    ///
    /// # Errors
    /// `unauthenticated`, `forbidden`; `quota_exceeded` where functions ask each other without end.
    pub async fn admitted(data: &Data, ask: &Ask<'_>, access: Access) -> Result<Self> {
        let inside = Inside::of(ask.parts);
        let shows_authorization = access == Access::Public && inside.is_none() && is_for_function(ask.parts);
        let guest = match shows_authorization {
            true => Guest::visitor(ask.env.clone()),
            false => ask.guest_for(data, SCOPES).await?,
        };
        match (access, guest.subject()) {
            (Access::Public, _) | (_, Subject::Service) | (Access::SignedIn, Subject::User(_)) => {}
            (Access::Service, Subject::User(_)) => {
                return Err(Error::new(Code::Forbidden, "this is for servers with a platform key"));
            }
            (_, Subject::Visitor) => {
                return Err(Error::new(Code::Unauthenticated, "this is not for everybody")
                    .hint("sign in, and send the header Authorization: Bearer <access token>"));
            }
        }
        let token = if shows_authorization { None } else { ask.token()? };
        let depth = inside.map_or(0, |inside| inside.depth);
        if depth > DEEPEST {
            return Err(Error::new(
                Code::QuotaExceeded,
                format!("functions have asked each other more than {DEEPEST} times in a row"),
            )
            .hint("look for functions that ask each other in a circle"));
        }
        let during = inside.and_then(|inside| inside.during.clone());
        let own = inside.filter(|_| during.is_none());
        let told = match own {
            Some(inside) => Some(json!({ "kind": "function", "name": inside.by.as_str() })),
            None => told(guest.subject()),
        };
        let rights = match own {
            Some(_) => Rights::Own,
            None => Rights::Of(Sender { token, peer: ask.parts.extensions.get().copied() }, during),
        };
        Ok(Self {
            told: told.map(|told| functions::ascii(&told)),
            rights: Arc::new(rights),
            depth,
            shows_authorization,
        })
    }
}

/// What a function is told of who asks.
fn told(subject: &Subject) -> Option<Value> {
    match subject {
        Subject::Visitor => None,
        Subject::Service => Some(json!({ "kind": "service" })),
        Subject::User(user) => {
            let mut told = json!({ "kind": "user", "id": user.id.to_string(), "role": user.role });
            if let Some(email) = &user.email {
                told["email"] = email.as_str().into();
            }
            told["claims"] = user.claims.clone().into();
            Some(told)
        }
    }
}

/// Whether a request has an `Authorization` that is none of the platform's: a webhook's, or one that the function has given
/// out itself. A token of an app's user and a key of the platform never are, whether they hold or not.
fn is_for_function(parts: &Parts) -> bool {
    let mut lines = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Ok(text) = line.to_str() else { return false };
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    !(holds_a_key(line) || scheme.eq_ignore_ascii_case("bearer") && is_access_token(token.trim()))
}

/// Whether a text says of itself that it is an access token of an app's user (RFC 9068).
fn is_access_token(text: &str) -> bool {
    let claims = text.split('.').nth(1).and_then(|claims| URL_SAFE_NO_PAD.decode(claims).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
    claims.is_some_and(|claims| claims["aud"].as_str().is_some_and(|aud| aud.parse::<EnvId>().is_ok()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn only_what_is_none_of_the_platforms_reaches_a_function() {
        let token = |aud: &str| {
            let claims = URL_SAFE_NO_PAD.encode(json!({ "aud": aud }).to_string());
            format!("Bearer e30.{claims}.x")
        };
        for (line, expected) in [
            ("Bearer webhook".to_owned(), true),
            ("Basic dXNlcjpwYXNz".to_owned(), true),
            ("Token x".to_owned(), true),
            (token("https://api.example.com"), true),
            (token(&EnvId::new().to_string()), false),
            ("Bearer stead_key_x".to_owned(), false),
            ("bearer  stead_rt_x".to_owned(), false),
        ] {
            let request = Request::get("/").header("authorization", &line).body(()).unwrap();
            assert_eq!(is_for_function(&request.into_parts().0), expected, "{line}");
        }
        let none = Request::get("/").body(()).unwrap().into_parts().0;
        assert!(!is_for_function(&none));
        let twice = Request::get("/").header("authorization", "a b").header("authorization", "c d");
        assert!(!is_for_function(&twice.body(()).unwrap().into_parts().0));
    }
}
