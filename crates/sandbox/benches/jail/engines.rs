//! Other programs that run one in namespaces, to compare with; none is needed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// One that is installed.
pub enum Engine {
    /// As little as it does: no groups, no limits, no filter of system calls.
    Bubblewrap,
    /// With what `runc spec` has, in this directory.
    Runc(PathBuf),
}

/// Those that are installed; `directory` is theirs to use.
pub fn installed(directory: &Path) -> Vec<Engine> {
    let answers = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let mut engines = Vec::new();
    if answers("bwrap") {
        engines.push(Engine::Bubblewrap);
    }
    if answers("runc") {
        engines.push(Engine::Runc(bundle(&directory.join("runc"))));
    }
    engines
}

/// The programs of this machine, to be run by runc.
fn bundle(bundle: &Path) -> PathBuf {
    let root = bundle.join("rootfs");
    for name in ["usr", "proc", "dev", "sys", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), root.join(name)).unwrap();
    }
    run(Command::new("runc").arg("spec").current_dir(bundle));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/bin/true"]);
    let programs =
        json!({ "destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"] });
    config["mounts"].as_array_mut().unwrap().push(programs);
    fs::write(path, config.to_string()).unwrap();
    bundle.to_owned()
}

impl Engine {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bubblewrap => "bubblewrap",
            Self::Runc(_) => "runc",
        }
    }

    /// Runs a program that does nothing, from nothing to its end.
    pub fn run(&self) {
        match self {
            Self::Bubblewrap => {
                let arguments =
                    ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"];
                run(Command::new("bwrap").args(arguments));
            }
            Self::Runc(bundle) => {
                let name = format!("steading-bench-{}", std::process::id());
                run(Command::new("runc").args(["run", &name]).current_dir(bundle));
            }
        }
    }
}

/// Runs a program of the host to its end.
pub fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
}
