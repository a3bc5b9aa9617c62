//! Sites: content-addressed blobs, the bundle of a release, and which file answers which path.

mod blobs;
mod content_type;
mod error;
mod headers;
mod path;
mod redirects;
mod resolve;
mod site;
mod spec;
mod tally;

pub(crate) use content_type::of as content_type;
pub(crate) use path::check as check_path;

pub use blobs::{BlobStream, Blobs, Collected, DEFAULT_GRACE};
pub use error::{Error, Result};
pub use headers::HeaderRule;
pub use path::{PathError, SitePath};
pub use redirects::{Redirect, RedirectSpec, RedirectStatus};
pub use resolve::{Found, RequestPath};
pub use site::{Limits, Site, SiteDiff, SiteFile, Sites};
pub use spec::{FileSpec, SiteSpec};
