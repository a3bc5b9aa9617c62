//! Builds the hand as one static program for the machine that the sandbox is built for, and hands it on to be embedded.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../..");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let target = variable("TARGET")?.into_string().map_err(|_| "the target's name is not UTF-8")?;
    for input in ["src", "preload", "build.rs", "Cargo.toml"].map(|name| format!("crates/hand/{name}")) {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    for input in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }

    // A target directory of its own: the outer cargo holds the lock of the other one until this program ends.
    let build = out.join("build");
    let built = build.join(&target).join("hand/hand");
    // Only what is built to be tested has one beside it that makes jails without one of their protections.
    println!("cargo::rustc-check-cfg=cfg(weak)");
    if variable("PROFILE")? == "debug" {
        let weak = out.join("weak-hand");
        hand(&root, &target, &build, &["--features", "weaken"])?;
        std::fs::copy(&built, &weak)?;
        println!("cargo::rustc-cfg=weak");
        println!("cargo::rustc-env=STEADING_WEAK_HAND={}", weak.display());
    }
    hand(&root, &target, &build, &[])?;
    println!("cargo::rustc-env=STEADING_HAND={}", built.display());
    Ok(())
}

/// Builds one into `build`.
fn hand(root: &Path, target: &str, build: &Path, with: &[&str]) -> Result<(), Box<dyn Error>> {
    let status = Command::new(variable("CARGO")?)
        .current_dir(root)
        .args(["build", "--quiet", "--offline", "--locked", "--package", "hand", "--bin", "hand"])
        .args(with)
        .args(["--profile", "hand", "--target", target, "--target-dir"])
        .arg(build)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static")
        // What the outer cargo checks or counts by wrapping the compiler is not this build.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CLIPPY_ARGS")
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("the hand was not built: {status}").into()) }
}

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts everything in variables")]
fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    std::env::var_os(name).ok_or_else(|| format!("cargo does not say {name}").into())
}
