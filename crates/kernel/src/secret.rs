//! A value that does not print.

use std::fmt;

/// A secret text. It has no `Display`, its `Debug` says nothing, and it cannot be serialized; the one way to
/// the value is [`Secret::expose`], to be called at the one place that uses it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value in.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // What came instead may be the secret in another form: the error does not repeat it.
        String::deserialize(from).map(Self).map_err(|_| serde::de::Error::custom("expected a text"))
    }
}

impl schemars::JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_says_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn what_is_no_text_is_refused_without_being_repeated() {
        let refused = serde_json::from_str::<Secret>("12345678").map_err(|e| e.to_string());
        assert_eq!(refused, Err("expected a text".to_owned()));
    }
}
