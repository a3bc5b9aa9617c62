//! Functions and services in the OpenAPI document.

use capabilities::functions::Access;
use capabilities::rows::App;
use serde_json::{Map, Value, json};

use super::openapi::operation;

/// Adds the functions that pages may ask. What one takes and gives is its own business, and so are the paths below it.
pub(super) fn add(app: &App, paths: &mut Map<String, Value>) {
    for (name, (kind, access)) in &app.functions {
        let what = kind.as_str();
        let described = |summary: &str| {
            let mut described = operation(summary, 200, None);
            described["responses"]["200"]["content"] = json!({ "*/*": {} });
            if *access != Access::Public {
                described["security"] = json!([{ "session": [] }]);
            }
            described
        };
        let get =
            described(&format!("Asks the {what} {name}; it takes any method, and paths below this one."));
        let mut post =
            described(&format!("Calls the {what} {name} with a JSON value, or sends it something else."));
        post["requestBody"] = json!({ "content": { "application/json": {}, "*/*": {} } });
        paths.insert(format!("{}{name}", kind.below()), json!({ "get": get, "post": post }));
    }
}
