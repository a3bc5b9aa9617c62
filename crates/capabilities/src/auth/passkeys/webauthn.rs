//! What a browser and its authenticator say of a passkey, held against what was asked (Web Authentication Level 3).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value;
use kernel::Secret;
use serde::Deserialize;

use super::cose::Key;
use crate::auth::token;

/// The longest id of a credential (§7.1 step 25).
const CREDENTIAL: usize = 1_023;

/// What anything that comes has at most, in bytes.
const LONGEST: usize = 16 << 10;

/// Flags of authenticator data (§6.1).
const USER_PRESENT: u8 = 1;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENDED: u8 = 1 << 7;

/// Why something is not what was asked for; for the log, never for who has sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("what the browser says cannot be read")]
    Unreadable,
    #[error("it is of another ceremony")]
    Ceremony,
    #[error("it is of another origin")]
    Origin,
    #[error("it was made in a frame of another origin")]
    Frame,
    #[error("it is of another relying party")]
    Party,
    #[error("nobody was present")]
    Absent,
    #[error("its flags contradict each other")]
    Flags,
    #[error("its key is of no kind that is taken")]
    Key,
    #[error("the signature is not the passkey's")]
    Signature,
    #[error("its counter has gone back: there may be a copy of it")]
    Counter,
}

/// Where a ceremony takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The page's origin: `https://shop.example`.
    pub origin: String,
    /// The relying party's id: the origin's host (§4).
    pub party: String,
}

impl Place {
    /// Of an origin; none where it has no host by name.
    pub fn at(origin: &str) -> Option<Self> {
        let url = url::Url::parse(origin).ok()?;
        let party = url.domain()?.to_owned();
        Some(Self { origin: url.origin().ascii_serialization(), party })
    }
}

/// Which ceremony (§5.8.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ceremony {
    /// A passkey is made.
    Create,
    /// A passkey is shown.
    Get,
}

/// What the browser has collected (§5.8.1); what it may add is not looked at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default)]
    cross_origin: bool,
    top_origin: Option<String>,
}

/// Bytes as browsers send them.
pub(super) fn bytes(text: &str) -> Result<Vec<u8>, Refusal> {
    if text.len() > LONGEST {
        return Err(Refusal::Unreadable);
    }
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| Refusal::Unreadable)
}

/// The challenge that a browser has answered; whether it was asked is for the caller to see. (§7.1 steps 5 to 11, §7.2
/// steps 8 to 14.)
pub(super) fn challenge(client_data: &[u8], ceremony: Ceremony, place: &Place) -> Result<Secret, Refusal> {
    let said: ClientData = serde_json::from_slice(client_data).map_err(|_| Refusal::Unreadable)?;
    let kind = match ceremony {
        Ceremony::Create => "webauthn.create",
        Ceremony::Get => "webauthn.get",
    };
    if said.kind != kind {
        return Err(Refusal::Ceremony);
    }
    if said.origin != place.origin {
        return Err(Refusal::Origin);
    }
    if said.cross_origin || said.top_origin.is_some() {
        return Err(Refusal::Frame);
    }
    let challenge = String::from_utf8(bytes(&said.challenge)?).map_err(|_| Refusal::Unreadable)?;
    Ok(Secret::new(challenge))
}

/// What an authenticator says (§6.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether the user was verified, by a finger, a face, or a PIN.
    pub verified: bool,
    /// Whether the passkey is kept elsewhere too.
    pub backed_up: bool,
    /// How often the passkey was used; 0 where it is not counted.
    pub counter: u32,
    /// The passkey, where it was just made.
    pub made: Option<Made>,
}

/// A passkey that was made (§6.5.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Made {
    /// What the authenticator calls it.
    pub id: Vec<u8>,
    /// Its public key, as it came.
    pub key: Vec<u8>,
}

impl Said {
    /// Reads authenticator data, and holds it against the relying party (§7.1 steps 13 to 18, §7.2 steps 15 to 19).
    fn read(data: &[u8], place: &Place) -> Result<Self, Refusal> {
        let (party, rest) = data.split_first_chunk::<32>().ok_or(Refusal::Unreadable)?;
        let (flags, rest) = rest.split_first().ok_or(Refusal::Unreadable)?;
        let (counter, rest) = rest.split_first_chunk::<4>().ok_or(Refusal::Unreadable)?;
        if *party != token::hash(place.party.as_bytes()) {
            return Err(Refusal::Party);
        }
        let has = |flag: u8| flags & flag != 0;
        if !has(USER_PRESENT) {
            return Err(Refusal::Absent);
        }
        if has(BACKED_UP) && !has(BACKUP_ELIGIBLE) {
            return Err(Refusal::Flags);
        }
        let (made, rest) = match has(ATTESTED) {
            true => Made::read(rest).map(|(made, rest)| (Some(made), rest))?,
            false => (None, rest),
        };
        let rest = if has(EXTENDED) { item(rest)?.1 } else { rest };
        if !rest.is_empty() {
            return Err(Refusal::Unreadable);
        }
        let (verified, backed_up) = (has(USER_VERIFIED), has(BACKED_UP));
        Ok(Self { verified, backed_up, counter: u32::from_be_bytes(*counter), made })
    }
}

impl Made {
    fn read(data: &[u8]) -> Result<(Self, &[u8]), Refusal> {
        // The model of the authenticator is not looked at.
        let (_, rest) = data.split_first_chunk::<16>().ok_or(Refusal::Unreadable)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(Refusal::Unreadable)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > CREDENTIAL {
            return Err(Refusal::Unreadable);
        }
        let (id, key) = rest.split_at_checked(length).ok_or(Refusal::Unreadable)?;
        let (key, rest) = item(key)?;
        if Key::read(key).is_none() {
            return Err(Refusal::Key);
        }
        Ok((Self { id: id.to_owned(), key: key.to_owned() }, rest))
    }
}

/// The first item of CBOR (RFC 8949), and what comes after it.
fn item(data: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let mut rest = data;
    ciborium::from_reader::<Value, _>(&mut rest).map_err(|_| Refusal::Unreadable)?;
    Ok(data.split_at(data.len() - rest.len()))
}

/// What an authenticator says of the passkey that it has made (§7.1). Who has made the authenticator is not asked, so
/// that its attestation is not looked at.
pub(super) fn made(attestation: &[u8], place: &Place) -> Result<(Said, Made), Refusal> {
    let (whole, rest) = item(attestation)?;
    let Ok(Value::Map(parts)) = ciborium::from_reader(whole) else { return Err(Refusal::Unreadable) };
    let data = parts.iter().find(|(key, _)| key.as_text() == Some("authData")).map(|(_, value)| value);
    let data = data.and_then(Value::as_bytes).filter(|_| rest.is_empty()).ok_or(Refusal::Unreadable)?;
    let mut said = Said::read(data, place)?;
    let made = said.made.take().ok_or(Refusal::Unreadable)?;
    Ok((said, made))
}

/// What an authenticator has signed with a passkey (§7.2 steps 15 to 22).
pub(super) fn shown(
    key: &[u8],
    counter: u32,
    client_data: &[u8],
    data: &[u8],
    signature: &[u8],
    place: &Place,
) -> Result<Said, Refusal> {
    let said = Said::read(data, place)?;
    let key = Key::read(key).ok_or(Refusal::Key)?;
    let signed = [data, &token::hash(client_data)].concat();
    if !key.has_signed(&signed, signature) {
        return Err(Refusal::Signature);
    }
    if (said.counter != 0 || counter != 0) && said.counter <= counter {
        return Err(Refusal::Counter);
    }
    Ok(said)
}
