//! How one table gets from what it is to what a release wants: by added columns where that is enough, otherwise
//! by a new table that takes its place (the procedure of <https://www.sqlite.org/lang_altertable.html> §7).

use kernel::{Code, Error, Result};

use super::change::{Action, Draft, EffectKind};
use super::column::{Column, Type};
use super::convert::conversion;
use super::ddl::{NEW_ID, NOW};
use super::declared::{has_check, in_parentheses, normal, storage_type, words};
use super::manifest::{BUILT_IN, Table};
use super::names::ColumnName;
use super::tables::{Surplus, count};
use crate::database::{Column as LiveColumn, Index as LiveIndex, Table as LiveTable, Writer, quoted};

/// One table, before and after.
pub(crate) struct Alteration<'a> {
    /// As it is in the file.
    pub live: &'a LiveTable,
    /// As the current release wanted it, where it did.
    pub before: Option<&'a Table>,
    /// As it shall be.
    pub wanted: &'a Table,
    /// What becomes of columns that are no longer wanted.
    pub surplus: Surplus,
}

/// What has been found out on the way.
#[derive(Default)]
struct Findings {
    rows: u64,
    added: Vec<Column>,
    rebuild: bool,
    /// For the new table: column and the expression over the old one.
    copies: Vec<(String, String)>,
    /// Columns that stay although the release does not have them, as SQL.
    extra: Vec<String>,
    dropped: Vec<String>,
    /// A generated column, which a new table would not have.
    generated: Option<String>,
}

impl Alteration<'_> {
    /// Adds what has to be done to `draft`.
    pub(crate) async fn plan(&self, db: &mut Writer, draft: &mut Draft) -> Result<()> {
        let table = quoted(&self.live.name);
        let rows = count(db, &format!("SELECT count(*) FROM {table}")).await?;
        // The engine takes a table's name in whatever case; the names of its parts are made of it.
        let renamed = self.live.name != self.wanted.name.as_str();
        let mut found = Findings { rows, rebuild: !self.live.strict || renamed, ..Findings::default() };
        let before = draft.changes.len();
        self.built_in(&mut found);
        for column in &self.wanted.columns {
            self.column(db, column, &mut found, draft)
                .await
                .map_err(|e| e.under(&format!("/columns/{}", column.name)))?;
        }
        for column in &self.live.columns {
            self.surplus_column(db, column, &mut found, draft).await?;
        }
        found.rebuild |= found.added.iter().any(|c| !c.can_be_added());
        let target = format!("table {}", self.wanted.name);
        if renamed {
            draft.change(Action::Alter, target, Some(format!("{} → {}", self.live.name, self.wanted.name)));
        } else if self.before.is_none() {
            draft.change(Action::Alter, target, Some("it becomes part of the release".to_owned()));
        } else if found.rebuild && draft.changes.len() == before {
            draft.change(Action::Alter, target, Some("it is made again as it was declared".to_owned()));
        }
        if self.wanted.has_owner && !self.before.is_some_and(|before| before.has_owner) {
            let without = match self.live_column("owner") {
                Some(_) => {
                    count(db, &format!("SELECT count(*) FROM {table} WHERE \"owner\" IS NULL")).await?
                }
                None => rows,
            };
            if without > 0 {
                let message =
                    format!("{without} rows have no owner: no rule that asks for one gives them to anybody");
                draft.effect(EffectKind::Privilege, format!("table {}", self.wanted.name), message);
            }
        }
        let rebuilt = found.rebuild;
        if found.rebuild {
            if let Some(column) = found.generated {
                let message =
                    format!("the table must be rewritten, which would lose its generated column {column}");
                return Err(
                    Error::new(Code::Conflict, message).hint("drop that column with db_migrate first")
                );
            }
            self.rebuild(found, draft);
        } else {
            for column in &found.added {
                draft.step(format!("ALTER TABLE {table} ADD COLUMN {}", column.definition()));
            }
            if self.wanted.has_owner && self.live_column("owner").is_none() {
                draft.step(format!("ALTER TABLE {table} ADD COLUMN \"owner\" TEXT"));
            }
            if !self.live.triggers.iter().any(|t| t.name == self.wanted.touch_trigger_name()) {
                draft.step(self.wanted.touch_trigger());
            }
            self.indexes(draft);
        }
        self.search(rebuilt, draft);
        self.check_unique(db, rows).await
    }

    /// `id`, `owner`, `created_at` and `updated_at`.
    fn built_in(&self, found: &mut Findings) {
        let live = |name: &str| self.live_column(name);
        let id = live("id");
        if !id
            .is_some_and(|c| c.primary_key == 1 && c.kind.eq_ignore_ascii_case("TEXT") && c.default.is_some())
        {
            found.rebuild = true;
        }
        let id =
            id.map_or_else(|| NEW_ID.to_owned(), |_| format!("coalesce(CAST(\"id\" AS TEXT), {NEW_ID})"));
        found.copies.push(("\"id\"".to_owned(), id));
        if self.wanted.has_owner && live("owner").is_some() {
            found.copies.push(("\"owner\"".to_owned(), "\"owner\"".to_owned()));
        }
        for name in ["created_at", "updated_at"] {
            let column = live(name);
            found.rebuild |= !column.is_some_and(|c| c.not_null && c.kind.eq_ignore_ascii_case("TEXT"));
            let value = column.map_or_else(|| NOW.to_owned(), |_| format!("coalesce(\"{name}\", {NOW})"));
            found.copies.push((format!("\"{name}\""), value));
        }
    }

    async fn column(
        &self,
        db: &mut Writer,
        wanted: &Column,
        found: &mut Findings,
        draft: &mut Draft,
    ) -> Result<()> {
        let target = format!("column {}.{}", self.wanted.name, wanted.name);
        let Some(live) = self.live_column(wanted.name.as_str()) else {
            if wanted.required && wanted.default.is_none() && found.rows > 0 {
                return Err(self.no_value(wanted, found.rows));
            }
            draft.change(Action::Create, target, Some(wanted.to_string()));
            found.added.push(wanted.clone());
            return Ok(());
        };
        let from = self.kind_of(live);
        let before =
            self.before.and_then(|t| t.columns.iter().find(|c| c.name.folded() == wanted.name.folded()));
        let same = match before {
            Some(before) => before.stores_as(wanted) && self.matches(live, before),
            None => from == wanted.kind && self.matches(live, wanted),
        };
        let source = self.source(live, from);
        if let Some(before) = before
            .filter(|before| same && (before.hidden, before.immutable) != (wanted.hidden, wanted.immutable))
        {
            let detail = format!("{} → {}", words(before), words(wanted));
            draft.change(Action::Alter, &target, Some(detail.clone()));
            draft.effect(EffectKind::Privilege, &target, detail);
        }
        if same && self.live.strict {
            found.copies.push((wanted.name.quoted(), source));
            return Ok(());
        }
        if !same {
            found.rebuild = true;
            let was = before.map_or_else(|| from.as_str().to_owned(), words);
            draft.change(Action::Alter, &target, Some(format!("{was} → {}", words(wanted))));
        }
        let conversion = conversion(&source, from, wanted.kind);
        let table = quoted(&self.live.name);
        let strays = self.strays(live, from);
        let lost = format!("SELECT count(*) FROM {table} WHERE ({}) OR ({strays})", conversion.lost);
        let lost = count(db, &lost).await?;
        let empty = format!("SELECT count(*) FROM {table} WHERE ({}) IS NULL", conversion.value);
        let empty = if wanted.required { count(db, &empty).await? } else { 0 };
        if empty > 0 && wanted.default.is_none() {
            return Err(self.no_value(wanted, empty));
        }
        if lost > 0 {
            let message = format!(
                "{lost} of {} values cannot become {} and are lost",
                found.rows,
                wanted.kind.as_str()
            );
            if self.surplus == Surplus::Keep {
                return Err(Error::new(Code::Conflict, format!("{target}: {message}"))
                    .hint("change those values first, or add another column and apply that"));
            }
            draft.effect(EffectKind::DataLoss, target, message);
        }
        let value = match wanted.default_sql().filter(|_| wanted.required) {
            Some(default) => format!("coalesce({}, {default})", conversion.value),
            None => conversion.value,
        };
        found.copies.push((wanted.name.quoted(), value));
        Ok(())
    }

    fn no_value(&self, wanted: &Column, rows: u64) -> Error {
        let message =
            format!("{}.{} is required, but {rows} rows would have no value", self.wanted.name, wanted.name);
        let code = if self.surplus == Surplus::Keep { Code::Conflict } else { Code::InvalidInput };
        Error::new(code, message)
            .field("")
            .hint("give it a default, or leave it optional until the rows have values")
    }

    /// A column of the file that is not wanted: dropped where it was ours, otherwise carried along.
    async fn surplus_column(
        &self,
        db: &mut Writer,
        column: &LiveColumn,
        found: &mut Findings,
        draft: &mut Draft,
    ) -> Result<()> {
        let folded = column.name.to_ascii_lowercase();
        let is_owner = folded == "owner";
        let built_in = BUILT_IN.contains(&folded.as_str()) && (!is_owner || self.wanted.has_owner);
        if built_in || self.wanted.columns.iter().any(|c| c.name.folded() == folded) {
            return Ok(());
        }
        let target = format!("column {}.{}", self.wanted.name, column.name);
        let (table, name) = (quoted(&self.live.name), quoted(&column.name));
        let ours = self.before.is_some_and(|t| t.columns.iter().any(|c| c.name.folded() == folded));
        if ours {
            let values = count(db, &format!("SELECT count({name}) FROM {table}")).await?;
            if self.surplus == Surplus::Drop || values == 0 {
                if values > 0 {
                    let message = format!("{values} values are deleted with the column");
                    draft.effect(EffectKind::DataLoss, &target, message);
                }
                draft.change(Action::Drop, target, None);
                found.dropped.push(folded);
                found.rebuild = true;
                return Ok(());
            }
            let detail = format!("it has {values} values that the release does not know");
            draft.change(Action::Keep, target, Some(detail));
            // Rows of the earlier release come without it.
            found.rebuild |= column.not_null && column.default.is_none();
        }
        if column.generated {
            found.generated = Some(column.name.clone());
            return Ok(());
        }
        let strays = self.strays(column, storage_type(&column.kind));
        let strays = count(db, &format!("SELECT count(*) FROM {table} WHERE {strays}")).await?;
        let kind = if strays > 0 { "ANY" } else { self.strict_kind(column) };
        let mut sql = format!("{name} {kind}");
        if column.not_null && column.default.is_some() {
            sql.push_str(" NOT NULL");
        }
        if let Some(default) = &column.default {
            sql.push_str(&format!(" DEFAULT {}", in_parentheses(default)));
        }
        for key in self.live.foreign_keys.iter().filter(|key| key.columns == [column.name.clone()]) {
            let to: Vec<_> = key.references.iter().flatten().map(|c| quoted(c)).collect();
            let to = if to.is_empty() { String::new() } else { format!(" ({})", to.join(", ")) };
            sql.push_str(&format!(" REFERENCES {}{to} ON DELETE {}", quoted(&key.table), key.on_delete));
        }
        found.extra.push(sql);
        found.copies.push((name.clone(), name));
        Ok(())
    }

    fn rebuild(&self, found: Findings, draft: &mut Draft) {
        self.forgotten(draft);
        let (table, new) = (quoted(&self.live.name), format!("_steading_new_{}", self.wanted.name));
        if found.rows > 0 {
            let message = format!("the table is rewritten: {} rows", found.rows);
            draft.effect(EffectKind::Cost, format!("table {}", self.wanted.name), message);
        }
        draft.foreign_keys_off = true;
        draft.step(self.wanted.create(&new, &found.extra));
        let (to, from): (Vec<_>, Vec<_>) = found.copies.into_iter().unzip();
        draft.step(format!(
            "INSERT INTO {} ({}) SELECT {} FROM {table}",
            quoted(&new),
            to.join(", "),
            from.join(", ")
        ));
        draft.step(format!("DROP TABLE {table}"));
        draft.step(format!("ALTER TABLE {} RENAME TO {}", quoted(&new), self.wanted.name.quoted()));
        draft.step(self.wanted.touch_trigger());
        for (_, sql) in self.wanted.create_indexes() {
            draft.step(sql);
        }
        let wanted: Vec<_> = self.wanted.create_indexes().into_iter().map(|(name, _)| name).collect();
        for index in self.live.indexes.iter().filter(|i| !wanted.contains(&i.name) && !self.is_ours(i)) {
            if index.columns.iter().flatten().any(|c| found.dropped.contains(&c.to_ascii_lowercase())) {
                draft.change(Action::Drop, format!("index {}", index.name), None);
            } else if let Some(sql) = self.sql_of(index) {
                draft.step(sql);
            }
        }
        let touch = self.wanted.touch_trigger_name();
        let ours = |name: &str| name.eq_ignore_ascii_case(&touch) || Table::keeps_search(name);
        for trigger in self.live.triggers.iter().filter(|t| !ours(&t.name)) {
            draft.step(trigger.sql.clone());
        }
    }

    /// Says what of its SQL a new table does not have.
    fn forgotten(&self, draft: &mut Draft) {
        let table = &self.live.name;
        if self.before.is_none() && has_check(&self.live.sql) {
            let detail = "a table of a release does not carry them".to_owned();
            draft.change(Action::Drop, format!("checks of table {table}"), Some(detail));
        }
        for key in self.live.foreign_keys.iter().filter(|key| key.columns.len() > 1) {
            let columns = key.columns.join(", ");
            draft.change(Action::Drop, format!("reference {table}.({columns}) to {}", key.table), None);
        }
    }

    /// The indexes of a table that is not rebuilt.
    fn indexes(&self, draft: &mut Draft) {
        let wanted = self.wanted.create_indexes();
        for index in &self.live.indexes {
            if self.is_ours(index) && !wanted.iter().any(|(name, _)| *name == index.name) {
                draft.change(Action::Drop, format!("index {}", index.name), None);
                draft.step(format!("DROP INDEX {}", quoted(&index.name)));
            }
        }
        for (name, sql) in wanted {
            if !self.live.indexes.iter().any(|index| index.name == name) {
                draft.change(Action::Create, format!("index {name}"), None);
                draft.step(sql);
            }
        }
    }

    /// The full-text index: made again where the table is, or where other columns are searched.
    fn search(&self, rebuilt: bool, draft: &mut Draft) {
        let wanted = self.wanted.create_search();
        let same = wanted == self.live.search;
        if same && !(rebuilt && wanted.is_some()) {
            return;
        }
        if !same {
            let names: Vec<_> = self.wanted.search.iter().map(ColumnName::as_str).collect();
            let action = match (&self.live.search, &wanted) {
                (None, _) => Action::Create,
                (_, None) => Action::Drop,
                _ => Action::Alter,
            };
            let detail = (!names.is_empty()).then(|| names.join(", "));
            draft.change(action, format!("search {}", self.wanted.name), detail);
        }
        for step in Table::drop_search(&self.live.name) {
            draft.step(step);
        }
        if let Some(create) = wanted {
            draft.step(create);
            self.wanted.fill_search().into_iter().for_each(|step| draft.step(step));
        }
    }

    /// Whether the current release made the index.
    fn is_ours(&self, index: &LiveIndex) -> bool {
        self.before.is_some_and(|t| t.create_indexes().iter().any(|(name, _)| *name == index.name))
    }

    /// How to make an index again that is not ours; one that stems from a UNIQUE constraint becomes an index.
    fn sql_of(&self, index: &LiveIndex) -> Option<String> {
        if index.sql.is_some() || !index.unique {
            return index.sql.clone();
        }
        let columns: Vec<ColumnName> =
            index.columns.iter().map(|c| c.as_ref()?.parse().ok()).collect::<Option<_>>()?;
        // The new table has a primary key of its own, its id; any other one is a column that stays unique.
        if columns.iter().all(|column| column.folded() == "id") {
            return None;
        }
        let name = self.wanted.index_name(&columns, true);
        if self.wanted.create_indexes().iter().any(|(have, _)| *have == name) {
            return None;
        }
        let list: Vec<_> = columns.iter().map(ColumnName::quoted).collect();
        let table = self.wanted.name.quoted();
        Some(format!("CREATE UNIQUE INDEX \"{name}\" ON {table} ({})", list.join(", ")))
    }

    /// Refuses a new unique index over values that are not.
    async fn check_unique(&self, db: &mut Writer, rows: u64) -> Result<()> {
        for (columns, _) in self.wanted.indexes.iter().filter(|(_, unique)| *unique && rows > 1) {
            let known = columns.iter().all(|c| self.live_column(c.as_str()).is_some());
            let name = self.wanted.index_name(columns, true);
            if !known || self.live.indexes.iter().any(|index| index.name == name) {
                continue;
            }
            let list: Vec<_> = columns.iter().map(ColumnName::quoted).collect();
            let (list, table) = (list.join(", "), quoted(&self.live.name));
            let all_given = columns.iter().map(|c| format!("{} IS NOT NULL", c.quoted())).collect::<Vec<_>>();
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM {table} WHERE {} GROUP BY {list} HAVING count(*) > 1)",
                all_given.join(" AND ")
            );
            let doubles = count(db, &sql).await?;
            if doubles > 0 {
                let names: Vec<_> = columns.iter().map(ColumnName::as_str).collect();
                let message = format!(
                    "{} cannot be unique in {}: {doubles} values occur more than once",
                    names.join(", "),
                    self.wanted.name
                );
                let code = if self.surplus == Surplus::Keep { Code::Conflict } else { Code::InvalidInput };
                return Err(Error::new(code, message)
                    .field("/unique")
                    .hint("find them with db_query and change them first"));
            }
        }
        Ok(())
    }

    fn live_column(&self, name: &str) -> Option<&LiveColumn> {
        self.live.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The type a column has: the one the current release gave it where the file still agrees.
    fn kind_of(&self, live: &LiveColumn) -> Type {
        let stored = storage_type(&live.kind);
        let before = self
            .before
            .and_then(|t| t.columns.iter().find(|c| c.name.as_str().eq_ignore_ascii_case(&live.name)));
        match before {
            Some(before) if before.kind.sql() == stored.sql() => before.kind,
            _ => stored,
        }
    }

    /// The old value, in the storage class that its declared type promises.
    fn source(&self, live: &LiveColumn, kind: Type) -> String {
        if self.live.strict {
            quoted(&live.name)
        } else {
            format!("CAST({} AS {})", quoted(&live.name), kind.sql())
        }
    }

    /// True for values that a table without STRICT holds against its declared type, and that a cast changes.
    fn strays(&self, live: &LiveColumn, kind: Type) -> String {
        let strange = match kind {
            _ if self.live.strict => return "0".to_owned(),
            // What the column could store as an integer, it has.
            Type::Int | Type::Bool => "'real', 'text', 'blob'",
            Type::Real => "'text', 'blob'",
            Type::Text | Type::Json | Type::Timestamp => "'blob'",
            Type::Blob => "'integer', 'real'",
        };
        format!("typeof({}) IN ({strange})", quoted(&live.name))
    }

    /// The type under which a STRICT table keeps every value of the column as it is.
    fn strict_kind(&self, live: &LiveColumn) -> &'static str {
        let declared = live.kind.to_ascii_uppercase();
        let says_text = ["CHAR", "CLOB", "TEXT"].iter().any(|word| declared.contains(word));
        match storage_type(&declared) {
            // No type, ANY, and the numeric ones, such as DECIMAL and DATE.
            Type::Text if !says_text => "ANY",
            kind => kind.sql(),
        }
    }

    /// Whether the file's column is what `column` would make.
    fn matches(&self, live: &LiveColumn, column: &Column) -> bool {
        let key = self.live.foreign_keys.iter().find(|key| key.columns == [live.name.clone()]);
        live.kind.eq_ignore_ascii_case(column.kind.sql())
            && live.not_null == column.required
            && normal(live.default.as_deref()) == normal(column.default_sql().as_deref())
            && key.map(|k| k.table.to_ascii_lowercase()) == column.references.as_ref().map(|t| t.folded())
    }
}
