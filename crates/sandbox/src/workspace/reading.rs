//! Reads the files below one directory of a tree, for whoever publishes them.

use std::fs::File;

use super::files::{held, text};
use super::{Caps, Error, Files, Kind, copying};

/// One file that was found.
#[derive(Debug)]
pub struct Found<'a> {
    /// Where, from the directory that was asked for, with `/` between names.
    pub path: &'a str,
    /// Its length.
    pub size: u64,
    /// It, open to be read.
    pub file: File,
}

/// Visits every file below the directory `path` of `files`, in an order that is always the same.
///
/// # Errors
/// `Missing` where there is no such directory; `Refused` for a link, for what is no file, and for a name that is no text;
/// `OverCap`; what `take` returns.
pub fn read_tree(
    files: &Files,
    path: &str,
    caps: &Caps,
    take: &mut dyn FnMut(Found<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut bytes = 0;
    files.walk(path.as_bytes(), caps, &mut |seen| {
        let refused = |what| Error::Refused { path: text(seen.path), what };
        match seen.kind {
            Kind::Directory => Ok(()),
            Kind::Link => Err(refused("it is a link: put the file itself there")),
            Kind::Special | Kind::Whiteout => Err(refused("it is no file")),
            Kind::File => {
                let size = copying::size(seen.stat);
                held(seen.path, "the file is too long", size, caps.file_bytes)?;
                bytes += size;
                held(seen.path, "the files are too long together", bytes, caps.bytes)?;
                let path =
                    std::str::from_utf8(seen.path).map_err(|_| refused("its name is no text in UTF-8"))?;
                take(Found { path, size, file: seen.open()? })
            }
        }
    })
}
