//! Tables and indexes as SQL.

use super::column::{Column, Default, OnDelete, Type};
use super::manifest::Table;
use super::names::ColumnName;
use crate::database::CHECK;

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
        self.indexes
            .iter()
            .map(|(columns, unique)| {
                let name = self.index_name(columns, *unique);
                let list: Vec<_> = columns.iter().map(ColumnName::quoted).collect();
                let kind = if *unique { "UNIQUE INDEX" } else { "INDEX" };
                let sql = format!("CREATE {kind} \"{name}\" ON {} ({})", self.name.quoted(), list.join(", "));
                (name, sql)
            })
            .collect()
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
