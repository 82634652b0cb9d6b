//! The doors for people and their tools: HTTP, and the control socket in the data folder.

pub mod control;
pub mod http;
pub mod ingest;
pub mod runs;
