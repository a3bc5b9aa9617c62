//! Tables and indexes as SQL.

use super::column::{Column, Default, OnDelete, Type};
use super::manifest::Table;
use super::names::ColumnName;
use crate::database::{CHECK, create_search, fill_search, quoted, search_name};

/// The time of the statement, RFC 3339 with milliseconds.
pub(crate) const NOW: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')";

/// A UUIDv7 (RFC 9562 §5.7) as SQL, so that rows have their ids whoever inserts them: 48 bits of milliseconds,
/// the version, 12 random bits, the variant, 62 random bits.
pub(crate) const NEW_ID: &str = "printf('%08x-%04x-7%03x-%04x-%012x', \
    CAST(unixepoch('subsec') * 1000 AS INTEGER) >> 16, \
    CAST(unixepoch('subsec') * 1000 AS INTEGER) & 65535, \
    random() & 4095, 32768 | (random() & 16383), random() & 281474976710655)";

impl Table {
    /// `CREATE TABLE` under `name`, which differs from the table's own while it is rebuilt. `extra` are columns
    /// that are not the manifest's, as their SQL.
    pub(crate) fn create(&self, name: &str, extra: &[String]) -> String {
        let mut parts = vec![format!("\"id\" TEXT NOT NULL PRIMARY KEY DEFAULT ({NEW_ID})")];
        if self.has_owner {
            parts.push("\"owner\" TEXT".to_owned());
        }
        parts.extend(self.columns.iter().map(Column::definition));
        parts.extend(["created_at", "updated_at"].map(|c| format!("\"{c}\" TEXT NOT NULL DEFAULT ({NOW})")));
        parts.extend_from_slice(extra);
        format!("CREATE TABLE \"{name}\" (\n  {}\n) STRICT", parts.join(",\n  "))
    }

    /// The trigger that keeps `updated_at` true, whoever updates.
    pub(crate) fn touch_trigger(&self) -> String {
        let (name, table) = (self.touch_trigger_name(), self.name.quoted());
        format!(
            "CREATE TRIGGER \"{name}\" AFTER UPDATE ON {table} FOR EACH ROW \
             WHEN NEW.\"updated_at\" IS OLD.\"updated_at\" BEGIN \
             UPDATE {table} SET \"updated_at\" = {NOW} WHERE \"id\" = NEW.\"id\"; END"
        )
    }

    pub(crate) fn touch_trigger_name(&self) -> String {
        format!("{}_touch_updated_at", self.name)
    }

    /// `CREATE INDEX` for every index, with its name.
    pub(crate) fn create_indexes(&self) -> Vec<(String, String)> {
        let indexes = self.indexes.iter();
        let indexes = indexes.map(|(columns, unique)| {
            let name = self.index_name(columns, *unique);
            let list: Vec<_> = columns.iter().map(ColumnName::quoted).collect();
            let kind = if *unique { "UNIQUE INDEX" } else { "INDEX" };
            let sql = format!("CREATE {kind} \"{name}\" ON {} ({})", self.name.quoted(), list.join(", "));
            (name, sql)
        });
        indexes.chain(self.create_path_indexes()).collect()
    }

    /// `CREATE INDEX` for every part of a JSON column that is indexed, with its name. A filter compares the very same
    /// expression.
    fn create_path_indexes(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.paths.iter().map(|path| {
            let name = format!("{}.{path}.path", self.name);
            let column = path.column().quoted();
            let keys: String = path.keys().iter().map(|key| format!(".\"{key}\"")).collect();
            let sql = format!(
                "CREATE INDEX \"{name}\" ON {} (json_extract({column}, '${keys}'))",
                self.name.quoted()
            );
            (name, sql)
        })
    }

    /// The statement that makes the table's full-text index; none where nothing is searched.
    pub(crate) fn create_search(&self) -> Option<String> {
        let columns: Vec<_> = self.search.iter().map(ColumnName::as_str).collect();
        (!columns.is_empty()).then(|| create_search(self.name.as_str(), &columns))
    }

    /// Everything that comes with it: the triggers that keep it, and the rows that are there.
    pub(crate) fn fill_search(&self) -> Vec<String> {
        let (index, table) = (quoted(&search_name(self.name.as_str())), self.name.quoted());
        let columns: Vec<_> = self.search.iter().map(ColumnName::quoted).collect();
        let list = columns.join(", ");
        let new: Vec<_> = columns.iter().map(|column| format!("NEW.{column}")).collect();
        let insert = format!(
            "INSERT OR REPLACE INTO {index} (rowid, {list}) VALUES (NEW._rowid_, {});",
            new.join(", ")
        );
        let delete = format!("DELETE FROM {index} WHERE rowid = OLD._rowid_;");
        let trigger = |when: &str, on: &str, what: &str| {
            let name = quoted(&format!("{}.search.{when}", self.name));
            format!("CREATE TRIGGER {name} AFTER {on} ON {table} FOR EACH ROW BEGIN {what} END")
        };
        let names: Vec<_> = self.search.iter().map(ColumnName::as_str).collect();
        vec![
            trigger("insert", "INSERT", &insert),
            trigger("delete", "DELETE", &delete),
            trigger("update", &format!("UPDATE OF {list}"), &format!("{delete} {insert}")),
            fill_search(self.name.as_str(), &names),
        ]
    }

    /// Takes the full-text index of the table `name` away, with its triggers.
    pub(crate) fn drop_search(name: &str) -> Vec<String> {
        let triggers = ["insert", "delete", "update"];
        let triggers = triggers
            .map(|when| format!("DROP TRIGGER IF EXISTS {}", quoted(&format!("{name}.search.{when}"))));
        let index = format!("DROP TABLE IF EXISTS {}", quoted(&search_name(name)));
        triggers.into_iter().chain([index]).collect()
    }

    /// Whether a trigger is one of those that keep a full-text index.
    pub(crate) fn keeps_search(trigger: &str) -> bool {
        [".search.insert", ".search.delete", ".search.update"].iter().any(|end| trigger.ends_with(end))
    }

    /// No name of a table or a column has a dot, so that no two indexes get the same name.
    pub(crate) fn index_name(&self, columns: &[ColumnName], unique: bool) -> String {
        let list: Vec<_> = columns.iter().map(ColumnName::as_str).collect();
        format!("{}.{}.{}", self.name, list.join("."), if unique { "key" } else { "idx" })
    }
}

impl Column {
    /// The column as it stands in `CREATE TABLE`.
    pub(crate) fn definition(&self) -> String {
        let name = self.name.quoted();
        let mut sql = format!("{name} {}", self.kind.sql());
        if self.required {
            sql.push_str(" NOT NULL");
        }
        if let Some(default) = self.default_sql() {
            sql.push_str(&format!(" DEFAULT {default}"));
        }
        match self.kind {
            Type::Bool => sql.push_str(&format!(" CHECK ({name} IN (0, 1))")),
            Type::Json => sql.push_str(&format!(" CHECK (json_valid({name}))")),
            _ => {}
        }
        if let Some(check) = &self.check {
            // By its name the column is known again of which a row does not fit.
            sql.push_str(&format!(" CONSTRAINT \"{CHECK}{}\" CHECK ({})", self.name, check.sql));
        }
        if let Some(table) = &self.references {
            sql.push_str(&format!(" REFERENCES {} (\"id\")", table.quoted()));
            match self.on_delete {
                Some(OnDelete::Cascade) => sql.push_str(" ON DELETE CASCADE"),
                Some(OnDelete::SetNull) => sql.push_str(" ON DELETE SET NULL"),
                Some(OnDelete::Restrict) => sql.push_str(" ON DELETE RESTRICT"),
                None => {}
            }
        }
        sql
    }

    pub(crate) fn default_sql(&self) -> Option<String> {
        self.default.as_ref().map(|default| match default {
            Default::Constant(sql) => sql.clone(),
            Default::Now => format!("({NOW})"),
        })
    }

    /// Whether `ALTER TABLE … ADD COLUMN` can add it to a table that has rows (SQLite refuses expressions as
    /// defaults there, and required columns without a default).
    pub(crate) fn can_be_added(&self) -> bool {
        let constant = matches!(self.default, Some(Default::Constant(_)));
        // A check may name columns that are added after it.
        if self.check.is_some() {
            return false;
        }
        let references_with_default = self.references.is_some() && self.default.is_some();
        (constant || (self.default.is_none() && !self.required)) && !references_with_default
    }
}
