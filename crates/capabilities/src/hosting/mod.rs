//! Sites: content-addressed blobs, the bundle of a release, and which file answers which path.

mod blobs;
mod content_type;
mod error;
mod path;
mod resolve;
mod rules;
mod site;
mod spec;

pub use blobs::{BlobStream, Blobs, Collected, DEFAULT_GRACE};
pub use error::{Error, Result};
pub use path::{PathError, SitePath};
pub use resolve::{Found, RequestPath};
pub use rules::{HeaderRule, HeaderRuleSpec, Redirect, RedirectSpec, RedirectStatus};
pub use site::{Limits, Site, SiteDiff, SiteFile, Sites};
pub use spec::{FileSpec, SiteSpec};
