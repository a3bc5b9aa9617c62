//! Routes in the OpenAPI document.

use capabilities::routes::{Route, Target, Verb, Who};
use capabilities::rows::App;
use serde_json::{Map, Value, json};

use super::openapi::operation;

/// Adds the routes of this app, but those that only stand before its site.
pub(super) fn add(app: &App, paths: &mut Map<String, Value>) {
    for route in app.routes.iter().filter(|route| route.to != Target::Site || route.auth != Who::Public) {
        let (path, names) = route.template();
        let mut item: Map<String, Value> = route
            .methods
            .iter()
            .map(|verb| (verb.as_str().to_ascii_lowercase(), described(route, *verb)))
            .collect();
        let names = names.into_iter().map(
            |name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }),
        );
        let names: Vec<Value> = names.collect();
        if !names.is_empty() {
            item.insert("parameters".to_owned(), names.into());
        }
        paths.insert(path, item.into());
    }
}

fn described(route: &Route, verb: Verb) -> Value {
    let (what, below) = match &route.to {
        Target::Site => ("The site.".to_owned(), None),
        Target::Table(name) => (format!("Rows of {name}."), Some(format!("/_/db/{name}"))),
        Target::Function(name) => (format!("The function {name}."), Some(format!("/_/fn/{name}"))),
        Target::Service(name) => (format!("The service {name}."), Some(format!("/_/svc/{name}"))),
        Target::Bucket(name) => (format!("Files of {name}."), Some(format!("/_/files/{name}/{{path}}"))),
    };
    let status = match (&route.to, verb) {
        (Target::Table(_), Verb::Post) => 201,
        (_, Verb::Delete) => 204,
        _ => 200,
    };
    let mut described = operation(&what, status, None);
    let mut words: Vec<String> = below.map(|below| format!("As {below}.")).into_iter().collect();
    if let Some(limit) = &route.limit {
        words.push(format!("Limited to {limit}."));
    }
    if let Some(bytes) = route.max_body {
        words.push(format!("Bodies have at most {bytes} bytes."));
    }
    if !words.is_empty() {
        described["description"] = words.join(" ").into();
    }
    if route.auth != Who::Public {
        described["security"] = json!([{ "session": [] }]);
    }
    described
}
