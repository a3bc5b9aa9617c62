//! Fetches a release from the platform's own listener before it is kept, the way a visitor would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use capabilities::domains::Domains;
use capabilities::hosting::RequestPath;
use capabilities::releases::{LiveCheck, Served};
use control::Control;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use kernel::{BlobHash, Code, Env, Error, Result};
use tokio::net::TcpSocket;

use crate::traffic::Own;

/// How long the app may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Dials the listener itself, so that no name has to resolve.
pub struct Dialer {
    /// Where the listener is reached from this machine.
    pub addr: SocketAddr,
    /// The domain that slugs stand before.
    pub apps_domain: String,
    /// Who knows the slugs.
    pub control: Arc<Control>,
    /// Who knows the apps' own domains.
    pub domains: Arc<Domains>,
    /// What is dialled is counted for nobody: no visitor can keep a release from being looked at.
    pub own: Own,
}

impl LiveCheck for Dialer {
    fn check<'a>(&'a self, env: &'a Env, served: &'a Served) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match tokio::time::timeout(PATIENCE, self.fetch(env, served)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(refuse(format!("it did not answer within {} s", PATIENCE.as_secs()))),
            }
        })
    }
}

impl Dialer {
    async fn fetch(&self, env: &Env, served: &Served) -> Result<()> {
        let place = self.control.environments().find(&env.id().to_string()).await?;
        let place = place.ok_or_else(|| refuse("the environment is being deleted"))?;
        self.visit(&format!("{}.{}", place.slug, self.apps_domain), served).await?;
        for domain in self.domains.list(env).await?.iter().filter(|domain| domain.proven) {
            self.visit(&domain.domain, served).await?;
        }
        Ok(())
    }

    /// Fetches the app as the visitor of one host.
    async fn visit(&self, host: &str, served: &Served) -> Result<()> {
        let response = self.get(host).await.map_err(|e| refuse("it could not be reached").source(e))?;
        let release = response.headers().get("x-release").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if release != Some(served.release) {
            let found = release.map_or_else(|| "no release".to_owned(), |found| format!("release {found}"));
            return Err(refuse(format!("{found} answered in place of release {}", served.release)));
        }
        let status = response.status();
        let body =
            response.into_body().collect().await.map_err(|e| refuse("its answer broke off").source(e))?;
        let index = served.site.files.iter().find(|(path, _)| path.as_str() == "index.html");
        // What a route answers at / is the route's business.
        let home = RequestPath::parse("/");
        let routed = home.as_ref().is_some_and(|home| served.app.routes.find(home).is_some())
            || !served.app.routes.guards("index.html", None).is_empty();
        if let Some((_, file)) = index.filter(|_| served.site.redirects.is_empty() && !routed)
            && (!status.is_success() || file.sha256 != BlobHash::of(&body.to_bytes()))
        {
            return Err(refuse(format!("/ answered with status {status} and not with index.html")));
        }
        Ok(())
    }

    async fn get(&self, host: &str) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let socket = if self.addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(self.addr.ip(), 0))?;
        let ours = self.own.is(socket.local_addr()?);
        let stream = socket.connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            let _ours = ours;
            connection.await
        });
        let request = Request::get("/").header(http::header::HOST, host).body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("the new release does not answer at its address: {why}"))
        .hint("nothing has changed; look at logs_query, then try again")
}
