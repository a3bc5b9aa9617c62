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
    add("mfa", "get", about, Answers::With(reference("steading.SecondFactors")), None);
    let begun = json!({ "type": "object", "required": ["id", "secret", "uri", "expires_in"], "properties": {
        "id": { "type": "string" }, "secret": { "type": "string" }, "uri": { "type": "string" },
        "expires_in": { "type": "integer" },
    } });
    let about = "Begins to set up an authenticator; `current` is needed ten minutes after signing in.";
    add("mfa/totp", "post", about, Answers::Made(begun), Some(object(&[], &["name", "current"])));
    let about = "Sets it up by its first code. Other sessions end.";
    let codes = || Answers::With(reference("steading.RecoveryCodes"));
    add("mfa/totp/verify", "post", about, codes(), Some(object(&["code"], &["code"])));
    let present = || Some(object(&[], &["code", "recovery_code"]));
    add("mfa/recovery", "post", "Gives new recovery codes.", codes(), present());
    let about = "Takes a second factor away; one is needed ten minutes after it was shown.";
    add("mfa/{id}", "delete", about, Answers::Nothing, present());
}

pub(super) const SCHEMAS: [(&str, Schema); 3] = [
    ("SecondFactor", || {
        json!({
            "type": "object", "required": ["mfa"],
            "description": "The first factor was right; /_/auth/mfa/verify takes the ticket with a second one.",
            "properties": {
                "mfa": { "type": "object", "required": ["ticket", "factors", "expires_in"], "properties": {
                    "ticket": { "type": "string" }, "expires_in": { "type": "integer" },
                    "factors": { "type": "array", "items": { "enum": ["totp", "recovery_code"] } },
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
