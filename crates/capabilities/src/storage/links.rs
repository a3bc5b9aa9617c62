//! Signed links: who makes one lends their own rights to one method on one path until a time.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use kernel::{Code, Env, Error, KeyId, Result, Secret, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::put::Put;
use super::{Storage, object, put};
use crate::access::{Guest, Subject};
use crate::auth::{seen, seen_sql};

/// How long a link lives where nothing is said.
pub const LIFE: Duration = Duration::from_secs(10 * 60);
/// How long it lives at most.
const LIFE_MOST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A longer text is no token of ours.
const LONGEST: usize = 4_096;

/// The secrets that links are signed by, one for each environment, which stay where they are.
pub trait LinkKeys: Send + Sync + 'static {
    /// The code that only this environment's secret gives for `message` (HMAC-SHA256).
    fn mac<'a>(&'a self, env: &'a Env, message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 32]>>;

    /// Whether the platform key of this id still opens this environment.
    fn is_good<'a>(&'a self, env: &'a Env, key: KeyId) -> BoxFuture<'a, Result<bool>>;
}

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkMethod {
    /// Reading the file.
    Get,
    /// Making or replacing it.
    Put,
}

/// A link that is wanted.
#[derive(Debug, Clone)]
pub struct Sign {
    /// The bucket.
    pub bucket: String,
    /// The file's path.
    pub path: String,
    /// What it is for.
    pub method: LinkMethod,
    /// For how long; 10 minutes where nothing is said, at most 7 days.
    pub expires_in: Option<Duration>,
    /// The largest file that may be stored by it, in bytes.
    pub max_size: Option<u64>,
    /// The content type that the file must have.
    pub content_type: Option<String>,
}

/// A link.
#[derive(Debug, Clone)]
pub struct Link {
    /// The bucket.
    pub bucket: String,
    /// The path in the form that files have.
    pub path: String,
    /// What opens it.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Link {
    /// Where it leads, on the app's host: the one place where its token is written out.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}?token={}", object::address(&self.bucket, &self.path), self.token.expose())
    }
}

/// What a link's holder may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Lent {
    /// In whose name: the rules are asked again.
    pub guest: Guest,
    /// The largest file, in bytes.
    pub max_size: Option<u64>,
    /// The content type that the file must have.
    pub content_type: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    method: LinkMethod,
    bucket: String,
    path: String,
    /// In seconds since the Unix epoch.
    exp: i64,
    by: By,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Visitor,
    User(UserId),
    /// The app's makers, by this platform key.
    Key(KeyId),
    /// The app's makers, by what ends before the link does.
    Maker,
}

impl Storage {
    /// Makes a link to a file that `guest` may read, or may store now.
    ///
    /// # Errors
    /// As [`Storage::get`] or [`Storage::put`]; `invalid_input` at `/expires_in`.
    pub async fn sign(&self, guest: &Guest, sign: Sign) -> Result<Link> {
        let life = sign.expires_in.unwrap_or(LIFE);
        if life.is_zero() || life > LIFE_MOST {
            let message = format!("a link lives 1 to {} seconds", LIFE_MOST.as_secs());
            return Err(Error::invalid("/expires_in", message));
        }
        let path = put::path(&sign.path, "/path")?;
        let kind = match sign.method {
            LinkMethod::Get if sign.max_size.is_some() || sign.content_type.is_some() => {
                return Err(Error::invalid("/method", "max_size and content_type are for links that put"));
            }
            LinkMethod::Get => {
                self.get(guest, &sign.bucket, &path).await?;
                None
            }
            LinkMethod::Put => {
                let put = Put {
                    bucket: sign.bucket.clone(),
                    path: path.clone(),
                    content_type: sign.content_type.clone(),
                    ..Put::default()
                };
                let (checked, bucket) = self.0.check(guest, put).await?;
                self.0.ask_first(&checked, &bucket, sign.max_size).await?;
                sign.content_type.map(|_| checked.content_type)
            }
        };
        let expires_at =
            Timestamp::from_micros(Timestamp::now().plus(life).as_secs().saturating_mul(1_000_000));
        let by = match guest.subject() {
            Subject::Visitor => By::Visitor,
            Subject::User(user) => By::User(user.id),
            Subject::Service => guest.key().map_or(By::Maker, By::Key),
        };
        let (method, bucket, max) = (sign.method, sign.bucket, sign.max_size);
        let claims = Claims { method, bucket, path: path.clone(), exp: expires_at.as_secs(), by, max, kind };
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims).map_err(Error::internal)?);
        let mac = self.0.keys.mac(guest.env(), text.as_bytes()).await?;
        let token = Secret::new(format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac)));
        Ok(Link { bucket: claims.bucket, path, token, expires_at })
    }

    /// What the holder of `token` may do, which is `method` on this very path.
    ///
    /// # Errors
    /// `forbidden` for a token of another path, method or environment, one that has ended, or one whose maker is no
    /// user any more, or made it with a key that has ended.
    pub async fn lent(
        &self,
        env: &Env,
        token: &str,
        method: LinkMethod,
        bucket: &str,
        path: &str,
    ) -> Result<Lent> {
        let (claims, mac) = token.split_once('.').filter(|_| token.len() <= LONGEST).ok_or_else(refused)?;
        let given = URL_SAFE_NO_PAD.decode(mac).map_err(|_| refused())?;
        let right = self.0.keys.mac(env, claims.as_bytes()).await?;
        if !bool::from(right.as_slice().ct_eq(&given)) {
            return Err(refused());
        }
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| refused())?;
        let claims: Claims = serde_json::from_slice(&claims).map_err(|_| refused())?;
        let is_here = claims.bucket == bucket && put::path(path, "/path")? == claims.path;
        if claims.method != method || !is_here || claims.exp <= Timestamp::now().as_secs() {
            return Err(refused());
        }
        let guest = match claims.by {
            By::Visitor => Guest::visitor(env.clone()),
            By::Maker => Guest::maker(env.clone()),
            By::Key(key) if self.0.keys.is_good(env, key).await? => Guest::maker(env.clone()).with_key(key),
            By::Key(_) => return Err(refused()),
            By::User(id) => Guest::new(env.clone(), self.user(env, id).await?),
        };
        Ok(Lent { guest, max_size: claims.max, content_type: claims.kind })
    }

    /// The user as rules see them now.
    async fn user(&self, env: &Env, id: UserId) -> Result<Subject> {
        let rows = self.0.databases.platform_query(env, &seen_sql(), &[id.to_string().into()]).await?;
        match seen(id, rows.first().ok_or_else(refused)?) {
            (user, false) => Ok(Subject::User(user)),
            (_, true) => Err(refused()),
        }
    }
}

/// The one answer to a link that opens nothing.
fn refused() -> Error {
    Error::new(Code::Forbidden, "the link is not valid (any more)").hint("ask who gave it for a new one")
}
