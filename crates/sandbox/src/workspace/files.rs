//! What lies in directories that are laid over each other, walked without leaving them.
//!
//! Whoever wrote the files may be hostile: no link is followed, nothing is opened that could make the reader wait, and
//! neither depth nor number exhausts it. The order is the same wherever the files lie.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Error, beneath};

/// The mark of a directory that hides what lies below it, as overlayfs writes it with `userxattr`.
pub(super) const OPAQUE: &str = "user.overlay.opaque";

/// Where files lie on the host: directories laid over each other, the topmost first, as overlayfs does it with
/// `userxattr`. Often it is only one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Files {
    /// The directories.
    pub layers: Vec<PathBuf>,
}

/// How much is read or brought back before it is refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Caps {
    /// Files, directories and links.
    pub entries: u64,
    /// The length of one path, in bytes, which also bounds how deep directories are.
    pub path_bytes: u64,
    /// The length of all paths together, in bytes.
    pub paths_bytes: u64,
    /// The length of one file, holes included.
    pub file_bytes: u64,
    /// The length of all files together, holes included.
    pub bytes: u64,
    /// How long all of it may take, in seconds: whoever wrote the files chose how much work they are.
    pub seconds: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            entries: 1_000_000,
            // More than that no program can open by its path.
            path_bytes: 4 << 10,
            paths_bytes: 256 << 20,
            file_bytes: 16 << 30,
            bytes: 64 << 30,
            seconds: 120,
        }
    }
}

/// What something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A socket, a pipe or a device: nothing that can be kept.
    Special,
    /// The mark that hides what lies below; seen only where one layer is walked as it is.
    Whiteout,
}

/// One thing that a walk has come to.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Where, from the start of the walk, with `/` between names.
    pub path: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// What the file system says of it.
    pub stat: &'a Stat,
    /// The directory that it is in.
    pub parent: BorrowedFd<'a>,
}

impl Seen<'_> {
    /// Opens the file that was seen.
    ///
    /// # Errors
    /// `Refused` where another has taken its place.
    pub fn open(&self) -> Result<File, Error> {
        let refused = || Error::Refused { path: text(self.path), what: "it changed while it was read" };
        let file = beneath::file(self.parent, self.name).map_err(|error| match error {
            Errno::LOOP | Errno::NOENT | Errno::NXIO => refused(),
            other => Error::Io("a file of the workspace cannot be opened", other.into()),
        })?;
        let stat = rustix::fs::fstat(&file).map_err(Error::os("a file of the workspace cannot be read"))?;
        let same = (stat.st_dev, stat.st_ino) == (self.stat.st_dev, self.stat.st_ino);
        if !same || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused());
        }
        Ok(File::from(file))
    }

    /// Where the link that was seen leads to.
    ///
    /// # Errors
    /// `Refused` where another has taken its place.
    pub fn target(&self) -> Result<Vec<u8>, Error> {
        rustix::fs::readlinkat(self.parent, self.name, Vec::new())
            .map(std::ffi::CString::into_bytes)
            .map_err(|_| Error::Refused { path: text(self.path), what: "it changed while it was read" })
    }

    /// The permissions that are kept of it: those of user, group and others.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.stat.st_mode & 0o777
    }
}

/// Whether marks are taken for what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// What they hide is hidden, and they themselves are.
    Obeyed,
    /// They are seen.
    Shown,
}

/// A path as a text for people.
pub(super) fn text(path: &[u8]) -> String {
    const MOST: usize = 200;
    let shown = String::from_utf8_lossy(&path[..path.len().min(MOST)]).into_owned();
    if path.len() > MOST { format!("{shown}…") } else { shown }
}

/// A directory that is still to be read; its path is put together from the names when its turn comes.
struct Waiting {
    place: Option<Rc<Name>>,
    layers: Vec<usize>,
}

struct Name {
    above: Option<Rc<Name>>,
    name: Vec<u8>,
}

/// What one name of a directory stands for.
struct Found {
    /// The layer's place among those that are open.
    at: usize,
    stat: Stat,
    kind: Kind,
    /// For a directory, the layers that have it too.
    layers: Vec<usize>,
    closed: bool,
}

impl Files {
    /// Those of one directory.
    #[must_use]
    pub fn of(directory: PathBuf) -> Self {
        Self { layers: vec![directory] }
    }

    /// Visits all that is below `start`: of each directory what is none, by name, then the directories in it.
    ///
    /// # Errors
    /// `Missing` where `start` is no directory; `Refused` where a link is in its way; `OverCap`; what `visit` returns.
    pub fn walk(
        &self,
        start: &[u8],
        caps: &Caps,
        visit: &mut dyn FnMut(&Seen<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.walk_marked(start, caps, Marks::Obeyed, &|_| false, visit)
    }

    /// Visits everything but what `left_out` says, with all that is below it.
    pub(super) fn walk_marked(
        &self,
        start: &[u8],
        caps: &Caps,
        marks: Marks,
        left_out: &dyn Fn(&[u8]) -> bool,
        visit: &mut dyn FnMut(&Seen<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let roots: Vec<OwnedFd> = self
            .layers
            .iter()
            .map(|layer| beneath::root(layer).map_err(Error::os("a layer of the workspace cannot be opened")))
            .collect::<Result<_, _>>()?;
        let layers = self.descend(&roots, start)?;
        let mut waiting = vec![Waiting { place: None, layers }];
        let (mut entries, mut paths_bytes) = (0u64, 0u64);
        let began = Instant::now();
        while let Some(directory) = waiting.pop() {
            in_time(began, caps)?;
            let mut path = directory.place.as_deref().map(spell).unwrap_or_default();
            let whole = join(start, &path);
            let open = open_layers(&roots, &directory.layers, &whole)?;
            let mut names: BTreeMap<Vec<u8>, Found> = BTreeMap::new();
            for (at, (layer, fd)) in open.iter().enumerate() {
                let listing = Dir::read_from(fd).map_err(Error::os("a directory cannot be listed"))?;
                for entry in listing {
                    let entry = entry.map_err(Error::os("a directory cannot be listed"))?;
                    let name = entry.file_name().to_bytes();
                    if matches!(name, b"." | b"..") {
                        continue;
                    }
                    entries += 1;
                    paths_bytes += (path.len() + 1 + name.len()) as u64;
                    held(&path, "there are too many files", entries, caps.entries)?;
                    held(&path, "the paths are too long together", paths_bytes, caps.paths_bytes)?;
                    let length = (whole.len() + 1 + name.len()) as u64;
                    held(&path, "a path is too long", length, caps.path_bytes)?;
                    note(&mut names, name, at, *layer, fd.as_fd(), marks)?;
                }
            }
            let depth = path.len();
            let mut below = Vec::new();
            for directories in [false, true] {
                for (name, found) in &names {
                    if (found.kind == Kind::Directory) != directories
                        || found.kind == Kind::Whiteout && marks == Marks::Obeyed
                    {
                        continue;
                    }
                    if depth > 0 {
                        path.push(b'/');
                    }
                    path.extend_from_slice(name);
                    if left_out(&path) {
                        path.truncate(depth);
                        continue;
                    }
                    in_time(began, caps)?;
                    let parent = open[found.at].1.as_fd();
                    let seen = Seen { path: &path, name, kind: found.kind, stat: &found.stat, parent };
                    visit(&seen)?;
                    path.truncate(depth);
                    if directories {
                        let place = Rc::new(Name { above: directory.place.clone(), name: name.clone() });
                        below.push(Waiting { place: Some(place), layers: found.layers.clone() });
                    }
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// The layers that have the directory `path`, as far down as they are to be seen.
    fn descend(&self, roots: &[OwnedFd], path: &[u8]) -> Result<Vec<usize>, Error> {
        let mut layers: Vec<usize> = (0..roots.len()).collect();
        let mut so_far = Vec::new();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if matches!(name, b"." | b"..") {
                return Err(Error::Refused {
                    path: text(path),
                    what: "a path has neither `.` nor `..` in it",
                });
            }
            let open = open_layers(roots, &layers, &so_far)?;
            so_far = join(&so_far, name);
            let mut names = BTreeMap::new();
            for (at, (layer, fd)) in open.iter().enumerate() {
                match note(&mut names, name, at, *layer, fd.as_fd(), Marks::Obeyed) {
                    Ok(()) => {}
                    Err(Error::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(other) => return Err(other),
                }
            }
            match names.remove(name) {
                Some(found) if found.kind == Kind::Directory => layers = found.layers,
                Some(found) if found.kind == Kind::Link => {
                    return Err(Error::Refused {
                        path: text(&so_far),
                        what: "it is a link: name the directory itself",
                    });
                }
                _ => return Err(Error::Missing(format!("directory {}", text(path)))),
            }
        }
        Ok(layers)
    }
}

/// Notes what `name` is in one more layer.
fn note(
    names: &mut BTreeMap<Vec<u8>, Found>,
    name: &[u8],
    at: usize,
    layer: usize,
    fd: BorrowedFd<'_>,
    marks: Marks,
) -> Result<(), Error> {
    if let Some(above) = names.get(name)
        && above.closed
    {
        return Ok(());
    }
    let stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(Error::os("a file of the workspace cannot be looked at"))?;
    let kind = kind(&stat);
    match names.get_mut(name) {
        Some(above) if kind == Kind::Directory => above.layers.push(layer),
        Some(above) => above.closed = true,
        None => {
            let closed = kind != Kind::Directory || marks == Marks::Shown;
            names.insert(name.to_vec(), Found { at, stat, kind, layers: vec![layer], closed });
        }
    }
    Ok(())
}

fn kind(stat: &Stat) -> Kind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        FileType::CharacterDevice if stat.st_rdev == 0 => Kind::Whiteout,
        _ => Kind::Special,
    }
}

/// The directory `path` in each of `layers`, down to one that hides the rest.
fn open_layers(roots: &[OwnedFd], layers: &[usize], path: &[u8]) -> Result<Vec<(usize, OwnedFd)>, Error> {
    let mut open = Vec::with_capacity(layers.len());
    for layer in layers {
        let fd = beneath::directory(&roots[*layer], path).map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR | Errno::NOENT => {
                Error::Refused { path: text(path), what: "it changed while it was read" }
            }
            other => Error::Io("a directory of the workspace cannot be opened", other.into()),
        })?;
        let hides = layers.len() > 1 && is_opaque(fd.as_fd())?;
        open.push((*layer, fd));
        if hides {
            break;
        }
    }
    Ok(open)
}

/// Whether a directory hides what lies below it.
pub(super) fn is_opaque(directory: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(directory, OPAQUE, &mut value) {
        Ok(1) => Ok(value == *b"y"),
        Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(other) => Err(Error::Io("the marks of a directory cannot be read", other.into())),
    }
}

/// Refuses more than `most`, by the name of what there is too much of.
pub(super) fn held(path: &[u8], what: &'static str, count: u64, most: u64) -> Result<(), Error> {
    if count > most {
        return Err(Error::OverCap { path: format!("/{}", text(path)), what, most });
    }
    Ok(())
}

fn in_time(began: Instant, caps: &Caps) -> Result<(), Error> {
    if began.elapsed().as_secs() < caps.seconds {
        Ok(())
    } else {
        Err(Error::TooSlow { seconds: caps.seconds })
    }
}

fn join(start: &[u8], path: &[u8]) -> Vec<u8> {
    let parts = [start, path];
    let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(&b'/')
}

fn spell(name: &Name) -> Vec<u8> {
    let mut names = vec![name.name.as_slice()];
    let mut at = name;
    while let Some(above) = at.above.as_deref() {
        names.push(&above.name);
        at = above;
    }
    names.reverse();
    names.join(&b'/')
}

impl Drop for Name {
    /// Lets go of what is above one by one: a chain as deep as the directories are would exhaust the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut name) = above.and_then(Rc::into_inner) {
            above = name.above.take();
        }
    }
}
