//! Snapshots that are too many or too old, as the app says. One with a name stays until somebody removes it.

use kernel::{Env, Result, Timestamp};

use super::{Snapshots, store};
use crate::releases::Keep;

impl Snapshots {
    /// Removes the snapshots without a name that `keep` has no place for; how many. What attempts that died have left
    /// goes too.
    ///
    /// # Errors
    /// The disk.
    pub async fn expire(&self, env: &Env, keep: Keep) -> Result<u64> {
        let _turn = self.0.turn(env.id()).await;
        let directory = self.0.directory(env.id());
        store::sweep(directory.clone()).await?;
        let before = keep.age.map(|age| Timestamp::now().minus(age.duration()));
        let most = keep.keep.map_or(usize::MAX, |keep| keep as usize);
        let nameless = store::list(directory.clone()).await?.into_iter().filter(|it| it.name.is_none());
        let mut removed = 0;
        for (place, snapshot) in nameless.enumerate() {
            if place >= most || before.is_some_and(|before| snapshot.created_at < before) {
                store::remove(directory.clone(), snapshot.snapshot).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
