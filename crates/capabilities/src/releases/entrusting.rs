//! Where secrets go: whoever says to which host one is sent can read it there, and what sandboxes alone may send is none
//! that an app has.

use kernel::{Code, Env, Error, Result, Scope};

use serde_json::Value;

use super::Releases;
use super::auth_spec::AuthSpec;
use super::change::{Draft, EffectKind};
use super::manifest::Manifest;
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
        Ok(named(&manifest).find(|(_, name)| *name == secret).map(|(at, _)| at))
    }

    /// What the release in `row`, which is of another time, does with the secrets of now.
    ///
    /// # Errors
    /// It cannot be read, nor the live one.
    pub(crate) async fn brought_back(&self, env: &Env, row: Option<Vec<Value>>) -> Result<BroughtBack> {
        let read = |row: Option<Vec<Value>>| row.map_or_else(|| Ok(Release::default()), Release::read);
        let now = self.databases.platform_query(env, Release::CURRENT, &[]).await?.into_iter().next();
        let (now, then) = (read(now)?, read(row)?);
        Ok(BroughtBack { entrusted: Entrusted::by(&now, &then), manifest: then.manifest })
    }
}

/// A release of another time that is to be live.
pub(crate) struct BroughtBack {
    entrusted: Entrusted,
    manifest: Manifest,
}

impl BroughtBack {
    /// What is to be known of its secrets, where the app has those that are `set`.
    pub(crate) fn words(&self, set: &[String]) -> Vec<String> {
        let sent = self.entrusted.0.iter().map(|(secret, host)| format!("secret {secret} is sent to {host}"));
        let lacking = lacking(&self.manifest, set).map(|(secret, why)| format!("secret {secret}: {why}"));
        sent.chain(lacking).collect()
    }

    /// That who acts may bring it back.
    ///
    /// # Errors
    /// `forbidden` naming the secret and the host.
    pub(crate) fn may(&self, env: &Env) -> Result<()> {
        self.entrusted.refusal(env).map_or(Ok(()), Err)
    }
}

/// The secrets that a manifest names, each with its place.
fn named(manifest: &Manifest) -> impl Iterator<Item = (String, &String)> {
    let of_auth =
        manifest.auth.iter().flat_map(AuthSpec::secrets).map(|(at, name)| (format!("/auth{at}"), name));
    of_auth.chain(manifest.secrets.iter().flatten().map(|name| ("/secrets".to_owned(), name)))
}

/// The secrets that a manifest names and that are not `set` for an app, each with what that means.
pub(super) fn lacking<'a>(
    manifest: &'a Manifest,
    set: &'a [String],
) -> impl Iterator<Item = (&'a String, String)> {
    let lacking = named(manifest).filter(|(_, name)| !set.contains(name));
    lacking
        .map(|(at, name)| (name, format!("{at} of the manifest names it, and the app has none: {SET_FIRST}")))
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

impl Entrusted {
    /// Why who acts may not send them there.
    fn refusal(&self, env: &Env) -> Option<Error> {
        let (secret, host) = self.0.first()?;
        let lacking = env.permits(&[Scope::SecretWrite]).err()?;
        let message = format!("the secret {secret} would be sent to {host}: {}", lacking.message());
        let hint = "use a credential with secret:write, or leave the secret where it goes now";
        Some(Error::new(Code::Forbidden, message).hint(hint))
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
    let Some(refusal) = entrusted.refusal(env) else { return Ok(()) };
    db.rollback().await?;
    Err(refusal)
}
