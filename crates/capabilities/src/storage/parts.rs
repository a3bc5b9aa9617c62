//! A file that goes to a store in parts, of which nothing is left there where it does not come to its end.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, ObjectStore, ObjectStoreExt as _, Result};

/// Parts that were begun. Dropped before they are one file, they are removed: whoever sends the rest may go away at any
/// moment, and no store lists what is unfinished.
pub(crate) struct Parts(Option<Box<dyn MultipartUpload>>);

impl Parts {
    /// Begins the file at this place.
    ///
    /// # Errors
    /// The store fails.
    pub async fn begin(store: &Arc<dyn ObjectStore>, at: Path) -> Result<Self> {
        let store = Arc::clone(store);
        // By itself, so that what the store has begun is known also where nobody waits for it any more.
        let begun = tokio::spawn(async move { store.put_multipart(&at).await.map(|it| Self(Some(it))) });
        begun.await.unwrap_or_else(|source| Err(Error::JoinError { source }))
    }

    /// Adds a part.
    ///
    /// # Errors
    /// The store fails.
    pub async fn put(&mut self, part: Bytes) -> Result<()> {
        match &mut self.0 {
            Some(upload) => upload.put_part(part.into()).await,
            None => Ok(()),
        }
    }

    /// Makes one file of the parts.
    ///
    /// # Errors
    /// The store fails; the parts are removed then.
    pub async fn complete(mut self) -> Result<()> {
        if let Some(upload) = &mut self.0 {
            upload.complete().await?;
        }
        self.0 = None;
        Ok(())
    }

    /// Removes the parts. What fails is said: they stay in the store.
    pub async fn abort(mut self) {
        if let Some(upload) = self.0.take() {
            remove(upload).await;
        }
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        let Some(upload) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(remove(upload));
        }
    }
}

async fn remove(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(%error, "parts of a file that was not stored are left");
    }
}
