//! Runs: from when a sandbox wakes until it ends, what is in it may call tools, and uses secrets that it does not have.
//!
//! Both are renewed while the run lives: its token before it expires, and where it may go, with which secrets, also when
//! that has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use kernel::{Env, Error, Result, RunId, SandboxId, Secret};
use sandbox::bridge::{self, Grant, Pass, Refused, Tokens};
use sandbox::egress::{Bound, Egress, Pattern, Places, Policy, TRUST_VARIABLES, placeholder};
use sandbox::session::{Session, Write};
use store::Workspace;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{Hands, Inner};

/// The least that a token is good for.
const SHORTEST: Duration = Duration::from_secs(3);

/// How long the hand inside may take to write down what it is told.
const WRITING: Duration = Duration::from_secs(20);

/// How long somebody else waits for that.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the host keeps the certificates that it trusts.
const HOST_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where what is inside finds those, and that of its way out.
const CERTIFICATES: &str = "/run/steading/certificates.pem";

/// Variables that a secret's text never takes the place of.
const RESERVED: [&str; 4] = ["HOME", "LANG", "PATH", "TERM"];

/// What sandboxes need of the platform above them.
pub trait Platform: bridge::Tools {
    /// The tools of a run.
    fn tools(&self) -> Arc<BTreeSet<String>>;

    /// How the ways out of an environment's sandboxes differ from what the operator allows to all.
    ///
    /// # Errors
    /// Where that cannot be known.
    fn reach<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Reach>>;
}

/// How an environment's ways out differ from what the operator allows to all.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// Where this is said, only these hosts.
    pub within: Option<Vec<Pattern>>,
    /// Secrets that go to their hosts.
    pub secrets: Vec<Lent>,
}

/// A secret that commands use by its name, as a variable whose text is none of it.
#[derive(Debug, Clone)]
pub struct Lent {
    /// The variable.
    pub name: String,
    /// The value.
    pub value: Secret,
    /// The hosts that get the value.
    pub hosts: Vec<Pattern>,
}

impl Hands {
    /// Lets what runs in sandboxes that wake from here on call the tools of `platform`.
    pub fn connect(&self, platform: Arc<dyn Platform>) {
        *self.0.platform.write().unwrap_or_else(PoisonError::into_inner) = Some(platform);
    }

    /// What a token opens that came over the bridge of `sandbox`.
    ///
    /// # Errors
    /// Why it opens nothing.
    pub fn pass(&self, sandbox: SandboxId, token: &str) -> Result<Pass, Refused> {
        self.0.tokens.check(sandbox, token)
    }

    /// To be called when the reach of an environment has changed: when this returns, its sandboxes go by the new one, and
    /// what is in them has been told, unless it is slow to take it.
    pub async fn reach_changed(&self, env: &Env) {
        let slots: Vec<_> = self.0.slots().values().cloned().collect();
        let of_tenant = slots.into_iter().filter(|slot| slot.tenant() == Some(env.tenant()));
        // None of them waits for another.
        let telling = join_all(of_tenant.map(|slot| async move {
            let awake = slot.lock().await.clone().filter(|awake| awake.run.env == *env)?;
            awake.run.change().await;
            // It is told when it wakes.
            (!awake.is_stopped()).then(|| awake.run.telling())
        }));
        let telling = telling.await.into_iter().flatten();
        drop(timeout(PATIENCE, join_all(telling)).await);
    }
}

impl Inner {
    /// The platform, once it is there.
    pub(crate) fn platform(&self) -> Option<Arc<dyn Platform>> {
        self.platform.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One run. It ends with this value at the latest.
pub(crate) struct Run {
    id: RunId,
    env: Env,
    tokens: Arc<Tokens>,
    session: Session,
    egress: Egress,
    /// What every sandbox may.
    policy: Policy,
    /// What commands see in any case.
    surroundings: BTreeMap<String, String>,
    platform: Option<Arc<dyn Platform>>,
    /// After how long its token is renewed.
    every: Duration,
    /// The texts in place of secrets, by name. Who has it looks alone: what was read earlier never comes later.
    placeholders: Mutex<BTreeMap<String, String>>,
    told: Mutex<Told>,
    /// Whether what was told does not hold any more.
    stale: AtomicBool,
}

/// What the hand inside was told.
#[derive(Default)]
struct Told {
    /// When.
    at: Option<Instant>,
    /// Whether the certificates are there.
    certificates: bool,
}

impl Run {
    /// Begins one in a sandbox that has just been made, whose commands see `surroundings`; without a platform it can call
    /// nothing.
    pub async fn begin(
        inner: &Inner,
        workspace: &Workspace,
        session: &Session,
        egress: &Egress,
        surroundings: BTreeMap<String, String>,
    ) -> Result<Self> {
        let lasts = inner.limits.token.clamp(SHORTEST, bridge::LONGEST);
        let run = Self {
            id: RunId::new(),
            env: Env::for_upkeep(workspace.tenant, workspace.env),
            tokens: Arc::clone(&inner.tokens),
            session: session.clone(),
            egress: egress.clone(),
            policy: inner.limits.egress_of(workspace.tenant),
            surroundings,
            platform: inner.platform(),
            every: lasts / 3,
            placeholders: Mutex::default(),
            told: Mutex::default(),
            stale: AtomicBool::new(false),
        };
        run.look().await?;
        let token = match &run.platform {
            None => None,
            Some(platform) => {
                let (sandbox, env, tools) = (workspace.sandbox, workspace.env, platform.tools());
                tracing::info!(
                    run.id = %run.id, env.id = %env, sandbox.id = %sandbox, workspace.name, "a run has begun"
                );
                Some(run.tokens.begin(Grant { sandbox, run: run.id, env, tools, lasts })?)
            }
        };
        run.tell(&mut *run.told.lock().await, token.as_ref()).await?;
        Ok(run)
    }

    /// Who answers its calls.
    pub fn platform(&self) -> Option<Arc<dyn Platform>> {
        self.platform.clone()
    }

    /// Sees that the token goes on being good until this future is dropped, but for when the sandbox is `stopped`.
    pub async fn keep(&self, stopped: Arc<AtomicBool>) {
        loop {
            tokio::time::sleep(self.every).await;
            if stopped.load(Ordering::SeqCst) {
                continue;
            }
            self.follow().await;
            self.renew().await;
        }
    }

    /// To be called when the sandbox goes on after it was stopped: renews what is due, so that what is in it does not find
    /// a token that has expired. One that is slow to take it is not waited for.
    pub async fn goes_on(self: &Arc<Self>) {
        self.follow().await;
        drop(timeout(PATIENCE, self.telling()).await);
    }

    /// Has its way out follow the environment's reach, which may have changed elsewhere.
    async fn follow(&self) {
        if let Err(error) = self.look().await {
            tracing::warn!(run.id = %self.id, error = error.chain(), "the reach of a sandbox could not be looked up");
        }
    }

    /// Renews what is due, to its end also where nobody waits for it.
    fn telling(self: &Arc<Self>) -> JoinHandle<()> {
        let run = Arc::clone(self);
        tokio::spawn(async move { run.renew().await })
    }

    /// Ends it: none of its tokens opens anything any more.
    pub fn end(&self) {
        self.tokens.end(self.id);
    }

    /// Takes the new reach; where that cannot be known, there is none.
    async fn change(&self) {
        if let Err(error) = self.look().await {
            tracing::warn!(run.id = %self.id, error = error.chain(), "a sandbox has no way out until its reach is known");
            self.egress.update(Policy { allow: Vec::new(), ..self.policy.clone() });
        }
        self.stale.store(true, Ordering::SeqCst);
    }

    /// Has its way out follow the environment's reach.
    async fn look(&self) -> Result<()> {
        let Some(platform) = &self.platform else { return Ok(()) };
        let mut before = self.placeholders.lock().await;
        let Reach { within, secrets } = platform.reach(&self.env).await?;
        let mut policy = Policy { within, ..self.policy.clone() };
        let mut placeholders = BTreeMap::new();
        for Lent { name, value, hosts } in secrets {
            let text = before.get(&name).map_or_else(|| placeholder(&name), |text| Ok(text.clone()))?;
            match Bound::new(&name, text.as_str(), value, hosts, Places::Headers) {
                Ok(bound) => policy.secrets.push(bound),
                Err(error) => tracing::warn!(run.id = %self.id, %error, "a secret cannot go out"),
            }
            placeholders.insert(name, text);
        }
        *before = placeholders;
        self.egress.update(policy);
        Ok(())
    }

    /// Tells what is in it what is due: a token before the last one expires, and what has changed.
    async fn renew(&self) {
        let mut told = self.told.lock().await;
        let stale = self.stale.swap(false, Ordering::SeqCst);
        if !stale && told.at.is_some_and(|at| at.elapsed() < self.every) {
            return;
        }
        // It has ended, or there never was one.
        let Ok(token) = self.tokens.renew(self.id) else { return };
        if let Err(error) = self.tell(&mut told, Some(&token)).await {
            self.stale.store(true, Ordering::SeqCst);
            tracing::warn!(run.id = %self.id, error = error.chain(), "what is in a sandbox was not told what is new");
        }
    }

    /// Tells the hand inside what commands see, and the token.
    async fn tell(&self, told: &mut Told, token: Option<&Secret>) -> Result<()> {
        let mut variables = self.placeholders.lock().await.clone();
        let telling = async {
            if !variables.is_empty() && !told.certificates {
                self.certify().await?;
                told.certificates = true;
            }
            variables.retain(|name, _| !RESERVED.contains(&name.as_str()));
            if told.certificates {
                let trust = TRUST_VARIABLES.iter().map(|name| ((*name).to_owned(), CERTIFICATES.to_owned()));
                variables.extend(trust);
            }
            variables.extend(self.surroundings.clone());
            self.session.activate(variables, token).await?;
            Ok::<(), Error>(())
        };
        let slow = |_| Error::internal("the hand does not write down what it is told");
        timeout(WRITING, telling).await.map_err(slow)??;
        told.at = Some(Instant::now());
        Ok(())
    }

    /// Puts the certificates inside that programs there have to trust.
    async fn certify(&self) -> Result<()> {
        // A machine without any trusts nobody, and neither does what is inside.
        let mut all = tokio::fs::read(HOST_CERTIFICATES).await.unwrap_or_default();
        all.extend_from_slice(self.egress.authority_pem().as_bytes());
        let how = Write { mode: Some(0o444), ..Write::default() };
        Ok(self.session.files().write(CERTIFICATES, all.as_slice(), all.len() as u64, how).await?)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.end();
    }
}
