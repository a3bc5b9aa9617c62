//! One app from its first plan to a rollback, the same for every client: what each must see.

use conformance_tests::{Driver, Greeting, Place, Said, Target, browser, liar};
use serde_json::{Value, json};
use testkit::http::Request;

/// A table and a page; `title` is the page's text, `price` the type of one column.
fn manifest(title: &str, price: &str) -> Value {
    let page = format!(
        "<!doctype html><title>{title}</title><link rel=icon href='data:,'><h1>{title}</h1><script>\
         document.querySelector('h1').dataset.ran = 'yes'</script>"
    );
    let columns = json!({ "title": "text!", "done": "bool = false", "price": price });
    json!({
        "name": "Notes",
        "database": { "tables": { "notes": { "columns": columns, "access": "private" } } },
        "site": { "files": { "index.html": page } },
    })
}

/// Runs the whole of it through one client.
pub fn check(place: &Place, (greeting, mut driver): (Greeting, Driver), protocol: Option<&str>) {
    greets(place, &greeting, protocol);
    applies(place, &mut driver);
    repeats(&mut driver);
    refuses_a_loss_until_it_is_confirmed(&mut driver);
    names_drift(place, &mut driver);
    rolls_back(place, &mut driver);
    refuses_what_is_wrong(&mut driver);
    assert_eq!(driver.end().unwrap(), "", "the client complains about the server");
}

fn greets(place: &Place, greeting: &Greeting, protocol: Option<&str>) {
    assert_eq!(greeting.protocol.as_deref(), protocol);
    assert!(greeting.instructions.as_ref().is_some_and(|text| text.contains("app_describe")), "{greeting:?}");
    let tools = place.client.request("GET", "/v1/tools").send().unwrap().json().unwrap();
    let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(json!(greeting.tools), json!(names), "the doors list different tools");
    assert_eq!(greeting.without_output_schema, Vec::<String>::new());
    assert!(greeting.prompts.contains_key("start-here"), "{:?}", greeting.prompts.keys());
    for (name, text) in &greeting.prompts {
        assert_eq!(place.output("skill_read", &json!({ "name": name })).unwrap()["text"], *text);
    }
}

fn applies(place: &Place, driver: &mut Driver) {
    let said = driver.call("app_apply", &json!({ "manifest": manifest("First", "text") })).unwrap();
    let Said::Answered { failed: false, structured: applied, steps, .. } = said else { panic!("{said:?}") };
    assert_eq!(
        (&applied["release"], &applied["url"], &applied["changed"]),
        (&json!(1), &json!(place.url), &json!(true))
    );
    let done: Vec<f64> = steps.iter().map(|step| step["done"].as_f64().unwrap()).collect();
    assert!(!done.is_empty() && done.is_sorted(), "progress was asked for: {steps:?}");
    assert_eq!(looks(place), "First");
    let insert = "INSERT INTO notes (title, price) VALUES ('milk', 'cheap'), ('tea', '3')";
    assert_eq!(driver.output("db_execute", &json!({ "sql": insert })).unwrap()["changed"], 2);
    assert_eq!(rows(driver), json!([["milk", 0, "cheap"], ["tea", 0, "3"]]));
}

fn repeats(driver: &mut Driver) {
    let again = driver.output("app_apply", &json!({ "manifest": manifest("First", "text") })).unwrap();
    assert_eq!((&again["release"], &again["changed"]), (&json!(1), &json!(false)));
}

fn refuses_a_loss_until_it_is_confirmed(driver: &mut Driver) {
    let lossy = json!({ "manifest": manifest("Second", "int") });
    let loss = "1 of 2 values cannot become int and are lost";
    let problem = driver.problem("app_apply", &lossy).unwrap();
    assert_eq!((&problem["code"], &problem["field"]), (&json!("conflict"), &json!("/manifest")));
    let message = problem["message"].as_str().unwrap();
    assert!(message.contains("column notes.price") && message.contains(loss), "{message}");
    let plan = driver.output("app_plan", &lossy).unwrap();
    let effects = plan["effects"].as_array().unwrap();
    let named = json!({ "kind": "data_loss", "target": "column notes.price", "message": loss });
    assert!(effects.contains(&named), "{effects:?}");
    let unconfirmed = driver.problem("app_apply", &json!({ "plan_id": plan["plan_id"] })).unwrap();
    assert_eq!(unconfirmed["code"], "conflict");
    assert_eq!(rows(driver), json!([["milk", 0, "cheap"], ["tea", 0, "3"]]), "a refusal changed something");
    let confirmed = json!({ "plan_id": plan["plan_id"], "confirm": plan["confirm"] });
    let applied = driver.output("app_apply", &confirmed).unwrap();
    assert_eq!((&applied["release"], &applied["changed"]), (&json!(2), &json!(true)));
    assert_eq!(rows(driver), json!([["milk", 0, null], ["tea", 0, 3]]));
}

fn names_drift(place: &Place, driver: &mut Driver) {
    let plan = driver.output("app_plan", &json!({ "manifest": manifest("Third", "int") })).unwrap();
    let outside = json!({ "name": "outside", "sql": "ALTER TABLE notes ADD COLUMN stray TEXT" });
    place.output("db_migrate", &outside).unwrap();
    let drifted = driver.problem("app_apply", &json!({ "plan_id": plan["plan_id"] })).unwrap();
    assert_eq!((&drifted["code"], &drifted["field"]), (&json!("conflict"), &json!("/plan_id")));
    let message = drifted["message"].as_str().unwrap();
    assert!(message.contains("table notes"), "{message}");
    assert_eq!(looks(place), "Second", "a refused plan changed the site");
}

fn rolls_back(place: &Place, driver: &mut Driver) {
    let back = driver.output("app_rollback", &json!({ "release": 1 })).unwrap();
    assert_eq!(back["changed"], true);
    assert_eq!(looks(place), "First");
    let missing = driver.problem("app_rollback", &json!({ "release": 99 })).unwrap();
    assert_eq!((&missing["code"], &missing["field"]), (&json!("not_found"), &json!("/release")));
}

fn refuses_what_is_wrong(driver: &mut Driver) {
    let wrong = driver.problem("db_query", &json!({ "sql": 1 })).unwrap();
    assert_eq!((&wrong["code"], &wrong["field"]), (&json!("invalid_input"), &json!("/sql")));
    let unknown = driver.problem("db_query", &json!({ "sql": "SELECT 1", "speed": 9 })).unwrap();
    assert_eq!((&unknown["code"], &unknown["field"]), (&json!("invalid_input"), &json!("/speed")));
    let said = driver.call("no_such_tool", &json!({})).unwrap();
    let Said::Thrown { thrown } = said else { panic!("{said:?}") };
    assert!(thrown.contains("no_such_tool"), "{thrown}");
}

fn rows(driver: &mut Driver) -> Value {
    let query = json!({ "sql": "SELECT title, done, price FROM notes ORDER BY title" });
    driver.output("db_query", &query).unwrap()["rows"].take()
}

/// The page's heading in a browser, whose console is clean; a program that only fetches sees the same release.
fn looks(place: &Place) -> String {
    let seen = browser(|browser| {
        browser.goto(&place.url)?;
        let heading = browser.text("h1[data-ran=yes]")?;
        Ok((heading, browser.title()?, browser.console()?))
    });
    let (heading, title, console) = seen.unwrap();
    assert_eq!((&title, console), (&heading, vec![]));
    let fetched = Request::get(&place.url).send().unwrap();
    assert!(fetched.text().unwrap().contains(&format!("<h1>{heading}</h1>")), "{fetched:?}");
    heading
}

#[test]
fn clients_check_what_a_tool_answers_against_its_output_schema() {
    let place = Place::new("liar").unwrap();
    let url = liar(place.steading.authority(), r#""columns":["one"]"#, r#""columns":"one""#).unwrap();
    let drivers = [
        Driver::python(&place, Target::HttpAt(url.clone()), "auto"),
        Driver::typescript_1(&place, Target::HttpAt(url.clone())),
        Driver::typescript_2(&place, Target::HttpAt(url), "auto"),
    ];
    for driver in drivers {
        let (_, mut driver) = driver.unwrap();
        let said = driver.call("db_query", &json!({ "sql": "SELECT 1 AS one" })).unwrap();
        assert!(matches!(said, Said::Thrown { .. }), "it takes what breaks the schema: {said:?}");
        assert_eq!(
            driver.output("db_query", &json!({ "sql": "SELECT 1 AS two" })).unwrap()["rows"],
            json!([[1]])
        );
    }
}
