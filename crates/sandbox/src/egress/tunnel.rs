//! Tunnels: bytes to one place, which has to be the place that is named in them where they name one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::time::timeout;

use super::policy::{Policy, Target};
use super::proxy::{self, Visit};
use super::refusal::Refusal;
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
}

enum Way {
    /// Requests, each judged.
    Requests,
    /// Bytes.
    Bytes { wire: Box<Wire>, head: Duration, idle: Duration },
}

/// Judges a tunnel and connects it. To port 80 there are requests in it; to port 443 there is TLS; elsewhere whatever
/// the sandbox and the place agree on.
pub(super) async fn to(shared: &Arc<Shared>, policy: &Policy, target: Target) -> Result<Tunnel, Refusal> {
    let way = if target.port() == 80 {
        if !policy.allows(&target) {
            return Err(Refusal::NotAllowed(target));
        }
        outside::check(shared.names.as_ref(), policy, &target).await?;
        Way::Requests
    } else {
        let wire = Box::new(shared.dial(&target).await?);
        Way::Bytes { wire, head: policy.limits.head, idle: policy.limits.idle }
    };
    Ok(Tunnel { shared: Arc::clone(shared), target, way })
}

impl Tunnel {
    /// Carries what comes until one side ends.
    pub(super) async fn carry<S>(self, mut client: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut wire, head, idle) = match self.way {
            Way::Requests => {
                let visit = Visit::new(self.shared, Some(self.target));
                return proxy::requests(visit, client).await;
            }
            Way::Bytes { wire, head, idle } => (wire, head, idle),
        };
        let opening = if self.target.port() == 443 {
            timeout(head, spoken(&mut client, &wire, Speaks::First)).await
        } else {
            timeout(idle, spoken(&mut client, &wire, Speaks::Whenever)).await
        };
        let Ok(Ok(mut spoken)) = opening else { return };
        let refusal = match spoken.first() {
            Some(&HANDSHAKE) => match timeout(head, server_name(&mut client, &mut spoken)).await {
                Ok(Ok(name)) => {
                    (!is(&self.target, name.as_deref())).then(|| Refusal::OtherHost(self.target.clone()))
                }
                Ok(Err(_)) => Some(Refusal::NotTls(self.target.clone())),
                Err(_) => return,
            },
            _ if self.target.port() == 443 => Some(Refusal::NotTls(self.target.clone())),
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.shared.refused(&refusal);
            // Whoever does not read it sees that the connection is closed.
            drop(client.write_all(&UNRECOGNIZED_NAME).await);
            drop(client.shutdown().await);
            return;
        }
        if wire.write_all(&spoken).await.is_ok() {
            // Whichever side breaks off, both are closed.
            drop(copy_bidirectional(&mut client, &mut *wire).await);
        }
    }
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

/// The name in a client's first message, of which `spoken` are the first bytes and will be all of them.
async fn server_name<S: AsyncRead + Unpin>(
    client: &mut S,
    spoken: &mut Vec<u8>,
) -> io::Result<Option<String>> {
    let mut acceptor = Acceptor::default();
    let mut seen = 0;
    loop {
        while seen < spoken.len() {
            let mut rest = &spoken[seen..];
            seen += acceptor.read_tls(&mut rest)?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted.client_hello().server_name().map(str::to_owned)),
                Ok(None) => {}
                Err((error, _)) => return Err(io::Error::other(error)),
            }
        }
        if spoken.len() > HELLO || client.read_buf(spoken).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
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
