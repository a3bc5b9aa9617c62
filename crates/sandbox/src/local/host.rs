//! The process that makes sandboxes: it holds the privileges for that, no credential, and no connection but one.

mod archives;
mod calls;
mod spares;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hand::jail::Users;
use kernel::SandboxId;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::base::Base;
use super::directory::RunDir;
use super::error::Error;
use super::groups::Layout;
use super::jail::Program;
use super::message::{Answer, Call, Refusal, Request, Response, Settings};
use super::packets::Packet;
use super::runners::Runners;
use super::sandbox::{Sandbox, Spare, Workshop};
use super::spawner::{self, Jobs};
use super::{packets, privileges, reaper, weak};
use crate::runner::Usage;
use crate::workspace::Workspaces;

/// Numbers of users that nobody is given on purpose, in pieces of 65,536: above those of containers of systemd.
const FIRST_USER: u32 = 1_879_048_192;
const RANGES: u32 = 36_000;
const RANGE: u32 = 1 << 16;

/// Calls that are worked on at once; what comes beyond them is refused, not kept.
const CALLS: usize = 256;

/// Opens what keeps workspaces, with the privileges of this process.
pub type Keeper = Box<dyn FnOnce(&Settings) -> kernel::Result<Arc<dyn Workspaces>>>;

/// What the process is made of.
pub struct Parts {
    /// The gateway's connection.
    pub control: OwnedFd,
    /// The static program that becomes the first process of each sandbox.
    pub hand: &'static [u8],
    /// Opens what keeps workspaces.
    pub workspaces: Keeper,
    /// Where things are. Whoever starts the process says so: the gateway does not choose what is mounted.
    pub settings: Settings,
}

/// Everything that calls work with.
struct Host {
    control: OwnedFd,
    workshop: Workshop,
    workspaces: Arc<dyn Workspaces>,
    privileged: bool,
    sandboxes: Mutex<HashMap<SandboxId, Place>>,
    /// What those had used that have ended by themselves, until somebody destroys them.
    ended: Mutex<HashMap<SandboxId, Usage>>,
    ranges: Mutex<HashSet<u32>>,
    events: OwnedFd,
    next_event: AtomicU64,
    calls: AtomicUsize,
    settings: Settings,
    spares: Mutex<Vec<Spare>>,
    /// Whether somebody sees to the spare ones.
    refilling: AtomicBool,
}

/// A sandbox, or one that is being made.
enum Place {
    Making,
    Runs(Running),
}

#[derive(Clone)]
struct Running {
    sandbox: Arc<Sandbox>,
    users: Users,
    /// What the loop knows it by.
    event: u64,
}

/// What an event of the loop is about; the other numbers are sandboxes.
const CONTROL: u64 = 0;
const WAKE: u64 = 1;
const SANDBOXES: u64 = 2;

/// What the hand is called among the platform's programs.
const HAND: &str = "hand";

/// How long calls that are being worked on have when the gateway is gone.
const GRACE: Duration = Duration::from_secs(20);

/// Serves the gateway until it closes the connection, then ends every sandbox. Called by the first thread of a process
/// that does nothing else: that thread makes the processes, whose lives are tied to its own.
///
/// # Errors
/// Where it could not begin, which the gateway has been told; where the connection breaks in the middle of a message.
pub fn host_main(parts: Parts) -> Result<(), Error> {
    let Parts { control, hand, workspaces, settings } = parts;
    let gone = Error::Gone;
    let Some(first) = packets::receive(control.as_fd()).map_err(gone)? else {
        return Ok(());
    };
    let request: Request = serde_json::from_slice(&first.text).map_err(|error| gone(error.into()))?;
    let Call::Open = request.call else {
        let refusal = Refusal::from(kernel::Error::from(Error::Order));
        return answer(control.as_fd(), request.number, Err(refusal), &[]);
    };
    match open(control, hand, &settings, workspaces) {
        Ok((host, jobs)) => {
            answer(host.control.as_fd(), request.number, Ok(Answer::Done), &[])?;
            host.refill();
            let served = host.serve(&jobs);
            host.end_all(&jobs);
            served
        }
        Err((control, error)) => answer(control.as_fd(), request.number, Err(error.into()), &[]),
    }
}

fn open(
    control: OwnedFd,
    hand: &[u8],
    settings: &Settings,
    workspaces: Keeper,
) -> Result<(Arc<Host>, Jobs), (OwnedFd, kernel::Error)> {
    let hand = weak::hand(&settings.run_dir).unwrap_or(hand);
    let prepare = || -> kernel::Result<_> {
        let privileged = privileges::held();
        let without = weak::without(&settings.run_dir);
        if privileged && !weak::roots_are_the_hosts(&settings.run_dir) {
            privileges::reduce().map_err(|error| Error::Files("giving up privileges", error))?;
        }
        let directory = RunDir::open(&settings.run_dir)?;
        let layout = Layout::find().map_err(Error::Groups)?;
        reaper::reap(&directory, &layout)?;
        let workspaces = workspaces(settings)?;
        let failed = |error: io::Error| Error::Files("preparing", error);
        let trees = settings.trees.iter().map(std::fs::canonicalize).collect::<io::Result<Vec<_>>>();
        let mut trees = trees.map_err(failed)?;
        trees.push(directory.trial());
        let (spawner, jobs) = spawner::spawner().map_err(failed)?;
        let events = epoll::create(CreateFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let program = Program::new(hand).map_err(failed)?;
        let runners = Runners::open(directory.runners())?;
        let hand = directory.place_hand(hand)?;
        let own = std::fs::File::open(&hand).map_err(failed)?;
        let runner = Mutex::new(runners.add(vec![(HAND.to_owned(), own)], || Ok(Vec::new()))?);
        let runsc = settings.runsc.clone();
        // What roots have in common is made with every protection.
        let base = if privileged && without.is_empty() { Some(Base::new(directory.base()?)) } else { None };
        let workshop = Workshop {
            directory,
            layout,
            base,
            program,
            hand,
            runners,
            runner,
            trees,
            spawner,
            runsc,
            without,
        };
        Ok((workshop, workspaces, privileged, events, jobs))
    };
    match prepare() {
        Ok((workshop, workspaces, privileged, events, jobs)) => {
            let host = Host {
                control,
                workshop,
                workspaces,
                privileged,
                sandboxes: Mutex::default(),
                ended: Mutex::default(),
                ranges: Mutex::default(),
                events,
                next_event: AtomicU64::new(SANDBOXES),
                calls: AtomicUsize::new(0),
                settings: settings.clone(),
                spares: Mutex::default(),
                refilling: AtomicBool::new(false),
            };
            Ok((Arc::new(host), jobs))
        }
        Err(error) => Err((control, error)),
    }
}

fn answer(
    control: BorrowedFd<'_>,
    number: u64,
    result: Result<Answer, Refusal>,
    files: &[BorrowedFd<'_>],
) -> Result<(), Error> {
    let text = serde_json::to_vec(&Response { number, result }).map_err(|error| Error::Gone(error.into()))?;
    packets::send(control, &text, files).map_err(Error::Gone)
}

impl Host {
    fn serve(self: &Arc<Self>, jobs: &Jobs) -> Result<(), Error> {
        let watch = |fd: BorrowedFd<'_>, what: u64| {
            epoll::add(&self.events, fd, EventData::new_u64(what), EventFlags::IN)
                .map_err(|error| Error::Gone(error.into()))
        };
        watch(self.control.as_fd(), CONTROL)?;
        watch(jobs.wake(), WAKE)?;
        let mut events: Vec<Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::Gone(error.into())),
            }
            for event in &events {
                match event.data.u64() {
                    CONTROL => match packets::receive(self.control.as_fd()).map_err(Error::Gone)? {
                        Some(packet) => self.take(packet)?,
                        None => return Ok(()),
                    },
                    WAKE => jobs.work(),
                    sandbox => self.ended(sandbox),
                }
            }
        }
    }

    /// Has a call worked on by a thread of its own.
    fn take(self: &Arc<Self>, packet: Packet) -> Result<(), Error> {
        let Packet { text, files } = packet;
        let request: Request = serde_json::from_slice(&text).map_err(|error| Error::Gone(error.into()))?;
        let number = request.number;
        let begun = self.begin(move |host| {
            let (result, files) = match host.call(request.call, files) {
                Ok((answer, files)) => (Ok(answer), files),
                Err(error) => (Err(Refusal::from(error)), Vec::new()),
            };
            let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            // Without a gateway there is nobody to tell, and the loop ends.
            let _ = answer(host.control.as_fd(), number, result, &files);
            host.refill();
        });
        match begun {
            Ok(()) => Ok(()),
            Err(error) => answer(self.control.as_fd(), number, Err(kernel::Error::from(error).into()), &[]),
        }
    }

    fn begin(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> Result<(), Error> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::Threads(io::ErrorKind::WouldBlock.into()));
        }
        let host = self.clone();
        let thread = thread::Builder::new().name("call".to_owned()).spawn(move || {
            work(&host);
            host.calls.fetch_sub(1, Ordering::Relaxed);
        });
        thread.map(drop).map_err(|error| {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            Error::Threads(error)
        })
    }

    /// The first process of a sandbox has ended by itself.
    fn ended(self: &Arc<Self>, event: u64) {
        let (id, running) = {
            let places = self.places();
            let found = places.iter().find_map(|(id, place)| match place {
                Place::Runs(running) if running.event == event => Some((*id, running.clone())),
                _ => None,
            });
            let Some((id, running)) = found else {
                return;
            };
            // Why it has ended can be told from that, which is gone with its groups. Nobody removes its place meanwhile.
            self.last_usages().insert(id, running.sandbox.usage());
            (id, running)
        };
        // Once is enough to know.
        let _ = epoll::delete(&self.events, running.sandbox.pidfd());
        // With every thread in use it stays as it is until somebody destroys it.
        let _ = self.begin(move |host| {
            let _ = host.end(id, &running);
        });
    }

    fn places(&self) -> MutexGuard<'_, HashMap<SandboxId, Place>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_usages(&self) -> MutexGuard<'_, HashMap<SandboxId, Usage>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ranges(&self) -> MutexGuard<'_, HashSet<u32>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Users that no other sandbox has; which ones follows from the id, so that two processes of one machine hardly meet.
    fn users(&self, id: SandboxId) -> Users {
        if !self.privileged {
            return Users::Single;
        }
        let mut ranges = self.ranges();
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let mut range = u32::try_from(hash % u64::from(RANGES)).unwrap_or(0);
        while !ranges.insert(range) {
            range = (range + 1) % RANGES;
        }
        Users::Range { first: FIRST_USER + range * RANGE }
    }

    fn return_users(&self, users: Users) {
        if let Users::Range { first } = users {
            self.ranges().remove(&((first - FIRST_USER) / RANGE));
        }
    }

    fn end_all(&self, jobs: &Jobs) {
        let deadline = Instant::now() + GRACE;
        while self.calls.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            jobs.work();
            thread::sleep(Duration::from_millis(1));
        }
        self.end_spares();
        let all: Vec<_> = self.places().drain().map(|(_, place)| place).collect();
        for place in all {
            if let Place::Runs(running) = place {
                // What stays is found by the next process.
                let _ = running.sandbox.end();
            }
        }
    }
}
