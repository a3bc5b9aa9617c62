//! Sites: content-addressed blobs, the bundle of a release, and which file answers which path.

mod blobs;
mod content_type;
mod error;
mod files;
mod headers;
mod path;
mod redirects;
mod resolve;
mod site;
mod spec;
mod tally;

pub(crate) use content_type::of as content_type;
pub(crate) use files::Checked;
pub(crate) use path::check as check_path;
pub(crate) use spec::pointer_escape;

pub use blobs::{BlobStream, Blobs, Collected, DEFAULT_GRACE};
pub use error::{Error, Result};
pub use files::{Limits, Owner};
pub use headers::HeaderRule;
pub use path::{PathError, SitePath};
pub use redirects::{Redirect, RedirectSpec, RedirectStatus};
pub use resolve::{Found, RequestPath};
pub use site::{Site, SiteDiff, SiteFile, Sites};
pub use spec::{FileSpec, SiteSpec};
