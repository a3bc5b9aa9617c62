//! Random questions that could tell more than lists do: numbers, CSV, words, and rows that come along with others.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use conformance_tests::encoded;
use serde_json::{Value, json};

use crate::app_random::{TABLES, World, without_times};
use crate::app_reference::{Actor, Row};
use crate::app_rules::Of;

const WORDS: [&str; 10] = ["a", "ab", "b ", "e", "日本", "x", "it", "say it", "or 1", "A"];

/// The words of a text, as the index has them.
fn words(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word.to_lowercase().replace('é', "e")).collect()
}

/// Whether a row has the words, the last of them as a beginning where no blank ends it.
fn has(row: &Row, search: &str) -> bool {
    let text = |column: &str| row.values[column].as_str().unwrap_or_default().to_owned();
    let held: Vec<String> = ["title", "note"].iter().flat_map(|column| words(&text(column))).collect();
    let mut wanted = words(search);
    let last = if search.ends_with(' ') { None } else { wanted.pop() };
    wanted.iter().all(|word| held.contains(word))
        && last.is_none_or(|last| held.iter().any(|word| word.starts_with(&last)))
}

impl World {
    fn ids(&self, table: usize, actor: Actor, filter: &crate::app_rules::Rule) -> BTreeSet<String> {
        self.tables[table].list(actor, filter).into_iter().map(|row| row.id.clone()).collect()
    }

    /// Counts and sums, which are over the rows of a list and no others.
    pub fn numbers(&mut self, actor: Actor) -> anyhow::Result<()> {
        let table = self.chance.below(TABLES.len());
        let filter = self.chance.rule(&[Of::Bare], self.tables[table].access.has_owner(), 1);
        let query = json!({ "where": filter.text(), "aggregate": { "rows": "count()", "sum": "sum(n)", "noted": "count(note)" }, "group": ["done"] });
        let reply = self.person(actor).send("POST", &format!("/_/db/{}/query", TABLES[table]), &query)?;
        let what = format!("{actor:?}: {} {query}: {reply:?}", TABLES[table]);
        let listed = self.tables[table].list(actor, &filter);
        let mut expected = Vec::new();
        for done in [Value::Null, json!(false), json!(true)] {
            let rows: Vec<&&Row> = listed.iter().filter(|row| row.values["done"] == done).collect();
            let numbers: Vec<i64> = rows.iter().filter_map(|row| row.values["n"].as_i64()).collect();
            let sum = if numbers.is_empty() { Value::Null } else { json!(numbers.iter().sum::<i64>()) };
            let noted = rows.iter().filter(|row| !row.values["note"].is_null()).count();
            if !rows.is_empty() {
                expected.push(json!({ "done": done, "rows": rows.len(), "sum": sum, "noted": noted }));
            }
        }
        ensure!(reply.status == 200 && reply.body == json!({ "groups": expected }), "{what}: {expected:?}");
        Ok(())
    }

    /// A list as CSV, whole.
    pub fn csv(&mut self, actor: Actor) -> anyhow::Result<()> {
        let table = self.chance.below(TABLES.len());
        let filter = self.chance.rule(&[Of::Bare], self.tables[table].access.has_owner(), 1);
        let path = format!("/_/db/{}.csv?select=id&where={}", TABLES[table], encoded(&filter.text()));
        let reply = self.person(actor).ask("GET", &path)?;
        let lines: Vec<&str> = reply.body.as_str().context("no text")?.lines().collect();
        let found: BTreeSet<String> =
            lines.iter().skip(1).map(|line| line.trim_matches('"').to_owned()).collect();
        let expected = self.ids(table, actor, &filter);
        ensure!(
            lines.first() == Some(&"id") && found == expected,
            "{actor:?}: {path}: {reply:?} is not {expected:?}"
        );
        Ok(())
    }

    /// Rows found by words.
    pub fn words(&mut self, actor: Actor) -> anyhow::Result<()> {
        let table = self.chance.below(TABLES.len());
        let search = self.chance.of(&WORDS);
        let filter = self.chance.rule(&[Of::Bare], self.tables[table].access.has_owner(), 0);
        let parameters = [("search", search), ("where", &filter.text()), ("select", "id"), ("limit", "200")];
        let reply = self.person(actor).list(TABLES[table], &parameters)?;
        let rows = reply.body["rows"].as_array().with_context(|| format!("{reply:?}"))?;
        let found: BTreeSet<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
        let listed = self.tables[table].list(actor, &filter).into_iter();
        let expected: BTreeSet<&str> =
            listed.filter(|row| has(row, search)).map(|row| row.id.as_str()).collect();
        ensure!(
            found == expected,
            "{actor:?}: {search:?} where {}: {reply:?} is not {expected:?}",
            filter.text()
        );
        Ok(())
    }

    /// A row that comes along with one that everybody reads.
    pub fn along(&mut self, actor: Actor) -> anyhow::Result<()> {
        let table = self.chance.below(TABLES.len());
        let id = self.id(table);
        let name = TABLES[table];
        let known = self.tables[table].rows.iter().any(|row| row.id == id);
        let link = self.person(Actor::ALL[1]).send("POST", "/_/db/links", &json!({ name: id }))?;
        if !known {
            return link.refuses(409, "conflict");
        }
        let link = link.body["id"].as_str().with_context(|| format!("{link:?}"))?.to_owned();
        let list = self.chance.once_in(2);
        let path = match list {
            true => format!("/_/db/links?expand={name}&where={}", encoded(&format!("id == {link:?}"))),
            false => format!("/_/db/links/{link}?expand={name}"),
        };
        let reply = self.person(actor).ask("GET", &path)?;
        let row = if list { &reply.body["rows"][0] } else { &reply.body };
        let told = &row["expand"][name];
        let told = if told.is_null() { Value::Null } else { without_times(told) };
        let of = &self.tables[table];
        let expected = of.seen(actor, &id).map_or(Value::Null, |row| self.told(of, row));
        ensure!(
            row["id"] == json!(link) && told == expected,
            "{actor:?}: {path}: {reply:?} is not {expected}"
        );
        let gone = self.person(Actor::ALL[1]).ask("DELETE", &format!("/_/db/links/{link}"))?;
        ensure!(gone.status == 204, "{gone:?}");
        Ok(())
    }
}
