//! Passkeys of an authenticator made of software: what one that verifies its user opens, and what one that does not.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use kernel::{Result, Secret, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::fixture::{Ground, told, typed};
use crate::auth::{Asking, FactorKind, NewPasskey, Presence, Session, ShownPasskey, SignIn, token, totp};
use crate::rows::{Method, Mfa};

const ORIGIN: &str = "http://shop.localhost:8787";
const ADA: &str = "ada@example.org";
const REFUSED: &str = "unauthenticated: the passkey does not open an account here";

/// One passkey, in the hand of somebody who says anything about it.
struct Hand {
    pair: Ed25519KeyPair,
    user: String,
    /// The flags of what it signs.
    flags: u8,
    counter: u32,
}

const PRESENT: u8 = 1;
const VERIFIED: u8 = PRESENT | 4;

impl Hand {
    fn new(flags: u8) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Self { pair, user: String::new(), flags, counter: 0 }
    }

    fn data(&self, flags: u8) -> Vec<u8> {
        let party = token::hash(b"shop.localhost");
        [&party[..], &[flags], &self.counter.to_be_bytes()].concat()
    }

    fn client_data(kind: &str, options: &Value) -> Vec<u8> {
        json!({ "type": kind, "challenge": options["challenge"], "origin": ORIGIN }).to_string().into_bytes()
    }

    fn make(&mut self, options: &Value) -> NewPasskey {
        self.user = options["user"]["id"].as_str().unwrap().to_owned();
        let key = Cbor::Map(vec![
            (1.into(), 1.into()),
            (3.into(), (-8).into()),
            ((-1).into(), 6.into()),
            ((-2).into(), self.pair.public_key().as_ref().to_vec().into()),
        ]);
        let mut data = [self.data(self.flags | 64).as_slice(), &[0; 16], &[0, 2], b"id"].concat();
        ciborium::into_writer(&key, &mut data).unwrap();
        let mut attestation = Vec::new();
        ciborium::into_writer(&Cbor::Map(vec![("authData".into(), data.into())]), &mut attestation).unwrap();
        let client_data = Self::client_data("webauthn.create", options);
        let [client_data, attestation] =
            [client_data, attestation].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        NewPasskey { name: None, client_data, attestation }
    }

    fn show(&mut self, options: &Value) -> ShownPasskey {
        self.counter += 1;
        let (client_data, data) = (Self::client_data("webauthn.get", options), self.data(self.flags));
        let signature = self.pair.sign(&[data.as_slice(), &token::hash(&client_data)].concat());
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        ShownPasskey {
            credential: encoded(b"id"),
            client_data: encoded(&client_data),
            authenticator_data: encoded(&data),
            signature: encoded(signature.as_ref()),
            user: Some(self.user.clone()),
        }
    }
}

async fn ground(mfa: Mfa) -> Ground {
    let mut ground = Ground::new().await;
    ground.settings.mfa = mfa;
    ground.settings.methods.insert(Method::Passkey);
    ground
}

async fn register(ground: &Ground, session: &Session, hand: &mut Hand) {
    let (asking, token) = (ground.asking(), &session.access_token);
    let options = ground.auth.passkey_creation(&asking, token, &Presence::Fresh).await.unwrap();
    assert_eq!((&options["rp"]["id"], &options["attestation"]), (&json!("shop.localhost"), &json!("none")));
    ground.auth.make_passkey(&asking, token, &hand.make(&options)).await.unwrap();
}

async fn enter(ground: &Ground, hand: &mut Hand) -> Result<SignIn> {
    let options = ground.auth.passkey_request(&ground.asking()).await.unwrap();
    ground.auth.show_passkey(&ground.asking(), &hand.show(&options)).await
}

async fn session(ground: &Ground, hand: &mut Hand) -> Session {
    match enter(ground, hand).await.unwrap() {
        SignIn::Session(session) => session,
        SignIn::Second(_) => panic!("a second factor instead of a session"),
    }
}

async fn opens(ground: &Ground, session: &Session) -> bool {
    ground.auth.recognize(&ground.env, Mfa::Required, &session.access_token).await.is_ok()
}

#[tokio::test]
async fn one_that_verifies_its_user_is_two_factors_and_guards_the_password() {
    let (ground, mut hand) = (ground(Mfa::Required).await, Hand::new(VERIFIED));
    let ada = ground.member(ADA).await;
    register(&ground, &ada, &mut hand).await;
    assert!(opens(&ground, &ada).await);
    assert!(opens(&ground, &session(&ground, &mut hand).await).await);
    let typed = typed("ada@example.org", super::fixture::PASSWORD);
    let SignIn::Second(asked) = ground.auth.log_in(&ground.asking(), &typed).await.unwrap() else {
        panic!("the password was enough")
    };
    assert_eq!(asked.factors, [FactorKind::Passkey]);
}

#[tokio::test]
async fn one_that_does_not_is_one_factor_and_is_never_asked_for_as_the_second() {
    let (ground, mut hand) = (ground(Mfa::Required).await, Hand::new(PRESENT));
    let ada = ground.member(ADA).await;
    register(&ground, &ada, &mut hand).await;
    assert!(!opens(&ground, &ada).await);
    assert!(!opens(&ground, &session(&ground, &mut hand).await).await);
    assert!(ground.log_in("ada@example.org", super::fixture::PASSWORD).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_challenge_is_answered_once_by_whom_it_was_given_and_where() {
    let (ground, mut hand) = (Arc::new(ground(Mfa::Off).await), Hand::new(VERIFIED));
    let ada = ground.member(ADA).await;
    register(&ground, &ada, &mut hand).await;
    let asking = ground.asking();
    // Of another environment, of the other ceremony, for another user.
    let another = ground.another().await;
    let elsewhere = Asking { env: &another, ..asking };
    let foreign = ground.auth.passkey_request(&elsewhere).await.unwrap();
    assert_eq!(told(ground.auth.show_passkey(&asking, &hand.show(&foreign)).await), REFUSED);
    let own = ground.auth.passkey_request(&asking).await.unwrap();
    assert_eq!(told(ground.auth.show_passkey(&elsewhere, &hand.show(&own)).await), REFUSED);
    let creation = ground.auth.passkey_creation(&asking, &ada.access_token, &Presence::Fresh).await.unwrap();
    assert_eq!(told(ground.auth.show_passkey(&asking, &hand.show(&creation)).await), REFUSED);
    let bea = ground.sign_up("bea@example.org").await.unwrap();
    let creation = ground.auth.passkey_creation(&asking, &ada.access_token, &Presence::Fresh).await.unwrap();
    let (new, mut other) = (hand.make(&creation), Hand::new(VERIFIED));
    assert_eq!(told(ground.auth.make_passkey(&asking, &bea.access_token, &new).await), REFUSED);
    let told_twice = ground.auth.make_passkey(&asking, &ada.access_token, &new).await;
    assert_eq!(told(told_twice), "conflict: this passkey is known already");
    let theirs = ground.auth.passkey_creation(&asking, &bea.access_token, &Presence::Fresh).await.unwrap();
    let stolen = ground.auth.make_passkey(&asking, &bea.access_token, &other.make(&theirs)).await;
    assert_eq!(told(stolen), "conflict: this passkey is known already", "somebody else's credential");
    // Eight at once with one answer.
    let options = ground.auth.passkey_request(&asking).await.unwrap();
    let shown = hand.show(&options);
    let mut tries = Vec::new();
    for _ in 0..8 {
        let (ground, shown) = (Arc::clone(&ground), shown.clone());
        tries.push(tokio::spawn(
            async move { ground.auth.show_passkey(&ground.asking(), &shown).await.is_ok() },
        ));
    }
    let mut entered = 0;
    for one in tries {
        entered += usize::from(one.await.unwrap());
    }
    assert_eq!(entered, 1);
    // A copy that is behind.
    hand.counter = 0;
    assert_eq!(told(enter(&ground, &mut hand).await), REFUSED);
    hand.counter = 50;
    session(&ground, &mut hand).await;
    // Whoever is disabled stays out, and an app without the method takes none.
    let off = crate::auth::UserChange {
        user: "ada@example.org".into(),
        disabled: Some(true),
        ..crate::auth::UserChange::default()
    };
    ground.auth.set_user(&ground.env, off).await.unwrap();
    assert_eq!(told(enter(&ground, &mut hand).await), REFUSED);
    let mut settings = ground.settings.clone();
    settings.methods.remove(&Method::Passkey);
    let without = Asking { settings: &settings, ..ground.asking() };
    let refused = ground.auth.passkey_request(&without).await;
    assert_eq!(told(refused), "forbidden: this app has no sign-in by passkey");
    let stored = serde_json::to_string(&ground.rows("SELECT * FROM _steading_ticket").await).unwrap();
    let text = URL_SAFE_NO_PAD.decode(theirs["challenge"].as_str().unwrap()).unwrap();
    assert!(
        !stored.contains(Secret::new(String::from_utf8(text).unwrap()).expose()),
        "challenges are hashed"
    );
}

#[tokio::test]
async fn who_keeps_a_passkey_alone_has_an_account() {
    let (mut ground, mut hand) = (ground(Mfa::Optional).await, Hand::new(VERIFIED));
    ground.settings.methods.insert(Method::Custom);
    let ada = ground.anonymous().await;
    ground
        .run(&format!("INSERT INTO _steading_identity VALUES ('custom', 'ada', '{}', 1)", ada.user.id))
        .await;
    ground.auth.forget(ground.env.id());
    register(&ground, &ada, &mut hand).await;
    ground.auth.unlink(&ground.asking(), &ada.access_token, "custom").await.unwrap();
    let entered = session(&ground, &mut hand).await;
    assert_eq!((entered.user.id, entered.user.anonymous), (ada.user.id, false));
    let upgraded = ground.upgrade(&entered, ADA).await;
    assert_eq!(told(upgraded), "conflict: this session is of an account already");
    // It is the last way in, and nobody takes it for none.
    let passkey = ground.auth.passkeys(&ground.env, &entered.access_token).await.unwrap()[0].id.clone();
    let removed =
        ground.auth.remove_passkey(&ground.asking(), &entered.access_token, &passkey, &Presence::Fresh).await;
    assert_eq!(told(removed), "conflict: this is the only way in to the account");
    ground.run("UPDATE _steading_session SET expires_at = 1").await;
    ground.run("UPDATE _steading_user SET created_at = 1, last_seen_at = 1").await;
    ground.auth.forget(ground.env.id());
    assert_eq!(ground.auth.tidy(&ground.env).await.unwrap(), 0);
    assert_eq!(session(&ground, &mut hand).await.user.id, ada.user.id);
}

#[tokio::test]
async fn one_that_is_removed_ends_what_it_has_opened_and_its_user_is_told() {
    let (ground, mut hand) = (ground(Mfa::Optional).await, Hand::new(VERIFIED));
    let ada = ground.member(ADA).await;
    register(&ground, &ada, &mut hand).await;
    let (found, elsewhere) =
        (session(&ground, &mut hand).await, ground.log_in(ADA, super::fixture::PASSWORD).await.unwrap());
    let passkey = ground.auth.passkeys(&ground.env, &ada.access_token).await.unwrap()[0].id.clone();
    ground
        .auth
        .remove_passkey(&ground.asking(), &ada.access_token, &passkey, &Presence::Fresh)
        .await
        .unwrap();
    assert!(!ground.is_live(&found).await && ground.refresh(&found).await.is_err());
    assert!(ground.is_live(&ada).await && ground.is_live(&elsewhere).await);
    ground.mail(ADA, "is gone").await;
}

#[tokio::test]
async fn what_was_begun_before_there_was_a_second_factor_is_not_finished_after_it() {
    let (mut ground, mut hand) = (ground(Mfa::Required).await, Hand::new(VERIFIED));
    let ada = ground.member(ADA).await;
    let thief = ground.log_in(ADA, super::fixture::PASSWORD).await.unwrap();
    let begin = async |ground: &Ground, thief: &Session| {
        let (asking, token) = (ground.asking(), &thief.access_token);
        let begun = ground.auth.enrol(&asking, token, None, &Presence::Fresh).await.unwrap();
        let secret = data_encoding::BASE32_NOPAD.decode(begun.secret.expose().as_bytes()).unwrap();
        let code = Secret::new(totp::tests_code(&secret, Timestamp::now(), 0));
        let options = ground.auth.passkey_creation(&asking, token, &Presence::Fresh).await.unwrap();
        (code, Hand::new(VERIFIED).make(&options))
    };
    let finish = async |ground: &Ground, thief: &Session, (code, made): &(Secret, NewPasskey)| {
        let (asking, token) = (ground.asking(), &thief.access_token);
        [
            told(ground.auth.activate(&asking, token, code).await),
            told(ground.auth.make_passkey(&asking, token, made).await),
        ]
    };
    let begun = begin(&ground, &thief).await;
    register(&ground, &ada, &mut hand).await;
    // The first one ends what is open by one factor.
    assert_eq!(
        finish(&ground, &thief, &begun).await,
        ["unauthenticated: the access token is not valid (any more)"; 2]
    );
    assert!(opens(&ground, &ada).await);
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_totp").await, [[json!(0)]]);
    // Nor where it is asked for since another release.
    ground.settings.mfa = Mfa::Optional;
    let thief = ground.log_in(ADA, super::fixture::PASSWORD).await.unwrap();
    let begun = begin(&ground, &thief).await;
    ground.settings.mfa = Mfa::Required;
    let refused = "forbidden: this needs the second factor, or to have shown it a moment ago";
    assert_eq!(finish(&ground, &thief, &begun).await, [refused; 2]);
    assert_eq!(ground.auth.passkeys(&ground.env, &ada.access_token).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_crowd_that_asks_for_challenges_keeps_nobody_out() {
    let (mut ground, mut hand) = (ground(Mfa::Required).await, Hand::new(VERIFIED));
    let ada = ground.member(ADA).await;
    register(&ground, &ada, &mut hand).await;
    for n in 0..50 {
        ground.client = Some([192, 0, 2, n].into());
        ground.auth.passkey_request(&ground.asking()).await.unwrap();
    }
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_ticket").await, [[json!(0)]]);
    // As many as there may be, of others who have shown a password.
    let later = Timestamp::now().plus(std::time::Duration::from_secs(60)).as_micros();
    let crowd = format!(
        "INSERT INTO _steading_ticket (id, purpose, user, about, tries, expires_at) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) \
         SELECT i, 'second', i, 'password', 0, {later} + i FROM n"
    );
    ground.run(&crowd).await;
    session(&ground, &mut hand).await;
    let typed = typed(ADA, super::fixture::PASSWORD);
    for _ in 0..30 {
        ground.client = None;
        let SignIn::Second(_) = ground.auth.log_in(&ground.asking(), &typed).await.unwrap() else {
            panic!("the password was enough")
        };
    }
    let held = "SELECT count(*), sum(length(user) > 5), min(CASE WHEN length(user) <= 5 THEN CAST(id AS INTEGER) END) \
                FROM _steading_ticket WHERE purpose = 'second'";
    let held = ground.rows(held).await;
    assert_eq!(
        held,
        [[json!(20_000), json!(20), json!(21)]],
        "the oldest have gone, and one user has not all"
    );
}
