//! Who guesses: what an answer, its time and its number tell.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use expect_test::expect;
use kernel::{Code, Error, Result};
use serde_json::json;

use super::fixture::{Ground, PASSWORD, told, typed};
use crate::auth::{AuthLimits, Invitation, Rate, Session, UserChange};

const WRONG: &str = "unauthenticated: the address or the password is wrong";

/// All that an answer tells but its time.
fn whole(refused: Result<Session>) -> serde_json::Value {
    refused.unwrap_err().problem("req")
}

#[tokio::test]
async fn an_answer_does_not_tell_whether_there_is_an_account() {
    let ground = Ground::new().await;
    ground.sign_up("ada@example.org").await.unwrap();
    ground.sign_up("off@example.org").await.unwrap();
    for user in ["off@example.org", "none@example.org"] {
        let disabled = (user == "off@example.org").then_some(true);
        let change = UserChange { user: user.into(), disabled, ..UserChange::default() };
        ground.auth.set_user(&ground.env, change).await.unwrap();
    }
    // Six tries each: the last finds the address throttled, whosever it is, and also with the right password.
    let mut answers = Vec::new();
    for user in ["ada@example.org", "off@example.org", "none@example.org", "nobody@example.org"] {
        let mut of_user = Vec::new();
        for _ in 0..5 {
            of_user.push(whole(ground.log_in(user, "wrong password").await));
        }
        let mut last = whole(ground.log_in(user, PASSWORD).await);
        let wait = last["retry_after"].take().as_u64().unwrap();
        assert!((25..=30).contains(&wait), "{wait}");
        assert_eq!(last["limit"]["reset_s"].take(), wait);
        of_user.push(last);
        answers.push(of_user);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    expect![[r#"{"type":"urn:steading:error:unauthenticated","title":"A valid credential is needed","status":401,"code":"unauthenticated","message":"the address or the password is wrong","request_id":"req"}"#]]
        .assert_eq(&answers[0][0].to_string());
    expect![[r#"{"type":"urn:steading:error:rate_limited","title":"Too many calls","status":429,"code":"rate_limited","message":"there were too many attempts","request_id":"req","hint":"wait as long as Retry-After says, then try once more","retry_after":null,"limit":{"name":"wrong-passwords","scope":"address","value":5,"unit":"attempts","left":0,"raise":"ask who runs the app","window_s":150,"reset_s":null}}"#]]
        .assert_eq(&answers[0][5].to_string());
}

#[tokio::test]
async fn an_answers_time_does_not_tell_whether_there_is_an_account() {
    let mut ground = Ground::new().await;
    ground.sign_up("ada@example.org").await.unwrap();
    let mut best = [Duration::MAX; 2];
    // A machine that does other things too needs more rounds until both have had a quiet one.
    for n in 0..40 {
        ground.client = Some(IpAddr::from([192, 0, 2, n]));
        for (best, user) in best.iter_mut().zip(["ada@example.org", &format!("nobody{n}@example.org")]) {
            let start = Instant::now();
            assert_eq!(told(ground.log_in(user, "wrong password").await), WRONG);
            *best = start.elapsed().min(*best);
        }
        let ratio = best[0].as_secs_f64() / best[1].as_secs_f64();
        if n >= 4 && (0.5..2.0).contains(&ratio) {
            return;
        }
    }
    panic!("{best:?}");
}

#[tokio::test]
async fn right_passwords_do_not_count() {
    let ground = Ground::new().await;
    ground.sign_up("ada@example.org").await.unwrap();
    for _ in 0..12 {
        ground.log_in("ada@example.org", PASSWORD).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn guesses_at_the_same_moment_count_each() {
    let ground = Arc::new(Ground::new().await);
    ground.sign_up("ada@example.org").await.unwrap();
    let guesses = (0..30).map(|n| {
        let ground = Arc::clone(&ground);
        tokio::spawn(
            async move { told(ground.log_in("ada@example.org", &format!("wrong password {n}")).await) },
        )
    });
    let told: Vec<_> = futures::future::join_all(guesses).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(told.iter().filter(|told| *told == WRONG).count(), 5, "{told:?}");
}

#[tokio::test]
async fn strangers_who_guess_do_not_lock_an_owner_out() {
    let rate = |burst| Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(3_600) };
    let limits =
        AuthLimits { wrong_passwords: rate(3), strangers_passwords: rate(8), ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    let from = |n: u32| Some(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)));
    ground.sign_up("ada@example.org").await.unwrap();
    let home = ground.client;
    ground.client = from(0);
    for n in 0..5 {
        assert_eq!(told(ground.log_in("ada@example.org", "wrong password").await) == WRONG, n < 3);
    }
    // Neither at home, nor where she has never been.
    for place in [home, from(1)] {
        ground.client = place;
        ground.log_in("ada@example.org", PASSWORD).await.unwrap();
    }
    let mut wrong = 0;
    for n in 2..9 {
        ground.client = from(n);
        for _ in 0..2 {
            wrong += u32::from(told(ground.log_in("ada@example.org", "wrong password").await) == WRONG);
        }
    }
    assert_eq!(wrong, 5, "three of eight were tried before");
    assert_eq!(ground.log_in("ada@example.org", PASSWORD).await.unwrap_err().code(), Code::RateLimited);
    for place in [home, from(1)] {
        ground.client = place;
        ground.log_in("ada@example.org", PASSWORD).await.unwrap();
        // Who knows her network guesses no more often there than anywhere.
        for n in 0..4 {
            assert_eq!(told(ground.log_in("ada@example.org", "wrong password").await) == WRONG, n < 3);
        }
    }
}

#[tokio::test]
async fn one_environments_guesses_do_not_hold_up_another() {
    let ground = Ground::new().await;
    for _ in 0..6 {
        assert!(ground.log_in("ada@example.org", "wrong password").await.is_err());
    }
    let other = ground.another().await;
    let asking = crate::auth::Asking { env: &other, ..ground.asking() };
    ground.auth.sign_up(&asking, None, &typed("ada@example.org", PASSWORD), None).await.unwrap();
    drop(ground.auth.log_in(&asking, &typed("ada@example.org", PASSWORD)).await.unwrap());
}

#[tokio::test]
async fn one_network_address_asks_only_so_often() {
    let few = Rate { burst: NonZeroU32::new(3).unwrap(), every: Duration::from_secs(60) };
    let limits = AuthLimits { passwords: few, anonymous: few, refreshes: few, ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    let limited = |error: &Error| (error.code(), error.limit_info().map(|info| info.name));
    let session = ground.anonymous().await;
    let mut refused = Vec::new();
    for _ in 0..3 {
        refused.push(ground.auth.anonymous(&ground.asking()).await.err().map(|e| limited(&e)));
    }
    assert_eq!(refused, [None, None, Some((Code::RateLimited, Some("anonymous")))]);
    for n in 0..3 {
        let outcome = ground.sign_up(&format!("ada{n}@example.org")).await;
        assert_eq!(told(outcome), "ok");
    }
    // Addresses that are taken cannot be asked for without end, nor passwords of many accounts tried.
    let refused = ground.sign_up("ada0@example.org").await.unwrap_err();
    assert_eq!(limited(&refused), (Code::RateLimited, Some("passwords")));
    assert!(refused.retry_after_secs().is_some_and(|wait| (50..=60).contains(&wait)));
    let refused = ground.log_in("ada0@example.org", PASSWORD).await.unwrap_err();
    assert_eq!(limited(&refused), (Code::RateLimited, Some("passwords")));
    let mut session = session;
    for _ in 0..3 {
        session = ground.refresh(&session).await.unwrap();
    }
    let refused = ground.refresh(&session).await.unwrap_err();
    assert_eq!(limited(&refused), (Code::RateLimited, Some("refreshes")));
    // Another address is not held up, and neither is who has a session.
    ground.client = Some("192.0.2.2".parse().unwrap());
    ground.anonymous().await;
    ground.log_in("ada0@example.org", PASSWORD).await.unwrap();
    ground.refresh(&session).await.unwrap();
}

#[tokio::test]
async fn an_older_hash_is_replaced_when_its_password_is_shown() {
    let ground = Ground::new().await;
    let session = ground.sign_up("ada@example.org").await.unwrap();
    let older = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
    let hash = older.hash_password_with_salt(PASSWORD.as_bytes(), &[7; 16]).unwrap().to_string();
    let mut db = ground.databases.writer(&ground.env).await.unwrap();
    db.begin(crate::database::Durability::Normal).await.unwrap();
    let sql = "UPDATE _steading_user SET password = ?1";
    db.run(crate::database::Role::Platform, sql, &[json!(hash)]).await.unwrap();
    db.commit().await.unwrap();
    drop(db);
    let stored =
        async || ground.rows("SELECT password FROM _steading_user").await[0][0].as_str().unwrap().to_owned();
    assert!(ground.log_in("ada@example.org", "wrong password").await.is_err());
    assert_eq!(stored().await, hash);
    assert_eq!(ground.log_in("ada@example.org", PASSWORD).await.unwrap().user, session.user);
    let current = stored().await;
    assert!(current.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{current}");
    ground.log_in("ada@example.org", PASSWORD).await.unwrap();
    assert_eq!(stored().await, current);
}

#[tokio::test]
async fn nobody_keeps_mail_from_somebody_else_by_asking_for_it() {
    let rate = |burst| Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(3_600) };
    let limits = AuthLimits { mails: rate(2), strangers_mails: rate(5), ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    let from = |n: u32| Some(IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n)));
    ground.sign_up("ada@example.org").await.unwrap();
    let home = ground.client;
    let mut asked = Vec::new();
    for n in 0..4 {
        ground.client = from(n);
        for _ in 0..2 {
            asked.push(told(ground.auth.forgot(&ground.asking(), "ada@example.org", None).await) == "ok");
        }
    }
    assert_eq!(asked, [true, true, true, true, true, false, false, false], "all strangers together");
    ground.client = home;
    ground.auth.forgot(&ground.asking(), "ada@example.org", None).await.unwrap();
    // Another address is nobody's business.
    ground.client = from(9);
    ground.auth.forgot(&ground.asking(), "eve@example.org", None).await.unwrap();
}

#[tokio::test]
async fn a_crowd_of_addresses_that_are_nobodys_keeps_no_mail_from_others() {
    let ground = Ground::new().await;
    ground.member("ada@example.org").await;
    let later = kernel::Timestamp::now().plus(Duration::from_secs(600)).as_micros();
    let crowd = format!(
        "INSERT INTO _steading_code (id, purpose, email, code, link, tries, created_at, expires_at) \
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) \
         SELECT printf('%05d', i), 'sign_in', i || '@example.org', '', i, 0, 0, {later} FROM n"
    );
    ground.run(&crowd).await;
    ground.auth.forgot(&ground.asking(), "ada@example.org", None).await.unwrap();
    let kept = "SELECT count(*), min(id), sum(email = 'ada@example.org') FROM _steading_code";
    let made = async {
        while ground.rows(kept).await != [[json!(20_000), json!("00002"), json!(1)]] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.unwrap();
}

#[tokio::test]
async fn invitations_are_bounded_for_each_address_and_each_app_and_the_last_one_is_good() {
    let rate = |burst| Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(3_600) };
    let limits = AuthLimits { invitations: rate(3), invitations_of_app: rate(5), ..AuthLimits::default() };
    let ground = Ground::with(limits).await;
    let invite = async |user: &str| {
        let change = UserChange {
            user: user.to_owned(),
            invite: Some(Invitation { app: Some("Shop\r\nBcc: eve@example.org".to_owned()) }),
            ..UserChange::default()
        };
        ground.auth.set_user(&ground.env, change).await.err().and_then(|error| Some(error.limit_info()?.name))
    };
    let mut refused = Vec::new();
    for user in ["ada", "ada", "ada", "ada", "ada", "bea", "cyd", "dan", "ada"] {
        refused.push(invite(&format!("{user}@example.org")).await);
    }
    let (of_one, of_app) = (Some("invitations"), Some("invitations-of-app"));
    assert_eq!(refused, [None, None, None, of_one, of_one, None, None, of_app, of_one]);
    // What was refused has left nothing: no user, no mail, and one link for each address.
    assert_eq!(
        ground.rows("SELECT email, count(*) FROM _steading_code GROUP BY 1 ORDER BY 1").await,
        [
            [json!("ada@example.org"), json!(1)],
            [json!("bea@example.org"), json!(1)],
            [json!("cyd@example.org"), json!(1)]
        ]
    );
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_user").await, [[json!(3)]]);
    assert_eq!(
        ground.rows("SELECT DISTINCT subject, count(*) FROM _steading_mail").await,
        [[json!("You are invited to shop.localhost:8787"), json!(5)]],
        "what is no name of an app is not said to be one"
    );
}

#[tokio::test]
async fn a_busy_writer_holds_up_its_own_apps_mail_alone_and_what_is_refused_does_not_count() {
    let rate = |burst| Rate { burst: NonZeroU32::new(burst).unwrap(), every: Duration::from_secs(3_600) };
    let limits = AuthLimits { mails: rate(1), mails_from: rate(40), ..AuthLimits::default() };
    let ground = Ground::with(limits).await;
    let other = ground.another().await;
    let ask = async |env: &kernel::Env, user: &str| {
        let asking = crate::auth::Asking { env, ..ground.asking() };
        let asked = ground.auth.forgot(&asking, &format!("{user}@example.org"), None).await;
        asked.err().map(|error| error.code())
    };
    let writer = ground.databases.writer(&ground.env).await.unwrap();
    for n in 0..32 {
        assert_eq!(ask(&ground.env, &format!("ada{n}")).await, None);
    }
    for _ in 0..60 {
        assert_eq!(ask(&ground.env, "bea").await, Some(Code::Unavailable));
    }
    assert_eq!(ask(&other, "bea").await, None, "another app's users are not held up");
    drop(writer);
    // A place is free before the next one is: who was let in may fill the last.
    let answered = async || {
        let answered = async {
            loop {
                match ask(&ground.env, "bea").await {
                    Some(Code::Unavailable) => tokio::time::sleep(Duration::from_millis(5)).await,
                    answer => return answer,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered).await.unwrap()
    };
    assert_eq!(answered().await, None);
    // One mail of `bea` in an hour: had a refusal counted, there would be none.
    assert_eq!(answered().await, Some(Code::RateLimited));
    let mails = "SELECT count(*) FROM _steading_code WHERE email = 'bea@example.org'";
    let made = async {
        while ground.rows(mails).await != [[json!(1)]] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), made).await.unwrap();
}

#[tokio::test]
async fn one_network_makes_only_so_many_users_without_an_address_however_slowly() {
    let often = Rate { burst: NonZeroU32::MAX, every: Duration::from_nanos(1) };
    let few = Rate { burst: NonZeroU32::new(4).unwrap(), every: Duration::from_secs(3_600) };
    let limits = AuthLimits { anonymous: often, anonymous_users: few, ..AuthLimits::default() };
    let mut ground = Ground::with(limits).await;
    // One subscriber of IPv6 is one network, whatever address is used.
    for n in 0..4_u32 {
        ground.client = Some(format!("2001:db8::{n}").parse().unwrap());
        ground.anonymous().await;
    }
    let refused = ground.auth.anonymous(&ground.asking()).await.unwrap_err();
    assert_eq!(refused.limit_info().map(|info| info.name), Some("anonymous-users"));
    assert!(refused.retry_after_secs().is_some_and(|wait| wait > 3_000));
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_user").await, [[json!(4)]]);
    ground.client = Some("2001:db8:0:1::1".parse().unwrap());
    ground.anonymous().await;
}
