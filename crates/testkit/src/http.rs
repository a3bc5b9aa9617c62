//! HTTP/1.1 to loopback: one request, one connection, whole answers; names below `localhost` need no resolver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// A request that is being put together; [`Request::send`] sends it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    method: String,
    authority: String,
    address: Option<String>,
    source: Option<IpAddr>,
    path: String,
    headers: Vec<(String, String)>,
    /// Headers that are no text.
    raw: Vec<u8>,
    body: Vec<u8>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers in the order of arrival, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks put together; a content coding is left as it is.
    pub body: Vec<u8>,
}

impl Request {
    /// A request of `method` for an `http://` address, or an `https://` one for [`crate::Https::send`]. The path goes out as it is written, unsafe ones too.
    pub fn new(method: &str, url: &str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (method, authority) = (method.to_owned(), authority.to_owned());
        let (headers, raw, body) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, authority, address: None, source: None, path, headers, raw, body }
    }

    /// A GET request.
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// A POST request.
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
    }

    /// Connects to `address` (`host:port`) whatever the URL's host is; that one still goes into `Host`.
    pub fn via(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// Connects from another address of this machine.
    pub fn from(mut self, source: IpAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Adds a header. `host` replaces the URL's.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a header whose value need not be text.
    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.raw.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        self
    }

    /// Adds a bearer credential.
    pub fn bearer(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and its content type.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sends it and reads the answer to its end.
    ///
    /// # Errors
    /// Where nothing listens, where it does not answer in time, or where what it says is not HTTP.
    pub fn send(self) -> anyhow::Result<Response> {
        self.exchange().with_context(|| format!("{} http://{}{}", self.method, self.authority, self.path))
    }

    fn exchange(&self) -> anyhow::Result<Response> {
        let address = self.address.clone().unwrap_or_else(|| loopback(&self.authority));
        match self.source {
            Some(source) => self.over(connect_from(source, &address)?),
            None => self.over(connect(&address)?),
        }
    }

    /// The exchange over a stream that is there.
    pub(crate) fn over(&self, mut stream: impl Read + Write) -> anyhow::Result<Response> {
        let mut head = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        let given = |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        if !given("host") {
            head.push_str(&format!("host: {}\r\n", self.authority));
        }
        if !given("content-length") && (!self.body.is_empty() || self.method != "GET") {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(&[head.as_bytes(), &self.raw, b"\r\n"].concat())?;
        // A server that refuses a body may answer and close before it has read all of it.
        let sent = stream.write_all(&self.body);
        read(BufReader::new(stream), &self.method).or_else(|error| sent.map_err(Into::into).and(Err(error)))
    }
}

impl Response {
    /// The first header of this name, any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    ///
    /// # Errors
    /// Where it is not UTF-8.
    pub fn text(&self) -> anyhow::Result<&str> {
        Ok(std::str::from_utf8(&self.body)?)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// Where it is not JSON, with its beginning.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| {
            let start = &self.body[..self.body.len().min(200)];
            format!("status {} and no JSON: {}", self.status, String::from_utf8_lossy(start))
        })
    }
}

/// A connection that does not wait for ever.
pub(crate) fn connect(address: &str) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn connect_from(source: IpAddr, address: &str) -> anyhow::Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::new(source, 0))?;
    connect(&socket, &address.parse::<SocketAddr>()?)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Where a name leads: every name below `localhost` to this machine (RFC 6761 §6.3), whatever its resolver says.
fn loopback(authority: &str) -> String {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (authority, "80"),
    };
    let here = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    format!("{}:{port}", if here { "127.0.0.1" } else { host })
}

fn read(mut stream: impl BufRead, method: &str) -> anyhow::Result<Response> {
    loop {
        let mut response = read_head(&mut stream)?;
        match response.status {
            100..=199 => continue,
            204 | 304 => {}
            _ if method == "HEAD" => {}
            _ => response.body = read_body(stream, &response)?,
        }
        return Ok(response);
    }
}

fn read_head(stream: &mut impl BufRead) -> anyhow::Result<Response> {
    let line = read_line(stream)?;
    ensure!(line.starts_with("HTTP/1."), "not a status line: {line:?}");
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok(Response { status, headers, body: Vec::new() });
        }
        let (name, value) = line.split_once(':').with_context(|| format!("not a header: {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(mut stream: impl BufRead, head: &Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = read_line(&mut stream)?;
            let length = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            if length == 0 {
                return Ok(body);
            }
            read_exactly(&mut stream, length, &mut body)?;
            read_line(&mut stream)?;
        }
    }
    match head.header("content-length") {
        Some(length) => read_exactly(&mut stream, length.parse()?, &mut body)?,
        None => drop(stream.read_to_end(&mut body)?),
    }
    Ok(body)
}

fn read_exactly(stream: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> anyhow::Result<()> {
    let read = stream.take(length).read_to_end(body)?;
    ensure!(u64::try_from(read)? == length, "the body ends after {read} of {length} bytes");
    Ok(())
}

fn read_line(stream: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        bail!("the connection was closed in the middle of an answer");
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, status: u16, body: &str) {
        let response = read(answer.as_bytes(), "GET").unwrap();
        assert_eq!((response.status, response.text().unwrap()), (status, body));
    }

    #[test]
    fn a_body_ends_with_its_length_its_last_chunk_or_the_connection() {
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore", 200, "ok");
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n",
            200,
            "abcd",
        );
        check("HTTP/1.1 503 \r\n\r\nlater", 503, "later");
        check("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, "");
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_error() {
        for answer in [
            "",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\nContent-Len",
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        ] {
            assert!(read(answer.as_bytes(), "GET").is_err(), "{answer:?}");
        }
    }

    #[test]
    fn names_below_localhost_lead_to_this_machine() {
        assert_eq!(loopback("notes.localhost:8787"), "127.0.0.1:8787");
        assert_eq!(loopback("LOCALHOST"), "127.0.0.1:80");
        assert_eq!(loopback("[::1]:8080"), "[::1]:8080");
        assert_eq!(loopback("[::1]"), "[::1]:80");
        assert_eq!(loopback("notlocalhost:80"), "notlocalhost:80");
    }

    #[test]
    fn the_host_header_is_the_urls_and_the_path_is_sent_as_written() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = Vec::new();
            while let Ok(line) = read_line(&mut stream) {
                if line.is_empty() {
                    break;
                }
                head.push(line);
            }
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            head
        });
        let response = Request::get("http://app.example/../a?b=c").via(&address).bearer("k").send().unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(
            server.join().unwrap(),
            ["GET /../a?b=c HTTP/1.1", "connection: close", "host: app.example", "authorization: Bearer k"]
        );
    }
}
