//! HTTPS, certificates and domains as the configuration has them, and which host gets to whom.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use capabilities::domains::{
    AcmeSettings, Authority, CertificateSettings, Certificates, Challenges, Clock, Dns, DomainSettings,
    Domains, Method, Reserved,
};
use capabilities::logs::Logs;
use control::Control;
use edge::{Edge, HSTS, HostKind, Hosts, Secured, Tls, misdirected};
use http::header::{AUTHORIZATION, STRICT_TRANSPORT_SECURITY};
use kernel::{Error, Result, Timestamp};
use mcp_server::auth::Unnamed;
use mcp_server::platform::Platform;
use mcp_server::seal::Keeper;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::Listening;
use crate::config::{AcmeChallenge, Config, TlsMode};
use crate::hosts::HostOwners;
use crate::metrics::{Door, Meters};
use crate::oauth::{self, Bearer};
use crate::previews;
use crate::proxies::Proxies;
use crate::redirect::{self, Redirect};
use crate::serve::Answering;
use crate::trace;

/// What HTTPS needs beside the routes.
pub struct Https {
    /// The handshake.
    pub tls: Tls,
    /// What answers plain HTTP.
    pub redirect: Answering,
}

/// Begins to order certificates, and gives what listeners need.
pub(super) fn start(
    certificates: Arc<Certificates>,
    listening: &Listening,
    hosts: &Arc<Hosts>,
    control: &Arc<Control>,
) -> Result<Https> {
    tokio::spawn(Arc::clone(&certificates).run(listening.stopping.clone()));
    let redirect = Redirect {
        hosts: Arc::clone(hosts),
        control: Arc::clone(control),
        challenges: Arc::clone(certificates.challenges()),
        port: https_port(listening),
    };
    let tls = Tls::new(certificates).map_err(Error::internal)?;
    Ok(Https { tls, redirect: redirect.answering() })
}

/// How apps' own domains are visited: the scheme, and the port where it is not the scheme's own.
pub(super) fn visited(listening: &Listening) -> (&'static str, Option<u16>) {
    if listening.tls.is_some() || listening.url.starts_with("https://") {
        return ("https", https_port(listening));
    }
    ("http", Some(listening.addr.port()).filter(|port| *port != 80))
}

/// The port of HTTPS as visitors see it, where it is not the usual one.
fn https_port(listening: &Listening) -> Option<u16> {
    let public = listening.url.strip_prefix("https://");
    let written = |authority: &str| authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port = public.map_or_else(|| listening.tls.map(|addr| addr.port()), written);
    port.filter(|port| *port != 443)
}

/// A host without its port.
fn bare(authority: &str) -> String {
    let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    host.map_or(authority, |(host, _)| host).to_ascii_lowercase()
}

pub(super) fn certificates(
    config: &Config,
    listening: &Listening,
    hosts: &Arc<Hosts>,
    control: &Arc<Control>,
) -> Result<Certificates> {
    let (tls, acme) = (&config.tls, &config.acme);
    let authority = match tls.mode {
        TlsMode::LocalCa => Authority::Local,
        TlsMode::Files => Authority::Nobody,
        TlsMode::Acme => Authority::Acme(AcmeSettings {
            directory: acme.directory.to_string(),
            root: acme.root_file.clone(),
            contact: acme.contact.as_ref().map(|contact| contact.0.clone()),
            methods: match acme.challenge {
                AcmeChallenge::Http01 => vec![Method::Http01],
                AcmeChallenge::TlsAlpn01 => vec![Method::TlsAlpn01],
                AcmeChallenge::Any if tls.http_redirect.is_some() => vec![Method::Http01, Method::TlsAlpn01],
                AcmeChallenge::Any => vec![Method::TlsAlpn01],
            },
            orders_per_tenant: acme.orders_per_tenant,
        }),
    };
    let url: http::Uri = listening.url.parse().map_err(Error::internal)?;
    let previews = config.preview_domain.as_deref().map(bare);
    let settings = CertificateSettings {
        data_dir: config.data_dir.clone(),
        hosts: url.host().map(str::to_ascii_lowercase).into_iter().collect(),
        apps: std::iter::once(bare(&listening.apps_domain)).chain(previews).collect(),
        authority,
        files: tls.cert_file.clone().zip(tls.key_file.clone()).into_iter().collect(),
        directory: tls.cert_dir.clone(),
    };
    let owners = Arc::new(HostOwners { hosts: Arc::clone(hosts), control: Arc::clone(control) });
    let seal = Arc::new(Keeper(Arc::clone(control)));
    Certificates::open(settings, control.store().clone(), seal, owners, clock())
}

pub(super) fn domains(
    config: &Config,
    listening: &Listening,
    control: &Arc<Control>,
    certificates: Option<Arc<Certificates>>,
    logs: &Logs,
) -> Result<Domains> {
    let url: http::Uri = listening.url.parse().map_err(Error::internal)?;
    let apps_host = bare(&listening.apps_domain);
    let own = [Some(apps_host.clone()), config.preview_domain.as_deref().map(bare), url.host().map(bare)];
    let settings = DomainSettings {
        reserved: Reserved { domains: own.into_iter().flatten().collect() },
        apps_host,
        addresses: config.domains.addresses.0.clone(),
    };
    let dns = Dns::new(&config.domains.dns.0)?;
    let seal = Arc::new(Keeper(Arc::clone(control)));
    Ok(Domains::new(settings, control.store().clone(), seal, dns, certificates, logs.clone(), clock()))
}

fn clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// The platform's routes on the platform's hosts; everything else is an app's.
pub(super) struct Dispatch {
    pub hosts: Arc<Hosts>,
    /// Whose word on who asks is taken.
    pub proxies: Proxies,
    pub edge: Edge,
    pub platform: Router,
    /// The platform's address for others.
    pub url: String,
    /// Whose sandboxes are shown.
    pub services: Arc<Platform>,
    pub challenges: Arc<Challenges>,
    /// What is counted of requests.
    pub meters: Arc<Meters>,
    /// Whether browsers are told to come by HTTPS only, except to domains of apps' own.
    pub hsts: bool,
}

impl Dispatch {
    pub(super) fn answering(self) -> Answering {
        let this = Arc::new(self);
        Arc::new(move |request| {
            let this = Arc::clone(&this);
            Box::pin(async move {
                let is_head = request.method() == http::Method::HEAD;
                let mut response = this.answer(request).await;
                if is_head {
                    edge::empty(&mut response);
                }
                response
            })
        })
    }

    async fn answer(&self, request: Request) -> Response {
        let begun = Instant::now();
        let host = self.hosts.of(request.uri(), request.headers());
        let door = Door::of(&host, request.uri().path());
        let span = trace::span(request.headers());
        let response = self.answer_at(host, request).instrument(span).await;
        self.meters.answered(door, &response, begun.elapsed());
        response
    }

    async fn answer_at(&self, host: HostKind, mut request: Request) -> Response {
        let mut is_from_proxy = false;
        if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>().copied() {
            let client = SocketAddr::new(self.proxies.client(peer.ip(), request.headers()), peer.port());
            request.extensions_mut().insert(ConnectInfo(client));
            is_from_proxy = self.proxies.are_at(peer.ip().to_canonical());
            if self.proxies.are_at(client.ip()) {
                request.extensions_mut().insert(Unnamed);
            }
        }
        let secured = request.extensions().get::<Secured>().cloned();
        if let Some(refusal) = misdirected(secured.as_ref(), &self.hosts, request.uri(), request.headers()) {
            return refusal;
        }
        if let Some(answer) =
            redirect::challenge(&self.challenges, request.method(), request.uri(), request.headers())
        {
            return answer;
        }
        // A browser would keep it for every port of this machine, those of other programs too.
        let is_told_to_come_by_https = self.hsts
            && secured.is_some()
            && !matches!(host, HostKind::Domain(_))
            && !Hosts::name(request.uri(), request.headers()).is_some_and(|name| is_local(&name));
        let mut response = match &host {
            HostKind::Platform => self.of_platform(request, is_from_proxy).await,
            HostKind::Sandbox(label) => Box::pin(previews::show(&self.services, label, request)).await,
            host => self.edge.serve(host, request).await,
        };
        if is_told_to_come_by_https {
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
        }
        response
    }

    async fn of_platform(&self, mut request: Request, is_from_proxy: bool) -> Response {
        let dialled = oauth::dialled(&self.url, is_from_proxy, &request);
        request.extensions_mut().insert(dialled.clone());
        let path = request.uri().path().to_owned();
        let bearer = if request.headers().contains_key(AUTHORIZATION) { Bearer::Shown } else { Bearer::None };
        let answered = Box::pin(self.platform.clone().oneshot(request)).await;
        oauth::challenged(answered.unwrap_or_else(|never| match never {}), &dialled.0, &path, bearer)
    }
}

fn is_local(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.starts_with('[')
        || host.parse::<IpAddr>().is_ok()
}
