//! The example, deployed as the README says, in a real browser.

use std::path::Path;
use std::time::Duration;

use conformance_tests::{Place, browser};
use serde_json::Value;
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
