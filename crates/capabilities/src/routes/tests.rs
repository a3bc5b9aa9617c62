//! Routes as manifests write them: which one is for a path, what it leads to, and what is refused, where.

use serde_json::{Value, json};

use super::*;

fn parsed(spec: Value) -> Result<Routes> {
    let spec: RoutesSpec = serde_json::from_value(spec).unwrap();
    let tables = BTreeSet::from(["todos".to_owned()]);
    let buckets = BTreeSet::from(["photos".to_owned()]);
    let functions = BTreeSet::from(["hello".to_owned()]);
    let services = BTreeSet::from(["live".to_owned()]);
    Routes::parse(
        &spec,
        There { tables: &tables, buckets: &buckets, functions: &functions, services: &services },
    )
}

fn leads(routes: &Routes, raw: &str) -> String {
    let Some(asked) = RequestPath::parse(raw) else { return "no path".to_owned() };
    match routes.find(&asked) {
        None => "the site".to_owned(),
        Some(found) => match found.path(&asked) {
            Some(path) => format!("{} {}", found.route.to, path.as_str()),
            None => format!("{} nowhere", found.route.to),
        },
    }
}

#[test]
fn a_path_leads_where_its_most_particular_route_says() {
    let routes = parsed(json!({
        "/api/todos/*": { "to": { "table": "todos" } },
        "/api/todos/:id/row": { "to": { "table": "Todos" }, "rewrite": "/:id" },
        "/img/*": { "to": { "bucket": "photos" } },
        "/logo": { "to": { "bucket": "photos" }, "rewrite": "/brand/logo.png" },
        "/blog/:slug": { "rewrite": "/posts/:slug.html" },
        "/old/*": { "rewrite": "/:splat" },
        "/members/*": { "auth": "signed_in" },
    }))
    .unwrap();
    for (raw, leads_to) in [
        ("/api/todos", "table todos /"),
        ("/api/todos/", "table todos /"),
        ("/api/todos/a-1", "table todos /a-1"),
        ("/api/todos/a-1/row", "table Todos /a-1"),
        ("/api/todos/%61%20b", "table todos /a b"),
        ("/API/todos", "the site"),
        ("/img/a/b.png", "bucket photos /a/b.png"),
        ("/img", "bucket photos /"),
        ("/logo", "bucket photos /brand/logo.png"),
        ("/blog/one", "site /posts/one.html"),
        ("/blog/one/two", "the site"),
        ("/old/_/db/todos", "site /_/db/todos"),
        ("/old", "site /"),
        ("/old/a/b/", "site /a/b"),
        ("/members", "site /members"),
        ("/members/a/", "site /members/a/"),
        ("/img/../x", "no path"),
        ("/img/%2e%2e/x", "no path"),
        ("/img/%252e%252e/x", "bucket photos /%2e%2e/x"),
        ("/img//x", "no path"),
        ("/img/a%2fb", "no path"),
        ("/img/a%5cb", "no path"),
        ("/img/a%00", "no path"),
    ] {
        assert_eq!(leads(&routes, raw), leads_to, "{raw}");
    }
    let long = format!("/blog/{}", "a".repeat(505));
    assert_eq!(leads(&routes, &long), "site nowhere", "what it fills in makes no path that could be");
}

#[test]
fn a_guarded_file_is_guarded_however_one_comes_to_it() {
    let routes = parsed(json!({
        "/members/*": { "auth": "signed_in" },
        "/members/open.html": {},
        "/secret.html": { "auth": "admin" },
        "/x": { "rewrite": "/members/a.html" },
        "/*": {},
    }))
    .unwrap();
    let by = |file: &str, raw: Option<&str>| {
        let asked = raw.map(|raw| RequestPath::parse(raw).unwrap());
        let found = asked.as_ref().and_then(|asked| routes.find(asked));
        let guards = routes.guards(file, found.map(|found| found.route));
        guards.iter().map(|route| route.text.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(by("members/a.html", None), ["/members/*"]);
    assert_eq!(by("members/index.html", Some("/members/")), [""; 0], "the route itself was passed");
    assert_eq!(by("members/index.html", None), ["/members/*"]);
    assert_eq!(by("members/a.html", Some("/x")), ["/members/*"], "a rewrite opens nothing");
    assert_eq!(by("secret.html", Some("/secret")), ["/secret.html"], "a clean address opens nothing");
    assert_eq!(by("members/open.html", Some("/members/open.html")), [""; 0], "what is more particular holds");
    assert_eq!(by("other.html", Some("/other")), [""; 0]);

    // What is shown in place of a page that is not there has an address of its own.
    let routes = parsed(json!({ "/*": { "auth": "signed_in" }, "/pub/*": {}, "/pub/a": {} })).unwrap();
    let by = |file: &str, raw: &str| {
        let asked = RequestPath::parse(raw).unwrap();
        let guards = routes.guards(file, routes.find(&asked).map(|found| found.route));
        guards.iter().map(|route| route.text.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(by("index.html", "/pub/none"), ["/*"], "the page of an app with `spa`");
    assert_eq!(by("404.html", "/pub/none"), ["/*"]);
    assert_eq!(by("404.html", "/404"), [""; 0], "the route itself was passed");
    for raw in ["/pub/a", "/pub/a.html"] {
        assert_eq!(by("pub/a.html", raw), [""; 0], "{raw}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place() {
    let told = |spec: Value| {
        let error = parsed(spec).unwrap_err();
        format!("{}: {}", error.pointer().unwrap_or_default(), error.message())
    };
    let to = json!({ "table": "todos" });
    for (spec, expected) in [
        (json!({ "a": {} }), "/a: a path begins with a slash"),
        (json!({ "/_/db/*": {} }), "/~1_~1db~1*: the app's own interfaces are there, and cannot be routed"),
        (
            json!({ "/a/:x": {}, "/a/:y/": {} }),
            "/~1a~1:y~1: the routes /a/:x and /a/:y/ are for the same paths",
        ),
        (json!({ "/a": { "to": { "table": "nope" } } }), "/~1a/to: there is no table nope to lead to"),
        (json!({ "/a/*": { "to": { "bucket": "nope" } } }), "/~1a~1*/to: there is no bucket nope to lead to"),
        (
            json!({ "/a": { "to": { "bucket": "photos" } } }),
            "/~1a/rewrite: it does not say which file is meant",
        ),
        (json!({ "/a/:id": { "to": to } }), "/~1a~1:id/rewrite: it does not say which row is meant"),
        (
            json!({ "/a": { "rewrite": "/_/x" } }),
            "/~1a/rewrite: a route cannot lead to the app's own interfaces below /_/",
        ),
        (json!({ "/a": { "rewrite": "/../x" } }), "/~1a/rewrite: it has a `.` or `..` segment"),
        (json!({ "/a": { "rewrite": "/:b" } }), "/~1a/rewrite: nothing in the pattern is called :b"),
        (json!({ "/a": { "methods": ["GET", "POST"] } }), "/~1a/methods: a site takes no POST"),
        (json!({ "/a": { "methods": [] } }), "/~1a/methods: no method is named, so nobody could ask"),
        (json!({ "/a": { "cors": { "origins": [] } } }), "/~1a/cors/origins: name 1 to 20 origins"),
        (
            json!({ "/a": { "cors": { "origins": ["*", "https://a.b"] } } }),
            "/~1a/cors/origins: * stands for all origins: write it alone",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["*"], "credentials": true } } }),
            "/~1a/cors/credentials: pages of every origin would act as whoever visits them",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["https://a.b/c"] } } }),
            "/~1a/cors/origins/0: an origin has neither a path nor a user",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["null"] } } }),
            "/~1a/cors/origins/0: an origin is scheme://host or scheme://host:port",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["https://a.b"], "methods": ["PUT"] } } }),
            "/~1a/cors/methods: the route itself takes no PUT",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["https://a.b"], "headers": ["a b"] } } }),
            "/~1a/cors/headers/0: this is not the name of a header",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["https://a.b"], "headers": ["*"] } } }),
            "/~1a/cors/headers/0: this is not the name of a header",
        ),
        (
            json!({ "/a": { "cors": { "origins": ["https://a.b"], "max_age": 90000 } } }),
            "/~1a/cors/max_age: browsers keep it for at most 86400 seconds",
        ),
        (
            json!({ "/a": { "limit": { "requests": 0, "per": "minute" } } }),
            "/~1a/limit/requests: 1 to 100000 requests can be allowed",
        ),
        (json!({ "/a": { "timeout": 0 } }), "/~1a/timeout: a timeout is 1 to 300 seconds"),
    ] {
        assert_eq!(told(spec.clone()), expected, "{spec}");
    }
    let many: serde_json::Map<String, Value> = (0..=MOST).map(|n| (format!("/{n}"), json!({}))).collect();
    assert_eq!(told(many.into()), ": an app has at most 200 routes");
}

#[test]
fn a_function_gets_the_path_as_it_came_and_every_method() {
    let routes = parsed(json!({
        "/api": { "to": { "function": "hello" } },
        "/api/*": { "to": { "function": "hello" }, "methods": ["GET", "POST"] },
        "/v/:id/x": { "to": { "function": "hello" }, "rewrite": "/x/:id" },
    }))
    .unwrap();
    assert_eq!(leads(&routes, "/api"), "function hello /api");
    assert_eq!(leads(&routes, "/api/a/b"), "function hello /api/a/b");
    assert_eq!(leads(&routes, "/v/7/x"), "function hello /x/7");
    let methods = |path: &str| routes.at(path).unwrap().methods.len();
    assert_eq!((methods("/api"), methods("/api/a")), (Verb::ALL.len(), 3));
    let missing = parsed(json!({ "/api": { "to": { "function": "Hello" } } })).unwrap_err();
    assert_eq!(missing.message(), "there is no function Hello to lead to");
    let service = parsed(json!({ "/live": { "to": { "service": "live" } } })).unwrap();
    assert_eq!(leads(&service, "/live"), "service live /live");
    let other = parsed(json!({ "/live": { "to": { "service": "hello" } } })).unwrap_err();
    assert_eq!(other.message(), "there is no service hello to lead to");
    assert_eq!(missing.pointer(), Some("/~1api/to"));
}

#[test]
fn what_is_no_route_does_not_parse() {
    let told = |spec: Value| serde_json::from_value::<RouteSpec>(spec).unwrap_err().to_string();
    let offer = r#"a route leads to "site", {"function": name}, {"service": name}, {"bucket": name} or {"table": name}"#;
    assert_eq!(told(json!({ "to": "function" })), offer);
    assert_eq!(told(json!({ "to": "service" })), offer);
    for bad in [
        json!({ "to": "bucket" }),
        json!({ "to": { "site": "x" } }),
        json!({ "to": { "bucket": "a", "table": "b" } }),
        json!({ "to": {} }),
        json!({ "to": ["site"] }),
        json!({ "auth": "everybody" }),
        json!({ "auth": { "role": "" } }),
        json!({ "auth": { "role": "a", "x": 1 } }),
        json!({ "methods": ["get"] }),
        json!({ "methods": ["OPTIONS"] }),
        json!({ "limit": { "requests": 1, "per": "day" } }),
        json!({ "limit": { "requests": 1, "per": "hour", "by": "moon" } }),
        json!({ "limit": { "requests": 1, "per": "hour", "burst": 1 } }),
        json!({ "max_body": -1 }),
        json!({ "timeout": "3s" }),
        json!({ "cors": { "origins": ["*"], "x": 1 } }),
        json!({ "redirect": "/x" }),
    ] {
        told(bad);
    }
    let whole = json!({
        "to": { "table": "todos" }, "auth": { "role": "editor" }, "methods": ["GET", "POST"],
        "cors": { "origins": ["https://a.b"], "methods": ["GET"], "headers": ["x-a"], "credentials": true, "max_age": 5 },
        "limit": { "requests": 5, "per": "hour", "by": "user" }, "max_body": 100, "timeout": 3, "rewrite": "/",
    });
    let read: RouteSpec = serde_json::from_value(whole.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), whole, "it is stored as it was written");
    assert_eq!(
        read.to_string(),
        "table todos /, role editor, GET POST, pages of https://a.b by GET with x-a with credentials, 5/hour per user, \
         bodies of 100 bytes, 3 s"
    );
    assert_eq!(serde_json::to_value(RouteSpec::default()).unwrap(), json!({}));
    assert_eq!(RouteSpec::default().to_string(), "site, public");
}
