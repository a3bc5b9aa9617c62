//! A listener for HTTPS over a real control plane, and a clock that tests move.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use capabilities::domains::{
    AcmeSettings, Authority, CertificateSettings, Certificates, Chain, Challenges, HTTP_CHALLENGE, Method,
    Owner, Owners, Seal,
};
use control::{Control, ControlConfig};
use edge::{HostKind, Hosts, Tls};
use futures::future::BoxFuture;
use kernel::{Env, Result, Timestamp};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use store::{CertificateRow, CertificateSource};
use testkit::http::Request;
use testkit::{Https, Pebble, free};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zeroize::Zeroizing;

/// The platform's own host is `cloud.platform.test`, its environment `default`, its apps are below `apps.test`.
pub struct Ground {
    pub certificates: Arc<Certificates>,
    pub https: SocketAddr,
    control: Arc<Control>,
    pebble: Option<Pebble>,
    ahead: Arc<AtomicI64>,
    _directory: tempfile::TempDir,
}

/// Where the two listeners will be.
pub struct Ports {
    pub http: u16,
    pub https: u16,
}

struct Known {
    hosts: Hosts,
    control: Arc<Control>,
}

impl Owners for Known {
    fn owner<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Option<Owner>>> {
        Box::pin(async move {
            let (slug, owner): (_, fn(Env) -> Owner) = match self.hosts.named(host) {
                HostKind::Platform => return Ok(Some(Owner::Platform)),
                HostKind::App(slug) => (slug, Owner::App),
                HostKind::Preview { slug, .. } => (slug, Owner::Preview),
                HostKind::Sandbox(_) | HostKind::Domain(_) | HostKind::Unknown => return Ok(None),
            };
            let place = self.control.environments().find(slug.as_str()).await?;
            Ok(place.map(|place| owner(Env::for_upkeep(place.tenant, place.env))))
        })
    }
}

struct Sealed(Arc<Control>);

impl Seal for Sealed {
    fn seal(&self, place: &str, value: &[u8]) -> Result<String> {
        self.0.sealing().seal(place, value)
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.0.sealing().open(place, sealed)
    }

    fn domain_changed(&self, domain: &str) {
        self.0.environments().domain_changed(domain);
    }
}

impl Ground {
    pub async fn new(authority: impl FnOnce(Ports) -> (Authority, Option<Pebble>)) -> Self {
        let (http, https) = (free().unwrap(), free().unwrap());
        let (authority, pebble) = authority(Ports { http: http.port(), https: https.port() });
        Self::start(http, https, authority, pebble, None).await
    }

    pub async fn with_files(directory: &Path) -> Self {
        let (http, https) = (free().unwrap(), free().unwrap());
        Self::start(http, https, Authority::Nobody, None, Some(directory)).await
    }

    async fn start(
        http: SocketAddr,
        https: SocketAddr,
        authority: Authority,
        pebble: Option<Pebble>,
        files: Option<&Path>,
    ) -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let directory = tempfile::tempdir().unwrap();
        let (control, _) = Control::open(ControlConfig::new(directory.path())).await.unwrap();
        let control = Arc::new(control);
        for environment in control.environments().unfinished().await.unwrap() {
            control.environments().ready(&environment).await.unwrap();
        }
        let settings = CertificateSettings {
            data_dir: directory.path().to_owned(),
            hosts: vec!["cloud.platform.test".to_owned()],
            apps: vec!["apps.test".to_owned()],
            authority,
            files: Vec::new(),
            directory: files.map(Path::to_owned),
        };
        let ahead = Arc::new(AtomicI64::new(0));
        let moved = Arc::clone(&ahead);
        let clock = Arc::new(move || {
            let micros = Timestamp::now().as_micros() + moved.load(Ordering::SeqCst);
            Timestamp::from_micros(micros)
        });
        let hosts = Hosts::new(["cloud.platform.test"], "apps.test").unwrap();
        let owners = Arc::new(Known { hosts, control: Arc::clone(&control) });
        let seal = Arc::new(Sealed(Arc::clone(&control)));
        let certificates =
            Certificates::open(settings, control.store().clone(), seal, owners, clock).unwrap();
        let certificates = Arc::new(certificates);
        let tls = Tls::new(Arc::clone(&certificates)).unwrap();
        tokio::spawn(serve_https(TcpListener::bind(https).await.unwrap(), tls));
        let challenges = Arc::clone(certificates.challenges());
        tokio::spawn(serve_http(TcpListener::bind(http).await.unwrap(), challenges));
        Self { certificates, https, control, pebble, ahead, _directory: directory }
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(Timestamp::now().as_micros() + self.ahead.load(Ordering::SeqCst))
    }

    pub fn forward(&self, by: Duration) {
        self.ahead.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    pub fn pebble(&mut self) -> &mut Pebble {
        self.pebble.as_mut().unwrap()
    }

    /// What Pebble issues by.
    pub fn root(&self) -> String {
        self.pebble.as_ref().unwrap().root().unwrap()
    }

    /// The certificate that a visitor gets who trusts `root`.
    pub async fn visit(&self, host: &str, root: &str) -> anyhow::Result<Vec<u8>> {
        let client = Https::new(self.https.to_string(), &[root])?;
        let host = host.to_owned();
        let request = Request::get(&format!("https://{host}/"));
        tokio::task::spawn_blocking(move || Ok(client.send(&host, request)?.certificate)).await?
    }

    /// What is kept of a host's orders.
    pub async fn row(&self, host: &str) -> Option<CertificateRow> {
        self.control.store().certificates().get(host, CertificateSource::Acme).await.unwrap()
    }
}

/// Orders from Pebble.
pub fn acme(pebble: &Pebble, methods: Vec<Method>) -> AcmeSettings {
    AcmeSettings {
        directory: pebble.directory_url(),
        root: Some(pebble.root_file()),
        contact: Some("admin@platform.test".to_owned()),
        methods,
        orders_per_tenant: 5,
    }
}

/// Whether a client that trusts `root` believes the chain for `host`.
pub fn believed(host: &str, chain: &Chain, root: &str) -> Result<(), rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let verifier = rustls::client::WebPkiServerVerifier::builder(Arc::new(roots)).build().unwrap();
    let (first, rest) = chain.key.cert.split_first().unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    use rustls::client::danger::ServerCertVerifier as _;
    verifier.verify_server_cert(first, rest, &name, &[], UnixTime::now()).map(drop)
}

async fn serve_https(listener: TcpListener, tls: Tls) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let tls = tls.clone();
        tokio::spawn(async move {
            let Ok(Some((mut stream, _))) = tls.accept(stream).await else { return };
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        });
    }
}

/// What listens on port 80: the answers of the orders that run, by the host and the path that are asked for.
async fn serve_http(listener: TcpListener, challenges: Arc<Challenges>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let challenges = Arc::clone(&challenges);
        tokio::spawn(async move {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or_default();
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default();
            let host = text.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap_or_default();
            let host = host.split(':').next().unwrap_or_default();
            let token = path.strip_prefix(HTTP_CHALLENGE).unwrap_or_default();
            let (status, body) = match challenges.http(host, token) {
                Some(answer) => ("200 OK", answer),
                None => ("404 Not Found", String::new()),
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        });
    }
}
