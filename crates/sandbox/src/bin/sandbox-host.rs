//! The process that makes sandboxes, as a program of its own: for tests and measurements of the library.
//!
//! `sandbox-host HAND WORKSPACES`: the static program that goes into sandboxes, and where workspaces are kept.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use sandbox::local::{Parts, host_main};
use sandbox::workspace::Trees;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [hand, workspaces] =
        <[PathBuf; 2]>::try_from(arguments).map_err(|_| "usage: sandbox-host HAND WORKSPACES")?;
    let control = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let parts = Parts {
        control,
        hand: Box::leak(std::fs::read(hand)?.into_boxed_slice()),
        workspaces: Box::new(move |_| Ok(Arc::new(Trees::copy(&workspaces)?))),
    };
    Ok(host_main(parts)?)
}
