//! Realtime over a WebSocket (RFC 6455): who it is in the first message, then one JSON object in each.

use std::time::Duration;

use axum::extract::FromRequestParts as _;
use axum::extract::ws::{CloseFrame, Message as Raw, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use capabilities::realtime::{Connection, End, Frame, Message, Seat};
use capabilities::rows::Mfa;
use http::request::Parts;
use kernel::{CallId, Code, Env, Error, Result, Secret};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::realtime::LAST_WORDS;
use super::{Ask, Data, not_of_a_page, origin};

pub(super) async fn answer(data: &Data, ask: &Ask<'_>) -> Result<Response> {
    ask.no_query()?;
    if ask.token()?.is_some() {
        return Err(Error::new(Code::InvalidInput, "a WebSocket shows its token in the first message")
            .hint("send {\"type\": \"hello\", \"token\": …} once it is open"));
    }
    let mut parts = ask.parts.clone();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade
        .map_err(|rejection| Error::new(Code::InvalidInput, format!("this is no WebSocket: {rejection}")))?;
    let limits = data.realtime.limits();
    let seat = data.realtime.seat(ask.peer())?;
    let talk = Talk { data: data.clone(), env: ask.env.clone(), parts: ask.parts.clone(), id: ask.id };
    // A message that is somewhat too long is read whole all the same: a connection that is closed over bytes that nobody has
    // read is reset, and takes along the reason that was said.
    let size = 4 * limits.message_bytes;
    let realtime = data.realtime.clone();
    Ok(upgrade.max_message_size(size).max_frame_size(size).on_upgrade(move |socket| async move {
        realtime.spawn(talk.run(socket, seat));
    }))
}

/// How long the peer may take to read why it is closed.
const READING: Duration = Duration::from_millis(500);

/// What a socket is about.
struct Talk {
    data: Data,
    env: Env,
    parts: Parts,
    id: CallId,
}

impl Talk {
    async fn run(self, mut socket: WebSocket, seat: Seat) {
        let stopping = self.data.realtime.stopping();
        let greeted = tokio::select! {
            () = stopping.cancelled() => return close(&mut socket, close_code::AWAY, End::Stopping.as_str()).await,
            greeted = timeout(self.data.realtime.limits().hello, self.greeted(&mut socket)) => greeted,
        };
        let connected = match greeted {
            Err(_) => Err(Error::new(Code::Timeout, "nothing was said")),
            Ok(None) => return,
            Ok(Some(Err(error))) => Err(error),
            Ok(Some(Ok(token))) => self.data.realtime.connect(&self.env, seat, token).await,
        };
        match connected {
            Ok(connection) => self.talk(socket, connection).await,
            Err(error) => {
                if error.code() == Code::Internal {
                    tracing::error!(call.id = %self.id, env.id = %self.env.id(), error = error.chain(), "a socket failed");
                }
                let mut problem = error.problem(&self.id.to_string());
                problem["type"] = "error".into();
                let _ = send(&mut socket, Raw::text(problem.to_string()), LAST_WORDS).await;
                close(&mut socket, close_code::POLICY, error.code().as_str()).await;
            }
        }
    }

    /// The token of the first message; none where the socket is closed before it.
    async fn greeted(&self, socket: &mut WebSocket) -> Option<Result<Option<Secret>>> {
        loop {
            match socket.recv().await? {
                Ok(Raw::Text(text)) if text.len() <= self.data.realtime.limits().message_bytes => {
                    return Some(self.admitted(&text).await);
                }
                Ok(Raw::Ping(_) | Raw::Pong(_)) => {}
                Ok(Raw::Close(_)) => return None,
                Ok(Raw::Text(_) | Raw::Binary(_)) | Err(_) => return Some(Err(no_hello())),
            }
        }
    }

    async fn admitted(&self, text: &str) -> Result<Option<Secret>> {
        let Message::Hello { token, key } = Message::parse(text)? else { return Err(no_hello()) };
        if origin::is_anothers(&self.parts) {
            let own = self.data.auth.publishable_key(&self.env).await?;
            if key.as_deref() != Some(own.as_str()) {
                return Err(origin::no_key());
            }
        }
        if let Some(token) = &token {
            // Whether the session is let in is asked where it connects.
            not_of_a_page(&self.parts, &self.data.auth.recognize(&self.env, Mfa::Off, token).await?)?;
        }
        Ok(token)
    }

    async fn talk(&self, mut socket: WebSocket, mut connection: Connection) {
        let limits = connection.limits().clone();
        let ready = Raw::text(json!({ "type": "ready" }).to_string());
        if send(&mut socket, ready, limits.write).await.is_err() {
            return;
        }
        let mut beat = interval(limits.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut last = None;
        loop {
            tokio::select! {
                biased;
                frame = connection.next() => match frame {
                    Some(frame) => {
                        last = Some(frame.json.clone());
                        if send(&mut socket, text(frame), limits.write).await.is_err() {
                            return;
                        }
                    }
                    None => break,
                },
                message = socket.recv() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Raw::Text(text))) if text.len() <= limits.message_bytes => {
                            connection.hear_text(&text).await;
                        }
                        Some(Ok(Raw::Ping(_) | Raw::Pong(_))) => {}
                        Some(Ok(Raw::Text(_) | Raw::Binary(_)) | Err(_)) => connection.end(End::Protocol),
                        Some(Ok(Raw::Close(_))) | None => return,
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > limits.idle {
                        connection.end(End::Idle);
                    } else if send(&mut socket, Raw::Ping(Vec::new().into()), limits.write).await.is_err() {
                        return;
                    }
                }
            }
        }
        let reason = last.and_then(|last| serde_json::from_str::<serde_json::Value>(&last).ok());
        let reason = reason.and_then(|last| last["reason"].as_str().map(str::to_owned)).unwrap_or_default();
        let code = match reason.as_str() {
            "stopping" => close_code::AWAY,
            "slow_consumer" => close_code::AGAIN,
            "protocol" => close_code::PROTOCOL,
            _ => close_code::POLICY,
        };
        close(&mut socket, code, &reason).await;
    }
}

fn no_hello() -> Error {
    Error::new(Code::InvalidInput, "the first message says who it is")
        .hint("send {\"type\": \"hello\", \"token\": …}, without a token for a visitor")
}

fn text(frame: Frame) -> Raw {
    match (frame.json.is_empty(), frame.at) {
        (true, at) => Raw::text(json!({ "type": "beat", "at": at }).to_string()),
        (false, _) => Raw::text(&*frame.json),
    }
}

async fn send(socket: &mut WebSocket, message: Raw, within: Duration) -> Result<(), ()> {
    match timeout(within, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

async fn close(socket: &mut WebSocket, code: u16, reason: &str) {
    let frame = CloseFrame { code, reason: reason.to_owned().into() };
    let said = send(socket, Raw::Close(Some(frame)), LAST_WORDS).await;
    // Until the peer has read it, what else it sends is read too.
    let read = async { while let Some(Ok(_)) = socket.recv().await {} };
    if said.is_ok() {
        drop(timeout(READING, read).await);
    }
}
