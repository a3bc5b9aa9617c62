//! Domains of apps' own: claimed, proven by real DNS, served by HTTPS, and what does not get anybody there.

use anyhow::{Context, ensure};
use conformance_tests::Place;
use serde_json::{Value, json};
use testkit::http::{Request, Response};
use testkit::{Client, Https, Launch, NameServer, Steading, free, require};

use crate::app_heads::frames;

pub const APPS: &str = "apps.platform.test";

/// A platform that serves HTTPS, and the DNS that it asks.
pub struct World {
    pub steading: Steading,
    pub dns: NameServer,
    pub https: String,
    pub http: String,
}

impl World {
    pub fn new(settle: impl FnOnce(Launch, u16, u16, &NameServer) -> Launch) -> anyhow::Result<Self> {
        let dns = require(NameServer::start());
        let (https, http) = (free()?, free()?);
        let launch = Steading::launch()
            .env("STEADING_TLS_LISTEN", https.to_string())
            .env("STEADING_TLS_HTTP_REDIRECT", http.to_string())
            .env("STEADING_APPS_DOMAIN", APPS)
            .env("STEADING_DOMAINS_DNS", dns.address().to_string())
            .env("STEADING_DOMAINS_ADDRESSES", "127.0.0.1");
        let steading = require(settle(launch, http.port(), https.port(), &dns).start());
        Ok(Self { steading, dns, https: https.to_string(), http: http.to_string() })
    }

    /// An environment with a page that says its name.
    pub fn app(&self, slug: &str) -> anyhow::Result<Client> {
        self.steading.client().output("env_create", &json!({ "slug": slug }))?;
        let client = self.steading.client().in_env(slug);
        let files = json!({ "index.html": slug, ".well-known/acme-challenge/token": "the app's own" });
        client.output("site_deploy", &json!({ "files": files }))?;
        Ok(client)
    }

    /// What the plain listener of the platform answers for a host.
    pub fn plain(&self, host: &str, path: &str) -> anyhow::Result<Response> {
        let request = Request::get(&format!("http://{}{path}", self.steading.authority()));
        request.header("host", host).send()
    }

    /// A client that trusts the platform's own authority.
    fn trusting(&self) -> anyhow::Result<Https> {
        let mut command = self.steading.command(&["ca", "--json"]);
        let output = command.arg("--data-dir").arg(&self.steading.ready().data_dir).output()?;
        let shown: Value = serde_json::from_slice(&output.stdout)?;
        Https::new(&self.https, &[shown["pem"].as_str().context("no pem")?])
    }

    /// Claims a domain, and publishes its proof.
    pub fn prove(&self, client: &Client, domain: &str) -> anyhow::Result<Value> {
        let set = client.output("domain_set", &json!({ "domain": domain }))?;
        self.dns.txt(&format!("_steading.{domain}"), token(&set)?)?;
        self.dns.a(domain, &["127.0.0.1"])?;
        client.output("domain_check", &json!({ "domain": domain }))
    }
}

pub fn local() -> anyhow::Result<World> {
    World::new(|launch, _, _, _| launch)
}

pub fn token(set: &Value) -> anyhow::Result<&str> {
    set["records"][0]["value"].as_str().context("no token")
}

pub fn get(host: &str, path: &str) -> Request {
    Request::get(&format!("https://{host}{path}"))
}

#[test]
fn a_domain_is_claimed_proven_served_and_given_up() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    let set = shop.output("domain_set", &json!({ "domain": "Www.Customer.TEST." }))?;
    let proof = json!({ "type": "TXT", "name": "_steading.www.customer.test", "value": token(&set)? });
    let way = json!({ "type": "CNAME", "name": "www.customer.test", "value": format!("shop.{APPS}") });
    let records = json!([proof, way]);
    assert_eq!(
        set,
        json!({ "domain": "www.customer.test", "proven": false, "hsts": false, "records": records })
    );
    assert_eq!(
        shop.output("domain_set", &json!({ "domain": "www.customer.test" }))?,
        set,
        "a repeat is the same"
    );
    let apex = shop.output("domain_set", &json!({ "domain": "customer.test" }))?;
    assert_eq!(apex["records"][1], json!({ "type": "A", "name": "customer.test", "value": "127.0.0.1" }));

    let check = |domain: &str| shop.output("domain_check", &json!({ "domain": domain }));
    let before = check("www.customer.test")?;
    assert_eq!(
        before,
        json!({
            "domain": "www.customer.test", "proven": false, "leads_here": false, "certificate": "none",
            "findings": ["there is no TXT record at _steading.www.customer.test", "www.customer.test has no address"],
            "next": format!(
                "make a TXT record at _steading.www.customer.test with the value {}, then call domain_check again",
                token(&set)?
            ),
            "records": records,
        })
    );
    assert_eq!(world.plain("www.customer.test", "/")?.status, 404);
    let client = world.trusting()?;
    ensure!(client.handshake("www.customer.test", &[]).is_err(), "there is a certificate before the proof");

    world.dns.txt("_steading.www.customer.test", "something else")?;
    world.dns.a("www.customer.test", &["192.0.2.1"])?;
    let wrong = check("www.customer.test")?;
    assert_eq!(
        wrong["findings"],
        json!([
            "the TXT record at _steading.www.customer.test is \"something else\" and not the proof",
            "www.customer.test leads to 192.0.2.1, which is not here",
        ])
    );
    world.dns.txt("_steading.www.customer.test", token(&set)?)?;
    world.dns.cname("www.customer.test", &format!("shop.{APPS}"))?;
    let proven = check("www.customer.test")?;
    assert_eq!(
        proven,
        json!({
            "domain": "www.customer.test", "proven": true, "leads_here": true, "certificate": "local",
            "findings": [
                "the TXT record at _steading.www.customer.test proves the domain",
                "www.customer.test leads here",
                "HTTPS is served with the platform's own authority, which visitors have to trust",
            ],
        })
    );
    for host in ["www.customer.test", "WWW.Customer.Test", "www.customer.test.", "www.customer.test:8443"] {
        assert_eq!(world.plain(host, "/")?.text()?, "shop", "{host}");
    }
    for host in [
        "customer.test",
        "x.www.customer.test",
        "www.customer.test..",
        "www.customer.test:",
        "ww\u{ff57}.customer.test",
    ] {
        ensure!(world.plain(host, "/")?.status != 200, "{host}");
    }
    let page = client.send("www.customer.test", get("www.customer.test", "/"))?.response;
    assert_eq!((page.status, page.text()?, page.header("strict-transport-security")), (200, "shop", None));
    shop.output("domain_set", &json!({ "domain": "www.customer.test", "hsts": true }))?;
    let page = client.send("www.customer.test", get("www.customer.test", "/"))?.response;
    assert_eq!(page.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(world.plain("www.customer.test", "/")?.header("strict-transport-security"), None);
    let described = shop.output("app_describe", &json!({}))?;
    assert_eq!(
        described["domains"],
        json!([{ "domain": "customer.test", "proven": false }, { "domain": "www.customer.test", "proven": true }])
    );
    // The release is fetched from the domain, too, before it is kept.
    shop.output("site_deploy", &json!({ "files": { "index.html": "shop 2" } }))?;
    assert_eq!(world.plain("www.customer.test", "/")?.text()?, "shop 2");

    let doomed = json!({ "kind": "domain", "name": "www.customer.test" });
    let refused = shop.call("resource_delete", &doomed)?;
    assert_eq!(refused.code(), "conflict");
    let dry = shop.output(
        "resource_delete",
        &json!({ "kind": "domain", "name": "www.customer.test", "dry_run": true }),
    )?;
    let confirm = json!({ "kind": "domain", "name": "www.customer.test", "confirm": dry["confirm"] });
    assert_eq!(shop.output("resource_delete", &confirm)?["deleted"], true);
    assert_eq!(world.plain("www.customer.test", "/")?.status, 404);
    ensure!(client.handshake("www.customer.test", &[]).is_err(), "it is served after it was given up");
    assert_eq!(shop.call("domain_check", &json!({ "domain": "www.customer.test" }))?.code(), "not_found");
    let again = shop.output("domain_set", &json!({ "domain": "www.customer.test" }))?;
    ensure!(token(&again)? != token(&set)?, "an old proof counts again");
    Ok(())
}

#[test]
fn nobody_gets_a_domain_that_is_anothers_or_the_platforms() -> anyhow::Result<()> {
    let world = local()?;
    let (owner, thief) = (world.app("owner")?, world.app("thief")?);
    let domain = json!({ "domain": "www.victim.test" });
    // Both may claim what is not proven; each has a token of its own.
    let own = owner.output("domain_set", &domain)?;
    let stolen = thief.output("domain_set", &domain)?;
    ensure!(token(&own)? != token(&stolen)?, "one proof for two environments");
    world.dns.txt("_steading.www.victim.test", token(&own)?)?;
    assert_eq!(thief.output("domain_check", &domain)?["proven"], false, "another's token");
    assert_eq!(owner.output("domain_check", &domain)?["proven"], true);
    for _ in 0..2 {
        let refused = thief.call("domain_set", &domain)?;
        assert_eq!((refused.status, refused.code()), (409, "conflict"));
        ensure!(!refused.body.to_string().contains("owner"), "{}", refused.body);
    }
    // A second record proves nothing while the first one stands.
    world.dns.txt("_steading.www.victim.test", token(&stolen)?)?;
    assert_eq!(thief.output("domain_check", &domain)?["proven"], false);
    assert_eq!(world.plain("www.victim.test", "/")?.text()?, "owner");
    let dry = json!({ "kind": "domain", "name": "www.victim.test", "dry_run": true });
    let doomed = thief.output("resource_delete", &dry)?;
    let gone = json!({ "kind": "domain", "name": "www.victim.test", "confirm": doomed["confirm"] });
    assert_eq!(
        owner.call("resource_delete", &gone)?.code(),
        "invalid_input",
        "a confirmation of another environment"
    );
    assert_eq!(thief.output("resource_delete", &gone)?["deleted"], true, "its own claim");
    assert_eq!(world.plain("www.victim.test", "/")?.text()?, "owner");
    assert_eq!(thief.call("domain_check", &domain)?.code(), "not_found");
    let manifest = json!({ "manifest": { "domains": ["www.victim.test"] } });
    let refused = thief.call("app_apply", &manifest)?;
    assert_eq!((refused.code(), refused.body["field"].as_str()), ("conflict", Some("/manifest/domains/0")));

    // A name that stands for the thief's, by a wildcard for one, is no proof.
    let dangling = json!({ "domain": "old.victim.test" });
    let set = thief.output("domain_set", &dangling)?;
    world.dns.cname("_steading.old.victim.test", "_steading.thief.test")?;
    world.dns.txt("_steading.thief.test", token(&set)?)?;
    assert_eq!(thief.output("domain_check", &dangling)?["proven"], false);
    let silent = json!({ "domain": "silent.victim.test" });
    thief.output("domain_set", &silent)?;
    world.dns.fail("_steading.silent.victim.test")?;
    let unanswered = thief.output("domain_check", &silent)?;
    assert_eq!(unanswered["proven"], false);
    assert_eq!(unanswered["findings"][0], "DNS does not answer for _steading.silent.victim.test");

    let own_app = format!("owner.{APPS}");
    for domain in [
        APPS,
        own_app.as_str(),
        "127.0.0.1",
        "localhost",
        "x.localhost",
        "co.uk",
        "*.victim.test",
        "a_b.test",
    ] {
        let refused = thief.call("domain_set", &json!({ "domain": domain }))?;
        assert_eq!(
            (refused.code(), refused.body["field"].as_str()),
            ("invalid_input", Some("/domain")),
            "{domain}"
        );
    }
    // What goes with its environment is free again.
    let client = world.steading.client();
    let dry = client.output("env_delete", &json!({ "env": "owner", "dry_run": true }))?;
    ensure!(dry.to_string().contains("domain www.victim.test"), "{dry}");
    client.output("env_delete", &json!({ "env": "owner", "confirm": dry["confirm"] }))?;
    assert_eq!(world.plain("www.victim.test", "/")?.status, 404);
    assert_eq!(thief.output("domain_set", &domain)?["proven"], false);
    Ok(())
}

#[test]
fn a_connection_is_good_for_the_host_that_it_was_made_for() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    world.app("other")?;
    world.prove(&shop, "shop.customer.test")?;
    let client = world.trusting()?;
    let (app, other) = (format!("shop.{APPS}"), format!("other.{APPS}"));
    let asked = |name: &str, host: &str| -> anyhow::Result<(u16, String)> {
        let answer = client.send(name, get(host, "/"))?.response;
        Ok((answer.status, answer.text()?.to_owned()))
    };
    assert_eq!(asked(&app, &app)?, (200, "shop".to_owned()));
    assert_eq!(asked(&app, &app.to_uppercase())?, (200, "shop".to_owned()));
    assert_eq!(asked("shop.customer.test", "shop.customer.test:443")?, (200, "shop".to_owned()));
    for (name, host) in [
        (app.as_str(), other.as_str()),
        (app.as_str(), "localhost"),
        (app.as_str(), "shop.customer.test"),
        ("shop.customer.test", app.as_str()),
        ("localhost", app.as_str()),
        ("127.0.0.1", app.as_str()),
        ("127.0.0.1", "shop.customer.test"),
    ] {
        let (status, body) = asked(name, host)?;
        assert_eq!(status, 421, "{name} then {host}");
        ensure!(!body.contains("shop"), "{body}");
    }
    assert_eq!(client.send("127.0.0.1", get("127.0.0.1", "/healthz"))?.response.status, 200);
    for nobody in
        [format!("nobody.{APPS}"), "unproven.customer.test".into(), format!("9--nobody.{APPS}"), "com".into()]
    {
        ensure!(client.handshake(&nobody, &[]).is_err(), "{nobody} has a certificate");
    }
    Ok(())
}

#[test]
fn https_speaks_http_2_and_1_1() -> anyhow::Result<()> {
    let world = local()?;
    world.app("shop")?;
    let client = world.trusting()?;
    let app = format!("shop.{APPS}");
    let mut stream = client.handshake(&app, &[b"h2", b"http/1.1"])?;
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
    // GET https / of the app (RFC 7541 appendix A).
    let mut header = vec![0x82, 0x87, 0x84, 0x41, u8::try_from(app.len())?];
    header.extend(app.as_bytes());
    let answered = frames(&mut stream, &header)?;
    let status = answered.iter().find(|(kind, ..)| *kind == 1).map(|(.., payload)| payload[0]);
    assert_eq!(status, Some(0x88), ":status 200");
    let old = client.handshake(&app, &[b"http/1.1"])?;
    assert_eq!(old.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    Ok(())
}

#[test]
fn plain_http_is_sent_on_and_nobody_but_the_platform_answers_an_authority() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    world.prove(&shop, "shop.customer.test")?;
    let app = format!("shop.{APPS}");
    let port = world.https.rsplit(':').next().context("no port")?;
    let redirected = |host: &str, path: &str| {
        Request::get(&format!("http://{}{path}", world.http)).header("host", host).send()
    };
    for host in [app.as_str(), "shop.customer.test", "localhost"] {
        let answer = redirected(host, "/a/b?c=d")?;
        let there = format!("https://{host}:{port}/a/b?c=d");
        assert_eq!((answer.status, answer.header("location")), (308, Some(there.as_str())), "{host}");
    }
    for host in ["evil.example", "unproven.customer.test", "shop.customer.test.evil.example", "192.0.2.1", ""]
    {
        let answer = redirected(host, "/")?;
        ensure!(answer.header("location").is_none() && answer.status != 200, "{host}: {answer:?}");
    }
    let client = world.trusting()?;
    for path in [
        "/.well-known/acme-challenge/token",
        "/.well-known/acme-challenge/",
        "/.well-known/acme-challenge/../acme-challenge/token",
    ] {
        for host in [app.as_str(), "shop.customer.test"] {
            assert_eq!(redirected(host, path)?.status, 404, "{host}{path}");
            assert_eq!(world.plain(host, path)?.status, 404, "{host}{path}");
            assert_eq!(client.send(host, get(host, path))?.response.status, 404, "{host}{path}");
        }
    }
    Ok(())
}

#[test]
fn a_manifest_claims_its_domains_and_gives_up_what_it_names_no_longer() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    let apply = |domains: Value| shop.call("app_apply", &json!({ "manifest": { "domains": domains } }));
    let manifest = json!({ "manifest": { "domains": ["One.Customer.test", "two.customer.test."] } });
    let plan = shop.output("app_plan", &manifest)?;
    let words = "the app answers there once domain_check has found its proof";
    assert_eq!(
        plan["changes"],
        json!([
            { "action": "create", "target": "domain one.customer.test", "detail": words },
            { "action": "create", "target": "domain two.customer.test", "detail": words },
        ])
    );
    let domains =
        || -> anyhow::Result<Value> { Ok(shop.output("app_describe", &json!({}))?["domains"].clone()) };
    assert_eq!(domains()?, Value::Null, "a plan claims nothing");
    let applied = apply(json!(["one.customer.test", "two.customer.test"]))?;
    assert_eq!((applied.status, &applied.body["release"]), (200, &json!(2)));
    assert_eq!(apply(json!(["ONE.customer.test", "two.customer.test"]))?.body["changed"], false);
    world.prove(&shop, "one.customer.test")?;
    assert_eq!(world.plain("one.customer.test", "/")?.text()?, "shop");
    assert_eq!(apply(json!(["two.customer.test"]))?.status, 200);
    assert_eq!(domains()?, json!([{ "domain": "two.customer.test", "proven": false }]));
    assert_eq!(world.plain("one.customer.test", "/")?.status, 404);
    // Going back moves no domain, and applying what is named again claims what is not held any more.
    let manifest = json!({ "manifest": { "domains": ["two.customer.test"] } });
    shop.output("env_snapshot", &json!({ "name": "then" }))?;
    assert_eq!(apply(json!([]))?.status, 200);
    let plan = shop.output("env_restore", &json!({ "snapshot": "then", "dry_run": true }))?;
    let words = "domain two.customer.test is named again and not claimed by this: domain_set does it";
    ensure!(plan.to_string().contains(words), "{plan}");
    let back = shop.output("app_rollback", &json!({ "release": 3, "dry_run": true }))?;
    let unclaimed = "it has been given up since, and is not claimed by this: domain_set does it";
    let effects = back["effects"].as_array().context("effects")?;
    let named =
        |domain: &str| effects.iter().any(|effect| effect["target"] == json!(format!("domain {domain}")));
    ensure!(back.to_string().contains(unclaimed) && named("two.customer.test"), "{back}");
    let words = "the app answers there once domain_check has found its proof";
    shop.output("env_restore", &json!({ "snapshot": "then", "confirm": plan["confirm"] }))?;
    assert_eq!(domains()?, Value::Null);
    let claimed = json!([{ "action": "create", "target": "domain two.customer.test", "detail": words }]);
    assert_eq!(shop.output("app_plan", &manifest)?["changes"], claimed);
    let applied = shop.output("app_apply", &manifest)?;
    assert_eq!((&applied["changed"], &applied["changes"]), (&json!(true), &claimed));
    assert_eq!(shop.output("app_apply", &manifest)?["changed"], false);
    assert_eq!(domains()?, json!([{ "domain": "two.customer.test", "proven": false }]));
    shop.output("app_rollback", &json!({ "release": 1 }))?;
    assert_eq!(domains()?, json!([{ "domain": "two.customer.test", "proven": false }]));
    for (wrong, field) in [
        (json!("one.customer.test"), "/manifest/domains"),
        (json!(["co.uk"]), "/manifest/domains/0"),
        (json!(["a.customer.test", "A.customer.test."]), "/manifest/domains/1"),
        (json!([{ "domain": "a.customer.test" }]), "/manifest/domains/0"),
    ] {
        let refused = apply(wrong)?;
        assert_eq!((refused.code(), refused.body["field"].as_str()), ("invalid_input", Some(field)));
    }
    Ok(())
}

#[test]
fn a_platform_that_others_cannot_reach_says_so_beside_the_records() -> anyhow::Result<()> {
    let set = Place::new("domain-note")?.output("domain_set", &json!({ "domain": "shop.customer.test" }))?;
    ensure!(set["note"].as_str().is_some_and(|note| note.contains("this machine alone")), "{set}");
    Ok(())
}

#[test]
fn an_apps_answers_name_nobody_but_the_app() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    world.prove(&shop, "shop.customer.test")?;
    shop.output("app_apply", &json!({ "manifest": { "auth": { "methods": ["password"] } } }))?;
    let app = format!("shop.{APPS}");
    for host in [app.as_str(), "shop.customer.test", "unknown.customer.test"] {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/missing"),
            ("POST", "/"),
            ("GET", "/_/nothing"),
            ("GET", "/_/auth/me"),
            ("POST", "/_/auth/login"),
            ("GET", "/_/db/none"),
            ("GET", "/.well-known/jwks.json"),
            ("GET", "/.well-known/acme-challenge/x"),
            ("GET", "/_/sdk.js"),
            ("GET", "/_/sdk.d.ts"),
            ("GET", "/_/client.ts"),
            ("GET", "/_/openapi.json"),
            ("OPTIONS", "/_/db/none"),
        ] {
            let request = Request::new(method, &format!("http://{}{path}", world.steading.authority()));
            let answer = request.header("host", host).send()?;
            // The header of publishable keys is called so.
            let said = format!("{:?} {}", answer.headers, answer.text()?).to_ascii_lowercase();
            let said = said.replace("steading-key", "");
            ensure!(!said.contains("steading"), "{method} {host}{path}: {said}");
        }
    }
    Ok(())
}
