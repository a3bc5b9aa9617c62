//! Previews: any server inside a sandbox, shown at a host of its own.
//!
//! A request of a visitor goes over a stream that was dialled to the server's port. The server sees one `Host` on all
//! paths, HTTP and WebSocket alike, which is the visitor's; the visitor sees nothing that reaches beyond that host. What
//! lets visitors in ends here: the server sees neither passes nor the cookies that come of them.

mod headers;
mod labels;
mod pages;
mod passes;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version};
use http_body_util::BodyExt as _;
use kernel::{Code, Error};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

pub use crate::relay::{Body, BodyError};
pub use headers::{PLATFORM_COOKIES, holds_a_key, strip_cookies};
pub use labels::Labels;
pub use pages::{anothers, failed, moved, private, waking};
pub use passes::{Entry, onwards};

use crate::relay::{self, Failed, Switched, Upstream};

/// How long a server may take until it begins to answer: the first request of a dev server compiles.
const ANSWER: Duration = Duration::from_secs(120);

/// Whoever looks at a preview.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    /// Their address.
    pub address: IpAddr,
    /// How they reached the platform.
    pub scheme: Scheme,
}

/// How a visitor reached the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With it.
    Https,
}

/// Why a server's answer cannot be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The request names no host, or more than one.
    #[error("the request names no host, or more than one")]
    Host,
    /// What listens there does not speak HTTP/1.1, or broke off.
    #[error("what listens at this port did not answer with HTTP/1.1")]
    Broken,
    /// The command that is to listen there does not.
    #[error("the command of this port does not listen on it")]
    Silent,
    /// It takes too long.
    #[error("what listens at this port did not answer in time")]
    Slow,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let message = failure.to_string();
        match failure {
            Failure::Host => Self::new(Code::InvalidInput, message).hint("send one Host header"),
            Failure::Broken => Self::new(Code::Unavailable, message)
                .hint("look at the server's output in the sandbox, and that it serves plain HTTP"),
            Failure::Silent => Self::new(Code::Unavailable, message)
                .hint("open it once more with preview_open: that shows the last output of its command"),
            Failure::Slow => {
                Self::new(Code::Timeout, message).hint("look at the server's output in the sandbox")
            }
        }
    }
}

/// Passes a visitor's request on over `stream`, which leads to the server, and its answer back, both as they come.
/// Where both agree on another protocol, bytes are carried from then on until one side ends.
///
/// # Errors
/// Why there is no answer; [`failed`] shows it.
pub async fn forward<B, S>(
    mut request: Request<B>,
    stream: S,
    visitor: Visitor,
) -> Result<Response<Body>, Failure>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let asked = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let protocol = headers::to_server(&mut parts, visitor).ok_or(Failure::Host)?;
    let asked = protocol.is_some().then_some(asked);
    let path = parts.uri.path_and_query().map(|path| passes::without_pass(path.as_str()));
    let path = path.and_then(|path| PathAndQuery::try_from(path).ok());
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.version = Version::HTTP_11;
    if let Some(protocol) = protocol {
        relay::ask_for(&mut parts.headers, protocol);
    }
    let request = Request::from_parts(parts, relay::passing(body));

    let mut upstream = Upstream::over(stream).await.map_err(|_| Failure::Broken)?;
    let answer = timeout(ANSWER, upstream.send(request)).await.map_err(|_| Failure::Slow)?;
    let mut response = answer.map_err(|failed| match failed {
        Failed::Unsent(_) | Failed::Broken(_) => Failure::Broken,
    })?;
    let switched = Switched::of(&mut response, asked).map_err(|_| Failure::Broken)?;
    headers::to_visitor(response.headers_mut());
    if let Some(switched) = switched {
        tokio::spawn(switched.carry());
    }
    Ok(response.map(|body| {
        // The connection lasts as long as what comes over it.
        let whole = body.map_err(BodyError::from).map_frame(move |frame| {
            let _ = &upstream;
            frame
        });
        relay::passing(whole)
    }))
}

#[cfg(test)]
mod tests;
