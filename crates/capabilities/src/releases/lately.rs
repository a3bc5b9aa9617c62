//! What was built lately and may be in no release yet: whoever deploys the same again, for one after a call that was given up,
//! waits for nothing that is done already.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kernel::{BlobHash, EnvId, Error, Result};

use crate::functions::{Artifact, Sources};

/// How long it is remembered.
const LATELY: Duration = Duration::from_secs(3_600);

/// How many builds are remembered, and how many files of theirs, for all environments.
const BUILDS: usize = 500;
const FILES: usize = 50_000;

/// The builds, the latest last.
#[derive(Default)]
pub(super) struct Lately(Mutex<VecDeque<Built>>);

struct Built {
    env: EnvId,
    sources: BlobHash,
    artifact: Artifact,
    at: Instant,
}

impl Lately {
    /// Remembers what `sources` came to.
    pub fn note(&self, env: EnvId, sources: &Sources, artifact: &Artifact) -> Result<()> {
        let built = Built { env, sources: digest(sources)?, artifact: artifact.clone(), at: Instant::now() };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|it| it.at.elapsed() < LATELY && (it.env, it.sources) != (env, built.sources));
        all.push_back(built);
        let mut files: usize = all.iter().map(|it| it.artifact.files.len()).sum();
        while all.len() > BUILDS || files > FILES {
            let Some(oldest) = all.pop_front() else { break };
            files -= oldest.artifact.files.len();
        }
        Ok(())
    }

    /// What they came to.
    pub fn find(&self, env: EnvId, sources: &Sources) -> Result<Option<Artifact>> {
        let sources = digest(sources)?;
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.iter().find(|it| (it.env, it.sources) == (env, sources));
        Ok(found.filter(|it| it.at.elapsed() < LATELY).map(|it| it.artifact.clone()))
    }

    /// Forgets an environment that is gone.
    pub fn forget(&self, env: EnvId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|it| it.env != env);
    }
}

fn digest(sources: &Sources) -> Result<BlobHash> {
    Ok(BlobHash::of(&serde_json::to_vec(&sources.of_build()).map_err(Error::internal)?))
}
