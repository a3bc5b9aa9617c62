//! The tables of an app as TypeScript: what rows have, what makes and changes them, and a client that knows it.

use std::collections::BTreeSet;

use super::{App, ColumnModel, TableModel, Type};
use crate::access::Operation;

/// The client of `app`, for a file beside the two of the SDK. Tables that nobody reaches are not in it.
#[must_use]
pub fn typescript(app: &App) -> String {
    let mut text = HEAD.to_owned();
    let mut names = BTreeSet::new();
    let mut tables = String::new();
    for table in app.tables.values().filter(|table| Operation::ALL.iter().any(|it| table.allows(*it))) {
        let name = type_name(&table.name, &mut names);
        text.push_str(&types(table, &name));
        tables.push_str(&format!("  {}: Table<{name}, {name}New, {name}Change>;\n", table.name));
    }
    text.push_str("/** Every table that the app's users reach. */\nexport interface Tables {\n");
    text.push_str(&tables);
    text.push_str(TAIL);
    text
}

const HEAD: &str = "\
// The tables of this app, typed. Made by client_code, and always anew at /_/client.ts.
// It needs two files of the app beside it: /_/sdk.js, and /_/sdk.d.ts.
import { createClient } from \"./sdk.js\";
import type { Client, ClientOptions, Table } from \"./sdk.js\";

export { AppError, where } from \"./sdk.js\";

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export interface Bytes { base64: string }

";

const TAIL: &str = "\
}

export interface App extends Omit<Client, \"db\"> {
  db<Name extends keyof Tables>(table: Name): Tables[Name];
}

/** The client of the SDK, which knows the tables. */
export function createApp(options?: ClientOptions): App {
  return createClient(options) as unknown as App;
}
";

/// Names that the file has by itself.
const OURS: [&str; 9] =
    ["App", "Bytes", "Client", "ClientOptions", "Json", "Omit", "AppError", "Table", "Tables"];

fn types(table: &TableModel, name: &str) -> String {
    let own = || table.shown().filter(|column| !column.built_in);
    let line = |column: &ColumnModel, mark: &str| format!("  {}{mark}: {};\n", column.name, kind(column));
    let mut text =
        format!("/** A row of {}, beside what every row has. */\nexport interface {name} {{\n", table.name);
    own().for_each(|column| {
        if let Some(other) = &column.references {
            text.push_str(&format!("  /** The id of a row of {other}. */\n"));
        }
        text.push_str(&line(column, ""));
    });
    text.push_str(&format!("}}\nexport interface {name}New {{\n"));
    own().for_each(|column| {
        let may_miss = !column.required || column.default.is_some();
        text.push_str(&line(column, if may_miss { "?" } else { "" }));
    });
    text.push_str(&format!("}}\nexport interface {name}Change {{\n"));
    own().filter(|column| !column.immutable).for_each(|column| text.push_str(&line(column, "?")));
    text.push_str("}\n\n");
    text
}

fn kind(column: &ColumnModel) -> String {
    let kind = match column.kind {
        Type::Text | Type::Timestamp => "string",
        Type::Int | Type::Real => "number",
        Type::Bool => "boolean",
        Type::Json => return "Json".to_owned(),
        Type::Blob => "Bytes",
    };
    if column.required { kind.to_owned() } else { format!("{kind} | null") }
}

/// `todo_lists` as `TodoLists`; another name where two tables would share one, or the file has it.
fn type_name(table: &str, taken: &mut BTreeSet<String>) -> String {
    let words = table.split('_').filter(|word| !word.is_empty()).map(|word| {
        let (first, rest) = word.split_at(1);
        format!("{}{rest}", first.to_ascii_uppercase())
    });
    let name: String = words.collect();
    let parts = |name: &str| ["", "New", "Change"].map(|end| format!("{name}{end}"));
    let is_free =
        |name: &str| !parts(name).iter().any(|it| taken.contains(it) || OURS.contains(&it.as_str()));
    let mut unique = name.clone();
    let mut number = 1;
    // A table may also be called like what another one is made of: `todos_new`.
    while !is_free(&unique) {
        number += 1;
        unique = format!("{name}{number}");
    }
    taken.extend(parts(&unique));
    unique
}
