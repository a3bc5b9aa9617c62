//! Passkeys of an authenticator made of software, and what others do with them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciborium::Value as Cbor;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::cose::Key;
use super::webauthn::{Ceremony, Place, Refusal, challenge, made, shown};
use crate::auth::token;

const PRESENT: u8 = 1;
const VERIFIED: u8 = 4;
const ATTESTED: u8 = 64;

fn place() -> Place {
    Place::at("https://shop.example").unwrap()
}

fn cbor(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn map(parts: &[(i64, Cbor)]) -> Vec<u8> {
    cbor(&Cbor::Map(parts.iter().map(|(label, part)| ((*label).into(), part.clone())).collect()))
}

fn es256(pair: &EcdsaKeyPair) -> Vec<u8> {
    let point = pair.public_key().as_ref();
    map(&[
        (1, 2.into()),
        (3, (-7).into()),
        (-1, 1.into()),
        (-2, point[1..33].to_vec().into()),
        (-3, point[33..].to_vec().into()),
    ])
}

fn ecdsa() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap()
}

/// Authenticator data (§6.1).
fn data(party: &str, flags: u8, counter: u32, made: Option<(&[u8], &[u8])>) -> Vec<u8> {
    let mut data = token::hash(party.as_bytes()).to_vec();
    data.push(flags);
    data.extend(counter.to_be_bytes());
    if let Some((id, key)) = made {
        data.extend([7; 16]);
        data.extend(u16::try_from(id.len()).unwrap().to_be_bytes());
        data.extend([id, key].concat());
    }
    data
}

fn attestation(data: &[u8]) -> Vec<u8> {
    cbor(&Cbor::Map(vec![
        ("fmt".into(), "none".into()),
        ("attStmt".into(), Cbor::Map(Vec::new())),
        ("authData".into(), data.to_vec().into()),
    ]))
}

#[test]
fn a_passkey_is_read_as_it_was_made() {
    let key = es256(&ecdsa());
    let data = data("shop.example", PRESENT | VERIFIED | ATTESTED, 3, Some((b"credential", &key)));
    let (said, made_now) = made(&attestation(&data), &place()).unwrap();
    assert_eq!((said.verified, said.backed_up, said.counter), (true, false, 3));
    assert_eq!((made_now.id.as_slice(), &made_now.key), (b"credential".as_slice(), &key));
}

#[test]
fn what_is_not_whole_or_of_another_place_is_no_passkey() {
    let key = es256(&ecdsa());
    let good = |flags| data("shop.example", flags, 0, Some((b"credential", &key)));
    let whole = PRESENT | ATTESTED;
    let refusal = |data: &[u8]| made(&attestation(data), &place()).unwrap_err();
    assert_eq!(refusal(&data("evil.example", whole, 0, Some((b"c", &key)))), Refusal::Party);
    assert_eq!(refusal(&good(ATTESTED)), Refusal::Absent);
    assert_eq!(refusal(&good(whole | 16)), Refusal::Flags, "kept elsewhere, and cannot be");
    assert_eq!(refusal(&data("shop.example", PRESENT, 0, None)), Refusal::Unreadable);
    assert_eq!(refusal(&[good(whole), vec![0]].concat()), Refusal::Unreadable, "something comes after it");
    assert_eq!(refusal(&data("shop.example", whole, 0, Some((b"", &key)))), Refusal::Unreadable);
    let long = data("shop.example", whole, 0, Some((&[1; 1_024], &key)));
    assert_eq!(refusal(&long), Refusal::Unreadable);
    let whole_data = good(whole);
    for end in 0..whole_data.len() {
        assert!(made(&attestation(&whole_data[..end]), &place()).is_err(), "{end} bytes");
    }
    for bad in [&[][..], b"\xa0", b"\xff", b"\x5f", &[0x9f; 600]] {
        assert_eq!(made(bad, &place()).unwrap_err(), Refusal::Unreadable);
    }
    // Keys that are not what they say.
    let x = Cbor::from(vec![1; 32]);
    for parts in [
        vec![(1, 2.into()), (3, (-7).into()), (-1, 2.into()), (-2, x.clone()), (-3, x.clone())],
        vec![(1, 2.into()), (3, (-35).into()), (-1, 1.into()), (-2, x.clone()), (-3, x.clone())],
        vec![(1, 2.into()), (3, (-7).into()), (-1, 1.into()), (-2, x.clone()), (-3, vec![1; 31].into())],
        vec![(1, 2.into()), (3, (-7).into()), (-1, 1.into()), (-2, x.clone()), (-3, true.into())],
        vec![(1, 1.into()), (3, (-8).into()), (-1, 6.into()), (-2, x.clone()), (-2, x.clone())],
        vec![(1, 4.into()), (3, 5.into()), (-1, x.clone())],
    ] {
        let bad = data("shop.example", whole, 0, Some((b"credential", &map(&parts))));
        assert_eq!(refusal(&bad), Refusal::Key, "{parts:?}");
    }
}

#[test]
fn the_browser_says_what_for_and_where() {
    let said = |change: &dyn Fn(&mut serde_json::Value)| {
        let challenge = URL_SAFE_NO_PAD.encode("stead_mt_x");
        let mut said = json!({
            "type": "webauthn.get", "challenge": challenge, "origin": "https://shop.example",
            "crossOrigin": false, "other_keys_can_be_added_here": "do not compare",
        });
        change(&mut said);
        super::webauthn::challenge(said.to_string().as_bytes(), Ceremony::Get, &place())
    };
    assert_eq!(said(&|_| ()).unwrap().expose(), "stead_mt_x");
    for origin in [
        "https://shop.example:8443",
        "http://shop.example",
        "https://evil.example",
        "https://shop.example.evil.example",
        "https://shop.example/",
        "HTTPS://SHOP.EXAMPLE",
        "null",
    ] {
        assert_eq!(said(&|it| it["origin"] = origin.into()).unwrap_err(), Refusal::Origin, "{origin}");
    }
    assert_eq!(said(&|it| it["type"] = "webauthn.create".into()).unwrap_err(), Refusal::Ceremony);
    assert_eq!(said(&|it| it["crossOrigin"] = true.into()).unwrap_err(), Refusal::Frame);
    assert_eq!(said(&|it| it["topOrigin"] = "https://a.example".into()).unwrap_err(), Refusal::Frame);
    assert_eq!(said(&|it| it["challenge"] = "!".into()).unwrap_err(), Refusal::Unreadable);
    assert_eq!(challenge(b"{}", Ceremony::Get, &place()).unwrap_err(), Refusal::Unreadable);
}

#[test]
fn a_signature_holds_for_its_key_its_data_and_what_the_browser_said() {
    let pair = ecdsa();
    let random = SystemRandom::new();
    let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let edwards = Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap();
    let eddsa = map(&[
        (1, 1.into()),
        (3, (-8).into()),
        (-1, 6.into()),
        (-2, edwards.public_key().as_ref().to_vec().into()),
    ]);
    let (client, data) = (b"{\"what\":1}".as_slice(), data("shop.example", PRESENT | VERIFIED, 5, None));
    let signed = [data.as_slice(), &token::hash(client)].concat();
    let by_ecdsa = pair.sign(&random, &signed).unwrap().as_ref().to_vec();
    let by_edwards = edwards.sign(&signed).as_ref().to_vec();
    for (key, signature) in [(es256(&pair), by_ecdsa), (eddsa, by_edwards)] {
        let tried = |counter, client: &[u8], data: &[u8], signature: &[u8]| {
            shown(&key, counter, client, data, signature, &place()).map(|said| (said.verified, said.counter))
        };
        assert_eq!(tried(4, client, &data, &signature), Ok((true, 5)));
        assert_eq!(tried(5, client, &data, &signature), Err(Refusal::Counter));
        assert_eq!(tried(9, client, &data, &signature), Err(Refusal::Counter));
        assert_eq!(tried(4, b"{}", &data, &signature), Err(Refusal::Signature));
        let mut other = data.clone();
        other[36] = 9;
        assert_eq!(tried(4, client, &other, &signature), Err(Refusal::Signature), "another counter");
        assert_eq!(tried(4, client, &data, &signature[1..]), Err(Refusal::Signature));
        assert_eq!(tried(4, client, &data, &[]), Err(Refusal::Signature));
        let elsewhere = Place::at("https://other.example").unwrap();
        assert_eq!(shown(&key, 4, client, &data, &signature, &elsewhere), Err(Refusal::Party));
    }
    assert_eq!(shown(b"", 0, client, &data, &[], &place()), Err(Refusal::Key));
}

/// A key of 2,048 bits with a signature over `steading` by it, made with OpenSSL.
const RSA: (&str, &str) = (
    "0yRtJ8V39cNAMtdW4hov92_HMdoNGGj_j9PjVeybJnFcNoiqEwDr6660dVsswlDy5oZ9KstoTSiZ_0HWW2x13f4DPhob6YAqrgzN\
     Qpf1aN3DZpWCrXSQmDjY0IrPYhP_LDa0y9TyVT0zEPjuOmrtZt0YCLfKng4c4Vu_XkWi_WAQHszAb5-XZ9tMOcQVFd3Vw4socj4v\
     nzEx5Gb7vEAh6gjbUlZCN5DIFtyBZWcXGt95okVarxucT0WGcxWt-ncYIbrscVMhK7fUZ0EfdpXiEPJSRCQDGo0tJWOAWy46DyOd\
     0p7iq8FnfFQzr1MRerj8JHI8mTdXmXMkQ6Dim2knHw",
    "zPf0WaRcP_s-vhf4YkYo0OFaxG1PvYAKdeCtw6wItIJIHTiDStc0P_xO2lAR4fAs-y342IF0bZWh0qtV_0k5iBLBHw38ZxQJBVnb\
     cLurutQfQQ-6z-3aLnzzEnxhbSUb93V7FmGMg9RS4gJ3gqgOvm5fnN-leF-T8fyBE08Z0bs424H_qTeNKbvk0dBdMzC83O1PPKCO\
     ITxE7U-P8OPfasfifapE8fKIJES79WL_8SdVtY_LHBQaMxQwn7HKcOJ9LS8X7EKhxt4m5R-fLWky1uhQpSfqLbWM3_8Bb3JyrWzp\
     RKNN337rY93_GOnG6dSG7ztgiKyvdmEtHL4EH1Fsrw",
);

#[test]
fn rsa_is_taken_with_zeros_before_its_numbers() {
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let modulus = [vec![0], bytes(RSA.0)].concat();
    let key = map(&[(1, 3.into()), (3, (-257).into()), (-1, modulus.into()), (-2, vec![0, 1, 0, 1].into())]);
    let key = Key::read(&key).unwrap();
    assert!(key.has_signed(b"steading", &bytes(RSA.1)));
    assert!(!key.has_signed(b"steadinG", &bytes(RSA.1)));
}

#[test]
fn a_place_has_a_name() {
    let at = |origin: &str| Place::at(origin).map(|place| (place.origin, place.party));
    let both = |origin: &str, party: &str| Some((origin.to_owned(), party.to_owned()));
    assert_eq!(at("http://shop.localhost:8787"), both("http://shop.localhost:8787", "shop.localhost"));
    assert_eq!(at("https://shop.example"), both("https://shop.example", "shop.example"));
    assert_eq!(at("http://127.0.0.1:8787"), None);
    assert_eq!(at("shop.example"), None);
}
