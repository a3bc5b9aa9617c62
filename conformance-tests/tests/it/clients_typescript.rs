//! The TypeScript SDK's clients, 1.x and 2.x: the whole app, over HTTP and stdio.

use conformance_tests::{Driver, Place, Target};

use crate::clients_whole_app::check;

fn second(target: Target, mode: &str, protocol: &str) {
    let place = Place::new("ts2").unwrap();
    check(&place, Driver::typescript_2(&place, target, mode).unwrap(), Some(protocol));
}

#[test]
fn the_whole_app_with_1_x_over_http() {
    let place = Place::new("ts1").unwrap();
    check(&place, Driver::typescript_1(&place, Target::Http).unwrap(), Some("2025-11-25"));
}

#[test]
fn the_whole_app_with_1_x_over_stdio() {
    let place = Place::new("ts1").unwrap();
    // Over stdio this client keeps the revision to itself.
    check(&place, Driver::typescript_1(&place, Target::StdioOfDataDirectory).unwrap(), None);
}

#[test]
fn the_whole_app_with_2_x_over_http() {
    second(Target::Http, "auto", "2026-07-28");
}

#[test]
fn the_whole_app_with_2_x_over_http_with_the_handshake_of_2025_11_25() {
    second(Target::Http, "legacy", "2025-11-25");
}

#[test]
fn the_whole_app_with_2_x_over_stdio() {
    second(Target::Stdio, "auto", "2026-07-28");
}

#[test]
fn the_whole_app_with_2_x_over_stdio_with_the_handshake_of_2025_11_25() {
    second(Target::StdioOfDataDirectory, "legacy", "2025-11-25");
}

#[test]
fn the_whole_app_with_2_x_that_knows_2025_06_18_alone() {
    let place = Place::new("ts2").unwrap();
    check(&place, Driver::typescript_2_of(&place, "2025-06-18").unwrap(), Some("2025-06-18"));
}
