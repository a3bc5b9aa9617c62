//! The files of one environment's log: numbered, appended to, removed from the oldest on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom, Write};
use std::path::PathBuf;

use kernel::Timestamp;

use super::{Entry, Rotation};

/// The files `<prefix><number>.ndjson` of a directory. A file keeps its number, so that a reader's cursor stays true while the
/// log moves on.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    prefix: &'static str,
    rotation: Rotation,
}

impl Files {
    pub(super) fn new(dir: PathBuf, prefix: &'static str, rotation: Rotation) -> Self {
        Self { dir, prefix, rotation }
    }

    /// Adds whole lines. Makes the directory, but not the environment's above it: a deleted environment must
    /// not come back.
    pub(super) fn append(&self, lines: &[u8]) -> Result<()> {
        match std::fs::create_dir(&self.dir) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let numbers = self.numbers()?;
        let newest = numbers.first().copied().unwrap_or(1);
        let mut file = self.open_to_append(newest)?;
        let mut size = file.metadata()?.len();
        if size > 0 && size + lines.len() as u64 > self.rotation.file_bytes {
            file = self.open_to_append(newest + 1)?;
            size = file.metadata()?.len();
            for old in numbers.iter().skip(self.rotation.files.saturating_sub(1)) {
                std::fs::remove_file(self.path(*old))?;
            }
        }
        if size > 0 && !ends_with_line_feed(&mut file)? {
            // A crash tore the last line; the next one must not be glued to it.
            file.write_all(b"\n")?;
        }
        file.write_all(lines)
    }

    /// The numbers of the files there are, newest first.
    pub(super) fn numbers(&self) -> Result<Vec<u64>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(self.prefix)?.strip_suffix(".ndjson"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        Ok(numbers)
    }

    /// The first `end` bytes of a file, or all of them; empty where it was removed meanwhile.
    pub(super) fn read(&self, number: u64, end: Option<u64>) -> Result<Vec<u8>> {
        let file = match File::open(self.path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(end.unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Removes the files that were written last before `before`, but for the newest, whose lines of that time become blank:
    /// what comes after them stays where readers know it. How many files were removed.
    pub(super) fn expire(&self, before: Timestamp) -> Result<u64> {
        let mut removed = 0;
        let numbers = self.numbers()?;
        for old in numbers.iter().skip(1) {
            let written = std::fs::metadata(self.path(*old))?.modified()?;
            let since = written.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            if i64::try_from(since.as_micros()).is_ok_and(|written| written < before.as_micros()) {
                std::fs::remove_file(self.path(*old))?;
                removed += 1;
            }
        }
        // The oldest that is left may have begun long before it ended.
        for left in &numbers {
            self.blank(*left, before)?;
        }
        Ok(removed)
    }

    /// Makes one empty line of the lines that a file begins with and that are of a time before `before`.
    fn blank(&self, number: u64, before: Timestamp) -> Result<()> {
        let bytes = self.read(number, None)?;
        let mut end = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice::<Entry>(line) {
                Ok(entry) if entry.at >= before => break,
                Ok(_) | Err(_) => end += line.len(),
            }
        }
        let old = bytes.get(..end).unwrap_or_default();
        if end == 0 || !old.ends_with(b"\n") || old[..end - 1].iter().all(|byte| *byte == b' ') {
            return Ok(());
        }
        let mut empty = vec![b' '; end];
        empty[end - 1] = b'\n';
        // Without `append`, which would write at the end wherever one stands.
        let mut file = OpenOptions::new().write(true).open(self.path(number))?;
        file.write_all(&empty)
    }

    fn open_to_append(&self, number: u64) -> Result<File> {
        OpenOptions::new().create(true).append(true).read(true).open(self.path(number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{}{number}.ndjson", self.prefix))
    }
}

fn ends_with_line_feed(file: &mut File) -> Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
