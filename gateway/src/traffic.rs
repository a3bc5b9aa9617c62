//! How many connections and answers there may be, and how much of requests and answers may wait in memory: nobody takes
//! all of it, and who does not read is not waited for.

mod bodies;
mod own;
mod pace;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use http::Request;
use kernel::{Metering, Networks};

use bodies::{Answering, Arriving, Held, Kept, Read};
pub use own::Own;
use pace::Readers;

pub use pace::Pace;

/// How much more JSON takes when it is read than while it arrives, mostly; `web::body::json` refuses what takes far more.
const JSON: u64 = 4;

/// How often it is looked whether a connection's reader is still there.
const LOOK: Duration = Duration::from_secs(5);

/// Bounds for one process.
#[derive(Debug, Clone)]
pub struct TrafficLimits {
    /// Connections in all.
    pub connections: usize,
    /// Connections from one network address; a proxy that is trusted brings everybody's.
    pub connections_of_peer: usize,
    /// Bytes of requests and answers that wait in memory for one network address.
    pub waiting_of_peer: u64,
    /// The same in all.
    pub waiting: u64,
    /// Requests of one network address that are under way.
    pub requests_of_peer: usize,
    /// Answers to one network address that are not at their end; each may hold a file open.
    pub answers_of_peer: usize,
    /// The same in all.
    pub answers: usize,
    /// Whose connections are counted only in all.
    pub proxies: Networks,
}

impl TrafficLimits {
    /// With room for as many connections as half the files that may be open.
    pub fn new(files: u64, proxies: Networks) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let connections = (files / 2).clamp(128, 20_000);
        Self {
            connections,
            connections_of_peer: (connections / 4).min(512),
            waiting_of_peer: 128 << 20,
            waiting: 1 << 30,
            requests_of_peer: 512,
            answers_of_peer: (files / 16).clamp(64, 2_048),
            answers: (files / 4).max(256),
            proxies,
        }
    }
}

/// Counts them. Clones count together.
#[derive(Clone)]
pub struct Traffic(Arc<Inner>);

impl fmt::Debug for Traffic {
    /// Nothing of who is connected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traffic")
    }
}

struct Inner {
    limits: TrafficLimits,
    counts: Mutex<Counts>,
    meters: OnceLock<Arc<dyn Metering>>,
}

#[derive(Default)]
struct Counts {
    all: Count,
    peers: HashMap<IpAddr, Count>,
    refused: Refused,
}

/// What there was no room for.
#[derive(Debug, Default, Clone, Copy)]
struct Refused {
    connections: u64,
    requests: u64,
    answers: u64,
}

/// How much traffic there is, for whoever runs the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Connections that are open.
    pub connections: u64,
    /// Answers that are not read to their end.
    pub answers: u64,
    /// Connections that were not taken in.
    pub refused_connections: u64,
    /// Requests that were not begun.
    pub refused_requests: u64,
    /// Answers that were not given.
    pub refused_answers: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    connections: usize,
    requests: usize,
    answers: usize,
    waiting: u64,
}

/// What the platform's own connections are counted under: an address that nobody has.
const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// As many answers and bytes as somebody may have though there is no room for more: who takes much is refused first.
const FEW: usize = 8;
const LITTLE: u64 = 1 << 20;

/// A connection that is counted until it is dropped. Clones are the same one.
#[derive(Clone)]
pub struct Counted(Arc<One>);

struct One {
    traffic: Traffic,
    peer: IpAddr,
    readers: Arc<Readers>,
}

impl Traffic {
    /// Nothing is counted yet.
    pub fn new(limits: TrafficLimits) -> Self {
        Self(Arc::new(Inner { limits, counts: Mutex::default(), meters: OnceLock::new() }))
    }

    /// From here on `meters` are told how much of apps' answers is read; the first ones stay.
    pub fn metered_by(&self, meters: Arc<dyn Metering>) {
        let _ = self.0.meters.set(meters);
    }

    /// Takes in a connection from `from`; none where there are too many. The platform's own are counted for nobody.
    pub fn accept(&self, from: SocketAddr, own: &Own) -> Option<Counted> {
        if own.known().contains(&from) {
            let mut counts = self.counts();
            counts.all.connections += 1;
            counts.peers.entry(NOBODY).or_default().connections += 1;
            return Some(self.counted(NOBODY));
        }
        self.admit(from.ip())
    }

    /// Counts all of it.
    pub fn census(&self) -> Census {
        let counts = self.counts();
        let Counts { all, refused, .. } = &*counts;
        Census {
            connections: all.connections as u64,
            answers: all.answers as u64,
            refused_connections: refused.connections,
            refused_requests: refused.requests,
            refused_answers: refused.answers,
        }
    }

    fn counted(&self, peer: IpAddr) -> Counted {
        Counted(Arc::new(One { traffic: self.clone(), peer, readers: Arc::default() }))
    }

    fn admit(&self, peer: IpAddr) -> Option<Counted> {
        let (limits, peer) = (&self.0.limits, network(peer));
        let mut counts = self.counts();
        let of_peer = counts.peers.get(&peer).copied().unwrap_or_default().connections;
        let is_free = of_peer < limits.connections_of_peer || limits.proxies.have(peer);
        if counts.all.connections >= limits.connections || !is_free {
            counts.refused.connections += 1;
            return None;
        }
        counts.all.connections += 1;
        counts.peers.entry(peer).or_default().connections += 1;
        Some(self.counted(peer))
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
    /// A request that is under way, until what is given is dropped; none where there are too many.
    pub fn begin(&self) -> Option<UnderWay> {
        let Traffic(inner) = &self.0.traffic;
        let mut counts = self.0.traffic.counts();
        let count = counts.peers.get_mut(&self.0.peer)?;
        if count.requests >= inner.limits.requests_of_peer && !inner.limits.proxies.have(self.0.peer) {
            counts.refused.requests += 1;
            return None;
        }
        count.requests += 1;
        Some(UnderWay(self.clone()))
    }

    /// The request, whose body is counted as it comes, for as long as the caller has what comes with it, which is until
    /// the answer.
    pub fn request(&self, request: Request<Body>) -> (Request<Body>, Kept) {
        if request.body().is_end_stream() {
            return (request, Kept::default());
        }
        let weight = if web::body::is_json(request.headers()) { JSON } else { 1 };
        let (head, body) = request.into_parts();
        let body = Arriving::new(body, self.clone(), weight);
        let kept = body.kept();
        (Request::from_parts(head, Body::new(body)), kept)
    }

    /// Whether the platform itself has made the connection.
    pub fn is_own(&self) -> bool {
        self.0.peer == NOBODY
    }

    /// The answer, counted until it is read; none where there are too many, or too much waits already.
    pub fn answer(&self, response: Response) -> Option<Response> {
        if response.body().is_end_stream() {
            return Some(response);
        }
        // A stream has little in memory at once, and may have a file open.
        let bytes = HttpBody::size_hint(response.body()).exact().unwrap_or_default();
        let Some(held) = self.hold(bytes, 1) else {
            self.0.traffic.counts().refused.answers += 1;
            return None;
        };
        let readers = Arc::clone(&self.0.readers);
        let of = response.extensions().get::<edge::Of>().filter(|_| !self.is_own());
        let meters = self.0.traffic.0.meters.get().map(Arc::clone);
        let read = of.zip(meters).map(|(of, meters)| Read { env: of.0.clone(), meters, bytes: 0 });
        Some(response.map(|body| Body::new(Answering::new(body, held, readers, read))))
    }

    /// Counts so many bytes and answers until what is given is dropped; none where there is no room.
    fn hold(&self, bytes: u64, answers: usize) -> Option<Held> {
        let Traffic(inner) = &self.0.traffic;
        let limits = &inner.limits;
        let mut counts = self.0.traffic.counts();
        let all = counts.all;
        let count = counts.peers.get_mut(&self.0.peer)?;
        let alone = limits.proxies.have(self.0.peer) || self.is_own();
        let (mine, every) = (count.answers + answers, all.answers + answers);
        if answers > 0 && (!alone && mine > limits.answers_of_peer || mine > FEW && every > limits.answers) {
            return None;
        }
        let (mine, every) = (count.waiting + bytes, all.waiting + bytes);
        // One alone is as large as it is.
        if bytes > 0
            && count.waiting > 0
            && (!alone && mine > limits.waiting_of_peer || mine > LITTLE && every > limits.waiting)
        {
            return None;
        }
        count.waiting += bytes;
        count.answers += answers;
        counts.all.waiting += bytes;
        counts.all.answers += answers;
        drop(counts);
        Some(Held { counted: self.clone(), bytes, answers })
    }

    fn release(&self, bytes: u64, answers: usize) {
        let One { traffic, peer, .. } = &*self.0;
        let mut counts = traffic.counts();
        let release = |count: &mut Count| {
            count.waiting = count.waiting.saturating_sub(bytes);
            count.answers = count.answers.saturating_sub(answers);
        };
        release(&mut counts.all);
        if let Some(count) = counts.peers.get_mut(peer) {
            release(count);
        }
    }

    /// Returns when an answer of this connection has waited too long for its reader.
    pub async fn left_unread(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.0.readers.are_behind() {
                return;
            }
        }
    }
}

/// A request that is under way, until it is dropped.
pub struct UnderWay(Counted);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(count) = self.0.0.traffic.counts().peers.get_mut(&self.0.0.peer) {
            count.requests = count.requests.saturating_sub(1);
        }
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
    use std::io;

    use axum::body::Bytes;
    use futures::StreamExt as _;
    use http_body_util::BodyExt as _;

    use super::*;

    fn traffic() -> Traffic {
        Traffic::new(TrafficLimits {
            connections: 5,
            connections_of_peer: 2,
            waiting_of_peer: 100,
            waiting: 150,
            requests_of_peer: 2,
            answers_of_peer: 10,
            answers: 15,
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
        let Census { connections, refused_connections, .. } = traffic.census();
        assert_eq!((connections, refused_connections), (5, 4));
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
        assert!(answer(&quick, 1).is_some(), "too much in all, of which this one has little");
        drop((first, second));
        let body = axum::body::to_bytes(other.into_body(), 1_000).await.unwrap();
        assert_eq!(body.len(), 90);
        assert!(answer(&slow, 1_000).is_some(), "one alone is as large as it is");
        assert_eq!((traffic.census().answers, traffic.census().refused_answers), (0, 1));
        let counts = traffic.counts();
        assert_eq!((counts.all.waiting, counts.all.answers), (0, 0));
    }

    #[tokio::test]
    async fn nobody_has_all_the_answers_that_hold_something_open() {
        let traffic = traffic();
        let stream = |to: &Counted| {
            to.answer(Response::new(Body::from_stream(futures::stream::pending::<io::Result<Bytes>>())))
        };
        let (greedy, other) =
            (traffic.admit(peer("192.0.2.1")).unwrap(), traffic.admit(peer("192.0.2.2")).unwrap());
        let held: Vec<_> = (0..10).map(|_| stream(&greedy).unwrap()).collect();
        assert!(stream(&greedy).is_none());
        let few: Vec<_> = (0..FEW).map(|_| stream(&other).unwrap()).collect();
        assert!(stream(&other).is_none(), "fifteen in all, and this one has some");
        drop((held, few));
        assert!(stream(&other).is_some());
    }

    #[tokio::test]
    async fn an_answer_counts_until_its_reader_has_come_for_more() {
        let traffic = traffic();
        let counted = traffic.admit(peer("192.0.2.1")).unwrap();
        let mut body = counted.answer(Response::new(Body::from("all of it"))).unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        assert!(!body.is_end_stream() && traffic.counts().all.answers == 1);
        assert!(body.frame().await.is_none());
        drop(body);
        assert_eq!(traffic.counts().all.answers, 0);
    }

    #[test]
    fn requests_are_counted_for_who_makes_them_and_our_own_for_nobody() {
        let (traffic, own) = (traffic(), Own::default());
        let from = |port| SocketAddr::new(peer("192.0.2.1"), port);
        let counted = traffic.accept(from(1), &own).unwrap();
        let first = [counted.begin().unwrap(), counted.begin().unwrap()];
        assert!(counted.begin().is_none());
        assert_eq!(traffic.census().refused_requests, 1);
        let _second = traffic.accept(from(2), &own).unwrap();
        assert!(traffic.accept(from(3), &own).is_none(), "two connections are all it may have");
        let ours = own.is(from(3));
        let mine = traffic.accept(from(3), &own).unwrap();
        assert!(mine.begin().is_some());
        drop(ours);
        assert!(traffic.accept(from(3), &own).is_none());
        drop(first);
        assert!(counted.begin().is_some());
    }

    #[tokio::test]
    async fn what_arrives_counts_until_it_is_here() {
        let traffic = traffic();
        let counted = traffic.admit(peer("192.0.2.1")).unwrap();
        let arriving = |bytes: usize| {
            let first = futures::stream::iter([Ok(Bytes::from(vec![0; bytes]))]);
            let body = Body::from_stream(first.chain(futures::stream::pending::<io::Result<Bytes>>()));
            let (request, kept) = counted.request(Request::new(body));
            (request.into_body(), kept)
        };
        let (mut first, kept) = arriving(80);
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap().len(), 80);
        let refused = web::body::read(&http::HeaderMap::new(), arriving(80).0, 1_000).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::Unavailable);
        drop((first, kept));
        assert_eq!(arriving(80).0.frame().await.unwrap().unwrap().into_data().unwrap().len(), 80);
        assert_eq!(traffic.counts().all.waiting, 0);
    }

    #[tokio::test]
    async fn json_counts_as_what_is_read_of_it_until_it_is_answered() {
        let traffic = traffic();
        let counted = traffic.admit(peer("192.0.2.1")).unwrap();
        let request = Request::post("/").header(http::header::CONTENT_TYPE, "application/json");
        let (request, kept) = counted.request(request.body(Body::from("[1]")).unwrap());
        web::body::read(&http::HeaderMap::new(), request.into_body(), 1_000).await.unwrap();
        assert_eq!(traffic.counts().all.waiting, 12);
        drop(kept);
        assert_eq!(traffic.counts().all.waiting, 0);
    }
}
