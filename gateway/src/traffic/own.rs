//! Connections that the platform makes to itself.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where connections come from that the platform makes to itself. Clones know the same ones.
#[derive(Debug, Clone, Default)]
pub struct Own(Arc<Mutex<HashSet<SocketAddr>>>);

/// One of them, until it is dropped.
pub struct OwnConnection {
    all: Own,
    from: SocketAddr,
}

impl Own {
    /// From here on a connection from there is the platform's own.
    pub fn is(&self, from: SocketAddr) -> OwnConnection {
        self.known().insert(from);
        OwnConnection { all: self.clone(), from }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OwnConnection {
    fn drop(&mut self) {
        self.all.known().remove(&self.from);
    }
}
