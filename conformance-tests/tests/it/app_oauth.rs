//! Signing in by somebody else's word, against a real OpenID provider and ones that speak as GitHub, WeChat and Apple do.

use std::sync::Arc;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::{App, Person, Reply, Session, Shared, encoded};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::{Client, OpenId, Steading, require};

use crate::app_second_factors::guard;
use crate::outsiders::{Outsider, SECRET, Walker, pairs};

const PASSWORD: &str = "a word that is long enough";

/// What the page keeps to itself.
pub const VERIFIER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// A private key of the curve P-256, for nothing but these tests.
fn apples_key() -> String {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    key.serialize_pem()
}

static DESK: Shared<Steading> = Shared::new();

/// A server whose apps may ask providers on this machine.
pub fn desk() -> Arc<Steading> {
    DESK.get(|| require(Steading::launch().env("STEADING_OUTBOUND_PRIVATE", "127.0.0.1").start()))
}

/// What a page finds in its address, and the cookies of its browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub code: String,
    pub cookies: String,
}

/// An app of a test alone.
pub struct Club {
    pub desk: Arc<Steading>,
    pub client: Client,
    pub app: App,
    pub env: String,
}

impl Club {
    /// An app whose secrets are set and whose sign-in is this.
    pub fn new(slug: &str, auth: &Value) -> Self {
        Self::at(desk(), slug, auth)
    }

    pub fn at(desk: Arc<Steading>, slug: &str, auth: &Value) -> Self {
        let made = desk.client().output("env_create", &json!({ "slug": slug })).unwrap();
        let client = desk.client().in_env(slug);
        for (name, value) in [("HUB", SECRET), ("ACME", OpenId::CLIENT.1), ("APPLE", &apples_key())] {
            client.output("secret_set", &json!({ "name": name, "value": value })).unwrap();
        }
        let manifest = json!({
            "auth": auth,
            "database": { "tables": { "notes": { "columns": { "text": "text!" }, "access": "private" } } },
            "site": { "files": { "index.html": "<!doctype html><link rel=icon href=data:,><title>Club</title>" } },
        });
        let applied = client.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        let app = App::new(applied["url"].as_str().unwrap());
        Self { desk, client, app, env: made["env"].as_str().unwrap_or_default().to_owned() }
    }

    pub fn callback(&self, provider: &str) -> String {
        format!("{}/_/auth/oauth/callback/{provider}", self.app.url())
    }

    /// The address that a page sends its browser to.
    pub fn start(&self, provider: &str, redirect: &str) -> String {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let redirect = encoded(redirect);
        format!("{}/_/auth/oauth/{provider}/start?redirect={redirect}&challenge={challenge}", self.app.url())
    }

    /// Goes to a provider that asks nothing, and back: what the page finds in its address.
    pub fn trip(&self, provider: &str) -> Result<Found, String> {
        let mut walker = Walker::default();
        let end = walker.walk(&self.start(provider, "/in"), "#auth_");
        self.found(&walker, &end)
    }

    /// What the page that it led to finds.
    pub fn found(&self, walker: &Walker, end: &str) -> Result<Found, String> {
        let code = landed(end, &format!("{}/in", self.app.url()))?;
        Ok(Found { code, cookies: walker.line(self.app.url()) })
    }

    /// Takes up what the page has found, as somebody.
    pub fn take_up(&self, by: &Person, found: &Found, link: bool) -> Reply {
        self.take_up_with(by, found, VERIFIER, link)
    }

    pub fn take_up_with(&self, by: &Person, found: &Found, verifier: &str, link: bool) -> Reply {
        let body = json!({ "code": found.code, "verifier": verifier, "link": link });
        let mut request = by.request("POST", "/_/auth/oauth/token").json(&body);
        if !found.cookies.is_empty() {
            request = request.header("cookie", &found.cookies);
        }
        Reply::of(request).unwrap()
    }

    /// Signs in with a provider that asks nothing.
    pub fn enter(&self, provider: &str) -> anyhow::Result<Person> {
        let code = self.trip(provider).map_err(anyhow::Error::msg)?;
        self.entered(&self.take_up(&self.app.visitor(), &code, false))
    }

    pub fn entered(&self, reply: &Reply) -> anyhow::Result<Person> {
        anyhow::ensure!(reply.status == 200, "no session: {reply:?}");
        Ok(Person { app: self.app.clone(), session: Some(Session::of(&reply.body)?) })
    }

    pub fn user(&self, id: &str) -> Value {
        self.client.output("auth_users", &json!({ "user": id })).unwrap()["users"][0].take()
    }
}

/// What a page at `page` finds in its address.
pub fn landed(end: &str, page: &str) -> Result<String, String> {
    let (at, fragment) = end.split_once('#').unwrap();
    assert_eq!(at, page);
    let found = pairs(fragment);
    match (found.get("auth_oauth"), found.get("auth_oauth_error")) {
        (Some(code), None) => Ok(code.clone()),
        (None, Some(error)) => Err(error.clone()),
        _ => panic!("{end}"),
    }
}

/// Signs somebody in on the provider's page, as a browser without scripts would.
pub fn at_provider(walker: &mut Walker, start: &str, form: &str, end: &str) -> String {
    let page = walker.walk(start, "/interaction/");
    let answer = walker.ask("POST", &page, Some(form));
    walker.walk(&Walker::led(&answer, &page), end)
}

pub fn oauth(providers: &Value) -> Value {
    json!({ "methods": ["oauth", "anonymous", "password"], "mfa": "optional", "providers": providers })
}

/// A real provider that knows two people, and an app that trusts it.
pub fn with_openid(slug: &str) -> (OpenId, Club) {
    let provider = require(OpenId::start());
    let acme = json!({ "issuer": provider.issuer(), "client_id": OpenId::CLIENT.0, "client_secret": "ACME",
        "addresses": ["example.org"] });
    let club = Club::new(slug, &oauth(&json!({ "acme": acme })));
    let accounts = json!({
        "ada": { "email": "ada@example.org", "email_verified": true },
        "bea": { "email": "bea@example.org", "email_verified": false },
    });
    provider.control(&json!({ "accounts": accounts, "redirects": [club.callback("acme")] })).unwrap();
    (provider, club)
}

fn signed_in(club: &Club, login: &str) -> Person {
    let mut walker = Walker::default();
    let end = at_provider(&mut walker, &club.start("acme", "/in"), &format!("login={login}"), "#auth_");
    let code = club.found(&walker, &end).unwrap();
    club.entered(&club.take_up(&club.app.visitor(), &code, false)).unwrap()
}

#[test]
fn an_openid_provider_says_who_it_is_today_and_tomorrow_under_other_keys() {
    let (provider, club) = with_openid("oauth-openid");
    let ada = signed_in(&club, "ada");
    let user = club.user(ada.id());
    assert_eq!(
        [&user["email"], &user["email_verified"], &user["providers"], &user["anonymous"]],
        [&json!("ada@example.org"), &json!(true), &json!(["acme"]), &json!(false)]
    );
    let sessions = ada.ask("GET", "/_/auth/sessions").unwrap().body;
    assert_eq!(sessions["sessions"][0]["method"], "oauth:acme");
    let identities = ada.ask("GET", "/_/auth/identities").unwrap().body;
    assert_eq!(identities["identities"][0]["provider"], "acme");
    assert_eq!(ada.ask("GET", "/_/auth/me/export").unwrap().body["identities"], identities["identities"]);
    provider.control(&json!({ "redirects": [club.callback("acme")] })).unwrap();
    assert_eq!(signed_in(&club, "ada").id(), ada.id());
    // An address that the provider has not confirmed is none.
    let bea = signed_in(&club, "bea");
    let user = club.user(bea.id());
    assert_eq!((&user["email"], &user["providers"]), (&Value::Null, &json!(["acme"])));
    assert_ne!(bea.id(), ada.id());
    let said = club.client.output("app_describe", &json!({})).unwrap();
    assert_eq!(said["auth"]["providers"], json!(["acme"]));
    assert_eq!(said["auth"]["callback"], json!(club.callback("{provider}")));
}

#[test]
fn who_says_no_at_the_provider_is_back_without_a_session() {
    let (_provider, club) = with_openid("oauth-no");
    let mut walker = Walker::default();
    let end = at_provider(&mut walker, &club.start("acme", "/in"), "no=1", "#auth_");
    assert_eq!(landed(&end, &format!("{}/in", club.app.url())), Err("denied".to_owned()));
    assert!(walker.cookies.values().flatten().all(|(name, _)| !name.contains("oauth")), "the cookie stays");
    let users = club.client.output("auth_users", &json!({})).unwrap();
    assert_eq!(users["users"], json!([]));
}

#[test]
fn github_wechat_and_apple_are_spoken_to_as_they_speak() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-ready", &oauth(&outsider.providers()));
    let emails = json!([
        { "email": "other@example.org", "primary": false, "verified": true },
        { "email": "hub@example.org", "primary": true, "verified": true },
    ]);
    outsider.is(json!({ "id": 7, "emails": emails }));
    let hub = club.enter("github").unwrap();
    assert_eq!(club.user(hub.id())["email"], "hub@example.org");
    assert_eq!(club.enter("github").unwrap().id(), hub.id());
    // An address that GitHub has not confirmed is none.
    outsider.is(
        json!({ "id": 8, "emails": [{ "email": "hub@example.org", "primary": true, "verified": false }] }),
    );
    assert_eq!(club.user(club.enter("github").unwrap().id())["email"], Value::Null);

    outsider.is(json!({ "openid": "o1", "unionid": "u1" }));
    let wx = club.enter("wechat").unwrap();
    let asked =
        outsider.said().asked.iter().rev().find(|it| it.starts_with("/wx/qrconnect")).cloned().unwrap();
    assert!(asked.starts_with("/wx/qrconnect?appid=wx1&redirect_uri=http%3A%2F%2F"), "{asked}");
    // The same person through another app of the account, and without the union.
    for person in
        [json!({ "openid": "o2", "unionid": "u1" }), json!({ "openid": "o1" }), json!({ "openid": "o2" })]
    {
        outsider.is(person);
        assert_eq!(club.enter("wechat").unwrap().id(), wx.id());
    }
    outsider.is(json!({ "openid": "u1" }));
    assert_ne!(club.enter("wechat").unwrap().id(), wx.id(), "an openid is no unionid");
    outsider.is(json!({ "openid": "" }));
    assert_eq!(club.trip("wechat"), Err("failed".to_owned()));

    outsider.is(json!({ "sub": "001.a", "email": "ada@privaterelay.example", "email_verified": "true" }));
    let mut walker = Walker::default();
    let page = walker.walk(&club.start("apple", "/in"), "/apple/authorize");
    assert_eq!(pairs(page.split_once('?').unwrap().1)["response_mode"], "form_post");
    let form = walker.ask("GET", &page, None);
    let text = form.text().unwrap();
    let field = |name: &str| {
        text.split_once(&format!("{name} value='"))
            .or(text.split_once(&format!("'{name}' value='")))
            .unwrap()
            .1
            .split_once('\'')
            .unwrap()
            .0
            .to_owned()
    };
    let form = format!("state={}&code={}", field("state"), field("code"));
    let answer = walker.ask("POST", &club.callback("apple"), Some(&form));
    assert_eq!(answer.status, 303, "{answer:?}");
    let end = Walker::led(&answer, &club.callback("apple"));
    let code = club.found(&walker, &end).unwrap();
    let ada = club.entered(&club.take_up(&club.app.visitor(), &code, false)).unwrap();
    assert_eq!(club.user(ada.id())["email"], "ada@privaterelay.example");
    let secret = outsider.said().secrets[0].clone();
    let claims = secret.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        [&claims["iss"], &claims["sub"], &claims["aud"]],
        [&json!("TEAM"), &json!("ap"), &json!(outsider.url)]
    );
}

#[test]
fn an_anonymous_user_becomes_the_account_and_keeps_the_rows() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-keep", &oauth(&outsider.providers()));
    outsider.is(json!({ "openid": "o1" }));
    let stranger = club.app.stranger().unwrap();
    let note = stranger.create("notes", &json!({ "text": "from before" })).unwrap();
    let taken = club.take_up(&stranger, &club.trip("wechat").unwrap(), false);
    let known = club.entered(&taken).unwrap();
    assert_eq!((known.id(), &taken.body["user"]["anonymous"]), (stranger.id(), &json!(false)));
    known.list("notes", &[]).unwrap().lists(&[note["id"].as_str().unwrap()]).unwrap();
    stranger.ask("GET", "/_/auth/me").unwrap().refuses(401, "unauthenticated").unwrap();
    // Somebody else who is here anonymously is let in as who it is, and changes nothing of that account.
    let second = club.app.stranger().unwrap();
    let again = club.entered(&club.take_up(&second, &club.trip("wechat").unwrap(), false)).unwrap();
    assert_eq!(again.id(), known.id());
    let third = club.app.stranger().unwrap();
    club.take_up(&third, &club.trip("wechat").unwrap(), true).refuses(409, "conflict").unwrap();
    assert_eq!(third.ask("GET", "/_/auth/me").unwrap().status, 200);
}

#[test]
fn identities_are_linked_to_who_is_here_and_taken_away_but_for_the_last() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-link", &oauth(&outsider.providers()));
    outsider.is(json!({ "id": 1, "openid": "o1", "emails": [] }));
    let ada = club.app.sign_up("ada@example.org", PASSWORD).unwrap();
    let linked = club.take_up(&ada, &club.trip("github").unwrap(), true);
    assert_eq!((linked.status, &linked.body["user"]["id"]), (200, &json!(ada.id())), "{linked:?}");
    assert_eq!(linked.body["access_token"], Value::Null, "the session is the one that asks");
    assert_eq!(club.enter("github").unwrap().id(), ada.id());
    club.take_up(&ada, &club.trip("wechat").unwrap(), true);
    assert_eq!(club.user(ada.id())["providers"], json!(["github", "wechat"]));
    // It is hers; nobody else has it too.
    let bea = club.app.sign_up("bea@example.org", PASSWORD).unwrap();
    club.take_up(&bea, &club.trip("github").unwrap(), true).refuses(409, "conflict").unwrap();
    club.take_up(&club.app.visitor(), &club.trip("github").unwrap(), true)
        .refuses(401, "unauthenticated")
        .unwrap();
    // What is taken away opens nothing any more, and ends what it has opened.
    let by_hub = club.enter("github").unwrap();
    bea.ask("DELETE", "/_/auth/identities/github").unwrap().refuses(404, "not_found").unwrap();
    assert_eq!(ada.ask("DELETE", "/_/auth/identities/github").unwrap().status, 204);
    by_hub.ask("GET", "/_/auth/me").unwrap().refuses(401, "unauthenticated").unwrap();
    assert_ne!(club.enter("github").unwrap().id(), ada.id());
    ada.ask("DELETE", "/_/auth/identities/email").unwrap().refuses(404, "not_found").unwrap();
    // With her password she has a way in without any; without it the last one stays.
    assert_eq!(ada.ask("DELETE", "/_/auth/identities/wechat").unwrap().status, 204);
    outsider.is(json!({ "openid": "o9" }));
    let wx = club.enter("wechat").unwrap();
    wx.ask("DELETE", "/_/auth/identities/wechat").unwrap().refuses(409, "conflict").unwrap();
    // A provider that the app has no more is no way in.
    outsider.is(json!({ "id": 5, "openid": "o9", "emails": [] }));
    club.take_up(&wx, &club.trip("github").unwrap(), true);
    let mut providers = outsider.providers();
    providers.as_object_mut().unwrap().remove("github");
    club.client.output("auth_configure", &json!({ "providers": providers })).unwrap();
    wx.ask("DELETE", "/_/auth/identities/wechat").unwrap().refuses(409, "conflict").unwrap();
    assert_eq!(wx.ask("DELETE", "/_/auth/identities/github").unwrap().status, 204);
    // Whoever leaves takes the identity along.
    assert_eq!(wx.send("DELETE", "/_/auth/me", &json!({})).unwrap().status, 204);
    assert_ne!(club.enter("wechat").unwrap().id(), wx.id());
}

#[test]
fn an_address_ties_an_identity_to_an_account_only_where_both_sides_have_confirmed_it() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-hijack", &oauth(&outsider.providers()));
    let person = |id: u32, email: &str| json!({ "id": id, "emails": [{ "email": email, "primary": true, "verified": true }] });
    // The app's makers vouch for this address.
    let made = club
        .client
        .output("auth_user_set", &json!({ "user": "ada@example.org", "password": PASSWORD }))
        .unwrap();
    outsider.is(person(1, "ada@example.org"));
    let ada = club.enter("github").unwrap();
    assert_eq!(json!(ada.id()), made["user"]["id"]);
    let told =
        club.client.output("auth_users", &json!({ "user": "ada@example.org", "mails": true })).unwrap();
    assert!(told.to_string().contains("Another way to sign in"), "{told}");
    assert_eq!(club.app.login("ada@example.org", PASSWORD).unwrap().id(), ada.id());
    // Nobody has confirmed that this one is the squatter's, who has ways in of all kinds.
    let squatter = club.app.sign_up("bea@example.org", PASSWORD).unwrap();
    outsider.is(json!({ "openid": "squatter" }));
    assert_eq!(club.take_up(&squatter, &club.trip("wechat").unwrap(), true).status, 200);
    // A second factor would keep the owner out, who reads the mail.
    let refused = squatter.send("POST", "/_/auth/mfa/totp", &json!({})).unwrap();
    refused.refuses(409, "conflict").unwrap();
    outsider.is(person(2, "bea@example.org"));
    let bea = club.enter("github").unwrap();
    squatter.ask("GET", "/_/auth/me").unwrap().refuses(401, "unauthenticated").unwrap();
    club.app
        .auth("login", &json!({ "email": "bea@example.org", "password": PASSWORD }))
        .unwrap()
        .refuses(401, "unauthenticated")
        .unwrap();
    outsider.is(json!({ "openid": "squatter" }));
    assert_ne!(club.enter("wechat").unwrap().id(), bea.id());
    let user = club.user(bea.id());
    assert_eq!([&user["providers"], &user["mfa"]], [&json!(["github"]), &Value::Null]);
    // The address was given to somebody else there: not to the account as well.
    outsider.is(person(3, "ada@example.org"));
    let code = club.trip("github").unwrap();
    club.take_up(&club.app.visitor(), &code, false).refuses(409, "conflict").unwrap();
}

#[test]
fn who_came_without_an_address_gets_one_and_another_way_in() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-address", &oauth(&outsider.providers()));
    outsider.is(json!({ "openid": "o1" }));
    let ada = club.enter("wechat").unwrap();
    let sent = ada.send("POST", "/_/auth/email", &json!({ "email": "ada@example.org" })).unwrap();
    assert_eq!(sent.status, 202, "{sent:?}");
    let mail = || {
        let wanted = json!({ "user": "ada@example.org", "mails": true });
        let mails = club.client.output("auth_users", &wanted).ok()?;
        mails["mails"][0]["text"].as_str().map(str::to_owned)
    };
    let mail = testkit::eventually(std::time::Duration::from_secs(20), mail).unwrap();
    let code =
        mail.lines().map(str::trim).find(|line| line.len() == 6 && line.parse::<u32>().is_ok()).unwrap();
    let shown = json!({ "email": "ada@example.org", "code": code });
    let changed = ada.send("POST", "/_/auth/email/verify", &shown).unwrap();
    assert_eq!(changed.body["user"]["email_verified"], true, "{changed:?}");
    // With it a password can be had: the only way in is one no more.
    assert_eq!(ada.ask("DELETE", "/_/auth/identities/wechat").unwrap().status, 204);
}

#[test]
fn somebody_elses_word_is_one_factor_where_an_account_has_a_second() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-second", &oauth(&outsider.providers()));
    outsider.is(json!({ "openid": "o1" }));
    let ada = club.enter("wechat").unwrap();
    let made = guard(&ada).unwrap();
    let reply = club.take_up(&club.app.visitor(), &club.trip("wechat").unwrap(), false);
    assert_eq!((reply.status, &reply.body["access_token"]), (200, &Value::Null), "{reply:?}");
    let ticket = reply.body["mfa"]["ticket"].as_str().unwrap();
    let shown = json!({ "ticket": ticket, "recovery_code": made.recovery[0] });
    let again = club.entered(&club.app.auth("mfa/verify", &shown).unwrap()).unwrap();
    assert_eq!(again.id(), ada.id());
    let sessions = again.ask("GET", "/_/auth/sessions").unwrap().body;
    assert_eq!(sessions["sessions"][0]["method"], "oauth:wechat");
}

#[test]
fn nobody_gets_in_whom_the_app_does_not_let_in() {
    let outsider = Outsider::start();
    let club = Club::new("oauth-closed", &oauth(&outsider.providers()));
    let person = |id: u32, email: &str| json!({ "id": id, "emails": [{ "email": email, "primary": true, "verified": true }] });
    outsider.is(person(1, "ada@example.org"));
    let ada = club.enter("github").unwrap();
    let pending = club.trip("github").unwrap();
    club.client.output("auth_user_set", &json!({ "user": ada.id(), "disabled": true })).unwrap();
    club.take_up(&club.app.visitor(), &pending, false).refuses(403, "forbidden").unwrap();
    for signup in ["closed", "invite"] {
        let change = json!({ "methods": ["oauth", "password"], "signup": signup });
        club.client.output("auth_configure", &change).unwrap();
        outsider.is(person(2, "new@example.org"));
        let code = club.trip("github").unwrap();
        club.take_up(&club.app.visitor(), &code, false).refuses(403, "forbidden").unwrap();
    }
    club.client.output("auth_user_set", &json!({ "user": "new@example.org", "invite": true })).unwrap();
    assert_eq!(club.user(club.enter("github").unwrap().id())["email"], "new@example.org");
    let code = club.trip("github").unwrap();
    club.client.output("auth_configure", &json!({ "methods": ["password"] })).unwrap();
    club.take_up(&club.app.visitor(), &code, false).refuses(403, "forbidden").unwrap();
    let refused = Reply::of(testkit::http::Request::get(&club.start("github", "/in"))).unwrap();
    refused.refuses(403, "forbidden").unwrap();
}

#[test]
fn a_manifest_says_what_is_missing_before_anything_holds() {
    let club = Club::new("oauth-manifest", &json!({ "methods": [] }));
    let applied =
        |auth: Value| club.client.call("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    for (auth, field) in [
        (json!({ "methods": ["oauth"] }), "/manifest/auth/methods"),
        (json!({ "methods": ["custom"] }), "/manifest/auth/methods"),
        (json!({ "providers": { "acme": { "client_id": "x" } } }), "/manifest/auth/providers/acme/issuer"),
        (
            json!({ "providers": { "google": { "client_id": "x", "client_secret": "NOT_SET" } } }),
            "/manifest/auth/providers/google/client_secret",
        ),
        (json!({ "custom": { "secret": "NOT_SET" } }), "/manifest/auth/custom/secret"),
        (json!({ "custom": { "keys": [{ "kty": "oct", "k": "AA" }] } }), "/manifest/auth/custom/keys/0"),
        (
            json!({ "providers": { "google": { "client_id": "x", "secret": "HUB" } } }),
            "/manifest/auth/providers/google/secret",
        ),
    ] {
        let refused = applied(auth.clone());
        assert_eq!(
            (refused.code(), refused.body["field"].as_str()),
            ("invalid_input", Some(field)),
            "{auth}"
        );
    }
    let missing =
        applied(json!({ "providers": { "google": { "client_id": "x", "client_secret": "NOT_SET" } } }));
    assert_eq!(missing.body["hint"], "set it with secret_set first, without hosts");
    let google = json!({ "methods": ["oauth"], "providers": { "google": { "client_id": "x", "client_secret": "HUB" } } });
    let planned = club.client.output("app_plan", &json!({ "manifest": { "auth": google } })).unwrap();
    let effect = planned["effects"][0].to_string();
    assert!(effect.contains("google is trusted as x") && effect.contains("privilege"), "{effect}");
    let set = club
        .client
        .output("auth_configure", &json!({ "providers": google["providers"], "methods": ["oauth"] }));
    let set = set.context("auth_configure").unwrap();
    assert_eq!(
        [&set["providers"], &set["callback"]],
        [&json!(["google"]), &json!(club.callback("{provider}"))]
    );
}
