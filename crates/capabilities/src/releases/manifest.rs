//! The manifest: what an app consists of, as `steading.json` or inline in a call.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::auth_spec::AuthSpec;
use super::column::{Column, ColumnSpec, Type};
use super::keeping::{BackupSpec, LifecycleSpec};
use super::names::{ColumnName, JsonPath, TableName};
use crate::access::{AccessSpec, Expr, Rules, TestSpec};
use crate::functions::{FunctionName, FunctionSpec, ServiceSpec};
use crate::hosting::SiteSpec;
use crate::realtime::RealtimeSpec;
use crate::routes::RoutesSpec;
use crate::rows::TableModel;
use crate::schedules::Schedules;
use crate::storage::StorageSpec;

/// An app. A section that is left out stays as it is; an empty one is emptied.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The app's name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Tables and migrations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseSpec>,
    /// How people sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,
    /// Buckets of files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageSpec>,
    /// Channels, where clients talk to each other at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime: Option<RealtimeSpec>,
    /// The static site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<SiteSpec>,
    /// Name → function: code that answers requests at /_/fn/{name}, and where `routes` lead to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<BTreeMap<FunctionName, FunctionSpec>>,
    /// Name → service: a command of any language that listens at $PORT and answers at /_/svc/{name}, and where `routes` lead to
    /// it. No function has the name of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<BTreeMap<FunctionName, ServiceSpec>>,
    /// Variables that all functions and services get, as `env.NAME`; what is not to be read belongs into secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<BTreeMap<String, String>>,
    /// Name → schedule: when a function is asked without anybody asking.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedules: Option<Schedules>,
    /// Pattern of a path → what answers there, for whom, and how often: `/api/todos/*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RoutesSpec>,
    /// Domains of the app's own: `shop.example.com`. Each answers once domain_check has found its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domains: Option<Vec<String>>,
    /// Names of secrets that must have been set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Vec<String>>,
    /// Copies of everything, made by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<BackupSpec>,
    /// When what is old goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleSpec>,
    /// Who may do what, tried before a release is switched to: one that fails refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests: Option<Vec<TestSpec>>,
}

/// The manifest's `database`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseSpec {
    /// Table name → table. Each has `id`, `created_at` and `updated_at` by itself.
    #[serde(default)]
    pub tables: BTreeMap<TableName, TableSpec>,
    /// SQL that runs once each, after the tables are in place; known again by its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrations: Vec<MigrationSpec>,
}

/// One migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationSpec {
    /// A name for people.
    pub name: String,
    /// The statements.
    pub sql: String,
}

/// One table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableSpec {
    /// Column name → `type`, `type!` (required), `type = default`, or an object. Types: text int real bool json
    /// blob timestamp ref:<table>.
    #[serde(default)]
    #[schemars(with = "BTreeMap<ColumnName, ColumnSpec>")]
    pub columns: IndexMap<ColumnName, ColumnSpec>,
    /// Who may do what: private public_read admin_write admin_only, or an object of expressions for list get create
    /// update delete; nobody where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// Columns, or lists of columns, to index; `data.address.city` for a part of a json column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub indexes: Vec<Columns>,
    /// Columns, or lists of columns, whose values must differ from row to row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unique: Vec<Columns>,
    /// Columns of text that `search` looks through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<ColumnName>,
    /// `table`, or `documents`: a table of JSON objects in one column `data`.
    #[serde(default, skip_serializing_if = "Kind::is_table")]
    pub kind: Kind,
}

/// What kind of table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Typed columns.
    #[default]
    Table,
    /// One JSON object per row.
    Documents,
}

impl Kind {
    fn is_table(&self) -> bool {
        *self == Kind::Table
    }
}

/// One column's name, or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected the name of a column, or a list of names: a letter, then letters, digits and _"
)]
pub enum Columns {
    /// One.
    One(ColumnName),
    /// A part of a JSON column.
    Path(JsonPath),
    /// Several, in order.
    Many(Vec<ColumnName>),
}

impl Columns {
    pub(crate) fn names(&self) -> &[ColumnName] {
        match self {
            Columns::One(name) => std::slice::from_ref(name),
            Columns::Path(_) => &[],
            Columns::Many(names) => names,
        }
    }
}

/// A table as it shall be: everything spelled out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub name: TableName,
    pub access: Option<AccessSpec>,
    /// What `access` says.
    pub rules: Rules,
    pub has_owner: bool,
    /// The app's own columns, in the manifest's order.
    pub columns: Vec<Column>,
    /// (columns, unique)
    pub indexes: Vec<(Vec<ColumnName>, bool)>,
    /// Parts of JSON columns that are indexed.
    pub paths: Vec<JsonPath>,
    /// The columns that are searched for words.
    pub search: Vec<ColumnName>,
}

/// Columns that every table has by itself.
pub(crate) const BUILT_IN: [&str; 4] = ["id", "owner", "created_at", "updated_at"];

impl DatabaseSpec {
    /// Every table spelled out, those that others refer to as they come; or the first thing that is wrong, with
    /// its place below `/database`.
    pub(crate) fn tables(&self) -> Result<Vec<Table>> {
        let mut seen = BTreeMap::new();
        for name in self.tables.keys() {
            if let Some(other) = seen.insert(name.folded(), name) {
                let message = format!("the tables {other} and {name} differ only in upper and lower case");
                return Err(Error::invalid(format!("/tables/{name}"), message));
            }
        }
        let tables = self.tables.iter();
        let tables = tables
            .map(|(name, spec)| self.table(name, spec).map_err(|e| e.under(&format!("/tables/{name}"))));
        let mut tables: Vec<Table> = tables.collect::<Result<_>>()?;
        // A rule may look into any of them.
        let models: Vec<TableModel> = tables.iter().map(Table::model).collect();
        for (table, model) in tables.iter_mut().zip(&models) {
            let Some(access) = &table.access else { continue };
            let at = format!("/tables/{}/access", table.name);
            table.rules = access.rules(model, &models).map_err(|e| e.under(&at))?;
        }
        Ok(tables)
    }

    /// Refuses what only releases of earlier programs may say; after [`DatabaseSpec::tables`].
    pub(crate) fn well_written(&self, tables: &[Table]) -> Result<()> {
        for table in tables {
            let specs = self.tables.get(&table.name).map(|spec| &spec.columns);
            for column in &table.columns {
                let Some(spec) = specs.and_then(|specs| specs.get(&column.name)) else { continue };
                let at = format!("/tables/{}/columns/{}", table.name, column.name);
                column.well_written(spec).map_err(|e| e.under(&at))?;
            }
        }
        Ok(())
    }

    fn table(&self, name: &TableName, spec: &TableSpec) -> Result<Table> {
        let mut columns = Vec::new();
        if spec.kind == Kind::Documents {
            if !spec.columns.is_empty() {
                let message = "a table of documents has no columns of its own: its rows are in `data`";
                return Err(Error::invalid("/columns", message));
            }
            columns.push(Column::document());
        }
        for (column, column_spec) in &spec.columns {
            let at = format!("/columns/{column}");
            if BUILT_IN.contains(&column.folded().as_str()) {
                let message = format!("every table that needs it has {column} by itself");
                return Err(Error::invalid(at, message).hint("leave the column out"));
            }
            if columns.iter().any(|c: &Column| c.name.folded() == column.folded()) {
                return Err(Error::invalid(at, "another column differs only in upper and lower case"));
            }
            let column = Column::parse(column, column_spec).map_err(|e| e.under(&at))?;
            if let Some(target) = column.references.as_ref().filter(|t| !self.tables.contains_key(*t)) {
                let message = format!("it refers to {target}, which is not among the tables");
                let hint = match target.folded().as_str() {
                    "user" | "users" => {
                        "the app's users are in no table: write text for a user's id; who makes a row is its owner"
                            .to_owned()
                    }
                    _ => format!("give the table {target} too, or write text"),
                };
                return Err(Error::invalid(at, message).hint(hint));
            }
            columns.push(column);
        }
        let mut table = Table {
            name: name.clone(),
            access: spec.access.clone(),
            rules: Rules::default(),
            has_owner: spec.access.as_ref().is_some_and(AccessSpec::has_owner),
            columns,
            indexes: Vec::new(),
            paths: Vec::new(),
            search: spec.search.clone(),
        };
        table.indexes = table.all_indexes(spec)?;
        table.paths = table.all_paths(spec)?;
        table.searchable()?;
        let model = table.model();
        for column in &mut table.columns {
            let Some(check) = &mut column.check else { continue };
            let at = format!("/columns/{}/check", column.name);
            check.sql = Expr::parse_check(&check.said, &model).map_err(|e| e.under(&at))?.check_sql(&model);
        }
        Ok(table)
    }
}

impl Table {
    fn all_indexes(&self, spec: &TableSpec) -> Result<Vec<(Vec<ColumnName>, bool)>> {
        let mut indexes: Vec<(Vec<ColumnName>, bool)> = Vec::new();
        // An index finds rows by its first columns, too; a second one for them would only cost every write.
        let mut add = |columns: Vec<ColumnName>, unique: bool| {
            let serves = |(have, is_unique): &(Vec<ColumnName>, bool)| {
                if unique { *is_unique && *have == columns } else { have.starts_with(&columns) }
            };
            if !indexes.iter().any(serves) {
                indexes.push((columns, unique));
            }
        };
        for (list, field, unique) in [(&spec.unique, "unique", true), (&spec.indexes, "indexes", false)] {
            for (i, columns) in list.iter().enumerate() {
                let known = |c: &&ColumnName| match c.folded().as_str() {
                    "owner" => self.has_owner,
                    folded => BUILT_IN.contains(&folded) || self.columns.iter().any(|own| own.name == **c),
                };
                if let Some(unknown) = columns.names().iter().find(|c| !known(c)) {
                    let message = format!("there is no column {unknown} in {}", self.name);
                    let error = Error::invalid(format!("/{field}/{i}"), message);
                    return Err(match unknown.folded().as_str() {
                        "owner" => error.hint(
                            "rows have an owner where access is private or public_read, or mentions row.owner; \
                             else take it out of `indexes`",
                        ),
                        _ => error,
                    });
                }
                if matches!(columns, Columns::Path(_)) {
                    if unique {
                        let message = "a part of a json column cannot be unique";
                        return Err(Error::invalid(format!("/{field}/{i}"), message)
                            .hint("give it a column of its own"));
                    }
                    continue;
                }
                if columns.names().is_empty() {
                    return Err(Error::invalid(format!("/{field}/{i}"), "name at least one column"));
                }
                add(columns.names().to_vec(), unique);
            }
        }
        for column in &self.columns {
            if column.unique {
                add(vec![column.name.clone()], true);
            }
            if column.references.is_some() {
                add(vec![column.name.clone()], false);
            }
        }
        if self.has_owner {
            add(vec![ColumnName::owner()], false);
        }
        Ok(indexes)
    }
}

impl Table {
    fn all_paths(&self, spec: &TableSpec) -> Result<Vec<JsonPath>> {
        let mut paths: Vec<JsonPath> = Vec::new();
        for (i, columns) in spec.indexes.iter().enumerate() {
            let Columns::Path(path) = columns else { continue };
            if !self.columns.iter().any(|column| column.name == *path.column() && column.kind == Type::Json) {
                let message = format!("there is no json column {} in {}", path.column(), self.name);
                return Err(Error::invalid(format!("/indexes/{i}"), message));
            }
            if !paths.contains(path) {
                paths.push(path.clone());
            }
        }
        Ok(paths)
    }

    /// Refuses columns that cannot be searched for words, or not without telling what nobody is shown.
    fn searchable(&self) -> Result<()> {
        for (i, name) in self.search.iter().enumerate() {
            let wrong = |message: String| Err(Error::invalid(format!("/search/{i}"), message));
            match self.columns.iter().find(|column| column.name == *name) {
                None => return wrong(format!("there is no column {name} in {}", self.name)),
                Some(column) if column.kind != Type::Text || column.references.is_some() => {
                    return wrong(format!("{name} is no text"));
                }
                Some(column) if column.hidden => {
                    return wrong(format!("{name} is hidden, and a search would tell what is in it"));
                }
                Some(_) if self.search[..i].contains(name) => return wrong(format!("{name} is named twice")),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

impl Manifest {
    /// This manifest over `base`: the sections it names replace those of `base`.
    #[must_use]
    pub fn over(self, base: &Manifest) -> Manifest {
        Manifest {
            name: self.name.or_else(|| base.name.clone()),
            database: self.database.or_else(|| base.database.clone()),
            auth: self.auth.or_else(|| base.auth.clone()),
            storage: self.storage.or_else(|| base.storage.clone()),
            realtime: self.realtime.or_else(|| base.realtime.clone()),
            site: self.site.or_else(|| base.site.clone()),
            functions: self.functions.or_else(|| base.functions.clone()),
            services: self.services.or_else(|| base.services.clone()),
            variables: self.variables.or_else(|| base.variables.clone()),
            schedules: self.schedules.or_else(|| base.schedules.clone()),
            routes: self.routes.or_else(|| base.routes.clone()),
            domains: self.domains.or_else(|| base.domains.clone()),
            secrets: self.secrets.or_else(|| base.secrets.clone()),
            backups: self.backups.or_else(|| base.backups.clone()),
            lifecycle: self.lifecycle.or_else(|| base.lifecycle.clone()),
            tests: self.tests.or_else(|| base.tests.clone()),
        }
    }
}
