//! The sandboxes' own process, and how the gateway comes by it.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use hands::{Hands, HandsLimits, Journal, Keeping, place_of};
use kernel::Result;
use sandbox::egress::Policy;
use sandbox::local::{Keeper, Local, Parts, Settings, host_main};
use sandbox::runner::Limits;
use sandbox::workspace;
use sandbox::workspace::checkpoints::Checkpoints;
use sandbox::workspace::templates::Templates;
use store::Store;

use crate::config::Config;

/// What the process is called with; nobody else calls it.
const HOST: &str = "sandbox-host";

/// Whether this process is to make sandboxes.
pub fn is_host() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().is_some_and(|first| first == HOST) && arguments.next().is_none()
}

/// Makes sandboxes until the gateway is gone.
pub fn host() -> ExitCode {
    let Ok(control) = std::io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let workspaces: Keeper = Box::new(|settings| {
        // The gateway names one directory, for this.
        let directory = settings.trees.first().map_or(Path::new("/nonexistent"), PathBuf::as_path);
        workspace::open(directory).map(Arc::from)
    });
    match host_main(Parts { control, hand: sandbox::hand_binary(), workspaces }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The sandboxes of this machine, in the bounds that `config` sets.
///
/// # Errors
/// Where this program cannot tell where it is itself.
pub fn hands(config: &Config, store: Store, journal: Journal, checkpoints: Checkpoints) -> Result<Hands> {
    let program = std::env::current_exe().map_err(kernel::Error::internal)?;
    let directory =
        std::path::absolute(config.data_dir.join("sandboxes")).map_err(kernel::Error::internal)?;
    let templates = config.sandbox.templates_dir.clone().unwrap_or_else(|| directory.join("templates"));
    let templates = std::path::absolute(templates).map_err(kernel::Error::internal)?;
    std::fs::create_dir_all(&templates).map_err(kernel::Error::internal)?;
    let keeping =
        Keeping { place: place_of(&directory)?, checkpoints, templates: Templates::new(templates.clone()) };
    // The first of them is where workspaces are.
    let trees = vec![directory.join("workspaces"), templates];
    let settings = Settings { run_dir: directory.join("run"), trees };
    let command = move || {
        let mut command = Command::new(&program);
        command.arg(HOST);
        command
    };
    let wanted = &config.sandbox;
    let egress = Policy {
        allow: wanted.allow.0.clone(),
        origins: wanted.origins.0.clone(),
        advice: "the platform's operator adds a host to sandbox.allow in steading.toml".to_owned(),
        ..Policy::default()
    };
    let limits = HandsLimits {
        awake: wanted.awake,
        awake_of_tenant: wanted.awake_of_tenant,
        directory: config.data_dir.clone(),
        quota_bytes: Some(wanted.workspace_bytes),
        freeze_after: Duration::from_secs(wanted.freeze_after_s),
        park_after: Duration::from_secs(wanted.park_after_s),
        preview_domain: config
            .preview_domain
            .as_deref()
            .map(|domain| domain.split(':').next().unwrap_or(domain).to_owned()),
        archive_after: Some(wanted.archive_after_s).filter(|after| *after > 0).map(Duration::from_secs),
        template: wanted.template,
        each: Limits {
            memory_bytes: wanted.memory_bytes,
            cpu_millis: wanted.cpu_millis,
            ..Limits::default()
        },
        egress,
        ..HandsLimits::default()
    };
    Hands::new(Local::new(command, settings), store, journal, keeping, limits)
}
