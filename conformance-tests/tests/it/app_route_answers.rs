//! What routes answer in place of what they lead to, and to whom.

use conformance_tests::{App, Place, Reply};
use serde_json::json;

use crate::app_routes::{FRIEND, small, told};

#[test]
fn what_a_route_refuses_is_read_by_pages_that_may_use_the_app() {
    let place = Place::new("refused").unwrap();
    let mut manifest = small(&json!({
        "/few/*": { "to": { "table": "todos" }, "limit": { "requests": 1, "per": "hour", "by": "route" } },
        "/small/*": { "to": { "table": "todos" }, "methods": ["POST"], "max_body": 10 },
    }));
    manifest["auth"]["origins"] = json!([FRIEND]);
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let app = App::new(&place.url);
    let described = place.output("app_describe", &json!({})).unwrap();
    let key = described["auth"]["publishable_key"].as_str().unwrap();
    let ask = |method: &str, path: &str, origin: &str| {
        let request = app.request(method, path).header("origin", origin).header("steading-key", key);
        Reply::of(request.header("content-type", "application/json").body(r#"{"title": "far too long"}"#))
            .unwrap()
    };
    ask("GET", "/few/", FRIEND);
    for (method, path, status) in [("GET", "/few/", 429), ("POST", "/small/", 413), ("PUT", "/small/", 405)] {
        let reply = ask(method, path, FRIEND);
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some(FRIEND), "{method} {path}");
        let stranger = ask(method, path, "https://stranger.example");
        assert_eq!(stranger.header("access-control-allow-origin"), None, "{method} {path}");
    }
    let exposed = ask("GET", "/few/", FRIEND);
    assert!(exposed.header("access-control-expose-headers").unwrap().contains("retry-after"));
}

#[test]
fn a_page_for_members_is_not_shown_in_place_of_a_public_one_that_is_not_there() {
    let place = Place::new("fallback").unwrap();
    let manifest = |spa: bool| {
        let mut manifest = small(&json!({ "/*": { "auth": "signed_in" }, "/pub/*": {} }));
        manifest["site"] = json!({
            "files": { "index.html": "members", "404.html": "members too", "pub/a.html": "open" }, "spa": spa,
        });
        manifest
    };
    let app = App::new(&place.url);
    let ask = |path: &str| app.visitor().ask("GET", path).unwrap();
    for spa in [true, false] {
        let mut manifest = manifest(spa);
        if spa {
            manifest["site"]["files"].as_object_mut().unwrap().remove("404.html");
        }
        place.output("app_apply", &json!({ "manifest": manifest })).unwrap();
        assert_eq!(told(&ask("/pub/a")), (200, "open"));
        for path in ["/", "/index.html", "/pub/none", "/pub/b/c"] {
            let reply = ask(path);
            assert!(!format!("{:?}", reply.body).contains("members"), "{path}: {reply:?}");
        }
    }
}
