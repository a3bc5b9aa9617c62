//! Accounts that their owners look after by mail, and what of it is nobody else's.

use std::time::{Duration, Instant};

use conformance_tests::{Person, Place, Reply, Session};
use serde_json::{Value, json};
use testkit::{Mail, Mailbox, Steading, eventually, require};

use crate::app_mail::{Shop, other};

const PASSWORD: &str = "a word that is long enough";
const ANOTHER: &str = "another word for later";

/// Signs up by password where the address must be confirmed.
fn confirmed(shop: &Shop, email: &str) -> Person {
    let sent = shop.app.auth("signup", &json!({ "email": email, "password": PASSWORD })).unwrap();
    assert_eq!(sent.status, 202, "{sent:?}");
    let mail = shop.take(email, "Confirm your address").unwrap();
    shop.entered(&shop.verify(email, mail.code().unwrap()).unwrap()).unwrap()
}

fn login(shop: &Shop, email: &str, password: &str) -> Reply {
    shop.app.auth("login", &json!({ "email": email, "password": password })).unwrap()
}

fn live(person: &Person) -> bool {
    person.ask("GET", "/_/auth/me").unwrap().status == 200
}

#[test]
fn an_address_is_confirmed_before_it_opens_anything() {
    let shop =
        Shop::new("acc-confirm", json!({ "methods": ["password", "anonymous"], "confirm": true })).unwrap();
    let email = "ada@example.org";
    let sent = shop.app.auth("signup", &json!({ "email": email, "password": PASSWORD })).unwrap();
    assert_eq!((sent.status, &sent.body["access_token"]), (202, &Value::Null), "{sent:?}");
    login(&shop, email, PASSWORD).refuses(401, "unauthenticated").unwrap();
    let mail = shop.take(email, "Confirm your address").unwrap();
    let ada = shop.entered(&shop.verify(email, mail.code().unwrap()).unwrap()).unwrap();
    let again = shop.entered(&login(&shop, email, PASSWORD)).unwrap();
    assert_eq!(again.id(), ada.id());
    // Who signs up with her address and a password of their own gets nothing by it, not even by her mistake.
    let theirs = shop.app.auth("signup", &json!({ "email": email, "password": ANOTHER })).unwrap();
    assert_eq!(theirs.status, 202);
    let told = shop.take(email, "You have an account at").unwrap();
    assert_eq!(told.code(), None);
    login(&shop, email, ANOTHER).refuses(401, "unauthenticated").unwrap();
    // A stranger who signs up keeps the rows, once the address is confirmed in the same browser.
    let stranger = shop.app.stranger().unwrap();
    let note = stranger.create("notes", &json!({ "text": "from before" })).unwrap();
    let body = json!({ "email": "bea@example.org", "password": PASSWORD });
    assert_eq!(stranger.send("POST", "/_/auth/signup", &body).unwrap().status, 202);
    let mail = shop.take("bea@example.org", "Confirm your address").unwrap();
    let body = json!({ "token": mail.token().unwrap() });
    let bea = shop.entered(&stranger.send("POST", "/_/auth/otp/verify", &body).unwrap()).unwrap();
    assert_eq!(bea.id(), stranger.id());
    bea.list("notes", &[]).unwrap().lists(&[note["id"].as_str().unwrap()]).unwrap();
}

#[test]
fn whoever_took_an_address_before_its_owner_is_out_when_the_owner_comes() {
    let shop = Shop::new("acc-hijack", json!({ "methods": ["password"] })).unwrap();
    // Where nothing is confirmed, anybody may type any address.
    let squatter = shop.app.sign_up("ada@example.org", PASSWORD).unwrap();
    assert_eq!(squatter.ask("GET", "/_/auth/me").unwrap().body["email_verified"], false);
    let sql = "INSERT INTO letters (id, email, text, created_at, updated_at) VALUES ('1', 'ada@example.org', 'dear', \
               '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')";
    shop.client.output("db_execute", &json!({ "sql": sql })).unwrap();
    squatter.list("letters", &[]).unwrap().lists(&[]).unwrap();
    shop.client.output("auth_configure", &json!({ "methods": ["password", "otp"] })).unwrap();
    // The right password of an address that nobody has confirmed opens nothing any more.
    login(&shop, "ada@example.org", PASSWORD).refuses(403, "forbidden").unwrap();
    shop.take("ada@example.org", "Confirm your address").unwrap();
    let ada = shop.enter("ada@example.org").unwrap();
    assert!(!live(&squatter), "the squatter is still in");
    login(&shop, "ada@example.org", PASSWORD).refuses(401, "unauthenticated").unwrap();
    ada.list("letters", &[]).unwrap().lists(&["1"]).unwrap();
}

#[test]
fn a_forgotten_password_is_set_by_mail_and_ends_all_sessions() {
    let shop = Shop::new("acc-reset", json!({ "methods": ["password"], "confirm": true })).unwrap();
    let email = "ada@example.org";
    let ada = confirmed(&shop, email);
    let forgot = || {
        let sent = shop.app.auth("password/forgot", &json!({ "email": email })).unwrap();
        assert_eq!(sent.status, 202, "{sent:?}");
        shop.take(email, "Reset your password").unwrap()
    };
    let reset = |body: Value| shop.app.auth("password/reset", &body).unwrap();
    let mail = forgot();
    let code = mail.code().unwrap();
    reset(json!({ "email": email, "code": other(code), "password": ANOTHER }))
        .refuses(401, "unauthenticated")
        .unwrap();
    let short = reset(json!({ "email": email, "code": code, "password": "short" }));
    short.refuses(400, "invalid_input").unwrap();
    let common = reset(json!({ "email": email, "code": code, "password": "password123" }));
    common.refuses(400, "invalid_input").unwrap();
    // A code for a password signs nobody in.
    shop.verify(email, code).unwrap().refuses(401, "unauthenticated").unwrap();
    let done = reset(json!({ "email": email, "code": code, "password": ANOTHER }));
    let again = shop.entered(&done).unwrap();
    assert_eq!(again.id(), ada.id());
    assert!(!live(&ada) && live(&again));
    login(&shop, email, PASSWORD).refuses(401, "unauthenticated").unwrap();
    assert_eq!(login(&shop, email, ANOTHER).status, 200);
    shop.take(email, "Your password at").unwrap();
    reset(json!({ "email": email, "code": code, "password": PASSWORD }))
        .refuses(401, "unauthenticated")
        .unwrap();
    // By the link too, once; and with a second one under way the first spent ends both.
    let (one, two) = (forgot(), forgot());
    assert_eq!(reset(json!({ "token": two.token().unwrap(), "password": PASSWORD })).status, 200);
    reset(json!({ "token": one.token().unwrap(), "password": ANOTHER }))
        .refuses(401, "unauthenticated")
        .unwrap();
    assert_eq!(login(&shop, email, PASSWORD).status, 200);
    // Nobody gets an account by asking for a password.
    shop.app.auth("password/forgot", &json!({ "email": "none@example.org" })).unwrap();
    let users = shop.client.output("auth_users", &json!({ "user": "none@example.org" })).unwrap();
    assert_eq!(users["users"], json!([]));
}

#[test]
fn a_password_and_an_address_change_for_who_is_there_in_person() {
    let shop = Shop::new("acc-change", json!({ "methods": ["password"], "confirm": true })).unwrap();
    let email = "ada@example.org";
    let ada = confirmed(&shop, email);
    let second = shop.entered(&login(&shop, email, PASSWORD)).unwrap();
    let wrong = json!({ "password": ANOTHER, "current": "a wrong word" });
    ada.send("POST", "/_/auth/password", &wrong).unwrap().refuses(403, "forbidden").unwrap();
    shop.app
        .visitor()
        .send("POST", "/_/auth/password", &wrong)
        .unwrap()
        .refuses(401, "unauthenticated")
        .unwrap();
    let right = json!({ "password": ANOTHER, "current": PASSWORD });
    assert_eq!(ada.send("POST", "/_/auth/password", &right).unwrap().status, 204);
    assert!(live(&ada) && !live(&second));
    shop.take(email, "Your password at").unwrap();
    assert_eq!(login(&shop, email, ANOTHER).status, 200);

    let moving = json!({ "email": "new@example.org", "current": ANOTHER });
    assert_eq!(ada.send("POST", "/_/auth/email", &moving).unwrap().status, 202);
    let mail = shop.take("new@example.org", "Confirm your new address").unwrap();
    let code = json!({ "email": "new@example.org", "code": mail.code().unwrap() });
    // Whoever else shows the code gets nothing by it, with a session or without, nor signs in.
    shop.app.auth("email/verify", &code).unwrap().refuses(401, "unauthenticated").unwrap();
    let eve = confirmed(&shop, "eve@example.org");
    shop.app.auth("otp/verify", &code).unwrap().refuses(401, "unauthenticated").unwrap();
    let moved = ada.send("POST", "/_/auth/email/verify", &code).unwrap();
    assert_eq!((moved.status, &moved.body["user"]["email"]), (200, &json!("new@example.org")), "{moved:?}");
    assert_eq!(moved.body["user"]["email_verified"], true);
    shop.take(email, "Your address at").unwrap();
    login(&shop, email, ANOTHER).refuses(401, "unauthenticated").unwrap();
    assert_eq!(login(&shop, "new@example.org", ANOTHER).status, 200);
    // An address that is somebody's: asked for like any other, and its owner alone is told.
    let taken = json!({ "email": "new@example.org" });
    assert_eq!(eve.send("POST", "/_/auth/email", &taken).unwrap().status, 202);
    let told = shop.take("new@example.org", "You have an account at").unwrap();
    assert_eq!((told.code(), told.token()), (None, None));
    // One user's code is worth nothing to another.
    let hers = json!({ "email": "third@example.org" });
    assert_eq!(ada.send("POST", "/_/auth/email", &hers).unwrap().status, 202);
    let mail = shop.take("third@example.org", "Confirm your new address").unwrap();
    let code = json!({ "email": "third@example.org", "code": mail.code().unwrap() });
    eve.send("POST", "/_/auth/email/verify", &code).unwrap().refuses(401, "unauthenticated").unwrap();
    assert_eq!(eve.ask("GET", "/_/auth/me").unwrap().body["email"], "eve@example.org");
}

#[test]
fn sessions_are_seen_and_ended_by_their_user_alone() {
    let shop = Shop::new("acc-sessions", json!({ "methods": ["otp"] })).unwrap();
    let phone = shop.enter("ada@example.org").unwrap();
    let mail = shop.code("ada@example.org").unwrap();
    let body = json!({ "email": "ada@example.org", "code": mail.code().unwrap() });
    let request = shop.app.request("POST", "/_/auth/otp/verify").header("user-agent", "A browser (of mine)");
    let laptop = shop.entered(&Reply::of(request.json(&body)).unwrap()).unwrap();
    let eve = shop.enter("eve@example.org").unwrap();
    let list = |person: &Person| {
        let listed = person.ask("GET", "/_/auth/sessions").unwrap();
        assert_eq!(listed.status, 200, "{listed:?}");
        listed.body["sessions"].as_array().unwrap().clone()
    };
    let seen = list(&laptop);
    let shown: Vec<_> = seen.iter().map(|it| json!([it["current"], it["method"], it["device"]])).collect();
    assert_eq!(shown[0], json!([true, "mail", "A browser (of mine)"]));
    assert_eq!((shown.len(), &shown[1][0]), (2, &json!(false)));
    assert!(!json!(seen).to_string().contains("stead_rt_") && seen[0]["used_at"].is_string(), "{seen:?}");
    let id = seen[1]["id"].as_str().unwrap();
    eve.ask("DELETE", &format!("/_/auth/sessions/{id}")).unwrap().refuses(404, "not_found").unwrap();
    assert_eq!(laptop.ask("DELETE", &format!("/_/auth/sessions/{id}")).unwrap().status, 204);
    assert!(!live(&phone) && live(&laptop) && live(&eve));
    laptop.ask("DELETE", &format!("/_/auth/sessions/{id}")).unwrap().refuses(404, "not_found").unwrap();
    let third = shop.enter("ada@example.org").unwrap();
    assert_eq!(third.ask("DELETE", "/_/auth/sessions").unwrap().status, 204);
    assert!(live(&third) && !live(&laptop) && live(&eve));
    assert_eq!((list(&third).len(), list(&eve).len()), (1, 1));
    shop.app.visitor().ask("GET", "/_/auth/sessions").unwrap().refuses(401, "unauthenticated").unwrap();
}

#[test]
fn an_app_for_invited_people_lets_nobody_else_in() {
    let shop =
        Shop::new("acc-invite", json!({ "methods": ["password", "otp"], "signup": "invite" })).unwrap();
    let body = json!({ "email": "eve@example.org", "password": PASSWORD });
    shop.app.auth("signup", &body).unwrap().refuses(403, "forbidden").unwrap();
    // A code is asked for like by anybody, and never comes.
    assert_eq!(shop.app.auth("otp", &json!({ "email": "eve@example.org" })).unwrap().status, 202);
    let invite = json!({ "user": "ada@example.org", "role": "editor", "invite": true });
    let made = shop.client.output("auth_user_set", &invite).unwrap();
    assert_eq!((&made["created"], &made["user"]["email_verified"]), (&json!(true), &json!(true)));
    let mail = shop.take("ada@example.org", "You are invited").unwrap();
    assert_eq!(mail.code(), None);
    let link = json!({ "token": mail.token().unwrap() });
    let reply = shop.app.auth("otp/verify", &link).unwrap();
    let ada = shop.entered(&reply).unwrap();
    assert_eq!(
        (&reply.body["user"]["id"], &reply.body["user"]["role"]),
        (&made["user"]["id"], &json!("editor"))
    );
    shop.app.auth("otp/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    // Having come in a moment ago, she gives herself a password.
    assert_eq!(ada.send("POST", "/_/auth/password", &json!({ "password": PASSWORD })).unwrap().status, 204);
    assert_eq!(login(&shop, "ada@example.org", PASSWORD).status, 200);
    shop.enter("ada@example.org").unwrap();
    assert_eq!(shop.mails_to("eve@example.org").unwrap(), []);
    // A user who is gone cannot use an invitation, and neither can one who is shut out.
    shop.client.output("auth_user_set", &json!({ "user": "bea@example.org", "invite": true })).unwrap();
    let mail = shop.take("bea@example.org", "You are invited").unwrap();
    shop.client.output("auth_user_set", &json!({ "user": "bea@example.org", "disabled": true })).unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    shop.app.auth("otp/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    // Closed takes no more, and anonymous sign-in would let everybody in.
    shop.client.output("auth_configure", &json!({ "signup": "closed" })).unwrap();
    let refused =
        shop.client.call("auth_user_set", &json!({ "user": "cyd@example.org", "invite": true })).unwrap();
    assert_eq!((refused.code(), &refused.body["field"]), ("invalid_input", &json!("/invite")));
    let refused = shop.client.call("auth_configure", &json!({ "methods": ["anonymous"] })).unwrap();
    assert_eq!((refused.code(), &refused.body["field"]), ("invalid_input", &json!("/methods")));
}

#[test]
fn a_user_takes_the_data_along_and_leaves() {
    let shop = Shop::new("acc-leave", json!({ "methods": ["anonymous", "otp"] })).unwrap();
    let manifest = json!({ "database": { "tables": {
        "notes": { "columns": { "text": "text!" }, "access": "private" },
        "orders": { "columns": { "item": "text!" }, "access": {
            "list": "row.owner == auth.uid", "get": "row.owner == auth.uid", "create": "auth.uid != null" } },
        "letters": { "columns": { "email": "text!", "text": "text!" }, "access": "admin_only" },
    } }, "storage": { "buckets": { "photos": { "access": "private" } } } });
    shop.client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let (ada, eve) = (shop.enter("ada@example.org").unwrap(), shop.app.stranger().unwrap());
    for n in 0..230 {
        ada.create("notes", &json!({ "text": format!("note {n}") })).unwrap();
    }
    ada.create("orders", &json!({ "item": "a book" })).unwrap();
    eve.create("notes", &json!({ "text": "of another" })).unwrap();
    for person in [&ada, &eve] {
        let path = format!("/_/files/photos/{}.txt", person.id());
        let put =
            person.request("PUT", &path).header("content-type", "text/plain").body(b"a picture".to_vec());
        assert_eq!(Reply::of(put).unwrap().status, 201);
    }
    let taken = ada.ask("GET", "/_/auth/me/export").unwrap();
    assert_eq!(taken.status, 200);
    assert_eq!(taken.body["user"]["email"], "ada@example.org");
    let count = |table: &str| taken.body["rows"][table].as_array().map(Vec::len);
    assert_eq!((count("notes"), count("orders"), count("letters")), (Some(230), Some(1), None));
    let file = json!([format!("/_/files/photos/{}.txt", ada.id()), 9]);
    let files: Vec<_> =
        taken.body["files"].as_array().unwrap().iter().map(|it| json!([it["path"], it["size"]])).collect();
    assert_eq!(files, [file]);
    assert!(!taken.body.to_string().contains("of another") && !taken.body.to_string().contains(eve.id()));
    shop.app.visitor().ask("GET", "/_/auth/me/export").unwrap().refuses(401, "unauthenticated").unwrap();
    shop.app.visitor().ask("DELETE", "/_/auth/me").unwrap().refuses(401, "unauthenticated").unwrap();

    assert_eq!(ada.ask("DELETE", "/_/auth/me").unwrap().status, 204);
    assert!(!live(&ada));
    shop.take("ada@example.org", "is gone").unwrap();
    let rows = |sql: &str| shop.client.output("db_query", &json!({ "sql": sql })).unwrap()["rows"].clone();
    // What she could remove is gone; what the rules keep is nobody's; what is others' is untouched.
    assert_eq!(rows("SELECT count(*) FROM notes"), json!([[1]]));
    assert_eq!(rows("SELECT item, owner FROM orders"), json!([["a book", null]]));
    let users = shop.client.output("auth_users", &json!({})).unwrap();
    assert_eq!(users["users"].as_array().unwrap().len(), 1);
    let again = shop.enter("ada@example.org").unwrap();
    assert_ne!(again.id(), ada.id());
    again.list("notes", &[]).unwrap().lists(&[]).unwrap();
    // Her picture's place is free; the other's is not.
    let put = |whose: &Person| {
        let path = format!("/_/files/photos/{}.txt", whose.id());
        let request =
            again.request("PUT", &path).header("content-type", "text/plain").header("if-none-match", "*");
        Reply::of(request.body(b"mine".to_vec())).unwrap().status
    };
    assert_eq!(put(&ada), 201);
    assert!([403, 404, 409, 412].contains(&put(&eve)), "over another's file");
    assert_eq!(eve.ask("DELETE", "/_/auth/me").unwrap().status, 204);
    assert_eq!(rows("SELECT count(*) FROM notes"), json!([[0]]));
}

#[test]
fn a_lost_answer_to_a_refresh_is_asked_for_again_and_a_thief_gets_nothing_by_it() {
    let shop = Shop::new("acc-refresh", json!({ "methods": ["anonymous"] })).unwrap();
    let refresh = |session: &Session, attempt: Option<&str>| {
        let mut body = json!({ "refresh_token": session.refresh });
        if let Some(attempt) = attempt {
            body["attempt"] = attempt.into();
        }
        shop.app.auth("refresh", &body).unwrap()
    };
    let won = |reply: &Reply| {
        assert_eq!(reply.status, 200, "{reply:?}");
        Session::of(&reply.body).unwrap()
    };
    let over = |reply: &Reply| reply.refuses(401, "unauthenticated").unwrap();
    let new = || shop.app.stranger().unwrap().session.unwrap();
    let mine = "0123456789abcdef0123456789abcdef";
    // The answer is lost, twice; the third arrives.
    let first = new();
    let lost = won(&refresh(&first, Some(mine)));
    won(&refresh(&first, Some(mine)));
    let third = won(&refresh(&first, Some(mine)));
    // Whoever caught an answer that was lost shows a token that is none any more: the session ends.
    over(&refresh(&lost, Some(mine)));
    over(&refresh(&third, None));
    // Once the next token was used, the one before is spent for good, attempt or not.
    let first = new();
    let second = won(&refresh(&first, Some(mine)));
    let third = won(&refresh(&second, Some("another attempt of mine")));
    over(&refresh(&first, Some(mine)));
    over(&refresh(&third, None));
    // Without the attempt, with another, or with none on either side, it is theft.
    for (before, after) in
        [(Some(mine), None), (Some(mine), Some("a guess of an attempt")), (None, Some(mine)), (None, None)]
    {
        let first = new();
        let second = won(&refresh(&first, before));
        over(&refresh(&first, after));
        over(&refresh(&second, before));
    }
    let first = new();
    for odd in ["", "short", &"x".repeat(201)] {
        refresh(&first, Some(odd)).refuses(400, "invalid_input").unwrap();
    }
    won(&refresh(&first, Some(mine)));
}

#[test]
fn what_was_mailed_ends_with_its_time() {
    let steading = require(Steading::launch().env("STEADING_AUTH_CODE_S", "1").start());
    let client = steading.client();
    let manifest = json!({ "auth": { "methods": ["otp"] }, "site": { "files": {} } });
    let applied = client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = conformance_tests::App::new(applied["url"].as_str().unwrap());
    assert_eq!(app.auth("otp", &json!({ "email": "ada@example.org" })).unwrap().status, 202);
    let mail = eventually(Duration::from_secs(20), || outbox(&client, "ada@example.org")).unwrap();
    let code = code_in(&mail);
    // Its second is over when one that was begun after the mail was read is.
    let read = Instant::now();
    eventually(Duration::from_secs(20), || (read.elapsed() > Duration::from_secs(1)).then_some(())).unwrap();
    let late = app.auth("otp/verify", &json!({ "email": "ada@example.org", "code": code })).unwrap();
    late.refuses(401, "unauthenticated").unwrap();
}

fn code_in(text: &str) -> &str {
    text.lines()
        .map(str::trim)
        .find(|line| line.len() == 6 && line.bytes().all(|b| b.is_ascii_digit()))
        .unwrap()
}

#[test]
fn mail_waits_for_a_server_that_is_down_and_its_error_is_seen() {
    // A port that nobody listens on, until somebody does.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let launch = Steading::launch()
        .env("STEADING_MAIL_SMTP", format!("smtp://{address}"))
        .env("STEADING_MAIL_FROM", "no-reply@platform.example");
    let steading = require(launch.start());
    let client = steading.client();
    let manifest = json!({ "auth": { "methods": ["otp"] }, "site": { "files": {} } });
    let applied = client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = conformance_tests::App::new(applied["url"].as_str().unwrap());
    assert_eq!(app.auth("otp", &json!({ "email": "ada@example.org" })).unwrap().status, 202);
    let logged = eventually(Duration::from_secs(20), || {
        let lines = client.output("logs_query", &json!({ "text": "could not be sent yet" })).ok()?;
        Some(lines["entries"].get(0)?.clone())
    });
    let logged = logged.unwrap();
    assert_eq!(logged["fields"], json!({ "why": "the mail server cannot be reached" }), "{logged}");
    let mailbox = require(Mailbox::start_at(address));
    let mail = mailbox.take(|mail| mail.to == "ada@example.org").unwrap();
    let code = mail.code().unwrap();
    let reply = app.auth("otp/verify", &json!({ "email": "ada@example.org", "code": code })).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
    // Where a server sends the mail, none of it is kept here.
    let users = client.output("auth_users", &json!({ "mails": true })).unwrap();
    assert_eq!(users["mails"], json!([]));
    let log = std::fs::read_to_string(steading.log_file()).unwrap();
    assert!(!log.contains(code) && !log.contains("ada@example.org") && !log.contains("stead_lt_"), "{log}");
}

/// The text of the latest mail to this address in the outbox.
fn outbox(client: &testkit::Client, to: &str) -> Option<String> {
    let found = client.output("auth_users", &json!({ "user": to, "mails": true })).ok()?;
    Some(found["mails"].get(0)?["text"].as_str()?.to_owned())
}

#[test]
fn without_a_mail_server_mail_is_read_by_who_may_change_users_and_by_nobody_else() {
    let place = Place::new("outbox").unwrap();
    let manifest = json!({ "auth": { "methods": ["otp"] }, "site": { "files": {} } });
    let applied = place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = conformance_tests::App::new(applied["url"].as_str().unwrap());
    assert_eq!(app.auth("otp", &json!({ "email": "ada@example.org" })).unwrap().status, 202);
    let mail = eventually(Duration::from_secs(20), || outbox(&place.client, "ada@example.org")).unwrap();
    let code = code_in(&mail);
    assert_eq!(outbox(&place.client, "eve@example.org"), None);
    // The log says that there is a mail, and not what is in it; the description says how to see it.
    let logged = eventually(Duration::from_secs(20), || {
        let lines = place.output("logs_query", &json!({ "text": "outbox" })).ok()?;
        lines["entries"].get(0)?;
        Some(lines.to_string())
    });
    let logged = logged.unwrap();
    assert!(!logged.contains(code) && !logged.contains("ada@"), "{logged}");
    let described = place.output("app_describe", &json!({})).unwrap();
    assert_eq!(described["auth"]["mails"], 1, "{described}");
    // Its own users cannot, nor a credential that only reads.
    let asked = json!({ "name": "reader", "env": place.slug, "scopes": ["auth:read"] });
    let made = place.client.request("POST", "/v1/keys").json(&asked).send().unwrap().json().unwrap();
    let reader = place.client.clone().with_key(made["key"].as_str().unwrap());
    reader.output("auth_users", &json!({})).unwrap();
    let refused = reader.call("auth_users", &json!({ "mails": true })).unwrap();
    assert_eq!(refused.code(), "forbidden", "{refused:?}");
    let reply = app.auth("otp/verify", &json!({ "email": "ada@example.org", "code": code })).unwrap();
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_link_that_somebody_else_has_asked_for_gives_them_nothing() {
    let auth = json!({ "methods": ["password", "otp", "anonymous"] });
    let shop = Shop::new("acc-links", auth).unwrap();
    // A visitor who opens a stranger's link does not become the stranger's account.
    let visitor = shop.app.stranger().unwrap();
    let link = |mail: &Mail| json!({ "token": mail.token().unwrap() });
    assert_eq!(shop.app.auth("otp", &json!({ "email": "eve@example.org" })).unwrap().status, 202);
    let mail = shop.take("eve@example.org", "Sign in").unwrap();
    let opened = shop.entered(&visitor.send("POST", "/_/auth/otp/verify", &link(&mail)).unwrap()).unwrap();
    assert_ne!(opened.id(), visitor.id());
    assert!(live(&visitor));
    // Who has asked for it does.
    let body = json!({ "email": "ada@example.org" });
    assert_eq!(visitor.send("POST", "/_/auth/otp", &body).unwrap().status, 202);
    let mail = shop.take("ada@example.org", "Sign in").unwrap();
    let ada = shop.entered(&visitor.send("POST", "/_/auth/otp/verify", &link(&mail)).unwrap()).unwrap();
    assert_eq!(ada.id(), visitor.id());
    // A stranger's password is none of the account that the owner of the address opens by a link.
    let theirs = json!({ "email": "bea@example.org", "password": ANOTHER });
    assert_eq!(shop.app.auth("signup", &theirs).unwrap().status, 202);
    let mail = shop.take("bea@example.org", "Confirm your address").unwrap();
    assert!(mail.link().unwrap().contains("#signup=lt_"), "{mail:?}");
    let bea = shop.entered(&shop.app.auth("otp/verify", &link(&mail)).unwrap()).unwrap();
    login(&shop, "bea@example.org", ANOTHER).refuses(401, "unauthenticated").unwrap();
    let own = json!({ "password": PASSWORD });
    assert_eq!(bea.send("POST", "/_/auth/password", &own).unwrap().status, 204);
    assert_eq!(login(&shop, "bea@example.org", PASSWORD).status, 200);
}

#[test]
fn what_was_mailed_before_is_worth_nothing_after_a_new_password_or_the_end_of_all_sessions() {
    let shop = Shop::new("acc-before", json!({ "methods": ["password", "otp"] })).unwrap();
    let ada = shop.enter("ada@example.org").unwrap();
    for end in ["/_/auth/password", "/_/auth/logout"] {
        shop.app.auth("password/forgot", &json!({ "email": "ada@example.org" })).unwrap();
        let mail = shop.take("ada@example.org", "Reset your password").unwrap();
        let body = match end {
            "/_/auth/password" => json!({ "password": PASSWORD }),
            _ => json!({ "everywhere": true }),
        };
        assert_eq!(ada.send("POST", end, &body).unwrap().status, 204);
        let reset = json!({ "token": mail.token().unwrap(), "password": ANOTHER });
        shop.app.auth("password/reset", &reset).unwrap().refuses(401, "unauthenticated").unwrap();
    }
}
