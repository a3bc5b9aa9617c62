//! Postgres: answers, keeps databases apart, and dies with its test.

use std::path::Path;
use std::sync::Arc;

use testkit::{Fsync, Postgres, eventually, require};

use crate::{LIMIT, alive, orphaned};

#[test]
fn a_started_server_answers_and_is_gone_with_its_files_when_dropped() {
    let postgres = require(Postgres::start(Fsync::On));
    assert_eq!(postgres.execute("SELECT 40 + 2").unwrap(), "42");
    assert_eq!(postgres.execute("SHOW fsync").unwrap(), "on");
    let (process, directory) = (postgres.id(), postgres.execute("SHOW data_directory").unwrap());
    assert!(alive(process) && Path::new(&directory).exists());
    drop(postgres);
    assert!(!alive(process) && !Path::new(&directory).exists());
}

#[test]
fn shared_servers_are_one_server_and_fresh_databases_are_apart() {
    let first = require(Postgres::shared());
    let second = Postgres::shared().unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let (one, two) = (first.fresh_database().unwrap(), second.fresh_database().unwrap());
    assert_ne!(one, two);
    assert_eq!(first.url("x").rsplit_once('/').unwrap().0, one.rsplit_once('/').unwrap().0);
    assert_eq!(first.execute("SHOW fsync").unwrap(), "off");
    let message = first.execute("SELECT * FROM nowhere").unwrap_err();
    assert!(format!("{message:#}").contains("relation \"nowhere\" does not exist"), "{message:#}");
}

#[test]
fn a_server_outlives_the_thread_that_started_it_and_not_the_process() {
    let postgres = require(Postgres::shared());
    let elsewhere = std::thread::spawn(|| Postgres::start(Fsync::Off).unwrap()).join().unwrap();
    assert_eq!(elsewhere.execute("SELECT 1").unwrap(), "1");
    drop((postgres, elsewhere));

    let (server, _) = orphaned("postgres");
    assert!(eventually(LIMIT, || (!alive(server)).then_some(())).is_some(), "process {server} lives on");
}
