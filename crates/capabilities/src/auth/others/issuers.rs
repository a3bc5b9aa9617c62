//! What issuers publish of themselves, their addresses and keys: kept for a while, and asked for again where a key is not
//! known, but not by everybody who makes one up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kernel::EnvId;
use quick_cache::sync::Cache;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use url::Url;

use super::Failed;
use super::jose::{Bad, Jwks, Token};
use crate::outbound::Outbound;

/// How many documents of each kind are kept in mind: whoever publishes decides how large one is, up to what is read of an
/// answer.
const MINDED: usize = 256;

/// How long a document is taken for what is published.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// How long after one look for a key that is not known the next may follow.
const AGAIN: Duration = Duration::from_secs(60);

/// How long nobody is asked again who has not answered.
const REST: Duration = Duration::from_secs(5);

/// The longest address that an issuer may publish.
const LONGEST: usize = 2_048;

/// Reads what issuers publish.
pub(crate) struct Issuers {
    http: Outbound,
    published: Cache<String, Kept<Published>>,
    keys: Cache<String, Kept<Jwks>>,
}

type Kept<T> = Arc<Mutex<Document<T>>>;

/// A document, as it was read: no more of it than is used.
struct Document<T> {
    read: Option<(Instant, Arc<T>)>,
    /// When it was last read before its time, for whom: none makes the others wait for it.
    again: HashMap<EnvId, Instant>,
    /// When it could not be read.
    failed: Option<Instant>,
}

impl<T> Default for Document<T> {
    fn default() -> Self {
        Self { read: None, again: HashMap::new(), failed: None }
    }
}

/// What can be published.
trait Read: Sized {
    /// Reads it; why not.
    fn read(text: &[u8]) -> Result<Self, &'static str>;
}

/// What an issuer says of itself (OpenID Connect Discovery 1.0 §3).
#[derive(Debug)]
pub(super) struct Published {
    pub issuer: String,
    pub authorize: String,
    pub token: String,
    pub keys: String,
    pub userinfo: Option<String>,
    /// Whether the secret is sent in the body.
    pub posts_secret: bool,
    /// Whether it says with each answer who it is (RFC 9207).
    pub names_itself: bool,
}

impl Read for Published {
    fn read(text: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Metadata {
            issuer: String,
            authorization_endpoint: String,
            token_endpoint: String,
            jwks_uri: String,
            userinfo_endpoint: Option<String>,
            #[serde(default)]
            token_endpoint_auth_methods_supported: Option<Vec<String>>,
            #[serde(default)]
            authorization_response_iss_parameter_supported: bool,
        }
        let found: Metadata =
            serde_json::from_slice(text).map_err(|_| "what the issuer publishes lacks an address")?;
        let addresses =
            [&found.issuer, &found.authorization_endpoint, &found.token_endpoint, &found.jwks_uri];
        if addresses.into_iter().chain(&found.userinfo_endpoint).any(|it| it.len() > LONGEST) {
            return Err("what the issuer publishes is too long for an address");
        }
        let methods = found.token_endpoint_auth_methods_supported.unwrap_or_default();
        let has = |method: &str| methods.iter().any(|listed| listed == method);
        Ok(Self {
            posts_secret: has("client_secret_post") && !has("client_secret_basic"),
            issuer: found.issuer,
            authorize: found.authorization_endpoint,
            token: found.token_endpoint,
            keys: found.jwks_uri,
            userinfo: found.userinfo_endpoint,
            names_itself: found.authorization_response_iss_parameter_supported,
        })
    }
}

impl Read for Jwks {
    fn read(text: &[u8]) -> Result<Self, &'static str> {
        Jwks::read(text).ok_or("what the issuer publishes is no set of keys")
    }
}

impl Issuers {
    pub fn new(http: Outbound) -> Self {
        Self { http, published: Cache::new(MINDED), keys: Cache::new(MINDED) }
    }

    /// What an issuer says of itself (OpenID Connect Discovery 1.0 §4).
    pub(super) async fn metadata(&self, issuer: &str) -> Result<Arc<Published>, Failed> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|_| Failed::Said("the issuer is no address"))?;
        self.http.judge(&url)?;
        let document = kept(&self.published, &url)?;
        let mut document = document.lock().await;
        self.fresh(&url, &mut document).await
    }

    /// What a token says, where one of the keys at `url` has signed it. Where its key is not among them they are read
    /// anew, once in a minute for each environment.
    pub async fn verified(
        &self,
        env: EnvId,
        url: &Url,
        token: &Token<'_>,
    ) -> Result<Map<String, Value>, Failed> {
        self.http.judge(url)?;
        let document = kept(&self.keys, url)?;
        let mut document = document.lock().await;
        let keys = self.fresh(url, &mut document).await?;
        match token.verified(&keys) {
            Err(Bad::UnknownKey) if document.again.get(&env).is_none_or(|again| again.elapsed() >= AGAIN) => {
                document.again.retain(|_, again| again.elapsed() < AGAIN);
                document.again.insert(env, Instant::now());
                let keys = self.read(url).await?;
                document.read = Some((Instant::now(), Arc::clone(&keys)));
                Ok(token.verified(&keys)?)
            }
            verified => Ok(verified?),
        }
    }

    async fn fresh<T: Read>(&self, url: &Url, document: &mut Document<T>) -> Result<Arc<T>, Failed> {
        if let Some((_, read)) = document.read.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(Arc::clone(read));
        }
        if document.failed.is_some_and(|failed| failed.elapsed() < REST) {
            return Err(Failed::Said("the issuer did not answer a moment ago"));
        }
        let read = self.read(url).await.inspect_err(|_| document.failed = Some(Instant::now()))?;
        document.read = Some((Instant::now(), Arc::clone(&read)));
        Ok(read)
    }

    async fn read<T: Read>(&self, url: &Url) -> Result<Arc<T>, Failed> {
        let request = self.http.request(Method::GET, url)?.header("accept", "application/json");
        let answer = self.http.send(request).await?;
        if answer.status != 200 {
            return Err(Failed::Answer("what the issuer publishes", answer.status, String::new()));
        }
        T::read(&answer.body).map(Arc::new).map_err(Failed::Said)
    }
}

fn kept<T>(documents: &Cache<String, Kept<T>>, url: &Url) -> Result<Kept<T>, Failed> {
    documents.get_or_insert_with(url.as_str(), || Ok(Arc::default()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kernel::Networks;
    use serde_json::json;

    use super::super::jose::testing::{Signer, signer};
    use super::*;
    use crate::outbound::Failure;

    /// Publishes the first set of keys once, and the last from then on.
    fn publishing(sets: Vec<Value>) -> (Url, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4_096];
                let _ = stream.read(&mut head);
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let body = sets.get(number).or(sets.last()).unwrap().to_string();
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
        });
        (url, asked)
    }

    fn issuers() -> Issuers {
        Issuers::new(Outbound::new(Networks::of(["127.0.0.1"].into_iter()).unwrap()).unwrap())
    }

    #[tokio::test]
    async fn a_key_that_is_new_is_looked_for_and_one_that_is_made_up_not_again_and_again() {
        let (first, second, made_up): (Signer, Signer, Signer) = (signer("1"), signer("2"), signer("3"));
        let both = json!({ "keys": [first.jwk(), second.jwk()] });
        let (url, asked) = publishing(vec![json!({ "keys": [first.jwk()] }), both]);
        let issuers = issuers();
        let claims = json!({ "sub": "ada" });
        let (one, other) = (EnvId::new(), EnvId::new());
        let verified_for = async |env: EnvId, signer: &Signer| {
            let token = signer.sign(&claims);
            issuers.verified(env, &url, &Token::read(&token).unwrap()).await.map(Value::Object).ok()
        };
        let verified = async |signer: &Signer| verified_for(one, signer).await;
        assert_eq!(verified(&first).await, Some(claims.clone()));
        assert_eq!(verified(&first).await, Some(claims.clone()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(verified(&second).await, Some(claims.clone()), "the keys have changed");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        for _ in 0..50 {
            assert_eq!(verified(&made_up).await, None);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "each made-up key is a request of ours");
        assert_eq!(verified(&first).await, Some(claims.clone()));
        // Who has them read over and over does so for one environment.
        assert_eq!(verified_for(other, &made_up).await, None);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn what_is_kept_of_a_document_is_what_is_used_of_it() {
        let published = json!({
            "issuer": "https://id.example.com", "authorization_endpoint": "https://id.example.com/a",
            "token_endpoint": "https://id.example.com/t", "jwks_uri": "https://id.example.com/k",
            "token_endpoint_auth_methods_supported": ["client_secret_post"], "x": vec![json!({ "": 0 }); 1_000],
        });
        let read = |published: &Value| Published::read(published.to_string().as_bytes());
        let found = read(&published).unwrap();
        assert_eq!(
            (found.token.as_str(), found.userinfo, found.posts_secret),
            ("https://id.example.com/t", None, true)
        );
        let mut long = published.clone();
        long["userinfo_endpoint"] = format!("https://id.example.com/{}", "u".repeat(LONGEST)).into();
        assert_eq!(read(&long).unwrap_err(), "what the issuer publishes is too long for an address");
        // A thousand keys, and what is none.
        let mut keys: Vec<Value> = (0..1_000).map(|n| signer(&n.to_string()).jwk()).collect();
        keys.insert(0, json!({ "": 0 }));
        let keys = Jwks::read(json!({ "keys": keys, "x": [{ "": 0 }] }).to_string().as_bytes()).unwrap();
        assert_eq!(keys.0.len(), 64);
    }

    #[tokio::test]
    async fn a_document_that_is_too_large_to_be_one_is_not_read() {
        let (url, _) = publishing(vec![json!({ "keys": [signer("1").jwk()], "x": "x".repeat(128 << 10) })]);
        let token = signer("1").sign(&json!({ "sub": "ada" }));
        let refused =
            issuers().verified(EnvId::new(), &url, &Token::read(&token).unwrap()).await.unwrap_err();
        assert!(matches!(refused, Failed::Outside(Failure::Large(_))), "{refused}");
    }

    #[tokio::test]
    async fn keys_of_the_platforms_surroundings_are_not_asked_for() {
        let issuers = Issuers::new(Outbound::new(Networks::default()).unwrap());
        for issuer in
            ["https://127.0.0.1:1", "https://169.254.169.254", "http://localhost:1", "https://[::1]"]
        {
            let refused = issuers.metadata(issuer).await.unwrap_err();
            assert!(matches!(refused, Failed::Outside(_)), "{issuer}: {refused}");
        }
    }
}
