//! Taking a snapshot: others write on as soon as its moment is fixed.

use kernel::{Code, Env, Error, Result, SnapshotId, Timestamp};

use super::store::{self, Staged};
use super::{Inner, NewSnapshot, Snapshot, Snapshots, contents};
use crate::database::{Loose, Quiet};
use crate::logs::{Entry, Level, Source};
use crate::releases::past;

const NAME: usize = 60;
const NOTE: usize = 500;

impl Snapshots {
    /// Takes a snapshot of the environment as it is.
    ///
    /// # Errors
    /// `invalid_input` for a name or a note that is none; `conflict` where the name is taken; `quota_exceeded` where
    /// there are too many; `unavailable` where others write for too long, or the disk is full.
    pub async fn take(&self, env: &Env, new: NewSnapshot) -> Result<Snapshot> {
        check("/name", "name", new.name.as_deref(), NAME)?;
        check("/note", "note", new.note.as_deref(), NOTE)?;
        if new.name.as_ref().is_some_and(|name| name.parse::<SnapshotId>().is_ok()) {
            return Err(Error::invalid("/name", "the name of a snapshot must not be an id"));
        }
        let (inner, env) = (self.0.clone(), env.clone());
        let work = async move {
            let _turn = inner.turn(env.id()).await;
            inner.room(&env, &new).await?;
            let quiet = inner.databases.quiet(&env).await?;
            inner.take(&env, new, quiet, false).await.map(|(snapshot, _)| snapshot)
        };
        // Whoever waits for this may go away; what was begun is finished.
        tokio::spawn(work).await.map_err(Error::internal)?
    }
}

impl Inner {
    /// Refuses where there is no room for another.
    async fn room(&self, env: &Env, new: &NewSnapshot) -> Result<()> {
        let directory = self.directory(env.id());
        store::sweep(directory.clone()).await?;
        let there = store::list(directory.clone()).await?;
        if let Some(name) =
            new.name.as_ref().filter(|name| there.iter().any(|it| it.name.as_ref() == Some(*name)))
        {
            return Err(Error::new(Code::Conflict, format!("there is a snapshot {name:?} already"))
                .field("/name")
                .hint("choose another name, or remove that one with resource_delete"));
        }
        if there.iter().filter(|it| !it.automatic).count() >= self.limits.most {
            let message = format!("an environment has at most {} snapshots", self.limits.most);
            return Err(Error::new(Code::QuotaExceeded, message)
                .hint("remove one that is not needed: resource_delete with kind snapshot"));
        }
        self.bytes(env).await
    }

    /// Refuses where another database would be too much.
    pub(super) async fn bytes(&self, env: &Env) -> Result<()> {
        let taken = store::taken(self.directory(env.id())).await?;
        let taken = taken.saturating_add(self.pinned_bytes(env).await?);
        if taken.saturating_add(self.databases.bytes(env.id())) > self.limits.bytes {
            let message = format!(
                "the snapshots of an environment take at most {} bytes, and with another they would take more",
                self.limits.bytes
            );
            return Err(Error::new(Code::QuotaExceeded, message)
                .hint("remove one that is not needed: resource_delete with kind snapshot"));
        }
        Ok(())
    }

    /// Takes a snapshot of the moment that `quiet` holds, and gives that back where it is `held`.
    pub(super) async fn take(
        &self,
        env: &Env,
        new: NewSnapshot,
        mut quiet: Quiet,
        held: bool,
    ) -> Result<(Snapshot, Option<Quiet>)> {
        let staged = Staged::new(self.directory(env.id())).await?;
        let database = staged.path().join("main.db");
        let created_at = Timestamp::now();
        let copying = self.databases.begin_copy(env, &mut quiet, &database).await?;
        // Contents are removed right after their row: none goes whose row is in the copy while nobody writes.
        self.link_files(env.id(), staged.path()).await?;
        let quiet = if held {
            Some(quiet)
        } else {
            quiet.end();
            None
        };
        copying.finish().await?;
        let mut copy = self.databases.open_loose(env.id(), &database).await?;
        let read = async { Ok::<_, Error>((about(&mut copy).await?, self.named(&mut copy).await?)) }.await;
        copy.close().await;
        let ((release, blobs), named) = read?;
        self.pin(staged.path(), &named).await?;
        let here = self.environment(env.id());
        contents::blobs(here.join("blobs"), staged.path().join("blobs"), blobs).await?;
        let NewSnapshot { name, note } = new;
        let bytes = std::fs::metadata(&database).map_err(super::disk)?.len();
        let snapshot = SnapshotId::new();
        let about =
            Snapshot { snapshot, name, note, created_at, release, bytes, automatic: held, archived: false };
        staged.become_snapshot(&about).await?;
        let message = format!("the snapshot {} was taken", about.snapshot);
        self.logs.append(env, Entry::new(Timestamp::now(), Level::Info, Source::Database, message));
        Ok((about, quiet))
    }
}

/// The current release's number, and the blobs that all releases need.
async fn about(copy: &mut Loose) -> Result<(u64, std::collections::HashSet<kernel::BlobHash>)> {
    let current = copy.rows(past::CURRENT).await?;
    let release = current.first().and_then(|row| row.first()?.as_u64()).unwrap_or_default();
    Ok((release, past::needed(copy.rows(past::RELEASES).await?)?))
}

fn check(field: &str, what: &str, text: Option<&str>, most: usize) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    let good = !text.trim().is_empty() && text.chars().count() <= most && !text.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    let message = format!("the {what} must have 1 to {most} characters, none of them a control character");
    Err(Error::invalid(field, message))
}
