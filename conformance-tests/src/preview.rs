//! A preview of a sandbox's server, visited as programs and strangers do.

use anyhow::Context;
use serde_json::Value;
use testkit::Steading;
use testkit::http::Request;

/// A preview at its own host.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Its address without a path.
    pub origin: String,
    /// The host in it, with its port.
    pub host: String,
    /// The pass, where its address has one.
    pub pass: Option<String>,
    /// The link that a browser opens.
    pub link: String,
    /// Where the server listens.
    authority: String,
}

impl Preview {
    /// The one that `preview_open` and the routes show.
    ///
    /// # Errors
    /// Where that is none.
    pub fn of(shown: &Value, server: &Steading) -> anyhow::Result<Self> {
        let link = shown["url"].as_str().with_context(|| format!("no url: {shown}"))?;
        let (origin, pass) = match link.split_once("/?steading-preview=") {
            Some((origin, pass)) => (origin, Some(pass.to_owned())),
            None => (link, None),
        };
        let host = origin.split_once("://").with_context(|| format!("no address: {link}"))?.1;
        Ok(Self {
            origin: origin.to_owned(),
            host: host.to_owned(),
            pass,
            link: link.to_owned(),
            authority: server.authority().to_owned(),
        })
    }

    /// A request of whoever has the pass, where there is one.
    pub fn ask(&self, method: &str, path: &str) -> Request {
        let request = self.ask_as_stranger(method, path);
        match &self.pass {
            Some(pass) => request.header("steading-preview", pass),
            None => request,
        }
    }

    /// A request of somebody who knows the host and nothing else.
    pub fn ask_as_stranger(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("{}{path}", self.origin)).via(&self.authority)
    }
}
