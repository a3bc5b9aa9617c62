//! Who gets in, how far, and until when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use control::NewKey;
use expect_test::expect;
use kernel::{Code, EnvId, KeyId, Scope, Scopes, Surface};

use crate::platform::{Platform, key, said, scopes};

#[tokio::test]
async fn what_is_no_credential_gets_the_same_words() {
    let platform = Platform::new().await;
    let good = platform.operator_key.expose();
    let mut other = good.to_owned();
    other.replace_range(12..13, if &good[12..13] == "A" { "B" } else { "A" });
    let long = "a".repeat(1 << 20);
    let as_tenant = good.replace("stead_op_", "stead_key_");
    for bad in [
        "",
        " ",
        "Bearer x",
        &good[..good.len() - 1],
        &format!("{good} "),
        &other,
        &long,
        &as_tenant,
        "a.b.c",
    ] {
        let refused = platform.control.authenticate(bad, Surface::Http, None).await;
        assert_eq!(said(refused), "unauthenticated the credential is not valid");
    }
}

#[tokio::test]
async fn a_key_carries_what_its_level_can_and_no_more_than_its_maker() {
    let platform = Platform::new().await;
    let keys = platform.control.keys();
    let (_, wide) = platform.key(&platform.operator, None).await;
    let (_, bound) = platform.key(&platform.operator, Some(&platform.default)).await;
    // Code is run by who has asked for it.
    let usual = |scopes: Scopes| scopes.without(Scope::SandboxUse);
    assert_eq!((wide.scopes, wide.env), (usual(Scopes::of_tenant()), None));
    assert_eq!((bound.scopes, bound.env), (usual(Scopes::of_environment()), Some(platform.default.id)));
    let runner = NewKey { scopes: Some(scopes(&[Scope::SandboxUse])), ..key("runner") };
    assert_eq!(
        keys.create(&platform.operator, runner).await.unwrap().key.scopes,
        scopes(&[Scope::SandboxUse])
    );
    let beyond = NewKey { scopes: Some(scopes(&[Scope::SandboxUse])), ..key("beyond") };
    assert_eq!(keys.create(&wide, beyond).await.unwrap_err().code(), Code::Forbidden);

    let narrow = NewKey { scopes: Some(scopes(&[Scope::KeyAdmin, Scope::DbRead])), ..key("narrow") };
    let narrow = keys.create(&wide, narrow).await.unwrap();
    let narrow = platform.control.authenticate(narrow.secret.expose(), Surface::Http, None).await.unwrap();
    let child = keys.create(&narrow, key("child")).await.unwrap();
    assert_eq!(child.key.scopes, narrow.scopes, "it inherits");

    let with = |list: &[Scope]| NewKey { scopes: Some(scopes(list)), ..key("more") };
    let env = Some(platform.default.id);
    let mut table = String::new();
    for (what, result) in [
        ("more than its maker", keys.create(&narrow, with(&[Scope::DbWrite])).await),
        ("the operator's", keys.create(&platform.operator, with(&[Scope::TenantAdmin])).await),
        ("the tenant's, bound", keys.create(&wide, NewKey { env, ..with(&[Scope::EnvWrite]) }).await),
        ("nothing", keys.create(&wide, with(&[])).await),
        ("no right to make keys", keys.create(&bound, key("x")).await),
        ("no name", keys.create(&wide, key(" ")).await),
        ("a long name", keys.create(&wide, key(&"x".repeat(101))).await),
        ("no life", keys.create(&wide, NewKey { expires_in: Some(Duration::ZERO), ..key("x") }).await),
    ] {
        table.push_str(&format!("{what}: {}\n", said(result)));
    }
    expect![[r#"
        more than its maker: forbidden /scopes: the credential lacks the scope db:write
        the operator's: invalid_input /scopes: a key of a tenant cannot carry tenant:admin
        the tenant's, bound: invalid_input /scopes: a key bound to an environment cannot carry env:write
        nothing: invalid_input /scopes: a key needs at least one scope
        no right to make keys: forbidden the credential lacks the scope key:admin
        no name: invalid_input /name: the name must have 1 to 100 characters, none of them a control character
        a long name: invalid_input /name: the name must have 1 to 100 characters, none of them a control character
        no life: invalid_input /expires_in: a key must live for a while
    "#]]
    .assert_eq(&table);
}

#[tokio::test]
async fn a_key_ends_and_its_children_end_no_later() {
    let platform = Platform::new().await;
    let soon = NewKey { expires_in: Some(Duration::from_millis(300)), ..key("short") };
    let made = platform.control.keys().create(&platform.operator, soon).await.unwrap();
    let caller = platform.control.authenticate(made.secret.expose(), Surface::Http, None).await.unwrap();
    let child = NewKey { expires_in: Some(Duration::from_secs(60)), ..key("child") };
    let child = platform.control.keys().create(&caller, child).await.unwrap();
    assert_eq!(child.key.expires, made.key.expires);
    let ended = async {
        loop {
            match platform.control.authenticate(made.secret.expose(), Surface::Http, None).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => return error,
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
    assert_eq!(format!("{ended:?}"), "unauthenticated the credential has expired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_key_opens_nothing_however_busy_it_is() {
    let platform = Arc::new(Platform::new().await);
    for _ in 0..20 {
        let (secret, caller) = platform.key(&platform.operator, None).await;
        let mut users = Vec::new();
        for _ in 0..4 {
            let (platform, secret) = (Arc::clone(&platform), secret.clone());
            users.push(tokio::spawn(async move {
                while platform.control.authenticate(secret.expose(), Surface::Mcp, None).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            }));
        }
        platform.control.keys().revoke(&platform.operator, caller.credential).await.unwrap();
        for _ in 0..50 {
            let tried = platform.control.authenticate(secret.expose(), Surface::Http, None).await;
            assert_eq!(said(tried), "unauthenticated the credential is not valid");
        }
        for user in users {
            user.await.unwrap();
        }
    }
}

#[tokio::test]
async fn keys_are_seen_and_revoked_within_ones_own_reach() {
    let platform = Platform::new().await;
    let keys = platform.control.keys();
    let (_, acme) = platform.key(&platform.operator, None).await;
    let zeta = platform.tenant("zeta").await;
    let (_, zeta_key) = platform.key(&zeta, None).await;
    let env = platform.env(&acme, "shop").await;
    let in_env = platform.control.select_env(&acme, Some("shop"), None).await.unwrap();
    let (_, bound) = platform.key(&in_env, None).await;
    assert_eq!(bound.env, Some(env.id), "a maker in an environment makes keys of it");

    let ids = async |caller| {
        let list = keys.list(caller, None, 100).await.unwrap();
        list.into_iter().map(|key| key.id).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&acme).await, BTreeSet::from([acme.credential, bound.credential]));
    assert_eq!(ids(&in_env).await, BTreeSet::from([bound.credential]));
    assert_eq!(ids(&zeta_key).await, BTreeSet::from([zeta_key.credential]));

    let missing = KeyId::new();
    let words = |id: KeyId| format!("not_found there is no key \"{id}\"");
    assert_eq!(said(keys.revoke(&acme, missing).await), words(missing));
    assert_eq!(said(keys.revoke(&acme, zeta_key.credential).await), words(zeta_key.credential));
    assert_eq!(said(keys.revoke(&in_env, acme.credential).await), words(acme.credential));
    let operator = platform.operator.credential;
    assert_eq!(said(keys.revoke(&platform.operator, operator).await), words(operator));
    assert_eq!(said(keys.list(&bound, None, 10).await), "forbidden the credential lacks the scope key:admin");
    assert_eq!(said(keys.list(&acme, None, 0).await), "invalid_input /limit: the limit must be 1 to 100");
    keys.revoke(&in_env, bound.credential).await.unwrap();
}

#[tokio::test]
async fn an_environment_is_reached_by_those_who_may_and_missing_for_all_others() {
    let platform = Platform::new().await;
    let control = &platform.control;
    let (_, acme) = platform.key(&platform.operator, None).await;
    let zeta = platform.tenant("zeta").await;
    let (_, zeta_key) = platform.key(&zeta, None).await;
    let (one, two) = (platform.env(&acme, "one").await, platform.env(&acme, "two").await);
    let foreign = platform.env(&zeta, "foreign").await;
    let (_, bound) = platform.key(&acme, Some(&one)).await;

    let reach = async |caller: &Arc<_>, env: Option<&str>, tenant: Option<&str>| match control
        .select_env(caller, env, tenant)
        .await
    {
        Ok(chosen) => Ok((chosen.tenant, chosen.env)),
        Err(error) => {
            assert_eq!(error.code(), Code::NotFound);
            Err(error.message().to_owned())
        }
    };
    let id = one.id.to_string();
    let loud = id.to_uppercase().replace("ENV_", "env_");
    for name in ["one", &id, &loud] {
        for caller in [&acme, &bound, &platform.operator] {
            assert_eq!(reach(caller, Some(name), None).await, Ok((acme.tenant, Some(one.id))));
        }
    }
    let no = |what: &str, name: &str| Err(format!("there is no {what} {name:?}"));
    assert_eq!(reach(&bound, None, None).await, Ok((acme.tenant, Some(one.id))));
    assert_eq!(reach(&acme, None, None).await, Ok((acme.tenant, None)));
    assert_eq!(reach(&bound, Some("two"), None).await, no("environment", "two"));
    assert_eq!(reach(&acme, Some("two"), None).await, Ok((acme.tenant, Some(two.id))));

    // Another's, one that never was, and texts that are no name: the same words.
    let (theirs, never) = (foreign.id.to_string(), EnvId::new().to_string());
    for name in ["foreign", "missing", &theirs, &never, "", "../one", "ONE", "' OR 1=1 --", "é"] {
        assert_eq!(reach(&acme, Some(name), None).await, no("environment", name));
        assert_eq!(reach(&bound, Some(name), None).await, no("environment", name));
    }
    assert_eq!(reach(&acme, None, Some("default")).await, Ok((acme.tenant, None)));
    for name in ["zeta", "missing", &zeta.tenant.to_string()] {
        assert_eq!(reach(&acme, None, Some(name)).await, no("tenant", name));
    }

    // The operator: any tenant, any environment, and no mixture of two tenants.
    let operator = &platform.operator;
    assert_eq!(reach(operator, Some("foreign"), None).await, Ok((zeta.tenant, Some(foreign.id))));
    assert_eq!(reach(operator, Some("foreign"), Some("zeta")).await, Ok((zeta.tenant, Some(foreign.id))));
    assert_eq!(reach(operator, Some("one"), Some("zeta")).await, no("environment", "one"));
    assert_eq!(reach(operator, None, Some(&zeta.tenant.to_string())).await, Ok((zeta.tenant, None)));

    assert_eq!(control.env_slugs(&acme).await.unwrap(), ["default", "one", "two"]);
    assert_eq!(control.env_slugs(&bound).await.unwrap(), ["one"]);
    assert_eq!(control.env_slugs(&zeta_key).await.unwrap(), ["foreign"]);
}

#[tokio::test]
async fn no_key_is_made_for_an_environment_out_of_reach() {
    let platform = Platform::new().await;
    let (_, acme) = platform.key(&platform.operator, None).await;
    let zeta = platform.tenant("zeta").await;
    let foreign = platform.env(&zeta, "foreign").await;
    let own = platform.env(&acme, "own").await;
    let in_own = platform.control.select_env(&acme, Some("own"), None).await.unwrap();
    for (maker, env) in [(&acme, foreign.id), (&acme, EnvId::new()), (&in_own, platform.default.id)] {
        let made = platform.control.keys().create(maker, NewKey { env: Some(env), ..key("x") }).await;
        assert_eq!(said(made), format!("not_found /env: there is no environment \"{env}\""));
    }
    let made = platform.control.keys().create(&in_own, NewKey { env: Some(own.id), ..key("x") }).await;
    assert_eq!(made.unwrap().key.env, Some(own.id));
}

#[tokio::test]
async fn a_key_prints_nothing_of_itself_and_is_stored_nowhere() {
    let platform = Platform::new().await;
    let made = platform.control.keys().create(&platform.operator, key("ci")).await.unwrap();
    let random = made.secret.expose().strip_prefix("stead_key_").unwrap();
    assert!(!format!("{made:?}").contains(random));
    platform.control.close().await;
    let stored = std::fs::read(platform.path().join("control.db")).unwrap();
    for secret in [random, &platform.operator_key.expose()[9..]] {
        assert!(!stored.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
}
