//! The first start, the later ones, and what is in their way.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use control::{Control, ControlConfig, EnvState, OpenError};
use kernel::{Code, Principal, Scopes, Secret, Surface};
use tempfile::TempDir;

use crate::platform::{Platform, tenant};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// Why it does not open: the text and every cause.
async fn refusal(data: &Path) -> String {
    let error = Control::open(ControlConfig::new(data)).await.err().unwrap();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.replace(&data.display().to_string(), "<data>")
}

#[tokio::test]
async fn the_first_start_makes_everything_and_says_the_operator_key_once() {
    let data = TempDir::new().unwrap();
    let below = data.path().join("a/b");
    let (control, bootstrap) = Control::open(ControlConfig::new(&below)).await.unwrap();
    assert_eq!((mode(&below), mode(&below.join("keys"))), (0o700, 0o700));
    for file in ["keys/master", "operator.key", "control.db"] {
        assert_eq!(mode(&below.join(file)), 0o600, "{file}");
    }
    let key = bootstrap.operator_key.unwrap();
    assert_eq!(fs::read_to_string(below.join("operator.key")).unwrap(), format!("{}\n", key.expose()));
    let operator = control.authenticate(key.expose(), Surface::Mcp, None).await.unwrap();
    assert_eq!(operator.principal, Principal::Operator);
    assert_eq!((operator.scopes, operator.tenant), (Scopes::all(), control.default_tenant()));
    let unfinished = control.environments().unfinished().await.unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!((unfinished[0].slug.as_str(), unfinished[0].state), ("default", EnvState::Creating));
    control.environments().ready(&unfinished[0]).await.unwrap();
    control.close().await;

    let (control, bootstrap) = Control::open(ControlConfig::new(&below)).await.unwrap();
    assert!(bootstrap.operator_key.is_none());
    assert!(control.authenticate(key.expose(), Surface::Mcp, None).await.is_ok());
    assert_eq!(control.environments().unfinished().await.unwrap(), []);
    assert!(control.environments().find("default").await.unwrap().is_some());
}

#[tokio::test]
async fn it_starts_on_postgres_as_well() {
    let server = testkit::require(testkit::Postgres::shared());
    let url = Secret::new(server.fresh_database().unwrap());
    let platform = Platform::with(|config| config.database_url = Some(url)).await;
    assert!(!platform.path().join("control.db").exists());
    assert!(platform.control.environments().find("default").await.unwrap().is_some());
    platform.control.upkeep().await.unwrap();
    platform.control.close().await;
}

#[tokio::test]
async fn a_default_environment_that_was_deleted_stays_deleted() {
    let platform = Platform::new().await;
    let envs = platform.control.environments();
    let token = envs.confirm_delete(&tenant(&platform.operator), "default", b"").await.unwrap().token;
    let env = envs.begin_delete(&tenant(&platform.operator), "default", b"", &token).await.unwrap();
    envs.finish_delete(&env).await.unwrap();
    platform.control.close().await;
    let (control, _) = Control::open(ControlConfig::new(platform.path())).await.unwrap();
    assert_eq!(control.environments().unfinished().await.unwrap(), []);
    assert_eq!(control.environments().find("default").await.unwrap(), None);
}

#[tokio::test]
async fn a_key_file_that_others_can_read_is_closed_to_them_at_the_next_start() {
    let platform = Platform::new().await;
    platform.control.close().await;
    for file in ["operator.key", "keys/master"] {
        let path = platform.path().join(file);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (control, _) = Control::open(ControlConfig::new(platform.path())).await.unwrap();
        control.close().await;
        assert_eq!(mode(&path), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_lost_operator_key_file_does_not_stop_the_start_and_the_key_can_be_reset() {
    let platform = Platform::new().await;
    let file = platform.path().join("operator.key");
    platform.control.close().await;
    fs::remove_file(&file).unwrap();
    let (control, bootstrap) = Control::open(ControlConfig::new(platform.path())).await.unwrap();
    assert!(bootstrap.operator_key.is_none());
    let old = platform.operator_key.expose();
    assert!(control.authenticate(old, Surface::Http, None).await.is_ok(), "who still has it can use it");
    let caller = control.authenticate(old, Surface::Http, None).await.unwrap();
    let new = control.replace_operator(&caller).await.unwrap().secret;
    assert!(control.authenticate(old, Surface::Http, None).await.is_err());
    assert!(control.authenticate(new.expose(), Surface::Http, None).await.is_ok());
    assert_eq!(fs::read_to_string(&file).unwrap().trim(), new.expose());
    assert_eq!(mode(&file), 0o600);
    let gone = control.replace_operator(&caller).await.unwrap_err();
    assert_eq!(gone.code(), Code::Conflict, "who has lost the key to another replaces it no more");
    // Who dies over it leaves both beside each other, and the next start knows which one is good.
    let next = platform.path().join("operator.key.next");
    for (lies_beside, stays) in [(new.expose(), new.expose()), (old, new.expose()), ("junk", new.expose())] {
        control.close().await;
        fs::write(&next, lies_beside).unwrap();
        if lies_beside == new.expose() {
            fs::write(&file, old).unwrap();
        }
        let (control, _) = Control::open(ControlConfig::new(platform.path())).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap().trim(), stays);
        assert!(!next.exists(), "{lies_beside}");
        control.close().await;
    }
}

#[tokio::test]
async fn an_operator_key_that_was_brought_along_is_taken() {
    let data = TempDir::new().unwrap();
    let key = Platform::new().await.operator_key;
    fs::write(data.path().join("operator.key"), key.expose()).unwrap();
    let (control, bootstrap) = Control::open(ControlConfig::new(data.path())).await.unwrap();
    assert_eq!(bootstrap.operator_key, Some(key.clone()));
    assert!(control.authenticate(key.expose(), Surface::Http, None).await.is_ok());
    assert_eq!(mode(&data.path().join("operator.key")), 0o600);

    let data = TempDir::new().unwrap();
    fs::write(data.path().join("operator.key"), "password").unwrap();
    assert_eq!(
        refusal(data.path()).await,
        "<data>/operator.key does not hold an operator key: remove it, and another is made"
    );
}

#[tokio::test]
async fn another_missing_or_broken_master_key_is_said_plainly() {
    let platform = Platform::new().await;
    platform.control.close().await;
    let (data, master) = (platform.path(), platform.path().join("keys/master"));
    let good = fs::read(&master).unwrap();
    let mut changed = good.clone();
    changed[7] ^= 1;
    fs::write(&master, &changed).unwrap();
    assert_eq!(
        refusal(data).await,
        "the master key <data>/keys/master does not belong to this control database: restore the one that does"
    );
    fs::write(&master, &good[1..]).unwrap();
    assert_eq!(
        refusal(data).await,
        "<data>/keys/master is not a master key (32 bytes): restore it from a backup, for nothing else opens \
         what is sealed"
    );
    fs::remove_file(&master).unwrap();
    assert_eq!(
        refusal(data).await,
        "the master key <data>/keys/master is missing: restore it from a backup, for nothing else opens what \
         is sealed"
    );
    assert!(!master.exists(), "no other is made in its place");
    fs::write(&master, &good).unwrap();
    assert!(Control::open(ControlConfig::new(data)).await.is_ok());
    assert_eq!(mode(&master), 0o600, "what others could read is private again");
}

#[tokio::test]
async fn a_damaged_control_database_is_said_plainly_and_left_alone() {
    let platform = Platform::new().await;
    platform.control.close().await;
    let file = platform.path().join("control.db");
    let broken = vec![0x5a; 8192];
    fs::write(&file, &broken).unwrap();
    let text = refusal(platform.path()).await;
    let start = "cannot use the control database <data>/control.db: the control database is damaged: ";
    assert!(text.starts_with(start) && text.contains("file is not a database"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), broken);
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let data = TempDir::new().unwrap();
    fs::write(data.path().join("file"), "").unwrap();
    let error = Control::open(ControlConfig::new(data.path().join("file"))).await.err().unwrap();
    assert!(matches!(&error, OpenError::File { path, .. } if path.ends_with("file")), "{error:?}");
    let mut config = ControlConfig::new(data.path());
    config.templates.clear();
    assert!(matches!(Control::open(config).await.err().unwrap(), OpenError::NoTemplate));
}

#[tokio::test]
async fn secrets_do_not_print() {
    let data = TempDir::new().unwrap();
    let mut config = ControlConfig::new(data.path());
    config.database_url = Some(Secret::new("postgres://steading:hunter2@127.0.0.1:1/x"));
    let printed = format!("{config:?} {:?}", Control::open(config.clone()).await.err().unwrap());
    assert!(!printed.contains("hunter2"), "{printed}");
    let (_, bootstrap) = Control::open(ControlConfig::new(data.path())).await.unwrap();
    let key = bootstrap.operator_key.clone().unwrap();
    assert!(!format!("{bootstrap:?}").contains(&key.expose()[9..]));
}
