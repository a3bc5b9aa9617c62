//! Access tokens: whose they are, and what is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::{Secret, Timestamp, UserId};
use serde_json::json;

use super::fixture::{Ground, Keys, PASSWORD, told};
use crate::access::Subject;
use crate::auth::recognized::{Known, Recognized};
use crate::auth::{Auth, AuthLimits, Claims, UserChange};
use crate::rows::Mfa;

const REFUSED: &str = "unauthenticated: the access token is not valid (any more)";

#[tokio::test]
async fn a_token_holds_for_its_environment_time_session_and_user() {
    let ground = Ground::new().await;
    let (session, other) = (ground.anonymous().await, ground.anonymous().await);
    let env = &ground.env;
    let claims = Keys::read(env, &session.access_token).unwrap();
    let others = Keys::read(env, &other.access_token).unwrap();
    let now = Timestamp::now().as_secs();
    assert_eq!((claims.exp - claims.iat, claims.aud.clone()), (900, env.id().to_string()));
    let told_of = async |claims: Claims| {
        let token = Keys::signed(env, &claims);
        told(ground.auth.recognize(env, Mfa::Off, &token).await)
    };
    assert_eq!(told_of(claims.clone()).await, "ok");
    assert_eq!(told_of(Claims { iat: now + 30, ..claims.clone() }).await, "ok", "clocks differ a little");
    let foreign = ground.another().await;
    for wrong in [
        Claims { exp: now, ..claims.clone() },
        Claims { exp: now - 1, ..claims.clone() },
        Claims { exp: i64::MIN, ..claims.clone() },
        Claims { iat: now + 120, ..claims.clone() },
        Claims { aud: foreign.id().to_string(), ..claims.clone() },
        Claims { aud: String::new(), ..claims.clone() },
        Claims { iss: "somebody".into(), ..claims.clone() },
        Claims { sub: UserId::new(), ..claims.clone() },
        Claims { sub: others.sub, ..claims.clone() },
        Claims { sid: others.sid.clone(), ..claims.clone() },
        Claims { sid: String::new(), ..claims.clone() },
        Claims { sid: "' OR 1 --".into(), ..claims.clone() },
    ] {
        assert_eq!(told_of(wrong.clone()).await, REFUSED, "{wrong:?}");
    }
    // Remembered in its own environment, it opens no other.
    assert_eq!(told(ground.auth.recognize(env, Mfa::Off, &session.access_token).await), "ok");
    assert_eq!(told(ground.auth.recognize(&foreign, Mfa::Off, &session.access_token).await), REFUSED);
    // Signed for another environment's app, whatever it says.
    let token = Keys::signed(&foreign, &claims);
    assert_eq!(told(ground.auth.recognize(env, Mfa::Off, &token).await), REFUSED);
    for text in ["", ".", "a.b.c", "ey.", &"a".repeat(5_000), session.refresh_token.expose()] {
        assert_eq!(
            told(ground.auth.recognize(env, Mfa::Off, &Secret::new(text)).await),
            REFUSED,
            "{text:.40}"
        );
    }
}

#[tokio::test]
async fn what_a_token_says_of_its_user_is_not_believed() {
    let ground = Ground::new().await;
    let session = ground.anonymous().await;
    let claims = Keys::read(&ground.env, &session.access_token).unwrap();
    let admin = Keys::signed(&ground.env, &Claims { role: "admin".into(), anonymous: false, ..claims });
    let guest = ground.auth.recognize(&ground.env, Mfa::Off, &admin).await.unwrap();
    let Subject::User(user) = guest.subject() else { panic!("{guest:?}") };
    assert_eq!(user.role, "user");
}

#[tokio::test]
async fn a_change_of_its_user_shows_at_once() {
    let ground = Ground::new().await;
    let session = ground.sign_up("ada@example.org").await.unwrap();
    let id = session.user.id.to_string();
    let set = async |change: UserChange| {
        ground.auth.set_user(&ground.env, UserChange { user: id.clone(), ..change }).await.unwrap()
    };
    let seen = async || {
        let guest = ground
            .auth
            .recognize(&ground.env, Mfa::Off, &session.access_token)
            .await
            .map_err(|e| e.to_string())?;
        let Subject::User(user) = guest.subject().clone() else { panic!("{guest:?}") };
        Ok::<_, String>((user.role, user.email, serde_json::Value::Object(user.claims)))
    };
    // The address is what anybody could have typed: rules see none.
    assert_eq!(seen().await, Ok(("user".into(), None, json!({}))));
    set(UserChange { role: Some("admin".into()), ..UserChange::default() }).await;
    assert_eq!(seen().await, Ok(("admin".into(), None, json!({}))));
    let claims = json!({ "team": 7 }).as_object().cloned();
    set(UserChange { claims, ..UserChange::default() }).await;
    assert_eq!(seen().await, Ok(("admin".into(), None, json!({ "team": 7 }))));
    set(UserChange { email: Some("Ada@Example.com".into()), ..UserChange::default() }).await;
    assert_eq!(seen().await.unwrap().1.as_deref(), Some("ada@example.com"), "the app's makers vouch for it");
    let disabled = set(UserChange { disabled: Some(true), ..UserChange::default() }).await;
    assert_eq!((disabled.signed_out, disabled.user.disabled), (1, true));
    assert!(seen().await.is_err());
    assert!(ground.log_in("ada@example.com", PASSWORD).await.is_err());
    set(UserChange { disabled: Some(false), ..UserChange::default() }).await;
    assert!(seen().await.is_err(), "its session stays ended");
    ground.log_in("ada@example.com", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_removed_environments_tokens_open_nothing() {
    let ground = Ground::new().await;
    let session = ground.anonymous().await;
    assert!(ground.is_live(&session).await);
    ground.databases.remove(ground.env.id()).await.unwrap();
    ground.auth.forget(ground.env.id());
    assert!(!ground.is_live(&session).await);
}

fn known(ground: &Ground) -> Arc<Known> {
    let account = crate::auth::account::Account::new(None);
    Arc::new(Known {
        guest: crate::access::Guest::new(ground.env.clone(), Subject::User(account.user())),
        profile: account.profile(),
        session: "s".into(),
        expires: Timestamp::now().as_secs() + 60,
        second: false,
    })
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_kept_after_it() {
    let ground = Ground::new().await;
    let (memory, now, env) = (Recognized::new(10), Timestamp::now(), ground.env.id());
    memory.keep(memory.asking(), [1; 32], known(&ground));
    assert!(memory.get(env, &[1; 32], now).is_some());
    assert!(memory.get(env, &[2; 32], now).is_none());
    assert!(memory.get(ground.another().await.id(), &[1; 32], now).is_none());
    assert!(memory.get(env, &[1; 32], now.plus(Duration::from_secs(60))).is_none(), "it has ended");
    let asked = memory.asking();
    memory.forget(|known| known.is_of_session(env, "s"));
    assert!(memory.get(env, &[1; 32], now).is_none());
    memory.keep(asked, [1; 32], known(&ground));
    assert!(memory.get(env, &[1; 32], now).is_none());
    assert_eq!(memory.len(), 0);
}

#[tokio::test]
async fn no_more_tokens_are_remembered_than_allowed() {
    let ground = Ground::new().await;
    let memory = Recognized::new(100);
    for n in 0..10_000_u32 {
        let mut token = [0; 32];
        token[..4].copy_from_slice(&n.to_be_bytes());
        memory.keep(memory.asking(), token, known(&ground));
    }
    assert!(memory.len() <= 200, "{}", memory.len());
}

#[tokio::test]
async fn a_token_that_is_remembered_costs_next_to_nothing() {
    let ground = Ground::new().await;
    let session = ground.sign_up("ada@example.org").await.unwrap();
    // As long as one with a signature by Ed25519.
    let token = &session.access_token;
    ground.auth.recognize(&ground.env, Mfa::Off, token).await.unwrap();
    let rounds = 20_000;
    let best = {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            for _ in 0..rounds {
                ground.auth.recognize(&ground.env, Mfa::Off, token).await.unwrap();
            }
            best = best.min(start.elapsed() / rounds);
        }
        best
    };
    let most = if cfg!(debug_assertions) { Duration::from_micros(150) } else { Duration::from_micros(3) };
    assert!(best < most, "{best:?}");
}

#[test]
fn many_threads_can_share_it() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Auth>();
    let limits = AuthLimits::default();
    assert_eq!((limits.access, limits.session), (Duration::from_secs(900), Duration::from_secs(2_592_000)));
}
