//! The built binary seen from outside: real clients, golden tables, and attacks.

mod assault_credentials;
mod assault_doomed;
mod assault_input;
mod assault_kill;
mod assault_lives;
mod assault_matrix;
mod assault_tenants;
