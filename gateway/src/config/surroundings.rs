//! The one reader of environment variables.

use std::ffi::OsString;
use std::path::PathBuf;

use kernel::Secret;

/// What the environment says, read once by `main` and handed on.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// `STEADING_URL`: the platform that commands talk to.
    pub url: Option<String>,
    /// `STEADING_KEY`: the key that commands use.
    pub key: Option<Secret>,
    /// `STEADING_ENV`: the environment that commands work on.
    pub env: Option<String>,
    /// `STEADING_TENANT`: the tenant that commands work on.
    pub tenant: Option<String>,
    /// `STEADING_CONFIG`: the configuration file.
    pub config: Option<PathBuf>,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`, where it is absolute.
    pub config_home: Option<PathBuf>,
    /// `CODEX_HOME`, where Codex keeps its settings.
    pub codex_home: Option<PathBuf>,
    settings: Vec<(String, String)>,
}

impl Surroundings {
    /// Reads the environment of this process. A value that is not UTF-8 is taken with its bad bytes replaced.
    #[must_use]
    pub fn read() -> Self {
        // `vars_os`, because `vars` panics over any variable that is not UTF-8.
        Self::from_variables(std::env::vars_os())
    }

    fn from_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut read = Self::default();
        for (name, value) in variables {
            let Some(name) = name.to_str() else { continue };
            let text = || value.to_string_lossy().into_owned();
            if value.is_empty() {
                continue;
            }
            match name {
                "STEADING_URL" => read.url = Some(text()),
                "STEADING_KEY" => read.key = Some(Secret::new(text())),
                "STEADING_ENV" => read.env = Some(text()),
                "STEADING_TENANT" => read.tenant = Some(text()),
                "STEADING_CONFIG" => read.config = Some(value.into()),
                "NO_COLOR" => read.no_color = true,
                "HOME" => read.home = Some(value.into()),
                "CODEX_HOME" => read.codex_home = Some(value.into()),
                "XDG_CONFIG_HOME" => {
                    read.config_home = Some(PathBuf::from(value)).filter(|path| path.is_absolute());
                }
                _ if name.starts_with("STEADING_") => read.settings.push((name.to_owned(), text())),
                _ => {}
            }
        }
        read.settings.sort();
        read
    }

    /// The other `STEADING_*` variables, which are settings or nothing.
    pub fn settings(&self) -> &[(String, String)] {
        &self.settings
    }

    /// Surroundings with just these variables.
    #[cfg(test)]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        Self::from_variables(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }
}
