//! The authorization server by plain HTTP: what clients read, what users decide, and every way to ask wrongly.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::{CLAUDE_CODE, Place, Visitor, encoded, field, form};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use testkit::http::{Request, Response};
use testkit::{Client, Steading};

use crate::assault_tenants::mcp;

pub const VERIFIER: &str = "a-verifier-that-nobody-else-would-ever-think-of";
const BACK: &str = "http://localhost:3118/callback";

pub fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// A client that asks at one platform.
pub struct Flow {
    /// Lives as long as this does.
    pub _steading: Arc<Steading>,
    pub base: String,
    pub key: String,
    pub client: String,
    pub resource: String,
    pub back: String,
}

impl Flow {
    pub fn new(place: &Place) -> Self {
        let ready = place.steading.ready();
        Self {
            _steading: Arc::clone(&place.steading),
            base: ready.url.clone(),
            key: ready.key.clone(),
            client: CLAUDE_CODE.to_owned(),
            resource: place.mcp_url(),
            back: BACK.to_owned(),
        }
    }

    /// Where it sends its user, with some fields changed; without those whose value is empty.
    pub fn url(&self, changed: &[(&str, &str)]) -> String {
        let challenge = challenge();
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", &self.client),
            ("redirect_uri", &self.back),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("state", "af0ifjsldkj"),
            ("resource", &self.resource),
            ("scope", "read write"),
        ];
        for (name, value) in changed {
            fields.retain(|(other, _)| other != name);
            fields.push((name, value));
        }
        let pairs: Vec<_> = fields
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        format!("{}/oauth/authorize?{}", self.base, pairs.join("&"))
    }

    pub fn code(&self) -> String {
        let back = Visitor::new(&self.base).allow(&self.url(&[]), &self.key, None).unwrap();
        field(&back, "code").unwrap_or_else(|| panic!("{back}"))
    }

    pub fn token(&self, fields: &[(&str, &str)]) -> Response {
        form(&format!("{}/oauth/token", self.base), fields).send().unwrap()
    }

    /// Changes a code, with some fields changed.
    pub fn redeem(&self, code: &str, changed: &[(&str, &str)]) -> Response {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("client_id", &self.client),
            ("code", code),
            ("redirect_uri", &self.back),
            ("code_verifier", VERIFIER),
            ("resource", &self.resource),
        ];
        for (name, value) in changed {
            fields.retain(|(other, _)| other != name);
            fields.push((name, value));
        }
        self.token(&fields)
    }

    pub fn refresh(&self, token: &str, more: &[(&str, &str)]) -> Response {
        let mut fields =
            vec![("grant_type", "refresh_token"), ("client_id", &*self.client), ("refresh_token", token)];
        fields.extend(more);
        self.token(&fields)
    }

    /// Tokens by the whole way.
    pub fn tokens(&self) -> Value {
        let answer = self.redeem(&self.code(), &[]);
        assert_eq!(answer.status, 200, "{:?}", answer.text());
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.json().unwrap()
    }
}

pub fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// The status and the name of an error.
fn refused(response: &Response) -> (u16, String) {
    (response.status, text(&response.json().unwrap(), "error").to_owned())
}

/// The status of a tool's call at an MCP door.
pub fn at_door(base: &str, path: &str, token: &str, tool: &str) -> Response {
    let client = Client::new(base).with_key(token);
    mcp(&client, path, tool, &json!({})).send().unwrap()
}

fn opens(flow: &Flow, token: &str) -> bool {
    let path = flow.resource.strip_prefix(&flow.base).unwrap();
    at_door(&flow.base, path, token, "app_describe").status == 200
}

#[test]
fn a_client_finds_its_way_from_a_refusal() {
    let place = Place::new("oauth-way").unwrap();
    let base = &place.steading.ready().url;
    for (door, request) in [
        ("/mcp", Request::post(&format!("{base}/mcp"))),
        (&*format!("/mcp/{}", place.slug), Request::get(&place.mcp_url())),
        ("", Request::get(&format!("{base}/v1/tools"))),
    ] {
        let refused = request.send().unwrap();
        let said = refused.header("www-authenticate").unwrap_or_default().to_owned();
        let metadata = format!("{base}/.well-known/oauth-protected-resource{door}");
        assert_eq!(
            (refused.status, said.as_str()),
            (
                401,
                &*format!(
                    "Bearer realm=\"steading\", scope=\"read write\", resource_metadata=\"{metadata}\""
                )
            )
        );
        let resource = Request::get(&metadata).send().unwrap().json().unwrap();
        assert_eq!(resource["resource"], format!("{base}{door}"));
        assert_eq!(resource["authorization_servers"], json!([base]));
    }
    // Where another name of this machine was dialled, that is the resource.
    let port = base.rsplit_once(':').unwrap().1;
    let other = Request::get(&format!("http://localhost:{port}/.well-known/oauth-protected-resource/mcp"));
    assert_eq!(other.send().unwrap().json().unwrap()["resource"], format!("http://localhost:{port}/mcp"));
    let wrong = Request::get(&format!("{base}/v1/tools")).bearer("x").send().unwrap();
    assert!(wrong.header("www-authenticate").unwrap().contains("error=\"invalid_token\""), "{wrong:?}");
    let server = Request::get(&format!("{base}/.well-known/oauth-authorization-server")).send().unwrap();
    let server = server.json().unwrap();
    assert_eq!(server["issuer"], *base);
    assert_eq!(server["code_challenge_methods_supported"], json!(["S256"]));
    // What there is not is not there, and asks for nothing.
    for path in ["/.well-known/openid-configuration", "/register", "/.well-known/oauth-protected-resource/v1"]
    {
        assert_eq!(Request::get(&format!("{base}{path}")).send().unwrap().status, 404, "{path}");
    }
}

#[test]
fn a_user_lets_a_client_act_in_one_environment_for_what_was_ticked() {
    let place = Place::new("oauth-act").unwrap();
    let flow = Flow { resource: format!("{}/mcp", place.steading.ready().url), ..Flow::new(&place) };
    let mut visitor = Visitor::new(&flow.base);
    let page = visitor.sign_in(&flow.url(&[("scope", "read write sandbox")]), &flow.key).unwrap();
    let html = page.text().unwrap();
    for shown in
        ["Claude Code", "claude.ai vouches", "Default", &place.slug, &flow.resource, "http://localhost:3118"]
    {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    let sent = visitor.decide(&page, "allow", Some(&place.slug), Some("read")).unwrap();
    assert_eq!((sent.status, visitor.cookie.as_deref()), (303, None), "the visit ends with the decision");
    let back = sent.header("location").unwrap();
    assert!(back.starts_with(&format!("{BACK}?")), "{back}");
    assert_eq!(field(back, "state").as_deref(), Some("af0ifjsldkj"));
    assert_eq!(field(back, "iss").as_deref(), Some(&*flow.base));
    let tokens = flow.redeem(&field(back, "code").unwrap(), &[]).json().unwrap();
    assert_eq!((text(&tokens, "token_type"), text(&tokens, "scope")), ("Bearer", "read"));
    assert!((1..=900).contains(&tokens["expires_in"].as_i64().unwrap()), "{tokens}");
    let access = text(&tokens, "access_token");
    let claims = URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((text(&claims, "aud"), text(&claims, "iss")), (&*flow.resource, &*flow.base));
    assert_eq!(text(&claims, "client_id"), CLAUDE_CODE);
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 900, "{claims}");
    // In that environment, at that address, for that.
    let answer = at_door(&flow.base, "/mcp", access, "app_describe");
    assert!(answer.status == 200 && answer.text().unwrap().contains(&place.slug), "{answer:?}");
    let more = at_door(&flow.base, "/mcp", access, "db_execute");
    let said = more.header("www-authenticate").unwrap_or_default();
    assert_eq!(more.status, 403, "{more:?}");
    assert!(said.contains("error=\"insufficient_scope\", scope=\"db:write\""), "{said}");
    assert!(said.contains("/.well-known/oauth-protected-resource/mcp\""), "{said}");
    for path in [format!("/mcp/{}", place.slug), "/mcp/default".to_owned()] {
        assert_eq!(at_door(&flow.base, &path, access, "app_describe").status, 401, "{path}");
    }
    let client = Client::new(&flow.base).with_key(access);
    for path in ["/v1/tools", "/v1/envs", "/v1/keys", "/v1/credentials"] {
        assert_eq!(client.request("GET", path).send().unwrap().status, 401, "{path}");
    }
    let port = flow.base.rsplit_once(':').unwrap().1;
    let elsewhere = at_door(&format!("http://localhost:{port}"), "/mcp", access, "app_describe");
    assert_eq!(elsewhere.status, 401, "another name of this machine is another address");
    // The consent is listed without a token, and ends by its id.
    let listed = place.client.request("GET", "/v1/credentials").send().unwrap().json().unwrap();
    let of_it = |one: &&Value| one["id"] == claims["jti"];
    let parent = listed["credentials"].as_array().unwrap().iter().find(of_it).unwrap()["parent"].clone();
    let path = format!("/v1/credentials/{}", parent.as_str().unwrap());
    assert_eq!(place.client.request("DELETE", &path).send().unwrap().status, 200);
    assert_eq!(at_door(&flow.base, "/mcp", access, "app_describe").status, 401);
    assert_eq!(
        refused(&flow.refresh(text(&tokens, "refresh_token"), &[])),
        (400, "invalid_grant".to_owned())
    );
}

#[test]
fn a_request_that_is_wrong_is_told_to_the_client_and_one_of_a_stranger_to_the_user() {
    let flow = Flow::new(&Place::new("oauth-wrong").unwrap());
    let mut visitor = Visitor::new(&flow.base);
    for (changed, error) in [
        (("response_type", "token"), "unsupported_response_type"),
        (("response_type", ""), "invalid_request"),
        (("code_challenge", ""), "invalid_request"),
        (("code_challenge", "short"), "invalid_request"),
        (("code_challenge_method", "plain"), "invalid_request"),
        (("code_challenge_method", ""), "invalid_request"),
        (("scope", "tenant:admin"), "invalid_scope"),
        (("resource", "https://elsewhere.example/mcp"), "invalid_target"),
        (("response_mode", "fragment"), "invalid_request"),
    ] {
        let answer = visitor.get(&flow.url(&[changed])).unwrap();
        let back = answer.header("location").unwrap_or_default();
        assert!(answer.status == 303 && back.starts_with(BACK), "{changed:?}: {answer:?}");
        assert_eq!(field(back, "error").as_deref(), Some(error), "{changed:?}");
        assert_eq!(field(back, "state").as_deref(), Some("af0ifjsldkj"), "{changed:?}");
        assert_eq!(field(back, "iss").as_deref(), Some(&*flow.base), "{changed:?}");
    }
    let here = |answer: Response, what: &str| {
        assert_eq!((answer.status, answer.header("location")), (400, None), "{what}");
        assert!(!answer.text().unwrap().contains("<script"), "{what}");
    };
    for changed in [
        ("client_id", ""),
        ("client_id", "stranger"),
        ("client_id", "stead_client_e30.AAAAAAAAAAAAAAAAAAAAAA"),
        ("client_id", "https://127.0.0.1/client.json"),
        ("client_id", "https://169.254.169.254/latest/meta-data/"),
        ("redirect_uri", ""),
        ("redirect_uri", "https://evil.example/callback"),
        ("redirect_uri", "http://localhost:3118/other"),
        ("redirect_uri", "http://localhost:3118/callback#x"),
        ("redirect_uri", "http://localhost:3118@evil.example/callback"),
        ("redirect_uri", "javascript:alert(1)//localhost/callback"),
        ("client_id", "<script>alert(1)</script>"),
    ] {
        here(visitor.get(&flow.url(&[changed])).unwrap(), &format!("{changed:?}"));
    }
    for twice in ["redirect_uri=https://evil.example", "client_id=x", "state=y"] {
        here(visitor.get(&format!("{}&{twice}", flow.url(&[]))).unwrap(), twice);
    }
}

#[test]
fn a_code_is_good_once_for_its_client_with_its_verifier() {
    let flow = Flow::new(&Place::new("oauth-code").unwrap());
    let code = flow.code();
    let registered = register(&flow.base, &json!({ "redirect_uris": [BACK], "client_name": "other" }));
    for (changed, error) in [
        (("client_id", text(&registered, "client_id")), "invalid_grant"),
        (("redirect_uri", "http://localhost:3119/callback"), "invalid_grant"),
        (("code_verifier", "another-verifier-that-is-long-enough-to-be-one-x"), "invalid_grant"),
        (("code_verifier", &*challenge()), "invalid_grant"),
        (("code_verifier", ""), "invalid_request"),
        (("code", "stead_code_nothing"), "invalid_grant"),
        (("resource", &*format!("{}/mcp", flow.base)), "invalid_target"),
        (("grant_type", "password"), "unsupported_grant_type"),
        (("grant_type", ""), "invalid_request"),
    ] {
        assert_eq!(refused(&flow.redeem(&code, &[changed])), (400, error.to_owned()), "{changed:?}");
    }
    let json =
        Request::post(&format!("{}/oauth/token", flow.base)).json(&json!({ "grant_type": "refresh_token" }));
    assert_eq!(refused(&json.send().unwrap()), (400, "invalid_request".to_owned()));
    let tokens = flow.redeem(&code, &[]).json().unwrap();
    assert!(opens(&flow, text(&tokens, "access_token")));
    // A second use ends what came of the first.
    assert_eq!(refused(&flow.redeem(&code, &[])), (400, "invalid_grant".to_owned()));
    assert!(!opens(&flow, text(&tokens, "access_token")));
    assert_eq!(
        refused(&flow.refresh(text(&tokens, "refresh_token"), &[])),
        (400, "invalid_grant".to_owned())
    );
}

#[test]
fn of_many_who_show_a_code_at_once_nobody_keeps_what_it_gave() {
    let flow = Flow::new(&Place::new("oauth-race").unwrap());
    let code = flow.code();
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| flow.redeem(&code, &[]))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let given: Vec<Value> =
        answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.json().unwrap()).collect();
    assert!(given.len() <= 1, "{given:?}");
    for tokens in given {
        assert!(!opens(&flow, text(&tokens, "access_token")), "it was shown twice");
    }
}

#[test]
fn a_refresh_token_is_good_once_and_its_reuse_ends_the_family() {
    let flow = Flow::new(&Place::new("oauth-refresh").unwrap());
    let first = flow.tokens();
    let registered = register(&flow.base, &json!({ "redirect_uris": [BACK] }));
    let refresh = text(&first, "refresh_token");
    let elsewhere =
        Flow { client: text(&registered, "client_id").to_owned(), ..Flow::new(&Place::new("x").unwrap()) };
    assert_eq!(refused(&elsewhere.refresh(refresh, &[])), (400, "invalid_grant".to_owned()));
    assert_eq!(refused(&flow.refresh(refresh, &[("scope", "sandbox")])), (400, "invalid_scope".to_owned()));
    let other = format!("{}/mcp", flow.base);
    assert_eq!(refused(&flow.refresh(refresh, &[("resource", &other)])), (400, "invalid_target".to_owned()));
    assert_eq!(
        refused(&flow.refresh(&refresh.replace(".1.", ".2."), &[])),
        (400, "invalid_grant".to_owned())
    );
    // None of that has used it up; what is narrowed is narrow, and can be wide again.
    let second = flow.refresh(refresh, &[("scope", "read"), ("resource", &flow.resource)]).json().unwrap();
    assert_eq!(text(&second, "scope"), "read");
    let third = flow.refresh(text(&second, "refresh_token"), &[]).json().unwrap();
    assert_eq!(text(&third, "scope"), "read write");
    assert!(opens(&flow, text(&first, "access_token")) && opens(&flow, text(&third, "access_token")));
    assert_eq!(refused(&flow.refresh(refresh, &[])), (400, "invalid_grant".to_owned()));
    for tokens in [&first, &second, &third] {
        assert!(!opens(&flow, text(tokens, "access_token")));
        assert_eq!(
            refused(&flow.refresh(text(tokens, "refresh_token"), &[])),
            (400, "invalid_grant".to_owned())
        );
    }
}

#[test]
fn of_two_refreshes_at_once_one_is_a_reuse() {
    let flow = Flow::new(&Place::new("oauth-two").unwrap());
    let tokens = flow.tokens();
    let refresh = text(&tokens, "refresh_token");
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(|| flow.refresh(refresh, &[]))).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let given: Vec<&Response> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(given.len() <= 1, "{answers:?}");
    assert!(!opens(&flow, text(&tokens, "access_token")));
    for answer in given {
        assert!(!opens(&flow, text(&answer.json().unwrap(), "access_token")));
    }
}

#[test]
fn tokens_end_with_their_key_and_when_they_are_revoked_and_do_no_more_than_it() {
    let place = Place::new("oauth-ends").unwrap();
    let made = json!({ "name": "narrow", "env": place.slug, "scopes": ["app:read", "db:read"] });
    let made = place.client.clone().without_env().request("POST", "/v1/keys").json(&made).send().unwrap();
    let made = made.json().unwrap();
    let flow = Flow { key: text(&made, "key").to_owned(), ..Flow::new(&place) };
    let tokens = flow.tokens();
    let access = text(&tokens, "access_token");
    assert!(opens(&flow, access));
    let path = format!("/mcp/{}", place.slug);
    assert_eq!(at_door(&flow.base, &path, access, "db_execute").status, 403, "the key may not");
    // Revoked by the client: the access token alone, then all.
    let revoke = |token: &str| {
        form(&format!("{}/oauth/revoke", flow.base), &[("token", token)]).send().unwrap().status
    };
    assert_eq!((revoke("nothing"), revoke(access)), (200, 200));
    assert!(!opens(&flow, access));
    let tokens = flow.refresh(text(&tokens, "refresh_token"), &[]).json().unwrap();
    assert!(opens(&flow, text(&tokens, "access_token")));
    assert_eq!(revoke(text(&tokens, "refresh_token")), 200);
    assert!(!opens(&flow, text(&tokens, "access_token")));
    // And with the key.
    let tokens = flow.tokens();
    let code = flow.code();
    let gone =
        place.client.clone().without_env().request("DELETE", &format!("/v1/keys/{}", text(&made, "id")));
    assert_eq!(gone.send().unwrap().status, 200);
    assert!(!opens(&flow, text(&tokens, "access_token")));
    assert_eq!(
        refused(&flow.refresh(text(&tokens, "refresh_token"), &[])),
        (400, "invalid_grant".to_owned())
    );
    assert_eq!(refused(&flow.redeem(&code, &[])), (400, "invalid_grant".to_owned()));
}

pub fn register(base: &str, said: &Value) -> Value {
    let made = Request::post(&format!("{base}/oauth/register")).json(said).send().unwrap();
    assert_eq!(made.status, 201, "{:?}", made.text());
    made.json().unwrap()
}
