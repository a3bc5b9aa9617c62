//! The command line: one file per command, one client, one way to write results.

mod apply;
mod archive;
mod args;
mod bundle;
mod ca;
mod call;
mod client;
mod completions;
mod connect;
mod doctor;
mod env;
mod failure;
mod generate;
mod key;
mod logs;
mod manifest;
mod mcp;
mod output;
mod plan;
mod rollback;
mod secret;
mod serve;
mod site;
mod tenant;
mod tools;
mod version;

pub use args::{Args, parse};
pub use failure::Failure;
pub use output::{Form, Output};

use crate::config::{Config, Surroundings};

/// What a command works with.
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// What the environment says.
    pub surroundings: Surroundings,
    /// Where results go.
    pub output: Output,
}

impl Context {
    /// With the environment and the tenant that flags name, which override the variables.
    fn with(mut self, env: Option<String>, tenant: Option<String>) -> Self {
        self.surroundings.env = env.or(self.surroundings.env);
        self.surroundings.tenant = tenant.or(self.surroundings.tenant);
        self
    }
}
