//! The authority that one sandbox trusts, for the hosts that its secrets are for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kernel::{Error, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::policy::Target;

/// The only protocol that is spoken with a secret's host.
pub(super) const HTTP_1_1: &[u8] = b"http/1.1";

/// How many hosts' certificates are kept; more are made anew.
const KEPT: usize = 256;

/// Makes certificates that nobody but one sandbox trusts. Its key is nowhere but in memory.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    hosts: Mutex<HashMap<String, Arc<ServerConfig>>>,
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name = DistinguishedName::new();
        ca.distinguished_name.push(DnType::CommonName, "Secrets of this sandbox");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let made = ca.self_signed(&key).map_err(Error::internal)?;
        let (certificate, pem) = (made.der().clone(), made.pem());
        Ok(Self { issuer: Issuer::new(ca, key), certificate, pem, hosts: Mutex::default() })
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// How to be the host towards the sandbox.
    pub(super) fn server(&self, target: &Target) -> Result<Arc<ServerConfig>> {
        let host = target.host();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = hosts.get(&host) {
            return Ok(Arc::clone(kept));
        }
        let key = KeyPair::generate().map_err(Error::internal)?;
        // An address becomes one, whatever it is written like.
        let mut leaf = CertificateParams::new([host.clone()]).map_err(Error::internal)?;
        leaf.distinguished_name = DistinguishedName::new();
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &self.issuer).map_err(Error::internal)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::internal)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(Error::internal)?;
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let config = Arc::new(config);
        if hosts.len() >= KEPT {
            hosts.clear();
        }
        hosts.insert(host, Arc::clone(&config));
        Ok(config)
    }
}
