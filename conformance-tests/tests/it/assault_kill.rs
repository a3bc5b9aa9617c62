//! `kill -9` at every write of an apply: whatever is found afterwards is one whole release.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::Client;
use testkit::http::Request;

use crate::assault_doomed::{Doomed, Histogram, Moment};

/// An app's n-th state. Each has other columns, other tables, another page and another asset than the one before:
/// an odd one adds to it, an even one takes away what that added and renames a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Generation(u64);

impl Generation {
    fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn takes_away(self) -> bool {
        self.0.is_multiple_of(2)
    }

    fn tables(self) -> Vec<(String, Vec<String>)> {
        let mut app = vec!["title".to_owned(), format!("base_{}", self.0 / 2)];
        if self.takes_away() {
            return vec![("app".to_owned(), app)];
        }
        app.push(format!("extra_{}", self.0));
        vec![("app".to_owned(), app), (format!("side_{}", self.0), vec!["n".to_owned()])]
    }

    fn index(self) -> String {
        format!("<!doctype html><p>generation {}</p><p>{:?}</p>", self.0, self.tables())
    }

    fn asset(self) -> String {
        format!("asset of generation {}, {}", self.0, "x".repeat(20_000))
    }

    fn manifest(self) -> Value {
        let tables: serde_json::Map<String, Value> = self
            .tables()
            .into_iter()
            .map(|(name, columns)| {
                let columns: serde_json::Map<String, Value> = columns
                    .into_iter()
                    .map(|column| {
                        let kind = if column == "title" { "text!" } else { "int" };
                        (column, kind.into())
                    })
                    .collect();
                (name, json!({ "columns": columns }))
            })
            .collect();
        json!({
            "database": { "tables": tables },
            "site": { "files": { "index.html": self.index(), "asset.txt": self.asset() } },
        })
    }

    /// The input of the `app_apply` that leads here from the generation before.
    fn apply(self, client: &Client) -> Value {
        let manifest = json!({ "manifest": self.manifest() });
        if !self.takes_away() || self.0 == 0 {
            return manifest;
        }
        let plan = client.output("app_plan", &manifest).unwrap();
        json!({ "plan_id": plan["plan_id"], "confirm": plan["confirm"] })
    }
}

/// Everything that shows which release an environment is at, each asked for by its own way.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    pointer: u64,
    described: Vec<(String, Vec<String>)>,
    selected: Vec<String>,
    live: (Option<String>, String, String),
    preview: (Option<String>, String),
    rows: i64,
}

impl Seen {
    fn expected(release: u64, generation: Generation, rows: i64) -> Self {
        let of = Some(release.to_string());
        let tables = generation.tables();
        let mut selected = tables[0].1.clone();
        selected.sort();
        Self {
            pointer: release,
            selected,
            described: tables,
            live: (of.clone(), generation.index(), generation.asset()),
            preview: (of, generation.index()),
            rows,
        }
    }

    fn of(doomed: &Doomed) -> Self {
        let client = doomed.client();
        let app = client.output("app_describe", &json!({})).unwrap();
        let pointer = app["release"].as_u64().unwrap();
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let mut described: Vec<_> = app["tables"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, table)| (name.clone(), by_manifest(names(&table["columns"]))))
            .collect();
        described.sort();
        let all = client.output("db_query", &json!({ "sql": "SELECT * FROM app LIMIT 1" })).unwrap();
        let own = |name: &&str| !["id", "created_at", "updated_at"].contains(name);
        let columns = all["columns"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let mut selected: Vec<String> = columns.filter(own).map(str::to_owned).collect();
        selected.sort();
        let rows = client.output("db_query", &json!({ "sql": "SELECT count(*) FROM app" })).unwrap();
        let (of, index) = fetch(doomed, "default", "/");
        let (_, asset) = fetch(doomed, "default", "/asset.txt");
        Self {
            pointer,
            described,
            selected,
            live: (of, index, asset),
            preview: fetch(doomed, &format!("{pointer}--default"), "/"),
            rows: rows["rows"][0][0].as_i64().unwrap(),
        }
    }
}

/// `ALTER TABLE` puts columns where it can; a manifest's order is not the table's.
fn by_manifest(mut columns: Vec<String>) -> Vec<String> {
    let rank = |name: &str| ["title", "base", "extra"].iter().position(|start| name.starts_with(start));
    columns.sort_by_key(|name| rank(name));
    columns
}

fn fetch(doomed: &Doomed, label: &str, path: &str) -> (Option<String>, String) {
    let url = format!("http://{label}.localhost:{}{path}", doomed.port());
    let response = Request::get(&url).send().unwrap();
    assert_eq!(response.status, 200, "{url}: {:?}", response.text());
    (response.header("x-release").map(str::to_owned), response.text().unwrap().to_owned())
}

/// An app that is applied again and again while its server is killed.
struct Siege {
    doomed: Doomed,
    generation: Generation,
    release: u64,
    rows: i64,
    histogram: Histogram,
    /// How many writes an apply takes that adds, and one that takes away.
    writes: [i64; 2],
    took: Duration,
}

impl Siege {
    fn start() -> Self {
        let doomed = Doomed::start();
        let mut siege = Self {
            doomed,
            generation: Generation(0),
            release: 1,
            rows: 0,
            histogram: Histogram::default(),
            writes: [0; 2],
            took: Duration::ZERO,
        };
        siege.doomed.client().output("app_apply", &json!({ "manifest": Generation(0).manifest() })).unwrap();
        for _ in 0..2 {
            siege.add_row();
            siege.apply_in_peace();
        }
        siege
    }

    fn add_row(&mut self) {
        let row = json!({ "sql": "INSERT INTO app (title) VALUES (?1)", "params": [self.rows] });
        self.doomed.client().output("db_execute", &row).unwrap();
        self.rows += 1;
    }

    fn apply_in_peace(&mut self) {
        let next = self.generation.next();
        let input = next.apply(&self.doomed.client());
        let began = Instant::now();
        let (writes, answer) = self.doomed.count(|client| client.call("app_apply", &input));
        self.took = began.elapsed();
        assert_eq!((answer["release"].as_u64(), &answer["changed"]), (Some(self.release + 1), &json!(true)));
        self.writes[usize::from(next.takes_away())] = writes;
        (self.generation, self.release) = (next, self.release + 1);
        assert_eq!(Seen::of(&self.doomed), Seen::expected(self.release, self.generation, self.rows));
    }

    /// Dies while the next generation is applied, and looks at what is there then.
    fn die(&mut self, moment: Moment) {
        let next = self.generation.next();
        let input = next.apply(&self.doomed.client());
        let fate = self.doomed.die(moment, |client| client.call("app_apply", &input));
        let answered = fate.answer.is_some_and(|answer| {
            assert_eq!(answer.status, 200, "{moment:?}: {:#}", answer.body);
            assert_eq!(answer.body["release"].as_u64(), Some(self.release + 1));
            true
        });
        let seen = Seen::of(&self.doomed);
        let found = match (seen.pointer == self.release + 1, answered) {
            (true, true) => "the new release, as answered",
            (true, false) => "the new release, not answered",
            (false, _) => "the release before",
        };
        if answered || seen.pointer == self.release + 1 {
            (self.generation, self.release) = (next, self.release + 1);
        }
        let expected = Seen::expected(self.release, self.generation, self.rows);
        assert_eq!(seen, expected, "{moment:?}, {}", fate.place);
        self.histogram.add(fate.place, found);
        self.add_row();
    }

    /// What the next apply takes.
    fn next_writes(&self) -> i64 {
        self.writes[usize::from(self.generation.next().takes_away())]
    }

    fn end(mut self, title: &str) {
        self.apply_in_peace();
        self.histogram.print(title);
        let strangers = self.doomed.strangers();
        let staged = strangers.iter().filter(|path| path.contains("/blobs/") && path.contains('#')).count();
        assert_eq!(strangers.len(), staged, "files that nothing owns: {strangers:?}");
        // Each death leaves at most the one file that was being written; a collection takes it an hour later.
        assert!(staged as u32 <= self.histogram.deaths(), "{staged} staged files");
    }
}

#[test]
fn a_kill_at_any_write_of_an_apply_leaves_one_whole_release() {
    let mut siege = Siege::start();
    for step in 0..12 {
        // From the first write to one past the last.
        let n = 1 + step * siege.next_writes() / 11;
        siege.die(if step % 3 == 1 { Moment::Amid(n) } else { Moment::Before(n) });
    }
    siege.end("applies");
}

#[test]
#[ignore = "soak: at least 500 kills"]
fn soak_kills_at_every_write_of_an_apply() {
    let until = Instant::now() + minutes();
    let mut siege = Siege::start();
    let mut cursors = [0_i64; 2];
    let mut round = 0_u32;
    while siege.histogram.deaths() < 500 || Instant::now() < until {
        let writes = siege.next_writes();
        let cursor = &mut cursors[usize::from(siege.generation.next().takes_away())];
        let n = *cursor % (writes + 2) + 1;
        let torn = *cursor / (writes + 2) % 2 == 1;
        round += 1;
        let moment = match round % 4 {
            0 => Moment::After(siege.took.mul_f64(1.2 * fraction(round))),
            _ => {
                *cursor += 1;
                if torn { Moment::Amid(n) } else { Moment::Before(n) }
            }
        };
        siege.die(moment);
        if round.is_multiple_of(10) {
            // A start that has to recover is killed too.
            let n = i64::from(round / 10 % 12) + 1;
            siege.doomed.die_starting(n);
            let expected = Seen::expected(siege.release, siege.generation, siege.rows);
            assert_eq!(Seen::of(&siege.doomed), expected, "a start that died at its write {n}");
        }
    }
    assert!(cursors.iter().zip(siege.writes).all(|(cursor, writes)| *cursor > 2 * writes), "{cursors:?}");
    siege.end("applies");
}

/// Spread evenly over 0 to 1, in an order that is not that of the rounds.
fn fraction(round: u32) -> f64 {
    (f64::from(round) * 0.618_033_988_749_895).fract()
}

#[expect(clippy::disallowed_methods, reason = "`cargo xtask soak` says how long it may take")]
pub fn minutes() -> Duration {
    let minutes = std::env::var("STEADING_SOAK_MINUTES").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(60 * minutes.unwrap_or(10))
}
