//! The way to a provider and back in a real browser, and what a browser is not talked into.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use conformance_tests::{Reply, browser};
use serde_json::{Value, json};
use testkit::{Chromium, eventually};

use crate::app_oauth::{Club, VERIFIER, with_openid};
use crate::app_oauth_attacks::by_secret;
use crate::outsiders::Outsider;

const LIMIT: Duration = Duration::from_secs(20);

fn waits_for(browser: &Chromium, expression: &str) {
    let holds = || (browser.evaluate(&format!("return !!({expression})")).ok()? == true).then_some(());
    let page = || (browser.url(), browser.evaluate("return document.body.innerText"));
    assert!(eventually(LIMIT, holds).is_some(), "{expression}: {:?}", page());
}

/// Runs a script with the app's client in the page that is open.
fn with_client(browser: &Chromium, script: &str) -> Value {
    let script = format!(
        "return (async () => {{ const {{ createClient }} = await import('/_/sdk.js'); \
         const app = createClient(); {script} }})()"
    );
    browser.evaluate(&script).unwrap_or_else(|e| panic!("{e:#}\n{script}"))
}

/// Forgets what the page before has kept.
fn afresh(browser: &Chromium, club: &Club) {
    browser.goto(club.app.url()).unwrap();
    browser.evaluate("localStorage.clear(); sessionStorage.clear()").unwrap();
}

fn press(browser: &Chromium, text: &str) {
    let find =
        format!("[...document.querySelectorAll('button')].find((it) => it.textContent === {})", json!(text));
    waits_for(browser, &find);
    browser.evaluate(&format!("{find}.click()")).unwrap();
}

#[test]
fn the_page_that_is_there_offers_each_provider_and_says_what_came_of_it() {
    let (_provider, club) = with_openid("oauth-page");
    let page = format!("{}/_/auth/ui?to=/welcome", club.app.url());
    browser(|browser| {
        browser.goto(&page)?;
        press(browser, "Continue with Acme");
        waits_for(browser, "document.querySelector('#no')");
        browser.click("#no")?;
        waits_for(browser, "document.querySelector('#note')?.textContent === 'You did not sign in there.'");
        assert_eq!(browser.evaluate("return location.hash")?, "");
        assert_eq!(browser.evaluate("return localStorage.length")?, 0);
        press(browser, "Continue with Acme");
        browser.type_into("[name=login]", "ada")?;
        browser.click("#go")?;
        waits_for(browser, "location.pathname === '/welcome'");
        let user = browser.evaluate("return JSON.parse(Object.values(localStorage)[0]).user.email")?;
        assert_eq!(user, "ada@example.org");
        assert_eq!(browser.evaluate("return [document.cookie, sessionStorage.length]")?, json!(["", 0]));
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn a_page_sends_somebody_away_and_takes_up_what_comes_back() {
    let outsider = Outsider::start();
    let auth = json!({ "methods": ["oauth", "anonymous"], "providers": outsider.providers() });
    let club = Club::new("oauth-sdk", &auth);
    outsider.is(json!({ "id": 1, "openid": "o1", "emails": [], "sub": "001", "email": "a@b.example", "email_verified": true }));
    browser(|browser| {
        afresh(browser, &club);
        let before = with_client(browser, "const { id } = await app.auth.anonymous(); void app.auth.signInWith('wechat'); return id;");
        waits_for(browser, "location.hash.startsWith('#auth_oauth=')");
        let script = "const returned = await app.auth.returned; return [returned, app.auth.user.id, app.auth.user.anonymous, location.hash];";
        let after = with_client(browser, script);
        assert_eq!(after, json!([{ "provider": "wechat", "linked": false }, before, false, ""]));
        // One more way in, for who is here; what is linked is listed, and goes again.
        with_client(browser, "void app.auth.link('apple', { redirect: '/?linked' });");
        waits_for(browser, "location.search === '?linked' && location.hash.startsWith('#auth_oauth=')");
        let script = "const { linked, error } = (await app.auth.returned) ?? {}; \
            const names = (await app.auth.identities()).map((it) => it.provider); await app.auth.unlink('wechat'); \
            const left = (await app.auth.identities()).map((it) => it.provider); \
            const last = await app.auth.unlink('apple').catch((e) => e.code); \
            return [linked, error ?? null, names, left, last, app.auth.user.id];";
        let after = with_client(browser, script);
        assert_eq!(after, json!([true, null, ["apple", "wechat"], ["apple"], "conflict", before]));
        // What is another user's is not linked.
        afresh(browser, &club);
        with_client(browser, "await app.auth.anonymous(); void app.auth.link('apple');");
        waits_for(browser, "location.hash.startsWith('#auth_oauth=')");
        let refused = with_client(browser, "return [(await app.auth.returned).error, app.auth.user.anonymous];");
        assert_eq!(refused, json!(["conflict", true]));
        // No at the provider.
        outsider.said().denies = true;
        with_client(browser, "void app.auth.signInWith('github');");
        waits_for(browser, "location.hash.startsWith('#auth_oauth_error=')");
        assert_eq!(with_client(browser, "return app.auth.returned;"), json!({ "provider": "github", "error": "denied" }));
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn a_browser_is_not_signed_in_as_somebody_else_by_an_address_it_is_given() {
    let outsider = Outsider::start();
    let auth = json!({ "methods": ["oauth", "anonymous"], "providers": outsider.providers() });
    let club = Club::new("oauth-csrf", &auth);
    outsider.is(json!({ "openid": "attacker" }));
    browser(|browser| {
        afresh(browser, &club);
        // The attacker's own way, up to the code that opens the attacker's account.
        let code = club.trip("wechat").unwrap().code;
        browser.goto("about:blank")?;
        browser.goto(&format!("{}/#auth_oauth={code}", club.app.url()))?;
        let seen = with_client(browser, "return [await app.auth.returned, await app.auth.ready, location.hash];");
        assert_eq!(seen, json!([null, null, ""]));
        // The same while the browser is on a way of its own.
        let kept = format!("sessionStorage.setItem('app:{}:away', JSON.stringify({{ provider: 'wechat', verifier: 'of the victim' }}))", club.app.url());
        browser.evaluate(&kept)?;
        browser.goto("about:blank")?;
        browser.goto(&format!("{}/#auth_oauth={code}", club.app.url()))?;
        let seen = with_client(browser, "return [(await app.auth.returned).error, await app.auth.ready];");
        assert_eq!(seen, json!(["unauthenticated", null]));
        // And the code is gone for the attacker, too.
        let body = json!({ "code": code, "verifier": VERIFIER });
        club.app.auth("oauth/token", &body)?.refuses(401, "unauthenticated")?;
        // Led to the callback with the attacker's state, it lacks the attacker's cookie.
        let mut walker = crate::outsiders::Walker::default();
        let back = walker.walk(&club.start("wechat", "/in"), "/callback/");
        browser.goto(&back)?;
        assert!(browser.source()?.contains("not begun in this browser"), "{}", browser.source()?);
        assert_eq!(browser.evaluate("return location.pathname")?, "/_/auth/oauth/callback/wechat");
        browser.console().map(drop)
    })
    .unwrap();
    let users = club.client.output("auth_users", &json!({})).unwrap();
    assert_eq!(users["users"], json!([]), "nobody was signed in");
    let _: Reply = Reply::of(club.app.request("GET", "/")).unwrap();
}

#[test]
fn a_page_shows_its_own_servers_token_and_ends_sessions_elsewhere() {
    let secret = "0123456789abcdef0123456789abcdef";
    let club = Club::new("custom-page", &json!({ "methods": [] }));
    club.client.output("secret_set", &json!({ "name": "SIGN_IN", "value": secret })).unwrap();
    let auth = json!({ "methods": ["custom", "anonymous"], "custom": { "secret": "SIGN_IN" } });
    club.client.output("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |jti: &str| {
        by_secret(secret, &json!({ "aud": club.env, "sub": "u-1", "jti": jti, "exp": now + 600 }))
    };
    let elsewhere = club.app.auth("custom", &json!({ "token": token("0") })).unwrap();
    let elsewhere = club.entered(&elsewhere).unwrap();
    browser(|browser| {
        afresh(browser, &club);
        let script = format!(
            "const user = await app.auth.custom({}); return [user.id, user.anonymous, app.auth.user.id];",
            json!(token("1"))
        );
        assert_eq!(with_client(browser, &script), json!([elsewhere.id(), false, elsewhere.id()]));
        // The session is kept by the page, and a token is good once.
        browser.goto(club.app.url())?;
        let again = format!(
            "return [(await app.auth.ready).id, await app.auth.custom({}).catch((e) => e.status)];",
            json!(token("1"))
        );
        assert_eq!(with_client(browser, &again), json!([elsewhere.id(), 401]));
        // Whoever is here sees where else, and ends that.
        let script = "const before = (await app.auth.sessions()).length; await app.auth.endOtherSessions(); \
            return [before, (await app.auth.sessions()).length];";
        assert_eq!(with_client(browser, script), json!([2, 1]));
        elsewhere.ask("GET", "/_/auth/me")?.refuses(401, "unauthenticated")?;
        let script = "const [{ id }] = await app.auth.sessions(); await app.auth.endSession(id); \
            return app.db('notes').list().catch((e) => e.status);";
        assert_eq!(with_client(browser, script), json!(401));
        browser.console().map(drop)
    })
    .unwrap();
}
