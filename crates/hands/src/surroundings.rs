//! Variables that every command in a sandbox has: where the way out is, and what makes usual programs work there as they
//! are.

use std::collections::BTreeMap;

/// Where the way out is, inside.
const PROXY: &str = "http://127.0.0.1:3128";

/// What is not asked for by it.
const NEAR: &str = "localhost,127.0.0.1,::1";

/// Where programs are looked for: first those that were installed for the workspace, last those of the platform's builder.
const PATH: &str = "/workspace/.local/bin:/usr/local/bin:/usr/bin:/bin:/run/steading/runner/current";

/// The variables; `preview_domain` is what previews are shown below.
pub fn surroundings(preview_domain: Option<&str>) -> BTreeMap<String, String> {
    let variables = [
        ("HTTP_PROXY", PROXY),
        ("HTTPS_PROXY", PROXY),
        ("http_proxy", PROXY),
        ("https_proxy", PROXY),
        ("npm_config_proxy", PROXY),
        ("npm_config_https_proxy", PROXY),
        ("PIP_PROXY", PROXY),
        ("NO_PROXY", NEAR),
        ("no_proxy", NEAR),
        ("NODE_USE_ENV_PROXY", "1"),
        ("PATH", PATH),
        // What npm installs for everybody is the workspace's own.
        ("npm_config_prefix", "/workspace/.local"),
    ];
    let mut all: BTreeMap<_, _> =
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if let Some(domain) = preview_domain {
        // Vite answers no host that it does not know.
        all.insert("__VITE_ADDITIONAL_SERVER_ALLOWED_HOSTS".to_owned(), format!(".{domain}"));
    }
    all
}
