//! What to look at next: what is likely wrong with an app, each with the very call that mends it where there is one.

use serde_json::json;

use super::describe::Description;
use super::events::OFF;
use crate::access::{self, Finding, Indexed, Mend};
use crate::database::Schema;
use crate::functions::Access;
use crate::routes::{Route, Target, Who};
use crate::rows::{App, BUCKET, Method, TableModel};

/// Findings, and the call that mends them.
struct Piece {
    found: Vec<String>,
    call: String,
}

/// What to look at next, worst first: what is likely wrong, then `: `, and the call that mends it.
pub(super) fn advice(described: &Description, schema: &Schema, app: &App) -> Vec<String> {
    let mut advice = Vec::new();
    let files = json!({ "files": { "index.html": "<!doctype html><h1>Hello</h1>" } });
    if described.release.is_none() {
        let call = json!({ "manifest": { "site": files } });
        let found = "nothing is applied yet, a manifest has tables and a site".to_owned();
        add(&mut advice, found, format!("app_apply {call}"));
    } else if described.site.is_none() {
        add(&mut advice, "there is no site".to_owned(), format!("site_deploy {files}"));
    }
    let nobody = described.auth.as_ref().is_none_or(|auth| auth.methods.is_empty());
    let owned = app.tables.values().find(|table| table.has_owner());
    let asks = |route: &&Route| matches!(route.auth, Who::SignedIn | Who::Role(_));
    let found = match (owned, app.routes.iter().find(asks)) {
        (Some(table), _) => Some(format!("rows of {} belong to users, and nobody can sign in", table.name)),
        (None, Some(route)) => {
            Some(format!("{} is for who is signed in, and nobody can sign in", route.text))
        }
        (None, None) => lonely(described, app)
            .map(|name| format!("the function {name} is for who is signed in, and nobody can sign in")),
    };
    if let Some(found) = found.filter(|_| nobody) {
        let call = json!({ "methods": ["anonymous", "password"] });
        add(&mut advice, found, format!("auth_configure {call}"));
    }
    let methods = described.auth.as_ref().map(|auth| &auth.methods);
    if methods
        .is_some_and(|methods| methods.iter().all(|method| *method == Method::Passkey) && !methods.is_empty())
    {
        let call = json!({ "methods": ["passkey", "password"] });
        let found = "a passkey is added by who has signed in otherwise, and there is no other way".to_owned();
        add(&mut advice, found, format!("auth_configure {call}"));
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
        found.into_iter().for_each(|finding| told(&mut advice, name, finding));
    }
    for (name, bucket) in &described.buckets {
        let call = format!("storage_bucket {}", json!({ "name": name, "access": "private" }));
        if bucket.unmanaged {
            let found = format!("the files of {name} are of an earlier release, this brings them back");
            add(&mut advice, found, call);
        } else if bucket.access.is_none() {
            add(&mut advice, format!("the bucket {name} has no access, only you reach its files"), call);
        } else if let Some(model) = app.buckets.get(name) {
            let name = format!("{BUCKET}{name}");
            let model = TableModel { name: name.clone(), ..model.table.clone() };
            let found = access::lint(&model, &indexed, None);
            found.into_iter().for_each(|finding| told(&mut advice, &name, finding));
        }
    }
    for (name, channel) in described.realtime.iter().flat_map(|realtime| &realtime.channels) {
        if channel.send.as_deref().is_some_and(|send| ["true", "public"].contains(&send.trim())) {
            let found = format!("everybody, signed in or not, may send to the channel {name}");
            let mut realtime = described.realtime.clone().unwrap_or_default();
            if let Some(channel) = realtime.channels.get_mut(name) {
                channel.send = Some("auth.uid != null".to_owned());
            }
            add(&mut advice, found, format!("app_apply {}", json!({ "manifest": { "realtime": realtime } })));
        }
    }
    if described.schedules.values().any(|schedule| schedule.held) {
        let found = "no schedule runs in this copy of an app, this has them run here too".to_owned();
        add(&mut advice, found, "app_apply with the `schedules` of its manifest".to_owned());
    }
    if described.functions.values().any(|function| function.events.iter().any(|it| it == OFF)) {
        let found =
            "functions are told of no events in this copy of an app, this has them be told".to_owned();
        add(&mut advice, found, "app_apply with the `functions` of its manifest".to_owned());
    }
    unindexed(schema, &indexed, &mut advice);
    advice.into_iter().map(|Piece { found, call }| format!("{}: {call}", found.join("; "))).collect()
}

/// A function that nobody but who is signed in reaches.
fn lonely<'a>(described: &'a Description, app: &App) -> Option<&'a String> {
    let mut functions = described.functions.iter().filter(|(_, it)| it.access == Access::SignedIn);
    let is_led_to =
        |name: &str| app.routes.iter().any(|it| matches!(&it.to, Target::Function(to) if to == name));
    functions.find(|(name, _)| !is_led_to(name)).map(|(name, _)| name)
}

/// References that every deletion of what they refer to has to look for in the whole table.
fn unindexed(schema: &Schema, indexed: &Indexed, advice: &mut Vec<Piece>) {
    for table in &schema.tables {
        let has = indexed.get(&table.name.to_ascii_lowercase());
        for column in table.foreign_keys.iter().filter_map(|key| key.columns.first()) {
            if has.is_some_and(|all| all.iter().any(|it| it.eq_ignore_ascii_case(column))) {
                continue;
            }
            let message = format!("{}.{column} refers to rows and has no index", table.name);
            let mend = Some(Mend::Index { table: table.name.clone(), column: column.clone() });
            told(advice, &table.name, Finding { message, mend });
        }
    }
}

fn told(advice: &mut Vec<Piece>, table: &str, finding: Finding) {
    if let Some(mend) = finding.mend {
        add(advice, finding.message, mend.call(table));
    }
}

/// Adds a finding, beside others that the same call mends.
fn add(advice: &mut Vec<Piece>, found: String, call: String) {
    match advice.iter_mut().find(|piece| piece.call == call) {
        Some(piece) => piece.found.push(found),
        None => advice.push(Piece { found: vec![found], call }),
    }
}
