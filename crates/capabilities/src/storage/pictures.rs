//! Pictures that were made, kept for a while in a bounded memory, and the queue for making them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use kernel::{Code, EnvId, Error, Result};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::time::{Instant, timeout_at};

use super::Storage;
use super::object::Object;
use super::picture::{Picture, View};
use crate::access::Guest;
use crate::auth::turns::Turns;

/// The largest file of which a picture is made, in bytes.
const SOURCE: u64 = 32 << 20;

/// How many bytes of pictures are kept, over all environments.
const MEMORY: u64 = 32 << 20;
const EXPECTED: usize = 1_000;

/// How many are made at once, and how many of one environment may wait for it, and how long.
const AT_ONCE: usize = 2;
const WAITING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// One with more pixels is made alone: it takes a few hundred megabytes.
const LARGE: u64 = 12_000_000;

/// What a picture is kept under. The content's name is never another content's.
type Key = (EnvId, String, View);

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Picture> for ByBytes {
    fn weight(&self, (_, name, _): &Key, picture: &Picture) -> u64 {
        (picture.bytes.len() + name.len() + size_of::<Key>()) as u64
    }
}

/// The pictures of all environments.
pub(super) struct Pictures {
    made: Cache<Key, Picture, ByBytes>,
    turns: Turns,
    waiting: Mutex<HashMap<EnvId, usize>>,
}

/// One that waits, until it is dropped.
struct Waiting<'a>(&'a Pictures, EnvId);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.1);
            }
        }
    }
}

impl Pictures {
    pub fn new() -> Self {
        Self {
            made: Cache::with_weighter(EXPECTED, MEMORY, ByBytes),
            turns: Turns::new(AT_ONCE),
            waiting: Mutex::default(),
        }
    }

    fn wait(&self, env: EnvId) -> Result<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let count = waiting.entry(env).or_default();
        if *count >= WAITING {
            return Err(busy());
        }
        *count += 1;
        Ok(Waiting(self, env))
    }
}

fn busy() -> Error {
    Error::new(Code::Unavailable, "too many pictures are being made")
        .retry_after(Duration::from_secs(1))
        .hint("try again in a moment; a picture that was made once is there at once")
}

impl Storage {
    /// The picture that is in a file, as it is wanted.
    ///
    /// # Errors
    /// `invalid_input` for what is no picture or a view that is not made, `too_large` for one that is too large,
    /// `unavailable` where too many wait.
    pub async fn picture(&self, guest: &Guest, object: &Object, view: View) -> Result<Picture> {
        view.check()?;
        if object.size > SOURCE {
            let message =
                format!("the file has {} bytes, pictures are made of at most {SOURCE}", object.size);
            return Err(Error::new(Code::TooLarge, message));
        }
        let env = guest.env().id();
        let pictures = &self.0.pictures;
        let key = (env, object.content.clone(), view);
        let make = async {
            let _waiting = pictures.wait(env)?;
            let until = Instant::now() + PATIENCE;
            let in_time = async |turn| timeout_at(until, turn).await.map_err(|_| busy())?;
            let mut turn = in_time(pictures.turns.take(env, 1).boxed()).await?;
            let bytes: Bytes = self.0.contents.whole(env, &object.content, object.size).await?;
            if View::pixels(&bytes)? > LARGE {
                drop(turn);
                turn = in_time(pictures.turns.take(env, AT_ONCE).boxed()).await?;
            }
            // Who asked may go away; the turn is over when the work is.
            let made = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                view.of(&bytes)
            });
            made.await.map_err(Error::internal)?
        };
        pictures.made.get_or_insert_async(&key, make).await
    }
}
