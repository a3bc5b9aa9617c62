//! What redirects match, where they lead, and which are refused.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::RequestPath;
use super::*;

fn parse(rules: Value) -> Result<Vec<Redirect>, String> {
    Redirect::parse_all(serde_json::from_value(rules).unwrap())
        .map_err(|error| format!("{:?}", kernel::Error::from(error)))
}

fn lead(from: &str, to: &str, path: &str) -> Option<String> {
    parse(json!([{ "from": from, "to": to }])).unwrap()[0].apply(path)
}

#[test]
fn a_rule_leads_where_it_says() {
    for (from, to, path, expected) in [
        ("/old", "/new", "/old", Some("/new")),
        ("/old", "/new", "/old/", Some("/new")),
        ("/old/", "/new", "/old", Some("/new")),
        ("/old", "/new", "/old/a", None),
        ("/old", "/new", "/older", None),
        ("/old", "/new", "/", None),
        ("/", "/home", "/", Some("/home")),
        ("/", "/home", "/a", None),
        ("/old/*", "/new/:splat", "/old/a/b", Some("/new/a/b")),
        ("/old/*", "/new/:splat", "/old", Some("/new/")),
        ("/old/*", "/new/:splat", "/older", None),
        ("/*", "https://a.example/:splat", "/x/y", Some("https://a.example/x/y")),
        ("/blog/:year/:slug", "/posts/:slug?y=:year", "/blog/2024/hi", Some("/posts/hi?y=2024")),
        ("/blog/:year/:slug", "/posts/:slug", "/blog/2024", None),
        ("/u/:name/*", "/:splat/of/:name", "/u/ann/a", Some("/a/of/ann")),
        ("/a b/ü", "/c", "/a b/ü", Some("/c")),
        ("/a", "http://localhost:8080/x#y", "/a", Some("http://localhost:8080/x#y")),
    ] {
        assert_eq!(lead(from, to, path).as_deref(), expected, "{from} {to} {path}");
    }
}

#[test]
fn what_the_visitor_wrote_is_encoded() {
    assert_eq!(lead("/a/*", "/b/:splat", "/a/ü ?#%\"<"), Some("/b/%C3%BC%20%3F%23%25%22%3C".into()));
}

#[test]
fn an_empty_splat_does_not_make_the_next_segment_a_host() {
    assert_eq!(lead("/x/:name/*", "/:splat/:name", "/x/evil.example"), Some("/evil.example".into()));
}

#[test]
fn the_status_is_302_or_what_the_rule_says() {
    let status = |rule: Value| parse(json!([rule])).map(|rules| rules[0].status().as_u16());
    assert_eq!(status(json!({ "from": "/a", "to": "/b" })), Ok(302));
    for known in [301, 302, 303, 307, 308] {
        assert_eq!(status(json!({ "from": "/a", "to": "/b", "status": known })), Ok(known));
    }
    assert_eq!(
        status(json!({ "from": "/a", "to": "/b", "status": 304 })).unwrap_err(),
        "invalid_input /redirects/0/status: 304 is no redirect: use 301, 302, 303, 307 or 308"
    );
    assert!(status(json!({ "from": "/*", "to": "/index.html", "status": 200 })).is_err());
}

#[test]
fn a_rule_that_could_mislead_is_refused() {
    let refused = [
        ("old", "/new", "from"),
        ("/a//b", "/new", "from"),
        ("/a?b", "/new", "from"),
        ("/a%20b", "/new", "from"),
        ("/a/*/b", "/new", "from"),
        ("/a*", "/new", "from"),
        ("/:a/:a", "/new", "from"),
        ("/:1", "/new", "from"),
        ("/:", "/new", "from"),
        ("/a\r\nb", "/new", "from"),
        ("/a", "new", "to"),
        ("/a", "//evil.example", "to"),
        ("/a", "/\\evil.example", "to"),
        ("/a", "/b\r\nSet-Cookie: c", "to"),
        ("/a", "/b c", "to"),
        ("/a", "/ü", "to"),
        ("/a", "javascript:alert(1)", "to"),
        ("/a", "ftp://a.example/", "to"),
        ("/a", "https://", "to"),
        ("/a", "https://user@a.example/", "to"),
        ("/a", "https://a.example?b", "to"),
        ("/a/*", "https://:splat/", "to"),
        ("/a/:b", "https://:b.example/", "to"),
        ("/a", "/:splat", "to"),
        ("/a/:b", "/:c", "to"),
    ];
    for (from, to, field) in refused {
        let error = parse(json!([{ "from": from, "to": to }])).unwrap_err();
        assert!(error.starts_with(&format!("invalid_input /redirects/0/{field}: ")), "{from} {to}: {error}");
    }
    assert!(
        serde_json::from_value::<RedirectSpec>(json!({ "from": "/a", "to": "/b", "force": true })).is_err()
    );
}

#[test]
fn a_source_that_no_path_can_match_is_refused() {
    let (deep, long) = ("/a".repeat(33), format!("/{}", "a".repeat(512)));
    for from in [deep, long] {
        let error = parse(json!([{ "from": from, "to": "/b" }])).unwrap_err();
        let why = "no path is longer than 512 bytes or deeper than 32 levels";
        assert_eq!(error, format!("invalid_input /redirects/0/from: {why}"));
    }
    assert!(parse(json!([{ "from": "/a".repeat(32), "to": "/b" }])).is_ok());
}

#[test]
fn a_loop_is_refused() {
    for rules in [
        json!([{ "from": "/a", "to": "/a" }]),
        json!([{ "from": "/docs", "to": "/docs/" }]),
        json!([{ "from": "/*", "to": "/index.html" }]),
        json!([{ "from": "/a/*", "to": "/b/:splat" }, { "from": "/b/*", "to": "/a/:splat" }]),
    ] {
        assert!(parse(rules.clone()).unwrap_err().contains("in a loop"), "{rules}");
    }
    let chain = json!([{ "from": "/a", "to": "/b" }, { "from": "/b", "to": "/c" }]);
    assert!(parse(chain).is_ok());
}

proptest! {
    #[test]
    fn a_location_stays_with_its_host_and_in_one_header(raw in "/[a-z%0-9./:@\\\\]{0,40}") {
        let rules = parse(json!([
            { "from": "/x/:name/*", "to": "/:splat/:name" },
            { "from": "/*", "to": "/to/:splat" },
        ]));
        // The second rule would loop, so the two are tried apart.
        prop_assert!(rules.is_err());
        let Some(path) = RequestPath::parse(&raw) else { return Ok(()) };
        for (from, to) in [("/x/:name/*", "/:splat/:name"), ("/*", "https://a.example/:splat")] {
            if let Some(location) = lead(from, to, path.as_str()) {
                prop_assert!(location.bytes().all(|b| b.is_ascii_graphic()));
                let own = location.starts_with('/') && !location.starts_with("//");
                prop_assert!(own || location.starts_with("https://a.example/"));
            }
        }
    }
}
