//! Sessions: opened, refreshed, stolen, ended.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use expect_test::expect;
use futures::future::BoxFuture;
use kernel::{Env, Result, Secret, Timestamp};
use serde_json::json;

use super::fixture::{Ground, Keys, PASSWORD, told};
use crate::access::Subject;
use crate::auth::{AuthLimits, Claims, Ending, Session, UserChange};
use crate::rows::{App, LiveApps, Mfa};

#[tokio::test]
async fn who_signs_in_anonymously_is_a_user_without_an_address() {
    let ground = Ground::new().await;
    let session = ground.anonymous().await;
    assert_eq!((session.expires_in, session.user.anonymous), (Duration::from_secs(900), true));
    let guest = ground.auth.recognize(&ground.env, Mfa::Off, &session.access_token).await.unwrap();
    let Subject::User(user) = guest.subject() else { panic!("{guest:?}") };
    assert_eq!((user.id, user.role.as_str(), user.email.as_deref()), (session.user.id, "user", None));
    assert_eq!(ground.auth.me(&ground.env, &session.access_token).await.unwrap(), session.user);
    assert_ne!(ground.anonymous().await.user.id, session.user.id);
}

#[tokio::test]
async fn a_refresh_token_is_used_once_and_the_next_one_goes_on() {
    let ground = Ground::new().await;
    let mut session = ground.anonymous().await;
    for _ in 0..5 {
        let next = ground.refresh(&session).await.unwrap();
        assert_ne!(next.refresh_token, session.refresh_token);
        assert_eq!(next.user, session.user);
        assert!(ground.is_live(&next).await && ground.is_live(&session).await);
        session = next;
    }
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_session").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_spent_refresh_token_ends_its_session_in_every_hand() {
    let ground = Ground::new().await;
    let (first, bystander) = (ground.anonymous().await, ground.anonymous().await);
    let second = ground.refresh(&first).await.unwrap();
    let third = ground.refresh(&second).await.unwrap();
    assert!(ground.is_live(&third).await);
    let refused = "unauthenticated: the refresh token is not valid (any more)";
    assert_eq!(told(ground.refresh(&first).await), refused, "the oldest counts like the last");
    for session in [&first, &second, &third] {
        assert_eq!(told(ground.refresh(session).await), refused);
        assert!(!ground.is_live(session).await);
    }
    assert!(ground.is_live(&bystander).await);
    ground.refresh(&bystander).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_refresh_with_one_token_at_most_one_goes_on() {
    let ground = Arc::new(Ground::new().await);
    for _ in 0..20 {
        let session = ground.anonymous().await;
        let racers = (0..8).map(|_| {
            let (ground, session) = (Arc::clone(&ground), session.clone());
            tokio::spawn(async move { ground.refresh(&session).await.ok() })
        });
        let won: Vec<_> =
            futures::future::join_all(racers).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(won.len(), 1);
        // The others have shown a spent token: the family is gone.
        assert!(ground.refresh(&won[0]).await.is_err());
        assert!(!ground.is_live(&won[0]).await && !ground.is_live(&session).await);
    }
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_session").await, [[json!(0)]]);
}

#[tokio::test]
async fn what_is_no_refresh_token_is_refused_and_ends_nothing() {
    let ground = Ground::new().await;
    let session = ground.anonymous().await;
    let text = session.refresh_token.expose();
    let other_family = format!("stead_rt_A{}", &text[10..]);
    for bad in
        ["", "x", &text[..text.len() - 1], &other_family, session.access_token.expose(), &"a".repeat(1 << 20)]
    {
        let refused = ground.auth.refresh(&ground.asking(), &Secret::new(bad), None).await;
        assert_eq!(told(refused), "unauthenticated: the refresh token is not valid (any more)");
    }
    let other = ground.another().await;
    let asking = crate::auth::Asking { env: &other, ..ground.asking() };
    assert!(
        ground.auth.refresh(&asking, &session.refresh_token, None).await.is_err(),
        "another environment's"
    );
    ground.refresh(&session).await.unwrap();
}

#[tokio::test]
async fn sessions_slide_and_end() {
    let limits = AuthLimits { session: Duration::ZERO, ..AuthLimits::default() };
    let ground = Ground::with(limits).await;
    let session = ground.anonymous().await;
    assert!(!ground.is_live(&session).await);
    expect!["unauthenticated: the refresh token is not valid (any more)"]
        .assert_eq(&told(ground.refresh(&session).await));
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_session").await, [[json!(0)]]);

    let ground = Ground::new().await;
    let session = ground.anonymous().await;
    let expiry =
        async || ground.rows("SELECT expires_at FROM _steading_session").await[0][0].as_i64().unwrap();
    let before = expiry().await;
    ground.refresh(&session).await.unwrap();
    assert!(expiry().await > before);
}

#[tokio::test]
async fn no_token_and_no_password_is_stored_as_it_is() {
    let ground = Ground::new().await;
    let session = ground.sign_up("ada@example.org").await.unwrap();
    let next = ground.refresh(&session).await.unwrap();
    let rows = [
        ground.rows("SELECT * FROM _steading_user").await,
        ground.rows("SELECT * FROM _steading_session").await,
    ];
    let stored = json!(rows).to_string();
    for secret in [&session.access_token, &session.refresh_token, &next.access_token, &next.refresh_token] {
        assert!(!stored.contains(secret.expose()) && !stored.contains(&secret.expose()[20..60]));
    }
    assert!(!stored.contains(PASSWORD));
    let shown = format!("{session:?}");
    assert!(!shown.contains(session.access_token.expose()) && !shown.contains("stead_rt_"), "{shown}");
}

#[tokio::test]
async fn logging_out_ends_this_session_or_all_of_them() {
    let ground = Ground::new().await;
    ground.sign_up("ada@example.org").await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(ground.log_in("ada@example.org", PASSWORD).await.unwrap());
    }
    let other = ground.anonymous().await;
    for session in &sessions {
        assert!(ground.is_live(session).await);
    }
    let log_out =
        async |at: usize, ending| ground.auth.log_out(&ground.env, &sessions[at].access_token, ending).await;
    log_out(0, Ending::This).await.unwrap();
    assert!(!ground.is_live(&sessions[0]).await && ground.refresh(&sessions[0]).await.is_err());
    assert!(ground.is_live(&sessions[1]).await);
    assert_eq!(
        told(log_out(0, Ending::Everywhere).await),
        "unauthenticated: the access token is not valid (any more)"
    );
    log_out(1, Ending::Everywhere).await.unwrap();
    for session in &sessions {
        assert!(!ground.is_live(session).await && ground.refresh(session).await.is_err());
    }
    assert!(ground.is_live(&other).await);
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_end() {
    let ground = Ground::with(AuthLimits { sessions: 3, ..AuthLimits::default() }).await;
    let mut sessions = vec![ground.sign_up("ada@example.org").await.unwrap()];
    for _ in 0..4 {
        assert!(ground.is_live(sessions.last().unwrap()).await);
        sessions.push(ground.log_in("ada@example.org", PASSWORD).await.unwrap());
    }
    let mut live = Vec::new();
    for session in &sessions {
        live.push(ground.is_live(session).await);
    }
    assert_eq!(live, [false, false, true, true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn once_log_out_has_returned_no_verification_under_way_brings_the_token_back() {
    let ground = Arc::new(Ground::new().await);
    for _ in 0..60 {
        let session = ground.anonymous().await;
        let seekers: Vec<_> = (0..4)
            .map(|_| {
                let (ground, session) = (Arc::clone(&ground), session.clone());
                // Until it is refused, every look-up races with the end of the session.
                tokio::spawn(async move {
                    while ground.is_live(&session).await {
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        ground.auth.log_out(&ground.env, &session.access_token, Ending::This).await.unwrap();
        for _ in 0..20 {
            assert!(!ground.is_live(&session).await);
        }
        for seeker in seekers {
            tokio::time::timeout(Duration::from_secs(20), seeker).await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn who_goes_away_while_logging_out_is_logged_out_all_the_same() {
    let ground = Ground::new().await;
    for polls in 0..12 {
        let session = ground.anonymous().await;
        assert!(ground.is_live(&session).await);
        {
            let mut leaving = Box::pin(ground.auth.log_out(&ground.env, &session.access_token, Ending::This));
            for _ in 0..polls {
                if futures::poll!(&mut leaving).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        // Nothing had begun, or it goes on to its end: never a session that is gone with a token that opens.
        let rows = async || {
            let sql = format!("SELECT count(*) FROM _steading_session WHERE user = '{}'", session.user.id);
            ground.rows(&sql).await[0][0] == json!(1)
        };
        if polls > 0 {
            let gone = async {
                while rows().await || ground.is_live(&session).await {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
        } else {
            assert!(rows().await && ground.is_live(&session).await);
        }
    }
}

#[tokio::test]
async fn what_nobody_comes_back_for_goes_and_accounts_stay() {
    let ground = Ground::new().await;
    let (kept, account) = (ground.anonymous().await, ground.sign_up("a@example.org").await.unwrap());
    assert_eq!(ground.auth.tidy(&ground.env).await.unwrap(), 0);
    assert!(ground.is_live(&kept).await && ground.is_live(&account).await);

    let short = AuthLimits { session: Duration::ZERO, ..AuthLimits::default() };
    let ground = Ground::with(short).await;
    ground.anonymous().await;
    let account = ground.sign_up("a@example.org").await.unwrap();
    assert_eq!(ground.auth.tidy(&ground.env).await.unwrap(), 1);
    assert_eq!(ground.rows("SELECT id FROM _steading_user").await, [[json!(account.user.id.to_string())]]);
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_session").await, [[json!(0)]]);
}

/// The same token when its time is up.
fn outlived(ground: &Ground, token: &Secret) -> Secret {
    let claims = Keys::read(&ground.env, token).unwrap();
    Keys::signed(&ground.env, &Claims { exp: Timestamp::now().as_secs() - 1, ..claims })
}

/// An app of which it changes what it asks for.
#[derive(Clone, Default)]
struct Asks(Arc<Mutex<Mfa>>);

impl LiveApps for Asks {
    fn app<'a>(&'a self, _env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>> {
        let mut app = App::default();
        app.auth.mfa = *self.0.lock().unwrap();
        Box::pin(async { Ok(Arc::new(app)) })
    }
}

#[tokio::test]
async fn what_was_begun_ends_where_its_user_is_another_or_the_app_asks_for_more() {
    let ground =
        Ground::with(AuthLimits { lasting: Duration::from_millis(1), ..AuthLimits::default() }).await;
    let sign_up = async |email: &str| ground.sign_up(email).await.unwrap();
    let (promoted, other) = (sign_up("ada@example.org").await, sign_up("bob@example.org").await);
    let asks = Asks::default();
    let lasting = |session: &Session| {
        let (auth, env, asks) = (ground.auth.clone(), ground.env.clone(), asks.clone());
        let token = outlived(&ground, &session.access_token);
        tokio::spawn(async move { auth.ended(&env, &asks, &token, &[]).await })
    };
    let (mut one, mut two) = (lasting(&promoted), lasting(&other));
    let holds = Duration::from_millis(100);
    assert!(tokio::time::timeout(holds, &mut one).await.is_err(), "it holds");
    let user = promoted.user.id.to_string();
    let change = UserChange { user, role: Some("staff".to_owned()), ..UserChange::default() };
    ground.auth.set_user(&ground.env, change).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), one).await.expect("it was told another role").unwrap();
    assert!(tokio::time::timeout(holds, &mut two).await.is_err(), "another's holds");
    *asks.0.lock().unwrap() = Mfa::Required;
    tokio::time::timeout(Duration::from_secs(10), two).await.expect("it has shown too little").unwrap();
}

#[tokio::test]
async fn what_was_begun_with_a_token_goes_on_for_as_long_as_its_session() {
    let ground = Ground::new().await;
    let sign_in = async || ground.log_in("ada@example.org", PASSWORD).await.unwrap();
    ground.sign_up("ada@example.org").await.unwrap();
    let (first, second, third) = (sign_in().await, sign_in().await, sign_in().await);
    let bystander = ground.anonymous().await;
    let lasting = |session: &Session| {
        let (auth, env) = (ground.auth.clone(), ground.env.clone());
        let token = outlived(&ground, &session.access_token);
        tokio::spawn(async move { auth.ended(&env, &Asks::default(), &token, &[]).await })
    };
    let (one, two, three, other) = (lasting(&first), lasting(&second), lasting(&third), lasting(&bystander));
    // The token opens nothing new, and what goes on is still its user's.
    let old = outlived(&ground, &first.access_token);
    assert!(ground.auth.recognize(&ground.env, Mfa::Off, &old).await.is_err());
    let guest = ground.auth.recognize_lasting(&ground.env, Mfa::Off, &old, &[]).await.unwrap();
    assert!(matches!(guest.subject(), Subject::User(user) if user.id == first.user.id));
    let foreign = Keys::signed(&ground.another().await, &Keys::read(&ground.env, &old).unwrap());
    assert!(ground.auth.recognize_lasting(&ground.env, Mfa::Off, &foreign, &[]).await.is_err());

    let first = ground.refresh(&first).await.unwrap();
    tokio::task::yield_now().await;
    ground.auth.log_out(&ground.env, &first.access_token, Ending::This).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), one).await.expect("it is told of its end").unwrap();
    assert!(ground.auth.recognize_lasting(&ground.env, Mfa::Off, &old, &[]).await.is_err());
    assert!(!two.is_finished() && !three.is_finished());
    ground.auth.log_out(&ground.env, &third.access_token, Ending::Others).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), two).await.expect("so is another").unwrap();
    let user = third.user.id.to_string();
    let disabled = UserChange { user, disabled: Some(true), ..UserChange::default() };
    ground.auth.set_user(&ground.env, disabled).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), three)
        .await
        .expect("who may not sign in has no socket")
        .unwrap();
    assert!(!other.is_finished(), "a bystander's ends with nobody else's");
    other.abort();
}

#[tokio::test]
async fn what_was_begun_with_a_session_ends_when_it_expires() {
    let ground =
        Ground::with(AuthLimits { lasting: Duration::from_millis(1), ..AuthLimits::default() }).await;
    let session = ground.anonymous().await;
    let (auth, env) = (ground.auth.clone(), ground.env.clone());
    let token = outlived(&ground, &session.access_token);
    let mut lasting = tokio::spawn(async move { auth.ended(&env, &Asks::default(), &token, &[]).await });
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut lasting).await.is_err(), "it holds");
    ground.run("UPDATE _steading_session SET expires_at = 1").await;
    tokio::time::timeout(Duration::from_secs(60), lasting).await.expect("it is looked at").unwrap();
}
