//! The sandboxes' own processes, and how the gateway comes by them.

use std::ffi::CStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use functions::{FunctionsLimits, InstanceLimits};
use hands::{Hands, HandsLimits, Journal, Keeping, place_of};
use kernel::Result;
use sandbox::egress::{self, Policy};
use sandbox::local::privileges::connection;
use sandbox::local::programs::Programs;
use sandbox::local::{Local, Parts, Settings, Spares, Starter, host_main, starter_main};
use sandbox::runner::{Isolation, Limits};
use sandbox::workspace;
use sandbox::workspace::checkpoints::Checkpoints;
use sandbox::workspace::templates::Templates;
use store::Store;

use crate::config::Config;

/// Where templates are, unless the configuration says where.
const TEMPLATES: &str = "templates";

/// Where the files of functions are that sandboxes read, in the data directory.
const FUNCTIONS: &str = "functions";

/// What this program is when it is not the gateway. Nobody else starts it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Makes sandboxes.
    Host,
    /// Starts the one that makes sandboxes.
    Starter,
}

impl Part {
    const ALL: [Self; 2] = [Self::Host, Self::Starter];

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "sandbox-host",
            Self::Starter => "sandbox-starter",
        }
    }

    /// The name of the process: fifteen bytes at most (prctl(2)).
    const fn process(self) -> &'static CStr {
        match self {
            Self::Host => c"sandbox-host",
            Self::Starter => c"sandbox-starter",
        }
    }

    /// The part of this process, with where things are; none for the gateway.
    pub fn of_this_process() -> Option<(Self, String)> {
        let mut arguments = std::env::args().skip(1);
        let name = arguments.next()?;
        let part = Self::ALL.into_iter().find(|part| part.name() == name)?;
        Some((part, arguments.next()?))
    }

    /// Plays it until the gateway is gone.
    pub fn play(self, settings: &str) -> ExitCode {
        // Only whoever looks at a list of processes misses it.
        let _ = rustix::thread::set_name(self.process());
        let (Ok(control), Ok(settings)) = (connection(), Settings::from_argument(settings)) else {
            return ExitCode::FAILURE;
        };
        let played = match self {
            Self::Starter => starter_main(&control, &settings, || Self::Host.command()),
            Self::Host => {
                let hand = sandbox::hand_binary();
                host_main(Parts { control, hand, workspaces: Box::new(workspaces), settings })
            }
        };
        match played {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }

    /// This program as it runs, also where another version has been installed meanwhile.
    fn command(self) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("steading").arg(self.name());
        command
    }
}

fn workspaces(settings: &Settings) -> Result<Arc<dyn workspace::Workspaces>> {
    // The gateway names one directory, for this.
    let directory = settings.trees.first().map_or(Path::new("/nonexistent"), PathBuf::as_path);
    workspace::open(directory).map(Arc::from)
}

/// Starts what starts the process that makes sandboxes.
///
/// # Errors
/// Of the kernel.
pub fn starter(config: &Config) -> Result<Starter> {
    Starter::start(Part::Starter.command(), &settings(config)?)
}

/// Makes what [`local`] needs in `directory`.
///
/// # Errors
/// Of the file system.
pub fn furnish(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir(directory.join(TEMPLATES))
}

/// Sandboxes in `directory`, made by a process that this one starts with the privileges that it has.
pub fn local(directory: &Path, runsc: Option<PathBuf>) -> Local {
    let settings = below(directory, vec![directory.join(TEMPLATES)], Vec::new());
    Local::new(|| Part::Host.command(), Settings { runsc, ..settings })
}

fn settings(config: &Config) -> Result<Settings> {
    let directory = directory(config)?;
    let templates = templates(config, &directory)?;
    let wanted = &config.sandbox;
    // Those that are made before anybody asks share the machine's kernel; nobody asks for such where all must not.
    let nobody_asks = wanted.isolation.all.is_some_and(|least| least > Isolation::Namespaces);
    let count = if nobody_asks {
        0
    } else {
        usize::try_from(wanted.spares.0).unwrap_or(usize::MAX).min(wanted.awake)
    };
    let kinds = [each(config), InstanceLimits::default().sandbox];
    let spares = kinds.map(|limits| Spares { count, limits }).to_vec();
    let settings = below(&directory, vec![templates, functions(config)?], spares);
    Ok(Settings { runsc: wanted.runsc.clone(), ..settings })
}

/// What one sandbox may use.
fn each(config: &Config) -> Limits {
    let wanted = &config.sandbox;
    Limits { memory_bytes: wanted.memory_bytes, cpu_millis: wanted.cpu_millis, ..Limits::default() }
}

fn directory(config: &Config) -> Result<PathBuf> {
    std::path::absolute(config.data_dir.join("sandboxes")).map_err(kernel::Error::internal)
}

fn templates(config: &Config, directory: &Path) -> Result<PathBuf> {
    let templates = config.sandbox.templates_dir.clone().unwrap_or_else(|| directory.join(TEMPLATES));
    std::path::absolute(templates).map_err(kernel::Error::internal)
}

/// The first of the trees is where workspaces are.
fn below(directory: &Path, others: Vec<PathBuf>, spares: Vec<Spares>) -> Settings {
    let trees = std::iter::once(directory.join("workspaces")).chain(others).collect();
    Settings { run_dir: directory.join("run"), trees, spares, runsc: None }
}

/// Where the files of functions are that sandboxes read.
///
/// # Errors
/// Where this process is in no directory.
pub fn functions(config: &Config) -> Result<PathBuf> {
    std::path::absolute(config.data_dir.join(FUNCTIONS)).map_err(kernel::Error::internal)
}

/// What functions may take of this machine.
pub fn function_limits(config: &Config) -> FunctionsLimits {
    let own = &config.functions;
    let idle = Duration::from_secs(own.idle_s);
    let usual = FunctionsLimits::default();
    FunctionsLimits {
        processes: own.processes,
        processes_of_env: own.processes_of_env,
        memory_of_env: own.memory_of_env,
        memory_bytes: own.memory_bytes,
        idle,
        idle_old: usual.idle_old.min(idle),
    }
}

/// What sandboxes have below `/usr/local`, in a directory that is there.
///
/// # Errors
/// Of the file system.
pub fn layers(config: &Config) -> Result<Templates> {
    let templates = templates(config, &directory(config)?)?;
    std::fs::create_dir_all(&templates).map_err(kernel::Error::internal)?;
    Ok(Templates::new(templates))
}

/// What makes sandboxes on this machine. Without a `starter` this process itself starts the one that does.
///
/// # Errors
/// Of the kernel.
pub fn makers(config: &Config, starter: Option<Starter>) -> Result<Arc<Local>> {
    std::fs::create_dir_all(functions(config)?).map_err(kernel::Error::internal)?;
    let local = match starter {
        Some(starter) => Local::started_by(starter)?,
        None => Local::new(|| Part::Host.command(), settings(config)?),
    };
    let programs = Programs::open(config.data_dir.join("programs"))?;
    Ok(Arc::new(local.with(programs).with_own(&functions::RUNNERS)))
}

/// The sandboxes that `local` makes, in the bounds that `config` sets.
///
/// # Errors
/// Of the kernel.
pub fn hands(
    config: &Config,
    local: Arc<Local>,
    store: Store,
    journal: Journal,
    checkpoints: Checkpoints,
) -> Result<Hands> {
    let keeping = Keeping { place: place_of(&directory(config)?)?, checkpoints, templates: layers(config)? };
    let wanted = &config.sandbox;
    let policy = Policy {
        origins: wanted.origins.0.clone(),
        limits: egress::Limits { bytes: wanted.egress_bytes, ..egress::Limits::default() },
        advice: "the platform's operator adds a host to sandbox.allow in steading.toml".to_owned(),
        ..Policy::default()
    };
    let limits = HandsLimits {
        awake: wanted.awake,
        awake_of_tenant: wanted.awake_of_tenant,
        directory: config.data_dir.clone(),
        snapshot_bytes_of_tenant: wanted.snapshot_bytes_of_tenant,
        quota_bytes: Some(wanted.workspace_bytes),
        freeze_after: Duration::from_secs(wanted.freeze_after_s),
        park_after: Duration::from_secs(wanted.park_after_s),
        archive_after: Some(wanted.archive_after_s.0).filter(|after| *after > 0).map(Duration::from_secs),
        template: wanted.template,
        token: Duration::from_secs(wanted.token_s),
        preview_domain: config
            .preview_domain
            .as_deref()
            .map(|domain| domain.split(':').next().unwrap_or(domain).to_owned()),
        each: each(config),
        egress: policy,
        allow: wanted.allow.clone(),
        isolation: wanted.isolation.clone(),
        ..HandsLimits::default()
    };
    Hands::new(local, store, journal, keeping, limits)
}
