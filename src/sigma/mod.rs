//! Sigma YAML (specification v2.1.0: detection, correlation and filter documents) to a checked syntax tree.
//!
//! ```text
//! text ─ yaml (tree with places) ─ collection ─ params ─ document ─┬─ detection: modifier, value, text, condition
//!                                                     ├─ correlation, opmas
//!                                                     └─ filter
//! all files ─ resolve (references, filters, cycles, silence) ─ processing (pipelines) ─ RuleSet
//! ```
//!
//! The parser is ours: a place for everything, closed tables with the nearest known key. The file is what is accepted or refused (C13).

mod ast;
mod cases;
mod collection;
mod condition;
mod correlation;
mod detection;
mod document;
mod lint;
mod modifier;
mod opmas;
mod params;
mod processing;
mod read;
mod resolve;
mod ruleset;
mod text;
mod value;
mod yaml;

pub use ast::{
    Body, Comparison, Condition, Correlation, CorrelationType, DASHES, Detection, Item, Opmas, Pattern, Piece, Refire, Rule, Search, Test, TimePart,
};
pub use cases::{Case, cases};
pub use lint::{Weight, fields, lint};
pub use processing::manifest;
pub use ruleset::{CASES_SUFFIX, Loaded, MAX_FILE_BYTES, RuleSet, load};
