//! What a sandbox does, and what its owner tells it to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernel::{Code, Env, Error, Result, SandboxId};
use sandbox::runner::{Isolation, Limiting, Limits, Runner as _, Usage};
use sandbox::workspace::Fullness;
use sandbox::workspace::templates::Template;
use store::{Kept, Workspace};

use crate::Hands;
use crate::awake::Slot;

/// How far a sandbox is from being at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its processes run.
    Running,
    /// They are stopped where they are.
    Paused,
    /// There are none; its files are as they were.
    Parked,
    /// Its files are in the store of checkpoints, and come back with the next call.
    Archived,
}

impl State {
    /// Its name, in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Parked => "parked",
            Self::Archived => "archived",
        }
    }
}

/// What is known of a sandbox without waking it.
#[derive(Debug, Clone)]
pub struct Status {
    /// How far it is from being at work.
    pub state: State,
    /// What there is where it has processes.
    pub awake: Option<AwakeStatus>,
}

/// What is known of a sandbox that has processes.
#[derive(Debug, Clone)]
pub struct AwakeStatus {
    /// How strongly it is kept from its host.
    pub isolation: Isolation,
    /// Whether its limits are held.
    pub limiting: Limiting,
    /// What it uses.
    pub usage: Usage,
    /// How full its workspace was when that was looked at last.
    pub disk: Option<Fullness>,
}

/// How a new sandbox is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// What it has below `/usr/local`; what the operator has chosen where it is not said.
    pub template: Option<Template>,
    /// The least that it must be kept apart by, where that is more than the operator demands.
    pub isolation: Option<Isolation>,
}

impl Hands {
    /// What one sandbox may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.0.limits.each
    }

    /// Makes one more workspace of `owner`, whose own has no name after its own.
    ///
    /// # Errors
    /// `conflict` where it has one of that name; `unavailable` at `/isolation` where it cannot be kept apart like that; as
    /// [`Hands::workspace`].
    pub async fn create(
        &self,
        env: &Env,
        owner: &str,
        name: Option<&str>,
        wanted: Wanted,
    ) -> Result<Workspace> {
        let template = wanted.template.unwrap_or(self.0.limits.template);
        let mut new = self.new_workspace(env, String::new(), template.as_str());
        let name = name.map_or_else(|| new.sandbox.to_string(), str::to_owned);
        new.name = format!("{owner}/{name}");
        new.isolation = wanted.isolation.map(|level| level.as_str().to_owned());
        if wanted.isolation.is_some() {
            self.0.can_meet(self.0.isolation_of(&new).await?).await?;
        }
        let made = self.insert(&new).await?;
        if made.id != new.id {
            return Err(Error::new(Code::Conflict, format!("there is a sandbox {name:?}"))
                .field("/name")
                .hint("use that one, or choose another name"));
        }
        Ok(made)
    }

    /// What is known of the workspace's sandbox.
    ///
    /// # Errors
    /// Where the process that makes sandboxes fails.
    pub async fn status(&self, workspace: &Workspace) -> Result<Status> {
        let state = if workspace.kept == Kept::Archived { State::Archived } else { State::Parked };
        let parked = Status { state, awake: None };
        // Who only looks waits for nobody, and keeps nobody from anything.
        let seen = self.0.slots().get(&workspace.id).and_then(|slot| slot.seen());
        let Some(awake) = seen else { return Ok(parked) };
        let state = if awake.is_stopped() { State::Paused } else { State::Running };
        let mut usage = match self.0.local.usage(awake.sandbox).await {
            Err(error) if error.code() == Code::NotFound => return Ok(parked),
            usage => usage?,
        };
        if awake.isolation == Isolation::Gvisor && state == State::Running {
            // The host counts the kernel's threads; who does not answer in time keeps that number.
            usage.pids = awake.processes().await.unwrap_or(usage.pids);
        }
        let (isolation, limiting, disk) = (awake.isolation, awake.limiting, awake.fullness());
        Ok(Status { state, awake: Some(AwakeStatus { isolation, limiting, usage, disk }) })
    }

    /// The sandboxes in which something runs.
    #[must_use]
    pub fn running(&self) -> Vec<SandboxId> {
        let seen: Vec<_> = self.0.slots().values().filter_map(|slot| slot.seen()).collect();
        let runs = seen.iter().filter(|awake| !awake.has_ended() && !awake.is_stopped());
        runs.map(|awake| awake.sandbox).collect()
    }

    /// Ends a sandbox to which nobody comes back.
    ///
    /// # Errors
    /// Where it cannot be ended.
    pub async fn end(&self, sandbox: SandboxId) -> Result<()> {
        let is_it = |slot: &Arc<Slot>| slot.seen().is_some_and(|awake| awake.sandbox == sandbox);
        let slot = self.0.slots().values().find(|slot| is_it(slot)).cloned();
        let Some(slot) = slot else { return Ok(()) };
        let mut held = slot.lock().await;
        self.0.end(&slot, &mut held).await
    }

    /// Stops whatever runs in the workspace's sandbox where it is, until the next call. Where nothing runs there is
    /// nothing to stop.
    ///
    /// # Errors
    /// Where it cannot be stopped.
    pub async fn pause(&self, workspace: &Workspace) -> Result<()> {
        let Some(slot) = self.0.slots().get(&workspace.id).cloned() else { return Ok(()) };
        let held = slot.lock().await;
        if let Some(awake) = held.as_ref().filter(|awake| !awake.has_ended()) {
            // Whoever has it stopped for want of room does not have it go on.
            awake.waits_for_room.store(false, Ordering::SeqCst);
            if !awake.stopped.load(Ordering::SeqCst) {
                self.0.local.pause(awake.sandbox).await?;
                awake.stopped.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}
