//! Builds what programs in a sandbox with gVisor's kernel have loaded into them, for the machine that the hand is built for.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "preload/statx.rs";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let out = PathBuf::from(variable("OUT_DIR")?).join("statx.so");
    // It is linked with nothing: the program that loads it has the C library.
    let mut compiler = Command::new(variable("RUSTC")?);
    compiler.args(["--edition", "2024", "--crate-type", "cdylib", "-Cpanic=abort", "-Copt-level=s"]);
    compiler.args(["-Cstrip=symbols", "-Clink-arg=-nostdlib", "-Clink-arg=-nostartfiles"]);
    compiler.arg("--target").arg(variable("TARGET")?).arg("-o").arg(&out);
    if let Ok(linker) = variable("RUSTC_LINKER") {
        let mut argument = OsString::from("-Clinker=");
        argument.push(linker);
        compiler.arg(argument);
    }
    let status = compiler.arg(SOURCE).status()?;
    if !status.success() {
        return Err(format!("{SOURCE} was not built: {status}").into());
    }
    println!("cargo::rustc-env=HAND_STATX={}", out.display());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts everything in variables")]
fn variable(name: &str) -> Result<OsString, Box<dyn Error>> {
    std::env::var_os(name).ok_or_else(|| format!("cargo does not say {name}").into())
}
