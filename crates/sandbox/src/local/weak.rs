//! What jails do without: nothing, but where a program that is built to be tested is told so.

use std::path::Path;

use hand::jail::Protection;

#[cfg(all(weak, not(debug_assertions)))]
compile_error!("what is shipped makes no jail without one of its protections");

/// What is said in a file beside the sandboxes, so that tests see through the whole program that each attempt they make is
/// kept from success by a protection and by nothing else.
#[cfg(weak)]
pub fn without(run_dir: &Path) -> Vec<Protection> {
    let told = std::fs::read(run_dir.join("without.json"));
    told.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// There is no way to say so.
#[cfg(not(weak))]
pub fn without(_run_dir: &Path) -> Vec<Protection> {
    Vec::new()
}

/// The hand that can do without them, where it is to.
#[cfg(weak)]
pub fn hand(run_dir: &Path) -> Option<&'static [u8]> {
    let weak = include_bytes!(env!("STEADING_WEAK_HAND"));
    (!without(run_dir).is_empty()).then_some(weak)
}

/// There is none.
#[cfg(not(weak))]
pub fn hand(_run_dir: &Path) -> Option<&'static [u8]> {
    None
}

/// Whether who is root inside is the host's, with all that root may.
pub fn roots_are_the_hosts(run_dir: &Path) -> bool {
    without(run_dir).contains(&Protection::Users)
}
