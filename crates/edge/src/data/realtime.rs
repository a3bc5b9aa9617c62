//! What happens, at once: as server-sent events, and over WebSockets. Tickets for pages that can send no header.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use capabilities::realtime::{Broadcast, Connection, Frame, Join, Subscribe};
use futures::{StreamExt as _, stream};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use kernel::{Code, Error, Result};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::rows::pairs;
use super::{Ask, Data, json as answer_json, realtime_socket, unknown};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Cuts the network connection that a request came over. A client that reads nothing is not told that it is cut, and
/// would hold what was sent last for ever.
#[derive(Debug, Clone, Default)]
pub struct Hangup(pub CancellationToken);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Answers for `/_/realtime` and what is below it.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    match (&ask.parts.method, ask.path().as_slice()) {
        (&Method::GET, [_]) if is_upgrade(ask.parts) => realtime_socket::answer(data, ask).await,
        (&Method::GET, [_]) => events(data, ask).await,
        (&Method::POST, [_, "ticket"]) => {
            ask.guest(data).await?;
            let Nothing {} = ask.json(body).await?;
            let origin = ask.parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
            let ticket = data.realtime.ticket(ask.env, ask.peer(), origin, ask.token()?.as_ref()).await?;
            let expires_in = data.realtime.limits().ticket.as_secs();
            Ok(answer_json(
                StatusCode::CREATED,
                &json!({ "ticket": ticket.expose(), "expires_in": expires_in }),
            ))
        }
        (&Method::POST, [_, "broadcast"]) => {
            ask.guest(data).await?;
            let message: Broadcast = ask.json(body).await?;
            // Who has sent it when all of it is here.
            let guest = ask.guest(data).await?;
            let told = data.realtime.broadcast(&guest, &message).await?;
            Ok(answer_json(StatusCode::OK, &json!({ "told": told })))
        }
        (_, [_]) => Ok(ask.only("GET")),
        (_, [_, "ticket" | "broadcast"]) => Ok(ask.only("POST")),
        _ => Err(unknown()),
    }
}

/// Whether a request is to become a WebSocket (RFC 6455 §4.1).
pub(crate) fn is_upgrade(parts: &Parts) -> bool {
    let upgrade = parts.headers.get(UPGRADE).and_then(|upgrade| upgrade.to_str().ok());
    upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))
}

/// Whether a request shows who it is in another way than by headers: a page cannot set those for events and sockets.
pub(super) fn shows_later(parts: &Parts) -> bool {
    let tickets = || pairs(parts.uri.query()).unwrap_or_default().iter().any(|(name, _)| name == "ticket");
    parts.method == Method::GET && parts.uri.path() == "/_/realtime" && (is_upgrade(parts) || tickets())
}

/// What the query of a stream asks for.
#[derive(Default)]
struct Asked {
    subscribe: Vec<Subscribe>,
    channels: Vec<String>,
    ticket: Option<String>,
    after: Option<String>,
}

impl Asked {
    fn read(parts: &Parts) -> Result<Self> {
        let mut asked = Self::default();
        for (name, value) in pairs(parts.uri.query())? {
            let twice = match name.as_str() {
                "subscribe" => {
                    asked.subscribe.push(subscription(&value, asked.subscribe.len())?);
                    false
                }
                "channel" => {
                    asked.channels.push(value);
                    false
                }
                "ticket" => asked.ticket.replace(value).is_some(),
                "after" => asked.after.replace(value).is_some(),
                _ => {
                    let name: String = name.chars().take(64).collect();
                    return Err(Error::new(
                        Code::InvalidInput,
                        format!("there is no query parameter {name:?} here"),
                    )
                    .hint("a stream takes subscribe, channel, ticket and after"));
                }
            };
            if twice {
                return Err(Error::invalid(format!("/{name}"), format!("{name} is given twice")));
            }
        }
        // What a browser says by itself is newer than what the page has put into the address.
        let last = parts.headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok());
        let after = last.map(str::to_owned).or(asked.after.take());
        for one in &mut asked.subscribe {
            one.after.clone_from(&after);
        }
        if asked.subscribe.is_empty() && asked.channels.is_empty() {
            return Err(Error::invalid("/subscribe", "nothing is asked for")
                .hint("name a table, ?subscribe=todos, or send an object: {\"table\": \"todos\", \"where\": \"done == false\"}"));
        }
        Ok(asked)
    }
}

/// A table's name, or an object.
fn subscription(text: &str, index: usize) -> Result<Subscribe> {
    if !text.trim_start().starts_with('{') {
        let table = text.to_owned();
        return Ok(Subscribe { table, sub: None, filter: None, select: None, after: None });
    }
    let at = || format!("/subscribe/{index}");
    let wanted: Subscribe = serde_json::from_str(text).map_err(|error| {
        let words: String = error.to_string().chars().take(200).collect();
        Error::invalid(at(), words).hint("write {\"table\": \"todos\", \"where\": \"done == false\"}")
    })?;
    if wanted.after.is_some() {
        return Err(Error::invalid(at(), "a stream goes on from one place: send Last-Event-ID, or ?after=…"));
    }
    Ok(wanted)
}

async fn events(data: &Data, ask: &Ask<'_>) -> Result<Response> {
    let asked = Asked::read(ask.parts)?;
    let token = match &asked.ticket {
        Some(_) if ask.token()?.is_some() => {
            return Err(Error::invalid("/ticket", "send a ticket or an Authorization header, not both"));
        }
        Some(ticket) => {
            let origin = ask.parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
            data.realtime.redeem(ask.env, origin, ticket)?
        }
        None => {
            ask.guest(data).await?;
            ask.token()?
        }
    };
    let mut connection = data.realtime.connect(ask.env, data.realtime.seat(ask.peer())?, token).await?;
    if !asked.subscribe.is_empty() {
        connection.subscribe(&asked.subscribe).await.map_err(|error| error.under("/subscribe"))?;
    }
    for channel in asked.channels {
        connection.join(Join { channel, state: None }).await?;
    }
    let mut response = Response::new(Body::from_stream(told(data, ask, connection)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    Ok(response)
}

/// What is told, as a body.
fn told(
    data: &Data,
    ask: &Ask<'_>,
    connection: Connection,
) -> impl stream::Stream<Item = Result<Bytes, Infallible>> + use<> {
    let sent = CancellationToken::new();
    let hangup = ask.parts.extensions.get::<Hangup>().cloned();
    let (ended, patience) = (connection.ended(), connection.limits().write);
    let is_sent = sent.clone();
    data.realtime.spawn(async move {
        tokio::select! {
            () = is_sent.cancelled() => return,
            () = ended.cancelled() => {}
        }
        if tokio::time::timeout(patience, is_sent.cancelled()).await.is_err()
            && let Some(Hangup(hangup)) = hangup
        {
            hangup.cancel();
        }
    });
    // How long a browser waits until it connects again.
    let first = stream::once(async { Ok(Bytes::from_static(b"retry: 1000\n\n")) });
    let frames = stream::unfold((connection, sent.drop_guard()), |(mut connection, sent)| async move {
        let frame = connection.next().await?;
        Some((Ok(block(&frame)), (connection, sent)))
    });
    first.chain(frames)
}

/// A message as an event (HTML §9.2.6). One without data only says where to go on from.
fn block(frame: &Frame) -> Bytes {
    let mut text = String::with_capacity(frame.json.len() + 80);
    if let Some(at) = &frame.at {
        text.push_str("id: ");
        text.push_str(at);
        text.push('\n');
    }
    if frame.json.is_empty() {
        text.push_str(":\n\n");
    } else {
        // JSON as it is written here has no line ends.
        text.push_str("data: ");
        text.push_str(&frame.json);
        text.push_str("\n\n");
    }
    text.into()
}

/// How long a client that is told to go may take to hear it.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
