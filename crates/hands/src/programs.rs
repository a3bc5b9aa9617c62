//! The programs that a platform's builder has put beside the hand in all sandboxes: which there are, and how others come
//! in while sandboxes run, are stopped, or sleep.

use std::sync::Arc;

use futures::StreamExt as _;
use kernel::{BlobHash, Code, Error, Result, SandboxId, WorkspaceId};
use sandbox::local::programs::{MOST_BYTES, Program, Programs};
use sandbox::local::{Swap, not_whole};
use sandbox::runner::{Isolation, Runner as _, Spec};
use sandbox::session::Session;
use sandbox::workspace::{LEAST_QUOTA, Origin};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use crate::awake::Awake;
use crate::{Hand, Hands, Inner};

/// Sandboxes that a version is tried in at once.
const AT_ONCE: usize = 8;

/// What sandboxes are made with.
#[derive(Debug, Clone)]
pub struct Equipment {
    /// The version of the hand and the programs beside it: the digest of all of them.
    pub version: BlobHash,
    /// The programs beside it, by name.
    pub programs: Vec<Program>,
}

/// What came of another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swapped {
    /// It, which sandboxes that are made from here on have.
    pub version: BlobHash,
    /// The one before it.
    pub before: BlobHash,
    /// Sandboxes that were there and have it.
    pub swapped: usize,
    /// Those in which it fails its check, and which go on with what they had until they are made again.
    pub reverted: usize,
}

impl Hands {
    /// What sandboxes are made with.
    ///
    /// # Errors
    /// `unavailable` where this machine makes no sandboxes.
    pub async fn equipment(&self) -> Result<Equipment> {
        let version = self.0.local.runner().await?;
        let programs = self.0.local.programs().map(Programs::list).transpose()?.unwrap_or_default();
        Ok(Equipment { version, programs })
    }

    /// Has all sandboxes use the programs that a tar holds, and the hand. They are tried in a sandbox that is nobody's
    /// first, and kept, so that later processes of the platform have them; then those sandboxes get them that are there.
    ///
    /// # Errors
    /// `invalid_input`, `too_large` where it holds no programs; `conflict` where they fail their check, and where others
    /// are just coming in. Nothing is changed then.
    pub async fn use_programs(&self, archive: impl AsyncRead + Unpin + Send + 'static) -> Result<Swapped> {
        let inner = &self.0;
        let busy = |_| Error::new(Code::Conflict, "another version is just coming in");
        let _turn = inner.equipping.try_lock().map_err(busy)?;
        let nowhere = || Error::new(Code::Unavailable, "nobody keeps programs for sandboxes here");
        let programs = inner.local.programs().cloned().ok_or_else(nowhere)?;
        // It lies there twice until it is used.
        inner.hold_room(2 * MOST_BYTES)?;
        let unpacking = programs.clone();
        let unpacked = move || unpacking.unpack(&mut SyncIoBridge::new(archive));
        let outcome = match tokio::task::spawn_blocking(unpacked).await.map_err(Error::internal)? {
            Ok(()) => self.take(&programs).await,
            Err(error) => Err(error),
        };
        if let Err(error) = programs.forget_next() {
            tracing::warn!(error = error.chain(), "programs that are not used are left");
        }
        outcome
    }

    /// Has what was unpacked take the place of what is there.
    async fn take(&self, programs: &Programs) -> Result<Swapped> {
        let inner = &self.0;
        let before = inner.local.runner().await?;
        let version = inner.local.add_next().await?;
        inner.try_version(version).await?;
        programs.exchange()?;
        if let Err(error) = inner.local.use_runner(version).await {
            if let Err(error) = programs.exchange() {
                tracing::error!(error = error.chain(), "programs that are not used are kept");
            }
            return Err(error);
        }
        // From here on none is made with another; one that is being made looks when it is.
        let slots: Vec<_> = inner.slots().values().cloned().collect();
        let awake = slots.into_iter().filter_map(|slot| slot.seen());
        let swaps = futures::stream::iter(awake).map(|awake| async move { inner.swap(&awake).await });
        let swaps: Vec<_> = swaps.buffer_unordered(AT_ONCE).filter_map(async |swap| swap).collect().await;
        let reverted = swaps.iter().filter(|swap| **swap == Swap::Reverted).count();
        let swapped = swaps.len() - reverted;
        tracing::info!(%version, %before, swapped, reverted, "sandboxes have other programs of the platform");
        Ok(Swapped { version, before, swapped, reverted })
    }
}

impl Inner {
    /// Has what starts in a sandbox use the newest version; none where it ends meanwhile.
    pub(crate) async fn swap(&self, awake: &Arc<Awake>) -> Option<Swap> {
        // Two at once would take each other's version for the one before.
        let _turn = awake.swapping.lock().await;
        let version = self.local.newest()?;
        let outcome = async {
            if !awake.is_stopped() {
                let hand = Hand::new(awake);
                let swap = self.local.swap_runner(awake.sandbox, &hand, version).await?;
                // Nothing answers in one that was stopped meanwhile.
                if swap == Swap::Done || !awake.is_stopped() {
                    return Ok(swap);
                }
            }
            self.local.point(awake.sandbox, version).await?;
            Ok::<_, Error>(Swap::Done)
        };
        let outcome = outcome.await;
        if awake.has_ended() {
            return None;
        }
        match outcome {
            Ok(Swap::Done) => return Some(Swap::Done),
            Ok(Swap::Reverted) => {
                tracing::warn!(sandbox.id = %awake.sandbox, %version, "a version fails its check")
            }
            Err(error) => {
                tracing::warn!(sandbox.id = %awake.sandbox, error = error.chain(), "a version could not be changed");
            }
        }
        Some(Swap::Reverted)
    }

    /// Tries a version in a sandbox that is nobody's: what tenants' sandboxes say of it is theirs to choose.
    async fn try_version(&self, version: BlobHash) -> Result<()> {
        self.tidy().await?;
        let id = WorkspaceId::new();
        self.local.create_workspace(id, Origin::Empty, LEAST_QUOTA).await?;
        let tried = async {
            if self.limits.isolation.all == Some(Isolation::Gvisor) {
                return self.try_in(id, version, Isolation::Gvisor).await;
            }
            let is_whole = self.try_in(id, version, Isolation::Namespaces).await?;
            // Where it can be had, somebody may demand it tomorrow.
            if is_whole && self.can_meet(Isolation::Gvisor).await.is_ok() {
                return self.try_in(id, version, Isolation::Gvisor).await;
            }
            Ok(is_whole)
        };
        let tried = tried.await;
        if let Err(error) = self.local.remove_workspace(id).await {
            // What no row names goes at the next start.
            tracing::warn!(workspace.id = %id, error = error.chain(), "a trial's workspace could not be removed");
        }
        if tried? { Ok(()) } else { Err(not_whole()) }
    }

    async fn try_in(&self, id: WorkspaceId, version: BlobHash, isolation: Isolation) -> Result<bool> {
        let (workspace, layers) =
            (self.local.tree(id).await?, self.layers(self.limits.template.as_str()).await?);
        let spec = Spec { id: SandboxId::new(), workspace, layers, limits: self.limits.each };
        let started = match isolation {
            Isolation::Gvisor => self.local.gvisor().create(&spec).await?,
            _ => self.local.create(&spec).await?,
        };
        let session = Session::open(started.hand).await;
        let is_whole = match &session {
            Ok(session) => Ok(self.local.is_whole(session, version).await),
            Err(_) => Err(Error::internal("the sandbox of a trial does not speak")),
        };
        self.local.destroy(spec.id).await?;
        is_whole
    }
}
