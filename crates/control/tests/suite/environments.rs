//! Environments from their making to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::{Created, EnvState, EnvironmentFilter, Making, NewEnvironment};
use expect_test::expect;
use kernel::{Caller, Surface};

use crate::platform::{Platform, said, tenant};

async fn create(platform: &Platform, new: NewEnvironment) -> kernel::Result<Created> {
    platform.control.environments().create(&tenant(&platform.operator), new).await
}

fn named(name: &str) -> NewEnvironment {
    NewEnvironment { name: Some(name.to_owned()), ..NewEnvironment::default() }
}

#[tokio::test]
async fn a_slug_is_given_or_derived_and_gets_a_suffix_where_it_is_taken() {
    let platform = Platform::new().await;
    let slug = async |new| create(&platform, new).await.unwrap().environment.slug.to_string();
    assert_eq!(slug(named("My Shop!")).await, "my-shop");
    let second = slug(named("my shop")).await;
    assert!(second.starts_with("my-shop-") && second.len() == "my-shop-".len() + 6, "{second}");
    let long = slug(named(&"x".repeat(80))).await;
    assert_eq!(long, "x".repeat(40));
    let longer = slug(named(&"x".repeat(80))).await;
    assert!(longer.len() == 40 && longer != long, "{longer}");
    for nameless in [named("éé"), NewEnvironment::default(), named("www")] {
        let slug = slug(nameless).await;
        assert!(slug.starts_with("app-") && slug.len() == 10, "{slug}");
    }
    let given = NewEnvironment { slug: "my-shop".parse().ok(), ..NewEnvironment::default() };
    assert_eq!(said(create(&platform, given).await), "conflict /slug: the slug \"my-shop\" is taken");
}

#[tokio::test]
async fn what_is_wrong_with_a_new_environment_is_named() {
    let platform = Platform::new().await;
    let tags = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let many = (0..21).map(|number| (number.to_string(), String::new())).collect();
    let text = |length| Some("x".repeat(length));
    let empty = NewEnvironment::default;
    let mut table = String::new();
    for new in [
        NewEnvironment { template: Some("shop".into()), ..empty() },
        NewEnvironment { name: text(101), ..empty() },
        NewEnvironment { name: Some("a\nb".into()), ..empty() },
        NewEnvironment { plan: Some(String::new()), ..empty() },
        NewEnvironment { external_id: text(256), ..empty() },
        NewEnvironment { tags: many, ..empty() },
        NewEnvironment { tags: tags("", "x"), ..empty() },
        NewEnvironment { tags: tags("a/b~", &"x".repeat(257)), ..empty() },
    ] {
        table.push_str(&said(create(&platform, new).await));
        table.push('\n');
    }
    expect![[r#"
        invalid_input /template: there is no template of that name; there are: empty
        invalid_input /name: the name must have 1 to 100 characters, none of them a control character
        invalid_input /name: the name must have 1 to 100 characters, none of them a control character
        invalid_input /plan: there is no plan ""; there are: default, free, pro
        invalid_input /external_id: the external id must have 1 to 255 characters, none of them a control character
        invalid_input /tags: an environment has at most 20 tags
        invalid_input /tags: the name of a tag must have 1 to 64 characters, none of them a control character
        invalid_input /tags/a~1b~0: the value of a tag has at most 256 characters and no NUL
    "#]]
    .assert_eq(&table);
    assert_eq!(platform.control.env_slugs(&platform.operator).await.unwrap(), ["default"]);
}

#[tokio::test]
async fn the_same_external_id_is_the_same_environment_of_one_tenant() {
    let platform = Platform::new().await;
    let zeta = platform.tenant("zeta").await;
    let new = || NewEnvironment { external_id: Some("order-7".into()), ..named("a") };
    let first = create(&platform, new()).await.unwrap();
    let second = create(&platform, new()).await.unwrap();
    assert_eq!((first.making, second.making), (Making::New, Making::Existing));
    assert_eq!(first.environment, second.environment);
    let theirs = platform.control.environments().create(&tenant(&zeta), new()).await.unwrap();
    assert_eq!(theirs.making, Making::New);

    let filter = EnvironmentFilter { external_id: Some("order-7".into()), ..EnvironmentFilter::default() };
    let list = async |caller: &Caller| {
        platform.control.environments().list(&tenant(caller), &filter, None, 10).await.unwrap()
    };
    assert_eq!(list(&platform.operator).await, [first.environment]);
    assert_eq!(list(&zeta).await, [theirs.environment]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_creators_at_once_get_an_environment_each() {
    let platform = Arc::new(Platform::new().await);
    let mut creators = Vec::new();
    for _ in 0..24 {
        let platform = Arc::clone(&platform);
        creators.push(tokio::spawn(async move { create(&platform, named("shop")).await }));
    }
    let mut slugs = BTreeSet::new();
    for creator in creators {
        slugs.insert(creator.await.unwrap().unwrap().environment.slug);
    }
    assert_eq!(slugs.len(), 24);
}

#[tokio::test]
async fn an_environment_is_found_while_it_is_ready_and_only_then() {
    let platform = Platform::new().await;
    let envs = platform.control.environments();
    let owner = tenant(&platform.operator);
    assert_eq!(envs.find("shop").await.unwrap(), None);
    let record = create(&platform, named("shop")).await.unwrap().environment;
    assert_eq!(envs.find("shop").await.unwrap(), None, "its files are not there yet");
    assert_eq!(envs.unfinished().await.unwrap(), std::slice::from_ref(&record));
    let ready = envs.ready(&record).await.unwrap();
    assert_eq!(ready.state, EnvState::Ready);
    assert_eq!(envs.ready(&record).await.unwrap(), ready, "a repeat changes nothing");
    let place = envs.find("shop").await.unwrap().unwrap();
    assert_eq!((place.env, place.tenant, place.slug.as_str()), (ready.id, ready.tenant, "shop"));
    assert_eq!(envs.find(&ready.id.to_string()).await.unwrap(), Some(place));

    let (secret, _) = platform.key(&platform.operator, Some(&ready)).await;
    let token = envs.confirm_delete(&owner, "shop", b"3 rows").await.unwrap().token;
    let going = envs.begin_delete(&owner, "shop", b"3 rows", &token).await.unwrap();
    assert_eq!(going.state, EnvState::Deleting);
    assert_eq!(envs.find("shop").await.unwrap(), None);
    assert_eq!(envs.find(&ready.id.to_string()).await.unwrap(), None);
    assert_eq!(said(envs.get(&owner, "shop").await), "not_found there is no environment \"shop\"");
    let tried = platform.control.authenticate(secret.expose(), Surface::Http, None).await;
    assert_eq!(said(tried), "unauthenticated the credential is not valid");
    assert_eq!(said(envs.ready(&record).await), "conflict the environment is being deleted");
    assert_eq!(envs.unfinished().await.unwrap().len(), 1, "its files are still to be removed");
    envs.finish_delete(&going).await.unwrap();
    envs.finish_delete(&going).await.unwrap();
    assert_eq!(envs.unfinished().await.unwrap(), []);
    assert_eq!(create(&platform, named("shop")).await.unwrap().environment.slug.as_str(), "shop");
}

#[tokio::test]
async fn a_deletion_needs_the_token_of_its_own_dry_run() {
    let platform = Platform::new().await;
    let envs = platform.control.environments();
    let owner = tenant(&platform.operator);
    let zeta = platform.tenant("zeta").await;
    platform.env(&platform.operator, "one").await;
    platform.env(&platform.operator, "two").await;
    let token = envs.confirm_delete(&owner, "one", b"3 rows").await.unwrap().token;
    let mut forged = token.clone();
    forged.replace_range(20..21, if &token[20..21] == "A" { "B" } else { "A" });
    let used = envs.confirm_delete(&owner, "two", b"").await.unwrap().token;
    platform
        .control
        .confirmations()
        .redeem("env_delete", &two_id(&platform).await, b"", &used)
        .await
        .unwrap();

    let mut table = String::new();
    for (slug, losses, token) in [
        ("one", &b"3 rows"[..], ""),
        ("one", b"3 rows", "yes"),
        ("one", b"3 rows", &forged),
        ("one", b"4 rows", &token),
        ("two", b"3 rows", &token),
        ("two", b"", &used),
    ] {
        table.push_str(&said(envs.begin_delete(&owner, slug, losses, token).await));
        table.push('\n');
    }
    expect![[r#"
        invalid_input /confirm: this is not a confirmation token
        invalid_input /confirm: this is not a confirmation token
        invalid_input /confirm: the confirmation token belongs to something else
        conflict /confirm: what would be lost has changed since the dry run
        invalid_input /confirm: the confirmation token belongs to something else
        invalid_input /confirm: the confirmation token has been used
    "#]]
    .assert_eq(&table);
    let theirs = envs.begin_delete(&tenant(&zeta), "one", b"3 rows", &token).await;
    assert_eq!(said(theirs), "not_found there is no environment \"one\"");
    assert_eq!(
        said(envs.confirm_delete(&tenant(&zeta), "one", b"").await),
        "not_found there is no environment \"one\""
    );
    assert!(envs.begin_delete(&owner, "one", b"3 rows", &token).await.is_ok());
}

async fn two_id(platform: &Platform) -> String {
    platform.control.environments().find("two").await.unwrap().unwrap().env.to_string()
}

#[tokio::test]
async fn a_confirmation_is_for_one_action_and_one_of_many_that_use_it_wins() {
    let platform = Platform::new().await;
    let confirmations = platform.control.confirmations();
    let token = confirmations.issue("a", "bc", b"").token;
    for (action, subject) in [("ab", "c"), ("b", "bc"), ("a", "b")] {
        let tried = confirmations.redeem(action, subject, b"", &token).await;
        assert_eq!(said(tried), "invalid_input /confirm: the confirmation token belongs to something else");
    }
    let tries = (0..8).map(|_| confirmations.redeem("a", "bc", b"", &token));
    let won = futures::future::join_all(tries).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
    let other = Platform::new().await;
    let ours = confirmations.issue("a", "bc", b"").token;
    let tried = other.control.confirmations().redeem("a", "bc", b"", &ours);
    assert_eq!(said(tried.await), "invalid_input /confirm: the confirmation token belongs to something else");
}
