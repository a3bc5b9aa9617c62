//! Random people at a bucket with random rules over what is noted about files, held against the reference of rows: nothing
//! more is listed, read, put, replaced, moved, copied or removed than access says, and nothing less.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Place, Reply};
use serde_json::{Map, Value, json};

use crate::app_chance::Chance;
use crate::app_reference::{Access, Actor, Row, Step, Table, Version};
use crate::app_rules::Rule;

struct World {
    _place: Place,
    people: [Person; 4],
    /// The bucket, as a table whose rows are called by their paths.
    tables: Vec<Table>,
    chance: Chance,
    made: usize,
}

/// Rules of rows as those of files: what columns are there is noted here, but for the owner.
fn of_files(access: &Value) -> Value {
    let noted = |rule: &str| {
        let rule = rule.replace("row.", "row.metadata.").replace("new.", "new.metadata.");
        rule.replace("metadata.owner", "owner")
    };
    match access {
        Value::Object(rules) => rules
            .iter()
            .map(|(operation, rule)| (operation.clone(), noted(rule.as_str().unwrap()).into()))
            .collect::<Map<_, _>>()
            .into(),
        preset => preset.clone(),
    }
}

/// A JSON object as a header has it: in ASCII.
fn ascii(object: &Map<String, Value>) -> String {
    let mut text = String::new();
    for c in Value::from(object.clone()).to_string().chars() {
        if c.is_ascii() { text.push(c) } else { text.push_str(&format!("\\u{:04x}", c as u32)) }
    }
    text
}

impl World {
    fn new(seed: u64) -> anyhow::Result<Self> {
        let mut chance = Chance(seed);
        let access = chance.access();
        let mut bucket = json!({});
        if let Some(spec) = access.spec() {
            bucket["access"] = of_files(&spec);
        }
        let manifest =
            json!({ "auth": { "methods": ["anonymous"] }, "storage": { "buckets": { "box": bucket } } });
        let place = Place::new("random-files")?;
        let applied = place.output("app_apply", &json!({ "manifest": manifest }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        let admin = app.stranger()?;
        place.output("auth_user_set", &json!({ "user": admin.id(), "role": "admin" }))?;
        let people = [app.visitor(), app.stranger()?, app.stranger()?, admin];
        let tables = vec![Table { name: "box", access, rows: Vec::new() }];
        let mut world = Self { _place: place, people, tables, chance, made: 0 };
        for actor in Actor::ALL {
            for _ in 0..3 {
                world.put(actor)?;
            }
        }
        Ok(world)
    }

    fn person(&self, actor: Actor) -> &Person {
        &self.people[actor as usize]
    }

    fn put(&mut self, actor: Actor) -> anyhow::Result<()> {
        let mut values = self.chance.values(true);
        values.entry("done").or_insert(false.into());
        self.made += 1;
        let path = format!("f{}.txt", self.made);
        let step = Step::Create { table: 0, values: values.clone(), owner: None };
        let expected = step.verdict(&self.tables, actor);
        let request = self.person(actor).request("PUT", &format!("/_/files/box/{path}"));
        let request = request.header("content-type", "text/plain").header("file-metadata", &ascii(&values));
        let reply = Reply::of(request.body(path.clone().into_bytes()))?;
        ensure!(reply.status == expected, "{expected} was expected: {actor:?} puts {values:?}: {reply:?}");
        if expected == 201 {
            let made = self.tables[0].made(actor, &values);
            self.tables[0].rows.push(Row { id: path, ..made });
        }
        Ok(())
    }

    /// Puts a file where one is. Who may not see that one is not told more than they are of an empty place.
    fn replace(&mut self, actor: Actor) -> anyhow::Result<()> {
        let path = self.path();
        let Some(at) = self.tables[0].rows.iter().position(|row| row.id == path) else { return Ok(()) };
        let mut values = self.chance.values(true);
        values.entry("done").or_insert(false.into());
        let table = &self.tables[0];
        let row = &table.rows[at];
        let new = Row { id: path.clone(), ..Row::new(row.owner, &values) };
        let expected = if table.access.shows(row, actor) {
            if table.access.changes(row, &new, actor) { 200 } else { 403 }
        } else if table.access.takes(&table.made(actor, &values), actor) {
            409
        } else {
            403
        };
        let request = self.person(actor).request("PUT", &format!("/_/files/box/{path}"));
        let request = request.header("content-type", "text/plain").header("file-metadata", &ascii(&values));
        let reply = Reply::of(request.body(b"again".to_vec()))?;
        ensure!(reply.status == expected, "{expected} was expected: {actor:?} replaces {path}: {reply:?}");
        if expected == 200 {
            self.tables[0].rows[at] = new;
        }
        Ok(())
    }

    /// Gives a file another path, or makes another of it.
    fn carry(&mut self, actor: Actor, how: &str) -> anyhow::Result<()> {
        let from = self.path();
        let to = if self.chance.once_in(3) { self.path() } else { format!("to{}.txt", self.made) };
        self.made += 1;
        if from == to {
            return Ok(());
        }
        let table = &self.tables[0];
        let given =
            |row: &Row| row.values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let made = |row: &Row| Row { id: to.clone(), ..table.made(actor, &given(row)) };
        let row = table.seen(actor, &from).cloned();
        let is_there = table.rows.iter().any(|row| row.id == to);
        let expected = match &row {
            None => 404,
            Some(row) if !table.access.takes(&made(row), actor) => 403,
            Some(_) if is_there => 409,
            Some(_) if how == "copy" => 201,
            Some(row) if !table.access.changes(row, row, actor) => 403,
            Some(_) => 200,
        };
        let copy = row.as_ref().map(made);
        let reply =
            self.person(actor).send("POST", &format!("/_/files/box/{from}/{how}"), &json!({ "to": to }))?;
        ensure!(
            reply.status == expected,
            "{expected} was expected: {actor:?} does {how} of {from} to {to}: {reply:?}"
        );
        let rows = &mut self.tables[0].rows;
        match expected {
            200 => rows.iter_mut().filter(|row| row.id == from).for_each(|row| row.id.clone_from(&to)),
            201 => rows.extend(copy),
            _ => {}
        }
        Ok(())
    }

    fn path(&mut self) -> String {
        let rows = &self.tables[0].rows;
        if rows.is_empty() || self.chance.once_in(10) {
            return "nothing.txt".to_owned();
        }
        let at = self.chance.below(rows.len());
        self.tables[0].rows[at].id.clone()
    }

    fn attack(&mut self) -> anyhow::Result<()> {
        let actor = self.chance.of(&Actor::ALL);
        match self.chance.below(12) {
            0 | 1 => return self.put(actor),
            8 | 9 => return self.replace(actor),
            10 => return self.carry(actor, "move"),
            11 => return self.carry(actor, "copy"),
            2..=4 => {
                let reply = self.person(actor).ask("GET", "/_/files/box?limit=200")?;
                let listed: BTreeSet<&str> = reply.body["files"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|it| it["path"].as_str())
                    .collect();
                let table = &self.tables[0];
                let expected = table.list(actor, &Rule::Constant(true));
                let expected: BTreeSet<&str> = expected.iter().map(|row| row.id.as_str()).collect();
                ensure!(listed == expected, "{actor:?} is listed {reply:?}, not {expected:?}");
            }
            5 | 6 => {
                let id = self.path();
                let step = Step::Get { table: 0, id: id.clone() };
                let expected = step.verdict(&self.tables, actor);
                for method in ["GET", "HEAD"] {
                    let reply = self.person(actor).ask(method, &format!("/_/files/box/{id}"))?;
                    ensure!(
                        reply.status == expected,
                        "{expected} was expected: {actor:?} reads {id}: {reply:?}"
                    );
                }
            }
            _ => {
                let id = self.path();
                let step = Step::Delete { table: 0, id: id.clone(), version: Version::Unasked };
                let expected = step.verdict(&self.tables, actor);
                let reply = self.person(actor).ask("DELETE", &format!("/_/files/box/{id}"))?;
                ensure!(
                    reply.status == expected,
                    "{expected} was expected: {actor:?} removes {id}: {reply:?}"
                );
                if expected == 204 {
                    self.tables[0].rows.retain(|row| row.id != id);
                }
            }
        }
        Ok(())
    }
}

fn attacks(worlds: u64, on_each: usize, first_seed: u64) {
    for seed in first_seed..first_seed + worlds {
        let mut world = World::new(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        for attack in 0..on_each {
            if let Err(error) = world.attack() {
                let access: Option<Value> = Access::spec(&world.tables[0].access);
                panic!("seed {seed}, attack {attack}, {access:?}: {error:#}");
            }
        }
    }
}

#[test]
fn random_attacks_on_files_read_and_change_what_access_says() {
    attacks(12, 90, 1);
}

#[test]
#[ignore = "soak: 10,000 random attacks on files, of other seeds each time"]
fn soak_with_ten_thousand_random_attacks_on_files() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    attacks(100, 100, now.as_secs());
}
