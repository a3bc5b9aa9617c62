//! Sandboxes that are there before anybody asks: a jail costs what it costs while nobody waits for it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Error, Host};
use crate::local::sandbox::{Ends, Sandbox, Spare};
use crate::runner::{Limits, Spec};
use hand::jail::{Kernel, Users};

/// Who was just given one has something to do; the next is made after that, and not beside it.
const BREATH: Duration = Duration::from_millis(50);

impl Host {
    /// Makes as many as there are to be, on a thread of its own; whoever does so already goes on.
    pub(super) fn refill(self: &Arc<Self>) {
        if self.lacking().is_none() || self.refilling.swap(true, Ordering::SeqCst) {
            return;
        }
        let begun = self.begin(|host| {
            thread::sleep(BREATH);
            loop {
                let mut works = true;
                while works && let Some(limits) = host.lacking() {
                    works = host.add_spare(limits).is_ok();
                }
                host.refilling.store(false, Ordering::SeqCst);
                // One may have been taken since the last look, by somebody who saw that it is being looked after.
                if !works || host.lacking().is_none() || host.refilling.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
        if begun.is_err() {
            self.refilling.store(false, Ordering::SeqCst);
        }
    }

    /// What one may use that there are not enough of.
    fn lacking(&self) -> Option<Limits> {
        let there = self.spares();
        let of = |limits: &Limits| there.iter().filter(|spare| spare.fits(limits)).count();
        let lacking = self.settings.spares.iter().find(|wanted| of(&wanted.limits) < wanted.count);
        lacking.map(|wanted| wanted.limits)
    }

    fn spares(&self) -> std::sync::MutexGuard<'_, Vec<Spare>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_spare(&self, limits: Limits) -> Result<(), Error> {
        let users = self.users(kernel::SandboxId::new());
        match Spare::make(&self.workshop, limits, users) {
            Ok(spare) => {
                let mut spares = self.spares();
                // The version may have changed while it was made, which only those that wait were told.
                let renewed = spare.use_newest_runner(&self.workshop);
                if renewed.is_ok() {
                    spares.push(spare);
                } else {
                    spare.end();
                    self.return_users(users);
                }
                renewed
            }
            Err(error) => {
                self.return_users(users);
                Err(error)
            }
        }
    }

    /// Makes the sandbox that `spec` describes: of a spare one where there is one that does, else anew.
    pub(super) fn sandbox(&self, spec: &Spec, kernel: Kernel) -> Result<(Sandbox, Ends, Users), Error> {
        let spare = if kernel == Kernel::Host {
            let mut spares = self.spares();
            let fits = spares.iter().position(|spare| spare.fits(&spec.limits));
            fits.map(|at| spares.swap_remove(at))
        } else {
            None
        };
        if let Some(spare) = spare {
            let users = spare.users;
            // What does not work with one that was made before may with one that is made for it.
            match spare.give(&self.workshop, spec) {
                Ok((sandbox, ends)) => return Ok((sandbox, ends, users)),
                Err(_) => self.return_users(users),
            }
        }
        let users = self.users(spec.id);
        match Sandbox::make(&self.workshop, spec, users, kernel) {
            Ok((sandbox, ends)) => Ok((sandbox, ends, users)),
            Err(error) => {
                self.return_users(users);
                Err(error)
            }
        }
    }

    /// Has new sandboxes use this version of the runner.
    pub(super) fn use_runner(&self, runner: kernel::BlobHash) -> Result<(), Error> {
        self.workshop.use_runner(runner)?;
        let mut spares = self.spares();
        let newest = |spare: &Spare| spare.use_newest_runner(&self.workshop).is_ok();
        let (told, others): (Vec<_>, Vec<_>) = spares.drain(..).partition(newest);
        spares.extend(told);
        drop(spares);
        // One that cannot be told is nobody's, and another one takes its place.
        for spare in others {
            let users = spare.users;
            spare.end();
            self.return_users(users);
        }
        Ok(())
    }

    /// Ends those that nobody was given.
    pub(super) fn end_spares(&self) {
        let all: Vec<_> = self.spares().drain(..).collect();
        all.into_iter().for_each(Spare::end);
    }
}
