//! The program inside a sandbox; the first argument says as what.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(2)
}
