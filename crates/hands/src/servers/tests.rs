//! What programs may do to who speaks with them: nothing that lasts.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex, empty};
use tokio::sync::oneshot;

use super::reads::{LONGEST, NoMore};
use super::server::Ends;
use super::*;

/// Shorter than a test waits for anything else.
const SHORT: Duration = Duration::from_millis(50);

fn impatient() -> Arc<Reads> {
    Arc::new(Reads::new(SHORT))
}

fn program(command: &str) -> Program {
    Program { command: command.to_owned(), args: Vec::new(), env: BTreeMap::new(), cwd: None }
}

fn request(id: u64, method: &str) -> Message {
    Message::read(json!({ "jsonrpc": "2.0", "id": id, "method": method }).to_string().as_bytes()).unwrap()
}

/// A program as a test plays it.
struct Inside {
    reads: BufReader<DuplexStream>,
    says: DuplexStream,
    /// Ends when nobody speaks with it any more.
    kept: oneshot::Receiver<()>,
}

impl Inside {
    async fn read(&mut self) -> Value {
        let mut line = String::new();
        self.reads.read_line(&mut line).await.unwrap();
        serde_json::from_str(&line).unwrap()
    }

    async fn say(&mut self, message: &Value) {
        self.says.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn greet(&mut self, greeting: Value) {
        let hello = self.read().await;
        assert_eq!(hello["method"], "initialize");
        self.say(&json!({ "jsonrpc": "2.0", "id": hello["id"], "result": greeting })).await;
    }
}

/// Dropped with what it is kept by.
struct Keep(#[expect(dead_code, reason = "its end is what is waited for")] oneshot::Sender<()>);

/// A program with pipes that hold `room` bytes, and who speaks with it once it has greeted.
fn begun(room: usize, reads: Arc<Reads>) -> (Inside, impl Future<Output = Result<Arc<Server>>>) {
    let (stdin, read) = duplex(room);
    let (says, stdout) = duplex(room);
    let (keep, kept) = oneshot::channel();
    let ends = Ends { stdin, stdout, stderr: empty() };
    let server = Server::greeted(program("played"), ends, Keep(keep), reads);
    (Inside { reads: BufReader::new(read), says, kept }, server)
}

async fn greeted(room: usize, reads: Arc<Reads>) -> (Inside, Arc<Server>) {
    let (mut inside, server) = begun(room, reads);
    let (server, ()) = tokio::join!(server, inside.greet(json!({ "name": "played" })));
    assert_eq!(inside.read().await["method"], "notifications/initialized");
    (inside, server.unwrap())
}

fn refusal<T>(outcome: Result<T>) -> (Code, String) {
    let error = outcome.err().unwrap();
    (error.code(), error.message().to_owned())
}

#[tokio::test]
async fn an_answer_is_as_it_was_said_with_the_id_that_was_given() {
    let (mut inside, server) = greeted(1 << 10, Arc::default()).await;
    let asked = async {
        let question = inside.read().await;
        let id = &question["id"];
        inside
            .says
            .write_all(format!("{{\"id\":{id},\"result\":{{\"n\": 1.50}}}}\n").as_bytes())
            .await
            .unwrap();
        question["method"].clone()
    };
    let question = request(7, "x");
    let (answer, method) = tokio::join!(server.speak(&question), asked);
    assert_eq!(answer.unwrap().unwrap(), r#"{"jsonrpc":"2.0","id":7,"result":{"n": 1.50}}"#);
    assert_eq!(method, "x");
    let greeting = server.speak(&request(8, "initialize")).await.unwrap().unwrap();
    assert_eq!(greeting, r#"{"jsonrpc":"2.0","id":8,"result":{"name":"played"}}"#);
}

#[tokio::test]
async fn what_is_said_of_itself_is_kept_and_small() {
    let (mut inside, server) = begun(1 << 10, impatient());
    let ((), refused) = tokio::join!(inside.greet(json!(vec![0; 1 << 16])), async { refusal(server.await) });
    assert_eq!(refused.0, Code::Unavailable);
    assert!(refused.1.contains("with more than 65536 bytes"), "{}", refused.1);
}

#[tokio::test]
async fn one_that_does_not_read_holds_up_nobody_for_long_and_is_gone_then() {
    let (inside, server) = greeted(64, impatient()).await;
    let question = request(1, &"long".repeat(100));
    let (first, second) = tokio::join!(server.speak(&question), server.speak(&question));
    for refused in [refusal(first), refusal(second)] {
        let expected = "\"played\" does not read its standard input".to_owned();
        assert_eq!(refused, (Code::Unavailable, expected));
    }
    assert!(!server.lives());
    // It ends, whoever has it still.
    inside.kept.await.unwrap_err();
}

#[tokio::test]
async fn one_that_asks_and_does_not_read_is_read_on_and_ends_with_who_speaks_with_it() {
    let (mut inside, server) = greeted(64, Arc::default()).await;
    for id in 0..100 {
        inside.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" })).await;
    }
    drop(server);
    inside.kept.await.unwrap_err();
}

#[tokio::test]
async fn notifications_go_on_and_what_is_cancelled_is_told_by_the_id_that_it_has_there() {
    let (mut inside, server) = greeted(1 << 10, Arc::default()).await;
    let tell = |text: &str| Message::read(text.as_bytes()).unwrap();
    let question = request(7, "slow");
    let cancel = async {
        let asked = inside.read().await;
        for text in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":8}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/other","params":{"a":1}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}"#,
        ] {
            assert_eq!(server.speak(&tell(text)).await.unwrap(), None);
        }
        (asked, inside.read().await, inside.read().await)
    };
    let (answer, (asked, other, cancelled)) = tokio::join!(server.speak(&question), cancel);
    assert_eq!(refusal(answer), (Code::Conflict, "the request is cancelled".to_owned()));
    let expected = json!({ "jsonrpc": "2.0", "method": "notifications/other", "params": { "a": 1 } });
    assert_eq!(other, expected);
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);
}

#[tokio::test]
async fn lines_are_bounded_and_read_no_faster_than_they_may_be() {
    let reads = impatient();
    let text = [vec![b'a'; 1 << 20], b"\n".to_vec()].concat().repeat(2);
    let (mut lines, began) = (Vec::new(), Instant::now());
    let end = reads.each(text.as_slice(), |line| {
        lines.push(line.len());
        Some(())
    });
    assert_eq!((end.await, lines), (NoMore::End, vec![(1 << 20) + 1; 2]));
    // A millisecond for each 16 KiB.
    assert!(began.elapsed() >= Duration::from_millis(128));
    let endless = vec![b'a'; LONGEST as usize + 1];
    assert_eq!(reads.each(endless.as_slice(), |_| Some(())).await, NoMore::TooLong);
    // Two that have begun a long line keep the third waiting, until they take too long.
    let begun = vec![b'a'; 1 << 19];
    let (mut one, slow_one) = duplex(1 << 20);
    let (mut two, slow_two) = duplex(1 << 20);
    one.write_all(&begun).await.unwrap();
    two.write_all(&begun).await.unwrap();
    let mut whole = 0;
    let (first, second, third) = tokio::join!(
        reads.each(BufReader::new(slow_one), |_| Some(())),
        reads.each(BufReader::new(slow_two), |_| Some(())),
        reads.each(text.as_slice(), |_| {
            whole += 1;
            Some(())
        }),
    );
    assert_eq!([first, second, third], [NoMore::TooLong, NoMore::TooLong, NoMore::End]);
    assert_eq!(whole, 2);
}

#[tokio::test]
async fn who_waited_while_a_program_failed_to_begin_is_told_the_same() {
    let servers = Servers::default();
    let (begun, wanted) = (AtomicUsize::new(0), program("none"));
    let begin = |_| async {
        begun.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Err::<Arc<Server>, _>(Error::new(Code::Unavailable, "no").hint("write one"))
    };
    let three = [0; 3].map(|_| servers.get("x", &wanted, begin));
    for refused in futures::future::join_all(three).await {
        let error = refused.err().unwrap();
        assert_eq!(
            (error.code(), error.message(), error.advice()),
            (Code::Unavailable, "no", Some("write one"))
        );
    }
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    // Who comes later tries again.
    assert!(servers.get("x", &wanted, begin).await.is_err());
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn names_of_programs_that_never_began_or_have_ended_are_nobodys() {
    let servers = Servers::default();
    let failing = |_| async { Err::<Arc<Server>, _>(Error::new(Code::Unavailable, "no")) };
    for number in 0..2 * PROGRAMS {
        let refused = servers.get(&number.to_string(), &program("none"), failing).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unavailable, "{number}");
    }
    let mut running = Vec::new();
    for number in 0..PROGRAMS {
        let (inside, server) = greeted(1 << 10, Arc::default()).await;
        servers.get(&format!("runs {number}"), &program("played"), |_| async { Ok(server) }).await.unwrap();
        running.push(inside);
    }
    let full = servers.get("more", &program("none"), failing).await;
    let expected = format!("{PROGRAMS} programs that speak MCP run in this sandbox");
    assert_eq!(refusal(full), (Code::QuotaExceeded, expected));
    // One that ends makes room, and one that is to be another ends before there is that.
    drop(running.remove(3).says);
    let place = Arc::clone(&servers.places.lock().unwrap()["runs 3"]);
    let ended = async {
        while place.lock().await.lives() {
            tokio::task::yield_now().await;
        }
    };
    ended.await;
    drop(place);
    assert_eq!(refusal(servers.get("more", &program("none"), failing).await).0, Code::Unavailable);
    assert_eq!(refusal(servers.get("runs 0", &program("other"), failing).await).0, Code::Unavailable);
    running.remove(0).kept.await.unwrap_err();
}

#[test]
fn so_many_speak_at_once_and_no_more() {
    let servers = Servers::default();
    let turns: Vec<_> = (0..CALLS).map(|_| servers.turn().unwrap()).collect();
    assert_eq!(servers.turn().err().unwrap().code(), Code::RateLimited);
    drop(turns);
    assert!(servers.turn().is_ok());
}
