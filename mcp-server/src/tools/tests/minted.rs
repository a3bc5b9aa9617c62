//! What belongs to a minted credential: its workspace, what runs there, and the links that it signs.

use std::collections::BTreeSet;
use std::time::Duration;

use capabilities::storage::LinkMethod;
use control::NewToken;
use kernel::{Code, EnvId, Held, KeyId, RunId, Surface};
use sandbox::bridge::Grant;

use super::*;
use crate::bridge::Bridge;
use crate::doors::Doors;

impl Ground {
    /// The operator as who starts the platform is.
    async fn root(&self) -> (Arc<Caller>, EnvId) {
        let key = std::fs::read_to_string(self._dir.path().join("operator.key")).unwrap();
        let caller = self.platform.control.authenticate(key.trim(), Surface::Http, None).await.unwrap();
        (caller, self.operator().await.env.unwrap())
    }

    async fn minted(&self, tools: &[&str]) -> (Arc<Caller>, KeyId) {
        let (root, env) = self.root().await;
        let new = NewToken {
            env,
            scopes: Scopes::all(),
            held: if tools.is_empty() { Held::default() } else { Held::to(tools.iter().copied()) },
            source: None,
            expires_in: Duration::from_secs(600),
            run: None,
        };
        let control = &self.platform.control;
        let minted = control.tokens().mint(&root, new).await.unwrap();
        let caller = control.authenticate(minted.token.expose(), Surface::Http, None).await.unwrap();
        (caller, minted.row.id)
    }

    async fn revoke(&self, id: KeyId) {
        let (root, _) = self.root().await;
        self.platform.control.tokens().revoke(&root, id).await.unwrap();
    }

    async fn call_as(&self, caller: &Arc<Caller>, tool: &str, input: Value) -> Result<Value> {
        let call = Call::new(Arc::clone(caller), tool.to_owned(), input);
        Arc::new(registry()).call(&self.platform, call).await
    }
}

#[tokio::test]
async fn a_workspace_is_its_credentials_while_that_lives() {
    let ground = Ground::new().await;
    let (caller, id) = ground.minted(&[]).await;
    let env = Env::authorize(&caller, &[Scope::SandboxUse]).unwrap();
    let workspace = ground.platform.workspace(&env, &caller).await.unwrap();
    assert!(ground.platform.has_owner(&workspace).await.unwrap());
    // Whoever needs room takes none of it.
    let full = || kernel::Error::new(Code::QuotaExceeded, "full");
    let refused = ground.platform.make_room(&env, full()).await.unwrap_err();
    assert_eq!(refused.code(), Code::QuotaExceeded);
    ground.revoke(id).await;
    assert!(!ground.platform.has_owner(&workspace).await.unwrap());
}

#[tokio::test]
async fn a_key_that_takes_anothers_place_has_its_workspaces() {
    let ground = Ground::new().await;
    let (root, env) = ground.root().await;
    let control = &ground.platform.control;
    let scopes = Some([Scope::SandboxUse, Scope::DbRead].into_iter().collect());
    let new = control::NewKey { name: "agent".into(), env: Some(env), scopes, expires_in: None, cidrs: None };
    let old = control.keys().create(&root, new).await.unwrap();
    let own = async |secret: &kernel::Secret| {
        let caller = control.authenticate(secret.expose(), Surface::Http, None).await.unwrap();
        let env = Env::authorize(&caller, &[Scope::SandboxUse]).unwrap();
        ground.platform.workspace(&env, &caller).await.unwrap()
    };
    let workspace = own(&old.secret).await;
    let mut last = old;
    for overlap in [600, 0] {
        last = control.keys().rotate(&root, last.key.id, Duration::from_secs(overlap)).await.unwrap();
        assert_eq!(own(&last.secret).await, workspace);
        assert!(ground.platform.has_owner(&workspace).await.unwrap());
    }
    control.keys().revoke(&root, last.key.id).await.unwrap();
    assert!(ground.platform.has_owner(&workspace).await.unwrap(), "the first is good for a while");
    let first = workspace.name.parse().unwrap();
    control.keys().revoke(&root, first).await.unwrap();
    assert!(!ground.platform.has_owner(&workspace).await.unwrap());
}

#[tokio::test]
async fn what_runs_for_a_credential_has_its_tools_and_values_and_ends_with_it() {
    let ground = Ground::new().await;
    let control = Arc::clone(&ground.platform.control);
    let doors = Doors::new(Arc::new(registry()), Arc::clone(&ground.platform), control);
    let bridge = Bridge::new(Arc::new(doors));
    let granted: BTreeSet<String> = ["db_query", "logs_query"].map(str::to_owned).into();
    let (free, free_id) = ground.minted(&[]).await;
    let (narrow, _) = ground.minted(&["shell_run", "db_query"]).await;
    let (none, _) = ground.minted(&["shell_run"]).await;
    let mut seen = Vec::new();
    let mut grants = Vec::new();
    for caller in [&free, &narrow, &none] {
        let env = Env::authorize_for(caller, &[Scope::SandboxUse], Some("shell_run")).unwrap();
        let workspace = ground.platform.workspace(&env, caller).await.unwrap();
        let grant = Grant {
            sandbox: workspace.sandbox,
            run: RunId::new(),
            env: env.id(),
            tools: Arc::new(granted.clone()),
            lasts: Duration::from_secs(60),
        };
        let run = bridge.caller(&grant).await.unwrap();
        assert_eq!((run.root(), run.above.last()), (caller.root(), Some(&caller.credential)));
        let held = run.held.clone().unwrap();
        seen.push(held.tools().unwrap().iter().cloned().collect::<Vec<_>>().join(" "));
        grants.push(grant);
    }
    assert_eq!(seen, ["db_query logs_query", "db_query", ""]);
    ground.revoke(free_id).await;
    assert_eq!(bridge.caller(&grants[0]).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(bridge.caller(&grants[1]).await.is_ok());
}

#[tokio::test]
async fn a_link_ends_with_the_credential_that_signed_it() {
    let ground = Ground::new().await;
    super::storage::bucket(&ground).await;
    ground.call("storage_put", json!({ "bucket": "notes", "path": "a", "text": "abc" })).await.unwrap();
    let (caller, id) = ground.minted(&["storage_sign"]).await;
    let env = Env::authorize_for(&caller, &[], Some("storage_sign")).unwrap();
    let sign = json!({ "bucket": "notes", "path": "a", "method": "get", "expires_in": 600 });
    let signed = ground.call_as(&caller, "storage_sign", sign.clone()).await.unwrap();
    let token = signed["url"].as_str().unwrap().split_once("token=").unwrap().1.to_owned();
    let lent =
        async || ground.platform.storage.lent(&env, &token, LinkMethod::Get, "notes", "a").await.map(drop);
    lent().await.unwrap();
    ground.revoke(id).await;
    assert_eq!(lent().await.unwrap_err().code(), Code::Forbidden);
    // The shown end of another is no later than that of who signs it.
    let (caller, _) = ground.minted(&["storage_sign"]).await;
    let long = json!({ "bucket": "notes", "path": "a", "method": "put", "expires_in": 86_400 });
    let signed = ground.call_as(&caller, "storage_sign", long).await.unwrap();
    assert!(signed["expires_at"].as_str().unwrap() <= caller.expires.unwrap().to_string().as_str());
}
