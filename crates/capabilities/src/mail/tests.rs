//! What becomes of letters that the mail server puts off.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kernel::{EnvId, Error, TenantId};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

struct Nowhere;

impl Addresses for Nowhere {
    fn url<'a>(&'a self, _: &'a Env, _: At<'a>) -> BoxFuture<'a, Result<String>> {
        Box::pin(async { Err(Error::internal("no letter asks")) })
    }
}

/// Takes what goes to `example.org`, and puts everything else off.
async fn serve(stream: TcpStream, taken: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 here\r\n").await?;
    let (mut line, mut in_text) = (String::new(), false);
    while stream.read_line(&mut line).await? > 0 {
        let said = line.trim_end().to_ascii_uppercase();
        let answer = match said.as_str() {
            "." => {
                in_text = false;
                taken.fetch_add(1, Ordering::SeqCst);
                "250 taken"
            }
            _ if in_text => "",
            "DATA" => {
                in_text = true;
                "354 go on"
            }
            rcpt if rcpt.starts_with("RCPT") && !rcpt.contains("@EXAMPLE.ORG") => "450 later",
            _ => "250 well",
        };
        if !answer.is_empty() {
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn letters_that_are_put_off_drop_neither_anothers_nor_new_ones() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&counted)));
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let server = Server { url, from: "no-reply@example.org".to_owned(), user: None, password: None };
    let post = Post::new(&Route::Server(server), Arc::new(Nowhere), Logs::new(directory.path())).unwrap();
    let letter = |to: &str| Letter {
        to: to.to_owned(),
        from: "Shop".to_owned(),
        subject: "Hello".to_owned(),
        text: Secret::new("text"),
    };
    let env = || Env::for_upkeep(TenantId::new(), EnvId::new());
    let (crowded, other) = (env(), env());
    let is = async |what: &str, met: &dyn Fn() -> bool| {
        let waiting = async {
            while !met() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect(what);
    };
    let free = |places: &Places, of: &Env| {
        let held: Vec<_> = std::iter::from_fn(|| places.take(of.id())).collect();
        held.len()
    };
    for _ in 0..OF_ONE * 5 {
        post.send(&crowded, letter("x@later.example"));
    }
    // Its own room is full, and nobody else's.
    assert_eq!((free(&post.0.room, &crowded), free(&post.0.room, &other)), (0, OF_ONE));
    post.send(&other, letter("ada@example.org"));
    is("another's letter is sent", &|| taken.load(Ordering::SeqCst) == 1).await;
    // Once they are put off, there is room for new ones of the same app.
    is("new letters have room", &|| free(&post.0.room, &crowded) == OF_ONE).await;
    assert_eq!(free(&post.0.late, &crowded), 0, "they are kept for another try");
    post.send(&crowded, letter("bea@example.org"));
    is("a new letter is sent", &|| taken.load(Ordering::SeqCst) == 2).await;
}
