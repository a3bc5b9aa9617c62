//! The control plane: tenants, environments, credentials, limits, audit, secrets and tokens.
