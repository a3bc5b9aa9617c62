//! Workspaces: one of each name, no more than there may be, and all of them gone with their environment.

use kernel::{BlobHash, EnvId, PlaceId, SandboxId, TenantId, Timestamp, WorkspaceId, WorkspaceSnapshotId};
use store::{Ended, Kept, Most, Served, Workspace, WorkspaceSnapshot};

use crate::place::{Place, now};

fn wanted(tenant: TenantId, env: EnvId, name: &str) -> Workspace {
    let created = now();
    Workspace {
        id: WorkspaceId::new(),
        env,
        tenant,
        name: name.to_owned(),
        sandbox: SandboxId::new(),
        quota_bytes: 1 << 40,
        created,
        used: created,
        kept: Kept::Unsaid,
        archive: None,
        template: "node".to_owned(),
        isolation: Some("gvisor".to_owned()),
        frozen: None,
        ended: None,
    }
}

fn most(of_env: i64) -> Most {
    Most { of_env, of_owner: 9 }
}

pub async fn an_owner_has_no_more_than_it_may_however_many_are_asked_for_at_once(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let most = Most { of_env: 20, of_owner: 3 };
    let names =
        (0..8).map(|n| format!("key_1/{n}")).chain(["key_1", "key_12/0", "keyx1/0"].map(str::to_owned));
    let asking = names.map(|name| {
        let store = store.clone();
        tokio::spawn(async move {
            store.workspaces().get_or_insert(&wanted(tenant, env, &name), most).await.unwrap()
        })
    });
    for asked in asking.collect::<Vec<_>>() {
        asked.await.unwrap();
    }
    let mut there: Vec<_> =
        store.workspaces().list(env).await.unwrap().into_iter().map(|it| it.name).collect();
    there.retain(|name| !name.starts_with("key_1/"));
    assert_eq!(there, ["key_1", "key_12/0", "keyx1/0"]);
    assert_eq!(store.workspaces().list(env).await.unwrap().len(), 3 + there.len());
}

pub async fn of_many_who_want_a_workspace_all_get_the_same(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let asking = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            store.workspaces().get_or_insert(&wanted(tenant, env, "own"), most(2)).await.unwrap().unwrap()
        })
    });
    let mut given = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        given.push(asked.await.unwrap());
    }
    assert!(given.iter().all(|it| *it == given[0]), "{given:?}");
    let second = wanted(tenant, env, "second");
    assert_eq!(store.workspaces().get_or_insert(&second, most(2)).await.unwrap().as_ref(), Some(&second));
    assert_eq!(store.workspaces().get_or_insert(&wanted(tenant, env, "third"), most(2)).await.unwrap(), None);
    // Who has one has it, however many there are.
    let again = store.workspaces().get_or_insert(&wanted(tenant, env, "own"), most(2)).await.unwrap();
    assert_eq!(again.as_ref(), Some(&given[0]));
    assert_eq!(store.workspaces().list(env).await.unwrap(), [given[0].clone(), second]);
    let nowhere = wanted(tenant, EnvId::new(), "own");
    assert_eq!(store.workspaces().get_or_insert(&nowhere, most(2)).await.unwrap(), None);
}

pub async fn a_workspace_is_found_used_and_goes_with_its_snapshots(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let records = store.workspaces();
    let made = records.get_or_insert(&wanted(tenant, env, "own"), most(9)).await.unwrap().unwrap();
    assert_eq!(records.find(env, "own").await.unwrap().as_ref(), Some(&made));
    assert_eq!(records.find(env, "other").await.unwrap(), None);
    assert_eq!(records.of_sandbox(made.sandbox).await.unwrap().as_ref(), Some(&made));
    assert_eq!(records.of_sandbox(SandboxId::new()).await.unwrap(), None);
    let later = Timestamp::from_micros(made.used.as_micros() + 1);
    records.touch(made.id, later).await.unwrap();
    assert_eq!(records.find(env, "own").await.unwrap(), Some(Workspace { used: later, ..made.clone() }));

    let snapshot = |name: Option<&str>, after: i64| WorkspaceSnapshot {
        id: WorkspaceSnapshotId::new(),
        workspace: made.id,
        name: name.map(str::to_owned),
        created: Timestamp::from_micros(made.created.as_micros() + after),
        digest: name.map(|name| BlobHash::of(name.as_bytes())),
        layer: name.map(|_| "node-1".to_owned()),
        bytes: after.unsigned_abs() << 33,
    };
    let (first, second) = (snapshot(Some("first"), 1), snapshot(None, 2));
    for it in [&first, &second] {
        records.insert_snapshot(it).await.unwrap();
    }
    assert_eq!(records.snapshots(made.id).await.unwrap(), [second.clone(), first.clone()]);
    assert_eq!(records.snapshot_bytes(tenant).await.unwrap(), 3 << 33);
    assert_eq!(records.snapshot_bytes(TenantId::new()).await.unwrap(), 0);
    let (workspaces, mut snapshots) = records.ids().await.unwrap();
    snapshots.sort();
    assert_eq!((workspaces, snapshots), (vec![made.id], vec![first.id, second.id]));
    records.remove_snapshot(second.id).await.unwrap();
    assert_eq!(records.snapshots(made.id).await.unwrap(), [first]);
    records.remove(made.id).await.unwrap();
    assert_eq!(records.ids().await.unwrap(), (Vec::new(), Vec::new()));
    assert!(records.insert_snapshot(&second).await.is_err(), "of nothing");
}

pub async fn files_of_a_workspace_are_in_one_place_whoever_notes_it_at_once(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let records = store.workspaces();
    let made = records.get_or_insert(&wanted(tenant, env, "own"), most(9)).await.unwrap().unwrap();
    let (here, there) = (Kept::At(PlaceId::new()), Kept::At(PlaceId::new()));
    let noting = [here, there].map(|to| {
        let (store, id) = (store.clone(), made.id);
        tokio::spawn(async move { store.workspaces().keep(id, Kept::Unsaid, to, None).await.unwrap() })
    });
    let mut won = Vec::new();
    for noted in noting {
        won.push(noted.await.unwrap());
    }
    won.sort_unstable();
    assert_eq!(won, [false, true]);
    let kept = records.find(env, "own").await.unwrap().unwrap().kept;
    let Kept::At(at) = kept else { panic!("{kept:?}") };
    let (before, after) = (made.used, Timestamp::from_micros(made.used.as_micros() + 1));
    assert_eq!(records.unused(at, before, 9).await.unwrap(), []);
    assert_eq!(records.unused(PlaceId::new(), after, 9).await.unwrap(), []);
    assert_eq!(records.unused(at, after, 9).await.unwrap().len(), 1);
    let snapshot = WorkspaceSnapshotId::new();
    let kept_snapshot = WorkspaceSnapshot {
        id: WorkspaceSnapshotId::new(),
        workspace: made.id,
        name: None,
        created: made.created,
        digest: None,
        layer: None,
        bytes: 0,
    };
    records.insert_snapshot(&kept_snapshot).await.unwrap();
    assert!(records.keep(made.id, kept, Kept::Archived, Some(snapshot)).await.unwrap());
    assert!(!records.keep(made.id, kept, Kept::Archived, None).await.unwrap(), "it is elsewhere by now");
    // What is archived has nothing on this machine.
    assert_eq!(records.ids().await.unwrap(), (Vec::new(), Vec::new()));
    records.freeze(made.id, Some(snapshot)).await.unwrap();
    records.ended(made.id, Some(Ended::OutOfMemory), after).await.unwrap();
    let expected = Workspace {
        kept: Kept::Archived,
        archive: Some(snapshot),
        frozen: Some(snapshot),
        ended: Some(Ended::OutOfMemory),
        used: after,
        ..made
    };
    assert_eq!(records.find(env, "own").await.unwrap(), Some(expected));
}

pub async fn ports_of_a_workspace_are_public_until_they_are_not_and_go_with_it(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let records = store.workspaces();
    let made = records.get_or_insert(&wanted(tenant, env, "own"), most(9)).await.unwrap().unwrap();
    let other = records.get_or_insert(&wanted(tenant, env, "other"), most(9)).await.unwrap().unwrap();
    // Of many at once as many as there may be.
    let asking = (1..=8).map(|port| {
        let (store, id) = (store.clone(), made.id);
        tokio::spawn(async move { store.workspaces().publish(id, port, 3).await.unwrap() })
    });
    let mut public = 0;
    for asked in asking.collect::<Vec<_>>() {
        public += usize::from(asked.await.unwrap());
    }
    let ports = records.public_ports(made.id).await.unwrap();
    assert_eq!((public, ports.len()), (3, 3));
    assert!(records.publish(made.id, ports[0], 3).await.unwrap(), "it is already");
    records.unpublish(made.id, ports[0]).await.unwrap();
    records.unpublish(made.id, ports[0]).await.unwrap();
    assert!(records.publish(made.id, 65_535, 3).await.unwrap());
    assert_eq!(records.public_ports(made.id).await.unwrap(), [ports[1], ports[2], 65_535]);
    assert_eq!(records.public_ports(other.id).await.unwrap(), [0; 0]);
    records.remove(made.id).await.unwrap();
    assert!(!records.publish(made.id, 80, 3).await.unwrap(), "of nothing");
    assert_eq!(records.public_ports(made.id).await.unwrap(), [0; 0]);
}

pub async fn ports_of_a_workspace_have_commands_until_they_have_not_and_go_with_it(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let records = store.workspaces();
    let made = records.get_or_insert(&wanted(tenant, env, "own"), most(9)).await.unwrap().unwrap();
    let other = records.get_or_insert(&wanted(tenant, env, "other"), most(9)).await.unwrap().unwrap();
    let served = |port, command: &str| Served { port, command: command.to_owned(), cwd: None };
    // Of many at once as many as there may be.
    let asking = (1..=8).map(|port| {
        let (store, id, served) = (store.clone(), made.id, served(port, "a"));
        tokio::spawn(async move { store.workspaces().serve(id, &served, 3).await.unwrap() })
    });
    let mut noted = 0;
    for asked in asking.collect::<Vec<_>>() {
        noted += usize::from(asked.await.unwrap());
    }
    let there = records.served(made.id).await.unwrap();
    assert_eq!((noted, there.len()), (3, 3));
    // Another one takes its place.
    let changed = Served { cwd: Some("app".to_owned()), ..served(there[0].port, "b") };
    assert!(records.serve(made.id, &changed, 3).await.unwrap());
    assert!(!records.serve(made.id, &served(9, "c"), 3).await.unwrap());
    records.unserve(made.id, there[1].port).await.unwrap();
    records.unserve(made.id, there[1].port).await.unwrap();
    assert!(records.serve(made.id, &served(65_535, "c"), 3).await.unwrap());
    let expected = [changed, there[2].clone(), served(65_535, "c")];
    assert_eq!(records.served(made.id).await.unwrap(), expected);
    assert_eq!(records.served(other.id).await.unwrap(), []);
    records.remove(made.id).await.unwrap();
    assert!(!records.serve(made.id, &served(80, "a"), 3).await.unwrap(), "of nothing");
    assert_eq!(records.served(made.id).await.unwrap(), []);
}

pub async fn an_environment_demands_until_it_does_not(place: &Place) {
    let (store, tenant, env) = place.with_env().await;
    let demands = store.demands();
    assert_eq!(demands.get(env).await.unwrap(), None);
    for demanded in [Some("gvisor"), Some("namespaces"), None, None] {
        assert!(demands.set(env, demanded).await.unwrap());
        assert_eq!(demands.get(env).await.unwrap().as_deref(), demanded);
    }
    // With the environment it goes, and so do the commands of its sandboxes' ports.
    let made = store.workspaces().get_or_insert(&wanted(tenant, env, "own"), most(9)).await.unwrap().unwrap();
    let served = Served { port: 80, command: "serve".to_owned(), cwd: None };
    assert!(store.workspaces().serve(made.id, &served, 3).await.unwrap());
    assert!(demands.set(env, Some("gvisor")).await.unwrap());
    store.environments().begin_delete(env).await.unwrap();
    assert!(store.environments().remove(env).await.unwrap());
    assert_eq!(demands.get(env).await.unwrap(), None);
    assert_eq!(store.workspaces().served(made.id).await.unwrap(), []);
    let nowhere = EnvId::new();
    assert!(!demands.set(nowhere, Some("gvisor")).await.unwrap());
    assert_eq!(demands.get(nowhere).await.unwrap(), None);
}
