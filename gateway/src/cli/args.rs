//! What may stand on the command line.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{Context, Failure, Form, Output};
use super::{
    apply, audit, budget, ca, call, completions, connect, cost, credential, doctor, env, generate, key,
    limit, login, logs, mcp, member, plan, price, rollback, runner, secret, serve, setup, site, tenant,
    tools, usage, version,
};
use crate::config::{Config, Given, Level, Log, Surroundings};
use crate::groundwork::Groundwork;
use crate::lockfile;
use crate::ports::IfTaken;
use crate::serve::Error as NotServed;

/// The exit code of a wrong command line or configuration (`EX_USAGE` of sysexits).
pub const BAD_CONFIGURATION: u8 = 64;

/// A self-hosted backend cloud for AI agents.
#[derive(Debug, Parser)]
#[command(
    name = "steading",
    version,
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub struct Args {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// The configuration file [default: ./steading.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    config: Option<PathBuf>,
    /// Where everything is kept [default: .steading]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    data_dir: Option<String>,
    /// Where to listen, when this command runs the platform itself [default: 127.0.0.1:8787]
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = "Everywhere")]
    listen: Option<String>,
    /// The environment to work on, by slug or id [default: default]
    #[arg(long, global = true, value_name = "SLUG", help_heading = "Everywhere")]
    pub env: Option<String>,
    /// The tenant to work on, for an operator [default: default]
    #[arg(long, global = true, value_name = "TENANT", help_heading = "Everywhere")]
    pub tenant: Option<String>,
    /// Results as JSON on stdout, problems too
    #[arg(long, global = true, help_heading = "Everywhere")]
    json: bool,
    /// The least severe log lines on stderr: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Everywhere")]
    log_level: Option<String>,
    /// How log lines look: text or json
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Everywhere")]
    log_format: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Mcp(mcp::Mcp),
    Tools(tools::Tools),
    Call(call::Call),
    Plan(plan::Plan),
    Apply(apply::Apply),
    Rollback(rollback::Rollback),
    Env(env::Env),
    Tenant(tenant::Tenant),
    Runner(runner::Runner),
    Login(login::Login),
    Logout(login::Logout),
    Key(key::Key),
    Member(member::Member),
    Budget(budget::Budget),
    Limit(limit::Limit),
    Price(price::Price),
    Audit(audit::Audit),
    Usage(usage::Usage),
    Cost(cost::Cost),
    Credential(credential::Credential),
    Secret(secret::Secret),
    Site(site::Site),
    Logs(logs::Logs),
    Ca(ca::Ca),
    Connect(connect::Connect),
    Doctor(doctor::Doctor),
    Setup(setup::Setup),
    Completions(completions::Completions),
    Version(version::Version),
    Generate(generate::Generate),
}

/// Reads the command line of this process; the error is how to end.
pub fn parse() -> Result<Args, ExitCode> {
    Args::try_parse().map_err(|e| {
        drop(e.print());
        if e.use_stderr() { BAD_CONFIGURATION.into() } else { ExitCode::SUCCESS }
    })
}

impl Args {
    /// How results are written.
    pub fn form(&self) -> Form {
        if self.global.json { Form::Json } else { Form::Human }
    }

    /// The file to read, if one was named.
    pub fn config<'a>(&'a self, surroundings: &'a Surroundings) -> Option<&'a Path> {
        self.global.config.as_deref().or(surroundings.config.as_deref())
    }

    /// The settings given by flags.
    pub fn given(&self) -> Vec<Given> {
        let global = &self.global;
        let mut given: Vec<Given> = [
            ("data_dir", "--data-dir", &global.data_dir),
            ("listen", "--listen", &global.listen),
            ("log.level", "--log-level", &global.log_level),
            ("log.format", "--log-format", &global.log_format),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value.clone()?)))
        .collect();
        if let Command::Serve(serve) = &self.command {
            given.extend(serve.given());
        }
        given
    }

    /// The log of this command: only `serve` tells what happens without being asked.
    pub fn log(&self, log: &Log) -> Log {
        match (&self.command, log.level) {
            (Command::Serve(_), _) | (_, Level::Error | Level::Warn | Level::Debug | Level::Trace) => {
                log.clone()
            }
            (_, Level::Info) => Log { level: Level::Warn, ..log.clone() },
        }
    }

    /// What has to be had before this process has threads: nothing where another one serves, or where the platform runs only
    /// for as long as one command.
    pub fn groundwork(
        &self,
        config: &Config,
        surroundings: &Surroundings,
    ) -> Result<Option<Groundwork>, Failure> {
        match &self.command {
            Command::Serve(_) => Ok(Some(Groundwork::lay(config, IfTaken::Refuse)?)),
            Command::Mcp(_) if surroundings.url.is_none() => match Groundwork::lay(config, IfTaken::TakeFree)
            {
                Ok(laid) => Ok(Some(laid)),
                Err(NotServed::Lock(lockfile::Error::Held { .. })) => Ok(None),
                Err(error) => Err(error.into()),
            },
            _ => Ok(None),
        }
    }

    /// Runs the commands that need no configuration; the others go on.
    pub fn without_configuration(self, output: Output) -> ControlFlow<Result<(), Failure>, Args> {
        match self.command {
            Command::Completions(command) => ControlFlow::Break(command.run(output)),
            Command::Version(command) => ControlFlow::Break(command.run(output)),
            Command::Generate(command) => ControlFlow::Break(command.run(output)),
            command => ControlFlow::Continue(Args { command, ..self }),
        }
    }

    /// Runs the command.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let context = context.with(self.global.env, self.global.tenant);
        match self.command {
            Command::Serve(command) => command.run(context).await,
            Command::Mcp(command) => command.run(context).await,
            Command::Tools(command) => command.run(context).await,
            Command::Call(command) => command.run(context).await,
            Command::Plan(command) => command.run(context).await,
            Command::Apply(command) => command.run(context).await,
            Command::Rollback(command) => command.run(context).await,
            Command::Env(command) => command.run(context).await,
            Command::Tenant(command) => command.run(context).await,
            Command::Runner(command) => command.run(context).await,
            Command::Login(command) => command.run(context).await,
            Command::Logout(command) => command.run(context).await,
            Command::Key(command) => command.run(context).await,
            Command::Member(command) => command.run(context).await,
            Command::Budget(command) => command.run(context).await,
            Command::Limit(command) => command.run(context).await,
            Command::Price(command) => command.run(context).await,
            Command::Audit(command) => command.run(context).await,
            Command::Cost(command) => command.run(context).await,
            Command::Usage(command) => command.run(context).await,
            Command::Credential(command) => command.run(context).await,
            Command::Secret(command) => command.run(context).await,
            Command::Site(command) => command.run(context).await,
            Command::Logs(command) => command.run(context).await,
            Command::Ca(command) => command.run(context).await,
            Command::Connect(command) => command.run(context).await,
            Command::Doctor(command) => command.run(context).await,
            Command::Setup(command) => command.run(context).await,
            Command::Completions(command) => command.run(context.output),
            Command::Version(command) => command.run(context.output),
            Command::Generate(command) => command.run(context.output),
        }
    }
}
