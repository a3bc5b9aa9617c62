//! A site's files as tools take them: a plain object to a model, checked completely inside.

use std::borrow::Cow;
use std::collections::BTreeMap;

use capabilities::hosting::FileSpec;
use kernel::Result;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Files that have not been checked.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct FilesInput(Map<String, Value>);

impl FilesInput {
    /// Checks their form; their paths and content are hosting's to check.
    ///
    /// # Errors
    /// `invalid_input` that points at the file.
    pub fn parse(self) -> Result<BTreeMap<String, FileSpec>> {
        tool::decode(Value::Object(self.0)).map_err(|e| e.under("/files"))
    }
}

impl JsonSchema for FilesInput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}
