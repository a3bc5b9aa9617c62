//! A directory of the operator's: an OpenID provider whose word on who people are, and what, the platform itself takes. It is
//! spoken to as providers of apps are.

use std::fmt;

use kernel::{Code, EnvId, Error, Networks, Result, Secret};
use serde_json::{Map, Value};
use url::Url;

use super::Failed;
use super::issuers::Issuers;
use super::providers::Provider;
use super::vouching::{Brought, Vouching, confirmed};
use crate::outbound::Outbound;

/// What is called so is spoken to by OpenID Connect, whoever it is.
const NAME: &str = "directory";
/// What is asked for whatever else is.
const SCOPES: [&str; 3] = ["openid", "email", "profile"];

/// Which directory it is, and what the platform is called there.
#[derive(Debug, Clone, Default)]
pub struct DirectorySettings {
    /// Whose word it is: `https://id.example.com`.
    pub issuer: String,
    /// What the platform is called there.
    pub client_id: String,
    /// What proves that it is the platform; none for a client that is public.
    pub client_secret: Option<Secret>,
    /// What is asked for besides who somebody is, their name and their address.
    pub scopes: Vec<String>,
    /// Claims that are needed. Where the ID token lacks one, the userinfo endpoint is asked for it.
    pub claims: Vec<String>,
    /// Networks around the platform in which the directory may be.
    pub private: Networks,
}

/// A directory that vouches for people.
pub struct Directory {
    http: Outbound,
    issuers: Issuers,
    provider: Provider,
    secret: Option<Secret>,
    claims: Vec<String>,
    /// Where all stand in line who show a token of a key that is not known.
    lane: EnvId,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What a browser has brought back from a directory, and what it left with.
#[derive(Debug, Clone, Copy)]
pub struct Return<'a> {
    /// The code.
    pub code: &'a str,
    /// Who the answer says that it is from (RFC 9207).
    pub iss: Option<&'a str>,
    /// Where it was sent back to.
    pub callback: &'a str,
    /// Of the challenge that it left with.
    pub verifier: &'a str,
    /// What the ID token has to repeat.
    pub nonce: &'a str,
}

/// What a directory says of somebody, and what holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The directory.
    pub issuer: String,
    /// Its name for them, which it gives to nobody else.
    pub subject: String,
    /// Their address, where it has confirmed that it is theirs.
    pub email: Option<String>,
    /// All that it says.
    pub claims: Map<String, Value>,
}

impl Entry {
    /// A claim. Where none is called so, dots lead into objects: `realm_access.roles`.
    #[must_use]
    pub fn claim(&self, path: &str) -> Option<&Value> {
        at(&self.claims, path)
    }

    /// The texts of a claim that is a text or a list of texts.
    #[must_use]
    pub fn texts(&self, path: &str) -> Vec<&str> {
        match self.claim(path) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let within = || {
        path.match_indices('.').find_map(|(dot, _)| {
            let object = claims.get(path.get(..dot)?)?.as_object()?;
            at(object, path.get(dot + 1..)?)
        })
    };
    claims.get(path).or_else(within)
}

impl Directory {
    /// The directory of these settings. Nobody is asked yet.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(settings: DirectorySettings) -> Result<Self> {
        let DirectorySettings { issuer, client_id, client_secret, scopes, claims, private } = settings;
        let http = Outbound::new(private)?;
        let more = scopes.into_iter().filter(|scope| !SCOPES.contains(&scope.as_str()));
        let scopes = SCOPES.map(str::to_owned).into_iter().chain(more).collect();
        let provider = Provider { client_id, issuer: Some(issuer), scopes, ..Provider::default() };
        let (issuers, secret, lane) = (Issuers::new(http.clone()), client_secret, EnvId::new());
        Ok(Self { http, issuers, provider, secret, claims, lane })
    }

    /// The address that a browser is sent to.
    ///
    /// # Errors
    /// `unavailable` where the directory does not say where that is; the log says more.
    pub async fn depart(&self, callback: &str, state: &str, nonce: &str, challenge: &str) -> Result<Url> {
        let vouching = self.vouching();
        let endpoints = vouching.endpoints().await.map_err(|failed| told(&failed))?;
        Ok(vouching.departure(&endpoints, callback, state, nonce, challenge))
    }

    /// What the directory says of who has come back, once it holds.
    ///
    /// # Errors
    /// `forbidden` where it does not; `unavailable` where the directory does not answer. The log says more.
    pub async fn word(&self, back: &Return<'_>) -> Result<Entry> {
        self.entry(back).await.map_err(|failed| told(&failed))
    }

    async fn entry(&self, back: &Return<'_>) -> Result<Entry, Failed> {
        let vouching = self.vouching();
        let Return { code, iss, callback, verifier, nonce } = *back;
        let brought = Brought { code, iss, callback, verifier, nonce };
        let endpoints = vouching.endpoints().await?;
        vouching.is_from(&endpoints, iss)?;
        let told = vouching.told(&endpoints, &brought).await?;
        let lacks = |claims: &Map<String, Value>| {
            !claims.contains_key("email") || self.claims.iter().any(|claim| at(claims, claim).is_none())
        };
        let mut claims = told.claims.clone();
        if lacks(&claims) {
            // What is signed stands before what is only said by HTTPS.
            let more = vouching.more(&endpoints, &told).await?.unwrap_or_default();
            let address = claims.contains_key("email");
            let is_of_address = |name: &str| name == "email" || name == "email_verified";
            for (name, value) in more {
                // One half of an address is not made whole by another's.
                if !(address && is_of_address(&name)) {
                    claims.entry(name).or_insert(value);
                }
            }
        }
        let email = confirmed(&claims).map(|email| email.as_str().to_owned());
        Ok(Entry { issuer: told.issuer, subject: told.subject, email, claims })
    }

    fn vouching(&self) -> Vouching<'_> {
        Vouching {
            env: self.lane,
            http: &self.http,
            issuers: &self.issuers,
            name: NAME,
            provider: &self.provider,
            secret: self.secret.clone(),
        }
    }
}

/// What people are told; the log is told why.
fn told(failed: &Failed) -> Error {
    tracing::warn!(why = %failed, "the directory has vouched for nobody");
    match failed.word() {
        "unavailable" => Error::new(Code::Unavailable, "the directory cannot be asked at this moment")
            .hint("try again in a moment"),
        _ => Error::new(Code::Forbidden, "what the directory answers does not hold")
            .hint("begin again; where that does not help, the platform's log says why"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(claims: Value) -> Entry {
        let claims = claims.as_object().cloned().unwrap();
        Entry { issuer: "https://id.example.com".to_owned(), subject: "1".to_owned(), email: None, claims }
    }

    #[test]
    fn a_claim_is_found_by_its_name_or_in_an_object() {
        let entry = entry(json!({
            "groups": ["a", 7, "b"], "https://x.example/roles": "admin", "realm_access": { "roles": ["r"] },
            "resource_access": { "my.client": { "roles": ["c"] } }, "a": { "b": 1 }, "a.b": "whole",
        }));
        for (path, expected) in [
            ("groups", vec!["a", "b"]),
            ("https://x.example/roles", vec!["admin"]),
            ("realm_access.roles", vec!["r"]),
            ("resource_access.my.client.roles", vec!["c"]),
            ("a.b", vec!["whole"]),
            ("a", vec![]),
            ("", vec![]),
            (".", vec![]),
            ("groups.a", vec![]),
        ] {
            assert_eq!(entry.texts(path), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn no_secret_shows_and_nobody_is_asked_around_the_platform_who_is_not_listed() {
        let settings = DirectorySettings {
            issuer: "https://127.0.0.1:1".to_owned(),
            client_id: "the-platform".to_owned(),
            client_secret: Some(Secret::new("hunter2")),
            scopes: vec!["groups".to_owned(), "email".to_owned()],
            ..DirectorySettings::default()
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
        let directory = Directory::new(settings).unwrap();
        assert!(!format!("{directory:?}").contains("hunter2"));
        assert_eq!(directory.provider.scopes, ["openid", "email", "profile", "groups"]);
        let refused = directory.depart("https://x.example/cb", "s", "n", "c").await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(!refused.to_string().contains("127.0.0.1"));
    }
}
