//! The ports that the platform listens on, had before it has threads and while it may still have privileged ones.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::{AddressFamily, SocketFlags, SocketType, listen, socket_with, sockopt};

use crate::config::Config;
use crate::serve::Error;

/// How many connections wait to be accepted.
const BACKLOG: i32 = 1024;

/// What to do where the port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// Say so and stop.
    Refuse,
    /// Take a free one on the same address.
    TakeFree,
}

/// A port that is listened on, with the address that it has. It does not block.
pub type Port = (TcpListener, SocketAddr);

/// Every port of the platform.
#[derive(Debug)]
pub struct Ports {
    /// For HTTP.
    pub plain: Port,
    /// For HTTPS.
    pub secure: Option<Port>,
    /// For HTTP that is sent on to HTTPS.
    pub redirect: Option<Port>,
}

impl Ports {
    /// Listens where `config` says.
    ///
    /// # Errors
    /// [`Error::Bind`].
    pub fn bind(config: &Config, if_taken: IfTaken) -> Result<Self, Error> {
        Ok(Self {
            plain: bind(config.listen, if_taken)?,
            secure: config.tls.listen.map(|addr| bind(addr, if_taken)).transpose()?,
            redirect: config.tls.http_redirect.map(|addr| bind(addr, if_taken)).transpose()?,
        })
    }
}

/// Listens at `addr`.
///
/// # Errors
/// [`Error::Bind`].
pub fn bind(addr: SocketAddr, if_taken: IfTaken) -> Result<Port, Error> {
    match (attempt(addr), if_taken) {
        (Err(e), IfTaken::TakeFree) if e.kind() == io::ErrorKind::AddrInUse => {
            attempt(SocketAddr::new(addr.ip(), 0))
        }
        (outcome, _) => outcome,
    }
    .and_then(|listener| listener.local_addr().map(|bound| (listener, bound)))
    .map_err(|source| Error::Bind { addr, source })
}

fn attempt(addr: SocketAddr) -> io::Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of the last run to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &addr)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_or_replaced_as_asked() {
        let (_first, taken) = bind(SocketAddr::from(([127, 0, 0, 1], 0)), IfTaken::Refuse).unwrap();
        let error = bind(taken, IfTaken::Refuse).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {taken}: the port is taken"));
        let (_, other) = bind(taken, IfTaken::TakeFree).unwrap();
        assert_ne!(other, taken);
    }
}
