//! A directory of files as a tool takes them: small texts inline, the rest as uploaded blobs.

use std::path::{Path, PathBuf};

use futures::{StreamExt, TryStreamExt, stream};
use kernel::{BlobHash, Code, Error};
use serde_json::{Map, Value, json};

use super::client::{Client, Uploaded};
use super::{Failure, Output};

/// A text up to this many bytes goes inline, while all of them are below [`INLINE_TOTAL`].
const INLINE: usize = 4 * 1024;

/// How many bytes go inline together.
const INLINE_TOTAL: usize = 128 * 1024;

/// How many uploads run at once.
const AT_ONCE: usize = 8;

/// What a directory is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bundle {
    /// A site, which may have `.well-known`.
    Site,
    /// A function or a service: what is hidden is for who writes it.
    Code,
}

/// Uploads what is too large to go inline below `dir`, and gives the map of path → text or `{sha256}`.
///
/// # Errors
/// `invalid_input` where the directory cannot be read or holds what no bundle may hold; what uploads answer.
pub async fn upload(client: &Client, dir: &Path, bundle: Bundle, output: Output) -> Result<Value, Failure> {
    let files = list(dir, bundle)?;
    let mut bundle = Map::new();
    let mut inline = 0;
    let mut blobs = Vec::new();
    for (name, path) in files {
        let bytes = std::fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) if bytes.len() <= INLINE && inline + bytes.len() <= INLINE_TOTAL => {
                inline += bytes.len();
                bundle.insert(name, text.into());
            }
            _ => {
                // Read again when it is sent: all together may be larger than memory.
                let hash = BlobHash::of(&bytes);
                bundle.insert(name, json!({ "sha256": hash.to_string() }));
                blobs.push((hash, path));
            }
        }
    }
    let total = blobs.len();
    let sent = stream::iter(blobs)
        .map(|(hash, path)| async move {
            let bytes = tokio::fs::read(&path).await.map_err(|e| unreadable(&path, &e))?;
            client.upload(hash, bytes).await
        })
        .buffer_unordered(AT_ONCE)
        .try_fold(0, async |sent, uploaded| Ok(sent + usize::from(uploaded == Uploaded::Sent)))
        .await?;
    output.progress(&format!(
        "{} files: {sent} uploaded, {} unchanged or inline",
        bundle.len(),
        bundle.len() - sent.min(total)
    ));
    Ok(Value::Object(bundle))
}

/// Every file below `dir` with its path inside it, in order. Version control and editors' leftovers are left
/// out; links are refused, since they may lead anywhere.
fn list(dir: &Path, bundle: Bundle) -> Result<Vec<(String, PathBuf)>, Error> {
    let mut files = Vec::new();
    let mut directories = vec![(String::new(), dir.to_owned())];
    while let Some((prefix, directory)) = directories.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|e| unreadable(&directory, &e))? {
            let entry = entry.map_err(|e| unreadable(&directory, &e))?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| {
                Error::new(Code::InvalidInput, format!("the name of {} is not UTF-8", path.display()))
            })?;
            if matches!(name.as_str(), ".git" | ".hg" | ".svn" | ".DS_Store" | ".steading" | "node_modules") {
                continue;
            }
            if bundle == Bundle::Code && name.starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(|e| unreadable(&path, &e))?;
            let name = format!("{prefix}{name}");
            if kind.is_dir() {
                directories.push((format!("{name}/"), path));
            } else if kind.is_file() {
                files.push((name, path));
            } else {
                return Err(Error::new(
                    Code::InvalidInput,
                    format!("{} is not a regular file", path.display()),
                )
                .hint("put the file itself there: links are not followed"));
            }
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::new(Code::InvalidInput, format!("{} cannot be read: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_listed_in_order_without_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        for path in
            ["b/c.txt", "a.txt", ".git/config", ".well-known/x", "b/.DS_Store", "node_modules/a/index.js"]
        {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        let names = |bundle: Bundle| -> Vec<String> {
            list(dir.path(), bundle).unwrap().into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(Bundle::Site), [".well-known/x", "a.txt", "b/c.txt"]);
        assert_eq!(names(Bundle::Code), ["a.txt", "b/c.txt"]);
    }

    #[test]
    fn a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("x.txt")).unwrap();
        let error = list(dir.path(), Bundle::Code).unwrap_err();
        assert!(error.message().ends_with("x.txt is not a regular file"), "{error}");
    }
}
