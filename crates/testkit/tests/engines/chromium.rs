//! Chromium: renders, runs scripts, reports errors, resolves names below localhost, and dies with its test.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use testkit::{Chromium, eventually, http, require};

use crate::{LIMIT, alive, orphaned, processes_naming};

const PAGE: &str = "<!doctype html><title>A page</title><h1>Hello</h1><input><button>Greet</button>
<script>
  document.querySelector('button').onclick = async () => {
    const answer = await (await fetch('/name')).text();
    document.querySelector('h1').textContent = answer + ' ' + document.querySelector('input').value;
  };
  console.error('on purpose');
</script>";

/// Serves the page, and `/name`, until the test process ends. Gives the port.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = move |mut stream: TcpStream| {
        let head = crate::read_head(&stream);
        let (status, body) = match head.split(' ').nth(1).unwrap_or_default() {
            "/" => ("200 OK", PAGE),
            "/name" => {
                ("200 OK", if head.contains(&format!("notes.localhost:{port}")) { "Notes" } else { "Nobody" })
            }
            _ => ("404 Not Found", ""),
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/html\r\ncontent-length: {length}\r\n\r\n"
        );
        // The browser opens connections that it never uses.
        let _ = stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice());
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

#[test]
fn a_page_below_localhost_is_read_typed_into_clicked_and_seen() {
    let port = serve();
    let browser = require(Chromium::start());
    browser.goto(&format!("http://notes.localhost:{port}/")).unwrap();
    assert_eq!(browser.title().unwrap(), "A page");
    assert_eq!(browser.text("h1").unwrap(), "Hello");
    browser.type_into("input", "2").unwrap();
    browser.click("button").unwrap();
    let changed = eventually(LIMIT, || (browser.text("h1").ok()? == "Notes 2").then_some(()));
    assert!(changed.is_some(), "{:?}", browser.source());
    assert_eq!(
        browser.evaluate("return [1 + 1, await Promise.resolve('x')]").unwrap(),
        serde_json::json!([2, "x"])
    );
    let screenshot = browser.screenshot().unwrap();
    assert!(screenshot.starts_with(b"\x89PNG") && screenshot.len() > 1_000);
    let console = browser.console().unwrap();
    assert!(console.iter().any(|message| message.contains("on purpose")), "{console:?}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = browser.goto(&format!("http://{nobody}/")).unwrap_err().to_string();
    assert!(refused.contains("ERR_CONNECTION_REFUSED"), "{refused}");
}

#[test]
fn a_browser_that_is_dropped_leaves_no_process_and_no_file() {
    let browser = require(Chromium::start());
    let profile = browser.profile().to_string_lossy().into_owned();
    assert!(processes_naming(&profile).len() > 1, "the browser's own processes are not seen");
    drop(browser);
    let gone = eventually(LIMIT, || processes_naming(&profile).is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", processes_naming(&profile));
    assert!(!std::path::Path::new(&profile).exists());
}

#[test]
fn a_browser_does_not_outlive_a_killed_test() {
    let (driver, profile) = orphaned("chromium");
    let gone = || (!alive(driver) && processes_naming(&profile).is_empty()).then_some(());
    assert!(eventually(LIMIT, gone).is_some(), "{:?}", processes_naming(&profile));
}

#[test]
fn the_same_name_reaches_the_same_server_without_a_browser() {
    let port = serve();
    let answer = http::Request::get(&format!("http://notes.localhost:{port}/name")).send().unwrap();
    assert_eq!((answer.status, answer.text().unwrap()), (200, "Notes"));
}
