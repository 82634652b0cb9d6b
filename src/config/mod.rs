//! `opmas.toml` and the folders beside it: composes the rooms' own config types and validates the whole before anything starts.

mod content;
mod files;
mod http;
mod settings;
mod settle;
mod setup;
mod shipped;
mod sigma;
mod watch;

pub use content::{Content, Part};
pub use files::{FilesError, Found, MAX_FILE_BYTES, MAX_FILES, folder, is_action, is_extractor, is_pipeline, is_rule, tree};
pub use http::HttpConfig;
pub use settings::{LeaseConfig, Settings};
pub use setup::{Invalid, Paths, Setup};
pub use shipped::{Folder, shipped_actions, shipped_extractors};
pub use sigma::{SigmaConfig, Word, Words, pipeline, rules};
pub use watch::Watcher;
