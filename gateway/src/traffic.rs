//! How many connections there may be, and how much of their answers may wait to be read: nobody takes all of either.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use kernel::Networks;

/// Bounds for one process.
#[derive(Debug, Clone)]
pub struct TrafficLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one network address; a proxy that is trusted brings everybody's.
    pub connections_of_peer: usize,
    /// Bytes of answers that wait in memory for one network address to read them.
    pub waiting_of_peer: u64,
    /// The same in all.
    pub waiting: u64,
    /// Whose connections are counted only in all.
    pub proxies: Networks,
}

impl TrafficLimits {
    /// With room for as many connections as half the files that may be open.
    pub fn new(files: u64, proxies: Networks) -> Self {
        let connections = usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(128, 20_000);
        Self {
            connections,
            connections_of_peer: (connections / 4).min(1_024),
            waiting_of_peer: 64 << 20,
            waiting: 1 << 30,
            proxies,
        }
    }
}

/// Counts them. Clones count together.
#[derive(Clone)]
pub struct Traffic(Arc<Inner>);

struct Inner {
    limits: TrafficLimits,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: Count,
    peers: HashMap<IpAddr, Count>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    connections: usize,
    waiting: u64,
}

/// A connection that is counted until it is dropped. Clones are the same one.
#[derive(Clone)]
pub struct Counted(Arc<One>);

struct One {
    traffic: Traffic,
    peer: IpAddr,
}

impl Traffic {
    /// Nothing is counted yet.
    pub fn new(limits: TrafficLimits) -> Self {
        Self(Arc::new(Inner { limits, counts: Mutex::default() }))
    }

    /// Takes in a connection of `peer`; none where there are too many.
    pub fn admit(&self, peer: IpAddr) -> Option<Counted> {
        let (limits, peer) = (&self.0.limits, network(peer));
        let mut counts = self.counts();
        let of_peer = counts.peers.get(&peer).copied().unwrap_or_default().connections;
        let is_free = of_peer < limits.connections_of_peer || limits.proxies.have(peer);
        if counts.all.connections >= limits.connections || !is_free {
            return None;
        }
        counts.all.connections += 1;
        counts.peers.entry(peer).or_default().connections += 1;
        Some(Counted(Arc::new(One { traffic: self.clone(), peer })))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut counts = self.traffic.counts();
        counts.all.connections -= 1;
        if let Some(count) = counts.peers.get_mut(&self.peer) {
            count.connections -= 1;
            if count.connections == 0 {
                counts.peers.remove(&self.peer);
            }
        }
    }
}

impl Counted {
    /// The answer, counted until it is read; none where too much waits already.
    pub fn answer(&self, response: Response) -> Option<Response> {
        let Some(bytes) = HttpBody::size_hint(response.body()).exact().filter(|bytes| *bytes > 0) else {
            return Some(response);
        };
        let Traffic(inner) = &self.0.traffic;
        let mut counts = self.0.traffic.counts();
        let all = counts.all.waiting + bytes;
        let count = counts.peers.get_mut(&self.0.peer)?;
        let is_free =
            count.waiting + bytes <= inner.limits.waiting_of_peer || inner.limits.proxies.have(self.0.peer);
        // One alone is as large as it is.
        if count.waiting > 0 && (!is_free || all > inner.limits.waiting) {
            return None;
        }
        count.waiting += bytes;
        counts.all.waiting = all;
        drop(counts);
        let counted = self.clone();
        Some(response.map(|body| Body::new(Waiting { body, bytes, counted })))
    }
}

/// A body that is counted until it is dropped.
struct Waiting {
    body: Body,
    bytes: u64,
    counted: Counted,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let One { traffic, peer } = &*self.counted.0;
        let mut counts = traffic.counts();
        counts.all.waiting = counts.all.waiting.saturating_sub(self.bytes);
        if let Some(count) = counts.peers.get_mut(peer) {
            count.waiting = count.waiting.saturating_sub(self.bytes);
        }
    }
}

impl HttpBody for Waiting {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

/// One address of IPv4, or the /64 of IPv6, which one subscriber has as a whole (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic() -> Traffic {
        Traffic::new(TrafficLimits {
            connections: 5,
            connections_of_peer: 2,
            waiting_of_peer: 100,
            waiting: 150,
            proxies: Networks::of(["10.0.0.9"].into_iter()).unwrap(),
        })
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_address_takes_all_connections() {
        let traffic = traffic();
        let admit = |text: &str| traffic.admit(peer(text));
        let first = [admit("192.0.2.1").unwrap(), admit("192.0.2.1").unwrap()];
        assert!(admit("192.0.2.1").is_none());
        let of_one_subscriber = [admit("2001:db8::1").unwrap(), admit("2001:db8::2").unwrap()];
        assert!(admit("2001:db8::3").is_none());
        let others = admit("10.0.0.9").unwrap();
        assert!(admit("192.0.2.3").is_none(), "five in all");
        drop((of_one_subscriber, others));
        let proxied: Vec<_> = (0..3).map(|_| admit("10.0.0.9").unwrap()).collect();
        assert!(admit("10.0.0.9").is_none());
        drop((first, proxied));
        let counts = traffic.counts();
        assert_eq!((counts.all.connections, counts.peers.len()), (0, 0));
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_are_refused_to_who_does_not_read() {
        let traffic = traffic();
        let answer = |to: &Counted, bytes: usize| to.answer(Response::new(Body::from(vec![0; bytes])));
        let (slow, quick) =
            (traffic.admit(peer("192.0.2.1")).unwrap(), traffic.admit(peer("192.0.2.2")).unwrap());
        let first = answer(&slow, 60).unwrap();
        assert!(answer(&slow, 60).is_none());
        let second = answer(&slow, 40).unwrap();
        assert!(answer(&slow, 0).is_some(), "an empty one waits for nobody");
        let other = answer(&quick, 90).unwrap();
        assert!(answer(&quick, 1).is_none(), "too much in all, and this one has some");
        drop((first, second));
        let body = axum::body::to_bytes(other.into_body(), 1_000).await.unwrap();
        assert_eq!(body.len(), 90);
        assert!(answer(&slow, 1_000).is_some(), "one alone is as large as it is");
        assert_eq!(traffic.counts().all.waiting, 0);
    }
}
