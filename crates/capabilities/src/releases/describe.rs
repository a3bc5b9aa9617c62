//! What an environment holds, in few words.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use kernel::{Env, Result, Timestamp};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Releases;
use super::advice::advice;
use super::auth_spec::AuthSpec;
use super::buckets;
use super::declared::words;
use super::described_service::ServiceInfo;
use super::keeping::{BackupSpec, LifecycleSpec, Period};
use super::manifest::{Kind, Table};
use super::rehearsal::Release;
use super::schedules::ScheduleInfo;
use crate::access::AccessSpec;
use crate::auth::{Auth, Custom};
use crate::database::Table as LiveTable;
use crate::functions::{Access, Function, FunctionName, Runs, Runtime, Settings};
use crate::hosting::SitePath;
use crate::realtime::RealtimeSpec;
use crate::rows::{Method, Mfa, PhoneAdapter, SignUp, Theme};

/// How many releases are listed.
const RELEASES: u32 = 5;

/// An environment's app as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Description {
    /// The app's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The release that is current; none before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
    /// The latest releases, newest first.
    pub releases: Vec<ReleaseInfo>,
    /// Table name → table.
    pub tables: IndexMap<String, TableInfo>,
    /// Bucket name → bucket.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub buckets: IndexMap<String, BucketInfo>,
    /// Migrations that have run, in order.
    pub migrations: Vec<String>,
    /// The site, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteInfo>,
    /// Function name → function.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub functions: IndexMap<String, FunctionInfo>,
    /// Schedule name → schedule.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub schedules: IndexMap<String, ScheduleInfo>,
    /// Service name → service.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub services: IndexMap<String, ServiceInfo>,
    /// Names of the variables that all functions and services get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// How people sign in, where the app says so or has users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthInfo>,
    /// Channels, and who may join them and send there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realtime: Option<RealtimeSpec>,
    /// When it is backed up, and how that goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupInfo>,
    /// When what is old goes, where the app says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleSpec>,
    /// Pattern of a path → what answers there, for whom, how often.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub routes: IndexMap<String, String>,
    /// What to look at next.
    pub advice: Vec<String>,
}

/// Sign-in.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct AuthInfo {
    /// Ways to sign in that are on.
    pub methods: BTreeSet<Method>,
    /// Other origins whose pages may call the app.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Who may make an account, where not everybody may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signup: Option<SignUp>,
    /// Whether an address must be confirmed by mail before it opens a session.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Second factors, where there may be some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfa: Option<Mfa>,
    /// Other addresses that links in mails may lead on to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<String>,
    /// How many users there are, counted up to 100,000.
    pub users: u64,
    /// How many mails are in the outbox, where no mail server is set: `auth_users` with `mails` shows them.
    #[serde(skip_serializing_if = "is_zero")]
    pub mails: u64,
    /// Who sends texts to phones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneAdapter>,
    /// The tokens of the app's own server that are taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
    /// How the sign-in page looks, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theme: Option<Theme>,
    /// Those whose word on who people are is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// The address to register with each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// What pages of those origins pass to createClient; may be public.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishable_key: Option<String>,
}

/// Backups of the whole environment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct BackupInfo {
    /// How often there is to be one; none by itself where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<Period>,
    /// How many are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<u32>,
    /// None is older but the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Period>,
    /// When the newest was made; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    /// How many there are; left out where the store of backups does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub there: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// One release.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ReleaseInfo {
    /// Its number.
    pub release: u64,
    /// When it was made.
    pub created_at: String,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TableInfo {
    /// Column → its short form, as a manifest writes it.
    pub columns: IndexMap<String, String>,
    /// How many rows it has, counted up to 100,000.
    pub rows: u64,
    /// Its access: a preset's name, or expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// Columns that are searched for words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Columns that are indexed; `!` where they are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<String>,
    /// Whether no manifest made it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BucketInfo {
    /// Its access: a preset's name, or expressions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// How many files are in it.
    pub files: u64,
    /// How many bytes they have together.
    pub bytes: u64,
    /// The largest file, in bytes.
    pub max_size: u64,
    /// Content types that files may have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Whether no release has it: its files are kept from an earlier one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unmanaged: bool,
}

/// The site.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SiteInfo {
    /// How many files.
    pub files: usize,
    /// How many bytes they have together.
    pub bytes: u64,
    /// Their paths.
    pub paths: Vec<String>,
    /// Whether unknown paths get index.html.
    pub spa: bool,
}

/// One function.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FunctionInfo {
    /// The same as long as the same code runs on the same runtime.
    pub version: String,
    /// What it runs on.
    pub runtime: Runtime,
    /// Who may ask it at its path.
    pub access: Access,
    /// Its own path below the app's URL.
    pub path: String,
    /// The file that exports the handlers, where it was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// Paths of its files.
    pub files: Vec<String>,
    /// Names of its own variables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Names of the secrets that it gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Memory of one process, where it is not 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Seconds until its answer must have begun, where they are not 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Requests that one process works on at once, where they are not 50.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Processes at once, where they are not 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_instances: Option<u32>,
    /// What it is told of when it has happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// How many of its events it was not told of yet.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u64,
    /// The last event that it was told of in vain, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl FunctionInfo {
    /// What may be long.
    pub fn lists_mut(&mut self) -> [&mut Vec<String>; 4] {
        [&mut self.files, &mut self.variables, &mut self.secrets, &mut self.events]
    }

    fn of(name: &FunctionName, function: &Function, runtime: Runtime, entry: Option<&SitePath>) -> Self {
        let Settings { access, variables, secrets, memory_mb, timeout_s, concurrency, max_instances, .. } =
            function.settings.clone();
        Self {
            version: function.version(),
            runtime,
            access,
            path: function.path(name),
            entry: entry.map(ToString::to_string),
            files: function.sources.files.keys().map(ToString::to_string).collect(),
            variables: variables.into_keys().collect(),
            secrets,
            memory_mb,
            timeout_s,
            concurrency,
            max_instances,
            events: function.settings.events.iter().map(ToString::to_string).collect(),
            waiting: 0,
            failed: None,
        }
    }
}

impl Releases {
    /// Describes the environment.
    ///
    /// # Errors
    /// The environment's database cannot be read.
    pub async fn describe(&self, env: &Env) -> Result<Description> {
        let read = |sql: &'static str| self.databases.platform_query(env, sql, &[]);
        let current = read(Release::CURRENT).await?.into_iter().next().map(Release::read).transpose()?;
        let latest = "SELECT number, created_at FROM _steading_release ORDER BY number DESC LIMIT ?1";
        let latest = self.databases.platform_query(env, latest, &[RELEASES.into()]).await?;
        let migrations = read("SELECT name FROM _steading_migration ORDER BY applied_at, rowid").await?;
        let schema = self.databases.schema(env).await?;

        let current = current.unwrap_or_default();
        let current_app = current.app().unwrap_or_default();
        let database = current.manifest.database.clone().unwrap_or_default();
        let managed: BTreeMap<String, Table> =
            database.tables().unwrap_or_default().into_iter().map(|t| (t.name.folded(), t)).collect();
        let mut tables = IndexMap::new();
        for live in &schema.tables {
            let spec =
                database.tables.iter().find(|(name, _)| name.as_str().eq_ignore_ascii_case(&live.name));
            let mut info = table_info(live, managed.get(&live.name.to_ascii_lowercase()));
            info.access = spec.and_then(|(_, spec)| spec.access.clone());
            if spec.is_some_and(|(_, spec)| spec.kind == Kind::Documents) {
                info.columns.insert("data".to_owned(), "json! (one document)".to_owned());
            }
            tables.insert(live.name.clone(), info);
        }
        let buckets = buckets::describe(&current, &read(buckets::HELD).await?);
        let site = current.site.as_ref().map(|site| SiteInfo {
            files: site.files.len(),
            bytes: site.bytes(),
            paths: site.files.keys().map(ToString::to_string).collect(),
            spa: site.spa,
        });
        let (mut functions, mut services) = (IndexMap::new(), IndexMap::new());
        for (name, it) in &current.functions {
            match &it.sources.runs {
                Runs::Function { runtime, entry } => {
                    let info = FunctionInfo::of(name, it, *runtime, entry.as_ref());
                    functions.insert(name.to_string(), info);
                }
                Runs::Service { service } => {
                    services.insert(name.to_string(), ServiceInfo::of(name, it, service));
                }
            }
        }
        self.waiting(env, &mut functions).await?;
        let schedules = self.scheduled(env).await?.described();
        let (users, mails) = Auth::count(&self.databases, env).await?;
        let auth = current.manifest.auth.clone();
        let auth = (auth.is_some() || users > 0).then(|| {
            let AuthSpec {
                methods,
                origins,
                signup,
                confirm,
                mfa,
                phone,
                redirects,
                theme,
                providers,
                custom,
            } = auth.unwrap_or_default();
            let theme = Some(theme).filter(|theme| *theme != Theme::default());
            let providers = providers.into_keys().collect();
            let signup = Some(signup).filter(|signup| *signup != SignUp::Open);
            let mfa = Some(mfa).filter(|mfa| *mfa != Mfa::Off);
            AuthInfo {
                methods,
                origins,
                signup,
                confirm,
                mfa,
                redirects,
                users,
                mails,
                phone,
                custom,
                theme,
                providers,
                callback: None,
                publishable_key: None,
            }
        });
        let mut description = Description {
            name: current.manifest.name,
            release: (current.number > 0).then_some(current.number),
            releases: latest.into_iter().filter_map(release_info).collect(),
            tables,
            buckets,
            migrations: migrations.iter().filter_map(|r| r.first()?.as_str().map(str::to_owned)).collect(),
            site,
            functions,
            services,
            schedules,
            variables: current.manifest.variables.unwrap_or_default().into_keys().collect(),
            auth,
            realtime: current.manifest.realtime,
            backups: current.manifest.backups.map(|BackupSpec { every, keep, age }| BackupInfo {
                every,
                keep,
                age,
                ..BackupInfo::default()
            }),
            lifecycle: current.manifest.lifecycle,
            routes: current
                .manifest
                .routes
                .iter()
                .flatten()
                .map(|(pattern, route)| (pattern.clone(), route.to_string()))
                .collect(),
            advice: Vec::new(),
        };
        description.advice = advice(&description, &schema, &current_app);
        Ok(description)
    }
}

fn release_info(row: Vec<Value>) -> Option<ReleaseInfo> {
    let created_at = Timestamp::from_micros(row.get(1)?.as_i64()?).to_string();
    Some(ReleaseInfo { release: row.first()?.as_u64()?, created_at })
}

fn table_info(live: &LiveTable, managed: Option<&Table>) -> TableInfo {
    let mut columns = IndexMap::new();
    for column in &live.columns {
        let folded = column.name.to_ascii_lowercase();
        if managed.is_some() && matches!(folded.as_str(), "id" | "created_at" | "updated_at") {
            continue;
        }
        let spec = managed.and_then(|t| t.columns.iter().find(|c| c.name.folded() == folded));
        let short = spec.map_or_else(
            || format!("{}{}", column.kind.to_ascii_lowercase(), if column.not_null { "!" } else { "" }),
            words,
        );
        columns.insert(column.name.clone(), short);
    }
    let indexes = live
        .indexes
        .iter()
        .filter(|index| index.sql.is_some())
        .map(|index| {
            let part = index.name.strip_prefix(live.name.as_str()).and_then(|name| name.strip_prefix('.'));
            let part = part.and_then(|name| name.strip_suffix(".path")).unwrap_or("(expression)");
            let columns: Vec<_> = index.columns.iter().map(|c| c.as_deref().unwrap_or(part)).collect();
            format!("{}{}", columns.join(","), if index.unique { "!" } else { "" })
        })
        .collect();
    let search = managed.iter().flat_map(|table| &table.search).map(ToString::to_string).collect();
    TableInfo { columns, rows: live.rows, access: None, search, indexes, unmanaged: managed.is_none() }
}
