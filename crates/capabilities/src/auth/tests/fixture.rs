//! Users of an environment in a directory of its own, with keys that are no more than a hash.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kernel::{Env, EnvId, Error, Result, Scopes, Secret, TenantId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::auth::{
    Asking, Auth, AuthLimits, Claims, Credentials, Outside, Rate, Session, SignIn, SignedUp, TokenKeys,
    UserChange, token,
};
use crate::database::{Databases, Durability, Limits, Role};
use crate::logs::Logs;
use crate::mail::Post;
use crate::rows::{AuthSettings, Method, Mfa};

pub(super) const PASSWORD: &str = "correct horse battery";

/// Signs with a hash over the environment's id and a secret.
pub(super) struct Keys;

impl Keys {
    pub fn signed(env: &Env, claims: &Claims) -> Secret {
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).unwrap());
        Secret::new(format!("{text}.{}", Self::signature(env, &text)))
    }

    fn signature(env: &Env, text: &str) -> String {
        URL_SAFE_NO_PAD.encode(token::hash(format!("{} secret {text}", env.id()).as_bytes()))
    }

    pub fn read(env: &Env, token: &Secret) -> Option<Claims> {
        let (text, signature) = token.expose().split_once('.')?;
        let holds = signature == Self::signature(env, text);
        holds.then(|| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap())
    }
}

impl TokenKeys for Keys {
    fn sign<'a>(&'a self, env: &'a Env, claims: &'a Claims) -> BoxFuture<'a, Result<Secret>> {
        async { Ok(Self::signed(env, claims)) }.boxed()
    }

    fn verify<'a>(&'a self, env: &'a Env, token: &'a Secret) -> BoxFuture<'a, Result<Option<Claims>>> {
        async { Ok(Self::read(env, token)) }.boxed()
    }

    fn service<'a>(
        &'a self,
        _: &'a Env,
        _: &'a Secret,
    ) -> BoxFuture<'a, Result<Option<(kernel::KeyId, Scopes)>>> {
        async { Ok(None) }.boxed()
    }

    fn jwks<'a>(&'a self, _: &'a Env) -> BoxFuture<'a, Result<Value>> {
        async { Ok(json!({ "keys": [] })) }.boxed()
    }

    fn kid<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<String>> {
        async { Ok(env.id().to_string()) }.boxed()
    }

    fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        Ok(format!("{place} {}", URL_SAFE_NO_PAD.encode(value)))
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        let value =
            sealed.strip_prefix(&format!("{place} ")).ok_or_else(|| Error::internal("not sealed for it"))?;
        Ok(Zeroizing::new(URL_SAFE_NO_PAD.decode(value).unwrap()))
    }
}

pub(super) struct Ground {
    _directory: tempfile::TempDir,
    pub databases: Arc<Databases>,
    pub env: Env,
    pub auth: Auth,
    pub settings: AuthSettings,
    pub client: Option<IpAddr>,
}

impl Ground {
    /// Where nobody is held up for the number of requests from one address.
    pub async fn new() -> Self {
        let often = Rate { burst: NonZeroU32::MAX, every: Duration::from_nanos(1) };
        let limits = AuthLimits::default();
        Self::with(AuthLimits { passwords: often, anonymous: often, refreshes: often, ..limits }).await
    }

    pub async fn with(limits: AuthLimits) -> Self {
        Self::reaching(limits, Outside::unknown().unwrap()).await
    }

    /// Where others are asked, too.
    pub async fn reaching(limits: AuthLimits, outside: Outside) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let databases = Arc::new(Databases::new(directory.path().to_owned(), Limits::default()));
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        databases.create(env.id()).await.unwrap();
        let logs = Logs::new(directory.path());
        let post = Post::to_outbox(logs);
        let auth = Auth::new(Arc::clone(&databases), Arc::new(Keys), post, outside, limits);
        let methods = BTreeSet::from([Method::Anonymous, Method::Password]);
        let settings = AuthSettings { methods, name: Some("Shop".to_owned()), ..AuthSettings::default() };
        let client = Some("192.0.2.1".parse().unwrap());
        Self { _directory: directory, databases, env, auth, settings, client }
    }

    /// Another environment beside the first.
    pub async fn another(&self) -> Env {
        let env = Env::for_upkeep(TenantId::new(), EnvId::new());
        self.databases.create(env.id()).await.unwrap();
        env
    }

    pub fn asking(&self) -> Asking<'_> {
        Asking {
            env: &self.env,
            settings: &self.settings,
            client: self.client,
            device: Some("a browser"),
            domain: None,
        }
    }

    pub async fn anonymous(&self) -> Session {
        opened(self.auth.anonymous(&self.asking()).await).unwrap()
    }

    pub async fn sign_up(&self, email: &str) -> Result<Session> {
        signed_up(self.auth.sign_up(&self.asking(), None, &typed(email, PASSWORD), None).await)
    }

    /// Somebody whose address is confirmed.
    pub async fn member(&self, email: &str) -> Session {
        let session = self.sign_up(email).await.unwrap();
        let confirmed =
            UserChange { user: email.to_owned(), email: Some(email.to_owned()), ..UserChange::default() };
        self.auth.set_user(&self.env, confirmed).await.unwrap();
        session
    }

    pub async fn upgrade(&self, session: &Session, email: &str) -> Result<Session> {
        let token = Some(&session.access_token);
        signed_up(self.auth.sign_up(&self.asking(), token, &typed(email, PASSWORD), None).await)
    }

    pub async fn log_in(&self, email: &str, password: &str) -> Result<Session> {
        opened(self.auth.log_in(&self.asking(), &typed(email, password)).await)
    }

    pub async fn refresh(&self, session: &Session) -> Result<Session> {
        self.auth.refresh(&self.asking(), &session.refresh_token, None).await
    }

    /// Whether the session's access token opens anything.
    pub async fn is_live(&self, session: &Session) -> bool {
        self.auth.recognize(&self.env, Mfa::Off, &session.access_token).await.is_ok()
    }

    /// Changes what is stored behind everybody's back.
    pub async fn run(&self, sql: &str) {
        let mut db = self.databases.writer(&self.env).await.unwrap();
        db.begin(Durability::Normal).await.unwrap();
        db.run(Role::Platform, sql, &[]).await.unwrap();
        db.commit().await.unwrap();
    }

    /// The latest mail to an address that says `what`.
    pub async fn mail(&self, to: &str, what: &str) -> String {
        let found = async {
            loop {
                let mails = self.auth.mails(&self.env, Some(to), 10).await.unwrap();
                let found = mails.into_iter().find(|mail| mail.subject.contains(what));
                match found {
                    Some(mail) => return mail.text,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
    }

    pub async fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        self.databases.platform_query(&self.env, sql, &[]).await.unwrap()
    }
}

/// The session of a sign-up that needs no mail.
pub(super) fn signed_up(outcome: Result<SignedUp>) -> Result<Session> {
    opened(outcome.map(|signed_up| match signed_up {
        SignedUp::Entered(entered) => entered,
        SignedUp::Mailed => panic!("a mail instead of a session"),
    }))
}

/// The session of who needs no second factor.
pub(super) fn opened(outcome: Result<SignIn>) -> Result<Session> {
    outcome.map(|entered| match entered {
        SignIn::Session(session) => session,
        SignIn::Second(_) => panic!("a second factor instead of a session"),
    })
}

pub(super) fn typed(email: &str, password: &str) -> Credentials {
    Credentials { email: email.to_owned(), password: Secret::new(password) }
}

/// What a caller is told: the code, where, and the words.
pub(super) fn told<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let field = error.pointer().map(|field| format!(" {field}")).unwrap_or_default();
            format!("{}{field}: {}", error.code().as_str(), error.message())
        }
    }
}

/// What a mailed link ends with.
pub(super) fn linked(mail: &str) -> Secret {
    let from = mail.find("lt_").unwrap();
    Secret::new(mail[from..].split_whitespace().next().unwrap())
}
