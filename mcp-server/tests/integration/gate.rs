//! The gate over the real control plane.

use control::{Control, ControlConfig};
use expect_test::expect;
use kernel::{Result, Surface};
use mcp_server::gate::{Gate, Shown};

fn told<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{error:?} ({})", error.advice().unwrap_or("no hint")),
    }
}

#[tokio::test]
async fn credentials_and_environments_are_checked_by_the_control_plane() {
    let data = testkit::temporary().unwrap();
    let (control, first) = Control::open(ControlConfig::new(data.path().join("data"))).await.unwrap();
    let operator = first.operator_key.unwrap();
    let environment = control.environments().unfinished().await.unwrap().remove(0);
    let ask = async |bearer: Option<&str>, env: Option<&str>, tenant: Option<&str>| {
        let caller = control
            .caller(Shown { bearer, env, tenant, surface: Surface::Mcp, source: None, at: None })
            .await;
        told(caller.map(|caller| (caller.surface, caller.env == Some(environment.id))))
    };
    let key = Some(operator.expose());
    let shown = Shown { bearer: key, env: None, tenant: None, surface: Surface::Mcp, source: None, at: None };
    let homeless = control.caller(shown).await.unwrap();
    let mut all = vec![ask(None, None, None).await, ask(Some("wrong"), None, None).await];
    all.push(ask(key, Some("default"), None).await);
    all.push(told::<()>(Err(control.missing_env(&homeless).await)));
    control.environments().ready(&environment).await.unwrap();
    all.push(ask(key, Some("default"), None).await);
    all.push(ask(key, Some("default"), Some("nobody")).await);
    all.push(told::<()>(Err(control.missing_env(&homeless).await)));
    expect![[r#"
        unauthenticated there is no credential (send Authorization: Bearer with a key; `steading key create` makes one)
        unauthenticated the credential is not valid (send Authorization: Bearer with a key, or with a token that has not expired)
        not_found there is no environment "default" (no hint)
        invalid_input this call needs an environment; there is none yet: make one with env_create (name one with the header Steading-Env, or use /mcp/<environment>)
        (Mcp, true)
        not_found there is no tenant "nobody" (no hint)
        invalid_input this call needs an environment; there are: default (name one with the header Steading-Env, or use /mcp/<environment>)
    "#]].assert_eq(&format!("{}\n", all.join("\n")));
    control.close().await;
}
