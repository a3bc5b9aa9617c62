//! The address that a client has dialled, and what it is told there of how to be let in.

use edge::Secured;
use http::header::{HOST, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, Uri};
use mcp_server::auth::Dialled;
use web::problem::Lacking;

use axum::response::Response;
use control::oauth::USUAL;

/// The platform's address as the client has it: the public one, or that of this machine by the name that was used. What
/// comes from a proxy was dialled at the public one.
pub fn dialled<T>(public: &str, is_from_proxy: bool, request: &Request<T>) -> Dialled {
    let named = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let named = named.or_else(|| request.uri().authority().cloned());
    let own: Option<Uri> = public.parse().ok();
    let is_own = |named: &Authority| {
        let own = own.as_ref().and_then(Uri::authority);
        own.is_some_and(|own| own.host().eq_ignore_ascii_case(named.host()))
    };
    let is_local = own.as_ref().and_then(Uri::host).is_some_and(is_loopback);
    match named {
        Some(named) if !is_from_proxy && (is_local || !is_own(&named)) => {
            let scheme = if request.extensions().get::<Secured>().is_some() { "https" } else { "http" };
            let port = named.port().map(|port| format!(":{port}")).unwrap_or_default();
            Dialled(format!("{scheme}://{}{port}", named.host().to_ascii_lowercase()).into())
        }
        _ => Dialled(public.trim_end_matches('/').into()),
    }
}

/// Whether a host is this machine.
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

/// Tells who was refused where to ask to be let in (RFC 9728 §5.1), or for what more (RFC 6750 §3.1).
pub fn challenged(mut response: Response, base: &str, path: &str, bearer: Bearer) -> Response {
    let lacking = response.extensions().get::<Lacking>().map(|Lacking(scopes)| *scopes);
    let said = match (response.status(), lacking) {
        (StatusCode::UNAUTHORIZED, _) if response.headers().contains_key(WWW_AUTHENTICATE) => match bearer {
            Bearer::Shown => format!("error=\"invalid_token\", scope=\"{USUAL}\", "),
            Bearer::None => format!("scope=\"{USUAL}\", "),
        },
        (StatusCode::FORBIDDEN, Some(scopes)) => {
            let scopes: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
            format!("error=\"insufficient_scope\", scope=\"{}\", ", scopes.join(" "))
        }
        _ => return response,
    };
    let door = path.strip_prefix("/mcp").filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_plain = |path: &&str| path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_/".contains(&b));
    let door = door.and(Some(path)).filter(is_plain).unwrap_or_default();
    let said = format!(
        "Bearer realm=\"steading\", {said}resource_metadata=\"{base}/.well-known/oauth-protected-resource{door}\""
    );
    if let Ok(said) = HeaderValue::try_from(said) {
        response.headers_mut().insert(WWW_AUTHENTICATE, said);
    }
    response
}

/// Whether a credential was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// One was.
    Shown,
    /// None was.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(public: &str, is_from_proxy: bool, host: &str) -> String {
        let request = Request::builder().uri("/mcp").header(HOST, host).body(()).unwrap();
        dialled(public, is_from_proxy, &request).0.to_string()
    }

    #[test]
    fn the_address_is_the_one_that_was_used() {
        for (public, is_from_proxy, host, expected) in [
            ("http://127.0.0.1:8787", false, "127.0.0.1:8787", "http://127.0.0.1:8787"),
            ("http://127.0.0.1:8787", false, "LocalHost:8787", "http://localhost:8787"),
            ("http://127.0.0.1:8787", false, "[::1]:9", "http://[::1]:9"),
            ("https://cloud.example", false, "cloud.example", "https://cloud.example"),
            ("https://cloud.example/", false, "Cloud.Example:443", "https://cloud.example"),
            ("https://cloud.example", false, "127.0.0.1:8787", "http://127.0.0.1:8787"),
            ("https://cloud.example", true, "127.0.0.1:8787", "https://cloud.example"),
        ] {
            assert_eq!(base(public, is_from_proxy, host), expected, "{public} {host}");
        }
    }
}
