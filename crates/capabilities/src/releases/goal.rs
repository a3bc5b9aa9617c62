//! Where a release is to lead.

use std::collections::HashSet;

use kernel::{BlobHash, Error};
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::names::TableName;
use crate::access::AccessSpec;
use crate::functions::{self, Function, FunctionName, Functions};
use crate::hosting::Site;
use crate::storage::BucketSpec;

/// Where to go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// What a manifest says, over what is there. Its site, its functions and its services have been prepared and are beside it.
    Apply {
        manifest: Box<Manifest>,
        site: Option<Site>,
        functions: Option<Functions>,
        #[serde(default)]
        services: Option<Functions>,
    },
    /// The whole app: nothing stays that the manifest does not say. Its site, and its functions with its services, are beside it.
    Whole {
        manifest: Box<Manifest>,
        site: Option<Site>,
        #[serde(default)]
        functions: Functions,
    },
    /// What is there, with another access of one table.
    Access { table: String, access: AccessSpec },
    /// What is there, without one table.
    DropTable { name: String },
    /// What is there, with one bucket as it shall be.
    Bucket { name: String, bucket: BucketSpec },
    /// What is there, without one bucket.
    DropBucket { name: String },
    /// What is there, with one function or service as it shall be.
    Function { name: FunctionName, function: Box<Function> },
    /// What is there, without one function.
    DropFunction { name: String },
    /// What is there, without one service.
    DropService { name: String },
    /// Back to an earlier release.
    Back { release: u64 },
}

impl Goal {
    /// Whether it says what the tables shall be. Where it does not, they stay as they are, also where somebody
    /// has changed them since the release.
    pub(super) fn has_tables(&self) -> bool {
        match self {
            Goal::Apply { manifest, .. } => manifest.database.is_some(),
            Goal::Bucket { .. }
            | Goal::DropBucket { .. }
            | Goal::Function { .. }
            | Goal::DropFunction { .. }
            | Goal::DropService { .. } => false,
            Goal::Whole { .. } | Goal::Access { .. } | Goal::DropTable { .. } | Goal::Back { .. } => true,
        }
    }

    /// Whether it says what that table shall be.
    pub(super) fn is_about(&self, name: &TableName) -> bool {
        match self {
            Goal::Access { table, .. } => name.as_str().eq_ignore_ascii_case(table),
            Goal::Apply { .. }
            | Goal::Whole { .. }
            | Goal::DropTable { .. }
            | Goal::Bucket { .. }
            | Goal::DropBucket { .. }
            | Goal::Function { .. }
            | Goal::DropFunction { .. }
            | Goal::DropService { .. }
            | Goal::Back { .. } => true,
        }
    }

    /// A pointer into a manifest that the caller did not write becomes one to what was written.
    pub(super) fn placed(&self, error: Error) -> Error {
        match self {
            Goal::Access { .. } if error.pointer().is_some() => {
                let at = error.pointer().unwrap_or_default();
                let in_table = at.strip_prefix("/database/tables/").and_then(|at| at.split_once('/'));
                let at = match in_table {
                    Some((_, below)) if below.starts_with("access") => format!("/{below}"),
                    None if at.starts_with("/tests") => "/access".to_owned(),
                    _ => "/table".to_owned(),
                };
                error.field(at)
            }
            Goal::Bucket { name, .. } if error.pointer().is_some() => {
                let at = error.pointer().unwrap_or_default();
                let at = at.strip_prefix(&format!("/storage/buckets/{name}")).unwrap_or(at).to_owned();
                error.field(at)
            }
            Goal::Function { name, function } if error.pointer().is_some() => {
                let at = error.pointer().unwrap_or_default();
                let at = at.strip_prefix(&function.place(name)).unwrap_or(at).to_owned();
                error.field(at)
            }
            Goal::DropTable { .. }
            | Goal::DropBucket { .. }
            | Goal::DropFunction { .. }
            | Goal::DropService { .. }
                if error.pointer().is_some() =>
            {
                error.field("/name")
            }
            Goal::Back { .. } if error.pointer().is_some() => error.field("/release"),
            _ => error,
        }
    }

    /// The functions or services that it brings, of each kind that it brings any of.
    pub(super) fn brought(&self) -> Vec<&Functions> {
        match self {
            Goal::Apply { functions, services, .. } => functions.iter().chain(services).collect(),
            _ => Vec::new(),
        }
    }

    /// The blobs that it needs.
    pub(crate) fn blobs(&self) -> HashSet<BlobHash> {
        let mut needed = match self {
            Goal::Apply { functions, services, .. } => {
                functions.iter().chain(services).flat_map(functions::blobs).collect()
            }
            Goal::Whole { functions, .. } => functions::blobs(functions),
            Goal::Function { function, .. } => function.sizes().map(|(hash, _)| hash).collect(),
            Goal::Access { .. }
            | Goal::DropTable { .. }
            | Goal::Bucket { .. }
            | Goal::DropBucket { .. }
            | Goal::DropFunction { .. }
            | Goal::DropService { .. }
            | Goal::Back { .. } => HashSet::new(),
        };
        if let Goal::Apply { site: Some(site), .. } | Goal::Whole { site: Some(site), .. } = self {
            needed.extend(site.blobs());
        }
        needed
    }
}
