//! Going back in time: a snapshot holds one moment, and a return to it brings that moment back and nothing else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, ensure};
use conformance_tests::{App, Person, Place, Session};
use serde_json::{Value, json};

/// An app with people and rows, in the way that its n-th version looks.
fn manifest(version: u32) -> Value {
    let page = format!("<title>Version {version}</title>");
    let access = if version == 1 { "private" } else { "public_read" };
    json!({
        "auth": { "methods": ["anonymous", "password"] },
        "database": { "tables": { "notes": { "columns": { "text": "text!", "n": "int" }, "access": access } } },
        "site": { "files": { "index.html": page } },
    })
}

fn place(name: &str) -> anyhow::Result<(Place, App)> {
    let place = Place::new(name)?;
    place.output("app_apply", &json!({ "manifest": manifest(1) }))?;
    let app = App::new(&place.url);
    Ok((place, app))
}

/// Everything that is to come back, asked for in every way there is.
fn state(place: &Place, app: &App) -> anyhow::Result<Value> {
    let rows = place.output("db_query", &json!({ "sql": "SELECT rowid, * FROM notes ORDER BY rowid" }))?;
    let described = place.output("app_describe", &json!({}))?;
    let users = place.output("auth_users", &json!({}))?;
    let mut users = users["users"].as_array().context("users")?.clone();
    for user in &mut users {
        // Signing in is not undone.
        user.as_object_mut().context("a user")?.remove("last_seen_at");
    }
    let page = app.visitor().ask("GET", "/")?;
    let release = page.header("x-release").map(str::to_owned);
    let described =
        ["release", "releases", "tables", "site", "migrations"].map(|part| described[part].clone());
    Ok(json!([rows, described, users, page.body, release]))
}

/// Goes back to a snapshot, as a plan first.
fn restore(place: &Place, snapshot: &str) -> anyhow::Result<Value> {
    let plan = place.output("env_restore", &json!({ "snapshot": snapshot, "dry_run": true }))?;
    ensure!(plan["restored"] == false, "a plan has done it: {plan}");
    let done = place.output("env_restore", &json!({ "snapshot": snapshot, "confirm": plan["confirm"] }))?;
    ensure!(done["restored"] == true, "not done: {done}");
    Ok(done)
}

fn signed_in(person: &Person) -> anyhow::Result<bool> {
    Ok(person.ask("GET", "/_/auth/me")?.status == 200)
}

fn out(app: &App, session: &Session) -> anyhow::Result<()> {
    let refreshed = app.auth("refresh", &json!({ "refresh_token": session.refresh }))?;
    ensure!(refreshed.status == 401, "a session that had ended is alive: {refreshed:?}");
    Ok(())
}

#[test]
fn a_return_brings_everything_back_at_once_and_can_be_undone() {
    let (place, app) = place("back").unwrap();
    let alice = app.sign_up("alice@example.org", "correct horse battery").unwrap();
    alice.create("notes", &json!({ "text": "first", "n": 1 })).unwrap();
    alice.create("notes", &json!({ "text": "second", "n": 2 })).unwrap();
    let before = state(&place, &app).unwrap();
    let taken = place.output("env_snapshot", &json!({ "name": "before", "note": "for a test" })).unwrap();
    assert_eq!(state(&place, &app).unwrap(), before);

    // Everything is changed that can be: rows made, changed and removed, a user, a release with its page and rules.
    let bob = app.sign_up("bob@example.org", "correct horse battery").unwrap();
    bob.create("notes", &json!({ "text": "third" })).unwrap();
    place.output("db_execute", &json!({ "sql": "UPDATE notes SET n = 7 WHERE text = 'first'" })).unwrap();
    place.output("db_execute", &json!({ "sql": "DELETE FROM notes WHERE text = 'second'" })).unwrap();
    place.output("app_apply", &json!({ "manifest": manifest(2) })).unwrap();
    let migration =
        json!({ "name": "side", "sql": "CREATE TABLE side (x INTEGER); INSERT INTO side VALUES (1)" });
    place.output("db_migrate", &migration).unwrap();
    let after = state(&place, &app).unwrap();
    // Both are known, so that what is remembered of them is put to the test.
    assert!(signed_in(&alice).unwrap() && signed_in(&bob).unwrap());

    let plan = place.output("env_restore", &json!({ "snapshot": "before", "dry_run": true })).unwrap();
    let told: Vec<&str> = plan["effects"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert_eq!(
        told[..4],
        [
            "release 1 is live again in place of 2",
            "users: 1 made since are removed",
            "table notes: rows 1 made since are removed, 1 changed since are as they were, 1 removed since are back",
            "table side is removed with 1 rows",
        ]
    );
    assert_eq!(state(&place, &app).unwrap(), after, "a plan has changed something");

    let done = restore(&place, "before").unwrap();
    assert_eq!(state(&place, &app).unwrap(), before);
    assert_eq!(done["release"], taken["release"]);
    // The rules of then are those of now: what was opened since is shut again.
    let row = before[0]["rows"][0][1].as_str().unwrap().to_owned();
    assert_eq!(app.visitor().ask("GET", &format!("/_/db/notes/{row}")).unwrap().status, 404);
    assert!(signed_in(&alice).unwrap(), "who was a user then stays signed in");
    assert!(!signed_in(&bob).unwrap(), "who was none is out");
    out(&app, bob.session.as_ref().unwrap()).unwrap();
    alice.create("notes", &json!({ "text": "goes on" })).unwrap();

    // The way forward again: only what came after the return is gone.
    restore(&place, done["undo"].as_str().unwrap()).unwrap();
    assert_eq!(state(&place, &app).unwrap(), after);
    assert!(!signed_in(&bob).unwrap(), "a session that has ended does not come back");
}

#[test]
fn who_has_signed_out_stays_out_after_a_return() {
    let (place, app) = place("out").unwrap();
    let alice = app.sign_up("alice@example.org", "correct horse battery").unwrap();
    let (lost, kept) = (
        app.login("alice@example.org", "correct horse battery").unwrap(),
        app.login("alice@example.org", "correct horse battery").unwrap(),
    );
    place.output("env_snapshot", &json!({ "name": "then" })).unwrap();
    assert_eq!(lost.send("POST", "/_/auth/logout", &json!({})).unwrap().status, 204);
    // A refresh token that was used is not good a second time either.
    let old = kept.session.clone().unwrap();
    let reply = app.auth("refresh", &json!({ "refresh_token": old.refresh })).unwrap();
    let fresh = Session::of(&reply.body).unwrap();
    restore(&place, "then").unwrap();
    assert!(signed_in(&alice).unwrap());
    assert!(!signed_in(&lost).unwrap());
    out(&app, lost.session.as_ref().unwrap()).unwrap();
    let again = app.auth("refresh", &json!({ "refresh_token": fresh.refresh })).unwrap();
    assert_eq!(again.status, 200, "{again:?}");
    out(&app, &old).unwrap();

    // Who may not sign in any more does not, whatever the past says.
    let id = alice.session.as_ref().unwrap().user.clone();
    place.output("auth_user_set", &json!({ "user": id, "disabled": true })).unwrap();
    restore(&place, "then").unwrap();
    assert!(!signed_in(&alice).unwrap());
    let login = json!({ "email": "alice@example.org", "password": "correct horse battery" });
    app.auth("login", &login).unwrap().refuses(401, "unauthenticated").unwrap();
}

#[test]
fn who_is_let_in_and_as_what_does_not_go_back() {
    let (place, app) = place("rights").unwrap();
    let word = "correct horse battery";
    let [ada, bob, cleo, dora] =
        ["ada", "bob", "cleo", "dora"].map(|name| app.sign_up(&format!("{name}@example.org"), word).unwrap());
    let set = |user: &str, mut change: Value| {
        change["user"] = json!(user);
        place.output("auth_user_set", &change).unwrap();
    };
    set(ada.id(), json!({ "role": "admin", "claims": { "team": "red" } }));
    place.output("env_snapshot", &json!({ "name": "then" })).unwrap();
    set(ada.id(), json!({ "role": "user", "claims": {} }));
    // Two change places, and one who has gone leaves an address to somebody who was there.
    set(bob.id(), json!({ "email": "between@example.org" }));
    set(cleo.id(), json!({ "email": "bob@example.org", "password": "another word of mine" }));
    set(bob.id(), json!({ "email": "cleo@example.org" }));
    assert_eq!(dora.send("DELETE", "/_/auth/me", &json!({ "current": word })).unwrap().status, 204);
    set(ada.id(), json!({ "email": "dora@example.org" }));

    let plan = place.output("env_restore", &json!({ "snapshot": "then", "dry_run": true })).unwrap();
    assert_eq!(plan["effects"][0], "users: 1 removed since are back and can sign in");
    restore(&place, "then").unwrap();

    let me = ada.ask("GET", "/_/auth/me").unwrap().body;
    assert_eq!((&me["role"], &me["email"]), (&json!("user"), &json!("dora@example.org")));
    let enters = |email: &str, password: &str| {
        let login = json!({ "email": email, "password": password });
        let reply = app.auth("login", &login).unwrap();
        (reply.status == 200).then(|| reply.body["user"]["id"].as_str().unwrap().to_owned())
    };
    assert_eq!(enters("bob@example.org", word), None, "the password that was replaced");
    assert_eq!(enters("bob@example.org", "another word of mine").as_deref(), Some(cleo.id()));
    assert_eq!(enters("cleo@example.org", word).as_deref(), Some(bob.id()));
    assert_eq!(enters("dora@example.org", word).as_deref(), Some(ada.id()));
    let all = place.output("auth_users", &json!({})).unwrap();
    let back = all["users"].as_array().unwrap().iter().find(|user| user["id"] == dora.id()).unwrap();
    assert_eq!(back.get("email"), None, "the address is somebody else's by now");
}

#[test]
fn a_return_needs_the_confirmation_of_its_own_dry_run() {
    let (place, app) = place("confirm").unwrap();
    place.output("env_snapshot", &json!({ "name": "one" })).unwrap();
    place.output("env_snapshot", &json!({ "name": "two" })).unwrap();
    place.output("db_execute", &json!({ "sql": "INSERT INTO notes (text) VALUES ('new')" })).unwrap();
    let before = state(&place, &app).unwrap();
    let call = |input: Value| {
        let answer = place.client.call("env_restore", &input).unwrap();
        (answer.status, answer.body["code"].clone(), answer.body["field"].clone(), answer.body.to_string())
    };
    let (status, code, field, told) = call(json!({ "snapshot": "one" }));
    assert_eq!((status, code, field), (409, json!("conflict"), json!("/confirm")));
    assert!(told.contains("1 made since are removed"), "{told}");
    let plan = place.output("env_restore", &json!({ "snapshot": "one", "dry_run": true })).unwrap();
    let other = call(json!({ "snapshot": "two", "confirm": plan["confirm"] }));
    assert_eq!((other.0, other.2), (400, json!("/confirm")));
    let forged = call(json!({ "snapshot": "one", "confirm": "yes" }));
    assert_eq!((forged.0, forged.2), (400, json!("/confirm")));
    let missing = call(json!({ "snapshot": "three", "dry_run": true }));
    assert_eq!((missing.0, missing.2), (404, json!("/snapshot")));
    for path in ["../one", "..", "", "half-", "main.db"] {
        assert_eq!(call(json!({ "snapshot": path, "dry_run": true })).0, 404, "{path}");
    }
    assert_eq!(state(&place, &app).unwrap(), before);
    // Another environment's are not there, by name or by id.
    let taken = place.output("app_describe", &json!({})).unwrap()["snapshots"][0]["snapshot"].clone();
    let (elsewhere, _) = self::place("elsewhere").unwrap();
    for snapshot in [json!("one"), taken] {
        let input = json!({ "snapshot": snapshot, "dry_run": true });
        assert_eq!(elsewhere.client.call("env_restore", &input).unwrap().status, 404);
        let input = json!({ "kind": "snapshot", "name": snapshot, "dry_run": true });
        assert_eq!(elsewhere.client.call("resource_delete", &input).unwrap().status, 404);
    }
    // A name that is another's id would stand in its way.
    let id = place.output("app_describe", &json!({})).unwrap()["snapshots"][0]["snapshot"].clone();
    let posing = place.client.call("env_snapshot", &json!({ "name": id })).unwrap();
    assert_eq!((posing.status, posing.body["field"].clone()), (400, json!("/name")));
    let twice = place.client.call("env_snapshot", &json!({ "name": "one" })).unwrap();
    assert_eq!((twice.status, twice.body["field"].clone()), (409, json!("/name")));
    let plan = json!({ "kind": "snapshot", "name": "one", "dry_run": true });
    let plan = place.output("resource_delete", &plan).unwrap();
    let deletion = json!({ "kind": "snapshot", "name": "one", "confirm": plan["confirm"] });
    assert_eq!(place.output("resource_delete", &deletion).unwrap()["deleted"], true);
    assert_eq!(call(json!({ "snapshot": "one", "dry_run": true })).0, 404);
}

#[test]
fn a_snapshot_under_write_load_is_of_one_moment() {
    let (place, app) = place("load").unwrap();
    let setup = json!({ "name": "log", "sql": "CREATE TABLE log (n INTEGER PRIMARY KEY, twice INTEGER)" });
    place.output("db_migrate", &setup).unwrap();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let count = || acknowledged.load(Ordering::SeqCst);
    let going = || !stop.load(Ordering::SeqCst);
    let person = app.stranger().unwrap();
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| {
            let sql =
                "INSERT INTO log SELECT coalesce(max(n), 0) + 1, 2 * (coalesce(max(n), 0) + 1) FROM log";
            while going() {
                place.output("db_execute", &json!({ "sql": sql })).unwrap();
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            while going() {
                person.create("notes", &json!({ "text": "load" })).unwrap();
            }
        });
        let take = |_| {
            let before = count();
            let taken = place.output("env_snapshot", &json!({}))?;
            // One that is sent may be in it before its answer is here.
            Ok((taken["snapshot"].as_str().context("an id")?.to_owned(), before, count() + 1))
        };
        let taken: anyhow::Result<Vec<_>> = (0..8).map(take).collect();
        stop.store(true, Ordering::SeqCst);
        taken
    });
    let snapshots = taken.unwrap();
    for (snapshot, least, most) in snapshots {
        restore(&place, &snapshot).unwrap();
        let sql = "SELECT count(*), max(n), sum(twice = 2 * n) FROM log";
        let seen = place.output("db_query", &json!({ "sql": sql })).unwrap()["rows"][0].clone();
        let rows = seen[0].as_u64().unwrap();
        assert!((least..=most).contains(&rows), "{rows} rows, {least} to {most} were acknowledged");
        if rows > 0 {
            assert_eq!(seen, json!([rows, rows, rows]), "not a moment that there was");
        }
    }
}
