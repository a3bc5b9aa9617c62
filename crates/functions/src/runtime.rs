//! What functions run on, on this machine: the runtimes' own files, and the platform's program that runs functions there.

use std::path::PathBuf;

use capabilities::functions::{Base, Runtime};
use kernel::Result;
use sandbox::workspace::templates::{Template, Templates};

/// Where a sandbox sees the platform's own programs.
const PROGRAMS: &str = "/run/steading/runner/current";

/// The files of the platform that run functions, by their names among its programs in a sandbox. Both are one program, put
/// together of what each runtime needs: its own comment says how it is spoken to.
pub const RUNNERS: [(&str, &[u8]); 2] = [
    (
        "function-bun.mjs",
        concat!(
            include_str!("../runtime/logs.mjs"),
            include_str!("../runtime/clients.mjs"),
            include_str!("../runtime/socket.mjs"),
            include_str!("../runtime/runner.mjs"),
            include_str!("../runtime/boot.mjs"),
        )
        .as_bytes(),
    ),
    (
        "function-node.mjs",
        concat!(
            include_str!("../runtime/logs.mjs"),
            include_str!("../runtime/clients.mjs"),
            include_str!("../runtime/socket.mjs"),
            include_str!("../runtime/rfc6455.mjs"),
            include_str!("../runtime/node.mjs"),
            include_str!("../runtime/runner.mjs"),
            include_str!("../runtime/boot.mjs"),
        )
        .as_bytes(),
    ),
];

/// The directories of the host that have a runtime, as a sandbox has them below `/usr/local`. The first call on a machine
/// fetches it.
///
/// # Errors
/// `unavailable` where it cannot be fetched.
pub fn layers(runtime: Runtime, templates: &Templates) -> Result<Vec<PathBuf>> {
    match runtime {
        Runtime::Bun => Ok(vec![templates.bun()?]),
        Runtime::Node => templates.layers(Template::Node),
    }
}

/// The same for services: where nothing is said, all that this machine has.
///
/// # Errors
/// `unavailable` where what was said cannot be fetched.
pub(crate) fn bases(base: Option<Base>, templates: &Templates) -> Result<Vec<PathBuf>> {
    let there = |template: &Template| templates.available(*template).is_ok();
    let wanted: Vec<Template> = match base {
        None => [Template::Node, Template::Python].into_iter().filter(there).collect(),
        Some(Base::Node) => vec![Template::Node],
        Some(Base::Python) => vec![Template::Python],
        Some(Base::Blank) => Vec::new(),
    };
    let mut layers = Vec::new();
    for template in wanted {
        layers.extend(templates.layers(template)?);
    }
    Ok(layers)
}

/// How a function is started, inside. `memory_bytes` is what all of the process may take.
pub(crate) fn command(runtime: Runtime, memory_bytes: u64) -> Vec<String> {
    let runner = format!("{PROGRAMS}/function-{}.mjs", runtime.as_str());
    // Node leaves the rest of its memory to buffers and to what is compiled.
    let heap = format!("--max-old-space-size={}", (memory_bytes >> 20) / 2);
    let words: &[&str] = match runtime {
        Runtime::Bun => &["/usr/local/bin/bun", "--no-install", "--no-env-file", "--no-macros", &runner],
        Runtime::Node => &[
            "/usr/local/bin/node",
            "--enable-source-maps",
            "--disable-warning=ExperimentalWarning",
            &heap,
            &runner,
        ],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}
