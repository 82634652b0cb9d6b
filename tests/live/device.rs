//! Against the real part.
