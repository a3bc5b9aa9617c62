//! An issuer of the operator's, whose signed tokens the platform takes for people. Nobody's browser is sent anywhere.

use kernel::{Code, EnvId, Error, Networks, Result, Timestamp};
use serde_json::{Map, Value};
use url::Url;

use super::Failed;
use super::directory::Entry;
use super::issuers::Issuers;
use super::jose::{Bad, Token};
use super::vouching::{SKEW, SUBJECT, confirmed, text};
use crate::outbound::Outbound;

/// Whose signed tokens are taken.
pub struct TrustedIssuer {
    issuers: Issuers,
    issuer: String,
    keys: Url,
    /// Where all stand in line who show a token of a key that is not known.
    lane: EnvId,
}

impl TrustedIssuer {
    /// The issuer with this name, whose keys are at this address. Those in `private` may be around the platform.
    ///
    /// # Errors
    /// `internal` where TLS cannot be set up.
    pub fn new(issuer: String, keys: Url, private: Networks) -> Result<Self> {
        let issuers = Issuers::new(Outbound::new(private)?);
        Ok(Self { issuers, issuer, keys, lane: EnvId::new() })
    }

    /// What a token says that is for `audience`, once it holds.
    ///
    /// # Errors
    /// `unauthenticated` where it does not, saying what is wrong; `unavailable` where the keys cannot be read, of which the log
    /// says more.
    pub async fn word(&self, token: &str, audience: &str) -> Result<Entry> {
        self.entry(token, audience).await.map_err(|failed| {
            if let Failed::Token(bad) = failed {
                return Error::new(Code::Unauthenticated, bad.to_string());
            }
            tracing::warn!(why = %failed, "the keys of the issuer whose tokens are exchanged cannot be read");
            Error::new(Code::Unavailable, "the keys of the issuer cannot be read at this moment")
                .hint("try again in a moment")
        })
    }

    async fn entry(&self, token: &str, audience: &str) -> Result<Entry, Failed> {
        let claims = self.issuers.verified(self.lane, &self.keys, &Token::read(token)?).await?;
        let subject = holds(&claims, &self.issuer, audience, Timestamp::now().as_secs())?.to_owned();
        let email = confirmed(&claims).map(|email| email.as_str().to_owned());
        Ok(Entry { issuer: self.issuer.clone(), subject, email, claims })
    }
}

/// That what a token says holds here and now (RFC 7519 §4.1); whom it is of.
fn holds<'a>(said: &'a Map<String, Value>, issuer: &str, audience: &str, now: i64) -> Result<&'a str, Bad> {
    if text(said, "iss") != Some(issuer) {
        return Err(Bad::Claim("iss"));
    }
    let is_for_us = match said.get("aud") {
        Some(Value::String(aud)) => aud == audience,
        Some(Value::Array(many)) => many.iter().any(|aud| aud == audience),
        _ => false,
    };
    if !is_for_us {
        return Err(Bad::Claim("aud"));
    }
    let time = |name: &str| said.get(name).and_then(Value::as_i64);
    if time("exp").is_none_or(|exp| exp.saturating_add(SKEW) <= now) {
        return Err(Bad::Claim("exp"));
    }
    let is_later = |time: i64| time > now.saturating_add(SKEW);
    if time("iat").is_none_or(is_later) {
        return Err(Bad::Claim("iat"));
    }
    if said.contains_key("nbf") && time("nbf").is_none_or(is_later) {
        return Err(Bad::Claim("nbf"));
    }
    text(said, "sub").filter(|sub| (1..=SUBJECT).contains(&sub.len())).ok_or(Bad::Claim("sub"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_holds_for_this_platform_and_this_moment() {
        let now = 1_000_000;
        let held = |name: &str, value: Value| {
            let mut said = json!({ "iss": "https://id.example.com", "aud": "https://cloud.example.com", "sub": "ada",
                "exp": now + 60, "iat": now });
            said[name] = value;
            let said = said.as_object().cloned().unwrap();
            holds(&said, "https://id.example.com", "https://cloud.example.com", now).map(str::to_owned)
        };
        let good = Ok("ada".to_owned());
        assert_eq!(held("more", json!(1)), good);
        assert_eq!(held("aud", json!(["other", "https://cloud.example.com"])), good);
        assert_eq!(held("exp", json!(now - 50)), good, "clocks differ");
        assert_eq!(held("nbf", json!(now + 50)), good);
        for (name, value) in [
            ("iss", json!("https://id.example.com/")),
            ("iss", Value::Null),
            ("aud", json!("https://cloud.example.com/")),
            ("aud", json!([])),
            ("aud", Value::Null),
            ("exp", json!(now - 60)),
            ("exp", json!("later")),
            ("exp", Value::Null),
            ("iat", json!(now + 61)),
            ("iat", Value::Null),
            ("nbf", json!(now + 61)),
            ("nbf", Value::Null),
            ("sub", json!("")),
            ("sub", json!(1)),
            ("sub", json!("a".repeat(256))),
        ] {
            assert_eq!(held(name, value.clone()), Err(Bad::Claim(name)), "{name} {value}");
        }
    }
}
