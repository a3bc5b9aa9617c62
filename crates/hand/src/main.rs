//! The program inside a sandbox; the first argument says as what.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["mcp"] => hand::mcp::main(),
        _ => Err("say as what: mcp".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed stderr has no reader to tell.
            let _ = writeln!(std::io::stderr(), "hand: {error}");
            ExitCode::from(2)
        }
    }
}
