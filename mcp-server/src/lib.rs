//! The tools, and their two doors: MCP and JSON over HTTP.
