//! Passkeys, made and shown by a real browser: what they open, and what copies, other origins and other apps get by them.

use conformance_tests::{Reply, browser};
use serde_json::{Value, json};
use testkit::{Chromium, PasskeyUser};

use crate::app_mail::Shop;
use crate::app_sign_in_page::{fill, waits_for};

const PASSWORD: &str = "a word that is long enough";
const ADA: &str = "ada@example.org";

fn shop(slug: &str, mfa: &str) -> Shop {
    Shop::new(slug, json!({ "methods": ["passkey", "password"], "mfa": mfa })).unwrap()
}

/// Runs a script with the app's client, on whatever page is open: what it returns, or the status and words of its error.
fn with_client(browser: &Chromium, script: &str) -> Value {
    let script = format!(
        "return (async () => {{ \
           const {{ createClient }} = await import('/_/sdk.js'); \
           const app = createClient(); \
           try {{ {script} }} catch (error) {{ \
             return {{ status: error.status, message: error.message, name: error.name, mfa: error.mfa?.factors }}; \
           }} }})()"
    );
    browser.evaluate(&script).unwrap()
}

/// A page of the app, with nobody signed in.
fn open(browser: &Chromium, shop: &Shop) {
    browser.goto(&format!("{}/", shop.app.url())).unwrap();
    browser.evaluate("localStorage.clear()").unwrap();
    browser.goto(&format!("{}/", shop.app.url())).unwrap();
}

fn sign_up(browser: &Chromium) -> String {
    let script = format!("return (await app.auth.signUp({{ email: '{ADA}', password: '{PASSWORD}' }})).id");
    with_client(browser, &script).as_str().unwrap().to_owned()
}

const REGISTER: &str = "return await app.auth.passkey.register({ name: 'laptop' })";
const SIGN_IN: &str = "return (await app.auth.passkey.signIn()).id";

/// Makes the client send what it sends in another form, once.
fn tampered(change: &str, script: &str) -> String {
    format!(
        "const send = globalThis.fetch; \
         globalThis.fetch = (url, options) => {{ \
           if (/passkeys?$/.test(url) && options.method === 'POST') {{ \
             const body = JSON.parse(options.body); {change}; options.body = JSON.stringify(body); }} \
           return send(url, options); }}; \
         try {{ {script} }} finally {{ globalThis.fetch = send; }}"
    )
}

const REFUSED: &str = "the passkey does not open an account here";

#[test]
fn a_passkey_is_made_listed_shown_renamed_and_removed() {
    let shop = shop("key-day", "optional");
    browser(|browser| {
        let authenticator = browser.authenticator(PasskeyUser::Verified)?;
        open(browser, &shop);
        let ada = sign_up(browser);
        let made = with_client(browser, REGISTER);
        assert_eq!((&made["name"], &made["used_at"]), (&json!("laptop"), &Value::Null), "{made}");
        // The same authenticator is not asked for a second one.
        let again = with_client(browser, REGISTER);
        assert_eq!(again["name"], "InvalidStateError", "{again}");
        open(browser, &shop);
        assert_eq!(with_client(browser, SIGN_IN), json!(ada));
        let listed = with_client(browser, "return await app.auth.passkey.list()");
        assert_eq!((&listed[0]["id"], listed[0]["used_at"].is_string()), (&made["id"], true), "{listed}");
        let users = shop.client.output("auth_users", &json!({ "user": ADA }))?;
        assert_eq!(users["users"][0]["mfa"], json!(["passkey"]));
        let renamed = format!(
            "await app.auth.passkey.rename('{0}', 'old laptop'); return (await app.auth.passkey.list())[0].name",
            made["id"].as_str().unwrap()
        );
        assert_eq!(with_client(browser, &renamed), "old laptop");
        let removed = format!(
            "await app.auth.passkey.remove('{0}'); return (await app.auth.passkey.list()).length",
            made["id"].as_str().unwrap()
        );
        assert_eq!(with_client(browser, &removed), 0);
        open(browser, &shop);
        assert_eq!(with_client(browser, SIGN_IN)["message"], REFUSED);
        drop(authenticator);
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn replays_other_challenges_and_signatures_open_nothing() {
    let shop = shop("key-replay", "optional");
    browser(|browser| {
        let _authenticator = browser.authenticator(PasskeyUser::Verified)?;
        open(browser, &shop);
        let ada = sign_up(browser);
        assert!(with_client(browser, REGISTER)["id"].is_string());
        open(browser, &shop);
        // What was sent is kept, to be sent again.
        let kept = tampered("globalThis.kept = options.body", SIGN_IN);
        assert_eq!(with_client(browser, &kept), json!(ada));
        let kept: Value = serde_json::from_str(browser.evaluate("return globalThis.kept")?.as_str().unwrap())?;
        let replayed = shop.app.auth("passkey", &kept)?;
        replayed.refuses(401, "unauthenticated")?;
        for change in [
            "body.signature = body.signature.slice(0, -4) + 'AAAA'",
            "body.authenticator_data = body.authenticator_data.slice(0, -4) + 'AAAA'",
            "body.user = btoa('usr_01890000000070008000000000000001')",
            "body.id = 'AAAA'",
            // Of another ceremony, origin and frame; what is signed does not fit any more either.
            "body.client_data = btoa(JSON.stringify({ ...JSON.parse(atob(body.client_data)), type: 'webauthn.create' }))",
            "body.client_data = btoa(JSON.stringify({ ...JSON.parse(atob(body.client_data)), origin: 'http://evil.example' }))",
            "body.client_data = btoa(JSON.stringify({ ...JSON.parse(atob(body.client_data)), crossOrigin: true }))",
            "body.client_data = btoa('{}')",
        ] {
            let told = with_client(browser, &tampered(change, SIGN_IN));
            assert_eq!((&told["status"], &told["message"]), (&json!(401), &json!(REFUSED)), "{change}");
        }
        let odd = json!({ "id": "A", "client_data": "A", "authenticator_data": "A", "signature": "A", "admin": true });
        shop.app.auth("passkey", &odd)?.refuses(400, "invalid_input")?;
        let told = with_client(browser, &tampered("", SIGN_IN));
        assert_eq!(told, json!(ada), "the right one opens all the same");
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn a_copy_whose_counter_is_behind_is_refused_and_said_in_the_log() {
    let shop = shop("key-copy", "optional");
    browser(|browser| {
        let authenticator = browser.authenticator(PasskeyUser::Verified)?;
        open(browser, &shop);
        let ada = sign_up(browser);
        assert!(with_client(browser, REGISTER)["id"].is_string());
        let copy = authenticator.all()?.remove(0);
        for _ in 0..2 {
            open(browser, &shop);
            assert_eq!(with_client(browser, SIGN_IN), json!(ada));
        }
        let ours = authenticator.all()?.remove(0);
        assert!(ours["signCount"].as_u64() > copy["signCount"].as_u64(), "{ours} {copy}");
        authenticator.clear()?;
        authenticator.put(&copy)?;
        open(browser, &shop);
        assert_eq!(with_client(browser, SIGN_IN)["message"], REFUSED);
        let logged = shop.client.output("logs_query", &json!({ "level": "warn" }))?;
        assert!(logged.to_string().contains("its counter has gone back"), "{logged}");
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn a_passkey_opens_its_own_app_alone() {
    let (shop, other) = (shop("key-own", "optional"), self::shop("key-other", "optional"));
    browser(|browser| {
        let authenticator = browser.authenticator(PasskeyUser::Verified)?;
        open(browser, &other);
        sign_up(browser);
        assert!(with_client(browser, REGISTER)["id"].is_string());
        open(browser, &shop);
        sign_up(browser);
        assert!(with_client(browser, REGISTER)["id"].is_string());
        open(browser, &shop);
        let kept = tampered("globalThis.kept = options.body; body.signature = 'AAAA'", SIGN_IN);
        assert_eq!(with_client(browser, &kept)["message"], REFUSED);
        let kept: Value =
            serde_json::from_str(browser.evaluate("return globalThis.kept")?.as_str().unwrap())?;
        Reply::of(other.app.request("POST", "/_/auth/passkey").json(&kept))?
            .refuses(401, "unauthenticated")?;
        // The other app's passkey is put under this one's name, as who has its private key could.
        let all = authenticator.all()?;
        let theirs =
            all.iter().find(|it| it["rpId"].as_str().is_some_and(|it| it.starts_with("key-other"))).unwrap();
        let mut moved = theirs.clone();
        moved["rpId"] = all.iter().find(|it| *it != theirs).unwrap()["rpId"].clone();
        authenticator.clear()?;
        authenticator.put(&moved)?;
        open(browser, &shop);
        assert_eq!(with_client(browser, SIGN_IN)["message"], REFUSED);
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn one_that_verifies_its_user_is_two_factors_and_one_that_does_not_is_one() {
    let shop = shop("key-factors", "required");
    browser(|browser| {
        {
            let authenticator = browser.authenticator(PasskeyUser::Verified)?;
            open(browser, &shop);
            let ada = sign_up(browser);
            let list = "return (await app.db('notes').list()).rows.length";
            assert_eq!(with_client(browser, list)["status"], 403);
            // Here it is a second factor, which needs an address that is confirmed.
            assert_eq!(with_client(browser, REGISTER)["status"], 409);
            shop.client.output("auth_user_set", &json!({ "user": ADA, "email": ADA }))?;
            assert!(with_client(browser, REGISTER)["id"].is_string());
            assert_eq!(with_client(browser, list), 0, "this session has shown it");
            open(browser, &shop);
            // Who knows the password alone cannot set up another factor beside the passkey.
            let login = format!("return await app.auth.login({{ email: '{ADA}', password: '{PASSWORD}' }})");
            assert_eq!(with_client(browser, &login)["mfa"], json!(["passkey"]));
            assert_eq!(with_client(browser, SIGN_IN), json!(ada));
            assert_eq!(with_client(browser, list), 0);
            drop(authenticator);
        }
        let reset = json!({ "user": ADA, "mfa": "reset" });
        shop.client.output("auth_user_set", &reset)?;
        let _authenticator = browser.authenticator(PasskeyUser::Present)?;
        open(browser, &shop);
        let login = format!("return (await app.auth.login({{ email: '{ADA}', password: '{PASSWORD}' }})).id");
        let ada = with_client(browser, &login);
        assert!(ada.is_string(), "{ada}");
        assert!(with_client(browser, REGISTER)["id"].is_string());
        let list = "return (await app.db('notes').list()).rows.length";
        assert_eq!(with_client(browser, list)["status"], 403, "nobody has verified who it is");
        // The browser shows no passkey by itself that does not verify its user; by password it is as before.
        open(browser, &shop);
        assert_eq!(with_client(browser, &login), ada);
        assert_eq!(with_client(browser, list)["status"], 403);
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn people_add_one_and_come_back_by_it_on_the_sign_in_page() {
    let shop = shop("key-page", "off");
    let page = format!("{}/_/auth/ui?to=/", shop.app.url());
    let titled = |browser: &Chromium, title: &str| {
        waits_for(browser, &format!("document.querySelector('h1').textContent === {}", json!(title)));
    };
    browser(|browser| {
        let authenticator = browser.authenticator(PasskeyUser::Verified)?;
        open(browser, &shop);
        sign_up(browser);
        browser.goto("about:blank")?;
        browser.goto(&format!("{page}#passkey"))?;
        titled(browser, "Add a passkey");
        fill(browser, &[]);
        waits_for(browser, "location.pathname === '/'");
        assert_eq!(authenticator.all()?.len(), 1);
        open(browser, &shop);
        browser.goto(&page)?;
        titled(browser, "Sign in");
        browser.evaluate(
            "[...document.querySelectorAll('nav button')].find((it) => it.textContent === 'Use a passkey').click()",
        )?;
        waits_for(browser, "location.pathname === '/'");
        let stored = browser.evaluate("return JSON.parse(Object.values(localStorage)[0]).user.email")?;
        assert_eq!(stored, ADA);
        // Without one the page says so and goes on.
        authenticator.clear()?;
        open(browser, &shop);
        browser.goto(&page)?;
        titled(browser, "Sign in");
        browser.evaluate(
            "[...document.querySelectorAll('nav button')].find((it) => it.textContent === 'Use a passkey').click()",
        )?;
        waits_for(browser, "document.querySelector('#note').textContent === 'No passkey was used.'");
        browser.console().map(drop)
    })
    .unwrap();
}
