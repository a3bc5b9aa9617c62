//! Accounts: made by people, and by an app's makers.

use expect_test::expect;
use kernel::{Secret, UserId};
use serde_json::json;

use super::fixture::{Ground, PASSWORD, told, typed};
use crate::auth::{Auth, COSTLIEST, UserChange, Users};

fn change(user: &str) -> UserChange {
    UserChange { user: user.to_owned(), ..UserChange::default() }
}

#[tokio::test]
async fn one_address_is_one_account_however_it_is_typed() {
    let ground = Ground::new().await;
    let session = ground.sign_up(" Ada@Example.org ").await.unwrap();
    assert_eq!(session.user.email.as_deref(), Some("ada@example.org"));
    assert!(!session.user.anonymous);
    expect!["conflict /email: this address has an account"]
        .assert_eq(&told(ground.sign_up("ADA@example.ORG").await));
    assert_eq!(ground.log_in("aDa@example.org\n", PASSWORD).await.unwrap().user, session.user);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_sign_up_with_one_address_one_gets_it() {
    let ground = Ground::new().await;
    let racers = (0..6).map(|_| ground.sign_up("ada@example.org"));
    let outcomes: Vec<_> = futures::future::join_all(racers).await.into_iter().map(told).collect();
    let won = outcomes.iter().filter(|outcome| *outcome == "ok").count();
    let refused = outcomes.iter().filter(|o| *o == "conflict /email: this address has an account").count();
    assert_eq!((won, refused), (1, 5), "{outcomes:?}");
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_user").await, [[json!(1)]]);
}

#[tokio::test]
async fn an_anonymous_user_becomes_an_account_in_place() {
    let ground = Ground::new().await;
    let before = ground.anonymous().await;
    assert!(ground.is_live(&before).await);
    let after = ground.upgrade(&before, "ada@example.org").await.unwrap();
    assert_eq!(after.user.id, before.user.id);
    assert_eq!((after.user.email.as_deref(), after.user.anonymous), (Some("ada@example.org"), false));
    assert!(ground.is_live(&after).await);
    assert!(!ground.is_live(&before).await, "who held the session before does not hold the account");
    assert!(ground.refresh(&before).await.is_err());
    assert_eq!(ground.log_in("ada@example.org", PASSWORD).await.unwrap().user, after.user);
    expect!["conflict: this session is of an account already"]
        .assert_eq(&told(ground.upgrade(&after, "other@example.org").await));
    expect!["unauthenticated: the access token is not valid (any more)"]
        .assert_eq(&told(ground.upgrade(&before, "other@example.org").await));
    let third = ground.anonymous().await;
    expect!["conflict /email: this address has an account"]
        .assert_eq(&told(ground.upgrade(&third, "ada@example.org").await));
    assert!(ground.is_live(&third).await, "nothing has become of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_anonymous_user_becomes_one_account() {
    let ground = Ground::new().await;
    let before = ground.anonymous().await;
    let names: Vec<_> = (0..4).map(|n| format!("ada{n}@example.org")).collect();
    let racers = names.iter().map(|name| ground.upgrade(&before, name));
    let won = futures::future::join_all(racers).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_user").await, [[json!(1)]]);
}

#[tokio::test]
async fn a_method_that_is_not_listed_is_refused() {
    let mut ground = Ground::new().await;
    ground.settings.methods.clear();
    let refused = [
        told(ground.auth.anonymous(&ground.asking()).await),
        told(ground.sign_up("ada@example.org").await),
        told(ground.log_in("ada@example.org", PASSWORD).await),
    ];
    expect![[r#"
        forbidden: this app has no sign-in by anonymous
        forbidden: this app has no sign-in by password
        forbidden: this app has no sign-in by password"#]]
    .assert_eq(&refused.join("\n"));
}

#[tokio::test]
async fn what_is_no_address_or_password_is_refused_with_its_place() {
    let ground = Ground::new().await;
    let refused = async |email: &str, password: &str| {
        told(ground.auth.sign_up(&ground.asking(), None, &typed(email, password), None).await)
    };
    expect!["invalid_input /email: this is not an email address"].assert_eq(&refused("ada", PASSWORD).await);
    expect!["invalid_input /password: a password has at least 8 characters"]
        .assert_eq(&refused("ada@example.org", "short").await);
    expect!["invalid_input /password: the password must not be the address"]
        .assert_eq(&refused("ada@example.org", "ADA@example.org").await);
    expect!["invalid_input /password: a password has at most 128 characters"]
        .assert_eq(&refused("ada@example.org", &"x".repeat(200_000)).await);
    expect!["invalid_input /password: a password has at most 128 characters"]
        .assert_eq(&told(ground.log_in("ada@example.org", &"x".repeat(200_000)).await));
    assert_eq!(ground.rows("SELECT count(*) FROM _steading_user").await, [[json!(0)]]);
}

#[tokio::test]
async fn the_apps_makers_make_and_change_users() {
    let ground = Ground::new().await;
    let set = async |change| ground.auth.set_user(&ground.env, change).await;
    let made = set(UserChange {
        role: Some("admin".into()),
        password: Some(Secret::new(PASSWORD)),
        ..change("Root@Example.org")
    })
    .await
    .unwrap();
    assert_eq!(
        (made.created, made.user.email.as_deref(), made.user.role.as_str()),
        (true, Some("root@example.org"), "admin")
    );
    let session = ground.log_in("root@example.org", PASSWORD).await.unwrap();
    assert!(ground.is_live(&session).await);
    let id = made.user.id.to_string();
    let again =
        set(UserChange { password: Some(Secret::new("another password")), ..change(&id) }).await.unwrap();
    assert_eq!((again.created, again.signed_out), (false, 1));
    assert!(!ground.is_live(&session).await, "a new password ends what the old one opened");
    assert!(ground.log_in("root@example.org", PASSWORD).await.is_err());
    let session = ground.log_in("root@example.org", "another password").await.unwrap();
    assert_eq!(set(UserChange { sign_out: true, ..change(&id) }).await.unwrap().signed_out, 1);
    assert!(!ground.is_live(&session).await);
    // Without a password nobody logs in.
    assert!(set(change("new@example.org")).await.unwrap().created);
    assert!(!set(change("new@example.org")).await.unwrap().created);
    assert!(ground.log_in("new@example.org", PASSWORD).await.is_err());
    assert!(ground.log_in("new@example.org", "").await.is_err());

    let anonymous = ground.anonymous().await;
    let named =
        UserChange { email: Some("anna@example.org".into()), ..change(&anonymous.user.id.to_string()) };
    assert!(!set(named).await.unwrap().user.anonymous);

    let mut refused = Vec::new();
    for wrong in [
        change("nobody"),
        change(""),
        change(&UserId::new().to_string().replace("usr_", "key_")),
        UserChange { role: Some("Admin".into()), ..change(&id) },
        UserChange { role: Some(String::new()), ..change(&id) },
        UserChange { role: Some("x".repeat(33)), ..change(&id) },
        UserChange { claims: json!({ "a": "x".repeat(5_000) }).as_object().cloned(), ..change(&id) },
        UserChange { email: Some("anna@example.org".into()), ..change(&id) },
        UserChange { email: Some("anna".into()), ..change(&id) },
        UserChange { email: Some("b@example.org".into()), ..change("a@example.org") },
        UserChange { password: Some(Secret::new("short")), ..change(&id) },
        UserChange { password: Some(Secret::new("root@example.org")), ..change(&id) },
    ] {
        refused.push(told(set(wrong).await));
    }
    expect![[r#"
        invalid_input /user: this is neither a user's id nor an address nor a phone number
        invalid_input /user: this is neither a user's id nor an address nor a phone number
        invalid_input /user: this is neither a user's id nor an address nor a phone number
        invalid_input /role: a role is a lower-case letter, then letters, digits, - and _, at most 32 together
        invalid_input /role: a role is a lower-case letter, then letters, digits, - and _, at most 32 together
        invalid_input /role: a role is a lower-case letter, then letters, digits, - and _, at most 32 together
        too_large /claims: the claims are 5008 bytes of JSON and at most 3000 are allowed
        conflict /email: another user has this address
        invalid_input /email: this is not an email address
        invalid_input /email: a new user has the address in `user`
        invalid_input /password: a password has at least 8 characters
        invalid_input /password: the password must not be the address"#]]
    .assert_eq(&refused.join("\n"));
    let missing = UserId::new().to_string();
    assert_eq!(told(set(change(&missing)).await), format!("not_found /user: there is no user {missing}"));
}

#[tokio::test]
async fn a_page_has_room_for_the_costliest_user() {
    let ground = Ground::new().await;
    // Nothing costs more than signs, a token each.
    let address = format!("{}@{}.c", "!".repeat(64), vec!["1.2".repeat(20); 3].join("-"));
    let claims = json!({ "ab": vec![1; 1_496] }).as_object().cloned();
    assert_eq!(json!(claims).to_string().len(), 3_000);
    let costly = UserChange { role: Some(format!("a{}", "_".repeat(31))), claims, ..change(&address) };
    let made = ground.auth.set_user(&ground.env, costly).await.unwrap();
    let (kept, left) = tool::budget::fit(vec![made.user], COSTLIEST);
    assert_eq!((kept.len(), left), (1, 0));
}

#[tokio::test]
async fn users_are_listed_newest_first_page_by_page() {
    let ground = Ground::new().await;
    for n in 0..5 {
        ground.auth.set_user(&ground.env, change(&format!("ada{n}@example.org"))).await.unwrap();
    }
    let anonymous = ground.anonymous().await;
    let list = async |wanted: Users| ground.auth.users(&ground.env, &wanted).await;
    let emails = |users: Vec<crate::auth::Account>| {
        users.into_iter().map(|user| user.email.unwrap_or_default()).collect::<Vec<_>>()
    };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = list(Users { limit: Some(2), cursor, ..Users::default() }).await.unwrap();
        assert!(page.users.len() <= 2);
        seen.extend(emails(page.users));
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let all = [
        "",
        "ada4@example.org",
        "ada3@example.org",
        "ada2@example.org",
        "ada1@example.org",
        "ada0@example.org",
    ];
    assert_eq!(seen, all);
    let found = list(Users { query: Some(" ADA3".into()), ..Users::default() }).await.unwrap();
    assert_eq!(emails(found.users), ["ada3@example.org"]);
    for (query, count) in [("%", 0), ("' OR 1", 0), ("example", 5)] {
        let found = list(Users { query: Some(query.into()), ..Users::default() }).await.unwrap();
        assert_eq!(found.users.len(), count, "{query}");
    }
    let one = list(Users { user: Some(anonymous.user.id.to_string()), ..Users::default() }).await.unwrap();
    assert_eq!(one.users.iter().map(|user| user.id).collect::<Vec<_>>(), [anonymous.user.id]);
    assert_eq!(
        list(Users { user: Some("x@example.org".into()), ..Users::default() }).await.unwrap().users,
        []
    );
    expect!["invalid_input /cursor: this is not a cursor that a page of users returned"]
        .assert_eq(&told(list(Users { cursor: Some("2".into()), ..Users::default() }).await));
    assert_eq!(Auth::count(&ground.databases, &ground.env).await.unwrap(), (6, 0));
    let shown = serde_json::to_value(&one.users[0]).unwrap();
    let fields: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    // What somebody without an address does not have is left out.
    let expected = ["id", "role", "claims", "anonymous", "disabled", "created_at", "last_seen_at"];
    assert_eq!(fields, expected);
}
