//! Attacks on minted tokens, and what one may do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::Surface;
use serde_json::{Value, json};

use super::*;
use crate::{Before, Control, ControlConfig};

struct Platform {
    control: Control,
    operator: Caller,
    env: EnvId,
    _data: tempfile::TempDir,
}

async fn platform() -> Platform {
    let data = tempfile::TempDir::new().unwrap();
    let (control, bootstrap) = Control::open(ControlConfig::new(data.path())).await.unwrap();
    let env = control.environments().unfinished().await.unwrap().remove(0);
    control.environments().ready(&env).await.unwrap();
    let key = bootstrap.operator_key.unwrap();
    let operator = control.authenticate(key.expose(), Surface::Http, None).await.unwrap();
    let operator = Caller::clone(&operator);
    Platform { control, operator, env: env.id, _data: data }
}

fn wanted(env: EnvId) -> NewToken {
    NewToken {
        env,
        scopes: Scopes::all(),
        held: Held::default(),
        source: None,
        expires_in: Duration::from_secs(60),
        run: None,
    }
}

impl Platform {
    async fn mint(&self) -> Minted {
        self.control.tokens().mint(&self.operator, wanted(self.env)).await.unwrap()
    }

    async fn caller(&self, secret: &Secret) -> Caller {
        Caller::clone(&self.control.authenticate(secret.expose(), Surface::Http, None).await.unwrap())
    }

    /// As it is without what is in memory.
    async fn opens_anew(&self, token: &str) -> bool {
        self.control.credentials.forget_all();
        self.opens(token).await
    }

    async fn opens(&self, token: &str) -> bool {
        match self.control.authenticate(token, Surface::Mcp, None).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code(), Code::Unauthenticated, "{error:?}");
                false
            }
        }
    }
}

#[tokio::test]
async fn a_minted_token_is_a_run_in_one_environment_with_that_environments_scopes() {
    let platform = platform().await;
    let minted = platform.mint().await;
    let caller = platform.control.authenticate(minted.token.expose(), Surface::Mcp, None).await.unwrap();
    assert_eq!(caller.principal, Principal::Run(minted.row.run));
    assert_eq!((caller.env, caller.tenant), (Some(platform.env), platform.operator.tenant));
    assert_eq!(caller.scopes, Scopes::of_environment());
    assert_eq!((caller.credential, caller.expires), (minted.row.id, Some(minted.row.ends)));
    assert_eq!(caller.surface, Surface::Mcp);
}

#[tokio::test]
async fn a_forged_header_opens_nothing() {
    let platform = platform().await;
    let token = platform.mint().await.token;
    let (signed, signature) = token.expose().rsplit_once('.').unwrap();
    let claims = signed.split_once('.').unwrap().1;
    let kid = platform.control.tokens.ring.kid();
    let public = platform.control.tokens().jwks()["keys"][0]["x"].as_str().unwrap().to_owned();
    for header in [
        json!({ "alg": "none", "kid": kid, "typ": "at+jwt" }),
        json!({ "alg": "None", "kid": kid, "typ": "at+jwt" }),
        json!({ "alg": "HS256", "kid": kid, "typ": "at+jwt" }),
        json!({ "alg": "EdDSA", "kid": "another", "typ": "at+jwt" }),
        json!({ "alg": "EdDSA", "kid": kid, "typ": "JWT" }),
        json!({ "alg": "EdDSA", "kid": kid, "typ": "at+jwt", "jwk": { "x": public } }),
        json!({ "alg": "EdDSA", "typ": "at+jwt" }),
    ] {
        let head = URL_SAFE_NO_PAD.encode(header.to_string());
        // Signed with nothing, with the good signature, and with the public key as a shared secret.
        let mut mac = <hmac::Hmac<sha2::Sha256> as hmac::KeyInit>::new_from_slice(public.as_bytes()).unwrap();
        hmac::Mac::update(&mut mac, format!("{head}.{claims}").as_bytes());
        let shared = URL_SAFE_NO_PAD.encode(hmac::Mac::finalize(mac).into_bytes());
        for signature in ["", signature, &shared] {
            assert!(!platform.opens(&format!("{head}.{claims}.{signature}")).await, "{header} {signature}");
        }
    }
    assert!(platform.opens(token.expose()).await);
}

#[tokio::test]
async fn claims_that_were_changed_open_nothing() {
    let platform = platform().await;
    let token = platform.mint().await.token;
    let parts: Vec<&str> = token.expose().split('.').collect();
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    claims["scope"] = json!("tenant:admin");
    let changed = URL_SAFE_NO_PAD.encode(claims.to_string());
    assert!(!platform.opens(&format!("{}.{changed}.{}", parts[0], parts[2])).await);
    for broken in ["", ".", "..", "a.b.c", &format!("{}.", token.expose()), &token.expose()[1..]] {
        assert!(!platform.opens(broken).await, "{broken}");
    }
}

#[tokio::test]
async fn what_we_signed_for_another_purpose_or_time_opens_nothing() {
    let platform = platform().await;
    let minted = platform.mint().await;
    let now = Timestamp::now().as_secs();
    let good = || claims(&minted.row);
    let sign = |claims: &Claims| platform.control.tokens.ring.sign(claims).unwrap();
    assert!(platform.opens(&sign(&good())).await);
    for (what, bad) in [
        ("issuer", Claims { iss: "else".to_owned(), ..good() }),
        ("audience", Claims { aud: platform.env.to_string(), ..good() }),
        ("expiry", Claims { exp: now, ..good() }),
        ("environment", Claims { env: EnvId::new(), ..good() }),
        ("tenant", Claims { tenant: TenantId::new(), ..good() }),
        ("run", Claims { sub: RunId::new(), ..good() }),
        ("a row that is not there", Claims { jti: KeyId::new(), ..good() }),
        ("a key", Claims { jti: platform.operator.credential, ..good() }),
    ] {
        assert!(!platform.opens(&sign(&bad)).await, "{what}");
    }
    let other = crate::signing::Signing::generate().unwrap();
    assert!(!platform.opens(&other.sign(&good()).unwrap()).await);
    // What a token says of its scopes gives none.
    let more = Claims { scope: "tenant:admin key:admin".to_owned(), ..good() };
    let caller = platform.control.authenticate(&sign(&more), Surface::Http, None).await.unwrap();
    assert_eq!(caller.scopes, minted.row.scopes);
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_and_when_its_key_is() {
    let platform = platform().await;
    let (one, two) = (platform.mint().await, platform.mint().await);
    assert!(platform.opens(one.token.expose()).await && platform.opens(two.token.expose()).await);
    platform.control.tokens().revoke(&platform.operator, one.row.id).await.unwrap();
    assert!(!platform.opens(one.token.expose()).await);
    platform.control.tokens().revoke(&platform.operator, one.row.id).await.unwrap();
    let nobodys = platform.control.tokens().revoke(&platform.operator, KeyId::new()).await;
    assert_eq!(nobodys.unwrap_err().code(), Code::NotFound);
    assert!(platform.opens(two.token.expose()).await);
    platform.control.replace_operator(&platform.operator).await.unwrap();
    assert!(!platform.opens(two.token.expose()).await);
}

#[tokio::test]
async fn a_token_gets_what_its_maker_has_of_what_was_asked() {
    let platform = platform().await;
    let scopes: Scopes = [Scope::DbRead, Scope::LogsRead, Scope::KeyAdmin].into_iter().collect();
    let made = platform.control.keys().create(&platform.operator, key(scopes)).await.unwrap();
    let maker = platform.caller(&made.secret).await;
    let tokens = platform.control.tokens();
    let minted = tokens.mint(&maker, wanted(platform.env)).await.unwrap();
    let within: Vec<Scope> = minted.row.scopes.iter().collect();
    assert_eq!(within, [Scope::DbRead, Scope::LogsRead], "what is beyond an environment is nobody's to give");
    assert!(minted.row.ends <= made.key.expires.unwrap(), "no longer than its maker");

    let code = async |maker: &Caller, new: NewToken| tokens.mint(maker, new).await.unwrap_err().code();
    let writes = NewToken { scopes: [Scope::DbWrite].into_iter().collect(), ..wanted(platform.env) };
    assert_eq!(code(&maker, writes).await, Code::Forbidden);
    assert_eq!(code(&maker, wanted(EnvId::new())).await, Code::NotFound);
    let bound = Caller { env: Some(EnvId::new()), ..maker.clone() };
    assert_eq!(code(&bound, wanted(platform.env)).await, Code::NotFound);
    let elsewhere = Caller { tenant: TenantId::new(), ..maker.clone() };
    assert_eq!(code(&elsewhere, wanted(platform.env)).await, Code::NotFound);
    // A run of a sandbox, or of an agent, has no row.
    let run = Caller { principal: Principal::Run(RunId::new()), credential: KeyId::new(), ..maker.clone() };
    assert_eq!(code(&run, wanted(platform.env)).await, Code::Forbidden);
    for seconds in [0, 24 * 60 * 60 + 1] {
        let new = NewToken { expires_in: Duration::from_secs(seconds), ..wanted(platform.env) };
        assert_eq!(code(&maker, new).await, Code::InvalidInput);
    }
}

fn key(scopes: Scopes) -> crate::NewKey {
    let expires_in = Some(Duration::from_secs(5));
    crate::NewKey { name: "ci".to_owned(), env: None, scopes: Some(scopes), expires_in, cidrs: None }
}

#[tokio::test]
async fn tokens_stand_on_each_other_four_deep_and_end_with_any_below_them() {
    let platform = platform().await;
    let tokens = platform.control.tokens();
    let mut line = vec![platform.mint().await];
    for _ in 1..4 {
        let maker = platform.caller(&line.last().unwrap().token).await;
        line.push(tokens.mint(&maker, wanted(platform.env)).await.unwrap());
    }
    let last = platform.caller(&line[3].token).await;
    assert_eq!(tokens.mint(&last, wanted(platform.env)).await.unwrap_err().code(), Code::Forbidden);
    let seen = async |caller: &Caller| {
        let list = tokens.list(caller, None, 100).await.unwrap();
        list.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let ids: Vec<KeyId> = line.iter().map(|minted| minted.row.id).collect();
    assert_eq!(seen(&platform.operator).await, ids);
    let second = platform.caller(&line[1].token).await;
    assert_eq!(seen(&second).await, ids[2..], "its own children alone");
    let upwards = tokens.revoke(&second, ids[0]).await.unwrap_err();
    assert_eq!(upwards.code(), Code::NotFound, "and ends those alone");
    let beside = platform.mint().await;
    assert_eq!(tokens.revoke(&second, beside.row.id).await.unwrap_err().code(), Code::NotFound);
    tokens.revoke(&second, ids[2]).await.unwrap();
    let mut open = Vec::new();
    for minted in &line {
        open.push(platform.opens(minted.token.expose()).await);
    }
    assert_eq!(open, [true, true, false, false]);
    tokens.revoke(&platform.operator, ids[0]).await.unwrap();
    assert!(!platform.opens(line[1].token.expose()).await);
    assert_eq!(seen(&platform.operator).await, [beside.row.id]);
    platform.control.replace_operator(&platform.operator).await.unwrap();
    assert!(!platform.opens(beside.token.expose()).await);
}

#[tokio::test]
async fn a_call_of_a_minted_token_counts_as_one_of_each_that_it_stands_on() {
    use std::num::NonZeroU32;

    use tool::Limiter as _;

    let platform = platform().await;
    let made = platform.control.keys().create(&platform.operator, key(Scopes::of_tenant())).await.unwrap();
    let maker = platform.caller(&made.secret).await;
    let tokens = platform.control.tokens();
    let limit =
        |burst: u32| crate::RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::new(burst).unwrap() };
    let first = platform.caller(&tokens.mint(&maker, wanted(platform.env)).await.unwrap().token).await;
    let mut below = Vec::new();
    for _ in 0..4 {
        let minted = tokens.mint(&first, wanted(platform.env)).await.unwrap();
        below.push(platform.caller(&minted.token).await);
    }
    assert_eq!(below[0].above[..], [made.key.id, first.credential]);
    assert_eq!((below[0].root(), first.root(), maker.root()), (made.key.id, made.key.id, made.key.id));
    let passed = |limits: crate::RateLimits| {
        let limits = crate::limits::Limits::new(limits, std::sync::Arc::clone(platform.control.plans()));
        let calls = (0..10).flat_map(|_| &below).filter(|caller| limits.admit(caller).is_ok()).count();
        (calls, limits.admit(&maker).is_ok())
    };
    let rates =
        |key: u32, token: u32| crate::RateLimits { key: limit(key), token: limit(token), tenant: limit(100) };
    assert_eq!(passed(rates(6, 20)), (6, false), "all that a key may, and none is left for itself");
    assert_eq!(passed(rates(50, 5)), (5, true), "all that the one they stand on may");
}

#[tokio::test]
async fn whoever_works_for_a_credential_is_told_when_it_ends() {
    let platform = platform().await;
    let made = platform.control.keys().create(&platform.operator, key(Scopes::of_tenant())).await.unwrap();
    let maker = platform.caller(&made.secret).await;
    let tokens = platform.control.tokens();
    let parent = tokens.mint(&maker, wanted(platform.env)).await.unwrap();
    let child = tokens.mint(&platform.caller(&parent.token).await, wanted(platform.env)).await.unwrap();
    let (parent, child) = (platform.caller(&parent.token).await, platform.caller(&child.token).await);
    let beside = platform.caller(&tokens.mint(&maker, wanted(platform.env)).await.unwrap().token).await;
    // Of a sandbox, which has no row and stands on another's.
    let run = Caller {
        credential: KeyId::new(),
        above: [maker.credential, parent.credential].into(),
        ..parent.clone()
    };
    let all = [&child, &parent, &run, &beside, &maker, &platform.operator];
    let mut waiting: Vec<_> = all.iter().map(|caller| Box::pin(platform.control.revoked(caller))).collect();
    let mut over = async || {
        let mut over = Vec::new();
        for wait in &mut waiting {
            let wait = tokio::time::timeout(Duration::from_millis(200), wait);
            over.push(wait.await.is_ok());
        }
        over
    };
    assert_eq!(over().await, [false; 6]);
    platform.control.credentials.forget_all();
    platform.control.credentials.revoked(made.key.id);
    assert_eq!(over().await, [false; 6], "none of them has");
    tokens.revoke(&platform.operator, parent.credential).await.unwrap();
    assert_eq!(over().await, [true, true, true, false, false, false]);
    let mut waiting =
        [Box::pin(platform.control.revoked(&beside)), Box::pin(platform.control.revoked(&maker))];
    let told = futures::future::join_all(&mut waiting);
    let (ended, ()) = tokio::join!(tokio::time::timeout(Duration::from_secs(10), told), async {
        tokio::task::yield_now().await;
        platform.control.keys().revoke(&platform.operator, made.key.id).await.unwrap();
    });
    ended.unwrap();
}

#[tokio::test]
async fn what_a_credential_may_is_found_by_its_id_while_it_lives() {
    let platform = platform().await;
    let control = &platform.control;
    let made = control.keys().create(&platform.operator, key(Scopes::of_tenant())).await.unwrap();
    let maker = platform.caller(&made.secret).await;
    let minted = control.tokens().mint(&maker, wanted(platform.env)).await.unwrap();
    let env = kernel::Env::for_upkeep(maker.tenant, platform.env);
    let another = kernel::Env::for_upkeep(maker.tenant, EnvId::new());
    let good = async |id: KeyId| {
        (control.is_key_of(&env, id).await.unwrap(), control.is_key_of(&another, id).await.unwrap())
    };
    assert_eq!(good(minted.row.id).await, (true, false));
    assert_eq!(good(made.key.id).await, (true, true));
    assert_eq!(good(platform.operator.credential).await, (true, true));
    assert_eq!(good(KeyId::new()).await, (false, false));
    let of_operator = platform.mint().await;
    assert_eq!(good(of_operator.row.id).await, (true, false), "the operator's child is no operator");
    control.tokens().revoke(&platform.operator, minted.row.id).await.unwrap();
    assert_eq!(good(minted.row.id).await, (false, false));
    let minted = control.tokens().mint(&maker, wanted(platform.env)).await.unwrap();
    control.keys().revoke(&platform.operator, made.key.id).await.unwrap();
    assert_eq!((good(minted.row.id).await, good(made.key.id).await), ((false, false), (false, false)));
}

#[tokio::test]
async fn a_token_lives_as_long_as_was_asked_for_and_less_than_a_second_longer() {
    let platform = platform().await;
    let new = NewToken { expires_in: Duration::from_secs(1), ..wanted(platform.env) };
    let row = platform.control.tokens().mint(&platform.operator, new).await.unwrap().row;
    let micros = row.ends.as_micros() - row.created.as_micros();
    assert!((1_000_000..2_000_000).contains(&micros), "{micros}");
    assert_eq!(row.ends.as_micros() % 1_000_000, 0, "as the claim counts it");
}

#[tokio::test]
async fn a_token_opens_where_it_and_its_key_are_good_and_nowhere_else() {
    let platform = platform().await;
    let networks = |names: &[&str]| Networks::of(names.iter().copied()).ok();
    let made = crate::NewKey { cidrs: networks(&["10.0.0.0/8"]), ..key(Scopes::of_tenant()) };
    let made = platform.control.keys().create(&platform.operator, made).await.unwrap();
    let from = async |secret: &Secret, address: &str| {
        let source = (!address.is_empty()).then(|| address.parse().unwrap());
        platform.control.authenticate(secret.expose(), Surface::Http, source).await
    };
    let maker = from(&made.secret, "10.9.9.9").await.unwrap();
    let narrow = NewToken { source: networks(&["10.1.0.0/16", "127.0.0.0/8"]), ..wanted(platform.env) };
    let narrow = platform.control.tokens().mint(&maker, narrow).await.unwrap();
    let wide = platform.control.tokens().mint(&maker, wanted(platform.env)).await.unwrap();
    let elsewhere = NewToken { source: networks(&["127.0.0.0/8"]), ..wanted(platform.env) };
    let refused = platform.control.tokens().mint(&maker, elsewhere).await.unwrap_err();
    assert_eq!((refused.code(), refused.pointer()), (Code::Forbidden, Some("/source")));
    for (address, expected) in [
        ("10.1.2.3", [true, true, true]),
        ("::ffff:10.1.2.3", [true, true, true]),
        ("10.2.0.1", [true, true, false]),
        ("127.0.0.1", [false; 3]),
        ("::1", [false; 3]),
        ("", [false; 3]),
    ] {
        let mut open = Vec::new();
        for secret in [&made.secret, &wide.token, &narrow.token] {
            open.push(from(secret, address).await.is_ok());
        }
        assert_eq!(open, expected, "{address}");
    }
}

#[tokio::test]
async fn a_signing_key_rotates_and_what_it_has_signed_holds() {
    let platform = platform().await;
    let old = platform.mint().await;
    let kids = || {
        let set = platform.control.tokens().jwks();
        set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|key| key["kid"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let before = kids();
    assert_eq!(before.len(), 2, "the active one and the next");
    let states = platform.control.rotate_signing_key(&platform.operator, Before::Good).await.unwrap();
    let states: Vec<_> = states.iter().map(|kept| (kept.key.id.as_str(), kept.state.as_str())).collect();
    assert_eq!(states[0], (before[1].as_str(), "active"));
    assert_eq!(states[2], (before[0].as_str(), "retired"));
    assert_eq!(kids().len(), 3);
    assert!(platform.opens(old.token.expose()).await);
    let new = platform.mint().await;
    assert!(platform.opens(new.token.expose()).await);
    let tenant = Caller { scopes: Scopes::of_tenant(), ..platform.operator.clone() };
    assert!(platform.control.rotate_signing_key(&tenant, Before::Good).await.is_err());
    assert!(platform.control.signing_keys(&tenant).await.is_err());
    // Long after, nothing stands on it.
    let later = Timestamp::now().plus(Duration::from_secs(25 * 60 * 60));
    platform.control.tokens.ring.upkeep(later).await.unwrap();
    assert_eq!(kids().len(), 2);
    assert!(!platform.opens_anew(old.token.expose()).await);
    assert!(platform.opens_anew(new.token.expose()).await);
    // And after a month another one signs by itself.
    let later = Timestamp::now().plus(Duration::from_secs(31 * 24 * 60 * 60));
    platform.control.tokens.ring.upkeep(later).await.unwrap();
    assert_eq!(kids()[0], states_next(&platform, &before).await);
}

#[tokio::test]
async fn what_a_stolen_signing_key_has_signed_holds_no_more() {
    let platform = platform().await;
    let old = platform.mint().await;
    assert!(platform.opens(old.token.expose()).await);
    let keys = platform.control.rotate_signing_key(&platform.operator, Before::Forgotten).await.unwrap();
    let states: Vec<_> = keys.iter().map(|kept| kept.state.as_str()).collect();
    assert_eq!(states, ["active", "next"]);
    assert!(!platform.opens(old.token.expose()).await, "also where it was known");
    assert!(platform.opens(platform.mint().await.token.expose()).await);
}

/// The key that signs at this moment, which is none of those before.
async fn states_next(platform: &Platform, before: &[String]) -> String {
    let all = platform.control.signing_keys(&platform.operator).await.unwrap();
    let active = all.iter().find(|kept| kept.state == store::SigningState::Active).unwrap();
    assert!(!before.contains(&active.key.id));
    active.key.id.clone()
}

#[tokio::test]
async fn the_key_set_verifies_our_tokens_and_holds_no_private_half() {
    let platform = platform().await;
    let set = platform.control.tokens().jwks();
    let key = &set["keys"][0];
    let names: Vec<&str> = key.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["kty", "crv", "use", "alg", "kid", "x"]);
    let public: [u8; 32] = URL_SAFE_NO_PAD.decode(key["x"].as_str().unwrap()).unwrap().try_into().unwrap();
    let public = ed25519_dalek::VerifyingKey::from_bytes(&public).unwrap();
    let token = platform.mint().await.token;
    let (signed, signature) = token.expose().rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    assert!(public.verify_strict(signed.as_bytes(), &signature).is_ok());
}

/// Of optimised code alone: `cargo test --profile fast -p control minting`.
#[cfg(not(debug_assertions))]
#[tokio::test]
async fn minting_and_verifying_take_at_most_100_us_beside_the_database() {
    let platform = platform().await;
    let (tokens, now) = (&platform.control.tokens, Timestamp::now());
    let line = {
        let mut line = vec![platform.mint().await];
        for _ in 1..4 {
            let maker = platform.caller(&line.last().unwrap().token).await;
            line.push(tokens.mint(&maker, wanted(platform.env)).await.unwrap());
        }
        line
    };
    let rows: Vec<Run> = line.iter().map(|minted| minted.row.clone()).collect();
    let key = platform.control.store.keys().get(rows[0].root).await.unwrap().unwrap();
    // The median of batches: what else this machine does counts in few of them.
    let median = |work: &dyn Fn()| {
        let batch = |_| {
            let began = std::time::Instant::now();
            (0..20).for_each(|_| work());
            began.elapsed() / 20
        };
        let mut all: Vec<Duration> = (0..31).map(batch).collect();
        all.sort_unstable();
        all[15]
    };
    let mint = median(&|| {
        let parent = Standing::of_chain(&key, &rows[..3], now).unwrap();
        let row = child(&parent, platform.operator.tenant, wanted(platform.env), now).unwrap();
        tokens.ring.sign(&claims(&row)).unwrap();
    });
    let verify = median(&|| {
        tokens.ring.verify::<Claims>(line[3].token.expose()).unwrap();
        Standing::of_chain(&key, &rows, now).unwrap();
    });
    let most = Duration::from_micros(100);
    assert!(mint <= most && verify <= most, "mint {mint:?}, verify {verify:?}");
}
