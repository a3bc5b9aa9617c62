//! The last of a jail to be made: its first process is there, and waits until its files are, and until it is behind the
//! second wall.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use super::landlock::Wall;
use super::{At, Error, Report, Step};

/// What the first process has of whoever makes the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Where it hears that its files are there.
    maker: RawFd,
    /// Where it says what fails.
    report: RawFd,
    /// Whether it goes behind the second wall.
    landlock: bool,
}

impl Gate {
    /// One for the program that this process becomes, which has both files open.
    pub(super) fn new(maker: &UnixStream, report: &File, landlock: bool) -> Self {
        Self { maker: maker.as_raw_fd(), report: report.as_raw_fd(), landlock }
    }

    /// Returns when all is there, and closes what it has of the maker.
    ///
    /// # Errors
    /// Where the maker is gone before, or the wall cannot be closed; the process must then not go on.
    pub fn pass(self) -> io::Result<()> {
        // SAFETY: whoever started this program has opened both for this, and nobody else uses them in this process.
        #[expect(unsafe_code, reason = "the numbers come from outside")]
        let (mut maker, mut report) =
            unsafe { (UnixStream::from(OwnedFd::from_raw_fd(self.maker)), File::from_raw_fd(self.report)) };
        let mut closed = || -> Result<(), Error> {
            let wall = if self.landlock { Some(Wall::prepare().at(Step::Landlock, "rules")?) } else { None };
            // Who brings no files has said why.
            wait(&mut maker).at(Step::Workspace, "maker")?;
            wall.map_or(Ok(()), |wall| wall.close().at(Step::Landlock, "restrict"))
        };
        closed().map_err(|error| {
            let failed = io::Error::other(error.to_string());
            if error.step != Step::Workspace {
                say(&mut report, &error.into());
            }
            failed
        })
    }
}

/// Says that what is waited for is there.
pub(super) fn open(other: &mut UnixStream) -> io::Result<()> {
    other.write_all(&[1])
}

/// Waits for that.
pub(super) fn wait(other: &mut UnixStream) -> io::Result<()> {
    other.read_exact(&mut [0])
}

/// Nobody is left to tell where this fails; the end of the process says the same.
pub(super) fn say(report: &mut File, words: &Report) {
    if let Ok(mut line) = serde_json::to_vec(words) {
        line.push(b'\n');
        let _ = report.write_all(&line);
    }
}
