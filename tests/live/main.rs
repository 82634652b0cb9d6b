//! Real services and devices; started by `tests/run.sh`, which runs as root.

mod action;
mod certificates;
mod device;
mod durability;
mod executor;
mod guide;
mod http;
mod incidents;
mod mail;
mod pagerduty;
mod program;
mod reload;
mod router;
mod site;
mod slack;
mod station;
mod webhook;
mod whole;
mod workspace;
