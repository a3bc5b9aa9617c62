//! Which client asks: one that is known, one that has registered, or one whose id is the address of its document.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use capabilities::outbound::Outbound;
use control::oauth::{Client, Refused};
use http::Method;
use serde_json::Value;

use super::{Door, too_often};

/// How long what a document says is good.
const FRESH: Duration = Duration::from_secs(3_600);
const KEPT: usize = 256;
/// The largest document.
const BYTES: usize = 16 << 10;

/// Documents of clients, fetched where they say they are.
pub struct Documents {
    outbound: Outbound,
    kept: Mutex<HashMap<String, (Client, Instant)>>,
}

impl Documents {
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, kept: Mutex::default() }
    }

    fn kept(&self, id: &str) -> Option<Client> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(id).filter(|(_, since)| since.elapsed() < FRESH).map(|(client, _)| client.clone())
    }

    async fn fetch(&self, id: &str, url: &url::Url) -> Result<Client, Refused> {
        // Whoever asks learns nothing of what is there: it may be no place of theirs.
        let unread = |why: String| {
            tracing::info!(client.id = id, why, "the document of a client cannot be read");
            Refused::Client("the document at the client_id cannot be read".into())
        };
        let request = self.outbound.request(Method::GET, url).map_err(|e| unread(e.to_string()))?;
        let request = request.header("accept", "application/json");
        let answer = self.outbound.send(request).await.map_err(|e| unread(e.to_string()))?;
        if answer.status != 200 || answer.body.len() > BYTES {
            return Err(unread(format!("status {}, {} bytes", answer.status, answer.body.len())));
        }
        let document: Value = answer.json().ok_or_else(|| unread("it is no JSON".into()))?;
        let client = Client::described(id, &document)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.retain(|_, (_, since)| since.elapsed() < FRESH);
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(id.to_owned(), (client.clone(), Instant::now()));
        Ok(client)
    }
}

impl Door {
    /// The client of this id.
    pub(super) async fn client(&self, id: &str, source: Option<IpAddr>) -> Result<Client, Refused> {
        if let Some(client) = Client::pinned(id) {
            return Ok(client);
        }
        if let Some(client) = self.oauth().registered(id).filter(|_| self.registers) {
            return Ok(client);
        }
        let unknown =
            || Refused::Client("this client is not known: register it, or use its document's address".into());
        let (Some(documents), Some(url)) = (&self.documents, Client::document(id)) else {
            return Err(unknown());
        };
        if let Some(client) = documents.kept(id) {
            return Ok(client);
        }
        if self.fetches.is_over(source) {
            return Err(too_often().into());
        }
        self.fetches.count(source);
        documents.fetch(id, &url).await
    }
}
