//! What a provider says of who has come: a code is exchanged for its word, and the word is held against what was asked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kernel::{EnvId, Secret, Timestamp};
use reqwest::{Method, RequestBuilder};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use super::Failed;
use super::issuers::{Issuers, Published};
use super::jose::{Bad, Token, signed_es256};
use super::links::Surety;
use super::providers::{Kind, Provider, TENANT};
use crate::auth::address::Address;
use crate::outbound::{Answer, Outbound};

/// How far clocks may differ, in seconds.
pub(super) const SKEW: i64 = 60;

/// How long a client secret that is signed for one exchange holds, in seconds.
const SIGNED_SECRET: i64 = 5 * 60;

/// The longest subject (OpenID Connect Core 1.0 §2).
pub(super) const SUBJECT: usize = 255;

/// What a provider says of who has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Who it is, under each of the names that the provider has for them; the surest first.
    pub subjects: Vec<String>,
    /// The address, where the provider has confirmed it and is believed.
    pub email: Option<(Address, Surety)>,
}

/// What an ID token says that holds.
#[derive(Debug)]
pub(super) struct Told {
    /// Whose it is.
    pub issuer: String,
    /// Who it is of.
    pub subject: String,
    /// All that it says.
    pub claims: Map<String, Value>,
    /// What asks for more.
    access_token: Option<Secret>,
}

/// Where a provider is asked what.
#[derive(Debug)]
pub(super) struct Endpoints {
    /// Whose word it is; stands before each subject, so that another issuer under the same name brings nobody in.
    pub issuer: String,
    pub authorize: Url,
    token: Url,
    userinfo: Option<Url>,
    keys: Option<Url>,
    /// Whether the secret is sent in the body.
    posts_secret: bool,
    /// Whether the provider says with each answer who it is (RFC 9207).
    names_itself: bool,
}

/// One provider of an app, and those who are asked on the way.
pub(super) struct Vouching<'a> {
    pub env: EnvId,
    pub http: &'a Outbound,
    pub issuers: &'a Issuers,
    pub name: &'a str,
    pub provider: &'a Provider,
    pub secret: Option<Secret>,
}

/// What a browser has brought back, and what it left with.
pub(super) struct Brought<'a> {
    pub code: &'a str,
    /// Who the answer says that it is from (RFC 9207).
    pub iss: Option<&'a str>,
    pub callback: &'a str,
    pub verifier: &'a str,
    pub nonce: &'a str,
}

impl Vouching<'_> {
    /// Where the provider is asked what, by the app's own words first.
    pub async fn endpoints(&self) -> Result<Endpoints, Failed> {
        let provider = self.provider;
        let own = |text: &Option<String>| text.as_deref().and_then(|text| Url::parse(text).ok());
        let [authorize, token, userinfo] =
            [&provider.authorize_url, &provider.token_url, &provider.userinfo_url].map(own);
        let parse =
            |text: &str| Url::parse(text).map_err(|_| Failed::Said("an address of the provider is none"));
        let fixed = |url: Option<Url>, text: &str| url.map_or_else(|| parse(text), Ok);
        let (texts, posts_secret) = match Kind::of(self.name) {
            Kind::GitHub => (
                [
                    "https://github.com/login/oauth/authorize",
                    "https://github.com/login/oauth/access_token",
                    "https://api.github.com/user",
                ],
                true,
            ),
            Kind::WeChat => (
                [
                    "https://open.weixin.qq.com/connect/qrconnect",
                    "https://api.weixin.qq.com/sns/oauth2/access_token",
                    "https://api.weixin.qq.com/sns/userinfo",
                ],
                true,
            ),
            Kind::OpenId | Kind::Microsoft | Kind::Apple => {
                let found = self.published().await?;
                let endpoints = Endpoints {
                    issuer: found.issuer.clone(),
                    authorize: fixed(authorize, &found.authorize)?,
                    token: fixed(token, &found.token)?,
                    userinfo: match (userinfo, &found.userinfo) {
                        (None, Some(found)) => Some(parse(found)?),
                        (own, _) => own,
                    },
                    keys: Some(parse(&found.keys)?),
                    posts_secret: found.posts_secret,
                    names_itself: found.names_itself,
                };
                self.http.judge(&endpoints.authorize)?;
                return Ok(endpoints);
            }
        };
        let [at, token_at, userinfo_at] = texts;
        let authorize = fixed(authorize, at)?;
        self.http.judge(&authorize)?;
        Ok(Endpoints {
            issuer: authorize.origin().ascii_serialization(),
            authorize,
            token: fixed(token, token_at)?,
            userinfo: Some(fixed(userinfo, userinfo_at)?),
            keys: None,
            posts_secret,
            names_itself: false,
        })
    }

    async fn published(&self) -> Result<Arc<Published>, Failed> {
        let issuer = self.provider.issuer(self.name).ok_or(Failed::Said("the provider has no issuer"))?;
        let found = self.issuers.metadata(&issuer).await?;
        // Who could publish for another would be believed in its place.
        let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
        if same(&found.issuer, &issuer) || self.is_tenants(&found.issuer) {
            return Ok(found);
        }
        Err(Failed::Said("what the issuer publishes names another issuer"))
    }

    /// Whether an issuer is what Microsoft publishes for the tenant: one that is named by its domain, or stands for many,
    /// is there under another name, the directory's own or a place for it.
    fn is_tenants(&self, issuer: &str) -> bool {
        let tenant = self.provider.tenant.as_deref().unwrap_or("common");
        let named = |id: &str| format!("https://login.microsoftonline.com/{id}/v2.0");
        let found = issuer.split('/').nth(3).unwrap_or_default();
        let known = self.provider.issuer.is_none() && Kind::of(self.name) == Kind::Microsoft;
        known && !is_directory(tenant) && issuer == named(found) && (found == TENANT || is_directory(found))
    }

    /// The address that the browser is sent to.
    pub fn departure(
        &self,
        endpoints: &Endpoints,
        callback: &str,
        state: &str,
        nonce: &str,
        challenge: &str,
    ) -> Url {
        let (mut url, scope) = (endpoints.authorize.clone(), self.provider.scope(self.name));
        let id = self.provider.client_id.as_str();
        let kind = Kind::of(self.name);
        if kind == Kind::WeChat {
            // In this order, with this fragment.
            url.query_pairs_mut()
                .append_pair("appid", id)
                .append_pair("redirect_uri", callback)
                .append_pair("response_type", "code")
                .append_pair("scope", &scope)
                .append_pair("state", state);
            url.set_fragment(Some("wechat_redirect"));
            return url;
        }
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", id)
            .append_pair("redirect_uri", callback)
            .append_pair("scope", &scope)
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        if kind.has_id_token() {
            query.append_pair("nonce", nonce);
        }
        if kind == Kind::Apple {
            query.append_pair("response_mode", "form_post");
        }
        drop(query);
        url
    }

    /// Exchanges a code for the provider's word.
    pub async fn word(&self, brought: &Brought<'_>) -> Result<Word, Failed> {
        let endpoints = self.endpoints().await?;
        self.is_from(&endpoints, brought.iss)?;
        match Kind::of(self.name) {
            Kind::OpenId | Kind::Microsoft | Kind::Apple => self.by_id_token(&endpoints, brought).await,
            Kind::GitHub => self.by_github(&endpoints, brought).await,
            Kind::WeChat => self.by_wechat(&endpoints, brought).await,
        }
    }

    /// That an answer is from this provider, and not another one's that was sent on to it.
    pub(super) fn is_from(&self, endpoints: &Endpoints, iss: Option<&str>) -> Result<(), Failed> {
        let good = match iss {
            Some(iss) if endpoints.keys.is_some() => {
                let of_tenant = |id: &str| endpoints.issuer.replacen(TENANT, id, 1) == iss;
                iss == endpoints.issuer
                    || Kind::of(self.name) == Kind::Microsoft
                        && iss.split('/').nth(3).is_some_and(|id| is_directory(id) && of_tenant(id))
            }
            // One that publishes nothing has no name but its address.
            Some(iss) => {
                Url::parse(iss).is_ok_and(|iss| iss.origin().ascii_serialization() == endpoints.issuer)
            }
            None => !endpoints.names_itself,
        };
        if good { Ok(()) } else { Err(Failed::Said("the answer is another issuer's")) }
    }

    async fn by_id_token(&self, endpoints: &Endpoints, brought: &Brought<'_>) -> Result<Word, Failed> {
        let told = self.told(endpoints, brought).await?;
        let mut email = confirmed(&told.claims);
        if !told.claims.contains_key("email")
            && Kind::of(self.name) == Kind::OpenId
            && let Some(more) = self.more(endpoints, &told).await?
        {
            email = confirmed(&more);
        }
        let email = email.and_then(|email| {
            let surety = self.provider.speaks_for(self.name, &email, text(&told.claims, "hd"))?;
            Some((email, surety))
        });
        Ok(Word { subjects: vec![format!("{} {}", told.issuer, told.subject)], email })
    }

    /// Exchanges a code for an ID token, and holds what that says against what was asked.
    pub(super) async fn told(&self, endpoints: &Endpoints, brought: &Brought<'_>) -> Result<Told, Failed> {
        #[derive(Deserialize)]
        struct Tokens {
            id_token: String,
            access_token: Option<Secret>,
        }
        let tokens: Tokens = self.exchange(endpoints, brought).await?;
        let keys = endpoints.keys.as_ref().ok_or(Failed::Said("the issuer publishes no keys"))?;
        let claims = self.issuers.verified(self.env, keys, &Token::read(&tokens.id_token)?).await?;
        let issuer = self.holds(&claims, endpoints, brought.nonce)?;
        let sub = text(&claims, "sub").filter(|sub| (1..=SUBJECT).contains(&sub.len()));
        let subject = sub.ok_or(Bad::Claim("sub"))?.to_owned();
        Ok(Told { issuer, subject, claims, access_token: tokens.access_token })
    }

    /// What the userinfo endpoint says besides, where there is one (OpenID Connect Core 1.0 §5.3).
    pub(super) async fn more(
        &self,
        endpoints: &Endpoints,
        told: &Told,
    ) -> Result<Option<Map<String, Value>>, Failed> {
        let (Some(url), Some(token)) = (&endpoints.userinfo, &told.access_token) else { return Ok(None) };
        let more: Map<String, Value> = self.ask("the userinfo endpoint", self.get(url, token)?).await?;
        if text(&more, "sub") != Some(&told.subject) {
            return Err(Failed::Said("the userinfo endpoint tells of somebody else"));
        }
        Ok(Some(more))
    }

    /// That what an ID token says holds here and now (OpenID Connect Core 1.0 §3.1.3.7); whose it is.
    fn holds(&self, said: &Map<String, Value>, endpoints: &Endpoints, nonce: &str) -> Result<String, Bad> {
        let mut issuer = endpoints.issuer.clone();
        if issuer.contains(TENANT) && Kind::of(self.name) == Kind::Microsoft {
            let tid = text(said, "tid").filter(|id| is_directory(id)).ok_or(Bad::Claim("tid"))?;
            issuer = issuer.replacen(TENANT, tid, 1);
        }
        if text(said, "iss") != Some(&issuer) {
            return Err(Bad::Claim("iss"));
        }
        let id = self.provider.client_id.as_str();
        let (named, others) = match said.get("aud") {
            Some(Value::String(aud)) => (aud == id, false),
            Some(Value::Array(many)) => (many.iter().any(|aud| aud == id), many.len() > 1),
            _ => (false, false),
        };
        if !named {
            return Err(Bad::Claim("aud"));
        }
        match said.get("azp") {
            Some(azp) if azp != id => return Err(Bad::Claim("azp")),
            None if others => return Err(Bad::Claim("azp")),
            _ => {}
        }
        let (now, time) = (Timestamp::now().as_secs(), |name: &str| said.get(name).and_then(Value::as_i64));
        if time("exp").is_none_or(|exp| exp.saturating_add(SKEW) <= now) {
            return Err(Bad::Claim("exp"));
        }
        if time("iat").is_none_or(|iat| iat > now.saturating_add(SKEW)) {
            return Err(Bad::Claim("iat"));
        }
        if text(said, "nonce") != Some(nonce) {
            return Err(Bad::Claim("nonce"));
        }
        Ok(issuer)
    }

    async fn by_github(&self, endpoints: &Endpoints, brought: &Brought<'_>) -> Result<Word, Failed> {
        #[derive(Deserialize)]
        struct Tokens {
            access_token: Secret,
        }
        #[derive(Deserialize)]
        struct Who {
            id: u64,
        }
        #[derive(Deserialize)]
        struct Email {
            email: String,
            primary: bool,
            verified: bool,
        }
        let Tokens { access_token } = self.exchange(endpoints, brought).await?;
        let url = endpoints.userinfo.as_ref().ok_or(Failed::Said("an address is missing"))?;
        let Who { id } = self.ask("the user endpoint", self.get(url, &access_token)?).await?;
        let mut emails = url.clone();
        emails
            .path_segments_mut()
            .map_err(|()| Failed::Said("an address is none"))?
            .pop_if_empty()
            .push("emails");
        // Without the scope for it there is no address, and somebody all the same.
        let answer = self.http.send(self.get(&emails, &access_token)?).await?;
        let listed: Vec<Email> =
            Some(&answer).filter(|it| it.status == 200).and_then(Answer::json).unwrap_or_default();
        let primary = listed.into_iter().find(|email| email.primary && email.verified);
        let email = primary.and_then(|found| Address::parse("", &found.email).ok());
        let email = email.map(|email| (email, Surety::Today));
        Ok(Word { subjects: vec![format!("{} {id}", endpoints.issuer)], email })
    }

    /// WeChat answers with 200 whatever has happened, and takes everything in the address.
    async fn by_wechat(&self, endpoints: &Endpoints, brought: &Brought<'_>) -> Result<Word, Failed> {
        #[derive(Deserialize)]
        struct Said {
            #[serde(default)]
            errcode: i64,
            openid: Option<String>,
            unionid: Option<String>,
        }
        let (mut url, id) = (endpoints.token.clone(), self.provider.client_id.as_str());
        let secret = self.secret.as_ref().ok_or(Failed::Said("there is no client secret"))?;
        url.query_pairs_mut()
            .append_pair("appid", id)
            .append_pair("secret", secret.expose())
            .append_pair("code", brought.code)
            .append_pair("grant_type", "authorization_code");
        let said: Said = self.ask("the token endpoint", self.http.request(Method::GET, &url)?).await?;
        if said.errcode != 0 {
            return Err(Failed::Answer("the token endpoint", 200, format!(": errcode {}", said.errcode)));
        }
        let named = |id: &Option<String>| {
            id.clone()
                .filter(|id| (1..=SUBJECT).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()))
        };
        let open = named(&said.openid).ok_or(Failed::Said("the token endpoint names nobody"))?;
        // Somebody is the same under all apps of an account by the first, and under this one by the second.
        let union = named(&said.unionid).map(|id| format!("{} union {id}", endpoints.issuer));
        let own = format!("{} {} {open}", endpoints.issuer, self.provider.client_id);
        Ok(Word { subjects: union.into_iter().chain([own]).collect(), email: None })
    }

    /// The exchange itself (RFC 6749 §4.1.3, RFC 7636 §4.5).
    async fn exchange<T: DeserializeOwned>(
        &self,
        endpoints: &Endpoints,
        brought: &Brought<'_>,
    ) -> Result<T, Failed> {
        let id = self.provider.client_id.as_str();
        let mut pairs = vec![
            ("grant_type", "authorization_code"),
            ("code", brought.code),
            ("redirect_uri", brought.callback),
            ("code_verifier", brought.verifier),
        ];
        let mut request =
            self.http.request(Method::POST, &endpoints.token)?.header("accept", "application/json");
        let secret = self.client_secret(&endpoints.issuer)?;
        match &secret {
            Some(secret) if endpoints.posts_secret => {
                pairs.extend([("client_id", id), ("client_secret", secret.expose())]);
            }
            Some(secret) => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let pair = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret.expose())));
                request = request.header("authorization", format!("Basic {pair}"));
            }
            None => pairs.push(("client_id", id)),
        }
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form);
        self.ask("the token endpoint", request).await
    }

    fn client_secret(&self, issuer: &str) -> Result<Option<Secret>, Failed> {
        let (Kind::Apple, Some(key)) = (Kind::of(self.name), &self.secret) else {
            return Ok(self.secret.clone());
        };
        let now = Timestamp::now().as_secs();
        let (team, kid) = (self.provider.team_id.as_deref(), self.provider.key_id.as_deref());
        let id = self.provider.client_id.as_str();
        let claims = json!({ "iss": team, "iat": now, "exp": now + SIGNED_SECRET, "aud": issuer, "sub": id });
        signed_es256(key, kid.unwrap_or_default(), &claims).map(Some).map_err(Failed::Key)
    }

    fn get(&self, url: &Url, token: &Secret) -> Result<RequestBuilder, Failed> {
        let request = self.http.request(Method::GET, url)?.header("accept", "application/json");
        Ok(request.bearer_auth(token.expose()))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        what: &'static str,
        request: RequestBuilder,
    ) -> Result<T, Failed> {
        let answer = self.http.send(request).await?;
        let read = Some(&answer).filter(|it| it.status == 200).and_then(Answer::json);
        read.ok_or_else(|| Failed::Answer(what, answer.status, reason(&answer)))
    }
}

/// Whether a text is the id of one of Microsoft's directories.
fn is_directory(id: &str) -> bool {
    id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The word for what went wrong (RFC 6749 §5.2); nothing else of an answer is repeated.
fn reason(answer: &Answer) -> String {
    let said: Option<Map<String, Value>> = answer.json();
    let word = said.as_ref().and_then(|said| text(said, "error"));
    let word =
        word.filter(|word| word.len() <= 64 && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
    word.map(|word| format!(": {word}")).unwrap_or_default()
}

pub(super) fn text<'a>(said: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    said.get(name).and_then(Value::as_str)
}

/// The address, where it is said to be confirmed; Apple says so in a text.
pub(super) fn confirmed(said: &Map<String, Value>) -> Option<Address> {
    let is = said.get("email_verified").is_some_and(|it| *it == json!(true) || *it == json!("true"));
    text(said, "email").filter(|_| is).and_then(|email| Address::parse("", email).ok())
}

#[cfg(test)]
#[path = "vouching_tests.rs"]
mod tests;
