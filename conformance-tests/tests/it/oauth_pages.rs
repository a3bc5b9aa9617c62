//! The pages of the authorization server under attack: names that are markup, forms from elsewhere, frames, guessing.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use conformance_tests::{CLAUDE_CODE, Place, Visitor, encoded, hidden};
use serde_json::json;
use testkit::eventually;
use testkit::http::Request;

use crate::oauth_flow::{Flow, register, text};

const LIMIT: Duration = Duration::from_secs(60);
/// Whether the page is wider than its window.
const WIDE: &str = "return document.documentElement.scrollWidth > innerWidth";
const MARKUP: &str = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(1)>";

#[test]
fn what_others_say_is_text_and_pages_stand_in_no_frame() {
    let place = Place::new("oauth-xss").unwrap();
    let base = &place.steading.ready().url;
    let said = json!({ "client_name": MARKUP, "redirect_uris": ["http://localhost/cb"], "application_type": "native" });
    let client = register(base, &said);
    assert_eq!(
        (text(&client, "application_type"), text(&client, "token_endpoint_auth_method")),
        ("native", "none")
    );
    let flow = Flow {
        client: text(&client, "client_id").to_owned(),
        back: "http://localhost:9/cb".to_owned(),
        ..Flow::new(&place)
    };
    let mut visitor = Visitor::new(base);
    let url = flow.url(&[("state", MARKUP)]);
    let first = visitor.get(&url).unwrap();
    let second = visitor.sign_in(&url, &flow.key).unwrap();
    let third = visitor.get(&flow.url(&[("client_id", MARKUP)])).unwrap();
    for page in [&first, &second, &third] {
        let html = page.text().unwrap();
        assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
        let policy = page.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{policy}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
        assert_eq!(page.header("cache-control"), Some("no-store"));
    }
    assert!(second.text().unwrap().contains("nobody vouches"));
    assert!(
        second.header("content-security-policy").unwrap().contains("form-action 'self' http://localhost:9;")
    );
    let sent = visitor.decide(&second, "deny", None, None).unwrap();
    let back = sent.header("location").unwrap();
    assert!(back.starts_with("http://localhost:9/cb?error=access_denied"), "{back}");
    assert!(!back.contains(['<', '"', ' ']), "{back}");
    assert_eq!(conformance_tests::field(back, "state").as_deref(), Some(MARKUP));
}

#[test]
fn a_form_counts_in_the_visit_that_it_was_made_for_and_from_this_origin() {
    let flow = Flow::new(&Place::new("oauth-csrf").unwrap());
    let mut visitor = Visitor::new(&flow.base);
    let page = visitor.sign_in(&flow.url(&[]), &flow.key).unwrap();
    let html = page.text().unwrap().to_owned();
    let (tag, request) = (hidden(&html, "form").unwrap(), hidden(&html, "request").unwrap());
    let fields =
        |tag: &str| format!("form={}&request={}&answer=allow&grant=read", encoded(tag), encoded(&request));
    let url = format!("{}/oauth/authorize", flow.base);
    let send = |cookie: Option<&str>, tag: &str, origin: &str| {
        let mut request = Request::post(&url).header("content-type", "application/x-www-form-urlencoded");
        request = request.header("origin", origin).body(fields(tag));
        if let Some(cookie) = cookie {
            request = request.header("cookie", cookie);
        }
        request.send().unwrap().status
    };
    let cookie = visitor.cookie.clone().unwrap();
    let (name, value) = cookie.split_once('=').unwrap();
    assert_eq!(send(Some(&cookie), &tag, "https://evil.example"), 403);
    assert_eq!(send(Some(&cookie), &tag, "null"), 403);
    assert_eq!(send(None, &tag, &flow.base), 403);
    assert_eq!(send(Some(&cookie), "", &flow.base), 403);
    assert_eq!(send(Some(&cookie), &"A".repeat(43), &flow.base), 403);
    let mut parts: Vec<&str> = value.split('.').collect();
    parts[2] = "99999999999";
    assert_eq!(send(Some(&format!("{name}={}", parts.join("."))), &tag, &flow.base), 403);
    let mut other = Visitor::new(&flow.base);
    other.sign_in(&flow.url(&[]), &flow.key).unwrap();
    assert_eq!(send(other.cookie.as_deref(), &tag, &flow.base), 403, "another visit's form");
    assert_eq!(send(Some(&cookie), &tag, &flow.base), 303);
}

#[test]
fn signing_in_leads_to_these_pages_alone_takes_keys_alone_and_is_not_for_guessing() {
    let place = Place::alone("oauth-guess").unwrap();
    let flow = Flow::new(&place);
    let mut visitor = Visitor::new(&flow.base);
    let page = visitor.get(&flow.url(&[])).unwrap();
    let tag = hidden(page.text().unwrap(), "form").unwrap();
    for next in ["https://evil.example", "//evil.example", "/v1/keys", "/oauth/authorize", "\\evil", ""] {
        let sent =
            visitor.post("/oauth/sign-in", &[("form", &tag), ("next", next), ("key", &flow.key)]).unwrap();
        assert_eq!((sent.status, sent.header("location")), (403, None), "{next}");
    }
    let minted = json!({ "env": place.slug, "scopes": ["db:read"], "expires_in": 60 });
    let minted =
        place.client.request("POST", "/v1/credentials").json(&minted).send().unwrap().json().unwrap();
    let next = format!("/oauth/authorize?client_id={}", encoded(CLAUDE_CODE));
    let mut status = Vec::new();
    for n in 0..12 {
        let key = if n == 0 { text(&minted, "token").to_owned() } else { format!("stead_op_{n}") };
        let sent = visitor.post("/oauth/sign-in", &[("form", &tag), ("next", &next), ("key", &key)]).unwrap();
        assert!(!sent.text().unwrap().contains(&key), "a key is not shown again");
        status.push(sent.status);
    }
    assert_eq!(status, [[401; 10].as_slice(), &[429; 2]].concat());
    let log = place.steading.log();
    assert!(!log.contains("stead_op_3"), "{log}");
}

#[test]
fn a_client_says_little_of_itself_and_nothing_that_runs() {
    let place = Place::new("oauth-register").unwrap();
    let url = format!("{}/oauth/register", place.steading.ready().url);
    for (said, error) in [
        (json!({ "redirect_uris": ["javascript:alert(1)"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": ["http://evil.example/cb"] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": [] }), "invalid_redirect_uri"),
        (json!({ "redirect_uris": "http://localhost/cb" }), "invalid_redirect_uri"),
        (json!([]), "invalid_redirect_uri"),
        (
            json!({ "redirect_uris": vec![format!("https://a.example/{}", "x".repeat(400)); 4] }),
            "invalid_client_metadata",
        ),
    ] {
        let answer = Request::post(&url).json(&said).send().unwrap();
        assert_eq!((answer.status, text(&answer.json().unwrap(), "error")), (400, error), "{said}");
    }
    // A secret that a client wants is not given: it has none.
    let made = register(
        &place.steading.ready().url,
        &json!({ "redirect_uris": ["https://app.example/cb"], "token_endpoint_auth_method": "client_secret_post" }),
    );
    assert_eq!((text(&made, "token_endpoint_auth_method"), &made["client_secret"]), ("none", &json!(null)));
    // Its mistakes lead nobody to its address.
    let flow = Flow {
        client: text(&made, "client_id").to_owned(),
        back: "https://app.example/cb".into(),
        ..Flow::new(&place)
    };
    let answer = Visitor::new(&flow.base).get(&flow.url(&[("scope", "nothing")])).unwrap();
    assert_eq!((answer.status, answer.header("location")), (400, None));
}

#[test]
fn a_user_with_a_browser_signs_in_decides_and_is_sent_back() {
    let place = Place::new("oauth-browser").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let send = send.clone();
            // A browser opens connections that it does not use.
            std::thread::spawn(move || {
                let mut line = String::new();
                drop(BufReader::new(&stream).read_line(&mut line));
                let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 21\r\nconnection: close\r\n\r\n<h1>Back, thanks</h1>";
                drop((&stream).write_all(page.as_bytes()));
                drop(send.send(line));
            });
        }
    });
    let flow = Flow { back: format!("http://127.0.0.1:{port}/callback"), ..Flow::new(&place) };
    let back = conformance_tests::browser(|browser| {
        browser.goto(&flow.url(&[("scope", "read sandbox")]))?;
        assert_eq!(browser.evaluate(WIDE)?, json!(false));
        browser.type_into("#key", &flow.key)?;
        browser.click("button")?;
        browser.text("h1 em")?;
        assert_eq!(browser.evaluate(WIDE)?, json!(false));
        browser.click("input[value=sandbox]")?;
        browser.click("button[value=allow]")?;
        let console = browser.console()?;
        ensure!(console.is_empty(), "{console:?}");
        // The browser ends with this: it has to be sent back before.
        eventually(LIMIT, || came.try_iter().find(|line| line.contains("/callback?")))
            .context("nobody came back")
    })
    .unwrap();
    let code = conformance_tests::field(back.split(' ').nth(1).unwrap(), "code");
    let code = code.unwrap_or_else(|| panic!("{back}"));
    let tokens = flow.redeem(&code, &[]).json().unwrap();
    assert_eq!(text(&tokens, "scope"), "read");
}
