//! What people who sign in can do, and what those who attack them cannot.

mod accounts;
mod fixture;
mod guesses;
mod passkeys;
mod second;
mod sessions;
mod tokens;
mod ways;
