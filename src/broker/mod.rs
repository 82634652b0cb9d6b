//! Connections to Kafka and NATS: `[broker.NAME]` of the configuration, with encryption and credentials. Sources read
//! through them, `publish` writes through them.

mod config;
pub mod kafka;
pub mod nats;

pub use config::{BrokerConfig, KafkaConfig, Mechanism, NatsConfig, Protocol, TlsFiles};

/// The header that says which opmas a message comes from: its node. A source drops what its own node published.
pub const ORIGIN: &str = "Opmas-Origin";
