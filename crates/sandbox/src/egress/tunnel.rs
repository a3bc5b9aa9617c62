//! Tunnels: bytes to one place, which has to be the place that is named in them where they name one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::time::timeout;
use tokio_rustls::StartHandshake;

use super::policy::{Policy, Target};
use super::proxy::{self, Inside, Visit};
use super::refusal::Refusal;
use super::secrets::Swap;
use super::wire::Wire;
use super::{Shared, outside};

/// What begins a record of a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// The most bytes of a client's first message.
const HELLO: usize = 64 << 10;

/// A fatal alert: the name is not one that is known here (RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// A tunnel that may be opened.
pub(super) struct Tunnel {
    shared: Arc<Shared>,
    target: Target,
    way: Way,
    head: Duration,
}

enum Way {
    /// Requests, each judged.
    Requests,
    /// Requests in TLS that ends here, each judged, with secrets.
    Secrets,
    /// Bytes.
    Bytes { wire: Box<Wire>, idle: Duration },
}

/// Judges a tunnel and connects it. To port 80 there are requests in it; to port 443 there is TLS; elsewhere whatever
/// the sandbox and the place agree on, unless secrets are for it: then there are requests in TLS.
pub(super) async fn to(shared: &Arc<Shared>, policy: &Policy, target: Target) -> Result<Tunnel, Refusal> {
    let secrets = Swap::of(policy, &target).is_some();
    let way = if secrets || target.port() == 80 {
        outside::check(shared.outside.names(), policy, &target).await?;
        if secrets { Way::Secrets } else { Way::Requests }
    } else {
        Way::Bytes { wire: Box::new(shared.dial(&target).await?), idle: policy.limits.idle }
    };
    Ok(Tunnel { shared: Arc::clone(shared), target, way, head: policy.limits.head })
}

impl Tunnel {
    /// Carries what comes until one side ends.
    pub(super) async fn carry<S>(self, mut client: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { shared, target, way, head } = self;
        let refusal = match way {
            Way::Requests => {
                let visit = Visit::new(shared, Some(Inside::Plain(target)));
                return proxy::requests(visit, client).await;
            }
            Way::Secrets => match timeout(head, hello(&target, &mut client, Vec::new())).await {
                Ok(Ok((accepted, _))) => return requests(shared, target, head, accepted, client).await,
                Ok(Err(refusal)) => refusal,
                Err(_) => return,
            },
            Way::Bytes { wire, idle } => match bytes(&target, wire, head, idle, &mut client).await {
                Ok(()) => return,
                Err(refusal) => refusal,
            },
        };
        shared.refused(&refusal);
        // Whoever does not read it sees that the connection is closed.
        drop(client.write_all(&UNRECOGNIZED_NAME).await);
        drop(client.shutdown().await);
    }
}

/// Ends the client's TLS here, and answers the requests in it.
async fn requests<S>(shared: Arc<Shared>, target: Target, head: Duration, accepted: Accepted, client: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let config = match shared.authority.server(&target) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(error = %error.chain(), %target, "no certificate for a secret's host");
            return;
        }
    };
    let shaken = timeout(head, StartHandshake::from_parts(accepted, client).into_stream(config)).await;
    // Whoever does not trust the authority goes; so does whoever takes too long.
    if let Ok(Ok(stream)) = shaken {
        proxy::requests(Visit::new(shared, Some(Inside::Secret(target))), stream).await;
    }
}

/// Carries bytes, after a look at the first of them.
async fn bytes<S>(
    target: &Target,
    mut wire: Box<Wire>,
    head: Duration,
    idle: Duration,
    client: &mut S,
) -> Result<(), Refusal>
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let sealed = target.port() == 443;
    let first = if sealed {
        timeout(head, spoken(client, &wire, Speaks::First)).await
    } else {
        timeout(idle, spoken(client, &wire, Speaks::Whenever)).await
    };
    let Ok(Ok(mut first)) = first else { return Ok(()) };
    if first.first() == Some(&HANDSHAKE) {
        match timeout(head, hello(target, client, first)).await {
            Ok(said) => first = said?.1,
            Err(_) => return Ok(()),
        }
    } else if sealed {
        return Err(Refusal::NotTls(target.clone()));
    }
    if wire.write_all(&first).await.is_ok() {
        // Whichever side breaks off, both are closed.
        drop(copy_bidirectional(client, &mut *wire).await);
    }
    Ok(())
}

enum Speaks {
    First,
    Whenever,
}

/// What the client says before the place has said anything.
async fn spoken<S: AsyncRead + Unpin>(client: &mut S, wire: &Wire, speaks: Speaks) -> io::Result<Vec<u8>> {
    let mut first = Vec::new();
    match speaks {
        Speaks::First => drop(client.read_buf(&mut first).await?),
        Speaks::Whenever => tokio::select! {
            biased;
            read = client.read_buf(&mut first) => drop(read?),
            () = wire.speaks() => {}
        },
    }
    Ok(first)
}

/// The client's first message, of which `spoken` are the first bytes, with all that was read; it has to be for the place.
async fn hello<S: AsyncRead + Unpin>(
    target: &Target,
    client: &mut S,
    mut spoken: Vec<u8>,
) -> Result<(Accepted, Vec<u8>), Refusal> {
    let garbled = || Refusal::NotTls(target.clone());
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    loop {
        while seen < spoken.len() {
            let mut rest = &spoken[seen..];
            seen += acceptor.read_tls(&mut rest).map_err(|_| garbled())?;
            let Some(accepted) = acceptor.accept().map_err(|_| garbled())? else { continue };
            // Nobody who has not heard an answer says more.
            if seen < spoken.len() {
                return Err(garbled());
            }
            let name = accepted.client_hello().server_name().map(str::to_owned);
            return if is(target, name.as_deref()) {
                Ok((accepted, spoken))
            } else {
                Err(Refusal::OtherHost(target.clone()))
            };
        }
        let read = client.read_buf(&mut spoken).await.unwrap_or(0);
        if read == 0 || spoken.len() > HELLO {
            return Err(garbled());
        }
    }
}

/// Whether the name is the place's. An address has no name.
fn is(target: &Target, name: Option<&str>) -> bool {
    match (target.address(), name) {
        (None, Some(name)) => Target::new(name, target.port()).as_ref() == Ok(target),
        (Some(_), None) => true,
        _ => false,
    }
}
