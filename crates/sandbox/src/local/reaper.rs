//! Removes what a process before this one has left behind, however it ended.

use super::directory::RunDir;
use super::error::Error;
use super::groups::Layout;
use super::sandbox;

/// Ends and removes every sandbox that has a directory here. Called before the first is made, by whoever holds the
/// directory: nobody who could use one of them is left.
///
/// Mounts and network namespaces of a sandbox are its processes' own and end with them; what else there is of one has its
/// name, which its directory keeps until all of it is gone.
///
/// # Errors
/// Where something cannot be removed.
pub fn reap(directory: &RunDir, layout: &Layout) -> Result<usize, Error> {
    let mut layouts = directory.layouts();
    if !layouts.contains(layout) {
        layouts.push(layout.clone());
        directory.note_layouts(&layouts)?;
    }
    let orphans = directory.ids()?;
    for id in &orphans {
        sandbox::remove_orphan(directory, &layouts, *id)?;
    }
    directory.note_layouts(std::slice::from_ref(layout))?;
    Ok(orphans.len())
}
