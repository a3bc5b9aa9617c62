//! What the OpenAPI document says of second factors.

use serde_json::{Value, json};

use super::openapi::{Answers, Schema, object};
use crate::data::openapi::reference;

/// Adds the paths, with what adds one.
pub(super) fn describe(add: &mut impl FnMut(&str, &str, &str, Answers, Option<Value>)) {
    let properties = ["ticket", "code", "recovery_code"];
    let about = "Signs in with the second factor, after a first one has brought a ticket.";
    add("mfa/verify", "post", about, Answers::Entered, Some(object(&["ticket"], &properties)));
    let about = "The user's second factors, and whether this session opens the app's data.";
    add("mfa", "get", about, Answers::With(reference("auth.SecondFactors")), None);
    let begun = json!({ "type": "object", "required": ["id", "secret", "uri", "expires_in"], "properties": {
        "id": { "type": "string" }, "secret": { "type": "string" }, "uri": { "type": "string" },
        "expires_in": { "type": "integer" },
    } });
    let about = "Begins to set up an authenticator; `current` is needed ten minutes after signing in.";
    add("mfa/totp", "post", about, Answers::Made(begun), Some(object(&[], &["name", "current"])));
    let about = "Sets it up by its first code. Other sessions end.";
    let codes = || Answers::With(reference("auth.RecoveryCodes"));
    add("mfa/totp/verify", "post", about, codes(), Some(object(&["code"], &["code"])));
    let present = || Some(object(&[], &["code", "recovery_code"]));
    add("mfa/recovery", "post", "Gives new recovery codes.", codes(), present());
    let about = "Takes a second factor away; one is needed ten minutes after it was shown.";
    add("mfa/{id}", "delete", about, Answers::Nothing, present());
}

/// Adds the paths of passkeys, with what adds one.
pub(super) fn describe_passkeys(add: &mut impl FnMut(&str, &str, &str, Answers, Option<Value>)) {
    let options = || Answers::With(json!({ "type": "object" }));
    let present = || Some(object(&[], &["current", "code", "recovery_code"]));
    let about = "What a browser is to show a passkey by, as WebAuthn writes it in JSON.";
    add("passkey/options", "post", about, options(), None);
    let properties = ["id", "client_data", "authenticator_data", "signature", "user"];
    let about = "Signs in by a passkey: what the browser gave, in base64url.";
    add("passkey", "post", about, Answers::Session(200), Some(object(&properties[..4], &properties)));
    let about = "What a browser is to make a passkey by, as WebAuthn writes it in JSON.";
    add("passkeys/options", "post", about, options(), present());
    let properties = ["client_data", "attestation", "name"];
    let about = "Keeps the passkey that the browser has made, in base64url.";
    let made = Answers::Made(reference("auth.Passkey"));
    add("passkeys", "post", about, made, Some(object(&properties[..2], &properties)));
    let listed = json!({ "type": "object", "required": ["passkeys"], "properties": {
        "passkeys": { "type": "array", "items": reference("auth.Passkey") },
    } });
    add("passkeys", "get", "The user's passkeys.", Answers::With(listed), None);
    let named = Some(object(&["name"], &["name"]));
    add("passkeys/{id}", "patch", "Renames a passkey.", Answers::Nothing, named);
    add("passkeys/{id}", "delete", "Removes a passkey.", Answers::Nothing, present());
}

pub(super) fn passkey() -> Value {
    json!({
        "type": "object", "required": ["id", "name", "host", "backed_up", "created_at", "used_at"],
        "properties": {
            "id": { "type": "string" }, "name": { "type": ["string", "null"] }, "host": { "type": "string" },
            "backed_up": { "type": "boolean" }, "created_at": { "type": "string", "format": "date-time" },
            "used_at": { "type": ["string", "null"], "format": "date-time" },
        },
    })
}

pub(super) const SCHEMAS: [(&str, Schema); 3] = [
    ("SecondFactor", || {
        json!({
            "type": "object", "required": ["mfa"],
            "description": "The first factor was right; /_/auth/mfa/verify takes the ticket with a second one.",
            "properties": {
                "mfa": { "type": "object", "required": ["ticket", "factors", "expires_in"], "properties": {
                    "ticket": { "type": "string" }, "expires_in": { "type": "integer" },
                    "factors": { "type": "array", "items": { "enum": ["totp", "recovery_code", "passkey"] } },
                } },
                "redirect": { "type": "string" },
            },
        })
    }),
    ("SecondFactors", || {
        json!({
            "type": "object", "required": ["mode", "open", "factors", "recovery_codes"],
            "properties": {
                "mode": { "enum": ["off", "optional", "required"] }, "open": { "type": "boolean" },
                "recovery_codes": { "type": "integer" },
                "factors": { "type": "array", "items": {
                    "type": "object", "required": ["id", "kind", "name", "created_at", "used_at"],
                    "properties": {
                        "id": { "type": "string" }, "kind": { "enum": ["totp"] },
                        "name": { "type": ["string", "null"] },
                        "created_at": { "type": "string", "format": "date-time" },
                        "used_at": { "type": ["string", "null"], "format": "date-time" },
                    },
                } },
            },
        })
    }),
    ("RecoveryCodes", || {
        json!({
            "type": "object", "required": ["recovery_codes"],
            "description": "Shown once; each works once.",
            "properties": { "recovery_codes": { "type": "array", "items": { "type": "string" } } },
        })
    }),
];
