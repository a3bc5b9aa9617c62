//! The composition root: this file, and those below it, are the ones that name engines.

mod doors;
mod https;
mod models;
mod opening;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use capabilities::auth::{Auth, AuthLimits, Outside};
use capabilities::database::{self, Databases};
use capabilities::hosting::Blobs;
use capabilities::logs::{Logs, Pace, Rotation, Source};
use capabilities::mail::{Post, Route, Server};
use capabilities::outbound::{Outbound, SecretValues};
use capabilities::realtime::{Realtime, RealtimeLimits};
use capabilities::releases::Releases;
use capabilities::rows::{LiveApps, Rows};
use capabilities::snapshots::{Attic, Backups, SnapshotLimits, Snapshots};
use capabilities::storage::{Contents, LinkKeys, S3, Storage, StorageLimits};
use control::{Control, ControlConfig, RateLimit, RateLimits};
use edge::{Data, Edge, FunctionDoor, Hosts};
use functions::{Artifacts, Functions, Host};
use hands::Journal;
use kernel::{Code, Error, Result, Secret};
use mcp_server::app_addresses::AppAddresses;
use mcp_server::app_keys::AppKeys;
use mcp_server::masks::Masks;
use mcp_server::planned::PlannedQuotas;
use mcp_server::platform::{Platform, Urls};
use mcp_server::tenancy::Lives;
use mcp_server::tools;
use sandbox::local::Starter;
use sandbox::preview::Labels;
use sandbox::workspace::checkpoints::Checkpoints;
use tokio_util::sync::CancellationToken;

use crate::app_functions::{Around, Workshop, noted};
use crate::apps::Residents;
use crate::clock::{Bell, Clock};
use crate::config::Config;
use crate::events::Messenger;
use crate::live_check::Dialer;
use crate::metrics::Meters;
use crate::proxies::Proxies;
use crate::serve::Answering;
use crate::traffic::{Own, Traffic};
use crate::{metering, sandboxes, upkeep};

use doors::platform_router;
use https::Dispatch;
pub use https::Https;
use opening::{closed, known_to_a_control_plane, unusable};

/// How long realtime connections get to say that they end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where the platform listens, and how it learns that it is to stop.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The bound address.
    pub addr: SocketAddr,
    /// The bound address for HTTPS, where there is one.
    pub tls: Option<SocketAddr>,
    /// The platform's address for others, without a slash at the end.
    pub url: String,
    /// The domain below which apps live, with its port.
    pub apps_domain: String,
    /// The connections that the platform makes to itself.
    pub own: Own,
    /// The connections, and what is on them.
    pub traffic: Traffic,
    /// The domain that previews of sandboxes stand before.
    pub preview_domain: String,
    /// Cancelled when the program is told to stop: streams that wait for news end.
    pub stopping: CancellationToken,
    /// Cancelled when the grace period is over: calls still running end.
    pub cancelled: CancellationToken,
}

/// What is said when the platform is ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The default environment's slug.
    pub env: String,
    /// The operator's key, on the first start only.
    pub key: Option<Secret>,
}

/// The assembled platform.
pub struct App {
    /// Every route of every host.
    pub answering: Answering,
    /// Where the platform serves HTTPS itself.
    pub https: Option<Https>,
    /// What to say when it listens.
    pub ready: Ready,
    platform: Arc<Platform>,
    around: Arc<Around>,
    clock: Arc<Clock>,
    messenger: Arc<Messenger>,
}

impl App {
    /// Flushes what is not written yet, and closes the engines.
    pub async fn shutdown(self) {
        if tokio::time::timeout(LAST_WORDS, self.platform.realtime.closed()).await.is_err() {
            tracing::warn!("some realtime connections did not end in time");
        }
        self.platform.functions.close(LAST_WORDS).await;
        if tokio::time::timeout(LAST_WORDS, self.clock.closed()).await.is_err() {
            tracing::warn!("some schedules did not end in time");
        }
        if tokio::time::timeout(LAST_WORDS, self.messenger.closed()).await.is_err() {
            tracing::warn!("some events did not end in time");
        }
        self.platform.models.close(LAST_WORDS).await;
        self.around.disconnect();
        self.platform.hands.close().await;
        self.platform.databases.close().await;
        self.platform.logs.flush().await;
        self.platform.control.close().await;
    }
}

/// Opens the engines that `config` chooses and assembles the platform on them. Without a `starter` this process itself starts
/// the one that makes sandboxes.
///
/// # Errors
/// Whatever an engine refuses.
pub async fn build(config: &Config, listening: &Listening, starter: Option<Starter>) -> Result<App> {
    let meters = Arc::new(Meters::new().map_err(Error::internal)?);
    meters.tools(tools::registry().docs().map(|doc| doc.name));
    let environments_dir = config.data_dir.join("envs");
    known_to_a_control_plane(config, &environments_dir)?;
    let (control, bootstrap) = Control::open(control_config(config)?).await.map_err(closed)?;
    let control = Arc::new(control);
    std::fs::create_dir_all(&environments_dir).map_err(|e| unusable(&environments_dir, e))?;
    let databases = Arc::new(Databases::with_quotas(
        environments_dir.clone(),
        database_limits(config),
        Arc::new(PlannedQuotas(Arc::clone(&control))),
    ));
    let blobs = Blobs::bounded(&environments_dir, config.environments.max_files_bytes)?;
    let logs = logs(config, &environments_dir);
    let hosts = Arc::new(hosts(listening)?);
    let certificates = match listening.tls {
        Some(_) => Some(Arc::new(https::certificates(config, listening, &hosts, &control)?)),
        None => None,
    };
    let domains = Arc::new(https::domains(config, listening, &control, certificates.clone(), &logs)?);
    let dialer = Dialer {
        addr: local(listening.addr),
        apps_domain: listening.apps_domain.clone(),
        control: Arc::clone(&control),
        domains: Arc::clone(&domains),
        own: listening.own.clone(),
    };
    let local = sandboxes::makers(config, starter)?;
    let (store, journal) = (control.store().clone(), egress_journal(&logs));
    let jails = Arc::clone(&local);
    let hands = sandboxes::hands(config, Arc::clone(&local), store, journal, checkpoints(config)?)?;
    let urls = Urls {
        scheme: if listening.url.starts_with("https://") { "https" } else { "http" },
        apps_domain: listening.apps_domain.clone(),
        preview_domain: listening.preview_domain.clone(),
        domains: https::visited(listening),
    };
    let masks = Arc::new(Masks::default());
    let around = Arc::new(Around::new(&control, &urls, &logs, &masks, &hands));
    let artifacts = Artifacts::open(sandboxes::functions(config)?, blobs.clone())?;
    let (layers, limits) = (sandboxes::layers(config)?, sandboxes::function_limits(config));
    let functions = Functions::new(local, layers, artifacts, Arc::clone(&around) as Arc<dyn Host>, limits)?;
    let releases = Releases::new(Arc::clone(&databases), blobs.clone(), logs.clone(), Arc::new(dialer));
    let contents = contents(config, &environments_dir)?;
    let bell = Bell::default();
    let builder = Workshop { functions: functions.clone(), hands: hands.clone(), bell: bell.clone() };
    let releases = releases.with_domains(Arc::clone(&domains)).with_contents(contents.clone());
    let releases = Arc::new(releases.with_functions(Arc::new(builder)));
    let keys = Arc::new(AppKeys(Arc::clone(&control)));
    let links = Arc::clone(&keys) as Arc<dyn LinkKeys>;
    let addresses = Arc::new(AppAddresses { control: Arc::clone(&control), urls: urls.clone() });
    let post = Post::new(&mail_route(config), addresses, logs.clone())?;
    let outside = Outside {
        http: Outbound::new(config.outbound.private.clone())?,
        secrets: Arc::clone(&keys) as Arc<dyn SecretValues>,
    };
    let auth = Auth::new(Arc::clone(&databases), keys, post, outside, auth_limits(config));
    let live = Arc::clone(&releases) as Arc<dyn LiveApps>;
    let limits = StorageLimits { bytes: config.environments.max_files_bytes };
    let storage = Storage::new(Arc::clone(&databases), Arc::clone(&live), contents.clone(), links, limits);
    let realtime = Realtime::new(
        Arc::clone(&databases),
        live,
        auth.clone(),
        RealtimeLimits::default(),
        listening.stopping.clone(),
    );
    let snapshots = Snapshots::new(
        environments_dir.clone(),
        Arc::clone(&databases),
        Arc::clone(&releases),
        auth.clone(),
        logs.clone(),
        contents,
        attic(config)?,
        snapshot_limits(config),
    );
    let backups = backups(config, snapshots.clone())?;
    tokio::spawn({
        let (hands, stop) = (hands.clone(), listening.stopping.clone());
        async move { hands.tend(stop).await }
    });
    let models = models::models(config, control.store().clone())?;
    let previews = Labels::new(control.preview_key());
    let platform = Arc::new(Platform {
        previews,
        control,
        databases,
        releases,
        auth,
        domains,
        realtime,
        blobs,
        snapshots,
        backups,
        storage,
        logs,
        hands,
        functions,
        models,
        masks,
        urls,
        lives: Lives::default(),
        environments_dir,
        called: {
            let meters = Arc::clone(&meters);
            Arc::new(move |tool, error, took| meters.called(tool, error, took))
        },
    });
    platform.recover().await?;
    let every = Duration::from_secs(config.environments.upkeep_s.max(1));
    let left = Duration::from_secs(config.environments.keep_deleted_s);
    upkeep::start(Arc::clone(&platform), bell.clone(), every, left, listening.stopping.clone());
    metering::start(&platform, jails, listening, every, s3(config).is_some());
    let challenges = certificates.as_ref().map(|certificates| Arc::clone(certificates.challenges()));
    let https = match certificates {
        Some(certificates) => Some(https::start(certificates, listening, &hosts, &platform.control)?),
        None => None,
    };
    let edge = edge(&platform);
    around.connect(edge.clone());
    let dispatch = Dispatch {
        hosts,
        proxies: Proxies(config.trusted_proxies.clone()),
        platform: platform_router(config, listening, &platform, (&meters, &edge))?,
        edge,
        meters,
        url: listening.url.clone(),
        services: Arc::clone(&platform),
        challenges: challenges.unwrap_or_default(),
        hsts: config.tls.hsts,
    };
    // The last: what it runs needs all the others.
    let messenger = Messenger::start(Arc::clone(&platform), listening.stopping.clone());
    let (told, stop) = (Arc::clone(&messenger), listening.stopping.clone());
    let clock = Clock::start(Arc::clone(&platform), bell, told, stop);
    Ok(App {
        answering: dispatch.answering(),
        https,
        ready: Ready { env: "default".to_owned(), key: bootstrap.operator_key },
        platform,
        around,
        clock,
        messenger,
    })
}

fn edge(platform: &Arc<Platform>) -> Edge {
    let residents =
        Residents { control: Arc::clone(&platform.control), releases: Arc::clone(&platform.releases) };
    let live = Arc::clone(&platform.releases) as Arc<dyn LiveApps>;
    let rows = Rows::new(Arc::clone(&platform.databases), live);
    let data = Data {
        auth: platform.auth.clone(),
        rows,
        files: platform.storage.clone(),
        realtime: platform.realtime.clone(),
    };
    let addresses =
        Arc::new(AppAddresses { control: Arc::clone(&platform.control), urls: platform.urls.clone() });
    let door =
        FunctionDoor { functions: platform.functions.clone(), addresses, models: platform.models.clone() };
    let edge = Edge::new(Arc::new(residents), platform.blobs.clone(), data, platform.logs.clone());
    edge.with_functions(door)
}

fn hosts(listening: &Listening) -> Result<Hosts> {
    let url: http::Uri = listening.url.parse().map_err(Error::internal)?;
    let hosts = Hosts::new(url.host(), &listening.apps_domain).map_err(|e| {
        Error::new(Code::InvalidInput, format!("apps_domain cannot be used: {e}"))
            .hint("give a domain such as apps.example.org")
    })?;
    let hosts = hosts.with_previews(&listening.preview_domain).map_err(|e| {
        Error::new(Code::InvalidInput, format!("preview_domain cannot be used: {e}"))
            .hint("give a domain such as preview.example.net")
    })?;
    Ok(hosts.with_ports(listening.tls.map(|addr| addr.port())))
}

fn control_config(config: &Config) -> Result<ControlConfig> {
    let limit = |name: &str, per_second, burst| {
        RateLimit::new(per_second, burst).ok_or_else(|| {
            Error::new(
                Code::InvalidInput,
                format!("limits.{name}_per_second and limits.{name}_burst must not be 0"),
            )
        })
    };
    let limits = &config.limits;
    Ok(ControlConfig {
        database_url: config.database.url.clone(),
        key_command: Some(config.keys.command.0.clone()).filter(|words| !words.is_empty()),
        limits: RateLimits {
            key: limit("key", limits.key_per_second, limits.key_burst)?,
            token: limit("token", limits.token_per_second, limits.token_burst)?,
            tenant: limit("tenant", limits.tenant_per_second, limits.tenant_burst)?,
        },
        consent: Duration::from_secs(config.oauth.consent_s),
        ..ControlConfig::new(config.data_dir.clone())
    })
}

fn logs(config: &Config, environments_dir: &Path) -> Logs {
    let Rotation { files, .. } = Rotation::default();
    let rotation = Rotation { files, file_bytes: config.environments.max_log_bytes / (3 * files as u64) };
    let per_second = NonZeroU32::new(config.environments.max_log_per_second).unwrap_or(NonZeroU32::MIN);
    Logs::with(environments_dir, rotation, Pace { per_second })
}

/// Notes in the environment's log where its sandboxes went, and what they were refused.
fn egress_journal(logs: &Logs) -> Journal {
    let logs = logs.clone();
    Arc::new(move |env, event| logs.append(env, noted("a sandbox", Source::Sandbox, &event)))
}

/// Where the contents of files are.
fn contents(config: &Config, environments_dir: &Path) -> Result<Contents> {
    match s3(config) {
        Some(s3) => Contents::s3(&s3, environments_dir),
        None => Contents::local(environments_dir),
    }
}

fn backups(config: &Config, snapshots: Snapshots) -> Result<Backups> {
    let most = config.environments.max_backup_bytes;
    match s3(config) {
        Some(s3) => Ok(Backups::remote(s3.store()?, snapshots, most)),
        None => Backups::local(&config.data_dir.join("backups"), snapshots, most),
    }
}

/// Where old snapshots are packed away.
fn attic(config: &Config) -> Result<Attic> {
    match s3(config) {
        Some(s3) => Ok(Attic::remote(s3.store()?)),
        None => Attic::local(&config.data_dir.join("archive")),
    }
}

/// Where workspaces that nobody needs are archived.
fn checkpoints(config: &Config) -> Result<Checkpoints> {
    match s3(config) {
        Some(s3) => Ok(Checkpoints::remote(s3.store()?)),
        None => Checkpoints::local(&config.data_dir.join("checkpoints")),
    }
}

/// The bucket where files and backups are, where they are not in the data directory.
fn s3(config: &Config) -> Option<S3> {
    let storage = &config.storage;
    storage.s3_secret_key.0.as_ref().filter(|_| !storage.s3_bucket.0.is_empty()).map(|secret_key| S3 {
        endpoint: storage.s3_endpoint.0.clone(),
        bucket: storage.s3_bucket.0.clone(),
        region: storage.s3_region.0.clone(),
        access_key: storage.s3_access_key.0.clone(),
        secret_key: secret_key.clone(),
    })
}

fn database_limits(config: &Config) -> database::Limits {
    const PAGE: u64 = 4096;
    let environments = &config.environments;
    database::Limits {
        open: environments.max_open,
        pages: u32::try_from(environments.max_database_bytes / PAGE).unwrap_or(u32::MAX),
        statement: Duration::from_millis(environments.statement_timeout_ms),
        ..database::Limits::default()
    }
}

/// Where mail goes: to the server that is configured, else into outboxes.
fn mail_route(config: &Config) -> Route {
    match (&config.mail.smtp.0, &config.mail.from.0) {
        (Some(url), Some(from)) => Route::Server(Server {
            url: url.clone(),
            from: from.clone(),
            user: Some(config.mail.user.0.clone()).filter(|user| !user.is_empty()),
            password: config.mail.password.0.clone(),
        }),
        _ => Route::Outbox,
    }
}

fn auth_limits(config: &Config) -> AuthLimits {
    let auth = &config.auth;
    AuthLimits {
        code: Duration::from_secs(auth.code_s),
        access: Duration::from_secs(auth.access_s),
        session: Duration::from_secs(auth.session_s),
        ..AuthLimits::default()
    }
}

fn snapshot_limits(config: &Config) -> SnapshotLimits {
    let environments = &config.environments;
    SnapshotLimits {
        most: environments.max_snapshots,
        bytes: environments.max_snapshot_bytes,
        ..SnapshotLimits::default()
    }
}

/// The listener as this machine reaches it: an unspecified address is reached by loopback.
pub fn local(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, addr.port())
}
