//! What functions have around them: their app's secrets, hosts and log, and the app itself.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use capabilities::functions::{Artifact, Builder, Function, FunctionName, Handlers, Kind, Sources};
use capabilities::logs::{Entry, Level, Logs, Source};
use control::{Control, SecretKind};
use edge::Edge;
use functions::{Asker, Called, Functions, Host, Line, Place, Sent};
use futures::future::BoxFuture;
use hands::Hands;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use kernel::{Env, Error, Result, Secret, Timestamp};
use mcp_server::masks::Masks;
use mcp_server::platform::Urls;
use sandbox::egress::{Event, Outcome, Policy};
use sandbox::runner::Isolation;

use crate::clock::Bell;

/// The platform around all functions.
pub struct Around {
    control: Arc<Control>,
    urls: Urls,
    logs: Logs,
    masks: Arc<Masks>,
    hands: Hands,
    /// What answers for their apps; none before the platform is whole, and when it is about to stop.
    edge: RwLock<Option<Edge>>,
}

impl Around {
    /// Without an answer to what functions ask of their apps.
    pub fn new(control: &Arc<Control>, urls: &Urls, logs: &Logs, masks: &Arc<Masks>, hands: &Hands) -> Self {
        Self {
            control: Arc::clone(control),
            urls: urls.clone(),
            logs: logs.clone(),
            masks: Arc::clone(masks),
            hands: hands.clone(),
            edge: RwLock::default(),
        }
    }

    /// From here on `edge` answers.
    pub fn connect(&self, edge: Edge) {
        *self.edge.write().unwrap_or_else(PoisonError::into_inner) = Some(edge);
    }

    /// From here on nobody does.
    pub fn disconnect(&self) {
        *self.edge.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn edge(&self) -> Option<Edge> {
        self.edge.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Host for Around {
    fn place<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Place>> {
        Box::pin(async move {
            let found = self.control.environments().find(&env.id().to_string()).await?;
            let found = found.ok_or_else(|| Error::not_found(format!("environment \"{}\"", env.id())))?;
            Ok(Place { url: self.urls.app(&found.slug), slug: found.slug.to_string() })
        })
    }

    fn secrets<'a>(
        &'a self,
        env: &'a Env,
        names: &'a [String],
    ) -> BoxFuture<'a, Result<BTreeMap<String, Secret>>> {
        Box::pin(async move {
            if names.is_empty() {
                return Ok(BTreeMap::new());
            }
            let secrets = self.control.secrets();
            let mut given = BTreeMap::new();
            // Those that are bound to hosts go there alone.
            let there = secrets.names(env).await?.into_iter().filter(|it| it.kind == SecretKind::Function);
            for secret in there.filter(|it| names.contains(&it.name)) {
                let value = secrets.reveal(env, &secret.name).await?;
                given.insert(secret.name, value);
            }
            self.masks.add(env.id(), given.values());
            Ok(given)
        })
    }

    fn admits<'a>(&'a self, env: &'a Env, isolation: Isolation) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            // Files of services are nobody's that a row names: what is left of earlier ones goes before there are any.
            self.hands.tidied().await?;
            self.hands.admits(env, isolation).await
        })
    }

    fn policy<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Policy>> {
        Box::pin(self.hands.policy(env))
    }

    fn log(&self, called: &Called, request: Option<&str>, line: &Line) {
        let level = match line.level {
            functions::Level::Debug => Level::Debug,
            functions::Level::Info => Level::Info,
            functions::Level::Warn => Level::Warn,
            functions::Level::Error => Level::Error,
        };
        let kind = called.function.kind();
        let mut text = self.masks.cover(called.env.id(), &line.text).into_owned();
        if line.cut > 0 {
            text.push_str(&format!("… and {} more characters", line.cut));
        }
        let mut entry = Entry::new(Timestamp::now(), level, source(kind), text);
        entry.request_id = request.map(str::to_owned);
        entry.fields.insert(kind.as_str().to_owned(), called.name.as_str().into());
        self.logs.append(&called.env, entry);
    }

    fn told(&self, called: &Called, event: Event) {
        let kind = called.function.kind();
        let mut entry = noted(&format!("a {}", kind.as_str()), source(kind), &event);
        entry.fields.insert(kind.as_str().to_owned(), called.name.as_str().into());
        self.logs.append(&called.env, entry);
    }

    fn answer<'a>(&'a self, asker: &'a Asker, request: Request<Incoming>) -> BoxFuture<'a, Response<Sent>> {
        Box::pin(async move {
            match self.edge() {
                Some(edge) => edge.asked_by(asker, request).await,
                None => {
                    let mut response =
                        Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
                    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    response
                }
            }
        })
    }
}

const fn source(kind: Kind) -> Source {
    match kind {
        Kind::Function => Source::Function,
        Kind::Service => Source::Service,
    }
}

/// What an environment's log has of a connection that `who` has wanted, or had.
pub fn noted(who: &str, source: Source, event: &Event) -> Entry {
    let target = event.target.as_ref().map_or_else(|| "a host".to_owned(), ToString::to_string);
    let (level, what) = match &event.outcome {
        Outcome::Allowed => (Level::Debug, format!("{who} was connected to {target}")),
        Outcome::Cut(cut) => (Level::Warn, format!("{who} was cut off from {target}: {cut}")),
        Outcome::Refused(refusal) => (Level::Warn, format!("{who} was not let out to {target}: {refusal}")),
    };
    let used = match event.outcome {
        Outcome::Refused(_) => String::new(),
        _ => format!(" ({} bytes out, {} in, {} ms)", event.up, event.down, event.took.as_millis()),
    };
    Entry::new(event.at, level, source, format!("{what}{used}"))
}

/// What builds functions: their own builder, whose files are no workspace's that anybody has noted. The clock hears of what is
/// live.
pub struct Workshop {
    /// The builder.
    pub functions: Functions,
    /// What removes the files that nobody has noted.
    pub hands: Hands,
    /// Rung when an app has other schedules.
    pub bell: Bell,
}

impl Builder for Workshop {
    fn build<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        sources: &'a Sources,
        note: &'a (dyn Fn(&str) + Send + Sync),
    ) -> BoxFuture<'a, Result<Artifact>> {
        Box::pin(async move {
            self.hands.tidied().await?;
            self.functions.build(env, name, sources, note).await
        })
    }

    fn start<'a>(
        &'a self,
        env: &'a Env,
        name: &'a FunctionName,
        function: &'a Function,
        app: &'a BTreeMap<String, String>,
    ) -> BoxFuture<'a, Result<Handlers>> {
        self.functions.start(env, name, function, app)
    }

    fn switched(
        &self,
        env: &Env,
        functions: &BTreeMap<FunctionName, Arc<Function>>,
        app: &Arc<BTreeMap<String, String>>,
    ) {
        self.functions.switched(env, functions, app);
        self.bell.ring(env);
    }

    fn builder(&self, sources: &Sources) -> String {
        self.functions.builder(sources)
    }
}
