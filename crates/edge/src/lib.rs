//! App traffic: an environment's site, served on its own host.
