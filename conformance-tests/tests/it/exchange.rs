//! Signed tokens of an issuer that the operator trusts, exchanged for short tokens of the platform, and others refused.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use conformance_tests::{Place, encoded};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Steading, require};

use crate::oauth_flow::text;
use crate::outsiders::{Outsider, signed};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ISSUER: &str = "https://agents.example";

fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect::<Vec<_>>().join("&")
}

fn asked(base: &str, fields: &[(&str, &str)]) -> Response {
    Request::post(&format!("{base}/oauth/token"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form(fields))
        .send()
        .unwrap()
}

fn grants(base: &str) -> Value {
    let server = Request::get(&format!("{base}/.well-known/oauth-authorization-server")).send().unwrap();
    server.json().unwrap()["grant_types_supported"].take()
}

/// A platform that trusts one issuer, and an environment of it.
struct Ground {
    place: Place,
    key: SigningKey,
}

impl Ground {
    fn new() -> Self {
        let outsider = Outsider::start();
        let steading = Steading::launch()
            .env("STEADING_EXCHANGE_ISSUER", ISSUER)
            .env("STEADING_EXCHANGE_JWKS_URL", format!("{}/apple/keys", outsider.url))
            .env("STEADING_EXCHANGE_PRIVATE", "127.0.0.1");
        let place = Place::on(Arc::new(require(steading.start())), "exchange").unwrap();
        // What an outsider signs with.
        Self { place, key: SigningKey::from_bytes(&[9; 32]) }
    }

    fn base(&self) -> &str {
        &self.place.steading.ready().url
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "iss": ISSUER, "sub": "agent-7", "aud": self.base(), "iat": now, "exp": now + 60,
            "tenant": "default", "role": "developer", "env": self.place.slug, "name": "Agent 7" });
        change(&mut claims);
        signed(&self.key, &claims)
    }

    fn exchange(&self, token: &str, more: &[(&str, &str)]) -> Response {
        let mut fields = vec![("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", token)];
        for (name, value) in more {
            fields.retain(|(other, _)| other != name);
            fields.push((name, value));
        }
        asked(self.base(), &fields)
    }

    /// Somebody with the token that this one is exchanged for.
    fn given(&self, token: &str, more: &[(&str, &str)]) -> (Value, Client) {
        let answer = self.exchange(token, more);
        assert_eq!(answer.status, 200, "{:?}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let given: Value = answer.json().unwrap();
        let client = Client::new(self.base()).with_key(text(&given, "access_token"));
        (given, client)
    }

    fn refused(&self, token: &str, more: &[(&str, &str)], error: &str) {
        let answer = self.exchange(token, more);
        let said: Value = answer.json().unwrap();
        assert_eq!((answer.status, text(&said, "error")), (400, error), "{said}");
    }
}

#[test]
fn a_signed_token_is_exchanged_for_what_its_role_may() {
    let ground = Ground::new();
    assert!(grants(ground.base()).as_array().unwrap().contains(&json!(GRANT)));
    let (given, client) = ground.given(&ground.token(|_| ()), &[]);
    assert_eq!([text(&given, "issued_token_type"), text(&given, "token_type")], [ACCESS_TOKEN, "Bearer"]);
    assert_eq!([&given["expires_in"], &given["refresh_token"]], [&json!(3_600), &Value::Null]);
    let secret = json!({ "name": "A", "value": "b" });
    assert_eq!(client.call("secret_set", &secret).unwrap().status, 200);
    assert_eq!(client.request("GET", "/v1/members").send().unwrap().status, 403);
    // No more than the token says, and no more than is asked for.
    let (given, client) =
        ground.given(&ground.token(|it| it["scope"] = json!("read write")), &[("scope", "db:read")]);
    assert_eq!(text(&given, "scope"), "db:read");
    assert_eq!(client.call("secret_set", &secret).unwrap().status, 403);
    // It is a member's, as what the last token says they are; what they had before has ended.
    let members = ground.place.steading.client().without_env();
    let members = || members.request("GET", "/v1/members").send().unwrap().json().unwrap()["members"].take();
    let member = members()[0].clone();
    assert_eq!([text(&member, "name"), text(&member, "role")], ["Agent 7", "developer"]);
    let (given, viewer) = ground.given(&ground.token(|it| it["role"] = json!("viewer")), &[]);
    assert!(!text(&given, "scope").contains("write"), "{given}");
    assert_eq!(viewer.call("app_describe", &json!({})).unwrap().status, 200);
    assert_eq!(viewer.call("secret_set", &secret).unwrap().status, 403);
    assert_eq!(client.call("app_describe", &json!({})).unwrap().status, 401);
    assert_eq!([&members()[0]["id"], &members()[0]["role"]], [&member["id"], &json!("viewer")]);
    let kept = ground.place.steading.client().without_env().request("GET", "/v1/audit").send().unwrap();
    let kept = kept.text().unwrap();
    assert!(kept.contains("members.arrive") && kept.contains("oauth.exchange"), "{kept}");
}

#[test]
fn what_is_not_for_this_platform_or_asks_for_more_is_not_exchanged() {
    let ground = Ground::new();
    let good = ground.token(|_| ());
    for (more, error) in [
        (("subject_token_type", ACCESS_TOKEN), "invalid_request"),
        (("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), "invalid_request"),
        (("actor_token", "x"), "invalid_request"),
        (("resource", &*format!("{}/mcp", ground.base())), "invalid_target"),
        (("audience", "https://elsewhere.example"), "invalid_target"),
        (("scope", "everything"), "invalid_scope"),
    ] {
        ground.refused(&good, &[more], error);
    }
    ground.refused(
        &ground.token(|it| it["role"] = json!("viewer")),
        &[("scope", "db:write")],
        "invalid_scope",
    );
    let changed = |name: &'static str, value: Value| ground.token(move |it| it[name] = value.clone());
    let another = signed(&SigningKey::from_bytes(&[8; 32]), &json!({ "iss": ISSUER }));
    for token in [
        changed("iss", json!("https://evil.example")),
        changed("aud", json!("https://elsewhere.example")),
        changed("exp", json!(1)),
        changed("tenant", json!("nobody")),
        changed("env", json!("nowhere")),
        changed("role", json!("operator")),
        changed("scope", json!("tenant:admin")),
        changed("scope", json!("")),
        another,
    ] {
        ground.refused(&token, &[], "invalid_grant");
    }
    // Nobody became a member by any of these.
    let members = ground.place.steading.client().without_env().request("GET", "/v1/members").send().unwrap();
    assert_eq!(members.json().unwrap()["members"], json!([]));
    ground.refused("no token", &[], "invalid_grant");
    assert_eq!(ground.exchange(&good, &[]).status, 429);
}

#[test]
fn nothing_is_exchanged_where_nobody_is_trusted() {
    let place = Place::new("exchange-none").unwrap();
    let base = &place.steading.ready().url;
    assert!(!grants(base).as_array().unwrap().contains(&json!(GRANT)));
    let answer = asked(base, &[("grant_type", GRANT), ("subject_token_type", JWT), ("subject_token", "x")]);
    assert_eq!((answer.status, text(&answer.json().unwrap(), "error")), (400, "unsupported_grant_type"));
}
