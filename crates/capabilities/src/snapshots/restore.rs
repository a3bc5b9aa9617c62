//! Going back to a snapshot, which can be undone: the moment before is kept as another one.

use std::collections::HashSet;
use std::path::Path;

use kernel::{BlobHash, Env, Error, Result, SnapshotId, Timestamp};

use super::store::{self, Staged};
use super::{Inner, NewSnapshot, Snapshot, Snapshots, blocking, contents};
use crate::database::{self, Fate, Loose, Quiet};
use crate::logs::{Entry, Level, Source};
use crate::releases::past;
use crate::storage::pins::Named;

/// The table whose rows are of users who are in.
const SESSIONS: &str = "_steading_session";

/// What a return to a snapshot has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The snapshot that was returned to.
    pub snapshot: Snapshot,
    /// The snapshot of the moment before, to undo it.
    pub undo: SnapshotId,
}

/// What is put back.
struct Prepared {
    /// The row of the release that it serves.
    row: Option<Vec<serde_json::Value>>,
    /// The blobs that it needs.
    blobs: HashSet<BlobHash>,
    /// What its files are, where no links keep them.
    named: Vec<Named>,
    /// The names of the contents of its files.
    contents: HashSet<String>,
}

/// The release that is live in the database beside, which may be of a time that knew no functions.
pub(super) async fn live_beside(both: &mut Loose) -> Result<Option<Vec<serde_json::Value>>> {
    let known = "SELECT 1 FROM pragma_table_info('_steading_release', 'beside') WHERE name = 'functions'";
    let functions = if both.rows(known).await?.is_empty() { "NULL" } else { "functions" };
    let sql = format!(
        "SELECT number, manifest, site, {functions} FROM beside._steading_release WHERE number = \
         (SELECT CAST(value AS INTEGER) FROM beside._steading_state WHERE key = 'release')"
    );
    Ok(both.rows(&sql).await?.into_iter().next())
}

/// Reads the names of the contents of files.
const CONTENTS: &str = "SELECT content FROM _steading_object";

impl Snapshots {
    /// Puts everything back as it was at the snapshot: tables, rows, releases, files, and which users there are. Who was a
    /// user then and is one now stays as now: address, password, role and claims, disabled or not. The sessions are those of
    /// now too: who has signed out stays out, and who is not a user any more is out.
    ///
    /// # Errors
    /// `not_found`; `forbidden` where a secret would be sent to another host by who may not say that; `quota_exceeded` where the
    /// moment before cannot be kept; `unavailable` where others write for too
    /// long, or the disk is full. Nothing has changed then.
    pub async fn restore(&self, env: &Env, id_or_name: &str) -> Result<Restored> {
        let (this, env, wanted) = (self.clone(), env.clone(), id_or_name.to_owned());
        let work = async move {
            let _turn = this.0.turn(env.id()).await;
            store::sweep(this.0.directory(env.id())).await?;
            let snapshot = this.find(&env, &wanted).await?;
            this.0.restore(&env, snapshot).await
        };
        // Whoever waits for this may go away; what was begun is finished.
        tokio::spawn(work).await.map_err(Error::internal)?
    }
}

impl Inner {
    async fn restore(&self, env: &Env, snapshot: Snapshot) -> Result<Restored> {
        let row = self.live_of(env, &snapshot).await?;
        self.releases.brought_back(env, row).await?.may(env)?;
        self.forget_automatic(env, &snapshot).await?;
        self.bytes(env).await?;
        // Before others have to wait.
        let (from, _open) = self.open(env.id(), &snapshot).await?;
        let quiet = self.databases.quiet(env).await?;
        let called = snapshot.name.clone().unwrap_or_else(|| snapshot.snapshot.to_string());
        let new = NewSnapshot { name: None, note: Some(format!("before the return to {called}")) };
        let (undo, quiet) = self.take(env, new, quiet, true).await?;
        let mut quiet = quiet.ok_or_else(|| Error::internal("the turn to write is lost"))?;

        let staged = Staged::new(self.directory(env.id())).await?;
        let database = staged.path().join("main.db");
        let (source, copy) = (from.join("main.db"), database.clone());
        blocking(move || std::fs::copy(source, copy)).await?;
        let now = self.directory(env.id()).join(undo.snapshot.to_string()).join("main.db");
        let Prepared { row, blobs, named, contents: stay } =
            self.prepare(env, &database, &now, &mut quiet).await?;
        let here = self.environment(env.id());
        contents::blobs(from.join("blobs"), here.join("blobs"), blobs).await?;
        self.unpack(&from, env.id(), env.id(), &here, &named).await?;
        let gone = self.gone(env, &stay).await?;
        let work = async {
            // Who watches rows is told that they are others.
            let _others = self.databases.feed(env.id()).reshape();
            self.databases.put_back(&mut quiet, &database).await?;
            // Who was recognized may be nobody any more.
            self.auth.forget(env.id());
            Ok(())
        };
        self.releases.replace(env, row, work).await?;
        quiet.end();
        self.discard(env, gone).await;
        let message = format!("returned to the snapshot {}; {} undoes it", snapshot.snapshot, undo.snapshot);
        self.logs.append(env, Entry::new(Timestamp::now(), Level::Warn, Source::Database, message));
        Ok(Restored { snapshot, undo: undo.snapshot })
    }

    /// The release that was live at a snapshot.
    async fn live_of(&self, env: &Env, snapshot: &Snapshot) -> Result<Option<Vec<serde_json::Value>>> {
        let (from, _open) = self.open(env.id(), snapshot).await?;
        let mut both = self.databases.beside(env.id(), &from.join("main.db")).await?;
        let live = live_beside(&mut both).await;
        both.close().await;
        live
    }

    /// Makes the copy of a snapshot's database what is to be put back, with who is let in as the copy at `now` has it.
    async fn prepare(&self, env: &Env, database: &Path, now: &Path, quiet: &mut Quiet) -> Result<Prepared> {
        let mut those_of_now = Vec::new();
        for table in database::of_now() {
            those_of_now.push((table, quiet.all(table).await?));
        }
        let mut copy = self.databases.open_loose(env.id(), database).await?;
        let prepared = async {
            copy.lay_beside(now).await?;
            copy.run("BEGIN IMMEDIATE", &[]).await?;
            copy.keep(|fate| !matches!(fate, Fate::Now | Fate::Passing)).await?;
            copy.keep_people().await?;
            for (table, rows) in &those_of_now {
                copy.fill(table, rows).await?;
            }
            signed_in(&mut copy).await?;
            copy.lay_events().await?;
            copy.run("COMMIT", &[]).await?;
            let row = copy.rows(past::CURRENT).await?.into_iter().next();
            let blobs = past::needed(copy.rows(past::RELEASES).await?)?;
            let contents = texts(copy.rows(CONTENTS).await?);
            Ok(Prepared { row, blobs, named: self.named(&mut copy).await?, contents: contents.collect() })
        }
        .await;
        copy.close().await;
        prepared
    }

    /// What only rows of now name: contents of files, and unfinished uploads.
    async fn gone(&self, env: &Env, stay: &HashSet<String>) -> Result<[Vec<String>; 2]> {
        let names = async |sql: &str| -> Result<Vec<String>> {
            Ok(texts(self.databases.platform_query(env, sql, &[]).await?).collect())
        };
        let mut contents = names(CONTENTS).await?;
        contents.retain(|key| !stay.contains(key));
        Ok([contents, names("SELECT id FROM _steading_upload").await?])
    }

    /// Removes what no row names any more: it takes room that nobody has. What is left is collected.
    async fn discard(&self, env: &Env, [contents, uploads]: [Vec<String>; 2]) {
        self.contents.clone().discard_all(env.id(), contents).await;
        let folder = self.environment(env.id()).join("uploads");
        let removed = blocking(move || {
            for id in uploads {
                for name in [format!("{id}.sure"), id] {
                    match std::fs::remove_file(folder.join(name)) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(env.id = %env.id(), error = error.chain(), "bytes of uploads that are over are left");
        }
    }

    /// Leaves room for another snapshot of the platform's own, without the one that is wanted.
    async fn forget_automatic(&self, env: &Env, wanted: &Snapshot) -> Result<()> {
        let directory = self.directory(env.id());
        let there = store::list(directory).await?;
        let automatic = there.iter().filter(|it| it.automatic && it.snapshot != wanted.snapshot);
        for old in automatic.skip(self.limits.automatic.saturating_sub(1)) {
            self.remove(env.id(), old).await?;
        }
        Ok(())
    }
}

/// The texts in the first column.
fn texts(rows: Vec<Vec<serde_json::Value>>) -> impl Iterator<Item = String> {
    rows.into_iter().filter_map(|row| row.first()?.as_str().map(str::to_owned))
}

/// Ends the sessions of those who are no users, or may not sign in.
async fn signed_in(copy: &mut Loose) -> Result<()> {
    let sql = format!(
        "DELETE FROM {SESSIONS} WHERE user NOT IN (SELECT id FROM _steading_user WHERE disabled = 0)"
    );
    copy.run(&sql, &[]).await?;
    Ok(())
}
