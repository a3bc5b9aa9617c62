//! Connections to a process, and what it answers on them. A connection moves only while somebody asks or reads: whoever does
//! that moves it, which costs no other task's turn.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, Result};
use crate::instance::Sent;

/// Connections that wait for the next request.
const MOST: usize = 64;

/// Connections to one process that carry nothing just now.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<Vec<Link>>>);

/// A connection.
pub(crate) struct Link {
    sender: SendRequest<Sent>,
    /// What moves it; none where it is closed, or a socket's.
    moving: Option<BoxFuture<'static, hyper::Result<()>>>,
    bell: Bell,
}

/// Wakes whoever moves a connection. What rings while they are at it has them go on with it, and costs no turn: both ends of what
/// goes through a connection are in one task, and would have it come again for each step.
#[derive(Clone)]
struct Bell(Arc<Rung>, Waker);

#[derive(Default)]
struct Rung {
    who: AtomicWaker,
    state: AtomicU8,
}

/// Nobody is at it; somebody is; it has rung since they came.
const AWAY: u8 = 0;
const THERE: u8 = 1;
const RUNG: u8 = 2;

/// How often one goes on at a time before others have their turn.
const ROUNDS: usize = 8;

/// The body of an answer. Its connection is there for the next request when this has been read.
pub struct Answered {
    body: Incoming,
    link: Option<Link>,
    idle: Idle,
}

impl Idle {
    /// One of them that still is one.
    pub async fn take(&self) -> Option<Link> {
        loop {
            let mut link = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            if link.is_ready().await {
                return Some(link);
            }
        }
    }

    /// Closes those that are none any more, or on which something comes that nobody has asked for.
    pub async fn sweep(&self) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for mut link in all {
            if link.is_ready().await {
                self.put(link);
            }
        }
    }

    fn put(&self, link: Link) {
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST {
            idle.push(link);
        }
    }
}

impl Bell {
    fn new() -> Self {
        let rung = Arc::<Rung>::default();
        let waker = Waker::from(Arc::clone(&rung));
        Self(rung, waker)
    }

    /// Somebody is at it from here on.
    fn come(&self) {
        self.0.state.store(THERE, Ordering::SeqCst);
    }

    /// Polls until nothing rings any more.
    fn until_still<T>(
        &self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let Self(rung, waker) = self;
        rung.who.register(cx.waker());
        let mut inside = Context::from_waker(waker);
        for _ in 0..ROUNDS {
            self.come();
            let polled = poll(&mut inside);
            if polled.is_ready() {
                // Whoever has what came goes on asking, and looks first.
                rung.state.store(AWAY, Ordering::SeqCst);
                return polled;
            }
            if rung.state.compare_exchange(THERE, AWAY, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                return polled;
            }
        }
        rung.state.store(AWAY, Ordering::SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.compare_exchange(THERE, RUNG, Ordering::SeqCst, Ordering::SeqCst) == Err(AWAY) {
            self.who.wake();
        }
    }
}

impl Link {
    /// A new one on this stream.
    pub async fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
        let moving: BoxFuture<'static, _> = Box::pin(connection.with_upgrades());
        Ok(Self { sender, moving: Some(moving), bell: Bell::new() })
    }

    /// Moves it on.
    fn poll(&mut self, cx: &mut Context<'_>) {
        if let Some(moving) = &mut self.moving
            && moving.as_mut().poll(cx).is_ready()
        {
            self.moving = None;
        }
    }

    /// Whether it takes a request now.
    async fn is_ready(&mut self) -> bool {
        let bell = self.bell.clone();
        std::future::poll_fn(|cx| {
            bell.until_still(cx, |cx| {
                self.poll(cx);
                Poll::Ready(self.moving.is_some() && self.sender.is_ready())
            })
        })
        .await
    }

    /// Sends a request, and gives what is answered; what nothing was sent of comes back.
    pub async fn send(
        mut self,
        request: Request<Sent>,
        idle: Idle,
    ) -> Result<Response<Answered>, TrySendError<Request<Sent>>> {
        let answer = {
            let bell = self.bell.clone();
            bell.come();
            let mut answer = pin!(self.sender.try_send_request(request));
            std::future::poll_fn(|cx| {
                bell.until_still(cx, |cx| {
                    self.poll(cx);
                    answer.as_mut().poll(cx)
                })
            })
            .await?
        };
        let link = if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // It ends with the socket that it becomes.
            self.moving.take().map(tokio::spawn);
            None
        } else {
            Some(self)
        };
        let mut answer = answer.map(|body| Answered { body, link, idle });
        // Nobody reads what is not there.
        if answer.body().is_end_stream() {
            std::future::poll_fn(|cx| {
                answer.body_mut().read(cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(answer)
    }
}

impl Answered {
    /// All of it was read: the next request has the connection.
    fn read(&mut self, cx: &mut Context<'_>) {
        if let Some(mut link) = self.link.take() {
            link.poll(cx);
            if link.moving.is_some() && link.sender.is_ready() {
                self.idle.put(link);
            } else if let Some(moving) = link.moving {
                // It is answered before all of it was sent, which goes on: who asks may not read before they have written.
                tokio::spawn(moving);
            }
        }
    }
}

impl Body for Answered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let body = &mut this.body;
        let frame = match &mut this.link {
            Some(link) => link.bell.clone().until_still(cx, |cx| {
                let frame = Pin::new(&mut *body).poll_frame(cx);
                if frame.is_ready() {
                    return frame;
                }
                link.poll(cx);
                Pin::new(&mut *body).poll_frame(cx)
            }),
            None => Pin::new(body).poll_frame(cx),
        };
        if matches!(frame, Poll::Ready(None)) || this.body.is_end_stream() {
            this.read(cx);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
