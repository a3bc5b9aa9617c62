//! What a migration does to the data: the schema before and after it, told apart, with what is lost counted.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::connection::Connection;
use super::error::Error;
use super::schema::{Column, Schema, Table, count_values};
use super::writer::Done;

/// One thing that a migration does, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// A table goes, with its rows.
    TableDropped {
        /// Its name.
        table: String,
        /// How many rows are lost.
        rows: u64,
    },
    /// A column goes, with its values.
    ColumnDropped {
        /// Its table, by the name before.
        table: String,
        /// Its name.
        column: String,
        /// How many values other than NULL are lost.
        values: u64,
    },
    /// A table has fewer rows.
    RowsRemoved {
        /// The table, by the name before.
        table: String,
        /// How many rows fewer.
        rows: u64,
    },
    /// A column has another type; values may be converted.
    ColumnRetyped {
        /// Its table.
        table: String,
        /// Its name.
        column: String,
        /// The type before.
        from: String,
        /// The type after.
        to: String,
    },
    /// A table comes.
    TableCreated {
        /// Its name.
        table: String,
    },
    /// A table has another name.
    TableRenamed {
        /// The name before.
        from: String,
        /// The name after.
        to: String,
    },
    /// A column comes.
    ColumnAdded {
        /// Its table.
        table: String,
        /// Its name.
        column: String,
    },
    /// A column has another name.
    ColumnRenamed {
        /// Its table.
        table: String,
        /// The name before.
        from: String,
        /// The name after.
        to: String,
    },
    /// A table has more rows.
    RowsAdded {
        /// The table.
        table: String,
        /// How many rows more.
        rows: u64,
    },
    /// An index, view or trigger goes.
    ObjectDropped {
        /// Its name.
        name: String,
    },
    /// An index, view or trigger comes.
    ObjectCreated {
        /// Its name.
        name: String,
    },
}

impl Effect {
    /// Whether data is lost.
    #[must_use]
    pub const fn loses(&self) -> bool {
        match self {
            Effect::TableDropped { rows, .. } | Effect::RowsRemoved { rows, .. } => *rows > 0,
            Effect::ColumnDropped { values, .. } => *values > 0,
            Effect::ColumnRetyped { .. }
            | Effect::TableCreated { .. }
            | Effect::TableRenamed { .. }
            | Effect::ColumnAdded { .. }
            | Effect::ColumnRenamed { .. }
            | Effect::RowsAdded { .. }
            | Effect::ObjectDropped { .. }
            | Effect::ObjectCreated { .. } => false,
        }
    }
}

/// The tables of a moment, each with its columns.
pub(super) type Shape = BTreeMap<String, Vec<String>>;

pub(super) fn shape(schema: &Schema) -> Shape {
    let columns = |table: &Table| table.columns.iter().map(|column| column.name.clone()).collect();
    schema.tables.iter().map(|table| (table.name.clone(), columns(table))).collect()
}

/// Which table and column of before each one of now was, followed through `ALTER TABLE` alone: there a rename
/// can be told from a drop.
pub(super) struct Lineage {
    tables: BTreeMap<String, Origin>,
}

struct Origin {
    table: String,
    /// The name of now, and that of before.
    columns: BTreeMap<String, String>,
}

impl Lineage {
    pub fn new(before: &Shape) -> Self {
        let origin = |(table, columns): (&String, &Vec<String>)| {
            let columns = columns.iter().map(|column| (column.clone(), column.clone())).collect();
            (table.clone(), Origin { table: table.clone(), columns })
        };
        Self { tables: before.iter().map(origin).collect() }
    }

    /// Follows one statement that took the schema from `before` to `after`.
    pub fn follow(&mut self, done: &Done, before: &Shape, after: &Shape) {
        let gone: Vec<&String> = before.keys().filter(|table| !after.contains_key(*table)).collect();
        let came: Vec<&String> = after.keys().filter(|table| !before.contains_key(*table)).collect();
        match (&done.altered, gone.as_slice(), came.as_slice()) {
            (Some(_), [from], [to]) => {
                if let Some(origin) = self.tables.remove(*from) {
                    self.tables.insert((*to).clone(), origin);
                }
            }
            (Some(altered), [], []) => self.follow_columns(altered, before, after),
            _ => {
                for table in gone {
                    self.tables.remove(table);
                }
            }
        }
    }

    fn follow_columns(&mut self, table: &str, before: &Shape, after: &Shape) {
        let (Some(origin), Some(before), Some(after)) =
            (self.tables.get_mut(table), before.get(table), after.get(table))
        else {
            return;
        };
        let gone: Vec<&String> = before.iter().filter(|column| !after.contains(column)).collect();
        let came: Vec<&String> = after.iter().filter(|column| !before.contains(column)).collect();
        for column in &gone {
            let was = origin.columns.remove(*column);
            if let (Some(was), [_], [to]) = (was, gone.as_slice(), came.as_slice()) {
                origin.columns.insert((*to).clone(), was);
            }
        }
    }

    /// The name of now of a table of before, if it was kept or renamed.
    fn now(&self, table: &str) -> Option<(&String, &Origin)> {
        self.tables.iter().find(|(_, origin)| origin.table == table)
    }
}

/// What lies between `before` and `after`. Values are counted on `committed`, a connection that still sees the
/// state before.
pub(super) async fn between(
    before: &Schema,
    after: &Schema,
    lineage: &Lineage,
    committed: &mut Connection,
) -> Result<Vec<Effect>, Error> {
    let mut effects = Vec::new();
    let mut known = BTreeSet::new();
    for old in &before.tables {
        let kept = lineage.now(&old.name);
        let name = kept.map_or(&old.name, |(name, _)| name);
        let Some(new) = after.tables.iter().find(|table| table.name == *name) else {
            effects.push(Effect::TableDropped { table: old.name.clone(), rows: old.rows });
            continue;
        };
        known.insert(new.name.as_str());
        if new.name != old.name {
            effects.push(Effect::TableRenamed { from: old.name.clone(), to: new.name.clone() });
        }
        columns(old, new, kept.map(|(_, origin)| origin), committed, &mut effects).await?;
        match (new.rows.checked_sub(old.rows), old.rows.checked_sub(new.rows)) {
            (_, Some(rows)) if rows > 0 => {
                effects.push(Effect::RowsRemoved { table: old.name.clone(), rows })
            }
            (Some(rows), _) if rows > 0 => effects.push(Effect::RowsAdded { table: new.name.clone(), rows }),
            _ => {}
        }
    }
    for new in after.tables.iter().filter(|table| !known.contains(table.name.as_str())) {
        effects.push(Effect::TableCreated { table: new.name.clone() });
        if new.rows > 0 {
            effects.push(Effect::RowsAdded { table: new.name.clone(), rows: new.rows });
        }
    }
    let (old, new) = (objects(before), objects(after));
    effects.extend(old.difference(&new).map(|name| Effect::ObjectDropped { name: (*name).to_owned() }));
    effects.extend(new.difference(&old).map(|name| Effect::ObjectCreated { name: (*name).to_owned() }));
    Ok(effects)
}

async fn columns(
    old: &Table,
    new: &Table,
    origin: Option<&Origin>,
    committed: &mut Connection,
    effects: &mut Vec<Effect>,
) -> Result<(), Error> {
    // A table that was rebuilt under its name has no lineage: its columns are taken by their names.
    let was = |column: &Column| match origin {
        Some(origin) => origin.columns.get(&column.name).cloned(),
        None => Some(column.name.clone()),
    };
    let mut known = BTreeSet::new();
    for column in &new.columns {
        let Some(before) = was(column).and_then(|name| old.columns.iter().find(|c| c.name == name)) else {
            effects.push(Effect::ColumnAdded { table: new.name.clone(), column: column.name.clone() });
            continue;
        };
        known.insert(before.name.as_str());
        if before.name != column.name {
            effects.push(Effect::ColumnRenamed {
                table: new.name.clone(),
                from: before.name.clone(),
                to: column.name.clone(),
            });
        }
        if !before.kind.eq_ignore_ascii_case(&column.kind) {
            effects.push(Effect::ColumnRetyped {
                table: new.name.clone(),
                column: column.name.clone(),
                from: before.kind.clone(),
                to: column.kind.clone(),
            });
        }
    }
    for column in old.columns.iter().filter(|column| !known.contains(column.name.as_str())) {
        effects.push(Effect::ColumnDropped {
            table: old.name.clone(),
            column: column.name.clone(),
            values: count_values(committed, &old.name, &column.name).await?,
        });
    }
    Ok(())
}

/// The names of indexes, views and triggers that a statement created.
fn objects(schema: &Schema) -> BTreeSet<&str> {
    let of_tables = schema.tables.iter().flat_map(|table| {
        let indexes =
            table.indexes.iter().filter(|index| index.sql.is_some()).map(|index| index.name.as_str());
        indexes.chain(table.triggers.iter().map(|trigger| trigger.name.as_str()))
    });
    of_tables.chain(schema.views.iter().map(|view| view.name.as_str())).collect()
}
