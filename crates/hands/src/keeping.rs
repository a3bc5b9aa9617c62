//! Where files of workspaces are besides the disk that they are worked on.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use kernel::{Error, PlaceId, Result};
use sandbox::workspace::checkpoints::Checkpoints;
use sandbox::workspace::templates::Templates;

/// What goes with the workspaces of one data directory.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// Which directory it is.
    pub place: PlaceId,
    /// Where workspaces are archived.
    pub checkpoints: Checkpoints,
    /// What sandboxes have below `/usr/local`.
    pub templates: Templates,
}

/// The name of the directory `path`, which is made with it where it has none.
///
/// # Errors
/// Of the file system; where the name is none.
pub fn place_of(path: &Path) -> Result<PlaceId> {
    std::fs::create_dir_all(path).map_err(Error::internal)?;
    let name = path.join("place");
    match std::fs::read_to_string(&name) {
        Ok(text) => text.trim().parse().map_err(Error::internal),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let place = PlaceId::new();
            written(&name, place).map_err(Error::internal)?;
            Ok(place)
        }
        Err(error) => Err(Error::internal(error)),
    }
}

fn written(name: &PathBuf, place: PlaceId) -> io::Result<()> {
    let half = name.with_extension("half");
    let mut file = std::fs::File::create(&half)?;
    writeln!(file, "{place}")?;
    file.sync_all()?;
    std::fs::rename(half, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_keeps_its_name_and_a_name_that_is_none_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er");
        let place = place_of(&path).unwrap();
        assert_eq!(place_of(&path).unwrap(), place);
        assert_ne!(place_of(directory.path()).unwrap(), place);
        std::fs::write(path.join("place"), "half").unwrap();
        assert!(place_of(&path).is_err());
    }
}
