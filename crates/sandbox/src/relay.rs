//! Passing an HTTP/1.1 message on: what is between two neighbours stays there, what is between the ends goes through.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

/// What goes wrong with a body on its way.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a message that is passed on.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The most bytes of a head, and of header fields in it.
pub(crate) const HEAD: usize = 64 << 10;
/// The most header fields.
pub(crate) const FIELDS: usize = 128;

/// A body that is whole.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A connection to a server, for one request after the other.
pub(crate) struct Upstream {
    sender: SendRequest<Body>,
    _driver: AbortOnDropHandle<()>,
}

/// Why there is no answer.
pub(crate) enum Failed {
    /// Nothing of the request was sent: it can go another way.
    Unsent(Box<Request<Body>>),
    /// It may have arrived.
    Broken(hyper::Error),
}

impl Upstream {
    /// Speaks HTTP over a stream.
    pub(crate) async fn over<S>(stream: S) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_buf_size(HEAD)
            .max_headers(FIELDS)
            .max_header_size(HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        // What ends it, the request that waits is told.
        let driver = tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Ok(Self { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    /// Whether another request may be tried over it.
    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Failed> {
        if self.sender.ready().await.is_err() {
            return Err(Failed::Unsent(Box::new(request)));
        }
        self.sender.try_send_request(request).await.map_err(|mut failed| match failed.take_message() {
            Some(request) => Failed::Unsent(Box::new(request)),
            None => Failed::Broken(failed.into_error()),
        })
    }
}

/// Takes out what concerns two neighbours alone (RFC 9110 §7.6.1), and returns the protocol that is asked for instead
/// of HTTP, if one is.
pub fn end_to_end(headers: &mut HeaderMap) -> Option<HeaderValue> {
    const BETWEEN_NEIGHBOURS: [HeaderName; 10] = [
        CONNECTION,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        EXPECT,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let protocol = headers.get(UPGRADE).filter(|_| named.contains(&UPGRADE)).cloned();
    // Whom the message is for and where it ends are between the ends, whatever a sender names.
    for name in named.iter().filter(|name| ![CONTENT_LENGTH, HOST].contains(name)).chain(&BETWEEN_NEIGHBOURS)
    {
        headers.remove(name);
    }
    protocol
}

/// Puts the wish for another protocol back, for the next neighbour.
pub fn ask_for(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// What both sides become where the answer is another protocol.
pub(crate) struct Switched {
    pub(crate) client: OnUpgrade,
    pub(crate) server: OnUpgrade,
}

impl Switched {
    /// Makes `response` the one to the client, and takes both sides out of it where the protocol changes. It changes only
    /// where that was asked for.
    pub(crate) fn of(
        response: &mut Response<Incoming>,
        asked: Option<OnUpgrade>,
    ) -> Result<Option<Self>, Unasked> {
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let server = switches.then(|| hyper::upgrade::on(&mut *response));
        let protocol = end_to_end(response.headers_mut());
        let Some(server) = server else { return Ok(None) };
        let client = asked.ok_or(Unasked)?;
        ask_for(response.headers_mut(), protocol.ok_or(Unasked)?);
        Ok(Some(Self { client, server }))
    }

    /// Carries bytes both ways until one side ends.
    pub(crate) async fn carry(self) {
        let (Ok(client), Ok(server)) = futures::join!(self.client, self.server) else { return };
        let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
        // Whichever side breaks off, both are closed.
        drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
    }
}

/// A server changed the protocol although nobody asked it to.
pub(crate) struct Unasked;

/// A body on its way, with whatever may go wrong with it.
pub(crate) fn passing<B>(body: B) -> Body
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        of.iter().map(pair).collect()
    }

    #[test]
    fn what_is_between_neighbours_stays_there() {
        let mut passed = headers(&[
            ("connection", "close, X-Own, content-length, host"),
            ("host", "a.test"),
            ("x-own", "a"),
            ("content-length", "3"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        assert_eq!(end_to_end(&mut passed), None);
        assert_eq!(passed, headers(&[("host", "a.test"), ("content-length", "3"), ("accept", "*/*")]));
    }

    #[test]
    fn a_wish_for_another_protocol_is_told() {
        let mut passed = headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]);
        let wish = end_to_end(&mut passed);
        assert_eq!((wish, passed.is_empty()), (Some(HeaderValue::from_static("websocket")), true));
        ask_for(&mut passed, HeaderValue::from_static("websocket"));
        assert_eq!(passed, headers(&[("connection", "upgrade"), ("upgrade", "websocket")]));
    }
}
