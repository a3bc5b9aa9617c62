//! JSON Schemas (2020-12) from types: the full one that validates, and the slim one that a model sees.

use kernel::{Error, Result};
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, ReplaceBoolSchemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// The schema of what can be read as a `T`, with everything inlined.
pub(crate) fn of_input<T: JsonSchema>() -> Value {
    of::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of what a `T` is written as, with everything inlined.
pub(crate) fn of_output<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    of::<T>(settings.with_transform(RecursiveTransform(without_null)))
}

fn of<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let mut objects = ReplaceBoolSchemas::default();
    objects.skip_additional_properties = true;
    let mut schema = settings
        .with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        })
        .with_transform(RecursiveTransform(without_width))
        // Some clients translate schemas into dialects where a schema is always an object.
        .with_transform(objects)
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("title");
        // MCP asks for an object at the root, also where a type has no field.
        object.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// Takes the width of a Rust number away: no JSON Schema names such formats, and official clients complain of each.
fn without_width(schema: &mut Schema) {
    let width = |format: &Value| {
        format.as_str().is_some_and(|name| name.starts_with("uint") || name.starts_with("int"))
    };
    if schema.get("format").is_some_and(width) {
        schema.remove("format");
    }
}

/// Takes null away from properties that may be absent: what is written leaves them out instead, and some clients
/// know no type beside another.
fn without_null(schema: &mut Schema) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let optional = properties.iter_mut().filter(|(name, _)| !required.iter().any(|known| known == *name));
    for (_, property) in optional {
        let Some(types) = property.get_mut("type") else { continue };
        if let Some(list) = types.as_array_mut() {
            list.retain(|name| name != "null");
            if list.len() == 1 {
                *types = list.remove(0);
            }
        }
    }
}

/// The schema as a model sees it: without what only a validator needs.
pub(crate) fn slim(schema: &Value) -> Value {
    match schema {
        Value::Object(object) => Value::Object(slim_object(object)),
        Value::Array(items) => Value::Array(items.iter().map(slim).collect()),
        other => other.clone(),
    }
}

fn slim_object(object: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            // A map of properties may well have one that is called "format".
            ("properties", Value::Object(properties)) => {
                let slimmed = properties.iter().map(|(name, schema)| (name.clone(), slim(schema)));
                out.insert(key.clone(), Value::Object(slimmed.collect()));
            }
            ("format" | "title" | "minimum" | "default" | "additionalProperties", _) if drops(key, value) => {
            }
            ("type", Value::Array(types)) => {
                let mut rest: Vec<_> = types.iter().filter(|t| *t != "null").cloned().collect();
                let only = if rest.len() == 1 { rest.remove(0) } else { Value::Array(rest) };
                out.insert(key.clone(), only);
            }
            ("anyOf", Value::Array(choices)) => {
                let rest: Vec<_> =
                    choices.iter().filter(|c| c.get("type") != Some(&"null".into())).map(slim).collect();
                match <[Value; 1]>::try_from(rest) {
                    Ok([Value::Object(only)]) => out.extend(only),
                    Ok([only]) => drop(out.insert(key.clone(), Value::Array(vec![only]))),
                    Err(rest) => drop(out.insert(key.clone(), Value::Array(rest))),
                }
            }
            ("description", Value::String(text)) => {
                out.insert(key.clone(), text.split_whitespace().collect::<Vec<_>>().join(" ").into());
            }
            _ => drop(out.insert(key.clone(), slim(value))),
        }
    }
    out
}

/// Keywords that cost tokens and tell a model nothing.
fn drops(key: &str, value: &Value) -> bool {
    match key {
        "minimum" => value == 0,
        // What is left out is empty anyhow.
        "default" => value.is_null() || *value == serde_json::json!({}) || *value == serde_json::json!([]),
        // That unknown fields are refused is said once, in the server's instructions.
        "additionalProperties" => value == false || value == true,
        _ => true,
    }
}

/// A compiled schema.
pub(crate) struct Validator(jsonschema::Validator);

impl Validator {
    /// Compiles a schema made by [`of`]; fails only where a type's own schema is wrong.
    pub(crate) fn new(schema: &Value) -> Result<Self> {
        jsonschema::draft202012::new(schema)
            .map(Self)
            .map_err(|e| Error::internal(format!("a tool's schema does not compile: {e}")))
    }

    /// Checks `value`; the error names the field by a JSON pointer, says the reason, and never repeats values.
    pub(crate) fn check(&self, value: &Value) -> Result<()> {
        // Where several things are wrong, a field that is not known is likely the cause of one that is missing.
        let first = self.0.iter_errors(value).take(LOOKED_AT).min_by_key(rank);
        first.map_or(Ok(()), |first| Err(explain(&first, value)))
    }
}

/// How many errors of one input are looked at.
const LOOKED_AT: usize = 64;

fn rank(error: &jsonschema::ValidationError<'_>) -> u8 {
    use jsonschema::error::ValidationErrorKind as Kind;
    match error.kind() {
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } | Kind::FalseSchema => 0,
        Kind::Required { .. } => 1,
        _ => 2,
    }
}

fn explain(error: &jsonschema::ValidationError<'_>, whole: &Value) -> Error {
    use jsonschema::error::ValidationErrorKind as Kind;
    let at = error.instance_path().as_str().to_owned();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            no_field(&at, unexpected.first().map_or("", String::as_str))
        }
        // What the validator says where a type has no fields: it points at the object and not at its field.
        Kind::FalseSchema => {
            let fields = whole.pointer(&at).and_then(Value::as_object);
            no_field(&at, fields.and_then(|fields| fields.keys().next()).map_or("", String::as_str))
        }
        Kind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            Error::invalid(format!("{at}/{}", escape(name)), format!("the field {name:?} is missing"))
        }
        Kind::Type { kind } => {
            let expected = match kind {
                jsonschema::error::TypeKind::Single(one) => one.to_string(),
                jsonschema::error::TypeKind::Multiple(many) => {
                    let names: Vec<_> = many.iter().map(|t| t.to_string()).filter(|t| t != "null").collect();
                    names.join(" or ")
                }
            };
            let message = format!("expected {expected}, got {}", kind_of(error.instance()));
            Error::invalid(at, message)
        }
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            Error::invalid(at, format!("{} fits none of the forms it may have", kind_of(error.instance())))
                .hint("see the tool's input schema")
        }
        Kind::Enum { options } => Error::invalid(at, format!("expected one of {options}")),
        Kind::Minimum { limit } => Error::invalid(at, format!("expected {limit} or more")),
        Kind::Maximum { limit } => Error::invalid(at, format!("expected {limit} or less")),
        Kind::MinLength { limit } => Error::invalid(at, format!("expected {limit} characters or more")),
        Kind::MaxLength { limit } => Error::invalid(at, format!("expected {limit} characters or fewer")),
        Kind::MaxItems { limit } => Error::invalid(at, format!("expected {limit} items or fewer")),
        Kind::Pattern { pattern } => Error::invalid(at, format!("expected text that matches {pattern}")),
        other => Error::invalid(at, format!("does not satisfy {:?}", other.keyword())),
    }
}

fn no_field(at: &str, name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::invalid(format!("{at}/{}", escape(name)), format!("there is no field {shown:?}"))
        .hint("remove it, or see the tool's input schema")
}

/// Escapes a name for a JSON pointer (RFC 6901 §3).
fn escape(name: &str) -> String {
    name.chars().take(100).collect::<String>().replace('~', "~0").replace('/', "~1")
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the schema is looked at")]
    struct Input {
        /// One
        /// statement.
        sql: String,
        /// At most this many.
        limit: Option<u32>,
        nested: Option<Nested>,
    }

    #[derive(serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the schema is looked at")]
    struct Nested {
        format: String,
    }

    #[derive(serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    #[test]
    fn numbers_keep_their_bounds_and_lose_their_width() {
        assert_eq!(of_output::<u64>(), json!({ "type": "integer", "minimum": 0 }));
    }

    #[test]
    fn what_is_left_out_is_never_null_and_every_schema_is_an_object() {
        #[derive(serde::Serialize, JsonSchema)]
        struct Output {
            rows: Vec<Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cursor: Option<String>,
            release: Option<String>,
        }
        let expected = json!({
            "type": "object",
            "properties": {
                "rows": { "type": "array", "items": {} },
                "cursor": { "type": "string" },
                "release": { "type": ["string", "null"] },
            },
            "required": ["rows", "release"],
        });
        assert_eq!(of_output::<Output>(), expected);
    }

    #[test]
    fn a_model_sees_the_slim_schema() {
        let expected = json!({
            "type": "object",
            "properties": {
                "sql": { "description": "One statement.", "type": "string" },
                "limit": { "description": "At most this many.", "type": "integer" },
                "nested": { "type": "object", "properties": { "format": { "type": "string" } }, "required": ["format"] },
            },
            "required": ["sql"],
        });
        assert_eq!(slim(&of_input::<Input>()), expected);
    }

    #[test]
    fn a_type_without_fields_names_the_one_that_it_is_given() {
        #[derive(serde::Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        let error =
            Validator::new(&of_input::<Nothing>()).unwrap().check(&json!({ "speed": 9 })).unwrap_err();
        assert_eq!(format!("{error:?}"), "invalid_input /speed: there is no field \"speed\"");
    }

    #[test]
    fn wrong_input_names_the_field_and_the_reason() {
        let check = |value: Value| {
            let validator = Validator::new(&of_input::<Input>()).unwrap();
            validator.check(&value).map_err(|e| format!("{e:?}")).err().unwrap_or_default()
        };
        assert_eq!(check(json!({ "sql": "x", "limit": null })), "");
        assert_eq!(check(json!({})), "invalid_input /sql: the field \"sql\" is missing");
        assert_eq!(check(json!({ "sql": 1 })), "invalid_input /sql: expected string, got a number");
        assert_eq!(check(json!({ "sql": "x", "a/b": 1 })), "invalid_input /a~1b: there is no field \"a/b\"");
        assert_eq!(
            check(json!({ "sql": "x", "limit": "9" })),
            "invalid_input /limit: expected integer, got a string"
        );
        assert_eq!(check(json!({ "sq": "x" })), "invalid_input /sq: there is no field \"sq\"");
        assert_eq!(check(json!([])), "invalid_input : expected object, got an array");
        let nothing = Validator::new(&of_input::<Nothing>()).unwrap();
        let error = nothing.check(&json!({ "sql": "x" })).unwrap_err();
        assert_eq!(format!("{error:?}"), "invalid_input /sql: there is no field \"sql\"");
    }
}
