//! Who vouches for people: the manifest's `auth.providers` and `auth.custom`, and what is known of some by their names.

use std::borrow::Cow;
use std::collections::BTreeMap;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::{Host, Url};

use super::jose::{Jwk, Jwks};
use super::links::Surety;
use crate::auth::address::Address;

/// How many providers an app may name, and how long a name, an id or an address of theirs may be.
const MOST: usize = 10;
const LONGEST_NAME: usize = 32;
const LONGEST: usize = 300;

/// What stands in an issuer for the tenant of whoever signs in (Microsoft identity platform).
pub(super) const TENANT: &str = "{tenantid}";

/// Somebody whose word on who people are is taken: `google`, `github`, `microsoft`, `apple` and `wechat` by name, any
/// other that speaks OpenID Connect by `issuer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What the app is called there; WeChat's appid.
    pub client_id: String,
    /// The name of the secret that holds the client secret; for apple, of the one that holds the private key (.p8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<String>,
    /// Whose word it is: `https://id.example.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What the app asks to know, where that is not who they are and their address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// microsoft: the directory whose people sign in; everybody's where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// apple: the team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// apple: what the private key is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// Whose addresses it is believed about, where it has an `issuer`: `["corp.example"]`. By an address that it confirms,
    /// people enter the account that is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Instead of the provider's own address where people sign in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorize_url: Option<String>,
    /// Instead of its address where codes are exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_url: Option<String>,
    /// Instead of its address that tells who somebody is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userinfo_url: Option<String>,
}

/// The tokens that the app's own server signs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Custom {
    /// The name of the secret that signs them with HS256, of at least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Public keys (JWK) that verify them instead: EdDSA, ES256 or RS256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<std::collections::BTreeMap<String, String>>")]
    pub keys: Vec<Value>,
    /// Whether a token's `claims` become the user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub claims: bool,
    /// Whether a token's `role` becomes the user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub role: bool,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// OpenID Connect.
    OpenId,
    /// The same, with issuers that differ by tenant, and addresses that nobody has confirmed.
    Microsoft,
    /// The same, with a client secret that is signed anew each time, and an answer that is posted.
    Apple,
    /// OAuth 2, and questions about who it was.
    GitHub,
    /// WeChat's own.
    WeChat,
}

impl Kind {
    /// How a provider of that name is spoken to.
    pub fn of(name: &str) -> Self {
        match name {
            "microsoft" => Kind::Microsoft,
            "apple" => Kind::Apple,
            "github" => Kind::GitHub,
            "wechat" => Kind::WeChat,
            _ => Kind::OpenId,
        }
    }

    /// Whether its word is an ID token.
    pub fn has_id_token(self) -> bool {
        matches!(self, Kind::OpenId | Kind::Microsoft | Kind::Apple)
    }
}

impl Provider {
    /// Whose word it is, as the manifest says or the name tells.
    pub(super) fn issuer<'a>(&'a self, name: &str) -> Option<Cow<'a, str>> {
        if let Some(issuer) = &self.issuer {
            return Some(Cow::Borrowed(issuer));
        }
        Some(match name {
            "google" => Cow::Borrowed("https://accounts.google.com"),
            "apple" => Cow::Borrowed("https://appleid.apple.com"),
            "microsoft" => {
                let tenant = self.tenant.as_deref().unwrap_or("common");
                Cow::Owned(format!("https://login.microsoftonline.com/{tenant}/v2.0"))
            }
            _ => return None,
        })
    }

    /// The address that is shown the client secret, or that says where that is.
    pub(crate) fn asked(&self, name: &str) -> String {
        if let Some(own) = &self.token_url {
            return own.clone();
        }
        match Kind::of(name) {
            Kind::GitHub => "https://github.com".to_owned(),
            Kind::WeChat => "https://api.weixin.qq.com".to_owned(),
            Kind::OpenId | Kind::Microsoft | Kind::Apple => {
                self.issuer(name).unwrap_or_default().into_owned()
            }
        }
    }

    /// How far the provider is believed that an address is somebody's; `hd` is the domain that Google says it speaks for.
    pub(super) fn speaks_for(&self, name: &str, email: &Address, hd: Option<&str>) -> Option<Surety> {
        let domain = email.as_str().rsplit_once('@').map(|(_, domain)| domain)?;
        match (Kind::of(name), &self.issuer) {
            // Any tenant may write any address there.
            (Kind::Microsoft, _) => None,
            (_, Some(_)) => self.addresses.iter().any(|own| own == domain).then_some(Surety::Today),
            (Kind::OpenId, None) if domain != "gmail.com" && hd != Some(domain) => Some(Surety::Once),
            _ => Some(Surety::Today),
        }
    }

    /// What is asked for.
    pub(super) fn scope(&self, name: &str) -> String {
        let separator = if Kind::of(name) == Kind::WeChat { "," } else { " " };
        if !self.scopes.is_empty() {
            return self.scopes.join(separator);
        }
        match Kind::of(name) {
            Kind::GitHub => "read:user user:email",
            Kind::WeChat => "snsapi_login",
            Kind::OpenId | Kind::Microsoft | Kind::Apple => "openid email",
        }
        .to_owned()
    }

    fn check(&self, name: &str) -> Result<()> {
        let kind = Kind::of(name);
        let plain = |text: &str| {
            !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if !plain(&self.client_id) {
            return Err(
                Error::invalid("/client_id", "this is no client id").hint("the provider gives it to the app")
            );
        }
        if self.issuer(name).is_none() && kind == Kind::OpenId {
            return Err(Error::invalid("/issuer", format!("{name} is not known by its name"))
                .hint("give its issuer, or one of google, github, microsoft, apple, wechat"));
        }
        if self.issuer.is_some() && !kind.has_id_token() {
            return Err(Error::invalid("/issuer", format!("{name} has no issuer"))
                .hint("authorize_url, token_url and userinfo_url stand for its addresses"));
        }
        match &self.client_secret {
            Some(secret) => check_secret("/client_secret", secret)?,
            // One that is public has none, and PKCE in its place.
            None if kind == Kind::OpenId && name != "google" => {}
            None => {
                return Err(Error::invalid("/client_secret", format!("{name} wants a client secret"))
                    .hint("store it with secret_set and give its name here"));
            }
        }
        let own = [
            ("tenant", &self.tenant, Kind::Microsoft),
            ("team_id", &self.team_id, Kind::Apple),
            ("key_id", &self.key_id, Kind::Apple),
        ];
        for (field, value, of) in own {
            let at = format!("/{field}");
            match value {
                Some(_) if kind != of => return Err(Error::invalid(at, format!("{name} has no {field}"))),
                Some(text)
                    if text.len() > 100
                        || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) =>
                {
                    return Err(Error::invalid(at, format!("this is no {field}")));
                }
                None if kind == of && of == Kind::Apple => {
                    return Err(Error::invalid(at, format!("apple wants a {field}"))
                        .hint("developer.apple.com shows it"));
                }
                Some(_) | None => {}
            }
        }
        for (i, scope) in self.scopes.iter().enumerate() {
            if !plain(scope) || scope.contains(',') {
                return Err(Error::invalid(format!("/scopes/{i}"), "this is no scope").hint("one word each"));
            }
        }
        if kind.has_id_token()
            && !self.scopes.is_empty()
            && !self.scopes.iter().any(|scope| scope == "openid")
        {
            return Err(
                Error::invalid("/scopes", "without the scope openid nobody says who it is").hint("add it")
            );
        }
        let is_domain = |text: &String| {
            let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.".contains(&c);
            text.len() <= LONGEST && text.contains('.') && text.bytes().all(plain)
        };
        if self.addresses.len() > MOST || !self.addresses.iter().all(is_domain) {
            return Err(Error::invalid("/addresses", format!("these are not at most {MOST} domains"))
                .hint(r#"["corp.example"]: what stands after the @"#));
        }
        if !self.addresses.is_empty() && (self.issuer.is_none() || kind == Kind::Microsoft) {
            return Err(Error::invalid(
                "/addresses",
                format!("{name} is believed about no addresses of yours"),
            )
            .hint("they are for a provider with an issuer of its own"));
        }
        let addresses = [
            ("issuer", &self.issuer),
            ("authorize_url", &self.authorize_url),
            ("token_url", &self.token_url),
            ("userinfo_url", &self.userinfo_url),
        ];
        addresses.into_iter().try_for_each(|(field, text)| check_address(field, text.as_deref()))
    }
}

/// Refuses providers that nobody could sign in with.
///
/// # Errors
/// `invalid_input` with the place below `/auth/providers`.
pub(crate) fn check(providers: &BTreeMap<String, Provider>) -> Result<()> {
    if providers.len() > MOST {
        return Err(Error::invalid("", format!("an app names at most {MOST} providers")));
    }
    for (name, provider) in providers {
        let good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.len() <= LONGEST_NAME
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        // What else is in the same column.
        if !good || ["email", "custom", "phone", "passkey", "callback"].contains(&name.as_str()) {
            let message =
                format!("{:?} is no name of a provider", name.chars().take(LONGEST_NAME).collect::<String>());
            return Err(Error::invalid("", message)
                .hint("lower-case letters, digits and -, such as google or my-company"));
        }
        provider.check(name).map_err(|e| e.under(&format!("/{name}")))?;
    }
    Ok(())
}

impl Custom {
    /// Refuses what could verify no token, or would give a private key away.
    ///
    /// # Errors
    /// `invalid_input` with the place below `/auth/custom`.
    pub(crate) fn check(&self) -> Result<()> {
        match (&self.secret, self.keys.as_slice()) {
            (Some(secret), []) => check_secret("/secret", secret),
            (None, keys) if !keys.is_empty() && keys.len() <= MOST => {
                for (i, key) in keys.iter().enumerate() {
                    let read: Option<Jwk> = serde_json::from_value(key.clone()).ok();
                    if !read.is_some_and(|key| key.is_public()) {
                        return Err(Error::invalid(
                            format!("/keys/{i}"),
                            "this is not the public half of a key",
                        )
                        .hint("a JWK of RSA, EC P-256 or OKP Ed25519, without its private members"));
                    }
                }
                Ok(())
            }
            _ => Err(Error::invalid("", "either the name of a secret, or one to ten public keys")
                .hint(r#"{"secret": "SIGN_IN_KEY"}"#)),
        }
    }

    /// The keys that verify tokens, where no secret does.
    pub(super) fn jwks(&self) -> Jwks {
        Jwks(self.keys.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).collect())
    }
}

fn check_secret(field: &str, name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if good {
        return Ok(());
    }
    // What stands here may be the secret itself; it is not repeated.
    Err(Error::invalid(field, "this is not the name of a secret")
        .hint("store the value with secret_set, and give its name here: GOOGLE_SECRET"))
}

/// Plain HTTP is for this machine alone, and there for who runs the platform to allow.
fn check_address(field: &str, text: Option<&str>) -> Result<()> {
    let Some(text) = text else { return Ok(()) };
    let good = Url::parse(text).is_ok_and(|url| {
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private(),
            Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unique_local(),
            None => false,
        };
        let plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        plain && (url.scheme() == "https" || url.scheme() == "http" && local)
    });
    if good && text.len() <= LONGEST && !text.contains(char::is_whitespace) {
        return Ok(());
    }
    Err(Error::invalid(format!("/{field}"), "this is no https address").hint("https://id.example.com"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(providers: Value) -> String {
        let providers: BTreeMap<String, Provider> = serde_json::from_value(providers).unwrap();
        let error = check(&providers).unwrap_err();
        format!("{} {}", error.pointer().unwrap_or_default(), error.message())
    }

    #[test]
    fn ready_configurations_need_an_id_and_the_name_of_a_secret() {
        let ready = json!({
            "google": { "client_id": "g", "client_secret": "GOOGLE" },
            "github": { "client_id": "h", "client_secret": "GITHUB", "token_url": "http://127.0.0.1:9/t" },
            "microsoft": { "client_id": "m", "client_secret": "MS", "tenant": "contoso.example" },
            "apple": { "client_id": "a", "client_secret": "APPLE", "team_id": "T1", "key_id": "K1" },
            "wechat": { "client_id": "w", "client_secret": "WECHAT" },
            "my-company": { "client_id": "c", "issuer": "https://id.example.com/realms/a" },
        });
        let ready: BTreeMap<String, Provider> = serde_json::from_value(ready).unwrap();
        check(&ready).unwrap();
        assert_eq!(
            ready["microsoft"].issuer("microsoft").as_deref(),
            Some("https://login.microsoftonline.com/contoso.example/v2.0")
        );
    }

    #[test]
    fn what_nobody_could_sign_in_with_is_refused_where_it_stands() {
        for (providers, expected) in [
            (json!({ "acme": { "client_id": "x" } }), "/acme/issuer acme is not known by its name"),
            (json!({ "google": { "client_id": "x" } }), "/google/client_secret google wants a client secret"),
            (
                json!({ "google": { "client_id": "x", "client_secret": "GOCSPX-very secret" } }),
                "/google/client_secret this is not the name of a secret",
            ),
            (
                json!({ "google": { "client_id": "", "client_secret": "S" } }),
                "/google/client_id this is no client id",
            ),
            (
                json!({ "github": { "client_id": "x", "client_secret": "S", "issuer": "https://a.example" } }),
                "/github/issuer github has no issuer",
            ),
            (
                json!({ "apple": { "client_id": "x", "client_secret": "S", "team_id": "T" } }),
                "/apple/key_id apple wants a key_id",
            ),
            (
                json!({ "google": { "client_id": "x", "client_secret": "S", "tenant": "t" } }),
                "/google/tenant google has no tenant",
            ),
            (
                json!({ "microsoft": { "client_id": "x", "client_secret": "S", "tenant": "a/../b" } }),
                "/microsoft/tenant this is no tenant",
            ),
            (
                json!({ "acme": { "client_id": "x", "issuer": "http://id.example.com" } }),
                "/acme/issuer this is no https address",
            ),
            (
                json!({ "acme": { "client_id": "x", "issuer": "https://u@id.example.com" } }),
                "/acme/issuer this is no https address",
            ),
            (
                json!({ "acme": { "client_id": "x", "issuer": "https://id.example.com", "scopes": ["email"] } }),
                "/acme/scopes without the scope openid nobody says who it is",
            ),
            (json!({ "email": { "client_id": "x" } }), " \"email\" is no name of a provider"),
            (json!({ "Google": { "client_id": "x" } }), " \"Google\" is no name of a provider"),
        ] {
            assert_eq!(refused(providers.clone()), expected, "{providers}");
        }
    }

    #[test]
    fn keys_of_custom_tokens_are_public() {
        let refused = |custom: Value| {
            let custom: Custom = serde_json::from_value(custom).unwrap();
            custom.check().err().map(|e| e.pointer().unwrap_or_default().to_owned())
        };
        let key =
            json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        assert_eq!(refused(json!({ "keys": [key] })), None);
        assert_eq!(refused(json!({ "secret": "SIGN_IN" })), None);
        let mut private = key.clone();
        private["d"] = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A".into();
        assert_eq!(refused(json!({ "keys": [key, private] })), Some("/keys/1".to_owned()));
        let shared = json!({ "kty": "oct", "k": "c2VjcmV0" });
        assert_eq!(refused(json!({ "keys": [shared] })), Some("/keys/0".to_owned()));
        assert_eq!(refused(json!({})), Some(String::new()));
        assert_eq!(refused(json!({ "secret": "S", "keys": [key] })), Some(String::new()));
    }
}
