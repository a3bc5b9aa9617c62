//! What random changes tell, under random rules: nobody hears of a row that no list would have shown, and everybody of
//! each change of what a list shows.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use conformance_tests::Events;
use serde_json::{Value, json};

use crate::app_random::{TABLES, World, without_times};
use crate::app_reference::Actor;
use crate::app_rules::Rule;

/// Somebody who listens to one table.
struct Ear {
    actor: Actor,
    table: usize,
    events: Events,
    /// The list as what was heard makes it.
    heard: BTreeMap<String, Value>,
    /// Every row, as it was at any time, that a list would have shown.
    shown: BTreeMap<String, Vec<Value>>,
}

impl Ear {
    /// None where the table has no list for anybody.
    fn open(world: &World, actor: Actor, table: usize) -> anyhow::Result<Option<Self>> {
        let wanted = json!({ "table": TABLES[table] });
        let mut events = match world.person(actor).subscribed(&[wanted], None) {
            Ok(events) => events,
            Err(error) if world.tables[table].access.has_list() => return Err(error),
            Err(_) => return Ok(None),
        };
        let first = events.event()?;
        ensure!(first["type"] == "subscribed", "{first}");
        let mut ear = Self { actor, table, events, heard: BTreeMap::new(), shown: BTreeMap::new() };
        ear.heard = ear.listed(world);
        ear.look(world);
        Ok(Some(ear))
    }

    fn listed(&self, world: &World) -> BTreeMap<String, Value> {
        let table = &world.tables[self.table];
        let rows = table.list(self.actor, &Rule::Constant(true)).into_iter();
        rows.map(|row| (row.id.clone(), world.told(table, row))).collect()
    }

    fn look(&mut self, world: &World) {
        for (id, row) in self.listed(world) {
            let before = self.shown.entry(id).or_default();
            if !before.contains(&row) {
                before.push(row);
            }
        }
    }

    fn hear(&mut self, event: &Value, world: &World) -> anyhow::Result<()> {
        let id = event["row"]["id"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap_or_default() {
            "insert" | "update" => {
                let row = without_times(&event["row"]);
                ensure!(self.shown.get(&id).is_some_and(|rows| rows.contains(&row)), "leaked: {event}");
                self.heard.insert(id, row);
            }
            "delete" => {
                ensure!(event["row"] == json!({ "id": id }), "leaked: {event}");
                ensure!(self.shown.contains_key(&id), "leaked that there was a row: {event}");
                self.heard.remove(&id);
            }
            "reset" => self.heard = self.listed(world),
            _ => bail!("what is that: {event}"),
        }
        Ok(())
    }

    /// Listens until what was heard makes the list that there is.
    fn catch_up(&mut self, world: &World) -> anyhow::Result<()> {
        let expected = self.listed(world);
        while self.heard != expected {
            let event = self.events.event().with_context(|| {
                format!("{:?} has heard of\n  {:?}\nand not of\n  {expected:?}", self.actor, self.heard)
            })?;
            self.hear(&event, world)?;
        }
        Ok(())
    }

    /// Listens to what is left, which nothing may leak in either.
    fn rest(mut self, world: &World) -> anyhow::Result<()> {
        self.events.socket().set_read_timeout(Some(Duration::from_millis(300)))?;
        while let Ok(event) = self.events.event() {
            self.hear(&event, world)?;
        }
        ensure!(self.heard == self.listed(world), "{:?}: more was heard: {:?}", self.actor, self.heard);
        Ok(())
    }
}

fn listen(seed: u64, changes: usize) -> anyhow::Result<usize> {
    let mut world = World::new(seed)?;
    let mut ears = Vec::new();
    for actor in Actor::ALL {
        for table in 0..TABLES.len() {
            ears.extend(Ear::open(&world, actor, table)?);
        }
    }
    for _ in 0..changes {
        let actor = world.chance.of(&Actor::ALL);
        let step = world.step();
        world.alone(actor, &step)?;
        ears.iter_mut().for_each(|ear| ear.look(&world));
        if world.chance.once_in(5) {
            ears.iter_mut().try_for_each(|ear| ear.catch_up(&world))?;
        }
    }
    ears.iter_mut().try_for_each(|ear| ear.catch_up(&world))?;
    let heard = ears.len();
    ears.into_iter().try_for_each(|ear| ear.rest(&world))?;
    Ok(heard)
}

fn all(worlds: u64, changes: usize, first_seed: u64) {
    let mut ears = 0;
    for seed in first_seed..first_seed + worlds {
        ears += listen(seed, changes).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
    assert!(ears > 0, "nobody listened");
}

#[test]
fn random_changes_are_heard_by_who_may_list_the_rows_and_by_nobody_else() {
    all(4, 80, 1);
}

#[test]
#[ignore = "soak: 10,000 random changes, of other seeds each time"]
fn soak_with_ten_thousand_random_changes_that_are_heard() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    all(50, 200, now.as_secs());
}
