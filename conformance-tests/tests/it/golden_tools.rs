//! What a model pays for the tools, in tokens.
