//! Routes of an app: which paths something else than its site answers, or only for whom and how often.

mod pattern;
mod spec;

use std::collections::BTreeSet;
use std::time::Duration;

use kernel::{Error, Result};

pub use spec::{By, CorsSpec, LimitSpec, RouteSpec, RoutesSpec, Target, Verb, Who, Window};

use crate::auth::origin;
use crate::hosting::RequestPath;
use pattern::{Names, Pattern, Rewrite};

/// How many routes an app has at most, how many origins and headers a route names, and how long a name of a header is.
const MOST: usize = 200;
const LISTED: usize = 20;
const HEADER: usize = 100;

/// The largest limits that can be said.
const REQUESTS: u32 = 100_000;
const SECONDS: u32 = 300;
const MAX_AGE: u32 = 86_400;

/// The routes of a release, the most particular first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Routes(Vec<Route>);

/// One route, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// As the manifest writes it.
    pub text: String,
    /// What answers.
    pub to: Target,
    /// Who may.
    pub auth: Who,
    /// By which methods; with GET, HEAD too.
    pub methods: BTreeSet<Verb>,
    /// Pages of which other origins may read the answers.
    pub cors: Option<Cors>,
    /// How often.
    pub limit: Option<LimitSpec>,
    /// The largest body, in bytes.
    pub max_body: Option<u64>,
    /// How long until the answer must have begun.
    pub timeout: Option<Duration>,
    pattern: Pattern,
    rewrite: Option<Rewrite>,
}

/// Which pages may read answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// Their origins, as browsers write them; every one where there is none.
    pub origins: Option<BTreeSet<String>>,
    /// The methods that they may use.
    pub methods: BTreeSet<Verb>,
    /// The headers that they may send, in lower case; those that the target knows where there is none.
    pub headers: Option<Vec<String>>,
    /// Whether browsers may send what they keep for the app.
    pub credentials: bool,
    /// How many seconds browsers keep this in mind.
    pub max_age: u32,
}

/// A route that is for a path, and where it leads.
#[derive(Debug, PartialEq)]
pub struct Routed<'a> {
    /// The route.
    pub route: &'a Route,
    names: Names<'a>,
}

/// What routes can lead to beside the site.
#[derive(Debug, Clone, Copy)]
pub(crate) struct There<'a> {
    /// Tables in lower case.
    pub tables: &'a BTreeSet<String>,
    /// Buckets.
    pub buckets: &'a BTreeSet<String>,
    /// Functions.
    pub functions: &'a BTreeSet<String>,
    /// Services.
    pub services: &'a BTreeSet<String>,
}

impl Routes {
    /// What the routes say; or the first thing that is wrong, with its place below `/routes`.
    pub(crate) fn parse(spec: &RoutesSpec, there: There<'_>) -> Result<Self> {
        if spec.len() > MOST {
            return Err(Error::invalid("", format!("an app has at most {MOST} routes")));
        }
        let mut routes: Vec<Route> = Vec::new();
        for (text, spec) in spec {
            let at = format!("/{}", text.replace('~', "~0").replace('/', "~1"));
            let route = Route::parse(text, spec, there).map_err(|e| e.under(&at))?;
            if let Some(other) = routes.iter().find(|other| other.pattern.is_like(&route.pattern)) {
                let message = format!("the routes {} and {text} are for the same paths", other.text);
                return Err(Error::invalid(at, message).hint("leave one of them out"));
            }
            routes.push(route);
        }
        routes.sort_by_cached_key(|route| route.pattern.rank());
        Ok(Self(routes))
    }

    /// The route for `path`: of those that are for it, the most particular.
    #[must_use]
    pub fn find<'a>(&'a self, path: &'a RequestPath) -> Option<Routed<'a>> {
        self.0.iter().find_map(|route| Some(Routed { route, names: route.pattern.names(path.as_str())? }))
    }

    /// The route for a decoded path that begins with a slash.
    fn at(&self, path: &str) -> Option<&Route> {
        self.0.iter().find(|route| route.pattern.names(path).is_some())
    }

    /// The routes that keep a file of the site from some: those for its own address in any of its spellings. However one
    /// comes to the file, they hold; but for a route to the site itself that was passed, is for one of the file's own
    /// addresses too, and is more particular.
    #[must_use]
    pub fn guards(&self, file: &str, passed: Option<&Route>) -> Vec<&Route> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let whole = format!("/{file}");
        let clean = whole.strip_suffix(".html");
        let directory = whole.strip_suffix("index.html");
        let spellings = [Some(whole.as_str()), clean, directory].into_iter().flatten();
        let found = spellings.clone().filter_map(|path| self.at(path));
        let mut guards: Vec<&Route> = Vec::new();
        let is_for_it = |route: &&Route| spellings.clone().any(|path| route.pattern.names(path).is_some());
        let passed = passed.filter(|route| route.is_plain()).filter(is_for_it);
        let weaker = |route: &Route| {
            passed.is_some_and(|it| it.text == route.text || it.pattern.rank() < route.pattern.rank())
        };
        for route in found.filter(|route| route.is_plain() && route.auth != Who::Public && !weaker(route)) {
            if !guards.iter().any(|known| known.text == route.text) {
                guards.push(route);
            }
        }
        guards
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, the most particular first.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Whether a request for this file of the site gets something else.
    pub(crate) fn hides(&self, file: &str) -> bool {
        self.at(file).is_some_and(|route| !route.is_plain())
    }
}

impl Routed<'_> {
    /// The path within the target, which begins with a slash: of the site, for a function or a service, of a bucket's files, of a table's rows. None
    /// where what the names stand for makes no path of it.
    #[must_use]
    pub fn path(&self, asked: &RequestPath) -> Option<RequestPath> {
        match (&self.route.rewrite, &self.route.to) {
            (Some(rewrite), _) => RequestPath::decoded(rewrite.fill(&self.names)),
            (None, Target::Site | Target::Function(_) | Target::Service(_)) => Some(asked.clone()),
            (None, Target::Bucket(_) | Target::Table(_)) => {
                let rest = self.names.last().map_or("", |(_, rest)| rest);
                RequestPath::decoded(format!("/{rest}"))
            }
        }
    }
}

impl Route {
    fn parse(text: &str, spec: &RouteSpec, there: There<'_>) -> Result<Self> {
        let pattern = Pattern::parse(text).map_err(|why| Error::invalid("", why))?;
        let missing = |kind: &str, name: &str| {
            Error::invalid("/to", format!("there is no {kind} {name} to lead to"))
                .hint(format!("give the manifest the {kind} too, or leave the route out"))
        };
        match &spec.to {
            Target::Table(name) if !there.tables.contains(&name.to_ascii_lowercase()) => {
                return Err(missing("table", name));
            }
            Target::Bucket(name) if !there.buckets.contains(name) => return Err(missing("bucket", name)),
            Target::Function(name) if !there.functions.contains(name) => {
                return Err(missing("function", name));
            }
            Target::Service(name) if !there.services.contains(name) => return Err(missing("service", name)),
            Target::Site
            | Target::Table(_)
            | Target::Bucket(_)
            | Target::Function(_)
            | Target::Service(_) => {}
        }
        let rewrite = spec.rewrite.as_deref().map(|text| Rewrite::parse(text, &pattern));
        let rewrite = rewrite.transpose().map_err(|why| Error::invalid("/rewrite", why))?;
        if rewrite.is_none() && !pattern.has_rest() && matches!(spec.to, Target::Bucket(_)) {
            return Err(Error::invalid("/rewrite", "it does not say which file is meant")
                .hint("end the pattern with *, or write the path of a file in the bucket"));
        }
        let is_table = matches!(spec.to, Target::Table(_));
        if rewrite.is_none() && !pattern.has_rest() && !pattern.is_plain() && is_table {
            return Err(Error::invalid("/rewrite", "it does not say which row is meant")
                .hint("write the path below the table: /:id"));
        }
        let methods = spec.methods()?;
        let cors = spec.cors.as_ref().map(|cors| Cors::parse(cors, &methods).map_err(|e| e.under("/cors")));
        if spec.limit.is_some_and(|limit| !(1..=REQUESTS).contains(&limit.requests)) {
            return Err(Error::invalid(
                "/limit/requests",
                format!("1 to {REQUESTS} requests can be allowed"),
            ));
        }
        if spec.timeout.is_some_and(|seconds| !(1..=SECONDS).contains(&seconds)) {
            return Err(Error::invalid("/timeout", format!("a timeout is 1 to {SECONDS} seconds")));
        }
        Ok(Self {
            text: text.to_owned(),
            to: spec.to.clone(),
            auth: spec.auth.clone(),
            methods,
            cors: cors.transpose()?,
            limit: spec.limit,
            max_body: spec.max_body,
            timeout: spec.timeout.map(|seconds| Duration::from_secs(seconds.into())),
            pattern,
            rewrite,
        })
    }

    /// The pattern with `{name}` for each name, and what the names are.
    #[must_use]
    pub fn template(&self) -> (String, Vec<&str>) {
        (self.pattern.template(), self.pattern.all_names().collect())
    }

    /// Whether it stands before files of the site at their own addresses.
    fn is_plain(&self) -> bool {
        self.to == Target::Site && self.rewrite.is_none()
    }
}

impl RouteSpec {
    /// The methods that pass, HEAD with GET.
    fn methods(&self) -> Result<BTreeSet<Verb>> {
        let takes: &[Verb] = match self.to {
            Target::Site => &[Verb::Get, Verb::Head],
            Target::Bucket(_) => &[Verb::Get, Verb::Head, Verb::Put, Verb::Delete],
            Target::Table(_) | Target::Function(_) | Target::Service(_) => &Verb::ALL,
        };
        let mut methods = match &self.methods {
            None if matches!(self.to, Target::Function(_) | Target::Service(_)) => BTreeSet::from(Verb::ALL),
            None => BTreeSet::from([Verb::Get]),
            Some(methods) if methods.is_empty() => {
                return Err(Error::invalid("/methods", "no method is named, so nobody could ask"));
            }
            Some(methods) => methods.clone(),
        };
        if let Some(other) = methods.iter().find(|method| !takes.contains(method)) {
            let takes: Vec<_> = takes.iter().map(|it| it.as_str()).collect();
            let message = format!("a {} takes no {}", self.to.kind(), other.as_str());
            return Err(Error::invalid("/methods", message).hint(format!("it takes {}", takes.join(", "))));
        }
        if methods.contains(&Verb::Get) {
            methods.insert(Verb::Head);
        }
        Ok(methods)
    }
}

impl Target {
    const fn kind(&self) -> &'static str {
        match self {
            Target::Site => "site",
            Target::Bucket(_) => "bucket",
            Target::Table(_) => "table",
            Target::Function(_) => "function",
            Target::Service(_) => "service",
        }
    }
}

impl Cors {
    fn parse(spec: &CorsSpec, methods: &BTreeSet<Verb>) -> Result<Self> {
        let all = spec.origins.iter().any(|origin| origin == "*");
        if spec.origins.is_empty() || spec.origins.len() > LISTED {
            return Err(Error::invalid("/origins", format!("name 1 to {LISTED} origins")));
        }
        if all && spec.origins.len() > 1 {
            return Err(Error::invalid("/origins", "* stands for all origins: write it alone"));
        }
        if all && spec.credentials {
            return Err(Error::invalid(
                "/credentials",
                "pages of every origin would act as whoever visits them",
            )
            .hint("name the origins, or leave credentials out"));
        }
        let read = |(i, text): (usize, &String)| origin(text).map_err(|e| e.under(&format!("/origins/{i}")));
        let origins =
            if all { None } else { Some(spec.origins.iter().enumerate().map(read).collect::<Result<_>>()?) };
        let may: BTreeSet<Verb> = match &spec.methods {
            None => methods.clone(),
            Some(wanted) => match wanted.iter().find(|method| !methods.contains(method)) {
                Some(other) => {
                    let message = format!("the route itself takes no {}", other.as_str());
                    return Err(Error::invalid("/methods", message));
                }
                None => wanted.clone(),
            },
        };
        let headers = spec.headers.as_ref().map(|headers| headers.iter().enumerate().map(header).collect());
        if spec.headers.as_ref().is_some_and(|headers| headers.len() > LISTED) {
            return Err(Error::invalid("/headers", format!("name at most {LISTED} headers")));
        }
        let max_age = spec.max_age.unwrap_or(600);
        if max_age > MAX_AGE {
            return Err(Error::invalid(
                "/max_age",
                format!("browsers keep it for at most {MAX_AGE} seconds"),
            ));
        }
        Ok(Self {
            origins,
            methods: may,
            headers: headers.transpose()?,
            credentials: spec.credentials,
            max_age,
        })
    }
}

/// The name of a header in lower case (RFC 9110 §5.6.2).
fn header((i, name): (usize, &String)) -> Result<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > HEADER || !name.bytes().all(is_token) {
        return Err(Error::invalid(format!("/headers/{i}"), "this is not the name of a header"));
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
