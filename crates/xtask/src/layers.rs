//! Dependencies point down, and a few libraries stay behind their fences.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;

/// Our crates, lowest layer first; each may use only what stands in a lower one.
const LAYERS: [&[&str]; 6] = [
    &["kernel", "hand"],
    &["tool", "web", "store", "sandbox"],
    &["control", "capabilities", "hands", "models"],
    &["functions"],
    &["mcp-server", "agent", "edge"],
    &["gateway"],
];

/// Beside the layers: they build, start and test the product, and are no part of it.
const TOOLING: [&str; 3] = ["testkit", "xtask", "conformance-tests"];

/// A library, and the only crates that may name it.
const FENCES: [(&str, &[&str]); 5] = [
    ("rmcp", &["mcp-server", "agent"]),
    ("axum", &["web", "mcp-server", "edge", "gateway"]),
    ("sqlx", &["store", "capabilities"]),
    ("prometheus", &["gateway"]),
    ("anyhow", &["hand", "gateway", "testkit", "xtask", "conformance-tests"]),
];

/// Each crate of the workspace with the names of what it is built from, development dependencies left out.
pub type Graph = BTreeMap<String, Vec<String>>;

/// Reads the graph out of `cargo metadata`.
///
/// # Errors
/// Where the text is not what cargo writes.
pub fn graph(metadata: &Value) -> anyhow::Result<Graph> {
    let packages = metadata["packages"].as_array().context("no packages")?;
    let name = |value: &Value| value["name"].as_str().map(str::to_owned).context("a package without a name");
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().context("no dependencies")?;
            let built_from = dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name);
            Ok((name(package)?, built_from.collect::<Result<_, _>>()?))
        })
        .collect()
}

/// What in `graph` breaks the rules, a line each.
pub fn check(graph: &Graph) -> Vec<String> {
    let mut broken = Vec::new();
    for (package, dependencies) in graph {
        let tooling = TOOLING.contains(&package.as_str());
        let layer = layer(package);
        if layer.is_none() && !tooling {
            broken.push(format!("{package} has no layer: give it one in crates/xtask/src/layers.rs"));
            continue;
        }
        for dependency in dependencies {
            if graph.contains_key(dependency) {
                let allowed = tooling || self::layer(dependency) < layer && self::layer(dependency).is_some();
                if !allowed {
                    broken.push(format!("{package} uses {dependency}, which is not in a lower layer"));
                }
            }
            let fence = FENCES.iter().find(|(library, _)| library == dependency);
            if let Some((library, inside)) = fence.filter(|(_, inside)| !inside.contains(&package.as_str())) {
                broken.push(format!("{package} uses {library}, which only {} may", inside.join(", ")));
            }
        }
    }
    broken
}

fn layer(package: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&package))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_made_up(packages: &[(&str, &[&str])]) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        check(&packages.iter().map(|(name, uses)| (name.to_string(), owned(uses))).collect())
    }

    #[test]
    fn a_graph_that_points_down_is_whole() {
        let graph: [(&str, &[&str]); 6] = [
            ("kernel", &["serde"]),
            ("store", &["kernel", "sqlx"]),
            ("mcp-server", &["kernel", "store", "rmcp", "axum"]),
            ("gateway", &["mcp-server", "kernel", "anyhow", "axum"]),
            ("testkit", &["anyhow"]),
            ("conformance-tests", &["testkit", "gateway"]),
        ];
        assert_eq!(check_made_up(&graph), [""; 0]);
    }

    #[test]
    fn upward_and_sideways_dependencies_are_named() {
        let graph: [(&str, &[&str]); 4] =
            [("kernel", &["store"]), ("store", &[]), ("tool", &["store", "testkit"]), ("testkit", &[])];
        assert_eq!(
            check_made_up(&graph),
            [
                "kernel uses store, which is not in a lower layer",
                "tool uses store, which is not in a lower layer",
                "tool uses testkit, which is not in a lower layer",
            ]
        );
    }

    #[test]
    fn libraries_outside_their_fence_and_crates_without_a_layer_are_named() {
        let graph: [(&str, &[&str]); 3] =
            [("barn", &["kernel"]), ("control", &["sqlx", "rmcp"]), ("tool", &["axum", "anyhow"])];
        assert_eq!(
            check_made_up(&graph),
            [
                "barn has no layer: give it one in crates/xtask/src/layers.rs",
                "control uses sqlx, which only store, capabilities may",
                "control uses rmcp, which only mcp-server, agent may",
                "tool uses axum, which only web, mcp-server, edge, gateway may",
                "tool uses anyhow, which only hand, gateway, testkit, xtask, conformance-tests may",
            ]
        );
    }

    #[test]
    fn development_dependencies_are_left_out_and_build_dependencies_are_not() {
        let metadata = json!({ "packages": [{ "name": "tool", "dependencies": [
            { "name": "kernel", "kind": null },
            { "name": "testkit", "kind": "dev" },
            { "name": "hand", "kind": "build" },
        ] }] });
        let expected = Graph::from([("tool".to_owned(), vec!["kernel".to_owned(), "hand".to_owned()])]);
        assert_eq!(graph(&metadata).unwrap(), expected);
    }

    #[test]
    fn this_workspace_keeps_its_layers() {
        assert_eq!(check(&graph(&crate::workspace::metadata().unwrap()).unwrap()), [""; 0]);
    }
}
