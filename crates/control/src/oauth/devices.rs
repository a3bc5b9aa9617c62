//! Devices without a browser (RFC 8628): they show a code, somebody types it elsewhere, and they ask until that is done.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kernel::{EnvId, Error, KeyId, Secret, Timestamp};
use store::{DeviceState, OAuthDevice, OAuthGrant};

use super::{Client, Issued, OAuth, Refused, User, Words};
use crate::credentials::{generate, hash};

/// How long a device waits.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// How long it waits between two questions.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// The longest that a device waits which has asked too often.
const LONGEST: Duration = Duration::from_secs(60);
const PREFIX: &str = "stead_device_";
/// Letters that make no words and are not mistaken for each other.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const CODE: usize = 8;
/// How many wait at once.
const MOST: u32 = 1_000;

/// The longest id of a client: a registered one says all that it has said.
const MAX_CLIENT: usize = 4_096;

/// When devices that wait have asked last, in the memory of this gateway: nothing is written for a question.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<[u8; 32], Turn>>);

#[derive(Debug)]
struct Turn {
    asked: Timestamp,
    pause: Duration,
}

impl Turns {
    /// Whether a device that has begun then asks before its time; it waits longer from then on (RFC 8628 §3.5).
    fn is_early(&self, device: [u8; 32], begun: Timestamp, now: Timestamp) -> bool {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.len() >= MOST as usize {
            turns.retain(|_, turn| turn.asked.plus(LIFETIME) > now);
        }
        if turns.len() >= 2 * MOST as usize {
            turns.clear();
        }
        let turn = turns.entry(device).or_insert(Turn { asked: begun, pause: INTERVAL });
        let is_early = turn.asked.plus(turn.pause) > now;
        if is_early {
            turn.pause = LONGEST.min(turn.pause + INTERVAL);
        }
        turn.asked = now;
        is_early
    }
}

/// A device that has begun.
#[derive(Debug)]
pub struct Device {
    /// What it asks with.
    pub secret: Secret,
    /// What its user types, as it is shown.
    pub user_code: String,
}

impl OAuth<'_> {
    /// Begins.
    ///
    /// # Errors
    /// `unauthorized_client` for one that is none of these; `unavailable` where too many wait.
    pub async fn begin_device(
        &self,
        client: &Client,
        words: &Words,
        resource: &str,
    ) -> Result<Device, Refused> {
        if !client.device {
            return Err(Refused::Client("this client is not one that asks as a device".into()));
        }
        if client.id.len() > MAX_CLIENT {
            return Err(Refused::Client("its id is too long for a device".into()));
        }
        let now = Timestamp::now();
        // A code may be another's already.
        for _ in 0..3 {
            let (secret, user_code) = (generate(PREFIX).map_err(Error::internal)?, letters()?);
            let device = OAuthDevice {
                user_code: user_code.clone(),
                grant: OAuthGrant {
                    client: client.id.clone(),
                    name: client.name.clone(),
                    words: words.to_string(),
                    resource: resource.to_owned(),
                },
                begun: now,
                expires: now.plus(LIFETIME),
                state: DeviceState::Waiting,
            };
            if self.0.store.oauth().add_device(&hash(secret.expose()), &device, MOST).await? {
                let (first, second) = user_code.split_at(CODE / 2);
                return Ok(Device { secret, user_code: format!("{first}-{second}") });
            }
        }
        Err(Error::new(kernel::Code::Unavailable, "too many devices wait for their users")
            .hint("try again in some minutes")
            .into())
    }

    /// The device that waits for this code, however it is typed.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn device(&self, typed: &str) -> kernel::Result<Option<OAuthDevice>> {
        let Some(code) = normal(typed) else { return Ok(None) };
        Ok(self.0.store.oauth().waiting_device(&code, Timestamp::now()).await?)
    }

    /// Lets a device act for a user in an environment, or not; `false` where it does not wait any more.
    ///
    /// # Errors
    /// Where the database fails.
    pub async fn answer_device(
        &self,
        typed: &str,
        granted: Option<(&User, EnvId, &Words)>,
    ) -> kernel::Result<bool> {
        let Some(code) = normal(typed) else { return Ok(false) };
        let words = granted.map(|(_, _, words)| words.to_string());
        let granted: Option<(KeyId, EnvId, &str)> =
            granted.zip(words.as_deref()).map(|((user, env, _), words)| (user.key.id, env, words));
        Ok(self.0.store.oauth().answer_device(&code, granted, Timestamp::now()).await?)
    }

    /// Tokens for a device whose user has consented.
    ///
    /// # Errors
    /// `authorization_pending`, `slow_down`, `access_denied`, `expired_token`; `invalid_grant` for what is none.
    pub async fn poll(&self, secret: &str, client: &str) -> Result<Issued, Refused> {
        let (devices, hash, now) = (self.0.store.oauth(), hash(secret), Timestamp::now());
        let unknown = || Refused::Grant("the device code is not good".into());
        let device = devices.device(&hash).await?.filter(|device| device.grant.client == client);
        let device = device.ok_or_else(unknown)?;
        match device.state {
            DeviceState::Done => Err(unknown()),
            _ if device.expires <= now => Err(Refused::Expired),
            DeviceState::Denied => Err(Refused::Denied),
            DeviceState::Approved(owner, env) => {
                if !devices.use_device(&hash).await? {
                    return Err(unknown());
                }
                self.begin(KeyId::new(), device.grant, owner, env).await
            }
            DeviceState::Waiting if self.0.device_turns.is_early(hash, device.begun, now) => {
                Err(Refused::SlowDown)
            }
            DeviceState::Waiting => Err(Refused::Pending),
        }
    }
}

fn letters() -> kernel::Result<String> {
    let mut code = String::new();
    while code.len() < CODE {
        let mut byte = [0];
        getrandom::fill(&mut byte).map_err(Error::internal)?;
        // The same chance for each: what is left over is thrown away.
        if usize::from(byte[0]) < 256 / LETTERS.len() * LETTERS.len() {
            code.push(char::from(LETTERS[usize::from(byte[0]) % LETTERS.len()]));
        }
    }
    Ok(code)
}

/// A code as it is kept, from how it is typed.
fn normal(typed: &str) -> Option<String> {
    let letters = typed.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase());
    let code: String = letters.take(CODE + 1).collect();
    (code.len() == CODE && code.bytes().all(|byte| LETTERS.contains(&byte))).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_same_however_it_is_typed() {
        let code = letters().unwrap();
        let (first, second) = code.split_at(4);
        for typed in [code.clone(), format!("{first}-{second}"), format!(" {first} {second} ").to_lowercase()]
        {
            assert_eq!(normal(&typed), Some(code.clone()), "{typed}");
        }
        for wrong in ["", "BCDF", "BCDFGHJKL", "AEIOUAEI", "BCDFGHJ\u{df}"] {
            assert_eq!(normal(wrong), None, "{wrong}");
        }
    }
}
