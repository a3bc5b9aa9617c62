//! `steading connect`: the MCP settings of a client, printed or written into its file.

mod clients;
mod merge;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kernel::{Code, Error};
use serde_json::json;

use self::clients::{Client, Door, Settings};
use super::client::segment;
use super::mcp::Tools;
use super::{Context, Failure};
use crate::config::Surroundings;
use crate::lockfile;

/// Print or write the MCP settings of a client
///
/// Settings refer to your key by the variable STEADING_KEY and never hold it. With --stdio the client starts
/// `steading mcp`, which needs no variable for a platform on this machine.
#[derive(Debug, clap::Args)]
pub struct Connect {
    /// The client
    client: Client,
    /// Write them into the client's file, beside what is there; the file as it was is kept as a .bak
    #[arg(long)]
    write: bool,
    /// The file [default: the project's, or the user's where the client has no other]
    #[arg(long, value_name = "PATH", requires = "write")]
    file: Option<PathBuf>,
    /// Let the client start `steading mcp` instead of calling over HTTP
    #[arg(long)]
    stdio: bool,
    /// Narrow the tools
    #[arg(long, value_enum, value_name = "SELECTION")]
    tools: Option<Tools>,
}

impl Connect {
    /// Runs it.
    #[expect(clippy::unused_async, reason = "every command has this shape")]
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let settings = self.client.settings(&self.door(&context)?);
        let key_file =
            std::path::absolute(context.config.data_dir.join("operator.key")).map_err(Error::internal)?;
        let note = self.client.note(&settings, &key_file);
        if !self.write {
            let shown = json!({ "client": self.client.name(), "settings": settings.to_json(), "note": note });
            context.output.result(&shown, |_| settings.text());
            context.output.progress(&note);
            return Ok(());
        }
        let path = match &self.file {
            Some(path) => path.clone(),
            None => self.client.file(&context.surroundings).ok_or_else(homeless)?,
        };
        let written = write(&path, &settings)?;
        let report = json!({
            "client": self.client.name(),
            "file": path.display().to_string(),
            "backup": written.backup.as_ref().map(|path| path.display().to_string()),
            "changed": written.changed,
            "note": note,
        });
        context.output.result(&report, |_| match written {
            Written { changed: false, .. } => format!("{} says so already.", path.display()),
            Written { backup: Some(backup), .. } => {
                format!("Wrote {}; it was before as in {}.", path.display(), backup.display())
            }
            Written { backup: None, .. } => format!("Wrote {}.", path.display()),
        });
        context.output.progress(&note);
        Ok(())
    }

    fn door(&self, context: &Context) -> Result<Door, Failure> {
        let Surroundings { url: remote, env, .. } = &context.surroundings;
        if self.stdio || !self.client.speaks_http() {
            let program = std::env::current_exe().map_err(Error::internal)?;
            let mut args = vec!["mcp".to_owned()];
            if remote.is_none() {
                let data_dir = std::path::absolute(&context.config.data_dir).map_err(Error::internal)?;
                args.extend(["--data-dir".to_owned(), data_dir.display().to_string()]);
            }
            for (flag, value) in [("--env", env.as_deref()), ("--tools", self.tools.map(Tools::as_str))] {
                if let Some(value) = value {
                    args.extend([flag.to_owned(), value.to_owned()]);
                }
            }
            return Ok(Door::Stdio { program: program.display().to_string(), args, url: remote.clone() });
        }
        let base = match remote {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => match lockfile::holder(&context.config.data_dir)? {
                Some(holder) => holder.url,
                None => format!("http://{}", context.config.listen),
            },
        };
        let base = match &context.config.public_url {
            Some(url) if remote.is_none() => url.as_str().trim_end_matches('/').to_owned(),
            _ => base,
        };
        let narrowed = self.tools.map(|tools| format!("?tools={}", tools.as_str())).unwrap_or_default();
        let env = segment(env.as_deref().unwrap_or("default"));
        Ok(Door::Http { url: format!("{base}/mcp/{env}{narrowed}") })
    }
}

fn homeless() -> Error {
    Error::new(Code::InvalidInput, "the home directory is not known")
        .hint("set HOME, or name the client's file with --file")
}

/// What happened to a client's file.
struct Written {
    changed: bool,
    backup: Option<PathBuf>,
}

fn write(path: &Path, settings: &Settings) -> Result<Written, Error> {
    let unwritable = |e: std::io::Error| {
        Error::new(Code::Unavailable, format!("{} cannot be written: {e}", path.display()))
    };
    // A link stays a link: what it leads to is changed.
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let before = match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(unwritable(e)),
    };
    let after = merge::merge(before.as_deref().unwrap_or_default(), settings).map_err(|e| {
        Error::new(Code::Conflict, format!("{}: {e}", path.display()))
            .hint("add the settings by hand: run this without --write to see them")
    })?;
    if before.as_deref() == Some(after.as_str()) {
        return Ok(Written { changed: false, backup: None });
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(unwritable)?;
    }
    let backup = match before {
        Some(_) => Some(back_up(&path).map_err(unwritable)?),
        None => None,
    };
    replace(&path, &after).map_err(unwritable)?;
    Ok(Written { changed: true, backup })
}

/// Copies the file beside itself, under a name that nothing has yet, a link that leads nowhere included.
fn back_up(path: &Path) -> std::io::Result<PathBuf> {
    let mut number = 0_u32;
    loop {
        let suffix = if number == 0 { ".bak".to_owned() } else { format!(".bak{number}") };
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let name = PathBuf::from(name);
        match std::fs::File::create_new(&name) {
            Ok(_) => return std::fs::copy(path, &name).map(|_| name),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e),
        }
    }
}

/// Puts `text` in place of the file in one step, with the file's permissions.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(name);
    let mode = std::fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode());
    let mut file = std::fs::File::create_new(&beside)?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}
