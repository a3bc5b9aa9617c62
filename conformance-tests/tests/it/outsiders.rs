//! Providers that speak as GitHub, WeChat and Apple do, and say what a test wants them to.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use conformance_tests::encoded;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::http::{Request, Response};

/// What one of them says next, and what it was asked.
#[derive(Default)]
pub struct Said {
    /// Who comes back: `id` and `emails` for GitHub, `openid` and `unionid` for WeChat, claims for Apple.
    pub person: Value,
    /// Whether people say no.
    pub denies: bool,
    /// Paths that were asked, with their queries.
    pub asked: Vec<String>,
    /// Code → the challenge and the nonce that came with it.
    pub codes: BTreeMap<String, (Option<String>, Option<String>)>,
    pub count: u32,
    /// What it was sent to show that it is the app.
    pub secrets: Vec<String>,
}

/// A server on a loopback port, until the test process ends.
#[derive(Clone)]
pub struct Outsider {
    pub url: String,
    said: Arc<Mutex<Said>>,
    key: Arc<SigningKey>,
}

pub const SECRET: &str = "what the provider knows the app by";

impl Outsider {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let outsider = Self { url, said: Arc::default(), key: Arc::new(SigningKey::from_bytes(&[9; 32])) };
        let serving = outsider.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        outsider
    }

    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who comes back from now on.
    pub fn is(&self, person: Value) {
        self.said().person = person;
    }

    /// The manifest's providers that lead here.
    pub fn providers(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.url);
        json!({
            "github": {
                "client_id": "hub", "client_secret": "HUB", "authorize_url": at("/hub/authorize"),
                "token_url": at("/hub/token"), "userinfo_url": at("/hub/user"),
            },
            "wechat": {
                "client_id": "wx1", "client_secret": "HUB", "authorize_url": at("/wx/qrconnect"),
                "token_url": at("/wx/access_token"),
            },
            "apple": {
                "client_id": "ap", "client_secret": "APPLE", "team_id": "TEAM", "key_id": "KEY", "issuer": self.url,
                "addresses": ["privaterelay.example"],
            },
        })
    }

    fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(incoming) = conformance_tests::Incoming::read(&mut stream)? {
            let (path, query) = incoming.path.split_once('?').unwrap_or((&incoming.path, ""));
            let form = String::from_utf8(incoming.body.clone())?;
            let authorization =
                incoming.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"));
            let bearer = authorization.and_then(|(_, value)| value.strip_prefix("Bearer "));
            let (status, kind, head, body) = self.answer(path, &pairs(query), &pairs(&form), bearer);
            self.said().asked.push(incoming.path.clone());
            write!(
                stream.get_mut(),
                "HTTP/1.1 {status} \r\n{head}content-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        Ok(())
    }

    pub fn answer(
        &self,
        path: &str,
        query: &BTreeMap<String, String>,
        form: &BTreeMap<String, String>,
        bearer: Option<&str>,
    ) -> (u16, &'static str, String, String) {
        let mut said = self.said();
        let json = |value: Value| (200, "application/json", String::new(), value.to_string());
        let given = |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or_default();
        match path {
            "/hub/authorize" | "/wx/qrconnect" | "/apple/authorize" => {
                said.count += 1;
                let code = format!("code-{}", said.count);
                said.codes.insert(
                    code.clone(),
                    (query.get("code_challenge").cloned(), query.get("nonce").cloned()),
                );
                let (to, state) = (given(query, "redirect_uri"), given(query, "state"));
                let outcome =
                    if said.denies { "error=access_denied".to_owned() } else { format!("code={code}") };
                if path == "/apple/authorize" {
                    let (name, value) = outcome.split_once('=').unwrap();
                    let page = format!(
                        "<form method=post action='{to}'><input name=state value='{state}'>\
                         <input name='{name}' value='{value}'></form><script>document.forms[0].submit()</script>"
                    );
                    return (200, "text/html", String::new(), page);
                }
                (
                    302,
                    "text/plain",
                    format!("location: {to}?{outcome}&state={}\r\n", encoded(&state)),
                    String::new(),
                )
            }
            "/hub/token" => {
                let found = said.codes.remove(&given(form, "code"));
                let kept = URL_SAFE_NO_PAD.encode(Sha256::digest(given(form, "code_verifier")));
                let good = found.is_some_and(|(challenge, _)| challenge == Some(kept))
                    && given(form, "client_id") == "hub"
                    && given(form, "client_secret") == SECRET;
                // As GitHub does, with 200.
                json(if good {
                    json!({ "access_token": "of the hub" })
                } else {
                    json!({ "error": "bad_verification_code" })
                })
            }
            "/hub/user" if bearer == Some("of the hub") => {
                json(json!({ "id": said.person["id"], "login": "x" }))
            }
            "/hub/user/emails" if bearer == Some("of the hub") => json(said.person["emails"].clone()),
            "/wx/access_token" => {
                let good = said.codes.remove(&given(query, "code")).is_some()
                    && given(query, "appid") == "wx1"
                    && given(query, "secret") == SECRET;
                if !good {
                    return json(json!({ "errcode": 40029, "errmsg": "invalid code" }));
                }
                let mut answer =
                    json!({ "access_token": "w", "expires_in": 7200, "refresh_token": "r", "scope": "x" });
                answer.as_object_mut().unwrap().extend(said.person.as_object().cloned().unwrap_or_default());
                json(answer)
            }
            "/.well-known/openid-configuration" => json(json!({
                "issuer": self.url, "authorization_endpoint": format!("{}/apple/authorize", self.url),
                "token_endpoint": format!("{}/apple/token", self.url), "jwks_uri": format!("{}/apple/keys", self.url),
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
            })),
            "/apple/keys" => {
                let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().to_bytes());
                json(json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "x": x }] }))
            }
            "/apple/token" => {
                let Some((_, nonce)) = said.codes.remove(&given(form, "code")) else {
                    return (
                        400,
                        "application/json",
                        String::new(),
                        r#"{"error":"invalid_grant"}"#.to_owned(),
                    );
                };
                said.secrets.push(given(form, "client_secret"));
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
                let mut claims =
                    json!({ "iss": self.url, "aud": "ap", "iat": now, "exp": now + 60, "nonce": nonce });
                claims.as_object_mut().unwrap().extend(said.person.as_object().cloned().unwrap_or_default());
                json(json!({ "access_token": "a", "id_token": signed(&self.key, &claims) }))
            }
            _ => (404, "text/plain", String::new(), String::new()),
        }
    }
}

/// A token that this key signs.
pub fn signed(key: &SigningKey, claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encoded(&json!({ "alg": "EdDSA", "kid": "1" })), encoded(claims));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()).to_bytes()))
}

/// Names and values of a query or a form, decoded.
pub fn pairs(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let [first, others @ ..] = rest {
            rest = others;
            match (first, others) {
                (b'%', [a, b, others @ ..]) => {
                    let hex = [*a, *b];
                    bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                    rest = others;
                }
                (b'+', _) => bytes.push(b' '),
                (byte, _) => bytes.push(*byte),
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

/// A browser without pages: it keeps cookies by host, and follows where it is led.
#[derive(Default)]
pub struct Walker {
    pub cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Walker {
    /// Asks for one address, with the cookies of its host.
    pub fn ask(&mut self, method: &str, url: &str, form: Option<&str>) -> Response {
        // What comes after # stays in the browser.
        let url = url.split('#').next().unwrap_or_default();
        let host = url.split('/').nth(2).unwrap().to_owned();
        let kept = self.cookies.entry(host).or_default();
        let line: Vec<String> = kept.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::new(method, url);
        if !line.is_empty() {
            request = request.header("cookie", &line.join("; "));
        }
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        }
        let response = request.send().unwrap();
        for (_, line) in response.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.to_ascii_lowercase().contains("max-age=0") {
                kept.remove(name);
            } else {
                kept.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    /// What is kept for the host of an address.
    pub fn line(&self, url: &str) -> String {
        let kept = self.cookies.get(url.split('/').nth(2).unwrap_or_default()).into_iter().flatten();
        kept.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// The address that an answer leads to.
    pub fn led(response: &Response, from: &str) -> String {
        let to = response.header("location").unwrap_or_else(|| panic!("leads nowhere: {response:?}"));
        if to.starts_with('/') {
            let origin: Vec<&str> = from.splitn(4, '/').take(3).collect();
            return format!("{}{to}", origin.join("/"));
        }
        to.to_owned()
    }

    /// Follows redirects from an address until one leads to `end`, which is given and not asked.
    pub fn walk(&mut self, url: &str, end: &str) -> String {
        let mut at = url.to_owned();
        for _ in 0..10 {
            if at.contains(end) {
                return at;
            }
            let response = self.ask("GET", &at, None);
            at = Self::led(&response, &at);
        }
        panic!("no end: {at}")
    }
}
