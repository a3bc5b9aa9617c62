//! Visits of the console under attack: half of one, one from elsewhere, one whose key has ended, and one at other doors.

use conformance_tests::{Place, Visitor, hidden};
use serde_json::{Value, json};
use testkit::http::{Request, Response};

use crate::oauth_flow::text;

/// Somebody who has signed in: what a browser sends.
pub struct Visit {
    base: String,
    cookie: String,
    proof: String,
    pub told: Value,
}

/// What a page of the console sends before anybody is signed in.
pub fn sent(base: &str, path: &str, body: &Value) -> Response {
    Request::post(&format!("{base}{path}")).header("origin", base).json(body).send().unwrap()
}

fn shown(base: &str, key: &str) -> Response {
    sent(base, "/console/session", &json!({ "key": key }))
}

impl Visit {
    fn begin(base: &str, key: &str) -> Self {
        Self::of(base, &shown(base, key), key)
    }

    /// The visit that an answer begins, which says nothing of the secret that was shown for it.
    pub fn of(base: &str, answer: &Response, key: &str) -> Self {
        assert_eq!(answer.status, 201, "{:?}", answer.text());
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Strict"), "{cookie}");
        assert!(!cookie.to_ascii_lowercase().contains("domain"), "{cookie}");
        assert!(!cookie.contains(key) && !answer.text().unwrap().contains(key), "the key stays nowhere");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let (cookie, told) = (cookie.split(';').next().unwrap().to_owned(), answer.json().unwrap());
        Self { base: base.to_owned(), cookie, proof: text(&told, "proof").to_owned(), told }
    }

    /// A request as a page of the console sends it.
    pub fn of_page(&self, method: &str, path: &str) -> Request {
        self.halves(method, path).header("sec-fetch-site", "same-origin")
    }

    /// Both halves, and nothing of where it comes from.
    fn halves(&self, method: &str, path: &str) -> Request {
        let request = Request::new(method, &format!("{}{path}", self.base));
        request.header("cookie", &self.cookie).header("steading-console", &self.proof)
    }

    pub fn status(&self, path: &str) -> u16 {
        self.of_page("GET", path).send().unwrap().status
    }
}

fn status(request: Request) -> u16 {
    request.send().unwrap().status
}

#[test]
fn a_visit_takes_both_halves_and_a_page_of_this_very_origin() {
    let place = Place::new("console-halves").unwrap();
    let base = &place.steading.ready().url;
    let visit = Visit::begin(base, &place.steading.ready().key);
    assert_eq!(visit.status("/v1/envs"), 200);
    assert_eq!(visit.status("/console/session"), 200);
    let url = format!("{base}/v1/envs");
    let get = || Request::get(&url).header("sec-fetch-site", "same-origin");
    let other = Visit::begin(base, &place.steading.ready().key);
    assert_eq!(status(get().header("cookie", &visit.cookie)), 401, "the cookie alone");
    assert_eq!(status(get().header("steading-console", &visit.proof)), 401, "the proof alone");
    for proof in ["1", "", &other.proof, &"A".repeat(43)] {
        let sent = get().header("cookie", &visit.cookie).header("steading-console", proof);
        assert_eq!(status(sent), 401, "{proof}");
    }
    // From elsewhere: other sites, apps of this platform, other ports of this machine, and programs.
    let port = place.steading.authority().rsplit(':').next().unwrap();
    let app = format!("http://{}.localhost:{port}", place.slug);
    for origin in ["https://evil.example", "null", &app, "http://127.0.0.1:1", "http://localhost:1"] {
        for site in [None, Some("same-origin"), Some("same-site"), Some("cross-site")] {
            let mut sent = visit.halves("GET", "/v1/envs").header("origin", origin);
            if let Some(site) = site {
                sent = sent.header("sec-fetch-site", site);
            }
            assert_eq!(status(sent), 403, "{origin} {site:?}");
            let sign_in = Request::post(&format!("{base}/console/session")).header("origin", origin);
            assert_eq!(status(sign_in.json(&json!({ "key": place.steading.ready().key }))), 403, "{origin}");
        }
    }
    for site in ["same-site", "cross-site", "none", ""] {
        assert_eq!(status(visit.halves("GET", "/v1/envs").header("sec-fetch-site", site)), 403, "{site}");
    }
    assert_eq!(status(visit.halves("GET", "/v1/envs")), 403, "nobody says where it comes from");
    // Made by somebody else: another key, more time, another address of the same platform.
    let (name, value) = visit.cookie.split_once('=').unwrap();
    let parts: Vec<&str> = value.split('.').collect();
    for (n, forged) in [
        (0, "AAAAAAAAAAAAAAAAAAAAAA"),
        (1, "key_00000000000070008000000000000000"),
        (2, "99999999999"),
        (3, "99999999999"),
        (4, "A"),
    ] {
        let mut parts = parts.clone();
        parts[n] = forged;
        let cookie = format!("{name}={}", parts.join("."));
        let sent = get().header("cookie", &cookie).header("steading-console", &visit.proof);
        assert_eq!(status(sent), 401, "{n}");
    }
    let elsewhere =
        Visit { base: format!("http://localhost:{port}"), ..Visit::begin(base, &place.steading.ready().key) };
    assert_eq!(elsewhere.status("/v1/envs"), 401, "another name of this machine");
}

#[test]
fn a_visit_opens_the_platforms_own_routes_and_no_other_door() {
    let place = Place::new("console-doors").unwrap();
    let base = &place.steading.ready().url;
    let visit = Visit::begin(base, &place.steading.ready().key);
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    for path in ["/mcp", &format!("/mcp/{}", place.slug)] {
        let sent = visit.of_page("POST", path).header("accept", "application/json, text/event-stream");
        assert_eq!(status(sent.json(&list)), 401, "{path}");
    }
    assert_eq!(visit.status("/metrics"), 401);
    // Neither half is a credential by itself.
    let (_, value) = visit.cookie.split_once('=').unwrap();
    for half in [value, &visit.proof] {
        assert_eq!(status(Request::get(&format!("{base}/v1/envs")).bearer(half)), 401);
    }
    // A wrong credential is not mended by a visit beside it.
    assert_eq!(status(visit.of_page("GET", "/v1/envs").bearer("stead_op_nothing")), 401);
    // Whoever asks for consent is asked for a key.
    let asked = "/oauth/authorize?client_id=https%3A%2F%2Fclaude.ai%2Foauth%2Fclaude-code-client-metadata&response_type=code&redirect_uri=http%3A%2F%2Flocalhost%3A1%2Fcallback&code_challenge=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA&code_challenge_method=S256";
    let page = visit.of_page("GET", asked).send().unwrap();
    assert!(page.text().unwrap().contains("Your key"), "{} {:?}", page.status, page.text());
    let port = place.steading.authority().rsplit(':').next().unwrap();
    for path in ["/console", "/console/assets/main.js", "/console/session", "/v1/envs"] {
        let app = format!("http://{}.localhost:{port}{path}", place.slug);
        let sent =
            Request::get(&app).header("cookie", &visit.cookie).header("steading-console", &visit.proof);
        assert_eq!(status(sent.header("sec-fetch-site", "same-origin")), 404, "{app}");
    }
}

#[test]
fn a_visit_ends_with_its_key_with_its_tenant_and_with_signing_out() {
    let place = Place::new("console-ends").unwrap();
    let (base, operator) = (&place.steading.ready().url, place.steading.client().without_env());
    let slug = format!("{}-tenant", place.slug);
    let made = operator.request("POST", "/v1/tenants").json(&json!({ "slug": slug })).send().unwrap();
    assert_eq!(made.status, 201, "{:?}", made.text());
    let key = |cidrs: Value| {
        let wanted = json!({ "name": "visitor", "cidrs": cidrs });
        let made = operator.request("POST", "/v1/keys").header("steading-tenant", &slug).json(&wanted);
        made.send().unwrap().json().unwrap()
    };
    let keys = [key(json!(null)), key(json!(null))];
    let [first, second] = keys.each_ref().map(|key| Visit::begin(base, text(key, "key")));
    assert_eq!((first.status("/v1/envs"), second.status("/v1/envs")), (200, 200));
    let id = text(&keys[0], "id");
    assert_eq!(
        status(operator.request("DELETE", &format!("/v1/keys/{id}")).header("steading-tenant", &slug)),
        200
    );
    assert_eq!((first.status("/v1/envs"), first.status("/console/session")), (401, 401));
    assert_eq!(second.status("/v1/envs"), 200);
    let turn = |verb: &str| status(operator.request("POST", &format!("/v1/tenants/{slug}/{verb}")));
    assert_eq!(turn("suspend"), 200);
    assert!([401, 403].contains(&second.status("/v1/envs")));
    assert_eq!(second.status("/console/session"), 401);
    assert!([401, 403].contains(&shown(base, text(&keys[1], "key")).status));
    assert_eq!(turn("resume"), 200);
    assert_eq!(second.status("/v1/envs"), 200);
    // A copy of both halves is worth nothing after signing out.
    let out = second.of_page("DELETE", "/console/session").send().unwrap();
    assert_eq!(out.status, 200);
    assert!(out.header("set-cookie").unwrap().contains("=; Max-Age=0;"), "{:?}", out.header("set-cookie"));
    assert_eq!((second.status("/v1/envs"), second.status("/console/session")), (401, 401));
    // What is good from some networks alone is not shown from others.
    assert_eq!(shown(base, text(&key(json!(["10.0.0.0/8"])), "key")).status, 401);
}

#[test]
fn a_tenants_visit_sees_nothing_of_another_and_acts_as_its_key() {
    let place = Place::new("console-tenants").unwrap();
    let (base, operator) = (&place.steading.ready().url, place.steading.client().without_env());
    let names = ["ours", "theirs"].map(|name| format!("{}-{name}", place.slug));
    for slug in &names {
        operator.request("POST", "/v1/tenants").json(&json!({ "slug": slug })).send().unwrap();
        let env = operator.request("POST", "/v1/envs").header("steading-tenant", slug);
        assert_eq!(status(env.json(&json!({ "slug": format!("{slug}-env") }))), 201);
    }
    let [ours, theirs] = &names;
    let made = operator
        .request("POST", "/v1/keys")
        .header("steading-tenant", ours)
        .json(&json!({ "name": "owner" }));
    let key = made.send().unwrap().json().unwrap();
    let visit = Visit::begin(base, text(&key, "key"));
    assert_eq!(visit.told["who"], "key");
    assert_eq!(visit.told["tenant"]["slug"], json!(ours));
    assert_eq!(visit.told["key"]["id"], key["id"]);
    assert_eq!(visit.status("/v1/tenants"), 403);
    assert_eq!(visit.status(&format!("/v1/envs/{theirs}-env")), 404);
    assert_eq!(status(visit.of_page("GET", "/v1/envs").header("steading-tenant", theirs)), 404);
    let describe =
        visit.of_page("POST", "/v1/tools/app_describe").header("steading-env", &format!("{theirs}-env"));
    assert_eq!(status(describe.json(&json!({}))), 404);
    let list = visit.of_page("GET", "/v1/envs").send().unwrap();
    assert!(!list.text().unwrap().contains(theirs.as_str()), "{:?}", list.text());
    // What is done is on record as the key's, from where it came.
    let made = visit
        .of_page("POST", "/v1/envs")
        .header("origin", base)
        .json(&json!({ "slug": format!("{ours}-new") }));
    assert_eq!(status(made), 201);
    let entries = visit.of_page("GET", "/v1/audit").send().unwrap().json().unwrap()["entries"].clone();
    let acts: Vec<_> = entries.as_array().unwrap().iter().take(2).collect();
    for (entry, act) in acts.iter().zip(["env_create", "console.sign_in"]) {
        assert_eq!(
            (&entry["act"], &entry["who"], &entry["credential"]),
            (&json!(act), &json!("key"), &key["id"])
        );
        assert_eq!(entry["from"], "127.0.0.1");
    }
    // A key that it makes outlives the visit.
    let made = visit.of_page("POST", "/v1/keys").header("origin", base).json(&json!({ "name": "made" }));
    assert_eq!(made.send().unwrap().json().unwrap()["expires_at"], json!(null));
}

#[test]
fn wrong_keys_count_at_both_pages_and_are_in_no_log() {
    let place = Place::alone("console-guess").unwrap();
    let base = &place.steading.ready().url;
    let mut statuses = Vec::new();
    for n in 0..11 {
        let key = format!("stead_op_guess{n}");
        let answer = shown(base, &key);
        assert!(!answer.text().unwrap().contains(&key), "a key is not shown again");
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [[401; 10].as_slice(), &[429]].concat());
    assert_eq!(
        shown(base, &place.steading.ready().key).status,
        429,
        "nobody learns that it was the right one"
    );
    let mut visitor = Visitor::new(base);
    let page = visitor.get("/oauth/device?user_code=BBBB-BBBB").unwrap();
    let tag = hidden(page.text().unwrap(), "form").unwrap();
    let fields = [("form", tag.as_str()), ("next", "/oauth/device"), ("key", "stead_op_guess")];
    assert_eq!(visitor.post("/oauth/sign-in", &fields).unwrap().status, 429);
    let log = place.steading.log();
    assert!(!log.contains("stead_op_guess") && !log.contains("stead_visit_"), "{log}");
    // A credential that was minted for a program is no key.
    let other = Place::new("console-minted").unwrap();
    let minted = json!({ "env": other.slug, "scopes": ["db:read"], "expires_in": 60 });
    let minted =
        other.client.request("POST", "/v1/credentials").json(&minted).send().unwrap().json().unwrap();
    assert_eq!(shown(&other.steading.ready().url, text(&minted, "token")).status, 401);
}

#[test]
fn files_of_the_console_say_what_pages_may_and_are_asked_for_once() {
    let place = Place::new("console-files").unwrap();
    let base = &place.steading.ready().url;
    let get = |path: &str| Request::get(&format!("{base}{path}"));
    for (path, kind) in [
        ("/console", "text/html"),
        ("/console/environments/any/logs", "text/html"),
        ("/console/assets/main.js", "text/javascript"),
        ("/console/assets/style.css", "text/css"),
        ("/console/assets/logo.svg", "image/svg+xml"),
    ] {
        let answer = get(path).send().unwrap();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("content-type").unwrap().starts_with(kind), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "style-src 'self';",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "require-trusted-types-for 'script'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        let said =
            ["x-content-type-options", "referrer-policy", "cross-origin-opener-policy", "x-frame-options"];
        let said = said.map(|name| answer.header(name).unwrap_or_default());
        assert_eq!(said, ["nosniff", "no-referrer", "same-origin", "DENY"], "{path}");
        assert_eq!(answer.header("set-cookie"), None);
        let again = get(path).header("if-none-match", answer.header("etag").unwrap()).send().unwrap();
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    let page = get("/console").send().unwrap();
    let html = page.text().unwrap();
    assert!(!html.contains("<style") && !html.contains("style=") && !html.contains("onclick"), "{html}");
    assert!(!html.contains("http:") && !html.contains("https:"), "nothing from elsewhere: {html}");
    assert_eq!(status(get("/console/assets/nothing.js")), 404);
    assert_eq!(status(Request::post(&format!("{base}/console"))), 405);
}
