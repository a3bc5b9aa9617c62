//! What a manifest says about its site, as it comes in.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::redirects::RedirectSpec;

/// The site of a manifest: its files and how they are served.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SiteSpec {
    /// A directory next to the manifest. Only the command line reads it; over MCP and HTTP send `files`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<String>,
    /// Path to content: text, {"base64": …} for bytes, or {"sha256": …} for a blob that was uploaded with
    /// PUT /v1/blobs/{sha256}.
    #[serde(default)]
    pub files: BTreeMap<String, FileSpec>,
    /// Whether unknown paths without a file extension get index.html (single-page apps).
    #[serde(default)]
    pub spa: bool,
    /// Path pattern (* stands for any characters, slashes too) to response headers, for example
    /// {"/*": {"X-Frame-Options": "DENY"}}. Where two patterns set the same header, the later one wins.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, String>>")]
    pub headers: IndexMap<String, BTreeMap<String, String>>,
    /// Redirects, tried in order and before files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<RedirectSpec>,
}

/// The content of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum FileSpec {
    /// Text, stored as UTF-8.
    Text(String),
    /// Bytes in base64 (RFC 4648 §4).
    Base64 {
        /// The bytes.
        base64: String,
    },
    /// A blob that was uploaded before.
    Blob {
        /// Its SHA-256, in lower-case hexadecimal digits.
        sha256: String,
    },
}

// By hand, because serde's untagged enums only say that "no variant matched".
impl<'de> Deserialize<'de> for FileSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Content;

        impl<'de> Visitor<'de> for Content {
            type Value = FileSpec;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, {\"base64\": …} or {\"sha256\": …}")
            }

            fn visit_str<E>(self, text: &str) -> Result<FileSpec, E> {
                Ok(FileSpec::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<FileSpec, E> {
                Ok(FileSpec::Text(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FileSpec, A::Error> {
                const KEYS: &[&str] = &["base64", "sha256"];
                let Some(key) = map.next_key::<String>()? else {
                    return Err(A::Error::custom("the file is empty: give it base64 or sha256"));
                };
                let content = match key.as_str() {
                    "base64" => FileSpec::Base64 { base64: map.next_value()? },
                    "sha256" => FileSpec::Blob { sha256: map.next_value()? },
                    other => return Err(A::Error::unknown_field(other, KEYS)),
                };
                match map.next_key::<String>()? {
                    None => Ok(content),
                    Some(_) => Err(A::Error::custom("a file has one of base64 and sha256, and nothing else")),
                }
            }
        }

        from.deserialize_any(Content)
    }
}

impl JsonSchema for FileSpec {
    fn schema_name() -> Cow<'static, str> {
        "FileSpec".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let only = |name: &str, about: &str| {
            serde_json::json!({
                "type": "object",
                "properties": { name: { "type": "string", "description": about } },
                "required": [name],
                "additionalProperties": false,
            })
        };
        schemars::json_schema!({
            "description": "The content of one file.",
            "anyOf": [
                { "type": "string", "description": "Text, stored as UTF-8." },
                only("base64", "Bytes in base64 (RFC 4648 section 4)."),
                only("sha256", "The SHA-256 of an uploaded blob, in lower-case hexadecimal digits."),
            ],
        })
    }
}

/// `text` as one reference token of a JSON pointer (RFC 6901 §3).
pub(crate) fn pointer_escape(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FileSpec, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn content_comes_in_three_forms() {
        assert_eq!(read(r#""hi""#), Ok(FileSpec::Text("hi".into())));
        assert_eq!(read(r#"{"base64":"aGk="}"#), Ok(FileSpec::Base64 { base64: "aGk=".into() }));
        assert_eq!(read(r#"{"sha256":"00"}"#), Ok(FileSpec::Blob { sha256: "00".into() }));
    }

    #[test]
    fn other_content_is_refused_with_what_was_expected() {
        for (text, why) in [
            (r#"{"text":"a"}"#, "unknown field `text`, expected `base64` or `sha256`"),
            (r#"{"base64":"","sha256":""}"#, "a file has one of base64 and sha256, and nothing else"),
            (r#"{}"#, "the file is empty: give it base64 or sha256"),
            ("7", r#"invalid type: integer `7`, expected text, {"base64": …} or {"sha256": …}"#),
        ] {
            assert!(read(text).is_err_and(|error| error.starts_with(why)), "{text}: {:?}", read(text));
        }
    }

    #[test]
    fn a_site_survives_writing_and_reading() {
        let text = r#"{"files":{"a":"b","c":{"sha256":"d"}},"spa":true,"headers":{"/*":{"x-a":"b"}},"redirects":[{"from":"/x","to":"/y"}]}"#;
        let site: Result<SiteSpec, _> = serde_json::from_str(text);
        let site = site.unwrap();
        let again: SiteSpec = serde_json::from_value(serde_json::to_value(&site).unwrap()).unwrap();
        assert_eq!(again, site);
        assert!(serde_json::from_str::<SiteSpec>(r#"{"files":{},"root":"x"}"#).is_err());
    }
}
