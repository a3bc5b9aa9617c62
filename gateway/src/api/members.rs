//! `/v1/members`: people of a tenant, invited, listed, given another role, removed.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use control::{Invited, Member, NewMember};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use kernel::{Caller, Error, MemberId, Result, Role};
use mcp_server::auth::Authenticated;
use mcp_server::extract::{Path, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use tool::Effect;
use web::problem::Problem;

use super::keys::After;
use super::{Action, Api, answer, page, read, unbroken};

/// Members on one page.
const PAGE: u32 = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    email: String,
    name: Option<String>,
    role: String,
}

pub async fn invite(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, headers, input) = read(&api, caller, request).await?;
        let Wanted { email, name, role } = tool::decode(input.clone())?;
        let work = async {
            let new = NewMember { email, name, role: role_of(&role)? };
            Ok(shown_once(&caller, api.platform().control.members().invite(&caller, new).await?))
        };
        let body =
            api.act_once(&caller, &headers, "members.invite", &input, without_invitation, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::CREATED, &body)).into_response())
    })
    .await
}

pub async fn invite_again(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async {
            let id = id_of(&id)?;
            Ok(shown_once(&caller, api.platform().control.members().invite_again(&caller, id).await?))
        };
        let action = Action::on("members.invite_again", "member", &id);
        let body = api.act(&caller, action, Effect::Write, work).await?;
        Ok(([(CACHE_CONTROL, "no-store")], answer(StatusCode::CREATED, &body)).into_response())
    })
    .await
}

pub async fn list(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Query(After { cursor }): Query<After>,
) -> Result<Response, Problem> {
    let work = async {
        let after = cursor.as_deref().map(str::parse).transpose();
        let after = after.map_err(|_| Error::invalid("/cursor", "this is not a cursor of this list"))?;
        api.platform().control.members().list(&caller, after, PAGE).await
    };
    let members = api.act(&caller, "members.list", Effect::Read, work).await?;
    let next = members.last().filter(|_| members.len() == PAGE as usize).map(|last| last.id.to_string());
    Ok(page("members", members.iter().map(shown).collect(), next))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    role: String,
}

pub async fn change(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    unbroken(async move {
        let (caller, _, input) = read(&api, caller, request).await?;
        let Changed { role } = tool::decode(input)?;
        let work = async {
            let role = role_of(&role)?;
            api.platform().control.members().change(&caller, id_of(&id)?, role).await
        };
        let action = Action::on("members.change", "member", &id);
        let member = api.act(&caller, action, Effect::Idempotent, work).await?;
        Ok(answer(StatusCode::OK, &shown(&member)))
    })
    .await
}

pub async fn remove(
    State(api): State<Api>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    unbroken(async move {
        let work = async { api.platform().control.members().remove(&caller, id_of(&id)?).await };
        api.act(&caller, Action::on("members.remove", "member", &id), Effect::Destroy, work).await?;
        Ok(answer(StatusCode::OK, &json!({ "removed": true })))
    })
    .await
}

fn role_of(text: &str) -> Result<Role> {
    text.parse().map_err(|unknown: kernel::UnknownRole| Error::invalid("/role", unknown.to_string()))
}

/// What is not an id is told apart from a missing member by nobody.
fn id_of(text: &str) -> Result<MemberId> {
    text.parse().map_err(|_| {
        Error::not_found(format!("member {:?}", text.chars().take(64).collect::<String>()))
            .hint("GET /v1/members lists them")
    })
}

/// What is shown to whoever invites, once: the invitation is behind the address's `#`, which no server is sent.
fn shown_once(caller: &Caller, Invited { member, invitation }: Invited) -> Value {
    let origin = caller.at.as_deref().and_then(|at| url::Url::parse(at).ok());
    let mut link = json!({ "expires_at": member.invited_until.map(|until| until.to_string()) });
    let path = format!("/console/join#{}", invitation.expose());
    link["url"] = match origin {
        Some(url) => format!("{}{path}", url.origin().ascii_serialization()).into(),
        None => path.into(),
    };
    let mut body = shown(&member);
    body["invitation"] = link;
    body
}

/// An invitation is shown once, and so not to a repeat of the call that made it.
fn without_invitation(body: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().map(|fields| fields.remove("invitation"));
    body
}

/// A member, as everybody is shown them who may see them.
pub fn shown(member: &Member) -> Value {
    let mut body = json!({
        "id": member.id, "name": member.name, "role": member.role.as_str(),
        "state": if member.joined.is_some() { "joined" } else { "invited" },
        "credential": member.key, "created_at": member.created.to_string(),
    });
    let optional = [
        ("email", member.email.clone()),
        ("directory", member.vouched.as_ref().map(|by| by.issuer.clone())),
        ("invited_until", member.invited_until.map(|at| at.to_string())),
        ("joined_at", member.joined.map(|at| at.to_string())),
        ("last_used_at", member.last_used.map(|at| at.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    body
}
