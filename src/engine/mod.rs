//! See the map in `lib.rs`.

pub mod pipeline;
