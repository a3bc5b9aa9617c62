//! Environments: made, found, listed, and deleted in two steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernel::{Code, EnvId, Error, LimitInfo, LimitScope, Result, Slug, Tenant, TenantId, Timestamp};
use store::{DEFAULT_PLAN, EnvState, Environment, EnvironmentFilter, Insertion, Store, TenantState};

use crate::credentials::Credentials;
use crate::names::{DomainPlace, Names, Place, canonical};
use crate::plans::Plans;
use crate::{AppKeys, Confirmation, Confirmations};

pub(crate) const MAX_NAME: usize = 100;
pub(crate) const MAX_EXTERNAL_ID: usize = 255;
const MAX_TAGS: usize = 20;
const MAX_TAG_NAME: usize = 64;
const MAX_TAG_VALUE: usize = 256;
const MAX_PAGE: u32 = 100;
const SUFFIX: usize = 6;
/// Six random characters of 36 collide once in two billion; the tries are for an unlucky name.
const TRIES: u32 = 5;
const DELETE: &str = "env_delete";
/// What stands for a template where an environment's files come from elsewhere.
const FILLED: &str = "copy";

/// What an environment is to be. Everything may be left out.
#[derive(Debug, Clone, Default)]
pub struct NewEnvironment {
    /// The first label of its host; derived from the name where it is not given.
    pub slug: Option<Slug>,
    /// Its name for people, at most 100 characters; the slug where it is not given.
    pub name: Option<String>,
    /// What to make it from; the first configured template where it is not given.
    pub template: Option<String>,
    /// Its plan; `default` where it is not given.
    pub plan: Option<String>,
    /// Its tags, at most 20.
    pub tags: BTreeMap<String, String>,
    /// What the tenant's own system calls it, at most 255 characters: the same one is the same environment.
    pub external_id: Option<String>,
}

/// Whether the environment is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// This call made it.
    New,
    /// It was there, under the same external id.
    Existing,
}

/// What creating gave. While its state is [`EnvState::Creating`], its files are to be made (again), then
/// [`Environments::ready`] to be called.
#[derive(Debug, Clone)]
pub struct Created {
    /// The environment.
    pub environment: Environment,
    /// Whether it is new.
    pub making: Making,
}

/// The environments of all tenants.
pub struct Environments {
    pub(crate) store: Store,
    pub(crate) names: Arc<Names>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) confirmations: Arc<Confirmations>,
    pub(crate) app_keys: Arc<AppKeys>,
    pub(crate) templates: Vec<String>,
    pub(crate) plans: Arc<Plans>,
}

impl Environments {
    /// Writes the record of an environment in state `creating`. The caller makes its files and calls
    /// [`Environments::ready`]; what is left undone is in [`Environments::unfinished`] at the next start.
    ///
    /// # Errors
    /// `invalid_input` naming the field; `conflict` where the slug is taken.
    pub async fn create(&self, tenant: &Tenant, new: NewEnvironment) -> Result<Created> {
        self.create_for(tenant.id(), new).await
    }

    /// As [`Environments::create`], for one that is made of another or of an archive. What is left undone of it is
    /// given up at the next start: see [`Environments::is_copy`].
    ///
    /// # Errors
    /// As [`Environments::create`]; `invalid_input` where a template is named.
    pub async fn create_copy(&self, tenant: &Tenant, new: NewEnvironment) -> Result<Created> {
        if new.template.is_some() {
            return Err(Error::invalid("/template", "a copy has no template"));
        }
        self.check(&new)?;
        self.insert(tenant.id(), new, FILLED.to_owned()).await
    }

    /// Whether the environment was made by [`Environments::create_copy`].
    #[must_use]
    pub fn is_copy(environment: &Environment) -> bool {
        environment.template == FILLED
    }

    /// Gives up an environment that was not made: its record goes, and its slug is free again.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn abandon(&self, environment: &Environment) -> Result<()> {
        self.store.environments().begin_delete(environment.id).await?;
        self.credentials.env_gone(environment.id);
        self.finish_delete(environment).await
    }

    /// Begins the deletion of an environment whose tenant is removed for good, as [`Environments::begin_delete`] does; `None`
    /// where that tenant is not to be removed any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn doom(&self, env: Environment) -> Result<Option<Environment>> {
        if env.state == EnvState::Deleting {
            return Ok(Some(env));
        }
        if !self.store.environments().doom(env.id, Timestamp::now()).await? {
            return Ok(None);
        }
        self.names.changed(&env);
        self.credentials.env_gone(env.id);
        Ok(Some(Environment { state: EnvState::Deleting, external_id: None, ..env }))
    }

    /// Every environment that cannot be used, for its tenant is not active.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn suspended(&self) -> Result<Vec<EnvId>> {
        Ok(self.store.environments().suspended().await?)
    }

    pub(crate) async fn create_for(&self, tenant: TenantId, new: NewEnvironment) -> Result<Created> {
        self.check(&new)?;
        let template = self.template(new.template.as_deref())?;
        self.insert(tenant, new, template).await
    }

    async fn insert(&self, tenant: TenantId, new: NewEnvironment, template: String) -> Result<Created> {
        // Where that changes in this moment, the environment is suspended when it is made.
        let owner = self.store.tenants().find(&tenant.to_string()).await?;
        if let Some(owner) = owner.filter(|owner| owner.state != TenantState::Active) {
            return Err(Error::new(Code::Forbidden, format!("the tenant is {}", owner.state.as_str()))
                .hint("whoever runs the platform resumes or restores it"));
        }
        let most = self.plans.of(tenant, None).tenant.tenant.environments;
        let given = new.slug.is_some();
        let base = new.slug.clone().or_else(|| new.name.as_deref().and_then(Slug::from_name));
        let mut slug = match &base {
            Some(base) => base.clone(),
            None => suffixed(None, "app")?,
        };
        for _ in 0..TRIES {
            let environment = Environment {
                id: EnvId::new(),
                tenant,
                name: new.name.clone().unwrap_or_else(|| slug.to_string()),
                slug: slug.clone(),
                state: EnvState::Creating,
                template: template.clone(),
                plan: new.plan.clone().unwrap_or_else(|| DEFAULT_PLAN.to_owned()),
                tags: new.tags.clone(),
                external_id: new.external_id.clone(),
                created: Timestamp::now(),
            };
            match self.store.environments().insert_within(&environment, most).await? {
                Insertion::Made => {
                    if environment.plan != DEFAULT_PLAN {
                        self.plans.learn_environment(environment.id).await?;
                    }
                    return Ok(Created { environment, making: Making::New });
                }
                Insertion::NoPlan => return Err(self.plans.gone(&environment.plan)),
                Insertion::Full => return Err(full(most.unwrap_or_default())),
                Insertion::Same(environment) => {
                    return Ok(Created { environment: *environment, making: Making::Existing });
                }
                Insertion::SlugTaken if given => break,
                Insertion::SlugTaken => slug = suffixed(base.as_ref(), "app")?,
            }
        }
        Err(Error::new(Code::Conflict, format!("the slug {:?} is taken", slug.as_str()))
            .field("/slug")
            .hint("choose another, or leave it out and one is made"))
    }

    /// Says that an environment's files are there; from here on it is found. A repeat changes nothing.
    ///
    /// # Errors
    /// `conflict` where it is being deleted or has gone.
    pub async fn ready(&self, environment: &Environment) -> Result<Environment> {
        let changed = self.store.environments().ready(environment.id).await?;
        self.names.changed(environment);
        let now = self.store.environments().find(&environment.id.to_string()).await?;
        match now {
            Some(now) if changed || now.state == EnvState::Ready => Ok(now),
            Some(now) if now.state == EnvState::Suspended => Err(suspended()),
            _ => Err(Error::new(Code::Conflict, "the environment is being deleted")),
        }
    }

    /// Every environment whose files were being made or removed when the program ended.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn unfinished(&self) -> Result<Vec<Environment>> {
        Ok(self.store.environments().unfinished().await?)
    }

    /// At most `limit` (1 to 100) of the tenant's environments made after `after`, oldest first.
    ///
    /// # Errors
    /// `invalid_input` where the limit is out of range.
    pub async fn list(
        &self,
        tenant: &Tenant,
        filter: &EnvironmentFilter,
        after: Option<EnvId>,
        limit: u32,
    ) -> Result<Vec<Environment>> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("/limit", format!("the limit must be 1 to {MAX_PAGE}")));
        }
        check_tags(&filter.tags, "a filter")?;
        check_text("/external_id", "external id", filter.external_id.as_deref(), MAX_EXTERNAL_ID)?;
        Ok(self.store.environments().list(tenant.id(), filter, after, limit).await?)
    }

    /// The tenant's environment with this slug or id, in state `creating` or `ready`.
    ///
    /// # Errors
    /// `not_found` where there is none, it is being deleted, or it is another tenant's.
    pub async fn get(&self, tenant: &Tenant, slug_or_id: &str) -> Result<Environment> {
        let missing = || {
            let name: String = slug_or_id.chars().take(64).collect();
            Error::not_found(format!("environment {name:?}"))
                .hint("env_list lists them, env_create makes one")
        };
        let name = canonical(slug_or_id).ok_or_else(missing)?;
        let found = self.store.environments().find(&name).await?;
        found.filter(|env| env.tenant == tenant.id() && env.state != EnvState::Deleting).ok_or_else(missing)
    }

    /// The ready environment with this slug or id, whoever's it is. From memory, for the hosts of apps.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn find(&self, slug_or_id: &str) -> Result<Option<Place>> {
        self.names.find(slug_or_id).await
    }

    /// Whether there is an environment with this slug or id that cannot be used, for its tenant is not active. From memory, for
    /// the hosts of apps.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn is_suspended(&self, slug_or_id: &str) -> Result<bool> {
        self.names.is_suspended(slug_or_id).await
    }

    /// The ready environment that a domain, in lower case and ASCII, is proven for. From memory, for the hosts of apps.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn at_domain(&self, name: &str) -> Result<Option<DomainPlace>> {
        self.names.at_domain(name).await
    }

    /// To be called after a domain was proven, changed or removed: what memory says of it counts no longer.
    pub fn domain_changed(&self, name: &str) {
        self.names.domain_changed(name);
    }

    /// The dry run of a deletion: a token for [`Environments::begin_delete`], bound to `losses`, which describes
    /// everything that would be lost.
    ///
    /// # Errors
    /// As [`Environments::get`].
    pub async fn confirm_delete(
        &self,
        tenant: &Tenant,
        slug_or_id: &str,
        losses: &[u8],
    ) -> Result<Confirmation> {
        let env = self.get(tenant, slug_or_id).await?;
        Ok(self.confirmations.issue(DELETE, &env.id.to_string(), losses))
    }

    /// Begins a deletion: from here on the environment is not found and its keys open nothing. The caller
    /// removes its files and calls [`Environments::finish_delete`].
    ///
    /// # Errors
    /// As [`Environments::get`] and [`Confirmations::redeem`].
    pub async fn begin_delete(
        &self,
        tenant: &Tenant,
        slug_or_id: &str,
        losses: &[u8],
        token: &str,
    ) -> Result<Environment> {
        let env = self.get(tenant, slug_or_id).await?;
        self.confirmations.redeem(DELETE, &env.id.to_string(), losses, token).await?;
        self.store.environments().begin_delete(env.id).await?;
        self.names.changed(&env);
        self.credentials.env_gone(env.id);
        Ok(Environment { state: EnvState::Deleting, external_id: None, ..env })
    }

    /// Ends a deletion whose files are gone: removes the record, its secrets and its signing key, and frees the slug. A repeat
    /// changes nothing.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn finish_delete(&self, environment: &Environment) -> Result<()> {
        self.store.environments().remove(environment.id).await?;
        self.app_keys.forget(environment.id);
        self.names.changed(environment);
        Ok(())
    }

    /// The names of the templates, the default first.
    #[must_use]
    pub fn templates(&self) -> &[String] {
        &self.templates
    }

    fn template(&self, name: Option<&str>) -> Result<String> {
        let found = match name {
            None => self.templates.first(),
            Some(name) => self.templates.iter().find(|template| *template == name),
        };
        found.cloned().ok_or_else(|| {
            let message =
                format!("there is no template of that name; there are: {}", self.templates.join(", "));
            Error::invalid("/template", message)
        })
    }

    /// Whether an environment could be made so, but for what is taken.
    ///
    /// # Errors
    /// `invalid_input` naming the field.
    pub fn check(&self, new: &NewEnvironment) -> Result<()> {
        self.template(new.template.as_deref())?;
        check_text("/name", "name", new.name.as_deref(), MAX_NAME)?;
        if let Some(plan) = &new.plan {
            self.plans.check(plan)?;
        }
        check_text("/external_id", "external id", new.external_id.as_deref(), MAX_EXTERNAL_ID)?;
        check_tags(&new.tags, "an environment")
    }
}

/// The tags of `what`.
pub(crate) fn check_tags(tags: &BTreeMap<String, String>, what: &str) -> Result<()> {
    if tags.len() > MAX_TAGS {
        return Err(Error::invalid("/tags", format!("{what} has at most {MAX_TAGS} tags")));
    }
    for (name, value) in tags {
        check_text("/tags", "name of a tag", Some(name), MAX_TAG_NAME)?;
        let at = format!("/tags/{}", name.replace('~', "~0").replace('/', "~1"));
        if value.chars().count() > MAX_TAG_VALUE || value.contains('\0') {
            let message = format!("the value of a tag has at most {MAX_TAG_VALUE} characters and no NUL");
            return Err(Error::invalid(at, message));
        }
    }
    Ok(())
}

/// A text that people read: not empty, not longer than `most` characters, nothing invisible in it.
pub(crate) fn check_text(field: &str, what: &str, text: Option<&str>, most: usize) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    let length = text.chars().count();
    if length == 0 || length > most || text.trim().is_empty() || text.chars().any(char::is_control) {
        let message =
            format!("the {what} must have 1 to {most} characters, none of them a control character");
        return Err(Error::invalid(field, message));
    }
    Ok(())
}

/// `<base>-x4k2p9`, shortened where it would be too long; `<or>-…` where there is no base.
pub(crate) fn suffixed(base: Option<&Slug>, or: &str) -> Result<Slug> {
    const ALPHABET: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut random = [0; SUFFIX];
    getrandom::fill(&mut random).map_err(Error::internal)?;
    let suffix: String =
        random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect();
    let base: String = base.map_or(or, Slug::as_str).chars().take(40 - SUFFIX - 1).collect();
    format!("{}-{suffix}", base.trim_end_matches('-')).parse().map_err(Error::internal)
}

/// The refusal of one environment more.
fn full(most: u64) -> Error {
    let info = LimitInfo::new("environments", LimitScope::Tenant, most, "environments")
        .raised("ask who runs the platform for a plan with more");
    Error::new(Code::QuotaExceeded, format!("the tenant has {most} environments, the most its plan allows"))
        .limit(info)
        .hint("delete one that is not needed (env_delete), or have the limit raised")
}

/// That a tenant is suspended.
pub(crate) fn suspended() -> Error {
    Error::new(Code::Forbidden, "the tenant is suspended").hint("ask the platform's operator")
}
