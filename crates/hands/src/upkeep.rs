//! What becomes of sandboxes that nobody uses: they are stopped where they are, then ended. Their files stay.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kernel::{Code, Result, SandboxId, Timestamp, WorkspaceId};
use sandbox::runner::{Limiting, Runner as _};
use store::Ended;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::awake::{Awake, Held, Slot};
use crate::{Hands, Inner};

/// A workspace may have as many files as it may have pieces of this many bytes.
const BYTES_OF_A_FILE: u64 = 4096;

/// What a workspace grows by while the disk has no room, in bytes, is that nobody has room: whoever does so is ended.
const GROWTH: u64 = 1 << 20;

/// How often it is looked who is not used, at the least.
const LOOK: Duration = Duration::from_secs(5);

/// The least time between two copies of what a sandbox holds whose memory is short again and again.
const NEXT_COPY: Duration = Duration::from_secs(60);

impl Hands {
    /// Looks after the sandboxes until `stop`.
    pub async fn tend(&self, stop: CancellationToken) {
        let look = LOOK.min(self.0.limits.freeze_after.max(Duration::from_secs(1)));
        let resting = async {
            while stop.run_until_cancelled(tokio::time::sleep(look)).await.is_some() {
                self.rest().await;
            }
        };
        // What takes its time keeps nobody from being put to rest.
        let storing = async {
            while stop.run_until_cancelled(tokio::time::sleep(look)).await.is_some() {
                self.store_away().await;
            }
        };
        tokio::join!(resting, storing);
    }

    /// Stops and ends what has not been used for long enough.
    pub async fn rest(&self) {
        let slots: Vec<_> = self.0.slots().iter().map(|(id, slot)| (*id, Arc::clone(slot))).collect();
        for (workspace, slot) in slots {
            // Whose place is taken is in use, and writes as before.
            let Some(held) = slot.try_lock() else {
                self.weigh_in_use(workspace, &slot);
                continue;
            };
            if let Err(error) = self.look_after(workspace, &slot, held).await {
                tracing::warn!(workspace.id = %workspace, error = error.chain(), "a sandbox could not be put to rest");
            }
        }
    }

    async fn look_after(&self, workspace: WorkspaceId, slot: &Arc<Slot>, mut held: Held) -> Result<()> {
        let Some(awake) = held.clone() else { return Ok(()) };
        let (inner, records) = (&self.0, self.0.store.workspaces());
        if awake.has_ended() {
            // What takes its time keeps nobody else from being looked after, and nobody goes on with it before.
            let (hands, slot) = (self.clone(), Arc::clone(slot));
            let work = async move {
                if let Err(error) = hands.clear_away(&slot, &mut held).await {
                    tracing::warn!(workspace.id = %workspace, error = error.chain(), "a sandbox could not be ended");
                }
            };
            tokio::spawn(work.in_current_span());
            return Ok(());
        }
        if !awake.is_stopped() {
            let usage = inner.local.usage(awake.sandbox).await?;
            awake.worked(usage.cpu);
            if awake.was_out_of_memory(usage.oom_kills) {
                inner.ended(workspace, Ended::OutOfMemory).await?;
                self.checkpoint_of(slot, awake.sandbox, Ended::OutOfMemory);
            }
            let has_room = inner.has_room(0);
            let may_write = !has_room && !awake.is_held() && awake.limiting == Limiting::Enforced;
            // It writes no more until it is known who has filled the disk; one that cannot be stopped is weighed as it runs.
            if may_write {
                awake.waits_for_room.store(true, Ordering::SeqCst);
                let is_stopped = inner.local.pause(awake.sandbox).await.is_ok();
                awake.stopped.store(is_stopped, Ordering::SeqCst);
                awake.waits_for_room.store(is_stopped, Ordering::SeqCst);
            }
            let due = if has_room { awake.weighing.begin() } else { awake.weighing.begin_early() };
            if due {
                self.weigh_soon(workspace, slot, &awake);
            }
        } else if awake.waits_for_room.load(Ordering::SeqCst) {
            // Whoever weighed it may not have known that it waits.
            if awake.weighing.begin_early() {
                self.weigh_soon(workspace, slot, &awake);
            } else if awake.is_held() && awake.waits_for_room.swap(false, Ordering::SeqCst) {
                inner.go_on(&awake).await;
            }
        }
        let idle = awake.idle();
        if idle >= inner.limits.park_after {
            inner.end(slot, &mut held).await?;
            records.ended(workspace, None, Timestamp::now()).await?;
        } else if idle >= inner.limits.freeze_after
            && !awake.is_stopped()
            && awake.limiting == Limiting::Enforced
        {
            inner.local.pause(awake.sandbox).await?;
            awake.stopped.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Has the files of a sandbox weighed that somebody else does something about: for as long as copies of it are made, one
    /// after the other, nobody else gets its place.
    fn weigh_in_use(&self, workspace: WorkspaceId, slot: &Arc<Slot>) {
        let Some(awake) = slot.seen().filter(|awake| !awake.is_stopped()) else { return };
        let due = if self.0.has_room(0) { awake.weighing.begin() } else { awake.weighing.begin_early() };
        if due {
            self.weigh_soon(workspace, slot, &awake);
        }
    }

    fn weigh_soon(&self, workspace: WorkspaceId, slot: &Arc<Slot>, awake: &Arc<Awake>) {
        let (hands, slot, awake) = (self.clone(), Arc::clone(slot), Arc::clone(awake));
        tokio::spawn(async move { hands.weigh(workspace, &slot, &awake).await }.in_current_span());
    }

    /// Keeps what was there when something went wrong in a sandbox, in place of what was kept the last time that it did,
    /// unless that was a moment ago.
    fn checkpoint_of(&self, slot: &Arc<Slot>, sandbox: SandboxId, why: Ended) {
        if !slot.keeping.begin() {
            return;
        }
        let (hands, slot) = (self.clone(), Arc::clone(slot));
        let work = async move {
            if let Err(error) = hands.keep_after(&slot, sandbox, why).await {
                tracing::warn!(sandbox.id = %sandbox, error = error.chain(), "what a sandbox left was not kept");
            }
            slot.keeping.done(NEXT_COPY);
        };
        tokio::spawn(work.in_current_span());
    }

    /// Ends a sandbox in which nothing can be done any more. Where nobody has told it to end that is noted, and what it
    /// has left is kept before anybody goes on with it.
    pub(crate) async fn clear_away(&self, slot: &Slot, held: &mut Held) -> Result<()> {
        let (inner, Some(awake)) = (&self.0, held.clone()) else { return Ok(()) };
        if awake.was_told_to_end() {
            return inner.end(slot, held).await;
        }
        let Some(workspace) = inner.store.workspaces().of_sandbox(awake.sandbox).await? else {
            return inner.end(slot, held).await;
        };
        let usage = inner.local.usage(awake.sandbox).await;
        let short = usage.is_ok_and(|usage| awake.was_out_of_memory(usage.oom_kills));
        let why = if short { Ended::OutOfMemory } else { Ended::Crashed };
        inner.ended(workspace.id, why).await?;
        inner.end(slot, held).await?;
        // One that ends again and again is not copied each time.
        if slot.keeping_ended.begin() {
            if let Err(error) = self.keep_as(&workspace, slot, held, why).await {
                tracing::warn!(workspace.id = %workspace.id, error = error.chain(), "what a sandbox left was not kept");
            }
            slot.keeping_ended.done(NEXT_COPY);
        }
        Ok(())
    }

    /// Weighs the files of a sandbox that is awake, and ends it where they take more than they may, or more than before
    /// on a disk that has no room. What writes is ended then; what removes is quicker than the next look.
    async fn weigh(&self, workspace: WorkspaceId, slot: &Slot, awake: &Arc<Awake>) {
        let outcome = async {
            let (inner, Some(tenant)) = (&self.0, slot.tenant()) else { return Ok(()) };
            let own = inner.weighing_of.of(tenant).await;
            let turn = inner.weighing.acquire().await.map_err(kernel::Error::internal)?;
            awake.weighing.begins();
            let fullness = match inner.local.fullness(workspace).await {
                Ok(fullness) => Some(fullness),
                // What cannot be weighed within its bounds is past them.
                Err(error) if error.code() == Code::TooLarge => None,
                Err(error) => {
                    awake.weighed(awake.fullness());
                    return Err(error);
                }
            };
            awake.weighed(fullness);
            // Of one that has ended meanwhile the files may be others by now.
            let is_it = slot.seen().is_some_and(|now| Arc::ptr_eq(&now, awake));
            let grown = fullness.filter(|_| is_it).map_or(0, |fullness| slot.weighs(fullness.bytes));
            // Others are weighed while this waits for its place.
            drop((turn, own));
            let is_overfull = fullness.is_none_or(|it| {
                // Files without bytes take of the disk, too.
                let most = it.quota_bytes / BYTES_OF_A_FILE;
                !it.enforced && (it.bytes > it.quota_bytes || it.files > most)
            });
            let why = match (is_overfull, inner.has_room(0)) {
                (true, _) => Ended::OverQuota,
                (false, false) if grown > GROWTH => Ended::DiskFull,
                _ => return Ok(()),
            };
            let mut held = slot.lock().await;
            if held.as_ref().is_some_and(|now| Arc::ptr_eq(now, awake)) {
                tracing::warn!(workspace.id = %workspace, why = why.as_str(), "a sandbox is ended for what it has written");
                inner.end(slot, &mut held).await?;
                inner.ended(workspace, why).await?;
            }
            Ok::<(), kernel::Error>(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(workspace.id = %workspace, error = error.chain(), "a workspace could not be weighed");
        }
        if awake.waits_for_room.swap(false, Ordering::SeqCst) {
            let held = slot.lock().await;
            if held.as_ref().is_some_and(|now| Arc::ptr_eq(now, awake)) && awake.is_stopped() {
                self.0.go_on(awake).await;
            }
        }
    }
}

impl Inner {
    /// Notes why a sandbox has ended, or would have.
    pub(crate) async fn ended(&self, workspace: WorkspaceId, why: Ended) -> Result<()> {
        Ok(self.store.workspaces().ended(workspace, Some(why), Timestamp::now()).await?)
    }

    /// Whether the disk that workspaces are on has room for that many bytes more than what the platform itself needs.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let needed = self.limits.spare_bytes.saturating_add(bytes);
        rustix::fs::statvfs(&self.limits.directory)
            .is_ok_and(|disk| disk.f_bavail.saturating_mul(disk.f_frsize) > needed)
    }

    /// Refuses what would take that many bytes of a disk that does not have them.
    pub(crate) fn hold_room(&self, bytes: u64) -> Result<()> {
        if self.has_room(bytes) {
            return Ok(());
        }
        Err(kernel::Error::new(Code::Unavailable, "the disk has no room for work in sandboxes")
            .hint("the operator has to free space on the disk; nothing was changed"))
    }

    /// Removes workspaces and snapshots that no row names: their rows went, or never came, in an earlier process.
    pub(crate) async fn tidy(&self) -> Result<()> {
        let tidy = async {
            let (workspaces, snapshots) = self.local.ids().await?;
            let known = self.store.workspaces().ids().await?;
            let known: (HashSet<_>, HashSet<_>) =
                (known.0.into_iter().collect(), known.1.into_iter().collect());
            for id in workspaces.into_iter().filter(|id| !known.0.contains(id)) {
                self.local.remove_workspace(id).await?;
            }
            for id in snapshots.into_iter().filter(|id| !known.1.contains(id)) {
                self.local.remove_snapshot(id).await?;
            }
            Ok(())
        };
        self.tidy.get_or_try_init(|| tidy).await.map(drop)
    }
}
