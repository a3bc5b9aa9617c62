//! Snapshots that are too many or too old, as the app says. One with a name stays until somebody removes it.

use kernel::{Env, Result, Timestamp};

use super::{Snapshots, blocking, store};
use crate::releases::Keep;

impl Snapshots {
    /// Removes the snapshots without a name that `keep` has no place for, and packs away those that it says to; how many
    /// are removed. What attempts that died have left goes too.
    ///
    /// # Errors
    /// The disk; `unavailable` where the store of what is packed fails.
    pub async fn expire(&self, env: &Env, keep: Keep) -> Result<u64> {
        let _turn = self.0.turn(env.id()).await;
        let directory = self.0.directory(env.id());
        store::sweep(directory.clone()).await?;
        let before = keep.age.map(|age| Timestamp::now().minus(age.duration()));
        let most = keep.keep.map_or(usize::MAX, |keep| keep as usize);
        let there = store::list(directory.clone()).await?;
        let mut removed = 0;
        for (place, snapshot) in there.iter().filter(|it| it.name.is_none()).enumerate() {
            if place >= most || before.is_some_and(|before| snapshot.created_at < before) {
                self.0.remove(env.id(), snapshot).await?;
                removed += 1;
            }
        }
        let old = keep.archive.map(|age| Timestamp::now().minus(age.duration()));
        let there = store::list(directory.clone()).await?;
        for snapshot in there.iter().filter(|it| !it.archived && old.is_some_and(|old| it.created_at < old)) {
            self.0.pack(env.id(), snapshot).await?;
        }
        // What an end in the middle of that has left.
        let packed: Vec<_> = there.iter().filter(|it| it.archived).map(|it| it.snapshot).collect();
        if !packed.is_empty() || old.is_some() {
            let stay: Vec<_> = there.iter().map(|it| it.snapshot).collect();
            self.0.attic.forget(env.id(), &stay).await?;
        }
        blocking(move || packed.iter().try_for_each(|it| store::strip(&directory.join(it.to_string()))))
            .await?;
        Ok(removed)
    }
}
