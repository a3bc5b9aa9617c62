//! What a release is to those who serve it.

use std::sync::Arc;

use futures::future::BoxFuture;
use kernel::{Env, Result};

use super::Releases;
use super::column::{Column, Default};
use super::live::Served;
use super::manifest::Table;
use super::rehearsal::Release;
use crate::functions::Access;
use crate::rows::{App, ColumnModel, DefaultValue, LiveApps, TableModel, Type};

impl Release {
    /// What is served for this release.
    pub(crate) fn served(&self) -> Result<Arc<Served>> {
        let app = Arc::new(self.app()?);
        let functions = self.functions.iter();
        Ok(Arc::new(Served {
            release: self.number,
            site: self.site.clone().unwrap_or_default(),
            functions: functions.map(|(name, it)| (name.clone(), Arc::new(it.clone()))).collect(),
            variables: Arc::new(self.manifest.variables.clone().unwrap_or_default()),
            app,
        }))
    }

    /// The tables with their rules, and how people sign in.
    pub(crate) fn app(&self) -> Result<App> {
        let tables = self.tables()?;
        let models: Vec<TableModel> = tables.iter().map(Table::model).collect();
        let auth = self.manifest.auth.clone().unwrap_or_default().settings(self.manifest.name.clone());
        let realtime =
            self.manifest.realtime.as_ref().map(|spec| spec.rules(&models)).transpose()?.unwrap_or_default();
        let tables = tables.iter().zip(models).map(|(table, model)| (table.name.folded(), Arc::new(model)));
        let (buckets, routes) = (self.buckets()?, self.routes()?);
        let access = self.functions.iter().map(|(name, it)| (name.clone(), (it.kind(), it.settings.access)));
        let functions = access.filter(|(_, (_, access))| *access != Access::Service).collect();
        Ok(App { functions, tables: tables.collect(), buckets, auth, realtime, routes })
    }
}

impl LiveApps for Releases {
    fn app<'a>(&'a self, env: &'a Env) -> BoxFuture<'a, Result<Arc<App>>> {
        Box::pin(async move {
            let load = self.load(env, Release::CURRENT, &[]);
            let served = self.live.committed(env.id(), load).await?;
            Ok(served.map(|served| Arc::clone(&served.app)).unwrap_or_default())
        })
    }
}

impl Table {
    /// What the data plane knows of it.
    pub(crate) fn model(&self) -> TableModel {
        let mut columns = vec![built_in("id", Type::Text, Some(DefaultValue::NewId))];
        if self.has_owner {
            columns.push(built_in("owner", Type::Text, None));
        }
        let unique = |column: &Column| {
            self.indexes.iter().any(|(names, unique)| *unique && *names == [column.name.clone()])
        };
        columns.extend(self.columns.iter().map(|column| ColumnModel {
            name: column.name.to_string(),
            kind: column.kind,
            required: column.required,
            default: column.default.as_ref().map(|default| match default {
                Default::Constant(sql) => DefaultValue::Constant(sql.clone()),
                Default::Now => DefaultValue::Now,
            }),
            references: column.references.as_ref().map(ToString::to_string),
            unique: unique(column),
            built_in: false,
            hidden: column.hidden,
            immutable: column.immutable,
            check: column.check.as_ref().map(|check| check.said.clone()),
        }));
        let times = ["created_at", "updated_at"];
        columns.extend(times.map(|name| built_in(name, Type::Timestamp, Some(DefaultValue::Now))));
        let unique = self.indexes.iter().filter(|(_, unique)| *unique);
        TableModel {
            name: self.name.to_string(),
            columns,
            access: self.rules.clone(),
            unique: unique.map(|(names, _)| names.iter().map(ToString::to_string).collect()).collect(),
            paths: self.paths.iter().map(ToString::to_string).collect(),
            searched: !self.search.is_empty(),
        }
    }
}

fn built_in(name: &str, kind: Type, default: Option<DefaultValue>) -> ColumnModel {
    ColumnModel {
        name: name.to_owned(),
        kind,
        required: default.is_some(),
        unique: name == "id",
        default,
        references: None,
        built_in: true,
        hidden: false,
        immutable: false,
        check: None,
    }
}
