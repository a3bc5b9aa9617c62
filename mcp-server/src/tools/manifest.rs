//! The manifest as tools take it: a plain object to a model, checked completely inside.

use std::borrow::Cow;

use capabilities::releases::Manifest;
use kernel::Result;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A manifest that has not been checked.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct ManifestInput(Map<String, Value>);

impl ManifestInput {
    /// Checks it.
    ///
    /// # Errors
    /// `invalid_input` that points at what is wrong.
    pub fn parse(self) -> Result<Manifest> {
        tool::decode(Value::Object(self.0)).map_err(|e| e.under("/manifest"))
    }
}

impl JsonSchema for ManifestInput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Manifest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
