//! What to look at next: what is likely wrong with an app, each with the very call that mends it where there is one.

use serde_json::json;

use super::describe::Description;
use crate::access::{self, Finding, Indexed, Mend};
use crate::database::Schema;
use crate::rows::App;

/// How many pieces of advice there are at most.
const MOST: usize = 20;

/// What to look at next, worst first.
pub(super) fn advice(described: &Description, schema: &Schema, app: &App) -> Vec<String> {
    let mut advice = Vec::new();
    if described.release.is_none() {
        advice.push("nothing is applied yet: app_apply takes a manifest with tables and a site".to_owned());
    } else if described.site.is_none() {
        advice.push("there is no site: site_deploy, or app_apply with `site`".to_owned());
    }
    let nobody = described.auth.as_ref().is_none_or(|auth| auth.methods.is_empty());
    let owned = app.tables.values().find(|table| table.has_owner());
    if let Some(table) = owned.filter(|_| nobody) {
        let call = json!({ "methods": ["anonymous", "password"] });
        let name = &table.name;
        advice.push(format!("rows of {name} belong to users, and nobody can sign in: auth_configure {call}"));
    }
    let indexed: Indexed = schema
        .tables
        .iter()
        .map(|table| {
            let first = table.indexes.iter().filter(|index| !index.partial);
            let first = first.filter_map(|index| index.columns.first().cloned().flatten());
            (table.name.to_ascii_lowercase(), first.collect())
        })
        .collect();
    for (name, table) in &described.tables {
        let found = match app.table(name) {
            Some(model) => access::lint(model, &indexed, None),
            None if table.unmanaged => {
                advice.push(format!("{name} is in no manifest: list it there, so that releases carry it"));
                Vec::new()
            }
            None => Vec::new(),
        };
        advice.extend(found.into_iter().map(|finding| told(name, finding)));
    }
    for (name, bucket) in &described.buckets {
        if bucket.unmanaged {
            advice.push(format!(
                "the files of {name} are of an earlier release: storage_bucket brings them back"
            ));
        } else if bucket.access.is_none() {
            let call = json!({ "name": name, "access": "private" });
            advice.push(format!(
                "the bucket {name} has no access, only you reach its files: storage_bucket {call}"
            ));
        }
    }
    advice.extend(unindexed(schema, &indexed));
    advice.truncate(MOST);
    advice
}

/// References that every deletion of what they refer to has to look for in the whole table.
fn unindexed(schema: &Schema, indexed: &Indexed) -> Vec<String> {
    let mut advice = Vec::new();
    for table in &schema.tables {
        let has = indexed.get(&table.name.to_ascii_lowercase());
        for column in table.foreign_keys.iter().filter_map(|key| key.columns.first()) {
            if has.is_some_and(|all| all.iter().any(|it| it.eq_ignore_ascii_case(column))) {
                continue;
            }
            let message = format!("{}.{column} refers to rows and has no index", table.name);
            let mend = Some(Mend::Index { table: table.name.clone(), column: column.clone() });
            advice.push(told(&table.name, Finding { message, mend }));
        }
    }
    advice
}

fn told(table: &str, finding: Finding) -> String {
    match finding.mend.and_then(|mend| mend.call(table)) {
        Some(call) => format!("{}: {call}", finding.message),
        None => finding.message,
    }
}
