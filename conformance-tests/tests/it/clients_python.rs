//! The Python SDK's client: the whole app, over HTTP and stdio, in both eras.

use conformance_tests::{Driver, Place, Target};

use crate::clients_whole_app::check;

fn python(target: Target, mode: &str, protocol: &str) {
    let place = Place::new("python").unwrap();
    check(&place, Driver::python(&place, target, mode).unwrap(), Some(protocol));
}

#[test]
fn the_whole_app_over_http() {
    python(Target::Http, "auto", "2026-07-28");
}

#[test]
fn the_whole_app_over_http_with_the_handshake_of_2025_11_25() {
    python(Target::Http, "legacy", "2025-11-25");
}

#[test]
fn the_whole_app_over_stdio() {
    python(Target::Stdio, "auto", "2026-07-28");
}

#[test]
fn the_whole_app_over_stdio_with_the_handshake_of_2025_11_25() {
    python(Target::StdioOfDataDirectory, "legacy", "2025-11-25");
}
