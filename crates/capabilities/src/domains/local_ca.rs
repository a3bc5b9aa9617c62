//! A certificate authority of this installation's own, so that HTTPS works without a network.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::{Error, Result, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::parse_x509_certificate;

use super::Chain;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Who trusts it does so by hand; it should not have to be done again soon.
const LIFE_OF_CA: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Less than the shortest limit that a client sets on certificates of private authorities.
const LIFE_OF_LEAF: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Names that no public authority issues for (RFC 2606, RFC 6762, RFC 8375), and ICANN's own for private use.
const PRIVATE: [&str; 5] = ["localhost", "test", "local", "home.arpa", "internal"];

/// The authority. What it issues counts below [`LocalCa::scope`] alone, whoever gets its key.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    scope: Vec<String>,
}

impl LocalCa {
    /// The file with the certificate, in a data directory.
    #[must_use]
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join("keys").join("ca.crt")
    }

    /// Opens the authority of `data_dir`, or makes it. It is for loopback and private addresses, for private names,
    /// and for `hosts` with all below them; one that is not for one of these is made anew.
    ///
    /// # Errors
    /// The files cannot be read or written.
    pub fn open(data_dir: &Path, hosts: &[String], now: Timestamp) -> Result<Self> {
        let path = Self::file(data_dir);
        let key = path.with_extension("key");
        let unusable = |error: io::Error| {
            Error::internal(format!(
                "the local certificate authority {} cannot be used: {error}",
                path.display()
            ))
        };
        let mut wanted: Vec<String> = PRIVATE.into_iter().map(str::to_owned).collect();
        for host in hosts.iter().filter(|host| host.parse::<IpAddr>().is_err()) {
            if !wanted.iter().any(|have| is_below(host, have)) {
                wanted.push(host.clone());
            }
        }
        match (read(&path).map_err(unusable)?, read(&key).map_err(unusable)?) {
            (Some(pem), Some(key_pem)) => {
                let found = Self::parse(pem, &key_pem)?;
                if wanted.iter().all(|host| found.issues_for(host)) {
                    return Ok(found);
                }
                tracing::warn!(
                    path = %path.display(),
                    "the local certificate authority is not for this installation's hosts: a new one takes its place, and has to be trusted anew"
                );
                std::fs::rename(&path, path.with_extension("crt.old")).map_err(unusable)?;
                std::fs::remove_file(&key).map_err(unusable)?;
            }
            (None, None) => {}
            _ => {
                return Err(unusable(io::Error::other("one of ca.crt and ca.key is missing")));
            }
        }
        let (pem, key_pem) = make(&wanted, now).map_err(Error::internal)?;
        // The key first: a start that dies here finds a half, and says so.
        write(&key, key_pem.as_bytes(), 0o600).map_err(unusable)?;
        write(&path, pem.as_bytes(), 0o644).map_err(unusable)?;
        Self::parse(pem, &key_pem)
    }

    fn parse(pem: String, key_pem: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key_pem).map_err(Error::internal)?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(Error::internal)?;
        let scope = scope(&certificate);
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(Error::internal)?;
        Ok(Self { issuer, certificate, pem, scope })
    }

    /// What has to be trusted, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The domains that its certificates count for, with all below them.
    #[must_use]
    pub fn scope(&self) -> &[String] {
        &self.scope
    }

    /// Whether a client that trusts it believes its certificate for this name.
    #[must_use]
    pub fn issues_for(&self, host: &str) -> bool {
        host.parse::<IpAddr>().is_ok() || self.scope.iter().any(|domain| is_below(host, domain))
    }

    /// A certificate for these names and addresses, from a day ago on, for 90 days.
    ///
    /// # Errors
    /// `internal` where a name is none.
    pub fn issue(&self, names: &[String], now: Timestamp) -> Result<Chain> {
        let key = KeyPair::generate().map_err(Error::internal)?;
        let mut leaf = CertificateParams::new(names.to_vec()).map_err(Error::internal)?;
        leaf.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.first().filter(|name| name.len() <= 64) {
            leaf.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        (leaf.not_before, leaf.not_after) = (moment(now.minus(DAY))?, moment(now.plus(LIFE_OF_LEAF))?);
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &self.issuer).map_err(Error::internal)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Chain::of(chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
    }
}

fn make(
    domains: &[String],
    now: Timestamp,
) -> Result<(String, String), Box<dyn std::error::Error + Send + Sync>> {
    let key = KeyPair::generate()?;
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    let tell = random.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, format!("Local certificate authority {tell}"));
    (ca.not_before, ca.not_after) = (moment(now.minus(DAY))?, moment(now.plus(LIFE_OF_CA))?);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let networks = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7"];
    let networks = networks.into_iter().filter_map(|network| {
        let (address, prefix) = network.split_once('/')?;
        Some(CidrSubnet::from_addr_prefix(address.parse().ok()?, prefix.parse().ok()?))
    });
    let names = domains.iter().cloned().map(GeneralSubtree::DnsName);
    ca.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.chain(networks.map(GeneralSubtree::IpAddress)).collect(),
        excluded_subtrees: Vec::new(),
    });
    Ok((ca.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// The names that a certificate's constraints permit.
fn scope(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names = Vec::new();
    for extension in parsed.extensions() {
        if let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() {
            let permitted = constraints.permitted_subtrees.iter().flatten();
            names.extend(permitted.filter_map(|subtree| match &subtree.base {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            }));
        }
    }
    names
}

fn is_below(host: &str, domain: &str) -> bool {
    host == domain || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn moment(at: Timestamp) -> Result<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.as_secs()).map_err(Error::internal)
}

fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file whole, and on disk when this returns.
fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let half = path.with_extension("new");
    let _ = std::fs::remove_file(&half);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&half)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&half, path)?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
