//! The functions and services of a release: what changes with them, and whom that lets in.

use std::collections::BTreeMap;

use kernel::{Code, Error, Result};

use super::beside::words;
use super::change::{Action, Draft, EffectKind};
use super::events;
use super::rehearsal::Release;
use crate::functions::{self, Access, Base, Files, Function, FunctionName, Kind, Runs, Serving, Settings};
use crate::hosting::{Site, SitePath};
use crate::routes::Target;

/// Refuses what the functions of a release cannot be together.
pub(super) fn check(release: &Release) -> Result<()> {
    functions::bounded_with_built(&release.functions)?;
    let app = release.manifest.variables.clone().unwrap_or_default();
    for (name, function) in &release.functions {
        function.settings.fits(&app).map_err(|e| e.under(&function.place(name)))?;
    }
    Ok(())
}

/// A release with one of them as it shall be.
pub(super) fn with(base: &Release, name: &FunctionName, function: &Function) -> Result<Release> {
    let mut release = base.clone();
    match release.functions.insert(name.clone(), function.clone()) {
        Some(before) if before.kind() != function.kind() => {
            Err(functions::taken(name, before.kind()).field(function.place(name)))
        }
        _ => Ok(release),
    }
}

/// A release without one of them.
pub(super) fn without(base: &Release, kind: Kind, name: &str) -> Result<Release> {
    let mut release = base.clone();
    let parsed = name.parse::<FunctionName>().ok();
    let known = parsed.filter(|name| release.functions.get(name).is_some_and(|it| it.kind() == kind));
    let Some(known) = known else {
        let name: String = name.chars().take(80).collect();
        return Err(Error::not_found(format!("{} {name}", kind.as_str())).field("/name"));
    };
    release.functions.remove(&known);
    let mut routes = release.manifest.routes.iter().flatten();
    let leads = |to: &Target| match (to, kind) {
        (Target::Function(to), Kind::Function) | (Target::Service(to), Kind::Service) => to == name,
        _ => false,
    };
    if let Some((pattern, _)) = routes.find(|(_, route)| leads(&route.to)) {
        let message = format!("the route {pattern} leads to the {} {name}", kind.as_str());
        return Err(Error::new(Code::Conflict, message)
            .field("/name")
            .hint("apply a manifest whose `routes` are without it first"));
    }
    if let Some((schedule, _)) =
        release.manifest.schedules.iter().flatten().find(|(_, it)| it.function.as_str() == name)
    {
        let message = format!("the schedule {schedule} asks the function {name}");
        return Err(Error::new(Code::Conflict, message)
            .field("/name")
            .hint("apply a manifest whose `schedules` are without it first"));
    }
    Ok(release)
}

/// What changes between two releases.
pub(super) fn diff(base: &Release, release: &Release, draft: &mut Draft) {
    let none = BTreeMap::new();
    let of = |release: &'_ Release| release.manifest.variables.clone().unwrap_or_default();
    if let Some(detail) = named(&of(base), &of(release)) {
        draft.change(Action::Alter, "variables", Some(detail));
    }
    for (name, function) in &release.functions {
        let target = format!("{} {name}", function.kind().as_str());
        let (settings, path) = (&function.settings, function.path(name));
        let Some(before) = base.functions.get(name).filter(|it| it.kind() == function.kind()) else {
            draft.change(Action::Create, &target, Some(said(function, &none)));
            let message = format!("{} may ask it at {path}", who(settings.access));
            draft.effect(EffectKind::Privilege, &target, message);
            events::effect(&target, &[], &settings.events, draft);
            continue;
        };
        if before == function {
            continue;
        }
        draft.change(Action::Alter, &target, Some(differences(before, function)));
        events::effect(&target, &before.settings.events, &settings.events, draft);
        if before.settings.access != settings.access {
            let message =
                format!("{} → {} may ask it at {path}", who(before.settings.access), who(settings.access));
            draft.effect(EffectKind::Privilege, target, message);
        }
    }
    let stays = |name: &FunctionName, kind| release.functions.get(name).is_some_and(|it| it.kind() == kind);
    for (name, function) in base.functions.iter().filter(|(name, it)| !stays(name, it.kind())) {
        let target = format!("{} {name}", function.kind().as_str());
        let message = format!("nothing answers at {} any more", function.path(name));
        draft.effect(EffectKind::Privilege, &target, message);
        draft.change(Action::Drop, target, None);
    }
}

/// A new function in one line, what is usual left out.
fn said(function: &Function, none: &BTreeMap<String, String>) -> String {
    let Function { sources, settings, .. } = function;
    let bytes: u64 = sources.files.values().map(|file| file.size).sum();
    let files = sources.files.len();
    let what = match &sources.runs {
        Runs::Function { runtime, .. } => runtime.as_str().to_owned(),
        Runs::Service { service } => format!("`{}`", service.command),
    };
    let mut parts = vec![what, settings.access.as_str().to_owned(), format!("{files} files, {bytes} bytes")];
    if let Some(build) = sources.serving().and_then(|serving| serving.build.as_ref()) {
        parts.push(format!("built by `{build}`"));
    }
    for (name, said, _, _) in settings.numbers(function.kind()) {
        parts.extend(said.map(|said| format!("{name} {said}")));
    }
    if settings.always {
        parts.push("always".to_owned());
    }
    parts.extend(named(none, &settings.variables).map(|names| format!("variables ({names})")));
    if !settings.secrets.is_empty() {
        parts.push(format!("secrets ({})", settings.secrets.join(", ")));
    }
    if !settings.events.is_empty() {
        parts.push(events::said(&settings.events));
    }
    parts.join(", ")
}

/// What differs between two versions of a function, or in how they run.
fn differences(before: &Function, after: &Function) -> String {
    let mut parts = Vec::new();
    let (was, is) = (&before.sources, &after.sources);
    let files = |files: &Files| Site { files: files.clone(), ..Site::default() };
    let code = files(&was.files).diff(&files(&is.files));
    if !code.is_empty() {
        parts.push(format!("code ({})", words(&code)));
    }
    let mut arrow = |name: &str, was: &str, is: &str| {
        if was != is {
            parts.push(format!("{name} {was} → {is}"));
        }
    };
    match (&was.runs, &is.runs) {
        (Runs::Function { runtime: was, entry: from }, Runs::Function { runtime: is, entry: to }) => {
            let entry = |entry: &Option<SitePath>| {
                entry.as_ref().map_or_else(|| "as usual".to_owned(), ToString::to_string)
            };
            arrow("entry", &entry(from), &entry(to));
            arrow("runtime", was.as_str(), is.as_str());
        }
        (Runs::Service { service: was }, Runs::Service { service: is }) => {
            for ((name, was), (_, is)) in run_by(was).into_iter().zip(run_by(is)) {
                arrow(name, &was, &is);
            }
        }
        _ => {}
    }
    arrow("built by", &before.artifact.built_by, &after.artifact.built_by);
    arrow("access", before.settings.access.as_str(), after.settings.access.as_str());
    for ((name, was, usual, _), (_, is, _, _)) in
        before.settings.numbers(before.kind()).into_iter().zip(after.settings.numbers(after.kind()))
    {
        arrow(name, &was.unwrap_or(usual).to_string(), &is.unwrap_or(usual).to_string());
    }
    arrow("always", &before.settings.always.to_string(), &after.settings.always.to_string());
    if was == is && before.artifact.built_by == after.artifact.built_by && before.artifact != after.artifact {
        parts.push("built again".to_owned());
    }
    parts.extend(
        named(&before.settings.variables, &after.settings.variables)
            .map(|names| format!("variables ({names})")),
    );
    parts.extend(secrets(&before.settings, &after.settings).map(|names| format!("secrets ({names})")));
    if before.settings.events != after.settings.events {
        parts.push(events::said(&after.settings.events));
    }
    parts.join(", ")
}

/// How a service is run, each with its name.
fn run_by(serving: &Serving) -> [(&'static str, String); 5] {
    let said = |text: Option<&String>| text.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    [
        ("command", said(Some(&serving.command))),
        ("build", said(serving.build.as_ref())),
        ("template", serving.template.map_or("as usual", Base::as_str).to_owned()),
        ("health", said(serving.health.path.as_ref())),
        ("there within", format!("{} s", serving.health.within_s())),
    ]
}

/// Which variables differ: their names, for their values are not for everybody who sees a plan.
fn named(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Option<String> {
    let added = after.keys().filter(|name| !before.contains_key(*name));
    let changed = after.iter().filter(|(name, value)| before.get(*name).is_some_and(|was| was != *value));
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    listed([added.collect(), changed.map(|(name, _)| name).collect(), removed.collect()])
}

fn secrets(before: &Settings, after: &Settings) -> Option<String> {
    let added = after.secrets.iter().filter(|name| !before.secrets.contains(name));
    let removed = before.secrets.iter().filter(|name| !after.secrets.contains(name));
    listed([added.collect(), Vec::new(), removed.collect()])
}

fn listed([added, changed, removed]: [Vec<&String>; 3]) -> Option<String> {
    let parts = [("added", added), ("changed", changed), ("removed", removed)];
    let parts = parts.into_iter().filter(|(_, names)| !names.is_empty()).map(|(verb, names)| {
        let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
        format!("{verb} {}", names.join(", "))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn who(access: Access) -> &'static str {
    match access {
        Access::Public => "everybody",
        Access::SignedIn => "who is signed in",
        Access::Service => "only who has a platform key",
    }
}
