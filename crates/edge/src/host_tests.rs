//! Which hosts are whose, and the tricks that make a host nobody's.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn hosts() -> Hosts {
    Hosts::new(["cloud.example.com"], "localhost:8787").unwrap()
}

fn kind(hosts: &Hosts, host: &str) -> String {
    let Ok(value) = HeaderValue::from_bytes(host.as_bytes()) else { return "no header".into() };
    let headers = HeaderMap::from_iter([(HOST, value)]);
    say(hosts.of(&Uri::from_static("/"), &headers))
}

fn say(kind: HostKind) -> String {
    match kind {
        HostKind::Platform => "platform".into(),
        HostKind::App(slug) => format!("app {slug}"),
        HostKind::Preview { slug, release } => format!("preview {release} of {slug}"),
        HostKind::Sandbox(label) => format!("sandbox {label}"),
        HostKind::Domain(name) => format!("domain {name}"),
        HostKind::Unknown => "unknown".into(),
    }
}

#[test]
fn every_host_has_one_owner() {
    for (host, expected) in [
        ("localhost", "platform"),
        ("localhost:8787", "platform"),
        ("LOCALHOST.:9", "platform"),
        ("127.0.0.1:8787", "platform"),
        ("[::1]", "platform"),
        ("[0:0:0:0:0:0:0:1]:8787", "platform"),
        ("cloud.example.com:443", "platform"),
        ("shop.localhost:8787", "app shop"),
        ("shop.localhost", "app shop"),
        ("SHOP.LocalHost.:8787", "app shop"),
        ("my-shop-2.localhost", "app my-shop-2"),
        ("7--shop.localhost:8787", "preview 7 of shop"),
        ("18446744073709551615--shop.localhost", "preview 18446744073709551615 of shop"),
        ("shop.example.com", "domain shop.example.com"),
        ("Shop.EXAMPLE.com.:8443", "domain shop.example.com"),
        ("xn--bcher-kva.example", "domain xn--bcher-kva.example"),
        ("shop.localhost.evil.example", "domain shop.localhost.evil.example"),
    ] {
        assert_eq!(kind(&hosts(), host), expected, "{host}");
    }
}

#[test]
fn a_sandbox_is_shown_one_label_below_the_previews_domain() {
    for (domain, host, expected) in [
        ("preview.localhost:8787", "5173-abc.preview.localhost:8787", "sandbox 5173-abc"),
        ("preview.localhost:8787", "5173-ABC.Preview.localhost", "sandbox 5173-abc"),
        ("preview.localhost:8787", "5173-abc.preview.localhost:9", "unknown"),
        ("preview.localhost:8787", "preview.localhost:8787", "unknown"),
        ("preview.localhost:8787", "a.b.preview.localhost:8787", "unknown"),
        ("preview.localhost:8787", ".preview.localhost:8787", "unknown"),
        ("preview.localhost:8787", "xpreview.localhost:8787", "app xpreview"),
        ("show.example.net", "1-a.show.example.net:443", "sandbox 1-a"),
        ("show.example.net", "1-a.show.example.net.evil.example", "domain 1-a.show.example.net.evil.example"),
    ] {
        let hosts = hosts().with_previews(domain).unwrap();
        assert_eq!(kind(&hosts, host), expected, "{host}");
    }
}

#[test]
fn a_trick_is_nobodys() {
    for host in [
        "",
        ".",
        ":8787",
        "localhost:",
        "localhost:x",
        "localhost:0",
        "localhost:08787",
        "localhost:65536",
        "localhost:+80",
        "localhost:80:80",
        "localhost..",
        ".localhost",
        "shop..localhost",
        "shop.localhost:80",
        "shoplocalhost",
        "a.shop.localhost",
        "www.localhost",
        "preview.localhost",
        "user@localhost",
        "user:pw@localhost",
        "shop@localhost",
        "shop.localhost/",
        "shop.localhost/x",
        "shop.localhost?",
        "shop.localhost#",
        "sh_op.localhost",
        "sh%6fp.localhost",
        "-shop.localhost",
        "shop-.localhost",
        "a--shop.localhost",
        "0--shop.localhost",
        "07--shop.localhost",
        "--shop.localhost",
        "7--.localhost",
        "7---shop.localhost",
        "7--8--shop.localhost",
        "+7--shop.localhost",
        "18446744073709551616--shop.localhost",
        "7--www.localhost",
        "xn--bcher-kva.localhost",
        "bücher.localhost",
        "sh\u{43e}p.localhost",
        "shop.localhost ",
        " shop.localhost",
        "shop.localhost,localhost",
        "[::1",
        "[::1]x",
        "[::1%25eth0]",
        "[localhost]",
        "::1",
        "[]",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "127.0.0.1.localhost",
        "shop.cloud.example.com",
        "localhost\\",
        "*.localhost",
    ] {
        assert_eq!(kind(&hosts(), host), "unknown", "{host}");
    }
    let long = format!("{}.localhost", "a".repeat(41));
    assert_eq!(kind(&hosts(), &long), "unknown");
}

#[test]
fn without_a_port_in_the_domain_every_port_is_right() {
    let hosts = Hosts::new(["cloud.example.com"], "Apps.Example.com").unwrap();
    assert_eq!(kind(&hosts, "shop.apps.example.com:8443"), "app shop");
    assert_eq!(kind(&hosts, "shop.localhost"), "unknown");
    assert_eq!(kind(&hosts, "apps.example.com"), "unknown");
}

#[test]
fn a_listener_for_https_has_a_port_of_its_own() {
    let hosts = hosts().with_ports([8443]);
    assert_eq!(kind(&hosts, "shop.localhost:8443"), "app shop");
    assert_eq!(kind(&hosts, "shop.localhost:8444"), "unknown");
    assert_eq!(say(hosts.named("shop.localhost")), "app shop");
    assert_eq!(say(hosts.named("shop.localhost:8443")), "unknown");
}

#[test]
fn a_platform_below_the_apps_domain_is_no_app() {
    let hosts = Hosts::new(["cloud.example.com"], "example.com").unwrap();
    assert_eq!(kind(&hosts, "cloud.example.com"), "platform");
    assert_eq!(kind(&hosts, "shop.example.com"), "app shop");
}

#[test]
fn target_and_header_must_agree() {
    let of = |target: &str, lines: &[&str]| {
        let headers = lines.iter().map(|line| (HOST, HeaderValue::from_str(line).unwrap()));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        say(hosts().of(&target.parse().unwrap(), &map))
    };
    assert_eq!(of("/", &[]), "unknown");
    assert_eq!(of("http://shop.localhost/", &[]), "app shop");
    assert_eq!(of("http://shop.localhost:8787/", &["SHOP.localhost:8787"]), "app shop");
    assert_eq!(of("http://shop.localhost/", &["localhost"]), "unknown");
    assert_eq!(of("http://localhost/", &["shop.localhost"]), "unknown");
    assert_eq!(of("http://user@shop.localhost/", &[]), "unknown");
    assert_eq!(of("http://shop.localhost/", &["?"]), "unknown");
    assert_eq!(of("/", &["shop.localhost", "shop.localhost"]), "unknown");
    assert_eq!(of("/", &["localhost", "shop.localhost"]), "unknown");
}

#[test]
fn a_domain_that_is_none_is_refused() {
    for domain in ["", "a_b.example", "http://a.example", "a.example/x", "a.example:99999"] {
        assert_eq!(Hosts::new([], domain).unwrap_err(), NotAHost(domain.into()));
    }
    assert!(Hosts::new(["a b"], "localhost").is_err());
}

proptest! {
    #[test]
    fn only_the_written_form_reaches_an_app(host in "[a-zA-Z0-9.:@_%/\\\\\\[\\]-]{0,40}") {
        let host = format!("{host}.localhost");
        if let HostKind::App(slug) = hosts().of(&Uri::from_static("/"), &HeaderMap::from_iter([(
            HOST, HeaderValue::from_str(&host).unwrap(),
        )])) {
            prop_assert_eq!(format!("{slug}.localhost"), host.to_ascii_lowercase());
        }
    }
}
