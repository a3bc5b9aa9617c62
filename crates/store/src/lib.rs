//! Control-plane tables, one repository per aggregate, one SQL text for SQLite and Postgres.
