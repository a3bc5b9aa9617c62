//! What a tool is, and the one road to it.
