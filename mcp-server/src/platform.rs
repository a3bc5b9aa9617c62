//! What the tools work on: the services of the platform, and what takes more than one of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use capabilities::auth::Auth;
use capabilities::database::{self, Databases};
use capabilities::domains::Domains;
use capabilities::hosting::Blobs;
use capabilities::logs::Logs;
use capabilities::realtime::Realtime;
use capabilities::releases::Releases;
use capabilities::snapshots::{Backups, Snapshots};
use capabilities::storage::Storage;
use control::{Control, EnvState, Environment, Environments, NewEnvironment, SecretKind};
use functions::Functions;
use futures::future::BoxFuture;
use hands::{Full, Hand, Hands, Visibility};
use kernel::{Caller, Code, Env, EnvId, Error, KeyId, Principal, Result, Slug, Tenant, Timestamp};
use models::Models;
use sandbox::preview::Labels;
use serde_json::Value;
use store::Workspace;
use tool::{Effect, Host, Ledger, Limiter, Replays};

use crate::masks::Masks;
use crate::tenancy::Lives;

/// What the workspace of whoever runs the platform is called.
pub(crate) const OPERATOR: &str = "operator";

/// The services that tools ask.
pub struct Platform {
    /// Tenants, environments, credentials, secrets, limits, records.
    pub control: Arc<Control>,
    /// The environments' databases.
    pub databases: Arc<Databases>,
    /// Their releases.
    pub releases: Arc<Releases>,
    /// Their apps' users.
    pub auth: Auth,
    /// Their domains.
    pub domains: Arc<Domains>,
    /// What happens to those, told at once.
    pub realtime: Realtime,
    /// Their blobs.
    pub blobs: Blobs,
    /// Their apps' files.
    pub storage: Storage,
    /// Their snapshots.
    pub snapshots: Snapshots,
    /// Their backups.
    pub backups: Backups,
    /// Their logs.
    pub logs: Logs,
    /// Their sandboxes.
    pub hands: Hands,
    /// Their functions.
    pub functions: Functions,
    /// The model that those ask.
    pub models: Models,
    /// What is known of values that were given in secret.
    pub masks: Arc<Masks>,
    /// The hosts that servers in them are shown at.
    pub previews: Labels,
    /// Where apps answer.
    pub urls: Urls,
    /// What is known of tenants that are not active.
    pub lives: Lives,
    /// Below it, each environment has its directory.
    pub environments_dir: PathBuf,
    /// Is told of each call of a tool.
    pub called: Called,
}

/// Is told which tool was called, what it was refused with where it was, and how long that took. It must not block.
pub type Called = Arc<dyn Fn(&'static str, Option<Code>, Duration) + Send + Sync>;

/// Where a port of a sandbox is shown.
pub struct Shown {
    /// Its address, with a pass in it where not everybody sees it.
    pub url: String,
    /// Whether everybody does.
    pub public: bool,
}

/// Where apps answer.
#[derive(Debug, Clone)]
pub struct Urls {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The domain that slugs stand before, with its port where that is not the scheme's own.
    pub apps_domain: String,
    /// The domain that previews of sandboxes stand before, likewise.
    pub preview_domain: String,
    /// The scheme that apps' own domains are visited by, and the port where it is not the scheme's own.
    pub domains: (&'static str, Option<u16>),
}

impl Urls {
    /// The address of the app with this slug.
    #[must_use]
    pub fn app(&self, slug: &Slug) -> String {
        format!("{}://{slug}.{}", self.scheme, self.apps_domain)
    }

    /// The address of a sandbox's preview with this label.
    #[must_use]
    pub fn preview(&self, label: &str) -> String {
        format!("{}://{label}.{}", self.scheme, self.preview_domain)
    }

    /// The address of the app with this domain of its own.
    #[must_use]
    pub fn domain(&self, name: &str) -> String {
        let (scheme, port) = self.domains;
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{name}{port}")
    }
}

impl Platform {
    /// The slug of an environment.
    ///
    /// # Errors
    /// `not_found` where it is being deleted.
    pub async fn slug(&self, env: &Env) -> Result<Slug> {
        let place = self.control.environments().find(&env.id().to_string()).await?;
        place.map(|place| place.slug).ok_or_else(|| Error::not_found(format!("environment \"{}\"", env.id())))
    }

    /// Where the environment's app answers.
    ///
    /// # Errors
    /// As [`Platform::slug`].
    pub async fn url(&self, env: &Env) -> Result<String> {
        Ok(self.urls.app(&self.slug(env).await?))
    }

    /// The workspace that a credential has in an environment: one for all its calls. Where the environment has as many as
    /// it may, one of a credential that lives no more makes room.
    ///
    /// # Errors
    /// As [`Hands::workspace`].
    pub async fn workspace(&self, env: &Env, caller: &Caller) -> Result<Workspace> {
        let name = owner(caller);
        match self.hands.workspace(env, &name).await {
            Err(full) if Full::is(&full) => {
                self.make_room(env, full).await?;
                self.hands.workspace(env, &name).await
            }
            outcome => outcome,
        }
    }

    /// Removes the workspace of a credential that lives no more, of those the one that was not used for the longest time.
    ///
    /// # Errors
    /// `full` where there is none.
    pub(crate) async fn make_room(&self, env: &Env, full: Error) -> Result<()> {
        // The keys of a tenant that is not active live no more until it is: what is theirs stays.
        if self.control.environments().find(&env.id().to_string()).await?.is_none() {
            return Err(full);
        }
        let mut there = self.hands.workspaces(env).await?;
        there.sort_by_key(|workspace| workspace.used);
        for left in &there {
            if !self.has_owner(left).await? {
                return self.hands.remove(left).await;
            }
        }
        Err(full)
    }

    /// Whether the credential whose workspace it is lives, and its environment is ready.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn may_run(&self, workspace: &Workspace) -> Result<bool> {
        let ready = self.control.environments().find(&workspace.env.to_string()).await?.is_some();
        Ok(ready && self.has_owner(workspace).await?)
    }

    /// Whether the credential whose workspace it is lives.
    pub(crate) async fn has_owner(&self, workspace: &Workspace) -> Result<bool> {
        let owner = owner_of(workspace);
        let Ok(id) = owner.parse::<KeyId>() else { return Ok(owner == OPERATOR) };
        Ok(self.control.tokens().standing_of_owner(id).await?.is_some())
    }

    /// Where a port of a workspace's sandbox is shown, to whom `to` says from now on, where it says.
    ///
    /// # Errors
    /// `invalid_input` where it is no port; as [`Hands::show`].
    pub async fn show(&self, workspace: &Workspace, port: u16, to: Option<Visibility>) -> Result<Shown> {
        if port == 0 {
            return Err(Error::invalid("/port", "0 is no port"));
        }
        if let Some(to) = to {
            self.hands.show(workspace, port, to).await?;
        }
        let public = self.hands.public_ports(workspace).await?;
        Ok(self.shown(workspace, port, &public))
    }

    /// Where a port is shown of a sandbox whose `public` ones are these.
    #[must_use]
    pub fn shown(&self, workspace: &Workspace, port: u16, public: &[u16]) -> Shown {
        let mut url = self.urls.preview(&self.previews.label(workspace.sandbox, port));
        let public = public.contains(&port);
        if !public {
            url.push_str(&Labels::query(&self.previews.pass(workspace.sandbox, port, Timestamp::now())));
        }
        Shown { url, public }
    }

    /// The sandbox of that workspace, awake.
    ///
    /// # Errors
    /// As [`Hands::wake`].
    pub async fn hand(&self, env: &Env, caller: &Caller) -> Result<Hand> {
        self.hands.wake(&self.workspace(env, caller).await?).await
    }

    /// The names of the environment's secrets.
    ///
    /// # Errors
    /// Where the control plane fails.
    pub async fn secrets(&self, env: &Env) -> Result<Vec<String>> {
        Ok(self.control.secrets().names(env).await?.into_iter().map(|secret| secret.name).collect())
    }

    /// The names of those that its app can use: not those that are bound to hosts.
    ///
    /// # Errors
    /// As [`Platform::secrets`].
    pub async fn app_secrets(&self, env: &Env) -> Result<Vec<String>> {
        let all = self.control.secrets().names(env).await?.into_iter();
        Ok(all.filter(|it| it.kind == SecretKind::Function).map(|it| it.name).collect())
    }

    /// To be called when the secrets of an environment, or the hosts that its programs may ask, have changed: when this
    /// returns, they go by what holds now.
    pub async fn reach_changed(&self, env: &Env) {
        self.functions.changed(env.id());
        self.hands.reach_changed(env).await;
    }

    /// Makes an environment with everything that belongs to it; the same external id again is the same one.
    ///
    /// # Errors
    /// What is wrong with `wanted`; the disk.
    pub async fn create_environment(&self, tenant: &Tenant, wanted: NewEnvironment) -> Result<Environment> {
        let made = self.control.environments().create(tenant, wanted).await?.environment;
        self.complete(made).await
    }

    /// Makes an environment whose files `fill` makes, whole or not at all.
    ///
    /// # Errors
    /// What is wrong with `wanted`; those of `fill`. Then there is no such environment.
    pub async fn fill_environment<T>(
        &self,
        tenant: &Tenant,
        wanted: NewEnvironment,
        fill: impl AsyncFnOnce(EnvId) -> Result<T>,
    ) -> Result<(Environment, T)> {
        let environments = self.control.environments();
        let made = environments.create_copy(tenant, wanted).await?.environment;
        match fill(made.id).await {
            Ok(filled) => match environments.ready(&made).await {
                Ok(ready) => Ok((ready, filled)),
                Err(error) => {
                    // It was deleted meanwhile, before its files were there.
                    self.remove_environment(&made).await?;
                    Err(error)
                }
            },
            Err(error) => {
                if let Err(error) = environments.abandon(&made).await {
                    tracing::warn!(env.id = %made.id, error = error.chain(), "an environment that was not made stays");
                }
                Err(error)
            }
        }
    }

    /// Makes the files of an environment whose record is there, and opens it.
    async fn complete(&self, environment: Environment) -> Result<Environment> {
        if environment.state != EnvState::Creating {
            return Ok(environment);
        }
        match self.databases.create(environment.id).await {
            // An attempt that died after this left a whole database.
            Ok(()) | Err(database::Error::Exists(_)) => {}
            Err(e) => return Err(e.into()),
        }
        self.control.environments().ready(&environment).await
    }

    /// What would be lost with an environment, in words.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn losses(&self, tenant: &Tenant, slug_or_id: &str) -> Result<Vec<String>> {
        let environment = self.control.environments().get(tenant, slug_or_id).await?;
        let env = Env::for_upkeep(environment.tenant, environment.id);
        let app = self.releases.describe(&env).await?;
        let mut losses = vec![format!("environment {} with its address", environment.slug)];
        losses.extend(
            app.tables.iter().map(|(name, table)| format!("table {name} with {} rows", counted(table.rows))),
        );
        losses.extend(app.buckets.iter().filter(|(_, bucket)| bucket.files > 0).map(|(name, bucket)| {
            format!("bucket {name} with {} files of {} bytes", bucket.files, bucket.bytes)
        }));
        if let Some(users) = app.auth.map(|auth| auth.users).filter(|users| *users > 0) {
            losses.push(format!("{} users with their passwords", counted(users)));
        }
        if let Some(release) = app.release {
            losses.push(format!("{release} releases"));
        }
        losses.extend(
            self.domains.list(&env).await?.into_iter().map(|domain| format!("domain {}", domain.domain)),
        );
        let snapshots = self.snapshots.list(&env).await?.len();
        if snapshots > 0 {
            losses.push(format!("{snapshots} snapshots"));
        }
        let workspaces = self.hands.workspaces(&env).await?.len();
        if workspaces > 0 {
            losses.push(format!("{workspaces} workspaces of sandboxes, with their snapshots"));
        }
        losses.extend(self.secrets(&env).await?.into_iter().map(|name| format!("secret {name}")));
        Ok(losses)
    }

    /// Removes the files of an environment whose deletion has begun, then its record.
    ///
    /// # Errors
    /// The disk; the next start goes on where this ended.
    pub async fn remove_environment(&self, environment: &Environment) -> Result<()> {
        // Calls that began before may still run: they find no database and store no blob from here on.
        self.databases.remove(environment.id).await?;
        self.blobs.forget(environment.id).await;
        self.storage.forget(environment.id).await?;
        self.releases.forget(environment.id);
        self.realtime.forget(environment.id);
        self.auth.forget(environment.id);
        self.snapshots.forget(environment.id).await?;
        self.backups.leave(environment.tenant, environment.id).await?;
        self.functions.forget(environment.id).await?;
        self.masks.forget(environment.id);
        self.hands.forget(environment.id).await?;
        let directory = self.environments_dir.join(environment.id.to_string());
        let doomed = directory.with_extension("removed");
        // Under another name first: who still writes to the environment, its log for one, finds it gone.
        gone(tokio::fs::remove_dir_all(&doomed).await)?;
        gone(tokio::fs::rename(&directory, &doomed).await)?;
        gone(tokio::fs::remove_dir_all(&doomed).await)?;
        self.control.environments().finish_delete(environment).await
    }

    /// Finishes what an earlier process began: environments half made, or half removed.
    ///
    /// # Errors
    /// The disk, or the control plane.
    pub async fn recover(&self) -> Result<()> {
        self.snapshots.sweep().await?;
        for environment in self.control.environments().unfinished().await? {
            match environment.state {
                EnvState::Creating if Environments::is_copy(&environment) => {
                    if self.snapshots.is_there(environment.id) {
                        self.control.environments().ready(&environment).await?;
                    } else {
                        self.control.environments().abandon(&environment).await?;
                    }
                }
                EnvState::Creating => {
                    self.databases.recreate(environment.id).await?;
                    self.control.environments().ready(&environment).await?;
                }
                EnvState::Deleting => {
                    // One that cannot be removed stands in nobody else's way.
                    if let Err(error) = self.remove_environment(&environment).await {
                        let (id, error) = (environment.id, error.chain());
                        tracing::error!(env.id = %id, error, "a deleted environment could not be removed");
                    }
                }
                EnvState::Ready | EnvState::Suspended => {}
            }
        }
        Ok(())
    }
}

/// Whose a workspace is: what stands before its own name.
pub(crate) fn owner_of(workspace: &Workspace) -> &str {
    workspace.name.split('/').next().unwrap_or_default()
}

/// Who has the workspaces of a caller. The operator's key may be replaced; who it is stays.
pub(crate) fn owner(caller: &Caller) -> String {
    match caller.principal {
        Principal::Operator => OPERATOR.to_owned(),
        _ => caller.owner.to_string(),
    }
}

fn counted(number: u64) -> String {
    let more = if number < database::COUNTED { "" } else { " or more" };
    format!("{number}{more}")
}

/// That it was not there any more is as good as having removed it.
fn gone(removed: std::io::Result<()>) -> Result<()> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::internal(e)),
        _ => Ok(()),
    }
}

impl Host for Platform {
    fn limiter(&self) -> &dyn Limiter {
        self.control.limiter()
    }

    fn ledger(&self) -> &dyn Ledger {
        self.control.ledger()
    }

    fn replays(&self) -> &dyn Replays {
        self.control.replays()
    }

    fn digest_key(&self) -> &[u8; 32] {
        self.control.digest_key()
    }

    fn called(&self, tool: &'static str, error: Option<Code>, took: Duration) {
        (self.called)(tool, error, took);
    }

    fn cover<'a>(
        &'a self,
        caller: &'a Caller,
        effect: Effect,
        outcome: Result<Value>,
    ) -> BoxFuture<'a, Result<Value>> {
        Box::pin(self.without_secrets(caller, effect, outcome))
    }

    fn revoked<'a>(&'a self, caller: &'a Caller) -> BoxFuture<'a, ()> {
        Box::pin(self.control.revoked(caller))
    }
}
