//! Commands that serve ports of sandboxes: they begin where somebody wants to see the port and nothing listens there.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use kernel::{Code, Error, Result};
use sandbox::session::{self, Connection, Exec, State};
use store::{Served, Workspace};
use tokio::time::{sleep, timeout};

use crate::awake::Awake;
use crate::{Hand, Hands};

/// How many ports of a sandbox may have one, and bytes of a command and of where it begins.
const MOST: i64 = 8;
const COMMAND: usize = 4_096;
const CWD: usize = 1_024;

/// How long after one has ended soon it may begin again, for those who only look; each time it does so twice as long, up to
/// the other.
const AGAIN: Duration = Duration::from_secs(3);
const AT_MOST: Duration = Duration::from_secs(60);

/// How long a connection and a list of what runs may take.
const ANSWER: Duration = Duration::from_secs(2);

/// How long one has until it listens.
const LISTENS: Duration = Duration::from_secs(20);

/// How soon it is looked again whether it listens: sooner first.
const STEPS: [u64; 4] = [10, 25, 50, 100];

/// Bytes and lines of its output that are shown, and how long is read for them.
const TAIL: u64 = 2_000;
const LINES: usize = 10;
const READ: Duration = Duration::from_millis(500);

const SIGKILL: i32 = 9;

/// What has begun last to serve a port.
pub(crate) struct Begun {
    awake: Weak<Awake>,
    served: Served,
    handle: u32,
    at: Instant,
    /// Where nothing of it runs any more: the last of its output, and since when that is known.
    over: Option<(String, Instant)>,
    /// How long it is left alone then.
    pause: Duration,
}

/// Who wants to see a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever may run commands in the sandbox: what they ask for is tried now.
    Owner,
    /// Somebody who looks: they start nothing twice in a row.
    Visitor,
}

/// What has come of it.
pub enum Reached {
    /// Something listens.
    Listens(Box<Connection>),
    /// Its command has begun, and may listen soon.
    Comes,
    /// Its command does not listen, and has said this last.
    Silent(String),
    /// Nothing listens, and no command serves it.
    Nothing,
}

/// What there is of a command.
enum Seen {
    Began(u32),
    Runs(u32),
    Hangs(u32),
    /// It waits for its turn.
    Waits,
    Over(String),
}

impl Hands {
    /// Keeps the command that serves a port of a workspace's sandbox.
    ///
    /// # Errors
    /// `invalid_input`; `quota_exceeded` where as many ports have one as may.
    pub async fn serve(&self, workspace: &Workspace, served: &Served) -> Result<()> {
        if served.command.len() > COMMAND {
            return Err(Error::invalid("/command", format!("it has more than {COMMAND} bytes"))
                .hint("write it to a file of the workspace, and name that"));
        }
        if served.command.contains('\0') {
            return Err(Error::invalid("/command", "it has a null byte in it").hint("leave it out"));
        }
        if served.cwd.as_ref().is_some_and(|cwd| cwd.len() > CWD || cwd.contains('\0')) {
            let message = format!("it has more than {CWD} bytes, or a null byte in it");
            return Err(Error::invalid("/cwd", message).hint("name a directory of /workspace"));
        }
        if self.0.store.workspaces().serve(workspace.id, served, MOST).await? {
            return Ok(());
        }
        let full = format!("{MOST} ports of the sandbox have a command, which is all that may");
        Err(Error::new(Code::QuotaExceeded, full)
            .field("/command")
            .hint("forget one that is not needed: command \"\", with its port"))
    }

    /// Forgets the command of a port, and ends what runs of it.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn stop_serving(&self, workspace: &Workspace, port: u16) -> Result<()> {
        self.0.store.workspaces().unserve(workspace.id, port).await?;
        let Some(begun) = self.0.slot(workspace.id).serving.lock().await.remove(&port) else { return Ok(()) };
        if let Some(awake) = begun.awake.upgrade().filter(|awake| begun.over.is_none() && !awake.has_ended())
        {
            // It may end by itself meanwhile.
            drop(timeout(ANSWER, Hand::new(&awake).kill(begun.handle, SIGKILL)).await);
        }
        Ok(())
    }

    /// The command that serves a port.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn served(&self, workspace: &Workspace, port: u16) -> Result<Option<Served>> {
        let all = self.0.store.workspaces().served(workspace.id).await?;
        Ok(all.into_iter().find(|it| it.port == port))
    }

    /// Connects to a port of a sandbox. Where nothing listens there its command begins, and is waited for at most until
    /// `until`.
    ///
    /// # Errors
    /// Where the command cannot be begun.
    pub async fn reach(
        &self,
        workspace: &Workspace,
        hand: &Hand,
        port: u16,
        by: Who,
        until: tokio::time::Instant,
    ) -> Result<Reached> {
        match dialled(hand, port).await {
            Dialled::Listens(connection) => return Ok(Reached::Listens(connection)),
            // Who listens and does not answer is not begun once more.
            Dialled::Hangs => return Ok(Reached::Silent(String::new())),
            Dialled::Nothing => {}
        }
        let (mut began, mut steps) = (false, STEPS.into_iter());
        let mut step = Duration::ZERO;
        loop {
            let (workspace, own) = (workspace.clone(), hand.again());
            let now = by == Who::Owner && !began;
            let seen = self
                .to_its_end(move |hands| async move {
                    let serving = Arc::clone(&hands.0.slot(workspace.id).serving);
                    let mut all = serving.lock().await;
                    // Who waits for one that was changed meanwhile waits for the other.
                    match hands.served(&workspace, port).await? {
                        Some(served) => see_to(&mut all, &own, served, now).await.map(Some),
                        None => Ok(None),
                    }
                })
                .await?;
            let Some(seen) = seen else { return Ok(Reached::Nothing) };
            // It may have begun to listen before it was looked at.
            match dialled(hand, port).await {
                Dialled::Listens(connection) => return Ok(Reached::Listens(connection)),
                Dialled::Hangs => return Ok(Reached::Silent(String::new())),
                Dialled::Nothing => {}
            }
            let mut running = None;
            match seen {
                Seen::Began(handle) => (began, running) = (true, Some(handle)),
                Seen::Runs(handle) => (began, running) = (true, Some(handle)),
                Seen::Hangs(_) if by == Who::Visitor => return Ok(Reached::Silent(String::new())),
                Seen::Hangs(handle) => return Ok(Reached::Silent(said(hand, handle).await)),
                Seen::Over(said) if began || by == Who::Visitor => return Ok(Reached::Silent(said)),
                Seen::Waits | Seen::Over(_) => {}
            }
            step = steps.next().map_or(step, Duration::from_millis);
            if tokio::time::Instant::now() + step >= until {
                return Ok(match running.filter(|_| by == Who::Owner) {
                    Some(handle) => Reached::Silent(said(hand, handle).await),
                    None => Reached::Comes,
                });
            }
            sleep(step).await;
        }
    }
}

/// What there is at a port.
enum Dialled {
    Listens(Box<Connection>),
    Hangs,
    Nothing,
}

async fn dialled(hand: &Hand, port: u16) -> Dialled {
    match timeout(ANSWER, hand.dial(port)).await {
        Ok(Ok(connection)) => Dialled::Listens(Box::new(connection)),
        Ok(Err(session::Error::Refused(failure))) if failure.cause == session::Cause::NotFound => {
            Dialled::Nothing
        }
        // It is full of connections, or stopped, or gone: nothing is begun for that.
        Ok(Err(_)) | Err(_) => Dialled::Hangs,
    }
}

/// Begins the command of a port, unless it runs, or has ended soon and a moment ago. With `now` that is not waited for.
async fn see_to(all: &mut HashMap<u16, Begun>, hand: &Hand, served: Served, now: bool) -> Result<Seen> {
    let mut pause = AGAIN;
    if let Some(begun) = all.get_mut(&served.port) {
        let is_this_one = std::ptr::eq(begun.awake.as_ptr(), Arc::as_ptr(hand.awake()));
        let is_same = begun.served == served;
        if is_this_one && begun.look(hand).await? {
            if is_same {
                let hangs = begun.at.elapsed() > LISTENS;
                return Ok(if hangs { Seen::Hangs(begun.handle) } else { Seen::Runs(begun.handle) });
            }
            // Another one is to serve the port.
            hand.kill(begun.handle, SIGKILL).await?;
        }
        match &begun.over {
            Some((said, since)) if is_same && is_this_one => {
                if !now && since.elapsed() < begun.pause {
                    return Ok(Seen::Over(said.clone()));
                }
                pause = if begun.pause.is_zero() { AGAIN } else { (begun.pause * 2).min(AT_MOST) };
            }
            _ if is_same && !now && begun.at.elapsed() < AGAIN => return Ok(Seen::Waits),
            _ => {}
        }
    }
    let mut exec = Exec::command(served.command.clone());
    exec.cwd.clone_from(&served.cwd);
    let (awake, at) = (Arc::downgrade(hand.awake()), Instant::now());
    match hand.spawn(exec).await {
        Ok(handle) => {
            all.insert(served.port, Begun { awake, served, handle, at, over: None, pause });
            Ok(Seen::Began(handle))
        }
        // What cannot begin has ended at once.
        Err(session::Error::Refused(failure)) => {
            let over = Some((failure.message.clone(), at));
            all.insert(served.port, Begun { awake, served, handle: 0, at, over, pause });
            Ok(Seen::Over(failure.message))
        }
        Err(error) => Err(error.into()),
    }
}

impl Begun {
    /// Whether it, or something that it has begun, runs.
    async fn look(&mut self, hand: &Hand) -> Result<bool> {
        if self.over.is_some() {
            return Ok(false);
        }
        let silent = |_| Error::new(Code::Unavailable, "the sandbox does not say what runs in it");
        let all = timeout(ANSWER, hand.processes()).await.map_err(silent)??;
        // One that has served for a while begins again at once.
        if self.at.elapsed() > LISTENS {
            self.pause = Duration::ZERO;
        }
        match all.into_iter().find(|it| it.handle == self.handle) {
            Some(found) if found.state == State::Running => return Ok(true),
            Some(_) => {
                let said = said(hand, self.handle).await;
                match hand.forget(self.handle).await {
                    Err(session::Error::Refused(failure)) if failure.cause == session::Cause::Busy => {
                        return Ok(true);
                    }
                    Err(session::Error::Closed) => return Err(session::Error::Closed.into()),
                    _ => self.over = Some((said, Instant::now())),
                }
            }
            None => self.over = Some((String::new(), Instant::now())),
        }
        Ok(false)
    }
}

/// The last lines of what a command in the background has written, without what moves a terminal's cursor.
async fn said(hand: &Hand, handle: u32) -> String {
    let mut bytes = Vec::new();
    let read = async {
        let there = hand.processes().await.ok()?;
        let written = there.iter().find(|it| it.handle == handle)?.written;
        let mut attachment = hand.attach(handle, written.saturating_sub(TAIL)).await.ok()?;
        let mut output = attachment.output()?;
        while (bytes.len() as u64) < TAIL.min(written) {
            bytes.extend_from_slice(&output.chunk().await?);
        }
        Some(())
    };
    // What has been read by then is what there is.
    drop(timeout(READ, read).await);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|it| !it.is_control()).collect())
        .filter(|line: &String| !line.trim().is_empty())
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
