//! The edge behind a real listener: bytes in, bytes out.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod ground;
mod sdk;
mod sign_in;
mod sites;
