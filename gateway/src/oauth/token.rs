//! What clients ask for without their users: tokens, a registration, an end.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use control::oauth::{Client, Issued, Refused, Words};
use http::StatusCode;
use http::request::Parts;
use kernel::{Caller, Principal, Scopes, Surface};
use mcp_server::auth;
use serde_json::{Value, json};
use tool::Effect;

use super::exchange::{TOKEN_EXCHANGE, exchange};
use super::metadata::DEVICE_CODE;
use super::{Door, Fields, base, json_answer, refused, resource_of};

/// Changes a code, a refresh token, a device code or a signed token of a trusted issuer into tokens.
pub async fn token(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = auth::source(&parts);
    let outcome = async {
        let fields = Fields::of(&parts, body, &[]).await?;
        // To its end, also when the client goes away: what is used up is not given back.
        let door = Arc::clone(&door);
        let issuing = tokio::spawn(async move {
            match fields.get("grant_type") {
                Some(TOKEN_EXCHANGE) => exchange(&door, &parts, &fields, source).await,
                _ => issue(&door, &parts, &fields, source).await.map(|issued| shown(&issued)),
            }
        });
        issuing.await.unwrap_or_else(|e| Err(kernel::Error::internal(e).into()))
    };
    match outcome.await {
        Ok(given) => json_answer(StatusCode::OK, &given),
        Err(refusal) => refused(&refusal),
    }
}

async fn issue(
    door: &Door,
    parts: &Parts,
    fields: &Fields,
    source: Option<IpAddr>,
) -> Result<Issued, Refused> {
    let oauth = door.oauth();
    let kind = fields.need("grant_type")?;
    let client = fields.need("client_id")?;
    let resource = match fields.get("resource") {
        Some(resource) => Some(resource_of(&base(parts)?, resource)?.0),
        None => None,
    };
    let issued = match kind {
        "authorization_code" => {
            let verifier = fields.need("code_verifier")?;
            if !(43..=128).contains(&verifier.len()) {
                return Err(Refused::Grant("the code_verifier must have 43 to 128 letters".into()));
            }
            let redirect = fields.get("redirect_uri");
            oauth.redeem(fields.need("code")?, client, redirect, verifier, resource.as_deref()).await?
        }
        "refresh_token" => {
            let words = fields.get("scope").map(Words::read).transpose()?;
            oauth.refresh(fields.need("refresh_token")?, client, words.as_ref(), resource.as_deref()).await?
        }
        DEVICE_CODE => oauth.poll(fields.need("device_code")?, client).await?,
        other => {
            let other: String = other.chars().take(64).collect();
            return Err(Refused::GrantType(format!("there is no grant type {other:?} here")));
        }
    };
    let (env, tenant, key) = issued.of;
    let caller = Caller::new(Principal::Key, tenant, issued.family, Scopes::NONE).standing_on([key]);
    let caller = caller.in_env(Some(env)).by(Surface::Http, source);
    door.api.record(&caller, "oauth.token", Effect::Write).await?;
    Ok(issued)
}

fn shown(issued: &Issued) -> Value {
    json!({
        "access_token": issued.access.expose(),
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "refresh_token": issued.refresh.expose(),
        "scope": issued.words.to_string(),
    })
}

/// Ends a token (RFC 7009). It says the same of a token that is none.
pub async fn revoke(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = async {
        let fields = Fields::of(&parts, body, &[]).await?;
        door.oauth().revoke(fields.need("token")?, fields.get("client_id")).await
    };
    match outcome.await {
        Ok(()) => json_answer(StatusCode::OK, &json!({})),
        Err(refusal) => refused(&refusal),
    }
}

/// Registers a client (RFC 7591).
pub async fn register(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let outcome = async {
        if !door.registers {
            return Err(Refused::Metadata(
                "clients do not register here: use the address of a document".into(),
            ));
        }
        let bytes = web::body::read(&parts.headers, body, super::FORM).await?;
        let said: Value = web::body::json(&parts.headers, &bytes)?;
        door.oauth().register(&said).map(|client| (client, said))
    };
    match outcome.await {
        Ok((client, said)) => json_answer(StatusCode::CREATED, &registered(&client, &said)),
        Err(refusal) => refused(&refusal),
    }
}

fn registered(client: &Client, said: &Value) -> Value {
    let mut types = vec!["authorization_code", "refresh_token"];
    types.extend(client.device.then_some(DEVICE_CODE));
    let native = client.redirects.iter().any(|redirect| !redirect.starts_with("https:"));
    let kind = said["application_type"].as_str().filter(|kind| matches!(*kind, "native" | "web"));
    json!({
        "client_id": client.id,
        "client_id_issued_at": kernel::Timestamp::now().as_secs(),
        "client_name": client.name,
        "redirect_uris": client.redirects,
        "grant_types": types,
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": kind.unwrap_or(if native { "native" } else { "web" }),
        "scope": Words::all(),
    })
}
