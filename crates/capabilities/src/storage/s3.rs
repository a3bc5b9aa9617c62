//! Contents in a bucket of an S3 service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Code, Error, Result, Secret};
use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::Contents;

/// How long an answer, or more of one, may take to come, and all repetitions of a request. A whole answer takes as long
/// as its reader does.
const ANSWER: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(20);

/// An S3 service and a bucket of it.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Its address, `https://s3.example.org`.
    pub endpoint: String,
    /// The bucket, which is there.
    pub bucket: String,
    /// The region.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// What proves it.
    pub secret_key: Secret,
}

impl S3 {
    /// The bucket, as a store of objects.
    ///
    /// # Errors
    /// `invalid_input` for what is no address.
    pub fn store(&self) -> Result<Arc<dyn ObjectStore>> {
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
            max_retries: 5,
            retry_timeout: PATIENCE,
        };
        let plain = self.endpoint.starts_with("http://");
        let options = ClientOptions::new().with_allow_http(plain).with_timeout_disabled();
        let options = options.with_read_timeout(ANSWER);
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(self.secret_key.expose())
            .with_virtual_hosted_style_request(false)
            .with_retry(retry)
            .with_client_options(options)
            .build();
        let store = store.map_err(|error| {
            Error::new(Code::InvalidInput, format!("the store of files cannot be used: {error}"))
        })?;
        Ok(Arc::new(store))
    }
}

impl Contents {
    /// Files in a bucket, below `<env id>/files`; unfinished uploads are below `envs_dir` all the same.
    ///
    /// # Errors
    /// `invalid_input` for what is no address.
    pub fn s3(s3: &S3, envs_dir: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self::remote(s3.store()?, envs_dir))
    }
}
