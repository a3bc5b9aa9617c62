//! Black-box tests against the built binary, with real clients.
