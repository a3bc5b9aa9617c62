//! Stands in for `steading serve` in testkit's own tests: keeps the ready line's promises and answers every
//! request with what it was asked. `STAND_IN=silent|broken|chatty` makes it fail in one way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned().unwrap_or_default()
    };
    let mood = arguments.last().cloned().unwrap_or_default();
    if mood == "broken" {
        writeln!(std::io::stderr(), "the configuration is bad")?;
        std::process::exit(64);
    }
    let listener = TcpListener::bind(after("--listen"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let data = after("--data-dir");
    std::fs::create_dir_all(&data)?;
    let starts = std::fs::read_to_string(format!("{data}/starts")).unwrap_or_default() + "x";
    std::fs::write(format!("{data}/starts"), &starts)?;
    let ready = serde_json::json!({
        "url": url, "mcp_url": format!("{url}/mcp/default"), "data_dir": data, "env": "default", "key": "sk",
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    if mood == "chatty" {
        writeln!(stdout, "more")?;
    }
    stdout.flush()?;
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream?);
        let (mut head, mut length) = (Vec::new(), 0);
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
            if line.trim_end().is_empty() {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let refuse = head.first().is_some_and(|line| line.contains("/no_such"));
        let status = if refuse { "404 Not Found" } else { "200 OK" };
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let answer = if refuse {
            serde_json::json!({ "code": "not_found" }).to_string()
        } else {
            serde_json::json!({ "head": head, "body": body, "starts": starts.len() }).to_string()
        };
        let length = answer.len();
        write!(stream.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{answer}")?;
    }
    Ok(())
}
