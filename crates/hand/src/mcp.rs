//! `hand mcp`: an MCP server on stdin and stdout (MCP §Transports, stdio) whose tools are those of the run token, called
//! through the sandbox's bridge.

use std::error::Error;
use std::io::{self, BufRead, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Where the bridge is.
const SOCKET: &str = "/run/steading/bridge.sock";
/// Where the run token is, which its holder renews.
const TOKEN: &str = "/run/steading/token";

/// The most bytes of one message to the bridge.
const MESSAGE: usize = 1 << 20;
/// The most bytes of an answer.
const ANSWER: u64 = 64 << 20;

/// What is not JSON, and what failed on its way (JSON-RPC 2.0 §5.1).
const PARSE_ERROR: i64 = -32_700;
const SERVER_ERROR: i64 = -32_000;

/// Serves stdin and stdout until stdin ends.
///
/// # Errors
/// Where stdin or stdout breaks.
pub fn main() -> Result<(), Box<dyn Error>> {
    let bridge = Bridge { socket: SOCKET.into(), token: TOKEN.into() };
    Ok(bridge.serve(io::stdin().lock(), io::stdout().lock())?)
}

/// The way to the tools.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// The bridge's socket.
    pub socket: PathBuf,
    /// The file with the run token.
    pub token: PathBuf,
}

/// What of a message has to be known here.
#[derive(Deserialize)]
struct Envelope<'a> {
    /// What its answer names; a message without one has none.
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
}

/// What the bridge says to one message.
struct Said {
    status: u16,
    body: Vec<u8>,
}

/// A reason in words, for whoever calls tools.
type Reason = String;

impl Bridge {
    /// Passes each line of `input` on as one message, and writes what comes back on `output`, a line for each, in order.
    ///
    /// # Errors
    /// Where `input` or `output` breaks.
    pub fn serve(&self, mut input: impl BufRead, mut output: impl Write) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            let read = (&mut input).take(MESSAGE as u64 + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            let answer = if line.len() > MESSAGE && !line.ends_with(b"\n") {
                skip_line(&mut input)?;
                Some(error("null", PARSE_ERROR, &format!("the message is larger than {MESSAGE} bytes")))
            } else if line.trim_ascii().is_empty() {
                None
            } else {
                self.answer(line.trim_ascii())
            };
            if let Some(answer) = answer {
                output.write_all(answer.as_bytes())?;
                output.write_all(b"\n")?;
                output.flush()?;
            }
        }
    }

    /// The line that answers a message; none where it wants none.
    fn answer(&self, message: &[u8]) -> Option<String> {
        let envelope = match message {
            [b'{', ..] => {
                serde_json::from_slice::<Envelope<'_>>(message).map_err(|reason| reason.to_string())
            }
            _ => Err("one JSON object is expected".to_owned()),
        };
        let id = match envelope {
            Ok(envelope) => envelope.id.map(RawValue::get),
            Err(reason) => {
                return Some(error(
                    "null",
                    PARSE_ERROR,
                    &format!("the line is no JSON-RPC message: {reason}"),
                ));
            }
        };
        let said = self.ask(message);
        // A notification has no answer, a failed one neither (JSON-RPC 2.0 §4.1).
        let id = id?;
        Some(match said.and_then(|said| read(&said)) {
            Ok(answer) => answer,
            Err(reason) => error(id, SERVER_ERROR, &reason),
        })
    }

    /// What the bridge says, with the token that is there now; where that was just renewed, with the new one.
    fn ask(&self, message: &[u8]) -> Result<Said, Reason> {
        let token = self.token()?;
        let said = self.post(&token, message)?;
        if said.status != 401 {
            return Ok(said);
        }
        let renewed = self.token()?;
        if renewed == token { Ok(said) } else { self.post(&renewed, message) }
    }

    fn token(&self) -> Result<String, Reason> {
        let token = std::fs::read_to_string(&self.token)
            .map_err(|_| "there is no run token: tools can be called while a run is active".to_owned())?;
        let token = token.trim().to_owned();
        // Anything else would be more than one field of the request's head.
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the run token is none".to_owned());
        }
        Ok(token)
    }

    fn post(&self, token: &str, message: &[u8]) -> Result<Said, Reason> {
        let asked = || -> io::Result<Said> {
            let mut stream = UnixStream::connect(&self.socket)?;
            let head = format!(
                "POST /mcp HTTP/1.1\r\nhost: bridge\r\nauthorization: Bearer {token}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                message.len()
            );
            stream.write_all(head.as_bytes())?;
            // A bridge that refuses may answer and close before it has read all.
            let sent = stream.write_all(message);
            let mut answer = Vec::new();
            let read = stream.take(ANSWER).read_to_end(&mut answer);
            parse(&answer).ok_or_else(|| {
                sent.err().or(read.err()).unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
            })
        };
        asked().map_err(|error| format!("the bridge to the platform does not answer: {error}"))
    }
}

/// The answer that a response carries, on one line.
fn read(said: &Said) -> Result<String, Reason> {
    if said.status == 200 {
        // It may be written over many lines.
        let value: Box<RawValue> =
            serde_json::from_slice(&said.body).map_err(|_| "the bridge answers with no JSON".to_owned())?;
        return if value.get().contains('\n') {
            serde_json::from_str::<Value>(value.get())
                .map(|value| value.to_string())
                .map_err(|_| "the bridge answers with no JSON".to_owned())
        } else {
            Ok(value.get().to_owned())
        };
    }
    let problem: Value = serde_json::from_slice(&said.body).unwrap_or_default();
    let word = |name: &str| problem[name].as_str().map(str::to_owned);
    let message =
        word("message").unwrap_or_else(|| format!("the bridge answers with status {}", said.status));
    Err(word("hint").map_or(message.clone(), |hint| format!("{message}; {hint}")))
}

/// The line of an error; `id` is JSON.
fn error(id: &str, code: i64, message: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{}}}", json!({ "code": code, "message": message }))
}

/// Status and body of a whole response; none where it is not one.
fn parse(answer: &[u8]) -> Option<Said> {
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length: usize = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0);
    let body = answer.get(end + 4..)?.get(..length)?;
    Some(Said { status, body: body.to_vec() })
}

/// Reads to the end of the line and throws it away.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let held = input.fill_buf()?;
        let end = held.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(held.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() || used == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;

    /// A bridge that gives these answers in turn and returns the requests, and a directory with its socket and a token.
    fn bridge(answers: Vec<String>) -> (tempfile::TempDir, Bridge, JoinHandle<Vec<String>>) {
        let directory = tempfile::tempdir().unwrap();
        let bridge =
            Bridge { socket: directory.path().join("bridge.sock"), token: directory.path().join("token") };
        std::fs::write(&bridge.token, "one\n").unwrap();
        let listener = UnixListener::bind(&bridge.socket).unwrap();
        let token = bridge.token.clone();
        let serving = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|answer| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut request = Vec::new();
                    let mut byte = [0; 1];
                    while parse_request(&request).is_none() {
                        stream.read_exact(&mut byte).unwrap();
                        request.push(byte[0]);
                    }
                    std::fs::write(&token, "two\n").unwrap();
                    stream.write_all(answer.as_bytes()).unwrap();
                    parse_request(&request).unwrap()
                })
                .collect()
        });
        (directory, bridge, serving)
    }

    /// `token body` of a whole request.
    fn parse_request(bytes: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        assert!(head.starts_with("POST /mcp HTTP/1.1\r\nhost: bridge\r\n"), "{head}");
        let length: usize = field("content-length: ")?.parse().ok()?;
        (body.len() == length).then(|| format!("{} {body}", field("authorization: Bearer ").unwrap()))
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn check(input: &str, answers: Vec<String>, asked: &[&str], said: &str) {
        let (_directory, bridge, serving) = bridge(answers);
        let mut output = Vec::new();
        bridge.serve(input.as_bytes(), &mut output).unwrap();
        assert_eq!(serving.join().unwrap(), asked);
        assert_eq!(String::from_utf8(output).unwrap(), said);
    }

    #[test]
    fn messages_go_out_and_answers_come_back_in_order() {
        check(
            "{\"id\":1}\n\n  {\"id\":\"b\"}  \r\n{\"method\":\"note\"}\n{\"id\":2}",
            vec![
                answer("200 OK", "{\"id\":1,\n \"result\":{}}"),
                answer("200 OK", "{\"id\":\"b\"}"),
                answer("202 Accepted", ""),
                answer("200 OK", "{\"id\":2}"),
            ],
            &["one {\"id\":1}", "two {\"id\":\"b\"}", "two {\"method\":\"note\"}", "two {\"id\":2}"],
            "{\"id\":1,\"result\":{}}\n{\"id\":\"b\"}\n{\"id\":2}\n",
        );
    }

    #[test]
    fn a_token_that_was_just_renewed_is_read_again_once() {
        let refused =
            answer("401 Unauthorized", "{\"message\":\"the run token is not valid\",\"hint\":\"wait\"}");
        check(
            "{\"id\":1}\n",
            vec![refused.clone(), answer("200 OK", "{}")],
            &["one {\"id\":1}", "two {\"id\":1}"],
            "{}\n",
        );
        check(
            "{\"id\":1}\n{\"method\":\"note\"}\n",
            vec![refused.clone(), refused.clone(), refused],
            &["one {\"id\":1}", "two {\"id\":1}", "two {\"method\":\"note\"}"],
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,\"message\":\"the run token is not valid; wait\"}}\n",
        );
    }

    #[test]
    fn what_goes_wrong_is_an_answer() {
        let (directory, bridge, serving) =
            bridge(vec!["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}".to_owned()]);
        let said = |input: &str| {
            let mut output = Vec::new();
            bridge.serve(input.as_bytes(), &mut output).unwrap();
            String::from_utf8(output).unwrap()
        };
        assert!(
            said("{\"id\":7}\n")
                .contains("\"id\":7,\"error\":{\"code\":-32000,\"message\":\"the bridge to the")
        );
        serving.join().unwrap();
        assert!(said("{\"id\":7}\n").contains("the bridge to the platform does not answer"));
        for bad in ["nonsense\n", "[1]\n", "{\"id\":1}{\n"] {
            assert!(
                said(bad).starts_with("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,"),
                "{bad}"
            );
        }
        let long = format!("{{\"id\":1,\"x\":\"{}\"}}\nnonsense\n", "x".repeat(MESSAGE));
        assert_eq!(said(&long).matches("\"id\":null").count(), 2);
        for token in ["", "a\r\nx: b", "a b"] {
            std::fs::write(&bridge.token, token).unwrap();
            assert!(said("{\"id\":7}\n").contains("the run token is none"), "{token:?}");
        }
        std::fs::remove_file(&bridge.token).unwrap();
        assert!(said("{\"id\":7}\n").contains("there is no run token"));
        drop(directory);
    }
}
