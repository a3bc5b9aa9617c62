//! Signing up, in and out, and what users do with their accounts.

mod forms;
mod mfa;
mod oauth;
pub(super) mod openapi;
mod openapi_mfa;
mod openapi_others;
mod passkeys;
mod theme;
mod ui;

use axum::body::Body;
use axum::response::Response;
use capabilities::auth::{
    Asking, Challenge, CustomToken, Ending, Entered, Holdings, Session, SignIn, SignedUp,
};
use http::header::USER_AGENT;
use http::{Method, StatusCode};
use kernel::{Code, Error, Result, Secret};
use serde_json::{Value, json};

use super::{Ask, Data, json as answer_json, unknown};
use forms::{
    Changing, Known, Leave, Leaving, Mailing, Moving, New, Nothing, Phoned, Phoning, Refreshing, Resetting,
    Showing, Verifying, Vouched,
};

/// Answers for `/_/auth/…`.
pub(super) async fn answer(data: &Data, ask: &Ask<'_>, body: Body) -> Result<Response> {
    let path = ask.path();
    let route = path.get(1..).unwrap_or_default();
    let allow = match route {
        ["me"] => "GET, HEAD, DELETE",
        ["ui"] | ["me", "export"] => "GET, HEAD",
        ["ui", "page.js" | "page.css"] => "GET, HEAD",
        ["sessions"] => "GET, HEAD, DELETE",
        ["sessions", _] | ["identities", _] => "DELETE",
        ["identities"] => "GET, HEAD",
        // What begins or ends a way is not to be looked at in passing.
        ["oauth", "callback", _] => "GET, POST",
        ["oauth", _, "start"] => "GET",
        ["oauth", "token"] | ["custom"] => "POST",
        ["mfa"] => "GET, HEAD",
        ["mfa", "totp" | "recovery" | "verify"] | ["mfa", "totp", "verify"] => "POST",
        ["mfa", _] => "DELETE",
        ["passkeys"] => "GET, HEAD, POST",
        ["phone"] | ["phone", "verify"] => "POST",
        ["passkey"] | ["passkey" | "passkeys", "options"] => "POST",
        ["passkeys", _] => "PATCH, DELETE",
        ["anonymous" | "signup" | "login" | "refresh" | "logout" | "otp" | "password" | "email"]
        | ["otp" | "email", "verify"]
        | ["password", "forgot" | "reset"] => "POST",
        _ => return Err(unknown()),
    };
    if !allow.split(", ").any(|method| method == ask.parts.method.as_str()) {
        return Ok(ask.only(allow));
    }
    if let ["ui", ..] = route {
        return ui::answer(data, ask, route).await;
    }
    let token = ask.token()?;
    // Also where no session is needed, one that has ended is not taken for none.
    ask.user(data).await?;
    let device = ask.parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let asking =
        Asking { env: ask.env, settings: &ask.app.auth, client: ask.peer(), device, domain: ask.domain() };
    let outcome = Request { data, ask, asking, token }.answer(route, body).await;
    if let (Err(refusal), Some(way)) = (&outcome, way_in(route)) {
        data.auth.kept_out(ask.env, way, refusal, ask.id);
    }
    outcome
}

/// What a route is called that opens a session.
fn way_in(route: &[&str]) -> Option<&'static str> {
    match route {
        ["login"] => Some("password"),
        ["otp", "verify"] => Some("mailed code"),
        ["password", "reset"] => Some("new password"),
        ["phone", "verify"] => Some("text"),
        ["passkey"] => Some("passkey"),
        ["mfa", "verify"] => Some("second factor"),
        ["oauth", "token"] => Some("provider"),
        ["custom"] => Some("token of the app's server"),
        _ => None,
    }
}

/// A request that was let in.
struct Request<'a> {
    data: &'a Data,
    ask: &'a Ask<'a>,
    asking: Asking<'a>,
    token: Option<Secret>,
}

impl Request<'_> {
    async fn answer(&self, route: &[&str], body: Body) -> Result<Response> {
        let (auth, ask, asking, token) = (&self.data.auth, self.ask, &self.asking, self.token.as_ref());
        match route {
            ["me"] if ask.parts.method == Method::DELETE => {
                let Leave { current } = ask.json(body).await?;
                auth.leave(&self.holdings(), asking, self.own()?, current.as_ref()).await?;
                Ok(done())
            }
            ["me", "export"] => {
                let taken = auth.export(&self.holdings(), ask.env, self.own()?).await?;
                Ok(super::rows::json(StatusCode::OK, Box::<str>::from(taken).into_string().into()))
            }
            ["me"] => {
                let profile = auth.me(ask.env, self.own()?).await?;
                good(StatusCode::OK, &serde_json::to_value(profile).map_err(Error::internal)?)
            }
            ["sessions"] if ask.parts.method != Method::DELETE => {
                let sessions = auth.sessions(ask.env, self.own()?).await?;
                good(StatusCode::OK, &json!({ "sessions": sessions }))
            }
            ["sessions"] => self.end(Ending::Others).await,
            ["sessions", id] => self.end(Ending::One((*id).to_owned())).await,
            ["logout"] => {
                let Leaving { everywhere } = ask.json(body).await?;
                self.end(if everywhere { Ending::Everywhere } else { Ending::This }).await
            }
            ["anonymous"] => {
                let Nothing {} = ask.json(body).await?;
                signed_in(StatusCode::CREATED, auth.anonymous(asking).await?, None)
            }
            ["signup"] => {
                let New { email, password, redirect } = ask.json(body).await?;
                let known = Known { email, password }.into();
                match auth.sign_up(asking, token, &known, redirect.as_deref()).await? {
                    SignedUp::Entered(made) => signed_in(StatusCode::CREATED, made, None),
                    SignedUp::Mailed => self.mailed(),
                }
            }
            ["login"] => {
                let known: Known = ask.json(body).await?;
                signed_in(StatusCode::OK, auth.log_in(asking, &known.into()).await?, None)
            }
            ["refresh"] => {
                let Refreshing { refresh_token, attempt } = ask.json(body).await?;
                session(StatusCode::OK, auth.refresh(asking, &refresh_token, attempt.as_ref()).await?, None)
            }
            ["oauth", rest @ ..] => oauth::answer(self, rest, body).await,
            ["custom"] => {
                let Vouched { token: shown } = ask.json(body).await?;
                signed_in(StatusCode::OK, auth.custom(asking, token, &CustomToken(shown)).await?, None)
            }
            ["identities"] => {
                let identities = auth.identities(ask.env, self.own()?).await?;
                good(StatusCode::OK, &json!({ "identities": identities }))
            }
            ["identities", provider] => {
                auth.unlink(asking, self.own()?, provider).await?;
                Ok(done())
            }
            ["otp"] => {
                let Mailing { email, redirect } = ask.json(body).await?;
                auth.ask_code(asking, token, &email, redirect.as_deref()).await?;
                self.mailed()
            }
            ["otp", "verify"] => {
                let Verifying { email, code, token: link, password } = ask.json(body).await?;
                let shown = Showing { email, code, token: link }.read()?;
                entered(auth.verify(asking, token, &shown, password.as_ref()).await?)
            }
            ["password", "forgot"] => {
                let Mailing { email, redirect } = ask.json(body).await?;
                auth.forgot(asking, &email, redirect.as_deref()).await?;
                self.mailed()
            }
            ["password", "reset"] => {
                let Resetting { email, code, token, password } = ask.json(body).await?;
                let shown = Showing { email, code, token }.read()?;
                entered(auth.reset(asking, &shown, &password).await?)
            }
            ["password"] => {
                let Changing { password, current } = ask.json(body).await?;
                auth.change_password(asking, self.own()?, current.as_ref(), &password).await?;
                Ok(done())
            }
            ["email"] => {
                let Moving { email, current } = ask.json(body).await?;
                auth.ask_email(asking, self.own()?, current.as_ref(), &email).await?;
                self.mailed()
            }
            ["email", "verify"] => {
                let shown: Showing = ask.json(body).await?;
                let profile = auth.verify_email(asking, token, &shown.read()?).await?;
                good(StatusCode::OK, &json!({ "user": profile }))
            }
            ["phone"] => {
                let Phoning { phone } = ask.json(body).await?;
                auth.ask_text(asking, &phone).await?;
                self.mailed()
            }
            ["phone", "verify"] => {
                let Phoned { phone, code } = ask.json(body).await?;
                signed_in(StatusCode::OK, auth.verify_text(asking, token, &phone, &code).await?, None)
            }
            ["passkeys", rest @ ..] => self.passkeys(rest, body).await,
            ["passkey", rest @ ..] => self.by_passkey(rest, body).await,
            ["mfa", rest @ ..] => self.second_factors(rest, body).await,
            _ => Err(unknown()),
        }
    }

    fn holdings(&self) -> Holdings {
        Holdings { rows: self.data.rows.clone(), files: self.data.files.clone() }
    }

    /// The token of the user's own session.
    fn own(&self) -> Result<&Secret> {
        self.token.as_ref().ok_or_else(|| {
            Error::new(Code::Unauthenticated, "there is no session")
                .hint("send Authorization: Bearer <access token>")
        })
    }

    async fn end(&self, ending: Ending) -> Result<Response> {
        self.data.auth.log_out(self.ask.env, self.own()?, ending).await?;
        Ok(done())
    }

    /// The one answer to a request for mail, whoever has the address.
    fn mailed(&self) -> Result<Response> {
        let expires_in = self.data.auth.code_life().as_secs();
        good(StatusCode::ACCEPTED, &json!({ "sent": true, "expires_in": expires_in }))
    }
}

fn good(status: StatusCode, body: &Value) -> Result<Response> {
    Ok(answer_json(status, body))
}

fn done() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn entered(entered: Entered) -> Result<Response> {
    signed_in(StatusCode::OK, entered.signed_in, entered.redirect)
}

/// What a first factor has come to. Where a second one is asked for that is no failure, and no session yet.
fn signed_in(status: StatusCode, signed_in: SignIn, redirect: Option<String>) -> Result<Response> {
    let Challenge { ticket, factors, expires_in } = match signed_in {
        SignIn::Session(made) => return session(status, made, redirect),
        SignIn::Second(challenge) => challenge,
    };
    let mfa = json!({ "ticket": ticket.expose(), "factors": factors, "expires_in": expires_in.as_secs() });
    let mut body = json!({ "mfa": mfa });
    if let Some(redirect) = redirect {
        body["redirect"] = redirect.into();
    }
    good(StatusCode::OK, &body)
}

/// A session as its owner gets it: the one place where these tokens are written out.
fn session(status: StatusCode, session: Session, redirect: Option<String>) -> Result<Response> {
    let user: Value = serde_json::to_value(&session.user).map_err(Error::internal)?;
    let mut body = json!({
        "access_token": session.access_token.expose(),
        "token_type": "Bearer",
        "refresh_token": session.refresh_token.expose(),
        "expires_in": session.expires_in.as_secs(),
        "user": user,
    });
    if let Some(redirect) = redirect {
        body["redirect"] = redirect.into();
    }
    good(status, &body)
}
