//! What sandboxes use, counted for the environments that they run for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kernel::{Code, EnvId, Meter, Metering, SandboxId, TenantId};
use tokio_util::sync::CancellationToken;

use super::Local;
use crate::runner::{Runner as _, Usage};

/// How often it is looked what those use that run.
const EVERY: Duration = Duration::from_secs(5);

/// How long the process that makes sandboxes has to say what one uses.
const ANSWER: Duration = Duration::from_secs(2);

const MIB: u64 = 1 << 20;

/// What is counted for whom.
#[derive(Default)]
pub(super) struct Counted {
    meters: OnceLock<Arc<dyn Metering>>,
    running: Mutex<HashMap<SandboxId, Running>>,
}

/// A sandbox that runs for somebody, and what of it is counted.
struct Running {
    tenant: TenantId,
    env: EnvId,
    cpu: Duration,
    /// What is not yet a whole mebibyte-millisecond, in byte-milliseconds.
    memory_rest: u64,
    looked: Instant,
}

impl Counted {
    fn running(&self) -> MutexGuard<'_, HashMap<SandboxId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a sandbox has used since this was looked at last.
    fn count(&self, id: SandboxId, usage: Usage) {
        let Some(meters) = self.meters.get() else { return };
        let mut running = self.running();
        let Some(it) = running.get_mut(&id) else { return };
        // Whole milliseconds; the rest of one comes along the next time.
        let cpu = usage.cpu.saturating_sub(it.cpu).as_millis() as u64;
        it.cpu += Duration::from_millis(cpu);
        let since = it.looked.elapsed();
        it.looked = Instant::now();
        let held = usage.memory_bytes.saturating_mul(since.as_millis() as u64).saturating_add(it.memory_rest);
        it.memory_rest = held % MIB;
        let (tenant, env) = (it.tenant, it.env);
        drop(running);
        meters.count(tenant, env, Meter::Cpu, cpu);
        meters.count(tenant, env, Meter::Memory, held / MIB);
    }
}

impl Local {
    /// From here on `meters` are told what sandboxes use; the first ones stay.
    pub fn metered_by(&self, meters: Arc<dyn Metering>) {
        let _ = self.counted.meters.set(meters);
    }

    /// What this sandbox uses, from its start on, is counted for an environment.
    pub fn count_for(&self, id: SandboxId, tenant: TenantId, env: EnvId) {
        let looked = Instant::now();
        let it = Running { tenant, env, cpu: Duration::ZERO, memory_rest: 0, looked };
        self.counted.running().insert(id, it);
    }

    /// Looks every few seconds what those use that run, until `stop`, and then once more.
    pub async fn meter(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            self.look().await;
        }
        self.look().await;
    }

    async fn look(&self) {
        let all: Vec<_> = self.counted.running().keys().copied().collect();
        for id in all {
            self.look_at(id).await;
        }
    }

    async fn look_at(&self, id: SandboxId) {
        match tokio::time::timeout(ANSWER, self.usage(id)).await {
            Ok(Ok(usage)) => self.counted.count(id, usage),
            Ok(Err(error)) if error.code() == Code::NotFound => drop(self.counted.running().remove(&id)),
            // It is looked at again.
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Counts what a sandbox has used that is about to be ended.
    pub(super) async fn last_look(&self, id: SandboxId) {
        let is_counted = self.counted.running().contains_key(&id);
        if is_counted {
            self.look_at(id).await;
            self.counted.running().remove(&id);
        }
    }
}
