//! Tokens that the app's own server signs, for people that it knows already.

use std::sync::Arc;

use kernel::{Code, Error, Result, Secret, Timestamp};
use serde_json::{Map, Value, json};

use super::Failed;
use super::jose::{Bad, Token};
use super::links::{Aim, Vouched};
use super::pending::{self, Stage};
use super::providers::Custom;
use crate::auth::account::settle;
use crate::auth::sign_in::{Before, Who};
use crate::auth::{Asking, Auth, Inner, SignIn, admin, token, whole};
use crate::rows::Method;

/// How far ahead a token may end, and how far clocks may differ, in seconds.
const LONGEST: i64 = 60 * 60;
const SKEW: i64 = 60;

/// The longest names of people and of tokens.
const NAME: usize = 200;

/// The token that somebody shows.
#[derive(Debug, Clone)]
pub struct CustomToken(pub Secret);

/// What a token says that holds.
struct Said {
    sub: String,
    jti: String,
    /// When it ends, in seconds since the Unix epoch.
    exp: i64,
    role: Option<String>,
    claims: Option<Map<String, Value>>,
}

impl Auth {
    /// Opens a session for who shows a token that the app's own server has signed; with the access token of somebody
    /// anonymous it is that user who has this way in from now on.
    ///
    /// # Errors
    /// `unauthenticated` with the same words for whatever is wrong with the token; why is in the app's log. `forbidden`
    /// where the app does not list the method, takes no sign-ups, or the user is disabled; `rate_limited`.
    pub async fn custom(
        &self,
        asking: &Asking<'_>,
        token: Option<&Secret>,
        shown: &CustomToken,
    ) -> Result<SignIn> {
        asking.by(Method::Custom)?;
        self.0.throttles.others.admit(asking.client())?;
        let (inner, env) = (Arc::clone(&self.0), asking.env.clone());
        let before = match token {
            Some(token) => Before::of(&*inner.known(&env, token).await?),
            None => None,
        };
        let wrong =
            || Error::new(Code::Unauthenticated, "the token is not valid (any more)").hint("get another one");
        let custom = asking.settings.custom.clone().unwrap_or_default();
        let said = match inner.said(asking, &custom, &shown.0).await {
            Ok(said) => said,
            Err(failed) => {
                inner.tell(&env, "custom", &failed);
                return Err(wrong());
            }
        };
        // One person alone does not fill what is kept of tokens that were used.
        self.0.throttles.customs.admit((env.id(), token::hash(said.sub.as_bytes())))?;
        let (signup, how) = (asking.settings.signup, asking.how("custom"));
        whole(async move {
            let mut db = inner.begin(&env).await?;
            let Said { sub, jti, exp, role, claims } = said;
            let until = Timestamp::from_micros(exp.saturating_mul(1_000_000));
            let opened = async {
                if !pending::put(&mut db, &env, Stage::Used, (&jti, until), &json!({})).await? {
                    return Err(wrong());
                }
                let provider = "custom".to_owned();
                let (subjects, aim) = (vec![sub], Aim::SignIn);
                let vouched = Vouched { provider, subjects, email: None, before, signup, aim, role, claims };
                inner.signed_in(&mut db, &env, Who::Vouched(vouched), &how).await
            }
            .await;
            let opened = settle(db, opened).await?;
            Ok(inner.announce(&env, opened))
        })
        .await
    }
}

impl Inner {
    async fn said(&self, asking: &Asking<'_>, custom: &Custom, token: &Secret) -> Result<Said, Failed> {
        let token = Token::read(token.expose())?;
        let said = match &custom.secret {
            Some(name) => {
                let secret = self.outside.secrets.value(asking.env, name).await?;
                token.verified_by_secret(&secret.ok_or_else(|| Failed::NoSecret(name.clone()))?)?
            }
            None => token.verified(&custom.jwks())?,
        };
        Ok(holds(&said, &asking.env.id().to_string(), custom, Timestamp::now().as_secs())?)
    }
}

/// What a token says, where it holds for this environment at this moment.
fn holds(said: &Map<String, Value>, aud: &str, custom: &Custom, now: i64) -> Result<Said, Bad> {
    let named = |name: &'static str| {
        let text = said.get(name).and_then(Value::as_str);
        let good = |text: &&str| (1..=NAME).contains(&text.len()) && !text.contains(char::is_control);
        text.filter(good).map(str::to_owned).ok_or(Bad::Claim(name))
    };
    if said.get("aud").and_then(Value::as_str) != Some(aud) {
        return Err(Bad::Claim("aud"));
    }
    let time = |name: &str| said.get(name).and_then(Value::as_i64);
    let holds = |exp: &i64| now < *exp && *exp <= now.saturating_add(LONGEST + SKEW);
    let exp = time("exp").filter(holds).ok_or(Bad::Claim("exp"))?;
    for name in ["iat", "nbf"] {
        if said.contains_key(name) && time(name).is_none_or(|at| at > now.saturating_add(SKEW)) {
            return Err(Bad::Claim(if name == "iat" { "iat" } else { "nbf" }));
        }
    }
    let role = match said.get("role").filter(|_| custom.role) {
        Some(role) => {
            let role = role.as_str().filter(|role| admin::check_role(role).is_ok());
            Some(role.ok_or(Bad::Claim("role"))?.to_owned())
        }
        None => None,
    };
    let claims = match said.get("claims").filter(|_| custom.claims) {
        Some(claims) => {
            let claims = claims.as_object().filter(|claims| admin::check_claims(claims).is_ok());
            Some(claims.ok_or(Bad::Claim("claims"))?.clone())
        }
        None => None,
    };
    Ok(Said { sub: named("sub")?, jti: named("jti")?, exp, role, claims })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn with(change: impl FnOnce(&mut Value), custom: &Custom) -> Result<(String, Option<String>, bool), Bad> {
        let mut said = json!({ "aud": "env_1", "sub": "u-1", "jti": "t-1", "exp": NOW + 60, "role": "editor",
            "claims": { "team": "red" } });
        change(&mut said);
        let said = holds(said.as_object().unwrap(), "env_1", custom, NOW)?;
        Ok((said.sub, said.role, said.claims.is_some()))
    }

    #[test]
    fn a_token_holds_for_its_environment_and_its_hour_and_gives_what_the_manifest_lets_it() {
        let (plain, all) = (Custom::default(), Custom { role: true, claims: true, ..Custom::default() });
        assert_eq!(with(|_| (), &plain), Ok(("u-1".to_owned(), None, false)));
        assert_eq!(with(|_| (), &all), Ok(("u-1".to_owned(), Some("editor".to_owned()), true)));
        for (name, value) in [
            ("aud", json!("env_2")),
            ("aud", json!(["env_1"])),
            ("aud", Value::Null),
            ("sub", json!("")),
            ("sub", json!("a\nb")),
            ("sub", json!("x".repeat(201))),
            ("sub", json!(7)),
            ("jti", Value::Null),
            ("exp", json!(NOW)),
            ("exp", json!(NOW + 3_661)),
            ("exp", json!("soon")),
            ("exp", Value::Null),
            ("iat", json!(NOW + 61)),
            ("nbf", json!(NOW + 61)),
            ("nbf", json!("now")),
            ("role", json!("Admin!")),
            ("role", json!(1)),
            ("claims", json!([])),
            ("claims", json!({ "a": "x".repeat(4_000) })),
        ] {
            let refused = with(|said| said[name] = value.clone(), &all);
            assert_eq!(refused, Err(Bad::Claim(name)), "{name} {value}");
        }
        assert!(with(|said| said["exp"] = json!(NOW + 3_660), &plain).is_ok());
        assert!(with(|said| said["role"] = json!(1), &plain).is_ok(), "what is not taken is not looked at");
    }
}
