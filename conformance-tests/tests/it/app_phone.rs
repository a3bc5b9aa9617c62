//! Signing in by a text to a phone: what the app's adapter is told, and what that opens to nobody else.

use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use conformance_tests::{App, Incoming, Person, Reply, Session, Shared, browser};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::{Client, Steading, eventually, require};

use crate::app_mail::other;
use crate::app_sign_in_page::{fill, waits_for};

const SECRET: &str = "whsec_c2hhcmVkIHdpdGggdGhlIGFkYXB0ZXIgYWxvbmU=";
const ADA: &str = "+4915123456789";
const LIMIT: Duration = Duration::from_secs(10);

/// Whoever sends texts: takes them where they are signed, and answers as it is told.
struct Receiver {
    url: String,
    texts: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// One that answers `status`.
    fn start(status: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://127.0.0.1:{}/send", listener.local_addr()?.port());
        let texts = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&texts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (mut reader, kept) = (BufReader::new(stream), Arc::clone(&kept));
                std::thread::spawn(move || {
                    while let Ok(Some(incoming)) = Incoming::read(&mut reader) {
                        let text = Self::judged(&incoming);
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                        let answer = format!("HTTP/1.1 {status} Said\r\ncontent-length: 0\r\n\r\n");
                        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self { url, texts })
    }

    /// The text, or what is wrong with the request.
    fn judged(incoming: &Incoming) -> Value {
        let header = |name: &str| {
            let found = incoming.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
        let mut mac = <Hmac<Sha256>>::new_from_slice(&key).unwrap();
        mac.update([id.as_bytes(), b".", at.as_bytes(), b".", &incoming.body].concat().as_slice());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let fresh = at.parse::<u64>().is_ok_and(|at| at.abs_diff(now) < 60);
        if incoming.method != "POST" || header("webhook-signature") != expected || !fresh {
            return json!({ "forged": format!("{:?}", incoming.headers) });
        }
        serde_json::from_slice(&incoming.body).unwrap_or_default()
    }

    /// The next text to a number, taken away.
    fn take(&self, to: &str) -> anyhow::Result<Value> {
        let found = eventually(LIMIT, || {
            let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
            let at = texts.iter().position(|text| text["to"] == to)?;
            Some(texts.remove(at))
        });
        found.with_context(|| format!("no text to {to}: {:?}", self.texts))
    }

    fn count(&self) -> usize {
        self.texts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

static DESK: Shared<Steading> = Shared::new();

/// An app that texts.
struct Shop {
    _desk: Arc<Steading>,
    client: Client,
    app: App,
    receiver: Receiver,
}

impl Shop {
    fn new(slug: &str, auth: Value) -> anyhow::Result<Self> {
        Self::answering(slug, auth, 204)
    }

    fn answering(slug: &str, mut auth: Value, status: u16) -> anyhow::Result<Self> {
        let launch = || Steading::launch().env("STEADING_OUTBOUND_PRIVATE", "127.0.0.0/8");
        let desk = DESK.get(|| require(launch().start()));
        let receiver = Receiver::start(status)?;
        desk.client().output("env_create", &json!({ "slug": slug }))?;
        let client = desk.client().in_env(slug);
        client.output("secret_set", &json!({ "name": "SMS_KEY", "value": SECRET }))?;
        auth["phone"] = json!({ "webhook": receiver.url, "secret": "SMS_KEY" });
        let tables = json!({ "notes": { "columns": { "text": "text!" }, "access": "private" } });
        let manifest = json!({ "name": "Shop", "auth": auth, "database": { "tables": tables },
            "site": { "files": { "index.html": "<!doctype html><title>Shop</title>" } } });
        let applied = client.output("app_apply", &json!({ "manifest": manifest }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        Ok(Self { _desk: desk, client, app, receiver })
    }

    /// Asks for a code and takes it from the adapter.
    fn code(&self, phone: &str) -> anyhow::Result<String> {
        let sent = self.app.auth("phone", &json!({ "phone": phone }))?;
        ensure!(sent.status == 202, "not sent: {sent:?}");
        let text = self.receiver.take(phone)?;
        Ok(text["code"].as_str().context("no code")?.to_owned())
    }

    fn show(&self, phone: &str, code: &str) -> anyhow::Result<Reply> {
        self.app.auth("phone/verify", &json!({ "phone": phone, "code": code }))
    }

    fn entered(&self, reply: &Reply) -> anyhow::Result<Person> {
        ensure!(reply.status == 200, "no session: {reply:?}");
        Ok(Person { app: self.app.clone(), session: Some(Session::of(&reply.body)?) })
    }
}

#[test]
fn a_text_signs_in_once_and_is_signed_for_the_adapter() {
    let shop = Shop::new("text-once", json!({ "methods": ["phone", "anonymous"] })).unwrap();
    let sent = shop.app.auth("phone", &json!({ "phone": " +49 (151) 234-56789" })).unwrap();
    assert_eq!((sent.status, &sent.body), (202, &json!({ "sent": true, "expires_in": 600 })));
    let text = shop.receiver.take(ADA).unwrap();
    let code = text["code"].as_str().unwrap().to_owned();
    let host = shop.app.url().split_once("://").unwrap().1.split(':').next().unwrap().to_owned();
    let words = format!(
        "{code} is your code for Shop. It works once, within 10 minutes. Show it to nobody.\n\n@{host} #{code}"
    );
    assert_eq!(text, json!({ "to": ADA, "code": code, "text": words, "app": "Shop" }));
    shop.show(ADA, &other(&code)).unwrap().refuses(401, "unauthenticated").unwrap();
    shop.show("+4915123456780", &code).unwrap().refuses(401, "unauthenticated").unwrap();
    // It is no code of a mail.
    shop.app
        .auth("otp/verify", &json!({ "email": "a@example.org", "code": code }))
        .unwrap()
        .refuses(401, "unauthenticated")
        .unwrap();
    let ada = shop.entered(&shop.show(ADA, &code).unwrap()).unwrap();
    shop.show(ADA, &code).unwrap().refuses(401, "unauthenticated").unwrap();
    let me = ada.ask("GET", "/_/auth/me").unwrap().body;
    assert_eq!((&me["phone"], &me["email"], &me["anonymous"]), (&json!(ADA), &Value::Null, &json!(false)));
    let again = shop.entered(&shop.show(ADA, &shop.code(ADA).unwrap()).unwrap()).unwrap();
    assert_eq!(again.id(), ada.id());
    let sessions = again.ask("GET", "/_/auth/sessions").unwrap().body;
    assert_eq!(sessions["sessions"][0]["method"], "phone");
    let listed = shop.client.output("auth_users", &json!({ "user": ADA })).unwrap();
    assert_eq!((&listed["users"][0]["id"], &listed["users"][0]["phone"]), (&json!(ada.id()), &json!(ADA)));
    // Whoever is disabled gets no text, and nobody is told.
    shop.client.output("auth_user_set", &json!({ "user": ADA, "disabled": true })).unwrap();
    assert_eq!(ada.ask("GET", "/_/auth/me").unwrap().status, 401);
    assert_eq!(shop.app.auth("phone", &json!({ "phone": ADA })).unwrap().status, 202);
    shop.client.output("auth_user_set", &json!({ "user": ADA, "disabled": false })).unwrap();
    assert_eq!(shop.receiver.count(), 0);
}

#[test]
fn somebody_anonymous_becomes_the_account_of_a_new_number_and_leaves_with_it() {
    let shop = Shop::new("text-upgrade", json!({ "methods": ["phone", "anonymous"] })).unwrap();
    let stranger = shop.app.stranger().unwrap();
    let note = stranger.create("notes", &json!({ "text": "from before" })).unwrap();
    let body = json!({ "phone": ADA, "code": shop.code(ADA).unwrap() });
    let ada = shop.entered(&stranger.send("POST", "/_/auth/phone/verify", &body).unwrap()).unwrap();
    assert_eq!(ada.id(), stranger.id());
    assert_eq!(stranger.ask("GET", "/_/auth/me").unwrap().status, 401, "the session from before is over");
    ada.list("notes", &[]).unwrap().lists(&[note["id"].as_str().unwrap()]).unwrap();
    let left = ada.send("DELETE", "/_/auth/me", &json!({})).unwrap();
    assert_eq!(left.status, 204, "{left:?}");
    let new = shop.entered(&shop.show(ADA, &shop.code(ADA).unwrap()).unwrap()).unwrap();
    assert_ne!(new.id(), ada.id());
}

#[test]
fn texts_are_bounded_for_a_number_and_guesses_for_its_code() {
    let shop = Shop::new("text-bounds", json!({ "methods": ["phone"] })).unwrap();
    let asked: Vec<u16> =
        (0..5).map(|_| shop.app.auth("phone", &json!({ "phone": ADA })).unwrap().status).collect();
    assert_eq!(asked, [202, 202, 202, 429, 429]);
    let code = shop.receiver.take(ADA).unwrap()["code"].as_str().unwrap().to_owned();
    let guesses: Vec<u16> = (0..12).map(|_| shop.show(ADA, &other(&code)).unwrap().status).collect();
    assert_eq!((&guesses[..10], &guesses[10..]), (&[401; 10][..], &[429; 2][..]));
    // Many numbers from one network address run out, too.
    let many: Vec<u16> = (0..12)
        .map(|n| shop.app.auth("phone", &json!({ "phone": format!("+4915100000{n:02}") })).unwrap().status)
        .collect();
    assert!(many.contains(&429), "{many:?}");
    for bad in ["", "0151 23456789", "4915123456789", "+49", "ada@example.org", "+4915123456789x"] {
        let refused = shop.app.auth("phone", &json!({ "phone": bad })).unwrap();
        refused.refuses(400, "invalid_input").unwrap();
        assert_eq!(refused.body["field"], "/phone");
    }
}

#[test]
fn who_may_not_sign_up_gets_no_text_and_is_answered_alike() {
    let shop = Shop::new("text-closed", json!({ "methods": ["phone"], "signup": "closed" })).unwrap();
    let sent = shop.app.auth("phone", &json!({ "phone": ADA })).unwrap();
    assert_eq!((sent.status, &sent.body["sent"]), (202, &json!(true)));
    shop.show(ADA, "000000").unwrap().refuses(401, "unauthenticated").unwrap();
    assert_eq!(shop.receiver.count(), 0);
}

#[test]
fn an_adapter_that_fails_is_said_in_the_log_without_the_code() {
    let shop = Shop::answering("text-fails", json!({ "methods": ["phone"] }), 500).unwrap();
    assert_eq!(shop.app.auth("phone", &json!({ "phone": ADA })).unwrap().status, 202);
    let text = shop.receiver.take(ADA).unwrap();
    let told = |what: &str| {
        let logged = eventually(LIMIT, || {
            let logged = shop.client.output("logs_query", &json!({ "level": "error" })).ok()?.to_string();
            logged.contains(what).then_some(logged)
        });
        logged.unwrap_or_else(|| panic!("nothing about {what}"))
    };
    let logged = told("the webhook answers 500");
    assert!(!logged.contains(text["code"].as_str().unwrap()) && !logged.contains(SECRET), "{logged}");
    // An address of the platform's own surroundings is not asked, whatever the manifest says.
    let phone = json!({ "webhook": "https://10.0.0.1/send", "secret": "SMS_KEY" });
    let manifest = json!({ "auth": { "methods": ["phone"], "phone": phone } });
    shop.client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    assert_eq!(shop.app.auth("phone", &json!({ "phone": "+4915123456780" })).unwrap().status, 202);
    told("is not a public address");
}

#[test]
fn a_manifest_says_who_sends_texts() {
    let shop = Shop::new("text-manifest", json!({ "methods": ["phone"] })).unwrap();
    for (auth, field) in [
        (
            json!({ "methods": [], "phone": { "webhook": "https://a.example/", "secret": "UNSET" } }),
            "/manifest/auth/phone/secret",
        ),
        (json!({ "methods": ["phone"] }), "/manifest/auth/methods"),
        (
            json!({ "methods": [], "phone": { "webhook": "ftp://a.example/", "secret": "A" } }),
            "/manifest/auth/phone/webhook",
        ),
        (
            json!({ "methods": [], "phone": { "webhook": "http://a.example/", "secret": "A" } }),
            "/manifest/auth/phone/webhook",
        ),
        (
            json!({ "methods": [], "phone": { "webhook": "https://u:p@a.example/", "secret": "A" } }),
            "/manifest/auth/phone/webhook",
        ),
        (
            json!({ "methods": [], "phone": { "webhook": "https://a.example/", "secret": "a b" } }),
            "/manifest/auth/phone/secret",
        ),
        (json!({ "methods": [], "phone": { "webhook": "https://a.example/" } }), "/manifest/auth/phone"),
        (
            json!({ "methods": [], "phone": { "webhook": "https://a.example/", "secret": "A", "token": "x" } }),
            "/manifest/auth/phone",
        ),
    ] {
        let refused = shop.client.call("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
        let at = refused.body["field"].as_str().unwrap_or_default();
        assert!(refused.code() == "invalid_input" && at.starts_with(field), "{auth}: {:?}", refused.body);
    }
    let phone = json!({ "webhook": "https://sms.example.com/send?x=1", "secret": "SMS_KEY" });
    let manifest = json!({ "auth": { "methods": ["phone"], "phone": phone } });
    let plan = shop.client.output("app_plan", &json!({ "manifest": manifest })).unwrap();
    let text = plan.to_string();
    assert!(text.contains("texts by sms.example.com with the secret SMS_KEY"), "{text}");
}

#[test]
fn people_sign_in_by_a_text_on_the_page() {
    let shop = Shop::new("text-page", json!({ "methods": ["phone"] })).unwrap();
    browser(|browser| {
        browser.goto(&format!("{}/_/auth/ui?to=/", shop.app.url()))?;
        waits_for(browser, "document.querySelector('[name=phone]')");
        fill(browser, &[("phone", "+49 151 23456789")]);
        waits_for(browser, "document.querySelector('h1').textContent === 'Enter the code'");
        let code = shop.receiver.take(ADA)?["code"].as_str().context("no code")?.to_owned();
        fill(browser, &[("code", &code)]);
        waits_for(browser, "location.pathname === '/'");
        let stored = browser.evaluate("return JSON.parse(Object.values(localStorage)[0]).user.phone")?;
        assert_eq!(stored, ADA);
        browser.console().map(drop)
    })
    .unwrap();
}
