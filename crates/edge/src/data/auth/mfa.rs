//! Second factors of users.

use axum::body::Body;
use axum::response::Response;
use capabilities::auth::{Enrolment, Presence};
use http::{Method, StatusCode};
use kernel::{Error, Result, Secret};
use serde_json::{Value, json};

use super::forms::{Activating, Enrolling, Present, Seconding, second};
use super::{Request, done, good, session};
use crate::data::unknown;

impl Request<'_> {
    /// Answers for `/_/auth/mfa…`.
    pub(super) async fn second_factors(&self, route: &[&str], body: Body) -> Result<Response> {
        let (auth, ask, asking) = (&self.data.auth, self.ask, &self.asking);
        match route {
            [] => {
                let factors = auth.factors(asking, self.own()?).await?;
                good(StatusCode::OK, &serde_json::to_value(factors).map_err(Error::internal)?)
            }
            ["totp"] => {
                let Enrolling { name, current } = ask.json(body).await?;
                let presence = current.map_or(Presence::Fresh, Presence::Password);
                let begun = auth.enrol(asking, self.own()?, name.as_deref(), &presence).await?;
                let Enrolment { id, secret, uri, expires_in } = begun;
                let begun = json!({
                    "id": id, "secret": secret.expose(), "uri": uri.expose(), "expires_in": expires_in.as_secs(),
                });
                good(StatusCode::CREATED, &begun)
            }
            ["totp", "verify"] => {
                let Activating { code } = ask.json(body).await?;
                recovery(&auth.activate(asking, self.own()?, &code).await?)
            }
            ["recovery"] => {
                let present: Present = ask.json(body).await?;
                recovery(&auth.recover(asking, self.own()?, &present.read()?).await?)
            }
            ["verify"] => {
                let Seconding { ticket, code, recovery_code } = ask.json(body).await?;
                let second = second(code, recovery_code)?;
                session(StatusCode::OK, auth.second(asking, &ticket, &second).await?, None)
            }
            [id] if ask.parts.method == Method::DELETE => {
                let present: Present = ask.json(body).await?;
                auth.remove_factor(asking, self.own()?, id, &present.read()?).await?;
                Ok(done())
            }
            _ => Err(unknown()),
        }
    }
}

/// Recovery codes as their owner gets them, once.
fn recovery(codes: &[Secret]) -> Result<Response> {
    let codes: Vec<Value> = codes.iter().map(|code| code.expose().into()).collect();
    good(StatusCode::OK, &json!({ "recovery_codes": codes }))
}
