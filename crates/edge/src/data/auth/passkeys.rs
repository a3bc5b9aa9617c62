//! Passkeys of users.

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode};
use kernel::Result;
use serde_json::json;

use super::forms::{NamedPasskey, Nothing, Present, SentPasskey, ShownPasskey};
use super::{Request, done, good, signed_in};
use crate::data::unknown;

impl Request<'_> {
    /// Answers for `/_/auth/passkeys…`: the user's own.
    pub(super) async fn passkeys(&self, route: &[&str], body: Body) -> Result<Response> {
        let (auth, ask, asking) = (&self.data.auth, self.ask, &self.asking);
        match (route, &ask.parts.method) {
            (["options"], _) => {
                let present: Present = ask.json(body).await?;
                let options = auth.passkey_creation(asking, self.own()?, &present.read()?).await?;
                good(StatusCode::OK, &options)
            }
            ([], &Method::POST) => {
                let sent: SentPasskey = ask.json(body).await?;
                let made = auth.make_passkey(asking, self.own()?, &sent.into()).await?;
                good(StatusCode::CREATED, &json!(made))
            }
            ([], _) => {
                let passkeys = auth.passkeys(ask.env, self.own()?).await?;
                good(StatusCode::OK, &json!({ "passkeys": passkeys }))
            }
            ([id], &Method::DELETE) => {
                let present: Present = ask.json(body).await?;
                auth.remove_passkey(asking, self.own()?, id, &present.read()?).await?;
                Ok(done())
            }
            ([id], _) => {
                let NamedPasskey { name } = ask.json(body).await?;
                auth.rename_passkey(ask.env, self.own()?, id, &name).await?;
                Ok(done())
            }
            _ => Err(unknown()),
        }
    }

    /// Answers for `/_/auth/passkey…`: the way in.
    pub(super) async fn by_passkey(&self, route: &[&str], body: Body) -> Result<Response> {
        let (auth, ask, asking) = (&self.data.auth, self.ask, &self.asking);
        match route {
            ["options"] => {
                let Nothing {} = ask.json(body).await?;
                good(StatusCode::OK, &auth.passkey_request(asking).await?)
            }
            _ => {
                let shown: ShownPasskey = ask.json(body).await?;
                let entered = auth.show_passkey(asking, &shown.into()).await?;
                signed_in(StatusCode::OK, entered, None)
            }
        }
    }
}
