//! `kill -9` while many people write rows: what was answered for is there, whole, and nothing else is.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde_json::{Value, json};

use crate::assault_doomed::{Doomed, Moment};
use conformance_tests::App;

/// How many write at once. Their changes wait for each other, and are committed together.
const WRITERS: usize = 8;

/// What has been answered for, by row, and what may have been done besides: the change that each writer was waiting
/// for when the server died.
#[derive(Default)]
struct Book {
    rows: BTreeMap<String, String>,
    doubtful: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    /// A row with this text, whose id nobody has heard of.
    Create(String),
    /// A row whose text is this now, or was.
    Update(String, String),
    Delete(String),
    /// Rows of these texts, all or none.
    Batch(Vec<String>),
}

/// Writes until the server does not answer any more.
fn write(app: &App, book: &Mutex<Book>, writer: usize, round: usize) {
    let visitor = app.visitor();
    let mut own: Vec<String> = Vec::new();
    for n in 0_usize.. {
        let text = format!("{round}.{writer}.{n}");
        let change = match (n % 5, own.last()) {
            (2, Some(id)) => Change::Update(id.clone(), text),
            (3, Some(id)) if n % 2 == 0 => Change::Delete(id.clone()),
            (4, _) => Change::Batch(vec![format!("{text}a"), format!("{text}b")]),
            _ => Change::Create(text),
        };
        let reply = match &change {
            Change::Create(text) => visitor.send("POST", "/_/db/notes", &json!({ "text": text })),
            Change::Update(id, text) => {
                visitor.send("PATCH", &format!("/_/db/notes/{id}"), &json!({ "text": text }))
            }
            Change::Delete(id) => visitor.ask("DELETE", &format!("/_/db/notes/{id}")),
            Change::Batch(texts) => {
                let create =
                    |text: &String| json!({ "do": "create", "on": "notes", "new": { "text": text } });
                let operations: Vec<Value> = texts.iter().map(create).collect();
                visitor.send("POST", "/_/batch", &json!({ "operations": operations }))
            }
        };
        let mut book = book.lock().unwrap();
        let Ok(reply) = reply else { return book.doubtful.push(change) };
        assert!(reply.status < 300, "{:#}", reply.body);
        let id = |row: &Value| row["id"].as_str().unwrap().to_owned();
        match change {
            Change::Create(text) => {
                own.push(id(&reply.body));
                book.rows.insert(id(&reply.body), text);
            }
            Change::Update(id, text) => drop(book.rows.insert(id, text)),
            Change::Delete(id) => {
                own.pop();
                book.rows.remove(&id);
            }
            Change::Batch(texts) => {
                for (text, result) in texts.into_iter().zip(reply.body["results"].as_array().unwrap()) {
                    book.rows.insert(id(&result["row"]), text);
                }
            }
        }
    }
}

/// Every row that is there.
fn rows(app: &App) -> BTreeMap<String, String> {
    let (visitor, mut rows, mut cursor) = (app.visitor(), BTreeMap::new(), None::<String>);
    loop {
        let mut parameters = vec![("limit", "200")];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = visitor.list("notes", &parameters).unwrap().body;
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        rows.extend(page["rows"].as_array().unwrap().iter().map(|row| (text(row, "id"), text(row, "text"))));
        match page["cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return rows,
        }
    }
}

/// Holds what is there against the book, and takes over what turned out to have been done.
fn check(doomed: &Doomed, book: &mut Book) {
    let mut found = rows(&app(doomed));
    let sql = "SELECT (SELECT count(*) FROM notes NOT INDEXED), (SELECT count(*) FROM notes WHERE text > '')";
    let counts = doomed.client().output("db_query", &json!({ "sql": sql })).unwrap();
    assert_eq!(counts["rows"], json!([[found.len(), found.len()]]), "the table and its index differ");
    let strangers: BTreeMap<String, String> = found
        .iter()
        .filter(|(id, _)| !book.rows.contains_key(*id))
        .map(|(id, text)| (text.clone(), id.clone()))
        .collect();
    for change in std::mem::take(&mut book.doubtful) {
        match change {
            Change::Create(text) => {
                if let Some(id) = strangers.get(&text) {
                    book.rows.insert(id.clone(), text);
                }
            }
            Change::Update(id, text) => {
                if found.get(&id) == Some(&text) {
                    book.rows.insert(id, text);
                }
            }
            Change::Delete(id) => {
                if !found.contains_key(&id) {
                    book.rows.remove(&id);
                }
            }
            Change::Batch(texts) => {
                let ids: Vec<_> = texts.iter().filter_map(|text| strangers.get(text)).cloned().collect();
                assert!(ids.is_empty() || ids.len() == texts.len(), "half a batch: {texts:?}");
                book.rows.extend(ids.into_iter().zip(texts));
            }
        }
    }
    let lost: Vec<_> = book.rows.iter().filter(|(id, text)| found.get(*id) != Some(text)).collect();
    assert!(lost.is_empty(), "answered for and lost: {lost:?}");
    found.retain(|id, _| !book.rows.contains_key(id));
    assert!(found.is_empty(), "never asked for: {found:?}");
}

fn app(doomed: &Doomed) -> App {
    App::new(&format!("http://default.localhost:{}", doomed.port()))
}

/// Kills the server in the middle of writing, `kills` times and at least until `until`, or more often where too little
/// was answered in between; gives how often, and how many rows it had answered for.
fn siege(kills: usize, until: Instant) -> (usize, usize) {
    let mut doomed = Doomed::start();
    let all = json!({ "list": "true", "get": "true", "create": "true", "update": "true", "delete": "true" });
    let notes = json!({ "columns": { "text": "text!" }, "access": all, "indexes": ["text"] });
    let manifest = json!({ "database": { "tables": { "notes": notes } } });
    doomed.client().output("app_apply", &json!({ "manifest": manifest })).unwrap();
    let mut book = Book::default();
    let (mut round, mut written) = (0, 0);
    while round < kills || Instant::now() < until || written + book.rows.len() <= 50 && round < 20 * kills {
        let app = app(&doomed);
        let shared = Mutex::new(book);
        // From nothing to a moment in which some hundred have been answered.
        let delay = Duration::from_micros(2_000 + (round as u64 * 7_919) % 120_000);
        doomed.die(Moment::After(delay), |_| {
            std::thread::scope(|scope| {
                for writer in 0..WRITERS {
                    let (app, shared) = (&app, &shared);
                    scope.spawn(move || write(app, shared, writer, round));
                }
            });
            Err(anyhow!("it has died"))
        });
        book = shared.into_inner().unwrap();
        let sound = doomed.client().output("db_execute", &json!({ "sql": "PRAGMA quick_check" })).unwrap();
        assert_eq!(sound["rows"], json!([["ok"]]));
        check(&doomed, &mut book);
        round += 1;
        if book.rows.len() > 1_000 {
            written += book.rows.len();
            book = Book::default();
            doomed.client().output("db_execute", &json!({ "sql": "DELETE FROM notes" })).unwrap();
        }
    }
    (round, written + book.rows.len())
}

#[test]
fn what_was_answered_for_is_there_after_a_kill() {
    let (_, rows) = siege(8, Instant::now());
    assert!(rows > 50, "{rows} rows");
}

#[test]
#[ignore = "soak: at least 200 kills"]
#[expect(clippy::print_stdout, reason = "a soak tells what it found")]
fn soak_kills_while_many_write() {
    let (kills, rows) = siege(200, Instant::now() + crate::assault_kill::minutes() / 4);
    println!("kills while {WRITERS} write rows: {kills}, none lost or torn; {rows} rows");
}
