//! HTTPS: the handshake, with the certificate of the host that is asked for, and what a connection is then good for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use capabilities::domains::Certificates;
use http::{HeaderMap, HeaderValue, Uri};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::server::{Acceptor, ResolvesServerCert};
use rustls::sign::SingleCertAndKey;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{HostKind, Hosts, page};

/// How long a handshake may take; the authority may have to be asked for a certificate meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an ACME server asks for in a handshake (RFC 8737 §6.2).
const ACME: &[u8] = b"acme-tls/1";

/// A year of HTTPS only (RFC 6797 §6.1), for the host itself: what is below it may be another's.
pub const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Makes connections secure. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    certificates: Arc<Certificates>,
    /// Everything but the certificate; sessions are remembered across hosts, each for its own.
    config: Arc<ServerConfig>,
}

/// That a connection is secure, and the name its client asked for; in the extensions of its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// In lower case; none where the client dialled an address.
    pub name: Option<String>,
}

impl Tls {
    /// HTTPS with these certificates, by TLS 1.2 and 1.3, for HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// Where the cryptographic library knows no version of TLS.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { certificates, config: Arc::new(config) })
    }

    /// Shakes hands; `None` where it was an ACME server that has its answer now.
    ///
    /// # Errors
    /// Where the client asks for a host that has no certificate here, gives up, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Option<(TlsStream<TcpStream>, Secured)>> {
        let shaking = tokio::time::timeout(PATIENCE, self.shake(stream)).await;
        shaking.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn shake(&self, stream: TcpStream) -> io::Result<Option<(TlsStream<TcpStream>, Secured)>> {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let hello = begun.client_hello();
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let is_acme = hello.alpn().is_some_and(|protocols| protocols.eq([ACME]));
        let certificate = match (&name, is_acme) {
            (Some(name), true) => self.certificates.challenges().tls(name),
            (None, true) => None,
            (name, false) => self.certificates.find(name.as_deref()).await,
        };
        let mut config = ServerConfig::clone(&self.config);
        if let Some(certificate) = certificate {
            config.cert_resolver = Arc::new(SingleCertAndKey::from(certificate));
        }
        if is_acme {
            config.alpn_protocols = vec![ACME.to_vec()];
        }
        // Without a certificate the handshake itself refuses, so that the client hears why.
        let stream = begun.into_stream(Arc::new(config)).await?;
        Ok((!is_acme).then_some((stream, Secured { name })))
    }
}

/// The refusal of a request whose host is not the one that the connection was made for; none where it is, or where
/// the connection is not secure.
#[must_use]
pub fn misdirected(
    secured: Option<&Secured>,
    hosts: &Hosts,
    uri: &Uri,
    headers: &HeaderMap,
) -> Option<Response> {
    let secured = secured?;
    let right = match &secured.name {
        Some(name) => Hosts::name(uri, headers).is_some_and(|host| host == *name),
        None => hosts.of(uri, headers) == HostKind::Platform,
    };
    (!right).then(page::misdirected)
}

/// Refuses every handshake.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}
