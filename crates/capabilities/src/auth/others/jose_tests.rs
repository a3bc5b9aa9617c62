//! Tokens that hold, and those that only look like it.

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// Signs tokens with a key of its own.
pub(in crate::auth) struct Signer {
    pair: Ed25519KeyPair,
    kid: String,
}

pub(in crate::auth) fn signer(kid: &str) -> Signer {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Signer { pair: Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap(), kid: kid.to_owned() }
}

fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

impl Signer {
    pub fn jwk(&self) -> Value {
        let x = encode(self.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "use": "sig", "x": x })
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_under(&json!({ "alg": "EdDSA", "kid": self.kid }), claims)
    }

    pub fn sign_under(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        format!("{message}.{}", encode(self.pair.sign(message.as_bytes())))
    }
}

const MODULUS: &str = "uvyEn5a0yhjAf9isl_o_wYh-mqLrkUGl1Dw__Qm1C_Ek_dWGnRJoc1VcC1oxeg93Aw1r2ghSYGja0e2q04jmoUbfpk2vSL4FnrWW9umCVl6FCoBFbeExFxxfhpuDVmieqrVgsYuv0MW3aZPBilrnyLKPVSDLEcKf9qfz19LIEqdOMEiwqsPfQanfMuZAPoaEcKPNpgsgIq87LTUrVV3lrKP6VuS67Hz6ivAzYAyB9NsX171ZV8f55Z41wJWg1DGEiYwRLbsxYz52ZrXDOGtT8BXmr3PLWAoM5fblGlaV1JG81yuxPEDtU6CPvCXVaYsGfMb3MygTa8h1Rr7ptjDk1Q";
const BY_RSA: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogInJzYSJ9.eyJzdWIiOiAiYWRhIn0.GftXgZiUQ0mFidUd028_RSi_9E-6-zA8urs-1vwthtZnkzp0Jg45vJBV774BFn5nMPOBwHq_h6rouQC7ixtAGfO083ccls64rfM6lg5kyidxXNMf7N1UePaq1bAubfR1ggEsQybzgCxSjzmdhakLraQcRROaYL7rsjrP3whje1NIegKd9o-iQ_SYjF7MJTxUjReIET2Dwf4SGw0nCBrIhfuV_JofAHipC2MOWaDHAQ3JwK4v3f5XfjzEUzTGQ4LAJP01yiMrfvW0ojdfUy4owaHrUMNuslSqED2DboIHacpR_QaEv8c0PVvbv6vbafklaYephzMiBpYPKKKeK_0umg";

fn rsa() -> Value {
    json!({ "kty": "RSA", "kid": "rsa", "alg": "RS256", "n": MODULUS, "e": "AQAB" })
}

fn keys(keys: &[Value]) -> Jwks {
    Jwks::read(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verified(token: &str, keys: &Jwks) -> Result<Value, Bad> {
    Token::read(token)?.verified(keys).map(Value::Object)
}

fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{message}.{}", encode(hmac::sign(&key, message.as_bytes())))
}

#[test]
fn each_algorithm_that_is_taken_holds_with_its_own_key_alone() {
    let (ada, claims) = (signer("ed"), json!({ "sub": "ada" }));
    let pkcs8 =
        EcdsaKeyPair::generate_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .unwrap();
    let pem = base64::engine::general_purpose::STANDARD.encode(pkcs8.as_ref());
    let pem = Secret::new(format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n{}\n-----END PRIVATE KEY-----\n",
        &pem[..64],
        &pem[64..]
    ));
    let by_ec = signed_es256(&pem, "ec", &claims).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(
        &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        pkcs8.as_ref(),
        &SystemRandom::new(),
    )
    .unwrap();
    let point = pair.public_key().as_ref();
    let ec = json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "x": encode(&point[1..33]), "y": encode(&point[33..]) });
    let all = keys(&[rsa(), ec, ada.jwk()]);
    for token in [BY_RSA, by_ec.expose(), &ada.sign(&claims)] {
        assert_eq!(verified(token, &all), Ok(claims.clone()));
        let (message, signed) = token.rsplit_once('.').unwrap();
        let (header, _) = message.split_once('.').unwrap();
        let other = format!("{header}.{}.{signed}", encode(r#"{"sub":"eve"}"#));
        assert_eq!(verified(&other, &all), Err(Bad::Signature));
        assert_eq!(verified(&format!("{message}."), &all), Err(Bad::Signature));
    }
    assert_eq!(signed_es256(&Secret::new("nothing"), "k", &claims).err(), Some("it is not in PEM form"));
    assert_eq!(
        signed_es256(&Secret::new("AAAA"), "k", &claims).err(),
        Some("it is not a private key of the curve P-256")
    );
}

#[test]
fn the_sender_does_not_choose_how_a_token_is_verified() {
    let (ada, claims) = (signer("ed"), json!({ "sub": "ada" }));
    let all = keys(&[rsa(), ada.jwk()]);
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "PS256", "RS512", "ES384", "eddsa", "dir"] {
        let token = ada.sign_under(&json!({ "alg": alg, "kid": "ed" }), &claims);
        assert_eq!(verified(&token, &all), Err(Bad::Algorithm), "{alg}");
    }
    // The public key, which everybody has, as the secret.
    for public in [MODULUS.as_bytes(), rsa().to_string().as_bytes()] {
        let token = hs256(public, &json!({ "alg": "HS256", "kid": "rsa" }), &claims);
        assert_eq!(verified(&token, &all), Err(Bad::Algorithm));
    }
    // The key of one algorithm under the name of another.
    for alg in ["RS256", "ES256"] {
        let token = ada.sign_under(&json!({ "alg": alg, "kid": "ed" }), &claims);
        assert_eq!(verified(&token, &all), Err(Bad::UnknownKey), "{alg}");
    }
    // What the token brings along is not looked at.
    let eve = signer("eve");
    for header in [
        json!({ "alg": "EdDSA", "kid": "eve" }),
        json!({ "alg": "EdDSA", "kid": "eve", "jwk": eve.jwk() }),
        json!({ "alg": "EdDSA", "kid": "eve", "jku": "https://evil.example/keys" }),
    ] {
        assert_eq!(verified(&eve.sign_under(&header, &claims), &all), Err(Bad::UnknownKey), "{header}");
    }
    assert_eq!(
        verified(&eve.sign_under(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims), &all),
        Err(Bad::Signature)
    );
    let critical = json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"] });
    assert_eq!(verified(&ada.sign_under(&critical, &claims), &all), Err(Bad::Form));
}

#[test]
fn a_token_that_names_no_key_is_good_where_only_one_could_be_meant() {
    let (one, two, claims) = (signer("1"), signer("2"), json!({ "sub": "ada" }));
    let token = one.sign_under(&json!({ "alg": "EdDSA" }), &claims);
    assert_eq!(verified(&token, &keys(&[one.jwk(), rsa()])), Ok(claims));
    assert_eq!(verified(&token, &keys(&[one.jwk(), two.jwk()])), Err(Bad::UnknownKey));
    assert_eq!(verified(&token, &keys(&[])), Err(Bad::UnknownKey));
    let mut encrypts = one.jwk();
    encrypts["use"] = "enc".into();
    assert_eq!(verified(&token, &keys(&[encrypts])), Err(Bad::UnknownKey));
    let mut other = one.jwk();
    other["alg"] = "RS256".into();
    assert_eq!(verified(&token, &keys(&[other])), Err(Bad::UnknownKey));
}

#[test]
fn what_is_no_token_is_none() {
    let (ada, claims) = (signer("ed"), json!({ "sub": "ada" }));
    let good = ada.sign(&claims);
    let (message, signed) = good.rsplit_once('.').unwrap();
    let long = "a".repeat(20_000);
    for bad in [
        "",
        ".",
        "..",
        "...",
        message,
        &format!("{message}.{signed}.{signed}"),
        &format!("{message}.{signed}="),
        &format!(" {good}"),
        &format!("{}.e30.{signed}", encode("[]")),
        &format!("{}.e30.{signed}", encode(r#"{"kid":"ed"}"#)),
        &long,
    ] {
        assert_eq!(verified(bad, &keys(&[ada.jwk()])), Err(Bad::Form), "{bad:.80}");
    }
    let list = ada.sign(&json!(["sub"]));
    assert_eq!(verified(&list, &keys(&[ada.jwk()])), Err(Bad::Form));
}

#[test]
fn a_shared_secret_is_long_and_for_hs256_alone() {
    let (secret, claims) = (Secret::new("0123456789abcdef0123456789abcdef"), json!({ "sub": "ada" }));
    let by = |token: &str, secret: &Secret| Token::read(token)?.verified_by_secret(secret).map(Value::Object);
    let good = hs256(secret.expose().as_bytes(), &json!({ "alg": "HS256" }), &claims);
    assert_eq!(by(&good, &secret), Ok(claims.clone()));
    assert_eq!(by(&good, &Secret::new("0123456789abcdef0123456789abcdeF")), Err(Bad::Signature));
    let short = Secret::new("0123456789abcdef0123456789abcde");
    assert_eq!(
        by(&hs256(short.expose().as_bytes(), &json!({ "alg": "HS256" }), &claims), &short),
        Err(Bad::UnknownKey)
    );
    for alg in ["none", "HS384", "EdDSA", "RS256"] {
        let token = hs256(secret.expose().as_bytes(), &json!({ "alg": alg }), &claims);
        assert_eq!(by(&token, &secret), Err(Bad::Algorithm), "{alg}");
    }
}
