//! The command line: one file per command, one client, one way to write results.

mod apply;
mod archive;
mod args;
mod audit;
mod budget;
mod bundle;
mod ca;
mod call;
mod client;
mod completions;
mod connect;
mod cost;
mod credential;
mod doctor;
mod env;
mod failure;
mod generate;
mod key;
mod limit;
mod login;
mod logs;
mod manifest;
mod mcp;
mod member;
mod output;
mod plan;
mod price;
mod rollback;
mod runner;
mod secret;
mod serve;
mod setup;
mod site;
mod tenant;
mod tools;
mod usage;
mod version;

pub use args::{Args, parse};
pub use failure::Failure;
pub use output::{Form, Output};

use std::sync::{Mutex, PoisonError};

use crate::config::{Config, Surroundings};
use crate::groundwork::Groundwork;
use crate::ports::IfTaken;
use crate::serve::Error as NotServed;

/// What a command works with.
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// What the environment says.
    pub surroundings: Surroundings,
    /// Where results go.
    pub output: Output,
    /// What a platform in this process is started with, until it is.
    pub groundwork: Mutex<Option<Groundwork>>,
}

impl Context {
    /// What the platform is started with: what was had before this process had threads, or only ports.
    ///
    /// # Errors
    /// Where the ports or the data directory cannot be had.
    fn groundwork(&self) -> Result<Groundwork, NotServed> {
        let laid = self.groundwork.lock().unwrap_or_else(PoisonError::into_inner).take();
        match laid {
            Some(laid) => Ok(laid),
            None => Groundwork::ports(&self.config, IfTaken::TakeFree),
        }
    }

    /// With the environment and the tenant that flags name, which override the variables.
    fn with(mut self, env: Option<String>, tenant: Option<String>) -> Self {
        self.surroundings.env = env.or(self.surroundings.env);
        self.surroundings.tenant = tenant.or(self.surroundings.tenant);
        self
    }
}
