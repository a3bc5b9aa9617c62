//! What functions ask of their app: rows, files and other functions, in this process, by the ways that visitors use.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use functions::{Asker, By, Sent};
use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use kernel::{CallId, Code, Error, Result};

use super::caller::{During, Inside, Rights, Sender};
use super::{headers, models, takes};
use crate::Which;
use crate::data::{self, refused};
use crate::serve::{Edge, Visit};

/// Which request the function makes its own one for, and whether it asks with the rights of who made that.
const REQUEST: [&str; 2] = ["steading-fn-request", "steading-request"];
const RIGHTS: [&str; 2] = ["steading-fn-rights", "steading-rights"];

/// The interfaces that a function has beside other functions.
const INTERFACES: [&str; 2] = ["/_/db/", "/_/files/"];
const BATCH: &str = "/_/batch";

impl Edge {
    /// Answers what a function asks. Nothing in the request says who it is: its sender is known.
    pub async fn asked_by(&self, asker: &Asker, request: Request<Incoming>) -> http::Response<Sent> {
        let id = CallId::new();
        let (parts, body) = request.into_parts();
        if parts.uri.path().starts_with(models::BELOW) {
            let during = models::during(asker, text(&parts.headers, REQUEST));
            let response = models::answer(self, asker, &parts, Body::new(body), during, id).await;
            return response.map(|body| body.map_err(Into::into).boxed_unsync());
        }
        let response = match inside(asker, parts) {
            Ok(parts) => {
                let during = Inside::of(&parts).and_then(|inside| inside.during.clone());
                let body = match during {
                    Some(during) => Body::new(Held { body, during }),
                    None => Body::new(body),
                };
                Box::pin(self.within(asker, &parts, body, id)).await
            }
            Err(refusal) => refused(&refusal, &asker.env, id),
        };
        response.map(|body| body.map_err(Into::into).boxed_unsync())
    }

    async fn within(&self, asker: &Asker, parts: &Parts, body: Body, id: CallId) -> Response {
        let env = &asker.env;
        if !takes(parts.uri.path()) {
            return self.data.answer(env, parts, body, id).await;
        }
        let served = match self.apps.release(env, Which::Live).await {
            Ok(Some(served)) => served,
            Ok(None) => return refused(&data::unknown(), env, id),
            Err(error) => return refused(&error, env, id),
        };
        let visit = Visit { env, served: &served, which: Which::Live, request: parts, id };
        super::answer(self, &visit, body).await
    }
}

/// The request as one of the data plane, with the rights that its sender has.
fn inside(asker: &Asker, parts: Parts) -> Result<Parts> {
    let path = parts.uri.path();
    if path != BATCH && !takes(path) && !INTERFACES.iter().any(|begin| path.starts_with(begin)) {
        return Err(Error::not_found("such interface for functions")
            .hint("they have /_/db/…, /_/batch, /_/files/…, /_/fn/…, /_/svc/… and /v1/chat/completions"));
    }
    let request = text(&parts.headers, REQUEST);
    let depth = asker.depth(request).saturating_add(1);
    let place = match text(&parts.headers, RIGHTS) {
        None => None,
        Some("caller") => in_place_of(request.map_or(By::Nobody, |id| asker.by(id)))?,
        Some(_) => return Err(over()),
    };
    let (sender, during) = place.unzip();
    let mut made = parts;
    headers::from_function(&mut made.headers);
    made.extensions = http::Extensions::new();
    let inside = Inside { by: asker.name.clone(), depth, during };
    made.extensions.insert(inside);
    if let Some(Sender { token, peer }) = sender {
        if let Some(token) = token {
            let line = format!("Bearer {}", token.expose());
            let mut line = HeaderValue::try_from(line).map_err(Error::internal)?;
            line.set_sensitive(true);
            made.headers.insert(AUTHORIZATION, line);
        }
        if let Some(peer) = peer {
            made.extensions.insert(peer);
        }
    }
    let path = made.uri.path_and_query().cloned().ok_or_else(data::unknown)?;
    made.uri = Uri::from(path);
    Ok(made)
}

/// In whose place a function asks that says so: nobody's but its own where it is the platform that has asked it, or another
/// function with its own rights.
///
/// # Errors
/// `forbidden` where it works on no such request, so that nothing is its own that was to be somebody's.
fn in_place_of(by: By) -> Result<Option<(Sender, During)>> {
    let rights = match by {
        By::Nobody => return Err(over()),
        By::Platform => return Ok(None),
        By::Somebody(rights) => rights.downcast::<Rights>().map_err(|_| over())?,
    };
    match &*rights {
        Rights::Own => Ok(None),
        Rights::Of(sender, _) if rights.last() => Ok(Some((sender.clone(), During::new(&rights)))),
        Rights::Of(..) => Err(over()),
    }
}

fn over() -> Error {
    Error::new(Code::Forbidden, "this is for no request that the function works on")
        .hint("ask with ctx.db, ctx.files and ctx.fn only while its request is answered or waited for")
}

/// The body of a request in somebody's place, which comes to its end only while theirs is worked on: one that is held back
/// would otherwise keep their rights for as long.
struct Held<B> {
    body: B,
    during: During,
}

impl<B> HttpBody for Held<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match self.during.lasts() {
            true => frame.map(|frame| frame.map_err(Into::into)),
            false => Some(Err(Box::new(over()))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The header of a function, or of a service.
fn text<'a>(headers: &'a HeaderMap, names: [&str; 2]) -> Option<&'a str> {
    names.into_iter().find_map(|name| headers.get(name))?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn somebody(during: Option<During>) -> Arc<Rights> {
        Arc::new(Rights::Of(Sender { token: None, peer: None }, during))
    }

    fn is_own(by: By) -> Option<bool> {
        in_place_of(by).ok().map(|place| place.is_none())
    }

    #[test]
    fn only_the_platform_and_functions_with_their_own_rights_are_answered_with_its_own() {
        assert_eq!(is_own(By::Nobody), None);
        assert_eq!(is_own(By::Platform), Some(true));
        assert_eq!(is_own(By::Somebody(Arc::new(Rights::Own))), Some(true));
        let rights = somebody(None);
        assert_eq!(is_own(By::Somebody(Arc::clone(&rights) as Arc<_>)), Some(false));
        assert_eq!(is_own(By::Somebody(Arc::new("another's"))), None);
        // A function that one in somebody's place has asked is in their place no longer than that one.
        let next = somebody(Some(During::new(&rights)));
        assert_eq!(is_own(By::Somebody(Arc::clone(&next) as Arc<_>)), Some(false));
        drop(rights);
        assert_eq!(is_own(By::Somebody(next)), None);
    }

    #[tokio::test]
    async fn a_body_that_is_held_back_is_refused_when_the_request_is_over_that_it_is_for() {
        let held = |during| Body::new(Held { body: Body::from("text"), during });
        let rights = somebody(None);
        let whole = held(During::new(&rights)).collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "text");
        let body = held(During::new(&rights));
        drop(rights);
        let refused = web::body::broken_off(body.collect().await.unwrap_err().into_inner());
        assert_eq!(refused.code(), Code::Forbidden);
    }
}
