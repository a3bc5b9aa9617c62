//! Where secrets go: whoever says to which host one is sent can read it there, and what sandboxes alone may send is none
//! that an app has.

use kernel::{Code, Env, Error, Result, Scope};

use super::Releases;
use super::auth_spec::AuthSpec;
use super::change::{Draft, EffectKind};
use super::rehearsal::Release;
use crate::database::Writer;

/// What to do where an app names a secret that it does not have.
pub(super) const SET_FIRST: &str = "set it with secret_set first, without hosts";

impl Releases {
    /// Where the live manifest names this secret, if it does.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn use_of_secret(&self, env: &Env, secret: &str) -> Result<Option<String>> {
        let current = self.databases.platform_query(env, Release::CURRENT, &[]).await?;
        let Some(row) = current.into_iter().next() else { return Ok(None) };
        let manifest = Release::read(row)?.manifest;
        let signing_in = manifest.auth.iter().flat_map(AuthSpec::secrets).find(|(_, name)| *name == secret);
        let listed = manifest.secrets.iter().flatten().any(|name| name == secret);
        Ok(signing_in.map(|(at, _)| format!("/auth{at}")).or_else(|| listed.then(|| "/secrets".to_owned())))
    }
}

/// The secrets that a release sends to a host that the one before did not send them to, each with the host.
#[derive(Debug)]
pub(crate) struct Entrusted(Vec<(String, String)>);

impl Entrusted {
    /// Those of `release` that `base` has not.
    pub(super) fn by(base: &Release, release: &Release) -> Self {
        let of =
            |release: &Release| release.manifest.auth.as_ref().map(AuthSpec::entrusted).unwrap_or_default();
        let before = of(base);
        Self(of(release).into_iter().filter(|pair| !before.contains(pair)).collect())
    }
}

/// Says where they go.
pub(super) fn effects(entrusted: &Entrusted, draft: &mut Draft) {
    for (secret, host) in &entrusted.0 {
        draft.effect(EffectKind::Privilege, format!("secret {secret}"), format!("it is sent to {host}"));
    }
}

/// That who acts may send them there; else what was begun in `db` is rolled back.
///
/// # Errors
/// `forbidden` naming the secret and the host.
pub(super) async fn may(env: &Env, entrusted: &Entrusted, db: &mut Writer) -> Result<()> {
    let Some((secret, host)) = entrusted.0.first() else { return Ok(()) };
    let Err(lacking) = env.permits(&[Scope::SecretWrite]) else { return Ok(()) };
    db.rollback().await?;
    let message = format!("the secret {secret} would be sent to {host}: {}", lacking.message());
    Err(Error::new(Code::Forbidden, message)
        .hint("use a credential with secret:write, or leave the secret where it goes now"))
}
