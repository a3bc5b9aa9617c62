//! Signing in over HTTP, and tokens that nobody should have been able to make.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use capabilities::auth::Claims;
use control::{Control, NewEnvironment, NewKey};
use ed25519_dalek::{Signer as _, SigningKey};
use expect_test::expect;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kernel::{Caller, Env, EnvId, KeyId, Principal, Proof as _, Scope, Scopes, Tenant, TenantId, Timestamp};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::ground::{Ground, Reply};

const PASSWORD: &str = "correct horse battery";

impl Ground {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n{lines}\r\n{body}",
            body.len()
        );
        self.raw(request.as_bytes()).await
    }

    async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Reply {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect();
        self.send("POST", path, &headers, &body).await
    }

    async fn me(&self, token: &str) -> Reply {
        self.send("GET", "/_/auth/me", &[("Authorization", &format!("Bearer {token}"))], &Value::Null).await
    }
}

fn read(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The status, and of a problem its code, place and words.
fn told(reply: &Reply) -> String {
    match serde_json::from_slice::<Value>(&reply.body) {
        Ok(problem) if problem["code"].is_string() => {
            let field = problem["field"].as_str().map(|field| format!(" {field}")).unwrap_or_default();
            format!("{} {}{field}: {}", reply.status, text(&problem["code"]), text(&problem["message"]))
        }
        _ => reply.status.to_string(),
    }
}

#[tokio::test]
async fn people_sign_up_in_and_out() {
    let (ground, _control) = Ground::with_users().await;
    let reply = ground.post("/_/auth/anonymous", None, json!({})).await;
    assert_eq!((reply.status, reply.header("cache-control").as_deref()), (201, Some("no-store")));
    let mut first = read(&reply);
    let (access, refresh) = (first["access_token"].take(), first["refresh_token"].take());
    let (id, made) = (first["user"]["id"].take(), first["user"]["created_at"].take());
    assert!(text(&id).starts_with("usr_") && Timestamp::parse(text(&made)).is_some());
    assert_eq!(
        first,
        json!({
            "access_token": null, "token_type": "Bearer", "refresh_token": null, "expires_in": 900,
            "user": {
                "id": null, "email": null, "phone": null, "email_verified": false, "role": "user", "anonymous": true,
                "created_at": null,
            },
        })
    );
    let me = read(&ground.me(text(&access)).await);
    assert_eq!((&me["id"], &me["created_at"], me.as_object().unwrap().len()), (&id, &made, 7));

    let next = read(&ground.post("/_/auth/refresh", None, json!({ "refresh_token": refresh })).await);
    let typed = json!({ "email": " Ada@Example.org ", "password": PASSWORD });
    let upgraded = ground.post("/_/auth/signup", next["access_token"].as_str(), typed.clone()).await;
    assert_eq!(upgraded.status, 201);
    let user = read(&upgraded)["user"].clone();
    assert_eq!(
        (&user["id"], &user["email"], &user["anonymous"]),
        (&id, &json!("ada@example.org"), &json!(false))
    );
    assert_eq!(
        told(&ground.post("/_/auth/signup", None, typed.clone()).await),
        "409 conflict /email: this address has an account"
    );

    let login = ground.post("/_/auth/login", None, typed.clone()).await;
    assert_eq!((login.status, &read(&login)["user"]), (200, &user));
    let (one, other) = (read(&login), read(&ground.post("/_/auth/login", None, typed).await));
    let token = text(&one["access_token"]);
    let left = ground.post("/_/auth/logout", Some(token), Value::Null).await;
    assert_eq!((left.status, left.body.len()), (204, 0));
    assert_eq!(
        told(&ground.me(token).await),
        "401 unauthenticated: the access token is not valid (any more)"
    );
    let gone = ground.post("/_/auth/refresh", None, json!({ "refresh_token": one["refresh_token"] })).await;
    assert_eq!(told(&gone), "401 unauthenticated: the refresh token is not valid (any more)");
    assert_eq!(gone.header("www-authenticate").as_deref(), Some("Bearer"));
    let everywhere =
        ground.post("/_/auth/logout", other["access_token"].as_str(), json!({ "everywhere": true })).await;
    assert_eq!(everywhere.status, 204);
    assert_eq!(ground.me(text(&read(&upgraded)["access_token"])).await.status, 401);
}

#[tokio::test]
async fn a_stolen_refresh_token_ends_the_session_for_thief_and_owner() {
    let (ground, _control) = Ground::with_users().await;
    let first = read(&ground.post("/_/auth/anonymous", None, Value::Null).await);
    let refresh = async |session: &Value| {
        ground.post("/_/auth/refresh", None, json!({ "refresh_token": session["refresh_token"] })).await
    };
    let thief = read(&refresh(&first).await);
    assert_eq!(ground.me(text(&thief["access_token"])).await.status, 200);
    let owner = refresh(&first).await;
    let refused = "401 unauthenticated: the refresh token is not valid (any more)";
    assert_eq!(told(&owner), refused);
    assert_eq!(told(&refresh(&thief).await), refused);
    for session in [&first, &thief] {
        assert_eq!(ground.me(text(&session["access_token"])).await.status, 401);
    }
}

#[tokio::test]
async fn bodies_are_read_strictly() {
    let (ground, _control) = Ground::with_users().await;
    let session = read(&ground.post("/_/auth/anonymous", None, json!({})).await);
    let token = session["access_token"].as_str();
    let mut told_of = Vec::new();
    for (path, token, body) in [
        ("anonymous", None, json!({ "role": "admin" })),
        ("anonymous", None, json!([])),
        ("signup", None, json!({ "email": "a@example.org", "password": PASSWORD, "role": "admin" })),
        ("signup", None, json!({ "email": "a@example.org" })),
        ("signup", None, json!({ "email": 1, "password": PASSWORD })),
        ("signup", None, json!({ "email": "a@example.org", "password": 12_345_678 })),
        ("signup", None, json!({ "email": "a", "password": PASSWORD })),
        ("signup", None, json!({ "email": "a@example.org", "password": "short" })),
        ("signup", None, json!({ "email": "a@example.org", "password": "x".repeat(100_000) })),
        ("signup", None, json!({ "email": "a".repeat(100_000), "password": PASSWORD })),
        ("login", None, json!({ "email": "a@example.org", "password": ["x"] })),
        ("refresh", None, json!({})),
        ("refresh", None, json!({ "refresh_token": null })),
        ("logout", None, json!({})),
        ("logout", token, json!({ "everywhere": "yes" })),
        ("logout", token, json!({ "everywhere": true, "user": "usr_1" })),
        ("nothing", token, json!({})),
    ] {
        told_of.push(format!("{path} {}", told(&ground.post(&format!("/_/auth/{path}"), token, body).await)));
    }
    expect![[r#"
        anonymous 400 invalid_input /role: unknown field `role`, there are no fields
        anonymous 400 invalid_input : the body must be a JSON object
        signup 400 invalid_input /role: unknown field `role`, expected one of `email`, `password`, `redirect`
        signup 400 invalid_input : missing field `password`
        signup 400 invalid_input /email: invalid type: integer `1`, expected a string
        signup 400 invalid_input /password: expected a text
        signup 400 invalid_input /email: this is not an email address
        signup 400 invalid_input /password: a password has at least 8 characters
        signup 400 invalid_input /password: a password has at most 128 characters
        signup 400 invalid_input /email: this is not an email address
        login 400 invalid_input /password: invalid type: sequence, expected a text
        refresh 400 invalid_input : missing field `refresh_token`
        refresh 400 invalid_input /refresh_token: invalid type: null, expected a text
        logout 401 unauthenticated: there is no session
        logout 400 invalid_input /everywhere: invalid type: string "yes", expected a boolean
        logout 400 invalid_input /user: unknown field `user`, expected `everywhere`
        nothing 404 not_found: there is no such interface of this app"#]]
    .assert_eq(&told_of.join("\n"));
    for (method, path, allow) in [
        ("GET", "/_/auth/login", "POST"),
        ("PUT", "/_/auth/me", "GET, HEAD, DELETE"),
        ("POST", "/.well-known/jwks.json", "GET, HEAD"),
    ] {
        let reply = ground.send(method, path, &[], &Value::Null).await;
        assert_eq!((reply.status, reply.header("allow").as_deref()), (405, Some(allow)), "{method} {path}");
    }
    let reply = ground.post("/_/auth/login", None, json!({ "/".repeat(100_000): 1 })).await;
    assert_eq!((reply.status, reply.body.len() < 1_000), (400, true), "little of it comes back");
    let bearer = format!("Bearer {}", token.unwrap());
    let get = ground.send("GET", "/_/auth/me", &[("Authorization", &bearer)], &Value::Null).await;
    let head = ground.send("HEAD", "/_/auth/me", &[("Authorization", &bearer)], &Value::Null).await;
    assert_eq!((head.status, head.header("content-length")), (200, get.header("content-length")));
    let no_type = "POST /_/auth/login HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(told(&ground.raw(no_type.as_bytes()).await), "400 invalid_input: the body must be JSON");
    assert_eq!(ground.me(token.unwrap()).await.status, 200, "none of it has ended the session");
}

#[tokio::test]
async fn a_wrong_bearer_is_never_taken_for_none() {
    let (ground, _control) = Ground::with_users().await;
    let typed = json!({ "email": "ada@example.org", "password": PASSWORD });
    for token in ["x", "a.b.c", "stead_op_x", &"a".repeat(6_000)] {
        for path in ["anonymous", "signup", "login", "logout"] {
            let body =
                if path.starts_with(['s', 'l']) && path != "logout" { typed.clone() } else { json!({}) };
            let reply = ground.post(&format!("/_/auth/{path}"), Some(token), body).await;
            assert_eq!(
                told(&reply),
                "401 unauthenticated: the access token is not valid (any more)",
                "{path}"
            );
        }
    }
    for line in ["Basic YTpi", "Bearer", "Bearer ", "", "token"] {
        let reply = ground.send("GET", "/_/auth/me", &[("Authorization", line)], &Value::Null).await;
        assert_eq!(reply.status, 401, "{line}");
    }
    let two = [("Authorization", "Bearer a"), ("Authorization", "Bearer b")];
    assert_eq!(ground.send("GET", "/_/auth/me", &two, &Value::Null).await.status, 401);
}

/// A token of this header and these claims, signed however the forger can.
fn forged(header: &Value, claims: &Claims, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &[u8]| BASE64.encode(value);
    let signed =
        format!("{}.{}", part(header.to_string().as_bytes()), part(&serde_json::to_vec(claims).unwrap()));
    let signature = part(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn operator(tenant: TenantId) -> Caller {
    Caller::new(Principal::Operator, tenant, KeyId::new(), Scopes::all())
}

/// Another environment of the tenant.
async fn another(control: &Control, tenant: TenantId) -> Env {
    let new = NewEnvironment { slug: "other".parse().ok(), ..NewEnvironment::default() };
    let tenant = Tenant::authorize(&operator(tenant), &[]).unwrap();
    let made = control.environments().create(&tenant, new).await.unwrap().environment;
    let made = control.environments().ready(&made).await.unwrap();
    Env::for_upkeep(made.tenant, made.id)
}

#[tokio::test]
async fn a_forged_token_opens_nothing() {
    let (ground, control) = Ground::with_users().await;
    let session = read(&ground.post("/_/auth/anonymous", None, json!({})).await);
    let good = text(&session["access_token"]);
    assert_eq!(ground.me(good).await.status, 200);
    let keys = control.app_keys();
    let claims: Claims = keys.verify(&ground.env, good).await.unwrap().unwrap();
    let jwks = read(&ground.get("/.well-known/jwks.json", &[]).await);
    let jwk = &jwks["keys"][0];
    let parts: Vec<&str> = good.split('.').collect();
    let header: Value = serde_json::from_slice(&BASE64.decode(parts[0]).unwrap()).unwrap();
    assert_eq!(header, json!({ "alg": "EdDSA", "kid": jwk["kid"], "typ": "at+jwt" }));
    assert!(jwk.get("d").is_none() && jwks["keys"].as_array().unwrap().len() == 1);
    // Who holds the public key verifies the token with it.
    let public: [u8; 32] = BASE64.decode(text(&jwk["x"])).unwrap().try_into().unwrap();
    let verifying = ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&BASE64.decode(parts[2]).unwrap()).unwrap();
    verifying.verify_strict(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();

    let mine = SigningKey::from_bytes(&[7; 32]);
    let by_me = |bytes: &[u8]| mine.sign(bytes).to_bytes().to_vec();
    let with_public_key = |bytes: &[u8]| {
        let mut mac = Hmac::<Sha256>::new_from_slice(&public).unwrap();
        mac.update(bytes);
        mac.finalize().into_bytes().to_vec()
    };
    let of = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let other = another(&control, ground.env.tenant()).await;
    let now = Timestamp::now().as_secs();
    let elsewhere = Claims { aud: EnvId::new().to_string(), ..claims.clone() };
    let expired = Claims { iat: now - 1_000, exp: now - 100, ..claims.clone() };
    let later = Claims { iat: now + 3_600, exp: now + 4_500, ..claims.clone() };
    let platform = Claims { aud: "steading:tools".into(), ..claims.clone() };
    let own = async |claims: &Claims| keys.sign(&ground.env, claims).await.unwrap().expose().to_owned();
    let mut extra: Value = serde_json::to_value(&claims).unwrap();
    extra["admin"] = true.into();
    let extra = keys.sign(&ground.env, &extra).await.unwrap().expose().to_owned();
    let forgeries = [
        ("without a signature", forged(&of("alg", json!("none")), &claims, |_| Vec::new())),
        (
            "alg none with the old signature",
            format!("{}.{}.{}", BASE64.encode(of("alg", json!("none")).to_string()), parts[1], parts[2]),
        ),
        ("signed with the public key", forged(&of("alg", json!("HS256")), &claims, with_public_key)),
        ("the same, said to be EdDSA", forged(&header, &claims, with_public_key)),
        ("another key under this kid", forged(&header, &claims, by_me)),
        ("another key under its own kid", forged(&of("kid", json!("mine")), &claims, by_me)),
        (
            "a key of its own within",
            forged(
                &of("jwk", json!({ "x": BASE64.encode(mine.verifying_key().as_bytes()) })),
                &claims,
                by_me,
            ),
        ),
        ("a token of another type", forged(&of("typ", json!("JWT")), &claims, by_me)),
        ("another environment's key", keys.sign(&other, &claims).await.unwrap().expose().to_owned()),
        ("for another environment", own(&elsewhere).await),
        ("for the platform's tools", own(&platform).await),
        ("expired", own(&expired).await),
        ("not yet", own(&later).await),
        ("with more claims", extra),
        (
            "other claims under the signature",
            format!("{}.{}.{}", parts[0], BASE64.encode(serde_json::to_vec(&later).unwrap()), parts[2]),
        ),
        ("cut short", good[..good.len() - 1].to_owned()),
        ("made longer", format!("{good}A")),
        ("padded", format!("{good}=")),
        ("four parts", format!("{good}.")),
        ("a refresh token", text(&session["refresh_token"]).to_owned()),
    ];
    for (name, token) in forgeries {
        let reply = ground.me(&token).await;
        assert_eq!(told(&reply), "401 unauthenticated: the access token is not valid (any more)", "{name}");
    }
    // Each single bit counts.
    for at in (0..good.len()).step_by(7) {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        assert_eq!(ground.me(std::str::from_utf8(&bytes).unwrap()).await.status, 401, "byte {at}");
    }
    assert_eq!(ground.me(good).await.status, 200);
}

#[tokio::test]
async fn other_pages_sign_in_only_where_they_are_named_and_show_the_key() {
    let (ground, control) = Ground::with_users().await;
    let key = format!("pk_{}", control.app_keys().kid(&ground.env).await.unwrap());
    let from = async |origin: &str, key: &str| {
        let headers = [("Origin", origin), ("Steading-Key", key)];
        ground.send("POST", "/_/auth/anonymous", &headers, &json!({})).await
    };
    let friend = from("https://friend.example", &key).await;
    assert_eq!(
        (friend.status, friend.header("access-control-allow-origin").as_deref()),
        (201, Some("https://friend.example"))
    );
    for (origin, shown) in [
        ("https://friend.example", "pk_x"),
        ("https://friend.example", ""),
        ("http://friend.example", key.as_str()),
        ("https://friend.example.evil.example", key.as_str()),
        ("https://evil.example", key.as_str()),
        ("null", key.as_str()),
    ] {
        let refused = from(origin, shown).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None), "{origin}");
        assert_eq!(refused.header("cache-control").as_deref(), Some("no-store"), "{origin}");
    }
    assert_eq!(from("http://shop.localhost", "").await.status, 201, "its own pages need none");
}

#[tokio::test]
async fn who_guesses_is_told_to_wait() {
    let (ground, _control) = Ground::with_users().await;
    let typed = json!({ "email": "ada@example.org", "password": "wrong password" });
    for _ in 0..5 {
        let reply = ground.post("/_/auth/login", None, typed.clone()).await;
        assert_eq!(told(&reply), "401 unauthenticated: the address or the password is wrong");
    }
    let reply = ground.post("/_/auth/login", None, typed).await;
    assert_eq!(told(&reply), "429 rate_limited: there were too many attempts");
    let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((20..=30).contains(&wait), "{wait}");
    assert_eq!(reply.header("ratelimit-policy").as_deref(), Some("\"wrong-passwords\";q=5;w=150"));
}

/// A key of the ground's tenant with these scopes, bound to `env` or to none.
async fn platform_key(control: &Control, maker: &Env, env: Option<EnvId>, scopes: &[Scope]) -> String {
    let caller = operator(maker.tenant());
    let new = NewKey {
        name: "server".into(),
        env,
        scopes: Some(scopes.iter().copied().collect()),
        expires_in: None,
        cidrs: None,
    };
    control.keys().create(&caller, new).await.unwrap().secret.expose().to_owned()
}

#[tokio::test]
async fn an_apps_own_server_shows_a_key_that_is_bound_to_it() {
    let (ground, control) = Ground::with_users().await;
    let other = another(&control, ground.env.tenant()).await;
    let both = [Scope::DbRead, Scope::DbWrite];
    let key = async |env, scopes: &[Scope]| platform_key(&control, &ground.env, env, scopes).await;
    let server = key(Some(ground.env.id()), &both).await;
    // `/_/db` of a table that is not there: who is let in hears that, nobody else does.
    let ask = async |key: &str, more: &[(&str, &str)]| {
        let bearer = format!("Bearer {key}");
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(more);
        ground.send("GET", "/_/db/nothing", &headers, &Value::Null).await
    };
    assert_eq!(ask(&server, &[]).await.status, 404);
    let refused = "401 unauthenticated: the access token is not valid (any more)";
    for (name, key) in [
        ("another environment's", key(Some(other.id()), &both).await),
        ("the whole tenant's", key(None, &both).await),
        ("made up", format!("stead_key_{}", BASE64.encode([7; 32]))),
        ("an operator's", format!("stead_op_{}", BASE64.encode([7; 32]))),
        ("cut short", server[..server.len() - 1].to_owned()),
    ] {
        assert_eq!(told(&ask(&key, &[]).await), refused, "{name}");
    }
    let reader = key(Some(ground.env.id()), &[Scope::DbRead]).await;
    assert_eq!(told(&ask(&reader, &[]).await), "403 forbidden: the key lacks the scope db:write");
    // Out of a page it is refused, also its own page's.
    for origin in ["http://shop.localhost", "https://friend.example"] {
        let public = format!("pk_{}", control.app_keys().kid(&ground.env).await.unwrap());
        let reply = ask(&server, &[("Origin", origin), ("Steading-Key", &public)]).await;
        assert_eq!(
            told(&reply),
            "403 forbidden: a platform key is for servers, and this is a page's request"
        );
    }
    // A server is no user.
    assert_eq!(told(&ground.me(&server).await), refused);
    assert_eq!(told(&ground.post("/_/auth/logout", Some(&server), json!({})).await), refused);
    // Revoked, it opens nothing from that moment on.
    let listed = control.keys().list(&operator(ground.env.tenant()), None, 50).await.unwrap();
    for known in listed.iter().filter(|known| known.name == "server") {
        control.keys().revoke(&operator(ground.env.tenant()), known.id).await.unwrap();
    }
    assert_eq!(told(&ask(&server, &[]).await), refused);
}
