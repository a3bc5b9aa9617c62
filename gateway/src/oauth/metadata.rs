//! What clients read before they ask: whose resource this is (RFC 9728), and what the server can do (RFC 8414).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::oauth::Words;
use http::StatusCode;
use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use serde_json::{Value, json};
use web::problem::Problem;

use super::exchange::TOKEN_EXCHANGE;
use super::{Door, base, json_answer};

/// How a client's device asks (RFC 8628 §3.4).
pub const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub async fn resource(request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let base = base(&parts)?;
    let path = parts.uri.path().strip_prefix("/.well-known/oauth-protected-resource").unwrap_or_default();
    let words = Words::all();
    let scopes: Vec<&str> = words.split(' ').collect();
    Ok(open(&json!({
        "resource": format!("{base}{path}"),
        "authorization_servers": [&*base],
        "scopes_supported": scopes,
        "bearer_methods_supported": ["header"],
        "resource_name": "Steading",
    })))
}

pub async fn server(State(door): State<Arc<Door>>, request: Request) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let base = base(&parts)?;
    let at = |path: &str| format!("{base}/oauth/{path}");
    let words = Words::all();
    let scopes: Vec<&str> = words.split(' ').collect();
    let mut grants = vec!["authorization_code", "refresh_token", DEVICE_CODE];
    grants.extend(door.exchange.as_ref().map(|_| TOKEN_EXCHANGE));
    let mut server = json!({
        "issuer": &*base,
        "authorization_endpoint": at("authorize"),
        "token_endpoint": at("token"),
        "device_authorization_endpoint": at("device"),
        "revocation_endpoint": at("revoke"),
        "jwks_uri": at("jwks.json"),
        "scopes_supported": scopes,
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": grants,
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "client_id_metadata_document_supported": door.documents.is_some(),
    });
    if door.registers {
        server["registration_endpoint"] = at("register").into();
    }
    Ok(open(&server))
}

/// Read by pages of any origin: it says the same to everybody.
fn open(body: &Value) -> Response {
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], json_answer(StatusCode::OK, body)).into_response()
}
