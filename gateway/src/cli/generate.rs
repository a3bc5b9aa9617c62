//! `steading generate`: writes the files that are made from the code. Hidden: for those who build it.

use std::path::{Path, PathBuf};

use kernel::{Code, Error};
use tool::Doc;

use super::output::pretty;
use super::{Failure, Output};
use crate::{api, config};

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
    text.push_str("\nThe command line ends with 64 where its flags or its configuration are wrong, before it does anything.\n");
    text
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| Error::new(Code::Unavailable, format!("{} cannot be written: {e}", path.display())))
}
