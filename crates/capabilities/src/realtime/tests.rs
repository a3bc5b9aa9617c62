//! Realtime on a real database: who is told what.
