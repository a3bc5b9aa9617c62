//! HTTPS to loopback, with the certificate looked at: whom it is trusted by, and which one it is.

use std::net::TcpStream;
use std::sync::Arc;

use anyhow::Context;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::http::{Request, Response, connect};

/// A client that trusts certain authorities and no others.
#[derive(Debug, Clone)]
pub struct Https {
    roots: RootCertStore,
    address: String,
}

/// An answer, and the connection it came by.
#[derive(Debug)]
pub struct Secured {
    /// The answer.
    pub response: Response,
    /// The server's certificate, in DER.
    pub certificate: Vec<u8>,
}

impl Https {
    /// A client of `address` (`host:port`) that trusts these authorities, each as PEM.
    ///
    /// # Errors
    /// Where one is no certificate.
    pub fn new(address: impl Into<String>, authorities: &[&str]) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for pem in authorities {
            roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        }
        Ok(Self { roots, address: address.into() })
    }

    /// Shakes hands for `name`, a host or an address, and sends the request.
    ///
    /// # Errors
    /// Where the handshake fails, for want of a certificate that is trusted for `name` for one.
    pub fn send(&self, name: &str, request: Request) -> anyhow::Result<Secured> {
        let mut stream = self.handshake(name, &[b"http/1.1"])?;
        let certificates = stream.conn.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first).context("no certificate")?.to_vec();
        Ok(Secured { response: request.over(&mut stream)?, certificate })
    }

    /// Shakes hands for `name`, offering these protocols.
    ///
    /// # Errors
    /// As [`Https::send`].
    pub fn handshake(
        &self,
        name: &str,
        protocols: &[&[u8]],
    ) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let connection = ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned())?)?;
        let mut stream = StreamOwned::new(connection, connect(&self.address)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).with_context(|| format!("the handshake for {name}"))?;
        }
        Ok(stream)
    }
}
