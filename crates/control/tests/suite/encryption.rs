//! Data keys: one tenant's open nothing of another's, a rotation dies nowhere, and no key is made up where one is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use control::{Control, ControlConfig, EncryptionKeys, OpenError};
use kernel::{Caller, Code, Env, Proof, Secret, Surface, Timestamp};
use store::{Location, Rewrapped, SealedSecret, Store};
use tempfile::TempDir;

use crate::platform::{Platform, proof, said, tenant};

const VALUE: &str = "hunter2-hunter2-hunter2";
const BROKEN: &str =
    "internal internal error: a sealed value does not open: it was changed, or belongs elsewhere";

async fn store(data: &Path) -> Store {
    Store::open(&Location::Sqlite(data.join("control.db"))).await.unwrap()
}

async fn reopen(data: &Path) -> Result<Control, OpenError> {
    Control::open(ControlConfig::new(data)).await.map(|(control, _)| control)
}

async fn keep(control: &Control, env: &Env, name: &str) {
    control.secrets().set(env, name, &Secret::new(VALUE)).await.unwrap();
}

async fn opens(control: &Control, env: &Env, name: &str) {
    assert_eq!(control.secrets().reveal(env, name).await.unwrap().expose(), VALUE);
}

async fn rotate(control: &Control, operator: &Caller) -> EncryptionKeys {
    control.rotate_encryption_keys(operator).await.unwrap()
}

/// An environment of another tenant.
async fn others(platform: &Platform) -> (Arc<Caller>, Env) {
    let caller = platform.tenant("acme").await;
    let env = proof(&platform.env(&caller, "shop").await);
    (caller, env)
}

#[tokio::test]
async fn each_tenant_has_a_key_and_its_values_open_for_nobody_else() {
    let platform = Platform::new().await;
    let (control, env) = (&platform.control, proof(&platform.default));
    let (_, other) = others(&platform).await;
    assert_eq!(
        control.encryption_keys(&platform.operator).await.unwrap().data_keys.len(),
        2,
        "made when needed"
    );
    for env in [&env, &other] {
        keep(control, env, "A").await;
    }
    let store = store(platform.path()).await;
    let sealed = async |env: &Env| store.secrets().sealed(env.id(), "A").await.unwrap().unwrap();
    let (ours, theirs) = (sealed(&env).await, sealed(&other).await);
    assert_ne!(ours.data_key, theirs.data_key);
    let put = async |secret: SealedSecret| {
        store.secrets().set(env.id(), &secret, Timestamp::now()).await.unwrap().unwrap();
        said(control.secrets().reveal(&env, "A").await.map(drop))
    };
    assert_eq!(put(theirs.clone()).await, BROKEN);
    let (id, their_id) = (ours.data_key.clone().unwrap(), theirs.data_key.clone().unwrap());
    assert_eq!(
        put(SealedSecret { sealed: theirs.sealed.replace(&their_id, &id), ..ours.clone() }).await,
        BROKEN
    );
    for cut in [0, 2, 3, 10, 30, ours.sealed.len() - 1] {
        assert_eq!(
            put(SealedSecret { sealed: ours.sealed[..cut].to_owned(), ..ours.clone() }).await,
            BROKEN,
            "{cut}"
        );
    }
    assert_eq!(put(ours).await, "ok");

    // The keys of the two change places: neither is the other's.
    control.close().await;
    let wrapped = async |id: &str| store.data_keys().find(id).await.unwrap().unwrap();
    let (first, second) = (wrapped(&id).await, wrapped(&their_id).await);
    let swapped = [(id, second.wrapped), (their_id, first.wrapped)];
    assert_eq!(
        store.data_keys().rewrap(&first.kek, &first.kek, &swapped, None).await.unwrap(),
        Rewrapped::All
    );
    let control = reopen(platform.path()).await.unwrap();
    for env in [&env, &other] {
        let refused = control.secrets().reveal(env, "A").await;
        assert_eq!(
            said(refused),
            "internal internal error: a data key does not open: it was changed, or belongs elsewhere"
        );
    }
}

#[tokio::test]
async fn after_a_rotation_everything_opens_by_other_keys() {
    let platform = Platform::new().await;
    let (control, env) = (&platform.control, proof(&platform.default));
    let (caller, other) = others(&platform).await;
    assert!(control.rotate_encryption_keys(&caller).await.is_ok(), "it is the operator, in another tenant");
    let nobody = platform.key(&caller, None).await.1;
    assert_eq!(control.rotate_encryption_keys(&nobody).await.unwrap_err().code(), Code::Forbidden);
    assert_eq!(control.encryption_keys(&nobody).await.unwrap_err().code(), Code::Forbidden);

    for n in 0..250 {
        keep(control, &env, &format!("A{n}")).await;
    }
    keep(control, &other, "A").await;
    let kid = control.app_keys().kid(&env).await.unwrap();
    let (before, file) =
        (control.encryption_keys(&platform.operator).await.unwrap(), master(platform.path()));
    let after = rotate(control, &platform.operator).await;
    assert_ne!(master(platform.path()), file);
    assert!(!platform.path().join("keys/master.next").exists());
    assert_ne!(after.in_force, before.in_force);
    assert_eq!((after.older_values, after.is_here), (0, true));
    let ids = |keys: &EncryptionKeys| keys.data_keys.iter().map(|key| key.id.clone()).collect::<Vec<_>>();
    assert_eq!(
        ids(&before).iter().filter(|id| ids(&after).contains(id)).count(),
        2,
        "the platform's own stay"
    );
    assert!(
        after.data_keys.iter().all(|key| key.retired.is_none()),
        "what is not needed has gone: {after:?}"
    );
    for env in [(&env, "A0"), (&env, "A249"), (&other, "A")] {
        opens(control, env.0, env.1).await;
    }
    assert_eq!(control.secrets().names(&env).await.unwrap()[0].version, 1, "nobody has set it");
    control.close().await;
    let control = reopen(platform.path()).await.unwrap();
    opens(&control, &env, "A7").await;
    assert_eq!(control.app_keys().kid(&env).await.unwrap(), kid);
    let operator = platform.operator_key.expose();
    assert!(control.authenticate(operator, Surface::Http, None).await.is_ok());

    // What the old file opened is wrapped by another one.
    control.close().await;
    fs::write(platform.path().join("keys/master"), &file).unwrap();
    assert!(matches!(reopen(platform.path()).await, Err(OpenError::MasterForeign { .. })));
}

fn master(data: &Path) -> Vec<u8> {
    fs::read(data.join("keys/master")).unwrap()
}

#[tokio::test]
async fn who_dies_over_a_rotation_leaves_all_readable() {
    let platform = Platform::new().await;
    let env = proof(&platform.default);
    keep(&platform.control, &env, "A").await;
    let keys = platform.path().join("keys");
    let old = master(platform.path());
    platform.control.close().await;
    // After the key was made, and before the database knew of it.
    fs::write(keys.join("master.next"), [7; 32]).unwrap();
    let control = reopen(platform.path()).await.unwrap();
    opens(&control, &env, "A").await;
    assert_eq!(master(platform.path()), old);
    rotate(&control, &platform.operator).await;
    let new = master(platform.path());
    control.close().await;
    // After the database knew of it, and before it took the old one's place.
    fs::rename(keys.join("master"), keys.join("master.next")).unwrap();
    fs::write(keys.join("master"), &old).unwrap();
    let control = reopen(platform.path()).await.unwrap();
    opens(&control, &env, "A").await;
    assert_eq!(master(platform.path()), new);
    assert!(!keys.join("master.next").exists());
    // Before what older keys have sealed was sealed anew.
    let store = store(platform.path()).await;
    let all = store.data_keys().all().await.unwrap();
    let wrapped: Vec<_> = all.iter().map(|key| (key.id.clone(), key.wrapped.clone())).collect();
    let kek = all[0].kek.clone();
    store.data_keys().rewrap(&kek, &kek, &wrapped, Some(Timestamp::now())).await.unwrap();
    assert_eq!(control.encryption_keys(&platform.operator).await.unwrap().older_values, 1);
    opens(&control, &env, "A").await;
    // This gateway still thinks that the old one seals.
    keep(&control, &env, "B").await;
    control.upkeep().await.unwrap();
    control.upkeep().await.unwrap();
    assert_eq!(control.encryption_keys(&platform.operator).await.unwrap().older_values, 0);
    for name in ["A", "B"] {
        opens(&control, &env, name).await;
    }
}

#[tokio::test]
async fn no_rotation_begins_over_a_key_that_is_nowhere_else() {
    let platform = Platform::new().await;
    let (control, env) = (&platform.control, proof(&platform.default));
    keep(control, &env, "A").await;
    let keys = platform.path().join("keys");
    let old = master(platform.path());
    rotate(control, &platform.operator).await;
    // The disk was full when the new one should have taken the old one's place.
    let new = master(platform.path());
    fs::rename(keys.join("master"), keys.join("master.next")).unwrap();
    fs::write(keys.join("master"), &old).unwrap();
    rotate(control, &platform.operator).await;
    assert!(![old, new].contains(&master(platform.path())) && !keys.join("master.next").exists());

    let newest = master(platform.path());
    let before = control.encryption_keys(&platform.operator).await.unwrap();
    for there in [None, Some([3; 32])] {
        fs::remove_file(keys.join("master")).unwrap();
        if let Some(bytes) = there {
            fs::write(keys.join("master"), bytes).unwrap();
        }
        let refused = control.rotate_encryption_keys(&platform.operator).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.advice().unwrap().contains("keys/master"));
        assert!(!keys.join("master.next").exists());
        fs::write(keys.join("master"), &newest).unwrap();
    }
    assert_eq!(control.encryption_keys(&platform.operator).await.unwrap(), before);
    control.close().await;
    opens(&reopen(platform.path()).await.unwrap(), &env, "A").await;
}

#[tokio::test]
async fn a_value_that_does_not_open_holds_up_no_other() {
    let platform = Platform::new().await;
    let env = proof(&platform.default);
    for name in ["A", "B", "C"] {
        keep(&platform.control, &env, name).await;
    }
    let store = store(platform.path()).await;
    let there = store.secrets().sealed(env.id(), "A").await.unwrap().unwrap();
    let broken = SealedSecret { sealed: "v2.x.y".to_owned(), ..there };
    store.secrets().set(env.id(), &broken, Timestamp::now()).await.unwrap().unwrap();
    let after = rotate(&platform.control, &platform.operator).await;
    assert_eq!(
        (after.older_values, after.data_keys.len()),
        (1, 4),
        "its key stays, for a backup may bring it back"
    );
    opens(&platform.control, &env, "C").await;
}

#[tokio::test]
async fn a_tenant_that_is_gone_takes_its_key_along() {
    let platform = Platform::new().await;
    let (caller, other) = others(&platform).await;
    keep(&platform.control, &other, "A").await;
    let all = async || platform.control.encryption_keys(&platform.operator).await.unwrap().data_keys;
    let owner = other.tenant().to_string();
    assert!(all().await.iter().any(|key| key.owner == owner));
    let envs = platform.control.environments();
    let token = envs.confirm_delete(&tenant(&caller), "shop", b"").await.unwrap().token;
    let env = envs.begin_delete(&tenant(&caller), "shop", b"", &token).await.unwrap();
    envs.finish_delete(&env).await.unwrap();
    let proof = kernel::Tenant::authorize(&platform.operator, &[kernel::Scope::TenantAdmin]).unwrap();
    platform.control.tenants().delete(&proof, "acme", true).await.unwrap();
    assert!(platform.control.tenants().remove(other.tenant()).await.unwrap());
    assert!(!all().await.iter().any(|key| key.owner == owner));
}

#[tokio::test]
async fn a_gateway_without_the_key_in_force_says_so_and_makes_none_up() {
    let server = testkit::require(testkit::Postgres::shared());
    let url = Secret::new(server.fresh_database().unwrap());
    let first = Platform::with(|config| config.database_url = Some(url.clone())).await;
    let env = proof(&first.default);
    keep(&first.control, &env, "A").await;
    let data = TempDir::new().unwrap();
    let second = async || {
        let config = ControlConfig { database_url: Some(url.clone()), ..ControlConfig::new(data.path()) };
        Control::open(config).await.map(|(control, _)| control)
    };
    assert!(matches!(second().await, Err(OpenError::MasterMissing { .. })));
    let copy = || fs::copy(first.path().join("keys/master"), data.path().join("keys/master")).unwrap();
    copy();
    let beside = second().await.unwrap();
    // Both make the tenant's first key at once.
    let (caller, other) = others(&first).await;
    let ((), ()) = tokio::join!(keep(&first.control, &other, "A"), keep(&beside, &other, "B"));
    for control in [&first.control, &beside] {
        opens(control, &other, "A").await;
        opens(control, &other, "B").await;
    }
    let owner = other.tenant().to_string();
    let owned = first.control.encryption_keys(&first.operator).await.unwrap().data_keys;
    assert_eq!(owned.iter().filter(|key| key.owner == owner).count(), 1);

    rotate(&first.control, &first.operator).await;
    let refused = beside.secrets().set(&other, "C", &Secret::new(VALUE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.advice().unwrap().contains("keys/master"));
    assert_eq!(beside.rotate_encryption_keys(&caller).await.unwrap_err().code(), Code::Unavailable);
    assert!(!beside.encryption_keys(&caller).await.unwrap().is_here);
    assert!(matches!(second().await, Err(OpenError::MasterForeign { .. })));
    copy();
    keep(&beside, &other, "C").await;
    opens(&first.control, &other, "C").await;
    assert!(beside.encryption_keys(&caller).await.unwrap().is_here);
    let (here, there) = tokio::join!(
        first.control.rotate_encryption_keys(&first.operator),
        beside.rotate_encryption_keys(&caller)
    );
    assert!(here.is_ok() != there.is_ok(), "one of two: {here:?} {there:?}");
    beside.close().await;
    first.control.close().await;
}

/// A command that turns letters round and is no more of a secret than that.
const TURNS: &str = "read -r line; printf '%s\\n' \"$line\" | tr 'A-Za-z' 'N-ZA-Mn-za-m'";

struct Script(PathBuf);

impl Script {
    fn new(data: &Path, text: &str) -> Self {
        let script = Self(data.join("kms.sh"));
        script.set(text);
        script
    }

    fn set(&self, text: &str) {
        fs::write(&self.0, text).unwrap();
    }

    fn words(&self) -> Option<Vec<String>> {
        Some(vec!["/bin/sh".to_owned(), self.0.display().to_string()])
    }
}

#[tokio::test]
async fn a_command_has_the_key_and_nothing_goes_on_without_it() {
    let data = TempDir::new().unwrap();
    let script = Script::new(data.path(), TURNS);
    let platform = Platform::with(|config| config.key_command = script.words()).await;
    assert!(!platform.path().join("keys/master").exists());
    let env = proof(&platform.default);
    keep(&platform.control, &env, "A").await;
    assert_eq!(rotate(&platform.control, &platform.operator).await.in_force, "command");
    opens(&platform.control, &env, "A").await;
    platform.control.close().await;

    let open = async |words: Option<Vec<String>>| {
        let config = ControlConfig { key_command: words, ..ControlConfig::new(platform.path()) };
        Control::open(config).await.map(|(control, _)| control)
    };
    let why = async |words| {
        let error = open(words).await.err().unwrap();
        assert!(error.hint().is_some());
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    };
    assert_eq!(
        why(None).await,
        "the data keys of this control database are wrapped by a command, and keys.command names none"
    );
    assert!(!platform.path().join("keys/master").exists(), "no key was made in its place");
    let missing = Some(vec!["/nonexistent/kms".to_owned()]);
    for (text, wanted) in [
        ("exit 1", "it failed: exit status: 1"),
        ("echo 'not a key'", "it did not write 32 bytes as base64"),
        ("true", "it did not write 32 bytes as base64"),
        ("head -c 1000000000 /dev/zero", "it wrote more than 16384 bytes"),
        ("sleep 1000", "it took longer than 10 s"),
        ("kill -9 $$", "it failed: signal: 9 (SIGKILL)"),
    ] {
        script.set(text);
        let said = why(script.words()).await;
        assert_eq!(said, format!("the command that keys.command names gave no key: {wanted}"));
    }
    assert!(why(missing).await.ends_with("it does not start"));
    // Another key of the right length is not the one.
    script.set("head -c 32 /dev/zero | base64");
    assert!(why(script.words()).await.contains("changed"));

    // What is open stays open; what is not waits for the command.
    script.set(TURNS);
    let control = open(script.words()).await.unwrap();
    script.set("exit 1");
    let refused = control.secrets().reveal(&env, "A").await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "the platform's key command gave no key")
    );
    assert!(refused.advice().unwrap().contains("keys.command"));
    script.set(TURNS);
    opens(&control, &env, "A").await;
    script.set("exit 1");
    opens(&control, &env, "A").await;
}

#[tokio::test]
async fn an_installation_with_a_file_is_given_to_a_command() {
    let platform = Platform::new().await;
    let env = proof(&platform.default);
    keep(&platform.control, &env, "A").await;
    platform.control.close().await;
    let data = TempDir::new().unwrap();
    let script = Script::new(data.path(), "exit 1");
    let open = async || {
        let config = ControlConfig { key_command: script.words(), ..ControlConfig::new(platform.path()) };
        Control::open(config).await.map(|(control, _)| control)
    };
    assert!(matches!(open().await, Err(OpenError::KeyCommand(_))));
    let control = reopen(platform.path()).await.unwrap();
    opens(&control, &env, "A").await;
    control.close().await;
    script.set("cat");
    assert!(matches!(open().await, Err(OpenError::KeyCommand(_))), "it gives the key itself");
    script.set(TURNS);
    open().await.unwrap().close().await;
    fs::remove_file(platform.path().join("keys/master")).unwrap();
    let control = open().await.unwrap();
    opens(&control, &env, "A").await;
    control.close().await;
    assert!(matches!(reopen(platform.path()).await, Err(OpenError::KeyCommandMissing)));
}
