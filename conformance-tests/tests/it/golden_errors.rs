//! Every error code that can be provoked: its HTTP status, its exit code, its words.
