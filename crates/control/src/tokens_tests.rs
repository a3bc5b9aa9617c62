//! Attacks on minted tokens, and what one may do.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::{Control, ControlConfig};

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
    let operator = control.authenticate(key.expose(), Surface::Http).await.unwrap();
    let operator = Caller::clone(&operator);
    Platform { control, operator, env: env.id, _data: data }
}

fn wanted(env: EnvId) -> NewToken {
    NewToken { env, scopes: Scopes::all(), expires_in: Duration::from_secs(60), run: None }
}

impl Platform {
    async fn mint(&self) -> Minted {
        self.control.tokens().mint(&self.operator, wanted(self.env)).await.unwrap()
    }

    async fn opens(&self, token: &str) -> bool {
        match self.control.authenticate(token, Surface::Mcp).await {
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
    let caller = platform.control.authenticate(minted.token.expose(), Surface::Mcp).await.unwrap();
    assert_eq!(caller.principal, Principal::Run(minted.run));
    assert_eq!((caller.env, caller.tenant), (Some(platform.env), platform.operator.tenant));
    assert_eq!(caller.scopes, Scopes::of_environment());
    assert_eq!((caller.credential, caller.expires), (minted.id, Some(minted.expires)));
    assert_eq!(caller.surface, Surface::Mcp);
}

#[tokio::test]
async fn a_forged_header_opens_nothing() {
    let platform = platform().await;
    let token = platform.mint().await.token;
    let (signed, signature) = token.expose().rsplit_once('.').unwrap();
    let claims = signed.split_once('.').unwrap().1;
    let kid = platform.control.tokens.signing.kid();
    let public = platform.control.tokens.signing.public();
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
    let now = Timestamp::now().as_secs();
    let good = || Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub: RunId::new(),
        jti: KeyId::new(),
        iat: now,
        exp: now + 60,
        tenant: platform.operator.tenant,
        env: platform.env,
        scope: "db:read".to_owned(),
        parent: platform.operator.credential,
    };
    let sign = |claims: &Claims| platform.control.tokens.signing.sign(claims).unwrap();
    assert!(platform.opens(&sign(&good())).await);
    for (what, bad) in [
        ("issuer", Claims { iss: "else".to_owned(), ..good() }),
        ("audience", Claims { aud: platform.env.to_string(), ..good() }),
        ("expiry", Claims { exp: now, ..good() }),
        ("environment", Claims { env: EnvId::new(), ..good() }),
        ("tenant", Claims { tenant: TenantId::new(), ..good() }),
        ("parent", Claims { parent: KeyId::new(), ..good() }),
    ] {
        assert!(!platform.opens(&sign(&bad)).await, "{what}");
    }
    let other = Signing::generate().unwrap();
    assert!(!platform.opens(&other.sign(&good()).unwrap()).await);
}

#[tokio::test]
async fn a_token_ends_when_it_is_revoked_and_when_its_key_is() {
    let platform = platform().await;
    let (one, two) = (platform.mint().await, platform.mint().await);
    assert!(platform.opens(one.token.expose()).await && platform.opens(two.token.expose()).await);
    platform.control.tokens().revoke(&one.token).await.unwrap();
    assert!(!platform.opens(one.token.expose()).await);
    platform.control.tokens().revoke(&one.token).await.unwrap();
    platform.control.tokens().revoke(&Secret::new("nonsense")).await.unwrap();
    assert!(platform.opens(two.token.expose()).await);
    platform.control.reset_operator().await.unwrap();
    assert!(!platform.opens(two.token.expose()).await);
}

#[tokio::test]
async fn a_token_gets_what_its_maker_has_of_what_was_asked() {
    let platform = platform().await;
    let scopes: Scopes = [Scope::DbRead, Scope::LogsRead].into_iter().collect();
    let soon = Timestamp::now().plus(Duration::from_secs(5));
    let maker =
        Caller { principal: Principal::Key, scopes, expires: Some(soon), ..platform.operator.clone() };
    let tokens = platform.control.tokens();
    let minted = tokens.mint(&maker, wanted(platform.env)).await.unwrap();
    assert_eq!(minted.scopes, scopes);
    assert!(minted.expires <= soon, "no longer than its maker");

    let code = async |maker: &Caller, new: NewToken| tokens.mint(maker, new).await.unwrap_err().code();
    let writes = NewToken { scopes: [Scope::DbWrite].into_iter().collect(), ..wanted(platform.env) };
    assert_eq!(code(&maker, writes).await, Code::Forbidden);
    assert_eq!(code(&maker, wanted(EnvId::new())).await, Code::NotFound);
    let bound = Caller { env: Some(EnvId::new()), ..maker.clone() };
    assert_eq!(code(&bound, wanted(platform.env)).await, Code::NotFound);
    let elsewhere = Caller { tenant: TenantId::new(), ..maker.clone() };
    assert_eq!(code(&elsewhere, wanted(platform.env)).await, Code::NotFound);
    let child = Caller { principal: Principal::Run(RunId::new()), ..maker.clone() };
    assert_eq!(code(&child, wanted(platform.env)).await, Code::Forbidden);
    for seconds in [0, 24 * 60 * 60 + 1] {
        let new = NewToken { expires_in: Duration::from_secs(seconds), ..wanted(platform.env) };
        assert_eq!(code(&maker, new).await, Code::InvalidInput);
    }
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
