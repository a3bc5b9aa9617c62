//! The page to sign in on, in a real browser: what it shows, and what mere loading never does.

use conformance_tests::{Reply, browser};
use serde_json::json;
use testkit::{Chromium, eventually};

use crate::app_mail::Shop;

const PASSWORD: &str = "a word that is long enough";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Waits until the page says so.
pub fn waits_for(browser: &Chromium, expression: &str) {
    let holds = || (browser.evaluate(&format!("return !!({expression})")).ok()? == true).then_some(());
    let page = || browser.evaluate("return document.body.innerText");
    assert!(eventually(LIMIT, holds).is_some(), "{expression}: {:?}", page());
}

/// Types into the form's fields and sends it by its button, as somebody would.
pub fn fill(browser: &Chromium, fields: &[(&str, &str)]) {
    for (name, text) in fields {
        let script = format!("document.querySelector('[name={name}]').value = {}", json!(text));
        browser.evaluate(&script).unwrap();
    }
    browser.evaluate("document.querySelector('form button').click()").unwrap();
}

fn offers(browser: &Chromium) -> Vec<String> {
    let script = "return [...document.querySelectorAll('button')].map((it) => it.textContent)";
    serde_json::from_value(browser.evaluate(script).unwrap()).unwrap()
}

#[test]
fn it_offers_the_ways_that_are_on_and_no_others() {
    let shop = Shop::new("page-ways", json!({ "methods": [] })).unwrap();
    browser(|browser| {
        for (auth, expected) in [
            (json!({ "methods": [] }), &[][..]),
            (json!({ "methods": ["anonymous"] }), &["Go on"]),
            (json!({ "methods": ["otp"] }), &["Mail me a code"]),
            (json!({ "methods": ["password"] }), &["Sign in", "Create an account", "I forgot my password"]),
            (json!({ "methods": ["password"], "signup": "closed" }), &["Sign in", "I forgot my password"]),
            (
                json!({ "methods": ["anonymous", "otp", "password"] }),
                &[
                    "Sign in",
                    "Create an account",
                    "Mail me a code instead",
                    "I forgot my password",
                    "Go on without an account",
                ],
            ),
        ] {
            shop.client.output("app_apply", &json!({ "manifest": { "auth": auth } }))?;
            browser.goto(&format!("{}/_/auth/ui", shop.app.url()))?;
            waits_for(browser, "document.activeElement !== document.body");
            assert_eq!(offers(browser), expected, "{auth}");
        }
        assert_eq!(browser.console()?, [""; 0]);
        Ok(())
    })
    .unwrap();
}

#[test]
fn it_is_framed_by_nobody_runs_nothing_but_its_own_and_leads_nowhere_else() {
    let shop =
        Shop::new("page-head", json!({ "methods": ["otp"], "redirects": ["https://friend.example/"] }))
            .unwrap();
    let script = "\"><script>alert(1)</script>{{methods}}";
    shop.client.output("app_apply", &json!({ "manifest": { "name": script } })).unwrap();
    let ask = |path: &str| Reply::of(shop.app.request("GET", path)).unwrap();
    let page = ask("/_/auth/ui");
    let header = |name: &str| page.header(name).unwrap_or_default();
    assert_eq!(
        (page.status, header("x-frame-options"), header("referrer-policy")),
        (200, "DENY", "no-referrer")
    );
    assert_eq!(
        header("content-security-policy"),
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let text = page.body.as_str().unwrap();
    assert!(!text.contains("<script>") && !text.contains("{{"), "{text}");
    assert!(text.contains("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&#123;&#123;methods}}"), "{text}");
    let theme = json!({ "accent": "#ffdd00", "logo": "/logo.svg" });
    let auth = json!({ "methods": ["otp"], "redirects": ["https://friend.example/"], "theme": theme });
    shop.client.output("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    let themed = ask("/_/auth/ui").body.as_str().unwrap().to_owned();
    assert!(themed.contains("<img class=\"logo\" src=\"/logo.svg\" alt=\"\">"), "{themed}");
    let style = ask("/_/auth/ui/page.css").body.as_str().unwrap().to_owned();
    assert!(style.contains("--accent: #ffdd00; --on: #000000;"), "by night it is bright enough: {style}");
    for (key, bad) in
        [("accent", "red;}"), ("accent", "#fff"), ("logo", "https://evil.example/x.png"), ("logo", "//evil")]
    {
        let manifest = json!({ "auth": { "methods": ["otp"], "theme": { key: bad } } });
        let refused = shop.client.call("app_apply", &json!({ "manifest": manifest })).unwrap();
        assert_eq!(
            (refused.code(), refused.body["field"].as_str()),
            ("invalid_input", Some(&*format!("/manifest/auth/theme/{key}")))
        );
    }
    let to = |wanted: &str| {
        let page = ask(&format!("/_/auth/ui?to={}", conformance_tests::encoded(wanted)));
        let text = page.body.as_str().unwrap().to_owned();
        text.split_once("data-to=\"").unwrap().1.split_once('"').unwrap().0.to_owned()
    };
    assert_eq!(to("/welcome?a=1&b=2"), "/welcome?a=1&amp;b=2");
    for elsewhere in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "https://friend.example/",
        "/\"onload=alert(1)//\n",
    ] {
        assert_eq!(to(elsewhere), "/", "{elsewhere}");
    }
    let quoted = to("/\"><img>");
    assert!(!quoted.contains('<') && !quoted.contains('>'), "{quoted}");
    Reply::of(shop.app.request("GET", "/_/auth/ui/other")).unwrap().refuses(404, "not_found").unwrap();
    assert_eq!(Reply::of(shop.app.request("POST", "/_/auth/ui")).unwrap().status, 405);
}

#[test]
fn a_program_that_looks_through_mail_uses_no_link_up() {
    let shop = Shop::new("page-scan", json!({ "methods": ["otp"] })).unwrap();
    let body = json!({ "email": "ada@example.org", "redirect": "/welcome" });
    assert_eq!(shop.app.auth("otp", &body).unwrap().status, 202);
    let mail = shop.take("ada@example.org", "Sign in").unwrap();
    let link = mail.link().unwrap();
    let (path, _) = link.split_once('#').unwrap();
    assert_eq!(path, format!("{}/_/auth/ui?to=%2Fwelcome", shop.app.url()));
    let plain = testkit::http::Request::get(path).send().unwrap();
    assert_eq!(plain.status, 200);
    browser(|browser| {
        // One that runs scripts looks, too: with nobody to press the button, nothing happens.
        for _ in 0..2 {
            browser.goto("about:blank")?;
            browser.goto(link)?;
            waits_for(browser, "document.querySelector('h1').textContent === 'Sign in'");
            assert_eq!(offers(browser), ["Sign in", "Back"]);
            assert_eq!(browser.evaluate("return location.hash")?, "", "the token stays in the address");
            assert_eq!(browser.evaluate("return Object.keys(localStorage).length")?, 0);
        }
        fill(browser, &[]);
        waits_for(browser, "location.pathname === '/welcome'");
        let stored = browser.evaluate("return JSON.parse(Object.values(localStorage)[0]).user.email")?;
        assert_eq!(stored, "ada@example.org");
        browser.goto("about:blank")?;
        browser.goto(link)?;
        waits_for(browser, "document.querySelector('form button')");
        fill(browser, &[]);
        waits_for(browser, "document.querySelector('#note').textContent.includes('not valid any more')");
        browser.console().map(drop)
    })
    .unwrap();
}

#[test]
fn people_sign_up_sign_in_and_set_a_new_password_on_it() {
    let shop = Shop::new("page-day", json!({ "methods": ["password", "otp"] })).unwrap();
    let page = format!("{}/_/auth/ui?to=/", shop.app.url());
    let email = "ada@example.org";
    let press = |browser: &Chromium, text: &str| {
        let script = format!(
            "[...document.querySelectorAll('nav button')].find((it) => it.textContent === {}).click()",
            json!(text)
        );
        browser.evaluate(&script).unwrap();
    };
    let titled = |browser: &Chromium, title: &str| {
        waits_for(browser, &format!("document.querySelector('h1').textContent === {}", json!(title)));
    };
    let signed_out = |browser: &Chromium| {
        waits_for(browser, "location.pathname === '/'");
        browser.evaluate("localStorage.clear()").unwrap();
        browser.goto(&page).unwrap();
        titled(browser, "Sign in");
    };
    browser(|browser| {
        browser.goto(&page)?;
        titled(browser, "Sign in");
        press(browser, "Create an account");
        titled(browser, "Create an account");
        fill(browser, &[("email", email), ("password", "password1")]);
        waits_for(browser, "document.querySelector('#note').textContent.includes('tried first')");
        fill(browser, &[("email", email), ("password", PASSWORD)]);
        titled(browser, "Enter the code");
        let mail = shop.take(email, "Confirm your address")?;
        fill(browser, &[("code", mail.code().unwrap())]);
        signed_out(browser);
        fill(browser, &[("email", email), ("password", "a wrong word")]);
        waits_for(browser, "document.querySelector('#note').textContent.includes('wrong')");
        fill(browser, &[("email", email), ("password", PASSWORD)]);
        signed_out(browser);
        press(browser, "Mail me a code instead");
        fill(browser, &[("email", email)]);
        titled(browser, "Enter the code");
        let mail = shop.take(email, "Sign in to")?;
        fill(browser, &[("code", mail.code().unwrap())]);
        signed_out(browser);
        press(browser, "I forgot my password");
        fill(browser, &[("email", email)]);
        titled(browser, "New password");
        let mail = shop.take(email, "Reset your password")?;
        browser.goto("about:blank")?;
        browser.goto(mail.link().unwrap())?;
        titled(browser, "New password");
        fill(browser, &[("password", "another word for later")]);
        signed_out(browser);
        fill(browser, &[("email", email), ("password", "another word for later")]);
        waits_for(browser, "location.pathname === '/'");
        browser.console().map(drop)
    })
    .unwrap();
}
