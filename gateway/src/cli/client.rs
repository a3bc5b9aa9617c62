//! How commands reach the platform: a named one, the one that serves this data directory, or one of their own.

use std::path::Path;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use kernel::{BlobHash, Code, Error, Secret};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use url::Url;

use super::{Context, Failure, login};
use crate::config::is_loopback;
use crate::lockfile;
use crate::serve::{self, Running};

/// The environment that exists from the first start.
const DEFAULT_ENV: &str = "default";

/// A connection to the platform. [`Client::close`] ends the platform that it runs itself.
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: Secret,
    env: Option<String>,
    tenant: Option<String>,
    own: Option<Running>,
}

impl Client {
    /// Finds the platform, or starts it.
    ///
    /// # Errors
    /// Where no key is to be had, or the platform does not start.
    pub async fn connect(context: &Context) -> Result<Self, Failure> {
        let surroundings = &context.surroundings;
        let tenant = surroundings.tenant.clone();
        if let Some(base) = &surroundings.url {
            let key = match &surroundings.key {
                Some(key) => Some(key.clone()),
                None => login::token(surroundings).await?,
            };
            let key = key.ok_or_else(|| {
                Error::new(Code::Unauthenticated, "STEADING_URL is set and STEADING_KEY is not")
                    .hint("set STEADING_KEY to a key of that platform, or sign in with `steading login`")
            })?;
            let base: Url = base
                .parse()
                .map_err(|e| Error::new(Code::InvalidInput, format!("STEADING_URL is not a URL: {e}")))?;
            return Self::to(base.as_str(), key, surroundings.env.clone(), tenant, None);
        }
        let (base, own) = loop {
            if let Some(holder) = lockfile::holder(&context.config.data_dir)? {
                break (holder.url, None);
            }
            let started = async { serve::start(&context.config, context.groundwork()?).await };
            match started.await {
                Ok(running) => break (running.local_url(), Some(running)),
                // Another command was quicker: it is the one to talk to.
                Err(serve::Error::Lock(lockfile::Error::Held { .. })) => {}
                Err(e) => return Err(e.into()),
            }
        };
        let (key, env) = match &surroundings.key {
            Some(key) => (key.clone(), surroundings.env.clone()),
            None => {
                let env = surroundings.env.clone().unwrap_or_else(|| DEFAULT_ENV.to_owned());
                (operator_key(&context.config.data_dir)?, Some(env))
            }
        };
        Self::to(&base, key, env, tenant, own)
    }

    /// The same for the tenant as a whole: a credential that a call makes is not bound to the environment that
    /// the call names.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_to_tenant(context: &Context) -> Result<Self, Failure> {
        Ok(Self { env: None, ..Self::connect(context).await? })
    }

    fn to(
        base: &str,
        key: Secret,
        env: Option<String>,
        tenant: Option<String>,
        own: Option<Running>,
    ) -> Result<Self, Failure> {
        Ok(Self { http: http(base)?, base: base.trim_end_matches('/').to_owned(), key, env, tenant, own })
    }

    /// Calls a tool with `input`.
    ///
    /// # Errors
    /// The tool's, and `unavailable` where the platform does not answer.
    pub async fn tool(&mut self, name: &str, input: &Value) -> Result<Value, Failure> {
        self.call(Method::POST, &format!("/v1/tools/{}", segment(name)), Some(input)).await
    }

    /// Calls a route of the platform.
    ///
    /// # Errors
    /// The route's, and `unavailable` where the platform does not answer.
    pub async fn call(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let outcome = self.attempt(method.clone(), path, body).await;
        match outcome {
            Err(failure) if failure.wants_env() && self.env.is_none() => {
                // A key of a whole tenant: it works in the default environment unless told otherwise.
                self.env = Some(DEFAULT_ENV.to_owned());
                self.attempt(method, path, body).await
            }
            outcome => outcome,
        }
    }

    /// Every page of a list as one: the object's `items` is the list, its `cursor` the way to the next page.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn pages(&mut self, path: &str, items: &str) -> Result<Value, Failure> {
        let mut all = Vec::new();
        let mut next = path.to_owned();
        loop {
            let mut page = self.call(Method::GET, &next, None).await?;
            if let Value::Array(found) = page[items].take() {
                all.extend(found);
            }
            match page["cursor"].as_str() {
                Some(cursor) => {
                    let cursor: String = url::form_urlencoded::byte_serialize(cursor.as_bytes()).collect();
                    let with = if path.contains('?') { '&' } else { '?' };
                    next = format!("{path}{with}cursor={cursor}");
                }
                None => return Ok(serde_json::json!({ items: all })),
            }
        }
    }

    async fn attempt(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        if !status.is_success() {
            return Err(Failure::answered(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).map_err(|_| Failure::answered(status, &body))
    }

    /// Makes sure that the platform has a blob.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn upload(&self, hash: BlobHash, bytes: Vec<u8>) -> Result<Uploaded, Failure> {
        let path = format!("/v1/blobs/{hash}");
        let asked = self.request(Method::HEAD, &path).send().await.map_err(|e| self.unreachable(e))?;
        if asked.status().is_success() {
            return Ok(Uploaded::WasThere);
        }
        let put = self.request(Method::PUT, &path).header("content-type", "application/octet-stream");
        let response = put.body(bytes).send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Uploaded::Sent);
        }
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        Err(Failure::answered(status, &body))
    }

    /// What a route answers, piece by piece.
    ///
    /// # Errors
    /// As [`Client::call`]; in the stream too.
    pub async fn download(
        &self,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, Failure>> + Unpin + use<'_>, Failure> {
        let response = self.request(Method::GET, path).send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
            return Err(Failure::answered(status, &body));
        }
        Ok(response.bytes_stream().map_err(|e| self.unreachable(e)))
    }

    /// Sends a body to a route, piece by piece.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: reqwest::Body,
    ) -> Result<Value, Failure> {
        let request = self.request(method, path).header("content-type", content_type).body(body);
        let response = request.send().await.map_err(|e| self.unreachable(e))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|e| self.unreachable(e))?;
        if !status.is_success() {
            return Err(Failure::answered(status, &body));
        }
        serde_json::from_slice(&body).map_err(|_| Failure::answered(status, &body))
    }

    /// Chooses the default environment where the key is bound to none and none was named.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn settle_env(&mut self) -> Result<(), Failure> {
        if self.env.is_none() {
            self.tool("app_describe", &serde_json::json!({})).await?;
        }
        Ok(())
    }

    /// What another program needs to talk to the platform: its address, the key, the environment if one is chosen.
    pub fn target(&self) -> (&str, &Secret, Option<&str>) {
        (&self.base, &self.key, self.env.as_deref())
    }

    /// A request with the credential and the choices of environment and tenant.
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).bearer_auth(self.key.expose());
        if let Some(env) = &self.env {
            request = request.header("steading-env", env);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("steading-tenant", tenant);
        }
        request
    }

    /// What to say when the platform does not answer.
    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let code = if error.is_timeout() { Code::Timeout } else { Code::Unavailable };
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        Error::new(code, format!("the platform at {} does not answer: {cause}", self.base))
            .hint("check the address, or start it with `steading serve`")
            .into()
    }

    /// Stops the platform, where this client runs it.
    pub async fn close(self) {
        if let Some(own) = self.own {
            own.stop().await;
        }
    }
}

/// What requests to the platform at this address are sent with.
pub fn http(base: &str) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("steading/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none());
    let local = base.parse().is_ok_and(|url| is_loopback(&url));
    if local {
        // A proxy for the world outside knows nothing of this machine's loopback.
        builder = builder.no_proxy();
    }
    Ok(builder.build().map_err(Error::internal)?)
}

/// Whether a blob had to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there.
    WasThere,
    /// It was sent.
    Sent,
}

/// Text as one segment of a path.
pub fn segment(text: &str) -> String {
    let mut url = Url::parse("http://h").ok();
    if let Some(mut segments) = url.as_mut().and_then(|url| url.path_segments_mut().ok()) {
        segments.push(text);
    }
    url.map(|url| url.path().trim_start_matches('/').to_owned()).unwrap_or_default()
}

/// The operator's key, for whoever may read the data directory.
///
/// # Errors
/// `unauthenticated` where there is none to be read.
pub fn operator_key(data_dir: &Path) -> Result<Secret, Error> {
    let path = data_dir.join("operator.key");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Secret::new(text.trim())),
        Err(e) => Err(Error::new(Code::Unauthenticated, format!("{} cannot be read: {e}", path.display()))
            .hint("set STEADING_KEY to a key, or run this as the user that runs the platform")),
    }
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("db_query"), "db_query");
        assert_eq!(segment("a/b?c#d"), "a%2Fb%3Fc%23d");
        assert_eq!(segment("ten:own"), "ten:own");
    }
}
