//! The program inside a sandbox; the first argument says as what.

use std::io::Write;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["jail"] => return code(hand::jail::make()),
        ["base", path] => return code(hand::jail::make_base(path.as_ref())),
        ["files", request] => return ExitCode::from(hand::files::main(request)),
        ["check"] => check().map_err(Into::into),
        ["mcp"] => hand::mcp::main(),
        ["pid1", rest @ ..] => hand::pid1::main(rest),
        _ => Err("say as what: base, check, files, jail, mcp, pid1".into()),
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

/// That this can be run says that it is whole; of the programs beside it the one that is called `check` says it.
fn check() -> std::io::Result<()> {
    let beside = std::env::current_exe()?.with_file_name("check");
    if beside.exists() { Err(Command::new(beside).exec()) } else { Ok(()) }
}

fn code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
