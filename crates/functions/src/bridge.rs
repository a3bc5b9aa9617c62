//! The two sockets that a function has: the way out, and the way to the platform.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kernel::EnvId;
use sandbox::egress::{Egress, Event, Journal};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use crate::error::Result;
use crate::host::{Asker, Called, Flights, Host};
use crate::instance::Around;
use crate::pace::Pace;
use crate::supervisor::Inner;

/// Requests a second that all functions of an environment make of the platform, and how many more for a moment: what they make
/// it do is not in the bounds of their processes.
const REQUESTS: (f64, f64) = (1_000.0, 2_000.0);

/// Connections to the platform that one process may have at once.
const CONNECTIONS: usize = 64;

/// Tells the platform what happens on a way out.
struct Told {
    host: Arc<dyn Host>,
    called: Called,
}

impl Journal for Told {
    fn told(&self, event: Event) {
        self.host.told(&self.called, event);
    }
}

/// What serves both for a process that is about to start.
pub(crate) async fn around(inner: &Inner, called: &Called, flights: Arc<Flights>) -> Result<Around> {
    let policy = inner.host.policy(&called.env).await?;
    let told = Told { host: Arc::clone(&inner.host), called: called.clone() };
    let egress = Egress::new(Arc::clone(&inner.outside), policy, Arc::new(told))?;
    let asker = Arc::new(Asker::new(called, flights));
    let host = Arc::clone(&inner.host);
    let pace = inner.pace(called.env.id());
    Ok(Box::new(move |way_out, platform| {
        async move {
            tokio::join!(egress.serve(way_out), serve(platform, host, asker, pace));
        }
        .boxed()
    }))
}

impl Inner {
    fn pace(&self, env: EnvId) -> Arc<Mutex<Pace>> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Mutex::new(Pace::new(REQUESTS.0, REQUESTS.1)));
        Arc::clone(paces.entry(env).or_insert_with(made))
    }
}

/// Answers on the platform's socket for as long as this future lives.
async fn serve(listener: UnixListener, host: Arc<dyn Host>, asker: Arc<Asker>, pace: Arc<Mutex<Pace>>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= CONNECTIONS {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (host, asker, pace) = (Arc::clone(&host), Arc::clone(&asker), Arc::clone(&pace));
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let (host, asker) = (Arc::clone(&host), Arc::clone(&asker));
                let wait = pace.lock().unwrap_or_else(PoisonError::into_inner).take(1.0);
                async move {
                    tokio::time::sleep(wait).await;
                    Ok::<_, std::convert::Infallible>(host.answer(&asker, request).await)
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).max_buf_size(64 << 10);
            // Who breaks off has no use for an answer.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
