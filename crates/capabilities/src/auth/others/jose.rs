//! Signed tokens of others (RFC 7515, 7517, 7519): three algorithms with public keys, one with a shared secret, and never
//! the choice of whoever sends the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kernel::Secret;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{self, EcdsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

/// A longer text is no token of anybody.
const LONGEST: usize = 16_384;

/// The fewest bytes of a secret that HMAC with SHA-256 takes (RFC 7518 §3.2).
pub(crate) const SHORTEST_SECRET: usize = 32;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Bad {
    /// It is none.
    #[error("this is not a signed token")]
    Form,
    /// It is signed in a way that is not taken.
    #[error("the token is signed by an algorithm that is not taken")]
    Algorithm,
    /// It names a key that is not among those that are known.
    #[error("the token is signed by a key that is not known")]
    UnknownKey,
    /// It is not signed by that key.
    #[error("the token's signature is wrong")]
    Signature,
    /// What it says does not hold here and now.
    #[error("the token's {0} is wrong")]
    Claim(&'static str),
}

/// How a token may be signed with a key of which there is a public half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of that name; everything else, `none` and shared secrets among it, is no algorithm.
    fn named(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Algorithm::Rs256),
            "ES256" => Some(Algorithm::Es256),
            "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
            _ => None,
        }
    }
}

/// The public half of a key (RFC 7517), with no more of it than is used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Jwk {
    kid: Option<String>,
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// What a private key has, and no public one.
    d: Option<String>,
    k: Option<String>,
}

impl Jwk {
    /// The algorithm that this key is for; none where it is for none that is taken.
    fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", None) => Algorithm::Rs256,
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDsa,
            _ => return None,
        };
        let signs = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
        let agrees = self.alg.as_deref().is_none_or(|name| Algorithm::named(name) == Some(algorithm));
        (signs && agrees).then_some(algorithm)
    }

    /// Whether it can verify tokens, and gives nothing away.
    pub fn is_public(&self) -> bool {
        let has = |part: &Option<String>| part.as_deref().is_some_and(|text| decode(text).is_some());
        let whole = match self.algorithm() {
            Some(Algorithm::Rs256) => has(&self.n) && has(&self.e),
            Some(Algorithm::Es256) => has(&self.x) && has(&self.y),
            Some(Algorithm::EdDsa) => has(&self.x),
            None => false,
        };
        whole && self.d.is_none() && self.k.is_none()
    }

    fn verify(&self, message: &[u8], signed: &[u8]) -> Option<()> {
        let part = |part: &Option<String>| decode(part.as_deref()?);
        match self.algorithm()? {
            Algorithm::Rs256 => {
                let [n, e] = [&self.n, &self.e].map(part);
                let [n, e] = [n?, e?].map(|bytes| bytes.into_iter().skip_while(|byte| *byte == 0).collect());
                let key: RsaPublicKeyComponents<Vec<u8>> = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed).ok()
            }
            Algorithm::Es256 => {
                let (x, y) = (part(&self.x)?, part(&self.y)?);
                // Uncompressed (SEC 1 §2.3.3): each coordinate with all its 32 bytes.
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                let key = UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
                key.verify(message, signed).ok()
            }
            Algorithm::EdDsa => {
                let key = UnparsedPublicKey::new(&signature::ED25519, part(&self.x)?);
                key.verify(message, signed).ok()
            }
        }
    }
}

/// How many keys of a set are looked at.
const MOST: usize = 64;

/// A key set (RFC 7517 §5). Keys of other kinds are passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Jwks(pub Vec<Jwk>);

impl Jwks {
    /// Reads a set from JSON; none where it is something else. Nothing else that is in it takes memory.
    pub fn read(text: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let Set { keys } = serde_json::from_slice(text).ok()?;
        let keys = keys.into_iter().filter_map(|key| serde_json::from_str(key.get()).ok());
        Some(Self(keys.filter(|key: &Jwk| key.algorithm().is_some()).take(MOST).collect()))
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

/// A token that was taken apart; nothing it says is believed.
pub(crate) struct Token<'a> {
    header: Header,
    payload: &'a str,
    message: &'a str,
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// `Form` where it is none.
    pub fn read(text: &'a str) -> Result<Self, Bad> {
        if text.len() > LONGEST {
            return Err(Bad::Form);
        }
        let (message, signed) = text.rsplit_once('.').ok_or(Bad::Form)?;
        let (header, payload) = message.split_once('.').ok_or(Bad::Form)?;
        let header: Header =
            decode(header).and_then(|json| serde_json::from_slice(&json).ok()).ok_or(Bad::Form)?;
        if header.crit.is_some() || payload.contains('.') {
            return Err(Bad::Form);
        }
        Ok(Self { header, payload, message, signature: decode(signed).ok_or(Bad::Form)? })
    }

    /// What it says, where one of these keys has signed it. A token that names no key is good where only one key could
    /// be meant.
    ///
    /// # Errors
    /// `Algorithm`, `UnknownKey`, `Signature`; `Form` where it says nothing that can be read.
    pub fn verified(&self, keys: &Jwks) -> Result<Map<String, Value>, Bad> {
        let algorithm = Algorithm::named(&self.header.alg).ok_or(Bad::Algorithm)?;
        let mut fitting = keys.0.iter().filter(|key| {
            let named = self.header.kid.as_ref().is_none_or(|kid| key.kid.as_ref() == Some(kid));
            named && key.algorithm() == Some(algorithm)
        });
        let key = fitting.next().ok_or(Bad::UnknownKey)?;
        if fitting.next().is_some() {
            return Err(Bad::UnknownKey);
        }
        key.verify(self.message.as_bytes(), &self.signature).ok_or(Bad::Signature)?;
        self.said()
    }

    /// What it says, where it was signed with this shared secret.
    ///
    /// # Errors
    /// `Algorithm` where it is not HS256; `Signature`; `UnknownKey` where the secret is too short to be one; `Form`.
    pub fn verified_by_secret(&self, secret: &Secret) -> Result<Map<String, Value>, Bad> {
        if self.header.alg != "HS256" {
            return Err(Bad::Algorithm);
        }
        let secret = secret.expose().as_bytes();
        if secret.len() < SHORTEST_SECRET {
            return Err(Bad::UnknownKey);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::verify(&key, self.message.as_bytes(), &self.signature).map_err(|_| Bad::Signature)?;
        self.said()
    }

    fn said(&self) -> Result<Map<String, Value>, Bad> {
        decode(self.payload).and_then(|json| serde_json::from_slice(&json).ok()).ok_or(Bad::Form)
    }
}

/// A token that the holder of a private key signs with ES256.
///
/// # Errors
/// What is wrong with the key.
pub(super) fn signed_es256(pem: &Secret, kid: &str, claims: &impl Serialize) -> Result<Secret, &'static str> {
    let body: String =
        pem.expose().lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).map_err(|_| "it is not in PEM form")?;
    let random = SystemRandom::new();
    let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &der, &random)
        .map_err(|_| "it is not a private key of the curve P-256")?;
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = serde_json::to_value(claims).map_err(|_| "its claims cannot be written")?;
    let message =
        format!("{}.{}", encoded(&json!({ "alg": "ES256", "kid": kid, "typ": "JWT" })), encoded(&claims));
    let signed = pair.sign(&random, message.as_bytes()).map_err(|_| "it does not sign")?;
    Ok(Secret::new(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed))))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
#[path = "jose_tests.rs"]
pub(super) mod testing;
