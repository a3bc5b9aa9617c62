//! A PocketBase: its superuser is let in, and nothing of it is left.

use serde_json::json;
use testkit::{PocketBase, require};

use crate::gone;

#[test]
fn pocketbase_takes_a_collection_from_its_superuser_and_ends_with_its_value() {
    let server = require(PocketBase::start());
    let made = server.post("/api/collections", &json!({ "name": "things", "type": "base" })).unwrap();
    assert_eq!(made["name"], "things");
    assert!(server.post("/api/collections", &json!({ "name": "things", "type": "base" })).is_err());
    let process = server.id();
    drop(server);
    assert!(gone(process), "process {process} lives");
}
