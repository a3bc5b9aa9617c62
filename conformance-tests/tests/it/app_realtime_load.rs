//! Subscribers under load: random changes and cuts, readers that do not read, and a server that stops.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use conformance_tests::{App, Events, Person, Place};
use serde_json::{Value, json};
use testkit::{Steading, require};

use crate::app_chance::Chance;
use crate::app_realtime::{ground, manifest};

/// Follows a table: what a client that lists and listens has in its list.
struct Follower {
    events: Events,
    rows: BTreeMap<String, Value>,
    /// The ids of all rows that it was told of, seen or gone.
    told: BTreeSet<String>,
}

impl Follower {
    fn new(person: &Person, table: &str) -> anyhow::Result<Self> {
        let mut events = person.subscribed(&[json!({ "table": table })], None)?;
        ensure!(events.event()?["type"] == "subscribed", "not subscribed");
        Ok(Self { events, rows: listed(person, table)?, told: BTreeSet::new() })
    }

    /// Takes in one event.
    fn follow(&mut self) -> anyhow::Result<Value> {
        let event = self.events.event()?;
        let id = event["row"]["id"].as_str().with_context(|| event.to_string())?.to_owned();
        self.told.insert(id.clone());
        if event["type"] == "delete" {
            ensure!(event["row"] == json!({ "id": id }), "more than the id: {event}");
            self.rows.remove(&id);
        } else {
            self.rows.insert(id, event["row"].clone());
        }
        Ok(event)
    }
}

fn listed(person: &Person, table: &str) -> anyhow::Result<BTreeMap<String, Value>> {
    let (mut rows, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let mut query = vec![("limit", "200")];
        if !cursor.is_empty() {
            query.push(("cursor", cursor.as_str()));
        }
        let page = person.list(table, &query)?;
        for row in page.body["rows"].as_array().with_context(|| format!("{page:?}"))? {
            rows.insert(row["id"].as_str().unwrap_or_default().to_owned(), row.clone());
        }
        match page.body["cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => return Ok(rows),
        }
    }
}

/// How many changes are made at random.
const CHANGES: usize = 600;

#[test]
fn after_random_changes_everybody_has_exactly_what_they_may_list_and_was_told_of_nothing_else() {
    let (place, app) = ground("live-random");
    let people: Vec<Person> = (0..4).map(|_| app.stranger().unwrap()).collect();
    let mut chance = Chance(7);
    let seed =
        |n: usize| json!({ "title": format!("seed {n}"), "public": n.is_multiple_of(2), "secret": "s" });
    for n in 0..20 {
        people[n % people.len()].create("posts", &seed(n)).unwrap();
    }
    let visitor = app.visitor();
    let mut followers: Vec<Follower> =
        people.iter().chain([&visitor]).map(|person| Follower::new(person, "posts").unwrap()).collect();

    // The rows as they are, and who could see each at some time: its owner, and everybody while it was public.
    let mut rows: Vec<(String, usize, bool)> = Vec::new();
    let mut seen: Vec<BTreeSet<String>> = vec![BTreeSet::new(); followers.len()];
    for (n, person) in people.iter().enumerate() {
        let own = listed(person, "posts").unwrap().into_values();
        let own = own.filter(|row| row["owner"] == person.id());
        rows.extend(own.map(|row| (row["id"].as_str().unwrap().to_owned(), n, row["public"] == true)));
    }
    let note = |seen: &mut Vec<BTreeSet<String>>, (id, owner, public): &(String, usize, bool)| {
        for (n, seen) in seen.iter_mut().enumerate().filter(|(n, _)| *public || n == owner) {
            let _ = n;
            seen.insert(id.clone());
        }
    };
    rows.iter().for_each(|row| note(&mut seen, row));
    for n in 0..CHANGES {
        let at = chance.below(rows.len().max(1));
        let sent = |person: &Person, method: &str, id: &str, body: Value| {
            person.send(method, &format!("/_/db/posts/{id}"), &body).unwrap().status
        };
        match chance.below(6) {
            0 | 1 => {
                let (owner, public) = (chance.below(people.len()), chance.once_in(2));
                let new = json!({ "title": format!("new {n}"), "public": public, "secret": "s" });
                let row = people[owner].create("posts", &new).unwrap();
                rows.push((row["id"].as_str().unwrap().to_owned(), owner, public));
                note(&mut seen, &rows[rows.len() - 1]);
            }
            2 if !rows.is_empty() => {
                rows[at].2 = !rows[at].2;
                let (id, owner, public) = rows[at].clone();
                assert_eq!(sent(&people[owner], "PATCH", &id, json!({ "public": public })), 200);
                note(&mut seen, &rows[at]);
            }
            3 if !rows.is_empty() => {
                let (id, owner, _) = rows[at].clone();
                let title = format!("changed {n}");
                assert_eq!(
                    sent(&people[owner], "PATCH", &id, json!({ "title": title, "secret": title })),
                    200
                );
            }
            4 if !rows.is_empty() => {
                let (id, owner, _) = rows.swap_remove(at);
                assert_eq!(people[owner].ask("DELETE", &format!("/_/db/posts/{id}")).unwrap().status, 204);
            }
            _ if !rows.is_empty() => {
                rows[at].1 = chance.below(people.len());
                let sql = "UPDATE posts SET owner = ?1 WHERE id = ?2";
                let params = json!([people[rows[at].1].id(), rows[at].0]);
                place.output("db_execute", &json!({ "sql": sql, "params": params })).unwrap();
                note(&mut seen, &rows[at]);
            }
            _ => {}
        }
    }
    let last = people[0].create("posts", &json!({ "title": "the last", "public": true })).unwrap();
    let last = last["id"].as_str().unwrap();
    for ((follower, person), seen) in followers.iter_mut().zip(people.iter().chain([&visitor])).zip(&mut seen)
    {
        seen.insert(last.to_owned());
        loop {
            let event = follower.follow().unwrap();
            let row = &event["row"];
            let may = row["public"] == true || row["owner"] == person.id();
            assert!(event["type"] == "delete" || may, "told of a hidden row: {event}");
            if row["id"] == last {
                break;
            }
        }
        let leaked: Vec<_> = follower.told.difference(seen).collect();
        assert_eq!(leaked, Vec::<&String>::new(), "told of rows that were never to be seen");
        assert_eq!(follower.rows, listed(person, "posts").unwrap());
    }
}

#[test]
fn over_random_cuts_nothing_is_missed_and_nothing_comes_twice() {
    const ROWS: usize = 300;
    let (_place, app) = ground("live-resume");
    let ada = app.stranger().unwrap();
    let mut events = ada.subscribed(&[json!({ "table": "todos" })], None).unwrap();
    assert_eq!(events.event().unwrap()["type"], "subscribed");
    let mut chance = Chance(11);
    let (mut titles, mut cuts) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..ROWS {
                ada.create("todos", &json!({ "title": n.to_string() })).unwrap();
            }
        });
        while titles.len() < ROWS {
            for _ in 0..chance.below(12) {
                if titles.len() == ROWS {
                    break;
                }
                let event = events.event().unwrap();
                assert_eq!(event["type"], "insert", "{event}");
                titles.push(event["row"]["title"].as_str().unwrap().parse::<usize>().unwrap());
            }
            let last = events.last.clone();
            events = ada.subscribed(&[json!({ "table": "todos" })], last.as_deref()).unwrap();
            let first = events.event().unwrap();
            assert_eq!((&first["type"], &first["resumed"]), (&json!("subscribed"), &json!(true)), "{first}");
            cuts += 1;
        }
        writer.join().unwrap();
    });
    assert_eq!(titles, (0..ROWS).collect::<Vec<_>>(), "after {cuts} cuts");
    assert!(cuts > 20, "only {cuts} cuts");
}

#[test]
fn a_place_that_is_not_known_any_more_or_never_was_says_to_list_again() {
    let (_place, app) = ground("live-lost");
    let (_other_place, other) = ground("live-lost-other");
    let (ada, eve) = (app.stranger().unwrap(), other.stranger().unwrap());
    let mut elsewhere = eve.subscribed(&[json!({ "table": "todos" })], None).unwrap();
    elsewhere.event().unwrap();
    let of_another = elsewhere.last.clone().unwrap();
    for place in ["0", "x", &of_another, &"A".repeat(300)] {
        let mut events = ada.subscribed(&[json!({ "table": "todos" })], Some(place)).unwrap();
        let (first, second) = (events.event().unwrap(), events.event().unwrap());
        assert_eq!(first["resumed"], false);
        assert_eq!((&second["type"], &second["reason"]), (&json!("reset"), &json!("lost")));
    }
}

#[test]
fn a_reader_that_does_not_read_is_cut_and_delays_nobody() {
    const ROWS: usize = 250;
    let (_place, app) = ground("live-slow");
    let ada = app.stranger().unwrap();
    let wanted = [json!({ "table": "todos" })];
    let mut stalled = ada.subscribed(&wanted, None).unwrap();
    assert_eq!(stalled.event().unwrap()["type"], "subscribed");
    let mut stalled_socket = ada.socket().unwrap();
    stalled_socket.say(&json!({ "type": "subscribe", "table": "todos" })).unwrap();
    assert_eq!(stalled_socket.hear().unwrap()["type"], "subscribed");
    let mut reader = ada.subscribed(&wanted, None).unwrap();
    reader.event().unwrap();

    let text = "x".repeat(100_000);
    let mut slowest = Duration::ZERO;
    for n in 0..ROWS {
        let start = Instant::now();
        ada.create("todos", &json!({ "title": format!("{n} {text}") })).unwrap();
        let event = reader.event().unwrap();
        slowest = slowest.max(start.elapsed());
        assert!(event["row"]["title"].as_str().unwrap().starts_with(&format!("{n} ")));
    }
    assert!(slowest < Duration::from_secs(8), "a reader waited {slowest:?}");

    // What had been sent before comes, then the reason; or the connection is cut where nothing can be said any more.
    let mut heard = 0;
    let end = loop {
        match stalled.event() {
            Ok(event) if event["type"] == "insert" => heard += 1,
            Ok(event) => break event["reason"].clone(),
            Err(_) => break json!("cut"),
        }
    };
    assert!(heard < ROWS, "everything came");
    assert!(["slow_consumer", "cut"].iter().any(|known| end == *known), "{end}");
    let mut rest = Vec::new();
    let told = match stalled_socket.closed() {
        Ok((_, code, reason)) => format!("{code} {reason}"),
        Err(_) => {
            stalled_socket.stream().read_to_end(&mut rest).map_or("cut".to_owned(), |_| "cut".to_owned())
        }
    };
    assert!(["1013 slow_consumer", "cut"].contains(&told.as_str()), "{told}");

    // It goes on where it stopped.
    let mut again = ada.subscribed(&wanted, stalled.last.as_deref()).unwrap();
    assert_eq!(again.event().unwrap()["resumed"], true);
    let next = again.event().unwrap();
    let title = next["row"]["title"].as_str().unwrap_or_default();
    assert!(title.starts_with(&format!("{heard} ")), "after {heard} comes {}", &title[..title.len().min(10)]);
}

/// More than fits on the way to who does not read.
fn much_for(place: &Place, person: &Person) {
    let rows = "INSERT INTO todos (owner, title) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50) \
                SELECT ?1, hex(zeroblob(50000)) FROM n";
    for _ in 0..6 {
        place.output("db_execute", &json!({ "sql": rows, "params": [person.id()] })).unwrap();
    }
}

#[test]
fn a_subscription_that_is_still_catching_up_has_its_name_and_can_be_ended() {
    let (place, app) = ground("live-arriving");
    let ada = app.stranger().unwrap();
    let mut first = ada.subscribed(&[json!({ "table": "todos" })], None).unwrap();
    assert_eq!(first.event().unwrap()["type"], "subscribed");
    ada.create("todos", &json!({ "title": "seen" })).unwrap();
    assert_eq!(first.event().unwrap()["type"], "insert");
    much_for(&place, &ada);
    let mut socket = ada.socket().unwrap();
    let again = json!({ "type": "subscribe", "table": "todos", "sub": "a", "after": first.last });
    for message in [&again, &again, &json!({ "type": "unsubscribe", "sub": "a" }), &json!({ "type": "ping" })]
    {
        socket.say(message).unwrap();
    }
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "pong") {
        let heard = socket.hear().unwrap();
        if heard["type"] != "insert" {
            said.push(heard["code"].as_str().or(heard["type"].as_str()).unwrap().to_owned());
        }
    }
    assert_eq!(said, ["subscribed", "conflict", "unsubscribed", "pong"]);
    socket.say(&json!({ "type": "subscribe", "table": "todos", "sub": "b" })).unwrap();
    let row = ada.create("todos", &json!({ "title": "new" })).unwrap();
    let heard = loop {
        let heard = socket.hear().unwrap();
        if heard["row"]["id"] == row["id"] {
            break heard;
        }
    };
    assert_eq!(heard["sub"], "b", "the other one has ended");
}

#[test]
fn one_network_has_so_many_subscriptions_and_no_more() {
    // Others have theirs from here, too.
    let steading = require(Steading::start());
    let applied = steading.client().output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(applied["url"].as_str().unwrap());
    let visitor = app.visitor();
    let mut sockets = Vec::new();
    let refused = loop {
        let mut socket = visitor.socket().unwrap();
        let wanted = |n: usize| json!({ "type": "subscribe", "table": "posts", "sub": n.to_string() });
        let messages: Vec<_> = (0..50).map(wanted).collect();
        socket.say_all(&messages).unwrap();
        let heard: Vec<_> = messages.iter().map(|_| socket.hear().unwrap()).collect();
        sockets.push(socket);
        if let Some(refused) = heard.into_iter().find(|heard| heard["type"] != "subscribed") {
            break refused;
        }
        assert!(sockets.len() < 100, "nobody is refused");
    };
    assert_eq!((&refused["code"], sockets.len()), (&json!("rate_limited"), 41));
    // What one of them gives back is there again.
    let mut last = sockets.pop().unwrap();
    sockets[0].say(&json!({ "type": "unsubscribe", "sub": "7" })).unwrap();
    assert_eq!(sockets[0].hear().unwrap()["type"], "unsubscribed");
    last.say(&json!({ "type": "subscribe", "table": "posts", "sub": "mine" })).unwrap();
    assert_eq!(last.hear().unwrap()["type"], "subscribed");
    drop(sockets);
    let again = testkit::eventually(Duration::from_secs(30), || {
        last.say(&json!({ "type": "subscribe", "table": "posts", "sub": "more" })).unwrap();
        (last.hear().unwrap()["type"] == "subscribed").then_some(())
    });
    assert!(again.is_some());
}

#[test]
fn who_is_still_catching_up_when_the_rules_change_is_told_to_list_again() {
    let (place, app) = ground("live-behind");
    let ada = app.stranger().unwrap();
    let wanted = [json!({ "table": "todos" })];
    let mut first = ada.subscribed(&wanted, None).unwrap();
    assert_eq!(first.event().unwrap()["type"], "subscribed");
    ada.create("todos", &json!({ "title": "seen" })).unwrap();
    assert_eq!(first.event().unwrap()["type"], "insert");
    let last = first.last.clone();
    drop(first);
    much_for(&place, &ada);
    let [mut behind, mut broken] = [(); 2].map(|()| ada.subscribed(&wanted, last.as_deref()).unwrap());
    assert_eq!(behind.event().unwrap()["resumed"], true);
    assert_eq!(broken.event().unwrap()["resumed"], true);
    let mut seated = ada.subscribed(&wanted, None).unwrap();
    assert_eq!(seated.event().unwrap()["resumed"], false);
    let mut wider = manifest();
    wider["database"]["tables"]["todos"]["access"] = "public_read".into();
    place.output("app_apply", &json!({ "manifest": wider })).unwrap();
    // From here on the rules are others for everybody.
    assert_eq!(seated.event().unwrap()["reason"], "release");
    // Who breaks off before they are told has to list again when they come back.
    for _ in 0..250 {
        assert_eq!(broken.event().unwrap()["type"], "insert");
    }
    let mut back = ada.subscribed(&wanted, broken.last.as_deref()).unwrap();
    assert_eq!(back.event().unwrap()["resumed"], false);
    assert_eq!(back.event().unwrap()["type"], "reset");
    let heard = behind.until(|event| event["type"] == "reset").unwrap();
    assert_eq!(heard.last().unwrap()["reason"], "release");
    // After that they hear what the others hear.
    let eve = app.stranger().unwrap();
    let row = eve.create("todos", &json!({ "title": "of another" })).unwrap();
    behind.until(|event| event["row"]["id"] == row["id"]).unwrap();
}

#[test]
fn a_server_that_stops_says_so_and_does_not_wait() {
    let mut steading = require(Steading::start());
    let client = steading.client();
    let applied = client.output("app_apply", &json!({ "manifest": manifest() })).unwrap();
    let app = App::new(applied["url"].as_str().unwrap());
    let ada = app.stranger().unwrap();
    let mut events = ada.subscribed(&[json!({ "table": "todos" })], None).unwrap();
    events.event().unwrap();
    let mut socket = ada.socket().unwrap();
    let start = Instant::now();
    let stopped = std::thread::spawn(move || steading.stop());
    let end = events.event().unwrap();
    assert_eq!((&end["type"], &end["reason"]), (&json!("end"), &json!("stopping")));
    assert_eq!(events.next_event().unwrap(), None);
    let (_, code, reason) = socket.closed().unwrap();
    assert_eq!((code, reason.as_str()), (1001, "stopping"));
    assert!(stopped.join().unwrap().is_some_and(|status| status.success()));
    assert!(start.elapsed() < Duration::from_secs(15), "it took {:?}", start.elapsed());
}
