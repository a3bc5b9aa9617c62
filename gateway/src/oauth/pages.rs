//! The pages: no script, nothing from elsewhere, in no frame; whatever somebody else has said is escaped.

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use kernel::{BlobHash, Error};
use url::Url;

const STYLE: &str = include_str!("page.css");

static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(BlobHash::of(STYLE.as_bytes()).to_bytes()));

/// Text as HTML, also within quotes.
pub fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            c => html.push(c),
        }
    }
    html
}

/// A page whose forms lead here, and from here to `onward`.
pub fn page(status: StatusCode, title: &str, body: &str, onward: Option<&str>) -> Response {
    let onward = onward.and_then(destination).map(|to| format!(" {to}")).unwrap_or_default();
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'{onward}; base-uri 'none'; frame-ancestors 'none'",
        *STYLE_HASH
    );
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{} · Steading</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escaped(title)
    );
    let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Forms of a page without a referrer name no origin, and are refused as any other page's are.
        (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, html).into_response()
}

/// An address as a policy names where a form may lead (CSP Level 3 §2.3.1).
fn destination(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    match (url.scheme(), url.host()) {
        // No policy can name an address of IPv6.
        (scheme @ ("http" | "https"), Some(url::Host::Ipv6(_))) => Some(format!("{scheme}:")),
        ("http" | "https", Some(_)) => Some(url.origin().ascii_serialization()),
        (scheme, _) => Some(format!("{scheme}:")),
    }
}

/// A page that says that it does not go on.
pub fn sorry(status: StatusCode, why: &str) -> Response {
    page(status, "Not this way", &format!("<h1>Not this way</h1>\n<p>{}</p>\n", escaped(why)), None)
}

/// A form that is no visit's.
pub fn stale() -> Response {
    sorry(
        StatusCode::FORBIDDEN,
        "This page is too old, or was not opened in this browser. Begin again where you came from.",
    )
}

/// A failure as a page.
pub fn failed(error: &Error) -> Response {
    web::problem::log_internal(error, kernel::CallId::new());
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let hint = error.advice().map(|hint| format!(": {hint}")).unwrap_or_default();
    let mut response = sorry(status, &format!("{}{hint}.", error.message()));
    if let Some(seconds) = error.retry_after_secs() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Asks for a key, or sends to a directory, and goes on to `next`. Says what was wrong before, where something was.
pub fn sign_in(
    status: StatusCode,
    next: &str,
    form: &str,
    (directory, why): (Option<&str>, Option<&str>),
) -> Response {
    let directory = directory.map(|name| {
        let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
        format!(
            "<p><a class=\"button\" href=\"/oauth/directory?next={next}\">Sign in with {}</a></p>\n",
            escaped(name)
        )
    });
    let directory = directory.unwrap_or_default();
    let why = why
        .map(|why| format!("<p class=\"wrong\" role=\"alert\">{}</p>\n", escaped(why)))
        .unwrap_or_default();
    let body = format!(
        "<h1>Sign in</h1>\n<p>A program wants to act for you. To decide on that, show who you are.</p>\n{why}{directory}\
         <form method=\"post\" action=\"/oauth/sign-in\">\n\
         <input type=\"hidden\" name=\"form\" value=\"{form}\">\n<input type=\"hidden\" name=\"next\" value=\"{0}\">\n\
         <label for=\"key\">Your key</label>\n\
         <input id=\"key\" name=\"key\" type=\"password\" autocomplete=\"off\" spellcheck=\"false\" required autofocus>\n\
         <p class=\"note\">Where Steading runs, <code>operator.key</code> in its data directory has the operator's; \
         <code>steading key create</code> makes others. It stays here: the program does not see it.</p>\n\
         <button type=\"submit\">Sign in</button>\n</form>\n\
         <details>\n<summary>You are a member of a tenant</summary>\n<form method=\"post\" action=\"/oauth/sign-in\">\n\
         <input type=\"hidden\" name=\"form\" value=\"{form}\">\n<input type=\"hidden\" name=\"next\" value=\"{0}\">\n\
         <label for=\"tenant\">Tenant</label>\n\
         <input id=\"tenant\" name=\"tenant\" autocomplete=\"organization\" autocapitalize=\"none\" spellcheck=\"false\" required>\n\
         <label for=\"email\">Address</label>\n\
         <input id=\"email\" name=\"email\" type=\"email\" autocomplete=\"username\" required>\n\
         <label for=\"password\">Password</label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\n\
         <button type=\"submit\">Sign in</button>\n</form>\n</details>\n",
        escaped(next)
    );
    page(status, "Sign in", &body, None)
}

/// What a user is asked.
pub struct Question<'a> {
    /// The client's name.
    pub client: &'a str,
    /// What is known of who it is.
    pub whom: &'a str,
    /// Where the user is sent back to.
    pub back: Option<&'a str>,
    /// What is told beside, where there is something.
    pub beware: Option<&'a str>,
    /// The tenant.
    pub tenant: &'a str,
    /// The key's name.
    pub key: &'a str,
    /// The environments that can be chosen; one, where it is said already.
    pub envs: &'a [String],
    /// Where the tokens are good.
    pub resource: &'a str,
    /// Each word with what it means, and whether the key has any of it.
    pub words: Vec<(&'a str, &'a str, Has)>,
    /// How many days it lasts.
    pub days: u64,
    /// Where the form leads.
    pub action: &'a str,
    /// What it carries.
    pub hidden: Vec<(&'a str, &'a str)>,
}

/// Whether a key has what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Has {
    /// Some of it at least.
    Some,
    /// Nothing of it.
    Nothing,
}

/// Asks.
pub fn question(asked: &Question<'_>) -> Response {
    let mut body = String::new();
    let mut write = |text: String| body.push_str(&text);
    write(format!("<h1>Let <em>{}</em> act for you?</h1>\n", escaped(asked.client)));
    write(format!("<p class=\"note\">{}</p>\n", escaped(asked.whom)));
    if let Some(beware) = asked.beware {
        write(format!("<p class=\"wrong\">{}</p>\n", escaped(beware)));
    }
    write(format!("<form method=\"post\" action=\"{}\">\n", escaped(asked.action)));
    for (name, value) in &asked.hidden {
        write(format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">\n", escaped(value)));
    }
    write(format!(
        "<dl>\n<dt>Tenant</dt><dd>{}</dd>\n<dt><label for=\"env\">Environment</label></dt><dd>",
        escaped(asked.tenant)
    ));
    match asked.envs {
        [one] => write(format!(
            "<strong>{0}</strong><input type=\"hidden\" name=\"env\" value=\"{0}\">",
            escaped(one)
        )),
        many => {
            write("<select id=\"env\" name=\"env\" required>".to_owned());
            for env in many {
                write(format!("<option>{}</option>", escaped(env)));
            }
            write("</select>".to_owned());
        }
    }
    write(format!("</dd>\n<dt>Address</dt><dd><code>{}</code></dd>\n", escaped(asked.resource)));
    write(format!(
        "<dt>Your key</dt><dd>{}</dd>\n</dl>\n<fieldset>\n<legend>It may</legend>\n",
        escaped(asked.key)
    ));
    for (name, about, has) in &asked.words {
        let (state, note) = match has {
            Has::Some => (" checked", ""),
            Has::Nothing => (" disabled", " (your key may not)"),
        };
        let (name, about) = (escaped(name), escaped(about));
        write(format!(
            "<label class=\"scope\"><input type=\"checkbox\" name=\"grant\" value=\"{name}\"{state}> <span>{about}{note}</span></label>\n"
        ));
    }
    write(format!(
        "</fieldset>\n<p class=\"note\">Never more than your key may, for {} days, or until you end it: \
         <code>steading credential list</code> shows it.</p>\n",
        asked.days
    ));
    if let Some(back) = asked.back {
        write(format!("<p class=\"note\">Then you are sent back to <code>{}</code>.</p>\n", escaped(back)));
    }
    write(
        "<div class=\"buttons\"><button name=\"answer\" value=\"allow\">Allow</button>\n\
         <button name=\"answer\" value=\"deny\" class=\"plain\" formnovalidate>Deny</button></div>\n</form>\n"
            .to_owned(),
    );
    let onward = asked.hidden.iter().find(|(name, _)| *name == "redirect").map(|(_, to)| *to);
    page(StatusCode::OK, "Consent", &body, onward)
}

/// Asks for the code that a device shows.
pub fn typed(code: &str, why: Option<&str>) -> Response {
    let mut body = String::from("<h1>Connect a device</h1>\n<p>Type the code that it shows.</p>\n");
    if let Some(why) = why {
        let _ = writeln!(body, "<p class=\"wrong\" role=\"alert\">{}</p>", escaped(why));
    }
    let _ = write!(
        body,
        "<form method=\"get\" action=\"/oauth/device\">\n<label for=\"code\">Code</label>\n\
         <input id=\"code\" name=\"user_code\" value=\"{}\" autocomplete=\"off\" autocapitalize=\"characters\" required autofocus>\n\
         <button type=\"submit\">Go on</button>\n</form>\n",
        escaped(code)
    );
    page(StatusCode::OK, "Connect a device", &body, None)
}

/// Says what was done.
pub fn done(title: &str, what: &str) -> Response {
    page(StatusCode::OK, title, &format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(title), escaped(what)), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_is_text() {
        assert_eq!(
            escaped("<a href=\"x\" title='y'>&"),
            "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;"
        );
    }

    #[test]
    fn a_policy_names_where_a_form_leads() {
        for (address, expected) in [
            ("http://localhost:3118/callback?a=b", "http://localhost:3118"),
            ("https://app.example/cb;script-src *", "https://app.example"),
            ("http://[::1]:9/cb", "http:"),
            ("cursor://anysphere/cb", "cursor:"),
        ] {
            assert_eq!(destination(address).as_deref(), Some(expected));
        }
    }
}
