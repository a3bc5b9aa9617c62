//! Which credential may call which tool, as a table.
