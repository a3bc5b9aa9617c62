//! `docs/metrics.md`, made from the catalogue.

use super::catalogue::ALL;

const BEFORE: &str = "\
# Metrics

`GET /metrics` on the platform's host, in Prometheus' text format. Written by `steading generate`.

**Who may read it.** The operator's key, and the token of the setting `metrics.token` (the variable
`STEADING_METRICS_TOKEN`), which opens nothing else: give Prometheus that one. Everybody else is refused, with 401 without
a credential and with 403 with another key. `docs/operate.md` has a scrape configuration.

**What labels say** is a closed set each: no tenant, environment, host, path, name or input is ever in one, so that the number
of series is bounded however many apps there are. What one tenant has used is in the tenant's own records, and not here.

**Counters** begin at 0 with the process. Each gateway of several counts its own.

| metric | type | labels | what it says |
|---|---|---|---|
";

const AFTER: &str = "
The doors: `mcp` and `tools` are tools over MCP and JSON; `sandboxes` and `control` the rest of `/v1`; `oauth`; `health` is
`/healthz`, `/readyz` and `/metrics`; `platform` the platform's pages, and paths that it does not have. Of apps: `rows`,
`users`, `files`, `realtime`, `functions` and `data` (whatever else there is below `/_/`), and `apps`, which is sites and routes.
`previews` are servers in sandboxes, `nobody` is for hosts that are not the platform's and not a domain. The listener that
sends plain HTTP on to HTTPS is not counted, nor is what the platform does by itself.
";

/// The document.
pub fn document() -> String {
    let mut text = BEFORE.to_owned();
    for metric in ALL {
        let labels: Vec<_> = metric.label_names().iter().map(|label| format!("`{label}`")).collect();
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            metric.name,
            metric.kind.as_str(),
            labels.join(" "),
            metric.about().replace('|', "\\|"),
        ));
    }
    text.push_str(AFTER);
    text
}
