//! Requests as a server reads them (HTTP/1.1, bodies with a length).

use std::io::BufRead;

use anyhow::Context;

/// A whole request.
pub struct Incoming {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub path: String,
    /// The headers, as they were written.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Incoming {
    /// The next request of a connection; `None` at its end.
    pub fn read(stream: &mut impl BufRead) -> anyhow::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (mut headers, mut length) = (Vec::new(), 0);
        loop {
            let mut header = String::new();
            stream.read_line(&mut header)?;
            let Some((name, value)) = header.split_once(':') else { break };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().context("content-length")?;
            }
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(Some(Self { method, path, headers, body }))
    }
}
