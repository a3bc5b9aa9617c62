//! From JSON to types, with errors that point at what is wrong.

use kernel::{Error, Result};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Reads a `T` out of `value`.
///
/// # Errors
/// `invalid_input` with a JSON pointer (RFC 6901) to the part that is wrong.
pub fn decode<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|e| {
        let (at, message) = (pointer(e.path()), e.into_inner().to_string());
        let at = missing(&message).map_or_else(|| at.clone(), |name| format!("{at}/{}", escaped(name)));
        Error::invalid(at, plain(&message))
    })
}

/// The field that is missing, where one is: serde points at what it is missing in.
fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// What serde says, in the words of JSON.
fn plain(message: &str) -> String {
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("invalid type: sequence", "invalid type: a list"),
        ("invalid type: map", "invalid type: an object"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected an object"),
        ("expected string or map", "expected a string"),
        ("unknown variant", "unknown value"),
    ] {
        message = message.replace(theirs, ours);
    }
    match message.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected an object"),
        None => message,
    }
}

/// JSON whose lists are never taken for objects with their fields in order, which serde would do.
struct Strict(Value);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Value::Object(fields) => {
                let mut fields =
                    MapDeserializer::new(fields.into_iter().map(|(key, value)| (key, Strict(value))));
                let value = visitor.visit_map(&mut fields)?;
                fields.end().map(|()| value)
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Answer<V::Value> {
        match self.0 {
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Answer<V::Value> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Answer<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Answer<V::Value> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

type Answer<T> = std::result::Result<T, serde_json::Error>;

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &Path) -> String {
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => format!("{pointer}/{index}"),
        Segment::Map { key } => format!("{pointer}/{}", escaped(key)),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        inner: Option<Inner>,
        #[serde(default)]
        many: Vec<Inner>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Inner {
        kind: Kind,
        share: f64,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Big,
    }

    #[test]
    fn a_list_is_no_object_and_what_is_wrong_is_said_in_the_words_of_json() {
        let read = |value| match decode::<Outer>(value) {
            Ok(read) => format!("{read:?}"),
            Err(error) => format!("{error:?}"),
        };
        let inner = json!({ "kind": "big", "share": 1 });
        assert_eq!(
            read(json!({ "inner": inner, "many": [inner] })),
            "Outer { inner: Some(Inner { kind: Big, share: 1.0 }), many: [Inner { kind: Big, share: 1.0 }] }"
        );
        assert_eq!(read(json!({ "inner": null })), "Outer { inner: None, many: [] }");
        for (value, said) in [
            (json!({ "inner": ["big", 1] }), "/inner: invalid type: a list, expected an object"),
            (json!({ "many": [["big", 1]] }), "/many/0: invalid type: a list, expected an object"),
            (json!({ "many": inner }), "/many: invalid type: an object, expected a list"),
            (json!({ "inner": true }), "/inner: invalid type: boolean `true`, expected an object"),
            (json!({ "inner": { "kind": "odd" } }), "/inner/kind: unknown value `odd`, expected `big`"),
            (
                json!({ "inner": { "kind": true } }),
                "/inner/kind: invalid type: boolean `true`, expected a string",
            ),
            (json!({ "inner": { "kind": "big" } }), "/inner/share: missing field `share`"),
            (json!({ "many": [inner, {}] }), "/many/1/kind: missing field `kind`"),
            (json!({ "outer": 1 }), "/outer: unknown field `outer`, expected `inner` or `many`"),
        ] {
            assert_eq!(read(value), format!("invalid_input {said}"));
        }
    }

    #[test]
    fn the_pointer_survives_dots_and_slashes_in_names() {
        let wrong = decode::<BTreeMap<String, Vec<u8>>>(json!({ "a/b.c": [1, "x"] })).unwrap_err();
        assert_eq!(wrong.pointer(), Some("/a~1b.c/1"));
        assert_eq!(wrong.message(), "invalid type: string \"x\", expected u8");
    }
}
