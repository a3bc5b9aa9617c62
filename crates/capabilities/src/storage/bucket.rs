//! Buckets: what a manifest says of them, and what the data plane knows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use kernel::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::media;
use super::object;
use crate::access::AccessSpec;
use crate::rows::TableModel;

/// The largest file of a bucket that says nothing of it, in bytes.
pub const MAX_SIZE: u64 = 100 << 20;

/// How many content types a bucket may name.
const TYPES: usize = 50;

/// The manifest's `storage`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StorageSpec {
    /// Bucket name → bucket.
    #[serde(default)]
    pub buckets: BTreeMap<BucketName, BucketSpec>,
}

/// One bucket: files under paths.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BucketSpec {
    /// Who may do what: private public_read admin_write admin_only, or an object of expressions for list get create
    /// update delete over path, size, content_type, owner, metadata, created_at, updated_at; nobody where it is left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessSpec>,
    /// The largest file, in bytes; 100 MiB where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u64>,
    /// Content types that files may have: `image/png`, `image/*`; any where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
}

/// The name of a bucket, safe in a path and in SQL between quotes: a small letter, then small letters, digits, `_` and
/// `-`, at most 63.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(String);

/// Why a text cannot be a bucket's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a bucket: use a small letter, then small letters, digits, _ and -, at most 63")]
pub struct BucketNameError(String);

/// A bucket, as the data plane sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Bucket {
    /// Its name.
    pub name: String,
    /// Its files' metadata as a table, with the rules.
    pub table: TableModel,
    /// The largest file, in bytes.
    pub max_size: u64,
    /// Content types that files may have; any where it is empty.
    pub types: Vec<String>,
}

impl BucketName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BucketName {
    type Error = BucketNameError;

    fn try_from(text: String) -> Result<Self, BucketNameError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let well_formed =
            text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(fits);
        if well_formed { Ok(Self(text)) } else { Err(BucketNameError(text.chars().take(80).collect())) }
    }
}

impl From<BucketName> for String {
    fn from(name: BucketName) -> String {
        name.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for BucketName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "BucketName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

impl StorageSpec {
    /// Every bucket spelled out, by its name, with rules that may look into `tables`; or the first thing that is wrong, with its place below `/storage`.
    pub(crate) fn models(&self, tables: &[TableModel]) -> Result<BTreeMap<String, Arc<Bucket>>> {
        let models = self.buckets.iter().map(|(name, spec)| {
            let model = spec.model(name, tables).map_err(|e| e.under(&format!("/buckets/{name}")))?;
            Ok((name.to_string(), Arc::new(model)))
        });
        models.collect()
    }
}

impl BucketSpec {
    fn model(&self, name: &BucketName, tables: &[TableModel]) -> Result<Bucket> {
        if self.max_size == Some(0) {
            return Err(Error::invalid("/max_size", "the largest file has at least 1 byte"));
        }
        if self.types.len() > TYPES {
            return Err(Error::invalid("/types", format!("a bucket names at most {TYPES} content types")));
        }
        for (i, pattern) in self.types.iter().enumerate() {
            if !media::is_pattern(pattern) {
                let message = format!("{pattern:?} is no content type");
                return Err(Error::invalid(format!("/types/{i}"), message)
                    .hint("write it like image/png, or image/* for all of a kind, in small letters"));
            }
        }
        let access = match &self.access {
            Some(access) => access.rules(&object::told(), tables).map_err(|e| e.under("/access"))?,
            None => Default::default(),
        };
        Ok(Bucket {
            name: name.to_string(),
            table: TableModel { access, ..object::whole() },
            max_size: self.max_size.unwrap_or(MAX_SIZE),
            types: self.types.clone(),
        })
    }
}

impl Bucket {
    /// Whether a file of this content type may be in it.
    ///
    /// # Errors
    /// `invalid_input` at `/content_type`.
    pub(crate) fn admit(&self, content_type: &str) -> Result<()> {
        if self.types.is_empty() || self.types.iter().any(|pattern| media::matches(pattern, content_type)) {
            return Ok(());
        }
        let message = format!("files of {} are not {}", self.name, media::essence(content_type));
        Err(Error::invalid("/content_type", message)
            .hint(format!("the bucket takes {}", self.types.join(", "))))
    }
}

impl fmt::Display for BucketSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.access {
            Some(access) => write!(f, "access {access}")?,
            None => f.write_str("access nobody")?,
        }
        write!(f, ", files of at most {} bytes", self.max_size.unwrap_or(MAX_SIZE))?;
        match self.types.as_slice() {
            [] => Ok(()),
            types => write!(f, ", of type {}", types.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_name_cannot_leave_its_place() {
        for good in ["photos", "user-files", "a_1"] {
            assert!(BucketName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "-a", "a b", "a/b", "..", "a'b", "a\"b", "é", &"a".repeat(64)] {
            assert!(BucketName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
