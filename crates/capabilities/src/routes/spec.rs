//! Routes as a manifest writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The manifest's `routes`: pattern of a path → what answers there. A segment `:name` stands for any one, `*` at the end for
/// everything below. Of those that are for a path the most particular one answers; where none is, the site does.
pub type RoutesSpec = BTreeMap<String, RouteSpec>;

/// One route. All of it holds before its target is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// What answers: `site` (as where it is left out), `{"function": name}` or `{"service": name}` (whatever its `access`
    /// says), `{"bucket": name}` or `{"table": name}`, whose own rules hold too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub to: Target,
    /// Who may: `public` (as where it is left out), `signed_in`, `admin`, `{"role": name}`, or `service` (a platform key).
    /// It is asked of the Authorization header, which a page that is opened by its address does not send.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth: Who,
    /// GET (and with it HEAD), and those of POST, PUT, PATCH and DELETE that the target takes. Where it is left out, GET
    /// alone, and for a function or a service all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<BTreeSet<Verb>>,
    /// Pages of which other origins may read the answers; without it, but for the site, those of auth.origins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<CorsSpec>,
    /// How often it may be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<LimitSpec>,
    /// The largest body of a request, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body: Option<u64>,
    /// Seconds until the answer must have begun: 1 to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
    /// The path within the target, with the pattern's names: `/posts/:id.html`, `/:splat` (what `*` stands for). Without it
    /// the site, a function or a service gets the path as it came, a bucket or a table what `*` stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
}

/// What answers at a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "TargetForm", into = "TargetForm")]
pub enum Target {
    /// The site.
    #[default]
    Site,
    /// The files of this bucket.
    Bucket(String),
    /// The rows of this table.
    Table(String),
    /// This function.
    Function(String),
    /// This service.
    Service(String),
}

/// Who may pass a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "WhoForm", into = "WhoForm")]
pub enum Who {
    /// Everybody.
    #[default]
    Public,
    /// Who has a session, and servers with a platform key.
    SignedIn,
    /// Users of this role, and servers with a platform key.
    Role(String),
    /// Servers with a platform key.
    Service,
}

/// Which pages may read a route's answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorsSpec {
    /// `https://example.org`, or `*` alone for all.
    pub origins: Vec<String>,
    /// Methods that they may use; the route's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<BTreeSet<Verb>>,
    /// Headers that they may send; those that the target knows where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Vec<String>>,
    /// Whether browsers may send what they keep for the app; not with `*`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub credentials: bool,
    /// Seconds that browsers keep this in mind: 0 to 86400, 600 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
}

/// How often a route may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitSpec {
    /// So many requests: 1 to 100000.
    pub requests: u32,
    /// In this time.
    pub per: Window,
    /// Counted apart for each `ip` (as where it is left out), each `user`, or for the `route` as a whole.
    #[serde(default, skip_serializing_if = "is_default")]
    pub by: By,
}

/// A method of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Reads.
    Get,
    /// Reads what GET would say, without its body.
    Head,
    /// Makes something.
    Post,
    /// Puts something in its place.
    Put,
    /// Changes something.
    Patch,
    /// Removes something.
    Delete,
}

/// The time in which requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

/// For whom requests are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The address that a request comes from.
    #[default]
    Ip,
    /// The user, or the address of who is not signed in.
    User,
    /// All together.
    Route,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"site\", {\"function\": name}, {\"service\": name}, {\"bucket\": name} or {\"table\": name}"
)]
enum TargetForm {
    Named(String),
    Of(BTreeMap<String, String>),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected \"public\", \"signed_in\", \"admin\", \"service\" or {\"role\": name}"
)]
enum WhoForm {
    Named(String),
    Of(RoleForm),
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RoleForm {
    role: String,
}

const TARGETS: &str = "a route leads to \"site\", {\"function\": name}, {\"service\": name}, {\"bucket\": name} or {\"table\": name}";

impl TryFrom<TargetForm> for Target {
    type Error = String;

    fn try_from(form: TargetForm) -> Result<Self, String> {
        let (kind, name) = match form {
            TargetForm::Named(kind) => (kind, None),
            TargetForm::Of(of) => match <[(String, String); 1]>::try_from(Vec::from_iter(of)) {
                Ok([(kind, name)]) => (kind, Some(name)),
                Err(_) => return Err("a route has one target".to_owned()),
            },
        };
        match (kind.as_str(), name) {
            ("site", None) => Ok(Target::Site),
            ("bucket", Some(name)) => Ok(Target::Bucket(name)),
            ("table", Some(name)) => Ok(Target::Table(name)),
            ("function", Some(name)) => Ok(Target::Function(name)),
            ("service", Some(name)) => Ok(Target::Service(name)),
            _ => Err(TARGETS.to_owned()),
        }
    }
}

impl From<Target> for TargetForm {
    fn from(target: Target) -> Self {
        let of = |kind: &str, name| TargetForm::Of(BTreeMap::from([(kind.to_owned(), name)]));
        match target {
            Target::Site => TargetForm::Named("site".to_owned()),
            Target::Bucket(name) => of("bucket", name),
            Target::Table(name) => of("table", name),
            Target::Function(name) => of("function", name),
            Target::Service(name) => of("service", name),
        }
    }
}

/// The role that `admin` stands for.
const ADMIN: &str = "admin";

impl TryFrom<WhoForm> for Who {
    type Error = String;

    fn try_from(form: WhoForm) -> Result<Self, String> {
        match form {
            WhoForm::Of(RoleForm { role }) if !role.is_empty() && role.len() <= 100 => Ok(Who::Role(role)),
            WhoForm::Of(_) => Err("a role has 1 to 100 bytes".to_owned()),
            WhoForm::Named(name) => match name.as_str() {
                "public" => Ok(Who::Public),
                "signed_in" => Ok(Who::SignedIn),
                "service" => Ok(Who::Service),
                ADMIN => Ok(Who::Role(name)),
                _ => Err("who may is \"public\", \"signed_in\", \"admin\", \"service\" or {\"role\": name}"
                    .to_owned()),
            },
        }
    }
}

impl From<Who> for WhoForm {
    fn from(who: Who) -> Self {
        match who {
            Who::Public => WhoForm::Named("public".to_owned()),
            Who::SignedIn => WhoForm::Named("signed_in".to_owned()),
            Who::Service => WhoForm::Named("service".to_owned()),
            Who::Role(role) if role == ADMIN => WhoForm::Named(role),
            Who::Role(role) => WhoForm::Of(RoleForm { role }),
        }
    }
}

impl Verb {
    /// All of them.
    pub(super) const ALL: [Verb; 6] =
        [Verb::Get, Verb::Head, Verb::Post, Verb::Put, Verb::Patch, Verb::Delete];

    /// As requests write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        }
    }
}

impl Window {
    /// How many seconds it has.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Window::Second => 1,
            Window::Minute => 60,
            Window::Hour => 3_600,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Window::Second => "second",
            Window::Minute => "minute",
            Window::Hour => "hour",
        }
    }
}

impl By {
    /// The name in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            By::Ip => "ip",
            By::User => "user",
            By::Route => "route",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Site => f.write_str("site"),
            Target::Bucket(name) => write!(f, "bucket {name}"),
            Target::Table(name) => write!(f, "table {name}"),
            Target::Function(name) => write!(f, "function {name}"),
            Target::Service(name) => write!(f, "service {name}"),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Public => f.write_str("public"),
            Who::SignedIn => f.write_str("signed_in"),
            Who::Service => f.write_str("service"),
            Who::Role(role) => write!(f, "role {role}"),
        }
    }
}

impl fmt::Display for LimitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} per {}", self.requests, self.per.as_str(), self.by.as_str())
    }
}

/// In one line, what is usual left out.
impl fmt::Display for RouteSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to)?;
        if let Some(rewrite) = &self.rewrite {
            write!(f, " {rewrite}")?;
        }
        write!(f, ", {}", self.auth)?;
        let listed =
            |verbs: &BTreeSet<Verb>| verbs.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(" ");
        if let Some(methods) = &self.methods {
            write!(f, ", {}", listed(methods))?;
        }
        if let Some(cors) = &self.cors {
            write!(f, ", pages of {}", cors.origins.join(" "))?;
            if let Some(methods) = &cors.methods {
                write!(f, " by {}", listed(methods))?;
            }
            if let Some(headers) = &cors.headers {
                write!(f, " with {}", headers.join(" "))?;
            }
            f.write_str(if cors.credentials { " with credentials" } else { "" })?;
        }
        if let Some(limit) = &self.limit {
            write!(f, ", {limit}")?;
        }
        if let Some(bytes) = self.max_body {
            write!(f, ", bodies of {bytes} bytes")?;
        }
        if let Some(seconds) = self.timeout {
            write!(f, ", {seconds} s")?;
        }
        Ok(())
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
