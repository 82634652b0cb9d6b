//! `opmas.toml` and the folders beside it: composes the rooms' own config types and validates the whole before anything starts.

mod files;
mod http;
mod settings;
mod setup;
mod shipped;

pub use files::{FilesError, MAX_FILE_BYTES, MAX_FILES, folder, is_action, is_extractor, is_rule, read, tree};
pub use http::HttpConfig;
pub use settings::{LeaseConfig, Settings};
pub use setup::{Invalid, Paths, Setup};
pub use shipped::{Folder, shipped_actions};
