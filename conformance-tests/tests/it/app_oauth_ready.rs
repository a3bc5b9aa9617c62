//! The providers that are known by their names, asked at the addresses that they really have: one server stands there
//! for all of them, for a product whose machine looks names up elsewhere and trusts one more authority.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use conformance_tests::{Incoming, encoded};
use ed25519_dalek::SigningKey;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testkit::{Steading, require};

use crate::app_oauth::{Club, Found, oauth};
use crate::outsiders::{Outsider, SECRET, Walker, pairs, signed};

/// Where all of them are. On the port that their addresses mean, so that only who runs as root can stand there.
const PLACE: &str = "127.43.0.1";

const HOSTS: [&str; 10] = [
    "accounts.google.com",
    "api.github.com",
    "api.weixin.qq.com",
    "appleid.apple.com",
    "github.com",
    "login.microsoftonline.com",
    "oauth2.googleapis.com",
    "open.weixin.qq.com",
    "openidconnect.googleapis.com",
    "www.googleapis.com",
];

/// Two of Microsoft's directories.
const DIRECTORIES: [&str; 2] =
    ["72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"];

/// The providers, and a product that finds them.
struct World {
    speaking: Outsider,
    desk: Arc<Steading>,
    _directory: TempDir,
}

impl World {
    fn new() -> Self {
        let directory = testkit::temporary().unwrap();
        let names: Vec<String> = HOSTS.map(str::to_owned).into();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let authority = file("authority.pem", &made.cert.pem());
        let hosts = file("hosts", &format!("127.0.0.1 localhost\n{PLACE} {}\n", HOSTS.join(" ")));
        let binary = testkit::built_binary().expect("STEADING_BIN").display().to_string();
        // Other names in a file system of its own; the machine keeps what it has.
        let script = format!(
            "#!/bin/sh\nexec unshare --mount --propagation private sh -c 'mount --bind {hosts} /etc/hosts && exec {binary} \"$@\"' sh \"$@\"\n"
        );
        let script = file("steading", &script);
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, executable).unwrap();

        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let speaking = Outsider::start();
        let key = Arc::new(SigningKey::from_bytes(&[11; 32]));
        let listener = TcpListener::bind((PLACE, 443)).expect("the port 443, which root may have");
        let (config, server) = (Arc::new(config), (speaking.clone(), Arc::clone(&key)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, server) = (Arc::clone(&config), server.clone());
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(config)?;
                    serve(&server.0, &server.1, BufReader::new(StreamOwned::new(connection, stream)))
                });
            }
        });
        let launch = Steading::launch()
            .binary(script)
            .env("STEADING_OUTBOUND_PRIVATE", PLACE)
            .env("SSL_CERT_FILE", authority);
        Self { speaking, desk: Arc::new(require(launch.start())), _directory: directory }
    }

    /// An app that says no more than what people who have an app there have been given.
    fn club(&self, slug: &str, provider: &str, mut own: Value) -> Club {
        let (id, secret) = match provider {
            "github" => ("hub", "HUB"),
            "wechat" => ("wx1", "HUB"),
            "apple" => ("the-app", "APPLE"),
            _ => ("the-app", "HUB"),
        };
        (own["client_id"], own["client_secret"]) = (id.into(), secret.into());
        Club::at(Arc::clone(&self.desk), slug, &oauth(&json!({ provider: own })))
    }

    /// Goes where the app leads to, which is said to be `at`, and comes back as the person that is said.
    fn trip(&self, club: &Club, provider: &str, at: &str) -> Result<Found, String> {
        let mut walker = Walker::default();
        let start = club.start(provider, "/in");
        let led = Walker::led(&walker.ask("GET", &start, None), &start);
        let (page, query) = led.split_once('?').unwrap();
        assert_eq!(page, at);
        let query = pairs(query.split('#').next().unwrap());
        let (code, state) = (self.code(&query), encoded(&query["state"]));
        let callback = club.callback(provider);
        assert_eq!(query["redirect_uri"], callback);
        let back = if query.get("response_mode").is_some_and(|mode| mode == "form_post") {
            let answer = walker.ask("POST", &callback, Some(&format!("state={state}&code={code}")));
            Walker::led(&answer, &callback)
        } else {
            format!("{callback}?state={state}&code={code}")
        };
        let end = walker.walk(&back, "#auth_");
        club.found(&walker, &end)
    }

    /// The user whom the app lets in, as its makers see them.
    fn enter(&self, club: &Club, provider: &str, at: &str) -> Value {
        let found = self.trip(club, provider, at).unwrap();
        let person = club.entered(&club.take_up(&club.app.visitor(), &found, false)).unwrap();
        club.user(person.id())
    }

    /// As the provider's page would give it.
    fn code(&self, query: &BTreeMap<String, String>) -> String {
        let mut said = self.speaking.said();
        said.count += 1;
        let code = format!("code-{}", said.count);
        let shown = (query.get("code_challenge").cloned(), query.get("nonce").cloned());
        said.codes.insert(code.clone(), shown);
        code
    }

    /// What Google, Microsoft and Apple say of who comes back.
    fn says(&self, issuer: &str, claims: Value) {
        let mut claims = claims;
        claims["iss"] = issuer.into();
        self.speaking.is(claims);
    }

    /// What was asked since this was asked last.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.speaking.said().asked)
    }
}

fn serve(
    speaking: &Outsider,
    key: &SigningKey,
    mut stream: BufReader<impl Read + Write>,
) -> anyhow::Result<()> {
    while let Some(incoming) = Incoming::read(&mut stream)? {
        let header = |wanted: &str| {
            let found = incoming.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.map(|(_, value)| value.as_str())
        };
        let (path, query) = incoming.path.split_once('?').unwrap_or((&incoming.path, ""));
        let at = format!("{}{path}", header("host").unwrap_or_default());
        speaking.said().asked.push(at.clone());
        let form = pairs(std::str::from_utf8(&incoming.body)?);
        let known = match at.as_str() {
            "github.com/login/oauth/access_token" => Some("/hub/token"),
            "api.github.com/user" => Some("/hub/user"),
            "api.github.com/user/emails" => Some("/hub/user/emails"),
            "api.weixin.qq.com/sns/oauth2/access_token" => Some("/wx/access_token"),
            _ => None,
        };
        let (status, body) = match known {
            Some(path) => {
                let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
                let (status, _, _, body) = speaking.answer(path, &pairs(query), &form, bearer);
                (status, body)
            }
            None => match openid(speaking, key, &at, header("authorization"), &form) {
                Some(said) => (200, said.to_string()),
                None => (404, "{}".to_owned()),
            },
        };
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status} \r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        stream.get_mut().flush()?;
    }
    Ok(())
}

/// What those say who speak OpenID Connect; the documents are as they publish them, but for what nobody reads.
fn openid(
    speaking: &Outsider,
    key: &SigningKey,
    at: &str,
    authorization: Option<&str>,
    form: &BTreeMap<String, String>,
) -> Option<Value> {
    let document = |issuer: &str, authorize: &str, token: &str, keys: &str, ways: Value| {
        json!({
            "issuer": issuer, "authorization_endpoint": authorize, "token_endpoint": token, "jwks_uri": keys,
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"], "token_endpoint_auth_methods_supported": ways,
        })
    };
    if let Some(tenant) = at
        .strip_prefix("login.microsoftonline.com/")
        .and_then(|rest| rest.strip_suffix("/v2.0/.well-known/openid-configuration"))
    {
        let base = format!("https://login.microsoftonline.com/{tenant}");
        let issuer = if tenant == "common" { "{tenantid}" } else { tenant };
        return Some(document(
            &format!("https://login.microsoftonline.com/{issuer}/v2.0"),
            &format!("{base}/oauth2/v2.0/authorize"),
            &format!("{base}/oauth2/v2.0/token"),
            &format!("{base}/discovery/v2.0/keys"),
            json!(["client_secret_post", "private_key_jwt", "client_secret_basic"]),
        ));
    }
    Some(match at {
        "accounts.google.com/.well-known/openid-configuration" => document(
            "https://accounts.google.com",
            "https://accounts.google.com/o/oauth2/v2/auth",
            "https://oauth2.googleapis.com/token",
            "https://www.googleapis.com/oauth2/v3/certs",
            json!(["client_secret_post", "client_secret_basic"]),
        ),
        "appleid.apple.com/.well-known/openid-configuration" => document(
            "https://appleid.apple.com",
            "https://appleid.apple.com/auth/authorize",
            "https://appleid.apple.com/auth/token",
            "https://appleid.apple.com/auth/keys",
            json!(["client_secret_post"]),
        ),
        "www.googleapis.com/oauth2/v3/certs" | "appleid.apple.com/auth/keys" => keys(key),
        at if at.ends_with("/discovery/v2.0/keys") => keys(key),
        "oauth2.googleapis.com/token" | "appleid.apple.com/auth/token" => {
            exchanged(speaking, key, authorization, form)
        }
        at if at.ends_with("/oauth2/v2.0/token") => exchanged(speaking, key, authorization, form),
        _ => return None,
    })
}

fn keys(key: &SigningKey) -> Value {
    let x = URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes());
    json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "1", "x": x }] })
}

/// A code for an ID token; the token itself where a test says which.
fn exchanged(
    speaking: &Outsider,
    key: &SigningKey,
    authorization: Option<&str>,
    form: &BTreeMap<String, String>,
) -> Value {
    let mut said = speaking.said();
    let found = form.get("code").and_then(|code| said.codes.remove(code));
    let kept = form.get("code_verifier").map(|it| URL_SAFE_NO_PAD.encode(Sha256::digest(it)));
    let by_head = authorization.and_then(|it| it.strip_prefix("Basic ")).map(|pair| {
        let pair = String::from_utf8(STANDARD.decode(pair).unwrap()).unwrap();
        let (id, secret) = pair.split_once(':').unwrap();
        (id.to_owned(), pairs(&format!("secret={secret}"))["secret"].clone())
    });
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let (id, secret) = by_head.unwrap_or_else(|| (field("client_id"), field("client_secret")));
    // Apple's secret is a token of its own.
    let is_known = id == "the-app" && (secret == SECRET || secret.split('.').count() == 3);
    said.secrets.push(secret);
    let Some((challenge, nonce)) = found.filter(|_| is_known) else {
        return json!({ "error": "invalid_grant" });
    };
    if challenge != kept {
        return json!({ "error": "invalid_grant" });
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({ "aud": "the-app", "iat": now, "exp": now + 3_600, "nonce": nonce });
    claims.as_object_mut().unwrap().extend(said.person.as_object().cloned().unwrap_or_default());
    json!({ "access_token": "a", "token_type": "Bearer", "expires_in": 3_600, "id_token": signed(key, &claims) })
}

const GOOGLE: &str = "https://accounts.google.com";
const GOOGLES_PAGE: &str = "https://accounts.google.com/o/oauth2/v2/auth";

fn of_directory(id: &str) -> String {
    format!("https://login.microsoftonline.com/{id}/v2.0")
}

/// One test, as there is one place: the ready configurations are what it takes to sign in with each of them.
#[test]
fn who_is_known_by_name_is_asked_where_they_really_are() {
    let world = World::new();
    googles_word_is_googles(&world);
    microsofts_directories_are_apart(&world);
    the_others_are_where_they_are_looked_for(&world);
}

fn googles_word_is_googles(world: &World) {
    let club = world.club("ready-google", "google", json!({}));
    let person = |email: &str, more: Value| {
        let mut claims = json!({ "sub": email, "email": email, "email_verified": true });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    world.says(GOOGLE, person("ada@gmail.com", json!({})));
    let ada = world.enter(&club, "google", GOOGLES_PAGE);
    assert_eq!((&ada["email"], &ada["email_verified"]), (&json!("ada@gmail.com"), &json!(true)));
    assert_eq!(world.enter(&club, "google", GOOGLES_PAGE)["id"], ada["id"]);
    // The people of a company that is at Google, and who has confirmed an address of another kind there once.
    world.says(GOOGLE, person("bea@corp.example", json!({ "hd": "corp.example" })));
    assert_eq!(world.enter(&club, "google", GOOGLES_PAGE)["email"], "bea@corp.example");
    for (wrong, why) in [
        (json!({ "sub": "x", "iss": "https://accounts.google.com.example" }), "another issuer"),
        (json!({ "sub": "x", "iss": GOOGLE, "aud": "another-app" }), "another app"),
        (json!({ "sub": "x", "iss": GOOGLE, "aud": ["the-app", "other"], "azp": "other" }), "another party"),
        (json!({ "sub": "x", "iss": GOOGLE, "nonce": "of another" }), "another request"),
        (json!({ "sub": "x", "iss": GOOGLE, "exp": 1 }), "expired"),
        (json!({ "iss": GOOGLE }), "nobody"),
    ] {
        world.speaking.is(wrong);
        assert_eq!(world.trip(&club, "google", GOOGLES_PAGE), Err("failed".to_owned()), "{why}");
    }
    let asked = world.asked();
    let at = |place: &str| asked.iter().any(|it| it == place);
    assert!(at("accounts.google.com/.well-known/openid-configuration"), "{asked:?}");
    assert!(at("oauth2.googleapis.com/token") && at("www.googleapis.com/oauth2/v3/certs"), "{asked:?}");
}

fn microsofts_directories_are_apart(world: &World) {
    let page = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize");
    let [first, second] = DIRECTORIES;
    // Everybody's: whoever has an account anywhere there.
    let club = world.club("ready-microsoft", "microsoft", json!({}));
    let person =
        |tid: &str| json!({ "sub": "s1", "tid": tid, "email": "ada@example.org", "email_verified": true });
    world.says(&of_directory(first), person(first));
    let ada = world.enter(&club, "microsoft", &page("common"));
    assert_eq!(ada["email"], Value::Null, "anybody's directory may say that of any address");
    assert_eq!(world.enter(&club, "microsoft", &page("common"))["id"], ada["id"]);
    world.says(&of_directory(second), person(second));
    assert_ne!(world.enter(&club, "microsoft", &page("common"))["id"], ada["id"], "the same name elsewhere");
    for (issuer, tid) in [
        (of_directory(first), json!(second)),
        (of_directory(first), Value::Null),
        (of_directory("{tenantid}"), json!("{tenantid}")),
        (of_directory("common"), json!("common")),
        ("https://sts.windows.net/".to_owned() + first, json!(first)),
    ] {
        world.says(&issuer, json!({ "sub": "s1", "tid": tid }));
        let found = world.trip(&club, "microsoft", &page("common"));
        assert_eq!(found, Err("failed".to_owned()), "{issuer} {tid}");
    }
    // One directory's own people.
    let club = world.club("ready-directory", "microsoft", json!({ "tenant": first }));
    world.says(&of_directory(first), person(first));
    world.enter(&club, "microsoft", &page(first));
    world.says(&of_directory(second), person(second));
    assert_eq!(world.trip(&club, "microsoft", &page(first)), Err("failed".to_owned()), "of another one");
    world.asked();
}

fn the_others_are_where_they_are_looked_for(world: &World) {
    let club = world.club("ready-github", "github", json!({}));
    let emails = json!([{ "email": "hub@example.org", "primary": true, "verified": true }]);
    world.speaking.is(json!({ "id": 7, "emails": emails }));
    let hub = world.enter(&club, "github", "https://github.com/login/oauth/authorize");
    assert_eq!(hub["email"], "hub@example.org");
    let asked = ["github.com/login/oauth/access_token", "api.github.com/user", "api.github.com/user/emails"];
    assert_eq!(world.asked(), asked);

    let club = world.club("ready-wechat", "wechat", json!({}));
    world.speaking.is(json!({ "openid": "o1", "unionid": "u1" }));
    world.enter(&club, "wechat", "https://open.weixin.qq.com/connect/qrconnect");
    assert_eq!(world.asked(), ["api.weixin.qq.com/sns/oauth2/access_token"]);

    let club = world.club("ready-apple", "apple", json!({ "team_id": "TEAM", "key_id": "KEY" }));
    let person = json!({ "sub": "001.a", "email": "a@privaterelay.appleid.com", "email_verified": "true" });
    world.says("https://appleid.apple.com", person);
    let ada = world.enter(&club, "apple", "https://appleid.apple.com/auth/authorize");
    assert_eq!(ada["email"], "a@privaterelay.appleid.com");
    let secret = world.speaking.said().secrets.last().unwrap().clone();
    let claims = secret.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["aud"], "https://appleid.apple.com");
}
