//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod action;
mod certificates;
mod device;
mod durability;
mod executor;
mod guide;
mod http;
mod incidents;
mod ingest;
mod kafka;
mod kafka_server;
mod mail;
mod nats;
mod nats_server;
mod pagerduty;
mod program;
mod publish;
mod reload;
mod replay;
mod router;
mod site;
mod slack;
mod station;
mod webhook;
mod whole;
mod workspace;
