//! Previews that bring their server along: the command that serves a port, and whether it listens.

use std::time::Duration;

use hands::{Reached, Who};
use kernel::{Code, Error, Result};
use store::{Served, Workspace};
use tokio::time::{Instant, sleep, timeout_at};

use crate::platform::Platform;

/// How long it is waited for a server, and how often it is looked where it was started by other means.
const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(25);

/// What was said of a port's command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing: it is as it was.
    Nothing,
    /// There is one.
    Kept,
    /// There is none any more.
    Forgotten,
}

impl Platform {
    /// Keeps the command that serves a port of a workspace's sandbox; an empty one forgets it.
    ///
    /// # Errors
    /// `invalid_input`; as [`hands::Hands::serve`].
    pub async fn note_command(
        &self,
        workspace: &Workspace,
        port: u16,
        command: Option<String>,
        cwd: Option<String>,
    ) -> Result<Said> {
        if port == 0 {
            return Err(Error::invalid("/port", "0 is no port"));
        }
        match command {
            Some(command) if !command.trim().is_empty() => {
                self.hands.serve(workspace, &Served { port, command, cwd }).await?;
                Ok(Said::Kept)
            }
            _ if cwd.is_some() => Err(Error::invalid("/cwd", "there is no command that would begin there")
                .hint("give command, too, or leave cwd out")),
            Some(_) => {
                self.hands.stop_serving(workspace, port).await?;
                Ok(Said::Forgotten)
            }
            None => Ok(Said::Nothing),
        }
    }

    /// Waits until something listens on a port of a workspace's sandbox; where nothing does its command begins.
    ///
    /// # Errors
    /// `unavailable` where nothing comes to listen, with the last that the command has written.
    pub async fn listens(&self, workspace: &Workspace, port: u16) -> Result<()> {
        let hand = self.hands.wake(workspace).await?;
        let until = Instant::now() + PATIENCE;
        match self.hands.reach(workspace, &hand, port, Who::Owner, until).await? {
            Reached::Listens(_) => return Ok(()),
            Reached::Silent(said) => return Err(silent(port, &said)),
            Reached::Comes => return Err(silent(port, "")),
            Reached::Nothing => {}
        }
        while Instant::now() < until {
            sleep(STEP).await;
            if timeout_at(until, hand.dial(port)).await.is_ok_and(|dialled| dialled.is_ok()) {
                return Ok(());
            }
        }
        let nothing = format!("nothing listens on port {port} of the sandbox");
        Err(Error::new(Code::Unavailable, nothing)
            .field("/port")
            .hint("give the command that serves it, or start it with shell_run and & at its end; its output says on which port it is"))
    }
}

fn silent(port: u16, said: &str) -> Error {
    let written = if said.is_empty() {
        "and has written nothing".to_owned()
    } else {
        format!("and has written:\n{said}")
    };
    let message = format!("the command does not listen on port {port} of the sandbox, {written}");
    Error::new(Code::Unavailable, message)
        .field("/port")
        .hint("mend what it says, or give another command or port; it must listen on 127.0.0.1 or 0.0.0.0. One that still runs goes on: command \"\" ends it")
}
