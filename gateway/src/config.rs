//! What the operator decides: one `Config` from defaults, `steading.toml`, `STEADING_*` variables and flags.

mod allowed;
mod demanded;
mod directory;
mod error;
mod exchange;
mod file;
mod keys;
mod metrics;
mod model;
mod oauth;
mod settings;
mod surroundings;
mod usual;
mod value;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hands::{Allowed, Demands};
use kernel::{Networks, Secret};
use sandbox::workspace::LEAST_QUOTA;
use sandbox::workspace::templates::Template;
use url::Url;

pub use directory::Directory;
pub use error::{Error, Source};
pub use exchange::Exchange;
pub use keys::Keys;
pub use metrics::Metrics;
pub use model::Model;
pub use oauth::OAuth;
pub use settings::example;
pub use surroundings::Surroundings;
pub use value::{
    AcmeChallenge, Addresses, Contact, Format, Hidden, Level, MailServer, OrZero, Sender, Servers, Text,
    TlsMode, Vouched,
};

/// The file that is read from the working directory when `--config` names no other.
pub const FILE: &str = "steading.toml";

/// Everything the operator decides. [`Config::default`] is what runs with no configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where everything is kept, relative to the working directory.
    pub data_dir: PathBuf,
    /// The address the platform is reached at from outside, where it is not the one it listens on.
    pub public_url: Option<Url>,
    /// The domain below which apps live; `localhost:<port>` where none is set.
    pub apps_domain: Option<String>,
    /// The domain below which sandbox previews live; `preview.localhost:<port>` where none is set.
    pub preview_domain: Option<String>,
    /// Whether plain HTTP is served on anything but loopback.
    pub allow_insecure_http: bool,
    /// Proxies whose word on who asks is taken.
    pub trusted_proxies: Networks,
    /// Seconds that calls in flight may go on once the program is told to stop.
    pub shutdown_grace_s: u64,
    /// HTTPS.
    pub tls: Tls,
    /// Certificates from a public authority.
    pub acme: Acme,
    /// Domains of apps' own.
    pub domains: Domains,
    /// The MCP door.
    pub mcp: Mcp,
    /// How often credentials may call.
    pub limits: Limits,
    /// The control plane's database.
    pub database: Database,
    /// What environments may take.
    pub environments: Environments,
    /// What sandboxes may take.
    pub sandbox: Sandbox,
    /// What functions may take.
    pub functions: Functions,
    /// The model that functions ask.
    pub model: Model,
    /// Mail to the users of apps.
    pub mail: Mail,
    /// Signing in to apps.
    pub auth: Auth,
    /// Clients that act for users.
    pub oauth: OAuth,
    /// The directory that vouches for members of tenants.
    pub directory: Directory,
    /// The issuer whose signed tokens are exchanged for tokens of the platform.
    pub exchange: Exchange,
    /// What data keys are wrapped by.
    pub keys: Keys,
    /// Requests that apps cause.
    pub outbound: OutboundReach,
    /// Where files are.
    pub storage: Storage,
    /// Who reads what the platform counts.
    pub metrics: Metrics,
    /// The log.
    pub log: Log,
}

/// Mail to the users of apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The server that sends it; where none is set, mail stays in each environment's outbox.
    pub smtp: MailServer,
    /// The address that it comes from.
    pub from: Sender,
    /// The name to sign in to the server with.
    pub user: Text,
    /// Its password.
    pub password: Hidden,
}

/// Signing in to apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Seconds that a mailed code or link is good for.
    pub code_s: u64,
    /// Seconds that an access token lives.
    pub access_s: u64,
    /// Seconds that a session lives without being refreshed.
    pub session_s: u64,
}

/// Requests that apps cause, to addresses that their manifests name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundReach {
    /// Networks of the platform's own surroundings that they may reach.
    pub private: Networks,
}

/// HTTPS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where to listen for HTTPS; nowhere where none is set.
    pub listen: Option<SocketAddr>,
    /// Where to listen for plain HTTP that is sent on to HTTPS, and for the questions of a public authority.
    pub http_redirect: Option<SocketAddr>,
    /// Where certificates come from that nobody gave.
    pub mode: TlsMode,
    /// The chain of the platform's own certificate, as PEM.
    pub cert_file: Option<PathBuf>,
    /// Its key, as PEM.
    pub key_file: Option<PathBuf>,
    /// A directory of further certificates, `<any>.crt` with `<any>.key`.
    pub cert_dir: Option<PathBuf>,
    /// Whether browsers are told to come to the platform and to apps below its domain by HTTPS only.
    pub hsts: bool,
}

/// Certificates from a public authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The directory of the authority's ACME server.
    pub directory: Url,
    /// What that server itself is trusted by, as PEM; this machine's authorities where none is set.
    pub root_file: Option<PathBuf>,
    /// Where the authority writes to.
    pub contact: Option<Contact>,
    /// How it is shown that a host is here.
    pub challenge: AcmeChallenge,
    /// How many certificates are ordered for one tenant in seven days.
    pub orders_per_tenant: u32,
}

/// Domains of apps' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domains {
    /// The platform's public addresses.
    pub addresses: Addresses,
    /// The DNS servers that are asked; this machine's where none is set.
    pub dns: Servers,
}

/// The MCP door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mcp {
    /// Whether clients of 2025-11-25 and before get sessions.
    pub legacy_sessions: bool,
    /// The largest request body on either door, in bytes.
    pub body_limit: usize,
}

/// Calls per second and the burst above them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Calls per second of one key.
    pub key_per_second: u32,
    /// Calls one key may make at once.
    pub key_burst: u32,
    /// Calls per second of one minted credential.
    pub token_per_second: u32,
    /// Calls one minted credential may make at once.
    pub token_burst: u32,
    /// Calls per second of all credentials of one tenant.
    pub tenant_per_second: u32,
    /// Calls all credentials of one tenant may make at once.
    pub tenant_burst: u32,
}

/// The control plane's database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// A Postgres URL, which may hold a password; SQLite in the data directory where none is set.
    pub url: Option<Secret>,
}

/// What environments may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environments {
    /// How many databases are open at once.
    pub max_open: usize,
    /// The largest database of one environment, in bytes.
    pub max_database_bytes: u64,
    /// What the files of one environment may have together, in bytes.
    pub max_files_bytes: u64,
    /// What the log of one environment may have in all, in bytes.
    pub max_log_bytes: u64,
    /// How many entries a second one environment may log.
    pub max_log_per_second: u32,
    /// The longest one statement may run, in milliseconds.
    pub statement_timeout_ms: u64,
    /// How often backups that are due are made and what is old is removed, in seconds.
    pub upkeep_s: u64,
    /// How many snapshots one environment may have, beside those that the platform makes.
    pub max_snapshots: usize,
    /// How many bytes the snapshots of one environment may take, in bytes.
    pub max_snapshot_bytes: u64,
    /// How many bytes the backups of one environment may take, the newest aside.
    pub max_backup_bytes: u64,
    /// How long the backups of a deleted environment are kept, in seconds.
    pub keep_deleted_s: u64,
}

/// What sandboxes may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// How many are awake at once.
    pub awake: usize,
    /// How many of one tenant are.
    pub awake_of_tenant: usize,
    /// The memory of one, in bytes.
    pub memory_bytes: u64,
    /// The processor time of one, in thousandths of a core.
    pub cpu_millis: u32,
    /// The most bytes that a new workspace may hold.
    pub workspace_bytes: u64,
    /// The most bytes that the snapshots of a tenant's workspaces hold.
    pub snapshot_bytes_of_tenant: u64,
    /// After how many seconds without use one is stopped where it is.
    pub freeze_after_s: u64,
    /// After how many it is ended; its files stay.
    pub park_after_s: u64,
    /// After how many its files are archived; never where it is 0.
    pub archive_after_s: OrZero,
    /// What a new one has below `/usr/local`.
    pub template: Template,
    /// How many are made before anybody asks.
    pub spares: OrZero,
    /// Where that is put together; below the data directory where it is not said.
    pub templates_dir: Option<PathBuf>,
    /// How long a run token is good for, in seconds.
    pub token_s: u64,
    /// What one may send and receive while it is awake, in bytes.
    pub egress_bytes: u64,
    /// Where they may go.
    pub allow: Allowed,
    /// Of those, places whose addresses need not be public.
    pub origins: Vouched,
    /// How strongly they must be kept apart.
    pub isolation: Demands,
    /// Where gVisor's program is, unless where it usually is.
    pub runsc: Option<PathBuf>,
}

/// What functions may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Functions {
    /// How many processes there are at once.
    pub processes: usize,
    /// How many of one environment are.
    pub processes_of_env: usize,
    /// The memory that all of them use, in bytes, from which on those that have waited longest end.
    pub memory_bytes: u64,
    /// What all processes of one environment may use together, in bytes.
    pub memory_of_env: u64,
    /// For how many seconds a process waits for its next request.
    pub idle_s: u64,
}

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The bucket of an S3 service; the data directory where none is set.
    pub s3_bucket: Text,
    /// The service's address.
    pub s3_endpoint: Text,
    /// Its region.
    pub s3_region: Text,
    /// Who asks.
    pub s3_access_key: Text,
    /// What proves it.
    pub s3_secret_key: Hidden,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severe lines that are written.
    pub level: Level,
    /// How a line looks.
    pub format: Format,
}

/// A value given by a flag: the setting, the flag's name, the text.
pub type Given = (&'static str, &'static str, String);

impl Config {
    /// Reads `file` (or [`FILE`] in the working directory, where there is one), then the variables, then
    /// `flags`; each overrides what came before. The second value names the `STEADING_*` variables that mean
    /// nothing.
    ///
    /// # Errors
    /// The first thing that is wrong, with where it came from.
    pub fn load(
        file: Option<&Path>,
        surroundings: &Surroundings,
        flags: &[Given],
    ) -> Result<(Self, Vec<String>), Error> {
        let mut config = Self::default();
        match file {
            Some(path) => file::read(path, &mut config)?,
            None if Path::new(FILE).exists() => file::read(Path::new(FILE), &mut config)?,
            None => {}
        }
        let mut unknown = Vec::new();
        for (name, value) in surroundings.settings() {
            match settings::by_variable(name) {
                Some(setting) => setting.put(&mut config, value, Source::Variable(name.clone()))?,
                None => unknown.push(name.clone()),
            }
        }
        for (key, flag, value) in flags {
            if let Some(setting) = settings::by_key(key) {
                setting.put(&mut config, value, Source::Flag(flag))?;
            }
        }
        config.check()?;
        Ok((config, unknown))
    }

    fn check(&self) -> Result<(), Error> {
        let mail = &self.mail;
        if mail.smtp.0.is_some() && mail.from.0.is_none() {
            return Err(Error::Mail("mail.from is not"));
        }
        if mail.smtp.0.is_some() && mail.user.0.is_empty() == mail.password.0.is_some() {
            return Err(Error::Mail("mail.user and mail.password go together"));
        }
        let tls = &self.tls;
        let pairs = [
            ("tls.http_redirect", tls.http_redirect.is_some(), "tls.listen", tls.listen.is_some()),
            ("tls.cert_file", tls.cert_file.is_some(), "tls.key_file", tls.key_file.is_some()),
            ("tls.key_file", tls.key_file.is_some(), "tls.cert_file", tls.cert_file.is_some()),
            ("tls.cert_file", tls.cert_file.is_some(), "tls.listen", tls.listen.is_some()),
            ("tls.cert_dir", tls.cert_dir.is_some(), "tls.listen", tls.listen.is_some()),
            (
                "tls.mode = \"files\"",
                tls.mode == TlsMode::Files,
                "tls.cert_file or tls.cert_dir",
                tls.cert_file.is_some() || tls.cert_dir.is_some(),
            ),
        ];
        if let Some((key, _, needs, _)) = pairs.into_iter().find(|(_, is, _, has)| *is && !has) {
            return Err(Error::Alone { key, needs });
        }
        self.storage.check()?;
        self.model.check()?;
        self.oauth.check()?;
        self.directory.check()?;
        self.exchange.check()?;
        let sandbox = &self.sandbox;
        if sandbox.workspace_bytes < LEAST_QUOTA {
            return Err(Error::Least { key: "sandbox.workspace_bytes", least: LEAST_QUOTA, of: "" });
        }
        if sandbox.park_after_s < sandbox.freeze_after_s {
            let (least, of) = (sandbox.freeze_after_s, ", which is sandbox.freeze_after_s");
            return Err(Error::Least { key: "sandbox.park_after_s", least, of });
        }
        if self.allow_insecure_http {
            return Ok(());
        }
        if !self.listen.ip().is_loopback() {
            return Err(Error::Insecure(self.listen));
        }
        let insecure = |url: &Url| url.scheme() == "http" && !is_loopback(url);
        if self.public_url.as_ref().is_some_and(insecure) {
            return Err(Error::InsecurePublicUrl);
        }
        Ok(())
    }
}

impl Storage {
    /// Refuses a bucket that nobody can reach.
    fn check(&self) -> Result<(), Error> {
        if self.s3_bucket.0.is_empty() {
            return Ok(());
        }
        let said = [
            ("storage.s3_endpoint", !self.s3_endpoint.0.is_empty()),
            ("storage.s3_region", !self.s3_region.0.is_empty()),
            ("storage.s3_access_key", !self.s3_access_key.0.is_empty()),
            ("storage.s3_secret_key", self.s3_secret_key.0.is_some()),
        ];
        match said.into_iter().find(|(_, is_said)| !is_said) {
            Some((missing, _)) => Err(Error::Bucket(missing)),
            None => Ok(()),
        }
    }
}

/// Whether a URL's host is this machine.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
