//! Releases of a database that is put in place of an environment's own, and the blobs that releases need.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kernel::{BlobHash, Env, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Releases;
use super::live::Live;
use super::manifest::Manifest;
use super::plans::Stored;
use super::rehearsal::Release;
use crate::functions::{self, Function, Functions};
use crate::hosting::Site;
use crate::storage::Contents;

/// Reads every release, for [`needed`].
pub(crate) const RELEASES: &str = "SELECT number, manifest, site, functions FROM _steading_release";

/// Reads the release that is current, for [`Releases::replace`].
pub(crate) const CURRENT: &str = Release::CURRENT;

/// The blobs that releases need.
pub(crate) fn needed(rows: Vec<Vec<Value>>) -> Result<HashSet<BlobHash>> {
    let mut needed = HashSet::new();
    for row in rows {
        let release = Release::read(row)?;
        needed.extend(release.site.iter().flat_map(Site::blobs));
        needed.extend(functions::blobs(&release.functions));
    }
    Ok(needed)
}

/// The blobs that a release needs, each with the size that it says, where everything that it says can be served.
///
/// # Errors
/// What is wrong with it, at its place in the manifest, in `/site` or in `/functions`.
pub(crate) fn checked(row: &[Value]) -> Result<Vec<(BlobHash, u64)>> {
    let number = row.first().and_then(Value::as_u64).unwrap_or_default();
    let manifest: Manifest = part(row, 1)?;
    let site: Option<Site> = part(row, 2).map_err(|e| e.under("/site"))?;
    manifest.kept()?;
    site.iter().try_for_each(|site| site.kept().map_err(|e| Error::from(e).under("/site")))?;
    let functions: Option<Functions> = part(row, 3).map_err(|e| e.under("/functions"))?;
    let release = Release { number, manifest, site, functions: functions.unwrap_or_default() };
    for (name, function) in &release.functions {
        function.kept().map_err(|e| e.under(&format!("/functions/{name}")))?;
    }
    super::functions::check(&release)?;
    super::schedules::check(&release)?;
    release.tables().map_err(|e| e.under("/database"))?;
    release.served()?;
    let of_functions = release.functions.values().flat_map(Function::sizes);
    Ok(release.site.iter().flat_map(Site::sizes).chain(of_functions).collect())
}

/// A part of a row as what it stands for; or where it does not, and why.
fn part<T: DeserializeOwned>(row: &[Value], at: usize) -> Result<T> {
    let text = row.get(at).and_then(Value::as_str).unwrap_or("null");
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|e| {
        let path = e.path().to_string();
        let at = if path == "." {
            String::new()
        } else {
            format!("/{}", path.replace(['.', '['], "/").replace(']', ""))
        };
        Error::invalid(at, e.into_inner().to_string())
    })
}

impl Releases {
    /// Serves the release in `row` from now on, where `work` puts its database in place; the one before, where that
    /// fails. Nobody else may write meanwhile.
    ///
    /// # Errors
    /// Of `work`; where the release cannot be read.
    pub(crate) async fn replace(
        &self,
        env: &Env,
        row: Option<Vec<Value>>,
        work: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let served = row.map(|row| Release::read(row)?.served()).transpose()?;
        // Rows that come back meet the rules that they had, not the ones of today.
        let trial = served.as_ref().map(|served| Live::try_out(&self.live, env.id(), served));
        work.await?;
        self.live.publish(env.id(), served.as_ref().map(Arc::clone));
        if let (Some(builder), Some(served)) = (&self.builder, &served) {
            builder.switched(env, &served.functions, &served.variables);
        }
        drop(trial);
        Ok(())
    }

    /// The same, with the contents of files.
    #[must_use]
    pub fn with_contents(self, contents: Contents) -> Self {
        Self { contents: Some(contents), ..self }
    }

    /// Removes contents that rows named which are gone. Nobody waits for it: what is left is collected.
    pub(super) fn discard(&self, env: &Env, gone: Vec<String>) {
        if let Some(contents) = self.contents.clone().filter(|_| !gone.is_empty()) {
            tokio::spawn(contents.discard_all(env.id(), gone));
        }
    }

    /// Removes the blobs that no release and no plan needs and that have been there for as long as the app says. No
    /// snapshot may be made or restored meanwhile, and nothing merged.
    ///
    /// # Errors
    /// The database or the disk cannot be read.
    pub async fn collect(&self, env: &Env) -> Result<u64> {
        let (_, lifecycle) = self.keeping(env).await?;
        self.collect_older(env, lifecycle.blobs_grace()).await
    }

    pub(super) async fn collect_older(&self, env: &Env, grace: Duration) -> Result<u64> {
        let mut needed = needed(self.databases.platform_query(env, RELEASES, &[]).await?)?;
        for row in self.databases.platform_query(env, "SELECT plan FROM _steading_plan", &[]).await? {
            needed.extend(Stored::read(&row)?.blobs());
        }
        let collected = self.blobs.collect(env, &needed, grace).await?;
        Ok(collected.removed)
    }
}
