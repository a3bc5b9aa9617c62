//! What somebody tries who wants in by another's sign-in, and what the app's surroundings tell nobody.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::{Person, Reply, steading};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::http::Request;

use crate::app_oauth::{Club, Found, VERIFIER, at_provider, landed, with_openid};
use crate::outsiders::{Outsider, SECRET, Walker, pairs, signed};

fn club(slug: &str) -> (Outsider, Club) {
    let outsider = Outsider::start();
    let auth = json!({ "methods": ["oauth", "anonymous"], "providers": outsider.providers() });
    let club = Club::new(slug, &auth);
    outsider.is(json!({ "id": 1, "openid": "o1", "emails": [] }));
    (outsider, club)
}

fn refused(response: testkit::http::Response) {
    assert_eq!(response.status, 403, "{response:?}");
    assert!(response.header("location").is_none() && response.header("set-cookie").is_none(), "{response:?}");
}

#[test]
fn a_way_back_is_for_the_browser_that_left_and_once() {
    let (_outsider, club) = club("oauth-back");
    let mut walker = Walker::default();
    let back = walker.walk(&club.start("github", "/in"), "/callback/");
    let (held, mut other) = (walker.cookies.clone(), Walker::default());
    // Another browser is led to the callback with somebody's code and state: the log-in of a stranger is not made its own.
    refused(other.ask("GET", &back, None));
    // One that is on a way of its own has another cookie.
    other.walk(&club.start("github", "/in"), "/callback/");
    refused(other.ask("GET", &back, None));
    // The other's cookie under this one's name.
    let host = club.app.url().split('/').nth(2).unwrap().to_owned();
    let own = held[&host].keys().next().unwrap().clone();
    assert!(own.starts_with("__Host-oauth-"), "{own}");
    let theirs = other.cookies[&host].values().next().unwrap().clone();
    other.cookies.get_mut(&host).unwrap().insert(own, theirs);
    refused(other.ask("GET", &back, None));
    // The state is worth nothing but with its cookie, and has not been spent by those who had none.
    let answer = walker.ask("GET", &back, None);
    assert_eq!(answer.status, 303, "{answer:?}");
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("Max-Age=0") && set.contains("HttpOnly") && set.contains("Secure"), "{set}");
    walker.cookies = held;
    refused(walker.ask("GET", &back, None));
    for (name, value) in [("state", "0".repeat(64)), ("state", String::new()), ("state", "x".repeat(5_000))] {
        let bad = format!("{}?{name}={value}&code=c", club.callback("github"));
        refused(walker.ask("GET", &bad, None));
    }
    refused(walker.ask("GET", &club.callback("github"), None));
    let twice = walker.ask("GET", &format!("{back}&state=x"), None);
    assert_eq!(twice.status, 400, "{twice:?}");
}

#[test]
fn what_a_page_finds_is_for_the_page_that_began_and_once() {
    let (_outsider, club) = club("oauth-handover");
    let visitor = club.app.visitor();
    let take = |found: &Found, verifier: &str| club.take_up_with(&visitor, found, verifier, false);
    let refused = |reply: Reply| reply.refuses(401, "unauthenticated").unwrap();
    let found = club.trip("github").unwrap();
    refused(take(&found, "another verifier, of another page"));
    refused(take(&found, VERIFIER));
    let found = club.trip("github").unwrap();
    assert_eq!(take(&found, VERIFIER).status, 200);
    refused(take(&found, VERIFIER));
    // A redirect of the app has led the browser on, with what was in its address, to who has begun: it lacks the cookie.
    let found = club.trip("github").unwrap();
    assert!(found.cookies.starts_with("__Host-oauth-"), "{found:?}");
    refused(take(&Found { cookies: String::new(), ..found }, VERIFIER));
    let (one, two) = (club.trip("github").unwrap(), club.trip("github").unwrap());
    refused(take(&Found { cookies: two.cookies, ..one }, VERIFIER));
    for (code, verifier) in [("", ""), ("x", VERIFIER), (&*"x".repeat(100_000), VERIFIER)] {
        refused(take(&Found { code: code.to_owned(), cookies: String::new() }, verifier));
    }
    // Another environment's app knows nothing of it.
    let other = Club::at(
        club.desk.clone(),
        "oauth-handover-2",
        &json!({ "methods": ["oauth"], "providers": {
        "github": { "client_id": "hub", "client_secret": "HUB" } } }),
    );
    let code = club.trip("github").unwrap();
    other.take_up(&other.app.visitor(), &code, false).refuses(401, "unauthenticated").unwrap();
    let unknown =
        visitor.send("POST", "/_/auth/oauth/token", &json!({ "code": "c", "verifier": "v", "user": "u" }));
    unknown.unwrap().refuses(400, "invalid_input").unwrap();
}

#[test]
fn nobody_is_led_anywhere_but_to_the_app_and_what_it_lists() {
    let (_outsider, club) = club("oauth-led");
    let start = |redirect: &str| Reply::of(Request::get(&club.start("github", redirect))).unwrap();
    for foreign in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "http://oauth-led.localhost.evil.example/",
    ] {
        let refused = start(foreign);
        assert_eq!((refused.status, refused.body["field"].as_str()), (400, Some("/redirect")), "{foreign}");
        assert!(refused.header("location").is_none());
    }
    let begun = start("/in#secret");
    assert_eq!(begun.status, 303);
    let location = begun.header("location").unwrap();
    assert!(!location.contains(VERIFIER) && !location.contains(SECRET), "{location}");
    for bad in ["", "challenge=short", "challenge=x&challenge=y", "redirect=%2F&token=abc"] {
        let url = format!("{}/_/auth/oauth/github/start?{bad}", club.app.url());
        assert_eq!(Reply::of(Request::get(&url)).unwrap().status, 400, "{bad}");
    }
    Reply::of(Request::get(&club.start("gitlab", "/"))).unwrap().refuses(404, "not_found").unwrap();
    let head = Request::new("HEAD", &club.start("github", "/")).send().unwrap();
    assert_eq!(head.status, 405, "looking begins nothing");
}

#[test]
fn one_providers_answer_is_not_taken_for_anothers() {
    let (provider, club) = with_openid("oauth-mixup");
    let mut walker = Walker::default();
    let back = at_provider(&mut walker, &club.start("acme", "/in"), "login=ada", "/callback/");
    let issuer = conformance_tests::encoded(provider.issuer());
    assert!(back.contains(&format!("iss={issuer}")), "{back}");
    let other = back.replace(&format!("iss={issuer}"), "iss=https%3A%2F%2Fevil.example");
    let answer = walker.ask("GET", &other, None);
    let page = format!("{}/in", club.app.url());
    assert_eq!(landed(&Walker::led(&answer, &club.callback("acme")), &page), Err("failed".to_owned()));
    // One that says who it is does so each time.
    let mut walker = Walker::default();
    let back = at_provider(&mut walker, &club.start("acme", "/in"), "login=ada", "/callback/");
    let answer = walker.ask("GET", &back.replace(&format!("&iss={issuer}"), ""), None);
    assert_eq!(landed(&Walker::led(&answer, &club.callback("acme")), &page), Err("failed".to_owned()));
    // A code of one way under the state of another: neither the verifier nor the nonce fits.
    let (mut one, mut two) = (Walker::default(), Walker::default());
    let first = at_provider(&mut one, &club.start("acme", "/in"), "login=ada", "/callback/");
    let second = at_provider(&mut two, &club.start("acme", "/in"), "login=bea", "/callback/");
    let code = |url: &str| pairs(url.split_once('?').unwrap().1)["code"].clone();
    let injected = second.replace(&code(&second), &code(&first));
    let answer = two.ask("GET", &injected, None);
    assert_eq!(landed(&Walker::led(&answer, &club.callback("acme")), &page), Err("failed".to_owned()));
    // Two providers, one state: an answer that was meant for one is not exchanged at the other.
    let outsider = Outsider::start();
    let acme = json!({ "issuer": provider.issuer(), "client_id": "the-app", "client_secret": "ACME" });
    let mut providers = outsider.providers();
    providers["acme"] = acme;
    club.client.output("auth_configure", &json!({ "providers": providers })).unwrap();
    let mut walker = Walker::default();
    let away = walker.walk(&club.start("apple", "/in"), "/apple/authorize");
    let state = pairs(away.split_once('?').unwrap().1)["state"].clone();
    let iss = conformance_tests::encoded(provider.issuer());
    // Nor is it where a provider says nothing of itself: it comes back to its own path alone.
    let astray = format!("{}?state={state}&code={}", club.callback("acme"), code(&first));
    refused(walker.ask("GET", &astray, None));
    let form = format!("state={state}&code={}&iss={iss}", code(&first));
    let answer = walker.ask("POST", &club.callback("apple"), Some(&form));
    assert_eq!(landed(&Walker::led(&answer, &club.callback("acme")), &page), Err("failed".to_owned()));
    assert!(outsider.said().secrets.is_empty(), "the code was shown to the other provider");
}

#[test]
fn an_issuer_in_the_platforms_own_surroundings_is_not_asked() {
    // This server's operator has allowed nothing.
    let outsider = Outsider::start();
    let port = outsider.url.rsplit_once(':').unwrap().1.to_owned();
    let issuers = [
        outsider.url.clone(),
        format!("http://localhost:{port}"),
        "https://169.254.169.254".to_owned(),
        "https://10.0.0.1/realms/x".to_owned(),
        "https://[::1]".to_owned(),
        "https://localhost".to_owned(),
    ];
    let named = |i: usize| format!("p{i}");
    let providers: serde_json::Map<String, Value> = issuers
        .iter()
        .enumerate()
        .map(|(i, issuer)| (named(i), json!({ "issuer": issuer, "client_id": "x" })))
        .collect();
    let club = Club::at(steading(), "oauth-ssrf", &json!({ "methods": ["oauth"], "providers": providers }));
    for (i, issuer) in issuers.iter().enumerate() {
        let begun = Reply::of(Request::get(&club.start(&named(i), "/in"))).unwrap();
        let to = begun.header("location").unwrap_or_default();
        assert_eq!((begun.status, to), (303, "/in#auth_oauth_error=unavailable"), "{issuer}");
        assert!(begun.header("set-cookie").is_none());
    }
    assert_eq!(outsider.said().asked, [""; 0]);
    let logged = club.client.output("logs_query", &json!({ "text": "another's word" })).unwrap();
    assert!(logged.to_string().contains("not a public address"), "{logged}");
}

#[test]
fn what_goes_wrong_is_in_the_log_and_no_secret_is_anywhere() {
    let (outsider, club) = club("oauth-log");
    club.client
        .output("secret_set", &json!({ "name": "HUB", "value": "another secret than theirs" }))
        .unwrap();
    for provider in ["github", "wechat"] {
        assert_eq!(club.trip(provider), Err("failed".to_owned()));
    }
    let logged = club.client.output("logs_query", &json!({})).unwrap().to_string();
    for expected in ["bad_verification_code", "errcode 40029"] {
        assert!(logged.contains(expected), "{expected}: {logged}");
    }
    club.client.output("secret_set", &json!({ "name": "HUB", "value": SECRET })).unwrap();
    let code = club.trip("wechat").unwrap();
    let known: Person = club.entered(&club.take_up(&club.app.visitor(), &code, false)).unwrap();
    let logged = club.client.output("logs_query", &json!({ "limit": 100 })).unwrap().to_string();
    for secret in [SECRET, "another secret than theirs", VERIFIER, &code.code, known.token(), "code-"] {
        assert!(!logged.contains(secret) && !club.desk.log().contains(secret), "{secret}");
    }
    let asked = outsider.said().asked.join("\n");
    assert!(!asked.contains(VERIFIER) && !asked.contains(&code.code) && !asked.contains(known.token()));
}

/// A token with HS256, as an app's own server signs it.
pub fn by_secret(secret: &str, claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encoded(&json!({ "alg": "HS256", "typ": "JWT" })), encoded(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_custom_token_opens_its_users_account_once_in_its_environment() {
    let secret = "0123456789abcdef0123456789abcdef";
    let club = Club::new("custom-hs", &json!({ "methods": ["anonymous"] }));
    club.client.output("secret_set", &json!({ "name": "SIGN_IN", "value": secret })).unwrap();
    let configure = |custom: Value| {
        let auth = json!({ "methods": ["custom", "anonymous"], "custom": custom });
        club.client.output("app_apply", &json!({ "manifest": { "auth": auth } })).unwrap();
    };
    configure(json!({ "secret": "SIGN_IN" }));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = |jti: &str| json!({ "aud": club.env, "sub": "u-1", "jti": jti, "exp": now + 600, "role": "editor", "claims": { "a": 1 } });
    let show = |token: &str| club.app.auth("custom", &json!({ "token": token })).unwrap();
    let first = show(&by_secret(secret, &claims("1")));
    let user = club.entered(&first).unwrap();
    let known = club.user(user.id());
    assert_eq!([&known["role"], &known["providers"]], [&json!("user"), &json!(["custom"])]);
    assert_eq!(user.ask("GET", "/_/auth/sessions").unwrap().body["sessions"][0]["method"], "custom");
    show(&by_secret(secret, &claims("1"))).refuses(401, "unauthenticated").unwrap();
    assert_eq!(club.entered(&show(&by_secret(secret, &claims("2")))).unwrap().id(), user.id());
    let other = |name: &str, value: Value| {
        let mut claims = claims("x");
        claims[name] = value;
        by_secret(secret, &claims)
    };
    for bad in [
        by_secret("another secret, which is long enough", &claims("3")),
        other("aud", json!("env_other")),
        other("exp", json!(now - 1)),
        other("exp", json!(now + 7_200)),
        other("jti", Value::Null),
        other("sub", Value::Null),
        signed(&SigningKey::from_bytes(&[1; 32]), &claims("4")),
        by_secret(secret, &claims("5")).replace("eyJhbGciOiJIUzI1NiI", "eyJhbGciOiJub25lIiI"),
        String::new(),
    ] {
        show(&bad).refuses(401, "unauthenticated").unwrap();
    }
    // Somebody anonymous becomes that account.
    let stranger = club.app.stranger().unwrap();
    let mut new = claims("6");
    new["sub"] = "u-2".into();
    let body = json!({ "token": by_secret(secret, &new) });
    let kept = club.entered(&stranger.send("POST", "/_/auth/custom", &body).unwrap()).unwrap();
    assert_eq!(kept.id(), stranger.id());
    // By a public key, and with what the manifest lets tokens say.
    let key = SigningKey::from_bytes(&[5; 32]);
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x });
    configure(json!({ "keys": [jwk], "role": true, "claims": true }));
    show(&by_secret(secret, &claims("7"))).refuses(401, "unauthenticated").unwrap();
    // The public key is no secret.
    show(&by_secret(&x, &claims("8"))).refuses(401, "unauthenticated").unwrap();
    let again = club.entered(&show(&signed(&key, &claims("9")))).unwrap();
    let known = club.user(again.id());
    assert_eq!(
        (again.id(), &known["role"], &known["claims"]),
        (user.id(), &json!("editor"), &json!({ "a": 1 }))
    );
    club.client.output("auth_user_set", &json!({ "user": user.id(), "disabled": true })).unwrap();
    show(&signed(&key, &claims("10"))).refuses(403, "forbidden").unwrap();
}

#[test]
fn a_provider_of_somebodys_own_is_believed_about_its_own_addresses_alone() {
    let (provider, club) = with_openid("oauth-believed");
    let accounts = json!({
        "eve": { "email": "boss@other.example", "email_verified": true },
        "ada": { "email": "boss@example.org", "email_verified": true },
    });
    provider.control(&json!({ "accounts": accounts })).unwrap();
    let make = |email: &str| {
        let made = club.client.output("auth_user_set", &json!({ "user": email, "role": "admin" })).unwrap();
        made["user"]["id"].as_str().unwrap().to_owned()
    };
    let (other, own) = (make("boss@other.example"), make("boss@example.org"));
    let enter = |login: &str| {
        let mut walker = Walker::default();
        let end = at_provider(&mut walker, &club.start("acme", "/in"), &format!("login={login}"), "#auth_");
        let found = club.found(&walker, &end).unwrap();
        club.entered(&club.take_up(&club.app.visitor(), &found, false)).unwrap()
    };
    let eve = enter("eve");
    assert_ne!(eve.id(), other, "an issuer speaks for every address");
    let user = club.user(eve.id());
    assert_eq!([&user["email"], &user["role"]], [&Value::Null, &json!("user")]);
    assert_eq!(enter("ada").id(), own);
}

#[test]
fn who_may_change_the_app_and_set_no_secret_has_none_sent_to_a_host_of_their_own() {
    let (outsider, club) = club("oauth-entrust");
    let scopes = ["app:read", "app:write", "db:read"];
    let body = json!({ "name": "changes", "scopes": scopes, "env": "oauth-entrust" });
    let operator = club.desk.client().without_env();
    let key = operator.request("POST", "/v1/keys").json(&body).send().unwrap().json().unwrap();
    let client = operator.clone().with_key(key["key"].as_str().unwrap());
    let evil = json!({ "issuer": outsider.url, "client_id": "x", "client_secret": "ACME" });
    let mut providers = outsider.providers();
    providers["evil"] = evil;
    let port = outsider.url.rsplit_once(':').unwrap().1;
    for (tool, input) in [
        ("auth_configure", json!({ "providers": providers })),
        ("app_apply", json!({ "manifest": { "auth": { "methods": ["oauth"], "providers": providers } } })),
    ] {
        let refused = client.call(tool, &input).unwrap();
        let words = refused.body["message"].as_str().unwrap_or_default();
        assert_eq!(refused.code(), "forbidden", "{refused:?}");
        assert!(words.contains(&format!("the secret ACME would be sent to 127.0.0.1:{port}")), "{words}");
    }
    let manifest =
        json!({ "auth": { "methods": ["oauth"], "providers": outsider.providers(), "mfa": "optional" } });
    assert_eq!(client.output("app_apply", &json!({ "manifest": manifest })).unwrap()["changed"], true);

    // Nor by a return to a moment when it was sent there; whoever may set it is told so.
    let live = |manifest: &Value| {
        club.client.output("app_apply", &json!({ "manifest": manifest })).unwrap()["release"].clone()
    };
    let sends = live(&json!({ "auth": { "methods": ["oauth"], "providers": providers } }));
    let kept = club.client.output("env_snapshot", &json!({})).unwrap()["snapshot"].clone();
    let last = live(&manifest);
    let scopes =
        ["app:read", "app:write", "db:read", "db:write", "auth:write", "storage:write", "resource:delete"];
    let body = json!({ "name": "returns", "scopes": scopes, "env": "oauth-entrust" });
    let key = operator.request("POST", "/v1/keys").json(&body).send().unwrap().json().unwrap();
    let returns = operator.with_key(key["key"].as_str().unwrap());
    let dry = json!({ "snapshot": kept, "dry_run": true });
    let planned = returns.output("env_restore", &dry).unwrap();
    let word = format!("secret ACME is sent to 127.0.0.1:{port}");
    assert!(planned["effects"].as_array().unwrap().contains(&json!(word)), "{planned}");
    let confirmed = json!({ "snapshot": kept, "confirm": planned["confirm"] });
    assert_eq!(returns.call("env_restore", &confirmed).unwrap().code(), "forbidden");
    assert_eq!(returns.output("app_describe", &json!({})).unwrap()["release"], last);
    let planned = club.client.output("env_restore", &dry).unwrap();
    let confirmed = json!({ "snapshot": kept, "confirm": planned["confirm"] });
    assert_eq!(club.client.output("env_restore", &confirmed).unwrap()["release"], sends);
    // A secret that goes while it is used, and a release that comes back without it, are said.
    let gone = json!({ "kind": "secret", "name": "ACME", "dry_run": true });
    let planned = club.client.output("resource_delete", &gone).unwrap();
    assert!(planned["effects"].to_string().contains("/auth/providers/"), "{planned}");
    let gone = json!({ "kind": "secret", "name": "ACME", "confirm": planned["confirm"] });
    club.client.output("resource_delete", &gone).unwrap();
    live(&json!({ "auth": { "methods": ["password"], "providers": {} } }));
    let back = json!({ "release": sends, "dry_run": true });
    let planned = club.client.output("app_rollback", &back).unwrap();
    assert!(planned["effects"].to_string().contains("secret ACME"), "{planned}");
}

#[test]
fn a_way_to_a_page_of_another_origin_begins_at_one() {
    let outsider = Outsider::start();
    let auth = json!({ "methods": ["oauth"], "providers": outsider.providers(),
        "redirects": ["https://friend.example/in/"] });
    let club = Club::new("oauth-elsewhere", &auth);
    let start = |to: &str, from: Option<&str>| {
        let request = Request::get(&club.start("github", to));
        let request = from.into_iter().fold(request, |request, from| request.header("referer", from));
        request.send().unwrap().status
    };
    let there = "https://friend.example/in/x";
    for from in ["https://friend.example/", "https://friend.example/in/page?a=1"] {
        assert_eq!(start(there, Some(from)), 303, "{from}");
    }
    let others =
        ["https://evil.example/", "http://friend.example/", "https://friend.example.evil.example/", "null"];
    for from in others.map(Some).into_iter().chain([None]) {
        assert_eq!(start(there, from), 403, "{from:?}");
        assert_eq!(start("/in", from), 303, "{from:?}");
    }
}
