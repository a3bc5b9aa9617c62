//! Attacks by tokens that are wrong: forged, changed, of another app, or of another kind.

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use conformance_tests::{Attack, Person, Reply, Scene};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use testkit::Client;

use crate::app_todo::LIST;

/// Holds that nobody is let in with this credential, on any route, also none that visitors may use.
fn opens_nothing(scene: &Scene, token: &str) -> anyhow::Result<()> {
    opens_nothing_as(scene, &format!("Bearer {token}"))
}

fn opens_nothing_as(scene: &Scene, authorization: &str) -> anyhow::Result<()> {
    let row = format!("/_/db/todos/{}", scene.target());
    let get = json!({ "do": "get", "on": "todos", "id": scene.target() });
    let routes = [
        ("GET", "/_/auth/me", None),
        ("POST", "/_/auth/logout", Some(json!({ "everywhere": true }))),
        ("GET", "/_/db/todos", None),
        ("GET", "/_/db/notices", None),
        ("POST", "/_/db/todos", Some(json!({ "title": "x" }))),
        ("POST", "/_/db/todos/query", Some(json!({}))),
        ("GET", row.as_str(), None),
        ("PATCH", row.as_str(), Some(json!({ "done": true }))),
        ("DELETE", row.as_str(), None),
        ("POST", "/_/batch", Some(json!({ "operations": [get] }))),
    ];
    for (method, path, body) in routes {
        let request = scene.app.request(method, path).header("authorization", authorization);
        let request = if let Some(body) = body { request.json(&body) } else { request };
        let reply = Reply::of(request)?;
        let shown: String = authorization.chars().take(200).collect();
        scene
            .refused(&reply, 401, "unauthenticated")
            .with_context(|| format!("{method} {path} as {shown}"))?;
        ensure!(reply.header("www-authenticate").is_some(), "{method} {path}: {reply:?}");
    }
    Ok(())
}

/// The parts of a token, the first two read.
fn parts(token: &str) -> anyhow::Result<(Value, Value, String)> {
    let parts: Vec<&str> = token.split('.').collect();
    ensure!(parts.len() == 3, "no JWT: {token}");
    let read = |part: &str| anyhow::Ok(serde_json::from_slice(&BASE64.decode(part)?)?);
    Ok((read(parts[0])?, read(parts[1])?, parts[2].to_owned()))
}

fn joined(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn merged(value: &Value, changes: &Value) -> Value {
    let mut merged = value.clone();
    if let (Some(fields), Some(changes)) = (merged.as_object_mut(), changes.as_object()) {
        fields.extend(changes.clone());
    }
    merged
}

/// The public key that the app's tokens are verified by.
fn public_key(scene: &Scene) -> anyhow::Result<Vec<u8>> {
    let keys = scene.app.visitor().ask("GET", "/.well-known/jwks.json")?;
    let key = keys.body["keys"][0]["x"].as_str().with_context(|| format!("no key: {keys:?}"))?;
    Ok(BASE64.decode(key)?)
}

const FORGERIES: &[Attack] = &[
    Attack {
        name: "credentials that are none",
        attempt: |scene| {
            for authorization in [
                "Bearer",
                "Bearer ",
                "Bearer null",
                "Bearer undefined",
                "Bearer .",
                "Bearer ..",
                "Bearer a.b.c",
                "Bearer e30.e30.e30",
                "Basic YWxpY2U6cGFzc3dvcmQ=",
                "Token x",
                "DPoP x",
                "x",
                "",
            ] {
                opens_nothing_as(scene, authorization)?;
            }
            opens_nothing(scene, &"A".repeat(8_000))?;
            opens_nothing(scene, scene.alice.id())?;
            opens_nothing_as(scene, &format!("Basic {}", scene.alice.token()))?;
            opens_nothing_as(scene, scene.alice.token())?;
            opens_nothing(scene, &format!("Bearer {}", scene.alice.token()))?;
            opens_nothing(scene, &format!("{}, {}", scene.alice.token(), scene.mallory.token()))
        },
    },
    Attack {
        name: "credentials of another kind",
        attempt: |scene| {
            let session = scene.alice.session.clone().context("a session")?;
            opens_nothing(scene, &session.refresh)?;
            opens_nothing(scene, &scene.place.steading.ready().key)?;
            let key = |wanted: Value| -> anyhow::Result<String> {
                let request = scene.place.client.clone().without_env().request("POST", "/v1/keys");
                let made = request.json(&wanted).send()?.json()?;
                Ok(made["key"].as_str().context("a key")?.to_owned())
            };
            opens_nothing(scene, &key(json!({ "name": "wide" }))?)?;
            // A key bound to the environment is for the app's own server; in a page it opens nothing, and one that
            // may not write rows opens nothing anywhere.
            let bound = key(json!({ "name": "app", "env": scene.place.slug }))?;
            let page = scene.app.request("GET", "/_/db/todos").bearer(&bound);
            let page = Reply::of(page.header("origin", scene.app.url()))?;
            scene.refused(&page, 403, "forbidden")?;
            let reads =
                json!({ "name": "reads", "env": scene.place.slug, "scopes": ["app:read", "db:read"] });
            let reads = scene.app.request("GET", "/_/db/todos").bearer(&key(reads)?);
            scene.refused(&Reply::of(reads)?, 403, "forbidden")?;
            let refused = scene.app.auth("refresh", &json!({ "refresh_token": session.access }))?;
            scene.refused(&refused, 401, "unauthenticated")?;
            for wrong in ["", "x", &scene.place.steading.ready().key, &session.refresh.to_uppercase()] {
                let refused = scene.app.auth("refresh", &json!({ "refresh_token": wrong }))?;
                scene.refused(&refused, 401, "unauthenticated").with_context(|| wrong.to_owned())?;
            }
            // None of that has ended Alice's session.
            let own = scene.alice.ask("GET", "/_/auth/me")?;
            ensure!(own.body["id"] == scene.alice.id(), "not herself any more: {own:?}");
            Ok(())
        },
    },
    Attack {
        name: "tokens of the same app elsewhere",
        attempt: |scene| {
            let stranger = scene.elsewhere.stranger()?;
            opens_nothing(scene, stranger.token())?;
            let refresh = stranger.session.clone().context("a session")?.refresh;
            let refused = scene.app.auth("refresh", &json!({ "refresh_token": refresh }))?;
            scene.refused(&refused, 401, "unauthenticated")?;
            // Nor does ours open anything there; and there, theirs still holds.
            let there = Person { app: scene.elsewhere.clone(), session: scene.alice.session.clone() };
            there.list("todos", &[])?.refuses(401, "unauthenticated")?;
            stranger.list("todos", &[])?.lists(&[])?;
            // By the address of the other app, but with this one's host.
            let host = scene.app.url().trim_start_matches("http://").to_owned();
            let request = stranger.request("GET", "/_/db/todos").header("host", &host);
            scene.refused(&Reply::of(request)?, 401, "unauthenticated")?;
            let (_, claims, signature) = parts(stranger.token())?;
            let (header, ours, _) = parts(scene.alice.token())?;
            ensure!(ours["aud"] != claims["aud"] && ours["aud"].is_string(), "for whom? {ours}");
            opens_nothing(scene, &format!("{}.{signature}", joined(&header, &ours)))
        },
    },
    Attack {
        name: "tokens with something changed in them",
        attempt: |scene| {
            let (header, claims, signature) = parts(scene.mallory.token())?;
            let changes = [
                json!({ "sub": scene.alice.id() }),
                json!({ "role": "admin" }),
                json!({ "exp": 99_999_999_999_i64 }),
                json!({ "exp": null }),
                json!({ "iat": 0 }),
                json!({ "aud": "env_x" }),
                json!({ "iss": "somebody" }),
                json!({ "anonymous": false }),
                json!({ "sid": "x" }),
                json!({ "admin": true }),
            ];
            for change in &changes {
                let token = format!("{}.{signature}", joined(&header, &merged(&claims, change)));
                opens_nothing(scene, &token)?;
            }
            let token = scene.mallory.token();
            let middle = token.find('.').context("no dot")?;
            for at in (0..token.len()).step_by(7).chain([middle, token.len() - 2, token.len() - 1]) {
                let mut bytes = token.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(bytes)?;
                let refused = scene.mallory.with_token(&changed).ask("GET", "/_/auth/me")?;
                scene.refused(&refused, 401, "unauthenticated").with_context(|| changed)?;
            }
            for cut in [&token[..token.len() - 1], &token[1..], &token[..middle], &token[..=middle]] {
                opens_nothing(scene, cut)?;
            }
            opens_nothing(scene, &format!("{token}A"))?;
            opens_nothing(scene, &format!("{token}."))?;
            opens_nothing(scene, &format!("{token}="))?;
            // What was not changed still holds.
            scene.mallory.list("todos", &[])?.lists(&[scene.own_id()])
        },
    },
    Attack {
        name: "tokens that nobody signed",
        attempt: |scene| {
            let (header, claims, signature) = parts(scene.mallory.token())?;
            let claims = merged(&claims, &json!({ "sub": scene.alice.id(), "role": "admin" }));
            for algorithm in ["none", "None", "NONE", "nOnE", "", "HS256", "ES256", "RS256", "EdDSA"] {
                let header = merged(&header, &json!({ "alg": algorithm }));
                let token = joined(&header, &claims);
                for ending in
                    [".".to_owned(), format!(".{signature}"), String::new(), format!(".{}", "A".repeat(86))]
                {
                    opens_nothing(scene, &format!("{token}{ending}"))?;
                }
            }
            let header = json!({ "typ": "JWT" });
            opens_nothing(scene, &format!("{}.{signature}", joined(&header, &claims)))
        },
    },
    Attack {
        name: "tokens signed with what everybody knows",
        attempt: |scene| {
            let (header, claims, _) = parts(scene.mallory.token())?;
            let claims = merged(&claims, &json!({ "sub": scene.alice.id() }));
            let key = public_key(scene)?;
            let text = BASE64.encode(&key);
            let jwks = scene.app.visitor().ask("GET", "/.well-known/jwks.json")?.body.to_string();
            for secret in [key.as_slice(), text.as_bytes(), jwks.as_bytes(), b"", b"secret", b"steading"] {
                let header = merged(&header, &json!({ "alg": "HS256" }));
                let token = joined(&header, &claims);
                let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
                mac.update(token.as_bytes());
                let signature = BASE64.encode(mac.finalize().into_bytes());
                opens_nothing(scene, &format!("{token}.{signature}"))?;
            }
            ensure!(!jwks.contains("\"d\""), "the private half is public: {jwks}");
            Ok(())
        },
    },
    Attack {
        name: "tokens signed with a key of one's own",
        attempt: |scene| {
            let (header, claims, _) = parts(scene.mallory.token())?;
            let claims = merged(&claims, &json!({ "sub": scene.alice.id() }));
            let own = SigningKey::from_bytes(&[7; 32]);
            let public = BASE64.encode(own.verifying_key().as_bytes());
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": public, "kid": "mine", "alg": "EdDSA" });
            let headers = [
                json!({}),
                json!({ "kid": "mine" }),
                json!({ "kid": null }),
                json!({ "kid": "../../operator.key" }),
                json!({ "kid": "' OR 1=1 --" }),
                json!({ "jwk": jwk }),
                json!({ "jwk": jwk, "kid": "mine" }),
                json!({ "jku": "http://127.0.0.1:1/jwks.json", "kid": "mine" }),
                json!({ "x5u": "http://127.0.0.1:1/x", "x5c": [public] }),
                json!({ "crit": ["exp"] }),
                json!({ "b64": false, "crit": ["b64"] }),
            ];
            for change in &headers {
                let token = joined(&merged(&header, change), &claims);
                let signature = BASE64.encode(own.sign(token.as_bytes()).to_bytes());
                opens_nothing(scene, &format!("{token}.{signature}"))?;
            }
            Ok(())
        },
    },
    Attack {
        name: "a token where none is looked for",
        attempt: |scene| {
            let token = scene.alice.token();
            let path = "/_/db/todos";
            let as_visitor = [
                scene
                    .app
                    .request("GET", path)
                    .header("cookie", &format!("access_token={token}; session={token}")),
                scene.app.request("GET", path).header("x-authorization", &format!("Bearer {token}")),
                scene.app.request("GET", path).header("proxy-authorization", &format!("Bearer {token}")),
                scene.app.request("GET", path).header("steading-key", token),
                scene.app.request("GET", path).header("x-user-id", scene.alice.id()),
                scene.app.request("GET", path).header("x-steading-user", scene.alice.id()),
            ];
            for request in as_visitor {
                let reply = Reply::of(request)?;
                scene.tells_nothing(&reply)?;
                reply.lists(&[])?;
            }
            let twice = scene.mallory.request("GET", path).bearer(token);
            scene.refused(&Reply::of(twice)?, 401, "unauthenticated")?;
            let reply = scene.app.visitor().ask("GET", &format!("{path}?access_token={token}"))?;
            scene.refused(&reply, 400, "invalid_input")?;
            // The scheme's case does not matter (RFC 9110 §11.1), and changes nobody.
            for scheme in ["bearer", "BEARER"] {
                let request = scene.app.request("GET", path);
                let request = request.header("authorization", &format!("{scheme} {}", scene.mallory.token()));
                Reply::of(request)?.lists(&[scene.own_id()])?;
            }
            Ok(())
        },
    },
];

const PLATFORM: &[Attack] = &[Attack {
    name: "an app's session on the platform",
    attempt: |scene| {
        let refresh = scene.mallory.session.clone().context("a session")?.refresh;
        for token in [scene.mallory.token(), &refresh] {
            let client = Client::new(&scene.place.steading.ready().url).with_key(token);
            let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
            let mcp = |path: &str| {
                client
                    .request("POST", path)
                    .header("accept", "application/json, text/event-stream")
                    .json(&call)
            };
            let query = json!({ "sql": "SELECT * FROM todos" });
            let requests = [
                client.request("GET", "/v1/tools"),
                client.request("POST", "/v1/tools/app_describe").json(&json!({})),
                client.clone().in_env(&scene.place.slug).request("POST", "/v1/tools/db_query").json(&query),
                client.request("GET", "/v1/envs"),
                client.request("GET", "/v1/keys"),
                client.request("POST", "/v1/keys").json(&json!({ "name": "mine" })),
                mcp("/mcp"),
                mcp(&format!("/mcp/{}", scene.place.slug)),
            ];
            for request in requests {
                let reply = Reply::from(request.send()?);
                scene.tells_nothing(&reply)?;
                ensure!(reply.status == 401, "let in: {reply:?}");
            }
        }
        // Nor are the platform's own interfaces on the app's host, nor the app's on the platform's.
        for path in ["/v1/tools", "/v1/envs", "/mcp", "/v1/tools/db_query"] {
            let request = scene.app.request("POST", path).bearer(&scene.place.steading.ready().key);
            let reply = Reply::of(request.json(&json!({})))?;
            ensure!([404, 405].contains(&reply.status), "{path} on the app's host: {reply:?}");
        }
        let here = scene.place.client.request("GET", "/_/db/todos").send()?;
        ensure!(here.status == 404, "the app on the platform's host: {here:?}");
        Ok(())
    },
}];

#[test]
fn forged_and_foreign_tokens_open_nothing() {
    LIST.withstands(FORGERIES).unwrap();
}

#[test]
fn a_session_of_an_app_is_none_of_the_platform() {
    LIST.withstands(PLATFORM).unwrap();
}
