//! What changes beside the database.

use super::change::{Action, Draft, EffectKind};
use super::keeping;
use super::rehearsal::Release;
use crate::hosting::SiteDiff;

/// What changes between two releases.
pub(super) fn changes(base: &Release, release: &Release, draft: &mut Draft) {
    if base.manifest.name != release.manifest.name {
        draft.change(Action::Alter, "name", release.manifest.name.clone());
    }
    let auth = |release: &Release| release.manifest.auth.clone().unwrap_or_default();
    let (was, is) = (auth(base), auth(release));
    if was != is {
        let detail = format!("{was} → {is}");
        draft.change(Action::Alter, "auth", Some(detail.clone()));
        draft.effect(EffectKind::Privilege, "auth", detail);
    }
    let realtime = |release: &Release| release.manifest.realtime.clone().unwrap_or_default();
    let (was, is) = (realtime(base), realtime(release));
    if was != is {
        let detail = format!("{was} → {is}");
        draft.change(Action::Alter, "realtime", Some(detail.clone()));
        draft.effect(EffectKind::Privilege, "realtime", detail);
    }
    keeping::changes(&base.manifest, &release.manifest, draft);
    if base.manifest.secrets != release.manifest.secrets {
        let names = release.manifest.secrets.clone().unwrap_or_default();
        draft.change(Action::Alter, "secrets", Some(names.join(", ")));
    }
    if base.manifest.tests != release.manifest.tests {
        let tests = release.manifest.tests.as_ref().map_or(0, Vec::len);
        draft.change(Action::Alter, "tests", Some(format!("{tests} tests of access")));
    }
    match (&base.site, &release.site) {
        (None, Some(site)) => {
            let detail = format!("{} files, {} bytes", site.files.len(), site.bytes());
            draft.change(Action::Create, "site", Some(detail));
            draft.effect(
                EffectKind::Privilege,
                "site",
                "its files are served to everybody who has the address",
            );
        }
        (Some(_), None) => {
            draft.change(Action::Drop, "site", None);
            draft.effect(EffectKind::Privilege, "site", "the address has nothing to show any more");
        }
        (Some(before), Some(after)) => {
            let diff = before.diff(after);
            if !diff.is_empty() {
                draft.change(Action::Alter, "site", Some(words(&diff)));
            }
        }
        (None, None) => {}
    }
}

/// What differs, in few words.
pub(super) fn words(diff: &SiteDiff) -> String {
    let mut parts = Vec::new();
    for (verb, paths) in [("added", &diff.added), ("changed", &diff.changed), ("removed", &diff.removed)] {
        let named: Vec<_> = paths.iter().take(5).map(ToString::to_string).collect();
        match paths.len() {
            0 => {}
            n if n <= 5 => parts.push(format!("{verb} {}", named.join(", "))),
            n => parts.push(format!("{verb} {} and {} more", named.join(", "), n - 5)),
        }
    }
    if !diff.settings.is_empty() {
        parts.push(format!("changed settings {}", diff.settings.join(", ")));
    }
    parts.join("; ")
}
