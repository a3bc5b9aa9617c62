//! Second factors: asked for by every way in, each used once, and guessed by nobody.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Error, Result, Secret, Timestamp};
use serde_json::json;

use super::fixture::{Ground, PASSWORD, linked, opened, told, typed};
use crate::auth::{
    AuthLimits, Challenge, Ending, FactorKind, MfaChange, Presence, Rate, Second, Session, Shown, SignIn,
    UserChange, Users, totp,
};
use crate::rows::{Method, Mfa};

const ADA: &str = "ada@example.org";

/// Somebody's authenticator, which knows the time to come.
struct Authenticator {
    secret: Vec<u8>,
    recovery: Vec<Secret>,
}

impl Authenticator {
    /// The code of this moment, or so many steps off.
    fn code(&self, off: i64) -> Second {
        Second::Code(Secret::new(totp::tests_code(&self.secret, Timestamp::now(), off)))
    }

    fn recovery(&self, at: usize) -> Second {
        Second::Recovery(self.recovery[at].clone())
    }
}

async fn guarded(ground: &Ground, session: &Session) -> Authenticator {
    let token = &session.access_token;
    let begun = ground.auth.enrol(&ground.asking(), token, Some("phone"), &Presence::Fresh).await.unwrap();
    let secret = data_encoding::BASE32_NOPAD.decode(begun.secret.expose().as_bytes()).unwrap();
    let code = totp::tests_code(&secret, Timestamp::now(), -1);
    let recovery = ground.auth.activate(&ground.asking(), token, &Secret::new(code)).await.unwrap();
    Authenticator { secret, recovery }
}

async fn ground(mfa: Mfa) -> Ground {
    let mut ground = Ground::new().await;
    ground.settings.mfa = mfa;
    ground
}

async fn challenged(ground: &Ground) -> Challenge {
    match ground.auth.log_in(&ground.asking(), &typed(ADA, PASSWORD)).await.unwrap() {
        SignIn::Second(challenge) => challenge,
        SignIn::Session(_) => panic!("one factor was enough"),
    }
}

async fn shows(ground: &Ground, ticket: &Secret, second: &Second) -> Result<Session> {
    ground.auth.second(&ground.asking(), ticket, second).await
}

const WRONG: &str = "unauthenticated: the code is wrong, or was used before";
const OVER: &str = "unauthenticated: the ticket is not valid (any more)";

#[tokio::test]
async fn the_first_factor_opens_nothing_where_there_is_a_second() {
    let ground = ground(Mfa::Optional).await;
    let session = ground.member(ADA).await;
    let elsewhere = ground.log_in(ADA, PASSWORD).await.unwrap();
    let ada = guarded(&ground, &session).await;
    assert!(ground.is_live(&session).await);
    assert!(!ground.is_live(&elsewhere).await && ground.refresh(&elsewhere).await.is_err(), "by one factor");
    let challenge = challenged(&ground).await;
    assert_eq!(challenge.factors, [FactorKind::Totp, FactorKind::RecoveryCode]);
    // The ticket is no other token.
    let asked = ground.auth.recognize(&ground.env, Mfa::Off, &challenge.ticket).await;
    assert_eq!(asked.unwrap_err().code(), Code::Unauthenticated);
    let refreshed = ground.auth.refresh(&ground.asking(), &challenge.ticket, None).await;
    assert_eq!(refreshed.unwrap_err().code(), Code::Unauthenticated);
    let entered = shows(&ground, &challenge.ticket, &ada.code(0)).await.unwrap();
    assert_eq!(entered.user.id, session.user.id);
    assert!(ground.is_live(&entered).await);
    let next = ground.refresh(&entered).await.unwrap();
    assert!(ground.is_live(&next).await);
    assert_eq!(
        told(shows(&ground, &challenge.ticket, &ada.recovery(0)).await),
        OVER,
        "a ticket is used once"
    );
    let sessions = ground.auth.sessions(&ground.env, &next.access_token).await.unwrap();
    assert_eq!(sessions.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["password", "password"]);
}

#[tokio::test]
async fn a_code_is_good_once_and_no_earlier_one_after_it() {
    let ground = ground(Mfa::Optional).await;
    let ada = guarded(&ground, &ground.member(ADA).await).await;
    let (one, two) = (challenged(&ground).await, challenged(&ground).await);
    assert_eq!(told(shows(&ground, &one.ticket, &ada.code(-1)).await), WRONG, "it has set the factor up");
    shows(&ground, &one.ticket, &ada.code(1)).await.unwrap();
    for used in [1, 0, -1] {
        assert_eq!(told(shows(&ground, &two.ticket, &ada.code(used)).await), WRONG, "{used}");
    }
    let odd = Second::Code(Secret::new("12345"));
    assert_eq!(told(shows(&ground, &two.ticket, &odd).await), "invalid_input /code: a code has 6 digits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_code_or_recovery_code_that_many_use_at_once_lets_one_in() {
    let ground = Arc::new(ground(Mfa::Optional).await);
    let ada = guarded(&ground, &ground.member(ADA).await).await;
    for second in [ada.recovery(3), ada.code(0)] {
        let mut tries = Vec::new();
        for _ in 0..8 {
            let (ground, second, ticket) =
                (Arc::clone(&ground), second.clone(), challenged(&ground).await.ticket);
            tries.push(tokio::spawn(async move { shows(&ground, &ticket, &second).await.is_ok() }));
        }
        let mut entered = 0;
        for one in tries {
            entered += usize::from(one.await.unwrap());
        }
        assert_eq!(entered, 1, "{second:?}");
    }
}

#[tokio::test]
async fn guesses_count_for_the_user_whatever_ticket_and_network_they_come_with() {
    let mut ground = ground(Mfa::Optional).await;
    let ada = guarded(&ground, &ground.member(ADA).await).await;
    let (mut wrong, mut limited) = (0, 0);
    let guess = Second::Code(Secret::new("000000"));
    for n in 0..15 {
        ground.client = Some(format!("203.0.113.{n}").parse().unwrap());
        match shows(&ground, &challenged(&ground).await.ticket, &guess).await.unwrap_err().code() {
            Code::Unauthenticated => wrong += 1,
            Code::RateLimited => limited += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((wrong, limited), (10, 5));
    let ticket = challenged(&ground).await.ticket;
    assert_eq!(shows(&ground, &ticket, &ada.code(0)).await.unwrap_err().code(), Code::RateLimited);
    // Nobody guesses a recovery code, so its owner gets in all the same.
    shows(&ground, &ticket, &ada.recovery(9)).await.unwrap();
}

#[tokio::test]
async fn one_ticket_takes_a_few_tries_and_ends_with_its_time() {
    let often = Rate { burst: NonZeroU32::MAX, every: Duration::from_nanos(1) };
    let limits = AuthLimits { wrong_seconds: often, passwords: often, ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    ground.settings.mfa = Mfa::Optional;
    let ada = guarded(&ground, &ground.member(ADA).await).await;
    let ticket = challenged(&ground).await.ticket;
    let guess = Second::Code(Secret::new("000000"));
    for _ in 0..5 {
        assert_eq!(told(shows(&ground, &ticket, &guess).await), WRONG);
    }
    assert_eq!(told(shows(&ground, &ticket, &ada.code(0)).await), OVER);
    let ticket = challenged(&ground).await.ticket;
    ground.run("UPDATE _steading_ticket SET expires_at = 1").await;
    assert_eq!(told(shows(&ground, &ticket, &ada.code(0)).await), OVER);
    ground.auth.tidy(&ground.env).await.unwrap();
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_ticket").await, [[json!(0)]]);
}

#[tokio::test]
async fn a_ticket_is_worth_nothing_after_what_ends_sessions_nor_elsewhere() {
    let ground = ground(Mfa::Optional).await;
    let session = ground.member(ADA).await;
    let ada = guarded(&ground, &session).await;
    let change =
        |change: UserChange| ground.auth.set_user(&ground.env, UserChange { user: ADA.into(), ..change });
    let ticket = challenged(&ground).await.ticket;
    let another = ground.another().await;
    let asking = crate::auth::Asking { env: &another, ..ground.asking() };
    assert_eq!(
        told(ground.auth.second(&asking, &ticket, &ada.code(0)).await),
        OVER,
        "of another environment"
    );
    ground.auth.log_out(&ground.env, &session.access_token, Ending::Others).await.unwrap();
    assert_eq!(told(shows(&ground, &ticket, &ada.code(0)).await), OVER);
    let ticket = challenged(&ground).await.ticket;
    change(UserChange { password: Some(Secret::new(PASSWORD)), ..UserChange::default() }).await.unwrap();
    assert_eq!(told(shows(&ground, &ticket, &ada.code(0)).await), OVER);
    let ticket = challenged(&ground).await.ticket;
    change(UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    assert_eq!(told(shows(&ground, &ticket, &ada.code(0)).await), OVER);
    change(UserChange { disabled: Some(false), ..UserChange::default() }).await.unwrap();
    let ticket = challenged(&ground).await.ticket;
    shows(&ground, &ticket, &ada.code(0)).await.unwrap();
}

#[tokio::test]
async fn an_authenticator_is_set_up_and_removed_in_person_and_its_secret_is_not_stored_as_it_is() {
    let limits = AuthLimits { fresh: Duration::ZERO, ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    let session = ground.member(ADA).await;
    let token = session.access_token.clone();
    let enrol = async |ground: &Ground, presence: Presence| {
        ground.auth.enrol(&ground.asking(), &token, None, &presence).await
    };
    let password = || Presence::Password(Secret::new(PASSWORD));
    assert_eq!(told(enrol(&ground, password()).await), "forbidden: this app has no second factors");
    ground.settings.mfa = Mfa::Optional;
    assert_eq!(
        told(enrol(&ground, Presence::Fresh).await),
        "forbidden: this needs the password, or to have signed in a moment ago"
    );
    let wrong = Presence::Password(Secret::new("another one"));
    assert_eq!(told(enrol(&ground, wrong).await), "forbidden /current: the current password is wrong");
    let activate =
        async |code: &str| ground.auth.activate(&ground.asking(), &token, &Secret::new(code)).await;
    assert_eq!(told(activate("000000").await), "conflict: no authenticator is being set up");
    let first = enrol(&ground, password()).await.unwrap();
    let begun = enrol(&ground, password()).await.unwrap();
    let secret = |text: &Secret| data_encoding::BASE32_NOPAD.decode(text.expose().as_bytes()).unwrap();
    let (first, secret) = (secret(&first.secret), secret(&begun.secret));
    let now = Timestamp::now();
    assert_eq!(told(activate(&totp::tests_code(&first, now, 0)).await), WRONG, "it was begun again since");
    assert!(
        opened(ground.auth.log_in(&ground.asking(), &typed(ADA, PASSWORD)).await).is_ok(),
        "not yet set up"
    );
    let codes = activate(&totp::tests_code(&secret, now, 0)).await.unwrap();
    let stored = serde_json::to_string(&ground.rows("SELECT * FROM _steading_totp").await).unwrap();
    let stored =
        stored + &serde_json::to_string(&ground.rows("SELECT * FROM _steading_recovery").await).unwrap();
    assert!(!stored.contains(begun.secret.expose()) && stored.contains("authenticator of usr_"));
    assert_eq!(codes.len(), 10);
    for code in &codes {
        assert!(!stored.contains(code.expose()) && !stored.contains(&code.expose().replace('-', "")));
    }
    let twice = Error::new(Code::Conflict, "there is an authenticator already");
    let factor = Presence::Second(Second::Recovery(codes[0].clone()));
    assert_eq!(enrol(&ground, factor).await.unwrap_err().message(), twice.message());
    let remove = async |presence: Presence| {
        ground.auth.remove_factor(&ground.asking(), &token, &begun.id, &presence).await
    };
    let needs = "forbidden: this needs the second factor, or to have shown it a moment ago";
    assert_eq!(told(remove(Presence::Fresh).await), needs);
    assert_eq!(told(remove(password()).await), needs, "the password is the first factor");
    assert_eq!(told(remove(Presence::Second(Second::Recovery(codes[0].clone()))).await), WRONG, "used");
    let stranger = ground.sign_up("bea@example.org").await.unwrap();
    let theirs = ground
        .auth
        .remove_factor(
            &ground.asking(),
            &stranger.access_token,
            &begun.id,
            &Presence::Second(Second::Recovery(codes[1].clone())),
        )
        .await;
    assert_eq!(told(theirs), "not_found: there is no such second factor of yours");
    let renew = Presence::Second(Second::Recovery(codes[1].clone()));
    let renewed = ground.auth.recover(&ground.asking(), &token, &renew).await.unwrap();
    assert_eq!(told(remove(Presence::Second(Second::Recovery(codes[2].clone()))).await), WRONG, "renewed");
    remove(Presence::Second(Second::Recovery(renewed[0].clone()))).await.unwrap();
    assert!(ground.log_in(ADA, PASSWORD).await.is_ok());
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_recovery").await, [[json!(0)]]);
    let anonymous = ground.anonymous().await;
    let none = ground.auth.enrol(&ground.asking(), &anonymous.access_token, None, &Presence::Fresh).await;
    assert_eq!(told(none), "conflict: this user has no account yet");
}

#[tokio::test]
async fn where_a_second_factor_is_required_a_session_without_one_opens_no_more_than_setting_it_up() {
    let ground = ground(Mfa::Required).await;
    let session = ground.member(ADA).await;
    let opens = async |session: &Session| {
        told(ground.auth.recognize(&ground.env, Mfa::Required, &session.access_token).await)
    };
    let closed = "forbidden: this app asks for a second factor, and this session has shown none";
    assert_eq!(opens(&session).await, closed);
    let next = ground.refresh(&session).await.unwrap();
    assert_eq!(opens(&next).await, closed, "refreshing shows nothing");
    let change = ground
        .auth
        .change_password(&ground.asking(), &next.access_token, None, &Secret::new("another word for later"))
        .await;
    assert_eq!(told(change), closed);
    let ada = guarded(&ground, &next).await;
    assert_eq!(opens(&next).await, "ok");
    let entered = shows(&ground, &challenged(&ground).await.ticket, &ada.code(0)).await.unwrap();
    assert_eq!(opens(&entered).await, "ok");
    let factors = ground.auth.factors(&ground.asking(), &entered.access_token).await.unwrap();
    assert!(factors.open && factors.recovery_codes == 10);
    let id = &factors.factors[0].id;
    ground.auth.remove_factor(&ground.asking(), &entered.access_token, id, &Presence::Fresh).await.unwrap();
    for session in [&entered, &next] {
        assert_eq!(opens(session).await, closed, "what was shown is not there any more");
    }
}

#[tokio::test]
async fn the_makers_see_second_factors_and_take_them_away() {
    let ground = ground(Mfa::Optional).await;
    let session = ground.member(ADA).await;
    guarded(&ground, &session).await;
    let wanted = Users { user: Some(ADA.into()), ..Users::default() };
    let listed = ground.auth.users(&ground.env, &wanted).await.unwrap();
    assert_eq!(listed.users[0].mfa, [FactorKind::Totp]);
    let ticket = challenged(&ground).await.ticket;
    let reset = UserChange { user: ADA.into(), mfa: Some(MfaChange::Reset), ..UserChange::default() };
    let set = ground.auth.set_user(&ground.env, reset).await.unwrap();
    assert_eq!((set.user.mfa.len(), set.signed_out), (0, 1));
    assert!(!ground.is_live(&session).await);
    assert_eq!(told(shows(&ground, &ticket, &Second::Code(Secret::new("000000"))).await), OVER);
    assert!(ground.log_in(ADA, PASSWORD).await.is_ok());
}

#[tokio::test]
async fn only_an_account_whose_address_is_confirmed_has_one_and_who_reads_the_mail_is_not_led_around_it() {
    let limits = AuthLimits { fresh: Duration::ZERO, ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    ground.settings.mfa = Mfa::Required;
    ground.settings.methods.insert(Method::Passkey);
    let session = ground.sign_up(ADA).await.unwrap();
    let (asking, token) = (ground.asking(), &session.access_token);
    let password = Presence::Password(Secret::new(PASSWORD));
    let refused = "conflict: a second factor needs an address that is confirmed";
    assert_eq!(told(ground.auth.enrol(&asking, token, None, &password).await), refused);
    assert_eq!(told(ground.auth.passkey_creation(&asking, token, &password).await), refused);
    // It is confirmed also where nothing else opens without a second factor, by who is not there in person.
    ground.auth.ask_email(&asking, token, None, ADA).await.unwrap();
    let link = linked(&ground.mail(ADA, "Confirm").await);
    assert!(ground.auth.verify_email(&asking, Some(token), &Shown::Link(link)).await.unwrap().email_verified);
    ground.settings.mfa = Mfa::Optional;
    let asking = ground.asking();
    let begun = ground.auth.enrol(&asking, token, None, &password).await.unwrap();
    let secret = data_encoding::BASE32_NOPAD.decode(begun.secret.expose().as_bytes()).unwrap();
    let code = Secret::new(totp::tests_code(&secret, Timestamp::now(), 0));
    ground.auth.activate(&asking, token, &code).await.unwrap();
    // One that was set up all the same is asked for, not taken away.
    ground.run("DELETE FROM _steading_identity").await;
    ground.auth.forgot(&asking, ADA, None).await.unwrap();
    let shown = Shown::Link(linked(&ground.mail(ADA, "Reset").await));
    let reset = ground.auth.reset(&asking, &shown, &Secret::new("another word for later")).await;
    assert_eq!(
        told(reset),
        "forbidden: this account has a second factor, and nobody has confirmed that its address is theirs"
    );
    assert_eq!(challenged(&ground).await.factors, [FactorKind::Totp, FactorKind::RecoveryCode]);
}
