//! Work with files, which a process of its own does: the request is its argument, content its standard input, results
//! its standard output, and where it fails a [`Failure`](super::Failure) is its standard error.

use serde::{Deserialize, Serialize};

/// The most bytes of one line of results.
pub const MAX_LINE: usize = 64 << 10;

/// The most results of one request.
pub const MAX_RESULTS: u32 = 100_000;

/// What is to be done. Paths are relative to the home directory, or absolute; what they lead to is bounded by the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FileRequest {
    /// An [`Entry`] in a line, and then the bytes of a regular file.
    Read {
        /// The file.
        path: String,
        /// The first byte.
        offset: u64,
        /// The most bytes; all without.
        limit: Option<u64>,
    },
    /// Makes a file of exactly so many bytes of standard input, in one step, and the directories above it.
    Write {
        /// The file. A link is followed, where it leads to a file.
        path: String,
        /// The bytes that come. Fewer change nothing.
        size: u64,
        /// Its permissions; those of the file that was there without, or 0644.
        mode: Option<u32>,
        /// Whether there may be one.
        existing: Existing,
    },
    /// [`Listed`] lines.
    List {
        /// The directory.
        path: String,
        /// How many directories deep; 1 is the directory alone.
        depth: u32,
        /// The most entries, at most [`MAX_RESULTS`].
        limit: u32,
    },
    /// An [`Entry`] in a line. A link is told of as a link.
    Stat {
        /// The file.
        path: String,
    },
    /// Makes a directory and those above it. One that is there is no error.
    MakeDirectory {
        /// The directory.
        path: String,
    },
    /// Moves in one step, within one file system.
    Move {
        /// What.
        from: String,
        /// Where to.
        to: String,
        /// Whether there may be something.
        existing: Existing,
    },
    /// Removes; links are not followed.
    Remove {
        /// What.
        path: String,
        /// What of a directory's content.
        contents: Contents,
    },
    /// [`Found`] lines, in the order of paths.
    Search {
        /// The directory, or the one file.
        path: String,
        /// What a file's name, or with a `/` its path below the directory, looks like (globs of `.gitignore`).
        name: Option<String>,
        /// What a line in it looks like (a regular expression).
        line: Option<String>,
        /// Which files.
        among: Among,
        /// The most results, at most [`MAX_RESULTS`].
        limit: u32,
    },
    /// Every file below a directory, in an order that is always the same: an [`Entry`] in a line, and then exactly as many
    /// bytes as it says. A link, and what is no file, is refused.
    Tree {
        /// The directory.
        path: String,
        /// How much is read before it is refused.
        caps: TreeCaps,
    },
    /// [`Change`] lines, until the process is ended. `.git` and `node_modules` are not watched.
    Watch {
        /// The directory.
        path: String,
    },
}

/// How much of a tree is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeCaps {
    /// Files.
    pub files: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// Whether something may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// It stays, and nothing is done.
    Refuse,
}

/// What becomes of what is in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contents {
    /// It goes with it.
    Remove,
    /// There may be none.
    Refuse,
}

/// Which files are searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Among {
    /// Without `.git`, and what `.gitignore` and `.ignore` name.
    Tracked,
    /// Every file.
    All,
}

/// What is known of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its path, as it was asked for or below what was asked for. What is no UTF-8 is replaced.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// When it was changed, in milliseconds since 1970.
    pub modified_ms: i64,
    /// Permissions.
    pub mode: u32,
    /// Where a link leads.
    pub target: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket, a device.
    Other,
}

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Listed {
    /// A file, its path below the directory.
    Entry(Entry),
    /// The last line.
    End(Completeness),
}

/// A line of a search.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Found {
    /// A file, where no line was asked for.
    File {
        /// Its path below the directory.
        path: String,
    },
    /// A line.
    Line {
        /// The file's path below the directory.
        path: String,
        /// Counted from 1.
        number: u64,
        /// The line, shortened around the place.
        text: String,
    },
    /// The last line.
    End {
        /// Whether there is more.
        completeness: Completeness,
        /// Files that were looked into.
        files: u64,
        /// Files and directories that could not be: too large, or not to be read.
        skipped: u64,
    },
}

/// Whether all is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Completeness {
    /// There is no more.
    Whole,
    /// There is more than was asked for.
    More,
}

/// A line of a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// From here on changes are told.
    Watching,
    /// It is there, by having been made or moved there.
    Created(String),
    /// It has other content or other permissions.
    Modified(String),
    /// It is gone, by having been removed or moved away.
    Removed(String),
    /// More has changed than could be told; look at everything.
    Everything,
}
