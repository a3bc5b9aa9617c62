//! Which ports of a sandbox are shown to everybody.

use kernel::{Code, Error, Result};
use store::Workspace;

use crate::Hands;

/// How many ports of a sandbox may be public.
const MOST: i64 = 32;

/// Who sees a port of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Whoever was given a link to it.
    Private,
    /// Everybody.
    Public,
}

impl From<bool> for Visibility {
    fn from(public: bool) -> Self {
        if public { Self::Public } else { Self::Private }
    }
}

impl Hands {
    /// The ports of a sandbox that everybody may see.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn public_ports(&self, workspace: &Workspace) -> Result<Vec<u16>> {
        Ok(self.0.store.workspaces().public_ports(workspace.id).await?)
    }

    /// Says who sees a port from now on.
    ///
    /// # Errors
    /// `quota_exceeded` where as many are public as may be.
    pub async fn show(&self, workspace: &Workspace, port: u16, to: Visibility) -> Result<()> {
        let records = self.0.store.workspaces();
        if to == Visibility::Private {
            return Ok(records.unpublish(workspace.id, port).await?);
        }
        if records.publish(workspace.id, port, MOST).await? {
            return Ok(());
        }
        let full = format!("{MOST} ports of the sandbox are public, which is all that may be");
        Err(Error::new(Code::QuotaExceeded, full)
            .field("/public")
            .hint("make one that is not needed private again: public false, with its port"))
    }
}
