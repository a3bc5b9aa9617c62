//! What is asked of releases.

use kernel::PlanId;

use super::goal::Goal;
use super::manifest::Manifest;
use crate::hosting::Site;

/// What [`Releases::apply`] is given.
#[derive(Debug)]
pub enum Wanted {
    /// A manifest, which loses no data.
    Manifest(Box<Manifest>),
    /// A plan that was shown, with its confirmation where it loses data.
    Plan { id: PlanId, confirm: Option<String> },
}

/// What can be removed from an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// One table, in a manifest or not.
    Table(String),
    /// The site.
    Site,
    /// One bucket, with its files.
    Bucket(String),
    /// One function.
    Function(String),
    /// One service.
    Service(String),
}

impl Removal {
    pub(super) fn goal(&self) -> Goal {
        match self {
            Removal::Table(name) => Goal::DropTable { name: name.clone() },
            Removal::Bucket(name) => Goal::DropBucket { name: name.clone() },
            Removal::Function(name) => Goal::DropFunction { name: name.clone() },
            Removal::Service(name) => Goal::DropService { name: name.clone() },
            Removal::Site => Goal::Apply {
                manifest: Box::default(),
                site: Some(Site::default()),
                functions: None,
                services: None,
            },
        }
    }
}
