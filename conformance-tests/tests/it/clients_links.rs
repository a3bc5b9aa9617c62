//! The short links of the example in a real browser: a page asks one function, a visitor another.

use std::path::Path;
use std::time::Duration;

use conformance_tests::{App, Place, browser};
use serde_json::{Value, json};
use testkit::{eventually, finish};

const LIMIT: Duration = Duration::from_secs(60);

/// The first link as the page shows it.
const SHOWN: &str = "const link = document.querySelector('#links li');
    return link && [link.querySelector('.short').href, link.querySelector('.long').textContent,
        link.querySelector('.visits').textContent];";

#[test]
fn a_link_is_made_short_followed_and_counted() {
    let place = Place::new("links").unwrap();
    let mut apply = place.command(&["apply", "examples/url-shortener", "--json"]);
    apply.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let applied = finish(apply, LIMIT).unwrap();
    assert!(applied.success(), "{applied:?}");
    let applied: Value = serde_json::from_str(&applied.stdout).unwrap();
    assert_eq!(applied["changed"], json!(true));
    let long = format!("{}/icon.svg?long={}", place.url, "x".repeat(100));
    let (short, visits, console) = browser(|browser| {
        browser.goto(&place.url)?;
        browser.type_into("[name=url]", &long)?;
        browser.click("form button")?;
        let shown = eventually(LIMIT, || browser.evaluate(SHOWN).ok().filter(|it| !it.is_null())).unwrap();
        assert_eq!((&shown[1], &shown[2]), (&json!(long), &json!("0 visits")));
        let short = shown[0].as_str().unwrap().to_owned();
        // Whoever has the link comes to where it leads.
        let followed = format!("return fetch('{short}').then((answer) => answer.url)");
        assert_eq!(browser.evaluate(&followed)?, json!(long));
        let visits = eventually(LIMIT, || {
            browser.evaluate("dispatchEvent(new Event('focus'))").ok()?;
            let shown = browser.evaluate(SHOWN).ok()?;
            (shown[2] == "1 visit").then(|| shown[2].clone())
        });
        Ok((short, visits, browser.console()?))
    })
    .unwrap();
    assert_eq!(visits, Some(json!("1 visit")));
    assert!(short.starts_with(&format!("{}/s/", place.url)), "{short}");
    assert_eq!(console, Vec::<String>::new());

    // An attacker: a link that the function has not made, one without signing in, another one's, and one to a script.
    let app = App::new(&place.url);
    let mallory = app.stranger().unwrap();
    let link = json!({ "code": "mine", "url": "https://example.com" });
    mallory.send("POST", "/_/db/links", &link).unwrap().refuses(403, "forbidden").unwrap();
    app.visitor().send("POST", "/_/fn/shorten", &link).unwrap().refuses(401, "unauthenticated").unwrap();
    assert_eq!(mallory.ask("GET", "/_/db/links").unwrap().body["rows"], json!([]));
    let script = json!({ "url": "javascript:alert(1)" });
    assert_eq!(mallory.send("POST", "/_/fn/shorten", &script).unwrap().status, 400);
    assert_eq!(app.visitor().ask("GET", "/s/x'%20||%20true").unwrap().status, 404);
}
