//! What issuers publish of themselves, their addresses and keys: kept for a while, and asked for again where a key is not
//! known, but not by everybody who makes one up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::Failed;
use super::jose::{Bad, Jwks, Token};
use crate::outbound::Outbound;

/// How many documents are kept in mind.
const MINDED: usize = 1_024;

/// How long a document is taken for what is published.
const FRESH: Duration = Duration::from_secs(60 * 60);

/// How long after one look for a key that is not known the next may follow.
const AGAIN: Duration = Duration::from_secs(60);

/// How long nobody is asked again who has not answered.
const REST: Duration = Duration::from_secs(5);

/// Reads what issuers publish.
pub(crate) struct Issuers {
    http: Outbound,
    documents: Cache<String, Arc<Mutex<Document>>>,
}

/// A document, as it was read.
#[derive(Default)]
struct Document {
    read: Option<(Instant, Arc<Value>)>,
    /// When it was last read before its time.
    again: Option<Instant>,
    /// When it could not be read.
    failed: Option<Instant>,
}

impl Issuers {
    pub fn new(http: Outbound) -> Self {
        Self { http, documents: Cache::new(MINDED) }
    }

    /// What an issuer says of itself (OpenID Connect Discovery 1.0 §4).
    pub async fn metadata(&self, issuer: &str) -> Result<Arc<Value>, Failed> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = Url::parse(&url).map_err(|_| Failed::Said("the issuer is no address"))?;
        let document = self.document(&url)?;
        let mut document = document.lock().await;
        self.fresh(&url, &mut document).await
    }

    /// What a token says, where one of the keys at `url` has signed it. Where its key is not among them they are read
    /// anew, once in a minute.
    pub async fn verified(
        &self,
        url: &Url,
        token: &Token<'_>,
    ) -> Result<serde_json::Map<String, Value>, Failed> {
        let kept = self.document(url)?;
        let mut document = kept.lock().await;
        let keys = self.fresh(url, &mut document).await?;
        match token.verified(&read(&keys)?) {
            Err(Bad::UnknownKey) if document.again.is_none_or(|again| again.elapsed() >= AGAIN) => {
                document.again = Some(Instant::now());
                let keys = self.read(url).await?;
                document.read = Some((Instant::now(), Arc::clone(&keys)));
                Ok(token.verified(&read(&keys)?)?)
            }
            verified => Ok(verified?),
        }
    }

    fn document(&self, url: &Url) -> Result<Arc<Mutex<Document>>, Failed> {
        self.http.judge(url)?;
        self.documents.get_or_insert_with(url.as_str(), || Ok(Arc::default()))
    }

    async fn fresh(&self, url: &Url, document: &mut Document) -> Result<Arc<Value>, Failed> {
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

    async fn read(&self, url: &Url) -> Result<Arc<Value>, Failed> {
        let request = self.http.request(Method::GET, url)?.header("accept", "application/json");
        let answer = self.http.send(request).await?;
        if answer.status != 200 {
            return Err(Failed::Answer("what the issuer publishes", answer.status, String::new()));
        }
        answer.json().map(Arc::new).ok_or(Failed::Said("what the issuer publishes is not JSON"))
    }
}

fn read(keys: &Value) -> Result<Jwks, Failed> {
    Jwks::read(keys).ok_or(Failed::Said("what the issuer publishes is no set of keys"))
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
        let verified = async |signer: &Signer| {
            let token = signer.sign(&claims);
            issuers.verified(&url, &Token::read(&token).unwrap()).await.map(Value::Object).ok()
        };
        assert_eq!(verified(&first).await, Some(claims.clone()));
        assert_eq!(verified(&first).await, Some(claims.clone()));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert_eq!(verified(&second).await, Some(claims.clone()), "the keys have changed");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        for _ in 0..50 {
            assert_eq!(verified(&made_up).await, None);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "each made-up key is a request of ours");
        assert_eq!(verified(&first).await, Some(claims));
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
