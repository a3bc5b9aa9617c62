//! `hand files`: work with files, as the user whom commands run as, and confined like them.

mod change;
mod failure;
mod list;
mod look;
mod search;
mod tree;
mod watch;

use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;

use crate::wire::{Completeness, FileRequest};
use failure::{Failed, Result, invalid};

/// Bytes that are carried in one go.
const CHUNK: usize = 128 << 10;

/// Does what its one argument asks. Returns the exit code: where it is not 0, standard error says why.
#[must_use]
pub fn main(argument: &str) -> u8 {
    let done = serde_json::from_str(argument)
        .map_err(|error| invalid(format!("not a request: {error}")))
        .and_then(|request| serve(&request));
    match done {
        Ok(()) => 0,
        Err(Failed(failure)) => {
            // Without a reader there is nobody to tell.
            let _ = serde_json::to_writer(io::stderr(), &failure);
            1
        }
    }
}

fn serve(request: &FileRequest) -> Result<()> {
    match request {
        FileRequest::Read { path, offset, limit } => look::read(path, *offset, *limit),
        FileRequest::Stat { path } => look::stat(path),
        FileRequest::Write { path, size, mode, existing } => change::write(path, *size, *mode, *existing),
        FileRequest::MakeDirectory { path } => change::make_directory(path),
        FileRequest::Move { from, to, existing } => change::rename(from, to, *existing),
        FileRequest::Remove { path, contents } => change::remove(path, *contents),
        FileRequest::List { path, depth, limit } => list::list(path, *depth, *limit),
        FileRequest::Search { path, name, line, among, limit } => {
            search::search(path, name.as_deref(), line.as_deref(), *among, *limit)
        }
        FileRequest::Tree { path, caps } => tree::tree(path, *caps),
        FileRequest::Watch { path } => watch::watch(path),
    }
}

/// Results, a line each.
struct Lines {
    out: io::BufWriter<io::StdoutLock<'static>>,
    left: u32,
}

impl Lines {
    fn new(limit: u32) -> Self {
        Self { out: io::BufWriter::with_capacity(32 << 10, io::stdout().lock()), left: limit }
    }

    /// Writes a result, where there is room for one more.
    fn add(&mut self, result: &impl Serialize) -> Result<Completeness> {
        if self.left == 0 {
            return Ok(Completeness::More);
        }
        self.left -= 1;
        self.line(result)?;
        Ok(Completeness::Whole)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let mut json = serde_json::to_vec(line).map_err(io::Error::from)?;
        json.push(b'\n');
        Ok(self.out.write_all(&json)?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}

/// Carries all that comes, and says how many bytes that was. The library's own way has the kernel carry them where it can,
/// and gVisor's says that nothing more comes from a pipe that is merely empty.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut carried = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(carried),
            Ok(count) => {
                to.write_all(&buffer[..count])?;
                carried += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The path below `root`, as text.
fn below(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}
