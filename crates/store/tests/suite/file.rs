//! What is special to a database that is a file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use kernel::{Code, Secret};
use sqlx::{Connection, Executor};
use store::{Connections, Error, Location, Store};
use tempfile::TempDir;

use crate::place::{environment, tenant};

async fn open(path: &Path) -> Result<Store, Error> {
    Store::open(&Location::Sqlite(path.to_owned())).await
}

#[tokio::test]
async fn only_the_owner_can_read_the_file_and_its_log() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    let store = open(&path).await.unwrap();
    store.settings().get_or_set("a", "1").await.unwrap();
    for name in ["control.db", "control.db-wal", "control.db-shm"] {
        let mode = directory.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn any_path_can_hold_the_file() {
    let directory = TempDir::new().unwrap();
    for name in ["a b", "a?b#c%20d", "ü", "a&mode=memory"] {
        let path = directory.path().join(name);
        open(&path).await.unwrap().settings().get_or_set("a", "1").await.unwrap();
        assert!(path.metadata().unwrap().len() > 0, "{name}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_said_to_be_damaged() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    std::fs::write(&path, "these are not the bytes you are looking for".repeat(100)).unwrap();
    let refused = open(&path).await.unwrap_err();
    assert!(matches!(refused, Error::Damaged(_)), "{refused:?}");
    assert_eq!(refused.to_string(), "the control database is damaged");
}

#[tokio::test]
async fn a_damaged_page_is_found_at_the_start() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    let store = open(&path).await.unwrap();
    let acme = tenant("acme");
    store.tenants().insert(&acme).await.unwrap();
    for number in 0..50 {
        store.environments().insert(&environment(acme.id, &format!("shop-{number}"))).await.unwrap();
    }
    store.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let (start, end) = (4096, bytes.len());
    bytes[start..end].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    let refused = open(&path).await.unwrap_err();
    assert!(matches!(refused, Error::Damaged(_)), "{refused:?}");
}

#[tokio::test]
async fn a_directory_that_is_missing_is_said_at_once() {
    let directory = TempDir::new().unwrap();
    let refused = open(&directory.path().join("no/control.db")).await.unwrap_err();
    assert!(matches!(refused, Error::Open(_)), "{refused:?}");
}

#[tokio::test]
async fn no_password_of_an_address_shows() {
    let url = "postgres://steading:hunter2@127.0.0.1:1/x";
    let location = Location::Postgres(Secret::new(url));
    let refused = Store::open(&location).await.unwrap_err();
    assert!(matches!(refused, Error::Open(_)), "{refused:?}");
    assert!(!format!("{location:?} {refused:?} {refused}").contains("hunter2"));
    let refused = Store::open(&Location::Postgres(Secret::new("mysql://a:hunter2@b/c"))).await.unwrap_err();
    assert!(!format!("{refused:?} {refused}").contains("hunter2"));
}

#[tokio::test]
async fn what_was_written_before_the_program_died_is_there_after_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    let store = open(&path).await.unwrap();
    let (acme, zeta) = (tenant("acme"), tenant("zeta"));
    store.tenants().insert(&acme).await.unwrap();
    store.tenants().insert(&zeta).await.unwrap();
    // A copy of the files under a running program is what a kill leaves behind.
    let after = directory.path().join("after.db");
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", path.display());
        std::fs::copy(from, format!("{}{suffix}", after.display())).unwrap();
    }
    assert_eq!(
        open(&after).await.unwrap().tenants().list(&store::TenantFilter::default(), None, 9).await.unwrap(),
        [acme, zeta]
    );
}

#[tokio::test]
async fn a_full_disk_is_told_from_other_failures() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("control.db");
    open(&path).await.unwrap().close().await;
    let mut raw = sqlx::AnyConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    // The engine's own limit gives the same code as a disk without room.
    raw.execute("PRAGMA max_page_count = 1").await.unwrap();
    let big = "INSERT INTO settings (name, value) VALUES ('a', hex(zeroblob(1000000)))";
    let error = Error::from(raw.execute(big).await.unwrap_err());
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    let error = kernel::Error::from(error);
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "the platform's disk is full"));
}

#[tokio::test]
async fn what_the_database_does_not_do_is_counted() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("control.db")).await.unwrap();
    store.ping().await.unwrap();
    store.settings().get_or_set("a", "1").await.unwrap();
    let Connections { used, idle, most, failures } = store.connections();
    assert!(used + idle > 0 && used + idle <= most, "{used} and {idle} of {most}");
    assert_eq!((most, failures), (3, 0));
    store.close().await;
    assert!(store.ping().await.is_err());
    assert!(store.settings().get_or_set("b", "1").await.is_err());
    assert_eq!(store.connections(), Connections { used: 0, idle: 0, most, failures: 2 });
}
