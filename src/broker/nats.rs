//! Connecting to NATS.
