//! What the configuration accepts and refuses.

use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    let mut config = Config::default();
    file::parse(Path::new("steading.toml"), text, &mut config)?;
    config.check()?;
    Ok(config)
}

fn check(text: &str, expected: Expect) {
    let error = parse(text).unwrap_err();
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    expected.assert_eq(&format!("{error}{hint}"));
}

#[test]
fn the_example_with_every_line_uncommented_is_the_default() {
    let uncommented: String = example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(
        uncommented.matches(" = ").count(),
        uncommented.lines().filter(|l| !l.starts_with('#') && l.contains('=')).count()
    );
    assert_eq!(parse(&uncommented).unwrap(), Config::default());
}

#[test]
fn the_example_sets_every_setting() {
    for line in example().lines().filter(|line| line.contains(" = ") && !line.starts_with("# ")) {
        assert!(line.starts_with('#'), "{line}");
    }
    for key in ["listen", "legacy_sessions", "tenant_burst", "statement_timeout_ms", "format"] {
        assert!(example().contains(&format!("\n#{key} = ")), "{key}");
    }
}

#[test]
fn a_file_is_read() {
    let config = parse("listen = '127.0.0.1:0'\n[mcp]\nbody_limit = 1_000\n[log]\nlevel = 'warn'\n").unwrap();
    let mut expected = Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    expected.mcp.body_limit = 1000;
    expected.log.level = Level::Warn;
    assert_eq!(config, expected);
    // What 0 says is said.
    let none = parse("[sandbox]\nspares = 0\narchive_after_s = 0").unwrap().sandbox;
    assert_eq!((none.spares, none.archive_after_s), (OrZero(0), OrZero(0)));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    check(
        "\n\nlistne = 1",
        expect![[r#"steading.toml, line 3: there is no setting "listne" (did you mean "listen"?)"#]],
    );
    check(
        "[mcp]\nbody = 1",
        expect![[
            r#"steading.toml, line 2: there is no setting "mcp.body" (remove it; steading.example.toml lists all)"#
        ]],
    );
    check(
        "[mpc]\nlegacy_sessions = true",
        expect![[
            r#"steading.toml, line 2: there is no setting "mpc.legacy_sessions" (did you mean "mcp.legacy_sessions"?)"#
        ]],
    );
    check(
        "[mcp]\nbody_limit = \"1\"",
        expect!["steading.toml, line 2: mcp.body_limit must be a whole number"],
    );
    check(
        "[mcp]\nbody_limit = -1",
        expect![[
            r#"steading.toml, line 2: mcp.body_limit must be a whole number from 1 to 18446744073709551615"#
        ]],
    );
    check(
        "[sandbox]\nspares = -1",
        expect![[
            r#"steading.toml, line 2: sandbox.spares must be a whole number up to 18446744073709551615"#
        ]],
    );
    check("listen = 8787", expect!["steading.toml, line 1: listen must be text in quotes"]);
    check(
        "listen = \"8787\"",
        expect![[r#"steading.toml, line 1: listen must be an address and a port, such as "127.0.0.1:8787""#]],
    );
    check(
        "mcp = 3",
        expect![[
            r#"steading.toml, line 1: there is no setting "mcp" (remove it; steading.example.toml lists all)"#
        ]],
    );
    check(
        "allow_insecure_http = 'yes'",
        expect!["steading.toml, line 1: allow_insecure_http must be true or false"],
    );
    check(
        "public_url = 'https://a.example/x'",
        expect![[
            r#"steading.toml, line 1: public_url must be an address such as "https://cloud.example.com", without a path"#
        ]],
    );
    check(
        "apps_domain = 'A.example'",
        expect![[
            r#"steading.toml, line 1: apps_domain must be a domain in lower case, such as "apps.example.com" or "localhost:8787""#
        ]],
    );
    check(
        "log = { level = 'loud' }",
        expect!["steading.toml, line 1: log.level must be one of error, warn, info, debug, trace"],
    );
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let error = parse("listen = '127.0.0.1:0'\n[mcp\n").unwrap_err();
    assert!(error.to_string().starts_with("steading.toml, line 2: "), "{error}");
    let error = parse("shutdown_grace_s = 1\nshutdown_grace_s = 2\n").unwrap_err();
    assert!(error.to_string().starts_with("steading.toml, line 2: "), "{error}");
}

#[test]
fn plain_http_beyond_loopback_must_be_asked_for() {
    for text in ["listen = '0.0.0.0:80'", "listen = '[::]:80'", "public_url = 'http://a.example'"] {
        assert!(parse(text).is_err(), "{text}");
        assert!(parse(&format!("{text}\nallow_insecure_http = true")).is_ok(), "{text}");
    }
    for text in ["listen = '[::1]:80'", "public_url = 'https://a.example'", "public_url = 'http://localhost'"]
    {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn flags_override_variables_override_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.toml");
    std::fs::write(&path, "listen = '127.0.0.1:1'\ndata_dir = 'file'\napps_domain = 'file.example'").unwrap();
    let surroundings = Surroundings::of(&[
        ("STEADING_DATA_DIR", "variable"),
        ("STEADING_APPS_DOMAIN", "variable.example"),
        ("STEADING_MCP_LEGACY_SESSIONS", "1"),
        ("STEADING_MCP_LEGACY_SESSION", "1"),
    ]);
    let flags = [("apps_domain", "--apps-domain", "flag.example".to_owned())];
    let (config, unknown) = Config::load(Some(&path), &surroundings, &flags).unwrap();
    let mut expected = Config {
        listen: "127.0.0.1:1".parse().unwrap(),
        data_dir: "variable".into(),
        apps_domain: Some("flag.example".to_owned()),
        ..Config::default()
    };
    expected.mcp.legacy_sessions = true;
    assert_eq!(config, expected);
    assert_eq!(unknown, ["STEADING_MCP_LEGACY_SESSION"]);
}

#[test]
fn a_bad_value_names_its_source_and_is_not_repeated() {
    let surroundings = Surroundings::of(&[("STEADING_DATABASE_URL", "mysql://u:hunter2@h/d")]);
    let error = Config::load(None, &surroundings, &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the variable STEADING_DATABASE_URL: database.url must start with \"postgres://\""
    );
    let flags = [("listen", "--listen", "here".to_owned())];
    let error = Config::load(None, &Surroundings::default(), &flags).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the flag --listen: listen must be an address and a port, such as \"127.0.0.1:8787\""
    );
}

#[test]
fn a_database_password_does_not_print() {
    let config = parse("database.url = 'postgres://u:hunter2@h/d'").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_bucket_without_its_service_is_refused_and_no_secret_is_shown() {
    check(
        "[storage]\ns3_bucket = 'files'",
        expect![
            "storage.s3_bucket is set, and storage.s3_endpoint is not (set storage.s3_endpoint, or take storage.s3_bucket out to keep files in the data directory)"
        ],
    );
    let whole = "[storage]\ns3_bucket = 'files'\ns3_endpoint = 'https://s3.example'\ns3_access_key = 'a'\n";
    check(
        whole,
        expect![
            "storage.s3_bucket is set, and storage.s3_secret_key is not (set storage.s3_secret_key, or take storage.s3_bucket out to keep files in the data directory)"
        ],
    );
    let config = parse(&format!("{whole}s3_secret_key = 'very secret'\n")).unwrap();
    assert_eq!(config.storage.s3_region.0, "us-east-1");
    assert!(!format!("{config:?}").contains("very secret"));
}

#[test]
fn a_directory_is_whole_and_says_who_may_what() {
    check(
        "[directory]\nclient_id = 'x'",
        expect![
            "directory.client_id is set and directory.issuer is not (set directory.issuer too, or neither)"
        ],
    );
    check(
        "[directory]\nissuer = 'https://id.example.com'",
        expect![
            "directory.issuer is set and directory.client_id is not (set directory.client_id too, or neither)"
        ],
    );
    let half = "[directory]\nissuer = 'https://id.example.com'\nclient_id = 'x'\n";
    check(
        half,
        expect!["directory.issuer is set and directory.roles is not (set directory.roles too, or neither)"],
    );
    let whole = format!("{half}roles = ['admins=owner', '*=viewer']\n");
    let config = parse(&format!("{whole}client_secret = 'very secret'\nname = 'Acme'\n")).unwrap();
    assert_eq!((config.directory.shown().as_str(), config.directory.roles.0.len()), ("Acme", 2));
    assert!(!format!("{config:?}").contains("very secret"));
    assert_eq!(parse(&whole).unwrap().directory.shown(), "id.example.com");
    check(
        &format!("{whole}tenant = 'acme'\ntenant_claim = 'org'\n"),
        expect![
            "directory.tenant and directory.tenant_claim are both set (set directory.tenant or directory.tenant_claim)"
        ],
    );
    check(&format!("{whole}tenant = 'A b'\n"), expect!["directory.tenant must be the slug of a tenant"]);
    check(
        &format!("{whole}role_claim = ''\n"),
        expect!["directory.role_claim must name a claim, since directory.roles has names"],
    );
    check(
        &format!("{half}roles = ['admins=root']\n"),
        expect![[
            r#"steading.toml, line 4: directory.roles must be a list such as "admins=owner" with owner, developer or viewer, and "admins=root" is none"#
        ]],
    );
    check(
        "[directory]\nissuer = 'http://id.example.com'",
        expect![[
            r#"steading.toml, line 2: directory.issuer must be an address such as "https://id.example.com/realms/main""#
        ]],
    );
    check(
        "[directory]\nname = 'Acme'",
        expect![
            "directory.name (STEADING_DIRECTORY) is set and directory.issuer is not (set directory.issuer too, or neither)"
        ],
    );
    check(
        "[exchange]\nissuer = 'https://id.example.com'",
        expect![
            "exchange.issuer is set and exchange.jwks_url is not (set exchange.jwks_url too, or neither)"
        ],
    );
    check(
        "[exchange]\njwks_url = 'https://id.example.com/jwks.json'",
        expect!["exchange.jwks_url is set and exchange.issuer is not (set exchange.issuer too, or neither)"],
    );
    check(
        "[exchange]\njwks_url = 'http://id.example.com/jwks.json'",
        expect![[
            r#"steading.toml, line 2: exchange.jwks_url must be an address such as "https://id.example.com/jwks.json""#
        ]],
    );
}

#[test]
fn a_model_is_set_by_three_variables_and_a_half_of_it_is_refused() {
    let surroundings = Surroundings::of(&[
        ("STEADING_MODEL_BASE_URL", "http://127.0.0.1:8080/v1"),
        ("STEADING_MODEL", "small"),
        ("STEADING_MODEL_API_KEY", "hunter2"),
        ("STEADING_MODEL_NAME", "large"),
    ]);
    let (config, unknown) = Config::load(None, &surroundings, &[]).unwrap();
    assert_eq!(config.model.name.0, "small");
    assert_eq!(config.model.base_url.0.as_ref().unwrap().path(), "/v1");
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(unknown, ["STEADING_MODEL_NAME"]);
    check(
        "[model]\nname = 'small'",
        expect![
            "model.name (STEADING_MODEL) is set and model.base_url is not (set model.base_url too, or neither)"
        ],
    );
    check(
        "[model]\napi_key = 'hunter2'",
        expect!["model.api_key is set and model.base_url is not (set model.base_url too, or neither)"],
    );
    check(
        "[model]\nbase_url = 'https://user:hunter2@api.example/v1'",
        expect![[
            r#"steading.toml, line 2: model.base_url must be an address such as "https://api.example.com/v1", without a user and a query"#
        ]],
    );
}
