//! The process that makes sandboxes, as a program of its own: for tests and measurements of the library.
//!
//! `sandbox-host WORKSPACES SETTINGS`: where workspaces are kept, and all else.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use sandbox::local::privileges::connection;
use sandbox::local::{Parts, Settings, host_main};
use sandbox::workspace::Trees;

fn main() -> Result<(), Box<dyn Error>> {
    let control = connection()?;
    let mut arguments = std::env::args().skip(1);
    let workspaces = arguments.next().map(PathBuf::from).ok_or("usage: sandbox-host WORKSPACES SETTINGS")?;
    let settings = Settings::from_argument(&arguments.next().unwrap_or_default())?;
    let parts = Parts {
        control,
        hand: sandbox::hand_binary(),
        workspaces: Box::new(move |_| Ok(Arc::new(Trees::copy(&workspaces)?))),
        settings,
    };
    Ok(host_main(parts)?)
}
