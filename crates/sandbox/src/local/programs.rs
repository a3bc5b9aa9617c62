//! The programs that a platform's builder has put beside the hand in every sandbox, as the gateway keeps them.
//!
//! They are plain files of one directory. A new set is written beside it and takes its place in one step, so that whoever
//! starts next finds the old one or the new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use kernel::{Code, Error, Result};
use rustix::fs::{CWD, Dir, Mode, OFlags, RenameFlags, renameat_with};
use tar::{Archive, Builder, EntryType, Header};

/// The most programs: all of them are one message of files.
pub const MOST: usize = 16;

/// The most bytes that all of them have.
pub const MOST_BYTES: u64 = 512 << 20;

/// The longest name, in bytes.
const NAME: usize = 64;

/// What the platform's own program is called, and what its other files begin with.
const HAND: &str = "hand";
const OURS: &str = "function-";

/// A directory of its own; clones are the same one.
#[derive(Debug, Clone)]
pub struct Programs(PathBuf);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// What it is called.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
}

impl Programs {
    /// Those that are kept in `directory`, which is made where it is not there.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(directory: PathBuf) -> Result<Self> {
        let made = Self(directory);
        let make = DirBuilder::new().recursive(true).mode(0o700).create(made.current());
        make.map_err(failed)?;
        Ok(made)
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// Of the file system.
    pub fn list(&self) -> Result<Vec<Program>> {
        let long = |(name, file): (String, File)| Ok(Program { name, bytes: file.metadata()?.len() });
        self.files()?.into_iter().map(long).collect::<io::Result<_>>().map_err(failed)
    }

    /// The same, to be read.
    pub(super) fn files(&self) -> Result<Vec<(String, File)>> {
        programs(&self.current())
    }

    /// Those that were unpacked and have not taken their place.
    pub(super) fn next_files(&self) -> Result<Vec<(String, File)>> {
        programs(&self.next())
    }

    /// Writes what a tar holds beside what is there: plain files at its top, programs all.
    ///
    /// # Errors
    /// `invalid_input`, `too_large`; of the file system, and of what is read.
    pub fn unpack(&self, archive: &mut dyn Read) -> Result<()> {
        self.forget_next()?;
        DirBuilder::new().mode(0o700).create(self.next()).map_err(failed)?;
        let (mut archive, mut count, mut left) = (Archive::new(archive), 0, MOST_BYTES);
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = entry.path_bytes().into_owned();
            let path = path.strip_prefix(b"./").unwrap_or(&path);
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {}
                EntryType::Directory if path.is_empty() || path == b"." => continue,
                EntryType::XGlobalHeader => continue,
                _ => return Err(wrong("only plain files at the top of the archive are programs")),
            }
            let name = name(path)?;
            count += 1;
            left = left.checked_sub(entry.size()).filter(|_| count <= MOST).ok_or_else(too_many)?;
            let made = OpenOptions::new().create_new(true).write(true).open(self.next().join(name));
            let mut file = made.map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => wrong(&format!("there are two programs {name:?}")),
                _ => failed(error),
            })?;
            let size = entry.size();
            let copied = io::copy(&mut entry, &mut file).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => failed(error),
                _ => unreadable(error),
            })?;
            if copied != size {
                return Err(wrong("the archive breaks off"));
            }
            file.sync_all().map_err(failed)?;
        }
        // Whether all of it came shows at its end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
        File::open(self.next()).and_then(|next| next.sync_all()).map_err(failed)
    }

    /// Has what was unpacked take the place of what is there, or the other way round, in one step.
    ///
    /// # Errors
    /// Of the file system.
    pub fn exchange(&self) -> Result<()> {
        let changed = || -> io::Result<()> {
            renameat_with(CWD, self.next(), CWD, self.current(), RenameFlags::EXCHANGE)?;
            File::open(&self.0)?.sync_all()
        };
        changed().map_err(failed)
    }

    /// Removes what has not its place, or not any more.
    ///
    /// # Errors
    /// Of the file system.
    pub fn forget_next(&self) -> Result<()> {
        match fs::remove_dir_all(self.next()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    fn current(&self) -> PathBuf {
        self.0.join("current")
    }

    fn next(&self) -> PathBuf {
        self.0.join("next")
    }
}

/// Writes the programs of a directory as [`Programs::unpack`] reads them.
///
/// # Errors
/// `invalid_input` where there is something else in it; `too_large`; of the file system, and of `out`.
pub fn pack(directory: &Path, out: &mut dyn Write) -> Result<()> {
    let unusable = |error: io::Error| wrong(&format!("{} cannot be read: {error}", directory.display()));
    let programs = opened(directory).map_err(unusable)?;
    let (mut tar, mut left) = (Builder::new(out), MOST_BYTES);
    for (at, (text, file)) in programs.into_iter().enumerate() {
        let (text, file) = (name(text.as_encoded_bytes())?, file.map_err(unusable)?);
        let known = file.metadata().map_err(unusable)?;
        if !known.is_file() {
            return Err(wrong(&format!("{text:?} is not a plain file: only those are programs")));
        }
        left = left.checked_sub(known.len()).filter(|_| at < MOST).ok_or_else(too_many)?;
        let mut header = Header::new_gnu();
        header.set_size(known.len());
        header.set_mode(0o755);
        header.set_cksum();
        tar.append_data(&mut header, text, file.take(known.len())).map_err(unusable)?;
    }
    tar.finish().map_err(unusable)
}

/// The programs of one of our own directories: whatever else somebody has put there is none.
fn programs(directory: &Path) -> Result<Vec<(String, File)>> {
    let all = opened(directory).map_err(failed)?.into_iter();
    let all = all.filter_map(|(text, file)| Some((text.into_string().ok()?, file.ok()?)));
    let is_program = |(text, file): &(String, File)| {
        name(text.as_bytes()).is_ok() && file.metadata().is_ok_and(|it| it.is_file())
    };
    Ok(all.filter(is_program).take(MOST).collect())
}

/// The files of a directory, by name, which are opened without waiting for anybody. They are of one directory, also where
/// another takes its name meanwhile.
fn opened(directory: &Path) -> io::Result<Vec<(OsString, io::Result<File>)>> {
    let mut all = Vec::new();
    let place = File::open(directory)?;
    for entry in Dir::read_from(&place)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&place, name, flags, Mode::empty());
        all.push((OsStr::from_bytes(name.to_bytes()).to_owned(), file.map(File::from).map_err(Into::into)));
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

/// What a program may be called.
fn name(bytes: &[u8]) -> Result<&str> {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._+-".contains(byte);
    let is_name =
        bytes.first().is_some_and(u8::is_ascii_alphanumeric) && bytes.len() <= NAME && bytes.iter().all(good);
    let text = std::str::from_utf8(bytes).ok().filter(|_| is_name);
    let text = text.ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(80).collect();
        wrong(&format!("{shown:?} is no name of a program: up to {NAME} letters, digits and . _ + -"))
    })?;
    if text == HAND {
        return Err(wrong("\"hand\" is the platform's own program").hint("call yours something else"));
    }
    if text.starts_with(OURS) {
        return Err(wrong(&format!("what begins with {OURS:?} is the platform's own"))
            .hint("call yours something else"));
    }
    Ok(text)
}

fn wrong(message: &str) -> Error {
    Error::new(Code::InvalidInput, message.to_owned())
}

fn too_many() -> Error {
    let most = MOST_BYTES >> 20;
    Error::new(Code::TooLarge, format!("there may be {MOST} programs, of {most} MiB together"))
}

/// What is read comes from whoever sends it, and what he is told is what he has sent.
fn unreadable(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => wrong("the archive cannot be read").source(error).hint("send a tar of plain files"),
    }
}

fn failed(error: io::Error) -> Error {
    super::Error::Files("keeping the programs of sandboxes", error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tar(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (path, kind, bytes) in entries {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn names(programs: &Programs) -> Vec<(String, u64)> {
        programs.list().unwrap().into_iter().map(|it| (it.name, it.bytes)).collect()
    }

    #[test]
    fn a_set_takes_the_place_of_another_whole_and_comes_back() {
        let place = tempfile::tempdir().unwrap();
        let programs = Programs::open(place.path().join("programs")).unwrap();
        assert_eq!(names(&programs), []);
        let files: [(&str, EntryType, &[u8]); 3] = [
            ("./", EntryType::Directory, b""),
            ("./agent", EntryType::Regular, b"one"),
            ("check", EntryType::Regular, b"#!/bin/sh\n"),
        ];
        programs.unpack(&mut tar(&files).as_slice()).unwrap();
        assert_eq!(names(&programs), [], "it is used when it is told to be");
        programs.exchange().unwrap();
        let set = [("agent".to_owned(), 3), ("check".to_owned(), 10)];
        assert_eq!(names(&Programs::open(place.path().join("programs")).unwrap()), set);
        programs.exchange().unwrap();
        assert_eq!(names(&programs), []);
        programs.exchange().unwrap();
        // What is packed is what is unpacked.
        let mut packed = Vec::new();
        pack(&programs.current(), &mut packed).unwrap();
        programs.unpack(&mut packed.as_slice()).unwrap();
        programs.exchange().unwrap();
        assert_eq!(names(&programs), set);
        programs.forget_next().unwrap();
        // What somebody else has put there is no program, and in nobody's way.
        for stray in [".DS_Store", "hand", "no name"] {
            fs::write(programs.current().join(stray), "x").unwrap();
        }
        fs::create_dir(programs.current().join("directory")).unwrap();
        std::os::unix::fs::symlink("nowhere", programs.current().join("dangling")).unwrap();
        assert_eq!(names(&programs), set);
        programs.unpack(&mut tar(&[]).as_slice()).unwrap();
        programs.exchange().unwrap();
        assert_eq!(names(&programs), []);
    }

    #[test]
    fn what_is_no_set_of_programs_is_refused() {
        use EntryType::{Directory, Fifo, Link, Regular, Symlink};
        let place = tempfile::tempdir().unwrap();
        let programs = Programs::open(place.path().to_owned()).unwrap();
        let refused = |bytes: &[u8]| programs.unpack(&mut { bytes }).unwrap_err().code();
        for path in [
            "../x",
            "/x",
            "a/b",
            ".x",
            "hand",
            "./hand",
            "function-bun.mjs",
            "a b",
            "-x",
            &"x".repeat(NAME + 1),
        ] {
            assert_eq!(refused(&tar(&[(path, Regular, b"x")])), Code::InvalidInput, "{path}");
        }
        for kind in [Directory, Fifo, Link, Symlink] {
            assert_eq!(refused(&tar(&[("x", kind, b"")])), Code::InvalidInput, "{kind:?}");
        }
        assert_eq!(refused(&tar(&[("x", Regular, b"1"), ("./x", Regular, b"2")])), Code::InvalidInput);
        assert_eq!(refused(b"no archive at all"), Code::InvalidInput);
        assert_eq!(refused(&tar(&[("x", Regular, &[0; 4096])])[..1024]), Code::InvalidInput);
        let many: Vec<_> = (0..=MOST).map(|n| format!("p{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), Regular, &b"x"[..])).collect();
        assert_eq!(refused(&tar(&many)), Code::TooLarge);
        let mut huge = Header::new_gnu();
        huge.set_path("x").unwrap();
        huge.set_size(MOST_BYTES + 1);
        huge.set_cksum();
        assert_eq!(refused(huge.as_bytes()), Code::TooLarge);
        assert_eq!(programs.list().unwrap(), []);
        // Neither is a directory of others packed.
        fs::create_dir_all(place.path().join("own/below")).unwrap();
        assert_eq!(pack(&place.path().join("own"), &mut io::sink()).unwrap_err().code(), Code::InvalidInput);
        assert_eq!(pack(&place.path().join("none"), &mut io::sink()).unwrap_err().code(), Code::InvalidInput);
    }
}
