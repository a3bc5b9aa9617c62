//! Second factors from outside: set up, asked for by every way in, guessed by nobody, and the same after any return in
//! time.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Place, Reply, Session, browser};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use testkit::Chromium;

use crate::app_mail::{Shop, other};

const PASSWORD: &str = "a word that is long enough";

/// An authenticator app (RFC 6238).
#[derive(Clone)]
pub struct Authenticator {
    secret: Vec<u8>,
    pub recovery: Vec<String>,
}

impl Authenticator {
    pub fn of(secret: &str) -> anyhow::Result<Self> {
        Ok(Self { secret: BASE32_NOPAD.decode(secret.as_bytes())?, recovery: Vec::new() })
    }

    /// The code of this moment, or so many steps off.
    pub fn code(&self, off: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let step = i64::try_from(now / 30).unwrap() + off;
        let mut mac = <Hmac<Sha1>>::new_from_slice(&self.secret).unwrap();
        mac.update(&step.to_be_bytes());
        let hash = mac.finalize().into_bytes();
        let at = usize::from(hash[19] & 0x0f);
        let number = u32::from_be_bytes(hash[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }
}

/// Sets up an authenticator for somebody.
pub fn guard(person: &Person) -> anyhow::Result<Authenticator> {
    let begun = person.send("POST", "/_/auth/mfa/totp", &json!({ "name": "phone" }))?;
    ensure!(begun.status == 201, "not begun: {begun:?}");
    let mut made = Authenticator::of(begun.body["secret"].as_str().context("no secret")?)?;
    let uri = begun.body["uri"].as_str().context("no uri")?;
    ensure!(
        uri.starts_with("otpauth://totp/") && uri.contains("&algorithm=SHA1&digits=6&period=30"),
        "{uri}"
    );
    // The step before, so that this moment's is still to be used.
    let done = person.send("POST", "/_/auth/mfa/totp/verify", &json!({ "code": made.code(-1) }))?;
    ensure!(done.status == 200, "not set up: {done:?}");
    made.recovery = serde_json::from_value(done.body["recovery_codes"].clone())?;
    ensure!(made.recovery.len() == 10, "{done:?}");
    Ok(made)
}

/// The ticket of somebody whose first factor was right; that there is nothing else in the answer.
fn ticket(reply: &Reply) -> anyhow::Result<String> {
    ensure!(reply.status == 200, "refused: {reply:?}");
    let fields: Vec<&String> = reply.body.as_object().context("no object")?.keys().collect();
    ensure!(
        fields.iter().all(|it| matches!(it.as_str(), "mfa" | "redirect")),
        "more than a ticket: {reply:?}"
    );
    ensure!(reply.body["mfa"]["expires_in"] == 300, "{reply:?}");
    Ok(reply.body["mfa"]["ticket"].as_str().context("no ticket")?.to_owned())
}

fn login(app: &App, email: &str) -> Reply {
    app.auth("login", &json!({ "email": email, "password": PASSWORD })).unwrap()
}

fn show(app: &App, ticket: &str, code: &str) -> Reply {
    app.auth("mfa/verify", &json!({ "ticket": ticket, "code": code })).unwrap()
}

fn recover(app: &App, ticket: &str, code: &str) -> Reply {
    app.auth("mfa/verify", &json!({ "ticket": ticket, "recovery_code": code })).unwrap()
}

fn person(app: &App, reply: &Reply) -> anyhow::Result<Person> {
    ensure!(reply.status == 200, "no session: {reply:?}");
    Ok(Person { app: app.clone(), session: Some(Session::of(&reply.body)?) })
}

fn refused(reply: &Reply) {
    reply.refuses(401, "unauthenticated").unwrap();
}

fn live(person: &Person) -> bool {
    person.ask("GET", "/_/auth/me").unwrap().status == 200
}

fn shop(slug: &str, mfa: &str) -> Shop {
    Shop::new(slug, json!({ "methods": ["password", "otp"], "mfa": mfa })).unwrap()
}

/// Somebody with a confirmed address and a password.
fn member(shop: &Shop, email: &str) -> Person {
    let sent = shop.app.auth("signup", &json!({ "email": email, "password": PASSWORD })).unwrap();
    assert_eq!(sent.status, 202, "{sent:?}");
    let mail = shop.take(email, "Confirm your address").unwrap();
    shop.entered(&shop.verify(email, mail.code().unwrap()).unwrap()).unwrap()
}

const ADA: &str = "ada@example.org";

#[test]
fn no_way_in_leads_around_the_second_factor() {
    let shop = shop("mfa-ways", "optional");
    let ada = member(&shop, ADA);
    let elsewhere = person(&shop.app, &login(&shop.app, ADA)).unwrap();
    let authenticator = guard(&ada).unwrap();
    shop.take(ADA, "Two steps to sign in").unwrap();
    assert!(live(&ada) && !live(&elsewhere), "whoever is in by one factor stays in");
    let spent = json!({ "refresh_token": elsewhere.session.as_ref().unwrap().refresh });
    refused(&shop.app.auth("refresh", &spent).unwrap());
    // By password, by code, by link, by a new password.
    let by_password = ticket(&login(&shop.app, ADA)).unwrap();
    let mail = shop.code(ADA).unwrap();
    ticket(&shop.verify(ADA, mail.code().unwrap()).unwrap()).unwrap();
    let mail = shop.code(ADA).unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    ticket(&shop.app.auth("otp/verify", &link).unwrap()).unwrap();
    shop.app.auth("password/forgot", &json!({ "email": ADA })).unwrap();
    let mail = shop.take(ADA, "Reset your password").unwrap();
    let reset = json!({ "email": ADA, "code": mail.code().unwrap(), "password": PASSWORD });
    let by_reset = ticket(&shop.app.auth("password/reset", &reset).unwrap()).unwrap();
    assert!(!live(&ada), "a new password ends sessions, and opens none by itself");
    refused(&show(&shop.app, &by_password, &authenticator.code(0)));
    // The ticket is for one thing.
    for path in ["/_/auth/me", "/_/db/notes", "/_/auth/sessions", "/_/auth/mfa"] {
        refused(&shop.app.visitor().with_token(&by_reset).ask("GET", path).unwrap());
    }
    refused(&shop.app.auth("refresh", &json!({ "refresh_token": by_reset })).unwrap());
    refused(&shop.app.auth("otp/verify", &json!({ "token": by_reset })).unwrap());
    let again = person(&shop.app, &show(&shop.app, &by_reset, &authenticator.code(0))).unwrap();
    assert_eq!(again.id(), ada.id());
    refused(&show(&shop.app, &by_reset, &authenticator.code(1)));
    // What a page says of itself changes nothing.
    let odd = json!({ "email": ADA, "password": PASSWORD, "mfa": false });
    shop.app.auth("login", &odd).unwrap().refuses(400, "invalid_input").unwrap();
    let both = json!({ "ticket": by_reset, "code": "000000", "recovery_code": "x" });
    shop.app.auth("mfa/verify", &both).unwrap().refuses(400, "invalid_input").unwrap();
}

#[test]
fn codes_and_tickets_are_good_once_and_for_one_user() {
    let shop = shop("mfa-once", "optional");
    let (ada, bea) = (member(&shop, ADA), member(&shop, "bea@example.org"));
    let (hers, beas) = (guard(&ada).unwrap(), guard(&bea).unwrap());
    let (one, two) = (ticket(&login(&shop.app, ADA)).unwrap(), ticket(&login(&shop.app, ADA)).unwrap());
    refused(&show(&shop.app, &one, &beas.code(0)));
    refused(&recover(&shop.app, &one, &beas.recovery[0]));
    refused(&show(&shop.app, &one, &other(&hers.code(0))));
    refused(&show(&shop.app, "mt_AAAA", &hers.code(0)));
    let code = hers.code(0);
    assert_eq!(show(&shop.app, &one, &code).status, 200);
    refused(&show(&shop.app, &two, &code));
    // Eight at once with one recovery code.
    let tickets: Vec<String> = (0..8).map(|_| ticket(&login(&shop.app, ADA)).unwrap()).collect();
    let code = hers.recovery[0].to_uppercase().replace('-', " ");
    let entered = std::thread::scope(|scope| {
        let tries: Vec<_> = tickets
            .iter()
            .map(|ticket| scope.spawn(|| recover(&shop.app, ticket, &code).status == 200))
            .collect();
        tries.into_iter().filter(|_| true).map(|one| one.join().unwrap()).filter(|entered| *entered).count()
    });
    assert_eq!(entered, 1);
    // In another app nothing of it is known.
    let elsewhere = self::shop("mfa-else", "optional");
    refused(&recover(&elsewhere.app, &ticket(&login(&shop.app, ADA)).unwrap(), &hers.recovery[1]));
}

#[test]
fn who_knows_the_password_guesses_a_few_codes_and_no_more_whatever_the_ticket() {
    let shop = shop("mfa-guess", "optional");
    let authenticator = guard(&member(&shop, ADA)).unwrap();
    let mut told = Vec::new();
    for _ in 0..14 {
        let ticket = ticket(&login(&shop.app, ADA)).unwrap();
        told.push(show(&shop.app, &ticket, &other(&authenticator.code(0))).status);
    }
    assert_eq!((&told[..10], &told[10..]), (&[401; 10][..], &[429; 4][..]));
    let ticket = ticket(&login(&shop.app, ADA)).unwrap();
    let right = show(&shop.app, &ticket, &authenticator.code(0));
    assert_eq!((right.status, right.header("retry-after").is_some()), (429, true));
    // The owner has another way, which nobody guesses.
    assert_eq!(recover(&shop.app, &ticket, &authenticator.recovery[4]).status, 200);
}

#[test]
fn where_it_is_required_nothing_of_the_app_opens_without_it() {
    let shop = shop("mfa-required", "required");
    let anonymous = json!({ "auth": { "methods": ["anonymous", "password"], "mfa": "required" } });
    let refusal = shop.client.call("app_apply", &json!({ "manifest": anonymous })).unwrap();
    assert_eq!((refusal.code(), &refusal.body["field"]), ("invalid_input", &json!("/manifest/auth/methods")));
    let ada = member(&shop, ADA);
    let closed = |person: &Person, method: &str, path: &str, body: Option<&Value>| {
        let reply = match body {
            Some(body) => person.send(method, path, body).unwrap(),
            None => person.ask(method, path).unwrap(),
        };
        reply.refuses(403, "forbidden").unwrap_or_else(|e| panic!("{method} {path}: {e}"));
    };
    let note = json!({ "text": "from before" });
    let batch = json!({ "operations": [{ "op": "create", "table": "notes", "row": note }] });
    for (method, path, body) in [
        ("GET", "/_/db/notes", None),
        ("GET", "/_/db/notes.csv", None),
        ("POST", "/_/db/notes", Some(&note)),
        ("POST", "/_/batch", Some(&batch)),
        ("GET", "/_/realtime?subscribe=notes", None),
        ("POST", "/_/realtime/ticket", Some(&json!({}))),
        ("GET", "/_/auth/me/export", None),
        ("DELETE", "/_/auth/me", Some(&json!({}))),
        ("POST", "/_/auth/password", Some(&json!({ "password": "another word for later" }))),
        ("POST", "/_/auth/email", Some(&json!({ "email": "eve@example.org" }))),
    ] {
        closed(&ada, method, path, body);
    }
    let refresh = json!({ "refresh_token": ada.session.as_ref().unwrap().refresh });
    let ada = person(&shop.app, &shop.app.auth("refresh", &refresh).unwrap()).unwrap();
    closed(&ada, "GET", "/_/db/notes", None);
    let mode = ada.ask("GET", "/_/auth/mfa").unwrap().body;
    assert_eq!(mode, json!({ "mode": "required", "open": false, "factors": [], "recovery_codes": 0 }));
    let authenticator = guard(&ada).unwrap();
    let made = ada.create("notes", &note).unwrap();
    ada.list("notes", &[]).unwrap().lists(&[made["id"].as_str().unwrap()]).unwrap();
    let again = ticket(&login(&shop.app, ADA)).unwrap();
    let again = person(&shop.app, &show(&shop.app, &again, &authenticator.code(0))).unwrap();
    again.list("notes", &[]).unwrap().lists(&[made["id"].as_str().unwrap()]).unwrap();
    // Without it nothing opens again, not even for a session that had shown it.
    let id = again.ask("GET", "/_/auth/mfa").unwrap().body["factors"][0]["id"].as_str().unwrap().to_owned();
    let removed = again.send("DELETE", &format!("/_/auth/mfa/{id}"), &json!({})).unwrap();
    assert_eq!(removed.status, 204, "{removed:?}");
    shop.take(ADA, "One step to sign in").unwrap();
    closed(&again, "GET", "/_/db/notes", None);
    closed(&ada, "GET", "/_/db/notes", None);
}

#[test]
fn the_makers_turn_it_on_see_it_and_take_it_away() {
    let shop = shop("mfa-makers", "off");
    let ada = member(&shop, ADA);
    ada.send("POST", "/_/auth/mfa/totp", &json!({})).unwrap().refuses(403, "forbidden").unwrap();
    let set = shop.client.output("auth_configure", &json!({ "mfa": "optional" })).unwrap();
    assert_eq!(set["mfa"], "optional");
    let described = shop.client.output("app_describe", &json!({})).unwrap();
    assert_eq!(described["auth"]["mfa"], "optional");
    let authenticator = guard(&ada).unwrap();
    let user =
        |of: &str| shop.client.output("auth_users", &json!({ "user": of })).unwrap()["users"][0].clone();
    assert_eq!(user(ADA)["mfa"], json!(["totp"]));
    let export = ada.ask("GET", "/_/auth/me/export").unwrap();
    assert_eq!(
        (&export.body["mfa"][0]["kind"], &export.body["mfa"][0]["name"]),
        (&json!("totp"), &json!("phone"))
    );
    assert!(!export.body.to_string().contains("secret"), "{export:?}");
    // Off means that nobody sets one up; who relies on one is still asked for it.
    shop.client.output("auth_configure", &json!({ "mfa": "off" })).unwrap();
    let pending = ticket(&login(&shop.app, ADA)).unwrap();
    let reset = shop.client.output("auth_user_set", &json!({ "user": ADA, "mfa": "reset" })).unwrap();
    assert_eq!((&reset["user"]["mfa"], &reset["signed_out"]), (&Value::Null, &json!(1)));
    assert!(!live(&ada));
    refused(&show(&shop.app, &pending, &authenticator.code(0)));
    assert_eq!(login(&shop.app, ADA).status, 200);
    assert_eq!(user(ADA).get("mfa"), None);
}

#[test]
fn a_stream_of_who_has_shown_one_factor_ends_when_two_are_required() {
    let shop = shop("mfa-stream", "optional");
    let (ada, bea) = (member(&shop, ADA), member(&shop, "bea@example.org"));
    guard(&bea).unwrap();
    let (mut hers, mut beas) =
        (ada.events("subscribe=notes", None).unwrap(), bea.events("subscribe=notes", None).unwrap());
    shop.client.output("auth_configure", &json!({ "mfa": "required" })).unwrap();
    let told = hers.until(|event| event["type"] == "end").unwrap();
    assert_eq!(told.last().unwrap()["reason"], "session_ended", "{told:?}");
    assert!(ada.events("subscribe=notes", None).is_err(), "who comes back is let in");
    // Who has shown both comes again and goes on.
    while beas.next_event().unwrap().is_some() {}
    let mut beas = bea.events("subscribe=notes", None).unwrap();
    bea.create("notes", &json!({ "text": "still here" })).unwrap();
    beas.until(|event| event["row"]["text"] == "still here").unwrap();
}

/// Goes back to a snapshot.
fn restore(place: &testkit::Client, snapshot: &str) -> String {
    let plan = place.output("env_restore", &json!({ "snapshot": snapshot, "dry_run": true })).unwrap();
    let done =
        place.output("env_restore", &json!({ "snapshot": snapshot, "confirm": plan["confirm"] })).unwrap();
    done["undo"].as_str().unwrap().to_owned()
}

#[test]
fn going_back_in_time_neither_drops_a_second_factor_nor_brings_one_back() {
    let place = Place::new("mfa-time").unwrap();
    let app = App::new(&place.url);
    let auth = json!({ "methods": ["password"], "mfa": "optional" });
    place.output("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    let snapshot = |name: &str| {
        place.output("env_snapshot", &json!({ "name": name })).unwrap();
    };
    snapshot("nobody");
    let ada = app.sign_up(ADA, PASSWORD).unwrap();
    place.output("auth_user_set", &json!({ "user": ADA, "email": ADA })).unwrap();
    snapshot("before");
    let authenticator = guard(&ada).unwrap();
    snapshot("guarded");
    // One that was added stays, also where its user is gone for a while.
    restore(&place.client, "before");
    ticket(&login(&app, ADA)).unwrap();
    let undo = restore(&place.client, "nobody");
    refused(&login(&app, ADA));
    restore(&place.client, &undo);
    let pending = ticket(&login(&app, ADA)).unwrap();
    let code = &authenticator.recovery[0];
    let ada = person(&app, &recover(&app, &pending, code)).unwrap();
    // What is used stays used.
    restore(&place.client, "guarded");
    refused(&recover(&app, &ticket(&login(&app, ADA)).unwrap(), code));
    // A branch asks its users for the same.
    let branch = place.output("env_branch", &json!({ "data": "all" })).unwrap();
    let branch = App::new(branch["url"].as_str().unwrap());
    let pending = ticket(&login(&branch, ADA)).unwrap();
    assert_eq!(show(&branch, &pending, &authenticator.code(0)).status, 200);
    // One that was removed does not come back.
    let id = ada.ask("GET", "/_/auth/mfa").unwrap().body["factors"][0]["id"].as_str().unwrap().to_owned();
    let shown = json!({ "recovery_code": authenticator.recovery[1] });
    assert_eq!(ada.send("DELETE", &format!("/_/auth/mfa/{id}"), &shown).unwrap().status, 204);
    restore(&place.client, "guarded");
    assert_eq!(person(&app, &login(&app, ADA)).unwrap().id(), ada.id());
    // Who has left and is brought back comes with what was there.
    let again = person(&app, &login(&app, ADA)).unwrap();
    guard(&again).unwrap();
    snapshot("member");
    assert_eq!(again.send("DELETE", "/_/auth/me", &json!({ "current": PASSWORD })).unwrap().status, 204);
    restore(&place.client, "member");
    ticket(&login(&app, ADA)).unwrap();
}

#[test]
fn people_set_it_up_and_use_it_on_the_sign_in_page() {
    let shop = Shop::new("mfa-page", json!({ "methods": ["password"], "mfa": "required" })).unwrap();
    let page = format!("{}/_/auth/ui?to=/", shop.app.url());
    let titled = |browser: &Chromium, title: &str| {
        crate::app_sign_in_page::waits_for(
            browser,
            &format!("document.querySelector('h1').textContent === {}", json!(title)),
        );
    };
    let fill = crate::app_sign_in_page::fill;
    browser(|browser| {
        browser.goto(&page)?;
        titled(browser, "Sign in");
        browser.evaluate("[...document.querySelectorAll('nav button')][0].click()")?;
        titled(browser, "Create an account");
        fill(browser, &[("email", ADA), ("password", PASSWORD)]);
        titled(browser, "Confirm your address");
        let mail = shop.take(ADA, "Confirm your new address")?;
        fill(browser, &[("code", mail.code().context("no code")?)]);
        titled(browser, "Set up a second step");
        let key = browser.evaluate("return document.querySelector('#lead').textContent.split('\\n')[2]")?;
        let authenticator = Authenticator::of(&key.as_str().context("no key")?.replace(' ', ""))?;
        fill(browser, &[("code", "000000")]);
        crate::app_sign_in_page::waits_for(
            browser,
            "document.querySelector('#note').textContent.includes('wrong')",
        );
        fill(browser, &[("code", &authenticator.code(-1))]);
        titled(browser, "Recovery codes");
        let codes =
            browser.evaluate("return document.querySelector('#lead').textContent.split('\\n').slice(2)")?;
        assert_eq!(codes.as_array().map(Vec::len), Some(10));
        fill(browser, &[]);
        crate::app_sign_in_page::waits_for(browser, "location.pathname === '/'");
        for recovery in [false, true] {
            browser.evaluate("localStorage.clear()")?;
            browser.goto(&page)?;
            titled(browser, "Sign in");
            fill(browser, &[("email", ADA), ("password", PASSWORD)]);
            titled(browser, "Second step");
            if recovery {
                browser.evaluate("[...document.querySelectorAll('nav button')][0].click()")?;
                crate::app_sign_in_page::waits_for(browser, "document.querySelector('[name=recovery]')");
                fill(browser, &[("recovery", codes[0].as_str().unwrap())]);
            } else {
                fill(browser, &[("code", &authenticator.code(0))]);
            }
            crate::app_sign_in_page::waits_for(browser, "location.pathname === '/'");
        }
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn who_reads_the_mail_is_not_led_around_a_second_factor_nor_kept_out_by_a_squatters() {
    let shop = Shop::new("mfa-mail", json!({ "methods": ["password"], "mfa": "optional" })).unwrap();
    let ada = shop.app.sign_up(ADA, PASSWORD).unwrap();
    let begin = |person: &Person| person.send("POST", "/_/auth/mfa/totp", &json!({})).unwrap();
    begin(&ada).refuses(409, "conflict").unwrap();
    assert_eq!(ada.send("POST", "/_/auth/email", &json!({ "email": ADA })).unwrap().status, 202);
    let mail = shop.take(ADA, "Confirm your new address").unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    // Who presses the link confirms nothing for who has asked.
    shop.app.auth("email/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    let eve = shop.app.sign_up("eve@example.org", PASSWORD).unwrap();
    eve.send("POST", "/_/auth/email/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    assert_eq!(ada.send("POST", "/_/auth/email/verify", &link).unwrap().body["user"]["email_verified"], true);
    guard(&ada).unwrap();
    shop.app.auth("password/forgot", &json!({ "email": ADA })).unwrap();
    let mail = shop.take(ADA, "Reset your password").unwrap();
    let reset = json!({ "email": ADA, "code": mail.code().unwrap(), "password": PASSWORD });
    ticket(&shop.app.auth("password/reset", &reset).unwrap()).unwrap();
}
