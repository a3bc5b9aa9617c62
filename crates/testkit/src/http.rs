//! HTTP/1.1 to loopback, as little as readiness and WebDriver need, so that engines bring no client library along.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};

const LIMIT: Duration = Duration::from_secs(120);

/// A response's status and body.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as sent.
    pub body: Vec<u8>,
}

/// Sends one request to `authority` (`host:port`) on a connection of its own. An empty `body` sends none.
///
/// # Errors
/// Where nothing listens, where it does not answer in time, or where what it says is not HTTP.
pub fn exchange(authority: &str, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Response> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n");
    if !body.is_empty() {
        request.push_str("content-type: application/json\r\n");
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream.write_all(&[request.as_bytes(), body].concat())?;
    read(BufReader::new(stream)).with_context(|| format!("{method} {path}"))
}

fn read(mut stream: impl BufRead) -> anyhow::Result<Response> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status line")?;
    let mut length = None;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            bail!("the headers end early");
        }
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = Some(value.trim().parse::<u64>()?);
            }
            Some(_) => {}
        }
    }
    let mut body = Vec::new();
    stream.take(length.unwrap_or(u64::MAX)).read_to_end(&mut body)?;
    Ok(Response { status, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_ends_a_body_and_the_connection_does_without_one() {
        let with = read(&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokmore"[..]).unwrap();
        assert_eq!((with.status, with.body.as_slice()), (200, &b"ok"[..]));
        let without = read(&b"HTTP/1.1 503 \r\n\r\nlater"[..]).unwrap();
        assert_eq!((without.status, without.body.as_slice()), (503, &b"later"[..]));
        assert!(read(&b"SSH-2.0-x\r\n"[..]).is_err());
    }
}
