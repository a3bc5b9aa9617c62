//! What a provider's word is held against.

use std::sync::LazyLock;

use kernel::Networks;

use super::*;

struct Asked {
    http: Outbound,
    issuers: Issuers,
}

static ASKED: LazyLock<Asked> = LazyLock::new(|| {
    let http = Outbound::new(Networks::default()).unwrap();
    Asked { issuers: Issuers::new(http.clone()), http }
});

fn provider(more: Value) -> Provider {
    let mut provider = json!({ "client_id": "the-app", "client_secret": "SECRET" });
    provider.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    serde_json::from_value(provider).unwrap()
}

fn vouching<'a>(name: &'a str, provider: &'a Provider) -> Vouching<'a> {
    let Asked { http, issuers } = &*ASKED;
    Vouching { env: kernel::EnvId::new(), http, issuers, name, provider, secret: Some(Secret::new("s3cret")) }
}

fn endpoints(issuer: &str, names_itself: bool) -> Endpoints {
    let at = |path: &str| Url::parse(&format!("https://id.example.com/{path}")).unwrap();
    Endpoints {
        issuer: issuer.to_owned(),
        authorize: at("authorize"),
        token: at("token"),
        userinfo: None,
        keys: Some(at("keys")),
        posts_secret: false,
        names_itself,
    }
}

#[test]
fn an_id_token_holds_for_this_app_this_moment_and_this_request() {
    let provider = provider(json!({ "issuer": "https://id.example.com" }));
    let (vouching, endpoints) = (vouching("acme", &provider), endpoints("https://id.example.com", false));
    let now = Timestamp::now().as_secs();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut said = json!({ "iss": "https://id.example.com", "aud": "the-app", "exp": now + 60, "iat": now,
            "nonce": "n-1", "sub": "ada" });
        change(&mut said);
        vouching.holds(said.as_object().unwrap(), &endpoints, "n-1")
    };
    let good = Ok("https://id.example.com".to_owned());
    assert_eq!(with(&|_| ()), good);
    assert_eq!(with(&|said| said["aud"] = json!(["the-app"])), good);
    assert_eq!(with(&|said| said["azp"] = json!("the-app")), good);
    assert_eq!(with(&|said| said["exp"] = json!(now - 50)), good, "clocks differ");
    let both = |said: &mut Value| {
        said["aud"] = json!(["other", "the-app"]);
        said["azp"] = json!("the-app");
    };
    assert_eq!(with(&both), good);
    for (name, value) in [
        ("iss", json!("https://evil.example.com")),
        ("iss", json!("https://id.example.com/")),
        ("iss", Value::Null),
        ("aud", json!("another-app")),
        ("aud", json!(["another-app"])),
        ("aud", json!([])),
        ("aud", Value::Null),
        ("azp", json!("another-app")),
        ("exp", json!(now - 61)),
        ("exp", json!("later")),
        ("exp", Value::Null),
        ("iat", json!(now + 120)),
        ("iat", Value::Null),
        ("nonce", json!("n-2")),
        ("nonce", Value::Null),
    ] {
        assert_eq!(with(&|said| said[name] = value.clone()), Err(Bad::Claim(name)), "{name} {value}");
    }
    assert_eq!(with(&|said| said["aud"] = json!(["the-app", "other"])), Err(Bad::Claim("azp")));
}

#[test]
fn microsofts_issuer_is_of_the_tenant_that_the_token_names() {
    let provider = provider(json!({}));
    let template = "https://login.microsoftonline.com/{tenantid}/v2.0";
    let (tid, now) = ("11111111-2222-3333-4444-555555555555", Timestamp::now().as_secs());
    let held = |name: &str, iss: &str, tid: Value| {
        let said =
            json!({ "iss": iss, "aud": "the-app", "exp": now + 60, "iat": now, "nonce": "n", "tid": tid });
        vouching(name, &provider).holds(said.as_object().unwrap(), &endpoints(template, false), "n")
    };
    let iss = format!("https://login.microsoftonline.com/{tid}/v2.0");
    assert_eq!(held("microsoft", &iss, json!(tid)), Ok(iss.clone()));
    let other = "https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0";
    assert_eq!(held("microsoft", other, json!(tid)), Err(Bad::Claim("iss")));
    assert_eq!(held("microsoft", &iss, Value::Null), Err(Bad::Claim("tid")));
    assert_eq!(
        held("microsoft", "https://login.microsoftonline.com/x/../y/v2.0", json!("x/../y")),
        Err(Bad::Claim("tid"))
    );
    assert_eq!(held("acme", &iss, json!(tid)), Err(Bad::Claim("iss")), "nobody else has such issuers");
}

#[test]
fn a_tenant_that_is_named_by_its_domain_is_found_under_its_directorys_id() {
    let tid = "11111111-2222-3333-4444-555555555555";
    let published = |tenant: Option<&str>, issuer: &str| {
        let provider = provider(tenant.map_or(json!({}), |tenant| json!({ "tenant": tenant })));
        vouching("microsoft", &provider).is_tenants(issuer)
    };
    let named = |id: &str| format!("https://login.microsoftonline.com/{id}/v2.0");
    assert!(published(None, &named("{tenantid}")) && published(Some("organizations"), &named("{tenantid}")));
    assert!(
        published(Some("contoso.onmicrosoft.com"), &named(tid)) && published(Some("consumers"), &named(tid))
    );
    // One that is named by its id is no other one.
    assert!(!published(Some(tid), &named("99999999-2222-3333-4444-555555555555")));
    for other in ["https://evil.example.com/x/v2.0".to_owned(), format!("{}/x", named(tid)), named("contoso")]
    {
        assert!(!published(Some("contoso.onmicrosoft.com"), &other), "{other}");
    }
    let own = provider(json!({ "issuer": "https://id.example.com" }));
    assert!(
        !vouching("microsoft", &own).is_tenants(&named(tid))
            && !vouching("acme", &own).is_tenants(&named(tid))
    );
    let from = |iss: &str| {
        let provider = provider(json!({}));
        vouching("microsoft", &provider).is_from(&endpoints(&named("{tenantid}"), true), Some(iss)).is_ok()
    };
    assert!(from(&named(tid)) && !from(&named("contoso")) && !from("https://evil.example.com/x/v2.0"));
}

#[test]
fn an_answer_of_another_issuer_is_refused() {
    let (acme, hub) = (provider(json!({ "issuer": "https://id.example.com" })), provider(json!({})));
    let from = |iss: Option<&str>, names_itself| {
        vouching("acme", &acme).is_from(&endpoints("https://id.example.com", names_itself), iss).is_ok()
    };
    assert!(
        from(Some("https://id.example.com"), true)
            && from(None, false)
            && from(Some("https://id.example.com"), false)
    );
    assert!(!from(None, true) && !from(Some("https://evil.example.com"), false) && !from(Some(""), false));
    let own = Endpoints { keys: None, ..endpoints("https://github.com", false) };
    let from = |iss| vouching("github", &hub).is_from(&own, iss).is_ok();
    assert!(
        from(None) && from(Some("https://github.com/login/oauth")) && !from(Some("https://evil.example.com"))
    );
}

#[test]
fn an_address_counts_where_it_is_said_to_be_confirmed() {
    let address = |said: Value| confirmed(said.as_object().unwrap()).map(|email| email.as_str().to_owned());
    let ada = Some("ada@example.org".to_owned());
    assert_eq!(address(json!({ "email": "Ada@example.org", "email_verified": true })), ada);
    assert_eq!(address(json!({ "email": "ada@example.org", "email_verified": "true" })), ada);
    for said in [json!(false), json!("false"), json!(1), json!(null), json!("yes")] {
        assert_eq!(address(json!({ "email": "ada@example.org", "email_verified": said })), None, "{said}");
    }
    assert_eq!(address(json!({ "email": "ada@example.org" })), None);
    assert_eq!(address(json!({ "email": "ada", "email_verified": true })), None);
}

#[test]
fn who_is_believed_about_addresses_is_believed_about_its_own() {
    let sure = |name: &str, more: Value, email: &str, hd: Option<&str>| {
        provider(more).speaks_for(name, &Address::parse("", email).unwrap(), hd)
    };
    let (own, none) =
        (json!({ "issuer": "https://id.corp.example", "addresses": ["corp.example"] }), json!({}));
    assert_eq!(sure("acme", own.clone(), "ada@corp.example", None), Some(Surety::Today));
    for other in ["ada@other.example", "ada@a.corp.example", "ada@evil-corp.example"] {
        assert_eq!(sure("acme", own.clone(), other, Some("other.example")), None, "{other}");
    }
    let silent = json!({ "issuer": "https://id.corp.example" });
    assert_eq!(sure("acme", silent.clone(), "ada@corp.example", None), None);
    assert_eq!(sure("google", silent, "ada@gmail.com", None), None, "a name is no issuer");
    assert_eq!(sure("google", none.clone(), "ada@gmail.com", None), Some(Surety::Today));
    assert_eq!(sure("google", none.clone(), "ada@corp.example", Some("corp.example")), Some(Surety::Today));
    assert_eq!(sure("google", none.clone(), "ada@corp.example", Some("other.example")), Some(Surety::Once));
    assert_eq!(sure("apple", none.clone(), "ada@corp.example", None), Some(Surety::Today));
    assert_eq!(sure("microsoft", none, "ada@corp.example", None), None);
}

#[tokio::test]
async fn browsers_are_sent_with_what_each_provider_wants_to_know() {
    let (hub, weixin) = (provider(json!({})), provider(json!({})));
    let to = async |name: &str, provider: &Provider| {
        let vouching = vouching(name, provider);
        let endpoints = vouching.endpoints().await.unwrap();
        vouching
            .departure(&endpoints, "https://a.example/_/auth/oauth/callback", "st", "no", "ch")
            .to_string()
    };
    assert_eq!(
        to("github", &hub).await,
        "https://github.com/login/oauth/authorize?response_type=code&client_id=the-app&redirect_uri=https%3A%2F%2F\
         a.example%2F_%2Fauth%2Foauth%2Fcallback&scope=read%3Auser+user%3Aemail&state=st&code_challenge=ch&\
         code_challenge_method=S256"
    );
    assert_eq!(
        to("wechat", &weixin).await,
        "https://open.weixin.qq.com/connect/qrconnect?appid=the-app&redirect_uri=https%3A%2F%2Fa.example%2F_%2Fauth%2F\
         oauth%2Fcallback&response_type=code&scope=snsapi_login&state=st#wechat_redirect"
    );
    let apple = provider(json!({ "team_id": "T", "key_id": "K" }));
    let url = vouching("apple", &apple).departure(
        &endpoints("https://appleid.apple.com", false),
        "c",
        "s",
        "n",
        "h",
    );
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().skip(6).collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        pairs,
        [pair("code_challenge_method", "S256"), pair("nonce", "n"), pair("response_mode", "form_post")]
    );
}
