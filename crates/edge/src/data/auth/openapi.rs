//! What the OpenAPI document says of accounts: what this app has on, and no more.

use capabilities::rows::{App, Method, Mfa, SignUp};
use serde_json::{Map, Value, json};

use super::{openapi_mfa as mfa, openapi_others as others};
use crate::data::openapi::{body, operation, reference};

/// Adds the paths of accounts and what they speak of.
pub(in crate::data) fn describe(app: &App, paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    let auth = &app.auth;
    if auth.methods.is_empty() {
        return;
    }
    if auth.mfa != Mfa::Off {
        schemas.extend(mfa::SCHEMAS.map(|(name, schema)| (format!("auth.{name}"), schema())));
    }
    schemas.extend(SCHEMAS.map(|(name, schema)| (format!("auth.{name}"), schema())));
    let on = |method| auth.methods.contains(&method);
    let mut add = |path: &str, method: &str, about: &str, answers: Answers, asked: Option<Value>| {
        let (status, schema) = match &answers {
            Answers::Session(200) if auth.mfa != Mfa::Off => {
                let either = [reference("auth.Session"), reference("auth.SecondFactor")];
                (200, Some(json!({ "oneOf": either })))
            }
            Answers::Session(status) => (*status, Some(reference("auth.Session"))),
            Answers::Entered => (200, Some(reference("auth.Session"))),
            Answers::Mailed => (202, Some(reference("auth.Mailed"))),
            Answers::Nothing => (204, None),
            Answers::With(schema) => (200, Some(schema.clone())),
            Answers::Made(schema) => (201, Some(schema.clone())),
            Answers::Led(_) => (303, None),
        };
        let mut described = operation(about, status, schema);
        if let Answers::Led(query) = answers {
            let named = |name: &&str| json!({ "in": "query", "name": name, "schema": { "type": "string" } });
            described["parameters"] = query.iter().map(named).collect();
        }
        if let Some(asked) = asked {
            described["requestBody"] = body(asked);
        }
        if let Some((name, _)) = path.split_once('{').and_then(|(_, rest)| rest.split_once('}')) {
            let named =
                json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } });
            match &mut described["parameters"] {
                Value::Array(parameters) => parameters.push(named),
                none => *none = json!([named]),
            }
        }
        let at = paths.entry(format!("/_/auth/{path}")).or_insert_with(|| json!({}));
        at[method] = described;
    };
    if on(Method::Anonymous) && auth.signup == SignUp::Open {
        let about = "Signs in without an account, which can be made of it later.";
        add("anonymous", "post", about, Answers::Session(201), None);
    }
    let mailing = || object(&["email"], &["email", "redirect"]);
    let shown = || {
        json!({ "oneOf": [object(&["email", "code"], &["email", "code"]), object(&["token"], &["token"])],
            "description": "The code with its address, or what the mail's link ends with." })
    };
    if on(Method::Password) {
        let known = object(&["email", "password"], &["email", "password"]);
        if auth.signup == SignUp::Open {
            let new = object(&["email", "password"], &["email", "password", "redirect"]);
            let answers = if auth.confirms() { Answers::Mailed } else { Answers::Session(201) };
            let about = match auth.confirms() {
                true => "Mails a code that makes an account, or says to the owner that there is one.",
                false => "Makes an account; of an anonymous session, that user's.",
            };
            add("signup", "post", about, answers, Some(new));
        }
        add("login", "post", "Signs in.", Answers::Session(200), Some(known));
        let about = "Mails a code and a link to set a new password with.";
        add("password/forgot", "post", about, Answers::Mailed, Some(mailing()));
        let properties = ["email", "code", "token", "password"];
        let about = "Sets a new password with what was mailed, and signs in; other sessions end.";
        let asked = object(&["password"], &properties);
        add("password/reset", "post", about, Answers::Session(200), Some(asked));
        let about =
            "Changes the password; `current` is needed ten minutes after signing in. Other sessions end.";
        let asked = object(&["password"], &["password", "current"]);
        add("password", "post", about, Answers::Nothing, Some(asked));
    }
    if on(Method::Otp) {
        add("otp", "post", "Mails a code and a link to sign in with.", Answers::Mailed, Some(mailing()));
    }
    if on(Method::Otp) || auth.confirms() || auth.signup == SignUp::Invite {
        let about =
            "Signs in with what was mailed; an anonymous session becomes the account of a new address.";
        add("otp/verify", "post", about, Answers::Session(200), Some(shown()));
    }
    if on(Method::Otp) || on(Method::Password) {
        let asked = object(&["email"], &["email", "current"]);
        let about = "Mails a code and a link to a new address; `current` as for the password.";
        add("email", "post", about, Answers::Mailed, Some(asked));
        let user = json!({ "type": "object", "properties": { "user": reference("auth.User") } });
        add("email/verify", "post", "Takes the new address.", Answers::With(user), Some(shown()));
    }
    if on(Method::Phone) {
        let asked = object(&["phone"], &["phone"]);
        add("phone", "post", "Sends a code to a phone, +49….", Answers::Mailed, Some(asked));
        let asked = object(&["phone", "code"], &["phone", "code"]);
        let about = "Signs in with what was sent; an anonymous session becomes the account of a new number.";
        add("phone/verify", "post", about, Answers::Session(200), Some(asked));
    }
    if on(Method::OAuth) {
        others::describe_providers(&mut add);
    }
    if on(Method::Custom) {
        others::describe_custom(&mut add);
    }
    if on(Method::OAuth) || on(Method::Custom) || on(Method::Phone) {
        others::describe_identities(&mut add);
    }
    if auth.mfa != Mfa::Off {
        mfa::describe(&mut add);
    }
    if on(Method::Passkey) {
        mfa::describe_passkeys(&mut add);
        schemas.insert("auth.Passkey".to_owned(), mfa::passkey());
    }
    let refresh = object(&["refresh_token"], &["refresh_token", "attempt"]);
    let about = "Gets the next pair of tokens; a refresh token is used once. With the same random `attempt` again where \
                 no answer came.";
    add("refresh", "post", about, Answers::Entered, Some(refresh));
    let everywhere = json!({ "type": "object", "properties": { "everywhere": { "type": "boolean" } } });
    add("logout", "post", "Ends the session.", Answers::Nothing, Some(everywhere));
    let sessions = json!({ "type": "object", "required": ["sessions"], "properties": {
        "sessions": { "type": "array", "items": reference("auth.SessionInfo") },
    } });
    add("sessions", "get", "The user's sessions.", Answers::With(sessions), None);
    add("sessions", "delete", "Ends the user's other sessions.", Answers::Nothing, None);
    add("sessions/{id}", "delete", "Ends one of the user's sessions.", Answers::Nothing, None);
    add("me", "get", "Who is signed in.", Answers::With(reference("auth.User")), None);
    let about = "Removes the account, and the rows that its user may remove; `current` as for the password.";
    add("me", "delete", about, Answers::Nothing, Some(object(&[], &["current"])));
    let export = json!({ "type": "object", "required": ["user", "rows", "files"], "properties": {
        "user": reference("auth.User"),
        "rows": { "type": "object", "additionalProperties": { "type": "array", "items": { "type": "object" } } },
        "files": { "type": "array", "items": { "type": "object" } },
    } });
    add("me/export", "get", "The account, its rows, and where its files are.", Answers::With(export), None);
}

pub(super) enum Answers {
    /// A session, or what is asked for beside.
    Session(u16),
    /// A session.
    Entered,
    Mailed,
    Nothing,
    With(Value),
    Made(Value),
    /// The browser is led on; these may stand in the query.
    Led(&'static [&'static str]),
}

/// An object of texts.
pub(super) fn object(required: &[&str], properties: &[&str]) -> Value {
    let properties: Map<String, Value> =
        properties.iter().map(|name| ((*name).to_owned(), json!({ "type": "string" }))).collect();
    let mut object = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

pub(super) type Schema = fn() -> Value;

const SCHEMAS: [(&str, Schema); 4] = [
    ("User", || {
        json!({
            "type": "object",
            "required": ["id", "email", "phone", "email_verified", "role", "anonymous", "created_at"],
            "properties": {
                "id": { "type": "string" }, "email": { "type": ["string", "null"] },
                "phone": { "type": ["string", "null"] },
                "email_verified": { "type": "boolean" }, "role": { "type": "string" },
                "anonymous": { "type": "boolean" }, "created_at": { "type": "string", "format": "date-time" },
            },
        })
    }),
    ("Session", || {
        json!({
            "type": "object",
            "required": ["access_token", "token_type", "refresh_token", "expires_in", "user"],
            "properties": {
                "access_token": { "type": "string" }, "token_type": { "const": "Bearer" },
                "refresh_token": { "type": "string" }, "expires_in": { "type": "integer" },
                "user": reference("auth.User"),
                "redirect": { "type": "string", "description": "Where the link leads on to, where it was asked for so." },
            },
        })
    }),
    ("Mailed", || {
        json!({
            "type": "object", "required": ["sent", "expires_in"],
            "description": "The same for every address; whether somebody gets a mail is for its owner to know.",
            "properties": { "sent": { "const": true }, "expires_in": { "type": "integer" } },
        })
    }),
    ("SessionInfo", || {
        json!({
            "type": "object", "required": ["id", "current", "method", "device", "created_at", "used_at"],
            "properties": {
                "id": { "type": "string" }, "current": { "type": "boolean" }, "method": { "type": "string" },
                "device": { "type": ["string", "null"] }, "created_at": { "type": "string", "format": "date-time" },
                "used_at": { "type": "string", "format": "date-time" },
            },
        })
    }),
];
