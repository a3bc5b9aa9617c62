//! Where secrets go: whoever says to which host one is sent, or which function gets it, or what that function does, can read it
//! there; and what sandboxes alone may send is none that an app has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kernel::{Code, Env, Error, Result, Scope};
use serde_json::Value;

use super::Releases;
use super::auth_spec::AuthSpec;
use super::change::{Draft, EffectKind};
use super::rehearsal::Release;
use crate::database::Writer;
use crate::functions::{Function, FunctionName, Kind};

/// What to do where an app names a secret that it does not have.
pub(crate) const SET_FIRST: &str = "set it with secret_set first, without hosts";

impl Releases {
    /// Where the live release names this secret, if it does.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn use_of_secret(&self, env: &Env, secret: &str) -> Result<Option<String>> {
        let current = self.current(env).await?;
        Ok(named(&current).find(|(_, name)| *name == secret).map(|(at, _)| at))
    }

    /// What the release in `row`, which is of another time, does with the secrets of now.
    ///
    /// # Errors
    /// It cannot be read, nor the live one.
    pub(crate) async fn brought_back(&self, env: &Env, row: Option<Vec<Value>>) -> Result<BroughtBack> {
        let now = self.current(env).await?;
        let release = row.map_or_else(|| Ok(Release::default()), Release::read)?;
        Ok(BroughtBack { entrusted: Entrusted::by(&now, &release), release })
    }
}

/// A release of another time that is to be live.
pub(crate) struct BroughtBack {
    entrusted: Entrusted,
    release: Release,
}

impl BroughtBack {
    /// What is to be known of its secrets, where the app has those that are `set`.
    pub(crate) fn words(&self, set: &[String]) -> Vec<String> {
        let sent = self.entrusted.0.iter().map(|(secret, to)| format!("secret {secret} is {to}"));
        let lacking = lacking(&self.release, set).map(|(secret, why)| format!("secret {secret}: {why}"));
        sent.chain(lacking).collect()
    }

    /// That who acts may bring it back.
    ///
    /// # Errors
    /// `forbidden` naming the secret and where it would go.
    pub(crate) fn may(&self, env: &Env) -> Result<()> {
        self.entrusted.may(env)
    }
}

/// The secrets that a release names, each with its place in a manifest.
fn named(release: &Release) -> impl Iterator<Item = (String, &String)> {
    let manifest = &release.manifest;
    let of_auth =
        manifest.auth.iter().flat_map(AuthSpec::secrets).map(|(at, name)| (format!("/auth{at}"), name));
    let of_functions = release.functions.iter().flat_map(|(function, it)| {
        it.settings.secrets.iter().map(move |name| (format!("{}/secrets", it.place(function)), name))
    });
    let listed = manifest.secrets.iter().flatten().map(|name| ("/secrets".to_owned(), name));
    of_auth.chain(of_functions).chain(listed)
}

/// The secrets that a release names and that are not `set` for an app, each with what that means.
pub(super) fn lacking<'a>(
    release: &'a Release,
    set: &'a [String],
) -> impl Iterator<Item = (&'a String, String)> {
    let lacking = named(release).filter(|(_, name)| !set.contains(name));
    lacking
        .map(|(at, name)| (name, format!("{at} of the manifest names it, and the app has none: {SET_FIRST}")))
}

/// The secrets that a release gives to whom the one before did not give them, and to what was other code then, each with whom.
#[derive(Debug)]
pub(crate) struct Entrusted(Vec<(String, To)>);

/// Who gets a secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Host(String),
    Function(Kind, FunctionName),
    /// One that has it already, and would be another with it.
    Other(Kind, FunctionName, Part),
}

/// What of a function is another, so that it may do something else with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Code,
    Variables,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Part::Code => "code",
            Part::Variables => "variables",
        }
    }
}

/// A function, and what the app has of variables beside its own.
#[derive(Clone, Copy)]
pub(super) struct Among<'a> {
    pub function: &'a Function,
    pub app: &'a BTreeMap<String, String>,
}

impl Among<'_> {
    /// What is another than it was `before`.
    fn part(&self, before: &Among<'_>) -> Option<Part> {
        if self.function.sources.of_code() != before.function.sources.of_code() {
            return Some(Part::Code);
        }
        (self.variables() != before.variables()).then_some(Part::Variables)
    }

    fn variables(&self) -> BTreeMap<&String, &String> {
        self.app.iter().chain(&self.function.settings.variables).collect()
    }

    /// What it is given that it was not `before`, or not so.
    fn given(&self, name: &FunctionName, before: Option<Among<'_>>) -> Vec<(String, To)> {
        let kind = self.function.kind();
        let before = before.filter(|before| before.function.kind() == kind);
        let part = before.and_then(|before| self.part(&before));
        let to = |secret: &String| {
            let had = before.is_some_and(|before| before.function.settings.secrets.contains(secret));
            match (had, part) {
                (false, _) => Some(To::Function(kind, name.clone())),
                (true, Some(part)) => Some(To::Other(kind, name.clone(), part)),
                (true, None) => None,
            }
        };
        let secrets = &self.function.settings.secrets;
        secrets.iter().filter_map(|secret| Some((secret.clone(), to(secret)?))).collect()
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            To::Host(host) => write!(f, "sent to {host}"),
            To::Function(kind, name) => write!(f, "given to the {} {name}", kind.as_str()),
            To::Other(kind, name, part) => {
                write!(f, "given to the {} {name} with other {}", kind.as_str(), part.as_str())
            }
        }
    }
}

impl Entrusted {
    /// Those of `release` that `base` has not.
    pub(super) fn by(base: &Release, release: &Release) -> Self {
        let none = BTreeMap::new();
        let [was, app] = [base, release].map(|it| it.manifest.variables.as_ref().unwrap_or(&none));
        let mut all: BTreeSet<(String, To)> = sent(release).difference(&sent(base)).cloned().collect();
        for (name, function) in &release.functions {
            let before = base.functions.get(name).map(|function| Among { function, app: was });
            all.extend(Among { function, app }.given(name, before));
        }
        Self(all.into_iter().collect())
    }

    /// Those that a function is given and was not `before`, or not so.
    pub(super) fn to(name: &FunctionName, before: Option<Among<'_>>, function: Among<'_>) -> Self {
        Self(function.given(name, before))
    }

    /// That who acts may give them away.
    ///
    /// # Errors
    /// `forbidden` naming the secret and where it would go.
    pub(super) fn may(&self, env: &Env) -> Result<()> {
        self.refusal(env).map_or(Ok(()), Err)
    }

    /// Why who acts may not give them away.
    fn refusal(&self, env: &Env) -> Option<Error> {
        let (secret, to) = self.0.first()?;
        let lacking = env.permits(&[Scope::SecretWrite]).err()?;
        let message = format!("the secret {secret} would be {to}: {}", lacking.message());
        let hint = match to {
            To::Host(_) | To::Function(..) => "leave the secret where it goes now".to_owned(),
            To::Other(kind, _, part) => {
                format!("leave the {}'s {} as they are", kind.as_str(), part.as_str())
            }
        };
        let hint = format!("use a credential with secret:write, or {hint}");
        Some(Error::new(Code::Forbidden, message).hint(hint))
    }

    /// The same of one function, with the place below it.
    ///
    /// # Errors
    /// The same.
    pub(super) fn may_start(&self, env: &Env) -> Result<()> {
        let at = match self.0.first() {
            Some((_, To::Other(.., Part::Code))) => "/files",
            Some((_, To::Other(.., Part::Variables))) => "/variables",
            Some((_, To::Function(..) | To::Host(_))) | None => "/secrets",
        };
        self.may(env).map_err(|refusal| refusal.field(at))
    }
}

/// The secrets that a release sends to hosts.
fn sent(release: &Release) -> BTreeSet<(String, To)> {
    let sent = release.manifest.auth.iter().flat_map(AuthSpec::entrusted);
    sent.map(|(secret, host)| (secret, To::Host(host))).collect()
}

/// Says where they go.
pub(super) fn effects(entrusted: &Entrusted, draft: &mut Draft) {
    for (secret, to) in &entrusted.0 {
        draft.effect(EffectKind::Privilege, format!("secret {secret}"), format!("it is {to}"));
    }
}

/// That who acts may give them away; else what was begun in `db` is rolled back.
///
/// # Errors
/// `forbidden` naming the secret and where it would go.
pub(super) async fn may(env: &Env, entrusted: &Entrusted, db: &mut Writer) -> Result<()> {
    let Some(refusal) = entrusted.refusal(env) else { return Ok(()) };
    db.rollback().await?;
    Err(refusal)
}
