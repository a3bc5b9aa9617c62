//! What to look at next: what is likely wrong with an app, each with the very call that mends it where there is one.

use serde_json::json;

use super::describe::Description;
use crate::access::{self, Finding, Indexed, Mend};
use crate::database::Schema;
use crate::routes::{Route, Who};
use crate::rows::App;

/// What to look at next, worst first: what is likely wrong, then `: `, and the call that mends it.
pub(super) fn advice(described: &Description, schema: &Schema, app: &App) -> Vec<String> {
    let mut advice = Vec::new();
    let files = json!({ "files": { "index.html": "<!doctype html><h1>Hello</h1>" } });
    if described.release.is_none() {
        let call = json!({ "manifest": { "site": files } });
        advice.push(format!("nothing is applied yet, a manifest has tables and a site: app_apply {call}"));
    } else if described.site.is_none() {
        advice.push(format!("there is no site: site_deploy {files}"));
    }
    let nobody = described.auth.as_ref().is_none_or(|auth| auth.methods.is_empty());
    let methods = json!({ "methods": ["anonymous", "password"] });
    let owned = app.tables.values().find(|table| table.has_owner());
    let asks = |route: &&Route| matches!(route.auth, Who::SignedIn | Who::Role(_));
    if let Some(table) = owned.filter(|_| nobody) {
        let name = &table.name;
        advice.push(format!(
            "rows of {name} belong to users, and nobody can sign in: auth_configure {methods}"
        ));
    } else if let Some(route) = app.routes.iter().find(asks).filter(|_| nobody) {
        let text = &route.text;
        advice.push(format!("{text} is for who is signed in, and nobody can: auth_configure {methods}"));
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
    for name in described.tables.keys() {
        let found = app.table(name).map(|model| access::lint(model, &indexed, None)).unwrap_or_default();
        advice.extend(told(name, found));
    }
    for (name, bucket) in &described.buckets {
        let call = json!({ "name": name, "access": "private" });
        if bucket.unmanaged {
            advice.push(format!(
                "the files of {name} are of an earlier release, this brings them back: storage_bucket {call}"
            ));
        } else if bucket.access.is_none() {
            advice.push(format!(
                "the bucket {name} has no access, only you reach its files: storage_bucket {call}"
            ));
        }
    }
    advice.extend(unindexed(schema, &indexed));
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
            advice.extend(told(&table.name, vec![Finding { message, mend }]));
        }
    }
    advice
}

/// Findings in words, those together that one call mends.
fn told(table: &str, found: Vec<Finding>) -> Vec<String> {
    let mut told: Vec<(Vec<String>, String)> = Vec::new();
    for Finding { message, mend } in found {
        let Some(call) = mend.map(|mend| mend.call(table)) else { continue };
        match told.iter_mut().find(|(_, known)| *known == call) {
            Some((messages, _)) => messages.push(message),
            None => told.push((vec![message], call)),
        }
    }
    told.into_iter().map(|(messages, call)| format!("{}: {call}", messages.join("; "))).collect()
}
