//! The open control plane: what it makes on first start, its parts, its upkeep and its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Caller, Code, Error, Principal, Proof as _, Result, Scope, Secret, Slug, TenantId, Timestamp};
use store::{KeptSigningKey, Location, Store, Tenant};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tool::Effect;
use zeroize::Zeroizing;

use crate::credentials::Credentials;
use crate::data_keys::DataKeys;
use crate::key_encryption::KekFile;
use crate::members::Members;
use crate::metering::Metering;
use crate::names::Names;
use crate::news::{Memories, News};
use crate::oauth::{DeviceTurns, OAuth};
use crate::plans::Plans;
use crate::remembered::Remembered;
use crate::ring::{Before, Ring, SLACK};
use crate::tokens::TURNS;
use crate::{
    AppKeys, AuditKey, AuditLog, Call, Confirmations, ControlConfig, EncryptionKeys, Environments, Keys,
    Ledger, Limits, NewEnvironment, NewKeyMade, OpenError, Replays, Sealing, Secrets, Tenants, Tokens, Usage,
    private,
};

const TENANT_NAMES: Duration = Duration::from_secs(60);
const DEFAULT: &str = "default";
const BOOTSTRAPPED: &str = "default_environment";
/// Audit rows removed by one statement, so that no write waits long for it.
const PURGE: u32 = 5_000;
/// The file of checkpoints of audit logs, below the data directory.
pub const CHECKPOINTS: &str = "audit-checkpoints.ndjson";

/// The control plane.
pub struct Control {
    pub(crate) store: Store,
    pub(crate) names: Arc<Names>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) news: Arc<News>,
    pub(crate) tokens: Tokens,
    ring: Arc<Ring>,
    following: Option<JoinHandle<()>>,
    /// Tenants that calls have named; one is never renamed, and may be removed.
    pub(crate) tenant_names: Arc<Remembered<String, TenantId>>,
    tenants: Tenants,
    members: Members,
    environments: Environments,
    keys: Keys,
    secrets: Secrets,
    app_keys: Arc<AppKeys>,
    data_keys: Arc<DataKeys>,
    sealing: Sealing,
    confirmations: Arc<Confirmations>,
    limits: Limits,
    plans: Arc<Plans>,
    metering: Metering,
    metered: JoinHandle<()>,
    ledger: Ledger,
    pub(crate) audit_key: Arc<AuditKey>,
    pub(crate) checkpoints: PathBuf,
    replays: Replays,
    default_tenant: TenantId,
    digest_key: Zeroizing<[u8; 32]>,
    preview_key: Zeroizing<[u8; 32]>,
    pub(crate) oauth_key: Zeroizing<[u8; 32]>,
    pub(crate) device_turns: DeviceTurns,
    pub(crate) config: ControlConfig,
}

/// What is said once.
#[derive(Debug)]
pub struct Bootstrap {
    /// The operator's key, on the first start only. It stays readable in `<data>/operator.key`.
    pub operator_key: Option<Secret>,
}

impl Control {
    /// Opens the control plane: makes the directories, the master key and the tables where they are missing, and
    /// on the first start the operator's key, the default tenant and the record of the environment `default`.
    /// That record is in state `creating`: see [`Environments::unfinished`].
    ///
    /// # Errors
    /// What is in the way, with the path and what to do.
    pub async fn open(config: ControlConfig) -> Result<(Self, Bootstrap), OpenError> {
        if config.templates.is_empty() {
            return Err(OpenError::NoTemplate);
        }
        let keys_dir = config.data_dir.join("keys");
        private::directory(&config.data_dir)?;
        private::directory(&keys_dir)?;
        let (location, place) = location(&config);
        let failed = |source| OpenError::Store { place: place.clone(), source };
        let store = Store::open(&location).await.map_err(failed)?;
        let file = KekFile::new(keys_dir.join("master"));
        let (data_keys, master) = DataKeys::open(store.clone(), &config, file, &failed).await?;
        let data_keys = Arc::new(data_keys);
        let ring = Arc::new(Ring::open(store.clone(), Arc::clone(&data_keys), &failed).await?);

        let names = Arc::new(Names::new(store.clone()));
        let credentials = Arc::new(Credentials::new());
        let news = Arc::new(News::new(&store));
        let plans = Arc::new(Plans::open(store.clone()).await.map_err(OpenError::Plans)?);
        let tenant_names = Arc::new(Remembered::new(1_024, TENANT_NAMES));
        let following = news.follow(
            &store,
            Memories {
                credentials: Arc::clone(&credentials),
                names: Arc::clone(&names),
                ring: Arc::clone(&ring),
                tenants: Arc::clone(&tenant_names),
                plans: Arc::clone(&plans),
            },
        );
        let confirmations = Arc::new(Confirmations::new(&master, store.clone()));
        let app_keys = Arc::new(AppKeys::new(store.clone(), Arc::clone(&data_keys)));
        let default_tenant = default_tenant(&store).await.map_err(failed)?;
        let metering = Metering::new(store.clone());
        let audit_key = Arc::new(AuditKey::new(&master.derive("steading audit")));
        let control = Self {
            tokens: Tokens {
                store: store.clone(),
                ring: Arc::clone(&ring),
                names: Arc::clone(&names),
                credentials: Arc::clone(&credentials),
                turns: Semaphore::new(TURNS),
            },
            tenants: Tenants {
                store: store.clone(),
                names: Arc::clone(&names),
                credentials: Arc::clone(&credentials),
                slugs: Arc::clone(&tenant_names),
                data_keys: Arc::clone(&data_keys),
                grace: config.keep_tenants,
                default: default_tenant,
                plans: Arc::clone(&plans),
            },
            environments: Environments {
                store: store.clone(),
                names: Arc::clone(&names),
                credentials: Arc::clone(&credentials),
                confirmations: Arc::clone(&confirmations),
                app_keys: Arc::clone(&app_keys),
                templates: config.templates.clone(),
                plans: Arc::clone(&plans),
            },
            keys: Keys {
                store: store.clone(),
                credentials: Arc::clone(&credentials),
                operator_file: config.data_dir.join("operator.key"),
                replacing: tokio::sync::Mutex::default(),
            },
            members: Members { store: store.clone(), credentials: Arc::clone(&credentials) },
            data_keys: Arc::clone(&data_keys),
            sealing: Sealing { keys: Arc::clone(&data_keys) },
            secrets: Secrets { store: store.clone(), keys: Arc::clone(&data_keys) },
            app_keys,
            confirmations,
            limits: Limits::new(config.limits, Arc::clone(&plans)),
            plans,
            metered: metering.start(),
            metering,
            ledger: Ledger::start(store.clone(), Arc::clone(&audit_key)),
            audit_key,
            checkpoints: config.data_dir.join(CHECKPOINTS),
            replays: Replays::new(store.clone()),
            tenant_names,
            store,
            names,
            credentials,
            news,
            following,
            ring,
            default_tenant,
            digest_key: master.derive("steading input digest"),
            preview_key: master.derive("steading previews"),
            oauth_key: master.derive("steading oauth"),
            device_turns: DeviceTurns::default(),
            config,
        };
        control.default_environment().await.map_err(OpenError::DefaultEnvironment)?;
        let operator_key = control.keys.first_operator(default_tenant).await?;
        Ok((control, Bootstrap { operator_key }))
    }

    /// The people of tenants.
    #[must_use]
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The tenants.
    #[must_use]
    pub fn tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// What the addresses of previews are made with.
    #[must_use]
    pub fn preview_key(&self) -> &[u8; 32] {
        &self.preview_key
    }

    /// The environments.
    #[must_use]
    pub fn environments(&self) -> &Environments {
        &self.environments
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Minted tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The authorization server.
    #[must_use]
    pub fn oauth(&self) -> OAuth<'_> {
        OAuth(self)
    }

    /// The environments' secrets.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The keys that sign the tokens of apps' users.
    #[must_use]
    pub fn app_keys(&self) -> &AppKeys {
        &self.app_keys
    }

    /// The seal of keys that other parts keep.
    #[must_use]
    pub fn sealing(&self) -> &Sealing {
        &self.sealing
    }

    /// The tables, for parts that keep their own.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Confirmation tokens.
    #[must_use]
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The plans.
    #[must_use]
    pub fn plans(&self) -> &Arc<Plans> {
        &self.plans
    }

    /// The meters.
    #[must_use]
    pub fn metering(&self) -> &Metering {
        &self.metering
    }

    /// How many calls pass.
    #[must_use]
    pub fn limiter(&self) -> &Limits {
        &self.limits
    }

    /// The records of calls.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The audit logs of tenants.
    #[must_use]
    pub fn audit(&self) -> AuditLog<'_> {
        AuditLog(self)
    }

    /// The memory of calls made under an idempotency key.
    #[must_use]
    pub fn replays(&self) -> &Replays {
        &self.replays
    }

    /// Keys the digests of inputs in the records of calls.
    #[must_use]
    pub fn digest_key(&self) -> &[u8; 32] {
        &self.digest_key
    }

    /// The tenant of whoever names none.
    #[must_use]
    pub fn default_tenant(&self) -> TenantId {
        self.default_tenant
    }

    /// Makes another operator key in place of the old one, which ends at once with all that was minted by it, and writes it
    /// to `<data>/operator.key`.
    ///
    /// # Errors
    /// `forbidden` for all but the operator's key itself; where the file or the database cannot be written.
    pub async fn replace_operator(&self, caller: &Caller) -> Result<NewKeyMade> {
        operator(caller)?;
        if caller.principal != Principal::Operator || !caller.above.is_empty() {
            return Err(Error::new(Code::Forbidden, "only the operator's key replaces itself"));
        }
        let made = self.keys.reset_operator(self.default_tenant, caller.credential).await.map_err(|error| {
            Error::new(Code::Unavailable, "the operator's key could not be replaced")
                .hint("operator.key, or operator.key.next beside it, has the one that is good; look at the server's disk")
                .source(error)
        })?;
        made.ok_or_else(|| Error::new(Code::Conflict, "another one has just replaced the operator's key"))
    }

    /// The keys that sign tokens: each with where it is in its life.
    ///
    /// # Errors
    /// `forbidden` for all but the operator.
    pub async fn signing_keys(&self, caller: &Caller) -> Result<Vec<KeptSigningKey>> {
        operator(caller)?;
        self.ring.all().await
    }

    /// Has another key sign tokens from now on. Those that were signed hold until they end, unless the keys `before` are
    /// forgotten.
    ///
    /// # Errors
    /// `forbidden` for all but the operator.
    pub async fn rotate_signing_key(&self, caller: &Caller, before: Before) -> Result<Vec<KeptSigningKey>> {
        operator(caller)?;
        let keys = self.ring.rotate(before).await?;
        if before == Before::Forgotten {
            self.credentials.forget_all();
        }
        Ok(keys)
    }

    /// What values are sealed with: names and ages, no keys.
    ///
    /// # Errors
    /// `forbidden` for all but the operator.
    pub async fn encryption_keys(&self, caller: &Caller) -> Result<EncryptionKeys> {
        operator(caller)?;
        self.data_keys.shown().await
    }

    /// Puts another key-encryption key in force and has other data keys seal. What older ones have sealed is sealed anew by
    /// upkeep.
    ///
    /// # Errors
    /// `forbidden` for all but the operator; `unavailable` where a file cannot be written, this gateway does not have the key
    /// in force, or the command gives none; `conflict` where another gateway was quicker.
    pub async fn rotate_encryption_keys(&self, caller: &Caller) -> Result<EncryptionKeys> {
        operator(caller)?;
        self.data_keys.rotate().await
    }

    /// At most `limit` of a tenant's calls made before `before`, latest first.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn calls(
        &self,
        tenant: &kernel::Tenant,
        before: Option<kernel::CallId>,
        limit: u32,
    ) -> Result<Vec<Call>> {
        Ok(self.store.records().calls(tenant.id(), before, limit).await?)
    }

    /// What a tenant, or one of its environments, used from the hour of `since` on, by tool.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn usage(
        &self,
        tenant: &kernel::Tenant,
        env: Option<kernel::EnvId>,
        since: Timestamp,
    ) -> Result<Vec<Usage>> {
        Ok(self.store.records().usage(tenant.id(), env, since).await?)
    }

    /// One round of tidying: what has expired goes, and who has not called for a while is forgotten. To be called
    /// about once a minute.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn upkeep(&self) -> Result<()> {
        self.limits.tidy();
        let now = Timestamp::now();
        self.store.replays().purge(now).await?;
        self.store.spent().purge(now).await?;
        let long_ago = now.minus(SLACK);
        self.store.runs().purge(long_ago).await?;
        self.store.runs().purge_makers(now.minus(self.config.keep_changes)).await?;
        self.store.news().purge(long_ago).await?;
        self.oauth().upkeep(now).await?;
        self.ring.upkeep(now).await?;
        self.metering.upkeep(now).await?;
        if let Err(error) = self.data_keys.upkeep().await {
            tracing::warn!(error = error.chain(), "older values are not sealed anew");
        }
        for effect in [Effect::Read, Effect::Idempotent, Effect::Write, Effect::Destroy] {
            let keep = if effect == Effect::Read { self.config.keep_reads } else { self.config.keep_changes };
            self.store.records().purge(effect.as_str(), now.minus(keep), PURGE).await?;
        }
        self.audit().upkeep(now).await
    }

    /// Whether the control database answers.
    ///
    /// # Errors
    /// `unavailable` where it does not.
    pub async fn ping(&self) -> Result<()> {
        self.store.ping().await.map_err(|error| {
            Error::new(Code::Unavailable, "the control database does not answer").source(error)
        })
    }

    /// Writes what is still to be written and closes the database. Calls that come later fail.
    pub async fn close(&self) {
        if let Some(following) = &self.following {
            following.abort();
        }
        self.metered.abort();
        if let Err(error) = self.metering.flush().await {
            tracing::error!(error = error.chain(), "what was used of late could not be written");
        }
        self.ledger.close().await;
        self.audit().close().await;
        self.store.close().await;
    }

    /// Once in the life of a platform: who deletes the environment `default` does not find it again.
    async fn default_environment(&self) -> Result<()> {
        if self.store.settings().get(BOOTSTRAPPED).await?.is_some() {
            return Ok(());
        }
        let new = NewEnvironment { slug: DEFAULT.parse().ok(), ..NewEnvironment::default() };
        match self.environments.create_for(self.default_tenant, new).await {
            Ok(_) => {}
            // A start that died half-way, or another node, has made it before.
            Err(error) if error.code() == Code::Conflict => {}
            Err(error) => return Err(error),
        }
        self.store.settings().get_or_set(BOOTSTRAPPED, "made").await?;
        Ok(())
    }
}

fn location(config: &ControlConfig) -> (Location, String) {
    match &config.database_url {
        Some(url) => (Location::Postgres(url.clone()), "of the configured address".to_owned()),
        None => {
            let path = config.data_dir.join("control.db");
            let place = path.display().to_string();
            (Location::Sqlite(path), place)
        }
    }
}

/// That this is who runs the platform, and not who was given a part of it.
pub(crate) fn operator(caller: &Caller) -> Result<()> {
    kernel::Tenant::authorize(caller, &[Scope::TenantAdmin]).map(drop)
}

async fn default_tenant(store: &Store) -> store::Result<TenantId> {
    if let Some(tenant) = store.tenants().find(DEFAULT).await? {
        return Ok(tenant.id);
    }
    let slug =
        DEFAULT.parse::<Slug>().map_err(|e| store::Error::Unreadable { what: "slug", source: e.into() })?;
    let tenant = Tenant::new(slug, "Default".to_owned(), TenantId::new(), Timestamp::now());
    if store.tenants().insert(&tenant).await?.is_made() {
        return Ok(tenant.id);
    }
    // Another node was quicker.
    let found = store.tenants().find(DEFAULT).await?;
    Ok(found.map_or(tenant.id, |tenant| tenant.id))
}
