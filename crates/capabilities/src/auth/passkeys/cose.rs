//! Public keys of passkeys (COSE, RFC 9052 and RFC 9053), and signatures by them.

use ciborium::Value;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// The algorithms that are taken, best first, by their numbers in the registry of COSE.
pub(super) const ALGORITHMS: [i64; 3] = [ES256, EDDSA, RS256];

const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// The labels of a key's parts (RFC 9052 §7.1; RFC 9053 §7.1.1 and §7.2; RFC 8230 §4).
const KTY: i64 = 1;
const ALG: i64 = 3;
const CRV_OR_N: i64 = -1;
const X_OR_E: i64 = -2;
const Y: i64 = -3;

/// The kinds of keys and their curves.
const OKP: i64 = 1;
const EC2: i64 = 2;
const RSA: i64 = 3;
const P256: i64 = 1;
const CURVE25519: i64 = 6;

/// A coordinate on either curve, in bytes.
const COORDINATE: usize = 32;

/// A public key whose signatures can be verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// ECDSA on P-256, as an uncompressed point (SEC 1 §2.3.3).
    Es256(Vec<u8>),
    /// Ed25519.
    EdDsa(Vec<u8>),
    /// RSA with PKCS #1 1.5: modulus and exponent.
    Rs256(Vec<u8>, Vec<u8>),
}

impl Key {
    /// Reads a key; none where it is of another kind, or not whole.
    pub fn read(cose: &[u8]) -> Option<Self> {
        let mut rest = cose;
        let Value::Map(parts) = ciborium::from_reader(&mut rest).ok()? else { return None };
        if !rest.is_empty() {
            return None;
        }
        let part = |label: i64| {
            let mut found =
                parts.iter().filter(|(key, _)| number(key) == Some(label)).map(|(_, value)| value);
            // A label that is there twice could be read as either.
            found.next().filter(|_| found.next().is_none())
        };
        let numbered = |label: i64| number(part(label)?);
        let bytes = |label: i64| part(label)?.as_bytes().cloned();
        let coordinate = |label: i64| bytes(label).filter(|bytes| bytes.len() == COORDINATE);
        match (numbered(KTY)?, numbered(ALG)?) {
            (EC2, ES256) if numbered(CRV_OR_N)? == P256 => {
                Some(Key::Es256([vec![4], coordinate(X_OR_E)?, coordinate(Y)?].concat()))
            }
            (OKP, EDDSA) if numbered(CRV_OR_N)? == CURVE25519 => Some(Key::EdDsa(coordinate(X_OR_E)?)),
            (RSA, RS256) => Some(Key::Rs256(bytes(CRV_OR_N)?, bytes(X_OR_E)?)),
            _ => None,
        }
    }

    /// Whether this key has signed `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
            Key::EdDsa(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Key::Rs256(n, e) => {
                let key = RsaPublicKeyComponents { n: leading(n), e: leading(e) };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
        }
    }
}

/// A number without the zeros before it, which the library does not take.
fn leading(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn number(value: &Value) -> Option<i64> {
    i64::try_from(value.as_integer()?).ok()
}
