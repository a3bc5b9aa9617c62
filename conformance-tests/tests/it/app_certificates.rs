//! Certificates of apps' own domains: given by whoever has one, or ordered from a real ACME server.

use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::{Https, Pebble, eventually, require};

use crate::app_domains::{APPS, World, get, local, token};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_certificate_of_ones_own_is_served_and_its_key_never_shown() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    let made = rcgen::generate_simple_self_signed(vec!["*.customer.test".to_owned()])?;
    let other = rcgen::generate_simple_self_signed(vec!["www.other.test".to_owned()])?;
    let (pem, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let set = |certificate: &str, key: &str| {
        let input = json!({ "domain": "www.customer.test", "certificate": certificate, "key": key });
        shop.call("domain_set", &input)
    };
    let early = set(&pem, &key)?;
    assert_eq!((early.code(), early.body["field"].as_str()), ("conflict", Some("/certificate")));
    world.prove(&shop, "www.customer.test")?;
    let foreign = (other.cert.pem(), other.signing_key.serialize_pem());
    for (certificate, key, field) in [
        ("", key.as_str(), "/certificate"),
        ("not PEM", &key, "/certificate"),
        (&pem, "not PEM", "/key"),
        (&pem, &foreign.1, "/key"),
        (&foreign.0, &foreign.1, "/certificate"),
    ] {
        let refused = set(certificate, key)?;
        assert_eq!((refused.code(), refused.body["field"].as_str()), ("invalid_input", Some(field)));
        ensure!(!refused.body.to_string().contains("PRIVATE"), "{}", refused.body);
    }
    let given = set(&pem, &key)?;
    assert_eq!(given.status, 200, "{}", given.body);
    let client = Https::new(&world.https, &[&pem])?;
    let served = client.send("www.customer.test", get("www.customer.test", "/"))?;
    assert_eq!((served.certificate.as_slice(), served.response.text()?), (made.cert.der().as_ref(), "shop"));
    let checked = shop.output("domain_check", &json!({ "domain": "www.customer.test" }))?;
    assert_eq!(checked["certificate"], "valid");
    let secret = key.lines().nth(1).context("no key")?;
    let described = shop.output("app_describe", &json!({}))?;
    for shown in [given.body.to_string(), checked.to_string(), described.to_string(), world.steading.log()] {
        ensure!(!shown.contains(secret), "the key shows in {shown}");
    }
    for file in ["control.db", "control.db-wal"] {
        let bytes = std::fs::read(world.steading.ready().data_dir.join(file)).unwrap_or_default();
        ensure!(!String::from_utf8_lossy(&bytes).contains(secret), "the key is readable in {file}");
    }
    Ok(())
}

/// A platform whose certificates come from Pebble.
fn with_pebble(challenge: &str) -> anyhow::Result<(World, Pebble)> {
    let mut pebble = None;
    let world = World::new(|launch, http, https, dns| {
        let started = require(Pebble::start(dns, http, https));
        let launch = launch
            .env("STEADING_TLS_MODE", "acme")
            .env("STEADING_ACME_DIRECTORY", started.directory_url())
            .env("STEADING_ACME_ROOT_FILE", started.root_file())
            .env("STEADING_ACME_CHALLENGE", challenge);
        pebble = Some(started);
        launch
    })?;
    Ok((world, pebble.context("no pebble")?))
}

/// The certificate that is served for a host once there is one.
fn served(client: &Https, host: &str) -> anyhow::Result<Vec<u8>> {
    let found = eventually(LIMIT, || client.send(host, get(host, "/")).ok());
    let found = found.with_context(|| format!("no certificate for {host}"))?;
    assert_eq!(found.response.text()?, "shop");
    Ok(found.certificate)
}

fn certified(challenge: &str) -> anyhow::Result<()> {
    let (world, mut pebble) = with_pebble(challenge)?;
    let shop = world.app("shop")?;
    let client = Https::new(&world.https, &[&pebble.root()?])?;
    world.prove(&shop, "www.customer.test")?;
    let first = served(&client, "www.customer.test")?;
    let checked = shop.output("domain_check", &json!({ "domain": "www.customer.test" }))?;
    assert_eq!((&checked["certificate"], &checked["next"]), (&json!("valid"), &Value::Null), "{checked}");
    // An app's own address gets one when its first visitor comes.
    let app = format!("shop.{APPS}");
    world.dns.a(&app, &["127.0.0.1"])?;
    ensure!(served(&client, &app)? != first, "one certificate for two hosts");
    ensure!(client.handshake(&format!("nobody.{APPS}"), &[]).is_err(), "nobody has a certificate");

    // What was issued outlives the program, and the authority.
    pebble.stop();
    let World { steading, dns, https, http } = world;
    let world = World { steading: steading.restart()?, dns, https, http };
    assert_eq!(served(&client, "www.customer.test")?, first);
    let shop = world.steading.client().in_env("shop");
    world.prove(&shop, "late.customer.test")?;
    let checked = eventually(LIMIT, || {
        let checked = shop.output("domain_check", &json!({ "domain": "late.customer.test" })).ok()?;
        (checked["certificate"] == "failed").then_some(checked)
    });
    let checked = checked.context("nobody sees that the authority is away")?;
    ensure!(
        checked["findings"].to_string().contains("the certificate authority cannot be reached"),
        "{checked}"
    );
    ensure!(
        checked["next"].as_str().is_some_and(|next| next.starts_with("it is tried again at")),
        "{checked}"
    );
    assert_eq!(served(&client, "www.customer.test")?, first, "the old certificate serves on");
    ensure!(client.handshake("late.customer.test", &[]).is_err(), "a certificate out of nowhere");
    ensure!(world.steading.log().contains("a certificate could not be ordered"), "{}", world.steading.log());
    Ok(())
}

#[test]
fn a_certificate_comes_by_http_01_and_outlives_the_authority() -> anyhow::Result<()> {
    certified("http-01")
}

#[test]
fn a_certificate_comes_by_tls_alpn_01_and_outlives_the_authority() -> anyhow::Result<()> {
    certified("tls-alpn-01")
}

#[test]
fn an_authority_that_refuses_is_quoted() -> anyhow::Result<()> {
    let (world, _pebble) = with_pebble("http-01")?;
    let shop = world.app("shop")?;
    let set = shop.output("domain_set", &json!({ "domain": "www.customer.test" }))?;
    // Proven, and leading nowhere.
    world.dns.txt("_steading.www.customer.test", token(&set)?)?;
    let checked = eventually(LIMIT, || {
        let checked = shop.output("domain_check", &json!({ "domain": "www.customer.test" })).ok()?;
        (checked["certificate"] == "failed").then_some(checked)
    });
    let checked = checked.context("no failure")?;
    assert_eq!((&checked["proven"], &checked["leads_here"]), (&json!(true), &json!(false)));
    ensure!(checked["findings"].to_string().contains("the certificate authority refuses: "), "{checked}");
    assert_eq!(world.plain("www.customer.test", "/")?.text()?, "shop", "plain HTTP serves all the same");
    Ok(())
}
