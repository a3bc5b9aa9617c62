//! Pictures that were made, kept for a while in a bounded memory, and the queue for making them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kernel::{Code, EnvId, Error, Result};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

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

/// How many are made at once, and how many may wait for it.
const AT_ONCE: usize = 2;
const WAITING: usize = 32;

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
    waiting: Arc<AtomicUsize>,
}

/// One that waits, until it is dropped.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Pictures {
    pub fn new() -> Self {
        Self {
            made: Cache::with_weighter(EXPECTED, MEMORY, ByBytes),
            turns: Turns::new(AT_ONCE),
            waiting: Arc::default(),
        }
    }

    fn wait(&self) -> Result<Waiting> {
        let waiting = Waiting(Arc::clone(&self.waiting));
        if self.waiting.fetch_add(1, Ordering::AcqRel) < WAITING {
            return Ok(waiting);
        }
        Err(Error::new(Code::Unavailable, "too many pictures are being made")
            .retry_after(Duration::from_secs(1)))
    }
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
            let _waiting = pictures.wait()?;
            let turn = pictures.turns.take(env).await?;
            let bytes: Bytes = self.0.contents.whole(env, &object.content, object.size).await?;
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
