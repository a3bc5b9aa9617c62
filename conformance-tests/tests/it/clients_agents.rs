//! Coding agents, with no account: each connects and calls one tool for a model that this test plays.
