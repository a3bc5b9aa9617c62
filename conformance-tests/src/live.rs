//! What an app tells at once, as its clients hear it: server-sent events and WebSockets on real sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

use crate::app::{App, Person, Reply, encoded};

/// How long something may take to arrive; what only keeps a connection open is not it.
const LIMIT: Duration = Duration::from_secs(20);

/// A stream of server-sent events.
pub struct Events {
    from: BufReader<TcpStream>,
    chunk: usize,
    /// The id of the last event that had one.
    pub last: Option<String>,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id, where it has one.
    pub id: Option<String>,
    /// What it says.
    pub data: Value,
}

impl Person {
    /// Opens a stream of these subscriptions, from the place of an event on where one is named.
    ///
    /// # Errors
    /// With the answer, where it is none.
    pub fn events(&self, query: &str, last: Option<&str>) -> anyhow::Result<Events> {
        let mut head = Vec::new();
        if let Some(session) = &self.session {
            head.push(("authorization", format!("Bearer {}", session.access)));
        }
        if let Some(last) = last {
            head.push(("last-event-id", last.to_owned()));
        }
        Events::open(&self.app, query, &head)
            .and_then(|opened| opened.map_err(|reply| anyhow::anyhow!("no stream: {reply:?}")))
    }

    /// Opens a stream of subscriptions, each an object.
    ///
    /// # Errors
    /// As [`Person::events`].
    pub fn subscribed(&self, wanted: &[Value], last: Option<&str>) -> anyhow::Result<Events> {
        let query: Vec<String> =
            wanted.iter().map(|one| format!("subscribe={}", encoded(&one.to_string()))).collect();
        self.events(&query.join("&"), last)
    }

    /// Opens a WebSocket and says who it is.
    ///
    /// # Errors
    /// Where it is not taken.
    pub fn socket(&self) -> anyhow::Result<Socket> {
        let mut socket =
            Socket::open(&self.app, &[])?.map_err(|reply| anyhow::anyhow!("no socket: {reply:?}"))?;
        let token = self.session.as_ref().map(|session| session.access.clone());
        socket.say(&json!({ "type": "hello", "token": token }))?;
        let ready = socket.hear()?;
        ensure!(ready == json!({ "type": "ready" }), "not ready: {ready}");
        Ok(socket)
    }
}

impl Events {
    /// Opens a stream with these headers; the answer, where it is another.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn open(app: &App, query: &str, headers: &[(&str, String)]) -> anyhow::Result<Result<Self, Reply>> {
        let (mut stream, authority) = connected(app)?;
        let mut head = format!("GET /_/realtime?{query} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let mut from = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(from.read_line(&mut line)? > 0, "closed before an answer");
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_ascii_lowercase());
        }
        let status =
            lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok()).context("no status")?;
        let header = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if status != 200 {
            let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            from.read_exact(&mut body)?;
            let headers = lines.iter().filter_map(|line| line.split_once(": "));
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            return Ok(Err(Reply { status, headers, body }));
        }
        ensure!(header("content-type") == Some("text/event-stream"), "not a stream: {lines:?}");
        ensure!(header("transfer-encoding") == Some("chunked"), "not chunked: {lines:?}");
        Ok(Ok(Self { from, chunk: 0, last: None }))
    }

    /// The next event that says something; none at the end.
    ///
    /// # Errors
    /// Where nothing comes in time.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        let (start, mut id, mut data) = (Instant::now(), None, String::new());
        loop {
            ensure!(start.elapsed() < LIMIT, "nothing was said");
            let Some(line) = self.line()? else { return Ok(None) };
            if line.is_empty() {
                if id.is_some() {
                    self.last.clone_from(&id);
                }
                if !data.is_empty() {
                    return Ok(Some(Event { id, data: serde_json::from_str(&data)? }));
                }
                (id, data) = (None, String::new());
            } else if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data.push_str(text);
            }
        }
    }

    /// The next event, which there must be.
    ///
    /// # Errors
    /// Where there is none.
    pub fn event(&mut self) -> anyhow::Result<Value> {
        Ok(self.next_event()?.context("the stream has ended")?.data)
    }

    /// What comes until an event is as wanted, that one included.
    ///
    /// # Errors
    /// Where none is, until the end or in time.
    pub fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Vec<Value>> {
        let (start, mut found) = (Instant::now(), Vec::new());
        loop {
            let event = self.event().with_context(|| format!("after {found:?}"))?;
            let is_wanted = wanted(&event);
            found.push(event);
            if is_wanted {
                return Ok(found);
            }
            ensure!(start.elapsed() < LIMIT, "nothing of the kind came: {found:?}");
        }
    }

    fn line(&mut self) -> anyhow::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            if self.chunk == 0 {
                let mut size = String::new();
                if self.from.read_line(&mut size).context("nothing comes")? == 0 {
                    return Ok(None);
                }
                self.chunk =
                    usize::from_str_radix(size.trim_end(), 16).with_context(|| format!("{size:?}"))?;
                if self.chunk == 0 {
                    return Ok(None);
                }
            }
            let mut byte = [0];
            self.from.read_exact(&mut byte).context("cut")?;
            self.chunk -= 1;
            if self.chunk == 0 {
                let mut end = [0; 2];
                self.from.read_exact(&mut end).context("cut")?;
            }
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8(line)?));
            }
            line.push(byte[0]);
        }
    }

    /// The socket itself.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        self.from.get_ref()
    }
}

/// A WebSocket.
pub struct Socket(WebSocket<TcpStream>);

impl Socket {
    /// Opens one with these headers; the answer, where it is another.
    ///
    /// # Errors
    /// Where the app does not answer.
    pub fn open(app: &App, headers: &[(&str, &str)]) -> anyhow::Result<Result<Self, Reply>> {
        Self::open_at(app, "/_/realtime", headers)
    }

    /// Opens one at a path of the app's.
    ///
    /// # Errors
    /// As [`Socket::open`].
    pub fn open_at(app: &App, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Result<Self, Reply>> {
        let (stream, authority) = connected(app)?;
        let mut request = format!("ws://{authority}{path}").into_client_request()?;
        for (name, value) in headers {
            let name = tungstenite::http::HeaderName::from_bytes(name.as_bytes())?;
            request.headers_mut().insert(name, value.parse()?);
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Ok(Self(socket))),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                let body = answer.body().as_deref().and_then(|body| serde_json::from_slice(body).ok());
                let headers = answer.headers().iter();
                let headers = headers
                    .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
                let (status, headers) = (answer.status().as_u16(), headers.collect());
                Ok(Err(Reply { status, headers, body: body.unwrap_or_default() }))
            }
            Err(error) => bail!("no answer: {error}"),
        }
    }

    /// Says something.
    ///
    /// # Errors
    /// Where the socket is closed.
    pub fn say(&mut self, message: &Value) -> anyhow::Result<()> {
        self.say_text(&message.to_string())
    }

    /// Says all of these at once.
    ///
    /// # Errors
    /// Where the socket is closed.
    pub fn say_all(&mut self, messages: &[Value]) -> anyhow::Result<()> {
        for message in messages {
            self.0.write(Message::text(message.to_string()))?;
        }
        Ok(self.0.flush()?)
    }

    /// Says a text.
    ///
    /// # Errors
    /// Where the socket is closed.
    pub fn say_text(&mut self, text: &str) -> anyhow::Result<()> {
        Ok(self.0.send(Message::text(text))?)
    }

    /// The next message, which there must be; how far others are is left out.
    ///
    /// # Errors
    /// Where there is none in time.
    pub fn hear(&mut self) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            ensure!(start.elapsed() < LIMIT, "nothing was said");
            match self.0.read().context("nothing comes")? {
                Message::Text(text) => {
                    let message: Value = serde_json::from_str(&text)?;
                    if message["type"] != "beat" {
                        return Ok(message);
                    }
                }
                Message::Close(frame) => bail!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// How it is closed, after everything else is left out.
    ///
    /// # Errors
    /// Where it is not.
    pub fn closed(&mut self) -> anyhow::Result<(Vec<Value>, u16, String)> {
        let (start, mut before) = (Instant::now(), Vec::new());
        loop {
            ensure!(start.elapsed() < LIMIT, "not closed, after {before:?}");
            match self.0.read().context("not closed")? {
                Message::Close(Some(CloseFrame { code, reason })) => {
                    return Ok((before, code.into(), reason.to_string()));
                }
                Message::Close(None) => bail!("closed without a reason"),
                Message::Text(text) => before.push(serde_json::from_str(&text)?),
                _ => {}
            }
        }
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }
}

fn connected(app: &App) -> anyhow::Result<(TcpStream, String)> {
    let authority = app.url().trim_start_matches("http://").to_owned();
    let port = authority.rsplit_once(':').context("no port")?.1;
    let stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok((stream, authority))
}
