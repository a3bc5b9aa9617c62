//! `/v1/credentials`: short credentials that a credential mints out of its own rights, shown once, listed without their
//! token, revoked with all that stand on them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::{NewToken, Run};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kernel::{Caller, Code, Error, Held, KeyId, Networks, Result, Scope, Scopes};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::keys::After;
use super::{Action, Api, answer, page, read, unbroken};

/// Credentials on one page.
const PAGE: u32 = 100;
/// The most networks that can be listed.
const NETWORKS: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The slug or id of the environment; the maker's, where it is bound to one.
    pub env: Option<String>,
    tools: Option<Vec<String>>,
    scopes: Option<Vec<Scope>>,
    /// Seconds.
    expires_in: Option<u64>,
    /// A network or an address, or a list of them.
    source: Option<Value>,
    /// `{tool: {pointer: rule}}`.
    args: Option<Value>,
}

pub async fn mint(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let wanted: Wanted = tool::decode(input.clone())?;
        let work = async {
            let caller = in_environment(&api, &caller, wanted.env.as_deref()).await?;
            let minted = api.platform().control.tokens().mint(&caller, asked(&api, &caller, wanted)?).await?;
            let mut body = shown(&minted.row);
            body["token"] = minted.token.expose().into();
            Ok(body)
        };
        let body = api.act_once(&caller, &headers, "credentials.mint", &input, without_token, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::CREATED, &body)).into_response())
    })
    .await
}

/// A token is shown once, and so not to a repeat of the call that minted it.
fn without_token(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().map(|fields| fields.remove("token"));
    body
}

async fn in_environment(api: &Api, caller: &Arc<Caller>, env: Option<&str>) -> Result<Arc<Caller>> {
    match env {
        Some(env) => {
            let chosen = api.platform().control.select_env(caller, Some(env), None).await;
            chosen.map_err(|error| error.field("/env"))
        }
        None if caller.env.is_some() => Ok(Arc::clone(caller)),
        None => Err(api.0.gate.missing_env(caller).await.field("/env")),
    }
}

/// What is asked for, held against the tools there are and what the maker may.
pub fn asked(api: &Api, caller: &Caller, wanted: Wanted) -> Result<NewToken> {
    let doc = |name: &str, at: String| {
        api.0.registry.doc(name).map_err(|_| {
            let name: String = name.chars().take(64).collect();
            Error::invalid(at, format!("there is no tool {name:?}")).hint("GET /v1/tools lists the tools")
        })
    };
    let expires_in = wanted.expires_in.ok_or_else(|| {
        Error::invalid("/expires_in", "it is missing").hint("say for how many seconds, at most 86400")
    })?;
    let mut scopes = caller.scopes.intersection(Scopes::of_environment());
    if let Some(wanted) = &wanted.scopes {
        scopes = scopes.intersection(wanted.iter().copied().collect());
    }
    let mut of_tools = Scopes::NONE;
    for (n, name) in wanted.tools.iter().flatten().enumerate() {
        let doc = doc(name, format!("/tools/{n}"))?;
        of_tools = of_tools.iter().chain(doc.scopes().iter()).collect();
    }
    let held = Held::read(wanted.tools.clone(), wanted.args.as_ref())?;
    let at = |name: &str| {
        let name: String = name.chars().take(64).collect();
        format!("/args/{}", name.replace('~', "~0").replace('/', "~1"))
    };
    for name in held.ruled() {
        doc(name, at(name))?;
        if !held.has(name) {
            return Err(Error::invalid(at(name), format!("{name} is not among the tools"))
                .hint("list it in tools too, or leave its rules out"));
        }
    }
    match (&wanted.scopes, &wanted.tools) {
        (None, None) => {
            return Err(Error::invalid("/tools", "it is missing").hint(
                "list what the credential is for, as tools or as scopes; GET /v1/tools lists the tools",
            ));
        }
        // What its tools need, and no more: some look for another scope within, and whoever wants that says so.
        (None, Some(_)) => scopes = scopes.intersection(of_tools),
        (Some(_), _) => {}
    }
    let mine = |name: &str| {
        let needs = api.0.registry.doc(name).map(tool::Doc::scopes);
        needs.is_ok_and(|needs| needs.iter().all(|scope| scopes.contains(scope)))
    };
    let left = held.clone().of_tools(mine);
    if left.is_empty() {
        return Err(Error::new(Code::Forbidden, "the credential may call none of these tools")
            .field("/tools")
            .hint("GET /v1/tools lists those that it may call"));
    }
    Ok(NewToken {
        env: caller.env.ok_or_else(|| Error::internal("a caller without an environment"))?,
        scopes,
        held: left,
        source: wanted.source.as_ref().map(|source| networks(source, "/source")).transpose()?,
        expires_in: Duration::from_secs(expires_in),
        run: None,
    })
}

/// Networks as they are written: one, or a list.
///
/// # Errors
/// `invalid_input` at `at`.
pub fn networks(value: &Value, at: &str) -> Result<Networks> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let wrong = |at: String| {
        Error::invalid(at, "this is no network")
            .hint("write an address, or one with its length such as 10.0.0.0/8")
    };
    if list.is_empty() || list.len() > NETWORKS {
        return Err(Error::invalid(at, format!("list 1 to {NETWORKS} networks")));
    }
    let mut names = Vec::with_capacity(list.len());
    for (n, name) in list.iter().enumerate() {
        let at = if value.is_array() { format!("{at}/{n}") } else { at.to_owned() };
        let name = name.as_str().ok_or_else(|| wrong(at.clone()))?;
        Networks::of(std::iter::once(name)).map_err(|_| wrong(at))?;
        names.push(name);
    }
    Networks::of(names.into_iter()).map_err(|_| wrong(at.to_owned()))
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(after): Query<After>,
) -> Result<Response, Problem> {
    let work = async {
        let after: Option<KeyId> = after
            .cursor
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        api.platform().control.tokens().list(&caller, after, PAGE).await
    };
    let all = api.act(&caller, "credentials.list", Effect::Read, work).await?;
    let cursor = (all.len() == PAGE as usize).then(|| all.last().map(|row| row.id.to_string())).flatten();
    Ok(page("credentials", all.iter().map(shown).collect(), cursor))
}

pub async fn revoke(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let missing =
                || Error::not_found(format!("credential {:?}", id.chars().take(64).collect::<String>()));
            let id: KeyId = id.parse().map_err(|_| missing())?;
            api.platform().control.tokens().revoke(&caller, id).await
        };
        api.act(&caller, Action::on("credentials.revoke", "credential", &id), Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "revoked": true })))
    })
    .await
}

pub fn shown(row: &Run) -> Value {
    let parent = row.path.iter().rev().nth(1).unwrap_or(&row.root);
    let mut body = json!({
        "id": row.id, "env": row.env, "scopes": row.scopes, "parent": parent,
        "created_at": row.created.to_string(), "expires_at": row.ends.to_string(),
    });
    let optional = [
        ("tools", row.held.tools().map(|tools| json!(tools))),
        ("args", row.held.args()),
        ("source", row.source.as_ref().map(|source| json!(source.names()))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}
