//! Random operations by random people on random presets and rules, held against a reference model: nothing more is read or
//! changed than access says, and nothing less.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use conformance_tests::{App, Person, Place, Reply};
use serde_json::{Map, Value, json};

use crate::app_chance::Chance;
use crate::app_reference::{Actor, Row, Step, Table, Version};
use crate::app_rules::{Of, Rule, place};

pub const TABLES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];

/// An app, what it should hold, and who uses it.
pub struct World {
    place: Place,
    people: [Person; 4],
    pub tables: Vec<Table>,
    /// The last cursors that anybody was given, and for which list.
    cursors: Vec<(List, String)>,
    pub chance: Chance,
}

/// A list that is asked for, page by page.
#[derive(Debug, Clone)]
struct List {
    table: usize,
    filter: Rule,
    /// Columns, and whether each is turned.
    order: Vec<(&'static str, bool)>,
}

impl List {
    fn text(&self) -> String {
        format!("{} where {} by {}", TABLES[self.table], self.filter.text(), self.by())
    }

    fn by(&self) -> String {
        let column = |(column, down): &(&str, bool)| format!("{}{column}", if *down { "-" } else { "" });
        self.order.iter().map(column).collect::<Vec<_>>().join(",")
    }

    /// Which of two rows comes first, as far as the order says.
    fn places(&self, one: &Value, other: &Value) -> Ordering {
        let columns = self.order.iter().map(|(column, down)| {
            let order = place(&one[*column], &other[*column]);
            if *down { order.reverse() } else { order }
        });
        columns.fold(Ordering::Equal, Ordering::then)
    }
}

impl World {
    pub fn new(seed: u64) -> anyhow::Result<Self> {
        let mut chance = Chance(seed);
        let tables: Vec<Table> = TABLES
            .into_iter()
            .map(|name| Table { name, access: chance.access(), rows: Vec::new() })
            .collect();
        let hidden = json!({ "type": "text", "default": "never seen", "hidden": true });
        let columns =
            json!({ "title": "text!", "n": "int", "done": "bool = false", "note": "text", "secret": hidden });
        let mut specs: Map<String, Value> = tables
            .iter()
            .map(|table| {
                let mut spec = json!({ "columns": columns, "search": ["title", "note"] });
                if let Some(access) = table.access.spec() {
                    spec["access"] = access;
                }
                (table.name.to_owned(), spec)
            })
            .collect();
        // Rows that everybody reads and that refer to those of the others.
        let refers = |table| (table, json!({ "type": format!("ref:{table}"), "on_delete": "set_null" }));
        let links: Value = TABLES.into_iter().map(refers).map(|(name, it)| (name.to_owned(), it)).collect();
        specs.insert("links".to_owned(), json!({ "columns": links, "access": "public_read" }));
        let manifest = json!({
            "auth": { "methods": ["anonymous"] },
            "database": { "tables": specs },
            "site": { "files": { "index.html": "<title>Random</title>" } },
        });
        let place = Place::new("random")?;
        let applied = place.output("app_apply", &json!({ "manifest": manifest }))?;
        let app = App::new(applied["url"].as_str().context("no url")?);
        let admin = app.stranger()?;
        place.output("auth_user_set", &json!({ "user": admin.id(), "role": "admin" }))?;
        let people = [app.visitor(), app.stranger()?, app.stranger()?, admin];
        let mut world = Self { place, people, tables, cursors: Vec::new(), chance };
        // Rows of every kind are there before the first attack.
        for table in 0..TABLES.len() {
            for actor in Actor::ALL {
                for _ in 0..2 {
                    let step = Step::Create { table, values: world.chance.values(true), owner: None };
                    world.alone(actor, &step)?;
                }
            }
        }
        Ok(world)
    }

    pub fn person(&self, actor: Actor) -> &Person {
        &self.people[actor as usize]
    }

    fn uid(&self, actor: Option<Actor>) -> Value {
        actor.map_or(Value::Null, |actor| self.person(actor).id().into())
    }

    /// A row as the app should tell it, but for its times.
    pub fn told(&self, table: &Table, row: &Row) -> Value {
        let mut told = json!({ "id": row.id });
        for (column, value) in &row.values {
            told[*column] = value.clone();
        }
        if table.access.has_owner() {
            told["owner"] = self.uid(row.owner);
        }
        told
    }

    fn attack(&mut self) -> anyhow::Result<()> {
        let actor = self.chance.of(&Actor::ALL);
        match self.chance.below(14) {
            0..=3 => self.list(actor),
            4 => self.batch(actor),
            5 => self.numbers(actor),
            6 => self.csv(actor),
            7 => self.words(actor),
            8 => self.along(actor),
            _ => {
                let step = self.step();
                self.alone(actor, &step)
            }
        }
    }

    pub fn step(&mut self) -> Step {
        let table = self.chance.below(self.tables.len());
        let version = match self.chance.below(6) {
            0 => Version::Current,
            1 => Version::Another,
            _ => Version::Unasked,
        };
        match self.chance.below(8) {
            0..=1 => Step::Create { table, values: self.chance.values(true), owner: self.owner() },
            2..=3 => Step::Get { table, id: self.id(table) },
            4..=6 => {
                let (id, owner) = (self.id(table), self.owner());
                Step::Update { table, id, values: self.chance.values(false), owner, version }
            }
            _ => Step::Delete { table, id: self.id(table), version },
        }
    }

    fn owner(&mut self) -> Option<Actor> {
        self.chance.once_in(4).then(|| Actor::ALL[1 + self.chance.below(3)])
    }

    /// The id of a row of this table; sometimes of another's, or of none.
    pub fn id(&mut self, table: usize) -> String {
        let table = if self.chance.once_in(12) { self.chance.below(self.tables.len()) } else { table };
        let rows = &self.tables[table].rows;
        if rows.is_empty() || self.chance.once_in(15) {
            return "01900000-0000-7000-8000-000000000000".to_owned();
        }
        rows[self.chance.below(rows.len())].id.clone()
    }

    /// A list that somebody might ask for.
    fn wanted(&mut self) -> List {
        let table = self.chance.below(self.tables.len());
        let filter = self.chance.rule(&[Of::Bare], self.tables[table].access.has_owner(), 2);
        let mut order = Vec::new();
        for column in ["n", "title", "note", "done", "created_at"] {
            if self.chance.once_in(4) {
                order.push((column, self.chance.once_in(2)));
            }
        }
        List { table, filter, order }
    }

    /// Walks through a list from its beginning, or from where somebody else has stopped.
    fn list(&mut self, actor: Actor) -> anyhow::Result<()> {
        let foreign =
            (!self.cursors.is_empty() && self.chance.once_in(4)).then(|| self.chance.of(&self.cursors));
        let whole = foreign.is_none();
        let (list, mut cursor) = match foreign {
            Some((list, cursor)) => (list, Some(cursor)),
            None => (self.wanted(), None),
        };
        let limit = if self.chance.once_in(3) { 50 } else { 1 + self.chance.below(4) };
        let what = format!("list {} as {actor:?}, {limit} at once, from {cursor:?}", list.text());
        let mut rows = Vec::new();
        for _ in 0..500 {
            let reply = self.page(actor, &list, limit, cursor.as_deref()).context(what.clone())?;
            ensure!(reply.status == 200, "{what}: {reply:?}");
            let page = reply.body["rows"].as_array().with_context(|| format!("{what}: {reply:?}"))?;
            ensure!(page.len() <= limit, "{what}: {} rows", page.len());
            rows.extend(page.iter().cloned());
            cursor = reply.body["cursor"].as_str().map(str::to_owned);
            let Some(cursor) = &cursor else { break };
            self.cursors.push((list.clone(), cursor.clone()));
            self.cursors.drain(..self.cursors.len().saturating_sub(20));
        }
        ensure!(cursor.is_none(), "{what}: it does not end");
        for pair in rows.windows(2) {
            ensure!(list.places(&pair[0], &pair[1]).is_le(), "{what}: not in order: {pair:?}");
        }
        let told: BTreeMap<String, Value> =
            rows.iter().map(|row| (row["id"].to_string(), without_times(row))).collect();
        ensure!(told.len() == rows.len(), "{what}: rows twice: {rows:?}");
        let table = &self.tables[list.table];
        let expected = table.list(actor, &list.filter).into_iter();
        let expected: BTreeMap<String, Value> =
            expected.map(|row| (json!(row.id).to_string(), self.told(table, row))).collect();
        let right =
            if whole { told == expected } else { told.iter().all(|(id, row)| expected.get(id) == Some(row)) };
        ensure!(right, "{what}:\n  {told:?}\nis not\n  {expected:?}");
        Ok(())
    }

    fn page(
        &mut self,
        actor: Actor,
        list: &List,
        limit: usize,
        cursor: Option<&str>,
    ) -> anyhow::Result<Reply> {
        let (name, filter, by) = (TABLES[list.table], list.filter.text(), list.by());
        let as_query = self.chance.once_in(2);
        let person = self.person(actor);
        if as_query {
            let mut query = json!({ "where": filter, "limit": limit });
            if !by.is_empty() {
                query["order"] = by.into();
            }
            if let Some(cursor) = cursor {
                query["cursor"] = cursor.into();
            }
            return person.send("POST", &format!("/_/db/{name}/query"), &query);
        }
        let limit = limit.to_string();
        let mut parameters = vec![("where", filter.as_str()), ("limit", &limit)];
        parameters.extend((!by.is_empty()).then_some(("order", by.as_str())));
        parameters.extend(cursor.map(|cursor| ("cursor", cursor)));
        person.list(name, &parameters)
    }

    /// Takes a step that was taken, and holds the row that was told against it.
    fn take(&mut self, actor: Actor, step: &Step, told: &Value, etag: &str) -> anyhow::Result<()> {
        let table = &mut self.tables[step.table()];
        let at = |id: &str| table.rows.iter().position(|row| row.id == id).context("no such row");
        let at = match step {
            Step::Create { values, .. } => {
                let id = told["id"].as_str().context("no id")?.to_owned();
                ensure!(table.rows.iter().all(|row| row.id != id), "an id twice: {id}");
                let made = table.made(actor, values);
                table.rows.push(Row { id, etag: etag.to_owned(), ..made });
                table.rows.len() - 1
            }
            Step::Get { id, .. } => at(id)?,
            Step::Update { id, values, .. } => {
                let at = at(id)?;
                let row = &mut table.rows[at];
                ensure!(row.etag != etag, "a change without a new version: {told}");
                *row = Row { etag: etag.to_owned(), ..row.with(values) };
                at
            }
            Step::Delete { id, .. } => {
                let at = at(id)?;
                table.rows.remove(at);
                return Ok(());
            }
        };
        let table = &self.tables[step.table()];
        let row = &table.rows[at];
        let expected = self.told(table, row);
        ensure!(without_times(told) == expected, "told {told}, not {expected}");
        ensure!(row.etag == etag, "the version is {etag}, not {}", row.etag);
        Ok(())
    }

    fn etag(&self, table: usize, id: &str, version: Version) -> Option<String> {
        match version {
            Version::Unasked => None,
            Version::Another => Some("\"another\"".to_owned()),
            Version::Current => {
                let row = self.tables[table].rows.iter().find(|row| row.id == id);
                Some(row.map_or_else(|| "*".to_owned(), |row| row.etag.clone()))
            }
        }
    }

    pub fn alone(&mut self, actor: Actor, step: &Step) -> anyhow::Result<()> {
        let expected = step.verdict(&self.tables, actor);
        let person = self.person(actor);
        let path = |table: &usize, id: &str| format!("/_/db/{}/{id}", TABLES[*table]);
        let (request, condition) = match step {
            Step::Create { table, values, owner } => {
                let request = person.request("POST", &format!("/_/db/{}", TABLES[*table]));
                (request.json(&self.body(values, *owner)), None)
            }
            Step::Get { table, id } => (person.request("GET", &path(table, id)), None),
            Step::Update { table, id, values, owner, version } => {
                let request = person.request("PATCH", &path(table, id));
                (request.json(&self.body(values, *owner)), self.etag(*table, id, *version))
            }
            Step::Delete { table, id, version } => {
                (person.request("DELETE", &path(table, id)), self.etag(*table, id, *version))
            }
        };
        let request = if let Some(etag) = condition { request.header("if-match", &etag) } else { request };
        let reply = Reply::of(request)?;
        let what = || format!("{actor:?}: {step:?}: {reply:?}");
        ensure!(reply.status == expected, "{expected} was expected of {}", what());
        if expected >= 400 {
            return reply.refuses(expected, code(expected)).with_context(what);
        }
        let etag = reply.header("etag").unwrap_or_default().to_owned();
        self.take(actor, step, &reply.body, &etag).with_context(what)
    }

    fn body(&self, values: &Map<String, Value>, owner: Option<Actor>) -> Value {
        let mut body = values.clone();
        if owner.is_some() {
            body.insert("owner".to_owned(), self.uid(owner));
        }
        body.into()
    }

    fn batch(&mut self, actor: Actor) -> anyhow::Result<()> {
        let steps: Vec<Step> = (0..1 + self.chance.below(4)).map(|_| self.step()).collect();
        let operations: Vec<Value> = steps.iter().map(|step| self.operation(step)).collect();
        let reply = self.person(actor).send("POST", "/_/batch", &json!({ "operations": operations }))?;
        let what = format!("{actor:?}: {steps:?}: {reply:?}");
        // Each step meets what those before it have done; a refusal undoes them all.
        let before = self.tables.clone();
        let malformed = steps.iter().position(|step| step.malformed(&self.tables, actor).is_some());
        let mut changed = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            // The versions were those of the rows before the batch.
            let expected = step.after(&changed).verdict(&self.tables, actor);
            if let Step::Update { id, .. } = step {
                changed.push(id.as_str());
            }
            if expected < 400 {
                if reply.status == 200 {
                    let result = &reply.body["results"][at];
                    ensure!(result["status"] == expected, "{expected} was expected of {at} in {what}");
                    let etag = result["etag"].as_str().unwrap_or_default();
                    self.take(actor, step, &result["row"], etag).with_context(|| what.clone())?;
                } else {
                    self.imagine(actor, step, at);
                }
                continue;
            }
            // What a step says is looked at before any is taken.
            let (at, expected) =
                malformed.map_or((at, expected), |first| (first, steps[first].verdict(&self.tables, actor)));
            self.tables = before;
            reply.refuses(expected, code(expected)).with_context(|| what.clone())?;
            let field = reply.body["field"].as_str().unwrap_or_default();
            let named = format!("/operations/{at}");
            ensure!(
                field == named || field.starts_with(&format!("{named}/")),
                "{named} was expected in {what}"
            );
            return Ok(());
        }
        if reply.status != 200 {
            bail!("nothing is wrong with {what}");
        }
        Ok(())
    }

    /// A step of a batch that is going to be refused, for those after it.
    fn imagine(&mut self, actor: Actor, step: &Step, at: usize) {
        let table = &mut self.tables[step.table()];
        match step {
            Step::Create { values, .. } => {
                let made = table.made(actor, values);
                table.rows.push(Row { id: format!("imagined {at}"), ..made });
            }
            Step::Update { id, values, .. } => {
                for row in table.rows.iter_mut().filter(|row| row.id == *id) {
                    *row = row.with(values);
                }
            }
            Step::Delete { id, .. } => table.rows.retain(|row| row.id != *id),
            Step::Get { .. } => {}
        }
    }

    fn operation(&self, step: &Step) -> Value {
        let mut operation = match step {
            Step::Create { table, values, owner } => {
                json!({ "do": "create", "on": TABLES[*table], "new": self.body(values, *owner) })
            }
            Step::Get { table, id } => json!({ "do": "get", "on": TABLES[*table], "id": id }),
            Step::Update { table, id, values, owner, .. } => {
                json!({ "do": "update", "on": TABLES[*table], "id": id, "new": self.body(values, *owner) })
            }
            Step::Delete { table, id, .. } => json!({ "do": "delete", "on": TABLES[*table], "id": id }),
        };
        if let Step::Update { table, id, version, .. } | Step::Delete { table, id, version } = step
            && let Some(etag) = self.etag(*table, id, *version)
        {
            operation["if_match"] = etag.into();
        }
        operation
    }

    /// Holds that every table has exactly the rows of the model, as the operator sees them.
    fn compare(&self) -> anyhow::Result<()> {
        for table in &self.tables {
            let owner = if table.access.has_owner() { ", owner" } else { "" };
            let name = table.name;
            let sql = format!("SELECT count(*) FROM {name}");
            let count = self.place.output("db_query", &json!({ "sql": sql }))?;
            ensure!(count["rows"] == json!([[table.rows.len()]]), "{name} has {count}");
            for rows in table.rows.chunks(10) {
                let ids: Vec<String> = rows.iter().map(|row| format!("'{}'", row.id)).collect();
                let sql = format!(
                    "SELECT id, title, n, done, note{owner} FROM {name} WHERE id IN ({}) ORDER BY id",
                    ids.join(", ")
                );
                let mut expected: Vec<Value> = rows.iter().map(|row| self.stored(table, row)).collect();
                expected.sort_by_key(|row| row[0].to_string());
                let found = self.place.output("db_query", &json!({ "sql": sql }))?;
                ensure!(found["rows"] == json!(expected), "{name} has {found}, not {expected:?}");
            }
        }
        Ok(())
    }

    fn stored(&self, table: &Table, row: &Row) -> Value {
        let [title, n, done, note] = ["title", "n", "done", "note"].map(|column| row.values[column].clone());
        let done = done.as_bool().map(i32::from);
        let mut stored = vec![json!(row.id), title, n, json!(done), note];
        stored.extend(table.access.has_owner().then(|| self.uid(row.owner)));
        stored.into()
    }
}

pub fn without_times(row: &Value) -> Value {
    let mut row = row.clone();
    for time in ["created_at", "updated_at"] {
        row.as_object_mut().map(|fields| fields.remove(time));
    }
    row
}

fn code(status: u16) -> &'static str {
    match status {
        400 => "invalid_input",
        403 => "forbidden",
        404 => "not_found",
        _ => "conflict",
    }
}

/// So many attacks on as many worlds as it takes, each of a seed of its own.
fn attacks(count: usize, on_each: usize, first_seed: u64) {
    for (seed, _) in (first_seed..).zip(0..count.div_ceil(on_each)) {
        let mut world = World::new(seed).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
        for attack in 0..on_each {
            if let Err(error) = world.attack() {
                let access =
                    world.tables.iter().map(|table| (table.name.to_owned(), json!(table.access.spec())));
                let access: Map<String, Value> = access.collect();
                panic!("seed {seed}, attack {attack}, {}: {error:#}", Value::from(access));
            }
        }
        world.compare().unwrap_or_else(|error| panic!("seed {seed}, at the end: {error:#}"));
    }
}

#[test]
fn random_attacks_read_and_change_what_access_says() {
    attacks(600, 100, 1);
}

#[test]
#[ignore = "soak: 10,000 random attacks, of other seeds each time"]
fn soak_with_ten_thousand_random_attacks() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    attacks(10_000, 200, now.as_secs());
}
