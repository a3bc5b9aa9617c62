//! `steading login` and `logout`: acting for a user at another platform without a key on this machine.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::Duration;

use control::oauth::COMMAND_LINE;
use kernel::{Code, Error, Secret, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use super::client::http;
use super::{Context, Failure};
use crate::config::Surroundings;

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// A token that ends sooner is refreshed before it is used.
const SOON: i64 = 60;
const HINT: &str = "sign in with `steading login`, or set STEADING_KEY to a key of that platform";

/// Sign in to a platform in a browser, and stay so
#[derive(Debug, clap::Args)]
pub struct Login {
    /// The platform's address [default: STEADING_URL]
    url: Option<String>,
    /// What this machine may do: read, write, sandbox, or scopes such as db:read
    #[arg(long, value_name = "WORDS", default_value = "read write sandbox")]
    scope: String,
}

/// Sign out of a platform
#[derive(Debug, clap::Args)]
pub struct Logout {
    /// The platform's address [default: STEADING_URL]
    url: Option<String>,
}

/// What is kept of a platform, readable by its owner alone.
#[derive(Serialize, Deserialize)]
struct Kept {
    url: String,
    access_token: String,
    refresh_token: String,
    expires_at: i64,
}

/// A platform that can be signed in to, and the file that says so.
struct Platform {
    base: String,
    http: reqwest::Client,
    path: PathBuf,
}

impl Platform {
    fn of(url: Option<&str>, surroundings: &Surroundings) -> Result<Self, Failure> {
        let missing = || {
            Error::new(Code::InvalidInput, "no platform is named")
                .hint("give its address, or set STEADING_URL")
        };
        let url = url.or(surroundings.url.as_deref()).ok_or_else(missing)?;
        let parsed: Option<Url> =
            url.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https"));
        let wrong = || Error::new(Code::InvalidInput, format!("{url:?} is not the address of a platform"));
        let base = parsed.ok_or_else(wrong)?.origin().ascii_serialization();
        let home = || surroundings.home.as_ref().map(|home| home.join(".config"));
        let config = surroundings.config_home.clone().or_else(home);
        let config = config.ok_or_else(|| Error::new(Code::InvalidInput, "HOME is not set"))?;
        let name: String =
            base.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
        Ok(Self {
            http: http(&base)?,
            base,
            path: config.join("steading/logins").join(format!("{name}.json")),
        })
    }

    /// The file, for one process at a time; `None` where nobody has signed in.
    fn locked(&self) -> Result<Option<(File, Kept)>, Failure> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unusable(&error)),
        };
        file.lock().map_err(|error| self.unusable(&error))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| self.unusable(&error))?;
        let broken = |error: serde_json::Error| self.unusable(&error.into());
        let kept: Kept = serde_json::from_str(&text).map_err(broken)?;
        // Two addresses may be written as one name.
        Ok((kept.url == self.base).then_some((file, kept)))
    }

    fn keep(&self, kept: &Kept, file: Option<File>) -> Result<(), Failure> {
        let write = || {
            let mut file = match file {
                Some(file) => file,
                None => {
                    let directory = self.path.parent().unwrap_or(&self.path);
                    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
                    // Whatever was there may be open to others.
                    drop(std::fs::remove_file(&self.path));
                    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?
                }
            };
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(serde_json::to_string(kept)?.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|error| self.unusable(&error))
    }

    fn unusable(&self, error: &std::io::Error) -> Failure {
        Error::new(Code::Unavailable, format!("{} cannot be used: {error}", self.path.display()))
            .hint("remove it and sign in again with `steading login`")
            .into()
    }

    /// Asks for tokens, or for whatever else a form brings; the status says which.
    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Result<(u16, Value), Failure> {
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = self.http.post(format!("{}/oauth/{path}", self.base)).body(form);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let unreachable = |error: reqwest::Error| {
            Error::new(Code::Unavailable, format!("the platform at {} does not answer: {error}", self.base))
                .hint("check the address")
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(unreachable)?;
        let unclear = |_| {
            Error::new(
                Code::Unavailable,
                format!("what answers at {} is no platform of this kind", self.base),
            )
            .hint("check the address")
        };
        Ok((status, serde_json::from_slice(&body).map_err(unclear)?))
    }

    fn kept(&self, tokens: &Value) -> Result<Kept, Failure> {
        let text = |name: &str| tokens[name].as_str().map(str::to_owned);
        let unclear = || Error::new(Code::Unavailable, "the platform's answer cannot be read");
        Ok(Kept {
            url: self.base.clone(),
            access_token: text("access_token").ok_or_else(unclear)?,
            refresh_token: text("refresh_token").ok_or_else(unclear)?,
            expires_at: Timestamp::now().as_secs() + tokens["expires_in"].as_i64().unwrap_or_default(),
        })
    }
}

/// Why the platform refuses, in its own words.
fn refused(answer: &Value) -> Failure {
    let said =
        answer["error_description"].as_str().or(answer["message"].as_str()).unwrap_or("it does not say why");
    let code = match answer["error"].as_str() {
        Some("invalid_grant" | "access_denied" | "expired_token") => Code::Unauthenticated,
        Some("temporarily_unavailable" | "server_error") => Code::Unavailable,
        _ => Code::InvalidInput,
    };
    Error::new(code, said).hint(HINT).into()
}

/// The token of the user who has signed in to the platform that STEADING_URL names; `None` where nobody has.
///
/// # Errors
/// Where the user has to sign in again.
pub async fn token(surroundings: &Surroundings) -> Result<Option<Secret>, Failure> {
    let Ok(platform) = Platform::of(None, surroundings) else { return Ok(None) };
    // Held until the next token is written: a refresh token is good once.
    let Some((file, kept)) = platform.locked()? else { return Ok(None) };
    if kept.expires_at > Timestamp::now().as_secs() + SOON {
        return Ok(Some(Secret::new(kept.access_token)));
    }
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", COMMAND_LINE),
        ("refresh_token", &*kept.refresh_token),
    ];
    let (status, answer) = platform.ask("token", &fields).await?;
    if status != 200 {
        return Err(refused(&answer));
    }
    let kept = platform.kept(&answer)?;
    platform.keep(&kept, Some(file))?;
    Ok(Some(Secret::new(kept.access_token)))
}

impl Login {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let platform = Platform::of(self.url.as_deref(), &context.surroundings)?;
        let fields = [("client_id", COMMAND_LINE), ("scope", &*self.scope), ("resource", &*platform.base)];
        let (status, begun) = platform.ask("device", &fields).await?;
        let text = |name: &str| begun[name].as_str().unwrap_or_default();
        if status != 200 {
            return Err(refused(&begun));
        }
        // To whoever sits there, also where a program reads the result.
        let mut out = std::io::stderr().lock();
        let (page, code) = (text("verification_uri_complete"), text("user_code"));
        drop(writeln!(out, "Open {page} in a browser, and check that it shows the code {code}."));
        drop(out);
        let mut pause = Duration::from_secs(begun["interval"].as_u64().unwrap_or(5).clamp(1, 60));
        let tokens = loop {
            tokio::time::sleep(pause).await;
            let fields = [
                ("grant_type", DEVICE_CODE),
                ("client_id", COMMAND_LINE),
                ("device_code", text("device_code")),
            ];
            let (status, answer) = platform.ask("token", &fields).await?;
            match answer["error"].as_str() {
                None if status == 200 => break answer,
                Some("authorization_pending") => {}
                Some("slow_down") => pause += Duration::from_secs(5),
                _ => return Err(refused(&answer)),
            }
        };
        platform.keep(&platform.kept(&tokens)?, None)?;
        let result = json!({ "url": platform.base, "scope": tokens["scope"] });
        context.output.result(&result, |_| {
            format!(
                "Signed in to {0}. Commands act there where STEADING_URL is {0} and STEADING_KEY is not set.",
                platform.base
            )
        });
        Ok(())
    }
}

impl Logout {
    /// Runs it.
    pub async fn run(self, context: Context) -> Result<(), Failure> {
        let platform = Platform::of(self.url.as_deref(), &context.surroundings)?;
        let Some((_file, kept)) = platform.locked()? else {
            return Err(Error::not_found(format!("login at {}", platform.base)).into());
        };
        let fields = [("client_id", COMMAND_LINE), ("token", &*kept.refresh_token)];
        let told = platform.ask("revoke", &fields).await;
        std::fs::remove_file(&platform.path).map_err(|error| platform.unusable(&error))?;
        let (status, answer) = told?;
        if status != 200 {
            return Err(refused(&answer));
        }
        let result = json!({ "url": platform.base });
        context.output.result(&result, |_| format!("Signed out of {}.", platform.base));
        Ok(())
    }
}
