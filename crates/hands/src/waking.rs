//! How sandboxes wake and end, and which of them go where there are too many.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kernel::{Code, Error, Result, TenantId, Timestamp};
use sandbox::runner::Runner as _;
use store::{Kept, Workspace};

use crate::awake::{Awake, Held, Slot};
use crate::{Hand, Hands, Inner};

/// How long who needs a place waits for one, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);

/// For how long visitors do not try again what one of them could not.
const VISITORS_WAIT: Duration = Duration::from_secs(5);

impl Hands {
    /// The workspace's sandbox, woken where it sleeps.
    ///
    /// # Errors
    /// `unavailable` where this machine makes no sandboxes, or all places are taken, with what is to be done.
    pub async fn wake(&self, workspace: &Workspace) -> Result<Hand> {
        if let Some(hand) = self.at_work(workspace) {
            return Ok(hand);
        }
        let workspace = workspace.clone();
        self.to_its_end(|hands| async move { hands.waken(&workspace).await }).await
    }

    /// As [`Hands::wake`], for somebody who visits it: of those that come meanwhile one wakes it, and the others wait.
    ///
    /// # Errors
    /// As there; where another visitor has just failed.
    pub async fn wake_for_visitor(&self, workspace: &Workspace) -> Result<Hand> {
        if let Some(hand) = self.at_work(workspace) {
            return Ok(hand);
        }
        let mut failed = Arc::clone(&self.0.slot(workspace.id).visited).lock_owned().await;
        if let Some(hand) = self.at_work(workspace) {
            return Ok(hand);
        }
        if failed.is_some_and(|at| at.elapsed() < VISITORS_WAIT) {
            return Err(Error::new(Code::Unavailable, "the sandbox could not be woken a moment ago")
                .retry_after(VISITORS_WAIT));
        }
        let workspace = workspace.clone();
        self.to_its_end(|hands| async move {
            let woken = hands.waken(&workspace).await;
            *failed = woken.is_err().then(Instant::now);
            woken
        })
        .await
    }

    /// The workspace's sandbox where it is at work, and nobody decides about it at this moment.
    fn at_work(&self, workspace: &Workspace) -> Option<Hand> {
        let slot = self.0.slots().get(&workspace.id).cloned()?;
        let held = slot.try_lock()?;
        let awake = held.as_ref()?;
        (!awake.has_ended() && !awake.is_stopped()).then(|| Hand::new(awake))
    }

    async fn waken(&self, workspace: &Workspace) -> Result<Hand> {
        let inner = &self.0;
        let slot = inner.slot(workspace.id);
        let mut held = slot.lock().await;
        if let Some(awake) = held.as_ref() {
            let has_ended = awake.has_ended();
            if !has_ended && awake.is_stopped() {
                if awake.waits_for_room.load(Ordering::SeqCst) {
                    // Nobody's call lets it write on a full disk before it is known who has filled that.
                    inner.hold_room(0)?;
                    awake.waits_for_room.store(false, Ordering::SeqCst);
                }
                inner.go_on(awake).await;
            }
            if !has_ended && !awake.is_stopped() {
                return Ok(Hand::new(awake));
            }
            // It is made anew: its files are what counts.
            if has_ended {
                self.clear_away(&slot, &mut held).await?;
            } else {
                inner.end(&slot, &mut held).await?;
            }
        }
        let isolation = inner.isolation_of(workspace).await?;
        inner.hold_room(0)?;
        // It may have been removed or archived while this waited for its place.
        let Some(workspace) = &inner.store.workspaces().of_sandbox(workspace.sandbox).await? else {
            inner.slots().remove(&workspace.id);
            return Err(Error::not_found("such workspace (any more)"));
        };
        inner.tidy().await?;
        let begins_with = match workspace.frozen {
            Some(frozen) => {
                let all = inner.store.workspaces().snapshots(workspace.id).await?;
                all.iter().find(|it| it.id == frozen).map(|it| it.bytes)
            }
            None => None,
        };
        let placed = inner.take_place(&slot, workspace.tenant).await;
        placed.inspect_err(|_| inner.starts.without_place())?;
        let version = inner.local.newest();
        match inner.make(workspace, isolation).await {
            Ok(awake) => {
                inner.starts.made();
                let hand = Hand::new(&awake);
                if workspace.frozen.is_some() {
                    slot.begins_with(begins_with);
                } else if workspace.kept == Kept::Unsaid && workspace.used == workspace.created {
                    slot.begins_with(Some(0));
                }
                slot.show(&awake);
                // Whoever has changed it meanwhile may not have seen this one.
                if version.is_some() && inner.local.newest() != version {
                    inner.swap(&awake).await;
                }
                *held = Some(awake);
                inner.store.workspaces().touch(workspace.id, Timestamp::now()).await?;
                Ok(hand)
            }
            Err(error) => {
                inner.starts.failed();
                slot.note(None);
                // Whatever there is of it is nobody's.
                if let Err(error) = inner.local.destroy(workspace.sandbox).await {
                    tracing::warn!(sandbox.id = %workspace.sandbox, error = error.chain(), "a sandbox is left half made");
                }
                Err(error)
            }
        }
    }
}

impl Inner {
    /// Ends the sandbox of a place. Where that fails it is there, and is of no use to anybody but who ends it.
    pub(crate) async fn end(&self, slot: &Slot, held: &mut Held) -> Result<()> {
        if let Some(awake) = held.as_ref() {
            awake.ending.store(true, Ordering::SeqCst);
            awake.run.end();
            self.local.destroy(awake.sandbox).await?;
        }
        **held = None;
        slot.note(None);
        Ok(())
    }

    /// Lets a sandbox go on that is stopped where it is, as far as that can be done.
    pub(crate) async fn go_on(&self, awake: &Awake) {
        let resumed = self.local.resume(awake.sandbox).await;
        awake.stopped.store(resumed.is_err(), Ordering::SeqCst);
        if resumed.is_ok() {
            awake.run.goes_on().await;
        }
    }

    /// Takes a place among those that are awake; where there is none, of those that nobody uses the one that has waited
    /// longest goes for it.
    async fn take_place(&self, slot: &Slot, tenant: TenantId) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let of_tenant = {
                let slots = self.slots();
                let tenants = slots.values().filter_map(|slot| slot.tenant());
                let (own, all) =
                    tenants.fold((0, 0), |(own, all), it| (own + usize::from(it == tenant), all + 1));
                if own < self.limits.awake_of_tenant && all < self.limits.awake {
                    slot.note(Some(tenant));
                    return Ok(());
                }
                own >= self.limits.awake_of_tenant
            };
            // Whoever needs a place gives up one of its own first.
            let ended = self.end_longest_idle(Some(tenant)).await?
                || !of_tenant && self.end_longest_idle(None).await?;
            // What has just come to its end is not quite over.
            if !ended && Instant::now() < deadline {
                tokio::time::sleep(STEP).await;
            } else if !ended {
                let (whose, most) = match of_tenant {
                    true => ("of the tenant", self.limits.awake_of_tenant),
                    false => ("of the platform", self.limits.awake),
                };
                return Err(Error::new(
                    Code::Unavailable,
                    format!("all {most} sandboxes {whose} are at work"),
                )
                .retry_after(Duration::from_secs(5))
                .hint("pause one that is not needed, wait until one rests, or have sandbox.awake raised"));
            }
        }
    }

    /// Ends the sandbox that nobody has used for the longest time, of `tenant` or of all; whether there was one. What runs
    /// in it and has not rested for so long that it would be stopped is at work, and goes on.
    async fn end_longest_idle(&self, tenant: Option<TenantId>) -> Result<bool> {
        let slots = self.slots().values().cloned().collect::<Vec<_>>().into_iter();
        let slots =
            slots.filter(|slot| slot.tenant().is_some() && (tenant.is_none() || slot.tenant() == tenant));
        let idle = |slot: &Arc<Slot>| slot.try_lock()?.as_ref().map(|awake| awake.idle());
        let mut idle: Vec<_> = slots.filter_map(|slot| Some((idle(&slot)?, slot))).collect();
        idle.retain(|(idle, _)| !idle.is_zero());
        idle.sort_by_key(|(idle, _)| Reverse(*idle));
        for (_, slot) in idle {
            let Some(mut held) = slot.try_lock() else { continue };
            // One that does not end when it is told to is tried again in the background.
            let ends = |awake: &&Arc<Awake>| !awake.idle().is_zero() && !awake.was_told_to_end();
            let Some(awake) = held.as_ref().filter(ends) else { continue };
            let rests = awake.is_stopped() || awake.has_ended() || awake.idle() >= self.limits.freeze_after;
            if rests || awake.is_empty().await {
                let sandbox = awake.sandbox;
                match self.end(&slot, &mut held).await {
                    Ok(()) => return Ok(true),
                    Err(error) => {
                        tracing::warn!(sandbox.id = %sandbox, error = error.chain(), "a sandbox could not be ended");
                    }
                }
            }
        }
        Ok(false)
    }
}
