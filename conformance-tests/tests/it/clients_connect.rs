//! The settings that `steading connect` gives each client, read by that client where it is installed.
