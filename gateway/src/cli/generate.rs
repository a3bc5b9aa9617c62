//! `steading generate`: writes the files that are made from the code. Hidden: for those who build it.

use std::path::{Path, PathBuf};

use clap::CommandFactory;
use kernel::{Code, Error};
use tool::Doc;

use super::output::pretty;
use super::{Args, Failure, Output};
use crate::{api, config, metrics};

/// Write the generated files of the repository
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub struct Generate {
    /// The repository
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Generate {
    /// Runs it.
    pub fn run(self, output: Output) -> Result<(), Failure> {
        for (name, text) in files() {
            write(&self.dir.join(&name), &text)?;
            output.progress(&name);
        }
        Ok(())
    }
}

/// Every generated file: its path in the repository and its text.
fn files() -> Vec<(String, String)> {
    let docs = docs();
    let mut files = vec![
        ("steading.example.toml".to_owned(), config::example()),
        ("docs/errors.md".to_owned(), errors()),
        ("docs/tools.md".to_owned(), tools(&docs)),
        ("docs/command-line.md".to_owned(), command_line()),
        ("docs/metrics.md".to_owned(), metrics::document()),
        ("docs/openapi.json".to_owned(), format!("{}\n", pretty(&api::openapi(docs.iter())))),
    ];
    for doc in &docs {
        files.push((format!("tool-schemas/{}.json", doc.name), format!("{}\n", pretty(&doc.to_json()))));
    }
    files
}

/// What can be known of every tool without calling it.
fn docs() -> Vec<Doc> {
    mcp_server::tools::registry().docs().cloned().collect()
}

fn tools(docs: &[Doc]) -> String {
    let mut text = String::from(
        "# Tools\n\nWhat agents call, over MCP or `POST /v1/tools/{tool}`, in the order that clients see. The schemas are in\n\
         `tool-schemas/`. Written by `steading generate`.\n\n\
         | tool | works on | effect | scopes | what it does |\n|---|---|---|---|---|\n",
    );
    for doc in docs {
        let scopes: Vec<_> = doc.spec.scopes.iter().map(|scope| format!("`{scope}`")).collect();
        let level = if doc.in_environment { "environment" } else { "tenant" };
        text.push_str(&format!(
            "| `{}` | {level} | {} | {} | {} |\n",
            doc.name,
            doc.spec.effect.as_str(),
            scopes.join(" "),
            doc.spec.about.replace('|', "\\|"),
        ));
    }
    text
}

fn errors() -> String {
    let mut text = String::from(
        "# Errors\n\nEvery failed call carries one of these codes, in `application/problem+json` over HTTP, as text over MCP, and\n\
         as the exit code of the command line. Written by `steading generate`.\n\n\
         | code | HTTP status | exit code | meaning |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (name, status, exit) = (code.as_str(), code.status(), code.exit_code());
        text.push_str(&format!("| `{name}` | {status} | {exit} | {} |\n", code.title()));
    }
    text.push_str("\nA request whose body comes too slowly or breaks off is answered with the code `timeout` and the status 408.\n");
    text.push_str("\nThe command line ends with 64 where its flags or its configuration are wrong, before it does anything.\n");
    text
}

fn command_line() -> String {
    let mut text = String::from(COMMAND_LINE);
    for command in Args::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let inner: Vec<_> = command.get_subcommands().map(|inner| inner.get_name()).collect();
        let inner = if inner.is_empty() { String::new() } else { format!(" {}", inner.join("\\|")) };
        text.push_str(&format!("| `{}{inner}` | {about} |\n", command.get_name()));
    }
    text
}

const COMMAND_LINE: &str = "\
# Command line

Written by `steading generate`. `steading COMMAND --help` says the rest.

**Which platform.** Commands talk to `STEADING_URL` with `STEADING_KEY` where that is set; else to the process that
serves the data directory (`--data-dir`, `.steading` by default), with the operator's key from it; else they run the
platform themselves for as long as they take, listener included. They work in the environment of `--env` or
`STEADING_ENV`; without one in the environment that the key is bound to, or else in `default`.

**Results** go to stdout, progress and problems to stderr. With `--json`, results are JSON on stdout and so are
problems; nothing else is there. `NO_COLOR` is honoured.

**Configuration** comes from `--config` (or `STEADING_CONFIG`, or `steading.toml` in the working directory, where there
is one), then from `STEADING_*` variables, then from flags; each overrides what came before. A key or flag that means
nothing is refused before anything starts, a variable that means nothing is a warning. `steading.example.toml` has every
setting.

**Exit codes.** 0 done · 1 internal · 2 invalid input or too large · 3 not authenticated or forbidden · 4 not found ·
5 conflict (also: the data directory is in use) · 6 limit, quota or budget · 7 unavailable or timeout (also: the port is
taken) · 64 wrong flags or configuration.

| command | what it does |
|---|---|
";

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| Error::new(Code::Unavailable, format!("{} cannot be written: {e}", path.display())))
}
