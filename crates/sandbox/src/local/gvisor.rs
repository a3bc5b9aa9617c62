//! gVisor as what keeps sandboxes from their host: a second runner of the same process. Everything of a sandbox is made,
//! bounded and removed as that of any other; only what is in its jail is gVisor, with the hand and its commands in that.

use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use kernel::{Result, SandboxId};

use super::client::Local;
use super::error::Error;
use crate::runner::{Isolation, Limits, Runner, Spec, Started, Usage};

/// Where `runsc` is, unless somebody says where.
const PLACES: [&str; 3] = ["/usr/bin/runsc", "/usr/local/bin/runsc", "/usr/local/sbin/runsc"];

/// What gVisor needs beside what is in it: its own memory, that of the hand, and what the hand keeps of output.
const OWN_BYTES: u64 = 192 << 20;

/// Threads of the host for each process inside, and beside those. Each process inside is one outside, with a thread for
/// each of gVisor's that has ever run it: many that are busy at once cost many times as many.
const THREADS: u32 = 32;
const OWN_THREADS: u32 = 1_024;

/// The least of a machine's processes and threads that one sandbox leaves to others, as a part of all: all but a
/// sixteenth. How many there are, where the kernel does not say.
const SHARE: u32 = 16;
const DEFAULT_PIDS: u32 = 32_768;

/// Sandboxes of this machine that gVisor keeps from their host. Where there is none, none is made.
#[derive(Clone, Copy)]
pub struct Gvisor<'a>(pub(super) &'a Local);

impl Runner for Gvisor<'_> {
    fn isolation(&self) -> Isolation {
        Isolation::Gvisor
    }

    fn create<'a>(&'a self, spec: &'a Spec) -> BoxFuture<'a, Result<Started>> {
        Box::pin(self.0.started(Isolation::Gvisor, spec))
    }

    fn pause(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        self.0.pause(id)
    }

    fn resume(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        self.0.resume(id)
    }

    fn destroy(&self, id: SandboxId) -> BoxFuture<'_, Result<()>> {
        self.0.destroy(id)
    }

    fn usage(&self, id: SandboxId) -> BoxFuture<'_, Result<Usage>> {
        self.0.usage(id)
    }
}

/// The program, where `named` says or else where it usually is.
///
/// # Errors
/// [`Error::NoGvisor`].
pub fn program(named: Option<&Path>) -> Result<PathBuf, Error> {
    let places = match named {
        Some(path) => vec![path.to_owned()],
        None => PLACES.iter().map(PathBuf::from).collect(),
    };
    places.into_iter().find(|path| path.is_file()).ok_or(Error::NoGvisor)
}

/// What a sandbox may use on the host, so that there is inside what `limits` say.
#[must_use]
pub fn around(limits: Limits) -> Limits {
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok();
    let most = most.and_then(|most| most.trim().parse().ok()).unwrap_or(DEFAULT_PIDS);
    around_here(limits, most)
}

/// Of a machine that has at most so many processes and threads nobody takes all.
fn around_here(limits: Limits, most: u32) -> Limits {
    let threads = limits.pids.saturating_mul(THREADS).saturating_add(OWN_THREADS);
    Limits {
        memory_bytes: limits.memory_bytes.saturating_add(OWN_BYTES),
        pids: if limits.pids > most { limits.pids } else { threads.min(most / SHARE) },
        ..limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_gets_what_gvisor_needs_and_a_share_of_a_small_machine() {
        let limits = Limits { memory_bytes: 1 << 30, pids: 100, ..Limits::default() };
        let large = around_here(limits, 4_194_304);
        assert_eq!((large.memory_bytes, large.pids), ((1 << 30) + OWN_BYTES, 4_224));
        assert_eq!(around_here(limits, 32_768).pids, 2_048);
        assert_eq!(
            around_here(Limits { pids: u32::MAX, ..limits }, 32_768).pids,
            u32::MAX,
            "the kernel says no"
        );
    }

    #[test]
    fn what_is_named_and_not_there_is_not_looked_for_elsewhere() {
        let named = program(Some(Path::new("/nowhere/runsc")));
        assert!(matches!(named, Err(Error::NoGvisor)));
        assert!(program(Some(Path::new("/usr/bin/env"))).is_ok());
    }
}
