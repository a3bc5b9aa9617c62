//! What a jail is to be like, told to whoever builds it.

mod confine;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use confine::{Confinement, confine};

/// What is mounted at `/workspace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tree {
    /// A directory of the host, as it is.
    Directory {
        /// Where it is on the host.
        path: PathBuf,
    },
    /// Layers that are only read, the topmost first, under one that takes what is written (overlayfs).
    Overlay {
        /// The layers that are only read.
        lowers: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// The engine's own directory, on the file system of `upper`.
        work: PathBuf,
    },
}
