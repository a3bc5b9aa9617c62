//! Signing with Ed25519, and the compact form of a signed token (RFC 7515, RFC 8037).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::data_key::DataKey;
use crate::vault::{self, Unsealable};

const ALGORITHM: &str = "EdDSA";
/// Says what the token is for, so that no other kind of token passes for it (RFC 9068 §2.1).
const TYPE: &str = "at+jwt";

/// A token has another form, another algorithm, another key or a wrong signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forged;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: String,
    typ: String,
}

/// A signing key.
pub(crate) struct Signing {
    key: SigningKey,
    public: Public,
}

/// The public half of one, which verifies.
pub(crate) struct Public {
    key: VerifyingKey,
    kid: String,
}

impl Public {
    fn of(key: VerifyingKey) -> Self {
        // The thumbprint of the public key (RFC 7638 §3): a kid that another key cannot have.
        let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
        let thumb = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
        Self { key, kid: URL_SAFE_NO_PAD.encode(thumb) }
    }

    /// The public half that is written so, which must be the one of this kid.
    pub(crate) fn read(kid: &str, written: &str) -> Result<Self, Forged> {
        let bytes = URL_SAFE_NO_PAD.decode(written).map_err(|_| Forged)?;
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| Forged)?;
        let public = Self::of(VerifyingKey::from_bytes(bytes).map_err(|_| Forged)?);
        if public.kid == kid { Ok(public) } else { Err(Forged) }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The kid that a token names.
    pub(crate) fn kid_of(token: &str) -> Result<String, Forged> {
        let header = token.split('.').next().ok_or(Forged)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Forged)?;
        Ok(header.kid)
    }

    /// As one key of a key set (RFC 7517 §5).
    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.as_bytes());
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": self.kid, "x": x })
    }

    /// The claims of a token that this key signed. The algorithm is ours, never the token's to choose, and the
    /// claims are read after the signature holds.
    pub(crate) fn verify<T: for<'de> Deserialize<'de>>(&self, token: &str) -> Result<T, Forged> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Forged)?;
        let (header, claims) = signed.split_once('.').ok_or(Forged)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| Forged)?;
        if header.alg != ALGORITHM || header.typ != TYPE || header.kid != self.kid {
            return Err(Forged);
        }
        let signature = Signature::from_slice(&decoded(signature)?).map_err(|_| Forged)?;
        self.key.verify_strict(signed.as_bytes(), &signature).map_err(|_| Forged)?;
        serde_json::from_slice(&decoded(claims)?).map_err(|_| Forged)
    }
}

fn decoded(part: &str) -> Result<Vec<u8>, Forged> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Forged)
}

impl Signing {
    pub(crate) fn generate() -> Result<Self, getrandom::Error> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice())?;
        Ok(Self::from_seed(&seed))
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        let key = SigningKey::from_bytes(seed);
        let public = Public::of(key.verifying_key());
        Self { key, public }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.public.kid
    }

    pub(crate) fn public_half(&self) -> &Public {
        &self.public
    }

    pub(crate) fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes())
    }

    /// Seals the private half for its row.
    pub(crate) fn seal(&self, key: &DataKey, purpose: &str) -> kernel::Result<String> {
        key.seal(&place(purpose, self.kid()), self.key.as_bytes())
    }

    /// The key of this kid, whose private half was opened.
    pub(crate) fn opened(kid: &str, seed: &[u8]) -> Result<Self, Unsealable> {
        let seed: &[u8; 32] = seed.try_into().map_err(|_| Unsealable)?;
        let signing = Self::from_seed(seed);
        if signing.kid() == kid { Ok(signing) } else { Err(Unsealable) }
    }

    /// The code of `message` for this purpose, by the private half (HMAC-SHA256).
    pub(crate) fn mac(&self, purpose: &str, message: &[u8]) -> [u8; 32] {
        vault::mac(self.key.as_bytes(), &[purpose.as_bytes(), message])
    }

    /// The public half as a key set (RFC 7517 §5).
    pub(crate) fn jwks(&self) -> Value {
        json!({ "keys": [self.public.jwk()] })
    }

    pub(crate) fn sign<T: Serialize>(&self, claims: &T) -> serde_json::Result<String> {
        let header = Header { alg: ALGORITHM.into(), kid: self.kid().to_owned(), typ: TYPE.into() };
        let header = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?));
        let signature = self.key.sign(signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes())))
    }

    /// The claims of a token that this key signed.
    pub(crate) fn verify<T: for<'de> Deserialize<'de>>(&self, token: &str) -> Result<T, Forged> {
        self.public.verify(token)
    }
}

/// What the private half of this purpose and kid is sealed for.
pub(crate) fn place(purpose: &str, kid: &str) -> String {
    format!("signing key {purpose} {kid}")
}
