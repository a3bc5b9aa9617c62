//! Signing in by mail, against a real mail server: what it opens, and what it opens to nobody else.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Reply, Session, Shared};
use serde_json::{Value, json};
use testkit::{Client, Mail, Mailbox, Steading, require};

const PASSWORD: &str = "a word that is long enough";

/// A server that sends its mail.
pub struct Desk {
    steading: Steading,
    pub mailbox: Mailbox,
}

static DESK: Shared<Desk> = Shared::new();

pub fn desk() -> Arc<Desk> {
    DESK.get(|| {
        let mailbox = require(Mailbox::start());
        let launch = Steading::launch()
            .env("STEADING_MAIL_SMTP", mailbox.url())
            .env("STEADING_MAIL_FROM", "no-reply@platform.example");
        Desk { steading: require(launch.start()), mailbox }
    })
}

/// An app of a test alone.
pub struct Shop {
    pub desk: Arc<Desk>,
    pub client: Client,
    pub app: App,
}

impl Shop {
    /// An app with these settings of sign-in.
    pub fn new(slug: &str, auth: Value) -> anyhow::Result<Self> {
        let desk = desk();
        desk.steading.client().output("env_create", &json!({ "slug": slug }))?;
        let client = desk.steading.client().in_env(slug);
        let manifest = json!({
            "name": "Shöp",
            "auth": auth,
            "database": { "tables": {
                "notes": { "columns": { "text": "text!" }, "access": "private" },
                "letters": {
                    "columns": { "email": "text!", "text": "text!" },
                    "access": { "list": "row.email == auth.email", "get": "row.email == auth.email" },
                },
            } },
            "site": { "files": { "index.html": "<!doctype html><title>Shop</title>" } },
        });
        let applied = client.output("app_apply", &json!({ "manifest": manifest }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        Ok(Self { desk, client, app })
    }

    /// Asks for a code and takes it out of the mailbox.
    pub fn code(&self, email: &str) -> anyhow::Result<Mail> {
        let sent = self.app.auth("otp", &json!({ "email": email }))?;
        ensure!(sent.status == 202, "not sent: {sent:?}");
        self.take(email, "Sign in to")
    }

    /// The mail of this app to this address, taken out of the mailbox.
    pub fn take(&self, email: &str, subject: &str) -> anyhow::Result<Mail> {
        let ours = |mail: &Mail| mail.to == email && mail.text.contains(self.app.url());
        let found = self.desk.mailbox.take(|mail| ours(mail) && mail.subject().contains(subject));
        found.with_context(|| format!("{subject:?} to {email}"))
    }

    /// Signs in by mail.
    pub fn enter(&self, email: &str) -> anyhow::Result<Person> {
        let mail = self.code(email)?;
        self.entered(&self.verify(email, mail.code().context("no code")?)?)
    }

    pub fn verify(&self, email: &str, code: &str) -> anyhow::Result<Reply> {
        self.app.auth("otp/verify", &json!({ "email": email, "code": code }))
    }

    pub fn entered(&self, reply: &Reply) -> anyhow::Result<Person> {
        ensure!(reply.status == 200, "no session: {reply:?}");
        Ok(Person { app: self.app.clone(), session: Some(Session::of(&reply.body)?) })
    }

    pub fn mails_to(&self, email: &str) -> anyhow::Result<Vec<Mail>> {
        let ours = |mail: &Mail| mail.to == email && mail.text.contains(self.app.url());
        Ok(self.desk.mailbox.mails()?.into_iter().filter(ours).collect())
    }
}

/// Another code than this one.
pub fn other(code: &str) -> String {
    let last = if code.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &code[..code.len() - 1])
}

/// What an answer says, without what differs from call to call.
fn said(reply: &Reply) -> String {
    let per_call = ["date", "x-request-id", "content-length"];
    let headers: Vec<_> =
        reply.headers.iter().filter(|(name, _)| !per_call.contains(&name.as_str())).collect();
    let mut body = reply.body.clone();
    body.as_object_mut().map(|fields| fields.remove("request_id"));
    format!("{} {headers:?} {body}", reply.status)
}

#[test]
fn a_mailed_code_signs_in_once_and_proves_the_address() {
    let shop = Shop::new("mail-once", json!({ "methods": ["otp"] })).unwrap();
    let mail = shop.code("ada@example.org").unwrap();
    assert!(
        mail.head.contains("From: ") && mail.head.contains("<no-reply@platform.example>"),
        "{}",
        mail.head
    );
    assert!(mail.head.contains("Auto-Submitted: auto-generated"), "{}", mail.head);
    assert!(mail.text.contains("Shöp") && !mail.head.contains(mail.code().unwrap()), "{mail:?}");
    let link = mail.link().unwrap();
    assert!(link.starts_with(&format!("{}/_/auth/ui#link=lt_", shop.app.url())), "{link}");

    let code = mail.code().unwrap();
    shop.verify("ada@example.org", &other(code)).unwrap().refuses(401, "unauthenticated").unwrap();
    let reply = shop.verify(" Ada@Example.org", &format!("{} {}", &code[..3], &code[3..])).unwrap();
    let ada = shop.entered(&reply).unwrap();
    assert_eq!(
        json!([
            reply.body["user"]["email"],
            reply.body["user"]["email_verified"],
            reply.body["user"]["anonymous"]
        ]),
        json!(["ada@example.org", true, false])
    );
    ada.create("notes", &json!({ "text": "mine" })).unwrap();
    // The code is spent, and so is the link of the same mail.
    shop.verify("ada@example.org", code).unwrap().refuses(401, "unauthenticated").unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    shop.app.auth("otp/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();

    // The next mail is of the same user; this time by the link.
    let mail = shop.code("ada@example.org").unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    let again = shop.entered(&shop.app.auth("otp/verify", &link).unwrap()).unwrap();
    assert_eq!(again.id(), ada.id());
    again
        .list("notes", &[])
        .unwrap()
        .lists(&[ada.list("notes", &[]).unwrap().body["rows"][0]["id"].as_str().unwrap()])
        .unwrap();
    shop.app.auth("otp/verify", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    // Rules see the address, since it is hers.
    let sql = "INSERT INTO letters (id, email, text, created_at, updated_at) VALUES ('1', 'ada@example.org', 'dear', \
               '2026-01-01T00:00:00.000Z', '2026-01-01T00:00:00.000Z')";
    shop.client.output("db_execute", &json!({ "sql": sql })).unwrap();
    again.list("letters", &[]).unwrap().lists(&["1"]).unwrap();
}

#[test]
fn a_code_is_guessed_by_nobody() {
    let shop = Shop::new("mail-guess", json!({ "methods": ["otp"] })).unwrap();
    let mail = shop.code("ada@example.org").unwrap();
    let code = mail.code().unwrap();
    let mut refused = None;
    for guess in 0..30 {
        let reply = shop.verify("ada@example.org", &other(code)).unwrap();
        if reply.status == 429 {
            refused = Some(reply);
            break;
        }
        assert!(guess < 15, "fifteen guesses, and nothing stops them");
        reply.refuses(401, "unauthenticated").unwrap();
    }
    let refused = refused.unwrap();
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    // Now the right one is worth nothing from here. The link, which nobody guesses, still is.
    shop.verify("ada@example.org", code).unwrap().refuses(429, "rate_limited").unwrap();
    // An address that was never heard of is held back just so, and another one is not held back at all.
    let held = (0..30).map(|guess| shop.verify("nobody@example.org", &format!("{guess:06}")).unwrap().status);
    let held = held.take_while(|status| *status == 401).count();
    assert!((10..15).contains(&held), "held back after {held}");
    shop.verify("nobody@example.org", "000000").unwrap().refuses(429, "rate_limited").unwrap();
    shop.enter("eve@example.org").unwrap();
    let link = json!({ "token": mail.token().unwrap() });
    shop.entered(&shop.app.auth("otp/verify", &link).unwrap()).unwrap();
    // Mail to one address, asked for again and again, ends too.
    let asked: BTreeSet<u16> = (0..10)
        .map(|_| shop.app.auth("otp", &json!({ "email": "eve@example.org" })).unwrap().status)
        .collect();
    assert_eq!(asked, BTreeSet::from([202, 429]));
}

#[test]
fn no_answer_tells_who_has_an_account() {
    let auth = json!({ "methods": ["otp", "password"] });
    let shop = Shop::new("mail-enum", auth).unwrap();
    shop.enter("ada@example.org").unwrap();
    let both = |route: &str, more: Value| {
        let ask = |email: &str| {
            let mut body = json!({ "email": email });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            said(&shop.app.auth(route, &body).unwrap())
        };
        let (known, unknown) = (ask("ada@example.org"), ask("bea@example.org"));
        assert_eq!(known, unknown, "{route}");
        known
    };
    assert!(both("otp", json!({})).starts_with("202 "));
    assert!(both("password/forgot", json!({})).starts_with("202 "));
    assert!(both("signup", json!({ "password": PASSWORD })).starts_with("202 "));
    assert!(both("otp/verify", json!({ "code": "000000" })).starts_with("401 "));
    assert!(both("password/reset", json!({ "code": "000000", "password": PASSWORD })).starts_with("401 "));
    assert!(both("login", json!({ "password": PASSWORD })).starts_with("401 "));
    // The owner of the address is told, and a stranger's password is not hers.
    let told = shop.take("ada@example.org", "You have an account at").unwrap();
    assert!(told.code().is_none() && told.link().is_none(), "{told:?}");
    // Who has no account gets no mail to set its password.
    shop.take("ada@example.org", "Reset your password").unwrap();
    shop.take("bea@example.org", "Confirm your address").unwrap();
    let to_bea = shop.mails_to("bea@example.org").unwrap();
    assert!(to_bea.iter().all(|mail| !mail.subject().contains("Reset")), "{to_bea:?}");
}

#[test]
fn what_was_mailed_opens_no_other_environment_and_no_other_account() {
    let auth = json!({ "methods": ["otp", "password"] });
    let (one, two) = (Shop::new("mail-one", auth.clone()).unwrap(), Shop::new("mail-two", auth).unwrap());
    one.enter("ada@example.org").unwrap();
    two.enter("ada@example.org").unwrap();
    let mail = one.code("ada@example.org").unwrap();
    let (code, token) = (mail.code().unwrap(), mail.token().unwrap());
    // With codes of their own under way, each environment knows just those.
    two.code("ada@example.org").unwrap();
    let elsewhere = two.app.auth("otp/verify", &json!({ "token": token })).unwrap();
    elsewhere.refuses(401, "unauthenticated").unwrap();
    let theirs = two.verify("ada@example.org", code).unwrap();
    theirs.refuses(401, "unauthenticated").unwrap();
    // Nor another address, another purpose, or another route.
    one.verify("bea@example.org", code).unwrap().refuses(401, "unauthenticated").unwrap();
    for body in [
        json!({ "email": "ada@example.org", "code": code, "password": PASSWORD }),
        json!({ "token": token, "password": PASSWORD }),
    ] {
        one.app.auth("password/reset", &body).unwrap().refuses(401, "unauthenticated").unwrap();
    }
    one.app
        .auth("email/verify", &json!({ "token": token }))
        .unwrap()
        .refuses(401, "unauthenticated")
        .unwrap();
    one.entered(&one.verify("ada@example.org", code).unwrap()).unwrap();
}

#[test]
fn what_is_typed_reaches_no_header_and_nobody_else() {
    let shop = Shop::new("mail-inject", json!({ "methods": ["otp"] })).unwrap();
    for email in [
        "ada@example.org\r\nBcc: eve@example.org",
        "ada@example.org\nBcc: eve@example.org",
        "ada@example.org,eve@example.org",
        "ada@example.org;eve@example.org",
        "ada@example.org eve@example.org",
        "\"ada\r\n\"@example.org",
        "<ada@example.org>",
        "ada@example.org\0",
        "ada@[127.0.0.1]",
        "ada%eve@example.org@evil.example",
        "",
    ] {
        let reply = shop.app.auth("otp", &json!({ "email": email })).unwrap();
        reply.refuses(400, "invalid_input").with_context(|| email.to_owned()).unwrap();
    }
    // Whatever Host a request names, links lead to the app's own address.
    let request = shop.app.request("POST", "/_/auth/otp").header("x-forwarded-host", "evil.example");
    let reply = Reply::of(request.json(&json!({ "email": "host@example.org" }))).unwrap();
    assert_eq!(reply.status, 202, "{reply:?}");
    let mail = shop.take("host@example.org", "Sign in").unwrap();
    assert!(mail.link().unwrap().starts_with(shop.app.url()) && !mail.text.contains("evil"), "{mail:?}");
    for (body, why) in [
        (json!({ "email": "ada@example.org", "code": 123_456 }), "a number"),
        (json!({ "email": "ada@example.org", "code": "12345" }), "five digits"),
        (json!({ "email": "ada@example.org", "code": "1234567" }), "seven digits"),
        (json!({ "email": "ada@example.org", "code": "12345a" }), "a letter"),
        (json!({ "email": "ada@example.org" }), "no code"),
        (json!({ "email": "ada@example.org", "code": "123456", "token": "x" }), "both"),
        (json!({ "code": "123456" }), "no address"),
        (json!({}), "nothing"),
        (json!({ "email": "ada@example.org", "code": "123456", "role": "admin" }), "more"),
    ] {
        let reply = shop.app.auth("otp/verify", &body).unwrap();
        reply.refuses(400, "invalid_input").context(why).unwrap();
    }
    let long = json!({ "token": "stead_lt_".to_owned() + &"A".repeat(10_000) });
    shop.app.auth("otp/verify", &long).unwrap().refuses(401, "unauthenticated").unwrap();
}

#[test]
fn links_lead_to_the_app_and_to_what_it_lists() {
    let auth = json!({ "methods": ["otp"], "redirects": ["https://friend.example/in/"] });
    let shop = Shop::new("mail-redirect", auth).unwrap();
    for (n, (wanted, to)) in [
        ("/welcome?a=1", "/welcome?a=1"),
        ("https://friend.example/in/here", "https://friend.example/in/here"),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("ada{n}@example.org");
        let sent = shop.app.auth("otp", &json!({ "email": email, "redirect": wanted })).unwrap();
        assert_eq!(sent.status, 202, "{sent:?}");
        let mail = shop.take(&email, "Sign in").unwrap();
        let reply = shop.app.auth("otp/verify", &json!({ "token": mail.token().unwrap() })).unwrap();
        shop.entered(&reply).unwrap();
        assert_eq!(reply.body["redirect"], to);
    }
    for wanted in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "https://friend.example/",
        "https://friend.example/in/../out",
        "https://friend.example@evil.example/in/",
        "javascript:alert(1)",
        "http://friend.example/in/x",
        "",
    ] {
        let reply = shop.app.auth("otp", &json!({ "email": "eve@example.org", "redirect": wanted })).unwrap();
        reply.refuses(400, "invalid_input").with_context(|| wanted.to_owned()).unwrap();
        assert_eq!(reply.body["field"], "/redirect");
    }
    assert_eq!(shop.mails_to("eve@example.org").unwrap(), []);
}

#[test]
fn an_anonymous_user_becomes_the_account_of_who_reads_the_mail() {
    let shop = Shop::new("mail-upgrade", json!({ "methods": ["anonymous", "otp"] })).unwrap();
    let stranger = shop.app.stranger().unwrap();
    let note = stranger.create("notes", &json!({ "text": "from before" })).unwrap();
    let mail = shop.code("ada@example.org").unwrap();
    let body = json!({ "email": "ada@example.org", "code": mail.code().unwrap() });
    let reply = stranger.send("POST", "/_/auth/otp/verify", &body).unwrap();
    let ada = shop.entered(&reply).unwrap();
    assert_eq!((ada.id(), &reply.body["user"]["anonymous"]), (stranger.id(), &json!(false)));
    ada.list("notes", &[]).unwrap().lists(&[note["id"].as_str().unwrap()]).unwrap();
    // The session from before is over.
    stranger.ask("GET", "/_/auth/me").unwrap().refuses(401, "unauthenticated").unwrap();
    // Another stranger who reads the same mailbox is that account from then on, and stays nobody's.
    let second = shop.app.stranger().unwrap();
    let mail = shop.code("ada@example.org").unwrap();
    let body = json!({ "email": "ada@example.org", "code": mail.code().unwrap() });
    let again = shop.entered(&second.send("POST", "/_/auth/otp/verify", &body).unwrap()).unwrap();
    assert_eq!(again.id(), ada.id());
}
