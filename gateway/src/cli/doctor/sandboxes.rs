//! Whether this machine makes sandboxes, found out by making one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hands::Demands;
use sandbox::local::{Finding, Verdict as Works};
use sandbox::runner::{Isolation, Runner as _};

use super::{Check, Verdict};
use crate::config::Config;
use crate::sandboxes;

const NAME: &str = "sandboxes";

/// What works of them, and how to have the rest.
pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let place = match Place::new(&config.data_dir) {
        Ok(place) => place,
        Err(e) => {
            return vec![Check::new(NAME, Verdict::Warning, format!("nowhere to try to make one: {e}"))];
        }
    };
    let local = sandboxes::local(&place.0, config.sandbox.runsc.clone());
    let isolation = local.isolation();
    let found = local.probe().await;
    let gvisor = if found.is_ok() { local.probe_gvisor().await.ok() } else { None };
    local.close().await;
    match found {
        Err(error) => {
            let check = Check::new(NAME, Verdict::Failed, error.chain());
            vec![match error.advice() {
                Some(hint) => check.hint(hint.to_owned()),
                None => check,
            }]
        }
        Ok(findings) => {
            let mut checks: Vec<Check> = findings.into_iter().map(judged).collect();
            if let Some(first) = checks.first_mut().filter(|first| first.verdict == Verdict::Ok) {
                first.finding = format!("one was made and ended; isolation: {}", isolation.as_str());
            }
            let (demands, gvisor) = (&config.sandbox.isolation, gvisor.into_iter().flatten());
            let mut strongest = isolation;
            for finding in gvisor {
                if finding.verdict == Works::Works {
                    strongest = Isolation::Gvisor;
                }
                checks.push(of_gvisor(demands, finding));
            }
            checks.extend(demanded(demands, strongest));
            checks
        }
    }
}

/// What came of making one with gVisor, which a machine needs only where somebody demands it.
fn of_gvisor(demands: &Demands, finding: Finding) -> Check {
    let check = judged(finding);
    match check.verdict {
        Verdict::Ok => Check { finding: "one was made and ended; isolation: gvisor".to_owned(), ..check },
        _ if demands.reach(Isolation::Gvisor, Isolation::Namespaces) => check,
        _ => {
            Check { verdict: Verdict::Ok, finding: format!("{}; nobody demands it", check.finding), ..check }
        }
    }
}

/// Who gets no sandbox, because more is demanded than there is.
fn demanded(demands: &Demands, there: Isolation) -> Option<Check> {
    let weak = |least: &Isolation| *least > there;
    let who = if demands.all.as_ref().is_some_and(weak) {
        "every tenant".to_owned()
    } else {
        let tenants: Vec<String> = demands
            .of
            .iter()
            .filter(|(_, least)| weak(least))
            .map(|(tenant, _)| tenant.to_string())
            .collect();
        if tenants.is_empty() {
            return None;
        }
        tenants.join(", ")
    };
    let finding = format!("sandbox.isolation demands more than {} for {who}: none is made", there.as_str());
    Some(Check::new(NAME, Verdict::Failed, finding).hint("demand less, or serve on a machine that has it"))
}

fn judged(finding: Finding) -> Check {
    let Finding { about, verdict } = finding;
    match verdict {
        Works::Works => Check::new(NAME, Verdict::Ok, about),
        Works::Degraded { why, mend } => {
            Check::new(NAME, Verdict::Warning, format!("{about}: degraded, {why}")).hint(mend)
        }
        Works::Fails { why, mend } => Check::new(NAME, Verdict::Failed, format!("{about}: {why}")).hint(mend),
    }
}

/// A directory for a trial, on the disk of the data directory where there is one. It goes with this.
struct Place(PathBuf);

impl Place {
    fn new(data_dir: &Path) -> io::Result<Self> {
        let name = format!("doctor-{}", std::process::id());
        let above = if data_dir.is_dir() { std::path::absolute(data_dir)? } else { std::env::temp_dir() };
        let path = above.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        let place = Self(path);
        sandboxes::furnish(&place.0)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays is empty directories.
        let _ = fs::remove_dir_all(&self.0);
    }
}
