//! How a process of a function begins, and what is done when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use capabilities::functions::Runs;
use kernel::{Env, Secret};
use sandbox::runner::{Limits, Runner as _};
use sandbox::workspace::templates::Templates;
use tokio::time::timeout;

use crate::build::Registry;
use crate::error::{Error, Result};
use crate::fleet::{Beginning, Fleet, Running};
use crate::host::{Called, Flights};
use crate::instance::{Assignment, Instance, InstanceLimits, Meta};
use crate::room::Room;
use crate::serving::Service;
use crate::supervisor::Inner;
use crate::{bridge, runtime};

/// How long a start may take, a runtime that is fetched for it included.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);

/// Processes and threads of a service.
const PIDS: u32 = 256;

impl Inner {
    /// Starts one more process.
    pub async fn start(self: &Arc<Self>, beginning: Beginning, room: Room) {
        let flights = Arc::new(Flights::default());
        let fleet = Arc::clone(beginning.fleet());
        let since = Instant::now();
        let begun = timeout(LONGEST, self.instance(&fleet, &flights)).await.unwrap_or(Err(Error::Silent));
        self.counts.start(&begun, since.elapsed());
        if let Err(error) = &begun {
            let called = &fleet.called;
            let line = crate::Line::said(crate::Level::Error, error.said_of(called.function.kind()));
            self.host.log(called, None, &line);
        }
        let begun = begun.map(|instance| Arc::new(Running::new(instance, flights, room)));
        match beginning.over(begun) {
            Ok(running) => self.attend(&fleet, running).await,
            Err(None) => {}
            // Nobody wants it any more.
            Err(Some(running)) => {
                running.leaving.store(true, Ordering::SeqCst);
                self.attend_to_its_end(&fleet, &running).await;
            }
        }
    }

    /// Ends a process that nobody is to have, with its files where nobody has them.
    async fn attend_to_its_end(&self, fleet: &Fleet, running: &Arc<Running>) {
        let env = fleet.called.env.id();
        if let Err(error) = running.instance.kill().await {
            tracing::warn!(env.id = %env, error = error.chain(), "a function's sandbox could not be ended");
        }
        let gone = {
            let all = self.fleets();
            (!all.keys().any(|key| key.env == env)).then(|| self.artifacts.forget_all(env))
        };
        if let Some(gone) = gone
            && let Err(error) = gone.await
        {
            tracing::warn!(env.id = %env, error = error.chain(), "files of a function are left");
        }
    }

    /// Waits for the end of a process, and clears it away.
    async fn attend(&self, fleet: &Fleet, running: Arc<Running>) {
        let ended = running.instance.ended().await;
        let unwanted = !running.leaving.load(Ordering::SeqCst);
        let error = unwanted.then(|| crate::instance::ended_as(ended));
        let called = &fleet.called;
        if let Some(error) = &error {
            let text = format!("{}, while it ran", error.said_of(called.function.kind()));
            self.host.log(called, None, &crate::Line::said(crate::Level::Error, text));
        }
        fleet.gone(&running, error);
        if let Err(error) = running.instance.kill().await {
            tracing::warn!(env.id = %called.env.id(), error = error.chain(), "a function's sandbox could not be ended");
        }
    }

    async fn instance(&self, fleet: &Fleet, flights: &Arc<Flights>) -> Result<Instance> {
        let Called { env, name, function, variables } = &fleet.called;
        let settings = &function.settings;
        self.host.admits(env, self.local.isolation()).await?;
        let place = self.host.place(env).await?;
        let version = function.version();
        let files = self.artifacts.place(env, &version, &function.artifact.files).await?;
        let mut all: BTreeMap<String, Secret> = BTreeMap::new();
        for (name, value) in variables.iter().chain(&settings.variables) {
            all.insert(name.clone(), Secret::new(value.as_str()));
        }
        all.extend(self.host.secrets(env, &settings.secrets).await?);
        let memory_bytes = u64::from(function.limits().memory_mb) << 20;
        let (host, heard) = (Arc::clone(&self.host), Arc::clone(flights));
        let called = fleet.called.clone();
        let sink = Arc::new(move |line: crate::Line| {
            let request = line.rid.as_deref().filter(|_| heard.hear(&line));
            host.log(&called, request, &line);
        });
        let around = bridge::around(self, &fleet.called, Arc::clone(flights)).await?;
        let templates = self.templates.clone();
        let kind = match &function.sources.runs {
            Runs::Function { runtime, .. } => *runtime,
            Runs::Service { service } => {
                let template = service.template;
                let layers = tokio::task::spawn_blocking(move || runtime::bases(template, &templates)).await;
                let service = Service {
                    layers: layers.map_err(kernel::Error::internal)??,
                    archive: files.join(function.artifact.entry.as_str()),
                    command: service.command.clone(),
                    health: service.health.clone(),
                    env: all,
                    url: place.url,
                    limits: Limits { memory_bytes, pids: PIDS, ..InstanceLimits::default().sandbox },
                };
                let instance = Instance::serve(Arc::clone(&self.local), &service, sink, around).await?;
                return self.admitted(env, instance).await;
            }
        };
        let layers = tokio::task::spawn_blocking(move || runtime::layers(kind, &templates)).await;
        let assignment = Assignment {
            runtime: kind,
            layers: layers.map_err(kernel::Error::internal)??,
            files,
            entry: function.artifact.entry.as_str().to_owned(),
            env: all,
            meta: Meta { env: place.slug, function: name.to_string(), version, url: place.url },
            limits: InstanceLimits {
                sandbox: Limits { memory_bytes, ..InstanceLimits::default().sandbox },
                ..InstanceLimits::default()
            },
        };
        let instance = Instance::start(Arc::clone(&self.local), &assignment, sink, around).await?;
        self.admitted(env, instance).await
    }

    /// The same one, where it may still run.
    async fn admitted(&self, env: &Env, instance: Instance) -> Result<Instance> {
        self.local.count_for(instance.sandbox(), env.tenant(), env.id());
        // More may be demanded since.
        if let Err(refusal) = self.host.admits(env, self.local.isolation()).await {
            instance.kill().await?;
            return Err(refusal.into());
        }
        Ok(instance)
    }

    /// Ends a process whose event loop does not come round; the next request gets another one.
    pub async fn blocked(&self, called: &Called, running: &Running, error: Error) {
        if running.leaving.swap(true, Ordering::SeqCst) && running.instance.has_ended() {
            return;
        }
        let line = crate::Line::said(crate::Level::Error, error.said_of(called.function.kind()));
        self.host.log(called, None, &line);
        if let Err(error) = running.instance.kill().await {
            tracing::warn!(env.id = %called.env.id(), error = error.chain(), "a function's sandbox could not be ended");
        }
    }

    /// Looks whether a service is well that has not answered in time, and ends it where it is not.
    pub fn doubt(self: &Arc<Self>, called: &Called, running: &Arc<Running>) {
        let Some(serving) = called.function.sources.serving() else { return };
        let (inner, called, running) = (Arc::clone(self), called.clone(), Arc::clone(running));
        let health = serving.health.clone();
        tokio::spawn(async move {
            if running.instance.looked_at(&health).await.is_err() {
                inner.blocked(&called, &running, Error::Silent).await;
            }
        });
    }

    /// Where packages come from: where this machine's npm gets its own.
    pub async fn registry(&self) -> kernel::Result<Registry> {
        let ask = async || {
            let asked = tokio::task::spawn_blocking(|| Templates::npm_setting("registry")).await;
            let url = asked.map_err(kernel::Error::internal)??;
            let asked = tokio::task::spawn_blocking(|| Templates::npm_setting("cafile")).await;
            let certificates = match asked.map_err(kernel::Error::internal)?? {
                Some(path) => Some(tokio::fs::read_to_string(path).await.map_err(|error| {
                    kernel::Error::internal(format!("the certificates of npm cannot be read: {error}"))
                })?),
                None => None,
            };
            let none =
                || kernel::Error::new(kernel::Code::Unavailable, "npm does not say where packages come from");
            let url = url.ok_or_else(none)?;
            // What stands before an @ is somebody's credential, and a build sees all that it is given.
            if url
                .split_once("://")
                .is_some_and(|(_, rest)| rest.split('/').next().unwrap_or(rest).contains('@'))
            {
                let message = "the registry that npm is set to has a credential in its address";
                return Err(kernel::Error::new(kernel::Code::Unavailable, message)
                    .hint("name a registry that packages can be fetched from without one"));
            }
            Ok(Registry { url, certificates })
        };
        self.registry.get_or_try_init(ask).await.cloned()
    }
}
