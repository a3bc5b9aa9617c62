//! Domains of an app and of its branches.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use testkit::Client;

use crate::app_domains::local;

#[test]
fn a_branch_takes_the_manifest_of_its_parent_and_moves_no_domain() -> anyhow::Result<()> {
    let world = local()?;
    let shop = world.app("shop")?;
    let manifest = |domains: Value, page: &str| json!({ "manifest": { "domains": domains, "site": { "files": { "index.html": page } } } });
    let own = json!(["shop.customer.test", "more.customer.test"]);
    shop.output("app_apply", &manifest(own.clone(), "first"))?;
    world.prove(&shop, "shop.customer.test")?;
    let made = shop.output("env_branch", &json!({}))?;
    let branch = world.steading.client().in_env(made["slug"].as_str().context("a slug")?);
    let domains = |client: &Client| -> anyhow::Result<Value> {
        Ok(client.output("app_describe", &json!({}))?["domains"].clone())
    };
    let held = domains(&shop)?;
    let targets = |plan: &Value| -> Vec<String> {
        let changes = plan["changes"].as_array().cloned().unwrap_or_default();
        changes.iter().map(|change| change["target"].as_str().unwrap_or_default().to_owned()).collect()
    };
    // The manifest of the repository is tried in the branch as it is.
    let applied = branch.output("app_apply", &manifest(own.clone(), "second"))?;
    ensure!(targets(&applied) == ["site"], "{applied}");
    // What the branch names no longer was never its own; what it names again neither.
    let without = branch.output("app_apply", &manifest(json!([]), "second"))?;
    ensure!(without.get("effects").is_none_or(|effects| effects == &json!([])), "{without}");
    let again = branch.output("app_apply", &manifest(own.clone(), "second"))?;
    let stays = "it stays with the environment that this is a branch of";
    ensure!(again["changes"][0]["detail"] == json!(stays), "{again}");
    assert_eq!(domains(&branch)?, Value::Null);
    branch.output("app_apply", &manifest(json!(["try.customer.test"]), "third"))?;
    assert_eq!(domains(&branch)?, json!([{ "domain": "try.customer.test", "proven": false }]));
    let merge = |more: Value| {
        let mut input = json!({ "from": made["slug"] });
        input
            .as_object_mut()
            .into_iter()
            .for_each(|input| input.extend(more.as_object().cloned().unwrap_or_default()));
        shop.output("env_merge", &input)
    };
    let plan = merge(json!({ "dry_run": true }))?;
    ensure!(targets(&plan) == ["site"], "{plan}");
    merge(json!({ "confirm": plan["confirm"] }))?;
    assert_eq!(domains(&shop)?, held);
    assert_eq!(world.plain("shop.customer.test", "/")?.text()?, "third");
    // To others of the tenant a proven domain is still closed.
    let other = world.app("other")?.call("app_apply", &manifest(own, "thief"))?;
    assert_eq!((other.code(), other.body["field"].as_str()), ("conflict", Some("/manifest/domains/0")));
    Ok(())
}
