//! The certificate that a host is served with: given, from files, ordered, or of the local authority.

mod times;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernel::{Env, EnvId, Error, Result, Timestamp};
use quick_cache::sync::Cache;
use rustls::sign::CertifiedKey;
use store::{CertificateRow, CertificateSource, EnvState, NewCertificate, Store};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Chain;
use super::acme::{Acme, AcmeSettings, Failure, PATIENCE};
use super::certificate_files::CertificateFiles;
use super::challenges::Challenges;
use super::local_ca::LocalCa;
use super::ports::{Clock, Owner, Owners, Seal};
use times::{LONGEST_RETRY, renewal, retry, share};

/// How many certificates stay in memory.
const KEPT: usize = 1_024;
/// How long one that may be replaced elsewhere stays there.
const FRESH: Duration = Duration::from_secs(60);
/// How long a handshake waits for a certificate that is being ordered.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the right to order lasts, should its holder die.
const LEASE: Duration = Duration::from_secs(PATIENCE.as_secs() * 2);
/// How often it is looked what is due.
const ROUND: Duration = Duration::from_secs(30);
/// How many orders run at once.
const AT_ONCE: usize = 4;
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where certificates come from that nobody gave.
pub enum Authority {
    /// The local one.
    Local,
    /// A public one.
    Acme(AcmeSettings),
    /// None.
    Nobody,
}

/// What [`Certificates::open`] is told.
pub struct CertificateSettings {
    /// The data directory, which holds the local authority.
    pub data_dir: PathBuf,
    /// The platform's own hosts, the first of them the one it is known by.
    pub hosts: Vec<String>,
    /// The domains below which apps and previews live.
    pub apps: Vec<String>,
    /// Where certificates come from.
    pub authority: Authority,
    /// Given ones, as pairs of PEM files: the chain, and its key.
    pub files: Vec<(PathBuf, PathBuf)>,
    /// A directory of such pairs, `<any>.crt` and `<any>.key`.
    pub directory: Option<PathBuf>,
}

/// The certificates of every host.
pub struct Certificates {
    store: Store,
    seal: Arc<dyn Seal>,
    owners: Arc<dyn Owners>,
    clock: Clock,
    ca: LocalCa,
    files: CertificateFiles,
    acme: Option<Acme>,
    local: bool,
    hosts: Vec<String>,
    challenges: Arc<Challenges>,
    cache: Cache<String, Arc<Held>>,
    wake: Notify,
    orders: Semaphore,
}

struct Held {
    key: Arc<CertifiedKey>,
    env: Option<EnvId>,
    until: Timestamp,
}

/// What is known of a host's certificate, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Who issued the one that is served, where there is one.
    pub issuer: Option<String>,
    /// Until when it counts.
    pub expires: Option<Timestamp>,
    /// Why the last order failed, where it did.
    pub error: Option<String>,
    /// When it is ordered (again), where an authority is asked.
    pub due: Option<Timestamp>,
    /// Whether only clients that trust the local authority believe it.
    pub local: bool,
}

impl Certificates {
    /// Opens the local authority and reads the files; orders nothing before [`Certificates::run`].
    ///
    /// # Errors
    /// A file that is no certificate or not its key, with its path.
    pub fn open(
        settings: CertificateSettings,
        store: Store,
        seal: Arc<dyn Seal>,
        owners: Arc<dyn Owners>,
        clock: Clock,
    ) -> Result<Self> {
        let own: Vec<String> = settings.hosts.iter().chain(&settings.apps).cloned().collect();
        let ca = LocalCa::open(&settings.data_dir, &own, clock())?;
        let challenges = Arc::new(Challenges::default());
        let local = matches!(settings.authority, Authority::Local);
        let acme = match settings.authority {
            Authority::Acme(settings) => {
                Some(Acme::new(settings, store.clone(), Arc::clone(&seal), Arc::clone(&challenges)))
            }
            Authority::Local | Authority::Nobody => None,
        };
        Ok(Self {
            files: CertificateFiles::read(settings.files, settings.directory)?,
            store,
            seal,
            owners,
            clock,
            ca,
            acme,
            local,
            hosts: settings.hosts,
            challenges,
            cache: Cache::new(KEPT),
            wake: Notify::new(),
            orders: Semaphore::new(AT_ONCE),
        })
    }

    /// The answers of the orders that run.
    #[must_use]
    pub fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// The local authority.
    #[must_use]
    pub fn ca(&self) -> &LocalCa {
        &self.ca
    }

    /// What a handshake gets that asks for `host`, or for none; nothing where the host is nobody's, or has no
    /// certificate.
    pub async fn find(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = match host {
            Some(host) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
            None => return self.nameless().await,
        };
        match self.known(&host).await {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(host, error = error.chain(), "a certificate could not be had");
                None
            }
        }
    }

    /// For clients that dial an address: the platform's certificate.
    async fn nameless(&self) -> Option<Arc<CertifiedKey>> {
        let name = self.hosts.first().map_or("localhost", String::as_str);
        if name != "localhost"
            && let Ok(Some(key)) = self.known(name).await
        {
            return Some(key);
        }
        self.known("localhost").await.ok().flatten()
    }

    async fn known(&self, host: &str) -> Result<Option<Arc<CertifiedKey>>> {
        let Some(owner) = self.owners.owner(host).await? else { return Ok(None) };
        let (env, now) = (owner.env().map(Env::id), (self.clock)());
        if let Some(held) = self.cache.get(host).filter(|held| held.env == env && held.until > now) {
            return Ok(Some(Arc::clone(&held.key)));
        }
        let Some((chain, until)) = self.load(host, &owner, now).await? else { return Ok(None) };
        let held = Held { key: Arc::clone(&chain.key), env, until };
        self.cache.insert(host.to_owned(), Arc::new(held));
        Ok(Some(chain.key))
    }

    /// The certificate for a host whose owner is known, and how long it may be kept in memory.
    async fn load(&self, host: &str, owner: &Owner, now: Timestamp) -> Result<Option<(Chain, Timestamp)>> {
        if let Some(chain) = self.kept(host, owner).await? {
            return Ok(Some((chain, now.plus(FRESH))));
        }
        if self.local || is_private(host) {
            return self.issued(host, owner, now).map(Some);
        }
        if self.acme.is_none() || matches!(owner, Owner::Preview(_)) {
            return Ok(None);
        }
        // Whoever knocks for a host that gets none costs a look, and no write.
        match self.row(host, CertificateSource::Acme, owner.env().map(Env::id)).await? {
            Some(row) if row.due.is_none_or(|due| due > now) => return Ok(None),
            Some(_) => {}
            None => self.want(host, owner.env()).await?,
        }
        // One that is on its way is worth a moment: the first visitor need not come again.
        if tokio::time::timeout(HANDSHAKE, self.order(host)).await.is_err() {
            return Ok(None);
        }
        Ok(self.kept(host, owner).await?.map(|chain| (chain, now.plus(FRESH))))
    }

    /// What is there already: given by the domain's environment, from files, or ordered.
    async fn kept(&self, host: &str, owner: &Owner) -> Result<Option<Chain>> {
        let env = owner.env().map(Env::id);
        if matches!(owner, Owner::Domain(_))
            && let Some(row) = self.row(host, CertificateSource::Own, env).await?
            && let Some(chain) = self.opened(&row)?
        {
            return Ok(Some(chain));
        }
        if let Some(chain) = self.files.find(host) {
            return Ok(Some(chain));
        }
        if self.acme.is_none() {
            return Ok(None);
        }
        match self.row(host, CertificateSource::Acme, env).await? {
            Some(row) => self.opened(&row),
            None => Ok(None),
        }
    }

    async fn row(
        &self,
        host: &str,
        source: CertificateSource,
        env: Option<EnvId>,
    ) -> Result<Option<CertificateRow>> {
        Ok(self.store.certificates().get(host, source).await?.filter(|row| row.env == env))
    }

    fn opened(&self, row: &CertificateRow) -> Result<Option<Chain>> {
        let (Some(chain), Some(sealed)) = (&row.chain, &row.sealed) else { return Ok(None) };
        let key = self.seal.open(&place(&row.name, row.env), sealed)?;
        Chain::read(chain.as_bytes(), &key).map(Some).map_err(Error::internal)
    }

    fn issued(&self, host: &str, owner: &Owner, now: Timestamp) -> Result<(Chain, Timestamp)> {
        let bare = |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut names = vec![bare(host)];
        if *owner == Owner::Platform {
            let others =
                ["localhost", "127.0.0.1", "::1"].into_iter().chain(self.hosts.iter().map(String::as_str));
            for other in others.filter(|other| *other != host) {
                names.push(bare(other));
            }
            names.dedup();
        }
        let chain = self.ca.issue(&names, now)?;
        let half =
            now.plus(Duration::from_micros((chain.ends.as_micros() - now.as_micros()).unsigned_abs() / 2));
        Ok((chain, half))
    }

    /// Keeps a certificate that whoever has the domain gives for it.
    ///
    /// # Errors
    /// `invalid_input` at `/certificate` or `/key`.
    pub async fn give(&self, env: &Env, domain: &str, chain_pem: &str, key_pem: &str) -> Result<()> {
        let chain = self.check(domain, chain_pem, key_pem)?;
        let sealed = self.seal.seal(&place(domain, Some(env.id())), key_pem.as_bytes())?;
        let new = NewCertificate { chain: chain_pem, sealed: &sealed, expires: chain.ends, due: None };
        self.store.certificates().give(domain, env.id(), new).await?;
        self.forget(domain);
        Ok(())
    }

    /// Whether [`Certificates::give`] would take it.
    ///
    /// # Errors
    /// As [`Certificates::give`].
    pub fn check(&self, domain: &str, chain_pem: &str, key_pem: &str) -> Result<Chain> {
        let chain = Chain::read(chain_pem.as_bytes(), key_pem.as_bytes())?;
        if !chain.covers(domain) {
            let message = format!("the certificate is for {}, and not for {domain}", chain.names.join(", "));
            return Err(Error::invalid("/certificate", message));
        }
        if chain.ends <= (self.clock)() {
            return Err(Error::invalid("/certificate", format!("the certificate ended at {}", chain.ends)));
        }
        Ok(chain)
    }

    /// What is known of the certificate of a host whose owner is known.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn standing(&self, host: &str, owner: &Owner) -> Result<Standing> {
        let row = match &self.acme {
            Some(_) => self.row(host, CertificateSource::Acme, owner.env().map(Env::id)).await?,
            None => None,
        };
        let (error, due) = row.map_or((None, None), |row| (row.error, row.due));
        let served = self.kept(host, owner).await?;
        let local = served.is_none() && (self.local || is_private(host));
        Ok(Standing {
            issuer: served.as_ref().map(|chain| chain.issuer.clone()),
            expires: served.map(|chain| chain.ends),
            error,
            due,
            local,
        })
    }

    /// Asks for a certificate, where an authority is asked at all and nothing else serves the host.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn want(&self, host: &str, env: Option<&Env>) -> Result<()> {
        if self.acme.is_none() || is_private(host) || self.files.find(host).is_some() {
            return Ok(());
        }
        self.store.certificates().want(host, env.map(Env::id), (self.clock)()).await?;
        self.wake.notify_one();
        Ok(())
    }

    /// Drops a host's certificate from memory.
    pub fn forget(&self, host: &str) {
        self.cache.remove(host);
    }

    /// Orders what is due until `stop`, beginning with the platform's own.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        for host in &self.hosts {
            if let Err(error) = self.want(host, None).await {
                tracing::warn!(host, error = error.chain(), "a certificate could not be asked for");
            }
        }
        loop {
            for host in self.due().await {
                // By itself, so that a slow one holds nobody up; the lease lets one through.
                let this = Arc::clone(&self);
                tokio::spawn(stop.clone().run_until_cancelled_owned(async move { this.order(&host).await }));
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// One round of what [`Certificates::run`] does, to its end.
    pub async fn round(&self) {
        let due = self.due().await;
        futures::future::join_all(due.iter().map(|host| self.order(host))).await;
    }

    /// Reads files that have changed, and gives the hosts whose certificate is to be ordered.
    async fn due(&self) -> Vec<String> {
        if self.files.reread() {
            self.cache.clear();
        }
        if self.acme.is_none() {
            return Vec::new();
        }
        self.store.certificates().due((self.clock)(), 64).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = Error::from(error).chain(),
                "it cannot be told which certificates are due"
            );
            Vec::new()
        })
    }

    /// Orders a host's certificate, where it is due and nobody else does.
    async fn order(&self, host: &str) {
        let Some(acme) = &self.acme else { return };
        let Ok(_turn) = self.orders.acquire().await else { return };
        if let Err(error) = self.attempt(acme, host).await {
            tracing::error!(host, error = error.chain(), "the order of a certificate could not be recorded");
        }
    }

    async fn attempt(&self, acme: &Acme, host: &str) -> Result<()> {
        let (rows, now) = (self.store.certificates(), (self.clock)());
        let Some(row) = rows.lease(host, now, now.plus(LEASE)).await? else { return Ok(()) };
        let owner = self.owners.owner(host).await?;
        let Some(owner) = owner.filter(|owner| owner.env().map(Env::id) == row.env) else {
            if let Some(env) = row.env
                && let Some(environment) = self.store.environments().find(&env.to_string()).await?
                && environment.state == EnvState::Suspended
            {
                // What it has is needed when its tenant is active again.
                rows.failed(host, "the tenant is not active", now.plus(LONGEST_RETRY)).await?;
                return Ok(());
            }
            // It is not served any more, or is another's by now.
            rows.remove(host, CertificateSource::Acme).await?;
            self.forget(host);
            return Ok(());
        };
        let since = now.minus(WEEK);
        if let Some(env) = owner.env() {
            let most = share(acme.settings.orders_per_tenant, &owner, row.chain.is_some());
            if rows.orders(env.tenant(), since).await? >= most {
                let words = format!(
                    "the tenant has ordered {most} certificates in seven days, which is its limit for such hosts"
                );
                tracing::warn!(host, tenant.id = %env.tenant(), "a tenant has ordered as many certificates as it may");
                rows.failed(host, &words, now.plus(LONGEST_RETRY / 4)).await?;
                return Ok(());
            }
        }
        let attempt = usize::try_from(row.failures).unwrap_or_default();
        let outcome = match acme.begin(host).await {
            Ok(order) => {
                // What the authority has not taken does not count: it may be away for days.
                if let Some(env) = owner.env() {
                    rows.count_order(env.tenant(), &Uuid::now_v7().to_string(), since, now).await?;
                }
                acme.finish(order, host, attempt).await
            }
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(issued) => {
                let chain =
                    Chain::read(issued.chain.as_bytes(), issued.key.as_bytes()).map_err(Error::internal)?;
                let sealed = self.seal.seal(&place(host, row.env), issued.key.as_bytes())?;
                let (expires, due) = (chain.ends, Some(renewal(&chain)?));
                let new = NewCertificate { chain: &issued.chain, sealed: &sealed, expires, due };
                rows.ordered(host, row.env, new).await?;
                self.forget(host);
                tracing::info!(host, expires = %expires, "a certificate was issued");
            }
            Err(failure) => {
                let after = retry(row.failures)?;
                let cause = match &failure {
                    Failure::Unreachable(source) => source.to_string(),
                    Failure::Ours(source) => source.to_string(),
                    _ => String::new(),
                };
                tracing::warn!(host, error = %failure, cause, retry_s = after.as_secs(), "a certificate could not be ordered");
                let words: String = failure.to_string().chars().take(500).collect();
                rows.failed(host, &words, now.plus(after)).await?;
            }
        }
        Ok(())
    }
}

/// What a sealed key is bound to: it opens for no other host or environment.
fn place(host: &str, env: Option<EnvId>) -> String {
    match env {
        Some(env) => format!("certificate {host} {env}"),
        None => format!("certificate {host}"),
    }
}

/// Whether no public authority would issue for it.
pub(super) fn is_private(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.starts_with('[')
        || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
