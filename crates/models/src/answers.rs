//! Answers on their way: whole ones and events, each charged before its end is told, also where nobody listens any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use kernel::Result;
use reqwest::Response;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::Answer;
use crate::asking::Asking;
use crate::provider::{self, Failure, Provider};
use crate::purse::Reserved;
use crate::sse::{self, Filter};

/// The largest answer that comes whole, in bytes.
const ANSWER: usize = 16 << 20;

/// How many parts wait for whoever reads a stream.
const WAITING: usize = 8;

/// What follows the end of a stream is not waited for longer.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// Asks the provider, with what is set aside for that.
pub(crate) async fn ask(
    provider: Arc<Provider>,
    asking: Asking,
    mut reserved: Reserved,
    tasks: &TaskTracker,
    ending: &CancellationToken,
) -> Result<Answer> {
    reserved.begin();
    let response = match provider.ask(&asking).await {
        Ok(response) => response,
        Err(Failure::Refused(error)) => {
            reserved.release().await;
            return Err(error);
        }
        Err(Failure::Lost(error)) => {
            reserved.settle(None).await;
            return Err(error);
        }
    };
    if asking.stream {
        let asked = (asking.shows_usage, asking.answers);
        Ok(Answer::Events(events(provider, response, reserved, asked, tasks, ending)))
    } else {
        whole(&provider, response, reserved).await.map(Answer::Whole)
    }
}

/// An answer that is JSON.
async fn whole(provider: &Provider, mut response: Response, reserved: Reserved) -> Result<Bytes> {
    let mut body = Vec::new();
    let begun = Instant::now();
    let read = loop {
        let left = provider.patience.whole.saturating_sub(begun.elapsed());
        match timeout(provider.patience.pause.min(left), response.chunk()).await {
            Err(_) => break Err(provider::slow()),
            Ok(Err(_)) => break Err(provider::broken("it broke off")),
            Ok(Ok(None)) => break Ok(()),
            Ok(Ok(Some(part))) if body.len() + part.len() > ANSWER => {
                break Err(provider::broken("its answer is larger than 16 MiB"));
            }
            Ok(Ok(Some(part))) => body.extend_from_slice(&part),
        }
    };
    let value: serde_json::Value = read
        .as_ref()
        .map_or_else(|_| Default::default(), |()| serde_json::from_slice(&body).unwrap_or_default());
    // Also where it is no answer otherwise.
    reserved.settle(sse::tokens(&value["usage"])).await;
    read?;
    if !value["choices"].is_array() {
        return Err(provider::broken("its answer is no completion"));
    }
    Ok(provider.cover.bytes(&body).into_owned().into())
}

/// What a stream is made of until its end.
struct Under {
    provider: Arc<Provider>,
    response: Response,
    filter: Filter,
    /// What is to be settled when it is over.
    reserved: Option<Reserved>,
}

impl Under {
    /// Sends on what comes, until its end, or until whoever hears it takes nothing more. What was set aside is settled before the
    /// last is sent.
    async fn send(&mut self, to: &Sender<Bytes>) {
        let patience = self.provider.patience;
        let begun = Instant::now();
        loop {
            let left = patience.whole.saturating_sub(begun.elapsed());
            let pause = if self.filter.over() { AFTERWARDS } else { patience.pause.min(left) };
            let part = timeout(pause, self.response.chunk()).await;
            let cover = &self.provider.cover;
            let (out, ends) = match part {
                Ok(Ok(Some(part))) => {
                    let out = self.filter.take(&part, cover);
                    (out, self.filter.failed())
                }
                Ok(Ok(None)) => (self.filter.end(cover), true),
                Ok(Err(_)) => (self.filter.cut("the model broke off"), true),
                Err(_) if left.is_zero() => (self.filter.cut("the model has answered for too long"), true),
                Err(_) => (self.filter.cut("the model has paused for too long"), true),
            };
            if (ends || self.filter.over())
                && let Some(reserved) = self.reserved.take()
            {
                reserved.settle(self.filter.tokens()).await;
            }
            if !out.is_empty() && !matches!(timeout(patience.pause, to.send(out.into())).await, Ok(Ok(()))) {
                return;
            }
            if ends {
                return;
            }
        }
    }

    /// Reads on, for whom it was is gone: what it has used is said at its end.
    async fn drain(&mut self) {
        let (patience, response) = (self.provider.patience, &mut self.response);
        let (filter, cover) = (&mut self.filter, &self.provider.cover);
        let reading = async {
            while !filter.over() && !filter.failed() {
                match timeout(patience.pause, response.chunk()).await {
                    Ok(Ok(Some(part))) => drop(filter.take(&part, cover)),
                    Ok(Ok(None)) => return drop(filter.end(cover)),
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        };
        drop(timeout(patience.drain, reading).await);
    }

    /// All of it, for whoever hears `to`.
    async fn run(mut self, to: Sender<Bytes>, ending: CancellationToken) {
        let reading = async {
            tokio::select! {
                () = self.send(&to) => {}
                () = to.closed() => {}
            }
            // Whoever does not read has the end of what there is.
            drop(to);
            if self.reserved.is_some() {
                self.drain().await;
            }
        };
        ending.run_until_cancelled(reading).await;
        if let Some(reserved) = self.reserved.take() {
            reserved.settle(self.filter.tokens()).await;
        }
    }
}

/// An answer that is events, each sent on when it is whole. It goes on by itself: who neither reads nor goes holds nothing for
/// long.
fn events(
    provider: Arc<Provider>,
    response: Response,
    reserved: Reserved,
    asked: (bool, u64),
    tasks: &TaskTracker,
    ending: &CancellationToken,
) -> BoxStream<'static, Bytes> {
    let (shows_usage, answers) = asked;
    let filter = Filter::new(shows_usage, answers);
    let under = Under { provider, response, filter, reserved: Some(reserved) };
    let (to, from) = mpsc::channel(WAITING);
    tasks.spawn(under.run(to, ending.clone()).in_current_span());
    stream::unfold(from, |mut from| async move { from.recv().await.map(|part| (part, from)) }).boxed()
}
