//! Answers to `HEAD` over HTTP/2, where the server of HTTP takes no body away by itself.

use std::io::{Read, Write};

use anyhow::{Context as _, ensure};
use conformance_tests::Place;
use serde_json::json;

/// The frames that answer one request over HTTP/2, until one says that it is the last: kind, flags, payload.
pub fn frames(stream: &mut impl Io, header: &[u8]) -> anyhow::Result<Vec<(u8, u8, Vec<u8>)>> {
    // The preface, empty settings, and the request, whose head and body end (RFC 9113 §3.4).
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0".to_vec();
    sent.extend([u8::try_from(header.len())?, 1, 5, 0, 0, 0, 1]);
    sent.extend(header);
    stream.write_all(&sent)?;
    let mut all = Vec::new();
    loop {
        let mut frame = [0; 9];
        stream.read_exact(&mut frame)?;
        let mut payload =
            vec![0; usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2])];
        stream.read_exact(&mut payload)?;
        let is_answer = matches!(frame[3], 0 | 1);
        all.push((frame[3], frame[4], payload));
        if is_answer && frame[4] & 1 == 1 {
            return Ok(all);
        }
    }
}

pub trait Io: Read + Write {}
impl<T: Read + Write> Io for T {}

#[test]
fn an_answer_to_head_over_http_2_has_no_body() -> anyhow::Result<()> {
    let place = Place::new("shop")?;
    place.output("app_apply", &json!({ "manifest": { "site": { "files": { "index.html": "home" } } } }))?;
    let port = place.url.trim_end_matches('/').rsplit(':').next().context("a port")?;
    // An app's page, nobody's preview, an app of nobody, and the platform.
    for host in ["shop.localhost", "3000-nobody.preview.localhost", "nobody.localhost", "localhost"] {
        for (method, has_body) in [("GET", true), ("HEAD", false)] {
            let authority = format!("{host}:{port}");
            // Literals without indexing, of the names that are 2 and 1 in the table (RFC 7541 §6.2.2), and `http`, `/`.
            let mut header = vec![0x02, u8::try_from(method.len())?];
            header.extend(method.as_bytes());
            header.extend([0x86, 0x84, 0x01, u8::try_from(authority.len())?]);
            header.extend(authority.as_bytes());
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port.parse::<u16>()?))?;
            let answered = frames(&mut stream, &header)?;
            let bytes: usize = answered.iter().filter(|(kind, ..)| *kind == 0).map(|(.., it)| it.len()).sum();
            ensure!((bytes > 0) == has_body, "{method} {host}: {bytes} bytes");
            let of_head = answered.iter().filter(|(kind, ..)| *kind == 0).count();
            ensure!(has_body || of_head == 0, "{host}: {of_head} frames of a body");
        }
    }
    Ok(())
}
