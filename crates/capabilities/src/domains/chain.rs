//! A certificate with its key, read from PEM: whom it is for, and how long it counts.

use std::sync::Arc;

use kernel::{Error, Result, Timestamp};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::parse_x509_certificate;

/// A certificate chain that can be served.
#[derive(Debug, Clone)]
pub struct Chain {
    /// What a handshake needs.
    pub key: Arc<CertifiedKey>,
    /// The names it is for, in lower case; `*.` begins one that stands for every label there.
    pub names: Vec<String>,
    /// Who issued it.
    pub issuer: String,
    /// From when it counts.
    pub begins: Timestamp,
    /// Until when it counts.
    pub ends: Timestamp,
}

impl Chain {
    /// Reads a chain, the certificate of the server first, and its key (PKCS#8, PKCS#1 or SEC1).
    ///
    /// # Errors
    /// `invalid_input` at `/certificate` or `/key`, which repeats nothing of them.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| at_certificate("the certificate is not PEM"))?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| at_key("the key is not a private key as PEM"))?;
        Self::of(certificates, key)
    }

    /// The same from what PEM holds.
    pub(crate) fn of(
        certificates: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self> {
        let first =
            certificates.first().ok_or_else(|| at_certificate("there is no certificate in it"))?.clone();
        let (_, parsed) = parse_x509_certificate(&first)
            .map_err(|_| at_certificate("the first certificate cannot be read"))?;
        let names = parsed.subject_alternative_name().ok().flatten();
        let names: Vec<String> = names.map_or_else(Vec::new, |names| {
            let texts = names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            });
            texts.collect()
        });
        if names.is_empty() {
            return Err(at_certificate("the certificate names no host"));
        }
        let seconds = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_micros(time.timestamp().saturating_mul(1_000_000))
        };
        let (begins, ends) = (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
        let common = parsed.issuer().iter_common_name().next().and_then(|name| name.as_str().ok());
        let issuer = common.map_or_else(|| parsed.issuer().to_string(), str::to_owned);
        let key = CertifiedKey::from_der(certificates, key, &default_provider()).map_err(|_| {
            at_key("the key does not belong to the certificate, or is of a kind that is not known")
        })?;
        Ok(Self { key: Arc::new(key), names, issuer, begins, ends })
    }

    /// Whether the certificate is for `host` (RFC 9525 §6.3): a name stands for itself, `*.` for one label.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names
            .iter()
            .any(|name| name == host || name.strip_prefix("*.").is_some_and(|rest| Some(rest) == parent))
    }
}

/// An address out of a certificate.
fn address(bytes: &[u8]) -> Option<String> {
    use std::net::IpAddr;
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(ip.to_string())
}

fn at_certificate(message: &str) -> Error {
    Error::invalid("/certificate", message).hint("give the chain as PEM, the server's certificate first")
}

fn at_key(message: &str) -> Error {
    Error::invalid("/key", message).hint("give the certificate's private key as PEM, without a password")
}
