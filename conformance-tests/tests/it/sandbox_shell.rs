//! A shell in a sandbox over a WebSocket, and what ends it.

use std::net::TcpStream;

use serde_json::{Value, json};
use testkit::eventually;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::{Message, WebSocket};

use crate::sandbox_routes::{PATIENCE, Sandboxes, text};

/// A WebSocket to a command.
fn socket(here: &Sandboxes, first: &Value) -> WebSocket<TcpStream> {
    let authority = here.place.steading.authority();
    let mut request = format!("ws://{authority}/v1/sandboxes/default/exec").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {}", here.key).parse().unwrap());
    headers.insert("steading-env", here.place.slug.parse().unwrap());
    let stream = TcpStream::connect(authority).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut socket, _) = tungstenite::client(request, stream).unwrap();
    socket.send(Message::text(first.to_string())).unwrap();
    socket
}

/// What comes until the socket closes: bytes, and texts.
fn all(socket: &mut WebSocket<TcpStream>) -> (String, Vec<Value>) {
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    loop {
        match socket.read() {
            Ok(Message::Binary(more)) => bytes.extend_from_slice(&more),
            Ok(Message::Text(text)) => told.push(serde_json::from_str(&text).unwrap()),
            Ok(Message::Close(_)) | Err(_) => return (String::from_utf8(bytes).unwrap(), told),
            Ok(_) => {}
        }
    }
}

#[test]
fn a_shell_is_typed_into_over_a_websocket() {
    let here = Sandboxes::new("routes-shell");
    let mut shell = socket(&here, &json!({ "argv": ["bash"], "terminal": { "rows": 24, "cols": 80 } }));
    let say =
        |shell: &mut WebSocket<TcpStream>, told: Value| shell.send(Message::text(told.to_string())).unwrap();
    say(&mut shell, json!({ "type": "resize", "rows": 40, "cols": 100 }));
    shell.send(Message::binary("stty size; tty; exit 7\n".as_bytes().to_vec())).unwrap();
    let (shown, told) = all(&mut shell);
    assert!(shown.contains("40 100") && shown.contains("/dev/pts/"), "{shown}");
    assert_eq!(told.last(), Some(&json!({ "type": "exit", "code": 7 })), "{told:?}");
    // Without a terminal bytes are bytes, and standard error is told apart.
    let mut filter = socket(&here, &json!({ "command": "cat; echo done >&2" }));
    filter.send(Message::binary(b"\x00a\n".to_vec())).unwrap();
    say(&mut filter, json!({ "type": "end" }));
    let (bytes, told) = all(&mut filter);
    assert_eq!((bytes.as_str(), text(&told, "stderr").as_str()), ("\0a\n", "done\n"));
    let mut deaf = socket(&here, &json!({ "command": "sleep 1000" }));
    say(&mut deaf, json!({ "type": "signal", "signal": 15 }));
    assert_eq!(all(&mut deaf).1.last(), Some(&json!({ "type": "exit", "signal": 15 })));
    // Also where it has been sent more than it reads.
    let mut deaf = socket(&here, &json!({ "command": "sleep 1000" }));
    for _ in 0..3 {
        deaf.send(Message::binary(vec![b'x'; 1 << 20])).unwrap();
    }
    say(&mut deaf, json!({ "type": "signal", "signal": 15 }));
    assert_eq!(all(&mut deaf).1.last(), Some(&json!({ "type": "exit", "signal": 15 })));
    // Whoever goes away takes along what runs for them.
    let mut left = socket(&here, &json!({ "command": "sleep 5002" }));
    assert!(matches!(left.read().unwrap(), Message::Text(_)));
    drop(left);
    let none = || (here.run("pgrep -fxc 'sleep 5002' || true").trim() == "0").then_some(());
    assert!(eventually(PATIENCE, none).is_some());
    for (first, code) in [
        (json!({ "command": "ls", "stdin": "x" }), "invalid_input"),
        (json!({ "argv": ["no-such-program"] }), "not_found"),
        (json!([]), "invalid_input"),
    ] {
        let told = all(&mut socket(&here, &first)).1;
        assert_eq!(told[0]["problem"]["code"], code, "{first}: {told:?}");
    }
    let mut nonsense = socket(&here, &json!({ "command": "sleep 5003" }));
    nonsense.send(Message::text("nonsense")).unwrap();
    assert_eq!(all(&mut nonsense).1.last().unwrap()["problem"]["code"], "invalid_input");
    here.refused("GET", "/default/exec", None, 400, "invalid_input");
}
