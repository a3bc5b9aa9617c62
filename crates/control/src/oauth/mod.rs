//! The authorization server (OAuth 2.1): a user who has a key lets a client act, in one environment, for a part of what
//! the key may. A consent is a minted credential that stands on the key and that nobody has the token of; access tokens
//! stand on it in turn. So whatever ends the key or the consent ends them, and they never may more than the key does.

mod clients;
mod devices;
mod words;

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::{Caller, Code, EnvId, Error, Held, KeyId, Result, Scopes, Secret, TenantId, Timestamp};
use sha2::{Digest, Sha256};
use store::{Key, OAuthCode, OAuthFamily, OAuthGrant, Tenant};

use crate::authentication::of_key;
use crate::credentials::{generate, hash};
use crate::tokens::NewToken;
use crate::vault::{mac, mac_begins_with};
use crate::{Control, Place};

pub use clients::{CLAUDE_CODE, COMMAND_LINE, Client};
pub(crate) use devices::Turns as DeviceTurns;
pub use devices::{Device, INTERVAL as DEVICE_INTERVAL, LIFETIME as DEVICE_LIFETIME};
pub use words::{USUAL, Words};

/// How long an access token lives: 15 minutes with the second that its beginning is rounded by.
const ACCESS: Duration = Duration::from_secs(15 * 60 - 1);
/// How long a code does.
const CODE: Duration = Duration::from_secs(60);
/// For how long a second use of one is seen.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);
const CODE_PREFIX: &str = "stead_code_";
const REFRESH_PREFIX: &str = "stead_refresh_";

/// Why a client does not get what it asks for, as RFC 6749 §5.2 and what builds on it name it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The request is not what it has to be.
    #[error("{0}")]
    Request(String),
    /// The client is not known.
    #[error("{0}")]
    Client(String),
    /// The code, the refresh token or the device code is not good.
    #[error("{0}")]
    Grant(String),
    /// The scope is not known, or more than was consented to.
    #[error("{0}")]
    Scope(String),
    /// The resource is none of this platform's.
    #[error("{0}")]
    Target(String),
    /// Users cannot be sent back there.
    #[error("{0}")]
    Redirect(String),
    /// A client says of itself what cannot be.
    #[error("{0}")]
    Metadata(String),
    /// There is no such grant.
    #[error("{0}")]
    GrantType(String),
    /// There is no such answer.
    #[error("the response_type must be code")]
    ResponseType,
    /// Nobody has answered yet.
    #[error("nobody has typed the code yet: ask again after the interval")]
    Pending,
    /// It asks too often.
    #[error("wait longer before the next question: the interval is five seconds longer now")]
    SlowDown,
    /// The user has refused.
    #[error("the user has refused")]
    Denied,
    /// The device code has ended.
    #[error("the device code has expired: begin again")]
    Expired,
    /// The platform cannot.
    #[error(transparent)]
    Platform(#[from] Error),
}

impl Refused {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Client(_) => "invalid_client",
            Self::Grant(_) => "invalid_grant",
            Self::Scope(_) => "invalid_scope",
            Self::Target(_) => "invalid_target",
            Self::Redirect(_) => "invalid_redirect_uri",
            Self::Metadata(_) => "invalid_client_metadata",
            Self::GrantType(_) => "unsupported_grant_type",
            Self::ResponseType => "unsupported_response_type",
            Self::Pending => "authorization_pending",
            Self::SlowDown => "slow_down",
            Self::Denied => "access_denied",
            Self::Expired => "expired_token",
            Self::Platform(error) if error.code() == Code::Internal => "server_error",
            Self::Platform(_) => "temporarily_unavailable",
        }
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        Self::Platform(error.into())
    }
}

/// Who has shown a key.
#[derive(Debug, Clone)]
pub struct User {
    /// The key.
    pub key: Key,
    /// What it may.
    pub caller: Caller,
    /// Whose it is.
    pub tenant: Tenant,
}

/// What a user consents to.
#[derive(Debug, Clone)]
pub struct Consented<'a> {
    /// Which client asks.
    pub client: &'a Client,
    /// What for.
    pub words: &'a Words,
    /// Where its tokens are to be good.
    pub resource: &'a str,
    /// In which environment.
    pub env: EnvId,
}

/// What a client gets.
#[derive(Debug)]
pub struct Issued {
    /// The access token.
    pub access: Secret,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The next refresh token.
    pub refresh: Secret,
    /// What they are for.
    pub words: Words,
    /// The consent, for the records.
    pub family: KeyId,
    /// The environment, its tenant and the key, for the records.
    pub of: (EnvId, TenantId, KeyId),
}

/// The authorization server.
pub struct OAuth<'a>(pub(crate) &'a Control);

impl OAuth<'_> {
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.0.oauth_key
    }

    /// For how many days a consent lasts, the last of them perhaps not whole.
    #[must_use]
    pub fn consent_days(&self) -> u64 {
        self.0.config.consent.as_secs().div_ceil(24 * 60 * 60)
    }

    /// 16 random bytes as text.
    ///
    /// # Errors
    /// Where the machine has none.
    pub fn nonce(&self) -> Result<String> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(Error::internal)?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// A tag of `parts`, for what is given to browsers and comes back.
    #[must_use]
    pub fn tag(&self, purpose: &str, parts: &[&[u8]]) -> String {
        let all: Vec<&[u8]> = std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()).collect();
        URL_SAFE_NO_PAD.encode(mac(self.key(), &all))
    }

    /// Whether `tag` is that of `parts`.
    #[must_use]
    pub fn has_tag(&self, purpose: &str, parts: &[&[u8]], tag: &str) -> bool {
        let all: Vec<&[u8]> = std::iter::once(purpose.as_bytes()).chain(parts.iter().copied()).collect();
        let tag = URL_SAFE_NO_PAD.decode(tag).unwrap_or_default();
        tag.len() == 32 && mac_begins_with(self.key(), &all, &tag)
    }

    /// Who has shown the key of this id, as long as it is good from `source`.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn user(&self, key: KeyId, source: Option<IpAddr>) -> Result<Option<User>> {
        let Some(key) = self.0.store.keys().get(key).await? else { return Ok(None) };
        let is_here = key.cidrs.as_ref().is_none_or(|good| source.is_some_and(|source| good.have(source)));
        if !key.is_live(Timestamp::now()) || !is_here {
            return Ok(None);
        }
        let Some(tenant) = self.0.store.tenants().find(&key.tenant.to_string()).await? else {
            return Ok(None);
        };
        Ok(Some(User { caller: of_key(&key), key, tenant }))
    }

    /// The environment of this slug or id, where the user's key opens it.
    ///
    /// # Errors
    /// `not_found` where it does not, or there is none.
    pub async fn place(&self, user: &User, env: &str) -> Result<Place> {
        let chosen = self.0.select_env(&user.caller.clone().into(), Some(env), None).await?;
        let place = self.0.names.find(env).await?;
        place.filter(|place| Some(place.env) == chosen.env).ok_or_else(|| Error::not_found("environment"))
    }

    /// The name of the tenant whose an environment is that the user may open: the operator's key opens those of others too.
    ///
    /// # Errors
    /// As [`OAuth::place`].
    pub async fn tenant_of(&self, user: &User, env: &str) -> Result<String> {
        let place = self.place(user, env).await?;
        let tenant = self.0.store.tenants().find(&place.tenant.to_string()).await?;
        Ok(tenant.map(|tenant| tenant.name).unwrap_or_default())
    }

    /// A code for a client to change into tokens, in the name of a user.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn consent(
        &self,
        user: &User,
        to: Consented<'_>,
        redirect: &str,
        challenge: &str,
    ) -> Result<Secret> {
        let secret = generate(CODE_PREFIX).map_err(Error::internal)?;
        let code = OAuthCode {
            grant: grant(&to),
            owner: user.key.id,
            env: to.env,
            redirect: redirect.to_owned(),
            challenge: challenge.to_owned(),
            expires: Timestamp::now().plus(CODE),
            family: None,
        };
        self.0.store.oauth().add_code(&hash(secret.expose()), &code).await?;
        Ok(secret)
    }

    /// Tokens for a code, once. Shown a second time, it ends what came of it.
    ///
    /// # Errors
    /// `invalid_grant` where it is not good, or not this client's, or was asked for in another way.
    pub async fn redeem(
        &self,
        code: &str,
        client: &str,
        redirect: Option<&str>,
        verifier: &str,
        resource: Option<&str>,
    ) -> Result<Issued, Refused> {
        let (codes, hash) = (self.0.store.oauth(), hash(code));
        let wrong = |what: &str| Err(Refused::Grant(format!("the code {what}")));
        let Some(found) = codes.code(&hash).await? else { return wrong("is not good") };
        if found.grant.client != client {
            return wrong("is another client's");
        }
        if let Some(family) = found.family {
            tracing::warn!(credential.id = %family, client = found.grant.name, "a code was shown twice: what came of it ends");
            codes.note_replay(&hash).await?;
            self.end(family).await?;
            return wrong("was used before, and what came of it has ended");
        }
        if found.expires <= Timestamp::now() {
            return wrong("has expired");
        }
        if redirect.is_some_and(|redirect| redirect != found.redirect) {
            return wrong("was asked for with another redirect_uri");
        }
        if URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) != found.challenge {
            return wrong("was asked for with another code_verifier");
        }
        if resource.is_some_and(|resource| resource != found.grant.resource) {
            return Err(Refused::Target("the code was asked for with another resource".into()));
        }
        let family = KeyId::new();
        if !codes.use_code(&hash, family).await? {
            codes.note_replay(&hash).await?;
            if let Some(family) = codes.code(&hash).await?.and_then(|code| code.family) {
                self.end(family).await?;
            }
            return wrong("was used before, and what came of it has ended");
        }
        let issued = self.begin(family, found.grant, found.owner, found.env).await?;
        // Whoever has shown it at the same time may have come before there was anything to end.
        if codes.was_replayed(&hash).await? {
            self.end(family).await?;
            return wrong("was used before, and what came of it has ended");
        }
        Ok(issued)
    }

    /// The next tokens for a refresh token. One that is not the last ends the whole family: somebody else has it too.
    ///
    /// # Errors
    /// `invalid_grant` where it is not good or not this client's; `invalid_scope` for more than was consented to.
    pub async fn refresh(
        &self,
        token: &str,
        client: &str,
        words: Option<&Words>,
        resource: Option<&str>,
    ) -> Result<Issued, Refused> {
        let wrong = |what: &str| Err(Refused::Grant(format!("the refresh token {what}: sign in again")));
        let Some((id, generation)) = self.refresh_of(token) else { return wrong("is not good") };
        let Some(mut family) = self.0.store.oauth().family(id).await? else { return wrong("has ended") };
        if family.grant.client != client {
            return wrong("is another client's");
        }
        if resource.is_some_and(|resource| resource != family.grant.resource) {
            return Err(Refused::Target("the consent is for another resource".into()));
        }
        let all = Words::read(&family.grant.words)?;
        let words = match words {
            Some(words) if !words.are_in(&all) => {
                return Err(Refused::Scope("this is more than was consented to: ask the user".into()));
            }
            words => words.unwrap_or(&all),
        };
        let mut issued = Err(Refused::Grant(String::new()));
        if family.generation == generation {
            family.generation += 1;
            issued = Ok(self.issue(&family, words).await?);
        }
        // Last, so that who gets nothing keeps what they have.
        if issued.is_err() || !self.0.store.oauth().advance(id, generation).await? {
            tracing::warn!(credential.id = %id, client = family.grant.name, "a refresh token was shown twice: the consent ends");
            self.end(id).await?;
            return wrong("was used before, and all that came of this consent has ended");
        }
        issued
    }

    /// Ends what a token stands for: with a refresh token the whole consent, with an access token that one. What is no token
    /// of this client's is left alone (RFC 7009 §2.2).
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn revoke(&self, token: &str, client: Option<&str>) -> Result<(), Refused> {
        let is_its = |family: &OAuthFamily| client.is_none_or(|client| family.grant.client == client);
        if let Some((id, _)) = self.refresh_of(token) {
            let family = self.0.store.oauth().family(id).await?;
            if family.as_ref().is_some_and(is_its) {
                self.end(id).await?;
            }
            return Ok(());
        }
        let Some(verified) = self.0.tokens.verify(token).await? else { return Ok(()) };
        let Some(family) = verified.audience.and(verified.standing.path.first().copied()) else {
            return Ok(());
        };
        if self.0.store.oauth().family(family).await?.as_ref().is_some_and(is_its) {
            self.end(verified.caller.credential).await?;
        }
        Ok(())
    }

    /// Makes the family, and its first tokens.
    async fn begin(&self, id: KeyId, grant: OAuthGrant, owner: KeyId, env: EnvId) -> Result<Issued, Refused> {
        let words = Words::read(&grant.words)?;
        let family = OAuthFamily { id, grant, generation: 1 };
        let gone = || Refused::Grant("the key that has consented is not good any more: sign in again".into());
        let parent = self.0.tokens.standing(owner).await?.ok_or_else(gone)?;
        let wanted = new_token(env, words.scopes(), self.0.config.consent, None);
        self.0.tokens.add(&parent, id, wanted).await.map_err(nothing_left)?;
        self.0.store.oauth().add_family(&family).await?;
        self.issue(&family, &words).await
    }

    async fn issue(&self, family: &OAuthFamily, words: &Words) -> Result<Issued, Refused> {
        let gone = || Refused::Grant("the consent has ended: sign in again".into());
        let (consent, run) = self.0.tokens.consent(family.id).await?.ok_or_else(gone)?;
        let env = consent.env.ok_or_else(gone)?;
        let wanted = new_token(env, words.scopes(), ACCESS, Some(run));
        let row = self.0.tokens.add(&consent, KeyId::new(), wanted).await.map_err(nothing_left)?;
        let access = self.0.tokens.signed_for(&row, &family.grant.client, &family.grant.resource)?;
        Ok(Issued {
            access,
            expires_in: row.ends.as_secs() - Timestamp::now().as_secs(),
            refresh: self.refresh_token(family),
            words: words.clone(),
            family: family.id,
            of: (env, row.tenant, row.root),
        })
    }

    async fn end(&self, id: KeyId) -> Result<(), Refused> {
        if let Some(run) = self.0.store.runs().chain(id).await?.last() {
            self.0.store.runs().revoke((run.tenant, Some(run.env), None), id, Timestamp::now()).await?;
            self.0.credentials.revoked(id);
        }
        Ok(())
    }

    fn refresh_token(&self, family: &OAuthFamily) -> Secret {
        let (id, generation) = (family.id.to_string(), family.generation.to_string());
        let tag = self.tag("refresh", &[id.as_bytes(), generation.as_bytes()]);
        Secret::new(format!("{REFRESH_PREFIX}{id}.{generation}.{tag}"))
    }

    fn refresh_of(&self, token: &str) -> Option<(KeyId, i64)> {
        let mut parts = token.strip_prefix(REFRESH_PREFIX)?.split('.');
        let (id, generation, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let is_ours = self.has_tag("refresh", &[id.as_bytes(), generation.as_bytes()], tag);
        (is_ours && parts.next().is_none()).then_some((id.parse().ok()?, generation.parse().ok()?))
    }

    pub(crate) async fn upkeep(&self, now: Timestamp) -> Result<()> {
        Ok(self.0.store.oauth().purge(now.minus(REMEMBERED), now).await?)
    }
}

fn grant(to: &Consented<'_>) -> OAuthGrant {
    OAuthGrant {
        client: to.client.id.clone(),
        name: to.client.name.clone(),
        words: to.words.to_string(),
        resource: to.resource.to_owned(),
    }
}

fn new_token(env: EnvId, scopes: Scopes, expires_in: Duration, run: Option<kernel::RunId>) -> NewToken {
    NewToken { env, scopes, held: Held::default(), source: None, expires_in, run }
}

/// Where the key has nothing of what was asked for, the scope is what is wrong.
fn nothing_left(error: Error) -> Refused {
    match error.code() {
        Code::Forbidden => Refused::Scope(error.message().to_owned()),
        Code::Conflict | Code::NotFound => Refused::Grant(error.message().to_owned()),
        _ => Refused::Platform(error),
    }
}
