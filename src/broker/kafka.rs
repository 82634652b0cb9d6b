//! Connecting to Kafka.
