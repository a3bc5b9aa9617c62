//! Claiming domains, looking for their proof, and giving them up.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::StreamExt as _;
use kernel::{Code, Env, EnvId, Error, Result, Secret, Slug, TenantId, is_public};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use store::{Claimed, DomainClaim, Store};

use super::certificates::is_private;
use super::check::{Checked, Record, RecordKind, Seen};
use super::ports::{Clock, Owner, Seal};
use super::{Certificates, Dns, DomainName, Reserved};
use crate::logs::{Entry, Level, Logs, Source};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long an unproven claim is looked at by itself.
const YOUNG: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// For how long a proof may be missing.
const GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How many claims one round looks at.
const ROUND: i64 = 200;
/// How many of them at once.
const AT_ONCE: usize = 16;
/// How many domains an environment may claim.
const MOST: i64 = 50;
const TOKEN_BYTES: usize = 24;

/// What [`Domains::new`] is told.
pub struct DomainSettings {
    /// What no environment may claim.
    pub reserved: Reserved,
    /// The domain below which apps live, without a port.
    pub apps_host: String,
    /// The platform's public addresses; those of an app's own host where there are none.
    pub addresses: Vec<IpAddr>,
}

/// The domains of all environments.
pub struct Domains {
    store: Store,
    seal: Arc<dyn Seal>,
    dns: Dns,
    certificates: Option<Arc<Certificates>>,
    logs: Logs,
    clock: Clock,
    settings: DomainSettings,
}

/// What is set about a domain; what is none stays.
#[derive(Debug, Default)]
pub struct Given {
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: Option<bool>,
    /// A certificate of one's own: the chain and its key, as PEM.
    pub certificate: Option<(String, Secret)>,
}

/// A domain as it is set.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Set {
    /// The domain in its one form.
    pub domain: String,
    /// Whether it is proven; the app answers there from then on.
    pub proven: bool,
    /// Whether browsers are told to come by HTTPS only.
    pub hsts: bool,
    /// The DNS records it needs. The TXT record has to stay.
    pub records: Vec<Record>,
    /// What is wrong with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A domain in few words.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DomainInfo {
    /// The domain.
    pub domain: String,
    /// Whether it is proven; the app answers there from then on.
    pub proven: bool,
}

impl Domains {
    /// Domains kept in `store` and looked up by `dns`; without certificates, something before the platform serves HTTPS.
    #[must_use]
    pub fn new(
        settings: DomainSettings,
        store: Store,
        seal: Arc<dyn Seal>,
        dns: Dns,
        certificates: Option<Arc<Certificates>>,
        logs: Logs,
        clock: Clock,
    ) -> Self {
        Self { store, seal, dns, certificates, logs, clock, settings }
    }

    /// Reads a domain's name.
    ///
    /// # Errors
    /// `invalid_input` at `/domain`, saying which names can be used.
    pub fn name(&self, text: &str) -> Result<DomainName> {
        DomainName::read(text, &self.settings.reserved)
    }

    /// Claims a domain for an environment and says which records prove it; a repeat changes only what is given.
    ///
    /// # Errors
    /// `conflict` where it is proven for another environment; `quota_exceeded`; `invalid_input` at `/certificate` or
    /// `/key`, and `conflict` there while the domain is unproven.
    pub async fn set(&self, env: &Env, slug: &Slug, name: &DomainName, given: Given) -> Result<Set> {
        let own = match given.certificate {
            Some((chain, key)) => {
                let certificates = self.certificates.as_ref().ok_or_else(no_https)?;
                certificates.check(name.as_str(), &chain, key.expose())?;
                Some((certificates, chain, key))
            }
            None => None,
        };
        let claim = self.claim(env, name, given.hsts).await?;
        if let Some((certificates, chain, key)) = own {
            if claim.proven.is_none() {
                return Err(unproven(name).field("/certificate"));
            }
            certificates.give(env, name.as_str(), &chain, key.expose()).await?;
        }
        let (records, addresses) = self.wanted(name, slug, &claim.token).await;
        // Who configures addresses knows what they are.
        let names_addresses =
            records.iter().any(|record| matches!(record.kind, RecordKind::A | RecordKind::Aaaa));
        let is_here_alone = names_addresses
            && self.settings.addresses.is_empty()
            && addresses.iter().any(|address| !is_public(*address));
        let note = is_here_alone.then(|| {
            "these addresses are reached from this machine alone: on a public deployment the operator sets \
             domains.addresses and apps_domain"
                .to_owned()
        });
        let proven = claim.proven.is_some();
        Ok(Set { domain: name.to_string(), proven, hsts: claim.hsts, records, note })
    }

    async fn claim(&self, env: &Env, name: &DomainName, hsts: Option<bool>) -> Result<DomainClaim> {
        let mut random = [0; TOKEN_BYTES];
        getrandom::fill(&mut random).map_err(Error::internal)?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let domains = self.store.domains();
        match domains.claim(env.id(), name.as_str(), &token, hsts, MOST, (self.clock)()).await? {
            Claimed::Kept(claim) => {
                self.seal.domain_changed(name.as_str());
                Ok(claim)
            }
            Claimed::Taken => Err(taken(name)),
            Claimed::TooMany => {
                Err(Error::new(Code::QuotaExceeded, format!("an environment has at most {MOST} domains"))
                    .field("/domain")
                    .hint("remove one with resource_delete"))
            }
            Claimed::NoEnvironment => Err(Error::not_found(format!("environment \"{}\"", env.id()))),
        }
    }

    /// Whether an environment could claim these names, each in its one form, or one of those `above` it has.
    ///
    /// # Errors
    /// `invalid_input` or `conflict` at `/<i>`.
    pub async fn could_claim(&self, env: &Env, names: &[String], above: &[EnvId]) -> Result<Vec<String>> {
        let mut read = Vec::new();
        for (i, text) in names.iter().enumerate() {
            let name = self.name(text).map_err(|error| error.field(format!("/{i}")))?;
            let holder = self.store.domains().proven_for(name.as_str()).await?;
            if holder.is_some_and(|holder| holder.env != env.id() && !above.contains(&holder.env)) {
                return Err(taken(&name).field(format!("/{i}")));
            }
            if read.contains(&name.to_string()) {
                return Err(Error::invalid(format!("/{i}"), format!("{name} is there twice")));
            }
            read.push(name.to_string());
        }
        Ok(read)
    }

    /// Claims names in their one form.
    ///
    /// # Errors
    /// As [`Domains::set`], at `/<i>`.
    pub async fn claim_all(&self, env: &Env, names: &[String]) -> Result<()> {
        for (i, text) in names.iter().enumerate() {
            let claimed = async { self.claim(env, &self.name(text)?, None).await }.await;
            claimed.map_err(|error| error.field(format!("/{i}")))?;
        }
        Ok(())
    }

    /// An environment's domains, by name.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn list(&self, env: &Env) -> Result<Vec<DomainInfo>> {
        let claims = self.store.domains().list(env.id()).await?;
        Ok(claims
            .into_iter()
            .map(|claim| DomainInfo { domain: claim.name, proven: claim.proven.is_some() })
            .collect())
    }

    /// Looks a domain up, keeps what proves it, and says what is wrong.
    ///
    /// # Errors
    /// `not_found` where the environment has not claimed it.
    pub async fn check(&self, env: &Env, slug: &Slug, name: &DomainName) -> Result<Checked> {
        let domains = self.store.domains();
        let missing = || {
            Error::not_found(format!("domain {name} in this environment"))
                .field("/domain")
                .next("domain_set", json!({ "domain": name.as_str() }))
        };
        let claim = domains.get(env.id(), name.as_str()).await?.ok_or_else(missing)?;
        let proof_name = name.proof_name();
        let ((wanted, addresses), texts, leads) = futures::join!(
            self.wanted(name, slug, &claim.token),
            self.dns.txt(&proof_name),
            self.dns.leads(name.as_str())
        );
        if let Ok(texts) = &texts {
            self.note(env, &claim, texts).await?;
        }
        let claim = domains.get(env.id(), name.as_str()).await?.ok_or_else(missing)?;
        let holder = domains.proven_for(name.as_str()).await?;
        let standing = match (claim.proven, &self.certificates) {
            (Some(_), Some(certificates)) => {
                Some(certificates.standing(name.as_str(), &Owner::Domain(env.clone())).await?)
            }
            _ => None,
        };
        let host = self.host(slug);
        let seen = Seen {
            name,
            claim: &claim,
            foreign: holder.is_some_and(|holder| holder.env != env.id()),
            texts,
            leads,
            wanted,
            host: &host,
            addresses,
            standing,
            now: (self.clock)(),
            patience: claim.missing.map(|since| since.plus(GRACE)),
        };
        Ok(seen.judged())
    }

    /// Gives a domain up, with its certificates.
    ///
    /// # Errors
    /// `not_found` where the environment has not claimed it.
    pub async fn remove(&self, env: &Env, name: &DomainName) -> Result<()> {
        let removed = self.store.domains().remove(env.id(), name.as_str()).await?;
        self.changed(name.as_str());
        if removed {
            return Ok(());
        }
        Err(Error::not_found(format!("domain {name} in this environment")).field("/name"))
    }

    /// One round of looking: at claims that are not proven yet, and at proofs that may have gone. To be called about
    /// once a minute.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn upkeep(&self) -> Result<()> {
        let now = (self.clock)();
        let (young, soon, late) = (now.minus(YOUNG), now.minus(MINUTE), now.minus(DAY));
        let waiting = self.store.domains().to_check(young, soon, late, ROUND).await?;
        let looks = waiting.into_iter().map(|(claim, tenant)| self.look(claim, tenant));
        for look in futures::stream::iter(looks).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            look?;
        }
        Ok(())
    }

    /// Looks for the proof of a claim.
    async fn look(&self, claim: DomainClaim, tenant: TenantId) -> Result<()> {
        let looked =
            async || Ok(self.store.domains().looked_at(claim.env, &claim.name, (self.clock)()).await?);
        // One that has become the platform's own meanwhile is nobody else's any more.
        let Ok(name) = self.name(&claim.name) else { return looked().await };
        match self.dns.txt(&name.proof_name()).await {
            Ok(texts) => self.note(&Env::for_upkeep(tenant, claim.env), &claim, &texts).await,
            // What was not answered says nothing of the proof.
            Err(_) => looked().await,
        }
    }

    /// Keeps what the TXT records say of a claim.
    async fn note(&self, env: &Env, claim: &DomainClaim, texts: &[String]) -> Result<()> {
        let (domains, name, now) = (self.store.domains(), claim.name.as_str(), (self.clock)());
        if texts.iter().any(|text| text.trim() == claim.token) {
            let proven = domains.prove(env.id(), name, &claim.token, now).await?;
            if !proven {
                return Ok(domains.looked_at(env.id(), name, now).await?);
            }
            if claim.proven.is_none() {
                self.changed(name);
                self.say(env, Level::Info, format!("the domain {name} is proven: the app answers there"));
            }
            return match &self.certificates {
                Some(certificates) => certificates.want(name, Some(env)).await,
                None => Ok(()),
            };
        }
        if domains.unproven(env.id(), name, now, now.minus(GRACE)).await? {
            self.changed(name);
            self.say(
                env,
                Level::Error,
                format!("the proof of {name} is gone for a week: the app stops to answer there"),
            );
        } else if claim.proven.is_some() && claim.missing.is_none() {
            self.say(
                env,
                Level::Warn,
                format!("the TXT record that proves {name} is gone: put it back within a week"),
            );
        }
        Ok(())
    }

    /// The records a domain needs, and the addresses that are here.
    async fn wanted(&self, name: &DomainName, slug: &Slug, token: &str) -> (Vec<Record>, Vec<IpAddr>) {
        let host = self.host(slug);
        let mut records =
            vec![Record { kind: RecordKind::Txt, name: name.proof_name(), value: token.to_owned() }];
        let addresses = match self.settings.addresses.as_slice() {
            [] if is_private(&host) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            [] => self.dns.leads(&host).await.map(|leads| leads.addresses).unwrap_or_default(),
            configured => configured.to_vec(),
        };
        if !name.is_apex() && !is_private(&host) {
            records.push(Record { kind: RecordKind::Cname, name: name.to_string(), value: host });
            return (records, addresses);
        }
        records.extend(addresses.iter().map(|address| Record {
            kind: if address.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa },
            name: name.to_string(),
            value: address.to_string(),
        }));
        (records, addresses)
    }

    /// The host of an environment's app.
    fn host(&self, slug: &Slug) -> String {
        format!("{slug}.{}", self.settings.apps_host)
    }

    fn changed(&self, name: &str) {
        self.seal.domain_changed(name);
        if let Some(certificates) = &self.certificates {
            certificates.forget(name);
        }
    }

    fn say(&self, env: &Env, level: Level, message: String) {
        self.logs.append(env, Entry::new((self.clock)(), level, Source::Release, message));
    }
}

/// The same words whoever has it.
fn taken(name: &DomainName) -> Error {
    Error::new(Code::Conflict, format!("{name} is proven for another environment"))
        .field("/domain")
        .hint("it is free once its proof is removed: there, or by whoever controls its DNS, a week before")
}

fn no_https() -> Error {
    Error::new(Code::Conflict, "this platform does not serve HTTPS itself")
        .field("/certificate")
        .hint("give the certificate to the proxy before it, or ask the operator to set tls.listen")
}

fn unproven(name: &DomainName) -> Error {
    Error::new(Code::Conflict, format!("{name} is not proven yet"))
        .hint("make the records that domain_set returns without a certificate, and call domain_check")
}
