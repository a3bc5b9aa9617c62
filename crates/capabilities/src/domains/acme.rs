//! Certificates by ACME (RFC 8555): one account, one order at a time for a name.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AccountBuilder, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, Order, OrderStatus, RetryPolicy,
};
use kernel::{Error, Result};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use store::Store;
use tokio::sync::Mutex;

use super::challenges::{Answering, Challenges};
use super::ports::Seal;

/// How long an order may take that the authority has taken.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// How long the authority may take to take it.
const BEGINNING: Duration = Duration::from_secs(60);

/// The server and what it is told.
#[derive(Debug, Clone)]
pub struct AcmeSettings {
    /// The address of the server's directory.
    pub directory: String,
    /// The certificate of the authority that the server itself is trusted by, as a PEM file; those of this machine
    /// where there is none.
    pub root: Option<PathBuf>,
    /// An address for mail from the authority.
    pub contact: Option<String>,
    /// How ownership is shown, in the order of trying.
    pub methods: Vec<Method>,
    /// How many orders of one tenant are made in seven days; those for addresses that anybody may have asked for, while they
    /// are fewer than half of them.
    pub orders_per_tenant: u32,
}

/// How an authority is shown that a host is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A text at a path on port 80 (RFC 8555 §8.3).
    Http01,
    /// A handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

impl Method {
    const fn kind(self) -> ChallengeType {
        match self {
            Method::Http01 => ChallengeType::Http01,
            Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
        }
    }
}

/// Why an order came to nothing, in words for whoever owns the domain.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server said so.
    #[error("the certificate authority refuses: {0}")]
    Refused(String),
    /// The account does not count there any more.
    #[error("the certificate authority does not know the platform's account")]
    NoAccount,
    /// The server does not answer.
    #[error("the certificate authority cannot be reached")]
    Unreachable(#[source] instant_acme::Error),
    /// It asks for something else than what is offered.
    #[error("the certificate authority offers none of the ways that are set up here")]
    NoMethod,
    /// It took too long.
    #[error("the certificate authority did not finish in time")]
    Slow,
    /// Ours.
    #[error("the order failed on our side")]
    Ours(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<instant_acme::Error> for Failure {
    fn from(error: instant_acme::Error) -> Self {
        use instant_acme::Error as E;
        match error {
            E::Api(problem)
                if problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist")) =>
            {
                Failure::NoAccount
            }
            E::Api(problem) => {
                Failure::Refused(problem.detail.unwrap_or_else(|| "without a reason".to_owned()))
            }
            E::Timeout(_) => Failure::Slow,
            E::Crypto | E::KeyRejected | E::Json(_) | E::InvalidUri(_) => Failure::Ours(error.into()),
            E::Http(_) | E::Hyper(_) | E::Unsupported(_) | E::Other(_) | E::Str(_) => {
                Failure::Unreachable(error)
            }
            error => Failure::Ours(error.into()),
        }
    }
}

/// A certificate as it was issued.
pub(super) struct Issued {
    /// The chain as PEM.
    pub chain: String,
    /// Its key as PEM.
    pub key: String,
}

/// The client of one ACME server.
pub(super) struct Acme {
    pub settings: AcmeSettings,
    pub store: Store,
    pub seal: Arc<dyn Seal>,
    pub challenges: Arc<Challenges>,
    account: Mutex<Option<Account>>,
}

impl Acme {
    pub(super) fn new(
        settings: AcmeSettings,
        store: Store,
        seal: Arc<dyn Seal>,
        challenges: Arc<Challenges>,
    ) -> Self {
        Self { settings, store, seal, challenges, account: Mutex::default() }
    }

    /// An order for `host` that the authority has taken; before this returns it, there is none.
    pub(super) async fn begin(&self, host: &str) -> Result<Order, Failure> {
        let tried = async {
            match self.ask(host).await {
                // The server has lost it: another one is as good.
                Err(Failure::NoAccount) => {
                    *self.account.lock().await = None;
                    let forgotten = self.store.certificates().forget_account(&self.settings.directory).await;
                    forgotten.map_err(|error| Failure::Ours(error.into()))?;
                    self.ask(host).await
                }
                outcome => outcome,
            }
        };
        self.in_time(BEGINNING, tried).await
    }

    /// Brings an order of `host` to its end; `attempt` chooses between the methods, so that one that does not work is
    /// followed by the other.
    pub(super) async fn finish(&self, order: Order, host: &str, attempt: usize) -> Result<Issued, Failure> {
        self.in_time(PATIENCE, self.fulfil(order, host, attempt)).await
    }

    /// What comes of `work` in this time; a server that went away is met anew.
    async fn in_time<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let outcome = tokio::time::timeout(patience, work).await.unwrap_or(Err(Failure::Slow));
        if matches!(outcome, Err(Failure::Unreachable(_))) {
            *self.account.lock().await = None;
        }
        outcome
    }

    async fn ask(&self, host: &str) -> Result<Order, Failure> {
        let account = self.account().await?;
        Ok(account.new_order(&NewOrder::new(&[Identifier::Dns(host.to_owned())])).await?)
    }

    async fn fulfil(&self, mut order: Order, host: &str, attempt: usize) -> Result<Issued, Failure> {
        let mut answering: Vec<Answering> = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let offered: Vec<_> = self
                .settings
                .methods
                .iter()
                .copied()
                .filter(|method| authorization.challenges.iter().any(|offer| offer.r#type == method.kind()))
                .collect();
            if offered.is_empty() {
                return Err(Failure::NoMethod);
            }
            let method = offered[attempt % offered.len()];
            let mut challenge = authorization.challenge(method.kind()).ok_or(Failure::NoMethod)?;
            let key = challenge.key_authorization();
            answering.push(match method {
                Method::Http01 => self.challenges.answer_http(host, &challenge.token, key.as_str()),
                Method::TlsAlpn01 => self
                    .challenges
                    .answer_tls(host, key.digest().as_ref())
                    .map_err(|error| Failure::Ours(error.into()))?,
            });
            challenge.set_ready().await?;
        }
        let patience = RetryPolicy::default().timeout(PATIENCE);
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(why(&mut order).await);
        }
        drop(answering);
        let (key, request) = request(host).map_err(|error| Failure::Ours(error.into()))?;
        order.finalize_csr(&request).await?;
        let chain = order.poll_certificate(&patience).await?;
        Ok(Issued { chain, key })
    }

    /// The account, out of memory, out of the store, or made.
    async fn account(&self) -> Result<Account, Failure> {
        let mut slot = self.account.lock().await;
        if let Some(account) = &*slot {
            return Ok(account.clone());
        }
        let ours = |error: Error| Failure::Ours(error.into());
        let directory = &self.settings.directory;
        let place = format!("acme account {directory}");
        let kept = self.store.certificates().account(directory).await.map_err(|e| ours(e.into()))?;
        let account = match kept {
            Some(sealed) => {
                let opened = self.seal.open(&place, &sealed).map_err(ours)?;
                let credentials: AccountCredentials =
                    serde_json::from_slice(&opened).map_err(|error| ours(Error::internal(error)))?;
                self.builder()?.from_credentials(credentials).await?
            }
            None => {
                let contact = self.settings.contact.as_ref().map(|address| format!("mailto:{address}"));
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let (account, credentials) = self.builder()?.create(&new, directory.clone(), None).await?;
                let text = serde_json::to_vec(&credentials).map_err(|error| ours(Error::internal(error)))?;
                let sealed = self.seal.seal(&place, &text).map_err(ours)?;
                self.store
                    .certificates()
                    .keep_account(directory, &sealed)
                    .await
                    .map_err(|e| ours(e.into()))?;
                account
            }
        };
        *slot = Some(account.clone());
        Ok(account)
    }

    fn builder(&self) -> Result<AccountBuilder, Failure> {
        Ok(match &self.settings.root {
            Some(root) => Account::builder_with_root(root)?,
            None => Account::builder()?,
        })
    }
}

/// What the server says is wrong with an order.
async fn why(order: &mut Order) -> Failure {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let mut errors = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        if let Some(detail) = errors.find_map(|error| error.detail.clone()) {
            return Failure::Refused(detail);
        }
    }
    Failure::Refused("it could not see that the host is here".to_owned())
}

/// A new key as PEM, and the request for a certificate of it.
fn request(host: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut wanted = CertificateParams::new(vec![host.to_owned()])?;
    wanted.distinguished_name = DistinguishedName::new();
    let request = wanted.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}
