//! The manifest's `auth`: how people sign in.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kernel::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::entrusting;
use crate::auth::{Custom, Provider, check_providers, origin, redirect};
use crate::rows::{AuthSettings, Confirm, Method, Mfa, PhoneAdapter, SignUp, Theme};

/// The manifest's `auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthSpec {
    /// Ways to sign in; none is on until it is listed.
    #[serde(default)]
    pub methods: BTreeSet<Method>,
    /// Other origins whose pages may call the app: `https://example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Who may make an account: `open` (everybody), `invite` (who was invited) or `closed`.
    #[serde(default, skip_serializing_if = "is_open")]
    pub signup: SignUp,
    /// Whether an address must be confirmed by mail before it opens a session; with `otp` it must.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Second factors: `off`, `optional` (whoever likes sets one up) or `required` (a session opens nothing before).
    #[serde(default, skip_serializing_if = "is_off")]
    pub mfa: Mfa,
    /// Who sends texts to phones; needed with `phone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<PhoneAdapter>,
    /// Other addresses that links in mails may lead on to: `https://example.org/welcome`; one that ends with / stands for
    /// all below it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redirects: Vec<String>,
    /// How the sign-in page at `/_/auth/ui` looks.
    #[serde(default, skip_serializing_if = "is_plain")]
    pub theme: Theme,
    /// Whose word on who people are is taken with `oauth`: `google`, `github`, `microsoft`, `apple`, `wechat`, or another
    /// name with an issuer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<String, Provider>,
    /// The tokens of the app's own server that are taken with `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Custom>,
}

/// What is changed of it; the rest stays.
#[derive(Debug, Clone, Default)]
pub struct AuthChange {
    /// Ways to sign in.
    pub methods: Option<BTreeSet<Method>>,
    /// Other origins.
    pub origins: Option<Vec<String>>,
    /// Who may make an account.
    pub signup: Option<SignUp>,
    /// Those whose word is taken.
    pub providers: Option<BTreeMap<String, Provider>>,
    /// Second factors.
    pub mfa: Option<Mfa>,
}

/// How many other origins, and how many addresses, an app may name.
const MOST: usize = 20;

fn is_open(signup: &SignUp) -> bool {
    *signup == SignUp::Open
}

fn is_off(mfa: &Mfa) -> bool {
    *mfa == Mfa::Off
}

fn is_plain(theme: &Theme) -> bool {
    *theme == Theme::default()
}

fn check_adapter(adapter: &PhoneAdapter) -> Result<()> {
    let url = Url::parse(&adapter.webhook).ok().filter(|url| {
        let (host, https) = (url.host_str(), url.scheme() == "https");
        let here = url.scheme() == "http" && matches!(host, Some("localhost" | "127.0.0.1" | "[::1]"));
        (https || here) && host.is_some() && url.username().is_empty() && url.password().is_none()
    });
    if url.is_none_or(|url| url.fragment().is_some()) || adapter.webhook.len() > 1_000 {
        return Err(Error::invalid("/phone/webhook", "this is no https address")
            .hint("https://sms.example.com/send; what is secret in it belongs into a secret"));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if adapter.secret.is_empty() || adapter.secret.len() > 100 || !adapter.secret.chars().all(plain) {
        return Err(Error::invalid("/phone/secret", "this is not the name of a secret")
            .hint("set one with secret_set, and write its name here"));
    }
    Ok(())
}

fn check(theme: &Theme) -> Result<()> {
    let is_colour = |text: &str| {
        text.strip_prefix('#')
            .is_some_and(|digits| digits.len() == 6 && digits.bytes().all(|d| d.is_ascii_hexdigit()))
    };
    if theme.accent.as_deref().is_some_and(|accent| !is_colour(accent)) {
        return Err(
            Error::invalid("/theme/accent", "a colour is # and six hexadecimal digits").hint("#14532d")
        );
    }
    let is_path = |text: &str| {
        text.starts_with('/')
            && !text.starts_with("//")
            && text.len() <= 300
            && !text.contains(['\\', '?', '#', '"'])
    };
    if theme.logo.as_deref().is_some_and(|logo| !is_path(logo)) {
        return Err(Error::invalid("/theme/logo", "a logo is a file of the site").hint("/logo.svg"));
    }
    Ok(())
}

impl AuthSpec {
    /// The same with its origins and addresses as browsers write them, each once and in order; or the first that is none,
    /// with its place below `/auth`.
    pub(crate) fn checked(self) -> Result<Self> {
        let origins = listed("origins", &self.origins, origin)?;
        let redirects = listed("redirects", &self.redirects, |text| redirect(text).map(String::from))?;
        if self.signup != SignUp::Open && self.methods.contains(&Method::Anonymous) {
            let message =
                format!("anonymous makes a user of everybody, and signup is {}", self.signup.as_str());
            return Err(Error::invalid("/methods", message).hint("leave anonymous out, or signup open"));
        }
        if self.mfa == Mfa::Required && self.methods.contains(&Method::Anonymous) {
            let message = "anonymous lets people in who can show no second factor, and mfa is required";
            return Err(Error::invalid("/methods", message).hint("leave anonymous out, or mfa optional"));
        }
        if let Some(adapter) = &self.phone {
            check_adapter(adapter)?;
        } else if self.methods.contains(&Method::Phone) {
            return Err(Error::invalid("/methods", "phone is on, and nobody sends the texts")
                .hint(r#"app_apply sets it: "auth": {"phone": {"webhook": "https://sms.example.com/send", "secret": "SMS_KEY"}, …}"#));
        }
        check(&self.theme)?;
        check_providers(&self.providers).map_err(|e| e.under("/providers"))?;
        self.custom.iter().try_for_each(|custom| custom.check().map_err(|e| e.under("/custom")))?;
        if self.methods.contains(&Method::OAuth) && self.providers.is_empty() {
            return Err(Error::invalid("/methods", "oauth is on, and no provider is named").hint(
                r#"auth.providers: {"google": {"client_id": "…", "client_secret": "GOOGLE_SECRET"}}"#,
            ));
        }
        if self.methods.contains(&Method::Custom) && self.custom.is_none() {
            return Err(Error::invalid("/methods", "custom is on, and nothing says who signs the tokens")
                .hint(r#"app_apply sets it: "auth": {"custom": {"secret": "SIGN_IN_KEY"}, …}"#));
        }
        Ok(Self { origins, redirects, ..self })
    }

    /// The same with `change` made to it.
    pub(crate) fn with(self, change: AuthChange) -> Self {
        Self {
            methods: change.methods.unwrap_or(self.methods),
            origins: change.origins.unwrap_or(self.origins),
            signup: change.signup.unwrap_or(self.signup),
            providers: change.providers.unwrap_or(self.providers),
            mfa: change.mfa.unwrap_or(self.mfa),
            ..self
        }
    }

    /// That the secrets it names are set.
    ///
    /// # Errors
    /// `invalid_input` at the first name that is not among `set`.
    pub(crate) fn has_secrets(&self, set: &[String]) -> Result<()> {
        for (at, name) in self.secrets() {
            if !set.contains(name) {
                return Err(
                    Error::invalid(at, format!("the secret {name} is not set")).hint(entrusting::SET_FIRST)
                );
            }
        }
        Ok(())
    }

    /// The secrets it names, each with its place below `/auth`.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (String, &String)> {
        let of_providers = self.providers.iter().filter_map(|(name, provider)| {
            Some((format!("/providers/{name}/client_secret"), provider.client_secret.as_ref()?))
        });
        let of_custom = self
            .custom
            .iter()
            .filter_map(|custom| Some(("/custom/secret".to_owned(), custom.secret.as_ref()?)));
        let of_phone = self.phone.iter().map(|phone| ("/phone/secret".to_owned(), &phone.secret));
        of_providers.chain(of_custom).chain(of_phone)
    }

    /// The secrets that are sent out, and to which host each is.
    pub(crate) fn entrusted(&self) -> BTreeSet<(String, String)> {
        let of_phone = self.phone.iter().map(|phone| (&phone.secret, host(&phone.webhook)));
        let of_providers = self.providers.iter().filter_map(|(name, provider)| {
            Some((provider.client_secret.as_ref()?, host(&provider.asked(name))))
        });
        of_phone.chain(of_providers).map(|(secret, host)| (secret.clone(), host)).collect()
    }

    /// What the data plane knows of it; `name` is the app's.
    pub(crate) fn settings(self, name: Option<String>) -> AuthSettings {
        AuthSettings {
            methods: self.methods,
            origins: self.origins.into_iter().collect(),
            signup: self.signup,
            confirm: if self.confirm { Confirm::First } else { Confirm::Later },
            mfa: self.mfa,
            phone: self.phone,
            redirects: self.redirects.iter().filter_map(|text| redirect(text).ok()).collect(),
            name,
            theme: self.theme,
            providers: self.providers,
            custom: self.custom,
        }
    }
}

/// The host of an address, with its port where that is not the scheme's own.
fn host(address: &str) -> String {
    let url = Url::parse(address).ok();
    let port = url.as_ref().and_then(Url::port).map(|port| format!(":{port}")).unwrap_or_default();
    url.and_then(|url| url.host_str().map(|host| format!("{host}{port}"))).unwrap_or_default()
}

fn listed(field: &str, texts: &[String], read: impl Fn(&str) -> Result<String>) -> Result<Vec<String>> {
    if texts.len() > MOST {
        return Err(Error::invalid(format!("/{field}"), format!("an app names at most {MOST} {field}")));
    }
    let texts = texts.iter().enumerate();
    let read = texts.map(|(i, text)| read(text).map_err(|e| e.under(&format!("/{field}/{i}"))));
    Ok(read.collect::<Result<BTreeSet<_>>>()?.into_iter().collect())
}

impl fmt::Display for AuthSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|method| method.as_str()).collect();
        match methods.as_slice() {
            [] => f.write_str("nobody signs in")?,
            methods => write!(f, "sign-in by {}", methods.join(", "))?,
        }
        match self.signup {
            SignUp::Open => {}
            SignUp::Invite => f.write_str(" for who was invited")?,
            SignUp::Closed => f.write_str(" for who has an account")?,
        }
        if self.confirm {
            f.write_str(" with a confirmed address")?;
        }
        if let Some(PhoneAdapter { webhook, secret }) = &self.phone {
            write!(f, ", texts by {} with the secret {secret}", host(webhook))?;
        }
        match self.mfa {
            Mfa::Off => {}
            Mfa::Optional => f.write_str(", with a second factor for who likes")?,
            Mfa::Required => f.write_str(", only with a second factor")?,
        }
        for (name, provider) in &self.providers {
            let issuer = provider.issuer.as_deref().map(|issuer| format!(" at {issuer}")).unwrap_or_default();
            write!(f, ", {name}{issuer} is trusted as {}", provider.client_id)?;
            if !provider.addresses.is_empty() {
                write!(f, " and about addresses at {}", provider.addresses.join(", "))?;
            }
        }
        if let Some(Custom { claims, role, secret, .. }) = &self.custom {
            let by = secret.as_ref().map_or("public keys".to_owned(), |name| format!("the secret {name}"));
            write!(f, ", tokens signed by {by} are trusted")?;
            match (role, claims) {
                (true, true) => f.write_str(" with roles and claims")?,
                (true, false) => f.write_str(" with roles")?,
                (false, true) => f.write_str(" with claims")?,
                (false, false) => {}
            }
        }
        for origin in &self.origins {
            write!(f, ", also from {origin}")?;
        }
        for redirect in &self.redirects {
            write!(f, ", links lead to {redirect}")?;
        }
        if let Some(accent) = &self.theme.accent {
            write!(f, ", in {accent}")?;
        }
        if let Some(logo) = &self.theme.logo {
            write!(f, ", under {logo}")?;
        }
        Ok(())
    }
}
