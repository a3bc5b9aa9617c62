//! The todo example in real browsers: two people at once, their keyboards, an account, a bad day, and an attacker.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::{Chromium, eventually, finish, require};

const LIMIT: Duration = Duration::from_secs(30);

/// Keys as WebDriver writes them (W3C WebDriver §17.4.2).
const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";
const DOWN: &str = "\u{E015}";
const UP: &str = "\u{E013}";
const DELETE: &str = "\u{E017}";
const F2: &str = "\u{E032}";

/// One person with a browser profile of their own, at the app.
struct Person {
    browser: Chromium,
    url: String,
}

impl Person {
    fn at(place: &Place) -> Self {
        let person = Self { browser: require(Chromium::start()), url: place.url.clone() };
        person.open();
        person
    }

    fn open(&self) {
        self.browser.goto(&self.url).unwrap();
        self.until("document.querySelector('#panel').ariaBusy === 'false'");
    }

    /// Waits until an expression of the page is true.
    #[track_caller]
    fn until(&self, condition: &str) {
        let holds = || self.browser.evaluate(&format!("return {condition}")).is_ok_and(|value| value == true);
        if eventually(LIMIT, || holds().then_some(())).is_none() {
            let path = std::env::temp_dir().join("steading-todo.png");
            std::fs::write(&path, self.browser.screenshot().unwrap()).unwrap();
            panic!("{condition} does not come true; what it looks like: {}", path.display());
        }
    }

    /// Waits until the list shows exactly these, from the top; what is done has a tick in front.
    #[track_caller]
    fn sees(&self, rows: &[&str]) {
        let listed = "[...document.querySelectorAll('#list:not([hidden]) > li:not(.pending)')].map(item => \
            (item.querySelector('input').checked ? '✓ ' : '') + item.querySelector('.title').textContent)";
        self.until(&format!("JSON.stringify({listed}) === {}", json!(json!(rows).to_string())));
    }

    #[track_caller]
    fn reads(&self, css: &str, text: &str) {
        let shown = format!(
            "[...document.querySelectorAll({})].filter(found => found.checkVisibility())",
            json!(css)
        );
        self.until(&format!("{shown}[0]?.innerText.trim() === {}", json!(text)));
    }

    fn add(&self, titles: &[&str]) {
        for title in titles {
            self.browser.type_into("#title", &format!("{title}{ENTER}")).unwrap();
            // A position is a time; two in one millisecond would have no order.
            self.until("document.querySelectorAll('li.pending').length === 0");
        }
    }

    /// Sends keys to what has the focus.
    fn keys(&self, keys: &str) {
        self.browser.type_into(":focus", keys).unwrap();
    }

    fn row(&self, title: &str) -> String {
        let index = format!(
            "return [...document.querySelectorAll('#list li')].findIndex(item => item.innerText.trim() === {})",
            json!(title)
        );
        let index = self.browser.evaluate(&index).unwrap().as_i64().unwrap();
        assert!(index >= 0, "there is no row {title}");
        format!("#list li:nth-child({})", index + 1)
    }

    fn fill(&self, email: &str, password: &str) {
        self.browser.type_into("#email", email).unwrap();
        self.browser.type_into("#password", password).unwrap();
        self.browser.click("#submit").unwrap();
    }

    /// Runs the body of a function that can await, in the page.
    fn run(&self, script: &str) -> Value {
        self.browser.evaluate(&format!("return (async () => {{ {script}\n }})()")).unwrap()
    }

    #[track_caller]
    fn has_a_clean_console(&self) {
        assert_eq!(self.browser.console().unwrap(), Vec::<String>::new());
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/todo")
}

fn apply(place: &Place) {
    let mut apply = place.command(&["apply", "--json"]);
    apply.current_dir(example());
    let applied = finish(apply, LIMIT).unwrap();
    assert!(applied.success(), "{applied:?}");
}

fn place() -> Place {
    let place = Place::new("todo").unwrap();
    apply(&place);
    place
}

#[test]
fn two_people_keep_their_lists_apart_and_an_account_takes_a_list_along() {
    let place = place();
    let (ada, bob) = (Person::at(&place), Person::at(&place));
    ada.reads("#empty-title", "A clear day");
    ada.add(&["milk", "bread", "ferry"]);
    bob.add(&["paint", "brush"]);
    ada.sees(&["ferry", "bread", "milk"]);
    bob.sees(&["brush", "paint"]);

    ada.browser.click(&format!("{} .tick", ada.row("bread"))).unwrap();
    ada.sees(&["ferry", "✓ bread", "milk"]);
    ada.browser.click(&format!("{} .title", ada.row("milk"))).unwrap();
    bob.browser.click(&format!("{} .tick", bob.row("paint"))).unwrap();
    bob.keys("e");
    bob.keys(&format!("blue paint{ENTER}"));
    bob.sees(&["brush", "✓ blue paint"]);
    bob.keys(UP);
    bob.keys(DELETE);
    bob.sees(&["✓ blue paint"]);
    bob.reads("#toast-text", "Removed “brush”.");
    bob.browser.click("#toast-action").unwrap();
    bob.sees(&["brush", "✓ blue paint"]);

    for (person, rows) in [(&ada, &["ferry", "✓ bread", "milk"][..]), (&bob, &["brush", "✓ blue paint"])]
    {
        person.open();
        person.sees(rows);
    }

    ada.reads("#account-text", "Save your list");
    ada.browser.click("#account").unwrap();
    ada.reads("#dialog-text", "Your 3 todos stay with you, here and on every device.");
    ada.fill("ada@example.com", "a garden in june");
    ada.reads("#account-text", "ada@example.com");
    ada.sees(&["ferry", "✓ bread", "milk"]);
    ada.open();
    ada.sees(&["ferry", "✓ bread", "milk"]);

    // Bob's browser, Ada's account: his own list stays where it is unless he brings it along.
    bob.browser.click("#account").unwrap();
    bob.browser.click("#switch").unwrap();
    bob.browser.click("#bring").unwrap();
    bob.fill("ada@example.com", "a garden in june");
    bob.reads("#account-text", "ada@example.com");
    bob.sees(&["ferry", "✓ bread", "milk"]);
    bob.browser.click("#clear").unwrap();
    bob.sees(&["ferry", "milk"]);
    ada.open();
    ada.sees(&["ferry", "milk"]);

    bob.browser.click("#account").unwrap();
    bob.browser.click("#logout").unwrap();
    bob.reads("#empty-title", "A clear day");
    bob.open();
    bob.reads("#account-text", "Sign in");
    assert_eq!(bob.run("return Object.keys(localStorage)"), json!([]));
    ada.open();
    ada.sees(&["ferry", "milk"]);

    // A guest who signs in with a list of their own can take it along.
    bob.add(&["ladder"]);
    bob.browser.click("#account").unwrap();
    bob.browser.click("#switch").unwrap();
    bob.reads("#bring", "Bring my 1 todo along");
    bob.fill("ada@example.com", "a garden in june");
    bob.sees(&["ladder", "ferry", "milk"]);
    ada.open();
    ada.sees(&["ladder", "ferry", "milk"]);
    ada.has_a_clean_console();
    bob.has_a_clean_console();
}

#[test]
fn everything_can_be_done_with_the_keyboard() {
    let place = place();
    let ada = Person::at(&place);
    ada.reads("#empty-text", "Write down the first thing above. No account needed.");
    assert_eq!(
        ada.run("return document.activeElement.tagName"),
        "BODY",
        "the page takes the focus by itself"
    );
    ada.add(&["one", "two", "three"]);
    ada.sees(&["three", "two", "one"]);
    let focused = |title: &str| ada.until(&format!("document.activeElement.ariaLabel === {}", json!(title)));
    ada.keys(DOWN);
    focused("three");
    ada.keys("j");
    focused("two");
    ada.keys(DOWN);
    ada.keys(DOWN);
    focused("one");
    ada.keys("k");
    ada.keys(" ");
    ada.sees(&["three", "✓ two", "one"]);
    ada.keys(F2);
    ada.keys(&format!("second{ESCAPE}"));
    focused("two");
    ada.keys("e");
    ada.keys(&format!("second{ENTER}"));
    focused("second");
    ada.sees(&["three", "✓ second", "one"]);
    ada.keys(DELETE);
    ada.sees(&["three", "one"]);
    focused("one");
    ada.keys(UP);
    ada.keys(UP);
    ada.until("document.activeElement.id === 'title'");
    ada.keys(DOWN);
    ada.keys("/");
    ada.until("document.activeElement.id === 'search'");
    ada.keys("thr");
    ada.sees(&["three"]);
    ada.keys("ough");
    ada.reads("#empty-title", "No match");
    ada.keys(ESCAPE);
    ada.sees(&["three", "one"]);

    // What is shown can be chosen with arrows too, and a row that leaves the view hands the focus on.
    ada.browser.evaluate("document.querySelector('[name=view]:checked').focus()").unwrap();
    ada.keys("\u{E014}");
    ada.until("document.querySelector('[name=view]:checked').value === 'open'");
    ada.run("document.querySelector('#list input').focus()");
    ada.keys(" ");
    ada.sees(&["one"]);
    focused("one");
    ada.keys(" ");
    ada.reads("#empty-title", "All done");
    let unnamed = "return [...document.querySelectorAll('button, input')].filter(control => control.checkVisibility() \
        && !(control.ariaLabel || control.innerText || control.labels?.[0]?.innerText.trim() \
        || control.labels?.[0]?.textContent.trim())).map(control => control.outerHTML)";
    assert_eq!(ada.run(unnamed), json!([]), "controls without a name");
    ada.has_a_clean_console();
}

#[test]
fn a_change_made_elsewhere_meanwhile_is_shown_and_not_overwritten() {
    let place = place();
    let ada = Person::at(&place);
    ada.add(&["fix the door"]);
    let elsewhere = |change: &str| {
        ada.run(&format!(
            "const {{ createClient }} = await import('/_/sdk.js'); const todos = createClient().db('todos'); \
             const {{ rows: [row] }} = await todos.list(); await todos.update(row.id, {change})"
        ));
    };
    let edits = |then: &str| {
        ada.run("document.querySelector('#list input').focus()");
        ada.keys("e");
        // The version that is edited has been read.
        ada.until("performance.getEntriesByType('resource').at(-1).name.includes('/_/db/todos/')");
        elsewhere(then);
    };
    edits("{ title: 'fix the gate' }");
    ada.keys(&format!("fix the window{ENTER}"));
    ada.reads(".conflict span", "Meanwhile this became “fix the gate”.");
    ada.keys(ESCAPE);
    ada.sees(&["fix the gate"]);
    edits("{ title: 'fix the roof' }");
    ada.keys(&format!("fix it all{ENTER}"));
    ada.reads(".conflict span", "Meanwhile this became “fix the roof”.");
    ada.keys(ENTER);
    ada.sees(&["fix it all"]);
    // Another part of the row is no conflict.
    edits("{ done: true }");
    ada.keys(&format!("fix nothing{ENTER}"));
    ada.sees(&["✓ fix nothing"]);
    let refused = ada.browser.console().unwrap();
    // The last edit may have read what was changed already.
    assert!(
        (2..=3).contains(&refused.len()) && refused.iter().all(|line| line.contains("412")),
        "{refused:?}"
    );
}

#[test]
fn a_bad_day_is_said_and_can_be_tried_again() {
    let place = Place::new("todo").unwrap();
    let mut manifest: Value =
        serde_json::from_slice(&std::fs::read(example().join("steading.json")).unwrap()).unwrap();
    let site: serde_json::Map<String, Value> = std::fs::read_dir(example().join("site"))
        .unwrap()
        .map(|file| file.unwrap())
        .map(|file| {
            (file.file_name().into_string().unwrap(), std::fs::read_to_string(file.path()).unwrap().into())
        })
        .collect();
    manifest["site"]["files"] = site.into();
    for section in ["database", "tests"] {
        manifest.as_object_mut().unwrap().remove(section);
    }
    manifest["site"].as_object_mut().unwrap().remove("dir");
    place.output("app_apply", &json!({ "manifest": manifest })).unwrap();

    // The site is there before its table is.
    let ada = Person::at(&place);
    ada.reads("#empty-title", "A clear day");
    ada.run("const { createClient } = await import('/_/sdk.js'); await createClient().auth.anonymous()");
    ada.open();
    ada.reads("#failure h2", "Your todos could not be loaded");
    apply(&place);
    ada.browser.click("#again").unwrap();
    ada.reads("#empty-title", "A clear day");
    let refused = ada.browser.console().unwrap();
    assert!(!refused.is_empty() && refused.iter().all(|line| line.contains("404")), "{refused:?}");

    ada.run("window.real = fetch; window.fetch = () => Promise.reject(new TypeError('cut'))");
    ada.browser.type_into("#title", &format!("milk{ENTER}")).unwrap();
    ada.reads("#toast-text", "Not added. The app cannot be reached. Check the connection.");
    ada.sees(&[]);
    ada.run("window.fetch = window.real");
    ada.browser.click("#toast-action").unwrap();
    ada.sees(&["milk"]);
    ada.run(
        "Object.defineProperty(navigator, 'onLine', { get: () => false }); dispatchEvent(new Event('offline'))",
    );
    ada.until("document.querySelector('#offline').checkVisibility()");

    // Somebody signs this person out everywhere: the page says so, and shows nothing of theirs any more.
    ada.run(
        "const { access_token } = JSON.parse(Object.values(localStorage)[0]); await fetch('/_/auth/logout', { \
         method: 'POST', headers: { authorization: `Bearer ${access_token}` } })",
    );
    ada.browser.click("#list .tick").unwrap();
    ada.reads("#empty-title", "A clear day");
    ada.reads("#account-text", "Sign in");
}

#[test]
fn the_page_says_no_to_scripts_and_connections_from_elsewhere() {
    let place = place();
    let ada = Person::at(&place);
    let tries = "const violated = []; document.addEventListener('securitypolicyviolation', event => \
         violated.push(event.effectiveDirective)); \
         const script = document.createElement('script'); \
         try { script.textContent = 'window.injected = true' } catch { violated.push('trusted types') } \
         document.body.setAttribute('style', 'color: red'); \
         await fetch('http://127.0.0.1:1/').catch(() => {}); \
         await new Promise(done => setTimeout(done)); return [window.injected ?? null, violated.sort()]";
    let expected =
        json!([null, ["connect-src", "require-trusted-types-for", "style-src-attr", "trusted types"]]);
    assert_eq!(ada.run(tries), expected);
}

/// The body of a function of the page.
const ATTACKS: &str = include_str!("todo/attacks.js");

#[test]
fn an_attacker_inside_the_page_gets_and_changes_nothing() {
    let (place, elsewhere) = (place(), place());
    let (ada, eve) = (Person::at(&place), Person::at(&place));
    ada.add(&["a secret"]);
    eve.add(&["plan"]);
    let foreign = elsewhere_token(&elsewhere).unwrap();
    let known = ada.run(
        "const held = JSON.parse(localStorage.getItem(`app:${location.origin}`)); \
         const headers = { authorization: `Bearer ${held.access_token}` }; \
         const { rows: [{ id }] } = await (await fetch('/_/db/todos', { headers })).json(); \
         const answer = await fetch(`/_/db/todos/${id}`, { headers }); \
         return { victim: id, victimUser: held.user.id, victimTag: answer.headers.get('etag') }",
    );
    let mut given = known.clone();
    given["foreign"] = foreign.into();
    let everything = json!({ "sql": "SELECT * FROM todos ORDER BY id" });
    let before = place.output("db_query", &everything).unwrap();
    let seen = eve.run(&ATTACKS.replace("= GIVEN", &format!("= {given}")));
    let seen: Vec<&str> = seen.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    expect_test::expect![[r#"
        ["read by id",404,null,false]
        ["read unless the same",404,null,false]
        ["change",404,null,false]
        ["change any version",404,null,false]
        ["change its version",404,null,false]
        ["take over",404,null,false]
        ["delete",404,null,false]
        ["delete its version",404,null,false]
        ["filter by id",200,[],false]
        ["filter by owner",200,[],false]
        ["filter for all",200,["plan"],false]
        ["filter out of the rule",400,"/where",false]
        ["filter by SQL",400,"/where",false]
        ["order by a foreign column",400,"/order",false]
        ["select a foreign column",400,"/select",false]
        ["a foreign table",404,null,false]
        ["forge the owner",403,"/owner",false]
        ["give away",403,"/owner",false]
        ["forge the id",400,"/id",false]
        ["batch: read",404,"/operations/1",false]
        ["batch: change",404,"/operations/1",false]
        ["batch: change its version",404,"/operations/1",false]
        ["batch: delete",404,"/operations/1",false]
        ["batch: forge the owner",403,"/operations/1/new/owner",false]
        ["visitor: read by id",404,null,false]
        ["visitor: list",200,[],false]
        ["visitor: change",404,null,false]
        ["visitor: delete",404,null,false]
        ["visitor: create",403,null,false]
        ["a token of nobody",401,null,false]
        ["a token with another subject",401,null,false]
        ["a token without a signature",401,null,false]
        ["another environment's token",401,null,false]
        ["a refresh token as access token",401,null,false]
        ["refresh",200,null,false]
        ["a replayed refresh token",401,null,false]
        ["the family's newest refresh token",401,null,false]
        ["the family's newest access token",401,null,false]"#]]
    .assert_eq(&seen.join("\n"));
    assert_eq!(place.output("db_query", &everything).unwrap(), before, "a row was changed");
    ada.open();
    ada.sees(&["a secret"]);
    // The thief's session is dead: the page that still holds it finds itself signed out.
    eve.open();
    eve.reads("#account-text", "Sign in");
    eve.reads("#empty-title", "A clear day");
}

/// An access token of the same app in another environment.
fn elsewhere_token(place: &Place) -> anyhow::Result<String> {
    let request = testkit::http::Request::post(&format!("{}/_/auth/anonymous", place.url));
    let session = request.json(&json!({})).send()?.json()?;
    session["access_token"].as_str().map(str::to_owned).with_context(|| session.to_string())
}
