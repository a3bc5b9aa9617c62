//! What the process that makes sandboxes does when it is asked.

use std::fs;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hand::jail::{Kernel, Tree};
use kernel::{BlobHash, Result, SandboxId};
use rustix::event::epoll::{self, EventData, EventFlags};

use super::{Error, HAND, Host, Place, Running, archives};
use crate::local::gvisor;
use crate::local::message::{Answer, Call, WorkspaceCall};
use crate::local::probe::{self, Finding};
use crate::local::sandbox::Ends;
use crate::runner::{Isolation, Limiting, Limits, Spec};

impl Host {
    /// Does what is asked, with the files that came along.
    pub(super) fn call(&self, call: Call, files: Vec<OwnedFd>) -> Result<(Answer, Vec<OwnedFd>)> {
        let answer = match call {
            Call::Open => return Err(Error::Order.into()),
            Call::Create(isolation, spec) => {
                let ends = self.create(isolation, &spec)?;
                let limiting = Limiting::from(&self.workshop.layout);
                return Ok((Answer::Created(isolation, limiting), ends.files()));
            }
            Call::Pause(id) => {
                self.running(id)?.sandbox.pause()?;
                Answer::Done
            }
            Call::Resume(id) => {
                self.running(id)?.sandbox.resume()?;
                Answer::Done
            }
            Call::Destroy(id) => {
                self.destroy(id)?;
                Answer::Done
            }
            Call::Door(id) => {
                let directory = self.running(id)?.sandbox.door()?;
                return Ok((Answer::Door, vec![directory]));
            }
            Call::AddRunner(names) => Answer::Runner(self.add_runner(names, files)?),
            Call::UseRunner(runner) => {
                self.use_runner(runner)?;
                Answer::Done
            }
            Call::SwapRunner(id, runner) => {
                Answer::Runner(self.running(id)?.sandbox.use_runner(&self.workshop, runner)?)
            }
            Call::Usage(id) => {
                let last = self.last_usages().get(&id).copied();
                Answer::Usage(last.map_or_else(|| Ok(self.running(id)?.sandbox.usage()), Ok::<_, Error>)?)
            }
            Call::Probe => Answer::Findings(self.probe()),
            Call::ProbeGvisor => Answer::Findings(vec![self.tried(Isolation::Gvisor)]),
            Call::Workspace(call) => self.workspace(call, files)?,
        };
        Ok((answer, Vec::new()))
    }

    /// Adds a version of the platform's programs, which has this process's own hand unless it brings one.
    fn add_runner(&self, names: Vec<String>, files: Vec<OwnedFd>) -> Result<BlobHash, Error> {
        if names.len() != files.len() {
            return Err(Error::Order);
        }
        let mut files: Vec<_> = names.into_iter().zip(files.into_iter().map(fs::File::from)).collect();
        if !files.iter().any(|(name, _)| name == HAND) {
            let own = fs::File::open(&self.workshop.hand);
            files.insert(0, (HAND.to_owned(), own.map_err(|error| Error::Files("reading the hand", error))?));
        }
        let workshop = &self.workshop;
        let in_use = || {
            let used = |id| workshop.runners.used(&workshop.directory.of(id).runner());
            let used = workshop.directory.ids()?.into_iter().filter_map(used);
            Ok(used.chain([workshop.newest_runner()]).collect())
        };
        workshop.runners.add(files, in_use)
    }

    /// What keeps sandboxes apart like that; nothing weaker is taken in its place.
    fn kernel(&self, isolation: Isolation) -> Result<Kernel, Error> {
        match isolation {
            Isolation::Namespaces => Ok(Kernel::Host),
            Isolation::Gvisor if !self.privileged => {
                Err(Error::Gvisor("it is not started as root".to_owned()))
            }
            Isolation::Gvisor => {
                Ok(Kernel::Gvisor { program: gvisor::program(self.workshop.runsc.as_deref())? })
            }
            Isolation::Pod | Isolation::Microvm => Err(Error::Isolation(isolation.as_str())),
        }
    }

    fn create(&self, isolation: Isolation, spec: &Spec) -> Result<Ends, Error> {
        let kernel = self.kernel(isolation)?;
        {
            let mut places = self.places();
            if places.contains_key(&spec.id) {
                return Err(Error::Taken);
            }
            places.insert(spec.id, Place::Making);
            self.last_usages().remove(&spec.id);
        }
        match self.sandbox(spec, kernel) {
            Ok((sandbox, ends, users)) => {
                let running = Running {
                    sandbox: Arc::new(sandbox),
                    users,
                    event: self.next_event.fetch_add(1, Ordering::Relaxed),
                };
                self.places().insert(spec.id, Place::Runs(running.clone()));
                let about = EventData::new_u64(running.event);
                // Known by its end or not, the sandbox runs; without this it is removed when it is destroyed.
                let _ = epoll::add(&self.events, running.sandbox.pidfd(), about, EventFlags::IN);
                Ok(ends)
            }
            Err(error) => {
                self.places().remove(&spec.id);
                Err(error)
            }
        }
    }

    fn running(&self, id: SandboxId) -> Result<Running, Error> {
        match self.places().get(&id) {
            Some(Place::Runs(running)) => Ok(running.clone()),
            Some(Place::Making) | None => Err(Error::Unknown),
        }
    }

    pub(super) fn destroy(&self, id: SandboxId) -> Result<(), Error> {
        let running = match self.places().get(&id) {
            Some(Place::Runs(running)) => running.clone(),
            Some(Place::Making) => return Err(Error::Taken),
            None => {
                self.last_usages().remove(&id);
                return Ok(());
            }
        };
        self.end(id, &running)?;
        self.last_usages().remove(&id);
        Ok(())
    }

    /// Ends this sandbox of that id: there may be another one of it by now.
    pub(super) fn end(&self, id: SandboxId, running: &Running) -> Result<(), Error> {
        running.sandbox.end()?;
        let mut places = self.places();
        let is_there = matches!(places.get(&id), Some(Place::Runs(there)) if there.event == running.event);
        // Whoever removes it returns its users; another may have done so meanwhile.
        if is_there {
            places.remove(&id);
            self.return_users(running.users);
        }
        Ok(())
    }

    fn workspace(&self, call: WorkspaceCall, files: Vec<OwnedFd>) -> Result<Answer> {
        let keeper = &self.workspaces;
        match call {
            WorkspaceCall::Create { id, origin, quota_bytes } => keeper.create(id, origin, quota_bytes)?,
            WorkspaceCall::Tree { id } => return Ok(Answer::Tree(keeper.tree(id)?)),
            WorkspaceCall::Snapshot { id, snapshot, mounted } => keeper.snapshot(id, snapshot, mounted)?,
            WorkspaceCall::Rollback { id, snapshot } => keeper.rollback(id, snapshot)?,
            WorkspaceCall::Remove { id } => keeper.remove(id)?,
            WorkspaceCall::RemoveSnapshot { snapshot } => keeper.remove_snapshot(snapshot)?,
            WorkspaceCall::Fullness { id } => return Ok(Answer::Fullness(keeper.fullness(id)?)),
            WorkspaceCall::Ids => {
                let (workspaces, snapshots) = keeper.ids()?;
                return Ok(Answer::Ids(workspaces, snapshots));
            }
            WorkspaceCall::Archive { snapshot } => archives::write(&**keeper, snapshot, files)?,
            WorkspaceCall::Receive { snapshot } => archives::receive(&**keeper, snapshot, files)?,
            WorkspaceCall::Digest { snapshot } => {
                return Ok(Answer::Digest(archives::digest(&**keeper, snapshot)?));
            }
        }
        Ok(Answer::Done)
    }

    /// Makes a sandbox and ends it, and says what of it did not work.
    fn probe(&self) -> Vec<Finding> {
        let layout = &self.workshop.layout;
        let mut findings = vec![self.tried(Isolation::Namespaces)];
        let delegate = "run as root, or let systemd delegate a control group to the service (`Delegate=yes`)";
        let mut judge = |about: &str, holds: bool, why: &str, mend: &str| {
            findings.push(if holds { Finding::works(about) } else { Finding::degraded(about, why, mend) });
        };
        let why =
            "no control group with memory and pids can be written; only limits of single processes hold";
        judge("limits of a sandbox as a whole", layout.limits(), why, delegate);
        judge("pausing a sandbox", layout.freezes(), "no control group can freeze processes", delegate);
        let why = "every sandbox has the same user of this machine, so that only namespaces keep them apart";
        judge(
            "users of a sandbox's own",
            self.privileged,
            why,
            "run as root; the gateway drops its privileges by itself",
        );
        let landlock = hand::jail::landlock_is_there();
        let mend = "use a kernel with CONFIG_SECURITY_LANDLOCK, and `landlock` in its `lsm=` list";
        judge("Landlock, a second wall around files", landlock, "this kernel does not have it", mend);
        findings
    }

    /// Makes a sandbox that is kept apart like that.
    fn tried(&self, isolation: Isolation) -> Finding {
        let about = match isolation {
            Isolation::Gvisor => "making a sandbox with gVisor",
            _ => "making a sandbox",
        };
        match self.trial(isolation) {
            Ok(()) => Finding::works(about),
            Err(Error::Jail { step, at, source }) => {
                let mend = probe::mend(step, &source);
                Finding::fails(about, format!("{step:?} was refused at {at}: {source}"), mend)
            }
            Err(error) => {
                let why = kernel::Error::from(error);
                let mend = why.advice().unwrap_or("look into the log").to_owned();
                Finding::fails(about, why.chain(), mend)
            }
        }
    }

    fn trial(&self, isolation: Isolation) -> Result<(), Error> {
        let failed = |error| Error::Files("making a trial's workspace", error);
        let path = self.workshop.directory.trial().join("workspace");
        fs::create_dir_all(&path).map_err(failed)?;
        let spec = Spec {
            id: SandboxId::new(),
            workspace: Tree::Directory { path },
            layers: Vec::new(),
            limits: Limits::default(),
        };
        let ends = self.create(isolation, &spec)?;
        drop(ends);
        self.destroy(spec.id)
    }
}
