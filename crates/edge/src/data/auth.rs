//! Signing up, in and out.

use axum::body::Body;
use axum::response::Response;
use capabilities::auth::{Asking, Credentials, Ending, Session};
use http::{Method, StatusCode};
use kernel::{Code, Error, Result, Secret};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Ask, Data, json as answer_json, unknown};

/// What nothing more is to be said to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    email: String,
    password: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refreshing {
    refresh_token: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leaving {
    #[serde(default)]
    everywhere: bool,
}

impl From<Typed> for Credentials {
    fn from(typed: Typed) -> Self {
        Self { email: typed.email, password: typed.password }
    }
}

/// Answers for `/_/auth/…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let path = ask.path();
    let (allow, name) = match path.as_slice() {
        [_, "me"] => ("GET, HEAD", "me"),
        [_, name @ ("anonymous" | "signup" | "login" | "refresh" | "logout")] => ("POST", *name),
        _ => return Err(unknown()),
    };
    let reads = matches!(ask.parts.method, Method::GET | Method::HEAD);
    if (allow == "POST" && ask.parts.method != Method::POST) || (allow != "POST" && !reads) {
        return Ok(ask.only(allow));
    }
    let auth = &data.auth;
    let token = ask.token()?;
    // Also where no session is needed, one that has ended is not taken for none.
    ask.guest(data).await?;
    let asking = Asking { env: ask.env, methods: &ask.app.auth.methods, client: ask.peer() };
    match name {
        "me" => {
            let profile = auth.me(ask.env, &token.ok_or_else(nobody)?).await?;
            Ok(answer_json(StatusCode::OK, &serde_json::to_value(profile).map_err(Error::internal)?))
        }
        "anonymous" => {
            let Nothing {} = ask.json(body).await?;
            session(StatusCode::CREATED, auth.anonymous(&asking).await?)
        }
        "signup" => {
            let typed: Typed = ask.json(body).await?;
            session(StatusCode::CREATED, auth.sign_up(&asking, token.as_ref(), &typed.into()).await?)
        }
        "login" => {
            let typed: Typed = ask.json(body).await?;
            session(StatusCode::OK, auth.log_in(&asking, &typed.into()).await?)
        }
        "refresh" => {
            let Refreshing { refresh_token } = ask.json(body).await?;
            session(StatusCode::OK, auth.refresh(&asking, &refresh_token).await?)
        }
        _ => {
            let Leaving { everywhere } = ask.json(body).await?;
            let ending = if everywhere { Ending::Everywhere } else { Ending::This };
            auth.log_out(ask.env, &token.ok_or_else(nobody)?, ending).await?;
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
    }
}

fn nobody() -> Error {
    Error::new(Code::Unauthenticated, "there is no session").hint("send Authorization: Bearer <access token>")
}

/// A session as its owner gets it: the one place where these tokens are written out.
fn session(status: StatusCode, session: Session) -> Result<Response> {
    let user: Value = serde_json::to_value(&session.user).map_err(Error::internal)?;
    let body = json!({
        "access_token": session.access_token.expose(),
        "token_type": "Bearer",
        "refresh_token": session.refresh_token.expose(),
        "expires_in": session.expires_in.as_secs(),
        "user": user,
    });
    Ok(answer_json(status, &body))
}
