//! Temporary directories, removed when dropped, and by a later test run when their owner was killed.

use std::path::Path;
use std::sync::Once;

use tempfile::TempDir;

const PREFIX: &str = "steading-test-";

/// A new empty directory that only this user can read.
pub fn temporary() -> std::io::Result<TempDir> {
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| sweep(&std::env::temp_dir()));
    tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir()
}

/// Removes what processes that are gone have left behind.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
        if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
            // Another run may be sweeping too, and another user's directories are not ours to remove.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_left_is_swept() {
        let parent = tempfile::tempdir().unwrap();
        let names =
            [format!("{PREFIX}4194305-x"), format!("{PREFIX}{}-x", std::process::id()), "other".into()];
        let paths = names.map(|name| parent.path().join(name));
        for path in &paths {
            std::fs::create_dir(path).unwrap();
        }
        sweep(parent.path());
        assert_eq!(paths.map(|path| path.exists()), [false, true, true]);
    }
}
