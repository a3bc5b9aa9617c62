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
        // Asked for a text alone, formats refuse a number themselves, and repeat it.
        from.deserialize_any(Text)
    }
}

/// Takes a text. A number in its place may be the secret itself: unlike serde's own words, the error does not repeat it.
struct Text;

impl Text {
    fn refusal<E: serde::de::Error>() -> E {
        E::custom("expected a text")
    }
}

impl serde::de::Visitor<'_> for Text {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Secret, E> {
        Ok(Secret(text))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(Self::refusal())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(Self::refusal())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(Self::refusal())
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
        let read = |text: &str| serde_json::from_str::<Secret>(text).map_err(|e| e.to_string());
        assert_eq!(read("\"hunter2\""), Ok(Secret::new("hunter2")));
        for number in ["12345678", "-12345678", "1234.5678"] {
            let refused = read(number).unwrap_err();
            assert!(refused.starts_with("expected a text") && !refused.contains("1234"), "{refused}");
        }
    }
}
