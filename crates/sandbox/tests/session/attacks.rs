//! Both sides against one that does not keep to the words: the hand lives on, the session closes.

use std::io::{Read, Write};

use hand::wire::{
    Decoder, Exec, Frame, Kind, Mode, Output, Program, Request, Stdin, Terminal, WINDOW, encode,
};
use sandbox::session::{self, Session};
use tokio::io::AsyncWriteExt;

use crate::inside::{LONG, spawn};

/// A frame to be sent.
type Sent = (u32, Kind, Vec<u8>);

/// A hand, spoken to in frames.
struct Raw {
    hand: std::process::Child,
    socket: std::os::unix::net::UnixStream,
    decoder: Decoder,
    _home: tempfile::TempDir,
}

impl Raw {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let (hand, socket) = spawn(home.path(), 0, "{}");
        socket.set_read_timeout(Some(LONG)).expect("a socket");
        let mut raw = Self { hand, socket, decoder: Decoder::default(), _home: home };
        assert_eq!(raw.next().kind, Kind::Hello);
        raw
    }

    fn send(&mut self, stream: u32, kind: Kind, payload: &[u8]) {
        let mut frame = Vec::new();
        encode(&mut frame, stream, kind, payload);
        self.socket.write_all(&frame).expect("a hand that reads");
    }

    fn next(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("a frame") {
                return frame;
            }
            let mut buffer = [0; 65_536];
            let count = self.socket.read(&mut buffer).expect("a hand that answers");
            assert_ne!(count, 0, "the hand has ended");
            self.decoder.feed(&buffer[..count]);
        }
    }

    /// The stream's end.
    fn end(&mut self, stream: u32) -> (Kind, String) {
        loop {
            let frame = self.next();
            if frame.stream == stream && matches!(frame.kind, Kind::Reply | Kind::Fail) {
                return (frame.kind, String::from_utf8_lossy(&frame.payload).into_owned());
            }
        }
    }

    fn open(&mut self, stream: u32, request: &Request) {
        self.send(stream, Kind::Open, &serde_json::to_vec(request).expect("JSON"));
    }

    /// Whether it still works.
    fn works(&mut self, stream: u32) {
        self.open(stream, &Request::Exec(exec(Program::Argv(vec!["true".into()]), Stdin::Empty)));
        let (kind, end) = self.end(stream);
        assert!(kind == Kind::Reply && end.contains(r#""outcome":{"code":0}"#), "{end}");
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.hand.wait();
    }
}

fn exec(program: Program, stdin: Stdin) -> Exec {
    let mode = Mode::Foreground(Output::Stream);
    Exec {
        program,
        cwd: None,
        env: Default::default(),
        terminal: Terminal::None,
        stdin,
        timeout_ms: None,
        mode,
    }
}

#[test]
fn frames_that_are_none_are_answered_and_passed_over() {
    let mut raw = Raw::start();
    raw.send(1, Kind::Open, b"not json");
    assert!(raw.end(1).1.contains("not a request"));
    raw.send(2, Kind::Open, br#"{"stats":null,"more":1}"#);
    assert!(raw.end(2).1.contains("not a request"));
    raw.send(3, Kind::Open, br#"{"dial":{"port":1,"host":"elsewhere"}}"#);
    assert!(raw.end(3).1.contains("unknown field `host`"));
    raw.send(0, Kind::Open, br#""stats""#);
    assert!(raw.end(0).1.contains("in use"));
    let mut frame = Vec::new();
    encode(&mut frame, 4, Kind::Open, b"");
    frame[8] = 99;
    raw.socket.write_all(&frame).expect("a hand that reads");
    assert!(raw.end(4).1.contains("kind 99"));
    raw.socket
        .write_all(&[&200_000u32.to_le_bytes()[..], &5u32.to_le_bytes(), &[1], &vec![7; 200_000]].concat())
        .expect("room");
    assert!(raw.end(5).1.contains("longer than"));
    for kind in [Kind::Data, Kind::Credit, Kind::End, Kind::Tell, Kind::Reset, Kind::Hello, Kind::Reply] {
        raw.send(77, kind, b"x");
    }
    raw.works(6);
}

#[test]
fn noise_and_floods_do_not_end_the_hand() {
    let mut raw = Raw::start();
    let mut state = 0x1234_5678_u32;
    for stream in 0..3_000u32 {
        let payload: Vec<u8> = (0..stream % 97)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let kinds =
            [Kind::Open, Kind::Data, Kind::Credit, Kind::Tell, Kind::End, Kind::Reset, Kind::ErrCredit];
        raw.send(stream % 50 + 1_000, kinds[(state >> 8) as usize % kinds.len()], &payload);
    }
    // As many at once as there is no room for: each gets an answer.
    for stream in 10_000..10_700 {
        raw.open(stream, &Request::Exec(exec(Program::Argv(vec!["cat".into()]), Stdin::Stream)));
    }
    let mut refused = 0;
    for stream in 10_000..10_700 {
        raw.send(stream, Kind::Reset, b"");
    }
    let mut ends = 0;
    while ends < 700 {
        let frame = raw.next();
        if frame.stream >= 10_000 && frame.kind == Kind::Fail {
            ends += 1;
            refused += u32::from(String::from_utf8_lossy(&frame.payload).contains(r#""busy""#));
        }
    }
    assert!(refused >= 700 - 512, "{refused} were refused");
    raw.works(20_000);
}

#[test]
fn input_beyond_its_credit_ends_the_command_and_nothing_else() {
    let mut raw = Raw::start();
    raw.open(1, &Request::Exec(exec(Program::Argv(vec!["sleep".into(), "1000".into()]), Stdin::Stream)));
    // A pipe takes some of it, so that it takes more than one window.
    for _ in 0..(3 * WINDOW as usize / 50_000) {
        raw.send(1, Kind::Data, &vec![0; 50_000]);
    }
    assert!(raw.end(1).1.contains("more input than there was credit for"));
    raw.works(2);
}

#[tokio::test]
async fn a_hand_that_does_not_keep_to_the_words_loses_its_session() {
    let hello = |version: u32| (0, Kind::Hello, format!(r#"{{"version":{version}}}"#).into_bytes());
    let cases: Vec<(&str, Vec<Sent>)> = vec![
        ("another version", vec![hello(999)]),
        ("no greeting", vec![(0, Kind::Reply, b"\"done\"".to_vec())]),
        ("a stream nobody opened", vec![hello(1), (9, Kind::Data, vec![1])]),
        ("more than the window", vec![hello(1), (1, Kind::Data, vec![0; WINDOW as usize + 1])]),
        ("bytes after the end", vec![hello(1), (1, Kind::End, vec![]), (1, Kind::Data, vec![1])]),
        ("an answer that is none", vec![hello(1), (1, Kind::Reply, b"{}".to_vec())]),
        ("an answer with more in it", vec![hello(1), (1, Kind::Reply, br#"{"began":1,"x":2}"#.to_vec())]),
        ("another answer", vec![hello(1), (1, Kind::Reply, b"\"done\"".to_vec())]),
        ("a request", vec![hello(1), (1, Kind::Open, b"\"stats\"".to_vec())]),
        ("credit of three bytes", vec![hello(1), (1, Kind::Credit, vec![1, 2, 3])]),
        (
            "events without end",
            vec![hello(1); 1]
                .into_iter()
                .chain(vec![(1, Kind::Event, b"\"connected\"".to_vec()); 400])
                .collect(),
        ),
    ];
    for (name, frames) in cases {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut frames = frames.into_iter();
        let mut bytes = Vec::new();
        let (stream, kind, payload) = frames.next().expect("a frame");
        encode(&mut bytes, stream, kind, &payload);
        far.write_all(&bytes).await.expect("room");
        let opened = tokio::time::timeout(LONG, Session::open(near)).await.expect("in time");
        let Ok(session) = opened else {
            assert!(matches!(opened, Err(session::Error::Protocol(_))), "{name}");
            continue;
        };
        let asking = {
            let session = session.clone();
            tokio::spawn(async move { session.stats().await })
        };
        // The request is on its way before the answers come.
        let mut request = [0; 9];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut request).await.expect("a request");
        let mut bytes = Vec::new();
        for (stream, kind, payload) in frames {
            encode(&mut bytes, stream, kind, &payload);
        }
        far.write_all(&bytes).await.expect("room");
        let answer = tokio::time::timeout(LONG, asking).await.expect("in time").expect("no panic");
        assert!(answer.is_err(), "{name}: {answer:?}");
        if name != "another answer" {
            tokio::time::timeout(LONG, session.closed())
                .await
                .unwrap_or_else(|_| panic!("{name}: still open"));
        }
    }
}

#[tokio::test]
async fn when_the_hand_is_gone_everything_waiting_ends() {
    let mut inside = crate::inside::Inside::start().await;
    let mut process = inside.session.exec(session::Exec::argv(["sleep", "1000"])).await.expect("a command");
    let pid = rustix::process::Pid::from_raw(process.pid()).expect("an id");
    inside.hand.kill().expect("a hand");
    let end = tokio::time::timeout(LONG, process.wait()).await.expect("in time");
    assert_eq!(end, Err(session::Error::Closed));
    assert_eq!(inside.session.stats().await, Err(session::Error::Closed));
    tokio::time::timeout(LONG, inside.session.closed()).await.expect("in time");
    // Outside a jail nothing else ends what it began.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}
