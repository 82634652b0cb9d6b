//! Sigma YAML to a checked syntax tree. The parser is ours: spans everywhere, closed tables with the nearest known key.

mod ast;

pub use ast::{Body, Comparison, Condition, Correlation, CorrelationType, Detection, Item, Opmas, Piece, Refire, Rule, Search, Test};
