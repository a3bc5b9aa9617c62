//! `/v1/openapi.json` and `/v1/schemas/manifest`: what can be known without asking anybody.

use axum::extract::State;
use axum::response::Response;
use capabilities::releases::Manifest;
use http::StatusCode;
use kernel::Code;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use tool::{Doc, Effect};

use super::{Api, answer, sandboxes};

pub async fn document(State(api): State<Api>) -> Response {
    answer(StatusCode::OK, &openapi(api.0.registry.docs()))
}

/// The manifest's JSON Schema (2020-12).
pub async fn manifest() -> Response {
    answer(StatusCode::OK, &schemars::schema_for!(Manifest).to_value())
}

/// The OpenAPI document (3.1) of the platform's routes.
pub fn openapi<'a>(docs: impl Iterator<Item = &'a Doc>) -> Value {
    let mut paths = Map::new();
    for doc in docs {
        paths.insert(format!("/v1/tools/{}", doc.name), json!({ "post": tool(doc) }));
    }
    let own = routes().into_iter().map(|(path, methods)| (path.to_owned(), methods));
    for (path, methods) in own.chain(sandboxes::described(operation)) {
        let methods = with_parameters(&path, methods);
        paths.insert(path, methods);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Steading",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tools over plain JSON, and the platform's own resources.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "key": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "parameters": {
                "env": { "name": "Steading-Env", "in": "header", "schema": { "type": "string" },
                    "description": "The environment's slug or id, where the credential is not bound to one." },
                "tenant": { "name": "Steading-Tenant", "in": "header", "schema": { "type": "string" },
                    "description": "The tenant's slug or id; for the operator." },
                "idempotency": { "name": "Idempotency-Key", "in": "header", "schema": { "type": "string" },
                    "description": "The same key with the same body gives the first answer again." },
            },
            "responses": { "problem": { "description": "What is wrong (RFC 9457).",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } } } },
            "schemas": schemas(),
        },
    })
}

/// The manifest and its parts, where references from anywhere in the document find them, and problems.
fn schemas() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    generator.subschema_for::<Manifest>();
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Problem".to_owned(), problem());
    schemas.into()
}

/// Declares what stands in braces in `path`, which OpenAPI demands.
fn with_parameters(path: &str, mut methods: Value) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<_> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for operation in methods.as_object_mut().into_iter().flat_map(|methods| methods.values_mut()) {
        if let Some(query) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
            query.splice(0..0, parameters.iter().cloned());
        } else if !parameters.is_empty() {
            operation["parameters"] = parameters.clone().into();
        }
    }
    methods
}

fn tool(doc: &Doc) -> Value {
    let header = |name: &str| json!({ "$ref": format!("#/components/parameters/{name}") });
    let mut parameters = vec![header(if doc.in_environment { "env" } else { "tenant" })];
    if doc.spec.effect != Effect::Read {
        parameters.push(header("idempotency"));
    }
    json!({
        "operationId": doc.name,
        "summary": doc.spec.title,
        "description": doc.spec.about,
        "tags": ["tools"],
        "parameters": parameters,
        "requestBody": { "required": true, "content": { "application/json": { "schema": doc.input_schema } } },
        "responses": {
            "200": { "description": "Done.", "content": { "application/json": { "schema": doc.output_schema } } },
            "default": { "$ref": "#/components/responses/problem" },
        },
    })
}

fn operation(id: &str, summary: &str, status: &str) -> Value {
    json!({
        "operationId": id, "summary": summary,
        "responses": { status: { "description": "Done." }, "default": { "$ref": "#/components/responses/problem" } },
    })
}

fn routes() -> Vec<(&'static str, Value)> {
    let open = |mut operation: Value| {
        operation["security"] = json!([]);
        operation
    };
    vec![
        ("/v1/tools", json!({ "get": operation("listTools", "The tools this credential may call", "200") })),
        ("/v1/tools/{tool}", json!({ "get": operation("showTool", "One tool's schemas", "200") })),
        ("/v1/openapi.json", json!({ "get": open(operation("openapi", "This document", "200")) })),
        (
            "/v1/blobs/{sha256}",
            json!({
                "put": operation("putBlob", "Upload content under its SHA-256", "201"),
                "head": operation("hasBlob", "Whether the content is there", "200"),
            }),
        ),
        (
            "/v1/envs",
            json!({
                "get": operation("listEnvironments", "The tenant's environments", "200"),
                "post": operation("createEnvironment", "Make an environment", "201"),
            }),
        ),
        (
            "/v1/envs/{env}",
            json!({
                "get": operation("showEnvironment", "One environment", "200"),
                "delete": operation("deleteEnvironment", "Delete one, after a dry run", "200"),
            }),
        ),
        (
            "/v1/envs/{env}/egress",
            json!({
                "get": operation("showEgress", "The hosts its sandboxes are held to, null where all that the operator allows", "200"),
                "put": operation("setEgress", "Hold its sandboxes to {\"allow\": [hosts]}, of those that the operator allows", "200"),
            }),
        ),
        (
            "/v1/envs/{env}/sandboxes",
            json!({
                "get": operation("showDemands", "The least isolation of its sandboxes, null where what the operator demands", "200"),
                "put": operation("setDemands", "Demand {\"isolation\": level} of its sandboxes at least", "200"),
            }),
        ),
        (
            "/v1/envs/{env}/export",
            json!({ "get": operation("exportEnvironment", "Everything in it as one tar, secrets' values left out", "200") }),
        ),
        (
            "/v1/envs/{env}/backups",
            json!({
                "get": operation("listBackups", "Its backups, newest first", "200"),
                "post": operation("createBackup", "Make a backup now", "201"),
            }),
        ),
        (
            "/v1/envs/{env}/backups/{backup}",
            json!({
                "get": operation("showBackup", "One backup as a tar, as an export gives it", "200"),
                "delete": operation("deleteBackup", "Remove one backup", "204"),
            }),
        ),
        (
            "/v1/envs/{env}/import",
            json!({ "post": operation("importEnvironment", "Make an environment with this slug out of such a tar", "201") }),
        ),
        (
            "/v1/audit",
            json!({ "get": operation("listAudit", "What was done in the tenant, latest first; with env, in that environment", "200") }),
        ),
        (
            "/v1/audit/export",
            json!({ "get": operation("exportAudit", "The tenant's whole audit log as NDJSON, which `steading audit verify` verifies offline", "200") }),
        ),
        (
            "/v1/audit/key",
            json!({ "get": operation("showAuditKey", "The public key that audit logs are signed with", "200") }),
        ),
        (
            "/v1/budgets",
            json!({
                "get": operation("listBudgets", "The tenant's budgets for models and what is left of each; with env, all that bounds that environment", "200"),
                "put": operation("setBudget", "Set {\"env\"?, \"unit\": \"tokens\" or \"micro\", \"period\": \"day\" or \"month\", \"most\"}; the tenant's own is the operator's to set", "200"),
            }),
        ),
        (
            "/v1/budgets/{budget}",
            json!({
                "get": operation("showBudget", "One budget and what is left of it", "200"),
                "put": operation("changeBudget", "Have it be of another amount, {\"most\"}", "200"),
                "delete": operation("removeBudget", "Remove one; what was spent is not forgotten", "200"),
            }),
        ),
        (
            "/v1/usage",
            json!({ "get": operation("showUsage", "What the tenant, or with env one environment, has used since a time: calls by tool, tokens and money of models", "200") }),
        ),
        (
            "/v1/usage/export",
            json!({ "get": operation("exportUsage", "What the tenant has used hour by hour, of hours that are over, as JSON, CSV or CloudEvents", "200") }),
        ),
        (
            "/v1/meters",
            json!({
                "get": operation("listMeters", "What is counted and what it costs, by date", "200"),
                "put": operation("setMeterPrice", "Set {\"meter\", \"since\"?, \"micro\"}, in millionths, for the operator", "200"),
            }),
        ),
        (
            "/v1/statements",
            json!({ "get": operation("showStatement", "What the tenant, or with env one environment, has used in a month and what it comes to", "200") }),
        ),
        (
            "/v1/costs/estimate",
            json!({ "get": operation("estimateCosts", "What so many environments would cost in a month", "200") }),
        ),
        (
            "/v1/limits",
            json!({ "get": operation("showLimits", "What holds for the tenant and, with env, for an environment, and what is left of it", "200") }),
        ),
        ("/v1/plans", json!({ "get": operation("listPlans", "The plans, for the operator", "200") })),
        (
            "/v1/plans/{plan}",
            json!({
                "put": operation("setPlan", "Set {\"tenant\": {limits}, \"environment\": {limits}}, for all that have the plan at once, for the operator", "200"),
                "delete": operation("removePlan", "Remove a plan that nobody has, for the operator", "200"),
            }),
        ),
        (
            "/v1/prices",
            json!({
                "get": operation("listPrices", "What models cost, by date", "200"),
                "put": operation("setPrice", "Set {\"model\", \"since\"?, \"input\", \"cached_input\"?, \"output\"}, in millionths by the million tokens, for the operator", "200"),
            }),
        ),
        (
            "/v1/keys",
            json!({
                "get": operation("listKeys", "The tenant's keys", "200"),
                "post": operation("createKey", "Make a key, shown once", "201"),
            }),
        ),
        ("/v1/keys/{key}", json!({ "delete": operation("revokeKey", "Revoke a key", "200") })),
        (
            "/v1/keys/{key}/rotate",
            json!({ "post": operation("rotateKey", "Make a key in its place, shown once; the old one is good for {\"overlap_s\": seconds} yet", "201") }),
        ),
        (
            "/v1/members",
            json!({
                "get": operation("listMembers", "The people of the tenant", "200"),
                "post": operation("inviteMember", "Invite somebody: {email, role, name}; the invitation's address is shown once", "201"),
            }),
        ),
        (
            "/v1/members/{member}",
            json!({
                "patch": operation("changeMember", "Give a member another {role}: owner, developer or viewer", "200"),
                "delete": operation("removeMember", "Remove a member, with all that stands on them", "200"),
            }),
        ),
        (
            "/v1/members/{member}/invitation",
            json!({ "post": operation("inviteMemberAgain", "Another invitation, which sets another password", "201") }),
        ),
        (
            "/v1/credentials",
            json!({
                "get": operation("listCredentials", "The minted credentials that live", "200"),
                "post": operation("mintCredential", "Mint a credential out of this one's rights: {env, tools or scopes, expires_in, source, args}", "201"),
            }),
        ),
        (
            "/v1/credentials/{credential}",
            json!({ "delete": operation("revokeCredential", "Revoke one with all that stand on it", "200") }),
        ),
        (
            "/v1/encryption-keys",
            json!({ "get": operation("showEncryptionKeys", "What values are sealed with, and how many by older keys, for the operator", "200") }),
        ),
        (
            "/v1/encryption-keys/rotate",
            json!({ "post": operation("rotateEncryptionKeys", "Put another key-encryption key in force, and have other data keys seal, for the operator", "200") }),
        ),
        (
            "/v1/signing-keys",
            json!({ "get": operation("listSigningKeys", "What signs minted credentials, for the operator", "200") }),
        ),
        (
            "/v1/signing-keys/rotate",
            json!({ "post": operation("rotateSigningKey", "Have another key sign, for the operator; with {\"forget\": true} what was signed before holds no more", "200") }),
        ),
        ("/v1/runner", {
            let mut put = operation(
                "useRunner",
                "Have all sandboxes use the programs of this tar, for the operator",
                "200",
            );
            put["requestBody"] = json!({ "required": true, "content": { "application/x-tar": {} } });
            json!({ "get": operation("showRunner", "The programs that all sandboxes have, for the operator", "200"), "put": put })
        }),
        (
            "/v1/tenants",
            json!({
                "get": operation("listTenants", "The tenants, for the operator", "200"),
                "post": operation("createTenant", "Make a tenant, for the operator", "201"),
            }),
        ),
        (
            "/v1/tenants/{tenant}",
            json!({
                "get": operation("showTenant", "A tenant, for the operator", "200"),
                "patch": operation("changeTenant", "Change what a tenant is called, its plan, or limits of its own, for the operator", "200"),
                "delete": operation("deleteTenant", "Delete a tenant, which can be restored for a time, for the operator", "200"),
            }),
        ),
        (
            "/v1/tenants/{tenant}/suspend",
            json!({ "post": operation("suspendTenant", "Refuse a tenant's credentials and close its apps, for the operator", "200") }),
        ),
        (
            "/v1/tenants/{tenant}/resume",
            json!({ "post": operation("resumeTenant", "Undo a suspension, for the operator", "200") }),
        ),
        (
            "/v1/tenants/{tenant}/restore",
            json!({ "post": operation("restoreTenant", "Undo a deletion, for the operator", "200") }),
        ),
        (
            "/v1/provision",
            json!({ "post": operation("provision", "A tenant, an environment and a credential for it, one or many", "200") }),
        ),
        (
            "/v1/schemas/manifest",
            json!({ "get": open(operation("manifestSchema", "The manifest's JSON Schema", "200")) }),
        ),
        ("/oauth/jwks.json", json!({ "get": open(operation("jwks", "The keys that verify tokens", "200")) })),
        (
            "/.well-known/oauth-protected-resource",
            json!({ "get": open(operation("protectedResource", "Whose tokens open the platform (RFC 9728)", "200")) }),
        ),
        (
            "/.well-known/oauth-protected-resource/mcp",
            json!({ "get": open(operation("protectedMcp", "The same of /mcp", "200")) }),
        ),
        (
            "/.well-known/oauth-protected-resource/mcp/{env}",
            json!({ "get": open(operation("protectedMcpOf", "The same of /mcp/{env}", "200")) }),
        ),
        (
            "/.well-known/oauth-authorization-server",
            json!({ "get": open(operation("authorizationServer", "What it can do (RFC 8414)", "200")) }),
        ),
        (
            "/oauth/authorize",
            json!({
                "get": open(operation("authorize", "The page on which a user lets a client act", "200")),
                "post": open(operation("authorizeAnswer", "The user's decision, by that page's form", "303")),
            }),
        ),
        (
            "/oauth/sign-in",
            json!({ "post": open(operation("signIn", "The user's key, by the page's form", "303")) }),
        ),
        (
            "/oauth/directory",
            json!({ "get": open(operation("directory", "Send a browser to the directory that vouches for people", "303")) }),
        ),
        (
            "/oauth/directory/callback",
            json!({ "get": open(operation("directoryCallback", "Take a browser that comes back from it", "303")) }),
        ),
        (
            "/oauth/token",
            json!({ "post": open(operation("token", "Tokens for a code, a refresh token or a device code", "200")) }),
        ),
        (
            "/oauth/register",
            json!({ "post": open(operation("registerClient", "Register a client (RFC 7591)", "201")) }),
        ),
        ("/oauth/revoke", json!({ "post": open(operation("revokeToken", "End a token (RFC 7009)", "200")) })),
        (
            "/oauth/device",
            json!({
                "get": open(operation("device", "The page on which a user types a device's code", "200")),
                "post": open(operation("beginDevice", "Begin as a device (RFC 8628)", "200")),
            }),
        ),
        (
            "/oauth/device/answer",
            json!({ "post": open(operation("deviceAnswer", "The user's decision, by that page's form", "200")) }),
        ),
        (
            "/console/session",
            json!({
                "get": open(operation("consoleVisit", "Who is signed in at the console, for its pages", "200")),
                "post": open(operation("consoleSignIn", "The visitor's key, by the console's page", "201")),
                "delete": open(operation("consoleSignOut", "End the visit", "200")),
            }),
        ),
        (
            "/console/ways",
            json!({ "get": open(operation("consoleWays", "How people sign in beside by a key and a password", "200")) }),
        ),
        (
            "/console/invitation",
            json!({ "post": open(operation("consoleInvitation", "Whom an invitation is for", "200")) }),
        ),
        (
            "/console/join",
            json!({ "post": open(operation("consoleJoin", "Take an invitation up, and sign in", "201")) }),
        ),
        ("/healthz", json!({ "get": open(operation("healthz", "The process answers", "200")) })),
        ("/readyz", json!({ "get": open(operation("readyz", "So does what it stands on", "200")) })),
        (
            "/metrics",
            json!({ "get": operation("metrics", "What the platform counts, for Prometheus: the operator's", "200") }),
        ),
    ]
}

fn problem() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "message", "request_id"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "enum": codes },
            "message": { "type": "string" },
            "hint": { "type": "string", "description": "What to do next." },
            "field": { "type": "string", "description": "A JSON pointer into the input." },
            "retry_after": { "type": "integer", "description": "Seconds." },
            "request_id": { "type": "string" },
            "limit": { "type": "object", "description": "The limit that was reached.",
                "required": ["name", "scope", "value", "unit", "left", "raise"], "properties": {
                    "name": { "type": "string" }, "scope": { "type": "string" }, "value": { "type": "integer" },
                    "unit": { "type": "string" }, "window_s": { "type": "integer" }, "left": { "type": "integer" },
                    "reset_s": { "type": "integer" }, "raise": { "type": "string" } } },
            "next": { "type": "object", "description": "The call that would mend it." },
        },
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    /// Every reference below `value`.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|field| references(field, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn references_lead_somewhere_and_parameters_of_paths_are_declared() {
        let document: Value = serde_json::from_str(include_str!("../../../docs/openapi.json")).unwrap();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        for (path, methods) in document["paths"].as_object().unwrap() {
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                for (method, operation) in methods.as_object().unwrap() {
                    let mut declared = operation["parameters"].as_array().into_iter().flatten();
                    let declares = |p: &Value| p["in"] == "path" && p["name"] == name;
                    assert!(declared.any(declares), "{method} {path}: {name}");
                }
            }
        }
    }
}
