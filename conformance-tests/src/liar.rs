//! A server that says what the server behind it says, but for one thing.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};

use testkit::http::Request;

use crate::incoming::Incoming;

/// Starts a proxy to `authority` that puts `lie` in place of `truth` in every answer, until the test process ends.
/// Gives its address, without a path.
///
/// # Errors
/// Where no port is free.
pub fn liar(authority: &str, truth: &'static str, lie: &'static str) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let authority = authority.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let authority = authority.clone();
            // A client that goes away in the middle has its own test to answer to.
            std::thread::spawn(move || drop(forward(stream, &authority, truth, lie)));
        }
    });
    Ok(url)
}

fn forward(stream: TcpStream, authority: &str, truth: &str, lie: &str) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(incoming) = Incoming::read(&mut stream)? {
        let mut request = Request::new(&incoming.method, &format!("http://{authority}{}", incoming.path));
        let own =
            |name: &str| ["host", "connection", "content-length"].contains(&name.to_lowercase().as_str());
        for (name, value) in incoming.headers.iter().filter(|(name, _)| !own(name)) {
            request = request.header(name, value);
        }
        let response = request.body(incoming.body).send()?;
        let body = response.text()?.replace(truth, lie);
        let kind = response.header("content-type").unwrap_or("text/plain");
        let (status, length) = (response.status, body.len());
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status} \r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
    }
    Ok(())
}
