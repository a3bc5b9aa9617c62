//! The console in a browser: what people do there, on a desk and on a telephone, and what hostile names and pages cannot.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use conformance_tests::{Place, browser};
use serde_json::{Value, json};
use testkit::{Chromium, eventually};

use crate::oauth_flow::text;

const LIMIT: Duration = Duration::from_secs(30);
const PHONE: u32 = 360;
/// Whether the page is wider than its window.
const WIDE: &str = "return document.documentElement.scrollWidth > innerWidth";
const PAGES: [&str; 9] =
    ["", "/tenants", "/environments", "/members", "/keys", "/budgets", "/usage", "/audit", "/connect"];
const MARKUP: &str = "<img src=x onerror=\"globalThis.caught=1\">";
/// It would turn the text around that follows.
const TURNED: &str = "exe.\u{202e}txt";

/// Waits until a script gives something that is true.
pub fn until(browser: &Chromium, script: &str) -> anyhow::Result<Value> {
    eventually(LIMIT, || browser.evaluate(script).ok().filter(|it| it.as_bool().unwrap_or(!it.is_null())))
        .with_context(|| format!("{script} does not come true: {:?}", browser.text("body")))
}

/// Until the page, and all that it asks for, is there.
pub fn settled(browser: &Chromium) -> anyhow::Result<Value> {
    until(
        browser,
        "return Boolean(document.querySelector('#sections') && document.querySelector('main h1')) && !document.querySelector('.waiting')",
    )
}

pub fn says(browser: &Chromium, text: &str) -> anyhow::Result<Value> {
    until(browser, &format!("return document.body.innerText.includes({})", json!(text)))
}

/// Presses the button that says this: in the dialog, where one is open.
pub fn press(browser: &Chromium, label: &str) -> anyhow::Result<()> {
    let script = format!(
        "const place = document.querySelector('dialog[open]') ?? document.querySelector('main'); \
         const made = [...(place?.querySelectorAll('button') ?? [])].find((it) => it.textContent.trim() === {}); \
         if (!made || made.disabled) return false; made.click(); return true",
        json!(label)
    );
    until(browser, &script).map(drop)
}

fn sign_in(browser: &Chromium, base: &str, key: &str) -> anyhow::Result<()> {
    browser.goto(&format!("{base}/console"))?;
    browser.evaluate("localStorage.clear()")?;
    browser.goto(&format!("{base}/console"))?;
    browser.type_into("#key", key)?;
    browser.click("button[type=submit]")?;
    settled(browser).map(drop)
}

fn is_quiet(browser: &Chromium) -> anyhow::Result<()> {
    let console = browser.console()?;
    ensure!(console.is_empty(), "{console:?}");
    Ok(())
}

#[test]
fn an_operator_signs_in_makes_things_and_signs_out() {
    let place = Place::alone("console-desk").unwrap();
    let ready = place.steading.ready();
    let made = browser(|browser| {
        sign_in(browser, &ready.url, &ready.key)?;
        // Neither the key nor the cookie is where a script could read it.
        let kept = browser.evaluate("return JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage}) + document.cookie + document.documentElement.outerHTML + location.href")?;
        let kept = kept.as_str().context("no text")?;
        ensure!(!kept.contains(&ready.key) && !kept.contains("steading-console="), "{kept}");
        // A tenant, by the dialog.
        browser.goto(&format!("{}/console/tenants", ready.url))?;
        settled(browser)?;
        press(browser, "New tenant")?;
        browser.type_into("dialog input[name=name]", "Acme")?;
        browser.type_into("dialog input[name=slug]", "acme")?;
        press(browser, "Make it")?;
        says(browser, "acme")?;
        // It takes its slug to suspend it, and Escape is a way out.
        browser.click("[aria-label='Suspend acme']")?;
        ensure!(browser.evaluate("return document.querySelector('dialog button[type=submit]').disabled")? == json!(true));
        browser.type_into("dialog input[name=word]", "acm")?;
        ensure!(browser.evaluate("return document.querySelector('dialog button[type=submit]').disabled")? == json!(true));
        browser.type_into("dialog input[name=word]", "e")?;
        press(browser, "Suspend")?;
        until(browser, "return Boolean(document.querySelector('[aria-label=\"Resume acme\"]'))")?;
        // A key, whose secret is on the page as long as its dialog is open.
        browser.goto(&format!("{}/console/keys", ready.url))?;
        settled(browser)?;
        press(browser, "New key")?;
        browser.type_into("dialog input[name=name]", "from the console")?;
        press(browser, "Make it")?;
        let secret = until(browser, "return document.querySelector('dialog .copied code')?.textContent")?;
        press(browser, "I have kept it")?;
        says(browser, "from the console")?;
        let html = browser.source()?;
        let secret = text(&json!({ "it": secret }), "it").to_owned();
        ensure!(!html.contains(&secret), "the secret stays on the page");
        is_quiet(browser)?;
        // Signing out ends the visit, also for another page.
        browser.click("[aria-label='Sign out']")?;
        browser.text("#key")?;
        browser.goto(&format!("{}/console/keys", ready.url))?;
        browser.text("#key")?;
        Ok(secret)
    })
    .unwrap();
    let of = testkit::Client::new(&ready.url).with_key(&made);
    assert_eq!(of.request("GET", "/v1/envs").send().unwrap().status, 200);
    let tenant = place.steading.client().without_env().request("GET", "/v1/tenants/acme").send().unwrap();
    assert_eq!(tenant.json().unwrap()["state"], "suspended");
}

#[test]
fn what_others_say_is_text_on_every_page_and_none_is_wider_than_a_telephone() {
    let place = Place::alone("console-hostile").unwrap();
    let (ready, operator) = (place.steading.ready(), place.steading.client().without_env());
    let (long, turned) = ("x".repeat(100), format!("{TURNED} {}", "y".repeat(60)));
    for (n, name) in [MARKUP, &turned, &long].into_iter().enumerate() {
        let tags = json!({ "kind": MARKUP.get(..20).unwrap() });
        let wanted = json!({ "slug": format!("t{n}"), "name": name, "external_id": format!("{n}{MARKUP}"), "tags": tags });
        let sent = operator.request("POST", "/v1/tenants").json(&wanted).send().unwrap();
        assert_eq!(sent.status, 201, "{:?}", sent.text());
        let sent = operator
            .request("POST", "/v1/envs")
            .json(&json!({ "slug": format!("e{n}"), "name": name }))
            .send();
        assert_eq!(sent.unwrap().status, 201);
        let sent = operator.request("POST", "/v1/keys").json(&json!({ "name": name })).send().unwrap();
        assert_eq!(sent.status, 201, "{:?}", sent.text());
    }
    let app = json!({ "manifest": { "name": MARKUP, "site": { "files": { "index.html": "<h1>e</h1>" } } } });
    operator.clone().in_env("e0").output("app_apply", &app).unwrap();
    // Lines of a log are what visitors ask for: 3 kB of it, marks of direction, and markup.
    let port = place.steading.authority().rsplit(':').next().unwrap().to_owned();
    for path in
        ["%3Cimg%20src=x%20onerror=alert(1)%3E".to_owned(), "%E2%80%AEtxt".to_owned(), "z".repeat(3000)]
    {
        testkit::http::Request::get(&format!("http://e0.localhost:{port}/{path}")).send().unwrap();
    }
    browser(|browser| {
        sign_in(browser, &ready.url, &ready.key)?;
        browser.as_narrow_as(PHONE)?;
        let outcome = (|| {
            let paths = PAGES.iter().map(|path| (*path).to_owned());
            let of_env = ["", "/logs", "/usage", "/backups"].map(|tab| format!("/environments/e0{tab}"));
            for path in paths.chain(of_env) {
                browser.goto(&format!("{}/console{path}", ready.url))?;
                settled(browser)?;
                ensure!(browser.evaluate(WIDE)? == json!(false), "{path} is wider than {PHONE}");
                let made = browser.evaluate("return globalThis.caught === undefined && !document.querySelector('main img, main script, main [onerror]')")?;
                ensure!(made == json!(true), "{path} has made markup of text");
                let unseen = browser.evaluate("return /[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.querySelector('#app').innerText)")?;
                ensure!(unseen == json!(false), "{path} shows marks of direction");
                ensure!(browser.text("main")?.find("Try again").is_none(), "{path} failed: {}", browser.text("main")?);
            }
            browser.goto(&format!("{}/console/tenants", ready.url))?;
            says(browser, MARKUP)?;
            says(browser, "⟨U+202E⟩")?;
            is_quiet(browser)
        })();
        browser.as_usual()?;
        outcome
    })
    .unwrap();
}

#[test]
fn the_policy_stops_scripts_that_are_not_files_of_the_console() {
    let place = Place::new("console-policy").unwrap();
    let ready = place.steading.ready();
    browser(|browser| {
        sign_in(browser, &ready.url, &ready.key)?;
        let refused = |script: &str| -> anyhow::Result<()> {
            let outcome = browser.evaluate(&format!("try {{ {script} }} catch (e) {{ return e.name }} return globalThis.caught ? 'ran' : 'nothing'"))?;
            ensure!(outcome != json!("ran"), "{script}: {outcome}");
            Ok(())
        };
        let made = browser.evaluate("try { document.body.innerHTML = '<b>a</b>' } catch (e) { return e.name }")?;
        ensure!(made == json!("TypeError"), "markup of a text: {made}");
        refused("const s = document.createElement('script'); s.text = 'globalThis.caught = 1'; document.body.append(s)")?;
        refused("const s = document.createElement('script'); s.src = 'data:text/javascript,globalThis.caught=1'; document.body.append(s)")?;
        refused("const b = document.createElement('b'); b.setAttribute('onclick', 'globalThis.caught = 1'); document.body.append(b); b.click()")?;
        // What the driver itself runs may do this; what the page runs later may not.
        let later = "return new Promise((told) => setTimeout(() => { try { (0, eval)('1'); told('ran') } catch (e) { told(e.name) } }, 0))";
        ensure!(browser.evaluate(later)? == json!("EvalError"));
        refused("location.href = 'javascript:globalThis.caught=1'")?;
        let sent = browser.evaluate("return (async () => { try { await fetch('http://127.0.0.1:1/'); return 'sent' } catch { return 'refused' } })()")?;
        ensure!(sent == json!("refused"));
        // What was refused is on the browser's console; it is no other test's.
        browser.console()?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_app_of_the_platform_cannot_use_the_visit_of_whoever_looks_at_it() {
    let place = Place::new("console-app").unwrap();
    let ready = place.steading.ready();
    let page = "<!doctype html><title>a</title><h1>App</h1>";
    let app = json!({ "manifest": { "site": { "files": { "index.html": page } } } });
    place.output("app_apply", &app).unwrap();
    let localhost = ready.url.replace("127.0.0.1", "localhost");
    browser(|browser| {
        sign_in(browser, &localhost, &ready.key)?;
        let proof = browser.evaluate("return localStorage.getItem('steading-console-proof')")?;
        browser.goto(&place.url)?;
        ensure!(browser.text("h1")? == "App");
        // Even with the other half, which no app has.
        let script = format!(
            "const said = async (headers, mode) => {{ try {{ const it = await fetch('{localhost}/v1/keys', {{ credentials: 'include', mode, headers }}); return it.type === 'opaque' ? 'opaque' : it.status }} catch {{ return 'refused' }} }}; \
             return (async () => [await said({{ 'steading-console': {proof} }}), await said({{}}), await said({{}}, 'no-cors'), document.cookie])()"
        );
        let found = browser.evaluate(&script)?;
        ensure!(found == json!(["refused", "refused", "opaque", ""]), "{found}");
        browser.console()?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_key_of_an_environment_is_told_what_it_may_not_see_and_rolls_back_what_it_may() {
    let place = Place::new("console-bound").unwrap();
    let ready = place.steading.ready();
    for n in 1..=2 {
        let app = json!({ "manifest": { "site": { "files": { "index.html": format!("<h1>{n}</h1>") } } } });
        place.output("app_apply", &app).unwrap();
    }
    let wanted = json!({ "name": "bound", "env": place.slug });
    let key = place.client.request("POST", "/v1/keys").json(&wanted).send().unwrap().json().unwrap();
    browser(|browser| {
        sign_in(browser, &ready.url, text(&key, "key"))?;
        ensure!(!browser.text("nav")?.contains("Tenants"), "a section that is the operator's");
        for path in ["/keys", "/budgets", "/audit"] {
            browser.goto(&format!("{}/console{path}", ready.url))?;
            settled(browser)?;
            says(browser, "Your key may not")?;
        }
        browser.goto(&format!("{}/console/environments/{}", ready.url, place.slug))?;
        settled(browser)?;
        browser.click("[aria-label='Roll back to release 1']")?;
        press(browser, "Return to 1")?;
        until(browser, "return Boolean(document.querySelector('[aria-label=\"Roll back to release 2\"]'))")?;
        is_quiet(browser)
    })
    .unwrap();
    assert_eq!(place.output("app_describe", &json!({})).unwrap()["release"], 1);
}

#[test]
fn a_key_that_is_revoked_signs_its_page_out() {
    let place = Place::new("console-revoked").unwrap();
    let ready = place.steading.ready();
    let client = place.client.clone().without_env();
    let key = client
        .request("POST", "/v1/keys")
        .json(&json!({ "name": "soon revoked" }))
        .send()
        .unwrap()
        .json()
        .unwrap();
    browser(|browser| {
        sign_in(browser, &ready.url, text(&key, "key"))?;
        let revoked = client.request("DELETE", &format!("/v1/keys/{}", text(&key, "id"))).send()?;
        ensure!(revoked.status == 200);
        browser.click("nav a[href='/console/environments']")?;
        browser.text("#key")?;
        says(browser, "You are signed out")?;
        browser.console()?;
        Ok(())
    })
    .unwrap();
}
