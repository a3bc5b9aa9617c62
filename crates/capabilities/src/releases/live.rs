//! Which release answers at an app's address: a cache over the pointers in the environments' own databases.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use futures::future::BoxFuture;
use kernel::{Env, EnvId, Result};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde_json::Value;

use super::Releases;
use super::rehearsal::Release;
use crate::functions::{Function, FunctionName};
use crate::hosting::Site;
use crate::rows::App;

/// How many files of sites and functions the cache holds before the least used are forgotten.
const CACHED_FILES: u64 = 100_000;

/// What is served for one release of one environment.
#[derive(Debug, Clone)]
pub struct Served {
    /// The release's number.
    pub release: u64,
    /// Its site; the default one where the release has none.
    pub site: Site,
    /// Its functions.
    pub functions: BTreeMap<FunctionName, Arc<Function>>,
    /// The variables that all of them get.
    pub variables: Arc<BTreeMap<String, String>>,
    /// Its tables and how people sign in.
    pub app: Arc<App>,
}

/// Asks the platform's own listener for a release that is about to become the live one.
pub trait LiveCheck: Send + Sync {
    /// Fetches the app of `env` at its address and compares what comes with `served`.
    ///
    /// # Errors
    /// `unavailable`, saying what came instead.
    fn check<'a>(&'a self, env: &'a Env, served: &'a Served) -> BoxFuture<'a, Result<()>>;
}

/// Live releases by environment.
pub(crate) struct Live {
    cache: Cache<EnvId, Option<Arc<Served>>, ByFiles>,
    /// Releases on trial: they answer in place of the live one until they are committed or given up.
    candidates: RwLock<HashMap<EnvId, Arc<Served>>>,
}

#[derive(Clone)]
struct ByFiles;

impl Weighter<EnvId, Option<Arc<Served>>> for ByFiles {
    fn weight(&self, _: &EnvId, served: &Option<Arc<Served>>) -> u64 {
        let files = |served: &Arc<Served>| {
            let of_functions: usize =
                served.functions.values().map(|function| function.sizes().count()).sum();
            served.site.files.len() + of_functions + served.app.tables.len()
        };
        10 + served.as_ref().map_or(0, files) as u64
    }
}

impl Releases {
    /// What answers at the app's address; nothing before the first release.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn live(&self, env: &Env) -> Result<Option<Arc<Served>>> {
        self.live.get(env.id(), self.load(env, Release::CURRENT, &[])).await
    }

    /// What the environment's database says that answers, whatever is on trial, and as soon as it says so.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn committed(&self, env: &Env) -> Result<Option<Arc<Served>>> {
        let known = self.live.committed(env.id(), self.load(env, Release::CURRENT, &[])).await?;
        let rows = self.databases.platform_query(env, Release::POINTER, &[]).await?;
        let number = rows.first().and_then(|row| row.first()?.as_u64());
        if known.as_ref().map(|known| known.release) == number {
            return Ok(known);
        }
        self.load(env, Release::CURRENT, &[]).await
    }

    /// An earlier or the current release, for its preview.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn numbered(&self, env: &Env, release: u64) -> Result<Option<Arc<Served>>> {
        if let Some(live) = self.live(env).await?.filter(|live| live.release == release) {
            return Ok(Some(live));
        }
        self.load(env, Release::NUMBERED, &[release.into()]).await
    }

    pub(super) async fn load(&self, env: &Env, sql: &str, params: &[Value]) -> Result<Option<Arc<Served>>> {
        // Each request has a place for this, and hardly one needs it.
        let rows = Box::pin(self.databases.platform_query(env, sql, params)).await?;
        let Some(row) = rows.into_iter().next() else { return Ok(None) };
        Release::read(row)?.served().map(Some)
    }

    /// Forgets an environment that is deleted.
    pub fn forget(&self, env: EnvId) {
        self.live.forget(env);
        self.lately.forget(env);
    }
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { cache: Cache::with_weighter(1024, CACHED_FILES, ByFiles), candidates: RwLock::default() }
    }

    /// What answers for `env`; `load` reads it where it is not known.
    pub(crate) async fn get(
        &self,
        env: EnvId,
        load: impl Future<Output = Result<Option<Arc<Served>>>>,
    ) -> Result<Option<Arc<Served>>> {
        if let Some(served) = self.candidates.read().unwrap_or_else(PoisonError::into_inner).get(&env) {
            return Ok(Some(Arc::clone(served)));
        }
        self.committed(env, load).await
    }

    /// As [`Live::get`], whatever is on trial.
    pub(crate) async fn committed(
        &self,
        env: EnvId,
        load: impl Future<Output = Result<Option<Arc<Served>>>>,
    ) -> Result<Option<Arc<Served>>> {
        // A publication in the meantime takes the place that this load has reserved, so that it cannot bring
        // the earlier release back.
        self.cache.get_or_insert_async(&env, load).await
    }

    /// Lets `served` answer until the trial ends.
    pub(crate) fn try_out(live: &Arc<Live>, env: EnvId, served: &Arc<Served>) -> Trial {
        let mut candidates = live.candidates.write().unwrap_or_else(PoisonError::into_inner);
        candidates.insert(env, Arc::clone(served));
        Trial { live: Arc::clone(live), env }
    }

    /// Makes `served` the live release, after its pointer is on disk; none, where there is none any more.
    pub(crate) fn publish(&self, env: EnvId, served: Option<Arc<Served>>) {
        self.cache.insert(env, served);
    }

    pub(crate) fn forget(&self, env: EnvId) {
        self.cache.remove(&env);
    }
}

/// A release on trial; it stops answering when this is dropped.
pub(crate) struct Trial {
    live: Arc<Live>,
    env: EnvId,
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.live.candidates.write().unwrap_or_else(PoisonError::into_inner).remove(&self.env);
    }
}
