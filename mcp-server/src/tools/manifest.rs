//! The manifest as tools take it: a plain object to a model, checked completely inside.

use std::borrow::Cow;

use capabilities::releases::Manifest;
use kernel::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A manifest that has not been checked.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct ManifestInput(Map<String, Value>);

impl ManifestInput {
    /// Checks it.
    ///
    /// # Errors
    /// `invalid_input` that points at what is wrong.
    pub fn parse(self) -> Result<Manifest> {
        tool::decode(Value::Object(self.0)).map_err(|e| advised(e).under("/manifest"))
    }
}

/// What to write for what manifests of other platforms have.
const ADVICE: &[(&[&str], &str)] = &[
    (&["rules", "permissions", "policies", "policy", "rls", "security"], "write `access`"),
    (&["fields", "schema", "properties"], "write `columns`"),
    (&["tables", "collections", "migrations"], "it goes into `database`"),
    (&["db"], "write `database`"),
    (&["files", "html", "pages"], "it goes into `site`"),
    (&["nullable", "not_null", "notNull", "optional"], "write `required`; a column may be null without it"),
    (&["primary_key", "primaryKey"], "leave it out: every table has `id`"),
    (&["enum", "values"], "write `check`: state in ['open', 'done']"),
    (&["seed", "rows", "data"], "leave it out, and load rows with db_load afterwards"),
    (&["providers"], "write `methods`"),
    (
        &["email", "email_password"],
        "write password: it is sign-in by email and password; or otp, by a mailed code",
    ),
    (
        &["magic_link", "magiclink", "email_otp", "email_link", "passwordless", "code"],
        "write otp: a code and a link by mail",
    ),
    (&["redirect_urls", "redirect_uris", "site_url"], "write `redirects`"),
    (
        &["signups", "sign_up", "allow_signup", "registration", "invite_only"],
        "write `signup`: open, invite or closed",
    ),
    (&["email_confirm", "confirm_email", "verify_email", "email_verification"], "write `confirm`: true"),
    (&["read"], "reading is list and get"),
    (&["write"], "writing is create, update and delete"),
    (&["insert"], "write create"),
    (&["owner"], "write user: the tried row is the user's; for access, write private"),
    (&["guest", "visitor", "anon"], "write anonymous: somebody without a session"),
    (&["public"], "write public_read: everybody reads, who made a row writes it"),
    (&["authenticated", "signed_in"], "write each operation: \"auth.uid != null\""),
    (&["source"], "write `from`"),
    (&["destination"], "write `to`"),
    (&["content"], "write the text itself as the file's value"),
];

/// How the parts of a manifest look, by where they are.
const FORMS: [(&str, &str); 8] = [
    ("/auth", r#"{"methods": ["anonymous", "password"]}"#),
    ("/methods", r#"["anonymous", "password"]"#),
    ("/tables", r#"{"todos": {"columns": {"title": "text!"}, "access": "private"}}"#),
    ("/columns", r#"{"title": "text!", "done": "bool = false"}"#),
    ("/migrations", r#"[{"name": "001_states", "sql": "UPDATE …"}]"#),
    ("/site/files", r#"{"index.html": "<h1>Hi</h1>"}"#),
    ("/secrets", r#"["STRIPE_KEY"]"#),
    ("/expect", r#""allow", or "deny""#),
];

/// How a rule looks.
const EXPRESSION: &str = r#""row.owner == auth.uid", or "true" for everybody"#;

/// What begins the lines that are about what tables have; any other word there is likely a column.
const OF_TABLES: [&str; 3] = ["rules", "fields", "seed"];

/// Adds the next action where the wrong word is one that is common elsewhere.
fn advised(error: Error) -> Error {
    if error.advice().is_some() {
        return error;
    }
    let of_another_type = ["invalid type", "expected an expression"];
    if of_another_type.into_iter().any(|start| error.message().starts_with(start)) {
        let at =
            error.pointer().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit() || c == '/');
        let form = FORMS.iter().find(|(place, _)| at.ends_with(place));
        let form =
            form.map_or_else(|| at.contains("/access/").then_some(EXPRESSION), |(_, form)| Some(*form));
        return match form {
            Some(form) => error.hint(format!("write it like {form}")),
            None => error,
        };
    }
    let refused = ["unknown field `", "unknown value `", "invalid value: string \""];
    let rest = refused.into_iter().find_map(|start| error.message().strip_prefix(start));
    let Some((word, _)) = rest.and_then(|rest| rest.split_once(['`', '"'])) else { return error };
    let in_table = error.message().contains("expected one of `columns`");
    match ADVICE.iter().find(|(words, _)| words.contains(&word)) {
        Some((words, advice)) if !in_table || OF_TABLES.contains(&words[0]) => error.hint(*advice),
        _ if in_table => error.hint("columns go into `columns`"),
        _ => error,
    }
}

impl JsonSchema for ManifestInput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Manifest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_of_other_platforms_are_answered_with_ours() {
        let refused = |manifest: Value| {
            let input: ManifestInput = serde_json::from_value(manifest).unwrap();
            let error = input.parse().unwrap_err();
            format!("{} → {}", error.pointer().unwrap_or_default(), error.advice().unwrap_or_default())
        };
        let table = |table: Value| json!({ "database": { "tables": { "t": table } } });
        for (manifest, said) in [
            (table(json!({ "rules": "private" })), "/manifest/database/tables/t/rules → write `access`"),
            (
                table(json!({ "title": "text!" })),
                "/manifest/database/tables/t/title → columns go into `columns`",
            ),
            (
                table(json!({ "access": "public" })),
                "/manifest/database/tables/t/access → write public_read: everybody reads, who made a row writes it",
            ),
            (json!({ "tables": {} }), "/manifest/tables → it goes into `database`"),
            (
                json!({ "auth": { "methods": ["email"] } }),
                "/manifest/auth/methods/0 → write password: it is sign-in by email and password; or otp, by a mailed code",
            ),
            (
                json!({ "tests": [{ "as": "guest", "do": "get", "on": "t", "expect": "deny" }] }),
                "/manifest/tests/0/as → write anonymous: somebody without a session",
            ),
            (
                json!({ "auth": true }),
                r#"/manifest/auth → write it like {"methods": ["anonymous", "password"]}"#,
            ),
            (
                table(json!({ "access": { "list": 1 } })),
                r#"/manifest/database/tables/t/access/list → write it like "row.owner == auth.uid", or "true" for everybody"#,
            ),
            (json!({ "unheard_of": 1 }), "/manifest/unheard_of → "),
        ] {
            assert_eq!(refused(manifest), said);
        }
    }
}
