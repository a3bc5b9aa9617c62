//! The product: one binary, `steading`.

fn main() {}
