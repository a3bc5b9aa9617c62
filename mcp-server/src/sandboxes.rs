//! The sandboxes of a credential: its own, which tools use, and those that it has made by name.

use hands::{Full, Wanted};
use kernel::{Caller, Code, Env, Error, Result, SandboxId, WorkspaceSnapshotId};
use store::{Ended, Workspace};

use crate::platform::{Platform, owner};

/// What a credential's own sandbox is called.
const OWN: &str = "default";

/// The longest name, in bytes.
const NAME: usize = 40;

/// What its owner calls the sandbox of a workspace.
#[must_use]
pub fn name_of(workspace: &Workspace) -> &str {
    workspace.name.split_once('/').map_or(OWN, |(_, name)| name)
}

impl Platform {
    /// The sandboxes that a caller has, its own first.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn sandboxes(&self, env: &Env, caller: &Caller) -> Result<Vec<Workspace>> {
        let owner = owner(caller);
        let mut there = self.hands.workspaces(env).await?;
        there.retain(|it| it.name.split('/').next() == Some(owner.as_str()));
        there.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(there)
    }

    /// One of them, by its id or its name. A credential's own is made where it is not there yet.
    ///
    /// # Errors
    /// `not_found`, also for anybody else's.
    pub async fn sandbox(&self, env: &Env, caller: &Caller, id_or_name: &str) -> Result<Workspace> {
        if id_or_name == OWN {
            return self.workspace(env, caller).await;
        }
        let id = id_or_name.parse::<SandboxId>().ok();
        let there = self.sandboxes(env, caller).await?;
        let found = there.into_iter().find(|it| Some(it.sandbox) == id || name_of(it) == id_or_name);
        found.ok_or_else(|| {
            let wanted: String = id_or_name.chars().take(64).collect();
            Error::not_found(format!("sandbox {wanted:?} of this credential"))
                .hint("GET /v1/sandboxes lists those that it has")
        })
    }

    /// Makes one more.
    ///
    /// # Errors
    /// `invalid_input`, `conflict` at `/name`; `unavailable` at `/isolation`; `quota_exceeded`.
    pub async fn create_sandbox(
        &self,
        env: &Env,
        caller: &Caller,
        name: Option<&str>,
        wanted: Wanted,
    ) -> Result<Workspace> {
        if let Some(name) = name {
            check_name(name)?;
        }
        let owner = owner(caller);
        match self.hands.create(env, &owner, name, wanted).await {
            Err(full) if Full::is(&full) => {
                self.make_room(env, full).await?;
                self.hands.create(env, &owner, name, wanted).await
            }
            outcome => outcome,
        }
    }

    /// Makes one more with what one of the caller's holds: now, or in that snapshot of it.
    ///
    /// # Errors
    /// As [`Platform::create_sandbox`]; as [`hands::Hands::fork`].
    pub async fn fork_sandbox(
        &self,
        env: &Env,
        caller: &Caller,
        source: &Workspace,
        snapshot: Option<WorkspaceSnapshotId>,
        name: &str,
    ) -> Result<Workspace> {
        check_name(name)?;
        let name = format!("{}/{name}", owner(caller));
        let outcome = match self.hands.fork(env, source, snapshot, &name).await {
            Err(full) if Full::is(&full) => {
                self.make_room(env, full).await?;
                self.hands.fork(env, source, snapshot, &name).await
            }
            outcome => outcome,
        };
        outcome.map_err(|error| match error.code() {
            Code::Conflict => taken().field("/name"),
            _ => error,
        })
    }
}

fn taken() -> Error {
    Error::new(Code::Conflict, "there is a sandbox of that name").hint("use that one, or choose another name")
}

fn check_name(name: &str) -> Result<()> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = name.len() <= NAME
        && !name.is_empty()
        && name.split('-').all(|part| !part.is_empty() && part.bytes().all(good));
    match (is_name, name) {
        (true, OWN) => Err(Error::invalid("/name", format!("{OWN:?} is the one that there always is"))),
        (true, _) => Ok(()),
        (false, _) => {
            Err(Error::invalid("/name", format!("a name has 1 to {NAME} of a-z, 0-9 and single -"))
                .hint("write it like \"build-2\""))
        }
    }
}

/// The longest name of a snapshot, in characters.
const SNAPSHOT_NAME: usize = 64;

/// Refuses a name that a snapshot cannot have.
///
/// # Errors
/// `invalid_input` at `/name`.
pub fn check_snapshot_name(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    if name.is_empty() || name.chars().count() > SNAPSHOT_NAME || name.chars().any(char::is_control) {
        let message = format!("a name has 1 to {SNAPSHOT_NAME} characters on one line");
        return Err(Error::invalid("/name", message));
    }
    if name.parse::<WorkspaceSnapshotId>().is_ok() {
        return Err(Error::invalid("/name", "a name is nothing that could be an id"));
    }
    if Ended::ALL.iter().any(|why| why.as_str() == name) {
        let message = format!("{name:?} is what the platform calls what it keeps when that happens");
        return Err(Error::invalid("/name", message).hint("choose another name"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_snapshot_is_called_what_could_be_an_id_or_what_the_platform_keeps() {
        check_snapshot_name(None).unwrap();
        check_snapshot_name(Some("before the upgrade")).unwrap();
        let id = WorkspaceSnapshotId::new().to_string();
        for bad in ["", "a\nb", "crashed", "out_of_memory", &id, &"x".repeat(SNAPSHOT_NAME + 1)] {
            assert_eq!(check_snapshot_name(Some(bad)).unwrap_err().pointer(), Some("/name"), "{bad:?}");
        }
    }

    #[test]
    fn names_are_small_letters_digits_and_single_hyphens() {
        for good in ["a", "build", "build-2", "0", &"x".repeat(NAME)] {
            check_name(good).unwrap();
        }
        for bad in
            ["", "-", "a-", "-a", "a--b", "A", "a_b", "a/b", "ä", "default", "a b", &"x".repeat(NAME + 1)]
        {
            assert_eq!(check_name(bad).unwrap_err().pointer(), Some("/name"), "{bad:?}");
        }
    }
}
