//! A command in a sandbox over a WebSocket (RFC 6455): what is typed goes in as it comes, with a terminal or without.
//!
//! The first message is the command, as for the other way to run one. From then on bytes in are standard input, bytes out
//! are standard output, and texts are JSON: signals, sizes and the end of input one way, standard error and the end of the
//! command the other.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{FromRequestParts as _, Request};
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use hands::Hand;
use kernel::{Code, Error, Result};
use sandbox::session::{Process, Reader, Size, Stdin};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tool::Effect;

use super::asked::{Answer, Asked};
use super::environment;
use super::exec::Wanted;
use super::lines::{self, Still, Texts};

/// The longest message, in bytes.
const MESSAGE: usize = 1 << 20;

/// How long the first message may take, and one that nobody reads.
const FIRST: Duration = Duration::from_secs(10);
const UNREAD: Duration = Duration::from_secs(60);

/// Instructions that wait for their turn.
const TOLD: usize = 16;

/// How many bytes of input wait for a command that does not read them; behind more than that, instructions wait as well.
/// Each message counts for some, however short it is.
const INPUT: usize = 4 << 20;
const LEAST: usize = 1 << 10;

type Out = SplitSink<WebSocket, Message>;
type In = SplitStream<WebSocket>;

pub async fn open(asked: Asked, request: Request) -> Answer {
    let (mut parts, _) = request.into_parts();
    environment(&asked.api, &asked.caller).await?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|rejection| {
        Error::new(Code::InvalidInput, format!("this is no WebSocket: {rejection}"))
            .hint("POST runs a command without one")
    })?;
    let still = Still::new(&asked.api, parts.headers, &asked.caller);
    Ok(upgrade.max_message_size(MESSAGE).max_frame_size(MESSAGE).on_upgrade(move |socket| async move {
        let (mut out, mut into) = socket.split();
        let began = begin(&asked, &mut into).await;
        let reason = match began {
            Ok((hand, process)) => talk(process, &mut out, &mut into, still).await.map(|()| drop(hand)),
            Err(error) => Err(error),
        };
        let frame = match reason {
            Ok(()) => CloseFrame { code: close_code::NORMAL, reason: "it has ended".into() },
            Err(error) => {
                let _ = send(&mut out, Message::text(lines::failed(&error).to_string())).await;
                CloseFrame { code: close_code::POLICY, reason: error.code().as_str().into() }
            }
        };
        let _ = send(&mut out, Message::Close(Some(frame))).await;
    }))
}

/// Runs what the first message asks for.
async fn begin(asked: &Asked, into: &mut In) -> Result<(Hand, Process)> {
    let work = async {
        let first = timeout(FIRST, into.next()).await;
        let Ok(Some(Ok(Message::Text(text)))) = first else {
            return Err(Error::new(Code::InvalidInput, "the first message is no command")
                .hint("send {\"command\": \"bash\", \"terminal\": {\"rows\": 24, \"cols\": 80}} as text"));
        };
        let input: Value =
            serde_json::from_str(&text).map_err(|error| Error::invalid("", format!("no JSON: {error}")))?;
        let (mut exec, given) = tool::decode::<Wanted>(input)?.exec()?;
        if given.is_some() {
            return Err(Error::invalid("/stdin", "standard input is what comes in messages of bytes"));
        }
        exec.stdin = Stdin::Stream;
        let hand = asked.hand().await?;
        let process = hand.exec(exec).await?;
        Ok((hand, process))
    };
    asked.act("sandboxes.exec", Effect::Write, work).await
}

/// What a client tells beside what is typed.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    /// A signal, by its number.
    Signal { signal: i32 },
    /// The terminal has another size.
    Resize { rows: u16, cols: u16 },
    /// No more comes.
    End,
}

/// Carries everything both ways until the command ends, or whoever listens has gone; then the command ends.
async fn talk(mut process: Process, out: &mut Out, into: &mut In, mut still: Still) -> Result<()> {
    let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
    let mut stdin = process.stdin_writer();
    let (tell, mut told) = mpsc::channel(TOLD);
    let mut texts = Texts::default();
    say(out, &json!({ "type": "started", "pid": process.pid() })).await?;
    let (give, mut given) = mpsc::unbounded_channel::<(Bytes, OwnedSemaphorePermit)>();
    let writing = async move {
        while let Some((bytes, _room)) = given.recv().await {
            // What it does not take is nobody's loss.
            let _ = stdin.write_all(&bytes).await;
        }
        drop(stdin.shutdown().await);
    };
    let listening = async move {
        let room = Arc::new(Semaphore::new(INPUT));
        let mut give = Some(give);
        loop {
            match into.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    let size = u32::try_from(bytes.len().max(LEAST)).map_err(Error::internal)?;
                    let place = Arc::clone(&room).acquire_many_owned(size).await.map_err(Error::internal)?;
                    let _ = give.as_ref().map(|give| give.send((bytes, place)));
                }
                Some(Ok(Message::Text(text))) => {
                    let parsed = serde_json::from_str(&text)
                        .map_err(|error| Error::invalid("", format!("not an instruction: {error}")))?;
                    match parsed {
                        Told::End => give = None,
                        other => drop(tell.send(other).await),
                    }
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(()),
            }
        }
    };
    tokio::pin!(writing, listening);
    let mut written = false;
    loop {
        let over = stdout.is_none() && stderr.is_none();
        tokio::select! {
            biased;
            () = still.time() => {
                still.holds().await?;
                send(out, Message::Ping(Bytes::new())).await?;
            }
            ended = &mut listening => return ended,
            () = &mut writing, if !written => written = true,
            Some(told) = told.recv() => match told {
                Told::Signal { signal } => process.signal(signal)?,
                Told::Resize { rows, cols } => process.resize(Size { rows, cols })?,
                Told::End => {}
            },
            chunk = next(&mut stdout), if stdout.is_some() => match chunk {
                Some(chunk) => send(out, Message::Binary(chunk)).await?,
                None => stdout = None,
            },
            chunk = next(&mut stderr), if stderr.is_some() => {
                let lines = match chunk {
                    Some(chunk) => texts.take("stderr", &chunk),
                    None => {
                        stderr = None;
                        texts.end("stderr").into_iter().collect()
                    }
                };
                for line in lines {
                    say(out, &line).await?;
                }
            }
            exit = process.wait(), if over => return say(out, &lines::ended(exit?.outcome)).await,
        }
    }
}

async fn next(reader: &mut Option<Reader>) -> Option<Bytes> {
    match reader {
        Some(reader) => reader.chunk().await,
        None => None,
    }
}

async fn say(out: &mut Out, line: &Value) -> Result<()> {
    send(out, Message::text(line.to_string())).await
}

/// Sends a message, unless nobody reads.
async fn send(out: &mut Out, message: Message) -> Result<()> {
    let unread = || Error::new(Code::Timeout, "nobody reads what the command writes");
    timeout(UNREAD, out.send(message)).await.map_err(|_| unread())?.map_err(|_| unread())
}
