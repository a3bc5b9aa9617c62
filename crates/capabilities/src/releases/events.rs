//! The events that functions of a release listen to: what changes with them, and whether they are told of any in this place.

use indexmap::IndexMap;
use kernel::{Code, Env, Error, Result, Scope};
use serde_json::Value;

use super::Releases;
use super::change::{Action, Draft, EffectKind};
use super::describe::FunctionInfo;
use super::goal::Goal;
use super::rehearsal::Release;
use crate::database::{self, Role, Writer};
use crate::functions::{EventSpec, FunctionName, Handlers, On};

const IS_HELD: &str = "SELECT 1 FROM _steading_state WHERE key = 'events' AND value = 'held'";
const RELEASE: &str = "DELETE FROM _steading_state WHERE key = 'events'";

/// What waits for functions, and what they have failed at last.
const WAITING: &str = "SELECT function, count(*) FILTER (WHERE attempt >= 0), \
    max(at || ': ' || failed) FILTER (WHERE failed IS NOT NULL) FROM _steading_event GROUP BY function";

/// What stands for a function's events in a copy that tells it of none.
pub(super) const OFF: &str = "off in this copy";

impl Releases {
    /// Notes what waits for each of the functions, and what it was told of in vain; and that it is told of nothing in a copy.
    pub(super) async fn waiting(
        &self,
        env: &Env,
        functions: &mut IndexMap<String, FunctionInfo>,
    ) -> Result<()> {
        if functions.values().all(|it| it.events.is_empty()) {
            return Ok(());
        }
        for row in self.databases.platform_query(env, WAITING, &[]).await? {
            let name = row.first().and_then(Value::as_str).unwrap_or_default();
            let Some(info) = functions.get_mut(name) else { continue };
            info.waiting = row.get(1).and_then(Value::as_u64).unwrap_or_default();
            info.failed = row.get(2).and_then(Value::as_str).map(str::to_owned);
        }
        if !self.databases.platform_query(env, IS_HELD, &[]).await?.is_empty() {
            for info in functions.values_mut().filter(|it| !it.events.is_empty()) {
                info.events = vec![OFF.to_owned()];
            }
        }
        Ok(())
    }
}

/// Refuses events of what is not there; of tables it is seen when theirs are laid.
pub(super) fn check(release: &Release) -> Result<()> {
    for (name, function) in &release.functions {
        for (i, event) in function.settings.events.iter().enumerate().filter(|(_, it)| it.on == On::Files) {
            let about = event.about();
            let storage = release.manifest.storage.iter();
            if !storage.flat_map(|it| it.buckets.keys()).any(|bucket| bucket.as_str() == about) {
                let message = format!("there is no bucket {about}, and the function {name} listens to it");
                return Err(Error::invalid(format!("/functions/{name}/events/{i}/bucket"), message)
                    .hint("put it under `storage.buckets`, or leave the event out"));
            }
        }
    }
    Ok(())
}

/// Refuses a function that is to be told of events and has nothing to be told them by, where that is known.
pub(super) fn answers(name: &FunctionName, events: &[EventSpec], handlers: &Option<Handlers>) -> Result<()> {
    let can = |handlers: &Handlers| handlers.iter().any(|it| it == "event");
    if events.is_empty() || handlers.as_ref().is_none_or(can) {
        return Ok(());
    }
    let message = format!("the function {name} has events, and no handler for them");
    Err(Error::invalid("/events", message)
        .hint("export default { async event(event, env, ctx) { … } }, or leave `events` out"))
}

/// Has the functions of a copy be told of its events where a manifest brings functions, and says so.
pub(super) async fn begin(db: &mut Writer, goal: &Goal, release: &Release, draft: &mut Draft) -> Result<()> {
    let Goal::Apply { functions: Some(_), .. } = goal else { return Ok(()) };
    if db.run(Role::Platform, IS_HELD, &[]).await?.rows.is_empty() {
        return Ok(());
    }
    draft.step(RELEASE);
    if release.functions.values().any(|it| !it.settings.events.is_empty()) {
        draft.change(Action::Alter, "events", Some("functions are told of those of this copy".to_owned()));
    }
    Ok(())
}

/// What functions are told of that they do not reach by themselves, each with the scope that it takes to have them be told.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<(Scope, Error)>);

impl Told {
    /// What functions of `release` are told of by events or by code that `base` has not.
    pub(super) fn by(goal: &Goal, base: &Release, release: &Release) -> Self {
        // Who had brought it was allowed to.
        if let Goal::Back { .. } = goal {
            return Self::default();
        }
        let mut told = Vec::new();
        for (name, function) in &release.functions {
            let before = base.functions.get(name).filter(|it| it.sources == function.sources);
            for (i, event) in function.settings.events.iter().enumerate() {
                if before.is_some_and(|it| it.settings.events.contains(event)) {
                    continue;
                }
                let Some((scope, of)) = beyond(release, event) else { continue };
                let message = format!(
                    "the function {name} would be told of {of}: the credential lacks the scope {scope}"
                );
                let error = Error::new(Code::Forbidden, message)
                    .field(format!("{}/events/{i}", function.place(name)))
                    .hint(format!("use a credential with {scope}, or leave the event out"));
                told.push((scope, goal.placed(error)));
            }
        }
        Self(told)
    }

    /// That who acts may have them be told; else what was begun in `db` is rolled back.
    ///
    /// # Errors
    /// `forbidden` naming the function and what it would be told of.
    pub(super) async fn may(self, env: &Env, db: &mut Writer) -> Result<()> {
        let lacks = |(scope, _): &(Scope, Error)| env.permits(&[*scope]).is_err();
        let Some((_, refusal)) = self.0.into_iter().find(lacks) else { return Ok(()) };
        db.rollback().await?;
        Err(refusal)
    }
}

/// What an event tells that no function reaches by itself, and the scope of those who do.
fn beyond(release: &Release, event: &EventSpec) -> Option<(Scope, String)> {
    let about = event.about();
    let mut tables = release.manifest.database.iter().flat_map(|it| it.tables.keys());
    match event.on {
        On::Auth => Some((Scope::AuthRead, "the app's users".to_owned())),
        On::Rows if !tables.any(|it| it.as_str().eq_ignore_ascii_case(about)) => {
            Some((Scope::DbRead, format!("rows of {about}, a table that no manifest has")))
        }
        On::Rows | On::Files => None,
    }
}

/// That a function's code runs where something happens which did not make it run before.
pub(super) fn effect(target: &str, before: &[EventSpec], after: &[EventSpec], draft: &mut Draft) {
    let new: Vec<String> = after.iter().filter(|it| !before.contains(it)).map(ToString::to_string).collect();
    if !new.is_empty() {
        let message =
            format!("it runs with the app's rights each time that there is one: {}", new.join("; "));
        draft.effect(EffectKind::Cost, target, message);
    }
    let users = |events: &[EventSpec]| events.iter().any(|it| it.on == On::Auth);
    if users(after) && !users(before) {
        let message = "it is told who the app's users are: their addresses, roles and claims";
        draft.effect(EffectKind::Privilege, target, message.to_owned());
    }
}

/// In one line.
pub(super) fn said(events: &[EventSpec]) -> String {
    let events: Vec<String> = events.iter().map(ToString::to_string).collect();
    format!("events ({})", events.join("; "))
}

/// Has events be noted as the release wants it that is current by now.
pub(super) async fn lay(db: &mut Writer) -> Result<()> {
    db.lay_events().await.map_err(|error| match &error {
        database::Error::Listened { function, at, .. } => {
            let at = format!("/functions/{function}/events/{at}/table");
            Error::from(error).field(at)
        }
        _ => error.into(),
    })
}
