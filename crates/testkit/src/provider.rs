//! A provider of a model, played by a test: it answers each request as it is told to, over real HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Turn {
    /// With a status, further headers, and JSON.
    Says(u16, Vec<(&'static str, String)>, Value),
    /// With events, cut into pieces of so many bytes, with a pause after each.
    Events(String, usize, Duration),
    /// The same, and the connection ends without an end of the answer.
    Torn(String),
    /// With events, and then nothing more, until whoever has asked is gone.
    Pauses(String),
    /// Not at all: the connection ends.
    Ends,
    /// Not at all, until whoever has asked is gone.
    Hangs,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Question {
    /// The request line and the headers.
    pub head: String,
    /// The body.
    pub body: Value,
}

/// A provider on a loopback port, until the test process ends.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its address, as whoever asks is configured with it.
    pub base_url: String,
    questions: Arc<Mutex<Vec<Question>>>,
    left: Arc<AtomicUsize>,
}

impl Provider {
    /// Starts one that does with each request, of that number, what `turn` says.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn start(turn: impl Fn(usize, &Question) -> Turn + Send + Sync + 'static) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let base_url = format!("http://{}/v1", listener.local_addr()?);
        let provider = Self { base_url, questions: Arc::default(), left: Arc::default() };
        let (turn, played) = (Arc::new(turn), provider.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (turn, played) = (Arc::clone(&turn), played.clone());
                // Who goes in the middle is counted.
                std::thread::spawn(move || {
                    if played.converse(stream, &*turn).is_err() {
                        played.left.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Ok(provider)
    }

    /// One that always does the same.
    ///
    /// # Errors
    /// Where no port is free.
    pub fn always(turn: Turn) -> anyhow::Result<Self> {
        Self::start(move |_, _| turn.clone())
    }

    /// Every request so far.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many have gone before they had their answer.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    fn converse(&self, stream: TcpStream, turn: &dyn Fn(usize, &Question) -> Turn) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            if let Some(said) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = said.trim().parse()?;
            }
            head.push_str(&line);
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let question = Question { head, body: serde_json::from_slice(&body)? };
        let number = {
            let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
            questions.push(question.clone());
            questions.len() - 1
        };
        let turn = turn(number, &question);
        let mut stream = reader.into_inner();
        match turn {
            Turn::Says(status, headers, body) => {
                let body = body.to_string();
                let headers: String =
                    headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                write!(
                    stream,
                    "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-type: application/json\r\n\
                     content-length: {}\r\n{headers}\r\n{body}",
                    body.len()
                )?;
            }
            Turn::Events(text, size, pause) => {
                begin(&mut stream)?;
                for piece in text.as_bytes().chunks(size.max(1)) {
                    chunk(&mut stream, piece)?;
                    std::thread::sleep(pause);
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
            Turn::Torn(text) => {
                begin(&mut stream)?;
                chunk(&mut stream, text.as_bytes())?;
            }
            Turn::Pauses(text) => {
                begin(&mut stream)?;
                chunk(&mut stream, text.as_bytes())?;
                gone(&mut stream)?;
            }
            Turn::Ends => {}
            Turn::Hangs => gone(&mut stream)?,
        }
        Ok(())
    }
}

fn begin(stream: &mut TcpStream) -> anyhow::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    Ok(stream.write_all(head.as_bytes())?)
}

fn chunk(stream: &mut TcpStream, piece: &[u8]) -> anyhow::Result<()> {
    let mut whole = format!("{:x}\r\n", piece.len()).into_bytes();
    whole.extend_from_slice(piece);
    whole.extend_from_slice(b"\r\n");
    Ok(stream.write_all(&whole)?)
}

/// Waits until nobody is at the other end any more, which is an error.
fn gone(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut more = [0; 64];
    while stream.read(&mut more)? > 0 {}
    anyhow::bail!("whoever has asked is gone")
}
