//! The edge behind a real listener: bytes in, bytes out.

#[path = "serving/attacks.rs"]
mod attacks;
#[path = "serving/ground.rs"]
mod ground;
#[path = "serving/sites.rs"]
mod sites;
