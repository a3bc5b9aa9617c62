//! The built binary seen from outside: real clients, golden tables, and attacks.

#![cfg(test)]

mod app_accounts;
mod app_attacks;
mod app_chance;
mod app_channels;
mod app_cursors;
mod app_doors;
mod app_filters;
mod app_forgeries;
mod app_races;
mod app_random;
mod app_realtime;
mod app_realtime_load;
mod app_reference;
mod app_releases;
mod app_rules;
mod app_sessions;
mod app_todo;
mod assault_credentials;
mod assault_damage;
mod assault_disk;
mod assault_doomed;
mod assault_input;
mod assault_kill;
mod assault_lives;
mod assault_matrix;
mod assault_secrets;
mod assault_tenants;
mod assault_writes;
mod clients_agents;
mod clients_cli;
mod clients_cold_agent;
mod clients_connect;
mod clients_hello;
mod clients_inspector;
mod clients_python;
mod clients_todo;
mod clients_typescript;
mod clients_whole_app;
mod golden_authorization;
mod golden_errors;
mod golden_tools;
mod sdk_client;
mod skills_hold;
