//! The process that makes sandboxes, as a program of its own: for tests and measurements of the library.
//!
//! `sandbox-host WORKSPACES`: where workspaces are kept.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use sandbox::local::{Parts, host_main};
use sandbox::workspace::Trees;

fn main() -> Result<(), Box<dyn Error>> {
    let workspaces = std::env::args_os().nth(1).map(PathBuf::from).ok_or("usage: sandbox-host WORKSPACES")?;
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let parts = Parts {
        control,
        hand: sandbox::hand_binary(),
        workspaces: Box::new(move |_| Ok(Arc::new(Trees::copy(&workspaces)?))),
    };
    Ok(host_main(parts)?)
}
