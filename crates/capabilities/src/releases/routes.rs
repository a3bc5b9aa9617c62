//! The routes of a release: what changes with them, and whom that lets in.

use std::collections::BTreeSet;

use kernel::Result;

use super::change::{Action, Draft, EffectKind};
use super::rehearsal::Release;
use crate::functions::Kind;
use crate::routes::{RouteSpec, Routes, Target, There, Who};

impl Release {
    /// The routes, over the tables, buckets and functions that there are.
    pub(super) fn routes(&self) -> Result<Routes> {
        let Some(spec) = &self.manifest.routes else { return Ok(Routes::default()) };
        let tables: BTreeSet<String> = self.tables()?.iter().map(|table| table.name.folded()).collect();
        let buckets = self.manifest.storage.iter().flat_map(|storage| storage.buckets.keys());
        let buckets: BTreeSet<String> = buckets.map(ToString::to_string).collect();
        let of = |kind| {
            let all = self.functions.iter().filter(move |(_, it)| it.kind() == kind);
            all.map(|(name, _)| name.to_string()).collect::<BTreeSet<_>>()
        };
        let (functions, services) = (of(Kind::Function), of(Kind::Service));
        let there = There { tables: &tables, buckets: &buckets, functions: &functions, services: &services };
        Routes::parse(spec, there).map_err(|e| e.under("/routes"))
    }
}

/// What changes between two releases.
pub(super) fn diff(base: &Release, release: &Release, draft: &mut Draft) -> Result<()> {
    let routes = release.routes()?;
    let of = |release: &'_ Release| release.manifest.routes.clone().unwrap_or_default();
    let (before, after) = (of(base), of(release));
    if before == after {
        return Ok(());
    }
    for (pattern, spec) in &after {
        let target = format!("route {pattern}");
        match before.get(pattern) {
            Some(old) if old == spec => {}
            Some(old) => {
                draft.change(Action::Alter, &target, Some(format!("{old} → {spec}")));
                if lets_in(old) != lets_in(spec) {
                    let message = format!("{} → {}", who(old), who(spec));
                    draft.effect(EffectKind::Privilege, target, message);
                }
            }
            None => {
                draft.change(Action::Create, &target, Some(spec.to_string()));
                draft.effect(EffectKind::Privilege, target, who(spec));
            }
        }
    }
    for (pattern, old) in before.iter().filter(|(pattern, _)| !after.contains_key(*pattern)) {
        let target = format!("route {pattern}");
        let message = match (&old.to, &old.auth) {
            (Target::Site, Who::Public) => None,
            (Target::Site, _) => Some("what the site has there is served to everybody".to_owned()),
            (other, _) => Some(format!("{other} is not reached there any more")),
        };
        if let Some(message) = message {
            draft.effect(EffectKind::Privilege, &target, message);
        }
        draft.change(Action::Drop, target, None);
    }
    hidden(base, release, &routes, draft);
    Ok(())
}

/// What of a route says who gets what.
fn lets_in(spec: &RouteSpec) -> RouteSpec {
    RouteSpec { limit: None, max_body: None, timeout: None, ..spec.clone() }
}

/// Whom a route lets in, to what.
fn who(spec: &RouteSpec) -> String {
    let who = match &spec.auth {
        Who::Public => "everybody".to_owned(),
        Who::SignedIn => "who is signed in".to_owned(),
        Who::Role(role) => format!("whoever has the role {role}"),
        Who::Service => "only who has a platform key".to_owned(),
    };
    let what = match &spec.to {
        Target::Site => "gets the site there".to_owned(),
        Target::Bucket(name) => format!("reaches files of {name} there, as far as its access lets them"),
        Target::Function(name) => format!("asks the function {name} there"),
        Target::Service(name) => format!("asks the service {name} there"),
        Target::Table(name) => format!("reaches rows of {name} there, as far as its access lets them"),
    };
    let pages = spec.cors.as_ref().map(|cors| format!(", also from pages of {}", cors.origins.join(", ")));
    format!("{who} {what}{}", pages.unwrap_or_default())
}

/// Says which files of the site nobody sees any more, because a route answers at their addresses.
fn hidden(base: &Release, release: &Release, routes: &Routes, draft: &mut Draft) {
    let before = base.routes().unwrap_or_default();
    let files = release.site.iter().flat_map(|site| site.files.keys()).map(ToString::to_string);
    let hidden: Vec<String> = files
        .filter(|file| routes.hides(&format!("/{file}")) && !before.hides(&format!("/{file}")))
        .collect();
    if let Some(first) = hidden.first() {
        let more = hidden.len() - 1;
        let more = if more > 0 { format!(" and {more} more files") } else { String::new() };
        let message = format!("answer in place of /{first}{more} of the site");
        draft.effect(EffectKind::Privilege, "routes", message);
    }
}
