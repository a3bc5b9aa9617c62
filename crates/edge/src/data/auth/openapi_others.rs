//! What the OpenAPI document says of signing in by somebody else's word.

use serde_json::{Value, json};

use super::openapi::{Answers, object};

/// Adds the paths of providers, with what adds one.
pub(super) fn describe_providers(add: &mut impl FnMut(&str, &str, &str, Answers, Option<Value>)) {
    let about = "Sends the browser to a provider. `redirect` is where it goes on afterwards, `challenge` SHA-256 in \
                     base64url of a text that the page keeps; signInWith of /_/sdk.js does all of it.";
    add("oauth/{provider}/start", "get", about, Answers::Led(&["redirect", "challenge"]), None);
    let about = "Where providers send back to. Leads on with `#auth_oauth=<code>`, or \
                     `#auth_oauth_error=<word>`.";
    add("oauth/callback/{provider}", "get", about, Answers::Led(&["state", "code", "error", "iss"]), None);
    let about = "The same, for a provider that posts a form.";
    add("oauth/callback/{provider}", "post", about, Answers::Led(&[]), None);
    let mut asked = object(&["code", "verifier"], &["code", "verifier"]);
    asked["properties"]["link"] = json!({ "type": "boolean" });
    let about = "Takes up the code with the text that the page has kept: a session, or with `link` one more way in for \
                     who is signed in, and then `user` alone. An anonymous session becomes the account.";
    add("oauth/token", "post", about, Answers::Session(200), Some(asked));
}

/// Adds the path of tokens of the app's own server, with what adds one.
pub(super) fn describe_custom(add: &mut impl FnMut(&str, &str, &str, Answers, Option<Value>)) {
    let about = "Signs in with a token of the app's own server.";
    add("custom", "post", about, Answers::Session(200), Some(object(&["token"], &["token"])));
}

/// Adds the paths of what others vouch for, with what adds one.
pub(super) fn describe_identities(add: &mut impl FnMut(&str, &str, &str, Answers, Option<Value>)) {
    let identity = json!({ "type": "object", "required": ["provider", "created_at"], "properties": {
        "provider": { "type": "string" }, "created_at": { "type": "string", "format": "date-time" },
    } });
    let listed = json!({ "type": "object", "required": ["identities"], "properties": {
        "identities": { "type": "array", "items": identity },
    } });
    add(
        "identities",
        "get",
        "Who vouches for the user, and `phone` for a number.",
        Answers::With(listed),
        None,
    );
    let about = "Takes that way in away, and ends the sessions it has opened; not the only one.";
    add("identities/{provider}", "delete", about, Answers::Nothing, None);
}
