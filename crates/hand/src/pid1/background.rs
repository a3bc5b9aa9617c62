//! Commands in the background: who they are, what they have said, and their end.

use rustix::process::Signal;

use super::process::Stage;
use super::serve::Server;
use crate::wire::{Cause, Event, Kind, Reply, Running, WINDOW};

/// Commands in the background that run or are remembered. All of them fit into one answer.
pub const MAX_BACKGROUND: usize = 64;

/// Bytes that are sent to one reader before it is another's turn.
const CHUNK: usize = 64 << 10;

/// A stream that reads what a command has written and writes.
#[derive(Debug)]
pub struct Attached {
    pub handle: u32,
    /// The next byte to send, counted from the first that was written.
    at: u64,
    credit: u32,
}

impl Attached {
    pub fn grant(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes).min(WINDOW);
    }
}

impl Server {
    pub fn attach(&mut self, stream: u32, handle: u32, from: u64) {
        let Some(log) = self.processes.get(&handle).and_then(|process| process.stdout.log()) else {
            self.no_such(stream, handle);
            return;
        };
        let from = from.clamp(log.oldest(), log.total());
        self.link.say(stream, Kind::Event, &Event::Attached { from });
        self.attached.insert(stream, Attached { handle, at: from, credit: WINDOW });
    }

    /// Sends readers what they have not seen, and those of a command that has ended its end.
    pub fn pump(&mut self) {
        let mut over = Vec::new();
        for (stream, reader) in &mut self.attached {
            let Some(process) = self.processes.get(&reader.handle) else {
                over.push((*stream, None));
                continue;
            };
            let Some(log) = process.stdout.log() else { continue };
            if reader.at < log.oldest() {
                reader.at = log.oldest();
                self.link.say(*stream, Kind::Event, &Event::Attached { from: reader.at });
            }
            while reader.credit > 0 && reader.at < log.total() && !self.link.congested() {
                let bytes = log.read(reader.at, CHUNK.min(reader.credit as usize));
                reader.at += bytes.len() as u64;
                reader.credit -= bytes.len() as u32;
                self.link.send(*stream, Kind::Data, &bytes);
            }
            if let (Stage::Left(outcome), true) = (process.stage, reader.at == log.total()) {
                over.push((*stream, Some(process.exit(outcome))));
            }
        }
        for (stream, exit) in over {
            self.attached.remove(&stream);
            match exit {
                Some(exit) => self.link.say(stream, Kind::Reply, &Reply::Exited(exit)),
                None => self.link.fail(stream, Cause::NotFound, "the command was forgotten"),
            }
        }
    }

    pub fn list(&mut self, stream: u32) {
        let running = self.processes.iter().filter(|(_, process)| process.stdout.log().is_some());
        let running = running.map(|(handle, process)| Running {
            handle: *handle,
            command: process.command.clone(),
            pid: process.id,
            state: process.state(),
            written: process.stdout.kept().bytes,
            age_ms: process.began.elapsed().as_millis() as u64,
        });
        let running = running.collect();
        self.link.say(stream, Kind::Reply, &Reply::Processes(running));
    }

    pub fn kill(&mut self, stream: u32, handle: u32, signal: i32) {
        let Some(signal) = Signal::from_named_raw(signal) else {
            self.link.fail(stream, Cause::Invalid, "there is no such signal");
            return;
        };
        match self.processes.get_mut(&handle) {
            Some(process) if process.stdout.log().is_some() => {
                // Nothing is below a supervisor that is gone; its id may be another's.
                if signal == Signal::KILL {
                    process.kill();
                } else if process.reports.is_some() {
                    process.tree.signal(signal);
                }
                self.link.say(stream, Kind::Reply, &Reply::Done);
            }
            _ => self.no_such(stream, handle),
        }
    }

    pub fn forget(&mut self, stream: u32, handle: u32) {
        // Who reads it is told of its end first, where that has just come.
        self.finish();
        match self.processes.get_mut(&handle) {
            Some(process) if process.stdout.log().is_some() => {
                if !process.over() {
                    self.link.fail(stream, Cause::Busy, "it, or what it has begun, still runs");
                } else {
                    self.remove(handle);
                    self.link.say(stream, Kind::Reply, &Reply::Done);
                }
            }
            _ => self.no_such(stream, handle),
        }
    }

    /// Makes room for one more, where one that has ended can be forgotten.
    pub fn room_for_background(&mut self) -> Result<(), ()> {
        let kept = || self.processes.iter().filter(|(_, process)| process.stdout.log().is_some());
        if kept().count() < MAX_BACKGROUND {
            return Ok(());
        }
        let oldest = kept().find(|(_, process)| process.reports.is_none()).map(|(handle, _)| *handle);
        self.remove(oldest.ok_or(())?);
        Ok(())
    }

    fn no_such(&mut self, stream: u32, handle: u32) {
        self.link.fail(stream, Cause::NotFound, &format!("nothing runs in the background as {handle}"));
    }
}
