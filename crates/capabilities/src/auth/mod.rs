//! The users of an app: how they sign in, and how their requests are recognized.
