//! Devices without a browser: they begin here, and their users type the code that they show (RFC 8628).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use control::oauth::{DEVICE_INTERVAL, DEVICE_LIFETIME, Refused, Words};
use http::StatusCode;
use kernel::{Error, Surface};
use mcp_server::auth;
use serde_json::json;
use tool::Effect;

use super::session::{ended, kept};
use super::{Door, Fields, authorize, base, json_answer, pages, refused, resource_of, too_often};

const UNKNOWN: &str =
    "No device waits for this code. Look at what it shows; a code is good for ten minutes, once.";

/// Begins.
pub async fn begin(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = auth::source(&parts);
    let outcome = async {
        let base = base(&parts)?;
        let fields = Fields::of(&parts, body, &[]).await?;
        if door.devices.is_over(source) {
            return Err(Refused::Platform(too_often()));
        }
        let client = door.client(fields.need("client_id")?, source).await?;
        let words = Words::read(fields.get("scope").unwrap_or_default())?;
        let resource = match fields.get("resource") {
            Some(resource) => resource_of(&base, resource)?.0,
            None => base.to_string(),
        };
        door.devices.count(source);
        let device = door.oauth().begin_device(&client, &words, &resource).await?;
        let page = format!("{base}/oauth/device");
        Ok(json!({
            "device_code": device.secret.expose(),
            "user_code": device.user_code,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={}", device.user_code),
            "expires_in": DEVICE_LIFETIME.as_secs(),
            "interval": DEVICE_INTERVAL.as_secs(),
        }))
    };
    match outcome.await {
        Ok(begun) => json_answer(StatusCode::OK, &begun),
        Err(refusal) => refused(&refusal),
    }
}

/// Shows the page: to type the code, to sign in, or to decide.
pub async fn show(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let source = auth::source(&parts);
    let query = parts.uri.query().unwrap_or_default();
    let outcome = async {
        let base = base(&parts)?;
        let fields = Fields::read(query.as_bytes(), &[]).map_err(|e| Error::invalid("", e.to_string()))?;
        let code = fields.get("user_code").unwrap_or_default();
        let session = door.session(&parts, &base);
        let user = match &session {
            Some(session) => door.visitor(session, source).await?,
            None => None,
        };
        // Nobody learns which codes there are who has no key.
        let Some((session, user)) = session.zip(user) else {
            let session = door.begin(&base, None)?;
            let code: String = url::form_urlencoded::byte_serialize(code.as_bytes()).collect();
            let next = format!("/oauth/device?user_code={code}");
            let page = door.sign_in_page(StatusCode::OK, &next, &session, None);
            return Ok(kept(page, &base, &session));
        };
        if code.is_empty() {
            return Ok(pages::typed("", None));
        }
        if door.wrong_keys.is_over(source) {
            return Err(too_often());
        }
        let Some(device) = door.oauth().device(code).await? else {
            door.wrong_keys.count(source);
            return Ok(pages::typed(code, Some(UNKNOWN)));
        };
        let (_, env) =
            resource_of(&base, &device.grant.resource).map_err(|e| Error::invalid("", e.to_string()))?;
        let envs = door.choices(&user, env.as_deref()).await?;
        let words = Words::read(&device.grant.words).map_err(|e| Error::invalid("", e.to_string()))?;
        let beware = format!(
            "Allow this only where you have begun it yourself and your device shows {}: somebody else's would act for you.",
            code.to_ascii_uppercase()
        );
        let tenant = door.whose(&user, env.as_deref()).await?;
        let form = door.form_tag(&session);
        Ok(pages::question(&pages::Question {
            client: &device.grant.name,
            whom: "It asks from a device, or a terminal.",
            back: None,
            beware: Some(&beware),
            tenant: &tenant,
            key: &user.key.name,
            envs: &envs,
            resource: &device.grant.resource,
            words: authorize::words_of(&user, &words),
            days: door.oauth().consent_days(),
            action: "/oauth/device/answer",
            hidden: vec![("form", &form), ("user_code", code)],
        }))
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}

/// Takes the decision.
pub async fn answer(State(door): State<Arc<Door>>, request: Request) -> Response {
    // It comes to its end, and on record, also when whoever has asked goes away.
    tokio::spawn(answered(door, request))
        .await
        .unwrap_or_else(|error| pages::failed(&Error::internal(format!("a page panicked: {error}"))))
}

async fn answered(door: Arc<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let source = auth::source(&parts);
    let outcome = async {
        let base = base(&parts)?;
        let form = Fields::of(&parts, body, &["grant"]).await.map_err(wrong)?;
        let session = door.session(&parts, &base).filter(|session| door.is_its_form(session, &form));
        let user = match &session {
            Some(session) => door.visitor(session, source).await?,
            None => None,
        };
        let Some(user) = user else { return Ok(pages::stale()) };
        let code = form.get("user_code").unwrap_or_default();
        if door.wrong_keys.is_over(source) {
            return Err(too_often());
        }
        let Some(device) = door.oauth().device(code).await? else {
            door.wrong_keys.count(source);
            return Ok(pages::typed(code, Some(UNKNOWN)));
        };
        let asked = Words::read(&device.grant.words).map_err(wrong)?;
        let words =
            Door::ticked(&form, &asked).map_err(wrong)?.filter(|_| form.get("answer") == Some("allow"));
        let Some(words) = words else {
            door.oauth().answer_device(code, None).await?;
            return Ok(ended(pages::done("Denied", "The device is told. You can close this page."), &base));
        };
        let (_, env) = resource_of(&base, &device.grant.resource).map_err(wrong)?;
        let env = env.as_deref().or(form.get("env"));
        let env = env.ok_or_else(|| {
            Error::invalid("/env", "no environment was chosen").hint("go back and choose one")
        })?;
        let place = door.oauth().place(&user, env).await?;
        let caller = user.caller.clone().in_env(Some(place.env)).by(Surface::Http, source);
        let oauth = door.oauth();
        let work = oauth.answer_device(code, Some((&user, place.env, &words)));
        if !door.api.act(&caller, "oauth.consent", Effect::Write, work).await? {
            return Ok(pages::typed(code, Some(UNKNOWN)));
        }
        let what = "The device goes on within some seconds. You can close this page.";
        Ok(ended(pages::done("Allowed", what), &base))
    };
    outcome.await.unwrap_or_else(|error: Error| pages::failed(&error))
}

fn wrong(refusal: Refused) -> Error {
    Error::invalid("", refusal.to_string())
}
