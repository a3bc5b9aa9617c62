//! The parts of a description, cut to what a model can pay: all in few words, or one whole, page by page.

use std::collections::BTreeMap;

use capabilities::access::AccessSpec;
use capabilities::domains::DomainInfo;
use capabilities::realtime::RealtimeSpec;
use capabilities::releases::{Description, TableInfo};
use capabilities::snapshots::Snapshot;
use kernel::{Error, Result};
use serde::{Deserialize, Serialize};
use tool::budget;

use super::outcome::shorten;

/// What tables may cost in an overview, in tokens, what functions and advice may, routes and buckets each, and what is only
/// named.
const TABLES: usize = 1_500;
const FUNCTIONS: usize = 400;
const ADVICE: usize = 600;
const LISTS: usize = 250;
const NAMES: usize = 70;

/// What one page of a section may cost, and one thing on it.
const PAGE: usize = 3_300;
const ITEM: usize = 1_500;

/// How many characters of a rule, a note and a piece of advice are shown.
const RULE: usize = 300;
const NOTE: usize = 100;
const WORDS: usize = 3_000;

/// How many releases are shown beside a section.
const RELEASES: usize = 5;

/// What can be asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Section {
    Tables,
    Buckets,
    Functions,
    Services,
    Schedules,
    Routes,
    Channels,
    Domains,
    Advice,
    Secrets,
    Migrations,
    Snapshots,
    Paths,
}

/// All of a description.
#[derive(Default)]
pub struct Parts {
    pub app: Description,
    pub snapshots: Vec<Snapshot>,
    pub secrets: Vec<String>,
    /// Those of `secrets` that are bound to hosts.
    pub bound_secrets: Vec<String>,
    pub domains: Vec<DomainInfo>,
}

/// What of it is shown.
#[derive(Default)]
pub struct Shown {
    pub parts: Parts,
    pub section: Option<Section>,
    pub outline: BTreeMap<String, String>,
    pub omitted: Vec<String>,
    pub cursor: Option<String>,
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Section::Tables => "tables",
            Section::Buckets => "buckets",
            Section::Functions => "functions",
            Section::Services => "services",
            Section::Schedules => "schedules",
            Section::Routes => "routes",
            Section::Channels => "channels",
            Section::Domains => "domains",
            Section::Advice => "advice",
            Section::Secrets => "secrets",
            Section::Migrations => "migrations",
            Section::Snapshots => "snapshots",
            Section::Paths => "paths",
        }
    }
}

impl Parts {
    /// All of it in few words.
    pub fn overview(mut self) -> Shown {
        let mut omitted = Vec::new();
        self.narrow();
        let outline = self.outline(&mut omitted);
        let mut cut = Cut { omitted: &mut omitted };
        let app = &mut self.app;
        if let Some(custom) = app.auth.as_mut().and_then(|auth| auth.custom.as_mut()) {
            let (kept, left) = budget::fit(std::mem::take(&mut custom.keys), LISTS);
            custom.keys = kept;
            if left > 0 {
                cut.omitted.push(format!("{left} keys of auth.custom"));
            }
        }
        cut.map(&mut app.buckets, LISTS, Section::Buckets);
        for function in app.functions.values_mut() {
            function.lists_mut().into_iter().for_each(|list| few(list, NAMES / 2));
            function.failed.iter_mut().for_each(|failed| shorten(failed, NOTE));
        }
        cut.map(&mut app.functions, FUNCTIONS, Section::Functions);
        for service in app.services.values_mut() {
            service.lists_mut().into_iter().for_each(|list| few(list, NAMES / 2));
        }
        cut.map(&mut app.services, FUNCTIONS, Section::Services);
        cut.map(&mut app.schedules, FUNCTIONS, Section::Schedules);
        few(&mut app.variables, NAMES);
        cut.map(&mut app.routes, LISTS, Section::Routes);
        if let Some(realtime) = &mut app.realtime {
            cut.map(&mut realtime.channels, NAMES, Section::Channels);
        }
        cut.list(&mut self.domains, NAMES, Section::Domains);
        cut.list(&mut app.advice, ADVICE, Section::Advice);
        cut.list(&mut self.secrets, NAMES, Section::Secrets);
        self.bound_secrets.retain(|name| self.secrets.contains(name));
        // The latest are the ones that matter.
        app.migrations.reverse();
        cut.list(&mut app.migrations, NAMES, Section::Migrations);
        app.migrations.reverse();
        cut.list(&mut self.snapshots, LISTS, Section::Snapshots);
        if let Some(site) = &mut app.site {
            cut.list(&mut site.paths, NAMES, Section::Paths);
        }
        Shown { parts: self, outline, omitted, ..Shown::default() }
    }

    /// The tables in few words, where they do not fit as they are: with the names of their columns where these fit.
    fn outline(&mut self, omitted: &mut Vec<String>) -> BTreeMap<String, String> {
        let tables: Vec<_> = self.app.tables.iter().collect();
        if budget::fit(tables, TABLES).1 == 0 {
            return BTreeMap::new();
        }
        let tables = std::mem::take(&mut self.app.tables);
        let count = tables.len();
        let said = |words: fn(&TableInfo) -> String| -> Vec<(String, String)> {
            tables.iter().map(|(name, table)| (name.clone(), words(table))).collect()
        };
        let (mut outline, mut left) = budget::fit(said(with_names), TABLES);
        if left > 0 {
            (outline, left) = budget::fit(said(with_numbers), TABLES);
        }
        let more = if left > 0 { format!(", {left} of them not even named") } else { String::new() };
        omitted.push(format!("columns of {count} tables{more}: section tables"));
        outline.into_iter().collect()
    }

    /// One table, whole.
    pub fn table(mut self, name: &str) -> Result<Shown> {
        self.narrow();
        let found = self.app.tables.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let Some((name, table)) = found else {
            return Err(Error::not_found(format!("table {name}")).field("/table"));
        };
        let mut shown = Shown { section: Some(Section::Tables), ..Shown::default() };
        shown.parts.app.tables.insert(name, table);
        Ok(shown)
    }

    /// One part, from where the page before ended.
    pub fn section(mut self, section: Section, cursor: Option<&str>) -> Result<Shown> {
        let from = cursor.map_or(Ok(0), |cursor| {
            let no_cursor = || Error::invalid("/cursor", "this is no cursor of app_describe");
            cursor.parse::<usize>().map_err(|_| no_cursor())
        })?;
        self.narrow();
        let Parts { app, snapshots, secrets, mut bound_secrets, domains } = self;
        let mut shown = Shown { section: Some(section), ..Shown::default() };
        let (parts, next) = (&mut shown.parts, &mut shown.cursor);
        parts.app.name = app.name;
        parts.app.release = app.release;
        parts.app.releases = app.releases.into_iter().take(RELEASES).collect();
        match section {
            Section::Tables => {
                // Their order does not depend on who was made first.
                let mut tables: Vec<_> = app.tables.into_iter().collect();
                tables.sort_by(|(a, _), (b, _)| a.cmp(b));
                parts.app.tables = page(tables, from, next);
            }
            Section::Buckets => parts.app.buckets = page(app.buckets, from, next),
            Section::Functions => parts.app.functions = page(app.functions, from, next),
            Section::Services => parts.app.services = page(app.services, from, next),
            Section::Schedules => parts.app.schedules = page(app.schedules, from, next),
            Section::Routes => parts.app.routes = page(app.routes, from, next),
            Section::Channels => {
                let channels = app.realtime.map(|it| it.channels).unwrap_or_default();
                parts.app.realtime = Some(RealtimeSpec { channels: page(channels, from, next) });
            }
            Section::Domains => parts.domains = page(domains, from, next),
            Section::Advice => parts.app.advice = page(app.advice, from, next),
            Section::Secrets => {
                // Each may be there twice.
                parts.secrets = page_of(secrets, from, PAGE / 2, next);
                bound_secrets.retain(|name| parts.secrets.contains(name));
                parts.bound_secrets = bound_secrets;
            }
            Section::Migrations => parts.app.migrations = page(app.migrations, from, next),
            Section::Snapshots => parts.snapshots = page(snapshots, from, next),
            Section::Paths => {
                parts.app.site = app.site.map(|mut site| {
                    site.paths = page(std::mem::take(&mut site.paths), from, next);
                    site
                });
            }
        }
        Ok(shown)
    }

    /// Cuts each thing that would not fit on a page by itself, and says so where it was cut.
    fn narrow(&mut self) {
        self.app.tables.values_mut().for_each(narrow);
        for function in self.app.functions.values_mut() {
            function.lists_mut().into_iter().for_each(|list| few(list, ITEM / 3));
            function.failed.iter_mut().for_each(|failed| shorten(failed, WORDS / 3));
        }
        for service in self.app.services.values_mut() {
            service.lists_mut().into_iter().for_each(|list| few(list, ITEM / 3));
        }
        for last in self.app.schedules.values_mut().filter_map(|it| it.last.as_mut()) {
            shorten(last, WORDS);
        }
        for access in self.app.buckets.values_mut().filter_map(|bucket| bucket.access.as_mut()) {
            rules(access);
        }
        for channel in self.app.realtime.iter_mut().flat_map(|realtime| realtime.channels.values_mut()) {
            [&mut channel.join, &mut channel.send].into_iter().flatten().for_each(|rule| shorten(rule, RULE));
        }
        self.snapshots.iter_mut().filter_map(|it| it.note.as_mut()).for_each(|note| shorten(note, NOTE));
        self.app.routes.values_mut().for_each(|route| shorten(route, WORDS));
        self.app.advice.iter_mut().for_each(|words| shorten(words, WORDS));
        self.app.migrations.iter_mut().for_each(|name| shorten(name, RULE));
    }
}

/// What an overview leaves out.
struct Cut<'a> {
    omitted: &'a mut Vec<String>,
}

impl Cut<'_> {
    fn list<T: Serialize>(&mut self, items: &mut Vec<T>, tokens: usize, section: Section) {
        let (kept, left) = budget::fit(std::mem::take(items), tokens);
        *items = kept;
        if left > 0 {
            let name = section.name();
            self.omitted.push(format!("{left} {name}: section {name}"));
        }
    }

    fn map<C, T: Serialize>(&mut self, items: &mut C, tokens: usize, section: Section)
    where
        C: Default + IntoIterator<Item = T> + FromIterator<T>,
    {
        let mut list: Vec<T> = std::mem::take(items).into_iter().collect();
        self.list(&mut list, tokens, section);
        *items = list.into_iter().collect();
    }
}

/// The items of one page, and where the next one begins.
fn page<T: Serialize, C: FromIterator<T>>(
    items: impl IntoIterator<Item = T>,
    from: usize,
    next: &mut Option<String>,
) -> C {
    page_of(items, from, PAGE, next)
}

fn page_of<T: Serialize, C: FromIterator<T>>(
    items: impl IntoIterator<Item = T>,
    from: usize,
    tokens: usize,
    next: &mut Option<String>,
) -> C {
    let (kept, left) = budget::fit(items.into_iter().skip(from).collect(), tokens);
    *next = (left > 0).then(|| (from + kept.len()).to_string());
    kept.into_iter().collect()
}

fn with_names(table: &TableInfo) -> String {
    let names: Vec<&str> = table.columns.keys().map(String::as_str).collect();
    format!("{}; {}", names.join(" "), numbers(table))
}

fn with_numbers(table: &TableInfo) -> String {
    format!("{} columns, {}", table.columns.len(), numbers(table))
}

fn numbers(table: &TableInfo) -> String {
    let access = match &table.access {
        _ if table.unmanaged => "in no manifest".to_owned(),
        None => "no access".to_owned(),
        Some(AccessSpec::Rules(_)) => "rules".to_owned(),
        Some(preset) => {
            serde_json::to_value(preset).ok().and_then(|it| Some(it.as_str()?.to_owned())).unwrap_or_default()
        }
    };
    format!("{} rows, {access}", table.rows)
}

fn rules(access: &mut AccessSpec) {
    if let AccessSpec::Rules(rules) = access {
        rules.texts_mut().for_each(|rule| shorten(rule, RULE));
    }
}

/// Cuts a table so wide that it would not fit on a page by itself.
fn narrow(table: &mut TableInfo) {
    let columns: Vec<_> = std::mem::take(&mut table.columns).into_iter().collect();
    let (kept, left) = budget::fit(columns, ITEM / 2);
    table.columns = kept.into_iter().collect();
    if left > 0 {
        table.columns.insert("…".to_owned(), format!("and {left} more: SELECT * FROM pragma_table_info(?1)"));
    }
    if let Some(access) = &mut table.access {
        rules(access);
    }
    few(&mut table.indexes, ITEM / 4);
}

/// Cuts a list where it would not fit.
fn few(list: &mut Vec<String>, tokens: usize) {
    let (kept, left) = budget::fit(std::mem::take(list), tokens);
    *list = kept;
    if left > 0 {
        list.push(format!("… and {left} more"));
    }
}
