//! The example, deployed as the README says, in a real browser.

use std::path::Path;
use std::time::Duration;

use conformance_tests::{App, Place, browser};
use serde_json::{Value, json};
use testkit::{Chromium, finish};

const LIMIT: Duration = Duration::from_secs(60);

fn apply(place: &Place) -> Value {
    let mut apply = place.command(&["apply", "examples/hello", "--json"]);
    apply.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let applied = finish(apply, LIMIT).unwrap();
    assert!(applied.success(), "{applied:?}");
    serde_json::from_str(&applied.stdout).unwrap()
}

fn look(browser: &Chromium, url: &str) -> anyhow::Result<()> {
    browser.goto(url)?;
    anyhow::ensure!(browser.title()? == "Hello from Steading", "the title is {:?}", browser.title()?);
    // The page asks for its own release and writes it down.
    let release = testkit::eventually(LIMIT, || browser.text("#release").ok().filter(|text| text != "…"));
    anyhow::ensure!(release.as_deref() == Some("1"), "the release is {release:?}");
    anyhow::ensure!(url == format!("http://{}", browser.text("#host")?), "the host is another than {url}");
    let sizes = "const box = (css) => document.querySelector(css).getBoundingClientRect(); \
        return [box('img').width, box('main').width < innerWidth, document.images[0].naturalWidth > 0]";
    let sizes = browser.evaluate(sizes)?;
    anyhow::ensure!(sizes == serde_json::json!([64, true, true]), "style or picture is missing: {sizes}");
    let console = browser.console()?;
    anyhow::ensure!(console.is_empty(), "the console says {console:?}");
    Ok(())
}

#[test]
fn the_example_looks_right_and_deploys_once() {
    let place = Place::new("hello").unwrap();
    let applied = apply(&place);
    assert_eq!((&applied["release"], &applied["changed"]), (&1.into(), &true.into()), "{applied}");
    let url = applied["url"].as_str().unwrap();
    let seen = browser(|browser| {
        look(browser, url).or_else(|error| {
            let path = std::env::temp_dir().join("steading-hello.png");
            std::fs::write(&path, browser.screenshot()?)?;
            Err(error.context(format!("what it looked like: {}", path.display())))
        })
    });
    seen.unwrap();
    let again = apply(&place);
    assert_eq!((&again["release"], &again["changed"]), (&1.into(), &false.into()), "{again}");
}

#[test]
fn nobody_reaches_the_guests_of_the_example() {
    let place = Place::new("hello-attack").unwrap();
    apply(&place);
    let sql = "INSERT INTO guests (name) VALUES ('Ada')";
    place.output("db_execute", &json!({ "sql": sql })).unwrap();
    let app = App::new(&place.url);
    let visitor = app.visitor();
    let listed = visitor.list("guests", &[]).unwrap();
    assert!(!listed.body.to_string().contains("Ada"), "{listed:?}");
    let new = json!({ "name": "Mallory" });
    visitor.send("POST", "/_/db/guests", &new).unwrap().refuses(403, "forbidden").unwrap();
    for path in [
        "/_/db/guests.csv",
        "/_/db/guests?select=name&where=name=='Ada'",
        "/steading.json",
        "/../steading.json",
    ] {
        let found = visitor.ask("GET", path).unwrap();
        let text = found.body.to_string();
        assert!(!text.contains("Ada") && !text.contains("guests"), "{path}: {found:?}");
    }
    assert!(app.stranger().is_err(), "nobody signs in here");
}
