//! A jail whose kernel comes up by itself: it is there when its hand speaks.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use hand::jail::{JailSpec, Report};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::{Error, First, Maker, Program, Spawner, adopt};

/// The most that is kept of what a kernel complains of, in bytes.
const COMPLAINT: usize = 2_000;

/// Makes the jail; the hand that its kernel runs serves `stream`, of which `near` is the other end.
///
/// # Errors
/// [`Error::Jail`], or [`Error::Gvisor`] with the kernel's own words; then the jail's processes are gone.
pub fn make(
    spawner: &Spawner,
    program: &Program,
    spec: &JailSpec,
    (stream, near): (OwnedFd, &UnixStream),
) -> Result<First, Error> {
    let mut maker = Maker::start(spawner, program, stream)?;
    maker.tell(spec);
    maker.process.stdin.take();
    let mut heard = Heard::default();
    let spoke = maker.hear(near, &mut heard);
    match (heard.first, heard.failed) {
        (Some(first), None) if matches!(spoke, Ok(Spoke::Hand)) => Ok(first),
        (first, failed) => {
            if let Some(first) = first {
                first.end();
            }
            Err(failed.unwrap_or(Error::Gvisor(heard.complaint)))
        }
    }
}

/// Who has spoken last.
enum Spoke {
    Hand,
    /// Nobody is left who could.
    Nobody,
}

/// A line of `runsc`.
#[derive(serde::Deserialize)]
struct Said {
    msg: String,
}

#[derive(Default)]
struct Heard {
    first: Option<First>,
    failed: Option<Error>,
    /// What was no report.
    complaint: String,
}

impl Maker {
    fn hear(&mut self, near: &UnixStream, heard: &mut Heard) -> io::Result<Spoke> {
        let mut buffer = [0; 4096];
        let mut hand = PollFlags::IN;
        loop {
            let output = self.process.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
            let left = self.deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(0),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut polled = vec![PollFd::new(&*output, PollFlags::IN)];
            if !hand.is_empty() {
                polled.push(PollFd::new(near, hand));
            }
            match poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let (reported, spoken) = (
                !polled[0].revents().is_empty(),
                polled.get(1).is_some_and(|polled| !polled.revents().is_empty()),
            );
            drop(polled);
            if reported {
                match output.read(&mut buffer)? {
                    0 => return Ok(Spoke::Nobody),
                    read => self.text.extend_from_slice(&buffer[..read]),
                }
                while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.text.drain(..=end).collect();
                    heard.take(&line);
                }
            }
            if spoken {
                match recv(near, &mut buffer[..1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                    Ok((1.., _)) if heard.first.is_some() => return Ok(Spoke::Hand),
                    // It has closed: whoever is left says why.
                    Ok((0, _)) => hand = PollFlags::empty(),
                    _ => {}
                }
            }
        }
    }
}

impl Heard {
    fn take(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Report::Made { pid }) => self.first = adopt(pid),
            Ok(Report::Failed { step, at, errno }) => {
                let source = io::Error::from_raw_os_error(errno);
                self.failed = Some(Error::Jail { step, at, source });
            }
            Ok(Report::Waits) => {}
            Err(_) => {
                let said: Option<Said> = serde_json::from_slice(line).ok();
                let said = said.map_or_else(|| String::from_utf8_lossy(line).into_owned(), |said| said.msg);
                self.complaint.push_str(&said);
                let excess = self.complaint.len().saturating_sub(COMPLAINT);
                let from = (excess..=self.complaint.len()).find(|at| self.complaint.is_char_boundary(*at));
                self.complaint.drain(..from.unwrap_or(0));
            }
        }
    }
}
