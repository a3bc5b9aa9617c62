//! Changes below a directory, as they happen.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use super::failure::{On, Result, invalid};
use super::{Lines, below};
use crate::wire::Change;

/// The most directories that are watched; in those beyond changes are not seen, which is said.
const MAX_DIRECTORIES: usize = 8_192;

/// What changes by machines alone, and in masses.
const UNWATCHED: [&str; 2] = [".git", "node_modules"];

struct Watch {
    inotify: OwnedFd,
    root: PathBuf,
    directories: BTreeMap<i32, PathBuf>,
    lines: Lines,
}

pub fn watch(path: &str) -> Result<()> {
    let root = fs::canonicalize(path).on(path)?;
    if !root.is_dir() {
        return Err(invalid("it is no directory")).on(path);
    }
    let inotify = inotify::init(CreateFlags::CLOEXEC).on(path)?;
    let mut watch =
        Watch { inotify, root: root.clone(), directories: BTreeMap::new(), lines: Lines::new(u32::MAX) };
    watch.add(&root, Told::No)?;
    watch.lines.line(&Change::Watching)?;
    watch.lines.flush()?;
    watch.run()
}

/// Whether what is in a directory is told of as new.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

impl Watch {
    fn run(mut self) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        loop {
            let mut seen = Vec::new();
            let mut reader = Reader::new(&self.inotify, &mut buffer);
            loop {
                let event = reader.next()?;
                let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                seen.push((event.wd(), event.events(), name));
                if reader.is_buffer_empty() {
                    break;
                }
            }
            for (directory, events, name) in seen {
                self.tell(directory, events, name.as_deref())?;
            }
            self.lines.flush()?;
        }
    }

    fn tell(&mut self, directory: i32, events: ReadFlags, name: Option<&OsStr>) -> Result<()> {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return self.lines.line(&Change::Everything);
        }
        if events.contains(ReadFlags::IGNORED) {
            self.directories.remove(&directory);
            return Ok(());
        }
        let (Some(directory), Some(name)) = (self.directories.get(&directory), name) else { return Ok(()) };
        let path = directory.join(name);
        let text = below(&self.root, &path);
        if events.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.lines.line(&Change::Created(text))?;
            if events.contains(ReadFlags::ISDIR) {
                self.add(&path, Told::Yes)?;
            }
            return Ok(());
        }
        if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            if events.contains(ReadFlags::ISDIR) {
                self.forget(&path);
            }
            return self.lines.line(&Change::Removed(text));
        }
        self.lines.line(&Change::Modified(text))
    }

    /// Watches a directory and all below it. What was made in a new one before it was watched is told of, some of it twice.
    fn add(&mut self, directory: &Path, told: Told) -> Result<()> {
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            if directory.file_name().is_some_and(|name| UNWATCHED.iter().any(|unwatched| name == *unwatched))
            {
                continue;
            }
            let wanted = WatchFlags::CREATE
                | WatchFlags::MODIFY
                | WatchFlags::ATTRIB
                | WatchFlags::DELETE
                | WatchFlags::MOVE
                | WatchFlags::ONLYDIR
                | WatchFlags::DONT_FOLLOW
                | WatchFlags::EXCL_UNLINK;
            let watched = self.directories.len() < MAX_DIRECTORIES;
            let added =
                if watched { inotify::add_watch(&self.inotify, &directory, wanted).ok() } else { None };
            let Some(number) = added else {
                // One that is gone by now says so itself.
                if directory.exists() {
                    self.lines.line(&Change::Everything)?;
                }
                continue;
            };
            self.directories.insert(number, directory.clone());
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if told == Told::Yes {
                    self.lines.line(&Change::Created(below(&self.root, &path)))?;
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(path);
                }
            }
        }
        Ok(())
    }

    /// Watches no more what was moved away: it has another path, or none here.
    fn forget(&mut self, directory: &Path) {
        let gone: Vec<i32> = self
            .directories
            .iter()
            .filter(|(_, path)| path.starts_with(directory))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.directories.remove(&number);
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }
}
