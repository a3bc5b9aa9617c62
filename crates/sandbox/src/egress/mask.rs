//! Secrets in what a host answers: each becomes as many stars, while it streams.
//!
//! A secret is found as it is, and in the forms in which it was sent: Basic's, and percent-coded in a query. A host that
//! hands it back in another form (compressed although that was not asked for, encoded, in pieces across answers) is not
//! stopped: it is a host that the secret was given to.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};

use crate::relay::Switched;

const STAR: u8 = b'*';

/// Finds secrets in one stream of bytes and covers them; nothing gets longer or shorter. Held back is only an end that a
/// secret may begin with, less than the longest one.
#[derive(Clone)]
pub(super) struct Mask {
    finders: Vec<Finder<'static>>,
    held: BytesMut,
    /// Which of the bytes that are held are covered.
    covered: Vec<Range<usize>>,
}

impl Mask {
    pub(super) fn of(secrets: Vec<Vec<u8>>) -> Self {
        let finders = secrets.iter().map(|secret| Finder::new(secret).into_owned()).collect();
        Self { finders, held: BytesMut::new(), covered: Vec::new() }
    }

    /// Covers what is in header fields.
    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            let mut whole = self.clone();
            let mut bytes = BytesMut::from(&whole.next(Bytes::copy_from_slice(value.as_bytes()))[..]);
            bytes.extend_from_slice(&whole.rest());
            if bytes != value.as_bytes()
                && let Ok(covered) = HeaderValue::from_bytes(&bytes)
            {
                *value = covered;
            }
        }
    }

    /// What of the stream can go on after `chunk` has come.
    pub(super) fn next(&mut self, chunk: Bytes) -> Bytes {
        let mut all = if self.held.is_empty() {
            chunk
        } else {
            self.held.extend_from_slice(&chunk);
            self.held.split().freeze()
        };
        let mut covered = std::mem::take(&mut self.covered);
        covered.extend(self.finders.iter().flat_map(|finder| places(finder, &all)));
        let hold = self.finders.iter().map(|finder| begun(finder.needle(), &all)).max().unwrap_or(0);
        let kept = all.len() - hold;
        self.held = BytesMut::from(&all[kept..]);
        if covered.is_empty() {
            all.truncate(kept);
            return all;
        }
        let mut shown = BytesMut::from(&all[..kept]);
        for Range { start, end } in covered {
            shown[start.min(kept)..end.min(kept)].fill(STAR);
            if end > kept {
                self.covered.push(start.saturating_sub(kept)..end - kept);
            }
        }
        shown.freeze()
    }

    /// What is left at the end of the stream.
    pub(super) fn rest(&mut self) -> Bytes {
        let mut rest = self.held.split();
        for covered in std::mem::take(&mut self.covered) {
            rest[covered].fill(STAR);
        }
        rest.freeze()
    }
}

/// Where a secret is, also where it overlaps with itself.
fn places(finder: &Finder<'_>, all: &[u8]) -> Vec<Range<usize>> {
    let (mut places, mut from) = (Vec::new(), 0);
    while let Some(at) = all.get(from..).and_then(|rest| finder.find(rest)) {
        places.push(from + at..from + at + finder.needle().len());
        from += at + 1;
    }
    places
}

/// How many of the last bytes may be the beginning of a secret.
fn begun(secret: &[u8], all: &[u8]) -> usize {
    let most = secret.len().saturating_sub(1).min(all.len());
    (1..=most).rev().find(|length| all.ends_with(&secret[..*length])).unwrap_or(0)
}

/// A body whose secrets are covered.
pub(super) struct Masked {
    body: Incoming,
    mask: Mask,
    ended: bool,
}

impl Masked {
    pub(super) fn new(body: Incoming, mask: Mask) -> Self {
        Self { body, mask, ended: false }
    }
}

impl Body for Masked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        while !self.ended {
            let shown = match ready!(Pin::new(&mut self.body).poll_frame(cx)?) {
                // What trails is not passed on.
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.mask.next(data),
                    Err(_) => continue,
                },
                None => {
                    self.ended = true;
                    self.mask.rest()
                }
            };
            if !shown.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(shown))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || (self.body.is_end_stream() && self.mask.held.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        let (body, held) = (self.body.size_hint(), self.mask.held.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + held);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

/// Carries bytes both ways until one side ends, with the secrets covered in those that come in.
pub(super) async fn carry(switched: Switched, mut mask: Mask) {
    let (Ok(client), Ok(server)) = futures::join!(switched.client, switched.server) else { return };
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_server, mut to_server) = split(TokioIo::new(server));
    let out = copy(&mut from_client, &mut to_server);
    let back = async {
        let mut chunk = BytesMut::with_capacity(16 << 10);
        while from_server.read_buf(&mut chunk).await.is_ok_and(|read| read > 0) {
            if to_client.write_all(&mask.next(chunk.split().freeze())).await.is_err() {
                return;
            }
            chunk.reserve(16 << 10);
        }
        // Whoever is gone does not miss it.
        drop(to_client.write_all(&mask.rest()).await);
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        _ = out => {}
        () = back => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(secrets: &[&str]) -> Mask {
        Mask::of(secrets.iter().map(|secret| secret.as_bytes().to_vec()).collect())
    }

    /// What comes out for what goes in, and how much was held back at the most.
    fn through(mut mask: Mask, chunks: &[&[u8]]) -> (String, usize) {
        let (mut all, mut most) = (Vec::new(), 0);
        for chunk in chunks {
            all.extend_from_slice(&mask.next(Bytes::copy_from_slice(chunk)));
            most = most.max(mask.held.len());
        }
        all.extend_from_slice(&mask.rest());
        (String::from_utf8(all).unwrap(), most)
    }

    #[test]
    fn a_secret_is_covered_wherever_it_is_cut() {
        let text = b"before real-value and real-valu, real-valuereal-value";
        for cut in 0..text.len() {
            for next in cut..text.len() {
                let chunks = [&text[..cut], &text[cut..next], &text[next..]];
                let (shown, held) = through(mask(&["real-value"]), &chunks);
                assert_eq!(shown, "before ********** and real-valu, ********************", "{cut} {next}");
                assert!(held < 10);
            }
        }
    }

    #[test]
    fn secrets_within_and_across_each_other_are_all_covered() {
        assert_eq!(through(mask(&["abcdefgh", "efghijkl"]), &[b"abcdefg", b"hijklm"]).0, "************m");
        assert_eq!(through(mask(&["abcdefgh", "cdef"]), &[b"abcdefxabc", b"defgh"]).0, "ab****x********");
        assert_eq!(through(mask(&["aXXXXXXa"]), &[b"aXXXXXXa", b"XXXXXXab"]).0, "***************b");
        assert_eq!(through(mask(&["abababab"]), &[b"ababababa", b"bx"]).0, "**********x");
        assert_eq!(through(mask(&["aXXXXXXa"]), &[b"aXXXXXXa"]).0, "********");
    }

    #[test]
    fn header_values_are_covered_and_the_others_stay() {
        let mut headers = HeaderMap::new();
        for value in ["x real-value y", "real-val"] {
            headers.append("x", HeaderValue::from_static(value));
        }
        mask(&["real-value"]).headers(&mut headers);
        let values: Vec<_> = headers.values().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, ["x ********** y", "real-val"]);
    }

    proptest! {
        #[test]
        fn in_chunks_comes_out_what_comes_out_in_one(
            text in "[abc]{0,60}", secrets in proptest::collection::vec("[abc]{2,6}", 1..3), size in 1_usize..7,
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut expected = text.clone().into_bytes();
            for secret in &secrets {
                for at in 0..text.len() {
                    if text[at..].starts_with(secret) {
                        expected[at..at + secret.len()].fill(STAR);
                    }
                }
            }
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(through(mask(&secrets), &chunks).0.into_bytes(), expected);
        }
    }
}
