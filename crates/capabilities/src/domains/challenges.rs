//! Answers that an ACME server asks for while it issues a certificate (RFC 8555 §8.3, RFC 8737).

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use kernel::{Error, Result};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

/// Where an ACME server looks by HTTP, on port 80 of the host itself. No app answers below it.
pub const HTTP_CHALLENGE: &str = "/.well-known/acme-challenge/";

/// The answers of the orders that run.
#[derive(Debug, Default)]
pub struct Challenges {
    /// (host, token) → key authorization
    http: RwLock<HashMap<(String, String), String>>,
    /// Host → the certificate that answers.
    tls: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

/// An answer; it is given until this is dropped.
pub struct Answering {
    challenges: Arc<Challenges>,
    host: String,
    token: Option<String>,
}

impl Challenges {
    /// Answers `authorization` at the path of `token` on `host`.
    #[must_use]
    pub fn answer_http(self: &Arc<Self>, host: &str, token: &str, authorization: &str) -> Answering {
        let key = (host.to_owned(), token.to_owned());
        self.http.write().unwrap_or_else(PoisonError::into_inner).insert(key, authorization.to_owned());
        Answering { challenges: Arc::clone(self), host: host.to_owned(), token: Some(token.to_owned()) }
    }

    /// Answers handshakes of `host` that ask for `acme-tls/1` with a certificate that holds `digest`, the SHA-256 of
    /// the key authorization.
    ///
    /// # Errors
    /// `internal` where the certificate cannot be made.
    pub fn answer_tls(self: &Arc<Self>, host: &str, digest: &[u8]) -> Result<Answering> {
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut certificate = CertificateParams::new(vec![host.to_owned()]).map_err(Error::internal)?;
        certificate.distinguished_name = DistinguishedName::new();
        certificate.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = certificate.self_signed(&key).map_err(Error::internal)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let key = any_supported_type(&key).map_err(Error::internal)?;
        // Not looked at any further: its extension is critical, and none that checks certificates knows it.
        let answer = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key));
        self.tls.write().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), answer);
        Ok(Answering { challenges: Arc::clone(self), host: host.to_owned(), token: None })
    }

    /// What is at the challenge's path on `host`.
    #[must_use]
    pub fn http(&self, host: &str, token: &str) -> Option<String> {
        let key = (host.to_owned(), token.to_owned());
        self.http.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// What a handshake of `host` that asks for `acme-tls/1` gets.
    #[must_use]
    pub fn tls(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).get(host).cloned()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        match self.token.take() {
            Some(token) => {
                let key = (self.host.clone(), token);
                self.challenges.http.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
            None => {
                self.challenges.tls.write().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
            }
        }
    }
}
