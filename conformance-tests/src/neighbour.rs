//! A tenant beside the first one.

use anyhow::{Context, ensure};
use serde_json::json;
use testkit::http::Request;
use testkit::{Client, Steading};

/// A tenant with one environment, both of one name.
pub struct Neighbour {
    /// Its id.
    pub tenant: String,
    name: String,
}

impl Neighbour {
    /// Has the operator of this server make it.
    ///
    /// # Errors
    /// Where the server refuses.
    pub fn new(steading: &Steading, name: &str) -> anyhow::Result<Self> {
        let wanted = json!({ "slug": name });
        let operator = steading.client().without_env();
        let made = operator.request("POST", "/v1/tenants").json(&wanted).send()?;
        let tenant = made.json()?["tenant"].as_str().with_context(|| format!("{made:?}"))?.to_owned();
        let made = operator.request("POST", "/v1/tools/env_create").header("steading-tenant", &tenant);
        let made = made.json(&wanted).send()?;
        ensure!(made.status == 200, "no environment: {made:?}");
        Ok(Self { tenant, name: name.to_owned() })
    }

    /// A request of an operator for it, in its environment.
    pub fn request(&self, operator: &Client, method: &str, path: &str) -> Request {
        operator.clone().in_env(&self.name).request(method, path).header("steading-tenant", &self.tenant)
    }
}
