//! Tasks: an app that somebody might ask an agent for, how one sees that it works, and how it is attacked.
//!
//! A task is written once and tried in every way: the verifier says whether an app does what was asked for, whoever
//! built it, and the attacks say whether it does more than that. A new kind of app is a new [`Task`], a new way to
//! harm one a new [`Attack`].

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::app::{App, Person, Reply};
use crate::ground::Place;

/// What every row of the victim says; whoever else gets to read it has broken in.
pub const MARK: &str = "for alice alone";

/// An app that somebody might ask for.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// What it is called; the beginning of its environments' slugs.
    pub name: &'static str,
    /// The whole app.
    pub manifest: fn() -> Value,
    /// Holds that the app does what it is for.
    pub verify: fn(&App) -> anyhow::Result<()>,
    /// Gives the victim rows that hold [`MARK`], and the attacker one that does not.
    pub settle: fn(&Person, Usage) -> anyhow::Result<Vec<Value>>,
    /// A query for every row that the attacker may not change; its parameter is the attacker's id.
    pub untouchable: &'static str,
}

/// Whose rows are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Those of the one who is attacked.
    Victim,
    /// Those of the one who attacks.
    Attacker,
}

/// One way to harm others.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// What is tried.
    pub name: &'static str,
    /// Tries it, and holds that each step is refused as it must be.
    pub attempt: fn(&Scene) -> anyhow::Result<()>,
}

/// An app with a victim, somebody who attacks, and a second app of the same form.
pub struct Scene {
    /// The environment.
    pub place: Place,
    /// The app that is attacked.
    pub app: App,
    /// Somebody with rows.
    pub alice: Person,
    /// Alice's rows, oldest first.
    pub rows: Vec<Value>,
    /// Somebody else with a session.
    pub mallory: Person,
    /// Mallory's own row.
    pub own: Value,
    /// The same app in another environment.
    pub elsewhere: App,
    untouchable: &'static str,
}

impl Task {
    /// Makes the app, twice, and puts people into it.
    ///
    /// # Errors
    /// Where the app cannot be made or used.
    pub fn scene(&self) -> anyhow::Result<Scene> {
        let (place, app) = self.deploy()?;
        let (_, elsewhere) = self.deploy()?;
        let (alice, mallory) = (app.stranger()?, app.stranger()?);
        let rows = (self.settle)(&alice, Usage::Victim)?;
        let own = (self.settle)(&mallory, Usage::Attacker)?.pop().context("a row of the attacker's")?;
        Ok(Scene { place, app, alice, rows, mallory, own, elsewhere, untouchable: self.untouchable })
    }

    /// Makes the app in a new environment.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn deploy(&self) -> anyhow::Result<(Place, App)> {
        let place = Place::new(self.name)?;
        let applied = place.output("app_apply", &json!({ "manifest": (self.manifest)() }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        Ok((place, app))
    }

    /// Tries every attack on one app, which must work before and after, and tells of each that got through.
    ///
    /// # Errors
    /// With every attack that was not refused as it must be, or that changed something.
    pub fn withstands(&self, attacks: &[Attack]) -> anyhow::Result<()> {
        let mut scene = self.scene()?;
        let mut through = Vec::new();
        for attack in attacks {
            let before = scene.state()?;
            if let Err(error) = (attack.attempt)(&scene) {
                through.push(format!("{}: {error:#}", attack.name));
            }
            let after = scene.state()?;
            if after != before {
                through.push(format!("{}: rows have changed\n  from {before}\n  to   {after}", attack.name));
                scene = self.scene()?;
            }
        }
        let count = through.len();
        if let Err(error) = (self.verify)(&scene.app) {
            through.push(format!("after the attacks the app does not do what it is for: {error:#}"));
        }
        ensure!(through.is_empty(), "{count} of {} got through:\n{}", attacks.len(), through.join("\n"));
        Ok(())
    }
}

impl Scene {
    /// Everything that the attacker may not change, as the operator sees it.
    ///
    /// # Errors
    /// Where the server refuses to tell.
    pub fn state(&self) -> anyhow::Result<Value> {
        let query = json!({ "sql": self.untouchable, "params": [self.mallory.id()], "limit": 500 });
        self.place.output("db_query", &query)
    }

    /// The id of the victim's newest row.
    #[must_use]
    pub fn target(&self) -> &str {
        self.rows.last().and_then(|row| row["id"].as_str()).unwrap_or_default()
    }

    /// The id of the attacker's own row.
    #[must_use]
    pub fn own_id(&self) -> &str {
        self.own["id"].as_str().unwrap_or_default()
    }

    /// Both who may not see the victim's rows: somebody with a session and somebody without.
    #[must_use]
    pub fn attackers(&self) -> [Person; 2] {
        [self.mallory.clone(), self.app.visitor()]
    }

    /// Holds that an answer is a refusal of this kind, which tells nothing of the victim.
    ///
    /// # Errors
    /// Where it is something else.
    pub fn refused(&self, reply: &Reply, status: u16, code: &str) -> anyhow::Result<()> {
        self.tells_nothing(reply)?;
        reply.refuses(status, code)
    }

    /// Holds that an answer holds nothing of the victim's rows.
    ///
    /// # Errors
    /// Where it does.
    pub fn tells_nothing(&self, reply: &Reply) -> anyhow::Result<()> {
        let leaks = reply.body.to_string().contains(MARK)
            || reply.headers.iter().any(|(_, value)| value.contains(MARK));
        ensure!(!leaks, "LEAK: {reply:?}");
        Ok(())
    }
}
