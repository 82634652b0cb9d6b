//! See the room of this name in `src`.
